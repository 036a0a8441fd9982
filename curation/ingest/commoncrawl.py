"""Common Crawl's own lists: the files of a dump, a sample of them, and pages chosen by its index.

The layout is that of https://data.commoncrawl.org, which mirrors keep:

    crawl-data/DUMP/{warc,wet}.paths.gz     the files of a dump, a path from the root a line
    crawl-data/DUMP/cc-index-table.paths.gz the parts of its columnar index
    cc-index/table/cc-main/warc/crawl=DUMP/subset=warc/part-*.parquet
                                            a row a page, nearly sorted by url_surtkey
"""

import difflib
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.config import RemoteConfig
from curation.errors import ConfigError, InputInvalid, InputMissing
from curation.ingest import urls
from curation.ingest.listing import listing_lines, resolve
from curation.ingest.remote import Clock, RemoteFailure, open_url, read_url

KINDS = ("warc", "wet")
NUM_NEAREST = 3  # ids that an error names
PAGES = "/subset=warc/"  # of the index; other subsets are redirects, errors and robots.txt
# Of the index (cc-index-table, schema/cc-index-schema-flat.json).
KEY = "url_surtkey"
HOST = "url_host_name"
LANGUAGES = "content_languages"  # ISO 639-3, the main one first: "zho,eng"
DETECTED_MIME, STATED_MIME = "content_mime_detected", "content_mime_type"
PLACE = ("warc_filename", "warc_record_offset", "warc_record_length")
HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
WWW = re.compile(r"^www\d*\.")  # which a key leaves out
FORMS = {"language": re.compile("[a-z]{3}"), "media type": re.compile(r"[^\s/]+/[^\s/;]+")}


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


def fetch_index(
    site: Site,
    dump: str,
    *,
    hosts: Sequence[str] = (),
    languages: Sequence[str] = (),
    mimes: Sequence[str] = (),
    limit: int | None = None,
    track: Callable[[list[str]], Iterable[str]] = iter,
) -> Listing:
    """Return lines URL, offset and length of the pages that a dump's columnar index names.

    A page is one if its host is one of `hosts` or below one, its main language (ISO 639-3) one of
    `languages`, its media type, as detected or else as stated, one of `mimes`; an empty one lets
    all pass. `limit` takes the first in the order of the index. `track` sees the parts go by.

    Raises ConfigError when nothing is chosen by, or for a host that is none, InputInvalid for an
    index without a column that is needed, InputMissing when no page is one, and what
    `remote.open_url` raises. Cost: two requests and two or three of each part, of which a dump has
    300, and of each row group that may hold such a host at most one a column.
    """
    wanted = _Wanted.of(hosts, languages, mimes)
    check_dump(site, dump)
    parts = site.lines(f"crawl-data/{dump}/cc-index-table.paths.gz")
    pages: list[_Page] = []
    num_listed = 0
    for part in track([site.url(part) for part in parts if PAGES in part]):
        with _Index(site, part) as index:
            num_listed += index.num_rows
            for group in index.groups_of(wanted):
                pages += index.pages_of(group, wanted)
                if limit is not None and len(pages) >= limit:
                    break
        if limit is not None and len(pages) >= limit:
            del pages[limit:]
            break
    if not pages:
        raise InputMissing(
            f"the index of {dump} has no page of {wanted}; ask for other ones, or of another dump"
        )
    return Listing(
        [f"{site.url(file)}\t{offset}\t{length}" for file, offset, length in sorted(pages)],
        num_listed,
    )


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


# ---- the columnar index ------------------------------------------------------------------------

_Page = tuple[str, int, int]  # file from the root, offset, length


class _Wanted(NamedTuple):
    """Which pages are chosen; an empty tuple lets all pass."""

    hosts: tuple[str, ...]
    languages: tuple[str, ...]
    mimes: tuple[str, ...]

    @classmethod
    def of(cls, hosts: Sequence[str], languages: Sequence[str], mimes: Sequence[str]) -> "_Wanted":
        if not (hosts or languages or mimes):
            raise ConfigError(
                "the index would give every page of the dump; name hosts, languages or media types "
                "to choose by, or fetch the listing of whole files"
            )
        for what, values in (("language", languages), ("media type", mimes)):
            for value in values:
                if FORMS[what].fullmatch(value) is None:
                    raise ConfigError(
                        f"{what} {value!r} is none of the index; it names languages by ISO 639-3 "
                        "(eng, zho) and media types as text/html: write one so"
                    )
        return cls(tuple(map(_host, hosts)), tuple(languages), tuple(mimes))

    def __str__(self) -> str:
        named = (("hosts", self.hosts), ("languages", self.languages), ("types", self.mimes))
        return ", ".join(f"{what} {' '.join(values)}" for what, values in named if values)

    def columns(self) -> list[str]:
        """Return the columns that decide."""
        mimes = (DETECTED_MIME, STATED_MIME)
        chosen = ((self.hosts, (HOST,)), (self.languages, (LANGUAGES,)), (self.mimes, mimes))
        return [name for values, names in chosen if values for name in names]

    def mask(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return which rows are chosen."""
        masks = []
        if self.hosts:
            host = rows[HOST]
            below = (pc.ends_with(host, f".{name}") for name in self.hosts)
            masks.append(reduce(pc.or_, below, _is_in(host, self.hosts)))
        if self.languages:
            main = pc.list_element(pc.split_pattern(rows[LANGUAGES], ","), 0)
            masks.append(_is_in(main, self.languages))
        if self.mimes:
            masks.append(_is_in(pc.coalesce(rows[DETECTED_MIME], rows[STATED_MIME]), self.mimes))
        return pc.fill_null(reduce(pc.and_, masks), False)

    def may_hold(self, first: str, last: str) -> bool:
        """Return whether a row with a key between two keys can be of one of the hosts."""
        bounds = [_key_bounds(host) for host in self.hosts]
        return not bounds or any(low <= last and first < high for low, high in bounds)


class _Index:
    """One part of the index, read by ranges."""

    def __init__(self, site: Site, url: str) -> None:
        self.url = url
        self._site = site

    def __enter__(self) -> "_Index":
        self._stream = open_url(
            self.url, self._site.settings, clock=self._site.clock, in_parts=True
        )
        try:
            with self._reading():
                self._file = pq.ParquetFile(self._stream)
        except BaseException:
            self._stream.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    @property
    def num_rows(self) -> int:
        """How many pages the part has."""
        return int(self._file.metadata.num_rows)

    def groups_of(self, wanted: _Wanted) -> list[int]:
        """Return the row groups that may hold a page; those without statistics may."""
        names = self._file.schema_arrow.names
        for name in (KEY, *wanted.columns(), *PLACE):
            if name not in names:
                since = " (languages are in the index from CC-MAIN-2018-39 on)"
                raise InputInvalid(
                    f"{self.url} has no column {name}{since if name == LANGUAGES else ''}; choose "
                    "without it, or name another dump"
                )
        key = names.index(KEY)
        metadata = self._file.metadata
        groups = []
        for group in range(metadata.num_row_groups):
            known = metadata.row_group(group).column(key).statistics
            if known is None or not known.has_min_max or wanted.may_hold(known.min, known.max):
                groups.append(group)
        return groups

    def pages_of(self, group: int, wanted: _Wanted) -> list[_Page]:
        """Return the places of the pages that are chosen."""
        mask = wanted.mask(self._read(group, wanted.columns()))
        if not pc.any(mask).as_py():
            return []
        rows = self._read(group, PLACE).filter(mask)
        return list(zip(*(rows[name].to_pylist() for name in PLACE), strict=True))

    def _read(self, group: int, columns: Sequence[str]) -> pa.Table:
        with self._reading():
            return self._file.read_row_group(group, columns, use_threads=False)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except RemoteFailure as failure:
            raise failure.error from None
        except (pa.ArrowException, OSError) as error:
            raise InputInvalid(
                f"{self.url} cannot be read as Parquet ({error}); fetch it with curl to see why, "
                "or name another mirror"
            ) from None


def _host(name: str) -> str:
    """Return a host as the index writes it: lower case, Punycode. Raises ConfigError."""
    host = urls.normal_forms(pa.array([name]))[0].as_py() or ""
    if HOST_NAME.fullmatch(host) is None:
        raise ConfigError(f"host {name!r} is no name of a host; write one such as example.org")
    return str(host)


def _key_bounds(host: str) -> tuple[str, str]:
    """Return between which keys, the second left out, all pages of a host and below it lie.

    A key is the host turned round and what is behind it: "org,example,docs)/path" for
    docs.example.org, "org,example:8080)/" with a port. Forms of IP addresses differ.
    """
    if host.rpartition(".")[2].isdecimal():
        return "", chr(sys.maxunicode)
    key = ",".join(reversed(WWW.sub("", host).split(".")))
    return f"{key})", f"{key};"  # ")" < "," < ":" < ";"


def _is_in(values: pa.ChunkedArray, chosen: Sequence[str]) -> pa.ChunkedArray:
    return pc.is_in(values, pa.array(chosen, values.type))
