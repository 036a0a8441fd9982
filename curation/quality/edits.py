"""Edits: spans of a text and what stands in their place; stored text is never rewritten.

A span is [start, end) in UTF-8 bytes of the stored text. The spans of a text ascend and do not
overlap; they may touch. A later stage may override an edit by another one of the same span.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curation.errors import LakeCorrupt
from curation.ingest.text import utf8_buffers

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]

EDITS_TYPE = pa.list_(
    pa.struct([("start", pa.int32()), ("end", pa.int32()), ("replacement", pa.string())])
)


def apply_edits(text: pa.Array, edits: pa.Array) -> pa.Array:
    """Return every text with its edits applied, in the type of `text`; null stays null.

    `edits` is EDITS_TYPE, one list a text; a null list is an empty one, a null replacement an
    empty one. Raises LakeCorrupt, naming row and span, for a span that is null, overlaps or
    precedes the one before, leaves the text, or begins or ends inside a character.
    Cost: O(bytes).
    """
    data, offsets = utf8_buffers(text)
    ends, starts, stops, replacements, replacement_offsets = _spans(edits)
    if len(ends) != len(offsets):
        raise ValueError(f"{len(offsets) - 1} texts, but {len(ends) - 1} lists of edits")
    wrong = _first_invalid(data, offsets, ends, starts, stops)
    if wrong >= 0:
        row = int(np.searchsorted(ends, wrong, side="right")) - 1
        raise LakeCorrupt(
            f"row {row} has a text of {offsets[row + 1] - offsets[row]} bytes and the edit "
            f"[{starts[wrong]}, {stops[wrong]}), which overlaps or precedes another, leaves the "
            "text or splits a character; run the stage that wrote the edits again"
        )
    edited, edited_offsets = _apply(
        data, offsets, ends, starts, stops, replacements, replacement_offsets
    )
    validity = None if text.null_count == 0 else pc.is_valid(text).buffers()[1]
    return pa.Array.from_buffers(
        pa.large_string(),
        len(text),
        [validity, pa.py_buffer(edited_offsets), pa.py_buffer(edited)],
    ).cast(text.type)


def num_bytes_removed(edits: pa.Array) -> pa.Int64Array:
    """Return by how many bytes the edits of each text shorten it: bytes cut less bytes put in.

    Negative where replacements are longer; 0 for a null list. For every text,
    bytes(text) = bytes(apply_edits(text)) + num_bytes_removed(edits).
    """
    ends, starts, stops, _, replacement_offsets = _spans(edits)
    removed = stops - starts - np.diff(replacement_offsets)
    total = np.concatenate([[0], np.cumsum(removed)])
    return pa.array(total[ends[1:]] - total[ends[:-1]])


def to_stored(later: pa.Array, earlier: pa.Array) -> pa.ListArray:
    """Return edits of edited texts as edits of the stored texts, in EDITS_TYPE.

    `earlier` made the edited texts; one application of both does what two one after the other
    would. A later edit is split around earlier cuts; the first piece takes its replacement. An
    earlier replacement of which it covers some is overridden whole, by an edit of the same span:
    see `in_force`. Cost: O(edits).
    """
    ends, starts, stops, _, _ = _spans(later)
    edit_ends, edit_starts, edit_stops, _, replacement_offsets = _spans(earlier)
    new_ends, new_starts, new_stops, owner, is_first = _to_stored(
        ends, starts, stops, edit_ends, edit_starts, edit_stops, np.diff(replacement_offsets)
    )
    replacement = pc.struct_field(_flat(later), "replacement").fill_null("").take(pa.array(owner))
    pieces = pa.StructArray.from_arrays(
        [
            pa.array(new_starts, pa.int32()),
            pa.array(new_stops, pa.int32()),
            pc.if_else(pa.array(is_first), replacement, ""),
        ],
        fields=list(EDITS_TYPE.value_type),
    )
    return pa.ListArray.from_arrays(pa.array(new_ends.astype(np.int32)), pieces)


def in_force(edits: pa.Table) -> pa.Table:
    """Return the rows of edits that count: of several of one document and span, the last.

    Rows have doc_id, start and end, and those of a later stage come after those of an earlier one.
    They are returned ascending by document and span.
    """
    order = pc.sort_indices(
        edits, sort_keys=[("doc_id", "ascending"), ("start", "ascending"), ("end", "ascending")]
    )
    edits = edits.take(order)  # a stable sort
    is_last = np.ones(edits.num_rows, np.bool_)
    for name in ("doc_id", "start", "end"):
        values = edits[name].to_numpy()
        same = values[1:] == values[:-1]
        is_last[:-1] = ~same if name == "doc_id" else is_last[:-1] | ~same
    return edits.filter(pa.array(is_last))


def _flat(edits: pa.Array) -> pa.StructArray:
    """Return the spans of all lists; respects slices, leaves out what lies under a null list."""
    if isinstance(edits, pa.ChunkedArray):
        edits = edits.combine_chunks()
    return edits.flatten()


def _spans(
    edits: pa.Array,
) -> tuple[Int64Array, Int64Array, Int64Array, UInt8Array, Int64Array]:
    """Return the n + 1 ends of the lists, all starts and stops, and the replacements' buffers.

    A null start or stop becomes -1, which is no valid place.
    """
    if isinstance(edits, pa.ChunkedArray):
        edits = edits.combine_chunks()
    lengths = np.asarray(pc.list_value_length(edits).fill_null(0), dtype=np.int64)
    spans = _flat(edits)
    start, stop, replacement = (
        pc.struct_field(spans, name) for name in ("start", "end", "replacement")
    )
    replacements, replacement_offsets = utf8_buffers(replacement.fill_null(""))
    return (
        np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        np.asarray(start.fill_null(-1), dtype=np.int64),
        np.asarray(stop.fill_null(-1), dtype=np.int64),
        replacements,
        replacement_offsets,
    )


@njit(cache=True, nogil=True)
def _first_invalid(
    data: UInt8Array, offsets: Int64Array, ends: Int64Array, starts: Int64Array, stops: Int64Array
) -> int:
    """Return the place of the first span that is invalid, or -1."""
    for i in range(len(offsets) - 1):
        size = offsets[i + 1] - offsets[i]
        free = 0
        for k in range(ends[i], ends[i + 1]):
            if not free <= starts[k] <= stops[k] <= size:
                return k
            for place in (starts[k], stops[k]):
                if place < size and data[offsets[i] + place] & 0xC0 == 0x80:
                    return k
            free = stops[k]
    return -1


@njit(cache=True, nogil=True)
def _apply(
    data: UInt8Array,
    offsets: Int64Array,
    ends: Int64Array,
    starts: Int64Array,
    stops: Int64Array,
    replacements: UInt8Array,
    replacement_offsets: Int64Array,
) -> tuple[UInt8Array, Int64Array]:
    num_texts = len(offsets) - 1
    edited_offsets = np.zeros(num_texts + 1, np.int64)
    for i in range(num_texts):
        size = offsets[i + 1] - offsets[i]
        for k in range(ends[i], ends[i + 1]):
            size += replacement_offsets[k + 1] - replacement_offsets[k] - (stops[k] - starts[k])
        edited_offsets[i + 1] = edited_offsets[i] + size
    edited = np.empty(edited_offsets[num_texts], np.uint8)
    for i in range(num_texts):
        at, read = edited_offsets[i], offsets[i]
        for k in range(ends[i], ends[i + 1]):
            at = _copy(data, read, offsets[i] + starts[k], edited, at)
            at = _copy(replacements, replacement_offsets[k], replacement_offsets[k + 1], edited, at)
            read = offsets[i] + stops[k]
        _copy(data, read, offsets[i + 1], edited, at)
    return edited, edited_offsets


@njit(cache=True, nogil=True)
def _to_stored(
    ends: Int64Array,
    starts: Int64Array,
    stops: Int64Array,
    edit_ends: Int64Array,
    edit_starts: Int64Array,
    edit_stops: Int64Array,
    replacement_sizes: Int64Array,
) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array, npt.NDArray[np.bool_]]:
    """Return ends, starts and stops of the pieces, whose they are, and whether its first."""
    room = len(starts) + 2 * len(edit_starts)  # an edit splits at most one span, and is overridden
    new_starts, new_stops = np.empty(room, np.int64), np.empty(room, np.int64)
    owner = np.empty(room, np.int64)
    new_ends = np.zeros(len(ends), np.int64)
    found = 0
    for i in range(len(ends) - 1):
        k, last = edit_ends[i], edit_ends[i + 1]
        stored, edited = 0, 0  # where the text between two edits begins, in both
        overridden = -1
        for span in range(ends[i], ends[i + 1]):
            start, stop = starts[span], stops[span]
            while True:
                # the next edit begins here in the edited text; after the last there is none
                border = edited + edit_starts[k] - stored if k < last else stop
                low, high = max(start, edited), min(stop, border)
                if low < high:
                    new_starts[found] = stored + low - edited
                    new_stops[found] = stored + high - edited
                    owner[found] = span
                    found += 1
                if k == last or stop <= border:
                    break
                after = border + replacement_sizes[k]
                if start < after and k != overridden and replacement_sizes[k] > 0:
                    new_starts[found], new_stops[found] = edit_starts[k], edit_stops[k]
                    owner[found] = span
                    found += 1
                    overridden = k
                if stop <= after:
                    break
                edited, stored = after, edit_stops[k]
                k += 1
        new_ends[i + 1] = found
    owner = owner[:found]
    is_first = np.ones(found, np.bool_)
    is_first[1:] = owner[1:] != owner[:-1]
    return new_ends, new_starts[:found], new_stops[:found], owner, is_first


@njit(cache=True, nogil=True)
def _copy(source: UInt8Array, start: int, end: int, target: UInt8Array, at: int) -> int:
    """Copy a range of bytes to `at`; return where it ends."""
    target[at : at + end - start] = source[start:end]
    return at + end - start
