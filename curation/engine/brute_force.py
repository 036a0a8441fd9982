"""How good the dedup was: every pair of documents compared exactly, for lakes small enough.

The stage finds candidates by LSH and judges them by an estimate, so it misses some pairs and takes
some wrong ones. Here the similarity is the exact Jaccard of two documents' sets of shingles (the
64-bit hashes that `curation.dedup.minhash.shingle_hashes` gives), and no pair is left out.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curation.config import Config
from curation.dedup.lsh import jaccard
from curation.dedup.minhash import MinHashSpec, shingle_hashes
from curation.engine.lake import Lake
from curation.engine.stages import dumps_in_scope
from curation.errors import LakeCorrupt
from curation.identity import first_doc_id

BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A document, a lower retained one, and their exact Jaccard similarity."""

    doc_id: int
    twin_id: int
    similarity: float


@dataclass(frozen=True)
class BruteForce:
    """What the dedup decided, held against exact similarities.

    `wrong` are removed documents below the threshold to the twin they name. `missed` are retained
    documents at or above it to a lower retained one in scope, paired with the most similar such.
    """

    dumps: tuple[str, ...]
    threshold: float
    num_documents: int
    num_removed: int
    num_found: int  # removed, and some lower retained one in scope is at or above the threshold
    num_near: int
    wrong: tuple[Pair, ...]
    missed: tuple[Pair, ...]
    mean_absolute_error: float | None  # of the estimates of near duplicates; None without any

    @property
    def precision(self) -> float | None:
        """Share of removed documents at or above the threshold to their twin; None if none."""
        if self.num_removed == 0:
            return None
        return 1 - len(self.wrong) / self.num_removed

    @property
    def recall(self) -> float | None:
        """Share found of the documents that have a lower retained twin; None if none has one."""
        num_with_twin = self.num_found + len(self.missed)
        return self.num_found / num_with_twin if num_with_twin else None


def measure(lake: Lake, config: Config, max_documents: int = 5000) -> BruteForce | None:
    """Compare every document with all lower retained ones in scope, exactly.

    Covers the dumps whose dedup is up to date with their documents. Returns None when they hold
    more than `max_documents`. Raises LakeCorrupt when a duplicate is no document. Cost: memory for
    the text of a dump and 8 bytes a shingle; time grows with the square of the documents and with
    how many share a shingle: 880 pages take 0.2 s.
    """
    dumps = _deduplicated(lake, config)
    counts = [lake.records("dedup", dump)[0].rows["in"] for dump in dumps]
    if sum(counts) > max_documents:
        return None
    ids, hashes, offsets, scope_ids = _shingles(lake, config, dumps)
    threshold = config.dedup.threshold

    twins = lake.table("duplicates").to_table(
        filter=pc.field("dump").isin(pa.array(dumps, pa.string()))
    )
    removed = _places(lake, ids, twins["doc_id"].to_numpy())
    named = _places(lake, ids, twins["twin_id"].to_numpy())
    retained = np.ones(len(ids), np.bool_)
    retained[removed] = False

    _, shingles = np.unique(hashes, return_inverse=True)
    first_in_scope = np.searchsorted(ids, scope_ids)
    best, best_at = _most_similar(shingles, offsets, retained, first_in_scope)
    exact = _jaccard_of_pairs(hashes, offsets, removed, named)

    def pairs(places: Int64Array, others: Int64Array, similarity: Float64Array) -> tuple[Pair, ...]:
        columns = (ids[places].tolist(), ids[others].tolist(), similarity.tolist())
        return tuple(Pair(*row) for row in zip(*columns, strict=True))

    has_twin = (best_at >= 0) & (best >= threshold)
    wrong = exact < threshold
    missed = np.flatnonzero(retained & has_twin)
    near = np.array(twins["kind"].to_pylist(), dtype=object) == "near"
    errors = np.abs(twins["similarity"].to_numpy() - exact)[near]
    return BruteForce(
        dumps=tuple(dumps),
        threshold=threshold,
        num_documents=len(ids),
        num_removed=len(removed),
        num_found=int(np.count_nonzero(has_twin & ~retained)),
        num_near=len(errors),
        wrong=pairs(removed[wrong], named[wrong], exact[wrong]),
        missed=pairs(missed, best_at[missed], best[missed]),
        mean_absolute_error=float(errors.mean()) if len(errors) else None,
    )


def _deduplicated(lake: Lake, config: Config) -> list[str]:
    """Return the dumps with a dedup that is not outdated, and so have the dumps in their scope."""
    current = {record.dump for record in lake.records("dedup")}
    dumps: list[str] = []
    for dump in config.dumps:
        if dump.name in current and set(dumps_in_scope(config, dump.name)) <= set(dumps):
            dumps.append(dump.name)
    return dumps


def _shingles(
    lake: Lake, config: Config, dumps: list[str]
) -> tuple[Int64Array, UInt64Array, Int64Array, Int64Array]:
    """Return ids in order, all shingle hashes, offsets into them, and the first id in scope.

    The scope of a document is a run of dumps that ends with its own, and ids sort by dump: so it
    is all ids from the first one in scope up to its own.
    """
    settings = config.fingerprint
    spec = MinHashSpec(settings.bands, settings.rows, settings.ngram, settings.seed)
    ids, counts, scope_ids = ([np.empty(0, np.int64)] for _ in range(3))
    hashes = [np.empty(0, np.uint64)]
    for dump in dumps:
        documents = lake.table("documents", dump=dump).to_table(columns=["doc_id", "text"])
        documents = documents.sort_by("doc_id")
        sets = shingle_hashes(documents["text"].combine_chunks(), spec)
        own = documents["doc_id"].to_numpy()
        in_scope = [*dumps_in_scope(config, dump), dump]
        first = first_doc_id(config.dump_ordinal(in_scope[0]), 0)
        ids.append(own)
        hashes.append(sets.values.to_numpy().view(np.uint64))  # they are sorted without sign
        counts.append(np.diff(sets.offsets.to_numpy()).astype(np.int64))
        scope_ids.append(np.full(len(own), first))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))])
    return np.concatenate(ids), np.concatenate(hashes), offsets, np.concatenate(scope_ids)


def _places(lake: Lake, ids: Int64Array, wanted: Int64Array) -> Int64Array:
    lost = wanted[~np.isin(wanted, ids)]
    if len(lost):
        raise LakeCorrupt(
            f"table duplicates of {lake.path} names doc_id {lost[0]}, which is not in documents; "
            "delete the run records of dedup, and the next run does it again"
        )
    return np.searchsorted(ids, wanted)


@njit(cache=True, nogil=True)
def _most_similar(
    shingles: Int64Array, offsets: Int64Array, retained: BoolArray, first_in_scope: Int64Array
) -> tuple[Float64Array, Int64Array]:
    """Return for each document the highest similarity to a lower retained one, and which; or -1.

    An inverted index of the retained documents grows as the loop goes up; it counts the common
    shingles of a document with all lower ones at once. Of equals, the lowest is named.
    """
    num_documents = len(retained)
    num_shingles = 0 if len(shingles) == 0 else shingles.max() + 1
    starts = np.zeros(num_shingles + 1, np.int64)
    for i in range(num_documents):
        if retained[i]:
            for k in range(offsets[i], offsets[i + 1]):
                starts[shingles[k] + 1] += 1
    starts = np.cumsum(starts)
    ends = starts[:-1].copy()  # of what is in the index so far
    index = np.empty(starts[-1], np.int64)
    num_common = np.zeros(num_documents, np.int64)
    best = np.full(num_documents, -1.0)
    best_at = np.full(num_documents, -1)
    for i in range(num_documents):
        for k in range(offsets[i], offsets[i + 1]):
            for place in range(starts[shingles[k]], ends[shingles[k]]):
                num_common[index[place]] += 1
        size = offsets[i + 1] - offsets[i]
        for j in range(first_in_scope[i], i):
            if retained[j]:
                union = size + offsets[j + 1] - offsets[j] - num_common[j]
                similarity = num_common[j] / union if union else 0.0
                if similarity > best[i]:
                    best[i], best_at[i] = similarity, j
        num_common[:i] = 0
        if retained[i]:
            for k in range(offsets[i], offsets[i + 1]):
                index[ends[shingles[k]]] = i
                ends[shingles[k]] += 1
    return best, best_at


@njit(cache=True, nogil=True)
def _jaccard_of_pairs(
    hashes: UInt64Array, offsets: Int64Array, left: Int64Array, right: Int64Array
) -> Float64Array:
    similarity = np.empty(len(left), np.float64)
    for pair in range(len(left)):
        i, j = left[pair], right[pair]
        similarity[pair] = jaccard(
            hashes[offsets[i] : offsets[i + 1]], hashes[offsets[j] : offsets[j + 1]]
        )
    return similarity
