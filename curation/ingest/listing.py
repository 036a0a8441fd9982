"""Which files a dump consists of: listing them, and freezing the list so that ids never move."""

import glob
import gzip
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from curation.errors import InputChanged, InputInvalid, InputMissing, InputVanished

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
    """One file of a dump: its place in the frozen order, and what it was when it was frozen."""

    ordinal: int
    path: str
    size: int
    mtime_ns: int


def list_inputs(inputs: Sequence[str], source_format: str = "warc") -> list[tuple[str, int, int]]:
    """Return (absolute path, size in bytes, mtime in ns) of every file that `inputs` name.

    An entry is a file, a directory (searched recursively for files of `source_format`, see
    SUFFIXES; hidden and unfinished files are skipped), a glob, or a path listing (`*.paths`,
    `*.paths.gz`: one path a line, relative ones relative to the listing). Files come in the order
    of the entries and sorted by path within one; a file named twice counts once. Paths are
    absolute because workers have another working directory.

    Raises InputMissing for an entry that does not exist or yields nothing, InputInvalid for a
    listing that cannot be read. Cost: one stat per file.
    """
    if not inputs:
        raise InputMissing("no input is configured; name at least one file, directory or glob")
    paths: dict[str, None] = {}
    for entry in inputs:
        paths.update(dict.fromkeys(_expand(entry, source_format)))
    return [_stat(path) for path in paths]


def freeze(frozen: Sequence[InputFile], seen: Iterable[tuple[str, int, int]]) -> list[InputFile]:
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
                f"{file.path} was frozen with {file.size} bytes, mtime {file.mtime_ns} ns, and is "
                "no longer among the inputs; a frozen input must stay: restore it, or build a new "
                "lake without it"
            )
        if now != (file.size, file.mtime_ns):
            raise InputChanged(
                f"{file.path} was frozen with {file.size} bytes, mtime {file.mtime_ns} ns, and now "
                f"has {now[0]} bytes, mtime {now[1]} ns; a frozen input must not change: restore "
                "it, or add the new version under another name"
            )
    start = max((file.ordinal for file in frozen), default=-1) + 1
    new = sorted(present.items())
    return [
        *frozen,
        *(InputFile(start + i, path, *facts) for i, (path, facts) in enumerate(new)),
    ]


def _expand(entry: str, source_format: str) -> list[str]:
    if "://" in entry:
        raise InputMissing(
            f"input {entry} is a URL, but inputs are files of this machine or of a mounted file "
            "system; download it and name the local path"
        )
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
        return _read_listing(path) if path.endswith(LISTING_SUFFIXES) else [path]
    if not glob.has_magic(entry):
        raise InputMissing(f"input {path} does not exist; check the path, or remove the entry")
    found = []
    for match in sorted(glob.glob(path, recursive=True)):
        if os.path.isdir(match):
            found += _walk(match, source_format)
        elif not _is_skipped(match):
            found += _read_listing(match) if match.endswith(LISTING_SUFFIXES) else [match]
    if not found:
        raise InputMissing(f"glob {path} matches no file; check the pattern, or remove the entry")
    return sorted(found)


def _walk(directory: str, source_format: str) -> list[str]:
    found = []
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [
            os.path.join(folder, name)
            for name in names
            if name.lower().endswith(SUFFIXES[source_format]) and not _is_skipped(name)
        ]
    return sorted(found)


def _is_skipped(path: str) -> bool:
    name = os.path.basename(path)
    return name.startswith(".") or name.endswith(UNFINISHED_SUFFIXES)


def _read_listing(listing: str) -> list[str]:
    try:
        content = Path(listing).read_bytes()
        text = (gzip.decompress(content) if listing.endswith(".gz") else content).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputInvalid(
            f"path listing {listing} cannot be read ({error}); it must be UTF-8 text, one path a "
            "line, gzip-compressed when it ends in .gz"
        ) from error
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        path = os.path.abspath(os.path.join(os.path.dirname(listing), line.strip()))
        if not os.path.isfile(path):
            raise InputMissing(
                f"{listing} line {number} names {path}, which does not exist; relative paths are "
                "relative to the listing: restore the file, or remove the line"
            )
        found.append(path)
    if not found:
        raise InputMissing(f"path listing {listing} names no file; remove the entry, or fill it")
    return sorted(found)


def _stat(path: str) -> tuple[str, int, int]:
    try:
        facts = os.stat(path)
    except OSError as error:
        raise InputMissing(f"input {path} cannot be read ({error.strerror}); check it") from error
    return path, facts.st_size, facts.st_mtime_ns
