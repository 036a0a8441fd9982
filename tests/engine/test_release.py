"""Releases: the mixture as the configuration wants it, on one machine and on several."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyspark
import pytest
from standalone_cluster import standalone

from curation import cli
from curation.config import ReleaseConfig
from curation.engine.inspect_shards import inspect_rows
from curation.engine.ledger import why
from curation.engine.release import make_release
from curation.errors import ArtifactChanged, ConfigError, MixtureInfeasible, ShardCorrupt
from curation.tokens import tokenizer as tokenizers
from curation.tokens.memmap import export_memmap
from curation.tokens.reader import open_shards
from curation.tokens.shards import read_manifest

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[2]


@pytest.fixture
def made(undisturbed, tmp_path: Path):
    """Make a release of the finished lake: `made(shares={"web": 1.0})`; its rows are taken back."""
    config, lake, _ = undisturbed(4)
    before = set(lake.path.rglob("*"))

    def make(**settings):
        release = ReleaseConfig(**{"sequence_length": 64, "seed": 1, **settings})
        own = replace(config, shards=str(tmp_path / "shards"), release={"r": release})
        return make_release(own, "r"), lake.table("mixture", dump="r").to_table()

    yield make
    for path in sorted(set(lake.path.rglob("*")) - before, reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_cluster_makes_the_same_bytes(undisturbed, tmp_path: Path) -> None:
    """Master and two workers of Spark's own: seven parts of a shuffle."""
    config, lake, manifest = undisturbed(4)
    copied = tmp_path / "lake"
    shutil.copytree(lake.path, copied, ignore=shutil.ignore_patterns("release", "mixture"))
    toml = Path(config.lake).parents[1] / f"{Path(config.lake).parent.name}.toml"
    home = {"SPARK_HOME": str(Path(pyspark.__file__).parent), "PYSPARK_PYTHON": sys.executable}
    with standalone(tmp_path, num_workers=2) as (master, _):
        command = [
            Path(sys.executable).parent / "spark-submit",
            *("--master", master, "--conf", "spark.driver.host=127.0.0.1"),
            *("--conf", "spark.ui.enabled=false", "--conf", "spark.driver.bindAddress=127.0.0.1"),
            *("--conf", "spark.sql.shuffle.partitions=7"),
            *("--conf", "spark.executor.memory=600m", "--driver-memory", "600m"),
            *(ROOT / "jobs" / "release.py", "demo", "--config", toml),
            *("--set", f"lake={copied}", "--set", f"shards={tmp_path / 'shards'}"),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | home, check=False, timeout=400
        )
    assert done.returncode == 0, done.stderr
    found = read_manifest(tmp_path / "shards" / "demo")
    assert found.files == manifest.files
    assert found.fingerprint == manifest.fingerprint


def test_shares_by_domain_and_language(made) -> None:
    manifest, rows = made(shares={"web": 0.75, "chinese/zh": 0.25}, num_tokens=8_000)
    assert {name: part["tokens"] for name, part in manifest.mixture.items()} == {
        "web": 6_000,
        "chinese/zh": 2_000,
    }
    taken = pc.add(
        pc.multiply(rows["copies"], pc.add(rows["num_tokens"], 1)), rows["partial_tokens"]
    )
    for name, expected in (("web", 6_000), ("chinese/zh", 2_000)):
        assert pc.sum(taken.filter(pc.equal(rows["component"], name))).as_py() == expected


def test_a_temperature_makes_the_small_ones_larger(made) -> None:
    alike, _ = made(temperature=1.0, max_epochs=1.0)
    shares = {name: part["share"] for name, part in alike.mixture.items()}
    available = {name: part["available_tokens"] for name, part in alike.mixture.items()}
    assert shares == pytest.approx(
        {name: count / sum(available.values()) for name, count in available.items()}
    )
    assert alike.account["not_taken"] + alike.account["truncated"] <= len(available)
    assert set(available) == {"chinese/zh", "web/en"}


def test_the_temperature_is_the_exponent(made) -> None:
    manifest, _ = made(temperature=2.0, num_tokens=5_000)
    root = {name: part["available_tokens"] ** 0.5 for name, part in manifest.mixture.items()}
    assert {name: part["share"] for name, part in manifest.mixture.items()} == pytest.approx(
        {name: value / sum(root.values()) for name, value in root.items()}
    )


def test_weights_say_how_often_a_document_comes(made) -> None:
    """Twice the available tokens: every document comes twice as often as its weight says."""
    manifest, rows = made(
        shares={"web": 1.0}, duplicate_weights=True, bucket_weights={"tail": 0}, max_epochs=2.0
    )
    table = {1: 1, 2: 2, 3: 3, 4: 3}
    buckets = Counter()
    for row in rows.to_pylist():
        weight = row["weight"]
        assert weight in (0, table[1 + row["num_duplicates"]])
        assert (row["copies"], row["partial_tokens"]) == (2 * weight, 0)
        buckets[weight == 0] += 1
    assert buckets[True] and buckets[False]
    assert manifest.mixture["web"]["epochs"] == 2.0


def test_what_is_lacking_is_an_error_or_goes_elsewhere(made) -> None:
    settings = {"shares": {"web": 0.5, "chinese": 0.5}, "max_epochs": 1.0, "num_tokens": 12_000}
    with pytest.raises(MixtureInfeasible, match=r"lacks \d+ tokens.*shortage"):
        made(**settings)
    manifest, _ = made(**settings, shortage="redistribute")
    parts = sorted(manifest.mixture.values(), key=lambda part: part["available_tokens"])
    assert parts[0]["tokens"] == parts[0]["available_tokens"] < 6_000
    assert manifest.tokens == 12_000


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"shares": {"web": 1.0}, "num_tokens": 10**9}, MixtureInfeasible, "'web' lacks"),
        (
            {
                "shares": {"web": 1.0},
                "bucket_weights": dict.fromkeys(("head", "middle", "tail"), 0),
            },
            MixtureInfeasible,
            "'web' lacks at least 1 token",
        ),
        (
            {"shares": {"web": 1.0}, "validation_share": 1e-9},
            MixtureInfeasible,
            "validation_share = 1e-09 holds out none of the hosts",
        ),
        ({"temperature": 1.0, "epochs": {"web": 2.0}}, ConfigError, "epochs names 'web'.*web/en"),
    ],
)
def test_what_cannot_be_made_is_named_and_nothing_is_left(
    made, undisturbed, tmp_path: Path, settings, error, message
) -> None:
    with pytest.raises(error, match=message):
        made(**settings)
    assert not (tmp_path / "shards").exists()


# ---- inspect -----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "validation"])
def test_inspected_pieces_are_pieces_of_their_documents(undisturbed, split: str) -> None:
    config, lake, manifest = undisturbed(4)
    folder = Path(config.shards) / "demo"
    tokens = lake.table("tokens").to_table(["doc_id", "input_ids"]).to_pylist()
    ids_of = {row["doc_id"]: row["input_ids"] for row in tokens}
    mixture = lake.table("mixture").to_table(["doc_id", "partial_tokens"]).to_pylist()
    partial_of = {row["doc_id"]: row["partial_tokens"] for row in mixture}
    tokenizer = tokenizers.load(config.encode.tokenizer)
    documents = lake.table("documents").to_table(["doc_id", "url"]).to_pylist()
    urls = {row["doc_id"]: row["url"] for row in documents}
    samples = list(inspect_rows(open_shards(folder, split), folder, 5, seed=3))
    assert len({sample.row for sample in samples}) == 5
    for sample in samples:
        assert sum(piece.num_tokens for piece in sample.pieces) == sample.num_tokens
        for piece, after in pairwise([*sample.pieces, None]):
            ids, end = ids_of[piece.doc_id], manifest.eos_id
            copies = [[*ids, end], [*ids[: partial_of[piece.doc_id] - 1], end]]
            parts = [copy[piece.offset : piece.offset + piece.num_tokens] for copy in copies]
            texts = tokenizers.decode(pa.array(parts, pa.list_(pa.int32())), tokenizer)
            assert piece.text in texts.to_pylist()
            assert after is None or after.start == piece.start + piece.num_tokens
            assert piece.url == urls[piece.doc_id]
            (history,) = why(lake, str(piece.doc_id))
            assert (history.where["dump"], history.where["record"]) == (piece.dump, piece.record)


def test_without_its_lake_a_piece_has_its_ordinals(undisturbed, tmp_path: Path) -> None:
    config, _, manifest = undisturbed(4)
    folder = tmp_path / "demo"
    shutil.copytree(Path(config.shards) / "demo", folder)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace(manifest.lake, "/nowhere"))
    (sample,) = inspect_rows(open_shards(folder), folder, 1)
    assert all(piece.url == "" and piece.dump.startswith("dump ") for piece in sample.pieces)


def test_another_tokenizer_and_damaged_shards_are_named(undisturbed, tmp_path: Path) -> None:
    config, _, _ = undisturbed(4)
    folder = tmp_path / "demo"
    shutil.copytree(Path(config.shards) / "demo", folder)
    tokenizer = folder / "tokenizer.json"
    original = tokenizer.read_text()
    tokenizer.write_text(original + " ")
    with pytest.raises(ArtifactChanged, match=r"tokenizer\.json has sha256"):
        next(inspect_rows(open_shards(folder), folder, 1))
    tokenizer.write_text(original)
    for shard in folder.glob("train-*"):
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    with pytest.raises(ShardCorrupt, match=r"train-0000\d-of-00003\.parquet has sha256"):
        next(inspect_rows(open_shards(folder), folder, 1))


# ---- memmap ------------------------------------------------------------------------------------


def read_indexed_dataset(prefix: Path) -> list[np.ndarray]:
    """Read the sequences as Megatron-LM's IndexedDataset does, field by field of its header."""
    index = prefix.with_suffix(".idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    assert int.from_bytes(index[9:17], "little") == 1
    dtype = {4: np.int32, 8: np.uint16}[index[17]]
    num_sequences, num_bounds = np.frombuffer(index, np.uint64, 2, 18).tolist()
    lengths = np.frombuffer(index, np.int32, num_sequences, 34)
    pointers = np.frombuffer(index, np.int64, num_sequences, 34 + lengths.nbytes)
    bounds = np.frombuffer(index, np.int64, num_bounds, 34 + lengths.nbytes + pointers.nbytes)
    assert bounds.tolist() == list(range(num_sequences + 1))
    assert len(index) == 34 + lengths.nbytes + pointers.nbytes + bounds.nbytes
    ids = np.memmap(prefix.with_suffix(".bin"), np.uint8, "r")
    return [
        np.frombuffer(ids, dtype, length, pointer)
        for length, pointer in zip(lengths.tolist(), pointers.tolist(), strict=True)
    ]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_independent_reader_reads_the_memmap(undisturbed, tmp_path: Path, split: str) -> None:
    config, _, _ = undisturbed(4)
    dataset = open_shards(Path(config.shards) / "demo", split)
    export_memmap(dataset, tmp_path / "demo")
    found = read_indexed_dataset(tmp_path / "demo")
    assert len(found) == len(dataset)
    for row, ids in zip(dataset.iterate(), found, strict=True):
        assert ids.tolist() == row["input_ids"][: row["num_tokens"]].tolist()
    with pytest.raises(ConfigError, match=r"demo\.bin exists already"):
        export_memmap(dataset, tmp_path / "demo")


def test_a_large_vocabulary_takes_four_bytes(undisturbed, tmp_path: Path) -> None:
    config, _, _ = undisturbed(4)
    dataset = open_shards(Path(config.shards) / "demo", "validation")
    dataset.manifest = replace(dataset.manifest, model_vocab_size=102_400)
    target, _ = export_memmap(dataset, tmp_path / "large")
    assert target.stat().st_size == 4 * sum(row["num_tokens"] for row in dataset.iterate())
    assert read_indexed_dataset(tmp_path / "large")[0].dtype == np.int32


# ---- the commands ------------------------------------------------------------------------------


def test_the_commands_say_what_they_found_and_wrote(undisturbed, tmp_path: Path, capsys) -> None:
    config, _, manifest = undisturbed(4)
    folder = str(Path(config.shards) / "demo")
    cli.app(["inspect", folder, "--sample", "2", "--split", "validation"], standalone_mode=False)
    said = capsys.readouterr().out
    assert manifest.fingerprint in said
    assert said.count("\nrow ") == 2
    assert "https://www.postgresql.org/docs/" in said
    cli.app(["memmap", folder, "--to", str(tmp_path / "demo")], standalone_mode=False)
    said = capsys.readouterr().out
    assert f"{(tmp_path / 'demo.bin').stat().st_size:,} bytes" in said
