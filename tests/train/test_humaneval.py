"""Programs of a model: what they may not do, and how often they are right."""

import itertools
import os
import socket
import time
from pathlib import Path

import pytest

from curation.errors import ConfigError, InputInvalid, InputMissing
from curation.train import code_sandbox
from curation.train.code_sandbox import run
from curation.train.humaneval import Problem, check, cut, evaluate, pass_at_k, read_problems

GOLD = Path(os.environ.get("CURATION_GOLD_DATA", "/nowhere"), "eval-humaneval")
DOUBLE = Problem(
    "x/0",
    'def double(n):\n    """Return twice n."""\n',
    "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate('a') == 'aa'\n",
    "double",
)


@pytest.mark.parametrize(
    ("program", "outcome", "reason"),
    [
        ("x = 1\nassert x == 1", "passed", ""),
        ("import math, re, collections, itertools, typing, hashlib\n", "passed", ""),
        ("open('own.txt', 'w').write('x'); print(open('own.txt').read())", "passed", ""),
        ("assert 1 == 2", "failed", "AssertionError"),
        ("def f(:", "failed", "SyntaxError"),
        ("import sys; sys.exit(3)", "failed", "exit code 3"),
        ("import os; os._exit(1)", "failed", "exit code 1"),
        ("input()", "failed", "EOFError"),
        ("import os; os.kill(1, 9)", "failed", "os.kill is refused"),
        ("import subprocess; subprocess.run(['ls'])", "failed", "is refused"),
        ("import os; os.system('ls')", "failed", "os.system is refused"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "failed", "socket."),
        ("import ctypes; ctypes.CDLL(None)", "failed", "is refused"),
        ("open('/tmp/curation-escape', 'w')", "failed", "writing /tmp/curation-escape is refused"),
        ("import os; os.remove('/etc/hostname')", "failed", "is refused"),
        ("import shutil; shutil.rmtree('/')", "failed", "shutil.rmtree is refused"),
        ("x = bytearray(3 << 30)", "failed", "MemoryError"),
    ],
)
def test_what_a_program_may_do(program, outcome, reason):
    found = run(program)
    assert found.outcome == outcome, found
    assert reason in found.reason
    assert not Path("/tmp/curation-escape").exists()


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"])
def test_a_program_that_does_not_end_is_ended(program):
    began = time.monotonic()
    assert run(program, seconds=1).outcome == "timeout"
    assert time.monotonic() - began < 10


def test_children_do_not_outlive_the_program():
    found = run("import os\npid = os.fork()\nif pid == 0:\n    while True: pass\n", seconds=1)
    assert found.outcome == "failed"
    assert "os.fork is refused" in found.reason


@pytest.mark.skipif(
    not code_sandbox.has_namespace(), reason="the kernel gives no network namespace here"
)
def test_without_a_network_not_even_this_machine_is_reached():
    """By the network namespace alone, without the audit hook."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        own = code_sandbox.REFUSED
        try:
            code_sandbox.REFUSED = ("nothing",)
            found = run(f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
        finally:
            code_sandbox.REFUSED = own
    assert found.outcome == "failed"


def test_completions_are_checked_by_the_tests():
    assert check(DOUBLE, "    return n + n\n").outcome == "passed"
    assert check(DOUBLE, "    return n + n\n\ndef other():\n    syntax error").outcome == "passed"
    assert check(DOUBLE, "    return 2 * 2\n").outcome == "failed"
    assert cut("    return 1\nprint(5)\n") == "    return 1"
    assert cut("    if x:\n        return 1") == "    if x:\n        return 1"


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_k_is_the_share_of_choices_with_a_right_one(n):
    for right in range(n + 1):
        samples = [i < right for i in range(n)]
        for k in range(1, n + 1):
            choices = list(itertools.combinations(samples, k))
            expected = sum(any(choice) for choice in choices) / len(choices)
            assert pass_at_k(n, right, k) == pytest.approx(expected)
    for values in ((n, n + 1, 1), (n, 0, n + 1), (n, 0, 0)):
        with pytest.raises(ConfigError, match="k is at most the samples"):
            pass_at_k(*values)


def test_evaluating_runs_code_only_when_allowed():
    answers = {"x/0": ["    return n + n\n", "    return 5\n"]}
    with pytest.raises(ConfigError, match="allow it with --allow-code"):
        evaluate([DOUBLE], answers)
    found = evaluate([DOUBLE], answers, (1, 2), allow_code=True)
    assert found == {"pass@1": 0.5, "pass@2": 1.0}
    with pytest.raises(ConfigError, match="1 problems have no completion: x/0"):
        evaluate([DOUBLE], {}, allow_code=True)


def test_files_that_are_no_problems(tmp_path):
    with pytest.raises(InputMissing, match="no file at"):
        read_problems(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('\n{"task_id": "x"}\n')
    with pytest.raises(InputInvalid, match="line 2 is no problem of HumanEval"):
        read_problems(tmp_path / "bad.jsonl")


@pytest.mark.skipif(not GOLD.is_dir(), reason="CURATION_GOLD_DATA names no folder")
def test_the_canonical_solutions_pass_and_empty_ones_do_not():
    problems = read_problems(next(GOLD.glob("*.jsonl*")))
    assert len(problems) == 164
    solutions = {each.task_id: [each.canonical_solution] for each in problems}
    assert evaluate(problems, solutions, allow_code=True, seconds=10) == {"pass@1": 1.0}
    nothing = {each.task_id: ["    pass\n"] for each in problems}
    assert evaluate(problems, nothing, allow_code=True, seconds=10) == {"pass@1": 0.0}
