"""Which retained documents are near a text, from the index of a lake alone. Needs no Spark."""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.dedup import minhash
from curation.dedup.lsh import band_keys, content_keys, jaccard, signature_matrix
from curation.dedup.messages import Tally
from curation.dedup.minhash import MinHashSpec, fingerprint, shingle_hashes
from curation.dedup.steps import hash_arrays, key_range
from curation.engine.index import LakeStore, open_store
from curation.engine.lake import FileEntry, Lake
from curation.errors import InputInvalid, InputMissing, LakeVersion, NotCommitted, NotFound
from curation.identity import origin


@dataclass(frozen=True)
class Hit:
    """A retained document that shares a bucket with the text, or its content."""

    doc_id: int
    dump: str
    url: str
    kind: str  # exact, near (at the threshold or above), candidate
    similarity: float  # the share of equal slots
    jaccard: float | None  # of the shingles, where the lake stores them


@dataclass(frozen=True)
class Capture:
    """A document of the lake that was asked for by its URL, and its twin if it was removed."""

    doc_id: int
    dump: str
    twin_id: int | None
    hits: Sequence[Hit]


def query(
    lake: Lake, text: str, *, limit: int | None = 10, min_similarity: float = 0.0
) -> list[Hit]:
    """Return the retained documents near a text, the most similar first, ties in crawl order.

    A document of similarity s is found with probability 1 - (1 - s^rows)^bands: with 14 bands of 8
    rows 0.92 at 0.8 and 0.9999 at 0.95. Raises InputInvalid for a text without words, NotCommitted
    or LakeVersion where the index is missing or not of one kind. Cost: for each dump one row group
    of the index a band, and the row groups of the signatures of what they name.
    """
    with _Index(lake) as index:
        prints = fingerprint(pa.array([text], pa.string()), index.spec)
        if prints.field("signature").null_count:
            raise InputInvalid("the text has no words, so nothing is like it; give some text")
        hashes = shingle_hashes(pa.array([text], pa.string()), index.spec)
        own = np.asarray(hashes.values).view(np.uint64)
        hits = index.near(prints.field("content_hash"), prints.field("signature"), own)
    return _chosen(hits, limit, min_similarity)


def query_url(
    lake: Lake, url: str, *, limit: int | None = 10, min_similarity: float = 0.0
) -> list[Capture]:
    """Return every capture of a URL, and the other retained documents near it.

    Raises NotFound for a URL that is not in the lake, and as `query` does. Cost: that of `query`
    for each capture, and a scan of the column url of documents.
    """
    documents = lake.table("documents").to_table(["doc_id"], filter=pc.field("url") == url)
    ids = sorted(documents["doc_id"].to_pylist())
    if not ids:
        raise NotFound(
            f"{url!r} is not among the documents of the lake {lake.path}; give the URL exactly as "
            "it was crawled, or ask `curation why` whether it was rejected at ingest"
        )
    captures = []
    with _Index(lake) as index:
        for doc_id in ids:
            dump = lake.dump_at(origin(doc_id).dump)
            if dump not in index.dumps:
                continue
            twin = lake.table("duplicates", dump=dump).to_table(
                ["twin_id"], filter=pc.field("doc_id") == doc_id
            )
            twin_id = twin["twin_id"][0].as_py() if twin.num_rows else None
            hits = [hit for hit in index.near_document(doc_id) if hit.doc_id != doc_id]
            captures.append(Capture(doc_id, dump, twin_id, _chosen(hits, limit, min_similarity)))
    if not captures:
        raise NotCommitted(f"{url!r} is in no dump whose dedup has run; run: curation run CONFIG")
    return captures


def read_text(path: Path) -> str:
    """Return the text of a file; raises InputMissing or InputInvalid."""
    try:
        return (sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()).decode()
    except FileNotFoundError:
        raise InputMissing(
            f"there is no file {path}; name a file of text, or - for input"
        ) from None
    except UnicodeDecodeError as error:
        raise InputInvalid(
            f"{path} is not UTF-8 (byte {error.start}); convert it, or give extracted text"
        ) from None


class _Index:
    """The index runs of all dumps that are deduplicated, and what they were made with."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        records = lake.records("dedup")
        if not records:
            raise NotCommitted(
                f"the lake {lake.path} has no index yet; run: curation run CONFIG --to dedup"
            )
        self.dumps = [record.dump for record in records]
        self.num_ranges = _one_of({r.dump: r.settings["index_ranges"] for r in records})
        self.threshold = max(float(r.settings["threshold"]) for r in records)
        signed = [r for r in lake.records("fingerprint") if r.dump in self.dumps]
        self.spec = _spec({record.dump: record.settings for record in signed})
        self._folder = tempfile.TemporaryDirectory(prefix="curation-query-")
        self.store: LakeStore

    def __enter__(self) -> "_Index":
        folder = Path(self._folder.name)
        self.store = open_store(self.lake, self.dumps, self.dumps, folder, Tally())
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def near_document(self, doc_id: int) -> list[Hit]:
        """Return the hits of a stored document."""
        ids = np.array([doc_id])
        file = int(self.store.file_of(ids)[0])
        stored = self.store.signatures(file, ids)
        own = None
        if self.store.has_shingles:
            own, _ = hash_arrays(self.store.shingles(file, ids)["hashes"])
        content, signature = (
            stored[name].combine_chunks() for name in ("content_hash", "signature")
        )
        return self.near(content, signature, own)

    def near(self, content_hash: Any, signature: Any, own: Any) -> list[Hit]:
        """Return the hits of one content hash, signature and set of shingles."""
        matrix = signature_matrix(signature, self.spec)
        content = np.frombuffer(content_hash[0].as_py(), np.uint8).reshape(1, -1)
        keys = np.append(band_keys(matrix, self.spec)[0], content_keys(content))
        found = [np.empty(0, np.int64)]
        parts = key_range(keys, self.num_ranges)
        for part in np.unique(parts).tolist():
            index = self.store.index(part, np.unique(keys[parts == part]))
            found.append(index["doc_id"].to_numpy())
        ids = np.unique(np.concatenate(found))
        hits: list[Hit] = []
        files = self.store.file_of(ids)
        for file in np.unique(files).tolist():
            hits += self._compare(file, ids[files == file], content_hash, matrix[0], own)
        return hits

    def _compare(
        self, file: int, ids: Any, content_hash: Any, signature: Any, own: Any
    ) -> list[Hit]:
        stored = self.store.signatures(file, ids)
        values = (signature_matrix(stored["signature"], self.spec) == signature).mean(axis=1)
        exact: list[float | None] = [None] * len(ids)
        if self.store.has_shingles and own is not None:
            hashes, offsets = hash_arrays(self.store.shingles(file, ids)["hashes"])
            exact = [jaccard(hashes[begin:end], own) for begin, end in pairwise(offsets)]
        dump = self.lake.dump_at(origin(int(ids[0])).dump)
        urls = self._urls(dump, ids)
        hits = []
        for i, content in enumerate(stored["content_hash"]):
            value = float(values[i])
            kind = "near" if value >= self.threshold else "candidate"
            if content == content_hash[0]:
                kind = "exact"
            doc_id = int(ids[i])
            hits.append(Hit(doc_id, dump, urls[doc_id], kind, value, exact[i]))
        return hits

    def _urls(self, dump: str, ids: Any) -> dict[int, str]:
        """Return the URLs of some documents of a file: of its row groups those that hold one."""
        found: dict[int, str] = {}
        for entry in self._documents(dump):
            first, last = entry.id_range()
            if not ((ids >= first) & (ids <= last)).any():
                continue
            rows = pq.read_table(
                self.lake.path / entry.path,
                columns=["doc_id", "url"],
                filters=pc.field("doc_id").isin(pa.array(ids)),
                partitioning=None,
            )
            found |= dict(zip(rows["doc_id"].to_pylist(), rows["url"].to_pylist(), strict=True))
        return found

    def _documents(self, dump: str) -> list[FileEntry]:
        return [e for r in self.lake.records("ingest", dump) for e in r.files_of("documents")]


def _spec(settings: Mapping[str, Mapping[str, Any]]) -> MinHashSpec:
    """Return what the signatures of all dumps were made with; raises LakeVersion."""
    made = _one_of({dump: json.dumps(each, sort_keys=True) for dump, each in settings.items()})
    values = json.loads(made)
    if values["format"] != minhash.FORMAT_VERSION:
        raise LakeVersion(
            f"the index has format {values['format']}, this program makes signatures of format "
            f"{minhash.FORMAT_VERSION}; ask with the program that wrote it, or run dedup again"
        )
    return MinHashSpec(values["bands"], values["rows"], values["ngram"], values["seed"])


def _one_of(made: Mapping[str, Any]) -> Any:
    """Return the one value of all dumps."""
    (first, value), *others = made.items()
    for dump, other in others:
        if other != value:
            raise LakeVersion(
                f"the indexes of dumps {first} and {dump} were made with other settings: {value} "
                f"and {other}; bring the lake up to date with curation run CONFIG --to dedup"
            )
    return value


def _chosen(hits: list[Hit], limit: int | None, min_similarity: float) -> list[Hit]:
    wanted = [hit for hit in hits if hit.similarity >= min_similarity]
    wanted.sort(key=lambda hit: (hit.kind != "exact", -hit.similarity, hit.doc_id))
    return wanted[:limit]
