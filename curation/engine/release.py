"""A release: an immutable dataset of token shards, made from what the lake has committed.

    <shards>/<name>/manifest.json          what it is; its fingerprint names the dataset
    <shards>/<name>/shard-00000-of-00004.parquet

Summary: the tokens of each domain are summed; the mixture gives every domain its budget; histograms
by hash find where each budget ends; every copy of a document goes to the shard that its hash names;
one task writes a whole shard, in order of the hash. So the bytes do not depend on the cluster.
"""

import glob
import itertools
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation import models
from curation.config import Config, ReleaseConfig
from curation.engine import session as spark
from curation.engine.lake import WHOLE_DUMP, Lake, RunRecord, TableWriter
from curation.engine.run import Reporter, Silence, release_unit
from curation.engine.stages import Unit, digest, plan
from curation.engine.tasks import Context, Outcome, sorted_runs
from curation.errors import ConservationError, LakeCorrupt, NotCommitted, NotFound
from curation.remix import mixture
from curation.schemas import DUPLICATES, TOKENS, spark_ddl
from curation.tokens import shards
from curation.tokens import tokenizer as tokenizers

COPY_SCHEMA = pa.schema([("shard", pa.int32()), ("place", pa.int64()), *shards.DOCUMENTS_SCHEMA])
SUM_SCHEMA = pa.schema(
    [("domain", pa.string()), ("bucket", pa.int64()), ("num_tokens", pa.int64())]
)
ENTRY_DDL = "path string, rows bigint, tokens bigint, bytes bigint, sha256 string"
ENTRY = pa.schema(
    [
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("tokens", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)
Cuts = Mapping[str, tuple[int, mixture.Cut]]  # domain -> whole copies, where the rest ends


def make_release(config: Config, name: str, *, reporter: Reporter | None = None) -> shards.Manifest:
    """Write the release `name` of the configuration, or return it when it exists already.

    Raises ConfigError for an unknown release, NotCommitted when a dump is not encoded,
    MixtureInfeasible when a domain has too few tokens, LakeCorrupt when another release has the
    name: a release never changes.
    """
    release = config.release_named(name)
    reporter = reporter or Silence()
    lake = Lake(config.lake)
    units = plan(config, lake, first="encode", last="encode")
    for unit in units:
        if not unit.committed:
            raise NotCommitted(
                f"release {name} needs {unit.name}, which has not run under this configuration; "
                "run first: curation run CONFIG"
            )
    lake_keys = {unit.name: unit.key for unit in units}
    folder = Path(config.shards) / name
    if folder.exists():
        return _existing(folder, name, release, lake_keys)
    with lake.lock():
        unit = release_unit(name, _settings(release), lake_keys)
        reporter.planned([unit])
        reporter.began(unit)
        session = spark.start()
        with spark.described(session, unit.name, partial(reporter.progressed, unit)):
            manifest, record = _make(session, config, lake, unit, folder)
        reporter.committed(unit, record)
    return manifest


def _existing(
    folder: Path, name: str, release: ReleaseConfig, lake_keys: Mapping[str, str]
) -> shards.Manifest:
    try:
        manifest = shards.read_manifest(folder)
    except NotFound:
        raise LakeCorrupt(
            f"{folder} exists, but holds no manifest, so it is no release; delete it, or choose "
            "another name"
        ) from None
    if manifest.lake_keys != {**lake_keys, "release": digest(_settings(release))}:
        raise LakeCorrupt(
            f"{folder} holds a release made from another state of the lake or other settings; "
            "a release never changes: choose another name, or delete that folder"
        )
    return manifest


def _settings(release: ReleaseConfig) -> dict[str, Any]:
    return {
        "shares": dict(release.shares),
        "num_tokens": release.num_tokens,
        "max_epochs": release.max_epochs,
        "sequence_length": release.sequence_length,
        "num_shards": release.num_shards,
        "seed": release.seed,
    }


def _make(
    session: SparkSession, config: Config, lake: Lake, unit: Unit, folder: Path
) -> tuple[shards.Manifest, RunRecord]:
    release = config.release[unit.dump]
    started = time.time()
    attempt = uuid.uuid4().hex[:12]
    entries = [entry for record in lake.records("encode") for entry in record.files_of("tokens")]
    if not entries:
        raise NotCommitted(
            "the lake holds no tokens: every document was rejected; see curation show"
        )
    paths = [str(lake.path / entry.path) for entry in entries]
    tokens = spark.parquet(session, TOKENS, paths)
    slim = tokens.select("doc_id", "domain", "num_tokens").where(
        F.col("domain").isin(list(release.shares))
    )
    budgets, cuts = _budgets(slim, release)

    context = Context(str(lake.path), "release", unit.dump, WHOLE_DUMP, attempt, config, {})
    outcome = _write_mixture(session, lake, slim, cuts, release, context)

    tokenizer = tokenizers.load(models.resolve(config.encode.tokenizer))
    for dead in folder.parent.glob(f".{glob.escape(folder.name)}.*"):  # killed; we hold the lock
        shutil.rmtree(dead)
    unfinished = folder.with_name(f".{folder.name}.{attempt}")
    unfinished.mkdir(parents=True)
    try:
        files = _write_shards(tokens, cuts, release, unfinished, tokenizer.eos_id)
        manifest = shards.Manifest(
            name=unit.dump,
            sequence_length=release.sequence_length,
            num_shards=release.num_shards,
            seed=release.seed,
            tokenizer_sha256=models.sha256(config.encode.tokenizer),
            eos_id=tokenizer.eos_id,
            files=tuple(files),
            mixture={
                domain: {
                    "share": release.shares[domain],
                    "available_tokens": budget.available,
                    "tokens": budget.tokens,
                    "epochs": budget.epochs,
                }
                for domain, budget in budgets.items()
            },
            lake_keys={**unit.inputs, "release": digest(_settings(release))},
        )
        wanted = sum(budget.tokens for budget in budgets.values())
        if manifest.tokens != wanted:
            raise ConservationError(
                f"release {unit.dump} has {manifest.tokens} tokens, its budgets sum to {wanted}; "
                "nothing was published. This is a defect: please report it"
            )
        shards.write_manifest(unfinished, manifest)
        record = RunRecord(
            stage="release",
            dump=unit.dump,
            slice=WHOLE_DUMP,
            key=unit.key,
            attempt=attempt,
            stage_version=unit.stage.version,
            inputs=dict(unit.inputs),
            settings=dict(unit.settings),
            artifacts={config.encode.tokenizer: manifest.tokenizer_sha256},
            packages={},
            started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            seconds=round(time.time() - started, 3),
            rows={"in": outcome.rows["in"], "kept": outcome.rows["in"], "rejected": 0},
            num_bytes={"in": 0, "kept": 0, "removed": 0},
            counts={"tokens": {name: budget.tokens for name, budget in budgets.items()}},
            files=tuple(outcome.files),
        )
        lake.commit(record)
        os.rename(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest, record


# ---- the mixture -------------------------------------------------------------------------------


def _budgets(slim: DataFrame, release: ReleaseConfig) -> tuple[dict[str, mixture.Budget], Cuts]:
    """Plan the budgets and find where each ends. The driver sees sums by domain and hash bucket."""
    sums: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}
    hashed = slim.mapInArrow(partial(_sum_buckets, seed=release.seed), spark_ddl(SUM_SCHEMA))
    for row in hashed.groupBy("domain", "bucket").agg(F.sum("num_tokens").alias("n")).collect():
        table = sums.setdefault(row["domain"], np.zeros(1 << mixture.HISTOGRAM_BITS, np.int64))
        table[row["bucket"]] = row["n"]
    available = {domain: int(table.sum()) for domain, table in sums.items()}
    for domain in release.shares:
        available.setdefault(domain, 0)
    budgets = mixture.plan(
        available, release.shares, release.max_epochs, release.num_tokens or None
    )
    places = {
        domain: mixture.locate(sums[domain], budget.remainder) for domain, budget in budgets.items()
    }
    wanted = [f"{domain}/{bucket}" for domain, (bucket, _) in places.items()]
    bucket_rows = (
        slim.mapInArrow(
            partial(_in_buckets, seed=release.seed, wanted=frozenset(wanted)),
            "domain string, doc_id bigint, num_tokens bigint",
        )
        .toArrow()
        .combine_chunks()
    )
    cuts = {}
    for domain, budget in budgets.items():
        rows = bucket_rows.filter(pc.equal(bucket_rows["domain"], domain))
        doc_ids = rows["doc_id"].to_numpy()
        cuts[domain] = (
            budget.full_copies,
            mixture.cut(
                mixture.sampling_hash(doc_ids, release.seed),
                doc_ids,
                rows["num_tokens"].to_numpy(),
                budget.remainder - places[domain][1],
            ),
        )
    return budgets, cuts


def _with_end(batch: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Tokens of each document in a shard: its own and the end-of-text token."""
    num_tokens: np.ndarray[Any, np.dtype[np.int64]] = batch["num_tokens"].to_numpy()
    return num_tokens.astype(np.int64) + 1


def _sum_buckets(batches: Iterator[pa.RecordBatch], seed: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        hashes = mixture.sampling_hash(batch["doc_id"].to_numpy(), seed)
        yield pa.record_batch(
            [
                batch["domain"],
                pa.array(mixture.buckets(hashes)),
                pa.array(_with_end(batch)),
            ],
            schema=SUM_SCHEMA,
        )


def _in_buckets(
    batches: Iterator[pa.RecordBatch], seed: int, wanted: frozenset[str]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        bucket = mixture.buckets(mixture.sampling_hash(batch["doc_id"].to_numpy(), seed))
        names = zip(batch["domain"].to_pylist(), bucket.tolist(), strict=True)
        mask = pa.array([f"{domain}/{b}" in wanted for domain, b in names], pa.bool_())
        rows = pa.record_batch(
            [batch["domain"], batch["doc_id"], pa.array(_with_end(batch))],
            names=["domain", "doc_id", "num_tokens"],
        )
        yield rows.filter(mask)


def _copies(
    doc_ids: np.ndarray[Any, np.dtype[np.int64]], domains: pa.Array, cuts: Cuts, seed: int
) -> tuple[np.ndarray[Any, np.dtype[np.int32]], np.ndarray[Any, np.dtype[np.int32]]]:
    """Return whole copies and partial tokens of documents of several domains."""
    hashes = mixture.sampling_hash(doc_ids, seed)
    whole = np.zeros(len(doc_ids), np.int32)
    part = np.zeros(len(doc_ids), np.int32)
    names = np.array(domains.to_pylist(), dtype=object)
    for domain, (full_copies, cut) in cuts.items():
        here = names == domain
        whole[here], part[here] = mixture.copies(hashes[here], doc_ids[here], full_copies, cut)
    return whole, part


def _write_mixture(
    session: SparkSession,
    lake: Lake,
    slim: DataFrame,
    cuts: Cuts,
    release: ReleaseConfig,
    context: Context,
) -> Outcome:
    """Write how often the release takes each document, with its duplicates counted."""
    entries = [e for record in lake.records("dedup") for e in record.files_of("duplicates")]
    paths = [str(lake.path / entry.path) for entry in entries]
    if paths:
        named = spark.parquet(session, DUPLICATES, paths)
        named = named.groupBy(F.col("twin_id").alias("doc_id")).count()
        slim = slim.join(named, on="doc_id", how="left")
    else:
        slim = slim.withColumn("count", F.lit(None).cast("bigint"))
    rows = slim.select("doc_id", "domain", "num_tokens", "count").repartition("doc_id")
    rows = rows.sortWithinPartitions("doc_id")
    worker = partial(
        _mixture_rows, cuts=cuts, shares=dict(release.shares), seed=release.seed, context=context
    )
    return spark.outcome_of(rows, worker)


def _mixture_rows(
    batches: Iterator[pa.RecordBatch],
    cuts: Cuts,
    shares: Mapping[str, float],
    seed: int,
    context: Context,
) -> Iterator[pa.RecordBatch]:
    from pyspark import TaskContext

    task = TaskContext.get()
    part = f"{task.partitionId():05d}-{task.taskAttemptId()}" if task else "00000-0"
    name = f"{context.attempt}-part-{part}"
    writer = TableWriter(context.lake, "mixture", "release", context.dump, WHOLE_DUMP, name)
    outcome = Outcome()
    for batch in batches:
        whole, partial_tokens = _copies(batch["doc_id"].to_numpy(), batch["domain"], cuts, seed)
        share = [shares[domain] for domain in batch["domain"].to_pylist()]
        writer.write(
            pa.table(
                {
                    "doc_id": batch["doc_id"],
                    "domain": batch["domain"],
                    "num_tokens": batch["num_tokens"],
                    "copies": pa.array(whole),
                    "partial_tokens": pa.array(partial_tokens),
                    "share": pa.array(share, pa.float64()),
                    "num_duplicates": batch["count"].fill_null(0),
                }
            )
        )
        outcome.rows["in"] += batch.num_rows
    entry = writer.close()
    if entry is not None:
        outcome.files.append(entry)
    yield outcome.to_batch()


# ---- the shards --------------------------------------------------------------------------------


def _write_shards(
    tokens: DataFrame, cuts: Cuts, release: ReleaseConfig, folder: Path, eos_id: int
) -> list[shards.ShardEntry]:
    """Send every copy to its shard and write each shard in one task."""
    documents = tokens.select("doc_id", "domain", "input_ids").mapInArrow(
        partial(_repeat, cuts=cuts, seed=release.seed, num_shards=release.num_shards),
        spark_ddl(COPY_SCHEMA),
    )
    ordered = documents.repartition(release.num_shards, "shard").sortWithinPartitions(
        "shard", "place", "doc_id", "copy"
    )
    write = partial(
        _write_whole_shards,
        folder=str(folder),
        num_shards=release.num_shards,
        sequence_length=release.sequence_length,
        eos_id=eos_id,
    )
    found = {
        row["path"]: shards.ShardEntry(**row.asDict())
        for row in ordered.mapInArrow(write, ENTRY_DDL).collect()
    }
    for shard in range(release.num_shards):
        path = folder / _shard_name(shard, release.num_shards)
        if path.name not in found:  # no document's hash names it
            found[path.name] = shards.write_shard(
                path, [], sequence_length=release.sequence_length, eos_id=eos_id
            )
    return [found[name] for name in sorted(found)]


def _repeat(
    batches: Iterator[pa.RecordBatch], cuts: Cuts, seed: int, num_shards: int
) -> Iterator[pa.RecordBatch]:
    """Turn documents into copies, each with its shard and its place in it."""
    for batch in batches:
        whole, part = _copies(batch["doc_id"].to_numpy(), batch["domain"], cuts, seed)
        rows = shards.repeat_documents(batch["doc_id"], batch["input_ids"], whole, part)
        hashes = shards.document_hash(rows["doc_id"].to_numpy(), rows["copy"].to_numpy(), seed)
        shard = shards.jump_hash(hashes, num_shards)
        place = (hashes ^ np.uint64(1 << 63)).view(np.int64)  # the order of the unsigned hash
        yield pa.record_batch([pa.array(shard), pa.array(place), *rows.columns], schema=COPY_SCHEMA)


def _write_whole_shards(
    batches: Iterator[pa.RecordBatch],
    folder: str,
    num_shards: int,
    sequence_length: int,
    eos_id: int,
) -> Iterator[pa.RecordBatch]:
    for shard, pieces in itertools.groupby(sorted_runs(batches), key=lambda piece: piece[0]):
        entry = shards.write_shard(
            Path(folder) / _shard_name(shard, num_shards),
            (rows.select(shards.DOCUMENTS_SCHEMA.names) for _, rows in pieces),
            sequence_length=sequence_length,
            eos_id=eos_id,
        )
        yield pa.RecordBatch.from_pylist([asdict(entry)], schema=ENTRY)


def _shard_name(shard: int, num_shards: int) -> str:
    return f"shard-{shard:05d}-of-{num_shards:05d}.parquet"
