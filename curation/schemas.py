"""The tables of a lake: one Arrow schema each; Spark's DDL is derived from them."""

import pyarrow as pa

from curation.quality.signals import SCORES, SIGNALS_SCHEMA

FORMAT_VERSION = 5
"""Version of the lake format; a lake of another version is refused."""

TIMESTAMP = pa.timestamp("us", tz="UTC")
SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32())])

DOCUMENTS = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("url", pa.string()),
        ("host", pa.string()),
        ("crawled_at", TIMESTAMP),
        ("lang", pa.string()),
        ("lang_score", pa.float32()),
        ("lang_script", pa.string()),  # ISO 15924
        ("title", pa.string()),
        ("author", pa.string()),
        ("published_at", TIMESTAMP),  # as the page states
        ("text", pa.string()),
        ("num_bytes", pa.int64()),  # of text, UTF-8
        ("archive", pa.string()),
        ("offset", pa.int64()),  # of the record in the archive
        ("length", pa.int64()),  # of the compressed record; 0 where unknown
        ("metadata", pa.string()),  # JSON of a source's own columns; null for archives
    ]
)

SIGNATURES = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("content_hash", pa.binary(16)),
        ("signature", pa.binary()),  # num_perm little-endian uint32
        ("num_shingles", pa.int32()),
        ("num_bytes", pa.int64()),
    ]
)

SHINGLES = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("hashes", pa.binary()),  # distinct 64-bit shingle hashes, ascending, little-endian uint64
    ]
)

RETAINED_INDEX = pa.schema([("band_key", pa.int64()), ("doc_id", pa.int64())])

FULL_BUCKETS = pa.schema(
    [
        ("band_key", pa.int64()),
        ("num_entered", pa.int64()),  # retained documents of the dump: the cap
        ("num_beyond", pa.int64()),  # retained documents of the dump that found no room
        ("doc_ids", pa.list_(pa.int64())),  # the first that entered
    ]
)

LINE_COUNTS = pa.schema(
    [
        ("line_key", pa.int64()),  # of a line or paragraph
        ("num_documents", pa.int64()),  # retained ones of the dump; two or more
    ]
)

DUPLICATES = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("kind", pa.string()),  # exact | near
        ("twin_id", pa.int64()),
        ("twin_dump", pa.string()),
        ("similarity", pa.float64()),
        ("verified_by", pa.string()),  # content_hash | signature | shingles
        ("num_bytes", pa.int64()),
    ]
)

SIGNALS = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("lang", pa.string()),
        *SIGNALS_SCHEMA,
        *((score.name, score.type) for score in SCORES),
    ]
)

EDITS = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("replacement", pa.string()),
    ]
)

KEPT = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("domain", pa.string()),
        ("lang", pa.string()),
        ("num_chars", pa.int64()),  # of the edited text, and so
        ("num_bytes", pa.int64()),
        ("perplexity_bucket", pa.string()),  # head | middle | tail; null without a model
        ("quality_score", pa.float64()),  # null without a classifier
    ]
)

TOKENS = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("domain", pa.string()),
        ("lang", pa.string()),
        ("host", pa.string()),
        ("perplexity_bucket", pa.string()),
        ("quality_score", pa.float64()),
        ("input_ids", pa.list_(pa.int32())),
        ("num_tokens", pa.int32()),
    ]
)

REJECTS = pa.schema(
    [
        ("doc_id", pa.int64()),  # of the record, or of the first record a damaged range lost
        ("url", pa.string()),
        ("host", pa.string()),
        ("archive", pa.string()),
        ("offset", pa.int64()),
        ("rule", pa.string()),
        ("rules", pa.list_(pa.string())),
        ("value", pa.string()),
        ("threshold", pa.string()),
        ("num_bytes", pa.int64()),  # of text
    ]
)

MIXTURE = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("component", pa.string()),  # domain, or domain/lang, that has a share
        ("stratum", pa.string()),  # domain/language
        ("split", pa.string()),  # train | validation | held_out
        ("num_tokens", pa.int32()),
        ("weight", pa.int32()),  # documents it counts for
        ("copies", pa.int32()),  # whole copies
        ("partial_tokens", pa.int32()),  # tokens of one more, partial copy
        ("share", pa.float64()),  # target share of the component; null when held out
        ("num_duplicates", pa.int64()),
    ]
)

TABLES = {
    "documents": DOCUMENTS,
    "signatures": SIGNATURES,
    "shingles": SHINGLES,
    "retained_index": RETAINED_INDEX,
    "full_buckets": FULL_BUCKETS,
    "duplicates": DUPLICATES,
    "line_counts": LINE_COUNTS,
    "signals": SIGNALS,
    "edits": EDITS,
    "kept": KEPT,
    "tokens": TOKENS,
    "rejects": REJECTS,
    "mixture": MIXTURE,
}

_DDL = {
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.bool_(): "boolean",
    pa.string(): "string",
    pa.binary(): "binary",
    TIMESTAMP: "timestamp",
}


def spark_ddl(schema: pa.Schema) -> str:
    """Return the Spark DDL of an Arrow schema, so that no schema is typed twice."""
    return ", ".join(f"`{column.name}` {spark_type(column.type)}" for column in schema)


def spark_type(data_type: pa.DataType) -> str:
    """Return the Spark SQL name of an Arrow type."""
    if pa.types.is_list(data_type):
        return f"array<{spark_type(data_type.value_type)}>"
    if pa.types.is_struct(data_type):
        inner = ", ".join(f"{child.name}: {spark_type(child.type)}" for child in data_type)
        return f"struct<{inner}>"
    if pa.types.is_fixed_size_binary(data_type):
        return "binary"
    return _DDL[data_type]
