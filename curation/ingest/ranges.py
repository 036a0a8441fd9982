"""Byte ranges of a remote file as one input: `https://.../a.warc.gz#bytes=0-99,500-612`.

Both ends count, as in HTTP. A range is one or several whole records; the ranges of an input are
ascending and apart.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from curation.errors import InputInvalid

SCHEMES = ("http", "https", "s3", "s3a")  # that `remote.RemoteFile` reads
MARK = "#bytes="
RANGES = re.compile(r"\d+-\d+(,\d+-\d+)*")
# An input's name is in every record of a run; so many ranges are some 2 kB of it.
MAX_RANGES = 100


class Span(NamedTuple):
    """Bytes of a file from `start` to before `stop`."""

    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.start}-{self.stop - 1}"


def split_ranges(path: str) -> tuple[str, list[Span]]:
    """Return the file that an input names and the ranges of it; none is the whole file.

    Raises InputInvalid for ranges that are out of order, overlap or are none, and for a file of a
    scheme in which none are read.
    """
    url, mark, text = path.partition(MARK)
    if not mark or "://" not in path:
        return path, []
    spans = []
    if RANGES.fullmatch(text):
        ends = [part.split("-") for part in text.split(",")]
        spans = [Span(int(first), int(last) + 1) for first, last in ends]
    bounds = [bound for span in spans for bound in span]
    if not spans or bounds != sorted(bounds) or any(a == b for a, b in spans):
        raise InputInvalid(
            f"{path}: {text!r} are no byte ranges; write them ascending and apart, both ends "
            f"counting: {MARK}0-99,500-612"
        )
    _check_scheme(url)
    return url, spans


def join_ranges(url: str, spans: Iterable[Span]) -> list[str]:
    """Return inputs of at most MAX_RANGES ranges, sorted, those that touch merged.

    A range that is named twice counts once; raises InputInvalid for ranges that overlap,
    and for a file of a scheme in which none are read.
    """
    _check_scheme(url)
    merged: list[Span] = []
    for span in sorted(set(spans)):
        if merged and span.start < merged[-1].stop:
            raise InputInvalid(
                f"{url}: the ranges {merged[-1]} and {span} overlap, so one has a wrong offset or "
                "length; each must be whole records: fetch the index again"
            )
        if merged and span.start == merged[-1].stop:
            merged[-1] = Span(merged[-1].start, span.stop)
        else:
            merged.append(span)
    groups = [merged[i : i + MAX_RANGES] for i in range(0, len(merged), MAX_RANGES)]
    return [url + MARK + ",".join(map(str, group)) for group in groups]


def _check_scheme(url: str) -> None:
    if urlsplit(url).scheme not in SCHEMES:
        raise InputInvalid(
            f"{url}: byte ranges are read from https://, http:// and s3:// alone; name the whole "
            "file"
        )
