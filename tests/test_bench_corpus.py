"""What the corpus builder of the benchmarks does once a package is there; nothing is downloaded."""

import importlib.util
import io
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from curation.ingest import warc

PATH = Path(__file__).parent / "bench" / "corpus.py"
HTML = "<html><head><title>{0}</title></head><body><main><p>{0} page of the help, {1}.</p></main>"


@pytest.fixture(scope="module")
def corpus() -> ModuleType:
    spec = importlib.util.spec_from_file_location("corpus", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_package_becomes_a_dump_and_its_texts(corpus, tmp_path: Path, monkeypatch) -> None:
    """Pages come in the order of their paths; other files of the package are left out."""
    archive = tmp_path / "package.tar"
    with tarfile.open(archive, "w") as tar:
        for name in (
            "./usr/share/libreoffice/help/de/text/shared/b.html",
            "./usr/share/libreoffice/help/de/text/shared/a.html",
            "./usr/share/libreoffice/help/de/index.html",
            "./usr/share/doc/copyright",
        ):
            content = HTML.format(Path(name).stem, "mit Umlauten: äöü").encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: popen(["cat", archive], **options)
    )
    entry = corpus.pack("trixie", "de", corpus.pages(tmp_path / "package.deb"), tmp_path)

    urls = [f"https://help.libreoffice.org/latest/de/text/shared/{name}.html" for name in "ab"]
    assert (entry["num_pages"], entry["num_texts"]) == (2, 2)
    texts = pq.read_table(tmp_path / entry["texts"])
    assert texts["url"].to_pylist() == urls
    assert set(texts["dump"].to_pylist()) == {"DUMP-2025-trixie"}
    assert [text.split()[0] for text in texts["text"].to_pylist()] == ["a", "b"]
    assert all("äöü" in text for text in texts["text"].to_pylist())
    rows = [
        row for batch in warc.read_records(tmp_path / entry["warc"]) for row in batch.to_pylist()
    ]
    pages = [row for row in rows if row["record_type"] == "response"]
    assert [page["url"] for page in pages] == urls
    assert pages[0]["payload"] == HTML.format("a", "mit Umlauten: äöü").encode()

    manifest = {"trixie/de": entry}
    assert corpus.is_whole(manifest, "trixie", "de", tmp_path)
    assert not corpus.is_whole(manifest, "sid", "de", tmp_path)
    corpus.write_manifest(tmp_path, manifest)
    assert corpus.read_texts("de", folder=tmp_path).equals(texts)
    with pytest.raises(SystemExit, match="no corpus of fr; run `make bench-corpus`"):
        corpus.read_texts("fr", folder=tmp_path)
    with (tmp_path / entry["warc"]).open("ab") as file:
        file.write(b"x")
    assert not corpus.is_whole(manifest, "trixie", "de", tmp_path)


def test_sources_of_another_suite(corpus, tmp_path: Path, monkeypatch) -> None:
    """Security updates have other suites, and are left out."""
    stanza = "Types: deb\nURIs: {0}\nSuites: {1}\nComponents: main\n"
    text = stanza.format("http://deb.example/debian", "bookworm bookworm-updates")
    text += "\n" + stanza.format("http://deb.example/debian-security", "bookworm-security")
    (tmp_path / "debian.sources").write_text(text)
    monkeypatch.setattr(corpus, "Path", lambda _: tmp_path)
    found = corpus.sources_of("trixie")
    assert found.count("Suites:") == 1 and "Suites: trixie\n" in found
    assert "security" not in found
