"""Pages made to hurt whoever parses them, and kernels that do what such a page may do to a process.

`PAGES` are made by `page(name)`; those under `REJECTED` break the limit named there, all others
are within the limits and cost what is possible within them, and so are those of `FOR_BLOCKS`.
"""

import ctypes
import os
import re
import stat
import sys
import time

import pyarrow as pa

from curation.ingest.limits import PageLimits
from curation.ingest.sandbox import Net

LIMITS = PageLimits(
    max_html_bytes=5 << 20,
    max_html_tags=100_000,
    max_html_depth=512,
    max_html_attributes=50_000,
    max_tag_attributes=1_000,
    max_chars=5_000_000,
)
NET = Net(page_cpu_seconds=60.0, page_memory_bytes=1 << 30)

SENTENCE = "The quick brown fox jumps over the lazy dog while seven wizards watch in silence. "
TEXT = f"<p>{SENTENCE * 3}</p>"
MEGABYTE = 1_000_000


def nested(tag: str, num_bytes: int) -> str:
    opening = "".join(f"<{name}>" for name in tag.split())
    return opening * (num_bytes // len(opening)) + TEXT


def entities() -> str:
    levels = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    return f'<!DOCTYPE html [<!ENTITY e0 "lol">{levels}]><html><body>{TEXT}<p>&e11;</p>'


PAGES = {
    # above a limit, by far
    "10 MB of nested tags": lambda: nested("div", 10 * MEGABYTE),
    "4 MB of nested blocks": lambda: nested("div article", 4 * MEGABYTE),
    "nested lists": lambda: nested("ul li", MEGABYTE // 3),
    "nested tables": lambda: nested("table tr td", MEGABYTE // 3),
    "nested spans": lambda: nested("span", MEGABYTE // 2),
    "nested unknown elements": lambda: nested("x-y", MEGABYTE // 4),
    "nested svg": lambda: nested("svg g", MEGABYTE // 4),
    "closed too often": lambda: "<span><div></span>" * 10_000 + TEXT,
    "hidden from the stack": lambda: "<div><table><td></div>" * 10_000 + TEXT,
    "nested formatting": lambda: nested("font b i", 4 * MEGABYTE),
    "a million attributes of a tag": lambda: "<p " + "a=1 " * MEGABYTE + ">" + TEXT,
    "2,000 attributes of a tag": lambda: "<p " + " ".join(f"a{i}" for i in range(2_000)) + ">",
    "60,000 attributes of a page": lambda: "".join(f"<p a{i}>x" for i in range(60_000)),
    "no closing tags": lambda: "<p><b><li>word " * (4 * MEGABYTE // 16),
    "a text node of 50 MB": lambda: "<p>" + "word " * (10 * MEGABYTE),
    "a million cells": lambda: "<table>" + ("<tr>" + "<td>xx" * 100) * 10_000,
    "half a million cells": lambda: "<table>" + ("<tr>" + "<td>x" * 100) * 5_000,
    "meta without charset": lambda: "<meta " * (4 * MEGABYTE // 6) + TEXT,
    # within them
    "nested bold": lambda: nested("b", MEGABYTE // 4),
    "a million of &amp;": lambda: "<p>" + "&amp;" * MEGABYTE,
    "nested entities": entities,
    "unclosed paragraphs": lambda: "<p>word word " * 90_000,
    "formatting opened again": lambda: (
        "".join(f"<font a={i}>x" for i in range(3_000)) + "<p>y</p>" * 1_000
    ),
    "45,000 cells of a row": lambda: "<table><tr>" + "<td>x</td>" * 45_000,
    "95,000 line breaks": lambda: TEXT + "x<br>" * 95_000,
    "50,000 different attributes": lambda: "".join(f"<p a{i}=1>x" for i in range(49_990)) + TEXT,
    "5 MB of comment": lambda: "<!--" + " x" * (2 * MEGABYTE) + "-->" + TEXT,
    "a million comments": lambda: "<!---->" * (5 * MEGABYTE // 7) + TEXT,
    "a comment without an end": lambda: TEXT + "<!--" + "- <p>" * (4 * MEGABYTE // 5),
    "5 MB of script": lambda: "<script>" + "x</scrip " * (4 * MEGABYTE // 9) + "</script>" + TEXT,
    "a script without an end": lambda: TEXT + "<script>" + "</" * (2 * MEGABYTE),
    "an attribute without an end": lambda: TEXT + "<p a='" + "x>" * (2 * MEGABYTE),
    "5 MB of <": lambda: TEXT + "<" * (4 * MEGABYTE),
    "5 MB of </": lambda: TEXT + "</" * (2 * MEGABYTE),
    "meta with many names": lambda: "<meta a='" + "charset " * (4 * MEGABYTE // 8) + "'>" + TEXT,
    "one word of 5 MB": lambda: "<p>" + "x" * (5 * MEGABYTE),
    "5 MB of space": lambda: "<p>a" + " " * (5 * MEGABYTE) + "b",
    "one word of a tag": lambda: TEXT + "<meta " + "x" * 190_000 + ">",
    "class of class": lambda: "</math>" + TEXT + "<span katex " + "class=" * (MEGABYTE // 2) + ">",
    "class of an image": lambda: "</math>" + TEXT + "<img tex " + "class=" * (MEGABYTE // 2) + ">",
    "an annotation without an end": lambda: (
        TEXT + "<math><annotation " + "encoding=tex" * (MEGABYTE // 4) + "</math>"
    ),
    "5 MB of space in a formula": lambda: (
        TEXT + '<script type="math/tex">x' + " " * (4 * MEGABYTE) + "y</script>"
    ),
    "a charset of space": lambda: (
        "<meta http-equiv=content-type content='charset=\"" + " " * 16_000 + "'>" + TEXT
    ),
    "5 MB of empty lines": lambda: "<pre>a" + " \n" * (2 * MEGABYTE) + "b</pre>" + TEXT,
}
# Within the limits too, and hard for the parser of blocks and what describes them.
FOR_BLOCKS = {
    "a million of <": lambda: TEXT + "<" * MEGABYTE,
    "5 MB of &": lambda: TEXT + "&" * (5 * MEGABYTE),
    "5 MB of a long name": lambda: "<p>" + "&CounterClockwiseContourIntegra" * (MEGABYTE // 7),
    "one number of 5 MB": lambda: TEXT + "&#" + "9" * (5 * MEGABYTE),
    "a class of 5 MB": lambda: TEXT + "<p class='" + "nav top-Ad " * (5 * MEGABYTE // 11) + "'>x",
    "an id of 5 MB": lambda: TEXT + "<p id='" + "commentComment" * (5 * MEGABYTE // 14) + "'>x",
    "a comment of !": lambda: TEXT + "<!--" + "-!" * (5 * MEGABYTE // 2),
    "a title of 5 MB": lambda: "<title>" + "word " * MEGABYTE + "</title>" + TEXT,
    "unclosed links": lambda: TEXT + "<a href=/>x " * 49_000,
    "unclosed links and blocks": lambda: TEXT + "<p><a href=/>x " * 45_000,
    "unclosed items in lists": lambda: TEXT + "<ul>" * 500 + "<li>x " * 90_000,
    "unclosed cells": lambda: TEXT + "<td>x " * 90_000,
    "unclosed rows": lambda: TEXT + "<table>" + "<div>" * 500 + "<tr><td>x" * 45_000,
    "rows in tables": lambda: "<table><tr><td>" * 120 + "<table>" + "<tr><td>x<td>y" * 30_000,
    "lines in lists": lambda: "<ul><li>" * 200 + "x y<br>" * 90_000,
    "end tags of nothing": lambda: TEXT + "<span>" * 500 + "</p>" * 90_000 + "x",
    "end tags of links": lambda: (
        TEXT + "<a href=/>" + "<div>" * 500 + "</a><a href=/>" * 30_000 + "x"
    ),
    "a million words the same": lambda: "<p>" + "spam " * MEGABYTE,
    "blocks of words the same": lambda: TEXT + "<p>spam spam spam spam spam " * 90_000,
    "49,000 classes": lambda: TEXT + "".join(f"<p class={i:x}g>x" for i in range(49_000)),
    "a statement of 4 MB": lambda: (
        TEXT + "<script type=ld+json>" + '"@type":"article"' * (MEGABYTE // 4) + "</script>"
    ),
}
REJECTED = {
    "10 MB of nested tags": "max_html_bytes",
    "4 MB of nested blocks": "max_html_tags",
    "nested lists": "max_html_depth",
    "nested tables": "max_html_depth",
    "nested spans": "max_html_depth",
    "nested unknown elements": "max_html_depth",
    "nested svg": "max_html_depth",
    "closed too often": "max_html_depth",
    "hidden from the stack": "max_html_depth",
    "nested formatting": "max_html_tags",
    "a million attributes of a tag": "max_html_attributes",
    "2,000 attributes of a tag": "max_tag_attributes",
    "60,000 attributes of a page": "max_html_attributes",
    "no closing tags": "max_html_tags",
    "a text node of 50 MB": "max_html_bytes",
    "a million cells": "max_html_bytes",
    "half a million cells": "max_html_tags",
    "meta without charset": "max_html_attributes",
}


def page(name: str) -> bytes:
    html = (PAGES.get(name) or FOR_BLOCKS[name])()
    return (html if html.startswith("<!DOCTYPE") else f"<html><body>{html}").encode()


# --- what a page may do to a process -------------------------------------------------------------


def misbehave(orders: pa.Array) -> pa.Array:
    """Answer every row in capitals, or do what it says."""
    answers = [None if order is None else obey(order) for order in orders.to_pylist()]
    return pa.array(answers, pa.string())


LEAKED = []


def obey(order: str) -> str:
    if order == "spin":
        while True:
            pass
    if order == "spin in C":
        re.match(r"(a+)+$", "a" * 64 + "b")
    if order == "burn":
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
    if order == "wait":
        time.sleep(1e6)
    if order == "allocate":
        while True:
            LEAKED.append(b"x" * MEGABYTE)
    if order == "allocate at once":
        bytearray(1 << 44)
    if order == "allocate for a moment":
        bytes(bytearray(b"x") * (150 * MEGABYTE))
    if order == "leak":
        LEAKED.append(b"x" * (30 * MEGABYTE))
    if order == "crash":
        ctypes.string_at(0)
    if order == "abort":
        os.abort()
    if order == "exit":
        os._exit(0)
    if order == "raise":
        raise ValueError("as told")
    if order == "print":
        os.write(1, b"garbage" * 10_000)
        sys.stdout.write("more")
        sys.stdout.flush()
    if order == "garble":
        for descriptor in range(3, 64):
            try:
                if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                    os.write(descriptor, b"garbage" * 100)
            except OSError:
                continue
    return order.upper()


def nothing(orders: pa.Array) -> pa.Array:
    """Answer a value too few."""
    return orders.cast(pa.string())[1:]
