"""Which documents are duplicates: a greedy leader pass, as one loop and as rounds of messages.

`oracle` is the specification, one thread, plain Python. `deduplicate` gives the same answer from
any number of parts: rows travel as messages to a bucket (by key) or to a document (by id), and at
each stop a pure function on Arrow turns the messages of a part into new ones. What carries the
messages is a `Cluster`: Spark, or `Parts` below for small dumps and for tests without a JVM.

Summary of `deduplicate`, for one dump against those before it:
  1. Equal documents gather; the first of them goes on, its copies wait for its fate.
  2. The first ones meet the index of earlier dumps; who is similar to a retained document leaves.
  3. While more are undecided than one task can solve, and at most `max_rounds` times: a document
     that is the lowest undecided one in all its buckets is retained; what is similar to it leaves.
  4. Until none is undecided: the lowest undecided documents go to one task, which runs the loop of
     the oracle on them; what it retains removes similar ones from the rest.
  5. Every removed document finds its best retained twin among those lower than itself.
Sound, because a document is decided only when every lower document in its buckets is decided.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curation.dedup.lsh import band_keys, content_keys, num_equal_slots, signature_matrix
from curation.dedup.minhash import CONTENT_HASH_BYTES, MinHashSpec
from curation.identity import RECORD_BITS, origin

BoolArray = npt.NDArray[np.bool_]
UInt32Array = npt.NDArray[np.uint32]
Int64Array = npt.NDArray[np.int64]

MESSAGE = pa.schema(
    [
        ("to", pa.int64()),  # the bucket key, document id or part that the message goes to
        ("kind", pa.int8()),
        ("doc_id", pa.int64()),  # whom it is about
        ("other", pa.int64()),  # another document, or a key
        ("value", pa.float64()),  # a similarity or a count
        ("payload", pa.binary()),  # a signature, or content hash + signature
    ]
)
# Kinds of messages. To a document:
FIRST, COPY, OLD, RETAINED, BEST, VOTE_LOW, VOTE_HIGH, EXACT = range(8)
# To a bucket:
UNDECIDED, ENTERED, LEADER, REMOVED, SEEK, KILL = range(8, 14)
# To a range of the index, a file of signatures, the one solver; and results:
PROBE, PAIR, MEMBER, DUPLICATE, INDEX = range(14, 19)


@dataclass(frozen=True)
class LeaderSpec:
    """What decides: the signature, the threshold and the cap of a bucket.

    `max_rounds` and `prefix_documents` choose between two ways to the same answer.
    """

    minhash: MinHashSpec = MinHashSpec()
    threshold: float = 0.8
    bucket_cap: int = 256
    index_ranges: int = 16
    max_rounds: int = 3
    prefix_documents: int = 1_000_000


class Document(NamedTuple):
    """A document as the oracle sees it."""

    doc_id: int
    content_hash: bytes
    signature: UInt32Array


class Verdict(NamedTuple):
    """Why a document was removed."""

    kind: str
    twin_id: int
    similarity: float


Rows = Any  # what a Cluster calls its rows: pa.Table or a Spark DataFrame
Step = Callable[[pa.Table], pa.Table]


class Cluster(Protocol):
    """What the rounds need of an engine."""

    def map(self, step: Step, rows: Rows) -> Rows:
        """Run a step on every part as it lies."""

    def exchange(self, step: Step, *rows: Rows) -> Rows:
        """Bring messages with equal `to` together in one part, then run a step on every part."""

    def select(self, rows: Rows, kinds: Sequence[int]) -> Rows:
        """Return the messages of these kinds."""

    def save(self, rows: Rows) -> Rows:
        """Write the messages, so that they are not computed again."""

    def count(self, rows: Rows, kind: int) -> Mapping[int, int]:
        """Return how many messages of a kind there are, by file: doc_id >> 30."""


class Earlier(Protocol):
    """The retained documents of the earlier dumps in scope. Sent to tasks."""

    def index(self, part: int) -> pa.Table:
        """Return band_key and doc_id of one key range."""

    def file_of(self, doc_ids: Int64Array) -> Int64Array:
        """Return which file of signatures holds each document."""

    def signatures(self, file: int, doc_ids: pa.Array) -> pa.Table:
        """Return doc_id, content_hash and signature of these documents of a file."""


@dataclass(frozen=True)
class Outcome:
    """What `deduplicate` returns."""

    duplicates: Sequence[Rows]  # DUPLICATE: doc_id, other: twin, value: similarity, payload: kind
    index: Sequence[Rows]  # INDEX: to: key range, other: key, doc_id
    num_retained: int
    num_rounds: int
    num_solves: int


def oracle(
    documents: Iterable[Document],
    spec: LeaderSpec,
    scope: Callable[[int], Sequence[int]],
) -> dict[int, Verdict | None]:
    """Return the verdict on every document, None for a retained one: the specification.

    `documents` come ordered by doc_id; `scope(dump)` names the dumps whose retained documents a
    dump is compared with, its own included.
    """
    rows = spec.minhash.rows
    by_content: dict[bytes, list[Document]] = defaultdict(list)
    buckets: dict[tuple[int, bytes], list[Document]] = defaultdict(list)
    num_entered: dict[tuple[int, int, bytes], int] = defaultdict(int)
    verdicts: dict[int, Verdict | None] = {}
    for document in documents:
        dump = origin(document.doc_id).dump
        dumps = set(scope(dump))
        keys = [
            (band, document.signature[band * rows : (band + 1) * rows].tobytes())
            for band in range(spec.minhash.bands)
        ]
        equal = [d for d in by_content[document.content_hash] if origin(d.doc_id).dump in dumps]
        if equal:
            verdicts[document.doc_id] = Verdict("exact", equal[0].doc_id, 1.0)
            continue
        candidates = {d.doc_id: d for key in keys for d in buckets[key]}
        best = min(
            (
                (-similarity(document.signature, d.signature), d.doc_id)
                for d in candidates.values()
                if origin(d.doc_id).dump in dumps
            ),
            default=None,
        )
        if best is not None and -best[0] >= spec.threshold:
            verdicts[document.doc_id] = Verdict("near", best[1], -best[0])
            continue
        verdicts[document.doc_id] = None
        by_content[document.content_hash].append(document)
        for key in keys:
            if num_entered[(dump, *key)] < spec.bucket_cap:
                num_entered[(dump, *key)] += 1
                buckets[key].append(document)
    return verdicts


def similarity(left: UInt32Array, right: UInt32Array) -> float:
    """Return the share of equal slots: an estimate of Jaccard (standard error 0.04 at 0.8)."""
    return int(np.count_nonzero(left == right)) / len(left)


def deduplicate(
    cluster: Cluster, signatures: Rows, spec: LeaderSpec, earlier: Earlier | None
) -> Outcome:
    """Decide every document of one dump against itself and the earlier dumps in scope.

    `signatures` has doc_id, content_hash, signature. Cost: documents x bands rows a round, and at
    most bucket_cap comparisons for a document and bucket.
    """
    # 1. Equal documents gather.
    gathered = cluster.exchange(_gather, cluster.map(_by_content, signatures))
    gathered = cluster.save(gathered)
    firsts = cluster.select(gathered, [FIRST])

    # 2. Earlier dumps.
    if earlier is None:
        old_best: list[Rows] = []
        state = cluster.map(partial(_enter_buckets, spec=spec), firsts)
    else:
        probes = cluster.map(partial(_probe, spec=spec), firsts)
        pairs = cluster.exchange(partial(_lookup, earlier=earlier), probes)
        fetched = cluster.exchange(partial(_fetch, earlier=earlier), pairs)
        judged = cluster.save(cluster.exchange(partial(_judge, spec=spec), firsts, fetched))
        old_best = [cluster.select(judged, [BEST, EXACT])]
        state = cluster.map(partial(_enter_buckets, spec=spec), cluster.select(judged, [FIRST]))
    state = cluster.save(state)

    # 3. and 4. Rounds, then solves of the lowest documents.
    retained: list[Rows] = []
    num_rounds = num_solves = 0
    while num_undecided := cluster.count(state, UNDECIDED):
        total = sum(num_undecided.values()) // spec.minhash.bands
        if total > spec.prefix_documents and num_rounds < spec.max_rounds:
            num_rounds += 1
            decided = cluster.exchange(_elect, cluster.exchange(_vote, state))
        else:
            num_solves += 1
            bound = _prefix_bound(num_undecided, spec)
            members = cluster.exchange(partial(_members, bound=bound, spec=spec), state)
            decided = cluster.exchange(partial(_solve, spec=spec), members)
        decided = cluster.save(decided)
        kills = cluster.exchange(partial(_compare, spec=spec), state, decided)
        removed = cluster.exchange(partial(_spread, spec=spec), kills)
        after = cluster.save(
            cluster.exchange(partial(_advance, spec=spec), state, decided, removed)
        )
        retained.append(cluster.select(after, [RETAINED]))
        state = cluster.select(after, [UNDECIDED, ENTERED])

    # 5. Twins.
    fates = cluster.save(
        cluster.exchange(partial(_resolve, spec=spec), gathered, *retained, *old_best)
    )
    near = cluster.exchange(partial(_best_in_bucket, spec=spec), state, fates)
    chosen = cluster.exchange(_choose, cluster.select(fates, [BEST]), near)
    contents = cluster.select(fates, [INDEX])  # one for each retained document
    return Outcome(
        duplicates=(cluster.select(fates, [DUPLICATE]), chosen),
        index=(cluster.map(partial(_index_rows, spec=spec), state), contents),
        num_retained=sum(cluster.count(contents, INDEX).values()),
        num_rounds=num_rounds,
        num_solves=num_solves,
    )


class Parts:
    """A Cluster in this process: tables cut in parts by `to`. For small dumps and for tests."""

    def __init__(self, num_parts: int = 1) -> None:
        self.num_parts = num_parts

    def map(self, step: Step, rows: pa.Table) -> pa.Table:
        """Run a step on the whole table."""
        return step(rows)

    def exchange(self, step: Step, *rows: pa.Table) -> pa.Table:
        """Cut by `to`, run the step on every part in turn."""
        together = pa.concat_tables(rows)
        part = _to_numpy(together, "to") % self.num_parts
        outputs = [step(together.filter(pa.array(part == p))) for p in range(self.num_parts)]
        return pa.concat_tables(outputs)

    def select(self, rows: pa.Table, kinds: Sequence[int]) -> pa.Table:
        """Return the messages of these kinds."""
        return rows.filter(pc.is_in(rows["kind"], pa.array(kinds, pa.int8())))

    def save(self, rows: pa.Table) -> pa.Table:
        """Return the rows: they are computed already."""
        return rows

    def count(self, rows: pa.Table, kind: int) -> Mapping[int, int]:
        """Count by file."""
        files = _to_numpy(self.select(rows, [kind]), "doc_id") >> RECORD_BITS
        return dict(zip(*(x.tolist() for x in np.unique(files, return_counts=True)), strict=True))


def messages(
    to: Any, kind: int, doc_id: Any, other: Any = None, value: Any = None, payload: Any = None
) -> pa.Table:
    """Make messages of one kind; absent columns are 0 or empty."""
    n = len(to)
    if payload is None:
        payload = pa.array([b""], pa.binary()).take(pa.array(np.zeros(n, np.int64)))
    columns = [
        pa.array(to, pa.int64()),
        pa.array(np.full(n, kind, np.int8)),
        pa.array(doc_id, pa.int64()),
        pa.array(np.zeros(n, np.int64) if other is None else other, pa.int64()),
        pa.array(np.zeros(n) if value is None else value, pa.float64()),
        payload,
    ]
    return pa.table(columns, schema=MESSAGE)


# ---- 1. gathering ------------------------------------------------------------------------------


def _by_content(signatures: pa.Table) -> pa.Table:
    """Signatures -> FIRST to the content hash; who is first is not known yet."""
    content = _fixed_bytes(signatures["content_hash"], CONTENT_HASH_BYTES)
    keys = content_keys(content)
    joined = pc.binary_join_element_wise(
        signatures["content_hash"].cast(pa.binary()), signatures["signature"], b""
    )
    return messages(keys, FIRST, signatures["doc_id"].to_numpy(), payload=_one_chunk(joined))


def _gather(rows: pa.Table) -> pa.Table:
    """Equal documents meet: FIRST to itself, and COPY to the first for every other."""
    if rows.num_rows == 0:
        return rows
    rows = rows.sort_by([("to", "ascending"), ("doc_id", "ascending")])
    payload = _one_chunk(rows["payload"])
    doc_ids = _to_numpy(rows, "doc_id")
    content = _fixed_bytes(pc.binary_slice(payload, 0, CONTENT_HASH_BYTES), CONTENT_HASH_BYTES)
    _, first_at, group = np.unique(content, axis=0, return_index=True, return_inverse=True)
    lowest = np.full(len(first_at), np.iinfo(np.int64).max)
    np.minimum.at(lowest, group.reshape(-1), doc_ids)
    first = lowest[group.reshape(-1)]
    kind = np.where(first == doc_ids, FIRST, COPY).astype(np.int8)
    return rows.set_column(0, MESSAGE.field(0), pa.array(first)).set_column(
        1, MESSAGE.field(1), pa.array(kind)
    )


# ---- 2. earlier dumps --------------------------------------------------------------------------


def _probe(firsts: pa.Table, spec: LeaderSpec) -> pa.Table:
    """FIRST -> PROBE to the key range of each of its keys, the content's included."""
    content, signatures = _split_payload(firsts, spec)
    keys = np.column_stack([band_keys(signatures, spec.minhash), content_keys(content)])
    doc_ids = np.repeat(_to_numpy(firsts, "doc_id"), keys.shape[1])
    flat = keys.reshape(-1)
    return messages(key_range(flat, spec.index_ranges), PROBE, doc_ids, other=flat)


def key_range(keys: Int64Array, num_ranges: int) -> Int64Array:
    """Return which of `num_ranges` equal ranges of the unsigned key space each key is in."""
    top = keys.view(np.uint64) >> np.uint64(32)
    return ((top * np.uint64(num_ranges)) >> np.uint64(32)).astype(np.int64)


def _lookup(probes: pa.Table, earlier: Earlier) -> pa.Table:
    """PROBE -> PAIR (new, old) to the file that holds the old signature.

    The runs of the range are read here and never shuffled.
    """
    found = [messages([], PAIR, [])]
    for part in np.unique(_to_numpy(probes, "to")).tolist():
        probe = probes.filter(pc.equal(probes["to"], part))
        index = earlier.index(part)
        keys = _to_numpy(probe, "other")
        order = np.argsort(keys, kind="stable")
        at, which = _match_sorted(keys[order], index["band_key"].to_numpy())
        new = _to_numpy(probe, "doc_id")[order][at]
        old = index["doc_id"].to_numpy()[which]
        pairs = np.unique(np.column_stack([new, old]), axis=0)
        found.append(messages(earlier.file_of(pairs[:, 1]), PAIR, pairs[:, 0], other=pairs[:, 1]))
    return pa.concat_tables(found)


def _fetch(pairs: pa.Table, earlier: Earlier) -> pa.Table:
    """PAIR -> OLD to the new document, with the old one's content hash and signature."""
    found = [messages([], OLD, [])]
    for file in np.unique(_to_numpy(pairs, "to")).tolist():
        rows = pairs.filter(pc.equal(pairs["to"], file))
        new, old = np.unique(
            np.column_stack([_to_numpy(rows, "doc_id"), _to_numpy(rows, "other")]), axis=0
        ).T
        wanted, place = np.unique(old, return_inverse=True)
        signatures = earlier.signatures(file, pa.array(wanted)).sort_by("doc_id")
        if signatures.num_rows != len(wanted):
            raise AssertionError("the index names a document that has no signature")
        payload = pc.binary_join_element_wise(
            signatures["content_hash"].cast(pa.binary()), signatures["signature"], b""
        )
        found.append(
            messages(new, OLD, new, other=old, payload=_one_chunk(payload).take(pa.array(place)))
        )
    return pa.concat_tables(found)


def _judge(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    """FIRST + its OLD -> EXACT or BEST for the removed; FIRST again for the undecided."""
    firsts, old = _of_kind(rows, FIRST), _of_kind(rows, OLD)
    place = _places(_to_numpy(firsts, "doc_id"), _to_numpy(old, "doc_id"))
    content, signatures = _split_payload(firsts, spec)
    old_content, old_signatures = _split_payload(old, spec)
    exact = (content[place] == old_content).all(axis=1)
    values = _similarities(signatures, place, old_signatures)
    doc_ids, other = _to_numpy(old, "doc_id"), _to_numpy(old, "other")
    equal = messages(doc_ids[exact], EXACT, doc_ids[exact], other=other[exact])
    similar = values >= spec.threshold
    similar &= ~np.isin(doc_ids, doc_ids[exact])
    best = _best_of(
        messages(doc_ids[similar], BEST, doc_ids[similar], other[similar], values[similar])
    )
    gone = np.concatenate([_to_numpy(equal, "doc_id"), _to_numpy(best, "doc_id")])
    undecided = firsts.filter(pa.array(~np.isin(_to_numpy(firsts, "doc_id"), gone)))
    return pa.concat_tables([undecided, equal, best])


# ---- 3. leader rounds --------------------------------------------------------------------------


def _enter_buckets(firsts: pa.Table, spec: LeaderSpec) -> pa.Table:
    """FIRST -> UNDECIDED, with its signature, to each of its buckets."""
    return _to_buckets(firsts, UNDECIDED, spec)


def _vote(state: pa.Table) -> pa.Table:
    """Every bucket tells its undecided documents whether they are the lowest there."""
    rows = _of_kind(state, UNDECIDED)
    key, doc_id = _to_numpy(rows, "to"), _to_numpy(rows, "doc_id")
    order = np.lexsort((doc_id, key))
    key, doc_id = key[order], doc_id[order]
    low = np.ones(len(key), np.bool_)
    low[1:] = key[1:] != key[:-1]
    return pa.concat_tables(
        [
            messages(doc_id[low], VOTE_LOW, doc_id[low], other=key[low]),
            messages(doc_id[~low], VOTE_HIGH, doc_id[~low], other=key[~low]),
        ]
    )


def _elect(votes: pa.Table) -> pa.Table:
    """Votes -> LEADER to every bucket of a document that is the lowest in all of them."""
    high = _to_numpy(_of_kind(votes, VOTE_HIGH), "doc_id")
    low = _of_kind(votes, VOTE_LOW)
    elected = low.filter(pa.array(~np.isin(_to_numpy(low, "doc_id"), high)))
    return messages(_to_numpy(elected, "other"), LEADER, _to_numpy(elected, "doc_id"))


def _compare(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    """State + LEADER + REMOVED -> KILL to the undecided documents similar to a new leader."""
    undecided, leader, removed, num_entered, _ = _bucket_view(rows)
    signatures = signature_matrix(undecided["payload"], spec.minhash)
    key = _to_numpy(undecided, "to")
    killed = _kills(key, leader, removed, num_entered, signatures, spec.threshold, spec.bucket_cap)
    gone = undecided.filter(pa.array(killed))
    doc_ids = _to_numpy(gone, "doc_id")
    return messages(doc_ids, KILL, doc_ids, payload=_one_chunk(gone["payload"]))


def _spread(kills: pa.Table, spec: LeaderSpec) -> pa.Table:
    """KILL -> REMOVED to every bucket of the document, however many buckets killed it."""
    _, at = np.unique(_to_numpy(kills, "doc_id"), return_index=True)
    return _to_buckets(kills.take(pa.array(at)), REMOVED, spec, with_signature=False)


def _advance(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    """State + LEADER + REMOVED -> the next state, and RETAINED to each new leader.

    A leader enters a bucket unless the dump has entered bucket_cap documents there: every lower
    document of the bucket is decided, so its rank is final.
    """
    undecided, leader, removed, num_entered, entered = _bucket_view(rows)
    key = _to_numpy(undecided, "to")
    enters = _enters(key, leader, num_entered, spec.bucket_cap)
    new = undecided.filter(pa.array(enters))
    new = new.set_column(1, MESSAGE.field(1), pa.array(np.full(new.num_rows, ENTERED, np.int8)))
    leaders = undecided.filter(pa.array(leader))
    first_key = band_keys(signature_matrix(leaders["payload"], spec.minhash), spec.minhash)[:, 0]
    doc_ids = _to_numpy(leaders, "doc_id")[first_key == _to_numpy(leaders, "to")]  # once each
    return pa.concat_tables(
        [
            undecided.filter(pa.array(~leader & ~removed)),
            entered,
            new,
            messages(doc_ids, RETAINED, doc_ids),
        ]
    )


# ---- 4. prefix solves --------------------------------------------------------------------------


def _prefix_bound(num_undecided: Mapping[int, int], spec: LeaderSpec) -> int:
    """Return the doc_id below which at most `prefix_documents` are undecided; at least one file."""
    total = 0
    bound = 0
    for file in sorted(num_undecided):
        total += num_undecided[file] // spec.minhash.bands
        if bound and total > spec.prefix_documents:
            break
        bound = (file + 1) << RECORD_BITS
    return bound


def _members(state: pa.Table, bound: int, spec: LeaderSpec) -> pa.Table:
    """UNDECIDED below the bound -> MEMBER to the one solver, with the count of its bucket.

    The signature travels once, with the first band.
    """
    undecided, _, _, num_entered, _ = _bucket_view(state)
    low = _to_numpy(undecided, "doc_id") < bound
    undecided, num_entered = undecided.filter(pa.array(low)), num_entered[low]
    key = _to_numpy(undecided, "to")
    signatures = signature_matrix(undecided["payload"], spec.minhash)
    first = band_keys(signatures, spec.minhash)[:, 0] == key
    payload = pc.if_else(pa.array(first), undecided["payload"], pa.scalar(b"", pa.binary()))
    return messages(
        np.zeros(len(key), np.int64),
        MEMBER,
        _to_numpy(undecided, "doc_id"),
        other=key,
        value=num_entered.astype(np.float64),
        payload=_one_chunk(payload),
    )


def _solve(members: pa.Table, spec: LeaderSpec) -> pa.Table:
    """MEMBER -> LEADER and REMOVED to all buckets: the oracle's loop over the lowest documents."""
    if members.num_rows == 0:
        return members
    members = members.sort_by([("doc_id", "ascending")])
    has_signature = pc.greater(pc.binary_length(members["payload"]), 0)
    signed = members.filter(has_signature)
    doc_ids = _to_numpy(signed, "doc_id")
    signatures = signature_matrix(signed["payload"], spec.minhash)
    keys = band_keys(signatures, spec.minhash)
    names, bucket = np.unique(keys, return_inverse=True)
    num_entered = np.zeros(len(names), np.int64)
    place = np.searchsorted(names, _to_numpy(members, "other"))
    num_entered[place] = _to_numpy(members, "value").astype(np.int64)
    kept = solve(
        bucket.reshape(keys.shape), signatures, num_entered, spec.threshold, spec.bucket_cap
    )
    return pa.concat_tables(
        [
            messages(keys[verdict].reshape(-1), kind, np.repeat(doc_ids[verdict], keys.shape[1]))
            for kind, verdict in ((LEADER, kept), (REMOVED, ~kept))
        ]
    )


@njit(cache=True, nogil=True)
def solve(
    bucket: Int64Array,
    signatures: UInt32Array,
    num_entered: Int64Array,
    threshold: float,
    bucket_cap: int,
) -> BoolArray:
    """Return which documents, in order, the greedy leader pass retains.

    bucket (n, bands) numbers the buckets from 0; num_entered counts what each already holds of
    documents that are known not to be similar. Cost: at most n x bands x bucket_cap comparisons.
    """
    n, bands = bucket.shape
    num_perm = signatures.shape[1]
    counts = num_entered.copy()
    newest = np.full(len(counts), -1, np.int64)  # a linked list of entries for each bucket
    following = np.empty(n * bands, np.int64)
    entry = np.empty(n * bands, np.int64)
    num_entries = 0
    seen = np.full(n, -1, np.int64)
    kept = np.zeros(n, np.bool_)
    for i in range(n):
        similar = False
        for band in range(bands):
            at = newest[bucket[i, band]]
            while at >= 0 and not similar:
                j = entry[at]
                if seen[j] != i:
                    seen[j] = i
                    equal = num_equal_slots(signatures[i], signatures[j])
                    similar = equal / num_perm >= threshold
                at = following[at]
            if similar:
                break
        if similar:
            continue
        kept[i] = True
        for band in range(bands):
            b = bucket[i, band]
            if counts[b] < bucket_cap:
                counts[b] += 1
                entry[num_entries] = i
                following[num_entries] = newest[b]
                newest[b] = num_entries
                num_entries += 1
    return kept


# ---- 5. twins ----------------------------------------------------------------------------------


def _resolve(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    """The fate of each first, for itself and its copies.

    Retained: its copies are exact duplicates of it, and its content enters the index. Equal to an
    old document: all are exact duplicates of that. Else all are near-duplicates: each seeks its own
    best twin, with the best old one as a candidate.
    """
    firsts, copies = _of_kind(rows, FIRST), _of_kind(rows, COPY)
    retained = _to_numpy(_of_kind(rows, RETAINED), "doc_id")
    exact, best = _of_kind(rows, EXACT), _of_kind(rows, BEST)

    # Copies of a retained document.
    of = _to_numpy(copies, "to")
    known = np.isin(of, retained)
    doc_ids = _to_numpy(copies, "doc_id")[known]
    inside = _duplicates(doc_ids, of[known], np.ones(len(doc_ids)), b"exact")

    # Equal to an old document.
    everyone = pa.concat_tables([firsts, copies])
    of = _to_numpy(everyone, "to")
    place = _find(_to_numpy(exact, "doc_id"), of)
    doc_ids = _to_numpy(everyone, "doc_id")[place >= 0]
    twins = _to_numpy(exact, "other")[place[place >= 0]]
    outside = _duplicates(doc_ids, twins, np.ones(len(doc_ids)), b"exact")

    # The rest was removed as near-duplicates.
    near = everyone.filter(pa.array((place < 0) & ~np.isin(of, retained)))
    place = _find(_to_numpy(best, "doc_id"), _to_numpy(near, "to"))
    doc_ids = _to_numpy(near, "doc_id")[place >= 0]
    old = messages(
        doc_ids,
        BEST,
        doc_ids,
        _to_numpy(best, "other")[place[place >= 0]],
        _to_numpy(best, "value")[place[place >= 0]],
    )
    kept = firsts.filter(pa.array(np.isin(_to_numpy(firsts, "doc_id"), retained)))
    content, _ = _split_payload(kept, spec)
    keys = content_keys(content)
    index = messages(
        key_range(keys, spec.index_ranges), INDEX, _to_numpy(kept, "doc_id"), other=keys
    )
    return pa.concat_tables([inside, outside, _to_buckets(near, SEEK, spec), old, index])


def _best_in_bucket(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    """ENTERED + SEEK -> BEST: the most similar lower retained document of the bucket."""
    rows = pa.concat_tables([_of_kind(rows, ENTERED), _of_kind(rows, SEEK)])
    rows = rows.sort_by([("to", "ascending"), ("doc_id", "ascending")])
    seeking = _to_numpy(rows, "kind") == SEEK
    doc_ids = _to_numpy(rows, "doc_id")
    twin, value = _twins(
        _to_numpy(rows, "to"), seeking, signature_matrix(rows["payload"], spec.minhash)
    )
    found = seeking & (twin >= 0) & (value >= spec.threshold)
    return messages(doc_ids[found], BEST, doc_ids[found], doc_ids[twin[found]], value[found])


def _choose(best: pa.Table) -> pa.Table:
    """BEST of all buckets and of the old dumps -> one near DUPLICATE."""
    best = _best_of(best)
    return _duplicates(
        _to_numpy(best, "doc_id"), _to_numpy(best, "other"), _to_numpy(best, "value"), b"near"
    )


def _index_rows(state: pa.Table, spec: LeaderSpec) -> pa.Table:
    """ENTERED -> INDEX to its key range."""
    entered = _of_kind(state, ENTERED)
    keys = _to_numpy(entered, "to")
    return messages(
        key_range(keys, spec.index_ranges), INDEX, _to_numpy(entered, "doc_id"), other=keys
    )


# ---- pieces of the steps -----------------------------------------------------------------------


def _to_buckets(
    rows: pa.Table, kind: int, spec: LeaderSpec, with_signature: bool = True
) -> pa.Table:
    """Send a message to each bucket of a document; the signature ends its payload."""
    _, signatures = _split_payload(rows, spec)
    keys = band_keys(signatures, spec.minhash)
    repeat = np.repeat(np.arange(len(signatures)), spec.minhash.bands)
    payload = None
    if with_signature:
        payload = pc.binary_slice(
            _one_chunk(rows["payload"]), start=-spec.minhash.num_signature_bytes
        ).take(pa.array(repeat))
    return messages(keys.reshape(-1), kind, _to_numpy(rows, "doc_id")[repeat], payload=payload)


def _bucket_view(
    rows: pa.Table,
) -> tuple[pa.Table, BoolArray, BoolArray, Int64Array, pa.Table]:
    """Return UNDECIDED sorted by (key, doc_id), which are LEADER, which REMOVED, how many
    documents their bucket has ENTERED, and the ENTERED rows."""
    undecided = _of_kind(rows, UNDECIDED).sort_by([("to", "ascending"), ("doc_id", "ascending")])
    entered = _of_kind(rows, ENTERED)
    key, doc_id = _to_numpy(undecided, "to"), _to_numpy(undecided, "doc_id")
    names, counts = np.unique(_to_numpy(entered, "to"), return_counts=True)
    place = _find(names, key)
    num_entered = np.where(place >= 0, np.append(counts, 0)[place], 0).astype(np.int64)
    leader, removed = (_among(key, doc_id, _of_kind(rows, kind)) for kind in (LEADER, REMOVED))
    return undecided, leader, removed, num_entered, entered


def _among(key: Int64Array, doc_id: Int64Array, rows: pa.Table) -> BoolArray:
    """Return which (key, doc_id) have a row."""
    pairs = np.empty(len(key) + rows.num_rows, dtype=[("key", np.int64), ("doc", np.int64)])
    pairs["key"] = np.concatenate([key, _to_numpy(rows, "to")])
    pairs["doc"] = np.concatenate([doc_id, _to_numpy(rows, "doc_id")])
    names = np.unique(pairs, return_inverse=True)[1].reshape(-1)
    result: BoolArray = np.isin(names[: len(key)], names[len(key) :])
    return result


def _best_of(best: pa.Table) -> pa.Table:
    """Return one row a document: highest value, ties to the lowest other."""
    best = best.sort_by([("doc_id", "ascending"), ("value", "descending"), ("other", "ascending")])
    _, at = np.unique(_to_numpy(best, "doc_id"), return_index=True)
    return best.take(pa.array(at))


def _duplicates(
    doc_ids: Int64Array, twins: Int64Array, value: npt.NDArray[np.float64], kind: bytes
) -> pa.Table:
    payload = pa.array([kind], pa.binary()).take(pa.array(np.zeros(len(doc_ids), np.int64)))
    return messages(doc_ids, DUPLICATE, doc_ids, twins, value, payload)


def _split_payload(rows: pa.Table, spec: LeaderSpec) -> tuple[npt.NDArray[np.uint8], UInt32Array]:
    """Return content hashes (n, 16) and signatures (n, num_perm) of payloads.

    A payload is a content hash and a signature, or (KILL) a signature alone.
    """
    payload = _one_chunk(rows["payload"])
    width = spec.minhash.num_signature_bytes
    signatures = signature_matrix(pc.binary_slice(payload, start=-width), spec.minhash)
    content = pc.binary_slice(payload, 0, CONTENT_HASH_BYTES)
    return _fixed_bytes(content, CONTENT_HASH_BYTES), signatures


def _fixed_bytes(column: pa.Array, width: int) -> npt.NDArray[np.uint8]:
    column = _one_chunk(column)
    joined = b"".join(column.to_pylist()) if len(column) else b""
    return np.frombuffer(joined, np.uint8).reshape(-1, width)


def _one_chunk(column: Any) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column


def _of_kind(rows: pa.Table, kind: int) -> pa.Table:
    return rows.filter(pc.equal(rows["kind"], pa.scalar(kind, pa.int8())))


def _to_numpy(rows: pa.Table, column: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = rows[column].to_numpy()
    return values


def _find(names: Int64Array, wanted: Int64Array) -> Int64Array:
    """Return the place of each wanted value in `names` (distinct), -1 where it is not."""
    if len(names) == 0:
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(names, kind="stable")
    place = np.searchsorted(names, wanted, sorter=order)
    place = order[np.minimum(place, len(names) - 1)]
    return np.where(names[place] == wanted, place, -1)


def _places(names: Int64Array, wanted: Int64Array) -> Int64Array:
    """Return the place of each wanted value; every one must be there."""
    place = _find(names, wanted)
    if (place < 0).any():
        raise AssertionError("a message names a document that is not in its part")
    return place


def _match_sorted(left: Int64Array, right: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return all pairs (i, j) with left[i] == right[j], both sorted."""
    first = np.searchsorted(right, left, side="left")
    count = np.searchsorted(right, left, side="right") - first
    at = np.repeat(np.arange(len(left)), count)
    step = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
    return at, first[at] + step


@njit(cache=True, nogil=True)
def _similarities(
    signatures: UInt32Array, place: Int64Array, others: UInt32Array
) -> npt.NDArray[np.float64]:
    num_perm = signatures.shape[1]
    values = np.empty(len(place), np.float64)
    for i in range(len(place)):
        values[i] = num_equal_slots(signatures[place[i]], others[i]) / num_perm
    return values


@njit(cache=True, nogil=True)
def _enters(
    key: Int64Array, leader: BoolArray, num_entered: Int64Array, bucket_cap: int
) -> BoolArray:
    """Return which leaders find room in their bucket, in order of doc_id."""
    enters = np.zeros(len(key), np.bool_)
    count = 0
    for i in range(len(key)):
        if i == 0 or key[i] != key[i - 1]:
            count = num_entered[i]
        if leader[i] and count < bucket_cap:
            enters[i] = True
            count += 1
    return enters


@njit(cache=True, nogil=True)
def _kills(
    key: Int64Array,
    leader: BoolArray,
    removed: BoolArray,
    num_entered: Int64Array,
    signatures: UInt32Array,
    threshold: float,
    bucket_cap: int,
) -> BoolArray:
    """Return which undecided rows are similar to a lower leader that enters their bucket."""
    num_perm = signatures.shape[1]
    enters = _enters(key, leader, num_entered, bucket_cap)
    killed = np.zeros(len(key), np.bool_)
    entered = np.empty(bucket_cap, np.int64)  # of this bucket, so far
    num_here = 0
    for i in range(len(key)):
        if i == 0 or key[i] != key[i - 1]:
            num_here = 0
        if enters[i]:
            entered[num_here] = i
            num_here += 1
        if leader[i] or removed[i]:
            continue
        for at in range(num_here):
            equal = num_equal_slots(signatures[i], signatures[entered[at]])
            if equal / num_perm >= threshold:
                killed[i] = True
                break
    return killed


@njit(cache=True, nogil=True)
def _twins(
    key: Int64Array, seeking: BoolArray, signatures: UInt32Array
) -> tuple[Int64Array, npt.NDArray[np.float64]]:
    """Return the most similar entered row above each seeking row of a bucket, and how similar."""
    num_perm = signatures.shape[1]
    twin = np.full(len(key), -1, np.int64)
    value = np.zeros(len(key), np.float64)
    entered = np.empty(len(key), np.int64)
    num_here = 0
    for i in range(len(key)):
        if i == 0 or key[i] != key[i - 1]:
            num_here = 0
        if not seeking[i]:
            entered[num_here] = i
            num_here += 1
            continue
        for at in range(num_here):  # ascending ids, so a tie keeps the lowest
            j = entered[at]
            found = num_equal_slots(signatures[i], signatures[j]) / num_perm
            if twin[i] < 0 or found > value[i]:
                twin[i] = j
                value[i] = found
    return twin, value
