"""The report: what its tables say, and that no page can put anything into it but text."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import ANY

import pyarrow as pa
import pytest
from hand_made_lake import (
    HOSTILE,
    HOSTILE_DOMAIN,
    HOSTILE_RULE,
    HOSTILE_TEXT,
    HOSTILE_TITLE,
    HOSTILE_URL,
    commit,
    make_config,
    make_full,
)
from hypothesis import given
from hypothesis import strategies as st

from curation.config import (
    Config,
    EngineConfig,
)
from curation.engine import duplication, pictures, report, report_samples
from curation.engine.lake import Lake
from curation.engine.ledger import FUNNEL_STAGES
from curation.engine.report import write_report
from curation.engine.report_samples import Segment, segments
from curation.identity import first_doc_id
from curation.ingest.listing import InputFile
from curation.quality.edits import EDITS_TYPE, apply_edits

VOID = {"meta", "br", "wbr", "img", "link", "input", "hr", "base", "embed", "source"}
REFERENCES = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "background"}


def test_tables_say_what_the_records_hold(html: str) -> None:
    """Two dumps of 20 and 30 records; the expected shares are worked out by hand."""
    page = Page(html)
    assert page.tables["funnel"][0] == [
        ["dump", "records", *(f"after {stage}" for stage in FUNNEL_STAGES), "text kept"],
        ["A", "20", "10 50.0 %", "8 40.0 %", "-", "6 30.0 %", "6 30.0 %", "6 30.0 %", "600 B"],
        ["B", "30", "10 33.3 %", "4 13.3 %", "-", "3 10.0 %", "-", "3 10.0 %", "1.5 kB"],
        [
            "all dumps",
            "50",
            "20 40.0 %",
            "12 24.0 %",
            "-",
            "9 18.0 %",
            "6 12.0 %",
            "9 18.0 %",
            "2.1 kB",
        ],
    ]
    by_dump, deepseek, matrix, *_ = page.tables["dedup"]
    assert by_dump[1:] == [
        ["A", "10", "1", "1", "20.0 %", "20.0 %", "22.2 %", "0", "1", "2"],
        ["B", "10", "2", "4", "60.0 %", "40.0 %", "46.7 %", "3", "0", "0"],
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
    assert page.tables["signals"][0] == [
        ["rule", "en", "zh"],
        ["gopher_min_words", "-", "3 75.0 %"],
        ["kept", "8 100.0 %", "1 25.0 %"],
        ["came in", "8", "4"],
    ]
    assert [row[1:] for row in page.tables["signals"][1][1:]] == [
        ["A", "4", "4.01", "4.01", "4.01", "-"],
        ["B", "4", "8.02", "8.02", "8.02", "+100.0 %"],
    ]
    assert page.tables["tokens"][0][1:] == [
        ["web/en", "6", "300", "75.0 %", "2.00", "50", "30", "30", "88", "88"],
        [f"{HOSTILE_DOMAIN}/en", "3", "100", "25.0 %", "15.00", "33", *["32"] * 4],
        ["all", "9", "400", "100.0 %", "5.25", "44", "30", "32", "88", "88"],
    ]
    assert page.tables["runs"][0][1][1:] == ["-", "done", ANY, "12", "19.0"]
    runs = page.tables["runs"][1]
    assert runs[1] == ["ingest", "A", "0000", "20", "10", "10", "4.0", "5"]
    assert [row[0] for row in runs[1:]] == [
        stage for stage in ("ingest", "dedup", "annotate", "filter") for _ in "AB"
    ] + ["decontaminate", "encode", "encode", "release"]


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


def test_texts_are_shown_by_reason_and_domain_with_their_edits(html: str) -> None:
    """Of each dump's ten texts of one word; who is contaminated is not kept."""
    page = Page(html)
    samples = page.text["samples"]
    kept, rejected = samples.split("Rejected, by reason")
    assert f"{HOSTILE_DOMAIN}: 2 of 3 that filter kept" in kept
    assert "web: 1 of 6 that filter kept" in kept
    assert "<del>A</del><ins>&lt;script&gt;alert(1)&lt;/script&gt;</ins>2&lt;/pre&gt;" in html
    assert re.findall(r"(\w+) by (\w+): (\d+) of (\d+)", rejected) == [
        ("near", "dedup", "2", "5"),
        ("exact", "dedup", "2", "3"),
        ("gopher_min_words", "filter", "1", "3"),
    ]
    assert re.findall(r"similarity 1\.000 to https://example\.org/A/\d", rejected)
    assert f"value {HOSTILE} (bound 50)" in rejected


def test_rates_are_of_the_records_that_say_what_their_work_took(
    full: tuple[Lake, Config], html: str, tmp_path: Path
) -> None:
    """One record does: 600 bytes of text in 10 CPU seconds, four cores held for 5 s each."""
    rows, cost = Page(html).tables["rates"]
    assert rows[1][:6] == [
        "encode",
        "10.0 s",
        "100.0 %",
        "text bytes",
        "600 B",
        "60 B",
    ]
    assert cost[1:] == [["in all", "0.003", "0.006"]]
    lake, config = full
    config = replace(config, engine=EngineConfig(core_hour_price=36.0))
    page = read(lake, config, tmp_path)
    assert page.tables["rates"][1][1] == ["in all", "0.003", "0.006", "0.10", "0.20"]
    assert "10 run records of an earlier version" in page.text["rates"]


def test_releases_that_the_configuration_no_longer_names_are_shown(
    full: tuple[Lake, Config], tmp_path: Path
) -> None:
    lake, config = full
    page = read(lake, replace(config, release={}), tmp_path)
    assert page.tables["release-1"][0][1][:3] == ["web", "50.0 %", "60.0 %"]


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=150)


@given(TEXTS, st.lists(st.integers(0, 150), max_size=12), st.sampled_from(["", "<b>"]))
def test_a_short_text_is_shown_whole(text: str, places: list[int], replacement: str) -> None:
    ends = [len(text[:place].encode()) for place in sorted(places)]
    edits = [(a, b, replacement) for a, b in zip(ends[::2], ends[1::2], strict=False)]
    found = segments(text, edits)
    rows = [[dict(zip(("start", "end", "replacement"), edit, strict=True)) for edit in edits]]
    edited = apply_edits(pa.array([text]), pa.array(rows, EDITS_TYPE))[0].as_py()
    assert "".join(s.text for s in found if s.kind in ("text", "cut")) == text
    assert "".join(s.text for s in found if s.kind in ("text", "put")) == edited


def test_of_a_long_text_the_start_and_the_first_edits_are_shown() -> None:
    """Of 2-byte characters, so that the excerpts end inside one."""
    text = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 5000
    edits = [(599 * 2, 1300, ""), (4000, 6000, "X"), (6002, 6004, ""), (9000, 9002, "")]
    found = [(s.kind, len(s.text)) for s in segments(text, edits)]
    cut = report_samples.MAX_CUT_CHARS + len(" [...] ")
    first = [("text", 300), ("gap", 0), ("text", 40), ("cut", 51), ("text", 40), ("gap", 0)]
    second = [("text", 40), ("cut", cut), ("put", 1), ("text", 1), ("cut", 1), ("text", 40)]
    assert found == [*first, *second, ("gap", 0)]


def test_control_characters_are_marked() -> None:
    assert segments("a\x00\x1b[0m\tb\n", []) == [Segment("text", "a\ufffd\ufffd[0m\tb\n")]


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
    assert f"{HOSTILE_TITLE}." in page.text["samples"]
    assert HOSTILE_TEXT.removeprefix("A") in page.text["samples"]
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
    assert len(svgs) == 7
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
    assert "samples" not in page.text  # there is no text of what ingest rejects


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
    monkeypatch.setattr(report, "MAX_COMMITS", 5)
    record = lake.record("encode", "A", "0000")
    assert record is not None
    lake.commit(replace(record, slice="0001", files=()))
    rows = [row for row in read(lake, config, tmp_path).tables["runs"][1] if row[0] == "encode"]
    assert rows[0][:6] == ["encode", "A", "2 slices", "12", "12", "0"]
    assert len(rows) == 2


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Config]:
    """A lake of two dumps through all stages, and a release."""
    return make_full(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def html(full: tuple[Lake, Config], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of the full lake."""
    return write(*full, tmp_path_factory.mktemp("page") / "report.html")


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
        self._section = self._last_tag = ""
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
        if self._cell and self._last_tag == "wbr":
            self._cell[-1] += data
        elif self._cell is not None:
            self._cell.append(data)
        self._last_tag = ""
        if "svg" in self._open:
            self.svg_text += data
        if "style" in self._open:
            self.style += data

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._last_tag = tag
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")


def read(lake: Lake, config: Config, folder: Path) -> Page:
    return Page(write(lake, config, folder / "report.html"))


def write(lake: Lake, config: Config, path: Path) -> str:
    write_report(lake, path, config)
    return path.read_text(encoding="utf-8")
