"""Lines and paragraphs against plain Python."""

import re
from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from curation.dedup.lines import cut, document_counts, units
from curation.ingest.text import words

WORDS = st.sampled_from(["Cookie", "notice", "naïve", "数据", "...", "x", "ÄRGER", "12"])
LINE = st.lists(WORDS, max_size=4).map(" ".join)
TEXT = st.one_of(
    st.text(alphabet="ab \n\r\t。中", max_size=40),
    st.lists(LINE, max_size=8).map("\n".join),
    st.lists(LINE, max_size=8).map(lambda lines: "\n".join(lines) + "\n"),
)
TEXTS = st.lists(st.one_of(TEXT, st.none()), max_size=5)
Unit = tuple[str, tuple[str, ...], int, int]


def expected(text: str) -> list[Unit]:
    """Return kind, words, start and end of the units of a text, a paragraph before its lines."""
    found: list[Unit] = []
    lines = [(match.start(), match.end()) for match in re.finditer(r"[^\n]*\n|[^\n]+", text)]
    blocks: list[list[tuple[int, int]]] = [[]]
    for begin, end in lines:
        if all(ord(character) <= 0x20 for character in text[begin:end]):
            blocks.append([])
        else:
            blocks[-1].append((begin, end))
    for block in filter(None, blocks):
        spans = [("line", *span) for span in block]
        if len(block) > 1:
            spans.insert(0, ("paragraph", block[0][0], block[-1][1]))
        for kind, begin, end in spans:
            folded = tuple(words(text[begin:end]))
            if folded:
                before, inside = text[:begin].encode(), text[begin:end].encode()
                found.append((kind, folded, len(before), len(before) + len(inside)))
    return found


@given(texts=TEXTS)
@example(texts=["a\nb\n\nc", "a\n \nb\nc\n", None, "\n\n", "one"])
def test_units_are_lines_and_paragraphs(texts: list[str | None]) -> None:
    got = units(pa.array(texts, pa.string()))
    names: dict[int, tuple[str, tuple[str, ...]]] = {}
    for i, text in enumerate(texts):
        wanted = expected(text or "")
        own = slice(got.ends[i], got.ends[i + 1])
        assert list(zip(got.start[own], got.end[own], strict=True)) == [u[2:] for u in wanted]
        assert got.num_words[own].tolist() == [len(u[1]) for u in wanted]
        for key, unit in zip(got.key[own].tolist(), wanted, strict=True):
            assert names.setdefault(key, unit[:2]) == unit[:2], "two units of one key"
    assert len(set(names.values())) == len(names), "two keys of one unit"


@given(texts=TEXTS, at=st.integers(0, 5))
def test_a_batch_is_the_sum_of_its_parts(texts: list[str | None], at: int) -> None:
    whole = units(pa.array(texts, pa.string()))
    padded = pa.array(["x\ny", *texts], pa.string()).slice(1)
    for array in (padded, pa.array(texts, pa.large_string())):
        parts = [units(array.slice(0, at)), units(array.slice(at))]
        for name in ("key", "start", "end", "num_words"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            assert np.array_equal(getattr(whole, name), joined)


@given(texts=TEXTS, least=st.integers(1, 3))
def test_a_document_counts_once(texts: list[str | None], least: int) -> None:
    array = pa.array(texts, pa.string())
    keys, counts = document_counts(units(array), least)
    assert (keys[1:] > keys[:-1]).all()
    wanted: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for text in texts:
        wanted.update({u[:2] for u in expected(text or "") if len(u[1]) >= least})
    assert sorted(counts.tolist()) == sorted(wanted.values())


@given(texts=TEXTS, common=st.sets(WORDS, max_size=3), least=st.integers(1, 3))
def test_what_is_frequent_is_cut_and_nothing_else(
    texts: list[str | None], common: set[str], least: int
) -> None:
    """Units that begin with one of some words are declared frequent."""
    array = pa.array(texts, pa.string())
    found = units(array)
    all_units = [unit for text in texts for unit in expected(text or "")]
    first_words = {tuple(words(word))[:1] for word in common}
    chosen = [unit[1][:1] in first_words for unit in all_units]
    frequent = np.unique(found.key[np.array(chosen, dtype=bool)])
    cuts = cut(array, found, frequent, least)
    for i, text in enumerate(texts):
        data = (text or "").encode()
        gone = np.zeros(len(data), bool)
        for kind, folded, begin, end in expected(text or ""):
            del kind
            if folded[:1] in first_words and len(folded) >= least:
                gone[begin:end] = True
        own = slice(cuts.ends[i], cuts.ends[i + 1])
        got = np.zeros(len(data), bool)
        for begin, end in zip(cuts.start[own], cuts.end[own], strict=True):
            assert not got[max(begin - 1, 0) : end].any(), "spans touch, overlap or descend"
            got[begin:end] = True
        assert np.array_equal(gone, got)
        left = bytes(byte for byte, is_gone in zip(data, gone, strict=True) if not is_gone)
        assert cuts.num_chars_left[i] == len(left.decode())
