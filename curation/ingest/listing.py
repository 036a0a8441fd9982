"""Which files a dump consists of: listing them, and freezing the list so that ids never move.

A dump of Common Crawl has up to 100,000 files, so none is asked for its size here: of a remote file
the URL is frozen, of a remote listing its digest and what it named. Nothing frozen is fetched
again, so a plan needs no network. What a server says of a file is known when it is read, and is
compared from then on (`curation.ingest.remote.Facts`).
"""

import glob
import gzip
import hashlib
import os
import posixpath
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn
from urllib.parse import urlsplit

from curation.errors import InputChanged, InputInvalid, InputMissing, InputVanished
from curation.ingest.ranges import Span, join_ranges, split_ranges

if TYPE_CHECKING:
    from curation.config import RemoteConfig

# What a directory contributes, by source format; files and globs are taken as named.
SUFFIXES = {
    "warc": (".warc", ".warc.gz", ".wet", ".wet.gz", ".arc", ".arc.gz"),
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.bz2", ".jsonl.zst"),
    "text": (".txt", ".txt.gz", ".text", ".md"),
}
LISTING_SUFFIXES = (".paths", ".paths.gz")
UNFINISHED_SUFFIXES = (".tmp", ".part", ".crdownload")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of a dump: its place in the frozen order, and what it was when it was frozen.

    Of a remote file only the URL (`path`) is known then: size and mtime_ns are None.
    """

    ordinal: int
    path: str
    size: int | None
    mtime_ns: int | None


class RemoteListing(NamedTuple):
    """What a remote path listing named when it was read."""

    sha256: str  # of the listing as it was sent
    base: str  # the configured one, "" for none
    paths: tuple[str, ...]  # sorted


Seen = tuple[str, int | None, int | None]  # path or URL, size in bytes, mtime in ns


def list_inputs(
    inputs: Sequence[str],
    source_format: str = "warc",
    *,
    base: str = "",
    listings: Mapping[str, RemoteListing] | None = None,
    settings: "RemoteConfig | None" = None,
) -> list[Seen]:
    """Return (path, size in bytes, mtime in ns) of every file that `inputs` name.

    An entry is a file, a directory (searched recursively for files of `source_format`, see
    SUFFIXES; hidden and unfinished files are skipped), a glob, or a path listing (`*.paths`,
    `*.paths.gz`). Files and listings may be URLs; of a remote file size and mtime are None. Files
    come in the order of the entries and sorted by path within one; a file named twice counts once.
    Paths are absolute because workers have another working directory.

    A listing names one file a line, as a URL, or relative to `base`, or else to the listing: for a
    remote one see `resolve`. A line `PATH<TAB>OFFSET<TAB>LENGTH` names whole records of a remote
    archive; the lines of one archive become inputs of byte ranges (`ranges`). `listings` are the
    remote ones that are read already, by URL.

    Raises InputMissing for an entry that does not exist or yields nothing, InputInvalid for a
    listing that cannot be read, and what `remote.open_url` raises. Cost: one stat per local file,
    one request per remote listing, none per remote file.
    """
    if not inputs:
        raise InputMissing("no input is configured; name at least one file, directory or glob")
    known = dict(listings or {})
    paths: dict[str, None] = {}
    for entry in inputs:
        if is_remote_listing(entry) and entry not in known:
            known[entry] = read_remote_listing(entry, base, settings)
        found = known[entry].paths if entry in known else _expand(entry, source_format, base)
        paths.update(dict.fromkeys(found))
    if source_format != "warc":
        ranged = next((path for path in paths if split_ranges(path)[1]), None)
        if ranged is not None:
            raise InputInvalid(
                f"{ranged} names byte ranges, and those are read of archives alone; name whole "
                f"files where the format is {source_format}"
            )
    return [_stat(path) for path in paths]


def is_remote_listing(entry: str) -> bool:
    """Return whether an entry is a path listing on another machine."""
    return is_remote(entry) and urlsplit(entry).path.endswith(LISTING_SUFFIXES)


def is_remote(path: str) -> bool:
    """Return whether a path is a URL of another machine."""
    return "://" in path and not path.startswith("file://")


def read_remote_listing(url: str, base: str, settings: "RemoteConfig | None") -> RemoteListing:
    """Fetch a listing. Raises as `list_inputs` does. Cost: one request."""
    from curation.config import RemoteConfig
    from curation.ingest.remote import check_url, read_url  # only who asks a server loads clients

    check_url(url)
    content = read_url(url, settings or RemoteConfig())
    named = []
    for number, line in listing_lines(url, content):
        where = f"{url} line {number}"
        name, span = _split_line(line, where)
        path = resolve(name, url, base)
        # with a local base the listing names a copy of the files
        is_local = base and not is_remote(base) and "://" not in name
        named.append((path if is_local else _checked(path, where), span))
    return RemoteListing(hashlib.sha256(content).hexdigest(), base, tuple(_inputs_of(named)))


def resolve(line: str, listing: str, base: str = "") -> str:
    """Return the URL that a line of a remote listing means.

    A URL is itself; with a `base`, the line is relative to that. Else, when the first folder of the
    line is one of those in which the listing lies, the line is relative to what comes before that
    folder: Common Crawl's listings name files from the root of the bucket (`crawl-data/...`, itself
    at https://data.commoncrawl.org/crawl-data/...), and so do mirrors of it. Else it is relative to
    the listing.
    """
    if "://" in line:
        return line
    if base:
        return f"{base.rstrip('/')}/{line.lstrip('/')}"
    parts = urlsplit(listing)
    folders = posixpath.dirname(parts.path).strip("/").split("/")
    first, slash, _ = line.lstrip("/").partition("/")
    if slash and first in folders:
        folders = folders[: folders.index(first)]
    path = "/".join([folder for folder in folders if folder] + [line.lstrip("/")])
    return f"{parts.scheme}://{parts.netloc}/{path}"


def freeze(frozen: Sequence[InputFile], seen: Iterable[Seen]) -> list[InputFile]:
    """Return the frozen files with their ordinals, then the new ones in path order.

    `seen` is what list_inputs returns now. Raises InputVanished for a frozen file that is not
    among them and InputChanged for one of another size or mtime: a doc_id names a file by its
    ordinal, so neither may be replaced silently.
    """
    present = {path: (size, mtime_ns) for path, size, mtime_ns in seen}
    for file in frozen:
        now = present.pop(file.path, None)
        if now is None:
            raise InputVanished(
                f"{file.path} was frozen{_facts(file.size, file.mtime_ns)}, and is no longer among "
                "the inputs; a frozen input must stay: restore it, or build a new lake without it"
            )
        if now != (file.size, file.mtime_ns):
            raise InputChanged(
                f"{file.path} was frozen{_facts(file.size, file.mtime_ns)}, and now is there"
                f"{_facts(*now)}; a frozen input must not change: restore "
                "it, or add the new version under another name"
            )
    start = max((file.ordinal for file in frozen), default=-1) + 1
    new = sorted(present.items())
    return [
        *frozen,
        *(InputFile(start + i, path, *facts) for i, (path, facts) in enumerate(new)),
    ]


def _facts(size: int | None, mtime_ns: int | None) -> str:
    return "" if size is None else f" with {size} bytes, mtime {mtime_ns} ns"


def group_files(files: Sequence[InputFile], group_bytes: int) -> list[list[InputFile]]:
    """Group neighbouring files until a group has `group_bytes`: a task reads and writes one group.

    A remote file, whose size is not known beforehand, is a group of its own; archives of Common
    Crawl are larger than a group anyway. Byte ranges have the size that they name. Depends on the
    frozen listing alone, so a part holds the same files on any cluster.
    """
    groups: list[list[InputFile]] = []
    size = group_bytes
    for file in files:
        if size >= group_bytes:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += known_size(file, group_bytes)
    return groups


def known_size(file: InputFile, unknown: int) -> int:
    """Return the bytes of a file or of its byte ranges; `unknown` for a whole remote file."""
    if file.size is not None:
        return file.size
    _, spans = split_ranges(file.path)
    return sum(span.stop - span.start for span in spans) or unknown


def _expand(entry: str, source_format: str, base: str) -> Sequence[str]:
    if is_remote(entry):
        return [_checked(entry, "input")]
    entry = entry.removeprefix("file://")
    path = os.path.abspath(os.path.expanduser(entry))
    if os.path.isdir(path):
        found = _walk(path, source_format)
        if not found:
            raise InputMissing(
                f"directory {path} holds no {source_format} file "
                f"({', '.join(SUFFIXES[source_format])}); check the path and the source format"
            )
        return found
    if os.path.isfile(path):
        return _read_listing(path, base) if path.endswith(LISTING_SUFFIXES) else [path]
    if not glob.has_magic(entry):
        raise InputMissing(f"input {path} does not exist; check the path, or remove the entry")
    found = []
    for match in sorted(glob.glob(path, recursive=True)):
        if os.path.isdir(match):
            found += _walk(match, source_format)
        elif not _is_skipped(match):
            found += _read_listing(match, base) if match.endswith(LISTING_SUFFIXES) else [match]
    if not found:
        raise InputMissing(f"glob {path} matches no file; check the pattern, or remove the entry")
    return sorted(found)


def _walk(directory: str, source_format: str) -> list[str]:
    found = []
    for folder, subfolders, names in os.walk(directory, onerror=_raise_unreadable):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [
            os.path.join(folder, name)
            for name in names
            if name.lower().endswith(SUFFIXES[source_format]) and not _is_skipped(name)
        ]
    return sorted(found)


def _raise_unreadable(error: OSError) -> NoReturn:
    """A folder that cannot be searched must not leave a dump short."""
    raise InputMissing(
        f"folder {error.filename} cannot be read ({error.strerror}); give this user read access, "
        "or name the inputs without it"
    ) from error


def _is_skipped(path: str) -> bool:
    name = os.path.basename(path)
    return name.startswith(".") or name.endswith(UNFINISHED_SUFFIXES)


def _checked(url: str, where: str) -> str:
    """Return a URL that names one file; a pattern cannot be expanded over http."""
    if not is_remote(url):
        raise InputInvalid(
            f"{where} names {url}, a path of one machine, in a listing that others read too; name "
            "a URL, or keep the listing on disk"
        )
    from curation.ingest.remote import check_url

    check_url(url)
    if "*" in url or url.endswith("/"):
        raise InputInvalid(
            f"{where} {url} is a folder or a pattern, and those are not searched over a network; "
            "write the URLs of the files into a path listing, one a line, and name that"
        )
    return url


def _read_listing(listing: str, base: str) -> list[str]:
    try:
        content = Path(listing).read_bytes()
    except OSError as error:
        raise InputInvalid(f"path listing {listing} cannot be read ({error}); check it") from error
    named = []
    for number, line in listing_lines(listing, content):
        where = f"{listing} line {number}"
        name, span = _split_line(line, where)
        if "://" in name or is_remote(base):
            url = resolve(name, listing, base).removeprefix("file://")
            named.append((_checked(url, where) if is_remote(url) else url, span))
            continue
        path = os.path.abspath(os.path.join(base or os.path.dirname(listing), name))
        if not os.path.isfile(path):
            raise InputMissing(
                f"{where} names {path}, which does not exist; relative paths are "
                f"relative to {'dumps.base' if base else 'the listing'}: restore the file, remove "
                "the line, or set dumps.base (for Common Crawl's listings "
                '"https://data.commoncrawl.org/")'
            )
        named.append((path, span))
    return _inputs_of(named)


def _split_line(line: str, where: str) -> tuple[str, Span | None]:
    """Return the path of a line, and the bytes of it that the line names, if not all."""
    name, *numbers = line.split("\t")
    if not numbers:
        return line, None
    if len(numbers) != 2 or not all(map(str.isdecimal, numbers)) or int(numbers[1]) == 0:
        raise InputInvalid(
            f"{where} is {line!r}; a line with tabs has a path, an offset and a length in bytes: "
            "correct it, or fetch the index again"
        )
    start, length = map(int, numbers)
    return name, Span(start, start + length)


def _inputs_of(named: Iterable[tuple[str, Span | None]]) -> list[str]:
    """Return the sorted inputs that lines name: a file or a range of it each."""
    found = set()
    ranges: dict[str, list[Span]] = {}
    for path, span in named:
        if span is None:
            found.add(path)
        else:
            ranges.setdefault(path, []).append(span)
    for path, spans in ranges.items():
        found.update(join_ranges(path, spans))
    return sorted(found)


def listing_lines(listing: str, content: bytes) -> list[tuple[int, str]]:
    """Return the lines that are not blank with their numbers from 1; there is at least one."""
    try:
        is_packed = (urlsplit(listing).path if is_remote(listing) else listing).endswith(".gz")
        text = (gzip.decompress(content) if is_packed else content).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputInvalid(
            f"path listing {listing} cannot be read ({error}); it must be UTF-8 text, one path a "
            "line, gzip-compressed when it ends in .gz"
        ) from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    named = [(number, line) for number, line in lines if line]
    if not named:
        raise InputMissing(f"path listing {listing} names no file; remove the entry, or fill it")
    return named


def _stat(path: str) -> Seen:
    if is_remote(path):
        return path, None, None
    try:
        facts = os.stat(path)
    except OSError as error:
        raise InputMissing(f"input {path} cannot be read ({error.strerror}); check it") from error
    return path, facts.st_size, facts.st_mtime_ns
