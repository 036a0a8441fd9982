"""Edits against slicing of bytes in plain Python."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import LakeCorrupt
from curation.quality.edits import (
    EDITS_TYPE,
    apply_edits,
    in_force,
    num_bytes_removed,
    to_stored,
)

Span = tuple[int, int, str | None]
TEXTS = st.text(st.sampled_from("ab \né文\U00020000"), max_size=12)


@st.composite
def edited_texts(draw: st.DrawFn) -> tuple[str | None, list[Span] | None]:
    """A text, and disjoint ascending spans between its characters."""
    text = draw(st.none() | TEXTS)
    if text is None or draw(st.integers(0, 9)) == 0:
        return text, draw(st.sampled_from([None, []]))
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    at = [len(text[:place].encode()) for place in places]
    return text, [
        (start, end, draw(st.none() | TEXTS)) for start, end in zip(at[::2], at[1::2], strict=False)
    ]


def oracle(text: str | None, spans: list[Span] | None) -> str | None:
    if text is None:
        return None
    edited = text.encode()
    for start, end, replacement in reversed(spans or []):
        edited = edited[:start] + (replacement or "").encode() + edited[end:]
    return edited.decode()


def as_edits(lists: list[list[Span] | None]) -> pa.Array:
    keys = ("start", "end", "replacement")
    return pa.array(
        [
            None if spans is None else [dict(zip(keys, span, strict=True)) for span in spans]
            for spans in lists
        ],
        EDITS_TYPE,
    )


@settings(deadline=None)
@given(st.lists(edited_texts(), max_size=5), st.booleans())
def test_edits_equal_slicing(rows: list[tuple[str | None, list[Span] | None]], large: bool) -> None:
    text = pa.array([row[0] for row in rows], pa.large_string() if large else pa.string())
    edited = apply_edits(text, as_edits([row[1] for row in rows]))
    assert edited.to_pylist() == [oracle(*row) for row in rows]
    assert edited.type == text.type
    edited.validate(full=True)


@settings(deadline=None)
@given(st.lists(edited_texts(), min_size=1, max_size=5), st.integers(0, 4))
def test_slices_and_splits_change_nothing(
    rows: list[tuple[str | None, list[Span] | None]], split: int
) -> None:
    text, edits = pa.array([row[0] for row in rows], pa.string()), as_edits([r[1] for r in rows])
    parts = [apply_edits(text[:split], edits[:split]), apply_edits(text[split:], edits[split:])]
    assert pa.concat_arrays(parts).equals(apply_edits(text, edits))


@settings(deadline=None)
@given(st.lists(edited_texts(), max_size=5))
def test_bytes_are_conserved(rows: list[tuple[str | None, list[Span] | None]]) -> None:
    text, edits = pa.array([row[0] for row in rows], pa.string()), as_edits([r[1] for r in rows])
    edited = apply_edits(text, edits).to_pylist()
    for before, after, removed in zip(
        text.to_pylist(), edited, num_bytes_removed(edits).to_pylist(), strict=True
    ):
        assert len((before or "").encode()) == len((after or "").encode()) + removed


def test_null_lists_may_hide_values() -> None:
    spans = as_edits([[(0, 1, "hidden")], [(0, 1, "x")]])
    edits = pa.ListArray.from_arrays(spans.offsets, spans.values, mask=pa.array([True, False]))
    assert apply_edits(pa.array(["ab", "cd"]), edits).to_pylist() == ["ab", "xd"]
    assert num_bytes_removed(edits).to_pylist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("abc", [(0, 2, ""), (1, 3, "")]),  # overlap
        ("abc", [(2, 3, ""), (0, 1, "")]),  # not ascending
        ("abc", [(2, 1, "")]),  # ends before it starts
        ("abc", [(-1, 1, "")]),
        ("abc", [(1, 4, "")]),  # beyond the text
        ("文", [(0, 1, "")]),  # ends inside a character
        ("文", [(1, 3, "")]),  # begins inside one
        ("abc", [(None, 1, "")]),
        (None, [(0, 1, "")]),  # an edit of no text
    ],
)
def test_invalid_spans_are_refused(text: str | None, spans: list[Span]) -> None:
    texts = pa.array(["before", text, "after"], pa.string())
    with pytest.raises(LakeCorrupt, match=r"row 1 .* edit \[.* run the stage"):
        apply_edits(texts, as_edits([[], spans, []]))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 texts, but 1 lists"):
        apply_edits(pa.array(["a", "b"]), as_edits([[]]))


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_edits_of_an_edited_text_become_edits_of_the_stored_one(data: st.DataObject) -> None:
    """Both at once give what one after the other does, if replacements are covered whole."""
    texts = data.draw(st.lists(st.text(alphabet="aé数\n", max_size=12), max_size=4))
    replacements = st.sampled_from(["", "", "<X>", "é"])

    def spans(text: str, fixed: list[tuple[int, int]]) -> list[Span]:
        """Spans between characters, none of which begins or ends inside one of `fixed`."""
        places = [len(text[:at].encode()) for at in range(len(text) + 1)]
        places = [p for p in places if not any(begin < p < end for begin, end in fixed)]
        cuts = sorted(data.draw(st.sets(st.sampled_from(places), max_size=6)))
        return [
            (begin, end, data.draw(replacements))
            for begin, end in zip(cuts[::2], cuts[1::2], strict=False)
        ]

    first = [spans(text, []) for text in texts]
    edited = apply_edits(pa.array(texts, pa.string()), as_edits(first))
    second = []
    for text, edits in zip(edited.to_pylist(), first, strict=True):
        fixed, moved = [], 0  # where the replacements are in the edited text
        for begin, end, replacement in edits:
            size = len(replacement.encode())
            fixed.append((begin + moved, begin + moved + size))
            moved += size - (end - begin)
        second.append(spans(text, fixed))
    mapped = to_stored(as_edits(second), as_edits(first))
    mapped.validate(full=True)
    rows = [
        {"doc_id": document, **edit}
        for lists in (as_edits(first).to_pylist(), mapped.to_pylist())
        for document, edits in enumerate(lists)
        for edit in edits
    ]
    schema = pa.schema([("doc_id", pa.int64()), *EDITS_TYPE.value_type])
    counted = in_force(pa.Table.from_pylist(rows, schema)).to_pylist()
    both = pa.array(
        [[row for row in counted if row["doc_id"] == i] for i in range(len(texts))], EDITS_TYPE
    )
    at_once = apply_edits(pa.array(texts, pa.string()), both)
    assert at_once.equals(apply_edits(edited, as_edits(second)))


def test_a_cut_takes_the_replacements_inside_it() -> None:
    earlier = as_edits([[(2, 4, "XYZ")], [(2, 4, "")], [(2, 4, "XYZ")]])
    # of "abXYZef", "abef" and again "abXYZef", of which the last edit covers one sign of three
    later = as_edits([[(1, 6, "")], [(1, 3, "!")], [(3, 4, "")]])
    assert to_stored(later, earlier).to_pylist() == [
        [
            {"start": 1, "end": 2, "replacement": ""},
            {"start": 2, "end": 4, "replacement": ""},
            {"start": 4, "end": 5, "replacement": ""},
        ],
        [
            {"start": 1, "end": 2, "replacement": "!"},
            {"start": 4, "end": 5, "replacement": ""},
        ],
        [{"start": 2, "end": 4, "replacement": ""}],
    ]


def test_of_several_edits_of_one_span_the_last_counts() -> None:
    rows = [(7, 2, 4, "a"), (7, 0, 1, "b"), (3, 2, 4, "c"), (7, 2, 4, "d"), (7, 2, 5, "e")]
    columns = ("doc_id", "start", "end", "replacement")
    table = pa.table({name: list(values) for name, *values in zip(columns, *rows, strict=True)})
    assert [tuple(row.values()) for row in in_force(table).to_pylist()] == [
        (3, 2, 4, "c"),
        (7, 0, 1, "b"),
        (7, 2, 4, "d"),
        (7, 2, 5, "e"),
    ]
