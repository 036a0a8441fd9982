"""Reads the ledger of a lake: the funnel, and every decision about one document. No Spark."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.engine.lake import Lake, RunRecord
from curation.errors import NotFound
from curation.identity import origin

FUNNEL_STAGES = ("ingest", "dedup", "lines", "filter", "decontaminate", "encode")
"""The stages that documents can leave."""
PERPLEXITY_BINS = "perplexity_bins"
"""Counts of a run record of `annotate`, by language: `perplexity_bins:en`."""
REJECTS_BY_LANGUAGE = "rejects"
"""Counts of a run record of `filter`, by language: `rejects:en`."""
TOKEN_LENGTHS = "token_lengths"
"""Counts of a run record of `encode`, by domain and language: `token_lengths:web/en`."""
MAX_EXCERPT_CHARS = 60  # of the text of an edit: a line of a terminal


@dataclass(frozen=True)
class StageTotals:
    """A stage summed over its slices."""

    rows_in: int
    rows_kept: int
    rows_rejected: int
    bytes_in: int
    bytes_kept: int
    seconds: float
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Funnel:
    """What came in and what stayed, by dump and stage."""

    dumps: Sequence[str]
    totals: Mapping[tuple[str, str], StageTotals]  # (dump, stage)

    def total(self, stage: str) -> StageTotals | None:
        """Return a stage summed over the dumps, None where it has not run."""
        found = [self.totals[key] for key in self.totals if key[1] == stage]
        return _sum(found) if found else None


@dataclass(frozen=True)
class History:
    """Everything the lake knows about one document."""

    doc_id: int
    where: Mapping[str, Any]  # dump, archive, offset, url
    decisions: Sequence[tuple[str, str]] = field(default_factory=list)  # stage, what and why


def funnel(lake: Lake) -> Funnel:
    """Sum the run records. Cost: reads records only, never a table."""
    dumps = lake.dumps()
    grouped: dict[tuple[str, str], list[RunRecord]] = {}
    for record in lake.records():
        if record.dump in dumps:
            grouped.setdefault((record.dump, record.stage), []).append(record)
    return Funnel(
        dumps,
        {key: _sum([_totals(record) for record in records]) for key, records in grouped.items()},
    )


def rejects_by_rule(lake: Lake) -> dict[str, Counter[str]]:
    """Return how many documents each rule rejected, by stage; duplicates count by kind."""
    counted: dict[str, Counter[str]] = {}
    for record in lake.records():
        names = record.counts.get("duplicates" if record.stage == "dedup" else "rejects", {})
        if names:
            counted.setdefault(record.stage, Counter()).update(names)
    return counted


def perplexity_histograms(records: Iterable[RunRecord]) -> dict[str, dict[int, int]]:
    """Sum what `annotate` counted: how many documents have each bin of perplexity, by language."""
    found: dict[str, Counter[int]] = {}
    for record in records:
        for what, counts in record.counts.items():
            kind, _, language = what.partition(":")
            if kind == PERPLEXITY_BINS:
                numbered = {int(number): count for number, count in counts.items()}
                found.setdefault(language, Counter()).update(numbered)
    return {language: dict(counts) for language, counts in found.items()}


def why(lake: Lake, wanted: str) -> list[History]:
    """Return the history of every document with this doc_id or URL, oldest first.

    Raises NotFound. Cost: one scan of the columns doc_id or url of documents and rejects.
    """
    if not wanted.isdecimal():
        matches = pc.field("url") == wanted
    elif int(wanted) < 1 << 63:
        matches = pc.field("doc_id") == int(wanted)
    else:
        raise NotFound(f"{wanted} is no doc_id: it has 63 bits; give a URL or another id")
    ids: set[int] = set()
    for table in ("documents", "rejects"):
        rows = lake.table(table).to_table(columns=["doc_id"], filter=matches)
        ids.update(rows["doc_id"].to_pylist())
    if not ids:
        raise NotFound(
            f"{wanted!r} is not in the lake {lake.path}; give a doc_id, or the URL exactly as "
            "it was crawled"
        )
    return [_history(lake, doc_id) for doc_id in sorted(ids)]


def documents_of(
    lake: Lake, doc_ids: Iterable[int], columns: Sequence[str]
) -> dict[int, Mapping[str, Any]]:
    """Return some columns of documents by doc_id; who is no document is left out.

    Cost: of the files that hold one, one after another, the row groups that do.
    """
    return {
        row["doc_id"]: row
        for rows in rows_of(lake, "ingest", "documents", doc_ids, columns)
        for row in rows.to_pylist()
    }


def rows_of(
    lake: Lake, stage: str, table: str, doc_ids: Iterable[int], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield doc_id and some columns of what a stage wrote about documents, file after file."""
    ids = sorted(set(doc_ids))
    for ordinal, group in groupby(ids, key=lambda doc_id: origin(doc_id).dump):
        in_dump = list(group)
        for record in lake.records(stage, lake.dump_at(ordinal)):
            for entry in record.files_of(table):
                first, last = entry.id_range()
                wanted = [doc_id for doc_id in in_dump if first <= doc_id <= last]
                if wanted:
                    yield pq.read_table(
                        lake.path / entry.path,
                        columns=["doc_id", *columns],
                        filters=pc.field("doc_id").isin(wanted),
                        partitioning=None,
                    )


def _history(lake: Lake, doc_id: int) -> History:
    place = origin(doc_id)
    dump = lake.dump_at(place.dump)

    def rows(table: str) -> list[dict[str, Any]]:
        matches = pc.field("doc_id") == doc_id
        return list(lake.table(table, dump=dump).to_table(filter=matches).to_pylist())

    documents, rejects = rows("documents"), rows("rejects")
    source = (documents or rejects)[0]
    where = {
        "dump": dump,
        "url": source["url"],
        "archive": source["archive"],
        "offset": source["offset"],
        "record": place.record,
    }
    decisions = []
    if documents:
        text = documents[0]
        language = "-".join(filter(None, (text["lang"], text["lang_script"])))  # as in BCP 47
        decisions.append(
            (
                "ingest",
                f"kept: {text['num_bytes']} bytes of text, language {language} "
                f"({text['lang_score']:.2f}), crawled {text['crawled_at']}",
            )
        )
    for reject in rejects:
        if reject["stage"] == "ingest":
            decisions.append(("ingest", _rejection(reject)))
    for twin in rows("duplicates"):
        decisions.append(("dedup", _duplicate(lake, twin)))
    if documents and not rows("duplicates") and lake.records("dedup", dump):
        decisions.append(("dedup", f"retained; {_num_removed(lake, doc_id)} name it as their twin"))
    all_edits = sorted(rows("edits"), key=lambda edit: int(edit["start"]))
    for stage in ("lines", "annotate"):  # private data is replaced by the latter
        decisions += [
            (stage, _edit(edit, documents[0]["text"]))
            for edit in all_edits
            if edit["stage"] == stage
        ]
    for stage in ("lines", "filter"):
        decisions += [(stage, _rejection(row)) for row in rejects if row["stage"] == stage]
    for kept in rows("kept"):
        edits = [edit for edit in all_edits if edit["stage"] == "filter"]
        cut = sum(edit["end"] - edit["start"] for edit in edits)
        decisions.append(
            (
                "filter",
                f"kept in domain {kept['domain']}: {kept['num_chars']} characters; "
                f"{len(edits)} spans cut ({cut} bytes)"
                + (
                    f"; {kept['perplexity_bucket']} by perplexity"
                    if kept["perplexity_bucket"]
                    else ""
                ),
            )
        )
        decisions += [(edit["stage"], _edit(edit, documents[0]["text"])) for edit in edits]
    decisions += [
        ("decontaminate", _edit(edit, documents[0]["text"]))
        for edit in all_edits
        if edit["stage"] == "decontaminate"
    ]
    decisions += [
        ("decontaminate", _rejection(row)) for row in rejects if row["stage"] == "decontaminate"
    ]
    for tokens in rows("tokens"):
        decisions.append(("encode", f"{tokens['num_tokens']} tokens"))
    for release in lake.records("release"):
        decisions += _in_release(lake, release, doc_id)
    return History(doc_id, where, decisions)


def _rejection(reject: Mapping[str, Any]) -> str:
    why = f"rejected by {reject['rule']}"
    if reject["value"] is not None:
        why += f": {reject['value']}"
    if reject["threshold"] is not None:
        why += f" (bound {reject['threshold']})"
    more = [rule for rule in reject["rules"] or () if rule != reject["rule"]]
    return why + (f"; also {', '.join(more)}" if more else "")


def _edit(edit: Mapping[str, Any], text: str) -> str:
    span = text.encode()[edit["start"] : edit["end"]].decode("utf-8", "replace")
    shown = " ".join(span.split())
    if len(shown) > MAX_EXCERPT_CHARS:
        shown = shown[:MAX_EXCERPT_CHARS] + "..."
    became = f"replaced by {edit['replacement']!r}" if edit["replacement"] else "cut"
    return f"bytes {edit['start']} to {edit['end']} {became}: {shown}"


def _duplicate(lake: Lake, row: Mapping[str, Any]) -> str:
    twin = lake.table("documents", dump=row["twin_dump"]).to_table(
        columns=["url", "archive", "offset"], filter=pc.field("doc_id") == row["twin_id"]
    )
    named = twin.to_pylist()[0]
    return (
        f"removed as {row['kind']} duplicate of {row['twin_id']} ({named['url']} in "
        f"{row['twin_dump']}, {named['archive']} at {named['offset']}), similarity "
        f"{row['similarity']:.3f} by {row['verified_by']}{_fate(lake, row)}"
    )


def _fate(lake: Lake, row: Mapping[str, Any]) -> str:
    """Say that the twin of a duplicate was rejected later, so that neither is kept."""
    rejects = lake.table("rejects", dump=row["twin_dump"]).to_table(
        columns=["stage", "rule"], filter=pc.field("doc_id") == row["twin_id"]
    )
    return "".join(
        f"; an orphan: {reject['stage']} rejected the twin by {reject['rule']}"
        for reject in rejects.to_pylist()
    )


def _num_removed(lake: Lake, doc_id: int) -> int:
    return int(lake.table("duplicates").count_rows(filter=pc.field("twin_id") == doc_id))


def _in_release(lake: Lake, release: RunRecord, doc_id: int) -> list[tuple[str, str]]:
    rows = lake.table("mixture", dump=release.dump).to_table(filter=pc.field("doc_id") == doc_id)
    return [
        (
            f"release {release.dump}",
            f"{row['copies']} whole copies and {row['partial_tokens']} tokens of a partial one, "
            f"{row['split']}, {_component(row)}",
        )
        for row in rows.to_pylist()
    ]


def _component(row: Mapping[str, Any]) -> str:
    if row["share"] is None:
        return "of a host that is held out"
    return f"{row['component']} with share {row['share']:.3f}, weight {row['weight']}"


def _totals(record: RunRecord) -> StageTotals:
    rows, num_bytes = record.rows, record.num_bytes
    return StageTotals(
        rows["in"],
        rows["kept"],
        rows["rejected"],
        num_bytes["in"],
        num_bytes["kept"],
        record.seconds,
        record.counts,
    )


def _sum(parts: Sequence[StageTotals]) -> StageTotals:
    counts: dict[str, Counter[str]] = {}
    for part in parts:
        for what, names in part.counts.items():
            counts.setdefault(what, Counter()).update(names)
    return StageTotals(
        sum(p.rows_in for p in parts),
        sum(p.rows_kept for p in parts),
        sum(p.rows_rejected for p in parts),
        sum(p.bytes_in for p in parts),
        sum(p.bytes_kept for p in parts),
        sum(p.seconds for p in parts),
        counts,
    )
