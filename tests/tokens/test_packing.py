import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_in_python import DOCUMENTS, EOS, batch, batches, best_fit_in_python, packed_in_python

from curation.tokens import packing
from curation.tokens.packing import (
    DOCUMENTS_SCHEMA,
    document_hash,
    jump_hash,
    mix64,
    pack,
    repeat_documents,
    shard_schema,
)

UINT64 = st.integers(0, 2**64 - 1)


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
    monkeypatch.setattr(packing, "ROW_GROUP_TOKENS", 35)  # 5 rows of 7
    documents = [(d, list(range(d % 20))) for d in range(90)]
    whole = list(pack([batch(documents)], 7, EOS))
    assert [rows.num_rows for rows in whole[:-1]] == [5] * (len(whole) - 1)
    assert len(whole) > 10
    assert [row for rows in whole for row in rows.to_pylist()] == packed_in_python(documents, 7)
    for sizes in ([1], [3, 11], [89, 1]):
        parts = list(pack(batches(documents, sizes), 7, EOS))
        assert len(parts) == len(whole)
        assert all(a.equals(b) for a, b in zip(parts, whole, strict=True))


@settings(deadline=None)
@given(DOCUMENTS, st.integers(1, 70), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_best_fit_is_its_definition(documents, length, sizes):
    found = list(pack(batches(documents, sizes), length, EOS, "best_fit"))
    rows = [row for rows in found for row in rows.to_pylist()]
    assert rows == best_fit_in_python(documents, length)
    assert all(rows.schema == shard_schema(length) for rows in found)
    assert sum(row["num_tokens"] for row in rows) == sum(len(ids) + 1 for _, ids in documents)


@settings(deadline=None)
@given(DOCUMENTS, st.integers(1, 70))
def test_best_fit_cuts_only_what_is_longer_than_a_row_and_half_fills_rows(documents, length):
    rows = [
        r for rows in pack([batch(documents)], length, EOS, "best_fit") for r in rows.to_pylist()
    ]
    sizes = {doc_id: len(ids) + 1 for doc_id, ids in documents}
    for row in rows:
        ends = [*row["doc_starts"][1:], row["num_tokens"]]
        for start, end, doc_id, offset in zip(
            row["doc_starts"], ends, row["doc_ids"], row["doc_offset"], strict=True
        ):
            assert end - start == min(length, sizes[doc_id] - offset)
            assert offset % length == 0
    # Two rows that are at most half full would have become one.
    assert sum(2 * row["num_tokens"] <= length for row in rows) <= 1


def test_windows_of_best_fit_do_not_depend_on_batches(monkeypatch):
    monkeypatch.setattr(packing, "WINDOW_TOKENS", 200)
    monkeypatch.setattr(packing, "ROW_GROUP_TOKENS", 60)  # 2 rows of 30
    documents = [(d, list(range(d % 45))) for d in range(90)]
    windows, held = [[]], 0
    for doc_id, tokens in documents:
        windows[-1].append((doc_id, tokens))
        held += len(tokens) + 1
        if held >= 200:
            windows.append([])
            held = 0
    expected = [row for window in windows for row in best_fit_in_python(window, 30)]
    whole = list(pack([batch(documents)], 30, EOS, "best_fit"))
    assert len(windows) > 5
    assert all(rows.num_rows <= 2 for rows in whole)
    assert [row for rows in whole for row in rows.to_pylist()] == expected
    for sizes in ([1], [3, 11], [89, 1]):
        parts = list(pack(batches(documents, sizes), 30, EOS, "best_fit"))
        assert all(a.equals(b) for a, b in zip(parts, whole, strict=True))


def test_best_fit_wastes_little_of_documents_as_they_are():
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(6, 1.2, 3000), 20_000).astype(int)  # median 400 tokens
    documents = [(d, [7] * int(n)) for d, n in enumerate(lengths)]
    rows = [b for b in pack([batch(documents)], 4096, EOS, "best_fit")]
    num_rows, num_tokens = sum(b.num_rows for b in rows), int((lengths + 1).sum())
    assert num_rows * 4096 / num_tokens < 1.01


def test_an_unknown_packing():
    with pytest.raises(ValueError, match="packing 'greedy'; there are concat, best_fit"):
        pack([], 4, EOS, "greedy")


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
