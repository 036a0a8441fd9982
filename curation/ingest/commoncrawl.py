"""Common Crawl's own lists: which files a dump has, and a sample of them.

The layout is that of https://data.commoncrawl.org, which mirrors keep:

    crawl-data/DUMP/{warc,wet}.paths.gz     the files of a dump, a path from the root a line
"""

import difflib
import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from curation.config import RemoteConfig
from curation.errors import ConfigError, InputInvalid
from curation.ingest.listing import listing_lines, resolve
from curation.ingest.remote import Clock, read_url

KINDS = ("warc", "wet")
NUM_NEAREST = 3  # ids that an error names


class Site(NamedTuple):
    """Where Common Crawl, or a mirror, is read, and how."""

    data_url: str
    collinfo_url: str  # of the JSON list of crawls
    settings: RemoteConfig
    clock: Clock = Clock()

    def read(self, url: str) -> bytes:
        """Return all bytes of a URL. Raises as `remote.read_url` does."""
        return read_url(url, self.settings, self.clock)

    def url(self, path: str) -> str:
        """Return the URL of a path from the root of the data."""
        return resolve(path, "", self.data_url)

    def lines(self, path: str) -> list[str]:
        """Return the lines of a listing."""
        return [line for _, line in listing_lines(self.url(path), self.read(self.url(path)))]


class Listing(NamedTuple):
    """Lines of a path listing, and of how many they were taken."""

    lines: list[str]
    num_listed: int


def fetch_listing(
    site: Site, dump: str, kind: str, *, sample: int | None = None, seed: int = 0
) -> Listing:
    """Return the URLs of a dump's files, or of `sample` of them, in the order of its listing.

    For one seed a smaller sample is part of every larger one, and it is the same from any mirror.
    Raises ConfigError for another kind and for an id that the site does not list, and what
    `remote.read_url` raises. Cost: two requests.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind is {kind!r}; there are {', '.join(KINDS)}")
    check_dump(site, dump)
    lines = site.lines(f"crawl-data/{dump}/{kind}.paths.gz")
    chosen = lines if sample is None else sample_lines(lines, sample, seed)
    return Listing([site.url(line) for line in chosen], len(lines))


def check_dump(site: Site, dump: str) -> None:
    """Raise ConfigError unless Common Crawl lists the id among its crawls; one request."""
    try:
        known = [str(entry["id"]) for entry in json.loads(site.read(site.collinfo_url))]
    except (ValueError, TypeError, KeyError) as error:
        raise InputInvalid(
            f"{site.collinfo_url} is no list of crawls ({type(error).__name__}: {error}); give the "
            "address of collinfo.json"
        ) from None
    if dump not in known:
        nearest = difflib.get_close_matches(dump.upper(), known, NUM_NEAREST, cutoff=0.0)
        raise ConfigError(
            f"{dump!r} is none of the {len(known)} crawls of {site.collinfo_url}; the nearest are "
            f"{', '.join(nearest)}: give the id of one"
        )


def sample_lines(lines: Sequence[str], num_lines: int, seed: int) -> list[str]:
    """Return `num_lines` of different lines in their order: those with the least sha256.

    A line is hashed with the seed and alone, so samples of one seed are nested.
    """
    distinct = dict.fromkeys(lines)
    by_hash = sorted(distinct, key=lambda line: hashlib.sha256(f"{seed} {line}".encode()).digest())
    chosen = set(by_hash[:num_lines])
    return [line for line in distinct if line in chosen]
