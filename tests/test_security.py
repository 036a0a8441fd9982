"""What a reader of other people's pages must not do: read from the sources, and seen in a run."""

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("curation", "udfs", "jobs", ".ci") for path in (ROOT / folder).rglob("*.py")
)

# Modules that run what they read, and names whose call does.
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    "eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "torch.load",
    "pa.compute.call_function", "subprocess.getoutput", "subprocess.getstatusoutput",
}  # fmt: skip
FORBIDDEN_ARGUMENTS = {("shell", True), ("allow_pickle", True), ("trust_remote_code", True)}
# The user's own code of HumanEval, which is what the sandbox is for.
ALLOWED = {("curation/train/code_sandbox.py", "exec")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_unpickles_evaluates_or_asks_a_shell(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    found = [each for each in violations(path.read_text()) if (name, each) not in ALLOWED]
    assert found == []


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("import pickle", "pickle"),
        ("from joblib import load", "joblib"),
        ("import os\nos.system('ls')", "os.system"),
        ("x = eval('1')", "eval"),
        ("subprocess.run('ls', shell=True)", "shell=True"),
        ("np.load(f, allow_pickle=True)", "allow_pickle=True"),
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", "trust_remote_code=True"),
    ],
)
def test_what_is_forbidden_is_found(source: str, named: str) -> None:
    assert list(violations(source)) == [named]


def violations(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in FORBIDDEN_MODULES)
        if isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_MODULES:
            yield node.module
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in FORBIDDEN_CALLS:
                yield called
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if (keyword.arg, value) in FORBIDDEN_ARGUMENTS and value is True:
                    yield f"{keyword.arg}={value}"


@pytest.mark.spark
def test_a_run_writes_its_lake_its_report_and_its_caches_alone(configure, tmp_path: Path) -> None:
    """From a folder and with a home of its own, which stay empty; the project stays as it is."""
    config = configure("engine.group_bytes=1", dumps=1)
    folders = {name: tmp_path / name for name in ("home", "here", "temporary", "cache")}
    for folder in folders.values():
        folder.mkdir()
    environment = {
        **os.environ,
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["temporary"]),
        "XDG_CACHE_HOME": str(folders["cache"]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    began = time.time()
    command = [sys.executable, "-c", "from curation.cli import main; main()"]
    done = subprocess.run(
        [*command, "run", str(tmp_path / "lake.toml"), "--to", "fingerprint"],
        cwd=folders["here"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert list(Path(config.lake).glob("signatures/*"))
    assert list(folders["here"].iterdir()) == []
    assert list(folders["home"].iterdir()) == []
    assert list(folders["temporary"].iterdir()) == []
    assert {path.name for path in folders["cache"].iterdir()} <= {"curation"}
    changed = [
        path
        for folder in ("curation", "udfs", "jobs", "tests/data")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.stat().st_mtime > began and "__pycache__" not in path.parts
    ]
    assert changed == []
