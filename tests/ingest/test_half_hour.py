"""The README's half hour: its commands as they stand, with a server of ours for Common Crawl."""

import gzip
import io
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from loopback import Server
from warcio.warcwriter import WARCWriter

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[2]
DUMP = "CC-MAIN-2023-14"
WET = f"crawl-data/{DUMP}/segments/1/wet/a.warc.wet.gz"
LEFT_OUT = ("make dist", "make test-dist")  # what .ci/run does, and a test of its own


def commands() -> list[str]:
    """Return the lines of the section's blocks."""
    section = (ROOT / "README.md").read_text().split("## Half an hour")[1].split("\n## ")[0]
    blocks = section.split("```")[1::2]
    return [line for block in blocks for line in block.strip().splitlines()]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project whose environment is ours, and taken for installed."""
    copy = tmp_path / "curation"
    left = shutil.ignore_patterns(".*", "out", "dist", "build", "corpora", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=left)
    shutil.copytree(ROOT / ".ci", copy / ".ci")
    (copy / ".venv").mkdir()
    for path in (ROOT / ".venv").iterdir():
        if not path.name.startswith(".installed"):
            (copy / ".venv" / path.name).symlink_to(path)
    (copy / ".venv" / ".installed").touch()
    return copy


@pytest.fixture
def common_crawl(server: Server) -> list[str]:
    """A listing of one WET file of manuals; the options that lead to it."""
    written = io.BytesIO()
    writer = WARCWriter(written, gzip=True)
    with gzip.open(ROOT / "tests" / "data" / "dumps" / "docs.jsonl.gz", "rt") as lines:
        for line in list(lines)[:60]:
            text = json.loads(line)["text"].encode()
            url = json.loads(line)["url"]
            record = writer.create_warc_record(url, "conversion", payload=io.BytesIO(text))
            writer.write_record(record)
    server.content[f"/{WET}"] = written.getvalue()
    server.content[f"/crawl-data/{DUMP}/wet.paths.gz"] = gzip.compress(f"{WET}\n".encode())
    server.content["/collinfo.json"] = json.dumps([{"id": DUMP}]).encode()
    return ["--data-url", server.url("/"), "--collinfo-url", server.url("/collinfo.json")]


@pytest.mark.slow  # minutes
def test_every_command_does_what_it_says(project: Path, common_crawl: list[str]) -> None:
    if not (ROOT / ".venv" / "bin" / "curation").exists():
        pytest.skip("needs .venv: make test")
    said = {}
    for line in commands():
        if line in LEFT_OUT:
            continue
        if "fetch-listing" in line:
            line += f" {shlex.join(common_crawl)}"
        done = subprocess.run(
            ["sh", "-c", line], cwd=project, capture_output=True, text=True, timeout=600,
            env={**os.environ, "MAKEFLAGS": ""},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        said[line] = done.stdout
    last = list(said.values())[-1]
    assert "core-hours" in last
    assert (project / "out" / "demo" / "report.html").exists()
    assert (project / "out" / "mine" / "shards" / "first" / "manifest.json").exists()
    lines = (project / "out" / "cc" / f"{DUMP}.paths").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(WET)


def test_the_section_has_all_four_parts() -> None:
    words = " ".join(commands())
    for part in ("make run", "jobs/conf/mine.toml", "fetch-listing", "make test-dist"):
        assert part in words
