"""The notebooks: stripped, short, and executed from start to end on lakes of the demo's dumps."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from curation.engine.report import write_report

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_CELL_LINES = 12
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


class Cell(NamedTuple):
    """A cell of code and what it showed."""

    source: str
    kinds: set[str]  # MIME types
    outputs: str


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stripped_and_only_calls(path: Path) -> None:
    book = json.loads(path.read_text(encoding="utf-8"))
    assert set(book["metadata"]) == {"kernelspec", "language_info"}
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), "strip the outputs"
            assert len(source.splitlines()) <= MAX_CELL_LINES
            nodes = ast.walk(ast.parse(source.replace("%matplotlib", "# %matplotlib")))
            assert not any(isinstance(node, DEFINITIONS) for node in nodes), "define it in explore"
    first = "".join(next(c for c in book["cells"] if c["cell_type"] == "code")["source"])
    assert 'os.environ.get("CURATION_' in first and '"../out/demo/' in first


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(undisturbed, path: Path, executed, tmp_path: Path) -> None:
    for source, kinds, shown in executed(path, undisturbed(4).lake.path, tmp_path):
        last = source.splitlines()[-1]
        if last.startswith("NONE if"):
            assert f"no training run in {tmp_path}" in shown
        elif "figure(" in last:
            assert "image/png" in kinds, source
        elif "slider(" in last:
            assert "application/vnd.jupyter.widget-view+json" in kinds
        elif last.startswith(("twins.", "filters.", "mixtures.", "tour.", "threshold.")):
            assert "text/html" in kinds, source


def test_the_notebook_of_training_draws_runs(executed, tmp_path: Path) -> None:
    metrics(tmp_path)
    cells = list(executed(FOLDER / "05_training.ipynb", tmp_path, tmp_path))
    assert not any("no training run" in shown for _, _, shown in cells)
    assert sum("image/png" in kinds for _, kinds, _ in cells) == 2


def metrics(folder: Path) -> None:
    """Write what a run of eight steps would."""
    lines = [{"step": n, "tokens": n, "loss": 9 / n, "tokens_per_second": 7} for n in range(1, 9)]
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("chromium-browser")), reason="needs chromium"
)
def test_the_pictures_of_the_readme_are_made(undisturbed, tmp_path: Path) -> None:
    done = undisturbed(4)
    (tmp_path / "lake").symlink_to(done.lake.path)
    write_report(done.lake, tmp_path / "report.html", done.config)
    metrics(tmp_path / "train")
    script = FOLDER / "pictures" / "make.py"
    subprocess.run([sys.executable, script, "--demo", tmp_path, "--to", tmp_path], check=True)
    made = {path.name for path in tmp_path.glob("*.png")}
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert made == set(re.findall(r"!\[[^]]+\]\(notebooks/pictures/([\w.]+)\)", readme))
    assert made == {path.name for path in (FOLDER / "pictures").glob("*.png")}
    assert all(1_000 < path.stat().st_size < 150_000 for path in tmp_path.glob("*.png"))


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Path, Path], Iterator[Cell]]:
    """Execute a notebook on a lake and a folder of runs; yield its cells of code."""
    for name in ("duckdb", "ipykernel", "ipywidgets", "nbclient"):
        pytest.importorskip(name, reason=f"needs {name}, of the extra notebooks")
    import nbclient
    import nbformat

    def run(path: Path, lake: Path, runs: Path) -> Iterator[Cell]:
        monkeypatch.setenv("CURATION_LAKE", str(lake))
        monkeypatch.setenv("CURATION_RUNS", str(runs))
        book = nbformat.read(path, as_version=4)
        where = {"metadata": {"path": FOLDER}}
        nbclient.NotebookClient(book, timeout=300, resources=where).execute()
        for cell in book.cells:
            if cell.cell_type == "code":
                kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
                yield Cell(cell.source, kinds, str(cell.outputs))

    return run
