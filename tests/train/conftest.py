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
