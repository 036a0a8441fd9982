"""The layers of the package, read from its imports: jobs -> engine -> udfs -> kernels."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Which layers a layer may import from. `front` is what users call: the command line and
# `curation.open`; `explore` is what notebooks call. Nothing imports jobs, tests or notebooks.
MAY_IMPORT = {
    "kernels": {"kernels"},
    "train": {"kernels", "train"},
    "udfs": {"kernels", "udfs"},
    "engine": {"kernels", "udfs", "engine"},
    "explore": {"kernels", "train", "engine", "explore"},
    "front": {"kernels", "train", "udfs", "engine", "front"},
    "jobs": {"kernels", "train", "udfs", "engine", "front"},
}

# Where a heavy library may be imported; everywhere else it is a violation.
HOMES = {
    "pyspark": ("curation/engine/", "udfs/", "jobs/"),
    "py4j": ("curation/engine/",),
    "torch": ("curation/train/",),
    "airflow": ("jobs/dags/",),
    "duckdb": ("curation/explore/",),
    "IPython": ("curation/explore/",),
    "ipywidgets": ("curation/explore/",),
}
MAX_JOB_LINES = 60

SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("curation", "udfs", "jobs")
    for path in (ROOT / folder).rglob("*.py")
)
JOBS = [path for path in SOURCES if path.startswith("jobs/") and path.count("/") == 1]


@pytest.mark.parametrize("path", SOURCES)
def test_imports_point_down(path: str) -> None:
    assert violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", JOBS)
def test_job_is_a_short_script_with_nothing_for_workers(path: str) -> None:
    assert job_violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("layer", ["kernels", "explore"])
def test_a_layer_loads_neither_spark_nor_torch(layer: str) -> None:
    """Also through other libraries, which reading our own imports cannot show."""
    names = [name for name in map(module_name, SOURCES) if layer_of(name) == layer]
    assert names
    script = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(*{'pyspark', 'py4j', 'torch', 'airflow', 'duckdb'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("path", "source", "named"),
    [
        ("curation/dedup/lsh.py", "import pyspark.sql", "pyspark"),
        ("curation/cli.py", "from pyspark.sql import functions", "pyspark"),
        ("curation/engine/run.py", "def f():\n    import torch", "torch"),
        ("udfs/text.py", "import airflow", "airflow"),
        ("curation/identity.py", "from curation.engine import lake", "curation.engine"),
        ("curation/identity.py", "from curation import engine", "curation.engine"),
        ("curation/ingest/warc.py", "from ..engine import lake", "curation.engine"),
        ("curation/identity.py", "import udfs.text", "udfs.text"),
        ("curation/identity.py", "from curation import cli", "curation.cli"),
        ("curation/identity.py", "import curation.train.loop", "curation.train"),
        ("udfs/text.py", "from curation.engine.lake import Lake", "curation.engine"),
        ("curation/engine/run.py", "import jobs.ingest", "jobs.ingest"),
        ("curation/engine/run.py", "from curation.train import loop", "curation.train"),
        ("curation/engine/run.py", "from curation.explore import twins", "curation.explore"),
        ("curation/explore/twins.py", "from pyspark.sql import SparkSession", "pyspark"),
        ("curation/engine/report.py", "import duckdb", "duckdb"),
        ("jobs/ingest.py", "from jobs import dedup", "jobs"),
        ("curation/__init__.py", "from curation.engine import lake", "when it is called"),
    ],
)
def test_a_violation_is_seen(path: str, source: str, named: str) -> None:
    found = violations(path, source)
    assert len(found) == 1
    assert named in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("jobs/ingest.py", "from pyspark.sql import SparkSession\nfrom curation.engine import run"),
        ("curation/engine/run.py", "import pyspark, udfs.text\nfrom curation.dedup import lsh"),
        ("curation/train/loop.py", "import torch\nfrom curation.tokens import shards"),
        ("curation/explore/twins.py", "import duckdb\nfrom curation.engine import lake"),
        ("curation/__init__.py", "def open(path):\n    from curation.engine import lake"),
        ("curation/__init__.py", "if TYPE_CHECKING:\n    from curation.engine import lake"),
        ("curation/engine/run.py", "import curation\nfrom curation import __version__"),
        ("curation/dedup/lsh.py", "from curation.dedup import minhash\nfrom . import leader"),
    ],
)
def test_what_the_layers_allow(path: str, source: str) -> None:
    assert violations(path, source) == []


@pytest.mark.parametrize(
    ("path", "source", "named"),
    [
        ("jobs/tokenize.py", "", "standard library"),
        ("jobs/ingest.py", "\n" * (MAX_JOB_LINES + 1), "lines"),
        ("jobs/ingest.py", "def main(): ...\ndef langid(text): ...", "langid"),
        ("jobs/ingest.py", "def main():\n    def inner(): ...", "inner"),
        ("jobs/ingest.py", "async def fetch(): ...", "fetch"),
        ("jobs/ingest.py", "score = lambda text: 1", "lambda"),
        ("jobs/ingest.py", "class Reader: ...", "Reader"),
    ],
)
def test_a_job_violation_is_seen(path: str, source: str, named: str) -> None:
    found = job_violations(path, source)
    assert len(found) == 1
    assert named in found[0]


def violations(path: str, source: str) -> list[str]:
    """Say which imports of a file break the direction or the home of a library."""
    importer = module_name(path)
    layer = layer_of(importer)
    assert layer is not None, f"{path} lies in no layer"
    found = []
    for name, runs_on_import in imports(path, source):
        library = name.split(".")[0]
        if library in HOMES and not path.startswith(HOMES[library]):
            found.append(f"{path} imports {name}; {library} belongs in {', '.join(HOMES[library])}")
        target = layer_of(name)
        if target is None or name == "curation":  # the package itself comes with any module of it
            continue
        if target not in MAY_IMPORT[layer]:
            found.append(f"{path} ({layer}) imports {name} ({target})")
        elif importer == "curation" and target != "kernels" and runs_on_import:
            found.append(f"{path} must import {name} when it is called, or kernels load Spark")
    return found


def job_violations(path: str, source: str) -> list[str]:
    """Say why a file is no job script.

    Spark pickles what `__main__` defines by value, once a task: a model cached there is loaded in
    every task. So a job defines `main` and nothing else.
    """
    found = []
    name = Path(path).stem
    if name in sys.stdlib_module_names:  # the folder of a script comes first on Python's path
        found.append(f"{path} hides the module {name} of the standard library")
    num_lines = len(source.splitlines())
    if num_lines > MAX_JOB_LINES:
        found.append(f"{path} has {num_lines} lines; at most {MAX_JOB_LINES}: move work to engine")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Lambda):
            found.append(f"{path}:{node.lineno} defines a lambda; define it in udfs/")
        elif (
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            and node.name != "main"
        ):
            found.append(f"{path}:{node.lineno} defines {node.name}; define it in udfs/")
    return found


def imports(path: str, source: str) -> Iterator[tuple[str, bool]]:
    """Yield (full name of the imported module, does importing the file import it too)."""
    tree = ast.parse(source)
    deferred = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        or (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        runs_on_import = id(node) not in deferred
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, runs_on_import
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = path.split("/")[: -node.level]
                module = ".".join([*package, module] if module else package)
            if module == "curation":  # `from curation import engine` imports a module
                for alias in node.names:
                    yield f"{module}.{alias.name}", runs_on_import
            else:
                yield module, runs_on_import


def module_name(path: str) -> str:
    """Return the dotted name of a file: curation/dedup/__init__.py is curation.dedup."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def layer_of(name: str) -> str | None:
    """Return the layer of a module of ours, None for any other library."""
    package, _, rest = name.partition(".")
    if package in ("udfs", "jobs"):
        return package
    if package != "curation":
        return None
    part = rest.split(".")[0]
    if part in ("engine", "explore", "train"):
        return part
    return "front" if part in ("", "cli") else "kernels"
