"""Archives that are broken in the ways archives are, each with the rows that must come of it.

    python tests/data/make_archives.py FOLDER     write them as files, to try other readers on

Written without any WARC library. What is expected follows from what was put in, not from a reader.
"""

import gzip
import json
import random
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

DATE = "2021-03-04T05:06:07Z"
ARC_DATE = "20210304050607"


class Case(NamedTuple):
    """One archive: (ordinal, offset, length, type, url, error, payload) of each row, and how many
    records of every other type there are."""

    name: str
    data: bytes
    rows: list[tuple]
    counts: dict[str, int]


class Builder:
    """Puts an archive together, and notes what a reader must find."""

    def __init__(self, name: str, compressed: bool = True, line_end: bytes = b"\r\n"):
        self.name, self.compressed, self.line_end = name, compressed, line_end
        self.data = b""
        self.rows: list[tuple] = []
        self.counts: Counter[str] = Counter()
        self.num_records = 0

    def page(self, i: int) -> bytes:
        """A web page that compresses little, so that damage always hits something."""
        return f"<title>{i}</title>\n".encode() + random.Random(i).randbytes(1500).hex().encode()

    def url(self, i: int) -> str:
        return f"http://e.com/{i}"

    def http(self, i: int, headers: bytes = b"") -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + headers + b"\r\n" + self.page(i)

    def text(self, i: int, record_type: str = "response", block: bytes | None = None, **fields):
        """A record; `fields` replace (or with None remove) fields of its header."""
        block = self.http(i) if block is None else block
        header = {
            "WARC-Type": record_type,
            "WARC-Record-ID": f"<urn:uuid:00000000-0000-0000-0000-{i:012}>",
            "WARC-Date": DATE,
            "WARC-Target-URI": self.url(i),
            "Content-Type": "application/http; msgtype=response",
            "Content-Length": str(len(block)),
        } | {name.replace("_", "-"): value for name, value in fields.items()}
        lines = [b"WARC/1.0"]
        lines += [f"{key}: {value}".encode() for key, value in header.items() if value is not None]
        return self.line_end.join([*lines, b"", b""]) + block + 2 * self.line_end

    def arc(self, i: int, block: bytes | None = None, *, url: str | None = None, kind="text/html"):
        block = self.http(i) if block is None else block
        line = f"{url or self.url(i)} 192.0.2.1 {ARC_DATE} {kind} {len(block)}\n"
        return line.encode() + block + b"\n"

    def arc_header(self, version: int = 1) -> bytes:
        fields = "URL IP-address Archive-date Content-type Archive-length"
        body = f"{version} 0 Curation\n{fields}\n".encode()
        line = f"filedesc://t.arc 0.0.0.0 {ARC_DATE} text/plain {len(body)}\n".encode()
        return line + body + b"\n"

    def stored(self, text: bytes) -> bytes:
        return gzip.compress(text, mtime=0) if self.compressed else text

    def good(self, i: int, text: bytes | None = None, *, url=None, payload=None, **row) -> None:
        """Add a record that must be a row."""
        stored = self.stored(self.text(i) if text is None else text)
        url = self.url(i) if url is None else url
        payload = self.page(i) if payload is None else payload
        place = (self.num_records, len(self.data), len(stored))
        error = row.get("error")
        kind = row.get("kind", "response")
        self.rows.append((*place, kind, url, error, None if error else payload))
        self.data += stored
        self.num_records += 1

    def other(self, kind: str, text: bytes | None = None, *, type_name: str | None = None) -> None:
        """Add a record that must be counted."""
        self.data += self.stored(self.text(0, kind) if text is None else text)
        self.counts[type_name or kind] += 1
        self.num_records += 1

    def lost(self, stored: bytes, error: str, url: str | None = None) -> None:
        """Add bytes that must be one lost range, or part of the one before."""
        if self.rows and self.rows[-1][3] == "lost":
            before = self.rows.pop()
            self.rows.append((*before[:2], before[2] + len(stored), *before[3:]))
        else:
            place = (self.num_records, len(self.data), len(stored))
            self.rows.append((*place, "lost", url, error, None))
            self.num_records += 1
        self.data += stored

    def case(self) -> Case:
        return Case(self.name, self.data, self.rows, dict(self.counts))


def cases() -> list[Case]:
    """Return all archives."""
    made = [make() for make in _WHOLE]
    made += [make(compressed) for make in _EITHER for compressed in (True, False)]
    assert len({case.name for case in made}) == len(made)
    return made


def _named(name: str, compressed: bool) -> Builder:
    return Builder(f"{name}.warc{'.gz' if compressed else ''}", compressed)


# --- compressed or not --------------------------------------------------------------------------


def types(compressed: bool) -> Case:
    """Only responses are rows; an HTML page in a resource record is counted like any other."""
    it = _named("types", compressed)
    it.other("warcinfo")
    it.other("request")
    it.good(1)
    it.other("revisit")
    it.other("resource", it.text(0, "resource", it.page(0), Content_Type="text/html"))
    it.other("response", it.text(0, block=b"192.0.2.1", Content_Type="text/dns"),
             type_name="response_not_http")  # fmt: skip
    it.other("unknown", it.text(0, WARC_Type=None))
    it.good(2)
    return it.case()


def truncated_file(compressed: bool) -> Case:
    it = _named("truncated_file", compressed)
    it.good(1)
    it.lost(it.stored(it.text(2))[:-500], "truncated", it.url(2))
    return it.case()


def truncated_header(compressed: bool) -> Case:
    it = _named("truncated_header", compressed)
    it.good(1)
    it.lost(it.stored(it.text(2))[:50], "truncated")
    return it.case()


def garbage_between(compressed: bool) -> Case:
    it = _named("garbage_between", compressed)
    it.good(1)
    it.lost(b"~garbage garbage garbage\n" * 7, "corrupt" if compressed else "malformed")
    it.good(2)
    return it.case()


def garbage_first(compressed: bool) -> Case:
    it = _named("garbage_first", compressed)
    it.lost(b"~garbage garbage garbage\n" * 7, "malformed")
    it.good(1)
    it.good(2)
    return it.case()


def garbage_last(compressed: bool) -> Case:
    it = _named("garbage_last", compressed)
    it.good(1)
    it.lost(b"~garbage garbage garbage\n" * 7, "corrupt" if compressed else "malformed")
    return it.case()


def length_too_long(compressed: bool) -> Case:
    """In a file that is not compressed the record swallows the next one's start."""
    it = _named("length_too_long", compressed)
    it.good(1)
    block = it.http(2)
    text = it.text(2, block=block, Content_Length=len(block) + 100)
    if compressed:
        # 4 of the 100 bytes are its own line ends, the others those of the next header
        next_text = it.text(3)
        stored = it.stored(text)
        it.rows.append((1, len(it.data), 0, "response", it.url(2), None,
                        it.page(2) + b"\r\n\r\n" + next_text[:96]))  # fmt: skip
        it.data += stored
        it.num_records += 1
        it.lost(it.stored(next_text), "malformed")
    else:
        next_text = it.text(3)
        it.rows.append((1, len(it.data), len(text) + 96, "response", it.url(2), None,
                        it.page(2) + b"\r\n\r\n" + next_text[:96]))  # fmt: skip
        it.data += text + next_text[:96]
        it.num_records += 1
        it.lost(next_text[96:], "malformed")
    it.good(4)
    return it.case()


def length_too_long_last(compressed: bool) -> Case:
    it = _named("length_too_long_last", compressed)
    it.good(1)
    block = it.http(2)
    it.lost(it.stored(it.text(2, block=block, Content_Length=len(block) + 100)),
            "truncated", it.url(2))  # fmt: skip
    return it.case()


def length_too_short(compressed: bool) -> Case:
    """The record is what its header says; the rest belongs to none."""
    it = _named("length_too_short", compressed)
    it.good(1)
    block = it.http(2)
    text = it.text(2, block=block, Content_Length=len(block) - 100)
    if compressed:
        stored = it.stored(text)
        it.rows.append((1, len(it.data), 0, "response", it.url(2), None, it.page(2)[:-100]))
        # the rest lies somewhere in the member, so that the range is the member
        it.rows.append((2, len(it.data), len(stored), "lost", None, "malformed", None))
        it.data += stored
        it.num_records += 2
    else:
        it.good(2, text[:-104], payload=it.page(2)[:-100])
        it.lost(text[-104:], "malformed")
    it.good(3)
    return it.case()


def length_missing(compressed: bool) -> Case:
    it = _named("length_missing", compressed)
    for i, length in enumerate((None, "many", "-1", "", "1" * 30)):
        it.good(2 * i)
        text = it.text(2 * i + 1, Content_Length=length)
        it.lost(it.stored(text), "malformed", it.url(2 * i + 1))
    it.good(99)
    return it.case()


def fields_missing(compressed: bool) -> Case:
    it = _named("fields_missing", compressed)
    it.good(1, it.text(1, WARC_Date=None))
    it.good(2, it.text(2, WARC_Record_ID=None))
    it.good(3, it.text(3, WARC_Target_URI=None), url="")
    it.rows[-1] = (*it.rows[-1][:4], None, *it.rows[-1][5:])
    it.good(4, it.text(4, WARC_Date="yesterday"))
    return it.case()


def header_malformed(compressed: bool) -> Case:
    """A line without a colon and an empty name harm nothing; a version line of our own does."""
    it = _named("header_malformed", compressed)
    it.good(1, it.text(1).replace(b"WARC-Date", b"a line without colon\r\nWARC-Date"))
    it.good(2, it.text(2).replace(b"WARC-Date", b": no name\r\nWARC-Date"))
    it.lost(it.stored(it.text(3).replace(b"WARC/1.0", b"WORC/1.0")), "malformed")
    it.good(4)
    return it.case()


def header_folded(compressed: bool) -> Case:
    it = _named("header_folded", compressed)
    it.good(1, it.text(1).replace(b"WARC-Date", b"X-Note: one\r\n two\r\n\tthree\r\nWARC-Date"))
    it.good(2, it.text(2).replace(b"Content-Length: ", b"Content-Length:\r\n "))
    it.good(3)
    return it.case()


def header_too_long(compressed: bool) -> Case:
    it = _named("header_too_long", compressed)
    it.good(1)
    it.lost(it.stored(it.text(2, X_Note="n" * 40_000)), "malformed")
    it.good(3)
    return it.case()


def line_feeds(compressed: bool) -> Case:
    """Lines that end in LF alone, in WARC headers and in HTTP headers; and some of them mixed."""
    it = _named("line_feeds", compressed)
    it.line_end = b"\n"
    it.good(1)
    it.good(2, it.text(2, block=it.http(2).replace(b"\r\n", b"\n")))
    it.line_end = b"\r\n"
    it.good(3, it.text(3, block=it.http(3).replace(b"\r\n", b"\n")))
    it.good(4, it.text(4).replace(b"WARC-Date: " + DATE.encode() + b"\r\n", b"WARC-Date: x\n"))
    it.good(5)
    return it.case()


def http_line_feeds(compressed: bool) -> Case:
    """Servers that end their headers' lines in LF; the payload must not become a header."""
    it = _named("http_line_feeds", compressed)
    it.good(1, it.text(1, block=it.http(1).replace(b"\r\n", b"\n")))
    it.good(2, it.text(2, block=it.http(2).replace(b"\r\n", b"\n", 1)))
    it.good(3)
    return it.case()


def one_line_feed(compressed: bool) -> Case:
    """One line of a header ends in LF, and must not swallow the next."""
    it = _named("one_line_feed", compressed)
    it.good(1)
    it.good(2, it.text(2).replace(b"WARC-Target-URI", b"X-Note: x\nWARC-Target-URI"))
    it.good(3)
    return it.case()


def odd_urls(compressed: bool) -> Case:
    it = _named("odd_urls", compressed)
    for i, (url, wanted) in enumerate(
        (
            ("<http://e.com/wget>", "http://e.com/wget"),
            ("http://e.com/a b c", "http://e.com/a b c"),
            ("http://e.com/\u6587", "http://e.com/\u6587"),
            ("  http://e.com/x  ", "http://e.com/x"),
        )
    ):
        it.good(i, it.text(i, WARC_Target_URI=url), url=wanted)
    return it.case()


def zero_length(compressed: bool) -> Case:
    it = _named("zero_length", compressed)
    it.good(1)
    it.good(2, it.text(2, block=b""), error="http_invalid")
    it.other("metadata", it.text(3, "metadata", b""))
    it.good(4, it.text(4, block=b"HTTP/1.1 204 No Content\r\n\r\n"), payload=b"")
    it.good(5)
    return it.case()


def no_http(compressed: bool) -> Case:
    it = _named("no_http", compressed)
    it.good(1, it.text(1, block=b"<html>no status line"), error="http_invalid")
    it.good(2, it.text(2, block=b"HTTP/1.1 abc\r\n\r\nx"), error="http_invalid")
    it.good(3)
    return it.case()


def old_versions(compressed: bool) -> Case:
    it = _named("old_versions", compressed)
    for i, version in enumerate((b"WARC/0.17", b"WARC/0.18", b"WARC/1.1")):
        it.good(i, it.text(i).replace(b"WARC/1.0", version, 1))
    return it.case()


def blank_lines(compressed: bool) -> Case:
    """Too many, and none at all."""
    it = _named("blank_lines", compressed)
    it.good(1, it.text(1) + b"\r\n" * 5)
    it.good(2, it.text(2)[:-4])
    it.good(3, it.text(3)[:-2])
    it.good(4)
    return it.case()


def arc(compressed: bool) -> Case:
    it = Builder(f"plain.arc{'.gz' if compressed else ''}", compressed)
    it.other("arc_header", it.arc_header())
    it.good(1, it.arc(1))
    it.other("dns", it.arc(2, b"20210304050607\n192.0.2.1", url="dns:e.com", kind="text/dns"),
             type_name="response_not_http")  # fmt: skip
    it.good(3, it.arc(3, url="http://e.com/a b c"), url="http://e.com/a b c")
    it.good(4, it.arc(4, it.http(4).replace(b"\r\n", b"\n")))
    it.good(5, it.arc(5, b"no status line"), error="http_invalid")
    it.good(6, it.arc(6))
    return it.case()


def arc_broken(compressed: bool) -> Case:
    it = Builder(f"broken.arc{'.gz' if compressed else ''}", compressed)
    it.other("arc_header", it.arc_header())
    it.good(1, it.arc(1))
    it.lost(b"~garbage garbage garbage\n" * 7, "corrupt" if compressed else "malformed")
    it.good(2, it.arc(2))
    it.lost(it.stored(it.arc(3).replace(b" 15", b" x15", 1).replace(b" 30", b" x30", 1)),
            "malformed", it.url(3))  # fmt: skip
    it.good(4, it.arc(4))
    it.lost(it.stored(it.arc(5))[:-300], "truncated", it.url(5))
    return it.case()


def arc_truncated_header(compressed: bool) -> Case:
    it = Builder(f"truncated_header.arc{'.gz' if compressed else ''}", compressed)
    it.other("arc_header", it.arc_header())
    it.good(1, it.arc(1))
    it.lost(it.stored(it.arc(2))[:28], "truncated")
    return it.case()


def arc_one_member_cut(compressed: bool) -> Case:
    """The records before the cut are whole, though their member is not."""
    it = Builder("one_member_cut.arc.gz" if compressed else "cut.arc", compressed=False)
    it.other("arc_header", it.arc_header())
    it.good(1, it.arc(1))
    it.good(2, it.arc(2))
    if not compressed:
        it.lost(it.arc(3)[:10], "truncated")
        return it.case()
    # stored, not deflated: what a cut leaves of the text is known
    text = it.data + it.arc(3)
    deflater = zlib.compressobj(0, wbits=31)
    member = (deflater.compress(text) + deflater.flush())[: 10 + 5 + len(it.data) + 10]
    rows = [(row[0], 0, 0, *row[3:]) for row in it.rows]
    rows.append((3, 0, len(member), "lost", None, "truncated", None))
    return Case(it.name, member, rows, dict(it.counts))


def arc_without_header(compressed: bool) -> Case:
    it = Builder(f"headless.arc{'.gz' if compressed else ''}", compressed)
    it.lost(b"~garbage garbage garbage\n" * 7, "malformed")
    it.good(1, it.arc(1))
    it.good(2, it.arc(2))
    return it.case()


def arc_version_2(compressed: bool) -> Case:
    """Ten fields: the one that says so is the third line of the file."""
    it = Builder(f"version_2.arc{'.gz' if compressed else ''}", compressed)
    fields = (
        "URL IP-address Archive-date Content-type Result-code "
        "Checksum Location Offset Filename Archive-length"
    )
    body = f"2 0 Curation\n{fields}\n".encode()
    it.other("arc_header", (
        f"filedesc://t.arc 0.0.0.0 {ARC_DATE} text/plain 200 - - 0 t.arc {len(body)}\n".encode()
        + body + b"\n"
    ))  # fmt: skip
    for i in (1, 2):
        block = it.http(i)
        line = f"{it.url(i)} 192.0.2.1 {ARC_DATE} text/html 200 - - 9 t.arc {len(block)}\n"
        it.good(i, line.encode() + block + b"\n")
    return it.case()


def concatenated(compressed: bool) -> Case:
    """Files put behind each other: WARC, ARC, WARC; and an empty one among them."""
    it = _named("concatenated", compressed)
    it.other("warcinfo")
    it.good(1)
    it.other("arc_header", it.arc_header())
    it.good(2, it.arc(2))
    it.other("warcinfo")
    it.good(3)
    if compressed:
        it.good(4, None)
        it.rows[-1] = (*it.rows[-1][:2], it.rows[-1][2] + 20, *it.rows[-1][3:])
        it.data += gzip.compress(b"", mtime=0)
    it.good(5)
    return it.case()


# --- gzip ---------------------------------------------------------------------------------------


def truncated_member() -> Case:
    """A member ends too early, the next one follows."""
    it = Builder("truncated_member.warc.gz")
    it.good(1)
    it.lost(it.stored(it.text(2))[:-700], "corrupt", it.url(2))
    it.good(3)
    return it.case()


def bad_crc() -> Case:
    it = Builder("bad_crc.warc.gz")
    it.good(1)
    broken = bytearray(it.stored(it.text(2)))
    broken[-8] ^= 255
    it.lost(bytes(broken), "corrupt", it.url(2))
    it.good(3)
    return it.case()


def bad_size() -> Case:
    it = Builder("bad_size.warc.gz")
    it.good(1)
    broken = bytearray(it.stored(it.text(2)))
    broken[-1] ^= 255
    it.lost(bytes(broken), "corrupt", it.url(2))
    it.good(3)
    return it.case()


def one_member() -> Case:
    """The whole file is one member: no record can be addressed by itself."""
    it = Builder("one_member.warc.gz", compressed=False)
    for i in range(40):
        it.good(i)
    rows = [(row[0], 0, 0, *row[3:]) for row in it.rows]
    return Case(it.name, gzip.compress(it.data, mtime=0), rows, {})


def members_of_any_size() -> Case:
    """Members that end anywhere, also in the middle of a header."""
    it = Builder("members_of_any_size.warc.gz", compressed=False)
    for i in range(6):
        it.good(i)
    data, starts = b"", {}
    for at in range(0, len(it.data), 777):
        starts[at] = len(data)
        data += gzip.compress(it.data[at : at + 777], mtime=0)
    rows = [(row[0], starts[row[1] // 777 * 777], 0, *row[3:]) for row in it.rows]
    return Case(it.name, data, rows, {})


def gzip_fields() -> Case:
    """Members with a name, a comment, an extra field and a header checksum, as RFC 1952 allows."""
    it = Builder("gzip_fields.warc.gz")
    for i, (flags, extra) in enumerate(
        ((8, b"name.warc\0"), (16, b"comment\0"), (4, b"\x08\x00LX\x04\x00abcd"), (1, b""))
    ):
        member = it.stored(it.text(i))
        place = (i, len(it.data), len(member) + len(extra))
        it.rows.append((*place, "response", it.url(i), None, it.page(i)))
        it.data += member[:3] + bytes([flags]) + member[4:10] + extra + member[10:]
        it.num_records += 1
    return it.case()


def empty_file() -> Case:
    return Case("empty.warc", b"", [(0, 0, 0, "lost", None, "empty", None)], {})


def empty_gzip() -> Case:
    data = gzip.compress(b"", mtime=0)
    return Case("empty.warc.gz", data, [(0, 0, len(data), "lost", None, "empty", None)], {})


def not_an_archive() -> Case:
    data = b"<html>a page, no archive</html>\n" * 50
    return Case("page.warc", data, [(0, 0, len(data), "lost", None, "not_warc", None)], {})


def not_an_archive_gzip() -> Case:
    data = gzip.compress(b"<html>a page, no archive</html>\n" * 50, mtime=0)
    return Case("page.warc.gz", data, [(0, 0, len(data), "lost", None, "not_warc", None)], {})


def not_gzip() -> Case:
    """A name says nothing."""
    it = Builder("not_gzip.warc.gz", compressed=False)
    it.good(1)
    it.good(2)
    return it.case()


_EITHER = [
    types, truncated_file, truncated_header, garbage_between, garbage_first, garbage_last,
    length_too_long, length_too_long_last, length_too_short, length_missing, fields_missing,
    header_malformed, header_folded, header_too_long, line_feeds, http_line_feeds, one_line_feed,
    odd_urls, zero_length, no_http,
    old_versions, blank_lines, arc, arc_broken, arc_truncated_header,
    arc_one_member_cut, arc_without_header, arc_version_2, concatenated,
]  # fmt: skip
_WHOLE = [
    truncated_member, bad_crc, bad_size, one_member, members_of_any_size, gzip_fields, empty_file,
    empty_gzip, not_an_archive, not_an_archive_gzip, not_gzip,
]  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "expected.jsonl").open("w") as lines:
        for case in cases():
            (folder / case.name).write_bytes(case.data)
            rows = [row[:-1] for row in case.rows]
            lines.write(json.dumps({"file": case.name, "rows": rows, "counts": case.counts}) + "\n")


if __name__ == "__main__":
    main()
