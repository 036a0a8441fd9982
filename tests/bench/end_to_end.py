"""From WARC files to decided texts to tokens: whole commands, beside datatrove's for FineWeb.

Decided are extraction, language (English), near-duplicates and the rules of Gopher, C4 and FineWeb
with FineWeb's bounds; then private data is replaced and what is kept tokenized, by the same
tokenizer. Each side runs as its users run it, on all cores: ours decides duplicates before rules,
datatrove after them. A figure is pages over CPU seconds of all processes of the command, start of
the JVM and of interpreters included; once, the sides one after another, after a run of all on
a dump of the demo that compiles what is not yet.

    python tests/bench/end_to_end.py     draw the stored core-seconds by stage again
"""

import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import dated_manuals
import matplotlib as mpl
from made import CURATION
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from planning import DEMO
from warcio.archiveiterator import ArchiveIterator
from warcio.warcwriter import WARCWriter

from curation import models
from curation.config import DEFAULT_LANGUAGE_MODEL
from curation.engine.lake import Lake
from curation.engine.pictures import COLORS, STYLE, bars

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEER = ROOT / ".venv-bench" / "bin" / "python"
TOKENIZER = ROOT / "jobs" / "conf" / "demo-tokenizer.json"
NUM_FILES = 4  # of a dump
PICTURE = ROOT / "notebooks" / "pictures" / "end_to_end.svg"
# bench-mix is stored as texts; the manuals of one suite are pages of its packages.
CORPORA = {"mix": ["DUMP-2023-bookworm"], "bulk": ["DUMP-*"]}
STAGES = {
    "ingest": "ingest",
    "fingerprint": "dedup",
    "dedup": "dedup",
    "lines": "rules",
    "annotate": "rules",
    "filter": "rules",
    "decontaminate": "rules",
    "encode": "tokens",
}
"""Our stages -> what both sides do."""

SHOWN = {
    "ingest": ("read, extract, language", "ingest"),
    "dedup": ("near-duplicates", "dedup"),
    "rules": ("rules, private data", "filter"),
    "tokens": ("tokens", "encode"),
    "rest": ("start, and what no stage counts", "lines"),
}
"""What is drawn -> its name and the name of its colour."""


def e2e_vs_datatrove() -> dict[str, Any]:
    """With the same extractor on both sides."""
    return entry("trafilatura_precision", "both trafilatura for precision (ours 2, theirs 1.11)")


def e2e_fast_vs_datatrove() -> dict[str, Any]:
    """With our own extractor."""
    return entry("blocks", "another extractor: ours is our own")


def entry(engine: str, note: str) -> dict[str, Any]:
    """Return an entry of bench.json: the bulk corpus, and what is known of each corpus."""
    by_corpus = {}
    for name in CORPORA:
        ours, peer = (measured(name)[side] for side in (engine, "datatrove"))
        ratio = ours["documents_per_core_second"] / peer["documents_per_core_second"]
        by_corpus[name] = {"ratio": round(ratio, 2), "ours": ours, "peer": peer}
    bulk = by_corpus["bulk"]
    return {
        "ours": bulk["ours"]["documents_per_core_second"],
        "peer": bulk["peer"]["documents_per_core_second"],
        "ratio": bulk["ratio"],
        "unit": "documents/s/core",
        "peer_name": f"datatrove 0.10.1, the parts of its FineWeb example; {note}",
        "n": bulk["ours"]["counts"]["pages"],
        "cores": len(os.sched_getaffinity(0)),
        "by_corpus": by_corpus,
    }


@cache
def measured(corpus: str) -> dict[str, dict[str, Any]]:
    """Run all sides on a corpus, once for both entries."""
    if not PEER.exists():
        sys.exit(f"there is no {PEER}; run `make bench-setup`")
    sources = [path for name in CORPORA[corpus] for path in manuals(name)]
    warm_up()
    with tempfile.TemporaryDirectory(prefix="bench-end-to-end-") as name:
        for path in sources:
            deal(path, Path(name), path.name.removesuffix(".warc.gz"))
        return run_sides(Path(name), corpus)


@cache
def warm_up() -> None:
    """Run all sides on a dump of the demo, so that everything is compiled."""
    file = min(DEMO.glob("*.warc.gz"))
    with tempfile.TemporaryDirectory(prefix="bench-end-to-end-") as name:
        deal(file, Path(name), file.name.removesuffix(".warc.gz"))
        run_sides(Path(name), "warm-up")


def deal(path: Path, folder: Path, dump: str) -> None:
    """Write pages of an archive to NUM_FILES archives, with the type that they are.

    Common Crawl's archives name it; datatrove believes it, and otherwise asks libmagic, which takes
    every fourth of these pages for something else than HTML.
    """
    parts = [(folder / f"{dump}-{number}.warc.gz").open("wb") for number in range(NUM_FILES)]
    writers = [WARCWriter(part, gzip=True) for part in parts]
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            number = zlib.crc32((record.rec_headers.get_header("WARC-Target-URI") or "").encode())
            if record.rec_type == "response":
                record.rec_headers.add_header("WARC-Identified-Payload-Type", "text/html")
                writers[number % NUM_FILES].write_record(record)
    for part in parts:
        part.close()


def run_sides(source: Path, what: str) -> dict[str, dict[str, Any]]:
    found = {}
    for side in ("blocks", "datatrove", "trafilatura_precision"):
        with tempfile.TemporaryDirectory(prefix="bench-end-to-end-") as work:
            run = run_peer if side == "datatrove" else run_ours
            found[side] = run(source, Path(work), side)
        print(f"  {what}, {side}: {found[side]}", file=sys.stderr)
    return found


def manuals(pattern: str) -> list[Path]:
    found = sorted(dated_manuals.FOLDER.glob(f"{pattern}.warc.gz"))
    if not found:
        sys.exit(f"there is no {pattern} in {dated_manuals.FOLDER}; run dated_manuals.py")
    return found


def run_ours(source: Path, work: Path, engine: str) -> dict[str, Any]:
    """Run our command on the WARC files of a folder, a dump for each suite."""
    dumps = sorted({path.name.rpartition("-")[0] for path in source.glob("*.warc.gz")})
    tables = [
        f'[[dumps]]\nname = "{dump}"\ninputs = ["{source}/{dump}-*.warc.gz"]\n' for dump in dumps
    ]
    config = work / "ours.toml"
    config.write_text(
        'lake = "lake"\nreport = "report.html"\n' + "".join(tables) + "[ingest]\n"
        f'extractor = "{engine}"\nlanguages = ["en"]\nmin_language_score = 0.65\nmin_chars = 1\n'
        f'[filter]\nprofiles = ["gopher", "c4", "fineweb"]\n[encode]\ntokenizer = "{TOKENIZER}"\n'
    )
    took = tree_of(work, [*CURATION, "run", config, "--to", "encode"])[0]
    stages: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    tokens = 0
    for record in Lake(work / "lake").records():
        stages[STAGES[record.stage]] += record.resources.get("cpu_seconds", 0)
        if record.stage == "ingest":
            rows["pages"] += record.rows["in"]
        rows[record.stage] += record.rows["kept"]
        tokens += sum(record.counts.get("tokens", {}).values())
    counts = {"pages": rows["pages"], "in_language": rows["ingest"], "unique": rows["dedup"]}
    return facts(took, stages, {**counts, "kept": rows["decontaminate"], "tokens": tokens})


def run_peer(source: Path, work: Path, _: str) -> dict[str, Any]:
    """Run datatrove's side on the WARC files of a folder."""
    model = models.resolve(DEFAULT_LANGUAGE_MODEL)
    cores = len(os.sched_getaffinity(0))
    script = HERE / "peer_end_to_end.py"
    took, said = tree_of(work, [PEER, script, source, work, TOKENIZER, model, cores])
    found = json.loads(said.splitlines()[-1])
    return facts(took, found["stages"], found["counts"])


def tree_of(work: Path, command: list[object]) -> tuple[dict[str, float], str]:
    """Run a command; return what all its processes took, and what it printed."""
    target = work / "took.json"
    done = subprocess.run(
        [sys.executable, HERE / "whole_tree.py", target, *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_ASSETS_CACHE": f"{work}/assets"},
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(target.read_text()), done.stdout


def facts(
    took: Mapping[str, float], stages: Mapping[str, float], counts: Mapping[str, int]
) -> dict[str, Any]:
    cpu_seconds = took["cpu_seconds"]
    rest = cpu_seconds - sum(stages.values())
    return {
        "documents_per_core_second": round(counts["pages"] / cpu_seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "wall_seconds": round(took["wall_seconds"], 1),
        "core_seconds": {name: round({**stages, "rest": rest}.get(name, 0), 1) for name in SHOWN},
        "counts": dict(counts),
    }


def draw(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw core-seconds by stage on the bulk corpus from the entries of bench.json."""
    same, fast = (results[name]["by_corpus"]["bulk"] for name in NAMES)
    rows = {
        "ours, blocks": fast["ours"],
        "ours, trafilatura": same["ours"],
        "datatrove": same["peer"],
    }
    with mpl.rc_context({**STYLE, "svg.hashsalt": "end to end"}):
        figure = Figure(figsize=(7.5, 2.6), layout="constrained")
        draw_stages(figure.subplots(), rows)
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(PICTURE, format="svg", facecolor="white", metadata=no_metadata)


def draw_stages(axes: Axes, rows: Mapping[str, Mapping[str, Any]]) -> None:
    starts = [0.0] * len(rows)
    for stage, (meaning, color) in SHOWN.items():
        widths = [row["core_seconds"][stage] for row in rows.values()]
        axes.barh(range(len(rows)), widths, 0.7, starts, color=COLORS[color], label=meaning)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for place, row in enumerate(rows.values()):
        axes.annotate(
            f"{row['documents_per_core_second']:,} documents/s/core",
            (starts[place], place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    pages = next(iter(rows.values()))["counts"]["pages"]
    bars(axes, list(rows), max(starts), f"core-seconds for {pages:,} pages", room=0.45)
    axes.figure.legend(loc="outside upper left", ncols=3)


NAMES = (e2e_vs_datatrove.__name__, e2e_fast_vs_datatrove.__name__)

if __name__ == "__main__":
    draw(json.loads((HERE / "bench.json").read_text()))
