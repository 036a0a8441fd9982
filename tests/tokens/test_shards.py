import dataclasses
import hashlib
import json

import pytest
from packed_in_python import EOS, batch, batches, corpus

from curation.errors import LakeVersion, NotFound, ShardCorrupt
from curation.tokens import packing
from curation.tokens.shards import Manifest, read_manifest, write_shard


def test_a_shard_is_the_same_bytes_however_it_was_batched(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "ROW_GROUP_TOKENS", 4096)
    documents = corpus()
    entries, contents = [], []
    for i, sizes in enumerate([[400], [400], [1], [3, 50, 7]]):
        folder = tmp_path / str(i)
        folder.mkdir()
        entries.append(
            write_shard(
                folder / "0.parquet", batches(documents, sizes), sequence_length=128, eos_id=EOS
            )
        )
        contents.append((folder / "0.parquet").read_bytes())
    assert len(set(contents)) == 1
    assert len(set(entries)) == 1
    assert entries[0].sha256 == hashlib.sha256(contents[0]).hexdigest()
    assert entries[0].bytes == len(contents[0])
    assert entries[0].tokens == sum(len(ids) + 1 for _, ids in documents)
    assert entries[0].rows == -(-entries[0].tokens // 128)


def test_another_document_is_another_file(tmp_path):
    documents = corpus(5)
    one = write_shard(tmp_path / "1", [batch(documents)], sequence_length=16, eos_id=EOS)
    other = write_shard(tmp_path / "2", [batch(documents[::-1])], sequence_length=16, eos_id=EOS)
    assert one.sha256 != other.sha256


def test_a_failed_write_leaves_the_old_file(tmp_path):
    def failing():
        yield batch(corpus(5))
        raise RuntimeError("executor lost")

    path = tmp_path / "0.parquet"
    write_shard(path, [batch(corpus(3))], sequence_length=16, eos_id=EOS)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="executor lost"):
        write_shard(path, failing(), sequence_length=16, eos_id=EOS)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_manifest_is_read_back_and_its_fingerprint_covers_the_dataset(release):
    folder, manifest, rows = release
    assert read_manifest(folder) == manifest
    content = json.loads((folder / "manifest.json").read_text())
    assert content["totals"] == {
        "rows": manifest.rows,
        "tokens": manifest.tokens,
        "padding": 64 * manifest.rows - manifest.tokens,
        "cuts": sum(row["doc_offset"][0] > 0 for row in rows),
        "bytes": sum((folder / f"{i}.parquet").stat().st_size for i in range(3)),
    }
    fingerprint = content.pop("fingerprint")
    del (
        content["lake"],
        content["lake_keys"],
    )  # paths and times of one machine: the dataset has one name on all
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert fingerprint == hashlib.sha256(canonical.encode()).hexdigest()
    changed = {"name": "x", "seed": 9, "eos_id": 0, "tokenizer_sha256": "", "mixture": {},
               "files": manifest.files[::-1], "num_shards": 4, "packing": "best_fit",
               "vocab_size": 5, "model_vocab_size": 5, "account": {}, "strata": {},
               "sequence_length": 65}  # fmt: skip
    others = {dataclasses.replace(manifest, **{k: v}).fingerprint for k, v in changed.items()}
    assert len(others | {fingerprint}) == len(changed) + 1
    assert dataclasses.replace(manifest, lake="x", lake_keys={}).fingerprint == fingerprint
    assert {*changed, "lake", "lake_keys"} == {f.name for f in dataclasses.fields(Manifest)}


def test_bad_manifests(release, tmp_path):
    folder, _, _ = release
    path = folder / "manifest.json"
    text = path.read_text()
    with pytest.raises(NotFound, match="no release"):
        read_manifest(tmp_path / "nowhere")
    path.write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ShardCorrupt, match=r"manifest\.json says its fingerprint"):
        read_manifest(folder)
    path.write_text(text.replace('"format_version": 2', '"format_version": 3'))
    with pytest.raises(LakeVersion, match="format version 3"):
        read_manifest(folder)
    for broken in (text[:-30], "[]", '{"format_version": 2}', "null"):
        path.write_text(broken)
        with pytest.raises(ShardCorrupt, match="is no manifest"):
            read_manifest(folder)
