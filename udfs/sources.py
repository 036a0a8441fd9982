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
from curation.ingest import warc
from curation.ingest.files import PLACED_SCHEMA, read_files
from curation.ingest.listing import InputFile, group_files, list_inputs
from curation.schemas import spark_ddl

DEFAULT_GROUP_BYTES = 64_000_000
OPTIONS = frozenset(
    {"path", "paths", "contents", "max_record_bytes", "group_bytes", "summary", "base", "remote"}
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
        return spark_ddl(PLACED_SCHEMA)

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
        group_bytes = _number(options, "group_bytes", DEFAULT_GROUP_BYTES)
        paths = json.loads(options.get("paths", "[]")) or [options.get("path", "")]
        if paths == [""]:
            raise ConfigError(
                'the warc source has no path; name files or folders: load("crawl/*.warc.gz")'
            )
        seen = list_inputs(paths, self.contents, base=options.get("base", ""), settings=self.remote)
        files = [InputFile(ordinal, *facts) for ordinal, facts in enumerate(seen)]
        self.groups = [
            [(file.ordinal, file.path) for file in group]
            for group in group_files(files, group_bytes)
        ]

    def partitions(self) -> Sequence[InputPartition]:
        """Return one partition a group of files."""
        return [Files(group) for group in self.groups]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Yield the records of a group in order."""
        assert isinstance(partition, Files)
        rows = read_files(
            partition.files,
            self.contents,
            max_record_bytes=self.max_record_bytes,
            settings=self.remote,
        )
        for batch in rows:
            yield batch if self.summary else batch.filter(batch["num_other"].is_null())


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
