"""SQL functions over text columns: thin wrappers of the kernels, each loading its model once.

    from udfs.functions import register
    register(spark, tokenizer="tokenizer.json")
    spark.sql("SELECT detect_language(text).code, num_tokens(text) FROM documents")

    detect_language(text)   struct<code: string, score: float, script: string, script_share: float>
    minhash(text)           binary: num_perm little-endian uint32 (14 bands of 8 rows, seed 1)
    signals(text, lang)     struct of the quality signals
    num_tokens(text)        int, tokens of the tokenizer that `register` was given

Null in, null out. `register` returns the functions by name, to be used on columns too.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from curation import models
from curation.config import DEFAULT_LANGUAGE_MODEL
from curation.dedup.minhash import MinHashSpec, fingerprint
from curation.ingest import langid
from curation.quality import signals as quality
from curation.schemas import spark_type
from curation.tokens import tokenizer as tokenizers

LANGUAGE_TYPE = spark_type(langid.LANGUAGE_TYPE)
SIGNALS_TYPE = spark_type(pa.struct(list(quality.SIGNALS_SCHEMA)))


def register(
    spark: SparkSession,
    *,
    tokenizer: str | None = None,
    language_model: str = DEFAULT_LANGUAGE_MODEL,
    minhash: MinHashSpec = MinHashSpec(),
) -> dict[str, Callable[..., Any]]:
    """Register the functions in a session; `num_tokens` only when a tokenizer is named.

    Paths must be readable on every worker. Raises ArtifactMissing here, not in a task.
    """
    functions = {
        "detect_language": _detect_language(language_model, models.sha256(language_model)),
        "minhash": _minhash(minhash),
        "signals": _signals(),
    }
    if tokenizer is not None:
        functions["num_tokens"] = _num_tokens(tokenizer, models.sha256(tokenizer))
    for name, function in functions.items():
        spark.udf.register(name, function)
    return functions


def _detect_language(path: str, sha256: str) -> Callable[..., Any]:
    def detect_language(text: pa.Array) -> pa.Array:
        return langid.detect(text, models.language_model(path, sha256))

    return _arrow_udf(detect_language, LANGUAGE_TYPE)


def _minhash(spec: MinHashSpec) -> Callable[..., Any]:
    def minhash(text: pa.Array) -> pa.Array:
        return fingerprint(text, spec).field("signature")

    return _arrow_udf(minhash, "binary")


def _signals() -> Callable[..., Any]:
    def signals(text: pa.Array, lang: pa.Array) -> pa.Array:
        return quality.signals(text, lang)

    return _arrow_udf(signals, SIGNALS_TYPE)


def _num_tokens(path: str, sha256: str) -> Callable[..., Any]:
    def num_tokens(text: pa.Array) -> pa.Array:
        return tokenizers.num_tokens(text, tokenizers.load_once(path, sha256))

    return _arrow_udf(num_tokens, "int")


def _arrow_udf(function: Callable[..., pa.Array], ddl: str) -> Callable[..., Any]:
    made: Callable[..., Any] = F.arrow_udf(function, ddl)  # type: ignore[attr-defined]
    return made  # PySpark has it since 4.1, its stubs do not
