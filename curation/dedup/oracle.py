"""Which documents are duplicates: the specification, one greedy pass in plain Python.

`curation.dedup.leader` gives the same answer from any number of parts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from curation.dedup.minhash import MinHashSpec
from curation.identity import origin

CANDIDATE_MARGIN = 0.2
"""With verify = "exact", pairs estimated this far below the threshold are measured.

The standard error of an estimate from 112 slots at 0.8 is 0.038: five of them.
"""


@dataclass(frozen=True)
class LeaderSpec:
    """What decides: the signature, the threshold, how it is verified, and the cap of a bucket.

    `index_ranges` cuts the index in files; `max_rounds` and `prefix_documents` choose between two
    ways to the same answer.
    """

    minhash: MinHashSpec = MinHashSpec()
    threshold: float = 0.8
    verify: str = "signature"
    bucket_cap: int = 256
    index_ranges: int = 16
    max_rounds: int = 3
    prefix_documents: int = 1_000_000

    @property
    def is_exact(self) -> bool:
        """Whether the shingles decide, not the signature's estimate."""
        return self.verify == "exact"

    @property
    def floor(self) -> float:
        """The lowest estimate of a pair that is considered."""
        return self.threshold - CANDIDATE_MARGIN if self.is_exact else self.threshold


class Document(NamedTuple):
    """A document as the oracle sees it; `shingles` are needed where they decide."""

    doc_id: int
    content_hash: bytes
    signature: npt.NDArray[np.uint32]
    shingles: frozenset[int] = frozenset()


class Verdict(NamedTuple):
    """Why a document was removed."""

    kind: str
    twin_id: int
    similarity: float


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
                (-similarity(document, d, spec), d.doc_id)
                for d in candidates.values()
                if origin(d.doc_id).dump in dumps
                and estimate(document.signature, d.signature) >= spec.floor
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


def similarity(left: Document, right: Document, spec: LeaderSpec) -> float:
    """Return what decides: the estimate, or the Jaccard similarity of the shingles."""
    if not spec.is_exact:
        return estimate(left.signature, right.signature)
    return len(left.shingles & right.shingles) / len(left.shingles | right.shingles)


def estimate(left: npt.NDArray[np.uint32], right: npt.NDArray[np.uint32]) -> float:
    """Return the share of equal slots: an estimate of Jaccard (standard error 0.04 at 0.8)."""
    return int(np.count_nonzero(left == right)) / len(left)
