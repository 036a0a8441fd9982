"""The lines stage against plain Python over all dumps of the cut."""

import re
from collections import Counter, defaultdict

import pytest

from curation.engine.lake import Lake
from curation.engine.ledger import why
from curation.engine.run import Selection, run
from curation.ingest.text import words

pytestmark = pytest.mark.spark

Key = tuple[str, tuple[str, ...]]


def units(text: str, min_words: int) -> list[tuple[Key, int, int]]:
    """Return the lines and the paragraphs of two lines or more, with their spans in characters."""
    lines = [match.span() for match in re.finditer(r"[^\n]*\n|[^\n]+", text)]
    paragraphs = [match.span() for match in re.finditer(r"(?:[^\n]*[^\s][^\n]*(?:\n|$))+", text)]
    found = []
    for kind, spans in (("line", lines), ("paragraph", paragraphs)):
        for begin, end in spans:
            folded = tuple(words(text[begin:end]))
            if kind == "paragraph" and "\n" not in text[begin:end].rstrip("\n"):
                continue
            if len(folded) >= min_words:
                found.append(((kind, folded), begin, end))
    return found


def test_what_stands_in_many_documents_is_cut(undisturbed) -> None:
    """Causally: a dump counts itself and the dumps before it, and no unit of one document."""
    config, lake, _ = undisturbed(4)
    settings = config.lines
    total: Counter[Key] = Counter()
    num_cut = 0
    for dump in lake.dumps():
        removed = set(lake.table("duplicates", dump=dump).to_table()["doc_id"].to_pylist())
        texts = {
            row["doc_id"]: row["text"]
            for row in lake.table("documents", dump=dump).to_table().to_pylist()
            if row["doc_id"] not in removed
        }
        found = {doc_id: units(text, settings.min_words) for doc_id, text in texts.items()}
        own = Counter(key for each in found.values() for key in {unit[0] for unit in each})
        total.update({key: count for key, count in own.items() if count > 1})
        edits = lake.table("edits", dump=dump, stage="lines").to_table().to_pylist()
        cut_bytes: dict[int, set[int]] = defaultdict(set)
        for edit in edits:
            span = set(range(edit["start"], edit["end"]))
            assert not span & cut_bytes[edit["doc_id"]] and edit["replacement"] == ""
            cut_bytes[edit["doc_id"]] |= span
        rejects = {
            row["doc_id"]: row
            for row in lake.table("rejects", dump=dump, stage="lines").to_table().to_pylist()
        }
        for doc_id, text in texts.items():
            gone: set[int] = set()
            for key, begin, end in found[doc_id]:
                if total[key] > settings.max_documents:
                    gone |= set(range(begin, end))
            left = len(text) - len(gone)
            if gone and left < settings.min_chars:
                row = rejects.pop(doc_id)
                assert (row["rule"], row["value"]) == ("repeated_lines", str(left))
                assert row["threshold"] == str(settings.min_chars)
                assert doc_id not in cut_bytes
                continue
            kept = "".join(character for i, character in enumerate(text) if i not in gone)
            data = text.encode()
            stays = bytes(b for i, b in enumerate(data) if i not in cut_bytes.get(doc_id, ()))
            assert stays.decode() == kept, dump
            num_cut += bool(gone)
        assert not rejects
    assert num_cut > 10
    names = [" ".join(key[1]) for key, count in total.items() if count > settings.max_documents]
    assert "prev up next" in names, "the manuals' navigation"


def test_a_document_of_repeated_lines_alone_is_rejected_and_why_says_so(spark, configure) -> None:
    lake = run(configure("lines.min_chars=600", dumps=1), Selection(last="filter"))
    rejects = lake.table("rejects", stage="lines").to_table().to_pylist()
    assert rejects
    row = rejects[0]
    (history,) = why(lake, str(row["doc_id"]))
    said = f"rejected by repeated_lines: {row['value']} (bound 600)"
    assert ("lines", said) in history.decisions
    later = {row["doc_id"] for row in lake.table("signals").to_table().to_pylist()}
    assert not later & {row["doc_id"] for row in rejects}


def test_why_shows_the_lines_that_were_cut(undisturbed) -> None:
    lake: Lake = undisturbed(4).lake
    edit = lake.table("edits", stage="lines").to_table().to_pylist()[0]
    (history,) = why(lake, str(edit["doc_id"]))
    shown = [text for stage, text in history.decisions if stage == "lines"]
    assert any(text.startswith(f"bytes {edit['start']} to {edit['end']} cut: ") for text in shown)


def test_without_a_bound_nothing_is_cut_and_all_is_counted(spark, configure) -> None:
    lake = run(configure("lines.max_documents=0", dumps=1), Selection(last="filter"))
    (record,) = lake.records("lines")
    num_retained = lake.records("dedup")[0].rows["kept"]
    assert dict(record.rows) == {"in": num_retained, "kept": num_retained, "rejected": 0}
    assert not record.files
    assert lake.table("signals").count_rows() == num_retained
