"""The product as text: what is exported is what is encoded, with its labels."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.config import load
from curation.engine.export import ABOUT, EXPORTED, export
from curation.engine.lake import Lake
from curation.engine.run import Selection, run
from curation.errors import ConfigError, NotCommitted, NotFound
from curation.tokens import tokenizer as tokenizers

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def exported(undisturbed, tmp_path_factory):
    """The finished lake as Parquet and as JSON lines, with the copies of its release."""
    config, lake, _ = undisturbed(4)
    folder = tmp_path_factory.mktemp("exported")
    totals = export(lake, folder / "parquet", "parquet", "demo")
    assert export(lake, folder / "jsonl", "jsonl") == totals
    return config, lake, folder, totals


def test_the_text_is_what_is_encoded(exported) -> None:
    config, lake, folder, totals = exported
    rows = pa.concat_tables(pq.read_table(p) for p in sorted(folder.glob("parquet/data/*/*")))
    assert rows.schema.equals(EXPORTED)
    tokens = lake.table("tokens").to_table().sort_by("doc_id")
    decoded = tokenizers.decode(
        tokens["input_ids"].combine_chunks(), tokenizers.load(config.encode.tokenizer)
    )
    ordered = rows.sort_by("doc_id")
    assert ordered["doc_id"].to_pylist() == tokens["doc_id"].to_pylist()
    assert ordered["text"].to_pylist() == decoded.to_pylist()
    assert totals == {
        "documents": rows.num_rows,
        "bytes": sum(len(text.encode()) for text in decoded.to_pylist()),
    }


def test_labels_scores_and_copies_are_those_of_the_lake(exported) -> None:
    _, lake, folder, _ = exported
    rows = pa.concat_tables(pq.read_table(p) for p in sorted(folder.glob("parquet/data/*/*")))
    mixture = {row["doc_id"]: row for row in lake.table("mixture").to_table().to_pylist()}
    signals = {row["doc_id"]: row for row in lake.table("signals").to_table().to_pylist()}
    documents = {row["doc_id"]: row for row in lake.table("documents").to_table().to_pylist()}
    some = 0
    for row in rows.to_pylist():
        own = mixture[row["doc_id"]]
        assert row["copies"] == own["copies"]
        assert row["num_duplicates"] == own["num_duplicates"]
        assert row["perplexity_char"] == signals[row["doc_id"]]["perplexity_char"]
        for name in ("url", "host", "crawled_at", "archive", "offset", "lang", "dump"):
            assert row[name] == documents[row["doc_id"]][name]
        some += row["num_duplicates"] > 0
    assert some > 10


def test_json_lines_say_the_same(exported) -> None:
    _, _, folder, _ = exported
    files = sorted(folder.glob("jsonl/data/*/*.jsonl.gz"))
    assert [p.name.split(".")[0] for p in files] == [
        p.name.split(".")[0] for p in sorted(folder.glob("parquet/data/*/*.parquet"))
    ]
    for path in files:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        dump = path.parent.name
        other = pq.read_table(
            folder / "parquet" / "data" / dump / path.name.replace(".jsonl.gz", ".parquet")
        )
        for line, row in zip(map(json.loads, lines), other.to_pylist(), strict=True):
            assert list(line) == EXPORTED.names
            for name in ("doc_id", "text", "url", "domain", "num_duplicates", "perplexity_bucket"):
                assert line[name] == row[name]
            assert line["crawled_at"].startswith(row["crawled_at"].strftime("%Y-%m-%dT%H:%M:%S"))
            assert line["copies"] is None  # no release was named


def test_datasets_opens_it(exported, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    _, _, folder, totals = exported
    for format in ("parquet", "jsonl"):
        options = {"split": "train", "cache_dir": str(tmp_path / format)}
        found = datasets.load_dataset(str(folder / format), **options)
        assert found.num_rows == totals["documents"]
        first = datasets.load_dataset(str(folder / format), "DUMP-2021-bullseye", **options)
        assert 0 < first.num_rows < found.num_rows
        assert set(first["dump"]) == {"DUMP-2021-bullseye"}


def test_the_card_says_where_it_is_from_and_what_every_column_is(exported) -> None:
    _, lake, folder, totals = exported
    card = (folder / "parquet" / "README.md").read_text()
    assert f"{totals['documents']:,} documents" in card
    assert "`copies` is how often the release demo takes" in card
    for name in EXPORTED.names:
        assert f"| {name} | " in card
    for record in lake.records("annotate"):
        for digest in record.artifacts.values():
            assert digest in card
    assert "## Licences" in card
    assert "## Known limits" in card
    assert ABOUT.keys() == set(EXPORTED.names)


def test_the_same_lake_gives_the_same_bytes(exported, tmp_path: Path) -> None:
    _, lake, folder, _ = exported
    export(lake, tmp_path / "again", "jsonl")
    for path in (folder / "jsonl").rglob("*"):
        if path.is_file():
            again = tmp_path / "again" / path.relative_to(folder / "jsonl")
            assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("format", "release", "error", "message"),
    [
        ("csv", "", ConfigError, "format is 'csv'; there are parquet, jsonl"),
        ("parquet", "gold", NotFound, "no release 'gold'; it has demo"),
    ],
)
def test_mistakes(undisturbed, tmp_path: Path, format, release, error, message) -> None:
    with pytest.raises(error, match=message):
        export(undisturbed(4).lake, tmp_path / "x", format, release)
    assert not (tmp_path / "x").exists()


def test_a_folder_that_holds_something_stays_as_it_is(undisturbed, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something already"):
        export(undisturbed(4).lake, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_lake_without_duplicates(spark, tmp_path: Path) -> None:
    rows = [{"url": f"https://a[{i}].example/", "text": f"{w} stands alone. " * 9}
            for i, w in enumerate(("apple", "winter", "copper"))]  # fmt: skip
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "c.toml").write_text(
        'lake = "lake"\n[[dumps]]\nname = "D"\ninputs = ["pages.jsonl"]\nformat = "jsonl"\n'
        "[ingest]\nlanguages = []\nmin_language_score = 0.0\n[filter]\nprofiles = []\n"
        "cut_lines = false\n"
    )
    lake = run(load(tmp_path / "c.toml"), Selection(last="decontaminate"))
    assert export(lake, tmp_path / "to")["documents"] == 3
    (path,) = (tmp_path / "to" / "data").rglob("*.parquet")
    assert pq.read_table(path)["num_duplicates"].to_pylist() == [0, 0, 0]


def test_a_lake_without_kept_documents(tmp_path: Path) -> None:
    with pytest.raises(NotCommitted, match="has no kept documents"):
        export(Lake.create(tmp_path / "lake"), tmp_path / "x")
