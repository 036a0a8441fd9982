"""The report's samples: texts that were kept and that were rejected, by reason, with their edits.

Which documents are shown follows from a hash of their ids. Of a large lake some files are looked
through, chosen by a hash too, so that the cost does not grow with the lake.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.engine.lake import FileEntry, Lake
from curation.engine.ledger import documents_of, rows_of
from curation.engine.pictures import rounded
from curation.engine.stages import STAGES
from curation.engine.tasks import Part, scan
from curation.identity import origin
from curation.quality.edits import in_force
from curation.schemas import EDITS

MAX_SAMPLED_ROWS = 200_000  # of a stage's rejects, of duplicates and of kept documents: 40 MB each
BATCH_ROWS = 20_000
MAX_GROUPS = 24  # reasons, and domains, that have texts shown
NUM_EACH = 2  # texts of a reason or domain
EXCERPT_BYTES = 600  # from the start of a text
AROUND_BYTES = 80  # before and after an edit further down
MAX_EDITS = 3  # that are shown wherever they are in the text
MAX_CUT_CHARS = 240  # of a cut that are shown
REASON_COLUMNS = ("url", "value", "threshold")
EDITING = ("lines", "annotate", "filter", "decontaminate")  # stages, in their order
LABELS = ("lang", "perplexity_bucket", "quality_score")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Segment:
    """A piece of a text: text, cut (removed by an edit), put (in its place), gap (left out)."""

    kind: str
    text: str


@dataclass(frozen=True)
class Sample:
    """A document that is shown."""

    doc_id: int
    dump: str
    url: str
    title: str
    lang: str
    note: str  # the value and bound of the rule, the twin, or labels
    segments: Sequence[Segment]


@dataclass(frozen=True)
class Group:
    """Samples of one reason, or of one domain of kept documents."""

    stage: str  # empty: kept
    name: str
    num_documents: int
    samples: Sequence[Sample]


Chosen = Mapping[str, Sequence[Mapping[str, Any]]]  # by rule, kind or domain


def rejected(lake: Lake, stage: str) -> Chosen:
    """Return some rejects of a stage by rule: all columns of the ledger that say why.

    Cost: these columns of at most 220,000 rows.
    """
    if stage == "dedup":
        return _chosen(lake, "dedup", "duplicates", "kind", ("twin_id", "similarity"))
    return _chosen(lake, stage, "rejects", "rule", REASON_COLUMNS)


def rejected_texts(
    lake: Lake, counted: Mapping[str, Counter[str]], chosen: Mapping[str, Chosen]
) -> list[Group]:
    """Return texts of the chosen rejects, the stages in their order, the largest reasons first.

    What ingest rejects has no text in the lake. Cost: the row groups that hold the texts shown.
    """
    reasons = [
        (count, stage, rule)
        for stage, rules in counted.items()
        for rule, count in rules.items()
        if stage != "ingest" and chosen[stage].get(rule)
    ]
    largest = sorted(reasons, key=lambda reason: (-reason[0], *reason[1:]))[:MAX_GROUPS]
    rows = {(stage, rule): chosen[stage][rule] for _, stage, rule in largest}
    twins = [row["twin_id"] for some in rows.values() for row in some if "twin_id" in row]
    urls = documents_of(lake, twins, ["url"])
    texts = _texts(lake, [row["doc_id"] for some in rows.values() for row in some])
    groups = []
    for count, stage, rule in largest:
        samples = [
            _sample(lake, texts[row["doc_id"]], _why(row, urls))
            for row in rows[stage, rule]
            if row["doc_id"] in texts
        ]
        if samples:
            groups.append(Group(stage, rule, count, samples))
    order = list(STAGES)
    return sorted(groups, key=lambda group: (order.index(group.stage), -group.num_documents))


def kept_texts(lake: Lake, domains: Mapping[str, int]) -> list[Group]:
    """Return texts of kept documents by domain; `domains` has how many filter kept of each."""
    chosen = _chosen(lake, "filter", "kept", "domain", LABELS)
    largest = sorted(domains, key=lambda name: (-domains[name], name))[:MAX_GROUPS]
    rows = {name: chosen[name] for name in largest if name in chosen}
    ids = [row["doc_id"] for some in rows.values() for row in some]
    gone = {
        doc_id
        for table in rows_of(lake, "decontaminate", "rejects", ids, [])
        for doc_id in table["doc_id"].to_pylist()
    }
    texts = _texts(lake, [doc_id for doc_id in ids if doc_id not in gone])
    groups = []
    for name, some in rows.items():
        found = [(texts[row["doc_id"]], row) for row in some if row["doc_id"] in texts]
        if found:
            samples = [_sample(lake, text, _labels(row)) for text, row in found]
            groups.append(Group("", name, domains[name], samples))
    return groups


def segments(text: str, edits: Sequence[tuple[int, int, str]]) -> list[Segment]:
    """Return the start of a text and its first edits with what is around them.

    `edits` are start and end in bytes and the replacement, ascending.
    """
    data = text.encode()
    windows = [(0, min(EXCERPT_BYTES, len(data)))]
    for start, end, _ in edits[:MAX_EDITS]:
        low, high = max(start - AROUND_BYTES, 0), min(end + AROUND_BYTES, len(data))
        if low <= windows[-1][1]:
            windows[-1] = windows[-1][0], max(windows[-1][1], high)
        else:
            windows.append((low, high))
    found, shown = [], 0
    for low, high in windows:
        if low > shown:
            found.append(Segment("gap", ""))
        at = max(low, shown)
        for start, end, replacement in edits:
            if at <= start < high or start == high == len(data):
                found += [
                    Segment("text", _readable(data[at:start])),
                    Segment("cut", _shortened(_readable(data[start:end]))),
                    Segment("put", _readable(replacement.encode())),
                ]
                at = end
        found.append(Segment("text", _readable(data[at:high])))
        shown = max(at, high)
    if shown < len(data):
        found.append(Segment("gap", ""))
    return [segment for segment in found if segment.text or segment.kind == "gap"]


def _readable(data: bytes) -> str:
    """Decode a piece of UTF-8, which may be cut inside a character; controls become marks."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", data.decode(errors="ignore"))


def _shortened(text: str) -> str:
    half = MAX_CUT_CHARS // 2
    return text if len(text) <= MAX_CUT_CHARS else f"{text[:half]} [...] {text[-half:]}"


# ---- choosing ----------------------------------------------------------------------------------


def _chosen(lake: Lake, stage: str, table: str, by: str, columns: Sequence[str]) -> Chosen:
    """Return the rows of lowest hash by the values of a column."""
    entries = [entry for record in lake.records(stage) for entry in record.files_of(table)]
    entries.sort(key=_order)
    read, num_rows = [], 0
    some = Part(0, {table: entries})
    for batch in scan(some, table, ["doc_id", by, *columns], str(lake.path), BATCH_ROWS):
        read.append(batch)
        num_rows += batch.num_rows
        if num_rows >= MAX_SAMPLED_ROWS:
            break
    if not num_rows:
        return {}
    rows = pa.concat_tables(read)
    names = rows[by].combine_chunks().dictionary_encode()
    codes = np.asarray(names.indices.fill_null(-1))
    order = np.lexsort((_mixed(rows["doc_id"].to_numpy()), codes))
    found, first = np.unique(codes[order], return_index=True)
    ends = [*first[1:].tolist(), len(order)]
    return {
        names.dictionary[code].as_py(): rows.take(
            pa.array(order[start : min(start + NUM_EACH, end)])
        ).to_pylist()
        for code, start, end in zip(found.tolist(), first.tolist(), ends, strict=True)
        if code >= 0
    }


def _order(entry: FileEntry) -> tuple[int, str]:
    first, _ = entry.id_range()
    return int(_mixed(np.array([first], np.int64))[0]), entry.path


def _mixed(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return a hash of every id: MurmurHash3's finalizer, as `curation.hashing` has it compiled."""
    h = ids.astype(np.uint64)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h = (h ^ (h >> np.uint64(33))) * np.uint64(factor)
    return h ^ (h >> np.uint64(33))


# ---- reading and wording -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Text:
    page: Mapping[str, Any]
    edits: Sequence[tuple[int, int, str]]


def _texts(lake: Lake, doc_ids: Sequence[int]) -> dict[int, _Text]:
    pages = documents_of(lake, doc_ids, ["url", "title", "lang", "text"])
    found: dict[int, list[tuple[int, int, str]]] = {}
    stored = [EDITS.empty_table()]
    for stage in EDITING:  # of several edits of a span the last counts
        stored += rows_of(lake, stage, "edits", doc_ids, EDITS.names[1:])
    for row in in_force(pa.concat_tables(stored)).to_pylist():
        edit = row["start"], row["end"], row["replacement"] or ""
        found.setdefault(row["doc_id"], []).append(edit)
    return {doc_id: _Text(page, found.get(doc_id, ())) for doc_id, page in pages.items()}


def _sample(lake: Lake, text: _Text, note: str) -> Sample:
    page = text.page
    return Sample(
        page["doc_id"],
        lake.dump_at(origin(page["doc_id"]).dump),
        page["url"] or "",
        page["title"] or "",
        page["lang"] or "",
        note,
        segments(page["text"] or "", text.edits),
    )


def _why(row: Mapping[str, Any], urls: Mapping[int, Mapping[str, Any]]) -> str:
    if "twin_id" in row:
        url = urls.get(row["twin_id"], {}).get("url") or row["twin_id"]
        return f"similarity {row['similarity']:.3f} to {url}"
    if row["value"] is None:
        return ""
    bound = "" if row["threshold"] is None else f" (bound {rounded(row['threshold'])})"
    return f"value {rounded(row['value'])}{bound}"


def _labels(row: Mapping[str, Any]) -> str:
    said = [f"{row['perplexity_bucket']} by perplexity"] if row["perplexity_bucket"] else []
    if row["quality_score"] is not None:
        said.append(f"quality score {row['quality_score']:.3f}")
    return ", ".join(said)
