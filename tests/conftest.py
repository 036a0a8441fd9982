"""What several tests share: a Spark session, a cut of the demo dumps, configurations on it."""

import io
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from curation.config import Config, load

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "tests" / "data" / "dumps"
DUMPS = ("DUMP-2021-bullseye", "DUMP-2023-bookworm", "DUMP-2025-trixie", "DUMP-2026-sid")
NUM_FILES = 3  # of a dump in the cut
SEED = 2  # of the release: one that holds out www.postgresql.org of three hosts
MODELS = [
    ROOT / "curation" / "quality" / "models" / f"perplexity-{language}.json"
    for language in ("en", "zh")
]
RULES = (
    ROOT / "jobs" / "conf" / "profiles" / "demo.toml"
)  # with one on the percentile of perplexity
BENCHMARK = ROOT / "tests" / "data" / "benchmark.txt"  # phrases that the manuals hold

# Kernels are compiled at their first call, however small the example.
settings.register_profile("kernels", deadline=None)
settings.load_profile("kernels")


class Page(NamedTuple):
    """A response record."""

    url: str
    date: str
    http: StatusAndHeaders
    body: bytes


@pytest.fixture(scope="session")
def spark():
    """One session for the whole run: a JVM takes seconds to start."""
    from curation.engine import session

    return session.start("tests")


@pytest.fixture(scope="session")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every 5th page of the first dump, and the same URLs of the others: copies and near copies.

    Some 40 pages a dump, in 3 files: `<dump>-<n>.warc.gz`. Every third one has an address to
    write to, its own.
    """
    folder = tmp_path_factory.mktemp("cut")
    wanted: set[str] = set()
    for dump in DUMPS:
        pages = list(_pages(DEMO / f"{dump}-00000.warc.gz"))
        wanted = wanted or {page.url for page in pages[::5]}
        chosen = [page for page in pages if page.url in wanted]
        per_file = -(-len(chosen) // NUM_FILES)
        for number in range(NUM_FILES):
            path = folder / f"{dump}-{number}.warc.gz"
            _write(path, chosen[number * per_file : (number + 1) * per_file])
    return folder


@pytest.fixture(scope="session")
def configure_in(cut: Path) -> Callable[..., Config]:
    """Make a configuration over the cut: its file `<folder>/<lake>.toml`, its lake beside that."""

    def make(
        folder: Path, *overrides: str, lake: str = "lake", dumps: int = len(DUMPS), more: str = ""
    ) -> Config:
        tables = [
            f'[[dumps]]\nname = "{dump}"\ninputs = ["{cut / dump}-*.warc.gz"]\n'
            for dump in DUMPS[:dumps]
        ]
        tokenizer = ROOT / "jobs" / "conf" / "demo-tokenizer.json"
        path = folder / f"{lake}.toml"
        path.write_text(
            f'lake = "{lake}/lake"\nshards = "{lake}/shards"\nreport = "{lake}/report.html"\n'
            + "".join(tables)
            # whose texts keep the manuals' navigation: lines that stand in many documents
            + '[ingest]\nextractor = "resiliparse"\n'
            + "[lines]\nmax_documents = 4\n"
            + "".join(f'[[annotate.models]]\ncard = "{card}"\n' for card in MODELS)
            + f'[filter]\nprofiles = ["{RULES}"]\n'
            + '[contamination]\naction = "cut"\n'
            + f'[[contamination.benchmarks]]\nname = "manuals"\npath = "{BENCHMARK}"\n'
            + '[[domains]]\nname = "chinese"\nlanguages = ["zh"]\n'
            + f'[encode]\ntokenizer = "{tokenizer}"\n'
            + "[release.demo]\nshares = { chinese = 0.5, web = 0.5 }\nsequence_length = 128\n"
            + 'num_shards = 3\npacking = "best_fit"\nduplicate_weights = true\n'
            + "bucket_weights = { head = 2 }\nvalidation_share = 0.3\nvalidation_tokens = 2000\n"
            + f"seed = {SEED}\n{more}"
        )
        return load(path, overrides)

    return make


@pytest.fixture
def configure(configure_in: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    """Make a configuration over the cut: `configure("engine.batch_rows=3", lake="a", dumps=2)`."""
    return partial(configure_in, tmp_path)


def _pages(path: Path) -> Iterator[Page]:
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type == "response":
                header = record.rec_headers.get_header
                body = record.content_stream().read()
                number = zlib.crc32(header("WARC-Target-URI").encode())
                if number % 3 == 0:
                    text, _, rest = body.rpartition(b"</p>")
                    body = text + b" Write to p%d@manuals.org.</p>" % number + rest
                yield Page(
                    header("WARC-Target-URI"), header("WARC-Date"), record.http_headers, body
                )


def _write(path: Path, pages: list[Page]) -> None:
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for page in pages:
            record = writer.create_warc_record(
                page.url,
                "response",
                payload=io.BytesIO(page.body),
                http_headers=page.http,
                warc_headers_dict={"WARC-Date": page.date},
            )
            writer.write_record(record)
