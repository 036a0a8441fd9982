"""The rounds against the one-thread oracle, without a JVM."""

import random
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curation.dedup import leader, oracle, steps
from curation.dedup.lsh import signature_matrix
from curation.dedup.messages import INDEX, PIECE_BYTES, Parts
from curation.dedup.minhash import MinHashSpec, fingerprint, packed, shingle_hashes
from curation.dedup.oracle import Document, LeaderSpec, Verdict
from curation.identity import RECORD_BITS, first_doc_id, origin

SMALL = MinHashSpec(bands=6, rows=3, ngram=2)
NUM_CORPORA = 1_200


class InMemory:
    """Signatures and shingles of the dumps in scope, and the index of the earlier ones."""

    def __init__(self, index: pa.Table, stored: pa.Table, ranges: int) -> None:
        self.table = index
        self.parts = steps.key_range(index["band_key"].to_numpy(), ranges)
        self.stored = stored

    def index(self, part: int, keys: np.ndarray) -> pa.Table:
        wanted = (self.parts == part) & np.isin(self.table["band_key"].to_numpy(), keys)
        return self.table.filter(pa.array(wanted)).sort_by("band_key")

    def file_of(self, doc_ids):
        return doc_ids >> RECORD_BITS

    def signatures(self, file: int, doc_ids: np.ndarray) -> pa.Table:
        return self._rows(file, doc_ids, ["doc_id", "content_hash", "signature"])

    def shingles(self, file: int, doc_ids: np.ndarray) -> pa.Table:
        return self._rows(file, doc_ids, ["doc_id", "hashes"])

    def _rows(self, file: int, doc_ids: np.ndarray, columns: list[str]) -> pa.Table:
        rows = self.stored.filter(pc.is_in(self.stored["doc_id"], pa.array(doc_ids)))
        assert set((rows["doc_id"].to_numpy() >> RECORD_BITS).tolist()) <= {file}
        return rows.select(columns).sort_by("doc_id")


def corpus(rng: random.Random) -> list[list[str]]:
    """Draw dumps of texts: copies, near copies, chains, templates, hubs, short texts."""
    vocabulary = [f"w{i}" for i in range(rng.choice([8, 40, 400]))]

    def fresh(n: int) -> list[str]:
        return [rng.choice(vocabulary) for _ in range(n)]

    def changed(words: list[str], n: int) -> list[str]:
        words = list(words)
        for _ in range(n):
            words[rng.randrange(len(words))] = rng.choice(vocabulary) + "x"
        return words

    texts: list[list[str]] = [fresh(rng.randint(1, 40)) for _ in range(3)]
    template = fresh(20)
    for _ in range(rng.randint(0, 40)):
        what = rng.randrange(7)
        if what == 0:
            texts.append(fresh(rng.randint(1, 60)))
        elif what == 1:
            texts.append(list(rng.choice(texts)))  # a copy
        elif what == 2:
            texts.append(changed(rng.choice(texts), rng.randint(1, 3)))  # a near copy
        elif what == 3:
            texts.append(changed(texts[-1], 1))  # the next link of a chain
        elif what == 4:
            texts.append(template + fresh(rng.randint(1, 12)))  # a page of a template
        elif what == 5:
            texts.append(changed(texts[0], rng.randint(1, 2)))  # around a hub
        else:
            texts.append(fresh(rng.randint(1, 2)))  # shorter than a shingle
    if rng.random() < 0.5:
        rng.shuffle(texts)
    dumps: list[list[str]] = [[] for _ in range(rng.randint(1, 4))]
    for text in texts:
        rng.choice(dumps).append(" ".join(text))
    return dumps


def signature_tables(dumps: list[list[str]], spec: MinHashSpec, files: int) -> list[pa.Table]:
    tables = []
    for ordinal, texts in enumerate(dumps):
        prints = fingerprint(pa.array(texts, pa.string()), spec)
        per_file = max(1, len(texts) // files)
        ids = [first_doc_id(ordinal, i // per_file) + i % per_file for i in range(len(texts))]
        tables.append(
            pa.table(
                {
                    "doc_id": pa.array(ids, pa.int64()),
                    "content_hash": prints.field("content_hash"),
                    "signature": prints.field("signature"),
                    "num_shingles": prints.field("num_shingles"),
                    "hashes": packed(shingle_hashes(pa.array(texts, pa.string()), spec)),
                }
            )
        )
    return tables


def documents(tables: list[pa.Table], spec: MinHashSpec) -> list[Document]:
    found = []
    for table in tables:
        matrix = signature_matrix(table["signature"], spec)
        for at, row in enumerate(table.to_pylist()):
            hashes = np.frombuffer(row["hashes"], "<u8")
            assert (hashes[1:] > hashes[:-1]).all()
            shingles = frozenset(hashes.tolist())
            found.append(Document(row["doc_id"], row["content_hash"], matrix[at], shingles))
    return found


def scopes(name: str, num_dumps: int):
    return {
        "global": lambda dump: range(dump + 1),
        "dump": lambda dump: [dump],
        "window": lambda dump: range(max(0, dump - 1), dump + 1),
    }[name]


def by_rounds(
    tables, spec: LeaderSpec, scope, num_parts: int, piece_bytes: int = PIECE_BYTES
) -> tuple[dict[int, Verdict | None], list[int], dict[int, pa.Table]]:
    """Return verdicts, rounds and solves, and the index rows of every dump."""
    cluster = Parts(num_parts, piece_bytes)
    verdicts: dict[int, Verdict | None] = {}
    runs: dict[int, pa.Table] = {}
    counts = [0, 0]
    for dump, table in enumerate(tables):
        before = [d for d in scope(dump) if d < dump]
        index = pa.table({"band_key": pa.array([], pa.int64()), "doc_id": pa.array([], pa.int64())})
        for d in before:
            rows = runs[d].filter(pc.equal(runs[d]["kind"], INDEX))
            rows = pa.table({"band_key": rows["other"], "doc_id": rows["doc_id"]})
            index = pa.concat_tables([index, rows])
        store = InMemory(index, pa.concat_tables(tables), spec.index_ranges)
        outcome = leader.deduplicate(cluster, table, spec, store, has_earlier=bool(before))
        counts[0] += outcome.num_rounds
        counts[1] += outcome.num_solves
        runs[dump] = pa.concat_tables(outcome.index)
        verdicts |= dict.fromkeys(table["doc_id"].to_pylist())
        for row in pa.concat_tables(outcome.duplicates).to_pylist():
            assert verdicts[row["doc_id"]] is None, "decided twice"
            verdicts[row["doc_id"]] = Verdict(row["payload"].decode(), row["other"], row["value"])
        own = [verdicts[doc_id] for doc_id in table["doc_id"].to_pylist()]
        assert outcome.num_retained == own.count(None)
    return verdicts, counts, runs


@pytest.mark.parametrize("start", range(0, NUM_CORPORA, 100))
def test_rounds_equal_the_oracle_on_random_corpora(start: int) -> None:
    counts = np.zeros(2, np.int64)
    kinds = set()
    for seed in range(start, start + 100):
        rng = random.Random(seed)
        dumps = corpus(rng)
        spec = LeaderSpec(
            minhash=SMALL if seed % 3 else MinHashSpec(),
            threshold=rng.choice([0.5, 0.7, 0.8]),
            bucket_cap=rng.choice([1, 2, 3, 256]),
            index_ranges=rng.choice([1, 4]),
            max_rounds=rng.choice([0, 1, 3, 50]),
            prefix_documents=rng.choice([1, 5, 1_000_000]),
            verify=rng.choice(["signature", "exact"]),
        )
        tables = signature_tables(dumps, spec.minhash, files=rng.choice([1, 3]))
        scope = scopes(rng.choice(["global", "dump", "window"]), len(dumps))
        wanted = oracle.oracle(documents(tables, spec.minhash), spec, scope)
        num_parts, piece_bytes = rng.choice([1, 2, 3]), rng.choice([1, 2_000, PIECE_BYTES])
        got, done, _ = by_rounds(tables, spec, scope, num_parts, piece_bytes)
        assert got == wanted, f"seed {seed}"
        counts += done
        kinds |= {v.kind for v in wanted.values() if v}
    assert (counts > 0).all(), "both rounds and solves must have been tried"
    assert kinds == {"exact", "near"}


def test_every_removal_names_a_retained_lower_twin() -> None:
    rng = random.Random(7)
    spec = LeaderSpec(minhash=SMALL, bucket_cap=2)
    for _ in range(50):
        tables = signature_tables(corpus(rng), SMALL, files=1)
        verdicts, *_ = by_rounds(tables, spec, scopes("global", 4), 2)
        signatures = {d.doc_id: d.signature for d in documents(tables, SMALL)}
        for doc_id, verdict in verdicts.items():
            if verdict:
                assert verdict.twin_id < doc_id
                assert verdicts[verdict.twin_id] is None
                measured = oracle.estimate(signatures[doc_id], signatures[verdict.twin_id])
                assert measured == verdict.similarity >= spec.threshold


def test_incremental_is_from_scratch() -> None:
    """A dump's verdicts do not depend on the dumps after it."""
    rng = random.Random(11)
    spec = LeaderSpec(minhash=SMALL)
    for _ in range(30):
        tables = signature_tables(corpus(rng), SMALL, files=1)
        scope = scopes("global", len(tables))
        all_at_once, *_ = by_rounds(tables, spec, scope, 1)
        one_less, *_ = by_rounds(tables[:-1], spec, scope, 1)
        last = len(tables) - 1
        assert one_less == {i: v for i, v in all_at_once.items() if origin(i).dump < last}


def test_a_full_bucket_bounds_the_candidates() -> None:
    """With a cap of 1 only the first of a bucket is ever a candidate, and nothing is skipped."""
    base = [f"w{i}" for i in range(30)]
    texts = [" ".join(base), " ".join([*base[:20], *(f"a{i}" for i in range(10))])]
    texts.append(" ".join([*base[:20], *(f"a{i}" for i in range(9)), "z"]))
    tables = signature_tables([texts], SMALL, files=1)
    low = LeaderSpec(minhash=SMALL, bucket_cap=1, threshold=0.75)
    scope = scopes("dump", 1)
    wanted = oracle.oracle(documents(tables, SMALL), low, scope)
    assert by_rounds(tables, low, scope, 2)[0] == wanted
    assert len(wanted) == 3


@lru_cache(maxsize=1)
def _chain() -> list[pa.Table]:
    words = [f"w{i}" for i in range(60)]
    texts = []
    for i in range(60):
        texts.append(" ".join(words))
        words[i] = f"v{i}"
    return signature_tables([texts], MinHashSpec(), files=20)


def test_a_chain_of_versions_is_not_one_cluster() -> None:
    """Greedy leaders keep several versions of a drifting page; components would keep one."""
    spec = LeaderSpec(max_rounds=50, prefix_documents=1)
    wanted = oracle.oracle(documents(_chain(), spec.minhash), spec, scopes("dump", 1))
    got, (num_rounds, _), _ = by_rounds(_chain(), spec, scopes("dump", 1), 3)
    assert got == wanted
    assert sum(v is None for v in wanted.values()) > 1
    assert num_rounds > 1
