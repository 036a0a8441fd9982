"""DeepSeekMath's recall loop: from a few pages of a domain to all of it (arXiv 2402.03300, 2.1).

    1. train     the seed, and pages of the hosts that joined it, against other pages
    2. rank      every page by its probability; the best of the other hosts' pages are candidates
    3. join      hosts of which more than a tenth are candidates bring all pages into the seed
    4. collect   what is more likely of the domain than not
    5. again     until a round collects hardly anything new

There, people looked through the URLs of a host before its pages joined. Here `host_share` and
`min_host_pages` decide alone, so read the report: it names every host that joined.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from curation.errors import ConfigError, InputMissing
from curation.quality.tools import check_numbers
from curation.remix import domain_classifier
from curation.remix.domain_classifier import Training

OTHER = "other"
SCORES_SCHEMA = pa.schema([("doc_id", pa.int64()), ("host", pa.string()), ("score", pa.float64())])
SCORE_BINS = 1 << 16
MIN_OTHERS = 200  # texts of other pages, however small the seed, but at most
OTHERS_SHARE = 1 / 3  # of them: among those are pages of the domain, which are to be found

# Parts of words carry a domain from one site to the next: "ring", "subring", "ringList".
TRAINING = Training(lr=0.5, epoch=25, dim=64, min_chars=4, max_chars=6)

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recall:
    """How the loop runs. 4 rounds, a tenth of a host, 500,000 texts a side: DeepSeekMath's.

    The other two numbers were found on bench-mix (tests/bench/domains.py), which also judges.
    """

    rounds: int = 4
    candidate_share: float = 0.05  # of the pages of hosts that have not joined
    host_share: float = 0.1  # of a host's pages that are candidates
    min_host_pages: int = 10  # that are candidates: 2 of 15 pages are chance
    min_score: float = 0.5
    max_texts: int = 500_000
    stop_share: float = 0.98


class Corpus(Protocol):
    """The pages that are searched."""

    num_pages: int

    def lines(self, hosts: frozenset[str], joined: bool, share: float) -> Iterator[str]:
        """Yield `features` of a share of the pages of these hosts, or of the others, by hash."""

    def score(self, card: Path, label: str, to: Path) -> None:
        """Write SCORES_SCHEMA as Parquet files into a folder: how probable the label is."""


@dataclass
class Round:
    """What a round did."""

    number: int
    num_seeds: int  # pages that it was trained on
    num_others: int
    threshold: float  # of candidates
    num_candidates: int
    num_collected: int
    known_share: float  # of the collected ones, that the round before had collected
    joined: dict[str, tuple[int, int]] = field(default_factory=dict)  # host: candidates, pages


def recall(
    seed: Iterable[Sequence[str]],
    corpus: Corpus,
    label: str,
    to: Path,
    *,
    settings: Recall = Recall(),
    training: Training = TRAINING,
    tell: Callable[[Round], None] = lambda _: None,
) -> list[Round]:
    """Run the loop; write the classifier, what was collected, the hosts and the report to `to`.

    `LABEL.json` is the classifier's card, for `annotate.models`; `hosts.txt` is for
    `domains.host_file`; `collected` are Parquet files of SCORES_SCHEMA; `report.md`, `rounds.json`.
    Raises InputMissing for a seed without text and for a corpus without pages, ConfigError for
    numbers out of range.
    """
    _check(settings, label)
    seeds = [line for batch in seed for line in domain_classifier.features_of(batch)]
    if not seeds:
        raise InputMissing("the seed has no text; name pages of the domain")
    if corpus.num_pages == 0:
        raise InputMissing("the lake has no kept page to search; run the pipeline first")
    to.mkdir(parents=True, exist_ok=True)
    card = to / f"{label}.json"
    hosts: dict[str, tuple[int, int]] = {}
    before: Int64Array = np.zeros(0, np.int64)
    rounds: list[Round] = []
    for number in range(1, settings.rounds + 1):
        names = frozenset(hosts)
        num_joined = sum(num_pages for _, num_pages in hosts.values())
        found = [*seeds, *corpus.lines(names, True, settings.max_texts / max(num_joined, 1))]
        found = found[: settings.max_texts]
        num_others = max(corpus.num_pages - num_joined, 1)
        wanted = min(settings.max_texts, max(len(found), MIN_OTHERS), OTHERS_SHARE * num_others)
        others = list(corpus.lines(names, False, wanted / num_others))
        if rounds and len(others) < domain_classifier.MIN_TEXTS:
            break  # nearly all hosts have joined: there is nothing to tell the label from
        domain_classifier.train_lines({label: found, OTHER: others}, card, training=training)
        scores = to / "scores"
        for file in scores.glob("*.parquet"):
            file.unlink()
        scores.mkdir(exist_ok=True)
        corpus.score(card, label, scores)
        threshold = _threshold(scores, names, settings.candidate_share)
        collected, counts = _collect(scores, names, threshold, settings.min_score)
        num_candidates = sum(hit for host, (hit, _) in counts.items() if host not in hosts)
        known = np.isin(collected, before, assume_unique=True).sum() / max(len(collected), 1)
        joining = {
            host: (hit, num_pages)
            for host, (hit, num_pages) in sorted(counts.items())
            if host and host not in hosts and hit > settings.host_share * num_pages
            if hit >= settings.min_host_pages
        }
        sizes = (len(found), len(others), threshold, num_candidates, len(collected))
        rounds.append(Round(number, *sizes, float(known), joining))
        tell(rounds[-1])
        before = collected
        if known >= settings.stop_share:
            break
        hosts |= joining
    _write(to, label, rounds, before, hosts, settings)
    return rounds


def probability(found: domain_classifier.Labelled, label: str) -> pa.DoubleArray:
    """Return how probable `label` is, of a classifier of it and OTHER; 0 without a known word."""
    is_label = pc.equal(found.label, label)
    return pc.if_else(is_label, found.score, pc.subtract(1.0, found.score)).fill_null(0.0)


def _threshold(scores: Path, joined: frozenset[str], share: float) -> float:
    """Return the score that this share of the pages of other hosts has, or less: to 1 / 65,536."""
    bins = np.zeros(SCORE_BINS + 1, np.int64)
    for batch in _batches(scores):
        outside = ~np.asarray(_is_in(batch["host"], joined))
        found = np.floor(batch["score"].to_numpy()[outside] * SCORE_BINS).astype(np.int64)
        bins += np.bincount(found, minlength=SCORE_BINS + 1)
    from_top = np.cumsum(bins[::-1])  # pages at or above each bin, from the highest
    num_bins = int(np.searchsorted(from_top, share * bins.sum(), side="right"))
    return (SCORE_BINS + 1 - num_bins) / SCORE_BINS


def _collect(
    scores: Path, joined: frozenset[str], threshold: float, min_score: float
) -> tuple[Int64Array, dict[str, tuple[int, int]]]:
    """Return the collected pages, ascending, and by host its candidates and pages."""
    found: list[Int64Array] = [np.zeros(0, np.int64)]
    counts: dict[str, tuple[int, int]] = {}
    for batch in _batches(scores):
        score = batch["score"].to_numpy()
        is_candidate = score >= threshold
        inside = np.asarray(_is_in(batch["host"], joined))
        is_collected = (score >= min_score) & (inside | is_candidate)
        found.append(batch["doc_id"].to_numpy()[is_collected])
        hit = pa.array(is_candidate.astype(np.int64))
        rows = pa.table({"host": batch["host"], "hit": hit})
        summed = rows.group_by("host").aggregate([("hit", "sum"), ("hit", "count")])
        for host, num_hit, num_pages in zip(*summed.to_pydict().values(), strict=True):
            old = counts.get(host, (0, 0))
            counts[host] = (old[0] + num_hit, old[1] + num_pages)
    return np.sort(np.concatenate(found)), counts


def _batches(scores: Path) -> Iterator[pa.RecordBatch]:
    files = [str(file) for file in sorted(scores.glob("*.parquet"))]
    return iter(ds.dataset(files, schema=SCORES_SCHEMA).to_batches())


def _is_in(host: pa.Array, hosts: frozenset[str]) -> pa.Array:
    return pc.is_in(host, pa.array(sorted(hosts), pa.string()))


def _write(
    to: Path,
    label: str,
    rounds: Sequence[Round],
    collected: Int64Array,
    hosts: dict[str, tuple[int, int]],
    settings: Recall,
) -> None:
    folder = to / "scores"
    target = to / "collected"
    target.mkdir(exist_ok=True)
    for file in target.glob("*.parquet"):
        file.unlink()
    for file in sorted(folder.glob("*.parquet")):
        rows = pq.read_table(file)
        rows = rows.filter(pc.is_in(rows["doc_id"], pa.array(collected)))
        pq.write_table(rows, target / file.name)
        file.unlink()
    folder.rmdir()
    lines = [f"{host}  # {hit} of {num}" for host, (hit, num) in sorted(hosts.items())]
    (to / "hosts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    contents = {"label": label, "settings": asdict(settings), "rounds": [*map(asdict, rounds)]}
    (to / "rounds.json").write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    (to / "report.md").write_text(report(label, rounds), encoding="utf-8")


def report(label: str, rounds: Sequence[Round]) -> str:
    """Return the report of a loop as Markdown."""
    lines = [
        f"# Recall of {label}",
        "",
        "| round | trained on | others | threshold | candidates | collected | known before "
        "| hosts joined |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in rounds:
        lines.append(
            f"| {each.number} | {each.num_seeds:,} | {each.num_others:,} | {each.threshold:.3f} | "
            f"{each.num_candidates:,} | {each.num_collected:,} | {each.known_share:.1%} | "
            f"{len(each.joined):,} |"
        )
    for each in rounds:
        if each.joined:
            lines += ["", f"## Hosts that joined in round {each.number}", ""]
            lines += ["| host | candidates | pages | share |", "|---|---|---|---|"]
            for host, (hit, num) in sorted(each.joined.items(), key=lambda item: -item[1][1]):
                lines.append(f"| {host} | {hit:,} | {num:,} | {hit / num:.1%} |")
    return "\n".join(lines) + "\n"


def _check(settings: Recall, label: str) -> None:
    check_numbers(
        settings,
        (
            ("rounds", 1, 100),
            ("host_share", 0, 1),
            ("candidate_share", 1e-6, 1),
            ("min_host_pages", 1, 10**9),
            ("min_score", 0, 1),
            ("max_texts", 20, 100_000_000),
            ("stop_share", 0, 1),
        ),
    )
    if label == OTHER:
        raise ConfigError(f"the label {label!r} is that of all other pages; choose another")
