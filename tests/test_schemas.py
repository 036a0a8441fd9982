"""Tables: their Spark types, and which stage writes which."""

import pyarrow as pa
import pytest

from curation.engine.lake import STAGE_TABLES, STAGED_TABLES
from curation.engine.stages import STAGES
from curation.quality.signals import SCORES, SIGNALS_SCHEMA
from curation.schemas import TABLES, TIMESTAMP, spark_ddl, spark_type

# As Spark's SQL reference writes them (Data Types).
DDL = {
    "signatures": "`doc_id` bigint, `content_hash` binary, `signature` binary, "
    "`num_shingles` int, `num_bytes` bigint",
    "duplicates": "`doc_id` bigint, `kind` string, `twin_id` bigint, `twin_dump` string, "
    "`similarity` double, `verified_by` string, `num_bytes` bigint",
    "tokens": "`doc_id` bigint, `domain` string, `lang` string, `host` string, "
    "`perplexity_bucket` string, `quality_score` double, `input_ids` array<int>, `num_tokens` int",
}


@pytest.mark.parametrize("table", DDL)
def test_ddl_of_a_table(table: str) -> None:
    assert spark_ddl(TABLES[table]) == DDL[table]


@pytest.mark.parametrize(
    ("arrow", "spark"),
    [
        (TIMESTAMP, "timestamp"),
        (pa.float32(), "float"),
        (pa.bool_(), "boolean"),
        (pa.int8(), "tinyint"),
        (pa.binary(16), "binary"),
        (pa.list_(pa.list_(pa.string())), "array<array<string>>"),
        (
            pa.list_(pa.struct([("start", pa.int32()), ("ids", pa.list_(pa.int64()))])),
            "array<struct<start: int, ids: array<bigint>>>",
        ),
    ],
    ids=str,
)
def test_types_of_spark(arrow: pa.DataType, spark: str) -> None:
    assert spark_type(arrow) == spark


@pytest.mark.parametrize("arrow", [pa.uint32(), pa.uint64(), pa.timestamp("ns"), pa.float16()])
def test_a_type_that_spark_does_not_have_is_not_guessed(arrow: pa.DataType) -> None:
    with pytest.raises(KeyError):
        spark_type(arrow)


@pytest.mark.parametrize("table", TABLES)
def test_every_column_has_a_spark_type(table: str) -> None:
    ddl = spark_ddl(TABLES[table])
    assert [ddl.count(f"`{name}` ") for name in TABLES[table].names] == [1] * len(TABLES[table])


@pytest.mark.parametrize("table", sorted(TABLES.keys() - {"full_buckets", "line_counts"}))
def test_every_row_names_its_document(table: str) -> None:
    assert TABLES[table].field("doc_id").type == pa.int64()


@pytest.mark.parametrize("table", TABLES)
def test_no_column_is_named_like_a_part_of_the_path(table: str) -> None:
    """Or a plain glob by DuckDB or pandas reads the folder instead of the column."""
    names = TABLES[table].names
    assert len(set(names)) == len(names)
    assert {"stage", "dump", "slice"}.isdisjoint(names)


def test_every_table_has_one_writer_or_is_laid_out_by_stage() -> None:
    written = [table for tables in STAGE_TABLES.values() for table in tables]
    assert sorted([*written, *STAGED_TABLES]) == sorted(TABLES)
    assert list(STAGE_TABLES) == [*STAGES, "release"]


def test_signals_are_those_that_the_kernel_measures() -> None:
    assert TABLES["signals"].names == [
        "doc_id",
        "lang",
        *SIGNALS_SCHEMA.names,
        *(score.name for score in SCORES),
    ]
