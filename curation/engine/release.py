"""A release: an immutable dataset of token shards, made from what the lake has committed.

    <shards>/<name>/manifest.json          what it is; its fingerprint names the dataset
    <shards>/<name>/train-00000-of-00004.parquet
    <shards>/<name>/validation-00000-of-00001.parquet
    <shards>/<name>/tokenizer.json         what decodes it

    1. mark        every document: its component, its weight; those of the validation hosts apart
    2. budgets     the tokens of each component are summed; the mixture gives each its budget
    3. cuts        histograms by hash find where each budget ends
    4. split       held-out documents that are near one to train on are in neither split
    5. mixture     the table of how often each document is taken, by doc_id
    6. shards      every copy goes to the shard its hash names; one task writes a whole shard

The bytes do not depend on the cluster.
"""

import glob
import itertools
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
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
from curation.dedup.messages import Meter
from curation.engine import session as spark
from curation.engine.lake import WHOLE_DUMP, FileEntry, Lake, RunRecord, TableWriter
from curation.engine.progress import Reporter, Silence, Watch, new_run_id
from curation.engine.run import release_unit
from curation.engine.stages import Unit, digest, plan
from curation.engine.tasks import Context, Outcome, read_range, sorted_runs, sum_by
from curation.errors import (
    ConfigError,
    ConservationError,
    LakeCorrupt,
    MixtureInfeasible,
    NotCommitted,
    NotFound,
)
from curation.identity import RECORD_BITS
from curation.remix import mixture, split
from curation.schemas import SIGNATURES, TOKENS, spark_ddl
from curation.tokens import shards
from curation.tokens import tokenizer as tokenizers
from curation.tokens.packing import DOCUMENTS_SCHEMA, document_hash, jump_hash, repeat_documents

MARKED = pa.schema(
    [
        ("doc_id", pa.int64()),
        ("component", pa.string()),
        ("stratum", pa.string()),  # domain/language
        ("num_tokens", pa.int64()),  # with the end of text
        ("weight", pa.int32()),
        ("num_duplicates", pa.int64()),
    ]
)
COPIES = pa.schema([("shard", pa.int32()), ("place", pa.int64()), *DOCUMENTS_SCHEMA])
SUMS = pa.schema([("component", pa.string()), ("bucket", pa.int64()), ("num_tokens", pa.int64())])
NEAR = pa.schema([("held_id", pa.int64()), ("doc_id", pa.int64())])
ENTRY = pa.schema(
    [
        ("path", pa.string()),
        ("split", pa.string()),
        ("rows", pa.int64()),
        ("tokens", pa.int64()),
        ("cuts", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)
ACCOUNT = tuple(name for name in shards.ACCOUNT_WORDS if name != "in_lake")
TAKEN = ("doc_id", "split", "copies", "partial_tokens")  # of mixture, what shards follow from
Cuts = Mapping[str, tuple[int, mixture.Cut]]  # component -> whole copies, where the rest ends
Taken = Callable[[int, int], pa.Table]  # by the first and the last doc_id
Int32Array = np.ndarray[Any, np.dtype[np.int32]]
Int64Array = np.ndarray[Any, np.dtype[np.int64]]


def make_release(
    config: Config, name: str, *, reporter: Reporter | None = None, run_id: str = ""
) -> shards.Manifest:
    """Write the release `name` of the configuration, or return it when it exists already.

    Raises ConfigError for an unknown release, NotCommitted when a dump is not encoded,
    MixtureInfeasible when a domain has too few tokens, LakeCorrupt when another release has the
    name: a release never changes.
    """
    release = config.release_named(name)
    reporter = reporter or Silence()
    lake = Lake(config.lake)
    lake_keys = keys_of_encoded(config, lake, f"release {name}")
    folder = Path(config.shards) / name
    if folder.exists():
        return _existing(folder, name, release, lake_keys)
    run_id = run_id or new_run_id()
    with lake.lock(), lake.recorded(run_id):
        unit = release_unit(name, _settings(release), lake_keys)
        reporter.planned([unit])
        reporter.began(unit)
        session = spark.start()
        meter = spark.SparkMeter(session)
        watch = Watch(reporter, unit, meter.counts)
        with spark.described(session, unit.name, watch.tasks_done):
            manifest, record = _make(session, config, lake, unit, folder, meter, run_id)
        reporter.committed(unit, record)
    return manifest


def keys_of_encoded(config: Config, lake: Lake, what: str) -> dict[str, str]:
    """Return the keys of all slices as `encode` committed them; `what` needs them, for the error.

    Raises NotCommitted where one has not run under the configuration.
    """
    units = plan(config, lake, first="encode", last="encode")
    for unit in units:
        if not unit.committed:
            raise NotCommitted(
                f"{what} needs {unit.name}, which has not run under this configuration; "
                "run first: curation run CONFIG"
            )
    return {unit.name: unit.key for unit in units}


def committed_tokens(session: SparkSession, lake: Lake) -> DataFrame:
    """Return the table of tokens; raises NotCommitted where it holds none."""
    tokens = spark.table(session, lake, "encode", TOKENS)
    if tokens is None:
        raise NotCommitted(
            "the lake holds no tokens: every document was rejected; see curation show"
        )
    return tokens


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
    settings: dict[str, Any] = json.loads(json.dumps(asdict(release)))
    return settings


def _make(
    session: SparkSession,
    config: Config,
    lake: Lake,
    unit: Unit,
    folder: Path,
    meter: Meter,
    run_id: str,
) -> tuple[shards.Manifest, RunRecord]:
    release = config.release[unit.dump]
    started = time.time()
    attempt = uuid.uuid4().hex[:12]
    tokens = committed_tokens(session, lake)
    marked = marked_documents(tokens, spark.num_duplicates(session, lake), release).persist()
    context = Context(str(lake.path), "release", unit.dump, WHOLE_DUMP, attempt, config, {})
    try:
        budgets, shares, cuts = budgets_and_cuts(marked, release)
        near = _near_train(session, config, lake, marked, cuts, release)
        rows = marked.repartitionByRange("doc_id").sortWithinPartitions("doc_id")
        write = partial(
            _mixture_rows, cuts=cuts, shares=shares, near=near, seed=release.seed, context=context
        )
        outcome = spark.outcome_of(rows, write, meter)
    finally:
        marked.unpersist()
    account = dict(outcome.counts["account"])

    tokenizer = tokenizers.load(models.resolve(config.encode.tokenizer))
    with published(folder, config.encode.tokenizer, attempt) as unfinished:
        taken = partial(_taken, entries=tuple(outcome.files), lake=str(lake.path))
        files = write_shards(tokens, taken, release, unfinished, tokenizer.eos_id)
        manifest = shards.Manifest(
            name=unit.dump,
            sequence_length=release.sequence_length,
            num_shards=release.num_shards,
            packing=release.packing,
            seed=release.seed,
            tokenizer_sha256=models.sha256(config.encode.tokenizer),
            vocab_size=tokenizer.vocab_size,
            model_vocab_size=tokenizers.padded(tokenizer.vocab_size, release.vocab_multiple),
            eos_id=tokenizer.eos_id,
            files=tuple(files),
            mixture={
                component: {
                    "share": shares[component],
                    "available_tokens": budget.available,
                    "tokens": budget.tokens,
                    "epochs": budget.epochs,
                }
                for component, budget in budgets.items()
            },
            strata={
                stratum: {"available_tokens": available, "tokens": outcome.counts["taken"][stratum]}
                for stratum, available in sorted(outcome.counts["available"].items())
            },
            account=_checked_account(lake, unit.dump, account, budgets, files),
            lake=str(lake.path),
            lake_keys={**unit.inputs, "release": digest(_settings(release))},
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
            counts={
                "tokens": {name: budget.tokens for name, budget in budgets.items()},
                "account": dict(manifest.account),
            },
            files=tuple(outcome.files),
            run_id=run_id,
        )
        lake.commit(record)
    return manifest, record


@contextmanager
def published(folder: Path, tokenizer: str, attempt: str) -> Iterator[Path]:
    """Give the folder to write a release into, its tokenizer there; at the end it is `folder`.

    What was left there by a killed attempt goes away: the caller holds the lake's lock.
    """
    for dead in folder.parent.glob(f".{glob.escape(folder.name)}.*"):
        shutil.rmtree(dead)
    unfinished = folder.with_name(f".{folder.name}.{attempt}")
    unfinished.mkdir(parents=True)
    try:
        shutil.copyfile(models.resolve(tokenizer), unfinished / shards.TOKENIZER_NAME)
        yield unfinished
        os.rename(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _checked_account(
    lake: Lake,
    name: str,
    account: Mapping[str, int],
    budgets: Mapping[str, mixture.Budget],
    files: Sequence[shards.ShardEntry],
) -> dict[str, int]:
    """Return where every token of the lake went; raises ConservationError where it does not add up.

    in_lake + repeated = train + validation + held_out + truncated + not_taken + without_share
    """
    in_lake = 0
    for record in lake.records("encode"):
        in_lake += sum(record.counts.get("tokens", {}).values()) + record.rows["kept"]
    found = {"in_lake": in_lake} | {key: account.get(key, 0) for key in ACCOUNT}
    for which in shards.SPLITS:
        written = sum(entry.tokens for entry in files if entry.split == which)
        if written != found[which]:
            raise _unbalanced(name, f"{which} shards hold {written} tokens, planned {found[which]}")
    if found["train"] != sum(budget.tokens for budget in budgets.values()):
        raise _unbalanced(name, f"{found['train']} tokens to train on are not what was planned")
    out = sum(found[key] for key in ACCOUNT if key != "repeated")
    if in_lake + found["repeated"] != out:
        raise _unbalanced(name, f"{in_lake} + {found['repeated']} tokens in, {out} out")
    return found


def _unbalanced(name: str, what: str) -> ConservationError:
    return ConservationError(
        f"release {name}: {what}; nothing was published. This is a defect: please report it"
    )


# ---- marks, budgets, cuts ----------------------------------------------------------------------


def marked_documents(
    tokens: DataFrame, duplicates: DataFrame | None, release: ReleaseConfig
) -> DataFrame:
    """Return the component and the weight of every document."""
    labels = ["doc_id", "domain", "lang", "host", "perplexity_bucket", "quality_score"]
    slim = tokens.select(*labels, "num_tokens")
    if duplicates is None:
        slim = slim.withColumn("num_duplicates", F.lit(0).cast("bigint"))
    else:
        slim = slim.join(duplicates, on="doc_id", how="left")
    return slim.mapInArrow(partial(_mark, release=release), spark_ddl(MARKED))


def _mark(batches: Iterator[pa.RecordBatch], release: ReleaseConfig) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        doc_ids = batch["doc_id"].to_numpy()
        stratum = pc.binary_join_element_wise(batch["domain"], batch["lang"].fill_null("und"), "/")
        component = stratum
        if release.shares:
            component = mixture.components(batch["domain"], batch["lang"], list(release.shares))
        is_held = split.held_out(batch["host"], doc_ids, release.validation_share, release.seed)
        is_held &= np.asarray(component.is_valid())
        num_duplicates = batch["num_duplicates"].fill_null(0)
        weight = mixture.weights(
            num_duplicates.to_numpy(),
            batch["perplexity_bucket"],
            batch["quality_score"],
            duplicates=release.duplicate_weights,
            buckets=release.bucket_weights,
            score_steps=release.score_steps,
        )
        yield pa.record_batch(
            [
                batch["doc_id"],
                pc.if_else(pa.array(is_held), mixture.HELD_OUT, component),
                stratum,
                pc.add(batch["num_tokens"].cast(pa.int64()), 1),
                pa.array(np.where(is_held, np.int32(1), weight)),
                num_duplicates,
            ],
            schema=MARKED,
        )


def budgets_and_cuts(
    marked: DataFrame, release: ReleaseConfig
) -> tuple[dict[str, mixture.Budget], dict[str, float], Cuts]:
    """Plan the budgets and find where each ends, that of the validation set too.

    The driver sees sums by component and hash bucket.
    """
    slim = marked.where(F.col("component").isNotNull())
    hashed = slim.mapInArrow(partial(_sum_buckets, seed=release.seed), spark_ddl(SUMS))
    summed = hashed.groupBy("component", "bucket").agg(F.sum("num_tokens").alias("n")).toArrow()
    sums: dict[str, Int64Array] = {}
    for component in summed["component"].unique().to_pylist():
        rows = summed.filter(pc.equal(summed["component"], component))
        sums[component] = np.zeros(1 << mixture.HISTOGRAM_BITS, np.int64)
        sums[component][rows["bucket"].to_numpy()] = rows["n"].to_numpy()
    available = {component: int(table.sum()) for component, table in sorted(sums.items())}
    num_held = available.pop(mixture.HELD_OUT, 0)
    shares: Mapping[str, float | Fraction] = release.shares
    if not shares:
        shares = mixture.shares_by_temperature(available, release.temperature)
        for name in release.epochs:
            if name not in shares:
                raise ConfigError(
                    f"release.epochs names {name!r}, but there are only {', '.join(shares)}; "
                    "write it as domain/language, or drop it"
                )
    for component in shares:
        available.setdefault(component, 0)
    budgets = mixture.plan(
        available,
        shares,
        {name: release.epochs.get(name, release.max_epochs) for name in shares},
        release.num_tokens or None,
        redistribute=release.shortage == "redistribute",
    )
    every = dict(budgets)
    if num_held:
        every[mixture.HELD_OUT] = mixture.Budget(min(num_held, release.validation_tokens), num_held)
    elif release.validation_share:
        raise MixtureInfeasible(
            f"validation_share = {release.validation_share:g} holds out none of the hosts; raise "
            "it, change the seed, or set it to 0"
        )
    places = {name: mixture.locate(sums[name], budget.remainder) for name, budget in every.items()}
    wanted = frozenset((name, bucket) for name, (bucket, _) in places.items())
    bucket_rows = (
        slim.mapInArrow(
            partial(_in_buckets, seed=release.seed, wanted=wanted),
            "component string, doc_id bigint, hash bigint, num_tokens bigint",
        )
        .toArrow()
        .combine_chunks()
    )
    cuts = {}
    for name, budget in every.items():
        rows = bucket_rows.filter(pc.equal(bucket_rows["component"], name))
        cuts[name] = (
            budget.full_copies,
            mixture.cut(
                rows["hash"].to_numpy().view(np.uint64),
                rows["doc_id"].to_numpy(),
                rows["num_tokens"].to_numpy(),
                budget.remainder - places[name][1],
            ),
        )
    exact = mixture.exact_shares(shares)
    return budgets, {name: float(share) for name, share in exact.items()}, cuts


def _sum_buckets(batches: Iterator[pa.RecordBatch], seed: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        rows, hashes = mixture.units(batch["doc_id"].to_numpy(), batch["weight"].to_numpy(), seed)
        units = batch.take(pa.array(rows))
        yield pa.record_batch(
            [units["component"], pa.array(mixture.buckets(hashes)), units["num_tokens"]],
            schema=SUMS,
        )


def _in_buckets(
    batches: Iterator[pa.RecordBatch], seed: int, wanted: frozenset[tuple[str, int]]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        rows, hashes = mixture.units(batch["doc_id"].to_numpy(), batch["weight"].to_numpy(), seed)
        bucket = mixture.buckets(hashes)
        units = batch.select(["component", "doc_id", "num_tokens"]).take(pa.array(rows))
        mask = np.zeros(len(rows), np.bool_)
        for component, chosen in wanted:
            mask |= np.asarray(pc.equal(units["component"], component)) & (bucket == chosen)
        yield pa.record_batch(
            [
                units["component"],
                units["doc_id"],
                pa.array(hashes.view(np.int64)),
                units["num_tokens"],
            ],
            names=["component", "doc_id", "hash", "num_tokens"],
        ).filter(pa.array(mask))


def taken_copies(
    doc_ids: Int64Array, component: pa.Array, weight: Int32Array, cuts: Cuts, seed: int
) -> tuple[Int32Array, Int32Array]:
    """Return whole copies and partial tokens of documents of several components."""
    whole, part = (np.zeros(len(doc_ids), np.int32) for _ in range(2))
    for name, (full_copies, cut) in cuts.items():
        here = np.flatnonzero(np.asarray(pc.equal(component, name).fill_null(False)))
        if len(here):
            rows, hashes = mixture.units(doc_ids[here], weight[here], seed)
            whole[here], part[here] = mixture.copies_of_documents(
                len(here), rows, hashes, doc_ids[here], full_copies, cut
            )
    return whole, part


# ---- the split ---------------------------------------------------------------------------------


def _near_train(
    session: SparkSession,
    config: Config,
    lake: Lake,
    marked: DataFrame,
    cuts: Cuts,
    release: ReleaseConfig,
) -> Int64Array:
    """Return the validation documents that are near one that may be trained on, ascending."""
    if mixture.HELD_OUT not in cuts:
        return np.zeros(0, np.int64)
    held = marked.where(F.col("component") == mixture.HELD_OUT).mapInArrow(
        partial(_chosen, cuts=cuts, seed=release.seed), "doc_id bigint"
    )
    train = marked.where(F.col("component").isNotNull() & (F.col("component") != mixture.HELD_OUT))
    return near_documents(session, lake, held, train, config.dedup.threshold)


def near_documents(
    session: SparkSession, lake: Lake, held: DataFrame, train: DataFrame, threshold: float
) -> Int64Array:
    """Return the doc_ids of `held` that are near one of `train`, ascending.

    The signatures of `held` are sent to all tasks: 450 bytes a document.
    """
    signatures = spark.table(session, lake, "fingerprint", SIGNATURES)
    if signatures is None:
        return np.zeros(0, np.int64)
    slim = signatures.select("doc_id", "signature")
    held_rows = slim.join(F.broadcast(held.select("doc_id")), on="doc_id", how="semi")
    rows = held_rows.toArrow().combine_chunks()
    probe = split.Probe(rows["doc_id"].to_numpy(), rows["signature"].combine_chunks(), threshold)
    pairs = slim.mapInArrow(partial(_near, probe=probe), spark_ddl(NEAR))
    near_train = pairs.join(train.select("doc_id"), on="doc_id", how="semi")
    found = near_train.select("held_id").distinct().toArrow()
    return np.sort(found["held_id"].to_numpy())


def _chosen(batches: Iterator[pa.RecordBatch], cuts: Cuts, seed: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        doc_ids = batch["doc_id"].to_numpy()
        whole, part = taken_copies(
            doc_ids, batch["component"], batch["weight"].to_numpy(), cuts, seed
        )
        yield batch.select(["doc_id"]).filter(pa.array((whole > 0) | (part > 0)))


def _near(batches: Iterator[pa.RecordBatch], probe: split.Probe) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        held_ids, doc_ids = probe.near(batch["doc_id"].to_numpy(), batch["signature"])
        yield pa.record_batch([pa.array(held_ids), pa.array(doc_ids)], schema=NEAR)


# ---- the mixture -------------------------------------------------------------------------------


def _mixture_rows(
    batches: Iterator[pa.RecordBatch],
    cuts: Cuts,
    shares: Mapping[str, float],
    near: Int64Array,
    seed: int,
    context: Context,
) -> Iterator[pa.RecordBatch]:
    """Write how often each document that has a component is taken; count where its tokens go."""
    from pyspark import TaskContext

    task = TaskContext.get()
    part = f"{task.partitionId():05d}-{task.taskAttemptId()}" if task else "00000-0"
    name = f"{context.attempt}-part-{part}"
    writer = TableWriter(context.lake, "mixture", "release", context.dump, WHOLE_DUMP, name)
    outcome = Outcome()
    for batch in batches:
        size = batch["num_tokens"].to_numpy()
        has_component = np.asarray(batch["component"].is_valid())
        outcome.count("account", {"without_share": int(size[~has_component].sum())})
        batch, size = batch.filter(pa.array(has_component)), size[has_component]
        doc_ids, component = batch["doc_id"].to_numpy(), batch["component"]
        whole, partial_tokens = taken_copies(
            doc_ids, component, batch["weight"].to_numpy(), cuts, seed
        )
        is_held = np.asarray(pc.equal(component, mixture.HELD_OUT))
        is_near = is_held & np.isin(doc_ids, near)
        whole[is_near], partial_tokens[is_near] = 0, 0
        _count(outcome, size, whole, partial_tokens, is_held)
        taken = np.where(is_held, 0, whole * size + partial_tokens)
        for what, values in (("available", np.where(is_held, 0, size)), ("taken", taken)):
            outcome.count(what, sum_by(batch["stratum"], pa.array(values)))
        is_taken = (whole > 0) | (partial_tokens > 0)
        splits = np.where(is_held, np.where(is_taken, "validation", "held_out"), "train")
        writer.write(
            pa.table(
                {
                    "doc_id": batch["doc_id"],
                    "component": component,
                    "stratum": batch["stratum"],
                    "split": pa.array(splits, pa.string()),
                    "num_tokens": pa.array((size - 1).astype(np.int32)),
                    "weight": batch["weight"],
                    "copies": pa.array(whole),
                    "partial_tokens": pa.array(partial_tokens),
                    "share": pa.array(map(shares.get, component.to_pylist()), pa.float64()),
                    "num_duplicates": batch["num_duplicates"],
                }
            )
        )
        outcome.rows["in"] += batch.num_rows
    entry = writer.close()
    if entry is not None:
        outcome.files.append(entry)
    yield outcome.to_batch()


def _count(
    outcome: Outcome,
    size: Int64Array,
    whole: Int32Array,
    partial_tokens: Int32Array,
    is_held: np.ndarray[Any, np.dtype[np.bool_]],
) -> None:
    """Count the tokens of documents by where they go; see `_checked_account`."""
    taken = whole * size + partial_tokens
    once = np.minimum(taken, size)
    is_cut = (partial_tokens > 0) & (whole == 0) & ~is_held
    left = np.where(is_cut | is_held, 0, size - once)
    outcome.count(
        "account",
        {
            "repeated": int((taken - once).sum()),
            "train": int(taken[~is_held].sum()),
            "validation": int(taken[is_held].sum()),
            "held_out": int((size - once)[is_held].sum()),
            "truncated": int((size - once)[is_cut].sum()),
            "not_taken": int(left.sum()),
        },
    )


# ---- the shards --------------------------------------------------------------------------------


def write_shards(
    tokens: DataFrame, taken: Taken, release: ReleaseConfig, folder: Path, eos_id: int
) -> list[shards.ShardEntry]:
    """Send every copy to its shard and write each shard in one task."""
    documents = tokens.select("doc_id", "input_ids").mapInArrow(
        partial(_repeat, taken=taken, seed=release.seed, num_shards=release.num_shards),
        spark_ddl(COPIES),
    )
    num_files = release.num_shards + (release.validation_share > 0)
    ordered = documents.repartition(num_files, "shard").sortWithinPartitions(
        "shard", "place", "doc_id", "copy"
    )
    how: dict[str, Any] = {
        "sequence_length": release.sequence_length,
        "eos_id": eos_id,
        "packing": release.packing,
    }
    write = partial(_write_whole_shards, folder=str(folder), num_shards=release.num_shards, how=how)
    found = {
        row["path"]: shards.ShardEntry(**row.asDict())
        for row in ordered.mapInArrow(write, spark_ddl(ENTRY)).collect()
    }
    for shard in range(num_files):
        name, which = _shard_name(shard, release.num_shards)
        if name not in found:  # no document's hash names it
            found[name] = shards.write_shard(folder / name, [], split=which, **how)
    return [found[name] for name in sorted(found)]


def _repeat(
    batches: Iterator[pa.RecordBatch], taken: Taken, seed: int, num_shards: int
) -> Iterator[pa.RecordBatch]:
    """Turn documents into copies, each with its shard and its place in it.

    The documents of one input file lie together, and so do their rows of the mixture.
    """
    for batch in batches:
        files = batch["doc_id"].to_numpy() >> RECORD_BITS
        bounds = [0, *(np.flatnonzero(np.diff(files)) + 1).tolist(), len(files)]
        for start, stop in itertools.pairwise(bounds):
            if start < stop:
                documents = batch.slice(start, stop - start)
                yield _copies_of(documents, taken, seed, num_shards)


def _taken(first: int, last: int, entries: Sequence[FileEntry], lake: str) -> pa.Table:
    """Return how often the documents of a range of ids are taken."""
    return read_range(entries, "mixture", TAKEN, lake, first, last).combine_chunks()


def _copies_of(
    documents: pa.RecordBatch, taken: Taken, seed: int, num_shards: int
) -> pa.RecordBatch:
    ids = documents["doc_id"]
    rows = taken(ids[0].as_py(), ids[-1].as_py())
    place = pc.index_in(ids, rows["doc_id"])
    documents = documents.filter(place.is_valid())
    rows = rows.take(place.drop_null())
    copies = repeat_documents(
        documents["doc_id"],
        documents["input_ids"],
        rows["copies"].to_numpy(),
        rows["partial_tokens"].to_numpy(),
    )
    doc_ids = copies["doc_id"].to_numpy()
    is_train = np.asarray(pc.equal(rows["split"], shards.TRAIN))
    of_train = np.isin(doc_ids, rows["doc_id"].to_numpy()[is_train])
    hashes = document_hash(doc_ids, copies["copy"].to_numpy(), seed)
    shard = np.where(of_train, jump_hash(hashes, num_shards), np.int32(num_shards))
    ordered = (hashes ^ np.uint64(1 << 63)).view(np.int64)  # the order of the unsigned hash
    return pa.record_batch(
        [pa.array(shard.astype(np.int32)), pa.array(ordered), *copies.columns], schema=COPIES
    )


def _write_whole_shards(
    batches: Iterator[pa.RecordBatch], folder: str, num_shards: int, how: Mapping[str, Any]
) -> Iterator[pa.RecordBatch]:
    for shard, pieces in itertools.groupby(sorted_runs(batches), key=lambda piece: piece[0]):
        name, which = _shard_name(shard, num_shards)
        documents = (rows.select(DOCUMENTS_SCHEMA.names) for _, rows in pieces)
        entry = shards.write_shard(Path(folder, name), documents, split=which, **how)
        yield pa.RecordBatch.from_pylist([asdict(entry)], schema=ENTRY)


def _shard_name(shard: int, num_shards: int) -> tuple[str, str]:
    """Return the file and the split of a shard; the one after the last is for validation."""
    if shard == num_shards:
        return f"{shards.VALIDATION}-00000-of-00001.parquet", shards.VALIDATION
    return f"{shards.TRAIN}-{shard:05d}-of-{num_shards:05d}.parquet", shards.TRAIN
