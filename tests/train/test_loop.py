"""The loop: exact to the sample and, on a CPU, to the bit; and what stops it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'curation[train]'")
pytest.importorskip("transformers", reason="needs transformers: pip install 'curation[train]'")

import recipe_in_plain_torch as recipe  # noqa: E402
from small_release import write_release  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import (  # noqa: E402
    EventAccumulator,
)

from curation.errors import (  # noqa: E402
    CheckpointFailed,
    ConfigError,
    DatasetChanged,
    LossDiverged,
    OutOfMemory,
)
from curation.tokens.reader import open_shards  # noqa: E402
from curation.train import checkpoints, loop  # noqa: E402
from curation.train.loop import train  # noqa: E402
from curation.train.metrics import peak_flops  # noqa: E402
from curation.train.settings import TrainConfig  # noqa: E402

ROOT = Path(__file__).parents[2]
STEPS = 8


@pytest.fixture
def configure(release, tmp_path):
    """Make a run of 8 steps: `configure(to="a", seed=1)`."""

    def make(to: str = "run", **settings) -> TrainConfig:
        values = {
            **{"shards": str(release), "preset": "tiny", "num_steps": STEPS, "batch_size": 8},
            **{"warmup_steps": 2, "checkpoint_seconds": 1e9, "learning_rate": 5e-3},
            **settings,
        }
        return TrainConfig(to=str(tmp_path / to), **values)

    return make


def metrics(config: TrainConfig) -> list[dict]:
    lines = (Path(config.to) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(config: TrainConfig) -> list[float]:
    return [row["loss"] for row in metrics(config)]


def test_it_learns_and_says_how(configure):
    config = configure(num_steps=16, validate_steps=8, peak_flops=1e12)
    found = train(config)
    rows = metrics(config)
    assert [row["step"] for row in rows] == list(range(1, 17))
    assert [row["position"] for row in rows] == [8 * step for step in range(1, 17)]
    assert rows[0]["loss"] == pytest.approx(8.318, abs=0.1)  # ln 4096
    assert found.loss == rows[-1]["loss"] < rows[0]["loss"] - 1
    assert rows[7]["bits_per_byte"] > found.bits_per_byte == rows[15]["bits_per_byte"] > 0
    assert [row["learning_rate"] for row in rows[:3]] == [2.5e-3, 5e-3, 5e-3]
    assert rows[13]["learning_rate"] == pytest.approx(5e-3 * 0.1**0.5)
    assert rows[15]["learning_rate"] == pytest.approx(5e-4)
    assert all(0 < row["mfu"] < 1 for row in rows)


def test_the_losses_are_those_of_the_recipe_written_a_second_time(configure, release):
    """Golden losses: model, loss, optimiser, schedule and data in float64, by another's code."""
    config = configure(num_steps=10, seed=3)
    train(config)
    torch.manual_seed(3)
    shape = loop.preset("tiny")
    built = loop.models.build(replace(shape, sequence_length=32))
    weights = {name: value.detach() for name, value in built.named_parameters()}
    expected = recipe.losses(
        weights, sorted(release.glob("train-*.parquet")), num_layers=shape.num_layers,
        num_heads=shape.num_heads, batch_size=8, num_steps=10, warmup_steps=2, peak=5e-3,
    )  # fmt: skip
    assert losses(config) == pytest.approx(expected, rel=5e-5)
    assert expected[-1] < expected[0] - 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch itself
def test_compiled_it_has_the_same_losses(configure):
    for to, is_compiled in (("plain", False), ("compiled", True)):
        train(configure(to, compile=is_compiled, num_steps=4))
    assert losses(configure("compiled")) == pytest.approx(losses(configure("plain")), rel=1e-5)


def test_tensorboard_shows_what_metrics_hold(configure):
    """Also after going on: steps that were done again are there once."""
    config = configure()
    train(config, stop_before=3)
    with (Path(config.to) / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, "loss": 1.0}) + "\n")
    train(config)
    board = EventAccumulator(str(Path(config.to) / "tensorboard")).Reload()
    assert [event.step for event in board.Scalars("loss")] == list(range(1, STEPS + 1))
    shown = [event.value for event in board.Scalars("loss")]
    assert shown == pytest.approx(losses(config), rel=1e-6)
    assert set(board.Tags()["scalars"]) >= {"gradient_norm", "tokens_per_second", "data_seconds"}


def test_a_loss_above_its_bound_is_an_error_of_a_finished_run(configure):
    """The model is written all the same; below its bound nothing is said."""
    for _ in range(2):  # the second time no step is left to do
        with pytest.raises(LossDiverged, match=r"last 8 steps have a mean loss of .* = 1;"):
            train(configure(max_loss=1.0))
    assert (Path(configure().to) / "model" / "config.json").exists()
    train(configure("other", max_loss=9.0))


def test_the_time_of_a_step_has_parts(configure):
    config = configure()
    found = train(config)
    assert 0.5 < sum(found.shares.values()) <= 1
    assert set(found.shares) == {"data", "forward", "backward", "optimizer"}
    assert all(row["forward_seconds"] > 0 < row["backward_seconds"] for row in metrics(config))


def test_a_release_behind_a_url(configure, release, tmp_path, monkeypatch):
    """Bits per byte and the tokenizer of the model need the release's tokenizer.json."""
    monkeypatch.setattr("curation.tokens.reader.cache_dir", lambda name: tmp_path / "cache" / name)
    near = train(configure("near"))
    far = train(configure("far", shards=release.as_uri()))
    assert far == replace(near, shares=far.shares)
    tokenizers = [tmp_path / to / "model" / "tokenizer.json" for to in ("near", "far")]
    assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "flops"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4", 312e12),
     ("NVIDIA L40S", 362e12), ("NVIDIA L40", 0.0),
     ("NVIDIA RTX A1000", 0.0), ("NVIDIA GH200 480GB", 989e12), ("Another", 0.0)],
)  # fmt: skip
def test_peaks_of_devices(monkeypatch, name, flops):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert peak_flops(torch.device("cuda")) == flops
    assert peak_flops(torch.device("cpu")) == 0.0


def test_the_same_run_has_the_same_losses_and_another_seed_others(configure):
    for to, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(configure(to, seed=seed, num_steps=3))
    assert losses(configure("a")) == losses(configure("b")) != losses(configure("c"))


def test_micro_batches_and_recomputing_change_nothing_but_rounding(configure):
    train(configure("a", num_steps=3))
    for to, changed in (("b", {"micro_batch_size": 1}), ("c", {"recompute": True})):
        train(configure(to, num_steps=3, **changed))
        assert losses(configure(to)) == pytest.approx(losses(configure("a")), rel=1e-5)


@pytest.mark.parametrize("stop", [1, 5])
def test_going_on_gives_the_losses_of_the_uninterrupted_run(configure, stop):
    train(configure("whole"))
    train(configure("parts"), stop_before=stop)
    train(configure("parts"))
    assert losses(configure("parts")) == losses(configure("whole"))


def test_a_killed_run_goes_on_from_its_last_checkpoint(configure, tmp_path):
    """kill -9 between two checkpoints: the lost steps are done again, to the bit."""
    train(configure("whole"))
    config = configure("killed")
    command = [
        *(sys.executable, str(ROOT / "jobs" / "train.py"), "--shards", config.shards),
        *("--to", config.to, "--num-steps", str(STEPS), "--batch-size", "8"),
        *("--warmup-steps", "2", "--learning-rate", "5e-3", "--checkpoint-seconds", "0"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(Path(config.to).glob("checkpoints/step-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(configure("killed"))
    assert losses(configure("killed")) == losses(configure("whole"))


def test_two_processes_see_the_samples_of_one_and_go_on_as_one(configure, tmp_path):
    """On gloo: the first half of the steps by two, the rest by one.

    The first of the two alone finds checkpoints due, which both then write; three rows are
    validated, two by one process and one by the other.
    """
    how = {"validate_steps": 2, "validation_rows": 3, "micro_batch_size": 2}
    train(configure("one", **how))
    config = configure("two", **how)
    script = tmp_path / "half.py"
    script.write_text(
        "import os\nfrom curation.train.loop import train\n"
        "from curation.train.settings import TrainConfig\n"
        "seconds = 0.0 if os.environ['RANK'] == '0' else 1e9\n"
        f"train(TrainConfig(shards={config.shards!r}, to={config.to!r}, preset='tiny', "
        f"num_steps={STEPS}, batch_size=8, warmup_steps=2, checkpoint_seconds=seconds, "
        f"learning_rate=5e-3, **{how}), stop_before=4)\n"
    )
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-addr", "127.0.0.1", "--master-port", "0", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", "127.0.0.1:0", str(script)),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kept = sorted(path.name for path in (Path(config.to) / "checkpoints").iterdir())
    assert kept == ["step-000000003", "step-000000004"]
    train(config)
    assert losses(config) == pytest.approx(losses(configure("one")), rel=1e-4)
    bits = [[row["bits_per_byte"] for row in metrics(configure(to))[1::2]] for to in ("one", "two")]
    assert bits[1] == pytest.approx(bits[0], rel=1e-4) and len(bits[0]) == 4


def test_another_release_is_refused(configure, tmp_path):
    train(configure("run"), stop_before=1)
    other = write_release(tmp_path / "other", seed=7)
    with pytest.raises(DatasetChanged, match="begun on a release with fingerprint"):
        train(configure("run", shards=str(other)))


def test_other_settings_are_refused_by_name(configure):
    train(configure("run"), stop_before=1)
    with pytest.raises(ConfigError, match=r"begun with warmup_steps = 2, now it is 3; set it back"):
        train(configure("run", warmup_steps=3))


def test_a_loss_that_is_no_number_names_its_samples_and_can_be_skipped(configure, monkeypatch):
    own = loop.models.summed_loss
    bad = open_shards(configure().shards).row(18)["input_ids"].tolist()

    def poisoned(model, ids, labels, documents=None):
        loss = own(model, ids, labels, documents)
        return loss * float("nan") if bad in ids.tolist() else loss

    monkeypatch.setattr(loop.models, "summed_loss", poisoned)
    train(configure("run"), stop_before=2)
    with pytest.raises(LossDiverged, match=r"step 2: loss nan.* positions 16 to 23 .*skip=16-23"):
        train(configure("run"))
    assert [path.name for path in (Path(configure("run").to) / "checkpoints").iterdir()] == [
        "step-000000002"
    ]
    found = train(configure("run", skip=("16-23",)))
    assert found.step == STEPS
    with pytest.raises(ConfigError, match=r"skip=3-5 changes what the run has seen"):
        train(configure("run", skip=("3-5", "16-23")))


def test_a_full_disk_leaves_the_last_checkpoint(configure, monkeypatch):
    train(configure("run"), stop_before=2)
    own = checkpoints.async_save

    class Failing:
        def result(self):
            raise OSError(28, "No space left on device")

        def done(self):
            return True

    monkeypatch.setattr(checkpoints, "async_save", lambda *_, **__: Failing())
    with pytest.raises(
        CheckpointFailed, match=r"No space left.* last whole one is step-000000002: free space"
    ):
        train(configure("run"))
    monkeypatch.setattr(checkpoints, "async_save", own)
    train(configure("whole"))
    train(configure("run"))
    assert losses(configure("run")) == losses(configure("whole"))


def test_too_little_memory_says_which_knob(configure, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loop.models, "summed_loss", full)
    with pytest.raises(OutOfMemory, match="lower micro_batch_size, set recompute=true"):
        train(configure())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 1000}, r"1000 steps of 8 rows, but 1 epochs of \d+ rows make"),
        ({"micro_batch_size": 3}, "no multiple of micro_batch_size = 3"),
        ({"skip": ("5",)}, "skip has '5'; write FIRST-LAST"),
        ({"warmup_steps": 8}, "8 warm-up steps reach into the first stage of 8 steps"),
    ],
)
def test_settings_that_cannot_be(configure, settings, message):
    with pytest.raises(ConfigError, match=message):
        train(configure(**settings))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
def test_cuda_that_is_not_there_is_named(configure):
    with pytest.raises(ConfigError, match="device is cuda, but torch sees none; set device=cpu"):
        train(configure(device="cuda"))


def test_a_vocabulary_that_is_too_large_is_named(configure, release, tmp_path, monkeypatch):
    shape = loop.preset("7b")
    monkeypatch.setattr(loop, "preset", lambda name: replace(shape, vocab_size=100))
    with pytest.raises(ConfigError, match="has a vocabulary of 4096, preset 7b one of 100"):
        train(configure(preset="7b"))


def test_checkpoints_are_whole_and_few(configure):
    config = configure("run", checkpoint_seconds=0.0, keep_checkpoints=2)
    train(config)
    folder = Path(config.to) / "checkpoints"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["step-000000007", "step-000000008"]
    assert all((folder / name / "run.json").exists() for name in names)
    shutil.rmtree(folder / names[1])
    train(config)
    assert [row["step"] for row in metrics(config)] == list(range(1, STEPS + 1))
