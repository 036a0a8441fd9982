"""An HTTP server at a loopback port that serves what it is given, and fails as it is told."""

import gzip
import http.server
import io
import itertools
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from curation.ingest.remote import Clock

BYTES = b"".join(number.to_bytes(4, "big") for number in range(100_000))  # no part repeats
PATH = "/data/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content` with ranges and ETags, unless the script says otherwise."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a short body waits 40 ms for the header's acknowledgement
    server: "Server"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append((path, dict(self.headers)))
        self.server.queries.append(self.path)
        act = next(self.server.script, None) or serve
        try:
            act(self, self.server.content.get(path))
        except (BrokenPipeError, ConnectionResetError):  # the client hung up, as it should
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    @property
    def asked(self) -> int:
        """The first byte that is asked for."""
        value = self.headers.get("Range", "bytes=0-")
        return int(value.removeprefix("bytes=").partition("-")[0])

    @property
    def asked_last(self) -> int | None:
        """The last byte that is asked for; None: all to the end."""
        value = self.headers.get("Range", "").partition("-")[2]
        return int(value) if value else None

    def answer(self, status: int, body: bytes, **headers: object) -> None:
        """Send a whole answer; `Content_Length=None` leaves that header out."""
        headers = {"Content-Length": len(body)} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def hang_up(self) -> None:
        self.close_connection = True


Act = Callable[[Handler, bytes | None], None]


class Server(http.server.ThreadingHTTPServer):
    """Requests, and what to do with the first of them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: dict[str, bytes] = {PATH: BYTES}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.queries: list[str] = []
        self.script: Iterator[Act | None] = iter(())
        self.released = threading.Event()  # lets acts that hold an answer back go on

    def play(self, *acts: Act | None) -> None:
        """Act so at the first requests, then serve."""
        self.requests.clear()
        self.script = iter(acts)

    def always(self, act: Act) -> None:
        self.requests.clear()
        self.script = itertools.repeat(act)

    def url(self, path: str = PATH) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]

    def handle_error(self, *_: object) -> None:  # a client that hung up
        pass


class Waits:
    """A clock that stands, but for a minute in each of the first reads; remembers its sleeps."""

    def __init__(self, jitter: float = 0.5, slow_reads: int = 0) -> None:
        self.slept: list[float] = []
        looks = itertools.count()
        self.clock = Clock(
            now=lambda: 60.0 * min(next(looks), 2 * slow_reads),  # two looks a read
            date=lambda: datetime(2024, 1, 1, tzinfo=UTC).timestamp(),
            sleep=self.slept.append,
            jitter=lambda: jitter,
        )


# ---- what a server does ------------------------------------------------------------------------


def serve(handler: Handler, content: bytes | None, *, etag: str = '"v1"', **headers: object):
    """A server as it should be: ranges, If-Match, ETag."""
    if content is None:
        handler.answer(404, b"no such file")
    elif handler.headers.get("If-Match", etag) != etag:
        handler.answer(412, b"")
    elif "Range" not in handler.headers:
        handler.answer(200, content, ETag=etag, **headers)
    elif handler.asked >= len(content):
        handler.answer(416, b"", Content_Range=f"bytes */{len(content)}")
    else:
        last = len(content) - 1
        if handler.asked_last is not None:
            last = min(last, handler.asked_last)
        part = content[handler.asked : last + 1]
        where = f"bytes {handler.asked}-{last}/{len(content)}"
        handler.answer(206, part, ETag=etag, Content_Range=where, **headers)


def status(code: int, body: bytes = b"", **headers: object) -> Act:
    return lambda handler, content: handler.answer(code, body, **headers)


def whole(handler: Handler, content: bytes | None) -> None:
    """A server without ranges."""
    handler.answer(200, content, ETag='"v1"')


def cut(num_bytes: int, reset: bool = False, base: Act = serve) -> Act:
    """Announce everything, send `num_bytes`, and end or reset the connection."""

    def act(handler: Handler, content: bytes | None) -> None:
        out = handler.wfile
        sent = io.BytesIO()
        handler.wfile = sent
        base(handler, content)
        handler.wfile = out
        header, _, body = sent.getvalue().partition(b"\r\n\r\n")
        out.write(header + b"\r\n\r\n" + body[:num_bytes])
        out.flush()
        if reset:  # closing with SO_LINGER 0 sends RST
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            handler.connection.setsockopt(1, 13, linger)
            handler.connection.close()
        handler.hang_up()

    return act


def stall(num_bytes: int) -> Act:
    """Send some bytes, then nothing, and keep the connection open."""

    def act(handler: Handler, content: bytes | None) -> None:
        cut(num_bytes)(handler, content)
        handler.server.released.wait()

    return act


def chunked(num_bytes: int | None = None) -> Act:
    """Send all in chunks without a length; with `num_bytes`, stop there without the last chunk."""

    def act(handler: Handler, content: bytes | None) -> None:
        body = content[:num_bytes]
        chunks = b"%x\r\n%s\r\n" % (len(body), body)
        last = b"0\r\n\r\n" if num_bytes is None else b""
        handler.answer(200, chunks + last, Content_Length=None, Transfer_Encoding="chunked")
        if not last:
            handler.hang_up()

    return act


def compress(handler: Handler, content: bytes | None) -> None:
    """A proxy that compresses whole answers on the fly."""
    body = gzip.compress(content, 1)
    handler.answer(200, body, Content_Encoding="gzip", ETag='W/"v1-gzip"')
