"""What other rules would keep: decisions from stored signals against the committed ones. No Spark.

Reads of every signals file the columns that rules bound, and no text. Takedowns stay as they were
decided, and contamination is what `decontaminate` decides afterwards, of either.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.config import Config
from curation.engine.lake import Lake
from curation.engine.ledger import perplexity_histograms
from curation.errors import NotCommitted
from curation.quality.percentiles import Histograms, percentiles
from curation.quality.rules import Rule, decide
from curation.quality.signals import PERPLEXITY_PERCENTILE
from curation.schemas import SIGNALS

NUM_THREADS = 2  # Parquet is decoded beside the rules


@dataclass(frozen=True)
class Change:
    """What becomes of the documents of a language in a dump."""

    dump: str
    language: str
    documents_before: int
    documents_after: int
    documents_gained: int  # kept only by the new rules
    documents_lost: int
    chars_before: int
    chars_after: int
    tokens_per_char: float | None  # of the language in what is encoded; None where nothing is

    @property
    def tokens_before(self) -> int | None:
        """Tokens of the documents kept now, estimated by their characters."""
        return (
            None
            if self.tokens_per_char is None
            else round(self.tokens_per_char * self.chars_before)
        )

    @property
    def tokens_after(self) -> int | None:
        """Tokens of the documents kept then, estimated by their characters."""
        return (
            None if self.tokens_per_char is None else round(self.tokens_per_char * self.chars_after)
        )


@dataclass(frozen=True)
class WhatIf:
    """Changes by dump and language, and by which rule documents would be lost."""

    changes: Sequence[Change]
    lost_by_rule: Mapping[str, int]


@dataclass
class _Sums:
    before: int = 0
    after: int = 0
    gained: int = 0
    lost: int = 0
    chars_before: int = 0
    chars_after: int = 0

    def add(self, other: "_Sums") -> None:
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class _Found:
    sums: dict[str, _Sums] = field(default_factory=dict)  # by language
    tokens: Counter[str] = field(default_factory=Counter)  # of what is encoded, by language
    token_chars: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)


def what_if(lake: Lake, config: Config, dumps: Sequence[str] = ()) -> WhatIf:
    """Return what the rules of `config` would change about the committed decisions.

    Raises NotCommitted for a dump that has not been filtered. Cost: about 1 s for a million
    documents; memory of the decisions of a slice, and of a file of signals a thread.
    """
    rules = config.rules()
    changes: list[Change] = []
    lost: Counter[str] = Counter()
    for dump in dumps or lake.dumps():
        filtered = {record.slice for record in lake.records("filter", dump)}
        annotated = lake.records("annotate", dump)
        missing = [r.slice for r in annotated if r.slice not in filtered]
        if not annotated or missing:
            raise NotCommitted(
                f"dump {dump} has no decisions to compare with; run first: curation run CONFIG "
                f"--dump {dump} --to filter"
            )
        measure = partial(
            _file,
            lake=lake,
            rules=rules,
            config=config,
            histograms=perplexity_histograms(annotated),
        )
        parts: list[_Found] = []
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            for record in annotated:  # decisions of one slice at a time are in memory
                paths = [entry.path for entry in record.files_of("signals")]
                decided = _decisions(lake, dump, record.slice)
                parts += pool.map(measure, paths, repeat(decided))
        total = _Found()
        for part in parts:
            for language, sums in part.sums.items():
                total.sums.setdefault(language, _Sums()).add(sums)
            total.tokens.update(part.tokens)
            total.token_chars.update(part.token_chars)
            lost.update(part.rules)
        for language, sums in sorted(total.sums.items()):
            chars = total.token_chars[language]
            changes.append(
                Change(
                    dump,
                    language,
                    sums.before,
                    sums.after,
                    sums.gained,
                    sums.lost,
                    sums.chars_before,
                    sums.chars_after,
                    total.tokens[language] / chars if chars else None,
                )
            )
    return WhatIf(changes, dict(lost.most_common()))


@dataclass(frozen=True)
class _Decided:
    """The committed decisions of a slice; ids ascend."""

    kept: npt.NDArray[np.int64]
    kept_chars: npt.NDArray[np.int64]
    taken_down: npt.NDArray[np.int64]
    encoded: npt.NDArray[np.int64]
    num_tokens: npt.NDArray[np.int64]


def _decisions(lake: Lake, dump: str, slice: str) -> _Decided:
    kept = lake.table("kept", dump, slice).to_table(["doc_id", "num_chars"]).sort_by("doc_id")
    down = lake.table("rejects", dump, slice, stage="filter").to_table(
        ["doc_id"], filter=pc.field("rule") == "takedown"
    )
    tokens = lake.table("tokens", dump, slice).to_table(["doc_id", "num_tokens"]).sort_by("doc_id")
    return _Decided(
        kept["doc_id"].to_numpy(),
        kept["num_chars"].to_numpy(),
        np.sort(down["doc_id"].to_numpy()),
        tokens["doc_id"].to_numpy(),
        tokens["num_tokens"].to_numpy().astype(np.int64),
    )


def _file(
    path: str,
    decided: _Decided,
    *,
    lake: Lake,
    rules: Sequence[Rule],
    config: Config,
    histograms: Histograms,
) -> _Found:
    derived = PERPLEXITY_PERCENTILE.name
    bounded = {rule.signal for rule in rules}
    wanted = {"doc_id", "lang", "num_chars", "num_c4_chars_cut", *(bounded - {derived})}
    wanted |= {"perplexity_bin"} if derived in bounded else set()
    columns = [name for name in SIGNALS.names if name in wanted]
    rows = pq.read_table(lake.path / path, columns=columns, partitioning=None).combine_chunks()
    lang = rows["lang"].combine_chunks()
    if derived in bounded:
        bins = rows["perplexity_bin"].combine_chunks()
        rows = rows.append_column(derived, percentiles(bins, lang, histograms))
    ids = rows["doc_id"].to_numpy()
    rule = decide(rows.to_batches()[0], lang, rules).field("rule") if len(ids) else lang
    stays = np.asarray(pc.is_null(rule)) & ~_is_in(ids, decided.taken_down)
    was = _is_in(ids, decided.kept)
    chars = rows["num_chars"].to_numpy().astype(np.int64)
    if config.filter.cut_lines:
        chars = chars - rows["num_c4_chars_cut"].to_numpy()
    chars_before = np.zeros(len(ids), np.int64)
    chars_before[was] = _values(ids[was], decided.kept, decided.kept_chars)
    encoded = _is_in(ids, decided.encoded)
    num_tokens = np.zeros(len(ids), np.int64)
    num_tokens[encoded] = _values(ids[encoded], decided.encoded, decided.num_tokens)
    found = _Found()
    names, code = np.unique(np.asarray(lang.fill_null("")), return_inverse=True)

    def by_language(values: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> list[int]:
        return [int(n) for n in np.bincount(code, values, len(names))]

    columns_of = zip(
        names.tolist(),
        by_language(was),
        by_language(stays),
        by_language(stays & ~was),
        by_language(was & ~stays),
        by_language(chars_before),
        by_language(np.where(stays, chars, 0)),
        by_language(num_tokens),
        by_language(np.where(encoded, chars_before, 0)),
        strict=True,
    )
    for name, *sums, tokens, token_chars in columns_of:
        found.sums[name] = _Sums(*sums)
        found.tokens[name], found.token_chars[name] = tokens, token_chars
    for row in pc.value_counts(rule.filter(pa.array(was & ~stays))).to_pylist():
        found.rules[row["values"]] += row["counts"]
    return found


def _is_in(ids: npt.NDArray[np.int64], ascending: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    place = np.searchsorted(ascending, ids)
    found = np.zeros(len(ids), np.bool_)
    inside = place < len(ascending)
    found[inside] = ascending[place[inside]] == ids[inside]
    return found


def _values(
    ids: npt.NDArray[np.int64], ascending: npt.NDArray[np.int64], values: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    return values[np.searchsorted(ascending, ids)]
