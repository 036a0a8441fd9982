"""Training on arms: what can be learned tells, and the arithmetic of intervals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_release import EOS, LENGTH, TOKENIZER, VOCABULARY, write_release

pytest.importorskip("torch", reason="needs torch: make test-train")

from curation.tokens.packing import DOCUMENTS_SCHEMA
from curation.tokens.shards import Manifest, sha256_of, write_manifest, write_shard
from curation.train.ablation import Run, ablate, interval, report
from curation.train.settings import AblateConfig


def noise(folder: Path) -> Path:
    """A release of as many rows whose tokens follow from nothing."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    ids = [rng.integers(15, 400, 190 * LENGTH - 1).astype(np.int32)]
    rows = pa.RecordBatch.from_arrays(
        [pa.array([0], pa.int64()), pa.array([0], pa.int32()), pa.array(ids, pa.list_(pa.int32()))],
        schema=DOCUMENTS_SCHEMA,
    )
    file = write_shard(folder / "train.parquet", [rows], sequence_length=LENGTH, eos_id=EOS)
    shutil.copy(TOKENIZER, folder / "tokenizer.json")
    about = ("noise", LENGTH, 1, "concat", 0, sha256_of(TOKENIZER), VOCABULARY, VOCABULARY, EOS)
    write_manifest(folder, Manifest(*about, files=(file,)))
    return folder


def test_the_arm_that_can_be_learned_from_costs_fewer_bits(release: Path, tmp_path: Path) -> None:
    config = AblateConfig(
        config="", release="", to=str(tmp_path), num_seeds=2, batch_size=8, warmup_steps=2
    )
    arms = {
        "noise": [noise(tmp_path / f"noise-{seed}") for seed in range(2)],
        "runs": [write_release(tmp_path / f"runs-{seed}", seed) for seed in range(2)],
    }
    said: list[str] = []
    runs = ablate(config, arms, {"held out": release}, tell=said.append)
    assert [(run.arm, run.seed) for run in runs] == [
        ("noise", 0), ("runs", 0), ("noise", 1), ("runs", 1),
    ]  # fmt: skip
    bits = {(run.arm, run.seed): run.bits_per_byte["held out"] for run in runs}
    assert all(bits["runs", seed] < bits["noise", seed] - 0.1 for seed in range(2))
    assert len(said) == 4
    assert json.loads((tmp_path / "runs.json").read_text())[1]["arm"] == "runs"
    assert (tmp_path / "report.md").read_text() == report(runs)

    again = ablate(config, arms, {"held out": release})
    assert again == runs  # also the losses, of runs that were finished before


def test_the_interval_is_students() -> None:
    """Of 1, 2, 3: standard deviation 1, t of 2 degrees at 97.5 % is 4.3027 (any table of it)."""
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(4.30265 / 3**0.5, rel=1e-5)


def test_arms_are_compared_seed_by_seed() -> None:
    """Seeds differ by 1, the arms by 0.25 and 0.26: the difference is known to a hundredth."""
    runs = [
        Run(arm, seed, 0.0, {"web": bits})
        for arm, own in (("raw", (2.0, 3.0)), ("filtered", (1.75, 2.74)))
        for seed, bits in enumerate(own)
    ]
    lines = report(runs).splitlines()
    assert lines[0] == "Bits a byte of held-out hosts, 2 seeds, 95% confidence."
    # t of 1 degree at 97.5 % is 12.7062; half a difference of .01 is its standard error
    assert lines[-1].endswith(f"| 0.2550 ± {12.7062 * 0.005:.4f} |")
    assert lines[-2] == f"| raw | 2.5000 ± {12.7062 * 0.5:.4f} |  |"
