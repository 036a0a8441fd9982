import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import LakeVersion, NotFound, ShardCorrupt
from curation.tokens import shards
from curation.tokens.shards import (
    DOCUMENTS_SCHEMA,
    Manifest,
    document_hash,
    jump_hash,
    mix64,
    open_shards,
    pack,
    read_manifest,
    repeat_documents,
    shard_schema,
    write_manifest,
    write_shard,
)

EOS = 1
UINT64 = st.integers(0, 2**64 - 1)

# (doc_id, tokens); token t of document d is a number that names both.
DOCUMENTS = st.lists(st.integers(0, 25), max_size=30).map(
    lambda lengths: [(100 + d, [1000 * d + t + 2 for t in range(n)]) for d, n in enumerate(lengths)]
)


def batch(documents):
    ids = pa.array([doc_id for doc_id, _ in documents], pa.int64())
    tokens = pa.array([tokens for _, tokens in documents], pa.list_(pa.int32()))
    copies = pa.array(np.zeros(len(documents), np.int32))
    return pa.RecordBatch.from_arrays([ids, copies, tokens], schema=DOCUMENTS_SCHEMA)


def batches(documents, sizes):
    """The documents in batches of these sizes, over and over: slices of one batch."""
    whole, start, i = batch(documents), 0, 0
    while start < whole.num_rows:
        yield whole.slice(start, sizes[i % len(sizes)])
        start += sizes[i % len(sizes)]
        i += 1


def packed_in_python(documents, length):
    """Rows by the definition, one token at a time."""
    stream = [
        (doc_id, t, token) for doc_id, tokens in documents for t, token in enumerate([*tokens, EOS])
    ]
    rows = []
    for start in range(0, len(stream), length):
        row = stream[start : start + length]
        begins = [i for i, (doc_id, t, _) in enumerate(row) if i == 0 or row[i - 1][0] != doc_id]
        rows.append(
            {
                "input_ids": [token for _, _, token in row] + [EOS] * (length - len(row)),
                "doc_starts": begins,
                "doc_ids": [row[i][0] for i in begins],
                "doc_offset": [row[i][1] for i in begins],
                "num_tokens": len(row),
            }
        )
    return rows


def reference_jump_hash(key, num_buckets):
    """The published algorithm (Lamping, Veach 2014, figure 1) on Python integers."""
    bucket, jump = -1, 0
    while jump < num_buckets:
        bucket = jump
        key = (key * 2862933555777941757 + 1) % 2**64
        jump = int((bucket + 1) * (float(1 << 31) / float((key >> 33) + 1)))
    return bucket


def test_mix64_gives_the_published_stream_of_splitmix64():
    def stream(seed, n):
        state = [(seed + k * 0x9E3779B97F4A7C15) % 2**64 for k in range(1, n + 1)]
        return [int(mix64(np.uint64(s))) for s in state]

    assert stream(1234567, 5) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert stream(0, 3) == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize(
    ("key", "shards_of_1_to_n"),
    [  # of the reference C++ code, as in the tests of github.com/dgryski/go-jump
        (0, [0] * 20),
        (1, [0, 0, 0, 0, 0, 0, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 17, 17]),
        (0xDEADBEEF, [0, 1, 2, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 16, 16, 16]),
        (0x0DDC0FFEEBADF00D, [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 15, 15, 15, 15]),
    ],
)
def test_jump_hash_vectors(key, shards_of_1_to_n):
    keys = np.array([key], np.uint64)
    found = [int(jump_hash(keys, n)[0]) for n in range(1, len(shards_of_1_to_n) + 1)]
    assert found == shards_of_1_to_n


@settings(deadline=None)
@given(st.lists(UINT64, max_size=20), st.integers(1, 1_000_000))
def test_jump_hash_is_the_published_algorithm(keys, num_shards):
    found = jump_hash(np.array(keys, np.uint64), num_shards)
    assert found.dtype == np.int32
    assert found.tolist() == [reference_jump_hash(key, num_shards) for key in keys]


@settings(deadline=None)
@given(st.lists(UINT64, min_size=1, max_size=20), st.integers(1, 5000), st.integers(1, 5000))
def test_more_shards_move_keys_to_new_shards_only(keys, num_shards, num_added):
    keys = np.array(keys, np.uint64)
    before, after = jump_hash(keys, num_shards), jump_hash(keys, num_shards + num_added)
    assert ((after == before) | (after >= num_shards)).all()


def test_shards_are_uniform_for_neighbouring_documents():
    hashes = document_hash(np.arange(64_000), np.zeros(64_000, np.int32), 7)
    counts = np.bincount(jump_hash(hashes, 64), minlength=64)
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 117  # 63 degrees of freedom: 1 in 30,000 by chance


def test_document_hash_by_plain_integers():
    def mix(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    cases = [(0, 0, 0), (2**63 - 1, 3, 0), (12345, -1, 9), (12345, 2**31 - 1, 2**62)]
    for doc_id, copy, seed in cases:
        expected = mix((mix(mix((seed + golden) % 2**64) ^ doc_id) + (copy + 1) * golden) % 2**64)
        found = document_hash(np.array([doc_id]), np.array([copy], np.int32), seed)
        assert found.dtype == np.uint64
        assert int(found[0]) == expected


def test_document_hash_differs_by_document_copy_and_seed():
    ids = np.repeat(np.arange(1000), 4)
    copies = np.tile(np.arange(4, dtype=np.int32), 1000)
    hashes = np.concatenate([document_hash(ids, copies, seed) for seed in range(3)])
    assert len(np.unique(hashes)) == 12_000


@settings(deadline=None)
@given(DOCUMENTS, st.integers(1, 12), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_pack_is_its_definition(documents, length, sizes):
    found = list(pack(batches(documents, sizes), length, EOS))
    rows = [row for rows in found for row in rows.to_pylist()]
    assert rows == packed_in_python(documents, length)
    assert all(rows.schema == shard_schema(length) for rows in found)
    assert sum(row["num_tokens"] for row in rows) == sum(len(ids) + 1 for _, ids in documents)


def test_blocks_do_not_depend_on_batches(monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_TOKENS", 35)  # 5 rows of 7
    documents = [(d, list(range(d % 20))) for d in range(90)]
    whole = list(pack([batch(documents)], 7, EOS))
    assert [rows.num_rows for rows in whole[:-1]] == [5] * (len(whole) - 1)
    assert len(whole) > 10
    assert [row for rows in whole for row in rows.to_pylist()] == packed_in_python(documents, 7)
    for sizes in ([1], [3, 11], [89, 1]):
        parts = list(pack(batches(documents, sizes), 7, EOS))
        assert len(parts) == len(whole)
        assert all(a.equals(b) for a, b in zip(parts, whole, strict=True))


def test_pack_refuses_nulls():
    for column, values in (("doc_id", [None]), ("input_ids", [None]), ("input_ids", [[3, None]])):
        columns = {"doc_id": [1], "copy": [0], "input_ids": [[3]]} | {column: values}
        documents = pa.RecordBatch.from_pydict(columns, schema=DOCUMENTS_SCHEMA)
        with pytest.raises(ValueError, match="null"):
            list(pack([documents], 4, EOS))


@settings(deadline=None)
@given(st.data())
def test_repeat_documents(data):
    documents = data.draw(DOCUMENTS)
    copies = [data.draw(st.integers(0, 3)) for _ in documents]
    partial = [data.draw(st.integers(0, len(tokens))) for _, tokens in documents]
    whole = batch([(-1, [5]), *documents])[1:]  # a slice
    found = repeat_documents(
        whole["doc_id"],
        whole["input_ids"],
        np.array(copies, np.int32),
        np.array(partial, np.int32),
    )
    expected = [
        (doc_id, copy, tokens if copy < n else tokens[: part - 1])
        for (doc_id, tokens), n, part in zip(documents, copies, partial, strict=True)
        for copy in range(n + (part > 0))
    ]
    rows = [(row["doc_id"], row["copy"], row["input_ids"]) for row in found.to_pylist()]
    assert sorted(rows) == expected
    assert found.schema == DOCUMENTS_SCHEMA
    num_tokens = sum(row["num_tokens"] for p in pack([found], 4, EOS) for row in p.to_pylist())
    wanted = [n * (len(ids) + 1) for n, (_, ids) in zip(copies, documents, strict=True)]
    assert num_tokens == sum(wanted) + sum(partial)


def corpus(num_documents=400, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (int(rng.integers(2**62)), rng.integers(2, 100_000, rng.integers(0, 300)).tolist())
        for _ in range(num_documents)
    ]


def test_a_shard_is_the_same_bytes_however_it_was_batched(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_TOKENS", 4096)
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


@pytest.fixture
def release(tmp_path, monkeypatch):
    """Three shards, the second empty, of several row groups, and their rows in plain Python."""
    monkeypatch.setattr(shards, "ROW_GROUP_TOKENS", 2048)
    folder = tmp_path / "release"
    folder.mkdir()
    parts = [corpus(80, 1), [], corpus(50, 2)]
    files = tuple(
        write_shard(folder / f"{i}.parquet", [batch(part)], sequence_length=64, eos_id=EOS)
        for i, part in enumerate(parts)
    )
    manifest = Manifest(
        name="demo",
        sequence_length=64,
        num_shards=3,
        seed=0,
        tokenizer_sha256="ab" * 32,
        eos_id=EOS,
        files=files,
        mixture={"web": {"share": 1.0, "tokens": 7}},
        lake_keys={"encode": {"2023-14": "key"}},
    )
    write_manifest(folder, manifest)
    return folder, manifest, [row for part in parts for row in packed_in_python(part, 64)]


def as_python(row):
    return {k: v if k == "num_tokens" else v.tolist() for k, v in row.items()}


def test_read_what_was_written(release):
    folder, manifest, rows = release
    dataset = open_shards(folder)
    assert dataset.manifest == manifest
    assert len(dataset) == len(rows) == manifest.rows
    assert [as_python(row) for row in dataset.iterate()] == rows
    assert [as_python(row) for row in dataset.iterate(len(rows) - 3)] == rows[-3:]
    assert list(dataset.iterate(len(rows))) == []
    for i in np.random.default_rng(0).permutation(len(rows)).tolist():
        assert as_python(dataset.row(i)) == rows[i]
    assert dataset.row(0)["input_ids"].dtype == np.int32
    for i in (-1, len(rows)):
        with pytest.raises(IndexError, match=f"row {i} "):
            dataset.row(i)
    dataset.verify()
    assert len(open_shards(folder / "manifest.json")) == len(rows)


def test_manifest_is_read_back_and_its_fingerprint_covers_the_dataset(release):
    folder, manifest, _ = release
    assert read_manifest(folder) == manifest
    content = json.loads((folder / "manifest.json").read_text())
    assert content["totals"] == {
        "rows": manifest.rows,
        "tokens": manifest.tokens,
        "bytes": sum((folder / f"{i}.parquet").stat().st_size for i in range(3)),
    }
    fingerprint = content.pop("fingerprint")
    content.pop("lake_keys")  # paths and times of one machine: the dataset has one name on all
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert fingerprint == hashlib.sha256(canonical.encode()).hexdigest()
    changed = {"name": "x", "seed": 9, "eos_id": 0, "tokenizer_sha256": "", "mixture": {},
               "files": manifest.files[::-1], "num_shards": 4,
               "sequence_length": 65}  # fmt: skip
    others = {dataclasses.replace(manifest, **{k: v}).fingerprint for k, v in changed.items()}
    assert len(others | {fingerprint}) == len(changed) + 1
    assert dataclasses.replace(manifest, lake_keys={}).fingerprint == fingerprint
    assert {*changed, "lake_keys"} == {f.name for f in dataclasses.fields(Manifest)}


def flip_a_byte(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_byte, r"2\.parquet has sha256 .* manifest says"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), r"2\.parquet has sha256"),
        (lambda file: file.unlink(), r"2\.parquet is gone"),
    ],
)
def test_verify_names_the_damaged_file(release, damage, message):
    folder, _, _ = release
    damage(folder / "2.parquet")
    with pytest.raises(ShardCorrupt, match=message):
        open_shards(folder).verify()


def test_reading_a_damaged_file_names_it(release):
    folder, _, rows = release
    file = folder / "2.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ShardCorrupt, match=r"2\.parquet: "):
        open_shards(folder).row(len(rows) - 1)
    shutil.copy(folder / "0.parquet", file)
    with pytest.raises(ShardCorrupt, match=r"2\.parquet: \d+ rows .* manifest says"):
        open_shards(folder).row(len(rows) - 1)
    file.unlink()
    with pytest.raises(ShardCorrupt, match=r"2\.parquet is gone"):
        list(open_shards(folder).iterate())


def test_bad_manifests(release, tmp_path):
    folder, _, _ = release
    path = folder / "manifest.json"
    text = path.read_text()
    with pytest.raises(NotFound, match="no release"):
        open_shards(tmp_path / "nowhere")
    path.write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ShardCorrupt, match=r"manifest\.json says its fingerprint"):
        open_shards(folder)
    path.write_text(text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(LakeVersion, match="format version 2"):
        open_shards(folder)
    for broken in (text[:-30], "[]", '{"format_version": 1}', "null"):
        path.write_text(broken)
        with pytest.raises(ShardCorrupt, match="is no manifest"):
            open_shards(folder)
