"""Exact comparison of all documents: against Python sets, and on lakes whose answer is known."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_records import made

from curation.config import Config, DedupConfig, DumpConfig, FingerprintConfig
from curation.dedup.minhash import MinHashSpec, shingles
from curation.engine.brute_force import Pair, measure
from curation.engine.lake import FileEntry, Lake, TableWriter
from curation.errors import LakeCorrupt
from curation.identity import first_doc_id, origin
from curation.schemas import TABLES

Removed = Mapping[int, tuple[str, int, float]]  # doc_id -> kind, twin_id, estimated similarity

TEN_WORDS = "one two three four five six seven eight nine ten"
NINE_OF_THEM = "one two three four five six seven eight nine"
SEVEN_OF_THEM = "one two three four five six seven eleven"
OTHER_WORDS = "alpha beta gamma delta"


def test_a_missed_and_a_wrong_pair_are_found(tmp_path: Path) -> None:
    """Sets of single words: 9 of 10 missed at 0.8; 7 of 11 wrongly removed; a copy is fine."""
    config = make_config(tmp_path, ["A", "B"], ngram=1)
    a, b = first_doc_id(0, 0), first_doc_id(1, 0)
    lake = make_lake(
        config,
        {"A": [TEN_WORDS, NINE_OF_THEM, OTHER_WORDS], "B": [TEN_WORDS, SEVEN_OF_THEM]},
        {b: ("exact", a, 1.0), b + 1: ("near", a, 0.85)},
    )
    found = measure(lake, config)
    assert found is not None
    assert found.dumps == ("A", "B")
    assert found.missed == (Pair(a + 1, a, 9 / 10),)
    assert found.wrong == (Pair(b + 1, a, 7 / 11),)
    assert (found.num_documents, found.num_removed, found.num_found, found.num_near) == (5, 2, 1, 1)
    assert found.precision == 1 / 2
    assert found.recall == 1 / 2
    assert found.mean_absolute_error == pytest.approx(0.85 - 7 / 11)


@pytest.mark.parametrize(
    ("scope", "missed_from"), [("global", [0, 1]), ("window", [1]), ("dump", [])]
)
def test_a_twin_out_of_scope_is_not_missed(
    tmp_path: Path, scope: str, missed_from: list[int]
) -> None:
    """Dump C copies a document of A and one of B, and both copies were retained."""
    config = make_config(tmp_path, ["A", "B", "C"], ngram=1, scope=scope)
    lake = make_lake(
        config, {"A": [TEN_WORDS], "B": [OTHER_WORDS], "C": [TEN_WORDS, OTHER_WORDS]}, {}
    )
    found = measure(lake, config)
    assert found is not None
    assert [origin(pair.twin_id).dump for pair in found.missed] == missed_from


def test_nothing_removed_and_nothing_alike_leaves_the_ratios_open(tmp_path: Path) -> None:
    config = make_config(tmp_path, ["A"], ngram=1)
    found = measure(make_lake(config, {"A": [TEN_WORDS, OTHER_WORDS]}, {}), config)
    assert found is not None
    assert (found.precision, found.recall, found.mean_absolute_error) == (None, None, None)


def test_a_lake_with_more_documents_is_not_measured(tmp_path: Path) -> None:
    config = make_config(tmp_path, ["A"])
    lake = make_lake(config, {"A": [TEN_WORDS, OTHER_WORDS]}, {})
    assert measure(lake, config, max_documents=1) is None
    assert measure(lake, config, max_documents=2) is not None


def test_a_dump_whose_documents_are_newer_than_its_dedup_is_left_out(tmp_path: Path) -> None:
    config = make_config(tmp_path, ["A", "B"])
    lake = make_lake(config, {"A": [TEN_WORDS], "B": [OTHER_WORDS]}, {})
    ingest = lake.record("ingest", "B", "0000")
    assert ingest is not None
    lake.commit(replace(ingest, key="another"))
    found = measure(lake, config)
    assert found is not None
    assert found.dumps == ("A",)


def test_a_duplicate_that_is_no_document_is_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path, ["A"])
    lake = make_lake(config, {"A": [TEN_WORDS, OTHER_WORDS]}, {1: ("near", 7, 0.9)})
    with pytest.raises(LakeCorrupt, match="doc_id 7"):
        measure(lake, config)


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[list[str]], Removed]:
    """Draw up to 3 dumps of texts over few words, and any removals that name a lower document."""
    text = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=9).map(" ".join)
    dumps = draw(st.lists(st.lists(text, max_size=5), min_size=1, max_size=3))
    ids = [first_doc_id(d, 0) + i for d, texts in enumerate(dumps) for i in range(len(texts))]
    removed = {}
    for place, doc_id in enumerate(ids):
        if place and draw(st.booleans()):
            twin = draw(st.sampled_from(ids[:place]))
            kind = draw(st.sampled_from(["exact", "near"]))
            removed[doc_id] = (kind, twin, draw(st.floats(0, 1)))
    return dumps, removed


@settings(max_examples=60)
@given(
    corpus=corpora(),
    scope=st.sampled_from(["global", "dump", "window"]),
    threshold=st.sampled_from([0.0, 1 / 3, 0.5, 0.8, 1.0]),
)
def test_equals_python_sets(
    corpus: tuple[list[list[str]], Removed], scope: str, threshold: float
) -> None:
    dumps, removed = corpus
    names = [f"D{i}" for i in range(len(dumps))]
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(Path(folder), names, ngram=2, scope=scope, threshold=threshold)
        lake = make_lake(config, dict(zip(names, dumps, strict=True)), removed)
        found = measure(lake, config)
    assert found is not None

    spec = MinHashSpec(ngram=2)
    sets = {
        first_doc_id(d, 0) + i: set(shingles(text, spec))
        for d, texts in enumerate(dumps)
        for i, text in enumerate(texts)
    }

    def exact(left: int, right: int) -> float:
        return len(sets[left] & sets[right]) / len(sets[left] | sets[right])

    reach = {"global": 3, "window": 1, "dump": 0}[scope]  # a window of 2 has one earlier dump
    has_twin = {
        doc_id
        for doc_id in sets
        for other in sets
        if other < doc_id
        and other not in removed
        and origin(doc_id).dump - origin(other).dump <= reach
        and exact(doc_id, other) >= threshold
    }
    wrong = {doc_id for doc_id, (_, twin, _) in removed.items() if exact(doc_id, twin) < threshold}
    errors = [abs(e - exact(i, twin)) for i, (kind, twin, e) in removed.items() if kind == "near"]

    assert {pair.doc_id for pair in found.missed} == has_twin - removed.keys()
    assert {pair.doc_id for pair in found.wrong} == wrong
    assert all(p.similarity == exact(p.doc_id, p.twin_id) for p in (*found.missed, *found.wrong))
    assert found.num_found == len(has_twin & removed.keys())
    assert found.num_documents == len(sets)
    assert found.num_near == len(errors)
    if errors:
        assert found.mean_absolute_error == pytest.approx(sum(errors) / len(errors))


# ---- a lake by hand ----------------------------------------------------------------------------


def make_config(
    folder: Path,
    dumps: Sequence[str],
    ngram: int = 5,
    scope: str = "global",
    threshold: float = 0.8,
) -> Config:
    return Config(
        lake=str(folder / "lake"),
        dumps=tuple(DumpConfig(name=name, inputs=()) for name in dumps),
        fingerprint=FingerprintConfig(ngram=ngram),
        dedup=DedupConfig(scope=scope, window=2, threshold=threshold),
    )


def make_lake(config: Config, texts: Mapping[str, Sequence[str]], removed: Removed) -> Lake:
    """Write documents and duplicates, and commit ingest, fingerprint and dedup."""
    lake = Lake.create(config.lake)
    for ordinal, (dump, dump_texts) in enumerate(texts.items()):
        first = first_doc_id(ordinal, 0)
        ids = range(first, first + len(dump_texts))
        gone = [doc_id for doc_id in ids if doc_id in removed]
        documents = {"doc_id": list(ids), "text": list(dump_texts)}
        duplicates = {
            "doc_id": gone,
            "kind": [removed[doc_id][0] for doc_id in gone],
            "twin_id": [removed[doc_id][1] for doc_id in gone],
            "similarity": [removed[doc_id][2] for doc_id in gone],
        }
        commit(
            lake, "ingest", dump, "0000", {}, len(ids), write(lake, "documents", dump, documents)
        )
        name = f"ingest/{dump}/0000"
        commit(lake, "fingerprint", dump, "0000", {name: name}, len(ids), ())
        name = f"fingerprint/{dump}/0000"
        files = write(lake, "duplicates", dump, duplicates)
        commit(lake, "dedup", dump, "all", {name: name}, len(ids), files)
    return lake


def write(
    lake: Lake, table: str, dump: str, columns: Mapping[str, Sequence[object]]
) -> tuple[FileEntry, ...]:
    """Write one file of a table; columns that are not given are null."""
    num_rows = len(columns["doc_id"])
    rows = pa.table(
        {f.name: pa.array(columns.get(f.name, [None] * num_rows), f.type) for f in TABLES[table]},
        schema=TABLES[table],
    )
    writer = TableWriter(str(lake.path), table, "", dump, "0000", "part")
    writer.write(rows)
    entry = writer.close()
    return (entry,) if entry else ()


def commit(
    lake: Lake,
    stage: str,
    dump: str,
    slice: str,
    inputs: Mapping[str, str],
    num_rows: int,
    files: tuple[FileEntry, ...],
) -> None:
    """Commit a stage under a key that is its own name."""
    lake.commit(made(stage, dump, slice, num_rows, num_rows, inputs=inputs, files=files))
