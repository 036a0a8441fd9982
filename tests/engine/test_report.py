"""The report: what its tables say, and that no page can put anything into it but text."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curation.config import Config, DedupConfig, DumpConfig, FingerprintConfig, ReleaseConfig
from curation.engine import duplication, pictures, report
from curation.engine.lake import FileEntry, Lake, RunRecord, TableWriter
from curation.engine.ledger import FUNNEL_STAGES
from curation.engine.report import write_report
from curation.identity import first_doc_id
from curation.ingest.listing import InputFile
from curation.schemas import TABLES
from curation.tokens.shards import Manifest, ShardEntry, write_manifest

HOSTILE = "<script>alert(1)</script>"
HOSTILE_URL = f'https://example.org/?q="><img src=https://evil.example/x onerror=alert(1)>{HOSTILE}'
HOSTILE_RULE = f"parser_error:{HOSTILE}"
HOSTILE_DOMAIN = f"$x$ & {HOSTILE}"

VOID = {"meta", "br", "img", "link", "input", "hr", "base", "embed", "source"}
REFERENCES = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "background"}


def test_tables_say_what_the_records_hold(html: str) -> None:
    """Two dumps of 20 and 30 records; the expected shares are worked out by hand."""
    page = Page(html)
    assert page.tables["funnel"][0] == [
        ["dump", "records", *(f"after {stage}" for stage in FUNNEL_STAGES), "text kept"],
        ["A", "20", "10 50.0 %", "8 40.0 %", "-", "6 30.0 %", "-", "6 30.0 %", "600 B"],
        ["B", "30", "10 33.3 %", "4 13.3 %", "-", "3 10.0 %", "-", "3 10.0 %", "1.5 kB"],
        ["all dumps", "50", "20 40.0 %", "12 24.0 %", "-", "9 18.0 %", "-", "9 18.0 %", "2.1 kB"],
    ]
    by_dump, deepseek, matrix, *_ = page.tables["dedup"]
    assert by_dump[1:] == [
        ["A", "10", "1", "1", "20.0 %", "20.0 %", "0", "1", "2"],
        ["B", "10", "2", "4", "60.0 %", "40.0 %", "3", "0", "0"],
    ]
    assert deepseek == [
        ["dumps together", "1", "2", "6", "12", "16", "22", "41", "91"],
        ["removed, %", "22.2", "46.7", "55.7", "69.9", "75.7", "76.3", "81.6", "89.8"],
    ]
    assert matrix[1:] == [["1 A", "2", "", "2"], ["2 B", "5", "1", "6"]]
    rows = {row[0]: row[1:3] for row in page.tables["reasons"][0][1:]}
    assert rows == {
        "min_chars ingest": ["29", "58.0 %"],
        f"{HOSTILE_RULE} ingest": ["1", "2.0 %"],
        "near dedup": ["5", "25.0 %"],
        "exact dedup": ["3", "15.0 %"],
        "gopher_min_words filter": ["3", "25.0 %"],
    }
    assert page.tables["languages"][0][1:] == [
        ["en", "15", "75.0 %", "0", "0.0 %"],
        ["zh", "5", "25.0 %", "4", "80.0 %"],
    ]
    assert page.tables["domains"][0][1:] == [
        ["web", "6", "300", "50", "75.0 %"],
        [HOSTILE_DOMAIN, "3", "100", "33", "25.0 %"],
    ]
    assert page.tables["release-1"][0][1:] == [
        ["web", "50.0 %", "60.0 %", "600", "300", "2.00"],
        [HOSTILE_DOMAIN, "50.0 %", "40.0 %", "400", "100", "4.00"],
    ]
    runs = page.tables["runs"][0]
    assert runs[1] == ["ingest", "A", "0000", "20", "10", "10", "4.0", "5"]
    assert [row[0] for row in runs[1:]] == [
        stage for stage in ("ingest", "dedup", "filter", "encode") for _ in "AB"
    ] + ["release"]


def test_what_was_removed_for_what(html: str) -> None:
    """A's first stands for two more of A, six others for one each; five stand for none."""
    page = Page(html)
    losses, hosts, sizes, largest, buckets, by_dump, by_rule = page.tables["dedup"][3:]
    assert losses[1:] == [
        ["language:zh A", "5", "4", "80.0 %", "allowed"],
        [f"host:{HOSTILE} A", "8", "1", "12.5 %", "no"],
    ]
    assert hosts[1:] == [[HOSTILE, "1", "8", "2", "6", "25.0 %"]]
    assert sizes[1:] == [
        ["1", "5", "5", "25.0 %"],
        ["2", "6", "12", "60.0 %"],
        ["3 to 4", "1", "3", "15.0 %"],
    ]
    assert largest[1] == ["3", "https://example.org/A/0 0 in A"]
    assert [row[0] for row in largest[2:]] == ["2"] * 6
    said = "https://example.org/A/0 A0 https://example.org/A/1 A1"
    assert buckets[1:] == [["A", "1", "256", "3", said]]
    assert by_dump[1:] == [["A", "2", "2", "100.0 %"], ["B", "6", "0", "0.0 %"]]
    orphan = "https://example.org/A/8 8 in A https://example.org/A/0 0 in A"
    assert by_rule[1:] == [["gopher_min_words filter", "2", "25.0 %", orphan]]


def test_sections_that_would_take_too_much_memory_say_so(
    full: tuple[Lake, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, value in (("DUPLICATES", 7), ("REJECTS", 1), ("FULL_BUCKETS", 0)):
        monkeypatch.setattr(duplication, f"MAX_{limit}", value)
    page = read(*full, tmp_path)
    for said in (
        "Left out: the lake has more than 7 duplicates",
        "or more than 1 documents left after",
        "there are more than 0",
    ):
        assert said in page.text["dedup"]
    assert len(page.tables["dedup"]) == 5


def test_quality_names_the_wrong_and_the_missed_pair(html: str) -> None:
    """All of a dump's texts differ, but one of B equals one of A and was retained."""
    page = Page(html)
    wrong, missed = page.tables["quality"]
    assert [row[2] for row in missed[1:]] == ["1.000"]
    assert missed[1][1] == f"https://example.org/A/2 {first_doc_id(0, 0) + 2}"
    assert len(wrong) - 1 == report.MAX_PAIRS
    assert "precision 1 of 8 removed" in page.text["quality"]
    assert "recall 1 of 2 with a twin" in page.text["quality"]


def test_hostile_text_stays_text(html: str) -> None:
    page = Page(html)
    assert not page.tags & {"script", "img", "iframe", "object", "embed", "link", "form", "base"}
    assert not [name for name in page.attributes if name.startswith("on")]
    assert HOSTILE_URL in page.text["reasons"]
    assert HOSTILE in page.text["reasons"]  # a value of a rule
    assert HOSTILE_DOMAIN in page.svg_text  # drawn as it is written, not as mathematics
    assert page.unbalanced == []


def test_the_page_refers_to_nothing_outside(html: str) -> None:
    page = Page(html)
    targets = [value for name in REFERENCES for value in page.attributes.get(name, [])]
    assert targets
    assert [target for target in targets if not target.startswith("#")] == []
    assert {target.removeprefix("#") for target in targets} <= set(page.attributes["id"])
    styles = " ".join([page.style, *page.attributes["style"]])
    assert "@import" not in styles
    assert all(url.startswith("#") for url in re.findall(r"url\(['\"]?([^)]*)", styles))
    assert len(page.attributes["id"]) == len(set(page.attributes["id"]))


def test_pictures_take_all_colours_from_the_page(html: str) -> None:
    """So they are legible in light and dark: the page defines each colour for both."""
    svgs = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(svgs) == 5
    used = set()
    for svg in svgs:
        used |= set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg))
    assert used - {"none"} == {
        f"var(--{name})" for name in ("kept", "ingest", "dedup", "filter")
    } | {"var(--muted)"}
    light, dark = re.findall(r":root \{(.*?)\}", html, flags=re.DOTALL)
    names = re.findall(r"(--[a-z]+):", light)
    assert sorted(names) == sorted(re.findall(r"(--[a-z]+):", dark))
    assert {f"--{name}" for name in pictures.COLORS} <= set(names)


def test_the_same_lake_gives_the_same_bytes(
    full: tuple[Lake, Config], html: str, tmp_path: Path
) -> None:
    assert write(*full, tmp_path / "again.html") == html


def test_a_lake_before_its_first_commit(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    page = read(Lake.create(config.lake), config, tmp_path)
    assert page.tables == {}
    assert page.unbalanced == []


def test_a_lake_that_is_only_ingested(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    lake = Lake.create(config.lake)
    lake.freeze_inputs("A", 0, 500, [InputFile(0, "a.warc.gz", 1, 1)])
    commit(lake, "ingest", "A", (4, 3, 1), 300, counts={"rejects": {"min_chars": 1}})
    page = read(lake, config, tmp_path)
    assert page.tables["funnel"][0][1][1:] == ["4", "3 75.0 %", "-", "-", "-", "-", "-", "300 B"]
    assert set(page.tables) == {"funnel", "reasons", "runs"}


def test_a_large_lake_says_that_quality_is_not_measured(
    full: tuple[Lake, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MAX_DOCUMENTS", 19)
    page = read(*full, tmp_path)
    assert "Not measured: the lake has more than 19 documents" in page.text["quality"]
    assert "quality" not in page.tables


def test_many_commits_are_summed_by_stage_and_dump(
    full: tuple[Lake, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, config = full
    shutil.copytree(source.path, tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    monkeypatch.setattr(report, "MAX_RUNS", 5)
    record = lake.record("encode", "A", "0000")
    assert record is not None
    lake.commit(replace(record, slice="0001", files=()))
    rows = [row for row in read(lake, config, tmp_path).tables["runs"][0] if row[0] == "encode"]
    assert rows[0][:6] == ["encode", "A", "2 slices", "12", "12", "0"]
    assert len(rows) == 2


# ---- reading the page --------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would find: tables and text by section, tags, attributes, text of pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.text: dict[str, str] = {}
        self.tags: set[str] = set()
        self.attributes: dict[str, list[str]] = {}
        self.style = self.svg_text = ""
        self.unbalanced: list[str] = []
        self._open: list[str] = []
        self._section = ""
        self._cell: list[str] | None = None
        self.feed(html)
        self.close()
        self.unbalanced += self._open
        self.text = {name: " ".join(text.split()) for name, text in self.text.items()}

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
        elif tag == "table":
            self.tables.setdefault(self._section, []).append([])
        elif tag == "tr":
            self.tables[self._section][-1].append([])
        elif tag in ("th", "td"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)
        if tag in ("th", "td") and self._cell is not None:
            self.tables[self._section][-1][-1].append(" ".join(" ".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.text[self._section] = self.text.get(self._section, "") + data
        if self._cell is not None:
            self._cell.append(data)
        if "svg" in self._open:
            self.svg_text += data
        if "style" in self._open:
            self.style += data

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")


def read(lake: Lake, config: Config, folder: Path) -> Page:
    return Page(write(lake, config, folder / "report.html"))


def write(lake: Lake, config: Config, path: Path) -> str:
    write_report(lake, path, config)
    return path.read_text(encoding="utf-8")


# ---- a lake by hand ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Config]:
    """A lake of two dumps through all stages, and a release; hostile wherever a page could be."""
    config = make_config(tmp_path_factory.mktemp("full"))
    lake = Lake.create(config.lake)
    for ordinal, dump in enumerate("AB"):
        lake.freeze_inputs(dump, ordinal, 500, [InputFile(0, f"{dump}.warc.gz", 1000, 1)])
    files = write_documents(lake, 0, "A") + write_rejects(lake, "A")
    counts = {"rejects": {"min_chars": 9, HOSTILE_RULE: 1}, "languages": {"en": 5, "zh": 5}}
    commit(lake, "ingest", "A", (20, 10, 10), 1000, files, counts, seconds=4.0)
    counts = {"rejects": {"min_chars": 20}, "languages": {"en": 10}}
    commit(lake, "ingest", "B", (30, 10, 20), 3000, write_documents(lake, 1, "B"), counts)

    a, b = first_doc_id(0, 0), first_doc_id(1, 0)
    counts = {
        "duplicates": {"exact": 1, "near": 1},
        "twin_dumps": {"A": 2},
        "leader": {"solves": 1, "full_buckets": 2},
        "loss_documents": {"language:zh": 5, f"host:{HOSTILE}": 8},
        "loss_removed": {"language:zh": 4, f"host:{HOSTILE}": 2},
        "loss_counted": {"language:zh": 4, f"host:{HOSTILE}": 1},
        "loss_allowed": {"language:zh": 4},
    }
    files = write_duplicates(lake, "A", {a + 8: ("exact", a), a + 9: ("near", a)})
    bucket = {"band_key": [7], "num_entered": [256], "num_beyond": [3], "doc_ids": [[a, a + 1]]}
    files += write_rows(lake, "full_buckets", "A", bucket)
    commit(lake, "dedup", "A", (10, 8, 2), 800, files, counts, slice="all")
    counts = {
        "duplicates": {"exact": 2, "near": 4},
        "twin_dumps": {"A": 5, "B": 1},
        "leader": {"rounds": 3},
    }
    removed = {b + 1: ("near", b)} | {b + i: ("near", a + i) for i in range(5, 8)}
    removed |= {b + i: ("exact", a + i - 5) for i in range(8, 10)}
    files = write_duplicates(lake, "B", removed)
    commit(lake, "dedup", "B", (10, 4, 6), 2000, files, counts, slice="all")

    for dump, rows, num_bytes in (("A", (8, 6, 2), 600), ("B", (4, 3, 1), 1500)):
        counts = {"rejects": {"gopher_min_words": rows[2]}, "domains": {"web": rows[1]}}
        if dump == "B":
            counts["domains"] = {HOSTILE_DOMAIN: 3}
        rejects = {"doc_id": [a], "rule": ["gopher_min_words"]}
        files = write_rows(lake, "rejects", "A", rejects, stage="filter") if dump == "A" else ()
        commit(lake, "filter", dump, rows, num_bytes, files, counts)
    commit(lake, "encode", "A", (6, 6, 0), 600, counts={"tokens": {"web": 300}})
    commit(lake, "encode", "B", (3, 3, 0), 1500, counts={"tokens": {HOSTILE_DOMAIN: 100}})
    commit(lake, "release", "demo", (9, 9, 0), 0, slice="all")

    folder = Path(config.shards) / "demo"
    folder.mkdir(parents=True)
    web = {"share": 0.5, "available_tokens": 300, "tokens": 600, "epochs": 2.0}
    other = {"share": 0.5, "available_tokens": 100, "tokens": 400, "epochs": 4.0}
    shard = ShardEntry("train-00000-of-00001.parquet", "train", 10, 1000, 3, 4096, "0" * 64)
    mixture = {"web": web, HOSTILE_DOMAIN: other}
    manifest = Manifest("demo", 100, 1, "concat", 0, "1" * 64, 500, 512, 1, (shard,), mixture)
    write_manifest(folder, manifest)
    return lake, config


@pytest.fixture(scope="module")
def html(full: tuple[Lake, Config], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of the full lake."""
    return write(*full, tmp_path_factory.mktemp("page") / "report.html")


def make_config(folder: Path) -> Config:
    return Config(
        lake=str(folder / "lake"),
        shards=str(folder / "shards"),
        dumps=tuple(DumpConfig(name=name, inputs=()) for name in "AB"),
        fingerprint=FingerprintConfig(ngram=1),
        dedup=DedupConfig(alarm_documents=5),
        release={"demo": ReleaseConfig(shares={"web": 0.5, HOSTILE_DOMAIN: 0.5})},
    )


def write_documents(lake: Lake, ordinal: int, dump: str) -> tuple[FileEntry, ...]:
    """Ten documents of one word each, all different but for B's third and last, which A has."""
    words = [f"{dump}{i}" for i in range(10)]
    if dump == "B":
        words[2], words[9] = "A2", "A4"
    return write_rows(
        lake,
        "documents",
        dump,
        {
            "doc_id": [first_doc_id(ordinal, 0) + i for i in range(10)],
            "url": [f"https://example.org/{dump}/{i}" for i in range(10)],
            "text": words,
        },
    )


def write_duplicates(
    lake: Lake, dump: str, removed: Mapping[int, tuple[str, int]]
) -> tuple[FileEntry, ...]:
    ids = sorted(removed)
    return write_rows(
        lake,
        "duplicates",
        dump,
        {
            "doc_id": ids,
            "kind": [removed[doc_id][0] for doc_id in ids],
            "twin_id": [removed[doc_id][1] for doc_id in ids],
            "similarity": [1.0] * len(ids),
        },
    )


def write_rejects(lake: Lake, dump: str) -> tuple[FileEntry, ...]:
    return write_rows(
        lake,
        "rejects",
        dump,
        {
            "doc_id": [100, 101],
            "url": [HOSTILE_URL, "https://example.org/short"],
            "rule": [HOSTILE_RULE, "min_chars"],
            "value": [HOSTILE, "12"],
            "threshold": [None, "100"],
        },
    )


def write_rows(
    lake: Lake, table: str, dump: str, columns: Mapping[str, list[Any]], stage: str = "ingest"
) -> tuple[FileEntry, ...]:
    """Write one file of a table; columns that are not given are null."""
    num_rows = len(next(iter(columns.values())))
    rows = pa.table(
        {f.name: pa.array(columns.get(f.name, [None] * num_rows), f.type) for f in TABLES[table]},
        schema=TABLES[table],
    )
    writer = TableWriter(str(lake.path), table, stage, dump, "0000", "part")
    writer.write(rows)
    entry = writer.close()
    assert entry is not None
    return (entry,)


def commit(
    lake: Lake,
    stage: str,
    dump: str,
    rows: tuple[int, int, int],
    bytes_kept: int,
    files: tuple[FileEntry, ...] = (),
    counts: Mapping[str, Mapping[str, int]] | None = None,
    slice: str = "0000",
    seconds: float = 1.0,
) -> None:
    lake.commit(
        RunRecord(
            stage=stage,
            dump=dump,
            slice=slice,
            key=f"{stage}/{dump}/{slice}",
            attempt="part",
            stage_version=1,
            inputs={},
            settings={},
            artifacts={},
            packages={},
            started_at="2026-01-01T00:00:00Z",
            seconds=seconds,
            rows=dict(zip(("in", "kept", "rejected"), rows, strict=True)),
            num_bytes={"in": bytes_kept, "kept": bytes_kept, "removed": 0},
            counts=counts or {},
            files=files,
        )
    )
