"""Benchmarks of lm-eval (EleutherAI's harness) on files that lie here: nothing is downloaded.

gsm8k    lm-eval's gsm8k_cot: the eight examples of Wei et al. 2022, the last number counts
cmmlu    lm-eval's cmmlu_<subject>, five examples: the letter with the highest probability
others   task files of lm-eval that a user names
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import yaml
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from curation.errors import ConfigError, InputInvalid, InputMissing

CMMLU_EXAMPLES = 5  # shown before a question (DeepSeek LLM, table 5)
GSM8K_FIELDS = ("question", "answer")
CMMLU_FIELDS = ("Question", "A", "B", "C", "D", "Answer")
UNTIL = ["Q:", "Question:"]  # the next question, which a base model goes on with


class Score(NamedTuple):
    """The share of problems that were solved, its standard error, and how many there were."""

    value: float
    error: float
    num_problems: int


def evaluate(
    model: Any,
    tokenizer: Any,
    *,
    gsm8k: str = "",
    cmmlu: str = "",
    tasks: Sequence[str] = (),
    num_problems: int = 0,
    max_new_tokens: int = 512,
    batch_size: int = 8,
    seed: int = 0,
) -> dict[str, Score]:
    """Return the scores of a loaded model, by benchmark; `cmmlu` is that of all its questions.

    `gsm8k` is a .jsonl[.gz] file; `cmmlu` a folder of <subject>.csv[.gz], or of test/ and dev/ with
    them: examples come from dev, or else from the other questions; `tasks` are .yaml task files of
    lm-eval. `num_problems` bounds the problems of a benchmark (of a subject). Raises InputMissing
    and InputInvalid for files, ConfigError for a subject or task that lm-eval does not know.
    """
    known = TaskManager()
    with tempfile.TemporaryDirectory() as folder:
        made = _Tasks(Path(folder), known)
        named = list(tasks)
        if gsm8k:
            named.append(made.gsm8k(gsm8k, max_new_tokens))
        subjects = _subjects(cmmlu) if cmmlu else {}
        named += [made.cmmlu(subject, files) for subject, files in subjects.items()]
        for task in tasks:
            if not Path(task).is_file():
                raise InputMissing(f"no task file at {task}; name a .yaml file of lm-eval")
        loaded = HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            max_length=int(model.config.max_position_embeddings),
        )
        try:
            found = simple_evaluate(
                loaded,
                tasks=named,
                task_manager=known,
                limit=num_problems or None,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
                log_samples=False,
                bootstrap_iters=1000,
            )
        except (KeyError, ValueError, TypeError, OSError, yaml.YAMLError) as error:
            raise ConfigError(
                f"lm-eval refuses {', '.join(tasks) or 'its tasks'}: {error}; see its guide to "
                "task files: the data must lie here, too"
            ) from None
    own = {name: _score(values) for name, values in found["results"].items()}
    parts = [own.pop(_cmmlu_task(subject)) for subject in subjects]
    if parts:
        own["cmmlu"] = _together(parts)
    return own


class _Tasks:
    """Writes task files that take all but the data from those of lm-eval."""

    def __init__(self, folder: Path, known: TaskManager) -> None:
        self.folder, self.known = folder, known

    def gsm8k(self, path: str, max_new_tokens: int) -> str:
        how = {"do_sample": False, "until": UNTIL, "max_gen_toks": max_new_tokens}
        _check(Path(path), "json", GSM8K_FIELDS, self.folder)
        return self._write("gsm8k", "gsm8k_cot", "json", {"test": path}, generation_kwargs=how)

    def cmmlu(self, subject: str, files: Mapping[str, str]) -> str:
        for path in files.values():
            _check(Path(path), "csv", CMMLU_FIELDS, self.folder)
        base = _cmmlu_task(subject)
        if base not in self.known.task_index:
            raise ConfigError(
                f"{files['test']}: CMMLU has no subject {subject!r}; files are named as in its "
                "data, for example anatomy.csv"
            )
        examples = {"fewshot_split": "dev" if "dev" in files else "test"}
        return self._write(base, base, "csv", files, num_fewshot=CMMLU_EXAMPLES, **examples)

    def _write(self, name: str, base: str, kind: str, files: Mapping[str, str], **more: Any) -> str:
        task = {
            "include": str(self.known.task_index[base].yaml_path),
            "task": name,
            "dataset_path": kind,
            "dataset_name": None,
            "dataset_kwargs": {"data_files": dict(files), "cache_dir": str(self.folder / "cache")},
            **more,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(task), encoding="utf-8")
        return str(path)


def _cmmlu_task(subject: str) -> str:
    return f"cmmlu_{subject}"


def _subjects(folder: str) -> dict[str, dict[str, str]]:
    """Return the files of every subject, by split."""
    top = Path(folder)
    test = top / "test" if (top / "test").is_dir() else top
    found: dict[str, dict[str, str]] = {}
    for path in sorted([*test.glob("*.csv"), *test.glob("*.csv.gz")]):
        name = re.sub(r"\.csv(\.gz)?$", "", path.name)
        found[name] = {"test": str(path)}
        for dev in (top / "dev" / f"{name}.csv", top / "dev" / f"{name}.csv.gz"):
            if dev.is_file():
                found[name]["dev"] = str(dev)
    if not found:
        raise InputMissing(f"{folder} has no <subject>.csv of CMMLU; name the folder with its data")
    return found


def _check(path: Path, kind: str, fields: Sequence[str], folder: Path) -> None:
    if not path.is_file():
        raise InputMissing(f"no file at {path}; name the test split of the benchmark")
    try:
        rows = datasets.load_dataset(
            kind, data_files=str(path), split="train", cache_dir=str(folder / "cache")
        )
    except Exception as error:  # `datasets` has one of its own for every kind of file
        raise InputInvalid(f"{path} is no {kind} of problems: {error}") from None
    missing = [field for field in fields if field not in rows.column_names]
    if missing or len(rows) == 0:
        raise InputInvalid(
            f"{path} has {len(rows)} rows of {', '.join(rows.column_names)}; "
            f"{', '.join(missing) or 'problems'} is missing: take the benchmark's own file"
        )


def _score(values: Mapping[str, Any]) -> Score:
    """Return a task's first metric; of GSM8K, that in which the last number counts."""
    metrics = [key for key in values if "," in key and "_stderr," not in key]
    metric = next((key for key in metrics if key.endswith(",flexible-extract")), metrics[0])
    name, kind = metric.split(",", 1)
    error = values.get(f"{name}_stderr,{kind}")
    error = float(error) if isinstance(error, float) else 0.0
    return Score(float(values[metric]), error, int(values["sample_len"]))


def _together(parts: Sequence[Score]) -> Score:
    """Return the score of all problems of all parts, as lm-eval's group has it."""
    total = sum(part.num_problems for part in parts)
    value = sum(part.value * part.num_problems for part in parts) / total
    variance = sum((part.error * part.num_problems) ** 2 for part in parts) / total**2
    return Score(value, float(variance**0.5), total)
