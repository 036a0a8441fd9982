"""What the report of a large lake takes: `python tests/bench/report_scale.py`.

The lake is written by hand, without Spark: ten dumps of ten slices, texts of 300 made words, half
of them duplicates, half of the rest rejected by 20 rules, three edits in each kept one. Prints
seconds, peak memory and size of the page.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.config import Config, DumpConfig
from curation.engine.lake import FileEntry, Lake, TableWriter
from curation.engine.report import write_report
from curation.identity import first_doc_id
from curation.ingest.listing import InputFile
from curation.schemas import TABLES

sys.path.append(str(Path(__file__).parents[1]))

from run_records import made

NUM_DUMPS = NUM_SLICES = 10
NUM_WORDS = 50_000
WORDS = np.array([f"w{i:05d}" for i in range(NUM_WORDS)])
RESOURCES = {
    "cpu_seconds": 20.0,
    "cores": 4,
    "archive_bytes": 1e8,
    "shuffle_bytes": 0,
    "peak_worker_bytes": 5e8,
}


def main() -> None:
    """Make the lake in a temporary folder and write its report once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    num_documents = parser.parse_args().documents // (NUM_DUMPS * NUM_SLICES)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.create(Path(folder, "lake"))
        with ProcessPoolExecutor(2) as pool:  # so that the peak of this process is the report's
            begun = [pool.submit(make_dump, lake, i, num_documents) for i in range(NUM_DUMPS)]
            for each in begun:
                each.result()
        dumps = tuple(DumpConfig(name=f"DUMP-{i}", inputs=()) for i in range(NUM_DUMPS))
        config = Config(lake=str(lake.path), shards=f"{folder}/shards", dumps=dumps)
        page = Path(folder, "report.html")
        begun = time.perf_counter()
        write_report(Lake(lake.path), page, config)
        seconds = time.perf_counter() - begun
        print(
            f"{num_documents * NUM_DUMPS * NUM_SLICES:,} documents: {seconds:.1f} s, "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB at most, "
            f"{page.stat().st_size:,} bytes"
        )


def make_dump(lake: Lake, ordinal: int, num: int) -> None:
    """Commit one dump: ingest, dedup, annotate, filter and encode of its slices."""
    dump, rng = f"DUMP-{ordinal}", np.random.default_rng(ordinal)
    files = [InputFile(i, f"{dump}-{i}.warc.gz", 10**8, 1) for i in range(NUM_SLICES)]
    lake.freeze_inputs(dump, ordinal, 1, files)
    duplicates: tuple[FileEntry, ...] = ()
    for number in range(NUM_SLICES):
        place = dump, f"{number:04d}"
        ids = first_doc_id(ordinal, number) + np.arange(num)
        page = {
            "doc_id": ids,
            "url": [f"https://h{i % 97}.example/{dump}/{number}/{i}" for i in range(num)],
            "lang": ["en"] * num,
            "title": ["A title"] * num,
            "text": [" ".join(WORDS[rng.integers(0, NUM_WORDS, 300)]) for _ in range(num)],
        }
        files_of_ingest = write(lake, "ingest", "documents", *place, page)
        counts = {"languages": {"en": num}}
        commit(lake, "ingest", *place, num, num, files_of_ingest, counts)
        removed, kept = np.split(ids, [num // 2])
        twins = first_doc_id(0, 0) + num // 2 + rng.integers(0, num // 2, len(removed))
        rows = {"doc_id": removed, "twin_id": twins, "kind": ["near"] * len(removed)}
        rows |= {"similarity": [0.9] * len(removed)}
        duplicates += write(lake, "dedup", "duplicates", *place, rows)
        rejected, kept = np.split(kept, [len(kept) // 2])
        rules = [f"rule_{i % 20}" for i in range(len(rejected))]
        rows = {"doc_id": rejected, "rule": rules, "url": ["https://h.example/"] * len(rejected)}
        files_of_filter = write(lake, "filter", "rejects", *place, rows)
        rows = {"doc_id": kept, "domain": ["web"] * len(kept), "lang": ["en"] * len(kept)}
        files_of_filter += write(lake, "filter", "kept", *place, rows)
        spans = {"start": np.tile([0, 10, 700], len(kept)), "end": np.tile([3, 12, 710], len(kept))}
        rows = {"doc_id": np.repeat(kept, 3), **spans}
        files_of_filter += write(lake, "filter", "edits", *place, rows)
        came = len(rejected) + len(kept)
        bins = {"perplexity_bins:en": {str(500 + i): came // 100 for i in range(100)}}
        commit(lake, "annotate", *place, came, came, (), bins)
        counts = {name: dict(Counter(rules)) for name in ("rejects", "rejects:en")}
        counts |= {"languages": {"en": came}, "domains": {"web": len(kept)}}
        commit(lake, "filter", *place, came, len(kept), files_of_filter, counts)
        counts = {"tokens": {"web": 300 * len(kept)}, "stratum_tokens": {"web/en": 300 * len(kept)}}
        counts |= {"stratum_bytes": {"web/en": 2100 * len(kept)}}
        counts |= {"token_lengths:web/en": {"288": len(kept)}}
        commit(lake, "encode", *place, len(kept), len(kept), (), counts)
    came, left = num * NUM_SLICES, num * NUM_SLICES - sum(entry.rows for entry in duplicates)
    counts = {"duplicates": {"near": came - left}, "twin_dumps": {"DUMP-0": came - left}}
    commit(lake, "dedup", dump, "all", came, left, duplicates, counts)


def write(
    lake: Lake, stage: str, table: str, dump: str, slice: str, columns: Mapping[str, Any]
) -> tuple[FileEntry, ...]:
    """Write one file of a table; columns that are not given are null."""
    num_rows = len(columns["doc_id"])
    arrays = {
        field.name: pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(num_rows, field.type)
        for field in TABLES[table]
    }
    writer = TableWriter(str(lake.path), table, stage, dump, slice, "part")
    writer.write(pa.table(arrays, schema=TABLES[table]))
    entry = writer.close()
    assert entry is not None
    return (entry,)


def commit(
    lake: Lake,
    stage: str,
    dump: str,
    slice: str,
    came: int,
    kept: int,
    files: tuple[FileEntry, ...],
    counts: Mapping[str, Mapping[str, int]],
) -> None:
    """Commit a slice: what came in, what was kept, files and counts."""
    num_bytes = {"in": 2100 * came, "kept": 2100 * kept, "removed": 2100 * (came - kept)}
    more = {"counts": counts, "files": files, "resources": RESOURCES, "seconds": 10.0}
    lake.commit(made(stage, dump, slice, came, kept, num_bytes=num_bytes, **more))


if __name__ == "__main__":
    main()
