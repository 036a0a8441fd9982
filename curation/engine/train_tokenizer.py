"""Train the tokenizer: an artifact with a command of its own; a pipeline run never retrains it.

    1. sizes     the kept documents of the dumps, by domain, language and hash of the id
    2. sample    of each domain and language the documents of the lowest hashes, up to its part
    3. train     on the sample
    4. card      bytes a token by domain and language, on documents that are held out: those of the
                 highest hashes; beside other tokenizers on the same text

The same lake gives the same tokenizer, in whatever slices it lies.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.config import Config
from curation.engine.lake import Lake
from curation.engine.stages import plan
from curation.engine.training_texts import kept_texts
from curation.errors import ConfigError, InputMissing, NotCommitted
from curation.remix import mixture
from curation.tokens import tokenizer
from curation.tokens.packing import Int64Array

HELD_OUT = 1 / 32  # of the documents, for the card
MAX_MEASURED_BYTES = 4_000_000  # of a domain and language, for the card
NUM_BUCKETS = 1 << mixture.HISTOGRAM_BITS
FIRST_HELD_OUT = NUM_BUCKETS - int(HELD_OUT * NUM_BUCKETS)


@dataclass(frozen=True)
class Sample:
    """Which documents are trained on: all 0, or so many bytes, by 1 / temperature (see shares)."""

    num_bytes: int = 0
    temperature: float = 1.0
    seed: int = 0


def train(
    config: Config,
    dumps: Sequence[str],
    to: Path,
    vocabulary: int,
    *,
    sample: Sample = Sample(),
    compare: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Train a byte-level BPE on a sample of the kept text of the dumps (all when none is named).

    Writes tokenizer.json, and its card beside it (`<name>.card.json`), which it returns. `compare`
    are other tokenizers by name: paths of tokenizer.json. Raises NotCommitted when a dump is not
    filtered, ConfigError for a sample out of range, ArtifactError for another tokenizer that cannot
    be read, InputMissing without text.
    """
    if sample.num_bytes < 0 or not 0 < sample.temperature <= 1000:
        raise ConfigError(
            f"a sample of {sample.num_bytes} bytes at temperature {sample.temperature}; bytes are "
            "0 or more (0 takes all), a temperature is above 0 and at most 1000"
        )
    others = {name: tokenizer.load(path) for name, path in (compare or {}).items()}
    lake = Lake(config.lake)
    units = plan(config, lake, dumps, first="decontaminate", last="decontaminate")
    for unit in units:
        if not unit.committed:
            raise NotCommitted(
                f"training needs {unit.name}, which has not run under this configuration; "
                f"run first: curation run CONFIG --dump {unit.dump} --to decontaminate"
            )
    slices = [(unit.dump, unit.slice) for unit in units]
    sizes = _sizes(lake, slices, sample.seed)
    ends = _ends(sizes, sample)
    batch_rows = config.engine.batch_rows
    texts = _sampled(lake, slices, batch_rows, ends, sample.seed)
    card = tokenizer.train(texts, vocabulary, to)
    trained = tokenizer.load(to)
    held_out = _held_out(lake, slices, batch_rows, sample.seed)
    card |= {
        "sample": {
            "num_bytes": sample.num_bytes,
            "temperature": sample.temperature,
            "seed": sample.seed,
            "by_stratum": {
                name: {
                    "num_bytes": int(sizes[name][: ends[name]].sum()),
                    "available": int(sizes[name].sum()),
                }
                for name in sorted(sizes)
            },
        },
        "bytes_per_token": _compare(held_out, {"this": trained, **others}),
        "others": {name: each.sha256 for name, each in others.items()},
    }
    path = to.with_name(f"{to.stem}.card.json")
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return card


def named_paths(given: Sequence[str]) -> dict[str, str]:
    """Return NAME=PATH pairs as a table; raises ConfigError for what is none."""
    found = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not (name and equals and path) or name in found:
            raise ConfigError(f"--compare {each!r} is not NAME=PATH with a name of its own")
        found[name] = path
    return found


def _sizes(lake: Lake, slices: Sequence[tuple[str, str]], seed: int) -> dict[str, Int64Array]:
    """Return the bytes of kept text by domain/language, and by bucket of the hash."""
    sizes: dict[str, Int64Array] = {}
    for dump, slice in slices:
        gone = lake.table("rejects", dump, slice, stage="decontaminate").to_table(["doc_id"])
        kept = lake.table("kept", dump, slice)
        for batch in kept.to_batches(columns=["doc_id", "domain", "lang", "num_bytes"]):
            rows = pa.Table.from_batches([batch])
            rows = rows.filter(pc.invert(pc.is_in(rows["doc_id"], gone["doc_id"])))
            buckets = _buckets(rows["doc_id"].to_numpy(), seed)
            strata = _strata(rows)
            for name in strata.unique().to_pylist():
                own = np.asarray(pc.equal(strata, name))
                table = sizes.setdefault(name, np.zeros(NUM_BUCKETS, np.int64))
                np.add.at(table, buckets[own], rows["num_bytes"].to_numpy()[own])
    return sizes


def _ends(sizes: Mapping[str, Int64Array], sample: Sample) -> dict[str, int]:
    """Return for every stratum the bucket before which documents are trained on."""
    whole = {name: int(table[:FIRST_HELD_OUT].sum()) for name, table in sizes.items()}
    available = {name: size for name, size in whole.items() if size}
    if not available:
        raise InputMissing(
            "there is no text to train a tokenizer on; name dumps whose documents are committed"
        )
    if sample.num_bytes == 0 or sample.num_bytes >= sum(available.values()):
        return dict.fromkeys(sizes, FIRST_HELD_OUT)
    shares = mixture.shares_by_temperature(available, sample.temperature)
    budgets = mixture.plan(available, shares, 1.0, sample.num_bytes, redistribute=True)
    return {
        name: int(np.searchsorted(np.cumsum(table), budgets[name].tokens, side="right"))
        if name in budgets
        else 0
        for name, table in sizes.items()
    }


def _sampled(
    lake: Lake,
    slices: Sequence[tuple[str, str]],
    batch_rows: int,
    ends: Mapping[str, int],
    seed: int,
) -> Iterator[list[str]]:
    names = pa.array(list(ends), pa.string())
    bounds = np.array(list(ends.values()))
    for rows in kept_texts(lake, slices, batch_rows):
        place = pc.index_in(_strata(rows), names).to_numpy(zero_copy_only=False)
        chosen = _buckets(rows["doc_id"].to_numpy(), seed) < bounds[place.astype(np.int64)]
        texts = rows["text"].filter(pa.array(chosen)).to_pylist()
        if texts:
            yield texts


def _held_out(
    lake: Lake, slices: Sequence[tuple[str, str]], batch_rows: int, seed: int
) -> dict[str, list[str]]:
    """Return texts that are held out, by domain/language."""
    found: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for rows in kept_texts(lake, slices, batch_rows):
        held = _buckets(rows["doc_id"].to_numpy(), seed) >= FIRST_HELD_OUT
        rows = rows.filter(pa.array(held))
        for name, text in zip(_strata(rows).to_pylist(), rows["text"].to_pylist(), strict=True):
            if sizes.get(name, 0) < MAX_MEASURED_BYTES:
                found.setdefault(name, []).append(text)
                sizes[name] = sizes.get(name, 0) + len(text.encode())
    return found


def _compare(
    texts: Mapping[str, Sequence[str]], others: Mapping[str, tokenizer.Tokenizer]
) -> dict[str, dict[str, float]]:
    """Return bytes a token of every tokenizer by stratum, and of all together."""
    found: dict[str, dict[str, float]] = {}
    strata = {**{name: list(texts[name]) for name in sorted(texts)}}
    if strata:
        strata["all"] = [text for own in texts.values() for text in own]
    for name, own in strata.items():
        array = pa.array(own, pa.string())
        num_bytes = pc.sum(pc.binary_length(array)).as_py()
        found[name] = {"num_bytes": num_bytes}
        for which, each in others.items():
            num_tokens = pc.sum(tokenizer.num_tokens(array, each)).as_py()
            found[name][which] = round(num_bytes / max(num_tokens, 1), 3)
    return found


def _strata(rows: pa.Table) -> pa.Array:
    lang = rows["lang"].combine_chunks().fill_null("und")
    return pc.binary_join_element_wise(rows["domain"].combine_chunks(), lang, "/")


def _buckets(doc_ids: Int64Array, seed: int) -> Int64Array:
    return mixture.buckets(mixture.sampling_hash(doc_ids, seed))
