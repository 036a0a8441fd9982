"""Texts that models are trained on: files, and queries of a lake. No Spark.

    pages.jsonl.gz, pages.parquet, notes/*.txt     files or globs; the column `text`, or #column
    lake:out/demo/lake?lang=en&domain=web          kept documents of a lake, as they are encoded
    lake:out/demo/lake?rule=c4_min_sentences       documents that this rule rejected, as stored
    lake:out/demo/lake?table=documents&dump=NAME   all documents, as stored

A query may name dump, lang, host, domain (of kept documents) and rule (`*` is any), each several
times; a document must match one value of each.
"""

import glob
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.engine.lake import Lake
from curation.engine.run import kept_parts_of
from curation.engine.tasks import edited_documents
from curation.errors import ConfigError, InputInvalid, InputMissing

LAKE = "lake:"
KEYS = ("table", "dump", "lang", "host", "domain", "rule")
BATCH_ROWS = 1_000


def read_texts(sources: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts of all sources in batches; null texts are left out.

    Raises InputMissing for a source without a file or document, InputInvalid for a file or query
    that is not what it should be.
    """
    for source in sources:
        num_texts = 0
        read = _of_lake(source) if source.startswith(LAKE) else _of_files(source)
        for batch in read:
            num_texts += len(batch)
            if batch:
                yield batch
        if num_texts == 0:
            raise InputMissing(f"{source} has no text; name another source, or another query")


def kept_texts(
    lake: Lake, slices: Sequence[tuple[str, str]], batch_rows: int, columns: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Yield the edited texts of kept documents of slices (dump, slice), as they are encoded."""
    for dump, slice in slices:
        for part in kept_parts_of(lake, dump, slice):
            yield from edited_documents(part, str(lake.path), batch_rows, columns)


def _of_files(source: str) -> Iterator[list[str]]:
    pattern, _, column = source.partition("#")
    paths = sorted(glob.glob(pattern)) or ([pattern] if Path(pattern).is_file() else [])
    if not paths:
        raise InputMissing(f"no file at {pattern}; name a file, a glob, or lake:FOLDER?QUERY")
    for path in paths:
        kind = Path(path.removesuffix(".gz")).suffix
        if kind == ".parquet":
            yield from _of_parquet(path, column or "text")
        elif kind == ".jsonl":
            yield from _of_jsonl(path, column or "text")
        elif kind == ".txt":
            yield [_read(path)]
        else:
            raise InputInvalid(
                f"{path} ends in {kind or 'nothing'}; texts are read from .jsonl, .parquet and "
                ".txt files, the first and the last gzipped or not"
            )


def _of_parquet(path: str, column: str) -> Iterator[list[str]]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise InputInvalid(
                    f"{path} has no column {column!r}; it has {', '.join(names)}: write PATH#COLUMN"
                )
            for batch in file.iter_batches(BATCH_ROWS, columns=[column]):
                yield batch.column(0).drop_null().cast(pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise InputInvalid(f"{path} cannot be read as Parquet of text: {error}") from None


def _of_jsonl(path: str, column: str) -> Iterator[list[str]]:
    batch: list[str] = []
    for number, line in enumerate(_read(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputInvalid(f"{path}, line {number} is not JSON: {error}; mend it") from None
        if not isinstance(row, dict) or not isinstance(row.get(column, 0), str | None):
            raise InputInvalid(
                f"{path}, line {number} has no text {column!r}; write PATH#FIELD for another field"
            )
        if row.get(column):
            batch.append(row[column])
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    yield batch


def _read(path: str) -> str:
    try:
        data = Path(path).read_bytes()
        return (gzip.decompress(data) if path.endswith(".gz") else data).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputInvalid(f"{path} cannot be read as UTF-8 ({error}); convert it") from None


def _of_lake(source: str) -> Iterator[list[str]]:
    path, _, query = source.removeprefix(LAKE).partition("?")
    wanted: dict[str, list[str]] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in KEYS:
            raise ConfigError(f"{source}: {key!r} is no key of a query; keys are {', '.join(KEYS)}")
        wanted.setdefault(key, []).append(value)
    lake = Lake(path)
    table = wanted.pop("table", ["kept"])[-1]
    if table not in ("kept", "documents"):
        raise ConfigError(f"{source}: table is {table!r}; it is kept or documents")
    if "rule" in wanted or table == "documents":
        yield from _stored(lake, wanted, source)
        return
    slices = [(record.dump, record.slice) for record in lake.records("filter")]
    chosen = [place for place in slices if place[0] in wanted.get("dump", [place[0]])]
    for rows in kept_texts(lake, chosen, BATCH_ROWS, ["host"]):
        yield rows.filter(_matches(rows, wanted))["text"].to_pylist()


def _stored(lake: Lake, wanted: Mapping[str, Sequence[str]], source: str) -> Iterator[list[str]]:
    if "domain" in wanted:
        raise ConfigError(f"{source}: only kept documents have a domain; drop it")
    for dump in lake.dumps():
        if dump not in wanted.get("dump", [dump]):
            continue
        documents = lake.table("documents", dump)
        chosen: pa.Array | None = None
        if "rule" in wanted:
            rejects = lake.table("rejects", dump).to_table(["doc_id", "rules"])
            if "*" in wanted["rule"]:
                chosen = rejects["doc_id"]
            else:
                rules = rejects["rules"].combine_chunks()
                hit = pc.list_parent_indices(rules).filter(
                    pc.is_in(rules.flatten(), pa.array(wanted["rule"]))
                )
                chosen = rejects["doc_id"].combine_chunks().take(hit.unique())
        for batch in documents.to_batches(columns=["doc_id", "lang", "host", "text"]):
            rows = pa.Table.from_batches([batch])
            if chosen is not None:
                rows = rows.filter(pc.is_in(rows["doc_id"], chosen))
            yield rows.filter(_matches(rows, wanted))["text"].to_pylist()


def _matches(rows: pa.Table, wanted: Mapping[str, Sequence[str]]) -> pa.Array:
    matches = pa.array([True] * rows.num_rows, pa.bool_())
    for key in ("lang", "host", "domain"):
        if key in wanted:
            matches = pc.and_(matches, pc.is_in(rows[key], pa.array(wanted[key])))
    return matches
