"""Asking the index, against stored signatures compared one by one."""

import json
import subprocess
import sys
from pathlib import Path

import datasketch
import numpy as np
import pyarrow.compute as pc
import pytest

from curation.dedup import minhash
from curation.dedup.lsh import signature_matrix
from curation.dedup.minhash import MinHashSpec, hash_shingle, shingles
from curation.engine.lake import Lake
from curation.engine.query import query, query_url, read_text
from curation.engine.run import Selection, run
from curation.errors import InputInvalid, InputMissing, LakeVersion, NotCommitted, NotFound

pytestmark = pytest.mark.spark
SPEC = MinHashSpec()
CURATION = [sys.executable, "-c", "from curation.cli import command; command()"]


@pytest.fixture(scope="module")
def lake(undisturbed) -> Lake:
    return undisturbed(4).lake


@pytest.fixture(scope="module")
def texts(lake: Lake) -> dict[int, str]:
    rows = lake.table("documents").to_table(columns=["doc_id", "text"]).to_pylist()
    return {row["doc_id"]: row["text"] for row in rows}


@pytest.fixture(scope="module")
def retained(lake: Lake) -> dict[int, np.ndarray]:
    """The signatures of retained documents."""
    removed = lake.table("duplicates").to_table(columns=["doc_id"])["doc_id"]
    rows = lake.table("signatures").to_table().sort_by("doc_id")
    rows = rows.filter(pc.invert(pc.is_in(rows["doc_id"], removed)))
    matrix = signature_matrix(rows["signature"], SPEC)
    return dict(zip(rows["doc_id"].to_pylist(), matrix, strict=True))


def test_hits_are_the_retained_documents_that_share_a_band(lake, texts, retained) -> None:
    """By datasketch, which shows that a user may ask our index with its signatures."""
    for doc_id in sorted(texts)[::7]:
        sketch = datasketch.MinHash(
            num_perm=SPEC.num_perm, seed=SPEC.seed, scheme="affine32", hashfunc=hash_shingle
        )
        for shingle in shingles(texts[doc_id], SPEC):
            sketch.update(shingle)
        own = sketch.hashvalues.reshape(SPEC.bands, SPEC.rows)
        wanted = {
            other: float((sketch.hashvalues == signature).mean())
            for other, signature in retained.items()
            if (own == signature.reshape(SPEC.bands, SPEC.rows)).all(axis=1).any()
        }
        hits = query(lake, texts[doc_id], limit=None)
        assert {hit.doc_id: hit.similarity for hit in hits} == wanted
        for hit in hits:
            assert hit.kind == "exact" or (hit.kind == "near") == (hit.similarity >= 0.8)
        assert hits == sorted(hits, key=lambda h: (h.kind != "exact", -h.similarity, h.doc_id))
        assert query(lake, texts[doc_id], limit=1) == hits[:1]
        assert query(lake, texts[doc_id], limit=None, min_similarity=0.9) == [
            hit for hit in hits if hit.similarity >= 0.9
        ]


def test_a_retained_document_finds_itself(lake: Lake, texts, retained) -> None:
    for doc_id in sorted(retained)[::11]:
        first = query(lake, texts[doc_id], limit=1)[0]
        assert (first.doc_id, first.kind, first.similarity) == (doc_id, "exact", 1.0)


def test_a_url_shows_every_capture_and_the_twin_of_a_removed_one(lake: Lake) -> None:
    row = lake.table("duplicates").to_table().sort_by("doc_id").to_pylist()[-1]
    matches = pc.field("doc_id") == row["doc_id"]
    url = lake.table("documents").to_table(filter=matches)["url"][0].as_py()
    captures = query_url(lake, url)
    same = lake.table("documents").to_table(filter=pc.field("url") == url)
    assert [c.doc_id for c in captures] == sorted(same["doc_id"].to_pylist())
    capture = next(c for c in captures if c.doc_id == row["doc_id"])
    assert capture.twin_id == row["twin_id"]
    assert capture.hits[0].doc_id == row["twin_id"]
    assert capture.hits[0].similarity == row["similarity"]


def test_exact_similarities_where_the_lake_has_shingles(spark, configure) -> None:
    lake = run(configure("dedup.verify=exact", dumps=2), Selection(last="dedup"))
    rows = lake.table("duplicates").to_table(filter=pc.field("kind") == "near").to_pylist()
    assert rows
    for row in rows:
        matches = pc.field("doc_id") == row["doc_id"]
        text = lake.table("documents").to_table(filter=matches)["text"][0].as_py()
        hit = next(h for h in query(lake, text, limit=None) if h.doc_id == row["twin_id"])
        assert hit.jaccard == row["similarity"]


# ---- what can be wrong -------------------------------------------------------------------------


def test_texts_that_cannot_be_asked_for(lake: Lake, tmp_path: Path) -> None:
    for text in ("", " ...\n"):
        with pytest.raises(InputInvalid, match="no words"):
            query(lake, text)
    with pytest.raises(InputMissing, match=r"no file .*gone"):
        read_text(tmp_path / "gone")
    (tmp_path / "binary").write_bytes(b"ab\xff")
    with pytest.raises(InputInvalid, match=r"binary is not UTF-8 \(byte 2\)"):
        read_text(tmp_path / "binary")
    with pytest.raises(NotFound, match=r"'https://gone\.example/' is not among"):
        query_url(lake, "https://gone.example/")


def test_an_index_that_is_not_there_or_of_another_format(
    lake: Lake, tmp_path: Path, monkeypatch
) -> None:
    with pytest.raises(NotCommitted, match="no index yet"):
        query(Lake.create(tmp_path / "empty"), "some text")
    monkeypatch.setattr(minhash, "FORMAT_VERSION", minhash.FORMAT_VERSION + 1)
    with pytest.raises(LakeVersion, match=r"the index has format 1, this program .* 2"):
        query(lake, "some text")


def test_the_command(lake: Lake, texts, tmp_path: Path) -> None:
    doc_id, text = min(texts.items())
    (tmp_path / "page.txt").write_text(text)

    def call(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [*CURATION, "query", str(lake.path), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True)

    found = call("--text", str(tmp_path / "page.txt"), "--json", "--limit", "2")
    assert found.returncode == 0, found.stderr
    hits = [json.loads(line) for line in found.stdout.splitlines()]
    assert 1 <= len(hits) <= 2 and hits[0]["doc_id"] == doc_id and hits[0]["kind"] == "exact"
    piped = call("--text", "-", stdin=text)
    assert piped.stdout.startswith(f"1.000  exact      {doc_id}  ")
    for arguments in ((), ("--text", "-", "--url", "https://a.example/")):
        wrong = call(*arguments)
        assert wrong.returncode == 1 and "name one of --text FILE and --url URL" in wrong.stderr
