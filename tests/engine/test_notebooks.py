"""The notebooks: stripped, short, and executed from start to end on lakes of the demo's dumps."""

import ast
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_CELL_LINES = 12
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


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
def test_a_notebook_runs(
    undisturbed, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("duckdb", "ipykernel", "ipywidgets", "nbclient"):
        pytest.importorskip(name, reason=f"needs {name}, of the extra notebooks")
    import nbclient
    import nbformat

    monkeypatch.setenv("CURATION_LAKE", str(undisturbed(4).lake.path))
    monkeypatch.setenv("CURATION_RUNS", str(tmp_path / "runs"))
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": FOLDER}}).execute()
    for cell in book.cells:
        if cell.cell_type != "code":
            continue
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        last = cell.source.splitlines()[-1]
        if last.startswith("NONE if"):
            assert "no training run in" in str(cell.outputs)
        elif "_figure(" in last or "threshold.figure(" in last:
            assert "image/png" in kinds, cell.source
        elif "slider(" in last:
            assert "application/vnd.jupyter.widget-view+json" in kinds
        elif last.startswith(("twins.", "filters.", "mixtures.", "tour.", "threshold.")):
            assert "text/html" in kinds, cell.source
