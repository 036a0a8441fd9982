"""Contamination: texts of benchmarks inside documents, by exact runs of words.

DeepSeek's rule (DeepSeekMath, arXiv 2402.03300, section 2.1; DeepSeek-Coder, arXiv 2401.14196,
section 2.4): a document with any 10-gram of a benchmark's text is contaminated; a benchmark text of
3 to 9 words is matched whole; shorter ones are not matched, and counted. Unlike there, a text that
is matched whole needs three words of two letters or more: "A, B, C", "1-2-3-4" and 127.0.0.1 are
answers of some benchmark, and no evidence. Words are those of
`curation.ingest.text`, so case, diacritics, punctuation and spacing make no difference. In scripts
written without spaces a character is a word, and ten characters are a common phrase: a text of more
such characters than other words is matched by 16 in a row, or whole from 5 on (CHARACTERS_PER_WORD
of `curation.quality.rules`).

Runs are compared by 64-bit hashes: with a million runs of benchmarks, one of 10^13 runs of a crawl
is taken for one by mistake.
"""

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

from curation.errors import InputInvalid, InputMissing
from curation.hashing import FMIX_1, FNV_OFFSET, FNV_PRIME, fmix64
from curation.ingest.text import (
    FOLD_BITS,
    KIND_AND_FOLD,
    MARK,
    SEPARATOR,
    SINGLE,
    decode,
    utf8_buffers,
)
from curation.quality.edits import EDITS_TYPE
from curation.quality.rules import CHARACTERS_PER_WORD

UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".txt")
MIN_FILTER_BITS, MAX_FILTER_BITS = 16, 27  # of a hash: the bitmap that turns most places away
LINE_FEED = 0x0A


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: its name and texts."""

    name: str
    texts: Sequence[str]


class Index(NamedTuple):
    """The runs of words of some benchmarks."""

    names: tuple[str, ...]
    num_texts: tuple[int, ...]  # of each benchmark
    num_short: tuple[int, ...]  # of them, texts that are too short to be matched
    lengths: Int32Array  # words of a run, ascending
    ends: Int64Array  # hashes of runs of lengths[i] are hashes[ends[i] : ends[i + 1]], ascending
    hashes: UInt64Array
    owners: UInt64Array  # [run, k]: bits 64 k + j are set of the benchmarks that have the run
    seen: BoolArray  # whether some run begins with words of these low bits: lengths[0] of them


class Found(NamedTuple):
    """Spans of texts that stand in benchmarks; those of text i are at ends[i] up to ends[i + 1]."""

    ends: Int64Array
    start: Int64Array  # bytes of the text, from the first word of a run
    end: Int64Array  # to the last one; spans are disjoint and do not touch
    owners: UInt64Array  # [text, k], as in Index

    @property
    def num_spans(self) -> Int64Array:
        """Spans of each text."""
        return np.diff(self.ends)

    def benchmarks(self, names: pa.Array) -> pa.ListArray:
        """Return for each text the names, in their order, of the benchmarks that it holds of."""
        bits = np.unpackbits(self.owners.astype("<u8").view(np.uint8), axis=1, bitorder="little")[
            :, : len(names)
        ].reshape(len(self.owners), len(names))
        _, which = np.nonzero(bits)
        ends = np.concatenate([[0], np.cumsum(bits.sum(axis=1))]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(ends), names.take(pa.array(which)))


def benchmark_files(path: str) -> list[str]:
    """Return the files of a benchmark, ascending: a file, those in a folder, or those of a glob.

    Raises InputMissing where there is none, InputInvalid for a file of an unknown kind.
    """
    place = Path(path)
    if place.is_dir():
        files = sorted(str(file) for file in place.iterdir() if _suffix(file) in SUFFIXES)
    elif any(sign in path for sign in "*?["):
        anchor = Path(place.anchor)
        files = sorted(map(str, anchor.glob(str(place.relative_to(anchor)))))
    else:
        files = [path] if place.is_file() else []
    if not files:
        raise InputMissing(
            f"contamination.benchmarks names {path}, where no file is; name a file, folder or glob "
            f"of {', '.join(SUFFIXES)}, gzipped or not"
        )
    for file in files:
        if _suffix(Path(file)) not in SUFFIXES:
            raise InputInvalid(
                f"{file} is no file of a benchmark; it must end in {', '.join(SUFFIXES)}, or in "
                "one of them and .gz"
            )
    return files


def read_texts(path: str, fields: Sequence[str] = ()) -> list[str]:
    """Return the texts in a file of a benchmark: of some fields, or every string without numbers.

    A text file has a text a line. Raises InputInvalid naming file, line and field.
    """
    found: list[str] = []
    for number, row in _rows(Path(path)):
        missing = [name for name in fields if not isinstance(row, dict) or name not in row]
        if missing:
            known = ", ".join(row) if isinstance(row, dict) else "none"
            raise InputInvalid(
                f"{path}, row {number} has no field {missing[0]!r}; it has {known}: change "
                "contamination.benchmarks.fields"
            )
        found += _strings([row[name] for name in fields] if fields else row)
    if not any(text.strip() for text in found):
        raise InputInvalid(f"{path} holds no text; name its fields, or another file")
    return found


def compile_index(benchmarks: Sequence[Benchmark], ngram: int = 10, min_ngram: int = 3) -> Index:
    """Return the runs of words that make a document contaminated.

    Cost: O(words of the benchmarks), about 1 M words/s, 30 bytes a run.
    """
    runs: list[tuple[Int64Array, UInt64Array, Int64Array]] = []  # length, hash, benchmark
    buffers = []
    num_short = []
    cjk, min_cjk = (max(1, round(n * CHARACTERS_PER_WORD)) for n in (ngram, min_ngram))
    sizes = (ngram, min_ngram, cjk, min_cjk)
    for number, benchmark in enumerate(benchmarks):
        data, offsets = utf8_buffers(pa.array(list(benchmark.texts), pa.large_string()))
        lengths, hashes, short = _runs(data, offsets, KIND_AND_FOLD, sizes, 0)
        runs.append((lengths, hashes, np.full(len(hashes), number)))
        buffers.append((data, offsets))
        num_short.append(int(short))
    length, hashed, owner = (
        np.concatenate([np.zeros(0, dtype), *(run[column] for run in runs)])
        for column, dtype in enumerate((np.int64, np.uint64, np.int64))
    )
    order = np.lexsort((hashed, length))
    length, hashed, owner = length[order], hashed[order], owner[order]
    is_new = np.ones(len(hashed), np.bool_)
    is_new[1:] = (length[1:] != length[:-1]) | (hashed[1:] != hashed[:-1])
    place = np.cumsum(is_new) - 1
    owners = np.zeros((int(is_new.sum()), max(1, -(-len(benchmarks) // 64))), np.uint64)
    np.bitwise_or.at(owners, (place, owner // 64), np.uint64(1) << (owner % 64).astype(np.uint64))
    lengths, counts = np.unique(length[is_new], return_counts=True)
    bits = min(max(MIN_FILTER_BITS, 4 + len(owners).bit_length()), MAX_FILTER_BITS)
    seen = np.zeros(1 << bits, np.bool_)
    for data, offsets in buffers:
        prefix = int(lengths[0]) if len(lengths) else 0
        prefixes = _runs(data, offsets, KIND_AND_FOLD, sizes, prefix)[1]
        seen[prefixes & np.uint64((1 << bits) - 1)] = True
    return Index(
        tuple(benchmark.name for benchmark in benchmarks),
        tuple(len(benchmark.texts) for benchmark in benchmarks),
        tuple(num_short),
        lengths.astype(np.int32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        hashed[is_new],
        owners,
        seen,
    )


def find_contamination(text: pa.Array, index: Index) -> Found:
    """Return the spans of every text that stand in benchmarks; a null text has none.

    Cost: O(bytes), about 100 MB/s a core where little is found.
    """
    data, offsets = utf8_buffers(text)
    return Found(
        *_find(
            data,
            offsets,
            KIND_AND_FOLD,
            index.lengths,
            index.ends,
            index.hashes,
            index.owners,
            index.seen,
        )
    )


def cut_spans(text: pa.Array, found: Found) -> pa.ListArray:
    """Return the lines with a span as edits (EDITS_TYPE) that cut them, newline included.

    Half a question teaches as much as the whole, so no part of a line stays.
    """
    data, offsets = utf8_buffers(text)
    ends, starts, stops = _whole_lines(data, offsets, found.ends, found.start, found.end)
    spans = pa.StructArray.from_arrays(
        [
            pa.array(starts, pa.int32()),
            pa.array(stops, pa.int32()),
            pa.array([""] * len(starts), pa.string()),
        ],
        fields=list(EDITS_TYPE.value_type),
    )
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), spans)


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix == ".gz" else path.name).suffix


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a file, numbered from 1."""
    suffix = _suffix(path)
    if suffix == ".parquet":
        yield from enumerate(pq.read_table(path, partitioning=None).to_pylist(), 1)
        return
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputInvalid(f"{path} cannot be read as UTF-8 ({error}); convert it") from None
    if suffix == ".csv":
        csv.field_size_limit(sys.maxsize)
        yield from enumerate(csv.DictReader(io.StringIO(text)), 1)
        return
    if suffix == ".json":
        tree = _json(text, path, 1)
        yield from enumerate(tree if isinstance(tree, list) else [tree], 1)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _json(line, path, number) if suffix == ".jsonl" else line


def _json(text: str, path: Path, number: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputInvalid(f"{path}, line {number} is not JSON: {error}; mend it") from None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


@njit(cache=True, nogil=True)
def _read_words(
    data: UInt8Array,
    begin: int,
    end: int,
    table: UInt32Array,
    hashes: UInt64Array,
    starts: Int64Array,
    stops: Int64Array,
) -> tuple[int, int, int]:
    """Write hash, first byte and end of every word.

    Returns how many there are, how many are SINGLE, and how many are that or have two letters.
    """
    num_words, num_single, num_telling = 0, 0, 0
    num_letters = 0  # of the present word
    i = begin
    in_word = False
    while i < end:
        at = i
        code_point, i = decode(data, i, end)
        entry = table[code_point]
        what = entry >> FOLD_BITS
        if what == MARK:
            continue
        if what == SEPARATOR:
            in_word = False
            continue
        if what == SINGLE or not in_word:
            hashes[num_words] = FNV_OFFSET
            starts[num_words] = at - begin
            num_words += 1
            num_single += what == SINGLE
            num_telling += what == SINGLE
            num_letters = 0
        folded = np.uint64(entry & ((1 << FOLD_BITS) - 1))
        hashes[num_words - 1] = (hashes[num_words - 1] ^ folded) * FNV_PRIME
        if what != SINGLE and not 0x30 <= folded <= 0x39:
            num_letters += 1
            num_telling += num_letters == 2
        stops[num_words - 1] = i - begin
        in_word = what != SINGLE
    for word in range(num_words):
        hashes[word] = fmix64(hashes[word])
    return num_words, num_single, num_telling


@njit(cache=True, nogil=True)
def _first_run(hashes: UInt64Array, length: int) -> tuple[np.uint64, np.uint64]:
    """Return the polynomial of the first `length` words, and the weight of its first word."""
    h, weight = np.uint64(0), np.uint64(1)
    for k in range(length):
        h = h * FMIX_1 + hashes[k]
        weight = weight * FMIX_1 if k else weight
    return h, weight


@njit(cache=True, nogil=True)
def _runs(
    data: UInt8Array,
    offsets: Int64Array,
    table: UInt32Array,
    sizes: tuple[int, int, int, int],
    prefix: int,
) -> tuple[Int64Array, UInt64Array, int]:
    """Return length and hash of the runs of every text, and how many texts are too short.

    With a prefix, hashes are those of the first words of each run, so many of them.
    """
    ngram, min_ngram, cjk, min_cjk = sizes
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    words = np.empty(longest, np.uint64)
    starts, stops = np.empty(longest, np.int64), np.empty(longest, np.int64)
    room = offsets[len(offsets) - 1] - offsets[0]
    lengths, hashes = np.empty(room, np.int64), np.empty(room, np.uint64)
    found, num_short = 0, 0
    for text in range(len(offsets) - 1):
        num_words, num_single, num_telling = _read_words(
            data, offsets[text], offsets[text + 1], table, words, starts, stops
        )
        is_cjk = 2 * num_single > num_words
        length = min(num_words, cjk if is_cjk else ngram)
        least = min_cjk if is_cjk else min_ngram
        is_whole = length == num_words
        if length < least or (is_whole and num_telling < least):
            num_short += 1
            continue
        size = prefix if prefix else length
        h, weight = _first_run(words, size)
        for first in range(num_words - length + 1):
            if first:
                h = (h - words[first - 1] * weight) * FMIX_1 + words[first + size - 1]
            lengths[found], hashes[found] = length, fmix64(h)
            found += 1
    return lengths[:found].copy(), hashes[:found].copy(), num_short


@njit(cache=True, nogil=True)
def _find(
    data: UInt8Array,
    offsets: Int64Array,
    table: UInt32Array,
    lengths: Int32Array,
    length_ends: Int64Array,
    hashes: UInt64Array,
    owners: UInt64Array,
    seen: BoolArray,
) -> tuple[Int64Array, Int64Array, Int64Array, UInt64Array]:
    num_texts = len(offsets) - 1
    longest = 0
    for text in range(num_texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    words = np.empty(longest, np.uint64)
    starts, stops = np.empty(longest, np.int64), np.empty(longest, np.int64)
    covered_to = np.zeros(longest, np.int64)  # the word behind the longest run that begins here
    text_owners = np.zeros((num_texts, owners.shape[1]), np.uint64)
    ends = np.zeros(num_texts + 1, np.int64)
    span_starts, span_stops = np.empty(64, np.int64), np.empty(64, np.int64)
    mask = np.uint64(len(seen) - 1)
    found = 0
    for text in range(num_texts):
        num_words, _, _ = _read_words(
            data, offsets[text], offsets[text + 1], table, words, starts, stops
        )
        is_hit = False
        prefix = lengths[0] if len(lengths) else num_words + 1
        h, weight = np.uint64(0), np.uint64(1)
        if prefix <= num_words:
            h, weight = _first_run(words, prefix)
        for first in range(num_words - prefix + 1):
            if first:
                h = (h - words[first - 1] * weight) * FMIX_1 + words[first + prefix - 1]
            if not seen[fmix64(h) & mask]:
                continue
            run, size = h, prefix
            for row in range(len(lengths)):
                length = lengths[row]
                if first + length > num_words:
                    break
                while size < length:
                    run = run * FMIX_1 + words[first + size]
                    size += 1
                low, high = length_ends[row], length_ends[row + 1]
                mixed = fmix64(run)
                place = low + np.searchsorted(hashes[low:high], mixed)
                if place < high and hashes[place] == mixed:
                    if not is_hit:
                        covered_to[:num_words] = 0
                        is_hit = True
                    covered_to[first] = first + length
                    for k in range(owners.shape[1]):
                        text_owners[text, k] |= owners[place, k]
        if is_hit:
            reached = -1  # the word behind the present span
            for word in range(num_words):
                if covered_to[word] == 0:
                    continue
                if word > reached:
                    if found == len(span_starts):
                        span_starts = np.append(span_starts, np.empty_like(span_starts))
                        span_stops = np.append(span_stops, np.empty_like(span_stops))
                    span_starts[found] = starts[word]
                    found += 1
                reached = max(reached, covered_to[word])
                span_stops[found - 1] = stops[reached - 1]
        ends[text + 1] = found
    return ends, span_starts[:found].copy(), span_stops[:found].copy(), text_owners


@njit(cache=True, nogil=True)
def _whole_lines(
    data: UInt8Array, offsets: Int64Array, span_ends: Int64Array, start: Int64Array, end: Int64Array
) -> tuple[Int64Array, Int64Array, Int64Array]:
    starts, stops = np.empty(len(start), np.int64), np.empty(len(start), np.int64)
    ends = np.zeros(len(span_ends), np.int64)
    found = 0
    for text in range(len(offsets) - 1):
        begin, size = offsets[text], offsets[text + 1] - offsets[text]
        first_of_text = found
        for span in range(span_ends[text], span_ends[text + 1]):
            low, high = start[span], end[span]
            floor = stops[found - 1] if found > first_of_text else 0
            if low < floor:
                low = floor
            while low > floor and data[begin + low - 1] != LINE_FEED:
                low -= 1
            high = max(high, floor)
            while high < size and (high == 0 or data[begin + high - 1] != LINE_FEED):
                high += 1
            if found > first_of_text and low <= stops[found - 1]:
                stops[found - 1] = max(stops[found - 1], high)
            else:
                starts[found], stops[found] = low, high
                found += 1
        ends[text + 1] = found
    return ends, starts[:found].copy(), stops[:found].copy()
