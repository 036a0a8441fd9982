"""The parser of blocks: trees whose text is known, other parsers, the rules of the standard, and
bytes of any kind."""

import html
import html.entities
import random
import re

import numpy as np
import pytest
import trees
from block_laws import PARTS, check, demo_pages, texts_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree, NodeType

from curation.ingest.blocks import (
    BLOCK_FLAGS,
    BLOCK_IMAGES,
    BLOCK_LINK_BYTES,
    BLOCK_LINKS,
    BLOCK_NODE,
    BROKEN,
    HIDDEN,
    IN_LINK,
    KINDS_OF_NAMES,
    KINDS_OF_PAGES,
    LINK,
    MAX_DEPTH,
    NODE_FLAGS,
    NODE_PARENT,
    NODE_TAG,
    TAG_IDS,
    TAGS,
    VERBATIM,
    Blocks,
    parse,
)
from curation.ingest.text import words

TAG_NAMES = ["", *TAGS]


def parsed(page: str | bytes) -> Blocks:
    data = page.encode() if isinstance(page, str) else page
    return parse(np.frombuffer(data, np.uint8))


def texts(page: str | bytes) -> list[str]:
    """The text of each block."""
    return texts_of(parsed(page))


def paths(page: str) -> list[str]:
    """Each block as "tags around it: text"."""
    found = parsed(page)
    lines = []
    for row, text in zip(found.blocks, texts_of(found), strict=True):
        tags, node = [], row[BLOCK_NODE]
        while node > 0:
            tags.append(TAG_NAMES[found.nodes[node, NODE_TAG]])
            node = found.nodes[node, NODE_PARENT]
        lines.append(f"{' '.join(reversed(tags))}: {text}")
    return lines


def names_of(attributes: str, tag: str = "div") -> set[str]:
    """The kinds of names of an element."""
    found = int(parsed(f"<{tag} {attributes}>x").names[1])
    return {name for bit, name in enumerate(KINDS_OF_NAMES) if found >> bit & 1}


def page_kinds_of(page: str) -> set[str]:
    found = int(parsed(page).page_kinds)
    return {name for bit, name in enumerate(KINDS_OF_PAGES) if found >> bit & 1}


@pytest.fixture(scope="module")
def demo() -> list[bytes]:
    found = demo_pages()
    assert len(found) == 880
    return found


# --- trees ---------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(trees.pages())
def test_blocks_and_nodes_are_those_of_the_tree(tree):
    source = trees.html_of(tree)
    expected = trees.expected(tree)
    found = parsed(source)
    assert [
        (TAG_NAMES[node[NODE_TAG]] or ("x-y" if i else ""), int(node[NODE_PARENT]))
        for i, node in enumerate(found.nodes)
    ] == [(tag if tag in TAG_IDS or tag == "x-y" else tag and "x-y", parent)
          for tag, parent in expected.nodes]  # fmt: skip
    pieces = [
        trees.Piece(
            text,
            int(row[BLOCK_NODE]),
            int(row[BLOCK_LINK_BYTES]),
            int(row[BLOCK_LINKS]),
            int(row[BLOCK_IMAGES]),
            bool(row[BLOCK_FLAGS] & BROKEN),
            bool(row[BLOCK_FLAGS] & VERBATIM),
        )
        for row, text in zip(found.blocks, texts_of(found), strict=True)
    ]
    assert pieces == expected.blocks
    check(source.encode())


# --- other parsers -------------------------------------------------------------------------------

LEFT_OUT = (
    "select datalist svg object audio video canvas template map applet frameset math progress "
    "meter script style textarea title xmp iframe noembed noframes"
)
NO_END = (
    "b i em strong font u s small big sub sup code tt kbd samp var cite abbr acronym q mark bdi "
    "bdo ins del dfn time ruby rb rt rtc rp nobr strike data blink span a label img input wbr "
    "area link meta base"
)


def read_by_lexbor(page: str) -> list[str]:
    """The words of all text that is seen, by a parser that builds the tree of the standard."""
    left_out, no_end = frozenset(LEFT_OUT.split()), frozenset(NO_END.split())
    pieces: list[str] = []
    root = HTMLTree.parse(page).document
    node = root
    while node is not None:
        is_left_out = False
        if node.type == NodeType.TEXT:
            pieces.append(node.value)
        elif node.type == NodeType.ELEMENT:
            is_left_out = node.tag in left_out
            if node.tag not in no_end:
                pieces.append(" ")
        following = None if is_left_out else node.first_child
        while following is None and node is not None:
            if node.type == NodeType.ELEMENT and node.tag not in no_end:
                pieces.append(" ")
            following = node.next
            node = node.parent
        node = following
    return words("".join(pieces))


def test_the_words_of_real_pages_are_those_of_another_parser(demo):
    for page in demo[::4]:
        found = [word for text in texts(page) for word in words(text)]
        assert found == read_by_lexbor(page.decode())


def test_real_pages_keep_the_rules(demo):
    for page in demo:
        check(page)


# --- character references ------------------------------------------------------------------------


def seen(text: str) -> str:
    """A text as it stands in a block."""
    return re.sub(r"[ \t\n\r\x0b\f\xa0]+", " ", text).strip(" ")


def test_every_named_reference():
    for name in html.entities.html5:
        for after in ("", " ", "x", "1", ";", "=", "&", "<b>"):
            source = f"x&{name}{after}"
            expected = seen(html.unescape(source.replace("<b>", "")))
            assert texts(source) == [expected], source


def test_numeric_references():
    code_points = [
        *range(0x400),
        *range(0xD7F0, 0xE010),
        *range(0xFDC0, 0xFE00),
        *range(0xFFF0, 0x10010),
        0x10FFFF,
    ]
    allowed = [c for c in code_points if chr(c) == html.unescape(f"&#{c};")]
    assert len(allowed) > 900
    for code_point in code_points:
        for reference in (f"&#{code_point};", f"&#x{code_point:x};", f"&#X{code_point:05X} "):
            (found,) = texts(f"x{reference}y")
            if 0x80 <= code_point < 0xA0 or code_point in allowed:
                assert found == seen(html.unescape(f"x{reference}y")), reference
            elif code_point == 0 or 0xD800 <= code_point < 0xE000:
                assert found == seen(f"x\ufffd{reference[-1].strip(';')}y"), reference
            else:  # a control or no character: the standard keeps it, `normalise` drops it
                assert found == seen(f"x{chr(code_point)}{reference[-1].strip(';')}y"), reference


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("&#x110000;", "\ufffd"),
        ("&#99999999999999999999999999;", "\ufffd"),
        ("&#xfffffffffffffffffffffff", "\ufffd"),
        ("&#;", "&#;"),
        ("&#x;", "&#x;"),
        ("&#xg", "&#xg"),
        ("&", "&"),
        ("&&amp;&", "&&&"),
        ("&;", "&;"),
        ("&nonsense;", "&nonsense;"),
        ("&notit;", "¬it;"),  # the example of the standard
        ("&notin;", "∉"),
        ("&nGt;", "≫⃒"),  # two code points
        ("&nbsp;x&nbsp;&nbsp;y", "x y"),
        ("&lt;p&gt;", "<p>"),
        ("&amp;lt;", "&lt;"),
        ("&#128;", "€"),
        ("&#13;&#10;x", "x"),
        ("&a\x00mp;", "&a\x00mp;"),
        ("&NotEqualTilde" * 9, "&NotEqualTilde" * 9),
        ("&CounterClockwiseContourIntegral;", "∳"),  # the longest
        ("&CounterClockwiseContourIntegra;", "&CounterClockwiseContourIntegra;"),
        ("&AMP&lt&GT", "&<>"),
    ],
)
def test_references_at_the_rim(source, expected):
    assert texts(source) == [expected]


@given(
    st.lists(
        st.sampled_from(["amp", "lt", "not", "notin", "nbsp", "nGt;", "gt", "33", *"&&#xX;aé"]),
        max_size=12,
    ).map("".join)
)
def test_references_in_any_order(source):
    expected = seen(html.unescape(source))
    assert texts(source) == [expected] * bool(expected)


# --- the rules of the standard -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # comments
        ("a<!-->b-->c", ["ab-->c"]),
        ("a<!--->b-->c", ["ab-->c"]),
        ("a<!---->b", ["ab"]),
        ("a<!-- x -- y - > <p> --!>b", ["ab"]),
        ("a<!--!>b-->c<!---!>d-->e", ["ace"]),
        ("a<!-- x --->b", ["ab"]),
        ("a<!-- x --! y -->b", ["ab"]),
        ("a<!--[if IE]> x <![endif]-->b<!--[if !IE]><!-->c<!--<![endif]-->d", ["abcd"]),
        ("a<!-- no end <p>b", ["a"]),
        ("a<!-- no end --", ["a"]),
        # what is like one
        ("a<!doctype html>b", ["ab"]),
        ("a<!>b<!x>c", ["abc"]),
        ("a<?xml version='1.0'?>b", ["ab"]),
        ("a</>b</ x>c</3>d", ["abcd"]),
        ("a<![CDATA[x>y]]>b", ["ay]]>b"]),
        ("a<?no end", ["a"]),
        # no tags
        ("a<b", ["a"]),  # a tag that the end cuts off
        ("1 < 2 <3 <= 4 <-5", ["1 < 2 <3 <= 4 <-5"]),
        ("<", ["<"]),
        ("a <", ["a <"]),
        ("<<p>x", ["<", "x"]),
        ("a<p", ["a"]),
        ("a<p class='x'", ["a"]),
        ("a<p class='x>y", ["a"]),
        ("a</p", ["a"]),
        # attributes
        ('<p title="a > b">x', ["x"]),
        ("<p title='a > b' >x", ["x"]),
        ("<p title=a>b>x", ["b>x"]),
        ("<p title = 'a>b'>x", ["x"]),
        ("<p title=>x", ["x"]),
        ("<p =>x", ["x"]),
        ("<p =a'>x", ["x"]),
        ("<p a'b=c>x", ["x"]),
        ("<p/a/b/>x", ["x"]),
        ('<p a="1"b="2>"c>x', ["x"]),
        ("<p\nid\n=\n'>'\n>x", ["x"]),
        # case and names
        ("a<P>b</P>c<DIV>d", ["a", "b", "c", "d"]),
        ("a<pq>b</pq>c<p-q>d<p:q>e", ["abcde"]),
        ("a<p/>b", ["a", "b"]),
        # raw text
        ("a<script>x</p><!-- </scrip </scripts></script>b", ["ab"]),
        ("a<SCRIPT>x</sCriPt\n>b", ["ab"]),
        ("a<script>x</script/>b<style>x</style y>c", ["abc"]),
        ("a<script>no end<p>b", ["a"]),
        ("a<script>no end</script", ["a"]),
        ("a<textarea><p>x</textarea>b<title></p></title>c", ["abc"]),
        ("a<iframe><p>x</iframe>b<noembed>x</noembed>c<xmp>x</xmp>d", ["abcd"]),
        ("a</script>b</style>c", ["abc"]),
        # XHTML, where nothing else can be meant
        ("a<script src='x'/>b<p>c", ["ab", "c"]),
        ("<title/>a<iframe src='x' />b<style/>c", ["abc"]),
        ("a<script/>x</script>b<script src=x/>c", ["ab"]),
        # what is left out
        ("a<select><option>x<option>y</select>b", ["ab"]),
        ("a<svg><text>x</text><g/><path/></svg>b", ["ab"]),
        ("a<svg/>b", ["ab"]),
        ("a<svg / >b</svg>c", ["ac"]),  # the slash is not before ">"
        ("a<math><mi>x</mi></math>b<canvas>x</canvas>c", ["abc"]),
        ("<div><svg><g>x</div>b", ["b"]),  # the end of what holds it ends it
        ("<template><p>x</p></template><video>x</video>a", ["a"]),
        ("<p>a<template><p>x</p></template>b", ["ab"]),
        ("<ul><li>a<template><li>x</li></template>b</ul>", ["ab"]),
        ("<table><tr><td>a<object><td>x<br></td></object>b", ["ab"]),
        # what is HTML ends a drawing that nothing else ends
        ("a<svg><path>x<p>b</p>c", ["a", "b", "c"]),
        ("a<math><mi>x<div>b</div>c", ["a", "b", "c"]),
        ("a<svg><g>x<span>b</span>c", ["abc"]),
        ("a<svg><foreignObject><div>x</div></foreignObject>y<p>b</svg>c", ["a", "bc"]),
        ("a<math><annotation-xml><p>x</annotation-xml></math>b", ["ab"]),
        ("a<svg><desc><p>x</desc><select><p>y</select></svg>b", ["ab"]),
        ("a<input value=x>b<button>c</button>d", ["ab", "c", "d"]),
        # white space
        ("  a \t\r\n\f b  ", ["a b"]),
        ("a\xa0\xa0b&nbsp;<p>&nbsp;</p>", ["a b"]),
        ("a <b> b</b> c", ["a b c"]),
        ("a<b>b</b>c", ["abc"]),
        ("a<wbr>b<span>c</span>", ["abc"]),
        ("<p> <b> </b> </p>", []),
        # lines
        ("a<br>b<br/>c</br>d", ["a", "b", "c", "d"]),
        ("a<hr>b", ["a", "b"]),
        ("<br><br>a", ["a"]),
        # code
        ("<pre>\na\n  b</pre>", ["a\n  b"]),
        ("<pre>\n\na</pre>", ["\na"]),
        ("<pre>\r\na</pre>", ["a"]),
        ("<pre><div>\n</div><div>\na</div></pre>", ["\n", "\na"]),
        ("<pre><code>\n\ta</code></pre>", ["\ta"]),
        ("<pre>a\r\nb\rc\n</pre>", ["a\nb\nc\n"]),
        ("<pre>a<br>b</pre>", ["a\nb"]),
        ("<pre>a<span> b </span>c</pre>", ["a b c"]),
        ("<pre>a &lt; b&nbsp; c</pre> d ", ["a < b  c", "d"]),
        ("<pre>a<pre>b </pre> c </pre> d ", ["a", "b ", " c ", "d"]),
        ("<pre>a<div> b</div></pre>", ["a", " b"]),
        ("<listing>\na  b</listing>", ["a  b"]),
        ("<pre><!-- x -->a  b</pre>", ["a  b"]),
    ],
)
def test_what_is_text(source, expected):
    assert texts(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # implied ends
        ("<p>a<p>b", ["p: a", "p: b"]),
        ("<p>a<div>b</div>c", ["p: a", "div: b", ": c"]),
        ("<p>a<ul><li>b</ul>c", ["p: a", "ul li: b", ": c"]),
        ("<p>a<table><tr><td>b</table>", ["p: a", "table tr td: b"]),
        ("<p>a<span>b<p>c", ["p: ab", "p: c"]),
        ("<div><p>a</div>b", ["div p: a", ": b"]),
        ("<ul><li>a<li>b<ul><li>c</ul>d</ul>", ["ul li: a", "ul li: b", "ul li ul li: c",
                                               "ul li: d"]),
        ("<ul><li>a<p>b<li>c", ["ul li: a", "ul li p: b", "ul li: c"]),
        ("<ul><li><div>a<li>b", ["ul li div: a", "ul li: b"]),
        ("<ul><li><section>a<li>b", ["ul li section: a", "ul li section li: b"]),
        ("<dl><dt>a<dd>b<dd>c<dt>d</dl>", ["dl dt: a", "dl dd: b", "dl dd: c", "dl dt: d"]),
        ("<table><tr><td>a<td>b<tr><th>c", ["table tr td: a", "table tr td: b", "table tr th: c"]),
        ("<table><thead><tr><td>a<tbody><tr><td>b<tfoot><tr><td>c", [
            "table thead tr td: a", "table tbody tr td: b", "table tfoot tr td: c"]),
        ("<table><caption>a<tr><td>b", ["table caption: a", "table tr td: b"]),
        ("<table><tr><td><table><tr><td>a<td>b</table>c<td>d", [
            "table tr td table tr td: a", "table tr td table tr td: b", "table tr td: c",
            "table tr td: d"]),
        ("<table><tr><td><div><p>a<td>b", ["table tr td div p: a", "table tr td: b"]),
        ("<h1>a<h2>b", ["h1: a", "h2: b"]),
        ("<a href=1>a<a href=2>b", ["a: ab"]),
        ("<div><a href=1>a<div>b</div></a>c", ["div a: a", "div a div: b", "div: c"]),
        # end tags
        ("<ul><li>a<ul>b</li>c</ul>d</ul>e", ["ul li: a", "ul li ul: b", "ul li ul: c",
                                             "ul li: d", ": e"]),
        ("<div>a</span>b</p>c</ul>d</div>e", ["div: ab", "div: c", "div: d", ": e"]),
        ("<h1>a</h3>b", ["h1: a", ": b"]),
        ("<div><section>a</div>b", ["div section: a", ": b"]),
        ("<div>a<span>b</div>c", ["div: ab", ": c"]),
        ("<span>a<div>b</span>c", ["span: a", "span div: bc"]),
        ("<div><table><tr><td>a</div>b", ["div table tr td: a", "div table tr td: b"]),
        ("<div><table></div>a", ["div table: a"]),
        ("<p><table><tr><td>a</p>b", ["table tr td: a", "table tr td: b"]),
        ("<table><tr><td>a</tr>b<td>c", ["table tr td: a", "table: b", "table td: c"]),
        ("<table><tr><td><div>a</table>b", ["table tr td div: a", ": b"]),
        ("<table><tr><td><div>a</td>b", ["table tr td div: a", "table tr: b"]),
        ("<x-y><z-z>a</x-y>b", [" : ab"]),  # elements that HTML does not know have no name
        ("</div></p></table>a", [": a"]),
        # the page itself
        ("<html><head><title>t</title></head><body>a</body></html>b", [": ab"]),
        ("<frameset>x</frameset>a<noscript>b</noscript>", [": a", "noscript: b"]),
    ],
)  # fmt: skip
def test_where_text_stands(source, expected):
    assert paths(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<a href=/>aé</a>b", (3, 1)),
        ("<a href=/>a <b>b</b></a> c", (3, 1)),
        ("<a>a</a>b", (0, 0)),
        ("<a name=x>a</a>", (0, 0)),
        ("<a HREF>a</a>", (1, 1)),
        ("<a href=/><span>a</span></a>", (1, 1)),
        ("<a href=/>a<a href=/>b", (2, 2)),  # the second ends the first
        ("<a href=/>a</a><a href=/>b</a>", (2, 2)),
        ("<span href=/>a</span>", (0, 0)),
    ],
)
def test_links(source, expected):
    ((_, _, _, _, *found),) = parsed(source).blocks.tolist()
    assert tuple(found[:2]) == expected


def test_the_end_of_a_link_ends_it_inside_blocks_too():
    """`</a>` in a block of the link: by the standard all that follows is outside of it."""
    found = parsed("<a href=/>one<div>two</a>three</div><p>four")
    assert texts_of(found) == ["one", "twothree", "four"]
    assert found.blocks[:, BLOCK_LINK_BYTES].tolist() == [3, 3, 0]
    is_link = found.nodes[:, NODE_FLAGS] & (LINK | IN_LINK)
    assert is_link.astype(bool).tolist() == [False, True, True, False]


def test_images_are_counted():
    assert parsed("<p><img>a<img><b><img></b><p>b").blocks[:, BLOCK_IMAGES].tolist() == [3, 0]


def test_the_title_is_the_first_one():
    page = b"<svg></svg><title>One &amp; two</title><title>Three</title><p>x"
    start, end = parsed(page).title
    assert page[start:end] == b"One &amp; two"
    assert parsed(b"<p>x").title == (0, 0)


@pytest.mark.parametrize(
    ("attributes", "is_hidden"),
    [
        ("hidden", True),
        ("HIDDEN=''", True),
        ("style='color:red; Display : None'", True),
        ("style=display:none!important", True),
        ("style='display:block'", False),
        ("aria-hidden=true", True),
        ("aria-hidden='false'", False),
        ("data-hidden", False),
        ("title='display:none'", False),
        ("hiddenx", False),
    ],
)
def test_hidden_elements(attributes, is_hidden):
    found = parsed(f"<div {attributes}><p>x")
    assert (found.nodes[1:, NODE_FLAGS] & HIDDEN != 0).tolist() == [is_hidden, False]


@pytest.mark.parametrize(
    ("attributes", "kinds"),
    [
        ("class=nav", {"navigation"}),
        ("id='main-Menu'", {"navigation", "main"}),
        ("role=banner", {"header"}),
        ("itemprop=author", {"byline"}),
        ("class='top-ad'", {"advertisement"}),
        ("class=topAd", {"advertisement"}),  # camel case begins a word
        ("class='ad ad2'", {"advertisement"}),
        ("class=header", {"header"}),  # but no "ad"
        ("class='comment--list'", {"comment", "blog_comments", "list"}),
        ("title=nav data-class=nav", set()),
        ("class='post hasComments'", {"article", "commented"}),
        ("class='no-comments x' id=primary", {"main", "commented"}),
        ("class=comments id=commentary-box", {"commented"}),
        ("class=comments", {"comment"}),
        ("CLASS=SIDEBAR", {"sidebar"}),
        ("class='x' class='nav'", {"navigation"}),
        ("class=''", set()),
        ("class", set()),
    ],
)
def test_kinds_of_names(attributes, kinds):
    assert names_of(attributes) == kinds


def test_names_of_inline_elements_do_not_count_and_those_of_body_are_the_pages():
    assert parsed("<b class=nav>x").names.tolist() == [0]
    bit = 1 << list(KINDS_OF_NAMES).index("forum")
    assert parsed("<html><body class=forum><p>x").names.tolist() == [bit, 0]


@pytest.mark.parametrize(
    ("page", "kinds"),
    [
        ("<meta property='og:type' content='article'>", {"article"}),
        ("<meta content='article' data-x property='og:type' />", {"article"}),
        ("<meta content='WordPress 6.1' name=generator>", {"blog_software"}),
        ("<meta name=generator content='WordPress 6.1'>", {"blog_software"}),
        ("<meta name=keywords content='wordpress phpbb'>", set()),
        ('<script type="application/ld+json">{"@type": "NewsArticle"}</script>', {"news_article"}),
        ('<script>{"@type": "NewsArticle"}</script>', set()),
        ("<p>og:type article", set()),
    ],
)
def test_kinds_of_pages(page, kinds):
    assert page_kinds_of(page) == kinds


def test_shapes_are_of_tag_and_class_without_digits():
    shapes = parsed(
        "<p class=a1><p class=a22><p class=b1><div class=a1><p id=a><p>".replace("><", ">x<")
    ).shapes.tolist()[1:]
    assert shapes[0] == shapes[1]
    assert shapes[4] == shapes[5]
    assert len(set(shapes)) == 4


def test_what_stands_deeper_than_the_stack_keeps_its_text():
    page = "<div>" * (MAX_DEPTH + 100) + "a<p>b</p>c"
    found = parsed(page)
    assert texts_of(found) == ["a", "b", "c"]
    assert len(found.nodes) == MAX_DEPTH
    check(page.encode())


# --- bytes of any kind ---------------------------------------------------------------------------


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc2")
@example(b"\xc2\xa0")
@example(b"\xc2<\xa0>")
@example(b"<p>\xf0\x9f\x98<br>\x80")
def test_any_bytes(page):
    check(page)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=40).map("".join))
def test_any_soup_of_tags(page):
    check(page.encode("utf-8", "replace"))


def test_references_fill_no_more_than_the_text_has_room_for():
    for part in ("&nGt;", "&nGt ", " &nGt;", "&lt", "&#0", "&#9", "<br>", "<pre><br>", "< ", "&"):
        check(part.encode() * 1000)
        check(b"<pre>" + part.encode() * 1000)


def test_mutations_of_real_pages(demo):
    rng = random.Random(1)
    for page in rng.sample(demo, 120):
        mutated = bytearray(page[:30_000])
        for _ in range(rng.randrange(1, 30)):
            at = rng.randrange(len(mutated) + 1)
            what = rng.randrange(4)
            if what == 0:
                mutated[at : at + 1] = bytes([rng.randrange(256)])
            elif what == 1:
                mutated[at:at] = rng.choice(PARTS).encode()
            elif what == 2:
                del mutated[at : at + rng.randrange(200)]
            else:
                other = rng.choice(demo)
                start = rng.randrange(len(other))
                mutated[at:at] = other[start : start + rng.randrange(500)]
        check(bytes(mutated))


def test_a_page_cut_off_anywhere(demo):
    page = min(demo, key=len)
    for end in range(0, len(page), 7):
        check(page[:end])


def test_a_page_gives_the_same_after_any_other(demo):
    def contents(found: Blocks) -> list[object]:
        return [part.tobytes() if isinstance(part, np.ndarray) else part for part in found]

    before = [contents(parsed(page)) for page in demo[:30]]
    assert [contents(parsed(page)) for page in reversed(demo[:30])] == before[::-1]
