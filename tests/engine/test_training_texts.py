"""Texts to train on: files of every kind, and queries of a lake."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.engine.training_texts import read_texts
from curation.errors import ConfigError, CurationError, InputInvalid, InputMissing
from curation.tokens import tokenizer as tokenizers


def read(*sources: object) -> list[str]:
    return [text for batch in read_texts(list(map(str, sources))) for text in batch]


def test_files_of_every_kind(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in ({"text": "a"}, {"text": None}, {"text": "b", "n": 1})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"body": "c"}'))
    pq.write_table(pa.table({"text": ["d", None], "body": ["e", "f"]}), tmp_path / "c.parquet")
    (tmp_path / "d.txt").write_text("g\nh")
    assert read(tmp_path / "a.jsonl") == ["a", "b"]
    assert read(f"{tmp_path}/b.jsonl.gz#body") == ["c"]
    assert read(tmp_path / "c.parquet", f"{tmp_path}/c.parquet#body") == ["d", "e", "f"]
    assert read(tmp_path / "*.txt", tmp_path / "a*") == ["g\nh", "a", "b"]


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("none.jsonl", InputMissing, r"no file at .*none.jsonl"),
        ("*.none", InputMissing, r"no file at .*\*.none"),
        ("a.csv", InputInvalid, r"a.csv ends in .csv; texts are read from .jsonl"),
        ("empty.jsonl", InputMissing, r"empty.jsonl has no text"),
        ("bad.jsonl", InputInvalid, r"bad.jsonl, line 2 is not JSON"),
        ("good.jsonl#body", InputInvalid, r"line 1 has no text 'body'"),
        ("number.jsonl", InputInvalid, r"line 1 has no text 'text'"),
        ("bytes.txt", InputInvalid, r"bytes.txt cannot be read as UTF-8"),
        ("good.parquet#body", InputInvalid, r"no column 'body'; it has text"),
        ("bad.parquet", InputInvalid, r"bad.parquet cannot be read as Parquet"),
        ("lake:nowhere", CurationError, r"no lake at"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, source: str, kind: type[CurationError], message: str
) -> None:
    contents = {
        "a.csv": b"text\na\n",
        "empty.jsonl": b"\n",
        "bad.jsonl": b'{"text": "a"}\n{"text": ',
        "good.jsonl": b'{"text": "a"}',
        "number.jsonl": b'{"text": 3}',
        "bytes.txt": b"\xff\xfe",
        "bad.parquet": b"no parquet",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "good.parquet")
    path = source if source.startswith("lake:") else f"{tmp_path}/{source}"
    with pytest.raises(kind, match=message):
        read(path)


@pytest.mark.spark
def test_queries_of_a_lake(undisturbed: Callable) -> None:
    config, lake, _ = undisturbed(4)
    tokens = lake.table("tokens").to_table().to_pylist()
    encoded = dict(
        zip(
            (row["doc_id"] for row in tokens),
            tokenizers.decode(
                pa.array([row["input_ids"] for row in tokens], pa.list_(pa.int32())),
                tokenizers.load(config.encode.tokenizer),
            ).to_pylist(),
            strict=True,
        )
    )
    documents = {row["doc_id"]: row for row in lake.table("documents").to_table().to_pylist()}
    domains = {row["doc_id"]: row["domain"] for row in lake.table("kept").to_table().to_pylist()}
    rejects = lake.table("rejects").to_table(["doc_id", "rules"]).to_pylist()

    def kept(**wanted: str) -> list[str]:
        return sorted(
            text
            for doc_id, text in encoded.items()
            if all(
                (documents[doc_id] | {"domain": domains[doc_id]})[k] == v for k, v in wanted.items()
            )
        )

    def stored(rule: str | None = None, **wanted: str) -> list[str]:
        broken = {r["doc_id"] for r in rejects if rule == "*" or rule in (r["rules"] or ())}
        return sorted(
            row["text"]
            for doc_id, row in documents.items()
            if (rule is None or doc_id in broken) and all(row[k] == v for k, v in wanted.items())
        )

    source = f"lake:{lake.path}"
    dump = lake.dumps()[0]
    host = next(iter(documents.values()))["host"]
    rule = next(rule for row in rejects for rule in row["rules"] if row["doc_id"] in documents)
    for query, expected in (
        ("", kept()),
        ("?lang=en", kept(lang="en")),
        ("?lang=zh&domain=chinese", kept(lang="zh", domain="chinese")),
        (f"?dump={dump}", kept(dump=dump)),
        (f"?host={host}&lang=zh", kept(host=host, lang="zh")),
        ("?table=documents", stored()),
        (f"?table=documents&dump={dump}&lang=en", stored(dump=dump, lang="en")),
        (f"?rule={rule}", stored(rule)),
        ("?rule=*&lang=zh", stored("*", lang="zh")),
    ):
        assert expected, query
        assert sorted(read(source + query)) == expected, query
    assert sorted(read(f"{source}?lang=en&lang=zh")) == kept()
    with pytest.raises(InputMissing, match=r"lang=xx has no text"):
        read(f"{source}?lang=xx")


@pytest.mark.spark
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?language=en", r"'language' is no key of a query; keys are table, dump, lang"),
        ("?table=rejects", r"table is 'rejects'; it is kept or documents"),
        ("?rule=*&domain=web", r"only kept documents have a domain"),
    ],
)
def test_queries_that_mean_nothing_are_named(
    undisturbed: Callable, query: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(f"lake:{undisturbed(4).lake.path}{query}")
