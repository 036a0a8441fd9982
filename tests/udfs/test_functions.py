"""SQL functions and the data source equal the kernels they wrap."""

from pathlib import Path

import pyarrow as pa
import pytest

from curation.dedup.minhash import MinHashSpec, fingerprint
from curation.errors import ConfigError
from curation.ingest import warc
from curation.quality.signals import signals
from curation.tokens import tokenizer
from udfs.functions import register
from udfs.sources import WarcDataSource

pytestmark = pytest.mark.spark

TOKENIZER = Path(__file__).parents[2] / "jobs" / "conf" / "demo-tokenizer.json"
TEXTS = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind it at all.",
    "数据库是按照数据结构来组织、存储和管理数据的仓库。",
    None,
]


def test_functions_equal_their_kernels(spark) -> None:
    register(spark, tokenizer=str(TOKENIZER))
    rows = [(i, text, "en") for i, text in enumerate(TEXTS)]
    spark.createDataFrame(rows, "id int, text string, lang string").createOrReplaceTempView("pages")
    got = spark.sql(
        "SELECT detect_language(text).code AS code, minhash(text) AS signature, "
        "num_tokens(text) AS num_tokens, signals(text, lang).num_words AS num_words "
        "FROM pages ORDER BY id"
    ).collect()
    text = pa.array(TEXTS)
    assert [row.code for row in got] == ["en", "zh", None]
    wanted = fingerprint(text, MinHashSpec()).field("signature").to_pylist()
    assert [None if row.signature is None else bytes(row.signature) for row in got] == wanted
    counted = tokenizer.num_tokens(text, tokenizer.load(TOKENIZER)).to_pylist()
    assert [row.num_tokens for row in got] == counted
    measured = signals(text, pa.array(["en"] * 3)).field("num_words").to_pylist()[:2]
    assert [row.num_words for row in got[:2]] == measured
    assert got[2].num_words is None


def test_the_warc_source_reads_what_the_reader_reads(spark, cut: Path) -> None:
    spark.dataSource.register(WarcDataSource)
    files = sorted(cut.glob("*.warc.gz"))
    got = (
        spark.read.format("warc").load(f"{cut}/*.warc.gz").orderBy("archive", "record_ordinal")
    ).collect()
    wanted = [
        row
        for path in files
        for batch in warc.read_records(path)
        for row in batch.to_pylist()
        if row["num_other"] is None
    ]
    assert [(r.url, r.offset, bytes(r.payload)) for r in got] == [
        (row["url"], row["offset"], row["payload"]) for row in wanted
    ]
    assert {Path(r.archive).name for r in got} == {path.name for path in files}
    assert spark.read.format("warc").load([str(files[0]), str(files[-1])]).count() == sum(
        row["archive"] in {str(files[0]), str(files[-1])} for row in got
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has no path; name files"),
        ({"path": "a.warc.gz", "contents": "pdf"}, "contents .* is 'pdf'; it is one of warc,"),
        ({"path": "a.warc.gz", "group_bytes": "1 GB"}, "group_bytes .* is '1 GB'; it is a number"),
        ({"path": "a.warc.gz", "max_record_bytes": "0"}, "max_record_bytes .* is '0'"),
        ({"path": "a.warc.gz", "summary": "yes"}, "summary .* is 'yes'; true or false"),
        ({"path": "a", "remote": '{"connections": 0}'}, "remote.connections must be at least 1"),
        ({"path": "a", "remote": '{"attempts": "x"}'}, "remote.attempts must be int, got 'x'"),
        ({"path": "a", "remote": '{"atempts": 1}'}, "did you mean 'attempts'"),
        ({"path": "a", "remote": "{"}, "option remote .* is '{'"),
        ({"path": "a.warc.gz", "pth": "b"}, "has no option 'pth'"),
    ],
)
def test_options_of_the_source_are_checked(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WarcDataSource(options).reader(None)
