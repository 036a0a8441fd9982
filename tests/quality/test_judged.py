"""Our rules on pages that people, or CCNet, have judged. The pages are not in the repository."""

import gzip
import json
import os
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curation import models
from curation.config import DEFAULT_LANGUAGE_MODEL, IngestConfig
from curation.ingest import langid, warc
from curation.ingest.limits import PageLimits
from curation.ingest.pages import extract_pages
from curation.ingest.sandbox import Net
from curation.quality.rules import decide, load_rules
from curation.quality.signals import compile_bad_words, signals

GOLD = os.environ.get("CURATION_GOLD_DATA")
pytestmark = pytest.mark.skipif(GOLD is None, reason="CURATION_GOLD_DATA names no folder")


def test_chinese_spam_of_common_crawl_is_rejected() -> None:
    """Adult pages, gambling and link farms in the head of a segment; two pages of prose stay."""
    settings = IngestConfig()
    limits = PageLimits(**{f.name: getattr(settings, f.name) for f in fields(PageLimits)})
    model = models.language_model(DEFAULT_LANGUAGE_MODEL, models.sha256(DEFAULT_LANGUAGE_MODEL))
    texts = []
    for path in sorted(Path(f"{GOLD}/warc-commoncrawl").glob("chatnoir*")):
        for batch in warc.read_records(path):
            is_page = pc.and_kleene(
                pc.equal(batch["record_type"], "response"), pc.equal(batch["http_status"], 200)
            )
            rows = batch.filter(is_page)
            found = extract_pages(
                rows["payload"],
                rows["charset"],
                rows["content_type"],
                engine="resiliparse",
                limits=limits,
                net=Net(30, 1 << 30),
            )
            text = pc.fill_null(found.field("text"), "")
            is_chinese = pc.equal(langid.detect(text, model).field("code"), "zh")
            texts += text.filter(is_chinese).to_pylist()
    assert len(texts) > 8
    lang = pa.array(["zh"] * len(texts))
    listed = Path(f"{GOLD}/badwords-ldnoobw/zh.txt").read_text(encoding="utf-8").split("\n")
    measured = signals(pa.array(texts), lang, compile_bad_words({"zh": listed}))
    rejected = decide(measured, lang, load_rules(["deepseek"], {}))
    assert rejected.null_count <= 2
    with_words = decide(measured, lang, load_rules(["deepseek", "c4"], {}))
    assert with_words.null_count <= rejected.null_count


def test_lists_of_every_language_compile() -> None:
    lists = {
        path.stem: path.read_text(encoding="utf-8").split("\n")
        for path in sorted(Path(f"{GOLD}/badwords-ldnoobw").glob("*.txt"))
    }
    compiled = compile_bad_words(lists)
    assert len(compiled.languages) == 27
    sizes = compiled.ends[1:] - compiled.ends[:-1]
    for language, size in zip(compiled.languages, sizes.tolist(), strict=True):
        # terms that fold to one, a sign without letters, and C4's exceptions are all that is lost
        assert size >= 0.85 * sum(bool(term.strip()) for term in lists[language]), language


def test_head_documents_of_ccnet_are_mostly_kept() -> None:
    rows = []
    for path in sorted(Path(f"{GOLD}/ccnet-docs").glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            rows += [json.loads(line) for line in lines]
    texts = [row.get("raw_content") or row["text"] for row in rows]
    assert len(texts) == 20
    lang = pa.array(["en"] * 20)
    kept = decide(signals(pa.array(texts), lang), lang, load_rules(["deepseek"], {})).null_count
    assert kept >= 14


def test_good_passages_are_kept_more_often_than_bad_ones() -> None:
    with gzip.open(f"{GOLD}/quality-dclm-human-a/labels.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    lang = pa.array(["en"] * len(rows))
    measured = signals(pa.array([row["text"] for row in rows]), lang)
    is_kept = pc.is_null(decide(measured, lang, load_rules(["deepseek"], {})).field("rule"))
    share = {
        label: sum(
            kept
            for kept, row in zip(is_kept.to_pylist(), rows, strict=True)
            if row["label"] == label
        )
        / sum(row["label"] == label for row in rows)
        for label in (0, 1)
    }
    assert share[1] > 0.8
    assert share[1] - share[0] > 0.2
