"""Curated text as a product: the kept documents of a lake, as Parquet or JSON lines, with a card.

    <to>/data/<dump>/<slice>-00000.parquet     one file a file of documents; or .jsonl.gz
    <to>/README.md                             the card: funnel, licences, versions, known limits

`datasets.load_dataset(<to>)` reads it, with one configuration a dump. The same lake gives the same
bytes. Nothing is written into a folder that holds something.
"""

import gzip
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from curation import __version__
from curation.engine import ledger
from curation.engine import session as spark
from curation.engine.kept import KeptPart, kept_parts, on_parts
from curation.engine.lake import Lake, RunRecord
from curation.engine.tasks import LABELS, read_range
from curation.errors import ConfigError, NotFound
from curation.schemas import DOCUMENTS, KEPT, MIXTURE, SIGNALS

FORMATS = ("parquet", "jsonl")
BATCH_ROWS = 1_000
OF_DOCUMENTS = (
    *("url", "host", "crawled_at", "lang_score", "lang_script", "title", "author"),
    *("published_at", "archive", "offset", "metadata"),
)
OF_SIGNALS = ("perplexity_char", "code_share", "math_share", "domain_label", "domain_score")
COPIES = ("num_duplicates", "copies")
COUNTS = pa.schema([(name, pa.int64()) for name in ("doc_id", *COPIES)])
EXPORTED = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("text", pa.string()),
        ("dump", pa.string()),
        *(KEPT.field(name) for name in LABELS[1:]),
        *(DOCUMENTS.field(name) for name in OF_DOCUMENTS),
        *(SIGNALS.field(name) for name in OF_SIGNALS),
        ("num_duplicates", pa.int64()),  # that dedup removed for it
        ("copies", pa.int64()),  # whole ones in the release that was named; null without one
    ]
)


def export(lake: Lake, to: Path, format: str = "parquet", release: str = "") -> dict[str, int]:
    """Write the kept documents of a lake; return how many documents and bytes of text there are.

    With `release`, `copies` says how often that release takes each. Raises ConfigError for an
    unknown format and for a folder that holds something, NotFound for an unknown release,
    NotCommitted for a lake without kept documents.
    """
    if format not in FORMATS:
        raise ConfigError(f"format is {format!r}; there are {', '.join(FORMATS)}")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to} holds something already; name a new folder, or empty this one")
    record = lake.record("release", release, "all") if release else None
    if release and record is None:
        known = [each.dump for each in lake.records("release")]
        raise NotFound(f"the lake has no release {release!r}; it has {', '.join(known) or 'none'}")
    parts = kept_parts(lake)
    session = spark.start()
    to.mkdir(parents=True, exist_ok=True)
    counts = to / f".counts-{uuid4().hex}"
    try:
        with spark.described(session, f"export to {to}", lambda *_: None):
            _write_counts(session, lake, record, counts)
            work = partial(
                _export_part,
                lake=str(lake.path),
                to=str(to),
                format=format,
                counts=str(counts),
                release=bool(release),
            )
            rows = on_parts(session, parts, work, "documents bigint, bytes bigint").collect()
    finally:
        shutil.rmtree(counts, ignore_errors=True)
    totals = {name: sum(row[name] for row in rows) for name in ("documents", "bytes")}
    (to / "README.md").write_text(_card(lake, to, format, totals, record), encoding="utf-8")
    return totals


def _write_counts(session: SparkSession, lake: Lake, release: RunRecord | None, to: Path) -> None:
    """Write COUNTS of all documents that have duplicates or copies, in the order of doc_ids."""
    counts = spark.num_duplicates(session, lake)
    if release is not None:
        paths = [str(lake.path / entry.path) for entry in release.files_of("mixture")]
        taken = spark.parquet(session, MIXTURE, paths)
        taken = taken.select("doc_id", F.col("copies").cast("bigint"))
        counts = taken if counts is None else counts.join(taken, on="doc_id", how="outer")
    if counts is None:
        to.mkdir()
        pq.write_table(COUNTS.empty_table(), to / "none.parquet")
        return
    for name in COPIES:
        if name not in counts.columns:
            counts = counts.withColumn(name, F.lit(None).cast("bigint"))
    counts = counts.select("doc_id", *COPIES)
    counts.repartitionByRange("doc_id").sortWithinPartitions("doc_id").write.parquet(
        spark.on_disk(to)
    )


def _export_part(
    part: KeptPart, lake: str, to: str, format: str, counts: str, release: bool
) -> Iterator[pa.RecordBatch]:
    folder = Path(to, "data", part.dump)
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".parquet" if format == "parquet" else ".jsonl.gz"
    target = folder / f"{part.slice}-{part.part.number:05d}{suffix}"
    unfinished = folder / f".{target.name}.{uuid4().hex}.tmp"
    num_documents = num_bytes = 0
    try:
        with _writer(format, unfinished) as write:
            for rows in part.documents(lake, BATCH_ROWS, OF_DOCUMENTS):
                table = _columns(rows, part, lake, counts, release)
                write(table)
                num_documents += table.num_rows
                num_bytes += pc.sum(rows["num_bytes"]).as_py() or 0
        if num_documents:
            unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    yield pa.record_batch([[num_documents], [num_bytes]], names=["documents", "bytes"])


def _columns(rows: pa.Table, part: KeptPart, lake: str, counts: str, release: bool) -> pa.Table:
    ids = rows["doc_id"].combine_chunks()
    first, last = ids[0].as_py(), ids[-1].as_py()
    signals = read_range(
        part.part.files.get("signals", ()), "signals", ("doc_id", *OF_SIGNALS), lake, first, last
    )
    signals = signals.take(pc.index_in(ids, signals["doc_id"]))
    wanted = (pc.field("doc_id") >= first) & (pc.field("doc_id") <= last)
    found = ds.dataset(counts, schema=COUNTS, format="parquet").to_table(filter=wanted)
    found = found.take(pc.index_in(ids, found["doc_id"]))
    copies = found["copies"].fill_null(0) if release else found["copies"]
    columns: dict[str, Any] = {name: rows[name] for name in rows.column_names}
    columns |= {name: signals[name] for name in OF_SIGNALS}
    columns |= {"num_duplicates": found["num_duplicates"].fill_null(0), "copies": copies}
    columns["dump"] = pa.array([part.dump] * len(ids), pa.string())
    return pa.table({name: columns[name] for name in EXPORTED.names}, schema=EXPORTED)


class _writer:
    """Writes tables as Parquet or as JSON lines; a context that gives the function to do so."""

    def __init__(self, format: str, path: Path) -> None:
        self.format, self.path = format, path

    def __enter__(self) -> Any:
        if self.format == "parquet":
            self.file: Any = pq.ParquetWriter(self.path, EXPORTED, compression="zstd")
            return self.file.write_table
        # without a name and a time, so that the same documents are the same bytes
        self.raw = self.path.open("wb")
        self.file = gzip.GzipFile("", "wb", fileobj=self.raw, mtime=0)
        return self._write_lines

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self.format != "parquet":
            self.raw.close()

    def _write_lines(self, table: pa.Table) -> None:
        for name in ("crawled_at", "published_at"):
            text = pc.strftime(table[name], "%Y-%m-%dT%H:%M:%SZ")
            table = table.set_column(table.column_names.index(name), name, text)
        for row in table.to_pylist():
            self.file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


# ---- the card ----------------------------------------------------------------------------------


def _card(
    lake: Lake,
    to: Path,
    format: str,
    totals: Mapping[str, int],
    release: RunRecord | None,
) -> str:
    funnel = ledger.funnel(lake)
    records = [each for each in lake.records() if each.stage != "release"]
    environment = Environment(
        loader=PackageLoader("curation", "engine"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["num"] = lambda value: f"{value:,}"
    dumps = [dump for dump in funnel.dumps if (to / "data" / dump).is_dir()]
    return environment.get_template("export_card.md.jinja").render(
        dumps=dumps,
        pattern="*.parquet" if format == "parquet" else "*.jsonl.gz",
        totals=totals,
        columns=EXPORTED,
        about=ABOUT,
        funnel=[_funnel_row(funnel, dump) for dump in [*funnel.dumps, None]],
        rejects=[
            (stage, rule, count)
            for stage, counts in ledger.rejects_by_rule(lake).items()
            for rule, count in counts.most_common()
        ],
        artifacts=sorted({(Path(p).name, s) for r in records for p, s in r.artifacts.items()}),
        packages=sorted({item for r in records for item in r.packages.items()}),
        stages=_versions(records),
        curation=__version__,
        release=release,
    )


ABOUT = {
    "doc_id": "identity: dump, input file and record of it",
    "text": "after all edits: repeated lines, private data, lines that C4 cuts, benchmarks",
    "dump": "the crawl",
    "domain": "of the mixture",
    "lang": "language of the text",
    "perplexity_bucket": "head, middle or tail among the dump's documents of the language",
    "quality_score": "of the quality classifier; null without one",
    "url": "as crawled",
    "host": "of the URL",
    "crawled_at": "when the crawler fetched it",
    "lang_score": "of the language, 0..1",
    "lang_script": "ISO 15924",
    "title": "as the page states",
    "author": "as the page states",
    "published_at": "as the page states",
    "archive": "input file, and",
    "offset": "where in it the record begins",
    "metadata": "JSON of a source's own columns, licences among them; null for archives",
    "perplexity_char": "by character; null without a model",
    "code_share": "share of the text in lines of code",
    "math_share": "share of the text in formulas",
    "domain_label": "of the domain classifier; null without one",
    "domain_score": "of the label, 0..1",
    "num_duplicates": "documents that were removed because they are like this one",
    "copies": "whole copies that the named release takes; null without a release",
}


def _funnel_row(funnel: ledger.Funnel, dump: str | None) -> list[str]:
    row = [dump or "all"]
    for stage in ledger.FUNNEL_STAGES[:-1]:
        total = funnel.total(stage) if dump is None else funnel.totals.get((dump, stage))
        if stage == "ingest":
            row.append(f"{total.rows_in:,}" if total else "")
        row.append(f"{total.rows_kept:,}" if total else "")
    return row


def _versions(records: Sequence[RunRecord]) -> list[tuple[str, int]]:
    return sorted({(record.stage, record.stage_version) for record in records})
