"""What holds of the blocks of any bytes, and the pages and pieces that tests and fuzzing share."""

import re
from pathlib import Path

import numpy as np

from curation.ingest import charset
from curation.ingest.blocks import (
    BLOCK_END,
    BLOCK_FIELDS,
    BLOCK_FLAGS,
    BLOCK_IMAGES,
    BLOCK_LINK_BYTES,
    BLOCK_LINKS,
    BLOCK_NODE,
    BLOCK_START,
    IN_DROPPED,
    IN_PRE,
    KINDS_OF_PAGES,
    MAX_DEPTH,
    NODE_DEPTH,
    NODE_FLAGS,
    NODE_PARENT,
    NODE_TAG,
    TAGS,
    VERBATIM,
    Blocks,
    parse,
)
from curation.ingest.warc import read_records

DUMPS = Path(__file__).parents[1] / "data" / "dumps"

SOUP = (
    "<!--|-->|<!-->|--!>|<p>|</p>|<div_class=nav>|</div>|<a_href=/>|</a>|<table>|<tr>|<td>|</table>|"
    "<ul>|<li>|</ul>|<pre>|</pre>|<br>|<svg>|</svg>|<select>|<script>|</script>|<title>|</title>|"
    "<p_class='|<p_title=\"|'|\"|_|>|/>|=|&|&amp|&#x1F600;|&#0;|&nGt;|&NotEqualTilde;|<|</|<?|<!|"
    "\r\n|\r|\n|\xa0|é|東|<h1>|</h1>|<dd>|<dt>|<body_class=forum>|<meta_og:type_content='|<x>|</x>|"
    "<span_hidden>|</span>|<button>|</button>|<b>|</b>"
)
PARTS = [part.replace("_", " ") for part in SOUP.split("|")]

# White space that a block without VERBATIM does not hold: at its ends, in a row, any but " ".
LOOSE_SPACE = re.compile(r"^[ \t\n\r\x0b\f]|[\t\n\r\x0b\f]|  | $")


def demo_payloads() -> list[bytes]:
    """All pages of the demo dumps, as they came."""
    return [
        payload
        for path in sorted(DUMPS.glob("*.warc.gz"))
        for batch in read_records(str(path))
        for payload in batch["payload"].to_pylist()
        if payload
    ]


def demo_pages() -> list[bytes]:
    """The same as UTF-8."""
    return [
        page.encode("utf-8", "replace")
        for payload in demo_payloads()
        if (page := charset.decode(payload, None))
    ]


def texts_of(found: Blocks) -> list[str]:
    """The text of each block."""
    return [
        found.text[row[BLOCK_START] : row[BLOCK_END]].tobytes().decode("utf-8", "replace")
        for row in found.blocks
    ]


def check(page: bytes) -> Blocks:
    """Parse a page and assert what holds of any bytes."""
    found = parse(np.frombuffer(page, np.uint8))
    num_nodes = len(found.nodes)
    assert found.blocks.shape[1] == BLOCK_FIELDS
    assert len(found.names) == len(found.shapes) == num_nodes >= 1
    parents, depths = found.nodes[:, NODE_PARENT], found.nodes[:, NODE_DEPTH]
    assert parents[0] == -1
    assert depths[0] == 0
    assert (parents[1:] >= 0).all()
    assert (parents[1:] < np.arange(1, num_nodes)).all()
    assert (depths[1:] == depths[parents[1:]] + 1).all()
    assert depths.max() < MAX_DEPTH
    tags = found.nodes[:, NODE_TAG]
    assert ((tags >= 0) & (tags <= len(TAGS))).all()
    starts, ends = found.blocks[:, BLOCK_START], found.blocks[:, BLOCK_END]
    assert (starts < ends).all()
    if len(starts):  # one after the other, nothing between them or around them
        assert starts[0] == 0
        assert (starts[1:] == ends[:-1]).all()
        assert ends[-1] == len(found.text)
    else:
        assert len(found.text) == 0
    nodes = found.blocks[:, BLOCK_NODE]
    assert ((nodes >= 0) & (nodes < num_nodes)).all()
    assert not (found.nodes[nodes, NODE_FLAGS] & IN_DROPPED).any()
    links = found.blocks[:, BLOCK_LINK_BYTES]
    assert ((links >= 0) & (links <= ends - starts)).all()
    assert (found.blocks[:, BLOCK_LINKS] >= 0).all()
    assert (found.blocks[:, BLOCK_IMAGES] >= 0).all()
    is_verbatim = found.blocks[:, BLOCK_FLAGS] & VERBATIM != 0
    assert (is_verbatim == (found.nodes[nodes, NODE_FLAGS] & IN_PRE != 0)).all()
    for text, verbatim in zip(texts_of(found), is_verbatim, strict=True):
        assert verbatim or not LOOSE_SPACE.search(text)
    title_start, title_end = found.title
    assert 0 <= title_start <= title_end <= len(page)
    assert 0 <= int(found.page_kinds) < 1 << len(KINDS_OF_PAGES)
    try:
        page.decode()
    except UnicodeDecodeError:
        return found
    found.text.tobytes().decode()
    return found
