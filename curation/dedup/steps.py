"""The steps of the distributed leader pass: messages of a part in, new messages out.

In the order in which `curation.dedup.leader.deduplicate` takes them. Every step gets its messages
sorted by `Step.order`; most by receiver, then doc_id.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.dedup.kernels import (
    candidates,
    cut_out,
    distinct_pairs,
    entering_leaders,
    estimates,
    find,
    first_equal,
    jaccards,
    leader_pass,
    match_sorted,
    merged,
    places,
    similar_leaders,
    tails,
)
from curation.dedup.lsh import band_keys, content_keys, signature_matrix
from curation.dedup.messages import (
    ACTIVE,
    BEST,
    BEYOND,
    COPY,
    DUPLICATE,
    ENTERED,
    EXACT,
    FIRST,
    FULL,
    GONE,
    HASHES,
    INDEX,
    LEADER,
    MEET,
    MEMBER,
    MESSAGE,
    OLD,
    PAIR,
    PROBE,
    REMOVED,
    RETAINED,
    SCORED,
    SEEK,
    SHARED,
    UNDECIDED,
    VOTE_HIGH,
    VOTE_LOW,
    WANTED,
    Step,
    column,
    messages,
    of_kind,
    one_chunk,
    readdressed,
)
from curation.dedup.minhash import CONTENT_HASH_BYTES
from curation.dedup.oracle import LeaderSpec
from curation.ingest.text import utf8_buffers

BoolArray = npt.NDArray[np.bool_]
UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]
Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

NO_HASHES = np.empty(0, np.uint64)
NO_OFFSETS = np.zeros(1, np.int64)


class Store(Protocol):
    """Signatures and shingles of the dump and the earlier ones in scope, and the index of those.

    Read inside the tasks, never shuffled. Sent to tasks.
    """

    def index(self, part: int, keys: Int64Array) -> pa.Table:
        """Return band_key and doc_id of a key range for ascending keys, sorted by key."""

    def file_of(self, doc_ids: Int64Array) -> Int64Array:
        """Return which file of signatures holds each document."""

    def signatures(self, file: int, doc_ids: Int64Array) -> pa.Table:
        """Return doc_id, content_hash and signature of these ascending documents of a file."""

    def shingles(self, file: int, doc_ids: Int64Array) -> pa.Table:
        """Return doc_id and hashes of these ascending documents of a file."""


def _step(function: Callable[..., pa.Table], spec: LeaderSpec | None = None, **cut: Any) -> Step:
    return Step(function if spec is None else partial(function, spec=spec), **cut)


# ---- 1. gathering ------------------------------------------------------------------------------


def by_content(signatures: pa.Table, spec: LeaderSpec) -> pa.Table:
    """Signatures -> FIRST to the content hash; who is first is not known yet.

    Its value is what the document weighs in memory, in documents without shingles.
    """
    content = _matrix(signatures["content_hash"], 0, CONTENT_HASH_BYTES)
    weight = np.ones(len(content))
    if spec.is_exact:
        weight += column(signatures, "num_shingles") * 8 / spec.minhash.num_signature_bytes
    return messages(
        content_keys(content),
        FIRST,
        column(signatures, "doc_id"),
        value=weight,
        payload=_content_and_signature(signatures),
    )


def gather() -> Step:
    """Equal documents meet: FIRST to itself, and COPY to the first for every other."""
    return Step(_gather, carry=_carry_firsts)


def _gather(rows: pa.Table) -> pa.Table:
    first = first_equal(column(rows, "to"), _content_halves(rows))
    doc_ids = column(rows, "doc_id")
    kind = np.where(first == np.arange(len(first)), FIRST, COPY).astype(np.int8)
    rows = rows.set_column(1, MESSAGE.field("kind"), pa.array(kind))
    return readdressed(rows, doc_ids[first])


def _carry_firsts(rows: pa.Table) -> pa.Table:
    first = first_equal(column(rows, "to"), _content_halves(rows))
    return rows.filter(pa.array(first == np.arange(len(first))))


# ---- 2. earlier dumps --------------------------------------------------------------------------


def probe(firsts: pa.Table, spec: LeaderSpec) -> pa.Table:
    """FIRST -> PROBE to the key range of each of its keys, the content's included."""
    content, signatures = _split_payload(firsts, spec)
    keys = np.column_stack([band_keys(signatures, spec.minhash), content_keys(content)])
    doc_ids = np.repeat(column(firsts, "doc_id"), keys.shape[1])
    flat = keys.reshape(-1)
    return messages(key_range(flat, spec.index_ranges), PROBE, doc_ids, other=flat)


def key_range(keys: Int64Array, num_ranges: int) -> Int64Array:
    """Return which of `num_ranges` equal ranges of the unsigned key space each key is in."""
    top = keys.view(np.uint64) >> np.uint64(32)
    return ((top * np.uint64(num_ranges)) >> np.uint64(32)).astype(np.int64)


def lookup(store: Store) -> Step:
    """PROBE -> PAIR (new, old) to the file of the old document.

    Pieces come in order of the key, so each reads its own stretch of the runs, and no run is
    shuffled.
    """
    return Step(partial(_lookup, store=store), order=("to", "other", "doc_id"), splits=True)


def _lookup(probes: pa.Table, store: Store) -> pa.Table:
    found = [messages([], PAIR, [])]
    for part, rows in _by(probes, "to"):
        keys = column(rows, "other")  # ascending
        index = store.index(part, keys)
        at, which = match_sorted(keys, column(index, "band_key"))
        new, old = distinct_pairs(column(rows, "doc_id")[at], column(index, "doc_id")[which])
        found.append(messages(store.file_of(old), PAIR, new, other=old))
    return pa.concat_tables(found)


def fetch(store: Store) -> Step:
    """PAIR -> OLD to the new document, with the old one's content hash and signature."""
    return Step(partial(_fetch, store=store), order=("to", "other", "doc_id"), splits=True)


def _fetch(pairs: pa.Table, store: Store) -> pa.Table:
    found = [messages([], OLD, [])]
    for file, rows in _by(pairs, "to"):
        new, old = distinct_pairs(column(rows, "doc_id"), column(rows, "other"))
        wanted, place = np.unique(old, return_inverse=True)
        stored = _all_of(store.signatures(file, wanted), wanted)
        payload = _content_and_signature(stored).take(pa.array(place))
        found.append(messages(new, OLD, new, other=old, payload=payload))
    return pa.concat_tables(found)


def judge(spec: LeaderSpec) -> Step:
    """FIRST + its OLD -> FIRST of the undecided; GONE with BEST, or EXACT, of the removed.

    With `exact`, documents that are not equal stay FIRST, and PAIR goes out for each candidate.
    """
    return _step(_judge, spec)


def _judge(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    firsts, old = of_kind(rows, FIRST), of_kind(rows, OLD)
    place = places(column(firsts, "doc_id"), column(old, "doc_id"))
    content, signatures = _split_payload(firsts, spec)
    old_content, old_signatures = _split_payload(old, spec)
    is_equal = (content[place] == old_content).all(axis=1)
    doc_ids, other = column(old, "doc_id"), column(old, "other")
    equal = messages(doc_ids[is_equal], EXACT, doc_ids[is_equal], other=other[is_equal])
    values = estimates(signatures, place, old_signatures)
    similar = (values >= spec.floor) & ~np.isin(doc_ids, doc_ids[is_equal])
    firsts = firsts.filter(pa.array(~np.isin(column(firsts, "doc_id"), doc_ids[is_equal])))
    scored = _pairs_or_scores(doc_ids[similar], other[similar], values[similar], spec)
    if spec.is_exact:
        return pa.concat_tables([firsts, equal, scored])
    return pa.concat_tables([equal, _accept(pa.concat_tables([firsts, scored]), spec)])


def accept(spec: LeaderSpec) -> Step:
    """FIRST + its SCORED -> FIRST of the undecided, or GONE with BEST; EXACT passes."""
    return _step(_accept, spec)


def _accept(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    best = best_of(_near(of_kind(rows, SCORED), spec))
    firsts = of_kind(rows, FIRST)
    is_gone = np.isin(column(firsts, "doc_id"), column(best, "doc_id"))
    gone = firsts.filter(pa.array(is_gone))
    return pa.concat_tables(
        [
            firsts.filter(pa.array(~is_gone)),
            readdressed(gone, column(gone, "doc_id"), GONE),
            best,
            of_kind(rows, EXACT),
        ]
    )


# ---- exact similarities ------------------------------------------------------------------------


def send_hashes(store: Store) -> Step:
    """PAIR (one, other) at the file of the other -> PAIR and the other's HASHES to the one's file.

    In both, `other` is the document whose hashes travel; they do once to each file.
    """
    return Step(partial(_send_hashes, store=store), order=("to", "other", "doc_id"), splits=True)


def _send_hashes(pairs: pa.Table, store: Store) -> pa.Table:
    found = [messages([], PAIR, [])]
    for file, rows in _by(pairs, "to"):
        one, other = distinct_pairs(column(rows, "doc_id"), column(rows, "other"))
        to = store.file_of(one)
        where, sent = distinct_pairs(to, other)
        wanted, place = np.unique(sent, return_inverse=True)
        stored = _all_of(store.shingles(file, wanted), wanted)
        hashes = one_chunk(stored["hashes"]).take(pa.array(place))
        nobody = np.full(len(sent), -1)  # sorts before the documents of the pairs
        found.append(messages(where, HASHES, nobody, other=sent, payload=hashes))
        found.append(messages(to, PAIR, one, other=other))
    return pa.concat_tables(found)


def score(store: Store) -> Step:
    """PAIR + HASHES at the file of the one -> SCORED to the one, with the exact similarity."""
    return Step(
        partial(_score, store=store),
        order=("to", "other", "doc_id", "kind"),
        group=("to", "other"),
        carry=_carry_hashes,
    )


def _carry_hashes(rows: pa.Table) -> pa.Table:
    """Return the hashes that the rest of a group needs."""
    return of_kind(rows, HASHES)


def _score(rows: pa.Table, store: Store) -> pa.Table:
    found = [messages([], SCORED, [])]
    for file, own in _by(rows, "to"):
        pairs, sent = of_kind(own, PAIR), of_kind(own, HASHES)
        one, other = distinct_pairs(column(pairs, "doc_id"), column(pairs, "other"))
        wanted, left = np.unique(one, return_inverse=True)
        stored = _all_of(store.shingles(file, wanted), wanted)
        hashes, offsets = hash_arrays(stored["hashes"])
        sent_hashes, sent_offsets = hash_arrays(sent["payload"])
        right = places(column(sent, "other"), other)
        values = jaccards(hashes, offsets, left, sent_hashes, sent_offsets, right)
        found.append(messages(one, SCORED, one, other=other, value=values))
    return pa.concat_tables(found)


def hash_arrays(values: Any, skip: int = 0) -> tuple[UInt64Array, Int64Array]:
    """Return all shingle hashes of a binary column, and the n + 1 offsets of its rows.

    `skip` bytes of every value are something else.
    """
    data, starts = utf8_buffers(values)
    offsets = np.zeros(len(starts), np.int64)
    np.cumsum((np.diff(starts) - skip) // 8, out=offsets[1:])
    if skip or len(data) == 0:
        return tails(data, starts, offsets, skip).view("<u8"), offsets
    return np.ascontiguousarray(data[starts[0] : starts[-1]]).view("<u8"), offsets


def _near(scored: pa.Table, spec: LeaderSpec) -> pa.Table:
    """SCORED -> BEST for those at the threshold or above."""
    near = scored.filter(pc.greater_equal(scored["value"], spec.threshold))
    return readdressed(near, column(near, "doc_id"), BEST)


def _pairs_or_scores(
    one: Int64Array, other: Int64Array, estimates: Float64Array, spec: LeaderSpec
) -> pa.Table:
    """Return candidates as PAIR where exact similarities decide, else as SCORED.

    A PAIR goes to the file of the other, which only the store knows: `to_files` fills it in.
    """
    kind = PAIR if spec.is_exact else SCORED
    return messages(one, kind, one, other=other, value=estimates)


def to_files(pairs: pa.Table, store: Store) -> pa.Table:
    """Address each PAIR to the file of its other document."""
    return readdressed(pairs, store.file_of(column(pairs, "other")))


# ---- 3. meeting --------------------------------------------------------------------------------


def knock(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    """FIRST or GONE -> MEET to each of its buckets, with value 1 where it is undecided."""
    _, signatures = _split_payload(rows, spec)
    keys = band_keys(signatures, spec.minhash)
    is_undecided = (column(rows, "kind") == FIRST).astype(np.float64)
    bands = keys.shape[1]
    return messages(
        keys.reshape(-1),
        MEET,
        np.repeat(column(rows, "doc_id"), bands),
        value=np.repeat(is_undecided, bands),
    )


def meet() -> Step:
    """MEET -> SHARED to the documents of a bucket in which another may be a twin.

    Most documents share no bucket: they are retained without sending their signature anywhere.
    """
    return Step(_meet, carry=_carry_one_met)


def _meet(rows: pa.Table) -> pa.Table:
    key, doc_ids = column(rows, "to"), column(rows, "doc_id")
    _, group, size = np.unique(key, return_inverse=True, return_counts=True)
    is_undecided = column(rows, "value") > 0
    any_undecided = np.zeros(len(size), np.bool_)
    any_undecided[group[is_undecided]] = True
    shared = (size[group] > 1) & any_undecided[group]
    return messages(doc_ids[shared], SHARED, doc_ids[shared], other=key[shared])


def _carry_one_met(rows: pa.Table) -> pa.Table:
    """An undecided document if there is one: those above it share the bucket with it."""
    undecided = rows.filter(pc.greater(rows["value"], 0.0))
    return undecided.slice(0, 1) if undecided.num_rows else rows.slice(0, 1)


def enter(spec: LeaderSpec) -> Step:
    """FIRST + its SHARED -> RETAINED where there are none; else ACTIVE, and UNDECIDED to each."""
    return _step(_enter, spec)


def _enter(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    firsts, shared = of_kind(rows, FIRST), of_kind(rows, SHARED)
    doc_ids = column(firsts, "doc_id")
    place = find(doc_ids, column(shared, "doc_id"))
    shared = shared.filter(pa.array(place >= 0))  # of GONE documents there is no FIRST here
    place = place[place >= 0]
    is_active = np.isin(np.arange(len(doc_ids)), place)
    alone = doc_ids[~is_active]
    active = firsts.filter(pa.array(is_active))
    _, signatures = _split_payload(active, spec)
    # One message of each document carries its weight, so that sums count documents.
    owner, first_at = np.unique(column(shared, "doc_id"), return_index=True)
    weight = np.zeros(shared.num_rows)
    weight[first_at] = column(firsts, "value")[places(doc_ids, owner)]
    return pa.concat_tables(
        [
            messages(alone, RETAINED, alone, value=np.ones(len(alone))),
            messages(
                column(active, "doc_id"),
                ACTIVE,
                column(active, "doc_id"),
                payload=_binary_rows(signatures),
            ),
            messages(column(shared, "other"), UNDECIDED, column(shared, "doc_id"), value=weight),
        ]
    )


# ---- 3. leader rounds --------------------------------------------------------------------------


def vote(spec: LeaderSpec) -> Step:
    """UNDECIDED + ENTERED -> every bucket tells its documents whether they are the lowest there.

    In a full bucket all are: none will enter it any more, so nobody waits for a lower one.
    """
    return _step(_vote, spec, carry=_carry_lowest)


def _vote(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    view = _Buckets(rows)
    key, doc_id = view.key, view.doc_id
    low = view.num_entered >= spec.bucket_cap
    low[:1] = True
    low[1:] |= key[1:] != key[:-1]
    return pa.concat_tables(
        [
            messages(doc_id[low], VOTE_LOW, doc_id[low], other=key[low]),
            messages(doc_id[~low], VOTE_HIGH, doc_id[~low], other=key[~low]),
        ]
    )


def _carry_lowest(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([of_kind(rows, ENTERED), of_kind(rows, UNDECIDED).slice(0, 1)])


def elect() -> Step:
    """Votes -> LEADER to every bucket of a document that is the lowest in all of them."""
    return Step(_elect)


def _elect(votes: pa.Table) -> pa.Table:
    high = column(of_kind(votes, VOTE_HIGH), "doc_id")
    low = of_kind(votes, VOTE_LOW)
    elected = low.filter(pa.array(~np.isin(column(low, "doc_id"), high)))
    return messages(column(elected, "other"), LEADER, column(elected, "doc_id"))


# ---- 4. prefix solves --------------------------------------------------------------------------


def members(bound: int) -> Step:
    """UNDECIDED below the bound -> WANTED to itself, and FULL with the count of its bucket."""
    return Step(partial(_members, bound=bound), carry=_carry_entered)


def _members(rows: pa.Table, bound: int) -> pa.Table:
    view = _Buckets(rows)
    low = view.doc_id < bound
    doc_ids = np.unique(view.doc_id[low])
    counted = low & (view.num_entered > 0)
    names, first_at = np.unique(view.key[counted], return_index=True)
    return pa.concat_tables(
        [
            messages(doc_ids, WANTED, doc_ids),
            messages(
                np.zeros(len(names), np.int64),
                FULL,
                view.doc_id[counted][first_at],
                other=names,
                value=view.num_entered[counted][first_at].astype(np.float64),
            ),
        ]
    )


def enroll() -> Step:
    """ACTIVE + WANTED -> MEMBER, with the signature, to the one solver."""
    return Step(_enroll)


def _enroll(rows: pa.Table) -> pa.Table:
    active = of_kind(rows, ACTIVE)
    is_wanted = np.isin(column(active, "doc_id"), column(of_kind(rows, WANTED), "doc_id"))
    wanted = active.filter(pa.array(is_wanted))
    return readdressed(wanted, np.zeros(wanted.num_rows, np.int64), MEMBER)


def equip(store: Store) -> Step:
    """MEMBER at its file -> MEMBER to the solver, with its shingle hashes after the signature."""
    return Step(partial(_equip, store=store), splits=True)


def _equip(rows: pa.Table, store: Store) -> pa.Table:
    found = [messages([], MEMBER, [])]
    for file, own in _by(rows, "to"):
        doc_ids = column(own, "doc_id")
        stored = _all_of(store.shingles(file, doc_ids), doc_ids)
        payload = pc.binary_join_element_wise(
            one_chunk(own["payload"]), one_chunk(stored["hashes"]), b""
        )
        found.append(messages(np.zeros(len(doc_ids), np.int64), MEMBER, doc_ids, payload=payload))
    return pa.concat_tables(found)


def at_files(rows: pa.Table, store: Store) -> pa.Table:
    """Address messages to the files of their documents."""
    return readdressed(rows, store.file_of(column(rows, "doc_id")))


def solve(spec: LeaderSpec) -> Step:
    """MEMBER + FULL -> LEADER and REMOVED to all buckets: the oracle's loop."""
    return _step(_solve, spec)


def _solve(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    own, full = of_kind(rows, MEMBER), of_kind(rows, FULL)
    doc_ids = column(own, "doc_id")
    width = spec.minhash.num_signature_bytes
    signatures = _matrix(own["payload"], 0, width).view("<u4")
    hashes, offsets = NO_HASHES, NO_OFFSETS
    if spec.is_exact:
        hashes, offsets = hash_arrays(own["payload"], width)
    keys = band_keys(signatures, spec.minhash)
    names, bucket = np.unique(keys, return_inverse=True)
    num_entered = np.zeros(len(names), np.int64)
    place = np.searchsorted(names, column(full, "other"))
    num_entered[place] = column(full, "value").astype(np.int64)
    kept = leader_pass(
        bucket.reshape(keys.shape),
        signatures,
        num_entered,
        spec.bucket_cap,
        spec.threshold,
        spec.floor,
        hashes,
        offsets,
    )
    return pa.concat_tables(
        [
            messages(keys[verdict].reshape(-1), kind, np.repeat(doc_ids[verdict], keys.shape[1]))
            for kind, verdict in ((LEADER, kept), (REMOVED, ~kept))
        ]
    )


# ---- 3. and 4. what the new leaders remove ------------------------------------------------------


def to_documents(state: pa.Table) -> pa.Table:
    """Address messages of buckets to their documents; `other` is the bucket then."""
    rows = state.set_column(3, MESSAGE.field("other"), state["to"])
    return readdressed(rows, column(state, "doc_id"))


def wake(spec: LeaderSpec) -> Step:
    """State + LEADER + REMOVED -> UNDECIDED, to itself, where a lower new leader enters a bucket.

    And of those leaders, so that both send their signature there.
    """
    return _step(_wake, spec, carry=partial(_carry_leaders, spec=spec))


def _wake(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    view = _Buckets(rows)
    enters = view.enters(spec.bucket_cap)
    names, first_at = np.unique(view.key[enters], return_index=True)
    lowest = view.doc_id[enters][first_at]
    place = find(names, view.key)
    above = (place >= 0) & (view.doc_id > np.append(lowest, 0)[place])
    awake = enters | (above & ~view.leader & ~view.removed)
    return to_documents(view.undecided.filter(pa.array(awake)))


def dress() -> Step:
    """ACTIVE + messages about it -> the messages to their buckets, with its signature."""
    return Step(_dress)


def _dress(rows: pa.Table) -> pa.Table:
    is_active = pc.equal(rows["kind"], pa.scalar(ACTIVE, pa.int8()))
    active, bare = rows.filter(is_active), rows.filter(pc.invert(is_active))
    place = places(column(active, "doc_id"), column(bare, "doc_id"))
    payload = one_chunk(active["payload"]).take(pa.array(place))
    bare = bare.set_column(5, MESSAGE.field("payload"), payload)
    return readdressed(bare, column(bare, "other"))


def compare(spec: LeaderSpec) -> Step:
    """UNDECIDED with signature + ENTERED + LEADER + REMOVED -> SCORED, or PAIR, with new leaders.

    An undecided document meets the leaders below it that enter the bucket. Where the estimate
    decides, the first similar one is enough.
    """
    return _step(_compare, spec, carry=partial(_carry_leaders, spec=spec))


def _compare(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    view = _Buckets(rows)
    signatures = signature_matrix(view.undecided["payload"], spec.minhash)
    enters = view.enters(spec.bucket_cap)
    one, other, value = similar_leaders(
        view.key,
        view.leader | view.removed,
        enters,
        signatures,
        spec.floor,
        spec.bucket_cap,
        not spec.is_exact,
    )
    return _pairs_or_scores(view.doc_id[one], view.doc_id[other], value, spec)


def spread(spec: LeaderSpec) -> Step:
    """SHARED + SCORED -> REMOVED to every shared bucket of a document that is similar to a leader.

    However many leaders removed it.
    """
    return _step(_spread, spec)


def _spread(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    near = _near(of_kind(rows, SCORED), spec)
    shared = of_kind(rows, SHARED)
    is_removed = np.isin(column(shared, "doc_id"), column(near, "doc_id"))
    shared = shared.filter(pa.array(is_removed))
    return messages(column(shared, "other"), REMOVED, column(shared, "doc_id"))


def advance(spec: LeaderSpec) -> Step:
    """State + LEADER + REMOVED -> the next state; RETAINED to each new leader; BEYOND.

    A leader enters a bucket unless the dump has entered bucket_cap documents there: every lower
    document of the bucket is decided, so its rank is final. Otherwise it is BEYOND, to the key.
    """
    return _step(_advance, spec, carry=partial(_carry_leaders, spec=spec))


def _advance(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    view = _Buckets(rows)
    enters = view.enters(spec.bucket_cap)
    beyond = view.leader & ~enters
    new = view.undecided.filter(pa.array(enters))
    # the one message that carries the weight, so once for each document
    counts = view.leader & (column(view.undecided, "value") > 0)
    return pa.concat_tables(
        [
            view.undecided.filter(pa.array(~view.leader & ~view.removed)),
            view.entered,
            readdressed(new, view.key[enters], ENTERED),
            messages(
                view.doc_id[counts], RETAINED, view.doc_id[counts], value=np.ones(counts.sum())
            ),
            messages(view.key[beyond], BEYOND, view.doc_id[beyond]),
        ]
    )


def _carry_entered(rows: pa.Table) -> pa.Table:
    return of_kind(rows, ENTERED)


def _carry_leaders(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    """What has entered, and the leaders that do."""
    view = _Buckets(rows)
    enters = view.enters(spec.bucket_cap)
    entering = np.isin(column(rows, "doc_id"), view.doc_id[enters])
    is_entered = column(rows, "kind") == ENTERED
    return rows.filter(pa.array(entering | is_entered))


class _Buckets:
    """The messages of some buckets, sorted by key and doc_id, as columns of their UNDECIDED."""

    def __init__(self, rows: pa.Table) -> None:
        self.undecided, self.entered = of_kind(rows, UNDECIDED), of_kind(rows, ENTERED)
        self.key, self.doc_id = column(self.undecided, "to"), column(self.undecided, "doc_id")
        names, counts = np.unique(column(self.entered, "to"), return_counts=True)
        place = find(names, self.key)
        self.num_entered = np.where(place >= 0, np.append(counts, 0)[place], 0).astype(np.int64)
        self.leader, self.removed = (
            _among(self.key, self.doc_id, of_kind(rows, kind)) for kind in (LEADER, REMOVED)
        )

    def enters(self, bucket_cap: int) -> BoolArray:
        """Return which leaders find room in their bucket, in order of doc_id."""
        found: BoolArray = entering_leaders(self.key, self.leader, self.num_entered, bucket_cap)
        return found


def _among(key: Int64Array, doc_id: Int64Array, rows: pa.Table) -> BoolArray:
    """Return which (key, doc_id) have a row; both sides are sorted by them."""
    return merged(key, doc_id, column(rows, "to"), column(rows, "doc_id"))


# ---- 5. twins ----------------------------------------------------------------------------------


def resolve(spec: LeaderSpec) -> Step:
    """The fate of each first, for itself and its copies.

    Retained: its copies are exact duplicates of it, and its keys that no other shares enter the
    index, its content's too. Equal to an old document: all are exact duplicates of that. Else all
    are near-duplicates: each seeks its own best twin, with the best old one as a candidate.
    """
    return _step(_resolve, spec, carry=_carry_own)


def _resolve(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    firsts, copies = of_kind(rows, FIRST), of_kind(rows, COPY)
    retained = column(of_kind(rows, RETAINED), "doc_id")
    exact, best = of_kind(rows, EXACT), of_kind(rows, BEST)
    shared = of_kind(rows, SHARED)

    # Copies of a retained document.
    of = column(copies, "to")
    known = np.isin(of, retained)
    doc_ids = column(copies, "doc_id")[known]
    inside = _duplicates(doc_ids, of[known], np.ones(len(doc_ids)), b"exact")

    # Equal to an old document.
    everyone = pa.concat_tables([firsts, copies])
    of = column(everyone, "to")
    place = find(column(exact, "doc_id"), of)
    doc_ids = column(everyone, "doc_id")[place >= 0]
    twins = column(exact, "other")[place[place >= 0]]
    outside = _duplicates(doc_ids, twins, np.ones(len(doc_ids)), b"exact")

    # The rest was removed as near-duplicates.
    near = everyone.filter(pa.array((place < 0) & ~np.isin(of, retained)))
    place = find(column(best, "doc_id"), column(near, "to"))
    doc_ids = column(near, "doc_id")[place >= 0]
    old = messages(
        doc_ids,
        BEST,
        doc_ids,
        column(best, "other")[place[place >= 0]],
        column(best, "value")[place[place >= 0]],
    )

    kept = firsts.filter(pa.array(np.isin(column(firsts, "doc_id"), retained)))
    return pa.concat_tables(
        [inside, outside, _seek(near, shared, spec), old, _index(kept, shared, spec)]
    )


def _carry_own(rows: pa.Table) -> pa.Table:
    """What is known of the first of a group; the rest are copies."""
    return rows.filter(pc.equal(rows["doc_id"], rows["to"]))


def _seek(near: pa.Table, shared: pa.Table, spec: LeaderSpec) -> pa.Table:
    """SEEK, with signature, to the shared buckets of each document; a copy has its first's."""
    at, which = match_sorted(column(near, "to"), column(shared, "to"))
    _, signatures = _split_payload(near, spec)
    return messages(
        column(shared, "other")[which],
        SEEK,
        column(near, "doc_id")[at],
        payload=_binary_rows(signatures).take(pa.array(at)),
    )


def _index(kept: pa.Table, shared: pa.Table, spec: LeaderSpec) -> pa.Table:
    """INDEX of the content, and of the keys of buckets that no other document is in."""
    content, signatures = _split_payload(kept, spec)
    keys = np.column_stack([band_keys(signatures, spec.minhash), content_keys(content)])
    owner = np.repeat(column(kept, "doc_id"), keys.shape[1])
    flat = keys.reshape(-1)
    order = np.lexsort((flat, owner))
    place = np.lexsort((column(shared, "other"), column(shared, "doc_id")))
    is_shared = merged(
        owner[order], flat[order], column(shared, "doc_id")[place], column(shared, "other")[place]
    )
    alone = order[~is_shared]
    return _indexed(flat[alone], owner[alone], INDEX, spec)


def index_rows(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    """ENTERED -> INDEX to its key range; BEYOND likewise."""
    kinds = column(rows, "kind")
    return pa.concat_tables(
        [
            _indexed(column(own, "to"), column(own, "doc_id"), kind, spec)
            for source, kind in ((ENTERED, INDEX), (BEYOND, BEYOND))
            for own in [rows.filter(pa.array(kinds == source))]
        ]
    )


def _indexed(keys: Int64Array, doc_ids: Int64Array, kind: int, spec: LeaderSpec) -> pa.Table:
    return messages(key_range(keys, spec.index_ranges), kind, doc_ids, other=keys)


def best_in_bucket(spec: LeaderSpec) -> Step:
    """ENTERED + SEEK -> SCORED of the most similar lower retained document of the bucket.

    With `exact`, PAIR for every candidate.
    """
    return _step(_best_in_bucket, spec, carry=_carry_entered)


def _best_in_bucket(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    doc_ids, seeking = column(rows, "doc_id"), column(rows, "kind") == SEEK
    one, other, value = candidates(
        column(rows, "to"),
        seeking,
        signature_matrix(rows["payload"], spec.minhash),
        spec.floor,
        not spec.is_exact,
    )
    return _pairs_or_scores(doc_ids[one], doc_ids[other], value, spec)


def choose(spec: LeaderSpec) -> Step:
    """SCORED of all buckets and BEST of the old dumps -> one near DUPLICATE."""
    return _step(_choose, spec)


def _choose(rows: pa.Table, spec: LeaderSpec) -> pa.Table:
    best = best_of(pa.concat_tables([of_kind(rows, BEST), _near(of_kind(rows, SCORED), spec)]))
    return _duplicates(
        column(best, "doc_id"), column(best, "other"), column(best, "value"), b"near"
    )


# ---- pieces of the steps -----------------------------------------------------------------------


def best_of(best: pa.Table) -> pa.Table:
    """Return one row a document: highest value, ties to the lowest other."""
    best = best.sort_by([("doc_id", "ascending"), ("value", "descending"), ("other", "ascending")])
    _, at = np.unique(column(best, "doc_id"), return_index=True)
    return best.take(pa.array(at))


def _duplicates(
    doc_ids: Int64Array, twins: Int64Array, value: Float64Array, kind: bytes
) -> pa.Table:
    payload = pa.array([kind], pa.binary()).take(pa.array(np.zeros(len(doc_ids), np.int64)))
    return messages(doc_ids, DUPLICATE, doc_ids, twins, value, payload)


def _content_and_signature(stored: pa.Table) -> pa.Array:
    joined = pc.binary_join_element_wise(
        stored["content_hash"].cast(pa.binary()), stored["signature"], b""
    )
    return one_chunk(joined)


def _split_payload(rows: pa.Table, spec: LeaderSpec) -> tuple[UInt8Array, UInt32Array]:
    """Return content hashes (n, 16) and signatures (n, num_perm) of payloads."""
    values, width = rows["payload"], spec.minhash.num_signature_bytes
    signatures = _matrix(values, CONTENT_HASH_BYTES, width).view("<u4")
    return _matrix(values, 0, CONTENT_HASH_BYTES), signatures


def _content_halves(rows: pa.Table) -> UInt64Array:
    return _matrix(rows["payload"], 0, CONTENT_HASH_BYTES).view("<u8").reshape(-1, 2)


def _matrix(values: Any, skip: int, width: int) -> UInt8Array:
    """Return `width` bytes of every value of a binary column, after `skip`, as a matrix."""
    values = one_chunk(values)
    if pa.types.is_fixed_size_binary(values.type):
        values = values.cast(pa.binary())
    data, offsets = utf8_buffers(values)
    if np.any(np.diff(offsets) < skip + width):
        raise AssertionError(f"a payload is shorter than {skip + width} bytes")
    return cut_out(data, offsets, skip, width)


def _binary_rows(matrix: UInt32Array) -> pa.Array:
    """Return the rows of a matrix as binary values."""
    width = matrix.shape[1] * matrix.itemsize
    offsets = np.arange(len(matrix) + 1, dtype=np.int64) * width
    data = pa.py_buffer(np.ascontiguousarray(matrix))
    return pa.Array.from_buffers(
        pa.binary(), len(matrix), [None, pa.py_buffer(offsets.astype(np.int32)), data]
    )


def _by(rows: pa.Table, name: str) -> list[tuple[int, pa.Table]]:
    """Return the groups of a column by which the rows are sorted."""
    names, starts = np.unique(column(rows, name), return_index=True)
    ends = np.append(starts[1:], rows.num_rows)
    return [
        (int(value), rows.slice(start, end - start))
        for value, start, end in zip(names, starts, ends, strict=True)
    ]


def _all_of(stored: pa.Table, wanted: Int64Array) -> pa.Table:
    if not np.array_equal(column(stored, "doc_id"), wanted):
        raise AssertionError("the index names a document that has no signature")
    return stored
