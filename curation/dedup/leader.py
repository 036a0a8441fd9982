"""The greedy leader pass from any number of parts: the answer of `curation.dedup.oracle`.

Rows travel as messages to a bucket (by key), a document (by id) or a file, and at each stop a step
of `curation.dedup.steps` turns the messages of a part into new ones. Signatures travel only where
documents share a bucket, shingles only where a pair is a candidate, text never. What carries the
messages is a `Cluster`: Spark, or `Parts` for small dumps and for tests without a JVM.

Summary of `deduplicate`, for one dump against those before it:
  1. Equal documents gather; the first of them goes on, its copies wait for its fate.
  2. The first ones meet the index of earlier dumps; who is similar to a retained document leaves.
  3. Who shares no bucket is retained. While more are undecided than one task can solve, and at most
     `max_rounds` times: a document that is the lowest undecided one in all its buckets is retained;
     what is similar to it leaves.
  4. Until none is undecided: the lowest undecided documents go to one task, which runs the loop of
     the oracle on them; what it retains removes similar ones from the rest. A round follows each
     time: in the buckets that are full now, none waits for a lower one any more.
  5. Every removed document finds its best retained twin among those lower than itself.
Sound, because a document is decided only when every lower document in its buckets is decided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from curation.dedup import steps
from curation.dedup.messages import (
    ACTIVE,
    BEST,
    BEYOND,
    BLOCK_BITS,
    DUPLICATE,
    ENTERED,
    EXACT,
    FIRST,
    FULL,
    GONE,
    INDEX,
    PAIR,
    RETAINED,
    SEEK,
    UNDECIDED,
    WANTED,
    Cluster,
    Rows,
)
from curation.dedup.oracle import LeaderSpec
from curation.dedup.steps import Store


@dataclass(frozen=True)
class Outcome:
    """What `deduplicate` returns."""

    duplicates: Sequence[Rows]  # DUPLICATE: doc_id, other: twin, value: similarity, payload: kind
    index: Sequence[Rows]  # INDEX, and BEYOND a full bucket: to: key range, other: key, doc_id
    num_retained: int
    num_rounds: int
    num_solves: int


def deduplicate(
    cluster: Cluster, signatures: Rows, spec: LeaderSpec, store: Store, *, has_earlier: bool
) -> Outcome:
    """Decide every document of one dump against itself and the earlier dumps in scope.

    `signatures` has doc_id, content_hash, signature, num_shingles. `store` reads those of the dump
    too where `spec` verifies exactly. Cost: a few slim rows for each document and band, a few
    signatures for each document that shares a bucket, and at most bucket_cap comparisons for a
    document and bucket.
    """
    verify = partial(_verify, cluster, spec, store)

    # 1. Equal documents gather.
    arrived = cluster.map(partial(steps.by_content, spec=spec), signatures)
    gathered = cluster.save(cluster.exchange(steps.gather(), arrived))
    firsts = cluster.select(gathered, [FIRST])

    # 2. Earlier dumps.
    old_best: list[Rows] = []
    if has_earlier:
        probes = cluster.map(partial(steps.probe, spec=spec), firsts)
        pairs = cluster.exchange(steps.lookup(store), probes)
        fetched = cluster.exchange(steps.fetch(store), pairs)
        judged = cluster.save(cluster.exchange(steps.judge(spec), firsts, fetched))
        if spec.is_exact:
            scored = verify(cluster.select(judged, [PAIR]))
            stay = cluster.select(judged, [FIRST, EXACT])
            judged = cluster.save(cluster.exchange(steps.accept(spec), stay, scored))
        old_best = [cluster.select(judged, [BEST, EXACT])]
        firsts = cluster.select(judged, [FIRST, GONE])

    # 3. Who shares a bucket.
    knocks = cluster.map(partial(steps.knock, spec=spec), firsts)
    shared = cluster.save(cluster.exchange(steps.meet(), knocks))
    firsts = cluster.select(firsts, [FIRST])
    entered = cluster.save(cluster.exchange(steps.enter(spec), firsts, shared))
    retained = [cluster.select(entered, [RETAINED])]
    active = cluster.select(entered, [ACTIVE])
    state = cluster.select(entered, [UNDECIDED])
    beyond: list[Rows] = []

    # 3. and 4. Rounds, then solves of the lowest documents.
    num_rounds = num_solves = 0
    solved = False
    while undecided := cluster.sum_by_block(state, UNDECIDED):
        bound = _prefix_bound(undecided, spec)
        is_last = bound > max(undecided) << BLOCK_BITS
        if not is_last and (num_rounds < spec.max_rounds or solved):
            solved = False
            num_rounds += 1
            votes = cluster.exchange(steps.vote(spec), state)
            decided = cluster.exchange(steps.elect(), votes)
        else:
            solved = True
            num_solves += 1
            decided = _solve(cluster, spec, store, state, active, bound)
        decided = cluster.save(decided)
        removed: list[Rows] = []
        if not is_last:
            awake = cluster.exchange(steps.wake(spec), state, decided)
            dressed = cluster.exchange(steps.dress(), active, awake)
            standing = cluster.select(state, [ENTERED])
            similar = cluster.exchange(steps.compare(spec), dressed, standing, decided)
            removed = [cluster.exchange(steps.spread(spec), shared, verify(similar))]
        after = cluster.save(cluster.exchange(steps.advance(spec), state, decided, *removed))
        retained.append(cluster.select(after, [RETAINED]))
        beyond.append(cluster.select(after, [BEYOND]))
        state = cluster.select(after, [UNDECIDED, ENTERED])

    # 5. Twins.
    fates = cluster.save(
        cluster.exchange(steps.resolve(spec), gathered, shared, *retained, *old_best)
    )
    standing = cluster.exchange(
        steps.dress(), active, cluster.map(steps.to_documents, cluster.select(state, [ENTERED]))
    )
    seeking = cluster.select(fates, [SEEK])
    near = verify(cluster.exchange(steps.best_in_bucket(spec), standing, seeking))
    chosen = cluster.exchange(steps.choose(spec), cluster.select(fates, [BEST]), near)
    to_index = [cluster.map(partial(steps.index_rows, spec=spec), r) for r in (state, *beyond)]
    return Outcome(
        duplicates=(cluster.select(fates, [DUPLICATE]), chosen),
        index=(cluster.select(fates, [INDEX]), *to_index),
        num_retained=sum(
            int(n) for rows in retained for n in cluster.sum_by_block(rows, RETAINED).values()
        ),
        num_rounds=num_rounds,
        num_solves=num_solves,
    )


def _verify(cluster: Cluster, spec: LeaderSpec, store: Store, pairs: Rows) -> Rows:
    """Return candidates as SCORED: they are already, unless shingles decide."""
    if not spec.is_exact:
        return pairs
    addressed = cluster.map(partial(steps.to_files, store=store), pairs)
    sent = cluster.exchange(steps.send_hashes(store), addressed)
    return cluster.exchange(steps.score(store), sent)


def _solve(
    cluster: Cluster, spec: LeaderSpec, store: Store, state: Rows, active: Rows, bound: int
) -> Rows:
    """Return LEADER and REMOVED of the undecided documents below the bound."""
    called = cluster.save(cluster.exchange(steps.members(bound), state))
    enrolled = cluster.exchange(steps.enroll(), active, cluster.select(called, [WANTED]))
    if spec.is_exact:
        enrolled = cluster.exchange(
            steps.equip(store), cluster.map(partial(steps.at_files, store=store), enrolled)
        )
    return cluster.exchange(steps.solve(spec), enrolled, cluster.select(called, [FULL]))


def _prefix_bound(undecided: Mapping[int, float], spec: LeaderSpec) -> int:
    """Return the doc_id below which at most `prefix_documents` are undecided; at least a block."""
    total = 0.0
    bound = 0
    for block in sorted(undecided):
        total += undecided[block]
        if bound and total > spec.prefix_documents:
            break
        bound = (block + 1) << BLOCK_BITS
    return bound
