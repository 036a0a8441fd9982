"""What a worker does with one part of a stage: read, run kernels, write files, say what it did.

A task reads committed files, or those of the input, in record order and writes its outcomes
(kept, rejected, edits) under names that no other attempt uses. It returns one `Outcome`; the driver
sums outcomes, checks that nothing was lost, and commits.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation import models
from curation.config import Config, IngestConfig
from curation.dedup.messages import Meter, Tally
from curation.dedup.minhash import MinHashSpec, fingerprint, packed, shingle_hashes
from curation.engine.lake import FileEntry, TableWriter, damaged
from curation.engine.ledger import PERPLEXITY_BINS, REJECTS_BY_LANGUAGE, TOKEN_LENGTHS
from curation.identity import RECORD_BITS, check_record_ordinal
from curation.ingest import langid, pages, remote, urls
from curation.ingest.files import END_OF_FILE, ahead, read_files
from curation.ingest.limits import PageLimits
from curation.ingest.sandbox import Net
from curation.quality import edits as quality_edits
from curation.quality import privacy, scores
from curation.quality import rules as quality_rules
from curation.quality.contamination import benchmark_files, cut_spans, find_contamination
from curation.quality.percentiles import Histograms, bucket, percentiles
from curation.quality.signals import SIGNALS_SCHEMA, count_words, signals
from curation.remix import domains
from curation.remix.structure import STRUCTURE_SCHEMA, structure
from curation.schemas import DOCUMENTS, EDITS, REJECTS, SIGNALS, TABLES, TOKENS
from curation.tokens import tokenizer as tokenizers
from curation.tokens.lengths import length_bin

LABELS = ("doc_id", "domain", "lang", "perplexity_bucket", "quality_score")
DOMAIN_SIGNALS = ("lang", "code_share", "math_share", "domain_label", "domain_score")
OUTCOME_DDL = "outcome string"
OUTCOME = pa.schema([("outcome", pa.string())])


@dataclass(frozen=True)
class Context:
    """What every task of a stage and slice knows. Sent to workers."""

    lake: str
    stage: str
    dump: str
    slice: str
    attempt: str
    config: Config
    artifacts: Mapping[str, str]  # path -> sha256
    # for filter: profiles may be files of the driver's machine
    rules: Sequence[quality_rules.Rule] = ()
    histograms: Histograms = field(default_factory=dict)  # of perplexity
    meter: Meter = field(default_factory=Tally)  # see curation.engine.metering


@dataclass
class Outcome:
    """What tasks did; outcomes of parts add up."""

    rows: Counter[str] = field(default_factory=Counter)  # in, kept, rejected
    num_bytes: Counter[str] = field(default_factory=Counter)  # of text: in, kept, removed
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    files: list[FileEntry] = field(default_factory=list)
    sources: dict[str, Any] = field(default_factory=dict)  # see RunRecord

    def count(self, what: str, names: Mapping[str, int]) -> None:
        """Add counts under a heading, for example rejects by rule."""
        self.counts.setdefault(what, Counter()).update(names)

    def add(self, other: "Outcome") -> None:
        """Add the outcome of another part."""
        self.rows.update(other.rows)
        self.num_bytes.update(other.num_bytes)
        for what, names in other.counts.items():
            self.count(what, names)
        self.files += other.files
        self.sources.update(other.sources)

    def to_json(self) -> str:
        """Return the outcome as a worker sends it."""
        files = [asdict(entry) for entry in self.files]
        return json.dumps({**vars(self), "files": files})

    def to_batch(self) -> pa.RecordBatch:
        """Return the outcome as the row that a worker yields."""
        return pa.record_batch([[self.to_json()]], schema=OUTCOME)

    @classmethod
    def from_json(cls, text: str) -> "Outcome":
        """Read what a worker sent."""
        values = json.loads(text)
        return cls(
            Counter(values["rows"]),
            Counter(values["num_bytes"]),
            {what: Counter(names) for what, names in values["counts"].items()},
            [FileEntry(**entry) for entry in values["files"]],
            values["sources"],
        )


@dataclass(frozen=True)
class Part:
    """One task of a stage that reads the lake: files in record order."""

    number: int
    files: Mapping[str, Sequence[FileEntry]]  # by table


def run_part(
    batches: Iterator[pa.RecordBatch], parts: Sequence[Part], context: Context, task_id: str
) -> Iterator[pa.RecordBatch]:
    """Run the stage's function on the parts that the incoming ids name; yield their outcomes."""
    functions = {
        "fingerprint": fingerprint_part,
        "annotate": annotate_part,
        "filter": filter_part,
        "decontaminate": decontaminate_part,
        "encode": encode_part,
    }
    for batch in batches:
        for number in batch.column(0).to_pylist():
            yield functions[context.stage](parts[number], context, task_id).to_batch()


# ---- ingest ------------------------------------------------------------------------------------


def ingest_groups(
    batches: Iterator[pa.RecordBatch],
    groups: Sequence[Sequence[tuple[int, str]]],
    known: Mapping[int, remote.Facts],
    context: Context,
    task_id: str,
) -> Iterator[pa.RecordBatch]:
    """Read and ingest the groups of input files that the incoming ids name; yield their outcomes.

    groups: files as (ordinal, path); known: see `read_files`.
    """
    config = context.config
    contents = next(dump.format for dump in config.dumps if dump.name == context.dump)
    for batch in batches:
        for number in batch.column(0).to_pylist():
            records = read_files(
                groups[number],
                contents,
                max_record_bytes=config.ingest.max_record_bytes,
                settings=config.remote,
                known=known,
            )
            yield ingest_records(ahead(records), context, task_id).to_batch()


def ingest_records(batches: Iterator[pa.RecordBatch], context: Context, task_id: str) -> Outcome:
    """Turn records into documents and rejects, in record order; one part is one group of files.

    A record is rejected by the first of: damaged, HTTP status, URL rules, extraction, no words,
    length, language, its script, its score, a second model. Rows in = documents + rejects.
    """
    outcome = Outcome()
    settings = context.config.ingest
    language_models = [
        models.language_model(path, context.artifacts[path])
        for path in (settings.language_model, settings.second_language_model)
        if path
    ]
    blocklists = models.url_lists(
        settings.lists(), context.artifacts, settings.public_suffix_list, settings.min_soft_words
    )
    writers: Writers | None = None
    for records in batches:
        if records.num_rows == 0:
            continue
        is_summary = pc.is_valid(records["num_other"])
        for row in records.filter(is_summary).to_pylist():
            if row["record_type"] != END_OF_FILE:
                outcome.count("records", {row["record_type"]: row["num_other"]})
                continue
            outcome.count("files", {"read": 1})
            if row["metadata"] is not None:
                outcome.sources[str(row["file_ordinal"])] = json.loads(row["metadata"])
        records = records.filter(pc.invert(is_summary))
        if records.num_rows == 0:
            continue
        if writers is None:
            ordinal = records["file_ordinal"][0].as_py()
            writers = Writers(context, f"{ordinal:07d}", task_id, ("documents", "rejects"))
        documents, rejects = _ingest_batch(records, context, blocklists, language_models)
        writers.write("documents", documents)
        writers.write("rejects", rejects)
        outcome.count("records", value_counts(records["record_type"]))
        outcome.rows["in"] += records.num_rows
        removed = pc.sum(rejects["num_bytes"]).as_py() or 0
        kept = pc.sum(documents["num_bytes"]).as_py() or 0
        outcome.num_bytes.update({"in": kept + removed, "kept": kept, "removed": removed})
        count_rejects(outcome, rejects)
        outcome.count("languages", value_counts(documents["lang"]))
    if writers is not None:
        writers.close(outcome)
    outcome.rows["kept"] = sum(f.rows for f in outcome.files if f.table == "documents")
    outcome.rows["rejected"] = sum(f.rows for f in outcome.files if f.table == "rejects")
    return outcome


def _ingest_batch(
    records: pa.RecordBatch,
    context: Context,
    blocklists: urls.CompiledLists,
    language_models: Sequence[Any],
) -> tuple[pa.Table, pa.Table]:
    """Return the documents and the rejects of a batch of records."""
    settings = context.config.ingest
    ordinals = records["record_ordinal"].to_numpy()
    check_record_ordinal(int(ordinals.max()), records["archive"][0].as_py())
    base = records["file_ordinal"].to_numpy().astype(np.int64)
    dump = context.config.dump_ordinal(context.dump)
    doc_id = ((np.int64(dump) << 21 | base) << RECORD_BITS) + ordinals
    host = urls.hosts(records["url"])

    decision = _Decision(records.num_rows)
    error = records["error"]
    decision.reject(pc.is_valid(error), error)
    status = records["http_status"]
    wrong = pc.and_(
        pc.equal(records["record_type"], "response"),
        pc.fill_null(pc.not_equal(status, 200), True),
    )
    decision.reject(wrong, "http_status", status.cast(pa.string()), "200")
    blocked = urls.blocked(records["url"], blocklists)
    rule = pc.struct_field(blocked, "rule")
    decision.reject(pc.is_valid(rule), rule, _entry_and_list(blocked))

    alive = decision.alive
    page = _extract(records.filter(pa.array(alive)), settings, context.artifacts)
    text = decision.spread(page.field("text"), alive)
    stated = {
        name: decision.spread(page.field(name), alive)
        for name in ("title", "author", "published_at")
    }
    extraction_error = decision.spread(page.field("error"), alive)
    num_bytes = pc.fill_null(pc.binary_length(text), 0).cast(pa.int64())
    decision.reject(
        pc.is_valid(extraction_error),
        extraction_error,
        decision.spread(page.field("value"), alive),
        decision.spread(page.field("threshold"), alive),
    )
    decision.reject(pc.equal(count_words(pc.fill_null(text, "")), 0), "no_text")
    num_chars = pc.fill_null(pc.utf8_length(text), 0)
    decision.reject(
        pc.less(num_chars, settings.min_chars),
        "min_chars",
        num_chars.cast(pa.string()),
        str(settings.min_chars),
    )

    lang, score, script = _languages(text, decision, settings, language_models)

    rows = pa.table(
        {
            "doc_id": pa.array(doc_id),
            "url": records["url"],
            "host": host,
            "crawled_at": records["date"],
            "lang": lang,
            "lang_score": score,
            "lang_script": script,
            **stated,
            "text": text,
            "num_bytes": num_bytes,
            "archive": records["archive"],
            "offset": records["offset"],
            "length": records["length"],
            "metadata": records["metadata"],
        }
    )
    kept = rows.filter(pa.array(decision.alive)).select(DOCUMENTS.names)
    return kept, decision.rejects(rows)


def _entry_and_list(blocked: pa.StructArray) -> pa.Array:
    """Return what blocks a URL as `casino.example (ut1 gambling)`; null where nothing does."""
    entry, name = (pc.struct_field(blocked, field) for field in ("entry", "list"))
    return pc.binary_join_element_wise(entry, " (", name, ")", "")


def _languages(
    text: pa.Array, decision: "_Decision", settings: IngestConfig, language_models: Sequence[Any]
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Return language, score and script of the rows still alive; reject by them."""
    model, *others = language_models
    alive = decision.alive
    found = langid.detect(text.filter(pa.array(alive)), model)
    lang, score, script, script_share = (
        decision.spread(found.field(name), alive)
        for name in ("code", "score", "script", "script_share")
    )
    if settings.languages:
        outside = pc.invert(pc.is_in(lang, pa.array(settings.languages)))
        decision.reject(outside, "language", lang, ",".join(settings.languages))
    decision.reject(
        pc.less(script_share, settings.min_script_share),
        "language_script",
        pc.cast(script_share, pa.string()),
        f"{settings.min_script_share:g}",
    )
    lowest = [
        settings.min_language_scores.get(code, settings.min_language_score)
        for code in lang.to_pylist()
    ]
    decision.reject(
        pc.fill_null(pc.less(score, pa.array(lowest, pa.float64())), True),
        "language_score",
        pc.cast(score, pa.string()),
        pa.array([f"{bound:g}" for bound in lowest], pa.string()),
    )
    for other in others:
        alive = decision.alive
        second = langid.detect(text.filter(pa.array(alive)), other)
        code = decision.spread(second.field("code"), alive)
        decision.reject(
            pc.fill_null(pc.not_equal(lang, code), True),
            "language_disagree",
            pc.binary_join_element_wise(lang, pc.fill_null(code, ""), ","),
        )
    return lang, score, script


def _extract(
    records: pa.RecordBatch, settings: IngestConfig, artifacts: Mapping[str, str]
) -> pa.StructArray:
    """Extract HTML from responses; pass the text of conversions and documents."""
    options = {}
    if settings.extractor == "blocks":
        options = {
            "model": settings.extractor_model,
            "model_digest": artifacts[settings.extractor_model],
            "unsure_share": settings.unsure_share,
            "comments": settings.comments,
        }
    is_html = pc.equal(records["record_type"], "response").to_numpy(zero_copy_only=False)
    html = records.filter(pa.array(is_html))
    plain = records.filter(pa.array(~is_html))
    limits = PageLimits(**{f.name: getattr(settings, f.name) for f in fields(PageLimits)})
    parts = pa.concat_arrays(
        [
            pages.extract_pages(
                html["payload"],
                html["charset"],
                html["content_type"],
                engine=settings.extractor,
                limits=limits,
                net=Net(settings.page_cpu_seconds, settings.page_memory_bytes),
                options=options,
            ),
            pages.plain_text(plain["payload"], limits=limits),
        ]
    )
    order = np.concatenate([np.flatnonzero(is_html), np.flatnonzero(~is_html)])
    return parts.take(pa.array(np.argsort(order)))


class _Decision:
    """The first rule that rejects each row, with its value and threshold."""

    def __init__(self, num_rows: int) -> None:
        self.alive = np.ones(num_rows, np.bool_)
        self._rule: list[str | None] = [None] * num_rows
        self._value: list[str | None] = [None] * num_rows
        self._threshold: list[str | None] = [None] * num_rows

    def reject(
        self, where: pa.Array, rule: Any, value: pa.Array | None = None, threshold: Any = ""
    ) -> None:
        """Reject the rows that are still alive and where `where` is true.

        rule and threshold are strings, or arrays of them.
        """
        mask = pc.fill_null(where, False).to_numpy(zero_copy_only=False) & self.alive
        for i in np.flatnonzero(mask).tolist():
            self._rule[i] = rule if isinstance(rule, str) else rule[i].as_py()
            self._value[i] = None if value is None else value[i].as_py()
            bound = threshold if isinstance(threshold, str) else threshold[i].as_py()
            self._threshold[i] = bound or None
        self.alive = self.alive & ~mask

    def spread(self, values: pa.Array, alive: Any) -> pa.Array:
        """Put values of the rows that were alive back in their places; null elsewhere."""
        places = np.full(len(alive), -1, np.int64)
        places[alive] = np.arange(int(alive.sum()))
        return values.take(pa.array(places, mask=places < 0))

    def rejects(self, rows: pa.Table) -> pa.Table:
        """Return the ledger rows of everything rejected."""
        gone = pa.array(~self.alive)
        rule = pa.array(self._rule, pa.string()).filter(gone)
        return ledger(
            rows.filter(gone),
            rule,
            [[name] for name in rule.to_pylist()],
            pa.array(self._value, pa.string()).filter(gone),
            pa.array(self._threshold, pa.string()).filter(gone),
        )


def ledger(rows: pa.Table, rule: Any, rules: Any, value: Any, threshold: Any) -> pa.Table:
    """Return rejects rows of documents that left the flow."""
    columns = {name: rows[name] for name in ("doc_id", "url", "host", "archive", "offset")}
    return pa.table(
        [
            *columns.values(),
            rule,
            pa.array(rules, pa.list_(pa.string())),
            value,
            threshold,
            rows["num_bytes"],
        ],
        schema=REJECTS,
    )


# ---- fingerprint -------------------------------------------------------------------------------


def fingerprint_part(part: Part, context: Context, task_id: str) -> Outcome:
    """Sign every document of a file. Every document has words: ingest rejects the others."""
    outcome = Outcome()
    settings = context.config.fingerprint
    spec = MinHashSpec(settings.bands, settings.rows, settings.ngram, settings.seed)
    keeps_shingles = context.config.dedup.verify == "exact"
    tables = ("signatures", "shingles") if keeps_shingles else ("signatures",)
    writers = Writers(context, f"{part.number:05d}", task_id, tables)
    for rows in scan(
        part,
        "documents",
        ["doc_id", "text", "num_bytes"],
        context.lake,
        context.config.engine.batch_rows,
    ):
        text = rows["text"].combine_chunks()
        prints = fingerprint(text, spec)
        writers.write(
            "signatures",
            pa.table(
                {
                    "doc_id": rows["doc_id"],
                    "content_hash": prints.field("content_hash"),
                    "signature": prints.field("signature"),
                    "num_shingles": prints.field("num_shingles"),
                    "num_bytes": rows["num_bytes"],
                }
            ),
        )
        if keeps_shingles:
            hashes = packed(shingle_hashes(text, spec))
            writers.write("shingles", pa.table({"doc_id": rows["doc_id"], "hashes": hashes}))
        size = pc.sum(rows["num_bytes"]).as_py()
        outcome.rows["in"] += rows.num_rows
        outcome.num_bytes.update({"in": size, "kept": size})
        outcome.count("shingles", {"num_shingles": pc.sum(prints.field("num_shingles")).as_py()})
    writers.close(outcome)
    outcome.rows["kept"] = sum(f.rows for f in outcome.files if f.table == "signatures")
    return outcome


# ---- annotate ----------------------------------------------------------------------------------


def annotate_part(part: Part, context: Context, task_id: str) -> Outcome:
    """Replace what is private in every document that is still there, and measure the result."""
    outcome = Outcome()
    config = context.config
    cards = {each.card: context.artifacts[each.card] for each in config.annotate.models}
    bad_words = models.bad_words(
        {
            language: (path, context.artifacts[path])
            for language, path in config.annotate.bad_words.items()
        }
    )
    writers = Writers(context, f"{part.number:05d}", task_id, ("signals", "edits"))
    gone = pa.concat_tables(
        read_between(part, "documents", table, ["doc_id"], context.lake)
        for table in ("duplicates", "rejects")
    )["doc_id"]
    edits = read_between(part, "documents", "edits", EDITS.names, context.lake)
    columns = ["doc_id", "lang", "text"]
    for rows in scan(part, "documents", columns, context.lake, config.engine.batch_rows):
        rows = rows.filter(pc.invert(pc.is_in(rows["doc_id"], gone)))
        if rows.num_rows == 0:
            continue
        earlier = edits_of(rows["doc_id"], edits)
        text = quality_edits.apply_edits(rows["text"].combine_chunks(), earlier)
        private = privacy.find_private(text, config.privacy.replace)
        edited = quality_edits.apply_edits(text, private)
        lang = rows["lang"].combine_chunks()
        measured = signals(edited, lang, bad_words)
        num_private = pc.list_value_length(private).cast(pa.int32())
        shares = structure(edited)
        scored = scores.score(edited, lang, cards)
        writers.write(
            "signals",
            pa.table(
                {
                    "doc_id": rows["doc_id"],
                    "lang": lang,
                    **{name: measured.field(name) for name in SIGNALS_SCHEMA.names},
                    "num_private_spans": num_private,
                    **{name: shares.field(name) for name in STRUCTURE_SCHEMA.names},
                    **scored,
                }
            ).select(SIGNALS.names),
        )
        writers.write(
            "edits", _edit_rows(rows["doc_id"], quality_edits.to_stored(private, earlier))
        )
        outcome.count("private", value_counts(private.flatten().field("replacement")))
        for language, counts in counts_by(lang, scored["perplexity_bin"]).items():
            outcome.count(f"{PERPLEXITY_BINS}:{language}", counts)
        outcome.rows["in"] += rows.num_rows
        size, kept = (pc.sum(pc.binary_length(each)).as_py() for each in (text, edited))
        outcome.num_bytes.update({"in": size, "kept": kept, "removed": size - kept})
    writers.close(outcome)
    outcome.rows["kept"] = sum(f.rows for f in outcome.files if f.table == "signals")
    return outcome


# ---- filter ------------------------------------------------------------------------------------


def filter_part(part: Part, context: Context, task_id: str) -> Outcome:
    """Decide from the takedown list and stored signals; the text is not read."""
    outcome = Outcome()
    config = context.config
    takedown = models.url_lists(config.filter.takedown_lists(), context.artifacts)
    domain_rules = [
        domain.rule(
            models.host_list(domain.host_file, context.artifacts[domain.host_file])
            if domain.host_file
            else ()
        )
        for domain in config.domains
    ]
    writers = Writers(context, f"{part.number:05d}", task_id, ("kept", "rejects", "edits"))
    pages = read_between(
        part,
        "signals",
        "documents",
        ["doc_id", "url", "host", "archive", "offset", "num_bytes"],
        context.lake,
    )
    edits = read_between(part, "signals", "edits", EDITS.names, context.lake)
    for measured in scan(part, "signals", None, context.lake, config.engine.batch_rows):
        place = pc.index_in(measured["doc_id"], pages["doc_id"])
        rows = pages.take(place.combine_chunks())
        earlier = edits_of(rows["doc_id"], edits)  # the signals are those of the edited text
        num_bytes = pc.subtract(rows["num_bytes"], quality_edits.num_bytes_removed(earlier))
        rows = rows.set_column(rows.column_names.index("num_bytes"), "num_bytes", num_bytes)
        lang = measured["lang"].combine_chunks()
        percentile = percentiles(
            measured["perplexity_bin"].combine_chunks(), lang, context.histograms
        )
        measured = measured.append_column("perplexity_percentile", percentile)
        batch = measured.combine_chunks().to_batches()[0]
        blocked = urls.blocked(rows["url"].combine_chunks(), takedown)
        failed = quality_rules.decide(batch, lang, context.rules)
        is_blocked = pc.is_valid(blocked)
        is_failed = pc.is_valid(failed.field("rule"))
        gone = pc.or_(is_blocked, is_failed)
        takedown_rule = pc.if_else(is_blocked, "takedown", pa.scalar(None, pa.string()))
        rejected = ledger(
            rows.filter(gone),
            pc.coalesce(takedown_rule, failed.field("rule")).filter(gone),
            _prepend(takedown_rule, failed.field("rules")).filter(gone),
            pc.coalesce(_entry_and_list(blocked), failed.field("value").cast(pa.string())).filter(
                gone
            ),
            pc.if_else(is_blocked, None, failed.field("threshold").cast(pa.string())).filter(gone),
        )
        stays = pc.invert(gone)
        kept_rows = rows.filter(stays)
        kept_signals = measured.filter(stays)
        cuts = quality_edits.to_stored(
            _cuts(kept_signals, config.filter.cut_lines), earlier.filter(stays)
        )
        num_cut = _cut(kept_signals, "bytes", config.filter.cut_lines)
        kept = pa.table(
            {
                "doc_id": kept_rows["doc_id"],
                "domain": domains.label(
                    {
                        **{name: kept_rows[name].combine_chunks() for name in ("host", "url")},
                        **{name: kept_signals[name].combine_chunks() for name in DOMAIN_SIGNALS},
                    },
                    domain_rules,
                    config.default_domain,
                ),
                "lang": kept_signals["lang"],
                "num_chars": pc.subtract(
                    kept_signals["num_chars"], _cut(kept_signals, "chars", config.filter.cut_lines)
                ),
                "num_bytes": pc.subtract(kept_rows["num_bytes"], num_cut),
                "perplexity_bucket": bucket(
                    kept_signals["perplexity_percentile"].combine_chunks(),
                    *config.filter.buckets,
                ),
                "quality_score": kept_signals["quality_score"],
            }
        )
        writers.write("kept", kept)
        writers.write("rejects", rejected)
        writers.write("edits", _edit_rows(kept_rows["doc_id"], cuts))
        outcome.rows["in"] += measured.num_rows
        size = pc.sum(rows["num_bytes"]).as_py()
        size_kept = pc.sum(kept["num_bytes"]).as_py() or 0
        removed = (pc.sum(rejected["num_bytes"]).as_py() or 0) + (pc.sum(num_cut).as_py() or 0)
        outcome.num_bytes.update({"in": size, "kept": size_kept, "removed": removed})
        count_rejects(outcome, rejected)
        outcome.count("languages", value_counts(lang))
        for language, counts in counts_by(lang.filter(gone), rejected["rule"]).items():
            outcome.count(f"{REJECTS_BY_LANGUAGE}:{language}", counts)
        outcome.count("domains", value_counts(kept["domain"]))
        buckets = value_counts(kept["perplexity_bucket"].drop_null())
        outcome.count("perplexity_buckets", buckets)
    writers.close(outcome)
    outcome.rows["kept"] = sum(f.rows for f in outcome.files if f.table == "kept")
    outcome.rows["rejected"] = sum(f.rows for f in outcome.files if f.table == "rejects")
    return outcome


def _prepend(first: pa.Array, rest: pa.Array) -> pa.Array:
    """Put the rule `takedown` before the failed quality rules."""
    rows = zip(first.to_pylist(), rest.to_pylist(), strict=True)
    return pa.array(
        [([head] if head else []) + (tail or []) for head, tail in rows], pa.list_(pa.string())
    )


def _cuts(measured: pa.Table, enabled: bool) -> pa.Array:
    """Return the line cuts of every row as edits, none when cutting is off."""
    cuts = measured["c4_cuts"].combine_chunks()
    if not enabled:
        return pa.array([[]] * len(cuts), quality_edits.EDITS_TYPE)
    spans = cuts.flatten()
    ends = np.cumsum(np.append(0, np.asarray(pc.list_value_length(cuts))))
    return _lists(ends, spans.field("start"), spans.field("end"))


def _lists(ends: Any, start: pa.Array, end: pa.Array) -> pa.ListArray:
    """Return cuts as lists of edits; those of row i are at ends[i] up to ends[i + 1]."""
    cut = pa.array([""] * len(start), pa.string())
    spans = pa.StructArray.from_arrays(
        [start.cast(pa.int32()), end.cast(pa.int32()), cut],
        fields=list(quality_edits.EDITS_TYPE.value_type),
    )
    return pa.ListArray.from_arrays(pa.array(np.asarray(ends, np.int32)), spans)


def _cut(measured: pa.Table, unit: str, enabled: bool) -> pa.ChunkedArray | pa.Array:
    """Return how many bytes or chars the line cuts take from every row."""
    if enabled:
        return measured[f"num_c4_{unit}_cut"].cast(pa.int64())
    return pa.array(np.zeros(measured.num_rows, np.int64))


def _edit_rows(doc_id: pa.ChunkedArray, edits: pa.Array) -> pa.Table:
    """Flatten lists of edits to rows of `edits`."""
    spans = pc.list_flatten(edits)
    return pa.table(
        {
            "doc_id": doc_id.combine_chunks().take(pc.list_parent_indices(edits)),
            **{name: spans.field(name) for name in ("start", "end", "replacement")},
        }
    )


# ---- decontaminate -----------------------------------------------------------------------------


def decontaminate_part(part: Part, context: Context, task_id: str) -> Outcome:
    """Drop the kept documents of a file that hold texts of benchmarks, or cut their lines."""
    outcome = Outcome()
    settings = context.config.contamination
    index = models.contamination_index(
        [
            (
                benchmark.name,
                benchmark.fields,
                tuple((path, context.artifacts[path]) for path in benchmark_files(benchmark.path)),
            )
            for benchmark in settings.benchmarks
        ],
        settings.ngram,
        settings.min_ngram,
    )
    names = pa.array([f"contaminated_{each.name}" for each in settings.benchmarks], pa.string())
    writers = Writers(context, f"{part.number:05d}", task_id, ("rejects", "edits"))
    columns = ["url", "host", "archive", "offset"]
    all_edits = read_between(part, "documents", "edits", EDITS.names, context.lake)
    for rows in edited_documents(part, context.lake, context.config.engine.batch_rows, columns):
        text = rows["text"].combine_chunks()
        found = find_contamination(text, index)
        is_hit = np.asarray(found.num_spans) > 0
        gone = is_hit
        removed_by_cut = 0
        if settings.action == "cut":
            cuts = cut_spans(text, found)
            left = np.asarray(pc.utf8_length(quality_edits.apply_edits(text, cuts)))
            gone = is_hit & (left < settings.min_chars)
            stays = pa.array(~gone)
            edits = cuts.filter(stays)
            earlier = edits_of(rows["doc_id"], all_edits).filter(stays)
            stored = quality_edits.to_stored(edits, earlier)
            writers.write("edits", _edit_rows(rows["doc_id"].filter(stays), stored))
            removed_by_cut = pc.sum(quality_edits.num_bytes_removed(edits)).as_py() or 0
            outcome.count("contamination", {"documents_cut": int((is_hit & ~gone).sum())})
        rules = found.benchmarks(names)
        out = pa.array(gone)
        rejected = ledger(
            rows.filter(out),
            pc.list_element(rules.filter(out), 0) if gone.any() else pa.array([], pa.string()),
            rules.filter(out),
            pa.array(np.asarray(found.num_spans)[gone]).cast(pa.string()),
            pa.array(["0"] * int(gone.sum()), pa.string()),
        )
        writers.write("rejects", rejected)
        size = pc.sum(rows["num_bytes"]).as_py()
        removed = removed_by_cut + (pc.sum(rejected["num_bytes"]).as_py() or 0)
        outcome.rows.update({"in": rows.num_rows, "kept": rows.num_rows - rejected.num_rows})
        outcome.rows["rejected"] += rejected.num_rows
        outcome.num_bytes.update({"in": size, "kept": size - removed, "removed": removed})
        count_rejects(outcome, rejected)
        # a document counts for every benchmark that it holds something of
        outcome.count("benchmarks", value_counts(rules.flatten()))
    writers.close(outcome)
    return outcome


# ---- encode ------------------------------------------------------------------------------------


def encode_part(part: Part, context: Context, task_id: str) -> Outcome:
    """Tokenize the edited text of every kept document of a file."""
    outcome = Outcome()
    path = context.config.encode.tokenizer
    encoder = tokenizers.load_once(path, context.artifacts[path])
    writers = Writers(context, f"{part.number:05d}", task_id, ("tokens",))
    batch_rows = context.config.engine.batch_rows
    for rows in edited_documents(part, context.lake, batch_rows, ["host"]):
        text = rows["text"].combine_chunks()
        input_ids = tokenizers.encode(text, encoder)
        num_tokens = pc.list_value_length(input_ids)
        writers.write(
            "tokens",
            pa.table(
                {
                    **{name: rows[name] for name in TOKENS.names if name in rows.column_names},
                    "input_ids": input_ids,
                    "num_tokens": num_tokens,
                }
            ).select(TOKENS.names),
        )
        outcome.rows["in"] += rows.num_rows
        size = pc.sum(rows["num_bytes"]).as_py()
        outcome.num_bytes.update({"in": size, "kept": size})
        outcome.count("tokens", sum_by(rows["domain"], num_tokens))
        strata = pc.binary_join_element_wise(rows["domain"], rows["lang"], "/")
        outcome.count("stratum_tokens", sum_by(strata, num_tokens))
        outcome.count("stratum_bytes", sum_by(strata, rows["num_bytes"]))
        for stratum, counts in counts_by(strata, length_bin(num_tokens)).items():
            outcome.count(f"{TOKEN_LENGTHS}:{stratum}", counts)
    writers.close(outcome)
    outcome.rows["kept"] = sum(f.rows for f in outcome.files)
    return outcome


def edited_documents(
    part: Part, lake: str, batch_rows: int, columns: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Yield what `kept` says and the edited text of the kept documents of a part.

    That is LABELS, num_bytes and text. `columns` are more columns of documents. Who is kept, and
    which edits count, follows from the stages whose files the part has; num_bytes is the size of
    the edited text.
    """
    kept = read_between(part, "documents", "kept", LABELS, lake)
    gone = read_between(part, "documents", "rejects", ["doc_id"], lake)["doc_id"]
    kept = kept.filter(pc.invert(pc.is_in(kept["doc_id"], gone)))
    edits = read_between(part, "documents", "edits", EDITS.names, lake)
    for rows in scan(part, "documents", ["doc_id", "text", *columns], lake, batch_rows):
        rows = rows.filter(pc.is_in(rows["doc_id"], kept["doc_id"]))
        if rows.num_rows == 0:
            continue
        kept_rows = kept.take(pc.index_in(rows["doc_id"], kept["doc_id"]).combine_chunks())
        text = rows["text"].combine_chunks()
        edited = quality_edits.apply_edits(text, edits_of(rows["doc_id"], edits))
        for name in columns:
            kept_rows = kept_rows.append_column(name, rows[name])
        num_bytes = pc.binary_length(edited).cast(pa.int64())
        yield kept_rows.append_column("num_bytes", num_bytes).append_column("text", edited)


def edits_of(doc_id: pa.ChunkedArray, edits: pa.Table) -> pa.Array:
    """Return the edits of each document that count as a list, ascending by start."""
    edits = quality_edits.in_force(edits.filter(pc.is_in(edits["doc_id"], doc_id)))
    owners = edits["doc_id"].to_numpy()
    ids = doc_id.to_numpy()
    starts = np.searchsorted(owners, ids, side="left")
    ends = np.searchsorted(owners, ids, side="right")
    if len(ids) and (starts[1:] != ends[:-1]).any():
        raise AssertionError("documents are not in the order of their ids")
    spans = pa.StructArray.from_arrays(
        [edits[name].combine_chunks() for name in ("start", "end", "replacement")],
        names=["start", "end", "replacement"],
    )
    offsets = np.append(starts, ends[-1:]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), spans)


# ---- reading and writing -----------------------------------------------------------------------


class Writers:
    """The output files of one task, one a table."""

    def __init__(self, context: Context, part: str, task_id: str, tables: Sequence[str]) -> None:
        name = f"{context.attempt}-part-{part}-{task_id}"
        self._writers = {
            table: TableWriter(
                context.lake, table, context.stage, context.dump, context.slice, name
            )
            for table in tables
        }

    def write(self, table: str, rows: pa.Table) -> None:
        self._writers[table].write(rows)

    def close(self, outcome: Outcome) -> None:
        entries = [writer.close() for writer in self._writers.values()]
        outcome.files += [entry for entry in entries if entry is not None]


def scan(
    part: Part, table: str, columns: Sequence[str] | None, lake: str, batch_rows: int
) -> Iterator[pa.Table]:
    """Read the files of a table in order, some rows at a time."""
    for entry in part.files.get(table, ()):
        with _committed(lake, entry), pq.ParquetFile(Path(lake, entry.path)) as file:
            for batch in file.iter_batches(batch_rows, columns=columns):
                yield pa.Table.from_batches([batch])


def read_between(part: Part, guide: str, table: str, columns: Sequence[str], lake: str) -> pa.Table:
    """Read the rows of a table whose doc_id lies in the range of the guide's files."""
    ranges = [entry.id_range() for entry in part.files.get(guide, ())]
    if not ranges:
        return pa.schema([TABLES[table].field(name) for name in columns]).empty_table()
    first, last = min(r[0] for r in ranges), max(r[1] for r in ranges)
    return read_range(part.files.get(table, ()), table, columns, lake, first, last)


def read_range(
    entries: Sequence[FileEntry],
    table: str,
    columns: Sequence[str],
    lake: str,
    first: int,
    last: int,
) -> pa.Table:
    """Read the rows of files of a table whose doc_id lies in a range, both ends included."""
    found = [pa.schema([TABLES[table].field(name) for name in columns]).empty_table()]
    for entry in entries:
        entry_first, entry_last = entry.id_range()
        if entry_first <= last and first <= entry_last:
            with _committed(lake, entry):
                found.append(
                    pq.read_table(
                        Path(lake, entry.path),
                        columns=list(columns),
                        filters=[("doc_id", ">=", first), ("doc_id", "<=", last)],
                        partitioning=None,
                    )
                )
    return pa.concat_tables(found)


@contextmanager
def _committed(lake: str, entry: FileEntry) -> Iterator[None]:
    """Say which file it is that cannot be read, and what to do."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise damaged(lake, entry.path, error) from error


def sorted_runs(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Cut batches, sorted by their first column, where its value changes."""
    for batch in batches:
        values = batch.column(0).to_numpy()
        cuts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
        for start, stop in itertools.pairwise(cuts):
            if stop > start:
                yield int(values[start]), batch.slice(start, stop - start)


def count_rejects(outcome: Outcome, rejected: pa.Table) -> None:
    outcome.count("rejects", value_counts(rejected["rule"]))


def value_counts(column: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    counts = pc.value_counts(column)
    return {row["values"]: row["counts"] for row in counts.to_pylist()}


def counts_by(
    names: pa.Array | pa.ChunkedArray, values: pa.Array | pa.ChunkedArray
) -> dict[str, dict[str, int]]:
    """Return how many rows have each value, by name; those without a value are left out."""
    rows = pa.table({"name": names, "value": values}).filter(pc.is_valid(values))
    found: dict[str, dict[str, int]] = {}
    for row in rows.group_by(["name", "value"]).aggregate([([], "count_all")]).to_pylist():
        found.setdefault(row["name"], {})[str(row["value"])] = row["count_all"]
    return found


def sum_by(names: pa.Array | pa.ChunkedArray, values: pa.Array) -> dict[str, int]:
    """Return the sums of values by name."""
    table = (
        pa.table({"name": names, "value": values}).group_by("name").aggregate([("value", "sum")])
    )
    return dict(zip(table["name"].to_pylist(), table["value_sum"].to_pylist(), strict=True))
