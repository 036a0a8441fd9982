"""What several tests share: a Spark session, a cut of the demo dumps, configurations on it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from warcio.archiveiterator import ArchiveIterator
from warcio.warcwriter import WARCWriter

from curation.config import Config, load

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "tests" / "data" / "dumps"
DUMPS = ("DUMP-2021-bullseye", "DUMP-2023-bookworm", "DUMP-2025-trixie", "DUMP-2026-sid")

# Kernels are compiled at their first call, however small the example.
settings.register_profile("kernels", deadline=None)
settings.load_profile("kernels")


@pytest.fixture(scope="session")
def spark():
    """One session for the whole run: a JVM takes seconds to start."""
    from curation.engine import session

    return session.start("tests")


@pytest.fixture(scope="session")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every 5th page of the first dump, and the same URLs of the others: copies and near copies."""
    folder = tmp_path_factory.mktemp("cut")
    wanted: set[str] = set()
    for dump in DUMPS:
        records = list(_pages(DEMO / f"{dump}-00000.warc.gz"))
        if not wanted:
            wanted = {url for url, *_ in records[::5]}
        with (folder / f"{dump}.warc.gz").open("wb") as file:
            writer = WARCWriter(file, gzip=True)
            for url, date, http, body in records:
                if url in wanted:
                    _write(writer, url, date, http, body)
    return folder


def _pages(path: Path):
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type == "response":
                headers = record.rec_headers
                yield (
                    headers.get_header("WARC-Target-URI"),
                    headers.get_header("WARC-Date"),
                    record.http_headers,
                    record.content_stream().read(),
                )


def _write(writer: WARCWriter, url: str, date: str, http: object, body: bytes) -> None:
    import io

    record = writer.create_warc_record(
        url,
        "response",
        payload=io.BytesIO(body),
        http_headers=http,
        warc_headers_dict={"WARC-Date": date},
    )
    writer.write_record(record)


@pytest.fixture
def configure(cut: Path, tmp_path: Path) -> Callable[..., Config]:
    """Make a configuration over the cut: `configure("engine.batch_rows=3", lake="a", dumps=2)`."""

    def make(*overrides: str, lake: str = "lake", dumps: int = len(DUMPS)) -> Config:
        path = tmp_path / f"{lake}.toml"
        tables = [
            f'[[dumps]]\nname = "{dump}"\ninputs = ["{cut / dump}.warc.gz"]\n'
            for dump in DUMPS[:dumps]
        ]
        tokenizer = ROOT / "jobs" / "conf" / "demo-tokenizer.json"
        path.write_text(
            f'lake = "{lake}/lake"\nshards = "{lake}/shards"\nreport = "{lake}/report.html"\n'
            + "".join(tables)
            + '[[domains]]\nname = "chinese"\nlanguages = ["zh"]\n'
            + f'[encode]\ntokenizer = "{tokenizer}"\n'
            + "[release.demo]\nshares = { chinese = 0.5, web = 0.5 }\nsequence_length = 128\n"
            + "num_shards = 3\n"
        )
        return load(path, overrides)

    return make
