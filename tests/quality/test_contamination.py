"""Contamination against sets of runs of words in plain Python, and real benchmarks planted."""

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import InputInvalid, InputMissing
from curation.ingest.text import KIND, SINGLE, words
from curation.quality.contamination import (
    Benchmark,
    benchmark_files,
    compile_index,
    cut_spans,
    find_contamination,
    read_texts,
)
from curation.quality.edits import apply_edits

GOLD = os.environ.get("CURATION_GOLD_DATA")
needs_gold = pytest.mark.skipif(GOLD is None, reason="CURATION_GOLD_DATA names no folder")
DOCS = Path(__file__).parents[1] / "data" / "dumps" / "docs.jsonl.gz"

TEXTS = st.lists(
    st.sampled_from(["a", "b", "A", "bc", "é", "12", "中", "文", " ", " ", ", ", "\n", "\u0301"]),
    max_size=40,
).map("".join)
NGRAM, MIN_NGRAM = 4, 2


def runs_of(text: str) -> set[tuple[str, ...]]:
    """The runs of a benchmark's text; 1.6 characters of Chinese stand for a word."""
    found = words(text)
    num_single = sum(len(w) == 1 and KIND[ord(w)] == SINGLE for w in found)
    is_cjk = 2 * num_single > len(found)
    whole, least = (round(1.6 * n) if is_cjk else n for n in (NGRAM, MIN_NGRAM))
    length = min(len(found), whole)
    telling = [
        w for w in found if KIND[ord(w[0])] == SINGLE or sum(c not in "0123456789" for c in w) > 1
    ]
    if length < least or (length == len(found) and len(telling) < least):
        return set()
    return {tuple(found[i : i + length]) for i in range(len(found) - length + 1)}


def word_ends(text: str) -> tuple[list[int], list[int]]:
    """First byte of every word and the byte behind it, by reading one character more each time."""
    starts, stops = [], []
    for at in range(len(text)):
        upto, place = text[: at + 1], len(text[:at].encode())
        before, after = words(text[:at] + "\n"), words(upto + "\n")
        grew = len(after) > len(before) or (after and after[-1] != before[-1])
        if not grew:
            continue
        if len(after) > len(before):
            starts.append(place)
            stops.append(0)
        stops[-1] = len(upto.encode())
    return starts, stops


def oracle(text: str, benchmarks: Sequence[set[tuple[str, ...]]]) -> tuple[list, list[int]]:
    found = words(text)
    covered, hits = [False] * len(found), set()
    for number, runs in enumerate(benchmarks):
        for run in runs:
            for i in range(len(found) - len(run) + 1):
                if tuple(found[i : i + len(run)]) == run:
                    covered[i : i + len(run)] = [True] * len(run)
                    hits.add(number)
    starts, stops = word_ends(text)
    # neighbouring runs are one span only where they overlap
    spans: list[list[int]] = []
    marks = sorted(
        {
            (i, i + len(run))
            for runs in benchmarks
            for run in runs
            for i in range(len(found) - len(run) + 1)
            if tuple(found[i : i + len(run)]) == run
        }
    )
    for begin, end in marks:
        if spans and begin <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], end)
        else:
            spans.append([begin, end])
    return [(starts[begin], stops[end - 1]) for begin, end in spans], sorted(hits)


def find(texts: list[str | None], benchmarks: Sequence[Benchmark], **sizes: int) -> list:
    index = compile_index(benchmarks, **sizes)
    found = find_contamination(pa.array(texts, pa.string()), index)
    names = pa.array([str(i) for i in range(len(benchmarks))], pa.string())
    spans = list(zip(found.start.tolist(), found.end.tolist(), strict=True))
    return [
        (spans[found.ends[i] : found.ends[i + 1]], [int(n) for n in hits])
        for i, hits in enumerate(found.benchmarks(names).to_pylist())
    ]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(TEXTS, max_size=3), min_size=1, max_size=3),
    st.lists(TEXTS, min_size=1, max_size=3),
    st.booleans(),
)
def test_spans_equal_plain_python(
    benchmark_texts: list[list[str]], texts: list[str], plants: bool
) -> None:
    planted = [text for each in benchmark_texts for text in each] if plants else []
    texts = [f"{text} {' '.join(planted)}" for text in texts]
    benchmarks = [Benchmark(str(i), each) for i, each in enumerate(benchmark_texts)]
    runs = [set().union(*map(runs_of, each)) for each in benchmark_texts]
    found = find(texts, benchmarks, ngram=NGRAM, min_ngram=MIN_NGRAM)
    assert found == [oracle(text, runs) for text in texts]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | TEXTS, max_size=6), st.integers(0, 6))
def test_spans_do_not_depend_on_the_batch(texts: list[str | None], split: int) -> None:
    benchmarks = [Benchmark("x", ["ab bc ab", "中文中文中"]), Benchmark("y", ["bc bc ab"])]
    whole = find(texts, benchmarks, ngram=3, min_ngram=2)
    parts = [
        find(part, benchmarks, ngram=3, min_ngram=2) for part in (texts[:split], texts[split:])
    ]
    assert whole == parts[0] + parts[1]
    assert all(row == ([], []) for text, row in zip(texts, whole, strict=True) if text is None)


def numbered(n: int) -> str:
    return " ".join("w" + "abcdefghijklm"[i] for i in range(n))


@pytest.mark.parametrize(
    ("benchmark", "text", "is_hit"),
    [
        (numbered(13), numbered(10), True),  # any ten words of it
        (numbered(13), numbered(9), False),
        (numbered(9), f"before {numbered(9)} after", True),  # whole, from three words on
        (numbered(9), numbered(8), False),
        (numbered(3), f"x {numbered(3)}", True),
        (numbered(2), numbered(2), False),
        (numbered(9), numbered(9).replace("wa", "xwa"), False),  # at borders of words only
        (numbered(10), numbered(10).upper().replace(" ", ", "), True),  # case and signs
        ("中文的一二三四五六七八九十甲乙丙", "中文的一二三四五六七八九十甲乙丙", True),  # 16
        ("中文的一二三四五六七八九十甲乙丙", "中文的一二三四五六七八九十甲乙", False),
        ("中文的一二", "。中文的一二。", True),  # five characters whole
        ("中文的一", "中文的一", False),
        ("A, B, C and 127.0.0.1", "A, B, C and 127.0.0.1", False),  # no three words of letters
        ("one A two 3 for", "one A two 3 for", True),
    ],
)
def test_deepseeks_rule(benchmark: str, text: str, is_hit: bool) -> None:
    ((spans, hits),) = find([text], [Benchmark("x", [benchmark])])
    assert (bool(spans), hits) == (is_hit, [0] if is_hit else [])


def test_index_says_what_is_too_short() -> None:
    index = compile_index([Benchmark("x", [numbered(12), "two words", ""]), Benchmark("y", [])])
    assert (index.names, index.num_texts, index.num_short) == (("x", "y"), (3, 0), (2, 0))
    assert len(index.hashes) == 3


def test_more_benchmarks_than_bits_of_a_word() -> None:
    benchmarks = [Benchmark(str(i), [f"start {i} of many {i} words"]) for i in range(150)]
    texts = [f"start {i} of many {i} words" for i in (0, 63, 64, 149)]
    assert [hits for _, hits in find([*texts, " ".join(texts)], benchmarks)] == [
        [0],
        [63],
        [64],
        [149],
        [0, 63, 64, 149],
    ]


def test_no_benchmark_finds_nothing() -> None:
    assert find(["some text", None], []) == [([], []), ([], [])]


def test_cuts_are_whole_lines() -> None:
    index = compile_index([Benchmark("x", [numbered(10)])])
    text = f"Keep this.\n\nQ: {numbered(10)}? 42\nAnd this.\n{numbered(10)}\n{numbered(10)}"
    texts = pa.array([text, "nothing", numbered(10), None])
    cuts = cut_spans(texts, find_contamination(texts, index))
    assert apply_edits(texts, cuts).to_pylist() == [
        "Keep this.\n\nAnd this.\n",
        "nothing",
        "",
        None,
    ]
    assert len(cuts[0]) == 2  # neighbouring lines are one span
    clean = pa.array(["nothing", None])
    assert cut_spans(clean, find_contamination(clean, index)).to_pylist() == [[], []]


def test_cuts_of_slices_are_those_of_arrays_of_their_own() -> None:
    index = compile_index([Benchmark("x", [numbered(10)])])
    hit = f"Keep.\n{numbered(10)}\nAnd."
    rows = [hit, None, "nothing", f"{hit}\n{hit}", "", hit]
    for start, stop in ((0, 6), (1, 4), (3, 6), (4, 5), (2, 2)):
        part = pa.array(["longer than the others", *rows], pa.string())[1 + start : 1 + stop]
        own = pa.array(rows[start:stop], pa.string())
        cuts = cut_spans(part, find_contamination(part, index))
        assert cuts.to_pylist() == cut_spans(own, find_contamination(own, index)).to_pylist()
        assert apply_edits(part, cuts).to_pylist() == [
            row and row.replace(f"{numbered(10)}\n", "") for row in rows[start:stop]
        ]


@pytest.mark.parametrize("data", [b"\xff\xfe", b"wa wb\xe4\xbd wc", b"\x80" * 99])
def test_bytes_that_are_not_utf8_are_separators(data: bytes) -> None:
    index = compile_index([Benchmark("x", ["wa wb wc"])])
    found = find_contamination(pa.array([data], pa.large_binary()), index)
    assert found.num_spans.tolist() == [int(b"wa" in data)]


@pytest.mark.parametrize("piece", ["a ", "字", "\n", "wa wb wc wd we wf wg wh wi wj "])
def test_fifty_megabytes_are_searched(piece: str) -> None:
    index = compile_index([Benchmark("x", [numbered(10)])])
    size = 50_000_000 // len(piece.encode())
    found = find_contamination(pa.array([piece * size]), index)
    assert found.num_spans.tolist() == [int("wj" in piece)]  # neighbours are one span


# ---- files -------------------------------------------------------------------------------------


def test_files_of_every_kind(tmp_path: Path) -> None:
    row = {"question": "What is it?", "meta": {"n": 3, "also": ["this one"]}, "answer": "42 is"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n\n")
    (tmp_path / "b.json").write_text(json.dumps([row]))
    (tmp_path / "c.csv").write_text('question,answer\n"What, is\nit?",42\n')
    (tmp_path / "d.txt").write_text("first text\n\nsecond text\n")
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    pq.write_table(pa.table({"question": ["What is it?"], "n": [3]}), tmp_path / "f.parquet")
    every = ["What is it?", "this one", "42 is"]
    expected = {
        "a.jsonl": every,
        "b.json": every,
        "c.csv": ["What, is\nit?", "42"],
        "d.txt": ["first text", "second text"],
        "e.jsonl.gz": every,
        "f.parquet": ["What is it?"],
    }
    files = benchmark_files(str(tmp_path))
    assert {Path(file).name: read_texts(file) for file in files} == expected
    assert read_texts(str(tmp_path / "a.jsonl"), ("question",)) == ["What is it?"]
    assert benchmark_files(str(tmp_path / "*.json*")) == [*files[:2], files[4]]
    assert benchmark_files(files[0]) == [files[0]]


@pytest.mark.parametrize(
    ("name", "contents", "fields", "message"),
    [
        ("a.jsonl", '{"q": "x"}\n{"q": ', (), r"a.jsonl, line 2 is not JSON"),
        ("a.jsonl", '{"q": "x"}', ("p",), r"row 1 has no field 'p'; it has q"),
        ("a.jsonl", "3", ("p",), r"row 1 has no field 'p'; it has none"),
        ("a.jsonl", '{"q": 3}', (), r"holds no text"),
        ("a.txt", "\n\n", (), r"holds no text"),
        ("a.txt", b"\xff\xff", (), r"cannot be read as UTF-8"),
        ("a.jsonl.gz", b"no gzip", (), r"cannot be read"),
    ],
)
def test_bad_files_are_named(
    tmp_path: Path, name: str, contents: str | bytes, fields: tuple[str, ...], message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
    with pytest.raises(InputInvalid, match=message):
        read_texts(str(path), fields)


def test_missing_and_unknown_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"names .*nowhere.jsonl, where no file is"):
        benchmark_files(str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(InputMissing, match=r"\*.csv, where no file is"):
        benchmark_files(str(tmp_path / "*.csv"))
    (tmp_path / "a.pdf").touch()
    with pytest.raises(InputInvalid, match=r"a.pdf is no file of a benchmark.*\.jsonl"):
        benchmark_files(str(tmp_path / "a.pdf"))


# ---- real benchmarks ---------------------------------------------------------------------------


@needs_gold
def test_planted_items_of_real_benchmarks_are_all_found() -> None:
    benchmarks = [
        Benchmark(name, [t for file in benchmark_files(f"{GOLD}/{path}") for t in read_texts(file)])
        for name, path in (
            ("gsm8k", "eval-gsm8k/*.jsonl.gz"),
            ("humaneval", "eval-humaneval/*.jsonl.gz"),
            ("cmmlu", "eval-cmmlu-a/*.csv.gz"),
        )
    ]
    index = compile_index(benchmarks)
    with gzip.open(DOCS, "rt") as lines:
        pages = [json.loads(line)["text"] for line in lines]
    names = pa.array(index.names)
    clean = find_contamination(pa.array(pages), index).benchmarks(names).to_pylist()
    for benchmark in benchmarks:
        items = [text for text in benchmark.texts if len(words(text)) >= 16]
        assert len(items) > 100
        planted = [f"{pages[i % len(pages)]}\n{item}\nEnd." for i, item in enumerate(items)]
        found = find_contamination(pa.array(planted), index).benchmarks(names).to_pylist()
        assert all(benchmark.name in hits for hits in found), benchmark.name
    assert not any(clean)  # the manuals, read by eye where a first version found something
