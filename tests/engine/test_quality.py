"""Private data, percentiles and contamination in a lake: replaced, ranked, dropped or cut."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curation.engine.lake import Lake
from curation.engine.ledger import funnel, why
from curation.engine.report_quality import percentiles_by_dump, rules_by_language
from curation.engine.report_tokens import tokens_section
from curation.engine.run import Selection, run
from curation.errors import ConfigError, InputMissing
from curation.quality import perplexity
from curation.quality.contamination import (
    Benchmark,
    compile_index,
    find_contamination,
    read_texts,
)
from curation.quality.edits import apply_edits
from curation.quality.privacy import find_private
from curation.quality.signals import signals

pytestmark = pytest.mark.spark


def edited(lake: Lake, doc_id: int, *stages: str) -> str:
    """Return a document's text as it is after some stages, edit by edit."""
    matches = pc.field("doc_id") == doc_id
    (text,) = lake.table("documents").to_table(["text"], filter=matches)["text"].to_pylist()
    spans = {}
    for stage in stages:
        for row in lake.table("edits", stage=stage).to_table(filter=matches).to_pylist():
            spans[row["start"], row["end"]] = row["replacement"]
    data = text.encode()
    for (start, end), replacement in sorted(spans.items(), reverse=True):
        data = data[:start] + replacement.encode() + data[end:]
    return data.decode()


def test_what_is_private_is_replaced_before_anything_is_measured(undisturbed) -> None:
    lake = undisturbed(4).lake
    measured = lake.table("signals").to_table().to_pylist()
    replaced = Counter()
    for row in measured:
        before = edited(lake, row["doc_id"], "lines")
        after = edited(lake, row["doc_id"], "lines", "annotate")
        found = find_private(pa.array([before]))
        assert after == apply_edits(pa.array([before]), found)[0].as_py()
        assert row["num_private_spans"] == len(found[0])
        replaced.update(span["replacement"] for span in found[0].as_py())
        again = signals(pa.array([after]), pa.array([row["lang"]]))[0].as_py()
        assert {name: row[name] for name in again} == again
        assert "@manuals.org" not in after
    assert replaced["<EMAIL>"] > 0
    counted = Counter()
    for record in lake.records("annotate"):
        counted.update(record.counts.get("private", {}))
    assert counted == replaced


def test_kept_and_encoded_texts_have_no_address(undisturbed) -> None:
    lake = undisturbed(4).lake
    kept = lake.table("tokens").to_table(["doc_id"])["doc_id"].to_pylist()
    with_address = [doc_id for doc_id in kept if "@manuals.org" in edited(lake, doc_id)]
    assert with_address, "no kept page has an address to begin with"
    stages = ("lines", "annotate", "filter", "decontaminate")
    assert not any("@manuals.org" in edited(lake, doc_id, *stages) for doc_id in with_address)
    (history,) = why(lake, str(with_address[0]))
    said = [text for stage, text in history.decisions if stage == "annotate"]
    assert any("replaced by '<EMAIL>'" in text for text in said)


def test_percentiles_are_of_all_documents_of_language_and_dump(undisturbed) -> None:
    """By sorting what the model says of each text, in place of the histogram's bins."""
    config, lake, _ = undisturbed(4)
    models = {
        language: perplexity.load(each.card)
        for language, each in zip(("en", "zh"), config.annotate.models, strict=True)
    }
    for dump in lake.dumps():
        rows = lake.table("signals", dump).to_table().to_pylist()
        kept = {
            row["doc_id"]: row["perplexity_bucket"]
            for row in lake.table("kept", dump).to_table().to_pylist()
        }
        rejected = {
            row["doc_id"]: row
            for row in lake.table("rejects", dump, stage="filter").to_table().to_pylist()
        }
        for language, model in models.items():
            ours = [row for row in rows if row["lang"] == language]
            texts = [edited(lake, row["doc_id"], "lines", "annotate") for row in ours]
            scored = perplexity.score(pa.array(texts), model).to_pylist()
            bins = [int(np.floor(256 * np.log2(s["perplexity_char"]))) for s in scored]
            for row, own, number in zip(ours, scored, bins, strict=True):
                assert row["perplexity"] == own["perplexity"]
                assert abs(row["perplexity_bin"] - number) <= 1  # logarithms of two libraries
                lower = sum(other["perplexity_bin"] < row["perplexity_bin"] for other in ours)
                percentile = 100 * lower // len(ours) + 1
                rules = rejected.get(row["doc_id"], {}).get("rules", [])
                assert ("demo_max_perplexity_percentile" in rules) == (percentile > 90)
                if row["doc_id"] in kept:
                    expected = (
                        "head" if percentile <= 30 else "middle" if percentile <= 60 else "tail"
                    )
                    assert kept[row["doc_id"]] == expected
    assert {row.language for row in percentiles_by_dump_of(undisturbed)} == {"en", "zh"}


def test_slices_decide_no_percentile(spark, configure, undisturbed, rows_of) -> None:
    """A slice is decided by what all slices of its dump have measured."""
    lake = run(configure("ingest.slice_files=1", dumps=1))
    assert len(lake.records("filter")) == 3
    assert rows_of(lake) == rows_of(undisturbed(1).lake)


def percentiles_by_dump_of(undisturbed):
    from curation.engine.ledger import funnel

    config, lake, _ = undisturbed(4)
    return percentiles_by_dump(funnel(lake), config)


def test_rules_by_language_and_lengths_are_those_of_the_tables(undisturbed) -> None:
    """What the run records count, against the rows themselves."""
    lake = undisturbed(2).lake
    langs, rules = (
        {row["doc_id"]: row[name] for row in rows.to_table(["doc_id", name]).to_pylist()}
        for name, rows in (
            ("lang", lake.table("signals")),
            ("rule", lake.table("rejects", stage="filter")),
        )
    )
    flow = funnel(lake)
    table = rules_by_language(flow.total("filter"))
    assert table is not None
    assert dict(table.languages) == Counter(langs.values())
    found = {
        (language, rule): count
        for rule, counts in table.rules
        for (language, _), count in zip(table.languages, counts, strict=True)
        if count
    }
    assert found == Counter((langs[doc_id], rule) for doc_id, rule in rules.items())
    kept = Counter(lang for doc_id, lang in langs.items() if doc_id not in rules)
    assert [kept[language] for language, _ in table.languages] == table.kept

    tokens = lake.table("tokens").to_table().to_pylist()
    shown = tokens_section(flow)
    assert shown is not None
    by_stratum: dict[str, list[int]] = {}
    for row in tokens:
        by_stratum.setdefault(f"{row['domain']}/{row['lang']}", []).append(row["num_tokens"])
    sizes = {row.name: (row.num_documents, row.tokens) for row in shown["rows"]}
    assert sizes == {name: (len(each), sum(each)) for name, each in by_stratum.items()}
    for row in shown["rows"]:
        lengths = sorted(by_stratum[row.name])
        for percentile, start in zip(shown["percentiles"], row.percentiles, strict=True):
            exact = lengths[-(-percentile * len(lengths) // 100) - 1]
            assert start <= exact < start * 9 / 8 + 1


def test_drift_is_that_of_the_median_from_dump_to_dump(undisturbed) -> None:
    rows = percentiles_by_dump_of(undisturbed)
    lake = undisturbed(4).lake
    for language in ("en", "zh"):
        own = [row for row in rows if row.language == language]
        assert [row.dump for row in own] == lake.dumps()
        assert own[0].drift is None
        for before, row in pairwise(own):
            assert row.drift == pytest.approx(row.median / before.median - 1)
        for row in own:
            found = [
                each["perplexity_char"]
                for each in lake.table("signals", row.dump).to_table().to_pylist()
                if each["lang"] == language
            ]
            assert row.num_documents == len(found)
            middle = sorted(found)[-(-len(found) // 2) - 1]
            assert row.median == pytest.approx(middle, rel=0.005)  # a bin is 0.3 % wide


def contaminated(lake: Lake, config) -> dict[int, tuple[str, list[tuple[int, int]]]]:
    """Return text and spans of the documents that filter kept and that hold a benchmark."""
    (benchmark,) = config.contamination.benchmarks
    index = compile_index([Benchmark(benchmark.name, read_texts(benchmark.path))])
    found = {}
    for doc_id in lake.table("kept").to_table(["doc_id"])["doc_id"].to_pylist():
        text = edited(lake, doc_id, "lines", "annotate", "filter")
        spans = find_contamination(pa.array([text]), index)
        if len(spans.start):
            found[doc_id] = text, list(zip(spans.start.tolist(), spans.end.tolist(), strict=True))
    return found


def test_lines_with_a_benchmark_are_cut(undisturbed) -> None:
    config, lake, _ = undisturbed(4)
    hits = contaminated(lake, config)
    assert hits, "no kept page holds the benchmark"
    rejects = lake.table("rejects", stage="decontaminate").to_table().to_pylist()
    gone = {row["doc_id"]: row for row in rejects}
    tokens = set(lake.table("tokens").to_table(["doc_id"])["doc_id"].to_pylist())
    for doc_id, (text, spans) in hits.items():
        lines = text.encode().splitlines(keepends=True)
        left, at = b"", 0
        for line in lines:
            is_hit = any(at < end and begin < at + len(line) for begin, end in spans)
            left += b"" if is_hit else line
            at += len(line)
        if len(left.decode()) < config.contamination.min_chars:
            assert gone[doc_id]["rule"] == "contaminated_manuals"
            assert doc_id not in tokens
        else:
            stages = ("lines", "annotate", "filter", "decontaminate")
            assert edited(lake, doc_id, *stages).encode() == left
            assert doc_id in tokens
    assert set(gone) <= set(hits)
    counts = Counter()
    for record in lake.records("decontaminate"):
        counts.update(record.counts.get("benchmarks", {}))
    assert counts == {"contaminated_manuals": len(hits)}


def test_documents_with_a_benchmark_are_dropped(spark, configure, undisturbed) -> None:
    """Decided again from what is committed: only decontaminate and encode run."""
    config = configure(dumps=2)
    lake = run(config)
    hits = contaminated(lake, config)
    attempts = {(r.stage, r.dump): r.attempt for r in lake.records()}
    dropped = run(configure('contamination.action="drop"', dumps=2))
    again = {
        stage
        for (stage, dump), attempt in attempts.items()
        if next(r.attempt for r in dropped.records(stage, dump)) != attempt
    }
    assert again == {"decontaminate", "encode"}
    rejects = dropped.table("rejects", stage="decontaminate").to_table().to_pylist()
    assert {row["doc_id"] for row in rejects} == set(hits)
    for row in rejects:
        assert (row["rule"], row["rules"]) == ("contaminated_manuals", ["contaminated_manuals"])
        assert (row["value"], row["threshold"]) == (str(len(hits[row["doc_id"]][1])), "0")
        assert row["num_bytes"] == len(hits[row["doc_id"]][0].encode())
    (history,) = why(dropped, str(rejects[0]["doc_id"]))
    assert ("decontaminate", "rejected by contaminated_manuals: 1 (bound 0)") in history.decisions


def test_what_cannot_be_read_is_named_before_anything_runs(configure, tmp_path: Path) -> None:
    missing = 'contamination.benchmarks=[{name="b", path="none/*.jsonl"}]'
    with pytest.raises(InputMissing, match=r"none/\*.jsonl, where no file is"):
        run(configure(missing, dumps=1), Selection())
    with pytest.raises(ConfigError, match=r"privacy.replace has 'mail'; known are email"):
        configure('privacy.replace=["mail"]', dumps=1)
    with pytest.raises(ConfigError, match=r"filter.buckets = \[60, 30\]"):
        configure("filter.buckets=[60, 30]", dumps=1)
    with pytest.raises(ConfigError, match=r"min_ngram = 9 is above contamination.ngram = 5"):
        configure("contamination.ngram=5", "contamination.min_ngram=9", dumps=1)
    twice = 'contamination.benchmarks=[{name="b", path="a"}, {name="b", path="c"}]'
    with pytest.raises(ConfigError, match=r"the name 'b' for several"):
        configure(twice, dumps=1)
    assert not (tmp_path / "lake").exists()
