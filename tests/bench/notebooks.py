"""Open a lake of made documents in every notebook: seconds, and the most that its kernel held.

`python tests/bench/notebooks.py [NUM_DOCUMENTS]`; needs the extra `notebooks`.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import nbclient
import nbformat
from made import peak_bytes

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "explore"))

import made_lake  # noqa: E402


def main() -> None:
    """Print a JSON line a notebook."""
    num_documents = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CURATION_LAKE"] = str(made_lake.make(Path(folder) / "lake", num_documents).path)
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            book = nbformat.read(path, as_version=4)
            client = nbclient.NotebookClient(
                book, timeout=600, resources={"metadata": {"path": path.parent}}
            )
            started = time.monotonic()
            with peak_bytes() as peaks:
                client.execute()
            found = {"documents": num_documents, "seconds": time.monotonic() - started, **peaks}
            print(json.dumps({"notebook": path.stem, **found}))


if __name__ == "__main__":
    main()
