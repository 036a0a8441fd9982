"""How well `curation capacity` tells the work of a corpus from a run on a tenth of it.

Pages are dealt to files by their URL, so that captures of a page in several dumps are in the tenth
together. Both runs are the whole command with a JVM of its own, one after the other.
"""

import gzip
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import dated_manuals
from made import curate
from warcio.archiveiterator import ArchiveIterator

from curation.engine.capacity import Question, measured, project
from curation.engine.lake import Lake

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "tests" / "data" / "dumps"
NUM_FILES = 10  # of a dump; the first is the tenth


def capacity_error() -> dict[str, Any]:
    """CPU seconds of the whole corpus predicted from a tenth, beside those measured."""
    with tempfile.TemporaryDirectory(prefix="bench-capacity-") as folder:
        sources = sorted(dated_manuals.FOLDER.glob("*.warc.gz")) or sorted(DEMO.glob("*.warc.gz"))
        dumps = [path.name.removesuffix(".warc.gz") for path in sources]
        for path, dump in zip(sources, dumps, strict=True):
            deal(path, Path(folder), dump)
        lakes = []
        for name, pattern in (("warm-up", "0"), ("tenth", "0"), ("whole", "*")):
            config = write_config(Path(folder), name, dumps, pattern)
            curate(config, "ingest", "encode")
            lakes.append(Lake(Path(folder) / name))
        tenth, whole = (measured(lake.dumps(), lake.records()) for lake in lakes[1:])
    dump_bytes = round(whole.archive_bytes / whole.num_dumps)
    plan = project(tenth, Question(len(dumps), whole.cores, 1.0, dump_bytes))
    stages = {}
    for stage in plan.stages:
        seconds = sum(each.cpu_seconds for each in whole.work[stage.stage])
        before = sum(each.cpu_seconds for each in tenth.work[stage.stage])
        stages[stage.stage] = {
            "tenth": round(before, 2),
            "predicted": round(stage.core_seconds, 2),
            "measured": round(seconds, 2),
        }
        print(f"  {stage.stage}: {stages[stage.stage]}", file=sys.stderr)
    predicted = sum(each["predicted"] for each in stages.values())
    seconds = sum(each["measured"] for each in stages.values())
    return {
        "ours": round(predicted, 1),
        "peer": round(seconds, 1),
        "ratio": round(predicted / seconds, 2),
        "unit": "CPU seconds",
        "peer_name": f"measured; ours is predicted from a tenth of {', '.join(dumps)}",
        "n": round(whole.archive_bytes),
        "stages": stages,
    }


def deal(path: Path, folder: Path, dump: str) -> None:
    """Write the responses of an archive to NUM_FILES archives, by their URL."""
    parts = [(folder / f"{dump}-{number}.warc.gz").open("wb") for number in range(NUM_FILES)]
    with path.open("rb") as file:
        records = ArchiveIterator(file, no_record_parse=True)
        places = []
        for record in records:
            record.content_stream().read()
            url = record.rec_headers.get_header("WARC-Target-URI")
            number = zlib.crc32(url.encode()) % NUM_FILES if url else None
            records.read_to_end()
            places.append((number, records.get_record_offset(), records.get_record_length()))
        for number, offset, length in places:
            if number is not None:
                file.seek(offset)
                member = file.read(length)
                assert gzip.decompress(member).startswith(b"WARC/")
                parts[number].write(member)
    for part in parts:
        part.close()


def write_config(folder: Path, name: str, dumps: list[str], pattern: str) -> Path:
    """Write the settings of the demo for these dumps, a lake of this name."""
    demo = (ROOT / "jobs" / "conf" / "demo.toml").read_text()
    settings = demo[demo.index("[ingest]") :]
    settings = settings.replace('"profiles/', f'"{ROOT}/jobs/conf/profiles/')
    settings = settings.replace('"demo-tokenizer', f'"{ROOT}/jobs/conf/demo-tokenizer')
    tables = [
        f'[[dumps]]\nname = "{dump}"\ninputs = ["{dump}-{pattern}.warc.gz"]\n' for dump in dumps
    ]
    head = f'lake = "{name}"\nreport = "{name}.html"\ndefault_domain = "web"\n'
    path = folder / f"{name}.toml"
    path.write_text(head + "".join(tables) + settings)
    return path
