"""The arms of an ablation: one lake as releases of equal size, each a step of curation further.

    raw            every ingested document, as extracted
    deduplicated   without duplicates
    filtered       what the lake keeps, edited
    remixed        the same, in the mixture of a release

    <to>/arms/<arm>-<seed>/          num_tokens to train on; the sample follows from the seed
    <to>/arms/held-out-unfiltered/   pages of held-out hosts, without duplicates
    <to>/arms/held-out-filtered/     of these what the lake keeps, edited

Hosts are held out as the release holds them out, and no held-out document is near any document that
an arm may hold. A retained document is drawn along with all its duplicates, so a sample of `raw`
has as many of them as the lake; of equal tokens, the cleaner arms then hold more distinct text.

The driver holds a row for every document of a sample, so num_tokens is bounded by its memory (some
50 bytes a document); the lake is not.
"""

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation import models
from curation.config import Config, ReleaseConfig, load
from curation.engine import session as spark
from curation.engine.kept import KeptPart, on_parts
from curation.engine.lake import Lake
from curation.engine.release import (
    Cuts,
    budgets_and_cuts,
    committed_tokens,
    keys_of_encoded,
    marked_documents,
    near_documents,
    published,
    taken_copies,
    write_shards,
)
from curation.engine.run import parts_of
from curation.engine.stages import digest
from curation.engine.tasks import read_between, scan
from curation.errors import ConfigError, LakeCorrupt, MixtureInfeasible
from curation.remix import mixture, split
from curation.schemas import DOCUMENTS, spark_ddl
from curation.tokens import shards
from curation.tokens import tokenizer as tokenizers
from curation.tokens.packing import document_hash

RAW, DEDUPLICATED, FILTERED, REMIXED = ARMS = ("raw", "deduplicated", "filtered", "remixed")
HELD_OUT = ("held-out-unfiltered", "held-out-filtered")

# Documents are drawn by another hash than they are ordered by.
DRAW_SALT = 0xAB1A7E
# More is encoded than drawn: tokens of any language have fewer bytes on average, with a margin for
# the spread of a sample.
BYTES_PER_TOKEN = 8
MARGIN = 1.5

ENCODED = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("twin_id", pa.int64()),  # the retained document; its own id where it is retained
        ("is_held", pa.bool_()),
        ("num_tokens", pa.int32()),
        ("input_ids", pa.list_(pa.int32())),
    ]
)
TAKEN = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("split", pa.string()),
        ("copies", pa.int32()),
        ("partial_tokens", pa.int32()),
    ]
)
DRAWN = "doc_id bigint, twin_id bigint, num_tokens int"
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Arms:
    """What `make_arms` made."""

    folder: Path
    seeds: Sequence[int]

    def arm(self, name: str, seed: int) -> Path:
        """Return the release of an arm."""
        return self.folder / f"{name}-{seed}"

    def held_out(self, name: str) -> Path:
        """Return a release of held-out documents."""
        return self.folder / name


def make_arms(
    config: Config, release_name: str, to: Path, num_tokens: int, seeds: Sequence[int]
) -> Arms:
    """Write the arms of every seed and the held-out documents, or what of them is missing.

    Raises ConfigError for a release without validation hosts, for a number of tokens that is no
    multiple of its row length, and for an arm that has fewer; NotCommitted when the lake is not
    encoded; LakeCorrupt when the folder holds the arms of another lake or of other settings.
    """
    holder = config.release_named(release_name)
    if holder.validation_share == 0:
        raise ConfigError(
            f"release {release_name} holds out no hosts, but an ablation is judged on some; set "
            f"validation_share in [release.{release_name}], for example to 0.1"
        )
    if num_tokens < 1 or num_tokens % holder.sequence_length:
        raise ConfigError(
            f"num_tokens = {num_tokens} is no multiple of the {holder.sequence_length} tokens of "
            f"a row; take {max(1, num_tokens // holder.sequence_length) * holder.sequence_length}"
        )
    lake = Lake(config.lake)
    lake_keys = keys_of_encoded(config, lake, "an ablation")
    arms = Arms(to / "arms", tuple(seeds))
    arms.folder.mkdir(parents=True, exist_ok=True)
    with lake.lock():
        _Maker(config, lake, holder, num_tokens, arms, lake_keys).make()
    return arms


def releases(
    config: str, release: str, to: str, num_tokens: int, num_seeds: int
) -> tuple[dict[str, list[Path]], dict[str, Path]]:
    """Make the arms of a configuration file, and end the session: training needs no executors.

    Returns the releases to train on, by arm, and those to judge by. Raises what `make_arms` does.
    """
    made = make_arms(load(Path(config)), release, Path(to), num_tokens, range(num_seeds))
    spark.stop()
    return (
        {arm: [made.arm(arm, seed) for seed in made.seeds] for arm in ARMS},
        {name: made.held_out(name) for name in HELD_OUT},
    )


class _Maker:
    """Makes what is missing of the arms."""

    def __init__(
        self,
        config: Config,
        lake: Lake,
        holder: ReleaseConfig,
        num_tokens: int,
        arms: Arms,
        lake_keys: Mapping[str, str],
    ) -> None:
        self.config, self.lake, self.arms = config, lake, arms
        self.holder = holder  # which hosts it holds out, in which mixture
        self.release = replace(  # how an arm is written
            holder, num_tokens=num_tokens, num_shards=1, shortage="error", validation_share=0.0
        )
        settings = json.loads(json.dumps([vars(self.release), vars(holder)], default=dict))
        self.lake_keys = {**lake_keys, "ablation": digest(settings)}
        self.tokenizer = tokenizers.load(models.resolve(config.encode.tokenizer))

    def make(self) -> None:
        folders = [self.arms.arm(arm, seed) for arm in ARMS for seed in self.arms.seeds]
        folders += map(self.arms.held_out, HELD_OUT)
        if all([self._is_made(folder) for folder in folders]):
            return
        session = spark.start()
        scratch = self.arms.folder / f".encoded.{uuid.uuid4().hex[:12]}"
        for dead in self.arms.folder.glob(".encoded.*"):  # killed; we hold the lock
            shutil.rmtree(dead)
        try:
            self._make_from(session, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _make_from(self, session: SparkSession, scratch: Path) -> None:
        tokens = committed_tokens(session, self.lake)
        with spark.described(session, "ablation: encode", _silent):
            parts = _ingested_parts(self.lake)
            encode = partial(
                _encode,
                lake=str(self.lake.path),
                batch_rows=self.config.engine.batch_rows,
                tokenizer=self.config.encode.tokenizer,
                sha256=models.sha256(self.config.encode.tokenizer),
                holder=self.holder,
                seeds=self.arms.seeds,
                limits=self._limits(),
            )
            on_parts(session, parts, encode, spark_ddl(ENCODED)).write.parquet(
                spark.on_disk(scratch)
            )
            encoded = spark.parquet(session, ENCODED, [str(scratch)])
            marked = marked_documents(
                tokens, spark.num_duplicates(session, self.lake), self.holder
            ).persist()
        try:
            with spark.described(session, "ablation: held-out documents", _silent):
                self._make_held_out(session, tokens, encoded)
            for seed in self.arms.seeds:
                with spark.described(session, f"ablation: arms of seed {seed}", _silent):
                    self._make_arms_of(seed, tokens, encoded, marked)
        finally:
            marked.unpersist()

    def _limits(self) -> "_Limits":
        """Return which share of the documents is enough, by the bytes that the lake has."""
        wanted = BYTES_PER_TOKEN * MARGIN
        to_train = self.release.num_tokens * wanted
        held = self.holder.validation_tokens * wanted / self.holder.validation_share
        num_bytes = {
            stage: sum(record.num_bytes["kept"] for record in self.lake.records(stage))
            for stage in ("ingest", "dedup")
        }
        rest = 1 - self.holder.validation_share
        return _Limits(
            raw=to_train / max(num_bytes["ingest"] * rest, 1),
            unique=to_train / max(num_bytes["dedup"] * rest, 1),
            held=held / max(num_bytes["dedup"], 1),
        )

    # ---- held-out documents --------------------------------------------------------------------

    def _make_held_out(self, session: SparkSession, tokens: DataFrame, encoded: DataFrame) -> None:
        documents = spark.table(session, self.lake, "ingest", DOCUMENTS)
        assert documents is not None  # there are tokens
        train = documents.select("doc_id", "host").mapInArrow(
            partial(_of_other_hosts, holder=self.holder), "doc_id bigint"
        )
        held = encoded.where(F.col("is_held"))
        near = near_documents(session, self.lake, held, train, self.config.dedup.threshold)
        rows = held.select("doc_id", "twin_id", "num_tokens").toArrow()
        rows = rows.filter(pc.invert(pc.is_in(rows["doc_id"], pa.array(near))))
        kept = tokens.select("doc_id", F.col("doc_id").alias("twin_id"), "num_tokens")
        kept_rows = kept.join(F.broadcast(held.select("doc_id")), on="doc_id", how="semi")
        kept_rows = kept_rows.select("doc_id", "twin_id", "num_tokens").toArrow()
        kept_rows = kept_rows.filter(pc.is_in(kept_rows["doc_id"], rows["doc_id"].combine_chunks()))
        for name, found, source in zip(HELD_OUT, (rows, kept_rows), (encoded, tokens), strict=True):
            available = _num_tokens(found)
            if available == 0:
                raise MixtureInfeasible(
                    f"{name} has no document: none of the held-out hosts' is unlike those of the "
                    "other hosts and kept; raise validation_share or change the release's seed"
                )
            wanted = min(available, self.holder.validation_tokens)
            taken = _drawn(found, wanted, self.holder.seed, shards.VALIDATION)
            self._write(self.arms.held_out(name), source, taken, self.holder.seed)

    # ---- arms ----------------------------------------------------------------------------------

    def _make_arms_of(
        self, seed: int, tokens: DataFrame, encoded: DataFrame, marked: DataFrame
    ) -> None:
        to_train = encoded.where(~F.col("is_held")).select("doc_id", "twin_id", "num_tokens")
        rows = to_train.toArrow()
        unique = rows.filter(pc.equal(rows["doc_id"], rows["twin_id"]))
        kept = tokens.select("doc_id", "host", "num_tokens").mapInArrow(
            partial(_kept, holder=self.holder, seed=seed, share=self._kept_share()), DRAWN
        )
        for arm, found, source in (
            (RAW, rows, encoded),
            (DEDUPLICATED, unique, encoded),
            (FILTERED, kept.toArrow(), tokens),
        ):
            available = _num_tokens(found)
            if available < self.release.num_tokens:
                raise ConfigError(
                    f"arm {arm} has {available:,} tokens, fewer than num_tokens = "
                    f"{self.release.num_tokens:,}; lower it, so that no arm repeats a document"
                )
            taken = _drawn(found, self.release.num_tokens, seed, shards.TRAIN)
            self._write(self.arms.arm(arm, seed), source, taken, seed)
        self._write(self.arms.arm(REMIXED, seed), tokens, self._remixed(marked, seed), seed)

    def _kept_share(self) -> float:
        """Return which share of the kept documents is enough."""
        total = sum(
            sum(record.counts.get("tokens", {}).values()) for record in self.lake.records("encode")
        )
        wanted = self.release.num_tokens * MARGIN
        return wanted / max(total * (1 - self.holder.validation_share), 1)

    def _remixed(self, marked: DataFrame, seed: int) -> pa.Table:
        """Return how often the mixture takes which document, as a release would with this seed."""
        own = replace(self.release, seed=seed)
        to_train = marked.where(F.col("component") != mixture.HELD_OUT)
        _, _, cuts = budgets_and_cuts(to_train, own)
        taken = to_train.mapInArrow(partial(_remixed, cuts=cuts, seed=seed), spark_ddl(TAKEN))
        return taken.toArrow().sort_by("doc_id")

    # ---- writing -------------------------------------------------------------------------------

    def _write(self, folder: Path, source: DataFrame, taken: pa.Table, seed: int) -> None:
        if folder.exists():
            return
        is_held = taken["split"][0].as_py() == shards.VALIDATION
        release = replace(self.release, seed=seed, validation_share=float(is_held))
        attempt = uuid.uuid4().hex[:12]
        with published(folder, self.config.encode.tokenizer, attempt) as unfinished:
            reader = partial(_between, taken=taken.combine_chunks())
            files = write_shards(source, reader, release, unfinished, self.tokenizer.eos_id)
            vocabulary = tokenizers.padded(self.tokenizer.vocab_size, release.vocab_multiple)
            manifest = shards.Manifest(
                name=folder.name,
                sequence_length=release.sequence_length,
                num_shards=release.num_shards,
                packing=release.packing,
                seed=seed,
                tokenizer_sha256=models.sha256(self.config.encode.tokenizer),
                vocab_size=self.tokenizer.vocab_size,
                model_vocab_size=vocabulary,
                eos_id=self.tokenizer.eos_id,
                files=tuple(files),
                lake=str(self.lake.path),
                lake_keys=self.lake_keys,
            )
            shards.write_manifest(unfinished, manifest)

    def _is_made(self, folder: Path) -> bool:
        if not folder.exists():
            return False
        if shards.read_manifest(folder).lake_keys != self.lake_keys:
            raise LakeCorrupt(
                f"{folder} was made from another state of the lake or with other settings; choose "
                "another folder, or delete it"
            )
        return True


@dataclass(frozen=True)
class _Limits:
    """Shares of documents, by the hash of what they are drawn by, that are enough to draw from."""

    raw: float
    unique: float
    held: float


def _silent(num_done: int, num_tasks: int) -> None:
    """The Spark UI shows tasks."""


def _ingested_parts(lake: Lake) -> list[KeptPart]:
    """Return a part for every file of documents, with the duplicates among them."""
    found: list[KeptPart] = []
    for record in lake.records("ingest"):
        names = [f"ingest/{record.dump}/{record.slice}", f"dedup/{record.dump}/all"]
        for part in parts_of(lake, names, "documents", record.slice):
            found.append(KeptPart(record.dump, record.slice, replace(part, number=len(found))))
    return found


def _encode(
    part: KeptPart,
    lake: str,
    batch_rows: int,
    tokenizer: str,
    sha256: str,
    holder: ReleaseConfig,
    seeds: Sequence[int],
    limits: _Limits,
) -> Iterator[pa.RecordBatch]:
    """Yield the tokens of documents as they were ingested: those that a seed may draw."""
    encoder = tokenizers.load_once(tokenizer, sha256)
    duplicates = read_between(part.part, "documents", "duplicates", ["doc_id", "twin_id"], lake)
    for rows in scan(part.part, "documents", ["doc_id", "host", "text"], lake, batch_rows):
        doc_ids = rows["doc_id"].to_numpy()
        place = pc.index_in(rows["doc_id"], duplicates["doc_id"]).combine_chunks()
        is_unique = np.asarray(place.is_null())
        twin_ids = pc.coalesce(duplicates["twin_id"].take(place), rows["doc_id"]).to_numpy()
        host = rows["host"].combine_chunks()
        is_held = split.held_out(host, doc_ids, holder.validation_share, holder.seed)
        may_train = np.zeros(len(doc_ids), np.bool_)
        for seed in seeds:
            may_train |= _draw(twin_ids, seed) < np.where(is_unique, limits.unique, limits.raw)
        may_judge = is_unique & (_draw(twin_ids, holder.seed) < limits.held)
        chosen = pa.array(np.where(is_held, may_judge, may_train))
        input_ids = tokenizers.encode(rows["text"].combine_chunks().filter(chosen), encoder)
        yield pa.record_batch(
            [
                pa.array(doc_ids).filter(chosen),
                pa.array(twin_ids).filter(chosen),
                pa.array(is_held).filter(chosen),
                pc.list_value_length(input_ids),
                input_ids,
            ],
            schema=ENCODED,
        )


def _draw(twin_ids: Int64Array, seed: int) -> npt.NDArray[np.float64]:
    """Return where documents lie in the order of a seed's draw: in [0, 1), alike for duplicates."""
    salted = (seed + DRAW_SALT) % 2**63
    return document_hash(twin_ids, np.zeros(len(twin_ids), np.int32), salted) / 2.0**64


def _kept(
    batches: Iterator[pa.RecordBatch], holder: ReleaseConfig, seed: int, share: float
) -> Iterator[pa.RecordBatch]:
    """Yield the kept documents to train on that a seed may draw."""
    for batch in batches:
        ids = batch["doc_id"]
        doc_ids = ids.to_numpy()
        is_held = split.held_out(batch["host"], doc_ids, holder.validation_share, holder.seed)
        rows = pa.record_batch(
            [ids, ids, batch["num_tokens"]], names=["doc_id", "twin_id", "num_tokens"]
        )
        yield rows.filter(pa.array(~is_held & (_draw(doc_ids, seed) < share)))


def _of_other_hosts(
    batches: Iterator[pa.RecordBatch], holder: ReleaseConfig
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        doc_ids = batch["doc_id"].to_numpy()
        is_held = split.held_out(batch["host"], doc_ids, holder.validation_share, holder.seed)
        yield batch.select(["doc_id"]).filter(pa.array(~is_held))


def _remixed(batches: Iterator[pa.RecordBatch], cuts: Cuts, seed: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        doc_ids, weight = (batch[name].to_numpy() for name in ("doc_id", "weight"))
        whole, part = taken_copies(doc_ids, batch["component"], weight, cuts, seed)
        rows = pa.record_batch(
            [
                batch["doc_id"],
                pa.array([shards.TRAIN] * len(whole)),
                pa.array(whole),
                pa.array(part),
            ],
            schema=TAKEN,
        )
        yield rows.filter(pa.array((whole > 0) | (part > 0)))


def _num_tokens(rows: pa.Table) -> int:
    """Return the tokens of documents, with an end of text each."""
    total: int = pc.sum(pc.add(rows["num_tokens"], 1)).as_py() or 0
    return total


def _drawn(rows: pa.Table, num_tokens: int, seed: int, which: str) -> pa.Table:
    """Return which documents a seed draws to make up num_tokens, by doc_id; the last one is cut."""
    doc_ids = rows["doc_id"].to_numpy()
    order = np.lexsort((doc_ids, _draw(rows["twin_id"].to_numpy(), seed)))
    size = rows["num_tokens"].to_numpy()[order].astype(np.int64) + 1
    before = np.cumsum(size) - size
    order, size, before = (each[before < num_tokens] for each in (order, size, before))
    is_whole = before + size <= num_tokens
    columns: list[Any] = [
        doc_ids[order],
        pa.array([which] * len(order)),
        is_whole.astype(np.int32),
        np.where(is_whole, 0, num_tokens - before).astype(np.int32),
    ]
    return pa.table(columns, schema=TAKEN).sort_by("doc_id")


def _between(first: int, last: int, taken: pa.Table) -> pa.Table:
    """Return the rows of documents of a range of ids."""
    doc_ids = taken["doc_id"].to_numpy()
    start, stop = np.searchsorted(doc_ids, first), np.searchsorted(doc_ids, last, side="right")
    return taken.slice(int(start), int(stop - start)).combine_chunks()
