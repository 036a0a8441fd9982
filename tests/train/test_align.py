"""Fine-tuning and preferences: both improve their own objective on a tiny model."""

import math
from pathlib import Path

import pytest
from small_release import write_rows as write

needed = "pip install 'curation[train]'"
torch = pytest.importorskip("torch", reason=f"needs torch: {needed}")
transformers = pytest.importorskip("transformers", reason=f"needs transformers: {needed}")
pytest.importorskip("trl", reason=f"needs trl: {needed}")

from curation.errors import ArtifactMissing, ConfigError, InputInvalid, InputMissing  # noqa: E402
from curation.train.align import dpo, sft  # noqa: E402
from curation.train.settings import DpoConfig, SftConfig  # noqa: E402

# Libraries warn of each other's changes.
pytestmark = pytest.mark.filterwarnings("ignore")


def conversations(path: Path) -> str:
    return write(
        path,
        [
            {
                "messages": [
                    {"role": "user", "content": f"What comes after {i}?"},
                    {"role": "assistant", "content": f"After {i} comes {i + 1}."},
                ]
            }
            for i in range(24)
        ],
    )


def test_the_exported_model_is_the_trained_one(model):
    """transformers reads it, its tokenizer too; 4096 tokens, of which the padding is the end."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    assert loaded.config.vocab_size == 4096
    assert tokenizer.eos_token == tokenizer.pad_token == "<|end_of_text|>"
    ids = tokenizer("The value is 12345", return_tensors="pt").input_ids
    assert loaded(ids).logits.shape == (1, ids.shape[1], 4096)
    assert tokenizer.decode(ids[0]) == "The value is 12345"


@pytest.mark.parametrize("packing", [False, True])
def test_fine_tuning_lowers_the_loss_of_the_answers(model, tmp_path, packing):
    found = sft(
        SftConfig(
            model=model,
            data=conversations(tmp_path / "c.jsonl"),
            to=str(tmp_path / "tuned"),
            learning_rate=2e-3,
            epochs=4.0,
            batch_size=8,
            max_length=64,
            packing=packing,
        )
    )
    assert found.last_loss < found.first_loss - 0.5
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tuned")


def test_preferences_are_learned(model, tmp_path):
    rows = [
        {"prompt": f"Say {word}.", "chosen": "Yes, gladly.", "rejected": "No, never."}
        for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")
    ]
    found = dpo(
        DpoConfig(
            model=model,
            data=write(tmp_path / "p.jsonl", rows),
            to=str(tmp_path / "chat"),
            learning_rate=1e-3,
            epochs=6.0,
            batch_size=8,
            max_length=64,
        )
    )
    # the model is its own reference
    assert found.first_loss == pytest.approx(math.log(2), abs=1e-3), (
        "the model is its own reference"
    )
    assert found.last_loss < found.first_loss - 0.05
    assert found.accuracy == 1.0


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"model": "/nowhere"}, ArtifactMissing, "no model in /nowhere"),
        ({"data": "/nowhere.jsonl"}, InputMissing, "no file at"),
        ({"batch_size": 6}, ConfigError, "no multiple of micro_batch_size = 4"),
    ],
)
def test_mistakes(model, tmp_path, changed, error, message):
    settings = {"model": model, "data": conversations(tmp_path / "c.jsonl"), "to": str(tmp_path)}
    with pytest.raises(error, match=message):
        sft(SftConfig(**{**settings, **changed}))
    empty = write(tmp_path / "e.jsonl", [])
    with pytest.raises(InputMissing, match="has no conversation"):
        sft(SftConfig(**{**settings, "data": empty}))
    bad = write(tmp_path / "b.jsonl", [{"messages": [{"role": "user", "content": "x"}]}])
    with pytest.raises(InputInvalid, match=r"b\.jsonl, line 1 has no assistant message"):
        sft(SftConfig(**{**settings, "data": bad}))
