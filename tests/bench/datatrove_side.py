"""The side of datatrove in `run.py`, in an environment of its own: `make bench-setup`.

    .venv-bench/bin/python tests/bench/datatrove_side.py urlfilter URLS
    .venv-bench/bin/python tests/bench/datatrove_side.py ingest FOLDER MODEL

For every line on standard input it does the work once and prints its CPU seconds, and how many
documents were kept, as JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import LanguageFilter, URLFilter
from datatrove.pipeline.readers import WarcReader


def urlfilter(path: str) -> Callable[[], int]:
    filter = URLFilter()  # with the lists that it ships
    urls = Path(path).read_text(encoding="utf-8").splitlines()
    documents = [Document("", str(i), metadata={"url": url}) for i, url in enumerate(urls)]
    return lambda: sum(filter.filter(document) is True for document in documents)


def ingest(folder: str, model: str) -> Callable[[], int]:
    """Reader, extractor, language. The extractor runs in this process: no sandbox, no timeout."""
    from fasttext.FastText import _FastText

    extractor = Trafilatura(favour_precision=True, deduplicate=False)
    language = LanguageFilter(["en", "zh"], language_threshold=0.5)
    language.model._model = _FastText(model)  # the same model for both, not fetched

    def work() -> int:
        kept = 0
        for document in WarcReader(folder, glob_pattern="*.warc.gz").run():
            document.text = extractor.extract(document.text)
            kept += bool(document.text) and bool(language.filter(document))
        return kept

    return work


def main() -> None:
    work = {"urlfilter": urlfilter, "ingest": ingest}[sys.argv[1]](*sys.argv[2:])
    for _ in sys.stdin:
        start = time.process_time()
        kept = work()
        answer = {"seconds": time.process_time() - start, "kept": kept}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
