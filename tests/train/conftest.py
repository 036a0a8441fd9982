from pathlib import Path

import pytest
from small_release import LENGTH, write_release

from curation.tokens import packing


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small release."""
    patch = pytest.MonkeyPatch()
    patch.setattr(packing, "ROW_GROUP_TOKENS", 16 * LENGTH)
    try:
        return write_release(tmp_path_factory.mktemp("train") / "release")
    finally:
        patch.undo()


@pytest.fixture(scope="session")
def model(release: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model of a few steps, as a training run leaves it."""
    from curation.train.loop import train
    from curation.train.settings import TrainConfig

    to = tmp_path_factory.mktemp("trained") / "run"
    config = TrainConfig(
        shards=str(release), to=str(to), num_steps=4, batch_size=8, warmup_steps=1,
        checkpoint_seconds=1e9,
    )  # fmt: skip
    train(config)
    return str(to / "model")
