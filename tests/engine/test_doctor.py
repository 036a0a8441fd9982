"""What the doctor says of a configuration; Java and Spark are seen in every other Spark test."""

from pathlib import Path

import pytest

from curation.engine.doctor import examine


@pytest.fixture
def config(configure, tmp_path: Path, monkeypatch) -> Path:
    """The file of a configuration whose report is written already; no Java, so no Spark either."""
    report = Path(configure(dumps=1).report)
    report.parent.mkdir(parents=True)
    report.write_text("")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "none"))
    return tmp_path / "lake.toml"


def bad(path: Path) -> dict[str, str]:
    return {finding.what: finding.found for finding in examine(path) if not finding.ok}


def test_nothing_is_wrong_but_the_java_that_is_not_there(config: Path) -> None:
    assert set(bad(config)) == {"Java"}


@pytest.mark.parametrize(
    ("table", "line", "what", "found"),
    [
        ("encode", f'sha256 = "{"0" * 64}"', "tokenizer", "ArtifactChanged"),
        ("ingest", 'language_model = "none.ftz"', "configured language model", "ArtifactMissing"),
        ("ingest", 'second_language_model = "lake.toml"', "second language model", ""),
        ("ingest", "min_char = 1", "configuration", "did you mean 'min_chars'"),
    ],
)
def test_what_is_wrong_is_named(config: Path, table: str, line: str, what: str, found: str) -> None:
    before, after = config.read_text().split(f"[{table}]\n")
    config.write_text(f"{before}[{table}]\n{line}\n{after}")
    findings = bad(config)
    assert set(findings) == {"Java", what}
    assert found in findings[what]
