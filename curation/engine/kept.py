"""The kept documents of a lake on Spark: one task a file, edited as they are encoded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from curation.engine.lake import Lake
from curation.engine.run import kept_parts_of
from curation.engine.tasks import Part, edited_documents
from curation.errors import NotCommitted


@dataclass(frozen=True)
class KeptPart:
    """Documents of one file of a slice, and all that decides which are kept and how edited."""

    dump: str
    slice: str
    part: Part

    def documents(self, lake: str, batch_rows: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the kept documents; see `tasks.edited_documents`."""
        return edited_documents(self.part, lake, batch_rows, columns)


def kept_parts(lake: Lake) -> list[KeptPart]:
    """Return the parts of all slices that are through `decontaminate`, in the order of doc_ids.

    Raises NotCommitted for a lake that has none.
    """
    found = []
    for record in lake.records("decontaminate"):
        dump, slice = record.dump, record.slice
        found += [KeptPart(dump, slice, part) for part in kept_parts_of(lake, dump, slice)]
    if not found:
        raise NotCommitted(
            f"{lake.path} has no kept documents under its configuration; run first: "
            "curation run CONFIG --to decontaminate"
        )
    found.sort(key=lambda each: each.part.files["documents"][0].id_range())
    return [replace(each, part=replace(each.part, number=i)) for i, each in enumerate(found)]


def on_parts(
    session: SparkSession,
    parts: Sequence[KeptPart],
    work: Callable[[KeptPart], Iterator[pa.RecordBatch]],
    ddl: str,
) -> DataFrame:
    """Run `work` on every part, each in a task of its own, and return the rows that it yields."""
    numbers = session.range(0, len(parts), 1, numPartitions=len(parts))
    return numbers.mapInArrow(partial(_work, parts=tuple(parts), work=work), ddl)


def _work(
    batches: Iterator[pa.RecordBatch],
    parts: Sequence[KeptPart],
    work: Callable[[KeptPart], Iterator[pa.RecordBatch]],
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            yield from work(parts[number])
