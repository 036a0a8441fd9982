"""HumanEval (Chen et al. 2021, arXiv 2107.03374): functions that a model completes, and tests them.

The programs are a model's, so they run in `code_sandbox`, and only when the user allows it.
"""

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from curation.errors import ConfigError, InputInvalid, InputMissing
from curation.train.code_sandbox import Verdict, run

# Where a completion ends that goes on after its function (Chen et al. 2021, section 2.2).
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
FIELDS = ("task_id", "prompt", "test", "entry_point")


@dataclass(frozen=True)
class Problem:
    """A function to complete, and what checks it."""

    task_id: str
    prompt: str
    test: str
    entry_point: str
    canonical_solution: str = ""


def read_problems(path: str | Path) -> list[Problem]:
    """Return the problems of a .jsonl or .jsonl.gz file.

    Raises InputMissing for no file, InputInvalid for a line without the fields of HumanEval.
    """
    path = Path(path)
    if not path.is_file():
        raise InputMissing(f"no file at {path}; name HumanEval.jsonl.gz")
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    problems = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            values = {name: row[name] for name in FIELDS}
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputInvalid(
                f"{path}, line {number} is no problem of HumanEval ({error!r}); it has "
                f"{', '.join(FIELDS)}"
            ) from None
        problems.append(Problem(**values, canonical_solution=row.get("canonical_solution", "")))
    return problems


def check(problem: Problem, completion: str, *, seconds: float = 5.0) -> Verdict:
    """Run the tests of a problem on a completion of its prompt."""
    program = (
        f"{problem.prompt}{cut(completion)}\n\n{problem.test}\n\ncheck({problem.entry_point})\n"
    )
    return run(program, seconds=seconds)


def cut(completion: str) -> str:
    """Return a completion up to where something new begins after the function."""
    ends = [completion.find(stop) for stop in STOPS]
    return completion[: min((end for end in ends if end >= 0), default=len(completion))]


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Return the probability that one of k samples is right, of n of which c are: unbiased.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, equation 1). Raises ConfigError unless
    0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= num_right <= num_samples and 1 <= k <= num_samples):
        raise ConfigError(
            f"pass@{k} of {num_samples} samples, {num_right} right; k is at most the samples"
        )
    return 1.0 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def evaluate(
    problems: Sequence[Problem],
    completions: Mapping[str, Sequence[str]],
    ks: Sequence[int] = (1,),
    *,
    allow_code: bool = False,
    seconds: float = 5.0,
    num_threads: int = 2,
) -> dict[str, float]:
    """Return pass@k over the problems, of completions by task_id.

    Runs code that a model wrote: raises ConfigError unless `allow_code` says so, and for a problem
    without completions.
    """
    if not allow_code:
        raise ConfigError(
            "HumanEval runs code that the model wrote; read curation/train/code_sandbox.py, and "
            "allow it with --allow-code"
        )
    missing = [each.task_id for each in problems if not completions.get(each.task_id)]
    if missing:
        raise ConfigError(f"{len(missing)} problems have no completion: {missing[0]}; add them")
    jobs = [(problem, text) for problem in problems for text in completions[problem.task_id]]
    with ThreadPoolExecutor(num_threads) as pool:
        verdicts = list(pool.map(lambda job: check(*job, seconds=seconds), jobs))
    right: dict[str, int] = {}
    for (problem, _), verdict in zip(jobs, verdicts, strict=True):
        right[problem.task_id] = right.get(problem.task_id, 0) + (verdict.outcome == "passed")
    return {
        f"pass@{k}": sum(
            pass_at_k(len(completions[each.task_id]), right[each.task_id], k) for each in problems
        )
        / len(problems)
        for k in ks
    }
