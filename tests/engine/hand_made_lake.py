"""A lake written by hand, hostile wherever a page of the web could put something into it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from run_records import made

from curation.config import Config, DedupConfig, DumpConfig, FingerprintConfig, ReleaseConfig
from curation.engine.lake import FileEntry, Lake, TableWriter
from curation.identity import first_doc_id
from curation.ingest.listing import InputFile
from curation.schemas import TABLES
from curation.tokens.shards import Manifest, ShardEntry, write_manifest

HOSTILE = "<script>alert(1)</script>"
HOSTILE_URL = f'https://example.org/?q="><img src=https://evil.example/x onerror=alert(1)>{HOSTILE}'
HOSTILE_RULE = f"parser_error:{HOSTILE}"
HOSTILE_DOMAIN = f"$x$ & {HOSTILE}"
HOSTILE_TITLE = f"\"'><svg onload=alert(2)></title></code></script>{HOSTILE}"
HOSTILE_TEXT = f"A2</pre></script>{HOSTILE}<iframe src=//evil.example></iframe>&lt;\u202e"


def make_full(folder: Path) -> tuple[Lake, Config]:
    """A lake of two dumps through all stages, and a release; hostile wherever a page could be."""
    config = make_config(folder)
    lake = Lake.create(config.lake)
    for ordinal, dump in enumerate("AB"):
        lake.freeze_inputs(dump, ordinal, 500, [InputFile(0, f"{dump}.warc.gz", 1000, 1)])
    files = write_documents(lake, 0, "A") + write_rejects(lake, "A")
    counts = {"rejects": {"min_chars": 9, HOSTILE_RULE: 1}, "languages": {"en": 5, "zh": 5}}
    commit(lake, "ingest", "A", (20, 10, 10), 1000, files, counts, seconds=4.0)
    counts = {"rejects": {"min_chars": 20}, "languages": {"en": 10}}
    commit(lake, "ingest", "B", (30, 10, 20), 3000, write_documents(lake, 1, "B"), counts)

    a, b = first_doc_id(0, 0), first_doc_id(1, 0)
    counts = {
        "duplicates": {"exact": 1, "near": 1},
        "twin_dumps": {"A": 2},
        "leader": {"solves": 1, "full_buckets": 2},
        "loss_documents": {"language:zh": 5, f"host:{HOSTILE}": 8},
        "loss_removed": {"language:zh": 4, f"host:{HOSTILE}": 2},
        "loss_counted": {"language:zh": 4, f"host:{HOSTILE}": 1},
        "loss_allowed": {"language:zh": 4},
    }
    files = write_duplicates(lake, "A", {a + 8: ("exact", a), a + 9: ("near", a)})
    bucket = {"band_key": [7], "num_entered": [256], "num_beyond": [3], "doc_ids": [[a, a + 1]]}
    files += write_rows(lake, "full_buckets", "A", bucket)
    commit(lake, "dedup", "A", (10, 8, 2), 800, files, counts, slice="all")
    counts = {
        "duplicates": {"exact": 2, "near": 4},
        "twin_dumps": {"A": 5, "B": 1},
        "leader": {"rounds": 3},
    }
    removed = {b + 1: ("near", b)} | {b + i: ("near", a + i) for i in range(5, 8)}
    removed |= {b + i: ("exact", a + i - 5) for i in range(8, 10)}
    files = write_duplicates(lake, "B", removed)
    commit(lake, "dedup", "B", (10, 4, 6), 2000, files, counts, slice="all")

    for dump, number in (("A", 512), ("B", 768)):  # of bins: 2 ** (n / 256) is the perplexity
        counts = {"perplexity_bins:en": {str(number): 3, str(number + 256): 1}}
        commit(lake, "annotate", dump, (4, 4, 0), 100, counts=counts)
    for dump, rows, num_bytes in (("A", (8, 6, 2), 600), ("B", (4, 3, 1), 1500)):
        counts = {"rejects": {"gopher_min_words": rows[2]}, "domains": {"web": rows[1]}}
        if dump == "B":
            counts["domains"] = {HOSTILE_DOMAIN: 3}
        counts |= {"languages": {"en": rows[0] - 2, "zh": 2}, "rejects:zh": counts["rejects"]}
        files = ()
        if dump == "A":
            why = {"value": [HOSTILE], "threshold": ["50.000000001"]}
            rejects = {"doc_id": [a], "rule": ["gopher_min_words"], **why}
            files = write_rows(lake, "rejects", "A", rejects, stage="filter")
            files += write_edits(lake, a + 2)
        kept = [a + 1, a + 2] if dump == "A" else [b, b + 2, b + 3]
        domain = [HOSTILE_DOMAIN if dump == "B" else "web"] * len(kept)
        files += write_rows(lake, "kept", dump, {"doc_id": kept, "domain": domain})
        commit(lake, "filter", dump, rows, num_bytes, files, counts)
    rejects = {"doc_id": [a + 1], "rule": ["contaminated_x"]}
    files = write_rows(lake, "rejects", "A", rejects, stage="decontaminate")
    commit(lake, "decontaminate", "A", (6, 6, 0), 600, files)
    counts = {
        "tokens": {"web": 300},
        "stratum_tokens": {"web/en": 300},
        "stratum_bytes": {"web/en": 600},
        "token_lengths:web/en": {"30": 3, "60": 2, "88": 1},
    }
    taken = {"cpu_seconds": 10.0, "cores": 4, "peak_worker_bytes": 5e8, "shuffle_bytes": 0}
    commit(lake, "encode", "A", (6, 6, 0), 600, counts=counts, seconds=5.0, resources=taken)
    counts = {
        "tokens": {HOSTILE_DOMAIN: 100},
        "stratum_tokens": {f"{HOSTILE_DOMAIN}/en": 100},
        "stratum_bytes": {f"{HOSTILE_DOMAIN}/en": 1500},
        f"token_lengths:{HOSTILE_DOMAIN}/en": {"32": 3},
    }
    commit(lake, "encode", "B", (3, 3, 0), 1500, counts=counts)
    commit(lake, "release", "demo", (9, 9, 0), 0, slice="all")

    folder = Path(config.shards) / "demo"
    folder.mkdir(parents=True)
    web = {"share": 0.5, "available_tokens": 300, "tokens": 600, "epochs": 2.0}
    other = {"share": 0.5, "available_tokens": 100, "tokens": 400, "epochs": 4.0}
    shard = ShardEntry("train-00000-of-00001.parquet", "train", 10, 1000, 3, 4096, "0" * 64)
    mixture = {"web": web, HOSTILE_DOMAIN: other}
    manifest = Manifest("demo", 100, 1, "concat", 0, "1" * 64, 500, 512, 1, (shard,), mixture)
    write_manifest(folder, manifest)
    return lake, config


def make_config(folder: Path) -> Config:
    return Config(
        lake=str(folder / "lake"),
        shards=str(folder / "shards"),
        dumps=tuple(DumpConfig(name=name, inputs=()) for name in "AB"),
        fingerprint=FingerprintConfig(ngram=1),
        dedup=DedupConfig(alarm_documents=5),
        release={"demo": ReleaseConfig(shares={"web": 0.5, HOSTILE_DOMAIN: 0.5})},
    )


def write_documents(lake: Lake, ordinal: int, dump: str) -> tuple[FileEntry, ...]:
    """Ten texts of one word, the third of more; all differ but B's third and last, which A has."""
    words = [f"{dump}{i}" for i in range(10)]
    words[2] = HOSTILE_TEXT
    if dump == "B":
        words[9] = "A4"
    return write_rows(
        lake,
        "documents",
        dump,
        {
            "doc_id": [first_doc_id(ordinal, 0) + i for i in range(10)],
            "url": [f"https://example.org/{dump}/{i}" for i in range(10)],
            "host": [HOSTILE_TITLE] * 10,
            "title": [HOSTILE_TITLE] * 10,
            "text": words,
        },
    )


def write_duplicates(
    lake: Lake, dump: str, removed: Mapping[int, tuple[str, int]]
) -> tuple[FileEntry, ...]:
    ids = sorted(removed)
    return write_rows(
        lake,
        "duplicates",
        dump,
        {
            "doc_id": ids,
            "kind": [removed[doc_id][0] for doc_id in ids],
            "twin_id": [removed[doc_id][1] for doc_id in ids],
            "similarity": [1.0] * len(ids),
        },
    )


def write_edits(lake: Lake, doc_id: int) -> tuple[FileEntry, ...]:
    """One edit of the filter: the first character of a text, which hostile text replaces."""
    edit = {"doc_id": [doc_id], "start": [0], "end": [1], "replacement": [HOSTILE]}
    return write_rows(lake, "edits", "A", edit, stage="filter")


def write_rejects(lake: Lake, dump: str) -> tuple[FileEntry, ...]:
    return write_rows(
        lake,
        "rejects",
        dump,
        {
            "doc_id": [100, 101],
            "url": [HOSTILE_URL, "https://example.org/short"],
            "rule": [HOSTILE_RULE, "min_chars"],
            "value": [HOSTILE, "12"],
            "threshold": [None, "100"],
        },
    )


def write_rows(
    lake: Lake, table: str, dump: str, columns: Mapping[str, list[Any]], stage: str = "ingest"
) -> tuple[FileEntry, ...]:
    """Write one file of a table; columns that are not given are null."""
    num_rows = len(next(iter(columns.values())))
    rows = pa.table(
        {f.name: pa.array(columns.get(f.name, [None] * num_rows), f.type) for f in TABLES[table]},
        schema=TABLES[table],
    )
    writer = TableWriter(str(lake.path), table, stage, dump, "0000", "part")
    writer.write(rows)
    entry = writer.close()
    assert entry is not None
    return (entry,)


def commit(
    lake: Lake,
    stage: str,
    dump: str,
    rows: tuple[int, int, int],
    bytes_kept: int,
    files: tuple[FileEntry, ...] = (),
    counts: Mapping[str, Mapping[str, int]] | None = None,
    slice: str = "0000",
    seconds: float = 1.0,
    resources: Mapping[str, float] | None = None,
) -> None:
    record = made(
        stage,
        dump,
        slice,
        seconds=seconds,
        rows=dict(zip(("in", "kept", "rejected"), rows, strict=True)),
        num_bytes={"in": bytes_kept, "kept": bytes_kept, "removed": 0},
        counts=counts or {},
        files=files,
        resources=resources or {},
    )
    lake.commit(record)
