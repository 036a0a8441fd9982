"""What is measured of a model: bits per byte, HumanEval, repetition; lm-eval on local files."""

import csv
import json
import math
from pathlib import Path

import pytest
from small_release import write_rows as write

needed = "pip install 'curation[train]'"
pytest.importorskip("torch", reason=f"needs torch: {needed}")
pytest.importorskip("lm_eval", reason=f"needs lm-eval: {needed}")

from lm_eval.models.huggingface import HFLM  # noqa: E402

from curation.errors import ConfigError, InputInvalid, InputMissing  # noqa: E402
from curation.train import command, harness  # noqa: E402
from curation.train.loop import train  # noqa: E402
from curation.train.model import load  # noqa: E402
from curation.train.settings import TrainConfig  # noqa: E402

# Libraries warn of each other's changes.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_measures_of_a_model(model, release, tmp_path, capsys):
    """Bits per byte are those that training measured; an untrained model does not end."""
    prompts = write(tmp_path / "p.jsonl", [{"prompt": f"Say {i}."} for i in range(3)])
    problem = {
        "task_id": "x/0", "prompt": "def one():\n", "test": "def check(f):\n    assert f() == 1\n",
        "entry_point": "one",
    }  # fmt: skip
    problems = write(tmp_path / "h.jsonl", [problem])
    to = tmp_path / "results.json"
    command.evaluate(
        [
            *("--model", model, "--shards", str(release), "--repetition", prompts),
            *("--humaneval", problems, "--allow-code", "--max-new-tokens", "8", "--to", str(to)),
        ]
    )
    found = json.loads(to.read_text())
    assert list(found) == ["bits per byte", "repetition", "humaneval pass@1"]
    whole = TrainConfig(
        shards=str(release), to=str(Path(model).parent), num_steps=4, batch_size=8, warmup_steps=1,
        checkpoint_seconds=1e9, validation_rows=256,
    )  # fmt: skip
    assert found["bits per byte"] == pytest.approx(train(whole).bits_per_byte, rel=1e-4)
    assert 0 <= found["repetition"] <= 1
    assert found["humaneval pass@1"] == 0.0
    said = capsys.readouterr().out
    assert "paper: 7b base 0.262" in said


def test_code_runs_only_when_allowed(model, tmp_path):
    with pytest.raises(SystemExit, match="allow it with --allow-code"):
        command.evaluate(["--model", model, "--humaneval", "h.jsonl"])
    with pytest.raises(SystemExit, match="nothing to evaluate; name --gsm8k"):
        command.evaluate(["--model", model])


# ---- lm-eval -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(model):
    import torch

    found, tokenizer = load(model, torch.float32)
    return found.eval(), tokenizer


def questions(path: Path, answers: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", *harness.CMMLU_FIELDS])
        for i, answer in enumerate(answers):
            writer.writerow([i, f"{i} + {i} = ?", i, 2 * i, 3 * i, 4 * i, answer])


def test_cmmlu_takes_one_letter_of_every_question(loaded, tmp_path):
    """Of four keys that name A, B, C, D throughout, each question is right in just one."""
    shares = []
    for letter in "ABCD":
        folder = tmp_path / letter
        questions(folder / "test" / "anatomy.csv", letter * 6)
        questions(folder / "dev" / "anatomy.csv", "ABCDA")
        questions(folder / "test" / "agronomy.csv", letter * 2)
        questions(folder / "dev" / "agronomy.csv", "DCBAD")
        found = harness.evaluate(*loaded, cmmlu=str(folder))
        assert list(found) == ["cmmlu"] and found["cmmlu"].num_problems == 8
        shares.append(found["cmmlu"].value)
    assert sum(shares) == pytest.approx(1.0)


def test_gsm8k_counts_the_last_number(loaded, tmp_path, monkeypatch):
    """Eight examples stand before each problem; a comma and a sign of dollars change nothing."""
    problems = [("one", "1"), ("two", "-2"), ("three", "1,300"), ("four", "4")]
    rows = [{"question": q, "answer": f"It is so.\n#### {a}"} for q, a in problems]
    said = {"one": "First 7, then 1.", "two": "So it is -2.", "three": "It is $1300.", "four": "5"}
    seen = []

    def answer(self, requests, **_):
        seen.extend(request.args[0] for request in requests)
        names = [text.rsplit("Q: ", 1)[1].split("\n")[0] for text in seen[-len(requests) :]]
        return [said[name] for name in names]

    monkeypatch.setattr(HFLM, "generate_until", answer)
    found = harness.evaluate(*loaded, gsm8k=write(tmp_path / "test.jsonl", rows))["gsm8k"]
    assert found.value == 0.75 and found.num_problems == 4
    assert found.error == pytest.approx(math.sqrt(0.75 * 0.25 / 3), rel=1e-6)
    assert all(text.count("Q: ") == 9 for text in seen)


def test_a_task_file_of_a_user(loaded, tmp_path):
    data = write(tmp_path / "d.jsonl", [{"text": "2 3 4 5"}, {"text": "7 8 9"}])
    task = tmp_path / "mine.yaml"
    task.write_text(
        "task: mine\ndataset_path: json\n"
        f"dataset_kwargs:\n  data_files: {{test: {data}}}\n  cache_dir: {tmp_path}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{text}}'\n"
        "doc_to_choice: ['x', 'y']\ndoc_to_target: 0\n"
    )
    found = harness.evaluate(*loaded, tasks=[str(task)])
    assert found["mine"].num_problems == 2 and 0 <= found["mine"].value <= 1


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"gsm8k": "/nowhere.jsonl"}, InputMissing, "no file at /nowhere.jsonl"),
        ({"gsm8k": "bad.jsonl"}, InputInvalid, "bad.jsonl is no json of problems"),
        ({"gsm8k": "other.jsonl"}, InputInvalid, "1 rows of a; question, answer is missing"),
        ({"cmmlu": "/nowhere"}, InputMissing, "has no <subject>.csv of CMMLU"),
        ({"cmmlu": "folder"}, ConfigError, "CMMLU has no subject 'cookery'"),
        ({"tasks": ["/nowhere.yaml"]}, InputMissing, "no task file at /nowhere.yaml"),
        ({"tasks": ["bad.yaml"]}, ConfigError, "lm-eval refuses bad.yaml"),
    ],
)
def test_mistakes_in_files(loaded, tmp_path, monkeypatch, asked, error, message):
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text("no JSON\n")
    write(Path("other.jsonl"), [{"a": 1}])
    questions(Path("folder") / "cookery.csv", "ABCD")
    Path("bad.yaml").write_text("a: b: c\n")
    with pytest.raises(error, match=message):
        harness.evaluate(*loaded, **asked)
