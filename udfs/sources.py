"""`spark.read.format("warc")`: records of archives and of document files as a Spark data source.

    from udfs.sources import WarcDataSource
    spark.dataSource.register(WarcDataSource)
    spark.read.format("warc").load("crawl/*.warc.gz")

Options: `contents` (warc, parquet, jsonl or text; default warc), `max_record_bytes`,
`group_bytes` (input bytes of a partition), `summary` (also return the rows that count records of
other types, see `curation.ingest.warc.RECORD_SCHEMA`, and behind each file a row `file`, whose
metadata is what its server said of a remote one), `base` (what lines of listings are relative to),
`remote` (the [remote] settings as JSON). A partition is a group of neighbouring files, read in
order, streamed: memory is one batch and one record. Paths and listings may be URLs; a remote file
is a partition of its own, byte ranges of remote files are grouped.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

from curation.config import SOURCE_FORMATS, RemoteConfig, build
from curation.errors import ConfigError
from curation.ingest import remote, warc
from curation.ingest.listing import InputFile, group_files, list_inputs
from curation.ingest.ranges import split_ranges
from curation.schemas import spark_ddl

SOURCE_SCHEMA = pa.schema(
    [("file_ordinal", pa.int32()), ("archive", pa.string()), *warc.RECORD_SCHEMA]
)
DEFAULT_GROUP_BYTES = 64_000_000
OPTIONS = frozenset(
    {"path", "paths", "contents", "max_record_bytes", "group_bytes", "summary", "base", "remote"}
    | {"groups", "known"}  # of the runner
)


class Files(InputPartition):
    """One partition: files as (ordinal, path)."""

    def __init__(self, files: Sequence[tuple[int, str]]) -> None:
        self.files = files


class WarcDataSource(DataSource):
    """The `warc` format."""

    @classmethod
    def name(cls) -> str:
        """Return the name for `spark.read.format`."""
        return "warc"

    def schema(self) -> str:
        """Return the DDL: where a record lies, then `curation.ingest.warc.RECORD_SCHEMA`."""
        return spark_ddl(SOURCE_SCHEMA)

    def reader(self, schema: Any) -> "WarcReader":
        """Return the reader; raises ConfigError for an unknown option."""
        return WarcReader(dict(self.options))


class WarcReader(DataSourceReader):
    """Lists files on the driver, reads them on workers."""

    def __init__(self, options: dict[str, str]) -> None:
        for name in options:
            if name.lower() not in OPTIONS:
                raise ConfigError(
                    f"the warc source has no option {name!r}; it has {', '.join(sorted(OPTIONS))}"
                )
        self.contents = options.get("contents", "warc")
        if self.contents not in SOURCE_FORMATS:
            raise ConfigError(
                f"option contents of the warc source is {self.contents!r}; it is one of "
                f"{', '.join(SOURCE_FORMATS)}"
            )
        self.max_record_bytes = _number(options, "max_record_bytes", warc.MAX_RECORD_BYTES)
        if (summary := options.get("summary", "false").lower()) not in ("true", "false"):
            raise ConfigError(f"option summary of the warc source is {summary!r}; true or false")
        self.summary = summary == "true"
        self.remote = _settings(options.get("remote", "{}"))
        # what a frozen remote file was when it was first read, by ordinal
        frozen = json.loads(options.get("known", "{}")).items()
        self.known = {int(ordinal): remote.Facts(**facts) for ordinal, facts in frozen}
        if "groups" in options:  # a frozen listing, grouped by the runner
            self.groups = json.loads(options["groups"])
        else:
            group_bytes = _number(options, "group_bytes", DEFAULT_GROUP_BYTES)
            paths = json.loads(options.get("paths", "[]")) or [options.get("path", "")]
            if paths == [""]:
                raise ConfigError(
                    'the warc source has no path; name files or folders: load("crawl/*.warc.gz")'
                )
            seen = list_inputs(
                paths,
                self.contents,
                base=options.get("base", ""),
                settings=self.remote,
            )
            files = [InputFile(ordinal, *facts) for ordinal, facts in enumerate(seen)]
            self.groups = [
                [(file.ordinal, file.path) for file in group]
                for group in group_files(files, group_bytes)
            ]

    def partitions(self) -> Sequence[InputPartition]:
        """Return one partition a group of files."""
        return [Files([tuple(file) for file in group]) for group in self.groups]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Yield the records of a group in order."""
        assert isinstance(partition, Files)
        files = partition.files
        remote.configure(self.remote, {path: self.known[n] for n, path in files if n in self.known})
        try:
            for ordinal, path in files:
                for batch in self._read(path):
                    if not self.summary:
                        batch = batch.filter(batch["num_other"].is_null())
                    yield _with_place(batch, ordinal, path)
                if self.summary:
                    yield _with_place(_end_row(remote.facts_of(path)), ordinal, path)
        except remote.RemoteFailure as failure:
            raise failure.error from None

    def _read(self, path: str) -> Iterator[pa.RecordBatch]:
        if self.contents == "warc":
            return warc.read_records(path, max_record_bytes=self.max_record_bytes)
        return warc.read_rows(path, self.contents, max_record_bytes=self.max_record_bytes)


def _settings(text: str) -> RemoteConfig:
    try:
        settings: RemoteConfig = build(RemoteConfig, json.loads(text), "remote.")
        return settings
    except ValueError as error:
        raise ConfigError(
            f"option remote of the warc source is {text!r} ({error}); give the settings of "
            '[remote] as JSON, such as {"attempts": 5}'
        ) from None


def _number(options: dict[str, str], name: str, default: int) -> int:
    text = options.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"option {name} of the warc source is {text!r}; it is a number above 0")
    return int(text)


def _end_row(facts: remote.Facts | None) -> pa.RecordBatch:
    """Return the summary row that ends every file, with what its server said of a remote one."""
    metadata = None if facts is None else json.dumps(facts._asdict())
    row = {"record_type": warc.END_OF_FILE, "metadata": metadata, "num_other": 1}
    return pa.RecordBatch.from_pylist([row], schema=warc.RECORD_SCHEMA)


def _with_place(batch: pa.RecordBatch, ordinal: int, path: str) -> pa.RecordBatch:
    n = batch.num_rows
    archive, _ = split_ranges(path)  # offsets are those in the whole file
    columns = [pa.array([ordinal] * n, pa.int32()), pa.array([archive] * n, pa.string())]
    return pa.record_batch([*columns, *batch.columns], schema=SOURCE_SCHEMA)
