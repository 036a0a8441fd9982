"""The recall loop on the kept documents of a lake; the command line of jobs/recall_domain.py."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import models
from curation.engine import session as spark
from curation.engine.kept import KeptPart, kept_parts, on_parts
from curation.engine.lake import Lake
from curation.engine.train_models import SOURCE_HELP, add_numbers
from curation.engine.training_texts import read_texts
from curation.remix import domain_classifier, mixture, recall

HELP = "Find all pages of a domain from a few (the loop of DeepSeekMath)."
BATCH_ROWS = 1_000


class LakePages:
    """The kept pages of a lake, as the loop asks for them."""

    def __init__(self, lake: Lake) -> None:
        self.lake = str(lake.path)
        self.session = spark.start()
        self.parts = kept_parts(lake)
        kept = (record.rows["kept"] for record in lake.records("decontaminate"))
        self.num_pages = sum(kept)

    def lines(self, hosts: frozenset[str], joined: bool, share: float) -> Iterator[str]:
        """Yield the features of a share of the pages, by the hash of their ids."""
        if joined and not hosts:
            return
        work = partial(_lines, lake=self.lake, hosts=hosts, joined=joined, share=share)
        rows = on_parts(self.session, self.parts, work, "doc_id bigint, line string").toArrow()
        yield from rows.sort_by("doc_id")["line"].to_pylist()

    def score(self, card: Path, label: str, to: Path) -> None:
        """Score every page; one file a part."""
        digest = models.sha256(str(card))
        work = partial(
            _score, lake=self.lake, card=str(card.resolve()), digest=digest, label=label, to=str(to)
        )
        on_parts(self.session, self.parts, work, "num_pages bigint").collect()


def parser() -> argparse.ArgumentParser:
    """Return the options of the loop."""
    found = argparse.ArgumentParser(
        prog="recall",
        description=HELP,
        epilog="Example: curation recall --seed maths.jsonl --lake out/demo/lake --label maths "
        "--to out/maths",
    )
    found.add_argument(
        "--seed", action="append", required=True, metavar="SOURCE", help=f"pages: {SOURCE_HELP}"
    )
    found.add_argument("--lake", type=Path, required=True, help="the folder of a lake")
    found.add_argument("--label", required=True, help="name of the domain")
    found.add_argument("--to", type=Path, required=True, help="folder of all that it writes")
    add_numbers(
        found,
        recall.Recall(),
        ("rounds", "at most"),
        ("candidate-share", "best part of the other hosts' pages that may bring their host in"),
        ("host-share", "share of a host's pages that are candidates, above which it joins"),
        ("min-host-pages", "candidates that a host has at least to join"),
        ("min-score", "lowest probability of what is collected"),
        ("max-texts", "texts of a side that it trains on"),
        ("stop-share", "share that was collected before, from which it stops"),
    )
    add_numbers(
        found,
        recall.TRAINING,
        ("dim", "numbers of a word's vector"),
        ("lr", "learning rate"),
        ("epoch", "passes over the texts"),
        ("min-count", "occurrences of a word that is a feature"),
    )
    found.add_argument(
        "--training-seed",
        type=int,
        default=recall.TRAINING.seed,
        help=f"seed of fastText; default {recall.TRAINING.seed}",
    )
    return found


def recall_domain(arguments: Sequence[str] | None = None) -> list[recall.Round]:
    """Run the loop; see `curation.remix.recall.recall`."""
    options = parser().parse_args(arguments)
    settings = recall.Recall(
        **{name: getattr(options, name) for name in recall.Recall.__dataclass_fields__}
    )
    training = replace(
        recall.TRAINING,
        dim=options.dim,
        lr=options.lr,
        epoch=options.epoch,
        min_count=options.min_count,
        seed=options.training_seed,
    )
    return recall.recall(
        read_texts(options.seed),
        LakePages(Lake(options.lake)),
        options.label,
        options.to,
        settings=settings,
        training=training,
        tell=_tell,
    )


def show(to: Path, label: str, rounds: Sequence[recall.Round]) -> None:
    """Print what the loop did."""
    sys.stdout.write(recall.report(label, rounds) + f"\n{to / 'report.md'}\n")


def _tell(each: recall.Round) -> None:
    sys.stderr.write(
        f"round {each.number}: {each.num_collected:,} collected, {each.known_share:.0%} of them "
        f"before; {len(each.joined):,} hosts join\n"
    )


def _lines(
    part: KeptPart, lake: str, hosts: frozenset[str], joined: bool, share: float
) -> Iterator[pa.RecordBatch]:
    names = pa.array(sorted(hosts), pa.string())
    for rows in part.documents(lake, BATCH_ROWS, ["host"]):
        chosen = mixture.sampling_hash(rows["doc_id"].to_numpy(), 0) / 2.0**64 < share
        chosen &= np.asarray(pa.compute.is_in(rows["host"], names)) == joined
        rows = rows.filter(pa.array(chosen))
        lines = domain_classifier.features(rows["text"].combine_chunks())
        ids = rows["doc_id"].combine_chunks()
        yield pa.record_batch([ids, lines.cast(pa.string())], names=["doc_id", "line"])


def _score(
    part: KeptPart, lake: str, card: str, digest: str, label: str, to: str
) -> Iterator[pa.RecordBatch]:
    classifier = domain_classifier.load(card, digest)
    target = Path(to, f"{part.part.number:06d}.parquet")
    unfinished = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    num_pages = 0
    with pq.ParquetWriter(unfinished, recall.SCORES_SCHEMA) as writer:
        for rows in part.documents(lake, BATCH_ROWS, ["host"]):
            found = domain_classifier.classify(rows["text"].combine_chunks(), classifier)
            scores = recall.probability(found, label)
            columns = [rows["doc_id"], rows["host"], scores]
            writer.write_table(pa.table(columns, schema=recall.SCORES_SCHEMA))
            num_pages += rows.num_rows
    unfinished.replace(target)
    yield pa.record_batch([[num_pages]], names=["num_pages"])
