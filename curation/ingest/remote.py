"""Remote input files as seekable streams: https, http and s3, over connections that fail.

    with open_url("https://data.commoncrawl.org/crawl-data/.../warc.paths.gz") as stream:
        ...

A reader makes one request, for everything from its position to the end of the file, and reads that
answer forward: a clean file costs one request, whatever its length. The last WINDOW_BYTES stay in
memory, so that a seek back (to the start, or behind damage) costs none. What fails is handled here:

1. Transient: 408, 425, 429, every 5xx, S3's SlowDown, resets, timeouts, answers that are too slow,
   too short, or not the range that was asked for. The next request begins at the byte reached.
   Waits are one second and full jitter below a doubling bound, longer where Retry-After says so.
2. A server that answers 200 where a range was asked for sends the whole file: what is already known
   is skipped.
3. A file that changes between two requests (its ETag, or its length, or without an ETag its
   Last-Modified) is InputChanged; If-Match lets the server see it first.
4. Everything else, 403 and 404 above all, is an error of ours at once.

Of a URL with byte ranges (`ranges`) each range costs one request, for its bytes alone; a server
that sends the whole file instead is refused.

An answer in a content encoding that nobody asked for is undone, unless it only labels what the
file is by itself (a .gz that is stored as `Content-Encoding: gzip`).

Waiting decides when bytes come, never which.
"""

import email.utils
import errno
import http.client
import math
import os
import random
import re
import threading
import time
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from io import RawIOBase
from itertools import accumulate
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import parse_qsl, urlsplit

import fsspec
import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from curation import __version__
from curation.config import RemoteConfig
from curation.errors import (
    ConfigError,
    CurationError,
    InputChanged,
    InputInvalid,
    InputMissing,
    InputRefused,
    InputUnreachable,
    PrerequisiteMissing,
)
from curation.ingest.ranges import Span, split_ranges

HTTP_SCHEMES = ("http", "https")
S3_SCHEMES = ("s3", "s3a")
WINDOW_BYTES = 8 << 20  # kept behind the position; damage is searched for 1 MiB at a time
SKIP_BYTES = 1 << 20  # a shorter gap is read through: a new request takes longer
READ_BYTES = 256 << 10
# Below this an answer is taken for stuck: a file of 1 GB would take a day.
SLOWEST_BYTES_PER_SECOND = 10_000
# With so much received a connection has worked, and its failures are counted anew.
PROGRESS_BYTES = 1 << 20
# Common Crawl asks clients not to retry more than once a second (status.commoncrawl.org, 2025).
MIN_WAIT_SECONDS = 1.0
# A server that asks for more is not waited for: the task would only hold its place in the cluster.
MAX_RETRY_AFTER_SECONDS = 900.0
SIGNATURE_SECONDS = 3600
# Names in a query that make a URL a secret: of AWS, Google Cloud, Azure, CloudFront.
SIGNED = ("x-amz-signature", "x-goog-signature", "sig", "signature", "awsaccesskeyid")
ERROR_BYTES = 4096  # of an error's body, which may name S3's code

TRANSIENT_STATUS = frozenset({408, 425, 429})
LASTING_STATUS = frozenset({501, 505, 511})  # 5xx that no waiting mends
# S3 answers some of these with a 400 (Amazon S3 API reference, "List of error codes").
TRANSIENT_CODES = frozenset(
    {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "RequestLimitExceeded"}
    | {"Throttling", "ThrottlingException", "BandwidthLimitExceeded"}
)
ERROR_CODE = re.compile(rb"<Code>(\w{1,64})</Code>")
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
UNSATISFIED_RANGE = re.compile(r"bytes \*/(\d+)")
SIGNED_QUERY = re.compile(r"\?\S*X-Amz-[^\s)]*")
GZIP_WBITS = 31
GZIP_MAGIC = b"\x1f\x8b"
GZIP_CODINGS = ("gzip", "x-gzip")
NETWORK_ERRORS = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError)


class Facts(NamedTuple):
    """What a server says about a file; None where it does not say."""

    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None

    def differs(self, other: "Facts") -> bool:
        """Return whether both cannot describe the same bytes."""
        if None not in (self.size, other.size) and self.size != other.size:
            return True
        if self.etag is not None and other.etag is not None:
            return _opaque(self.etag) != _opaque(other.etag)
        return None not in (self.last_modified, other.last_modified) and (
            self.last_modified != other.last_modified
        )

    def __str__(self) -> str:
        size = "an unknown number of" if self.size is None else self.size
        return f"{size} bytes, ETag {self.etag}, modified {self.last_modified}"


class Clock(NamedTuple):
    """Time and chance, which only decide how long to wait; tests give their own."""

    now: Callable[[], float] = time.monotonic
    date: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random  # 0 <= jitter < 1


class RemoteFailure(OSError):
    """A read that failed for good, as an error of the medium; `error` is what the user is told."""

    def __init__(self, error: CurationError) -> None:
        super().__init__(errno.EIO, str(error))
        self.error = error

    def __str__(self) -> str:
        return str(self.error)


def configure(settings: RemoteConfig, known: Mapping[str, Facts] | None = None) -> None:
    """Set what `open_url` uses in this process when it is given none: settings, expected facts.

    Forgets what `facts_of` has returned.
    """
    _process.settings = settings
    _process.known = dict(known or {})
    _process.facts = {}


def facts_of(url: str) -> Facts | None:
    """Return what is known of a remote file read since `configure`; None for any other path."""
    return _process.facts.get(url)


def open_url(
    url: str,
    settings: RemoteConfig | None = None,
    expected: Facts | None = None,
    clock: Clock = Clock(),  # noqa: B008  (immutable)
    *,
    in_parts: bool = False,
) -> BinaryIO:
    """Open a URL as a seekable binary stream; http, https and s3 are read by `RemoteFile`.

    Other schemes are opened by fsspec, with the care that their library takes. Byte ranges of a
    file are a RangedFile. With `in_parts` every read asks for its own bytes alone, which suits
    reads far apart (Parquet). The first request is made here, so what is missing or forbidden
    raises at once: InputMissing, InputRefused, InputInvalid, InputUnreachable, or InputChanged
    where the file is not the `expected` one. Later reads raise RemoteFailure, an OSError that
    carries such an error.
    """
    if urlsplit(url).scheme not in HTTP_SCHEMES + S3_SCHEMES:
        return _open_other(url)
    _, spans = split_ranges(url)
    kind = PartFile if in_parts and not spans else RemoteFile
    remote = kind(url, settings or _process.settings, expected or _process.known.get(url), clock)
    file = RangedFile(remote, spans) if spans else remote
    try:
        file.begin()
    except RemoteFailure as failure:
        file.close()
        raise failure.error from None
    return cast(BinaryIO, file)


def read_url(url: str, settings: RemoteConfig, clock: Clock = Clock()) -> bytes:  # noqa: B008
    """Return all bytes of a URL. Raises as `open_url` does."""
    try:
        with open_url(url, settings, clock=clock) as stream:
            return stream.read()
    except RemoteFailure as failure:
        raise failure.error from None


def check_url(url: str) -> None:
    """Raise InputInvalid for a URL that cannot be an input."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise InputInvalid(
            f"an input at {parts.hostname} carries a user name or password; a lake keeps its "
            "inputs in the clear: put them into ~/.netrc and take them out of the URL"
        )
    signed = sorted(name for name, _ in parse_qsl(parts.query) if name.lower() in SIGNED)
    if signed:
        raise InputInvalid(
            f"an input at {parts.hostname} is a signed URL ({', '.join(signed)}), a key to it for "
            "a while; a lake keeps its inputs in the clear: name it as s3://BUCKET/KEY, and let "
            "the credentials of the environment open it"
        )
    if parts.scheme in HTTP_SCHEMES + S3_SCHEMES and not parts.netloc:
        raise InputInvalid(f"{url} names no host or bucket; write https://HOST/PATH")
    if parts.scheme not in HTTP_SCHEMES + S3_SCHEMES and not _is_known(parts.scheme):
        raise InputInvalid(
            f"{url}: nothing here reads {parts.scheme}://; inputs are files, https://, s3://, or "
            "what an installed fsspec file system opens"
        )
    split_ranges(url)


class _Hiccup(Exception):
    """A failure that another request may not meet; `retry_after` in seconds."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _Positioned(RawIOBase):
    """A file that is read at a position, by `read`."""

    _position: int

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        part = self.read(len(buffer)) or b""
        buffer[: len(part)] = part
        return len(part)


class RemoteFile(_Positioned):
    """A file at a URL, read over as few requests as possible; one thread at a time.

    `facts` is what the server says of the file; its size may become known only at the end. Memory:
    WINDOW_BYTES, twice for a moment. With `stop` no request asks for the byte there or behind it:
    reads must end before, and a server that sends other bytes is refused.
    """

    def __init__(
        self, url: str, settings: RemoteConfig, expected: Facts | None, clock: Clock
    ) -> None:
        super().__init__()
        check_url(url)
        self.url = url
        self.settings = settings
        self.facts = Facts()
        self.stop: int | None = None
        self.is_busy = False  # in a request just now; owned by _Connections
        self._expected = expected or Facts()
        self._clock = clock
        self._body: _Body | None = None
        self._position = 0
        self._window = bytearray()
        self._window_end = 0  # position in the file of the byte behind the window
        self._ranges = True  # whether to ask for ranges
        self._failures = 0  # since the last progress
        self._received = 0  # since the last failure

    def begin(self) -> None:
        """Make the first request. Raises RemoteFailure."""
        if not self._window:
            self._go_to(self._position)
            self._fill()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; costs nothing until the next read, but SEEK_END needs the size."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = (self._measure() if base is None else base) + offset
        if self._position < 0:
            raise ValueError(f"seek to {self._position}, before the start of {self.url}")
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return `size` bytes, fewer only at the end of the file. Raises RemoteFailure."""
        parts = []
        missing = self._measure() - self._position if size is None or size < 0 else size
        while missing > 0:
            if not self._window_holds(self._position):
                if not self._go_to(self._position) or not self._fill():
                    break
                continue
            start = self._position - (self._window_end - len(self._window))
            with memoryview(self._window) as window:
                part = bytes(window[start : start + missing])
            parts.append(part)
            self._position += len(part)
            missing -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        if not self.closed:
            _process.connections.leave(self)
            self.hang_up()
        super().close()

    def hang_up(self) -> None:
        """Drop the open answer; the next read asks for the rest."""
        if self._body is not None:
            self._body.close()
            self._body = None

    def _window_holds(self, position: int) -> bool:
        return self._window_end - len(self._window) <= position < self._window_end

    def _go_to(self, position: int) -> bool:
        """Let the next fills lead to `position`; False if it lies behind the end."""
        size = self.facts.size
        if size is not None and position >= size:
            return False
        gap = position - self._window_end
        is_far = gap > 0 if self.stop is not None else gap > SKIP_BYTES and size is not None
        if gap < 0 or is_far:
            self.hang_up()
            self._window.clear()
            self._window_end = position
        return True

    def _measure(self) -> int:
        """Return the size of the file: a server that does not state it must send it all."""
        while self.facts.size is None:
            self._fill()
        return self.facts.size

    def _fill(self) -> bool:
        """Append bytes to the window; False at the end of the file. Raises RemoteFailure."""
        while self.facts.size is None or self._window_end < self.facts.size:
            try:
                with _process.connections.used_by(self):
                    try:
                        data = self._receive()
                    except _Hiccup:
                        self.hang_up()
                        raise
            except _Hiccup as hiccup:
                self._wait(hiccup)
                continue
            if data:
                if len(self._window) >= 2 * WINDOW_BYTES:
                    del self._window[:-WINDOW_BYTES]
                self._window += data
                self._window_end += len(data)
                self._received += len(data)
                return True
        return False

    def _receive(self) -> bytes:
        """Return the next bytes behind the window, none where an answer has come to its end."""
        if self._body is None:
            self._body = self._request(self._window_end)
            if self._body is None:
                return b""
        data = self._body.read()
        if not data:
            self.hang_up()
            if self.facts.size is None:
                self._learn(self.facts._replace(size=self._window_end))
        return data

    def _wait(self, hiccup: _Hiccup) -> None:
        if self._received >= PROGRESS_BYTES:
            self._failures = 0
        self._received = 0
        self._failures += 1
        if self._failures >= self.settings.attempts:
            raise RemoteFailure(
                InputUnreachable(
                    f"{self.url} could not be read from byte {self._window_end} on in "
                    f"{self._failures} requests; the last failed with: {hiccup}; try again later, "
                    "or raise remote.attempts"
                )
            )
        if hiccup.retry_after > MAX_RETRY_AFTER_SECONDS:
            raise RemoteFailure(
                InputUnreachable(
                    f"{self.url}: {hiccup}, and the server asks to come back in "
                    f"{hiccup.retry_after:.0f} s; come back then, with fewer tasks"
                )
            )
        bound = min(self.settings.max_wait_seconds, 2.0 ** (self._failures - 1))
        floor = max(MIN_WAIT_SECONDS, hiccup.retry_after)
        self._clock.sleep(floor + self._clock.jitter() * bound)

    # ---- one request ---------------------------------------------------------------------------

    def _request(self, position: int) -> "_Body | None":
        """Ask for the file from `position` on; None when the question has to be put otherwise."""
        headers = {"User-Agent": user_agent(self.settings), "Accept-Encoding": "identity"}
        if self._ranges:
            headers["Range"] = f"bytes={position}-{'' if self.stop is None else self.stop - 1}"
        etag = self.facts.etag or self._expected.etag
        if etag is not None and not etag.startswith("W/"):
            headers["If-Match"] = etag
        address = _address(split_ranges(self.url)[0], self.settings)
        timeout = self.settings.timeout_seconds
        _process.requests.take(1, self.settings.requests_per_second, self._clock)
        try:
            response = _process.session().get(
                address, headers=headers, stream=True, timeout=timeout
            )
        except NETWORK_ERRORS as error:  # requests' own are OSErrors
            raise self._network_failure(error) from None
        try:
            body = self._answered(response, position)
        except BaseException:
            response.close()
            raise
        if body is None:
            response.close()
        return body

    def _answered(self, response: requests.Response, position: int) -> "_Body | None":
        """Check the status and headers of an answer."""
        status, headers = response.status_code, response.headers
        if status == 416 and self._ranges:
            self._unsatisfied(headers, position)
            return None
        if status not in (200, 206):
            raise self._refusal(response)
        if status == 206 and not self._ranges:
            raise _Hiccup("206 where the whole file was asked for")
        start: int
        size: int | None
        num_bytes: int | None
        stated = _content_length(headers)
        if status == 206:
            found = CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
            stop = math.inf if self.stop is None else self.stop
            if found is None or int(found[1]) != position or not position <= int(found[2]) < stop:
                said = headers.get("Content-Range", "no Content-Range")
                asked = f"{position}-{'' if self.stop is None else self.stop - 1}"
                raise _Hiccup(f"206 with {said!r} where bytes {asked} were asked for")
            num_bytes = int(found[2]) - position + 1
            if stated not in (None, num_bytes):
                raise _Hiccup(f"Content-Length {stated} for {found[0]}, which are {num_bytes}")
            if found[3] == "*":  # a whole answer states the length
                self._ask_for_all("206 without the length of the file")
                return None
            start, size = position, int(found[3])
            if self.stop is not None and self.stop > size:
                raise self.too_short(size)
        else:
            if self.stop is not None:
                self._ask_for_all("200, the whole file")
            if stated is None and headers.get("Transfer-Encoding", "").lower() != "chunked":
                raise RemoteFailure(
                    InputInvalid(
                        f"{self.url}: the server states no length, so that a cut file looks whole; "
                        "copy the file to a server that does, or to disk"
                    )
                )
            start = 0
            size = num_bytes = stated
        body = _Body(response, start, num_bytes, self)
        if self._undo_coding(body, headers):
            if self._ranges:  # of the encoded file, or of the plain one: servers disagree
                self._ask_for_all("206 in a content encoding")
                return None
            size = None
        self._learn(Facts(size, headers.get("ETag"), headers.get("Last-Modified")))
        body.skip_to(position)
        return body

    def _undo_coding(self, body: "_Body", headers: Any) -> bool:
        """Return whether the answer is an encoding of the file, and have it decoded if so."""
        coding = headers.get("Content-Encoding", "identity").strip().lower() or "identity"
        if coding == "identity" or headers.get("Content-Length") == "0":
            return False
        if coding not in GZIP_CODINGS:
            raise RemoteFailure(
                InputInvalid(
                    f"{self.url}: the server sends Content-Encoding {coding}, though none was "
                    "asked for; read past the proxy that adds it"
                )
            )
        if urlsplit(self.url).path.endswith(".gz") and (body.start > 0 or not body.is_gzip_twice()):
            return False  # a label of the file itself
        if body.start == 0:
            body.decode()
        return True

    def _unsatisfied(self, headers: Any, position: int) -> None:
        """A file has no byte at `position`: it is empty, or has shrunk."""
        found = UNSATISFIED_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if found is not None:
            self._learn(self.facts._replace(size=int(found[1])))
        if self.stop is not None:
            raise self.too_short(self.facts.size)
        if position > 0:
            raise _Hiccup(f"416 for bytes {position}-")
        self._ask_for_all("416")

    def _ask_for_all(self, said: str) -> None:
        """Let the next request name no range; raises where only a range is wanted."""
        if self.stop is not None:
            raise RemoteFailure(
                InputInvalid(
                    f"{self.url}: the server answers a byte range with {said}; name the whole file "
                    "instead of ranges, or a server that sends them"
                )
            )
        self._ranges = False

    def too_short(self, size: int | None) -> RemoteFailure:
        """Return the error of a range that ends behind the file."""
        known = "fewer" if size is None else str(size)
        return RemoteFailure(
            InputInvalid(
                f"{self.url}: a byte range ends at {self.stop}, and the file has {known} bytes; "
                "the listing is of another file: fetch the index again"
            )
        )

    def _learn(self, facts: Facts) -> None:
        """Take what an answer says about the file; raises InputChanged if it contradicts."""
        for known in (self.facts, self._expected):
            if facts.differs(known):
                raise RemoteFailure(_changed(self.url, known, str(facts)))
        known = self.facts
        self.facts = Facts(
            known.size if facts.size is None else facts.size,
            known.etag or facts.etag,
            known.last_modified or facts.last_modified,
        )
        _process.facts[self.url] = self.facts

    def _refusal(self, response: requests.Response) -> Exception:
        """Return what an answer that is neither 200 nor 206 means."""
        status = response.status_code
        try:
            start = response.raw.read(ERROR_BYTES, decode_content=False)
        except NETWORK_ERRORS:
            start = b""
        found = ERROR_CODE.search(start)
        code = found[1].decode() if found else ""
        said = f"{status} {code or response.reason or ''}".strip()
        if (
            status in TRANSIENT_STATUS
            or code in TRANSIENT_CODES
            or (500 <= status < 600 and status not in LASTING_STATUS)
        ):
            return _Hiccup(said, self._retry_after(response.headers.get("Retry-After", "")))
        if status == 412:
            known = self.facts if self.facts.etag else self._expected
            return RemoteFailure(_changed(self.url, known, "another ETag (412)"))
        region = response.headers.get("x-amz-bucket-region", "")
        return RemoteFailure(_explain(self.url, status, said, region))

    def _retry_after(self, value: str) -> float:
        """Return the seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3)."""
        if value.strip().isdigit():
            return float(value)
        try:
            date = email.utils.parsedate_to_datetime(value).timestamp()
        except (TypeError, ValueError):
            return 0.0
        return max(0.0, date - self._clock.date())

    def _network_failure(self, error: Exception) -> Exception:
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
            return RemoteFailure(InputInvalid(f"{self.url} is no URL to read: {_line(error)}"))
        if isinstance(error, requests.exceptions.TooManyRedirects):
            return RemoteFailure(
                InputInvalid(f"{self.url} redirects without end; name the address it ends at")
            )
        if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE" in str(error):
            return RemoteFailure(
                InputRefused(
                    f"{self.url}: the certificate of the server is not trusted ({_line(error)}); "
                    "set REQUESTS_CA_BUNDLE to the authority's file, or correct the host"
                )
            )
        return _Hiccup(_line(error))


class PartFile(RemoteFile):
    """A remote file of which every read asks for its own bytes alone."""

    def begin(self) -> None:
        """Ask for the first byte: the answer states the size. Raises RemoteFailure."""
        self.stop = 1
        super().begin()

    def read(self, size: int | None = -1) -> bytes:
        """Return `size` bytes, fewer only at the end of the file. Raises RemoteFailure."""
        end = self._measure()
        self.stop = end if size is None or size < 0 else min(self._position + size, end)
        return super().read(max(self.stop - self._position, 0))


class RangedFile(_Positioned):
    """Ranges of a remote file end to end: position 0 is the first byte of the first one."""

    def __init__(self, file: RemoteFile, spans: Sequence[Span]) -> None:
        super().__init__()
        self._file = file
        self._spans = spans
        lengths = (span.stop - span.start for span in spans)
        self._starts = list(accumulate(lengths, initial=0))  # of each span, and the end of the last
        self._position = 0

    def begin(self) -> None:
        """Make the first request. Raises RemoteFailure."""
        self._enter(self._spans[0])
        self._file.begin()

    def locate(self, position: int) -> int:
        """Return where in the whole file a position lies."""
        number = self._span_at(position)
        return self._spans[number].start + position - self._starts[number]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; costs nothing."""
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._starts[-1]}
        self._position = bases[whence] + offset
        if self._position < 0:
            raise ValueError(f"seek to {self._position}, before the first range")
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return `size` bytes, fewer only at the end of the last range. Raises RemoteFailure."""
        rest = max(self._starts[-1] - self._position, 0)
        missing = rest if size is None or size < 0 else min(size, rest)
        parts = []
        while missing > 0:
            span = self._spans[self._span_at(self._position)]
            start = self._enter(span)
            part = self._file.read(min(missing, span.stop - start))
            if not part:
                raise self._file.too_short(self._file.facts.size)
            parts.append(part)
            self._position += len(part)
            missing -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _span_at(self, position: int) -> int:
        return min(bisect_right(self._starts, position), len(self._spans)) - 1

    def _enter(self, span: Span) -> int:
        """Let the file stand at our position, which lies in the span, and ask for no more."""
        self._file.stop = span.stop
        return self._file.seek(self.locate(self._position))


class _Body:
    """An answer being received: bytes of the file from `start` on, and where it must end."""

    def __init__(
        self, response: requests.Response, start: int, num_bytes: int | None, file: RemoteFile
    ) -> None:
        self.start = start
        self._response = response
        self._missing = num_bytes  # on the wire; None: the last chunk says
        self._clock = file._clock
        self._timeout = file.settings.timeout_seconds
        self._bytes_per_second = file.settings.bytes_per_second
        self._head = b""  # received already
        self._to_skip = 0
        self._decoder: Any = None  # zlib does not export its type
        self._waited = 0.0  # seconds, for the bytes below
        self._arrived = 0
        self._too_slow = ""

    def read(self) -> bytes:
        """Return some bytes, none once everything announced has come. Raises _Hiccup."""
        while True:
            wire = self._head or self._receive()
            self._head = b""
            data = wire if self._decoder is None else self._decode(wire)
            at_end = not wire and not data
            skipped = min(self._to_skip, len(data))
            self._to_skip -= skipped
            data = data[skipped:]
            if at_end and self._to_skip:
                raise _Hiccup("the answer ends before the byte that was reached earlier")
            if data or at_end:
                return data

    def skip_to(self, position: int) -> None:
        """Leave out what comes before `position`."""
        self._to_skip = position - self.start

    def decode(self) -> None:
        """Undo gzip, member after member."""
        self._decoder = zlib.decompressobj(GZIP_WBITS)

    def is_gzip_twice(self) -> bool:
        """Return whether the answer is gzip within gzip; looks at the first bytes."""
        while len(self._head) < ERROR_BYTES:
            part = self._receive()
            if not part:
                break
            self._head += part
        try:
            inner = zlib.decompressobj(GZIP_WBITS).decompress(self._head, len(GZIP_MAGIC))
        except zlib.error:
            return False
        return inner == GZIP_MAGIC

    def close(self) -> None:
        self._response.close()

    def _receive(self) -> bytes:
        """Return bytes of the wire, none at the announced end."""
        if self._missing == 0:
            return b""
        if self._too_slow:  # said now, so that what had come is kept
            raise _Hiccup(self._too_slow)
        size = READ_BYTES
        if self._bytes_per_second:  # a read is paid within a second, so no connection idles long
            size = max(1, int(min(size, self._bytes_per_second)))
        if self._missing is not None:
            size = min(size, self._missing)
        before = self._clock.now()
        try:
            data: bytes = self._response.raw.read1(size, decode_content=False)
        except NETWORK_ERRORS as error:
            raise _Hiccup(_line(error)) from None
        if self._missing is not None:
            if not data:
                raise _Hiccup(f"the answer ends {self._missing} bytes early")
            self._missing -= len(data)
        self._waited += self._clock.now() - before
        self._arrived += len(data)
        _process.bytes.take(len(data), self._bytes_per_second, self._clock)
        if self._waited >= self._timeout:
            if self._arrived < SLOWEST_BYTES_PER_SECOND * self._waited:
                self._too_slow = f"only {self._arrived} bytes came in {self._waited:.0f} s"
            self._waited, self._arrived = 0.0, 0
        return data

    def _decode(self, data: bytes) -> bytes:
        """Inflate some of the bytes; the rest of them comes next."""
        if self._decoder.eof and data:
            self.decode()
        try:
            decoded: bytes = self._decoder.decompress(data, PROGRESS_BYTES)
        except zlib.error as error:
            raise _Hiccup(f"the content encoding is broken ({error})") from None
        self._head = self._decoder.unconsumed_tail or self._decoder.unused_data
        if not data and not decoded and not self._decoder.eof:
            raise _Hiccup("the content encoding ends early")
        return decoded


class _Connections:
    """The answers open in this process, at most `remote.connections`.

    Who needs one when all are taken hangs up the one unused for longest (its reader asks for the
    rest when it goes on), or waits while all are receiving.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._open: list[RemoteFile] = []  # least recently used first

    @contextmanager
    def used_by(self, file: RemoteFile) -> Iterator[None]:
        with self._condition:
            if file in self._open:
                self._open.remove(file)
            while len(self._open) >= file.settings.connections:
                idle = next((other for other in self._open if not other.is_busy), None)
                if idle is None:
                    self._condition.wait()
                else:
                    idle.hang_up()
                    self._open.remove(idle)
            self._open.append(file)
            file.is_busy = True
        try:
            yield
        finally:
            with self._condition:
                file.is_busy = False
                if file._body is None:
                    self._open.remove(file)
                self._condition.notify_all()

    def leave(self, file: RemoteFile) -> None:
        with self._condition:
            if file in self._open:
                self._open.remove(file)
                self._condition.notify_all()


class Pace:
    """A token bucket that the threads of a process share; it holds what was asked for last.

    Who takes from it sleeps until everything taken before is paid at `rate` a second. So at most
    rate x seconds and one amount more is taken in any stretch of time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paid_at = -math.inf  # seconds of the clock at which all that was taken is paid

    def take(self, amount: int, rate: float, clock: Clock) -> None:
        """Take an amount, sleeping first as long as must be; a rate of 0 takes at once."""
        if rate == 0:
            return
        with self._lock:
            now = clock.now()
            start = max(now, self._paid_at)
            self._paid_at = start + amount / rate
        if start > now:
            clock.sleep(start - now)


class _Process:
    """What readers of one process share."""

    def __init__(self) -> None:
        self.settings = RemoteConfig()
        self.known: dict[str, Facts] = {}
        self.facts: dict[str, Facts] = {}
        self.forget()

    def forget(self) -> None:
        """Start anew: a forked worker must not write into its parent's connections."""
        self.connections = _Connections()
        self.requests, self.bytes = Pace(), Pace()
        self._session: requests.Session | None = None

    def session(self) -> requests.Session:
        """Return the pool of connections. It retries nothing by itself."""
        if self._session is None:
            session = requests.Session()
            adapter = HTTPAdapter(pool_maxsize=self.settings.connections, max_retries=0)
            for prefix in ("https://", "http://"):
                session.mount(prefix, adapter)
            self._session = session
        return self._session


_process = _Process()
os.register_at_fork(after_in_child=_process.forget)


def user_agent(settings: RemoteConfig) -> str:
    """Return the configured user agent, or the name and version of this program."""
    return settings.user_agent or f"curation/{__version__}"


def _address(url: str, settings: RemoteConfig) -> str:
    """Return where a URL is fetched: for s3, signed anew for every request."""
    if urlsplit(url).scheme not in S3_SCHEMES:
        return url
    bucket = _s3(settings.s3_endpoint, settings.anonymous)
    from botocore.exceptions import BotoCoreError  # comes with s3fs

    try:
        return str(bucket.sign(url, SIGNATURE_SECONDS))
    except BotoCoreError as error:  # no credentials, no such profile
        raise RemoteFailure(
            InputRefused(
                f"{url} cannot be signed ({_line(error)}); give AWS credentials (environment, "
                "~/.aws, or the role of the machine) to every worker, set remote.anonymous = true "
                "for a public bucket, or use the https:// address of the data"
            )
        ) from None


@cache
def _s3(endpoint: str, anonymous: bool) -> Any:
    """Return the s3fs file system that knows credentials, endpoint and region."""
    config: dict[str, Any] = {"signature_version": "s3v4"}
    if endpoint:
        config["s3"] = {"addressing_style": "path"}
    try:
        return fsspec.filesystem(
            "s3",
            anon=anonymous,
            endpoint_url=endpoint or None,
            config_kwargs=config,
            skip_instance_cache=True,
        )
    except ImportError as error:
        raise RemoteFailure(
            PrerequisiteMissing(
                f"s3:// inputs need the package s3fs ({_line(error)}); "
                "pip install 'curation[s3]', here and on every worker"
            )
        ) from None


def _open_other(url: str) -> BinaryIO:
    check_url(url)
    try:
        return cast(BinaryIO, fsspec.open(url, "rb", expand=False).open())
    except FileNotFoundError:
        raise InputMissing(f"{url} does not exist; correct the address, or remove it") from None


def _is_known(scheme: str) -> bool:
    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError):
        return False
    return True


def _content_length(headers: Any) -> int | None:
    stated = headers.get("Content-Length")
    if stated is not None and not stated.strip().isdigit():
        raise _Hiccup(f"Content-Length {stated!r} is no number")
    return None if stated is None else int(stated)


def _explain(url: str, status: int, said: str, region: str) -> CurationError:
    """Return the error of a request that no repetition mends."""
    if status in (404, 410):
        return InputMissing(
            f"{url}: the server answers {said}: there is no such file; correct the address, or "
            "remove it from the inputs (for lines of a listing: dumps.base names what they are "
            "relative to)"
        )
    parts = urlsplit(url)
    if region and status in (301, 307, 400):
        return ConfigError(
            f"{url}: the server answers {said}: the bucket lies in {region}; set "
            f"AWS_REGION={region} for the driver and the workers"
        )
    if status in (401, 403, 407):
        if parts.scheme in S3_SCHEMES and parts.netloc == "commoncrawl":
            advice = (
                "Common Crawl refuses anonymous access by s3://; use https://data.commoncrawl.org"
                f"{parts.path}, or AWS credentials"
            )
        elif parts.scheme in S3_SCHEMES:
            advice = "check that the key exists and that these credentials may read it"
        elif parts.hostname == "data.commoncrawl.org":
            advice = (
                "Common Crawl answers so to clients that ask too often: run fewer tasks, wait a "
                "day, and check the path with curl"
            )
        else:
            advice = "put credentials into ~/.netrc, or name a file that may be read"
        return InputRefused(f"{url}: the server answers {said}; {advice}")
    return InputInvalid(
        f"{url}: the server answers {said} to a plain read; open the address with curl to see why, "
        "and correct it"
    )


def _changed(url: str, known: Facts, now: str) -> InputChanged:
    return InputChanged(
        f"{url} was read before with {known}, and now has {now}; a file that is read must not "
        "change: restore it, or add the new version under another name"
    )


def _opaque(etag: str) -> str:
    """Return what of an ETag names the content: servers that compress on the fly mark it."""
    tag = etag.removeprefix("W/").strip('"')
    return re.sub(r"[-;]gzip$", "", tag)


def _line(error: BaseException) -> str:
    """Return an error's message on one line (Spark carries no more of it), without signatures."""
    message = " ".join(SIGNED_QUERY.sub("", str(error)).split())
    return f"{type(error).__name__}: {message}"[:300]
