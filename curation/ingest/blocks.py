"""HTML -> blocks of text: what a reader would see as one piece, and where in the page it stands.

One pass over the UTF-8 bytes of a page, which reads tags as the HTML standard says and keeps a
stack of open elements. It builds no tree and raises for no page: an end tag without its start tag
does nothing, a start tag that implies an end (`p`, `li`, `td` and their like) makes it. Left out:
scripts, styles, form controls but buttons, drawings, embedded objects and what stands in for them.

A block is a maximal piece of text without the start or end of a block element, or a line of one
that `br` breaks, or a whole `pre`. White space is collapsed but in `pre`; character references are
resolved. Elements that can hold blocks are nodes, each with its tag, the kinds of names in its
class, id and role (see KINDS_OF_NAMES), and its parent.
"""

import html.entities
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from curation.hashing import FNV_OFFSET, FNV_PRIME
from curation.ingest.keywords import automaton

UInt8Array = npt.NDArray[np.uint8]
UInt64Array = npt.NDArray[np.uint64]
Int16Array = npt.NDArray[np.int16]
Int32Array = npt.NDArray[np.int32]

(TAB, LINE_END, RETURN, SPACE, BANG, QUOTE, AMPERSAND, APOSTROPHE, DASH, SLASH, LESS, EQUALS) = (
    b"\t\n\r !\"&'-/<="
)
GREATER, QUESTION = b">?"
LETTER_A, LETTER_C, LETTER_H, LETTER_I, LETTER_R, LETTER_S = b"achirs"  # of attributes
NO_BREAK_SPACE, NO_BREAK_LEAD = 0xA0, 0xC2  # U+00A0 is C2 A0 in UTF-8

# What a tag is to the parser. INLINE has no node and does nothing; SPAN is a node that breaks no
# line; BLOCK breaks lines; DROPPED is left out with all it holds; RAW holds no tags.
INLINE, SPAN, BLOCK, DROPPED, RAW, VOID, IGNORED, BREAK = range(8)
TAG_KINDS = {
    INLINE: "b i em strong font u s small big sub sup code tt kbd samp var cite abbr acronym q "
    "mark bdi bdo ins del dfn time ruby rb rt rtc rp nobr strike data blink",
    SPAN: "span a label foreignobject desc annotation-xml",
    BLOCK: "address article aside blockquote button caption center dd details dialog dir div dl dt "
    "fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup legend li listing main "
    "menu nav noscript ol p pre search section summary table tbody td tfoot th thead tr ul",
    DROPPED: "select datalist svg object audio video canvas template map applet "
    "frameset math progress meter",
    RAW: "script style textarea title xmp iframe noembed noframes",
    VOID: "area base basefont bgsound col embed frame image img input keygen link param "
    "source track wbr",
    IGNORED: "html body head meta colgroup optgroup option",
    BREAK: "br hr",
}
TAGS = [name for names in TAG_KINDS.values() for name in names.split()]
UNKNOWN = 0  # of no element that HTML knows: a node that breaks no line
TAG_IDS = {name: i + 1 for i, name in enumerate(TAGS)}
KIND_OF_TAG = np.array(
    [SPAN, *(kind for kind, names in TAG_KINDS.items() for _ in names.split())], np.uint8
)

# Kinds of names that authors give to elements, one bit each, with the words that tell them. A word
# is looked for anywhere in class, id, role and itemprop; "|" is where a name or a part of it
# begins or ends: "|ad|" is in "top-ad" and "topAd", not in "header".
KINDS_OF_NAMES: dict[str, str] = {
    "navigation": "nav menu",
    "breadcrumb": "breadcrumb |crumb",
    "header": "header masthead topbar |banner",
    "footer": "footer |foot| bottom colophon",
    "sidebar": "sidebar aside |rail| |side| secondary widget complementary rightcol leftcol",
    "comment": "comment disqus |reply replies respond",
    "share": "share sharing social facebook twitter addthis",
    "related": "related recommend similar suggest |also| trending popular |hot| latest recent "
    "|more|",
    "advertisement": "|ad| |ads| advert sponsor promo taboola outbrain |adv dfp",
    "byline": "byline author dateline timestamp |date| |time| posted published |meta| postmeta",
    "tags": "|tag| |tags| categor topic keyword",
    "caption": "caption credit figure",
    "gallery": "gallery carousel slider slideshow swiper slick",
    "popup": "modal popup overlay cookie consent gdpr lightbox newsletter subscri |toast dialog",
    "login": "login signin register account signup |auth|",
    "search": "search",
    "form": "|form input field captcha",
    "pager": "pager paginat |prev| |next| |pages|",
    "content": "content |body| |text| richtext |rte| |prose| markdown wysiwyg",
    "article": "article |post| |story| |entry| blogpost postbody storybody |blog|",
    "main": "|main primary",
    "legal": "copyright legal disclaimer terms |license",
    "button": "|btn button |cta|",
    "list": "|list| listing |item| |items| |grid| |result",
    "card": "card teaser |tile| thumb excerpt preview",
    "product": "product price |cart| |sku| |shop |buy |offer",
    "review": "review rating |stars",
    "forum": "forum |message |msg| discussion answer question |qa| bbs threads threadtitle",
    "thread": "|thread|",
    "blog_comments": "commentlist |comment|list |comments|list |comments|area |comment|respond "
    "|comment|author |comment|content |comment|body |comment|meta |thread|even |thread|odd "
    "|thread|alt comments|wrap |comments|section",
    "user": "avatar profile |user| username signature |sig| member |nick",
    "description": "descri |spec| |specs| specification attribute feature |details|",
    "code": "code highlight syntax |hljs |src| terminal",
    "title": "title headline heading |hd|",
    "toc": "|toc| tableofcontents |contents| table-of-contents",
    "hidden": "hidden |hide| sr-only visually screen-reader noprint |invisible",
    "toolbar": "tool action controls |bar| |icon",
    "notice": "notice alert warning |info| infobox |note| |tip|",
    "biography": "|bio| biography about",
    "lead": "|lead| intro standfirst |deck| subtitle subhead |dek| summary abstract lede",
    "quote": "quote |pull",
    "hero": "hero jumbotron",
    "layout": "section |col| column |row| container wrapper inner |block",
    "counts": "views likes |votes |vote| |stats| |count counter",
    "faq": "|faq accordion collapse |tab| |tabs| |panel",
    "event": "event schedule calendar",
    "language": "|lang| language translat locale",
    "brand": "logo |brand",
    "download": "download attachment |file",
    "map": "|map| location address contact",
    "table": "|table| |data| |wikitable",
    "reference": "reference footnote citation biblio",
    "commented": "|has|comment |no|comment |with|comment |commentary",
}
NAMES = automaton(KINDS_OF_NAMES, boundaries=True)
# What is named `commented` holds a text on which there are comments, or none: it is no comment.
COMMENT_NAME, COMMENTED_NAME = (
    np.uint64(1 << list(KINDS_OF_NAMES).index(kind)) for kind in ("comment", "commented")
)
# Kinds of pages that a page states of itself: in <meta> as og:type or generator, in JSON-LD.
KINDS_OF_PAGES: dict[str, str] = {
    "article": "|og|type|content|article |og|type|content|blog",
    "product": "|og|type|content|product |og|type|content|og|product |type|product",
    "website": "|og|type|content|website",
    "news_article": "|type|news|article |type|report|news |type|analysis|news",
    "plain_article": "|type|article |type|tech|article",
    "blog_posting": "|type|blog|posting",
    "forum_posting": "|type|discussion|forum|posting |type|qapage |type|question",
    "item_list": "|type|item|list |type|collection|page |type|search|results",
    "faq_page": "|type|faqpage",
    "organization": "|type|organization |type|local|business",
    "event": "|type|event",
    "video": "|type|video|object |og|type|content|video",
    "forum_software": "vbulletin phpbb xenforo discourse mybb smf vanilla discuz invision",
    "blog_software": "|generator|content|word|press ghost blogger typepad hexo |jekyll",
    "wiki_software": "media|wiki dokuwiki docusaurus sphinx mkdocs gitbook doxygen hugo",
    "shop_software": "shopify woo|commerce magento prestashop opencart",
}
PAGE_NAMES = automaton(KINDS_OF_PAGES, boundaries=True)

# Of nodes.
LINK, HIDDEN, IN_DROPPED, IN_LINK, IN_PRE = 1, 2, 4, 8, 16
SELF_CLOSING = 32  # of tags
# Of blocks: begins after <br>; white space is as it stands; begins after two <br> and more.
BROKEN, VERBATIM, APART = 1, 2, 4

MAX_DEPTH = 512  # what is opened deeper has no node of its own
TAG_TABLE, REFERENCE_TABLE = 1 << 10, 1 << 13  # slots; some eighth is full

NODE_PARENT, NODE_TAG, NODE_FLAGS, NODE_DEPTH = range(4)
NODE_FIELDS = 4
(BLOCK_START, BLOCK_END, BLOCK_NODE, BLOCK_FLAGS, BLOCK_LINK_BYTES, BLOCK_LINKS, BLOCK_IMAGES) = (
    range(7)
)
BLOCK_FIELDS = 7


class Blocks(NamedTuple):
    """What a page holds.

    text: UTF-8 bytes of all blocks; blocks: int32 (num_blocks, BLOCK_FIELDS), their places in text,
    innermost node and flags; nodes: int32 (num_nodes, NODE_FIELDS), parents before children, node 0
    is the page; names: uint64, the kinds of names of each node; shapes: uint64, a hash of tag and
    class of each node; title: place of <title> in the page; page_kinds: bits of KINDS_OF_PAGES;
    has_formulas: whether there are elements that `formulas.tex` may make TeX of.
    """

    text: UInt8Array
    blocks: Int32Array
    nodes: Int32Array
    names: UInt64Array
    shapes: UInt64Array
    title: tuple[int, int]
    page_kinds: int
    has_formulas: bool


def parse(page: UInt8Array) -> Blocks:
    """Return the blocks of a page given as UTF-8. Linear in its length, about 400 MB/s."""
    num_tags = int(np.count_nonzero(page == ord("<"))) + 1
    text = np.empty(2 * len(page) + 16, np.uint8)
    blocks = np.empty((2 * num_tags + 1, BLOCK_FIELDS), np.int32)
    nodes = np.empty((num_tags + 1, NODE_FIELDS), np.int32)
    names = np.empty(num_tags + 1, np.uint64)
    shapes = np.empty(num_tags + 1, np.uint64)
    num_bytes, num_blocks, num_nodes, title_start, title_end, page_kinds, has_formulas = _parse(
        page, text, blocks, nodes, names, shapes, KIND_OF_TAG, TAG_SLOTS, TAG_OF_SLOT,
        REFERENCE_SLOTS, REFERENCE_VALUES, *NAMES, *PAGE_NAMES,
    )  # fmt: skip
    return Blocks(
        text[:num_bytes],
        blocks[:num_blocks],
        nodes[:num_nodes],
        names[:num_nodes],
        shapes[:num_nodes],
        (title_start, title_end),
        page_kinds,
        has_formulas,
    )


def _hash(name: bytes) -> int:
    found = int(FNV_OFFSET)
    for byte in name:
        found = ((found ^ byte) * int(FNV_PRIME)) & (2**64 - 1)
    return found


def _slots(values: dict[bytes, int], num_slots: int) -> tuple[UInt64Array, Int32Array]:
    """Return an open hash table: hashes, 0 where free, and the value of each."""
    hashes = np.zeros(num_slots, np.uint64)
    found = np.zeros(num_slots, np.int32)
    for name, value in values.items():
        key = _hash(name)
        at = key % num_slots
        while hashes[at]:
            at = (at + 1) % num_slots
        hashes[at], found[at] = key, value
    return hashes, found


TAG_SLOTS, TAG_OF_SLOT = _slots({name.encode(): i for name, i in TAG_IDS.items()}, TAG_TABLE)
# Named character references as HTML 5 lists them, with ";" where it belongs to the name; a value
# is a row of code points.
_NAMES = {name.encode(): i for i, name in enumerate(sorted(html.entities.html5))}
REFERENCE_SLOTS, _ROWS = _slots(_NAMES, REFERENCE_TABLE)
_VALUES = [html.entities.html5[name] for name in sorted(html.entities.html5)]
REFERENCE_VALUES = np.array(
    [[ord(_VALUES[row][0]), ord(_VALUES[row][1]) if len(_VALUES[row]) > 1 else 0] for row in _ROWS],
    np.int32,
)
MAX_REFERENCE = max(map(len, _NAMES))
# Numeric references to these mean what Windows-1252 has there (HTML standard, 13.2.5.80).
_C1 = bytes(range(0x80, 0xA0)).decode("cp1252", "replace")
WINDOWS_1252 = np.array(
    [0x80 + i if c == "\ufffd" else ord(c) for i, c in enumerate(_C1)], np.int32
)

A, P, LI, DD, DT, PRE, LISTING = (
    TAG_IDS[n] for n in ("a", "p", "li", "dd", "dt", "pre", "listing")
)
TD, TH, TR, TABLE, DIV, ADDRESS = (
    TAG_IDS[n] for n in ("td", "th", "tr", "table", "div", "address")
)
BR, IMG, META, TITLE, SCRIPT = (TAG_IDS[n] for n in ("br", "img", "meta", "title", "script"))
H1, H6, UL, OL = (TAG_IDS[n] for n in ("h1", "h6", "ul", "ol"))
SPAN_TAG, SVG, MATH = (TAG_IDS[n] for n in ("span", "svg", "math"))
# Start tags that end an open <p> (HTML standard, 13.2.6.4.7).
ENDS_P = np.zeros(len(TAGS) + 1, np.bool_)
_ENDING_P = (
    "address article aside blockquote center details dialog dir div dl fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup hr li dd dt listing main menu nav ol p pre search "
    "section summary table ul"
)
for _name in _ENDING_P.split():
    ENDS_P[TAG_IDS[_name]] = True
# What stands in these ends nothing around them (HTML standard, 13.2.4.2: "in scope").
IS_BOUND = np.zeros(len(TAGS) + 1, np.bool_)
for _name in ("applet", "object", "template"):
    IS_BOUND[TAG_IDS[_name]] = True
# Elements that are left out, or in drawings and formulas, in which HTML is just that.
HOLDS_HTML = np.zeros(len(TAGS) + 1, np.bool_)
for _name in (*TAG_KINDS[DROPPED].split(), "foreignobject", "desc", "annotation-xml"):
    HOLDS_HTML[TAG_IDS[_name]] = _name not in ("svg", "math")
TABLE_RANK = np.zeros(len(TAGS) + 1, np.int32)
for _rank, _names in enumerate(("td th caption", "tr", "tbody thead tfoot", "table"), 1):
    for _name in _names.split():
        TABLE_RANK[TAG_IDS[_name]] = _rank
IN_TABLE = TABLE_RANK > 0


@njit(cache=True, nogil=True, inline="always")
def block_element(nodes: Int32Array, node: Any) -> Any:
    """Return the innermost block element that holds a node or is it; 0 is the page."""
    while node > 0 and KIND_OF_TAG[nodes[node, NODE_TAG]] != BLOCK:
        node = nodes[node, NODE_PARENT]
    return node


@njit(cache=True, nogil=True, inline="always")
def _is_space(byte: int) -> bool:
    return byte == 32 or 9 <= byte <= 13


@njit(cache=True, nogil=True, inline="always")
def _is_letter(byte: Any) -> Any:
    return 97 <= (byte | 32) <= 122


@njit(cache=True, nogil=True)
def _put(text: UInt8Array, at: int, code_point: Any) -> Any:
    """Write a character as UTF-8; return where the next one goes."""
    if code_point < 0x80:
        text[at] = code_point
        return at + 1
    if code_point < 0x800:
        text[at] = 0xC0 | (code_point >> 6)
        text[at + 1] = 0x80 | (code_point & 0x3F)
        return at + 2
    if code_point < 0x10000:
        text[at] = 0xE0 | (code_point >> 12)
        text[at + 1] = 0x80 | ((code_point >> 6) & 0x3F)
        text[at + 2] = 0x80 | (code_point & 0x3F)
        return at + 3
    text[at] = 0xF0 | (code_point >> 18)
    text[at + 1] = 0x80 | ((code_point >> 12) & 0x3F)
    text[at + 2] = 0x80 | ((code_point >> 6) & 0x3F)
    text[at + 3] = 0x80 | (code_point & 0x3F)
    return at + 4


@njit(cache=True, nogil=True)
def _reference(page: UInt8Array, i: int, slots: UInt64Array, values: npt.NDArray[np.int32]) -> Any:
    """Return the one or two code points of the reference at "&", and where it ends.

    The first is 0 where "&" is just a character.
    """
    end = len(page)
    j = i + 1
    value: Any
    if j < end and page[j] == 35:  # "#"
        j += 1
        base = 10
        if j < end and page[j] | 32 == 120:
            base = 16
            j += 1
        first = j
        value = 0
        while j < end:
            byte = np.int64(page[j])
            if 48 <= byte <= 57:
                digit = byte - 48
            elif base == 16 and 97 <= (byte | 32) <= 102:
                digit = (byte | 32) - 87
            else:
                break
            value = min(value * base + digit, 0x110000)
            j += 1
        if j == first:
            return 0, 0, i + 1
        if j < end and page[j] == 59:
            j += 1
        if 0x80 <= value < 0xA0:
            value = np.int64(WINDOWS_1252[value - 0x80])
        if value == 0 or value > 0x10FFFF or 0xD800 <= value < 0xE000:
            value = 0xFFFD
        return value, 0, j
    # the longest name that the page has here; without ";" only some are names
    found_at: Any = -1
    found_end = i + 1
    key: Any = FNV_OFFSET
    while j < end and j - i <= MAX_REFERENCE:
        byte = np.int64(page[j])
        if not (_is_letter(byte) or 48 <= byte <= 57 or byte == 59):
            break
        key = (key ^ np.uint64(byte)) * FNV_PRIME
        j += 1
        if j - i > 2:
            at = np.int64(key % np.uint64(REFERENCE_TABLE))
            while slots[at] != 0 and slots[at] != key:
                at = (at + 1) % REFERENCE_TABLE
            if slots[at] == key:
                found_at, found_end = at, j
        if byte == 59:
            break
    if found_at < 0:
        return 0, 0, i + 1
    return np.int64(values[found_at, 0]), np.int64(values[found_at, 1]), found_end


@njit(cache=True, nogil=True)
def _find_end(page: UInt8Array, i: int, name_start: int, name_end: int) -> int:
    """Return where the end tag of a raw element begins, whose name stands at name_start."""
    end = len(page)
    size = name_end - name_start
    while i < end - 1:
        if page[i] == 60 and page[i + 1] == 47 and i + 2 + size <= end:
            k = 0
            while k < size and page[i + 2 + k] | 32 == page[name_start + k] | 32:
                k += 1
            if k == size:
                after = page[i + 2 + size] if i + 2 + size < end else 62
                if _is_space(after) or after == 62 or after == 47:
                    return i
        i += 1
    return end


@njit(cache=True, nogil=True)
def _scan_names(
    page: UInt8Array,
    start: int,
    end: int,
    next_state: Int16Array,
    symbols: UInt8Array,
    outputs: UInt64Array,
) -> Any:
    """Return the kinds of names in an attribute's value."""
    found = np.uint64(0)
    state = np.int64(next_state[0, 0])
    was_lower = False
    was_other = True
    for i in range(start, end):
        byte = page[i]
        symbol = symbols[byte]
        if was_lower and 65 <= byte <= 90:  # camelCase
            state = np.int64(next_state[state, 0])
            found |= outputs[state]
        was_lower = 97 <= byte <= 122
        if symbol == 0 and was_other:
            continue
        was_other = symbol == 0
        state = np.int64(next_state[state, symbol])
        found |= outputs[state]
    state = np.int64(next_state[state, 0])
    return found | outputs[state]


@njit(cache=True, nogil=True)
def _is_name(page: UInt8Array, start: int, end: int, name: bytes) -> bool:
    if end - start != len(name):
        return False
    for k in range(len(name)):
        if page[start + k] | 32 != name[k]:
            return False
    return True


@njit(cache=True, nogil=True)
def _has(page: UInt8Array, start: int, end: int, word: bytes) -> bool:
    """Return whether a word stands in a value, white space left out."""
    return _find_word(page, start, end, word) >= 0


@njit(cache=True, nogil=True)
def _find_word(page: UInt8Array, start: int, end: int, word: bytes) -> int:
    """Return where a word begins in a value, white space left out, or -1."""
    k = 0
    found = -1
    for i in range(start, end):
        byte = page[i]
        if _is_space(byte):
            continue
        if byte | 32 != word[k] | 32:
            k = 0
            if byte | 32 != word[0] | 32:
                continue
        if k == 0:
            found = i
        k += 1
        if k == len(word):
            return found
    return -1


@njit(cache=True, nogil=True)
def _parse(
    page: UInt8Array,
    text: UInt8Array,
    blocks: Int32Array,
    nodes: Int32Array,
    names: UInt64Array,
    shapes: UInt64Array,
    kind_of_tag: UInt8Array,
    tag_slots: UInt64Array,
    tag_of_slot: Int32Array,
    slots: UInt64Array,
    values: Int32Array,
    next_state: Int16Array,
    symbols: UInt8Array,
    outputs: UInt64Array,
    page_next_state: Int16Array,
    page_symbols: UInt8Array,
    page_outputs: UInt64Array,
) -> Any:
    """Fill text, blocks, nodes, names and shapes.

    Return how many bytes, blocks and nodes there are, where the title stands, what kinds of page it
    is, and whether there are formulas.
    """
    end = len(page)
    at = num_blocks = title_start = title_end = 0
    page_kinds = np.uint64(0)
    has_formulas = False
    # The open elements: their tags, nodes, and flags, which but for LINK and HIDDEN hold for what
    # is inside too.
    tags = np.zeros(MAX_DEPTH, np.int32)
    node_of = np.zeros(MAX_DEPTH, np.int32)
    flags_of = np.zeros(MAX_DEPTH, np.int32)
    depth = 1
    nodes[0] = 0
    nodes[0, NODE_PARENT] = -1
    names[0] = 0
    shapes[0] = FNV_OFFSET
    num_nodes = 1
    block = np.zeros(BLOCK_FIELDS, np.int32)  # the one that is being read
    space = False  # white space was read and not written yet
    i = 0
    while i < end:
        flags = flags_of[depth - 1]
        if page[i] != LESS:
            if flags & IN_DROPPED:
                while i < end and page[i] != LESS:
                    i += 1
                continue
            before = at
            of_pre = tags[depth - 1] == PRE or tags[depth - 1] == LISTING
            if of_pre and at == block[BLOCK_START] and i > 0 and page[i - 1] == GREATER:
                i = _after_line_end(page, i)
            i, at, space = _read_text(
                page, i, text, at, block[BLOCK_START], space, flags & IN_PRE != 0, slots, values
            )
            if at > before:
                if before == block[BLOCK_START]:
                    _begin(block, node_of[depth - 1], flags)
                if flags & IN_LINK:
                    block[BLOCK_LINK_BYTES] += at - before
            continue
        after = page[i + 1] if i + 1 < end else SPACE
        closing = after == SLASH
        if closing:
            is_tag = i + 2 < end and _is_letter(page[i + 2])
        else:
            is_tag = _is_letter(after)
        if not is_tag:
            if closing or after == BANG or after == QUESTION:
                i = _after_comment(page, i)
                continue
            i += 1
            if not flags & IN_DROPPED:  # just a character
                if at == block[BLOCK_START]:
                    _begin(block, node_of[depth - 1], flags)
                elif space:
                    text[at] = SPACE
                    at += 1
                space = False
                text[at] = LESS
                at += 1
            continue

        name_start = i + 2 if closing else i + 1
        name_end, tag = _read_name(page, name_start, tag_slots, tag_of_slot)
        kind = kind_of_tag[tag]
        i, own, mask, shape = _read_attributes(
            page, name_end, not closing and kind != INLINE, next_state, symbols, outputs
        )
        if i > end:
            break  # a tag that the end of the page cuts off is none
        if kind == INLINE or kind == VOID:
            if tag == IMG:
                block[BLOCK_IMAGES] += 1
                has_formulas |= _has(page, name_end, i, b"latex")
                has_formulas |= _has(page, name_end, i, b'class="tex"')
            continue
        if kind == IGNORED:
            names[0] |= mask
            if tag == META:
                start = max(
                    _find_word(page, name_end, i, b"og:type"),
                    _find_word(page, name_end, i, b"generator"),
                )
                if start >= 0:  # what the value is of may stand behind it
                    turned = np.concatenate((page[start:i], page[name_end:start]))
                    page_kinds |= _scan_names(
                        turned, 0, len(turned), page_next_state, page_symbols, page_outputs
                    )
            continue
        if kind == RAW:
            if closing:
                continue
            has_formulas |= tag == SCRIPT and _has(page, name_end, i, b"math/tex")
            close = _find_end(page, i, name_start, name_end)
            if close == end and own & SELF_CLOSING:
                continue  # XHTML: else all that follows would belong to it
            if tag == TITLE and title_end == 0 and not flags & IN_DROPPED:  # of a drawing
                title_start, title_end = i, close
            elif tag == SCRIPT and _has(page, name_end, i, b"ld+json"):
                page_kinds |= _scan_names(
                    page, i, close, page_next_state, page_symbols, page_outputs
                )
            i = close
            continue
        if kind == BREAK and flags & IN_PRE and tag == BR and not flags & IN_DROPPED:
            if at == block[BLOCK_START]:
                _begin(block, node_of[depth - 1], flags)
            text[at] = LINE_END
            at += 1
            continue
        has_formulas |= tag == MATH
        if kind == BREAK:
            if not flags & IN_DROPPED:
                num_blocks = _end_block(block, at, blocks, num_blocks, tag == BR)
                space = False
            continue
        if closing:
            depth = _depth_after_end(tag, kind, tags, flags_of, depth, kind_of_tag)
        else:
            if flags & IN_DROPPED:
                depth = _depth_outside_drawing(tag, tags, depth, kind_of_tag)
            depth = _depth_before_start(tag, tags, depth, kind_of_tag)
        if kind == BLOCK and not flags & flags_of[depth - 1] & IN_DROPPED:
            num_blocks = _end_block(block, at, blocks, num_blocks, False)
            space = False
        if closing:
            continue
        if depth >= MAX_DEPTH or (own & SELF_CLOSING and (tag == UNKNOWN or kind == DROPPED)):
            continue
        flags = flags_of[depth - 1] & ~(LINK | HIDDEN)
        own &= HIDDEN | LINK
        if tag != A:
            own &= HIDDEN
        elif own & LINK:
            if not flags & IN_LINK:
                block[BLOCK_LINKS] += 1
            flags |= IN_LINK
        if kind == DROPPED:
            flags |= IN_DROPPED
        if tag == PRE or tag == LISTING:
            flags |= IN_PRE
        parent = node_of[depth - 1]
        nodes[num_nodes, NODE_PARENT] = parent
        nodes[num_nodes, NODE_TAG] = tag
        nodes[num_nodes, NODE_FLAGS] = own | flags
        nodes[num_nodes, NODE_DEPTH] = nodes[parent, NODE_DEPTH] + 1
        names[num_nodes] = mask
        shapes[num_nodes] = (shape ^ np.uint64(tag)) * FNV_PRIME
        tags[depth] = tag
        node_of[depth] = num_nodes
        flags_of[depth] = flags | own
        num_nodes += 1
        depth += 1
    num_blocks = _end_block(block, at, blocks, num_blocks, False)
    return at, num_blocks, num_nodes, title_start, title_end, page_kinds, has_formulas


@njit(cache=True, nogil=True)
def _begin(block: Int32Array, node: int, flags: int) -> None:
    block[BLOCK_NODE] = node
    if flags & IN_PRE:
        block[BLOCK_FLAGS] |= VERBATIM


@njit(cache=True, nogil=True)
def _end_block(
    block: Int32Array, at: int, blocks: Int32Array, num_blocks: int, is_broken: bool
) -> int:
    """Write the block that ends here, if it has text, and begin the next one."""
    if at > block[BLOCK_START]:
        block[BLOCK_END] = at
        blocks[num_blocks] = block
        num_blocks += 1
        block[:] = 0
        block[BLOCK_START] = at
        block[BLOCK_FLAGS] = BROKEN if is_broken else 0
    elif not is_broken:
        block[BLOCK_FLAGS] = 0
    elif block[BLOCK_FLAGS] & BROKEN:
        block[BLOCK_FLAGS] |= APART
    return num_blocks


@njit(cache=True, nogil=True)
def _after_line_end(page: UInt8Array, i: int) -> int:
    """Return where the text of a `pre` begins: behind its first line end, if it begins with one."""
    if page[i] == RETURN and i + 1 < len(page) and page[i + 1] == LINE_END:
        return i + 2
    return i + 1 if page[i] == LINE_END else i


@njit(cache=True, nogil=True)
def _read_text(
    page: UInt8Array,
    i: int,
    text: UInt8Array,
    at: int,
    start: int,
    space: bool,
    is_pre: bool,
    slots: UInt64Array,
    values: Int32Array,
) -> Any:
    """Copy text up to the next "<"; return where it ends on both sides, and the space to come."""
    end = len(page)
    while i < end and page[i] != LESS:
        byte: Any = page[i]
        if not space and byte > AMPERSAND and byte != NO_BREAK_LEAD:  # nearly all
            text[at] = byte
            at += 1
            i += 1
            continue
        first: Any = np.int64(0)
        second: Any = np.int64(0)
        if byte == AMPERSAND:
            first, second, i = _reference(page, i, slots, values)
            if first == NO_BREAK_SPACE:
                first = np.int64(SPACE)
            is_space = first == SPACE or TAB <= first <= RETURN
        elif byte == NO_BREAK_LEAD and i + 1 < end and page[i + 1] == NO_BREAK_SPACE:
            i += 2
            first = np.int64(SPACE)
            is_space = True
        else:
            i += 1
            is_space = _is_space(byte)
        if is_space and not is_pre:
            space = True
            continue
        if is_pre and byte == RETURN:  # a line ends with \r, \n or both
            if i < end and page[i] == LINE_END:
                continue
            byte = np.uint8(LINE_END)
        if space and at > start:
            text[at] = SPACE
            at += 1
        space = False
        if first:
            at = _put(text, at, first)
            if second:
                at = _put(text, at, second)
        else:
            text[at] = byte
            at += 1
    return i, at, space


@njit(cache=True, nogil=True)
def _after_comment(page: UInt8Array, i: int) -> int:
    """Return where the comment, declaration or the like at "<" ends."""
    end = len(page)
    if i + 3 < end and page[i + 1] == BANG and page[i + 2] == DASH and page[i + 3] == DASH:
        i += 4
        start = i
        num_dashes = 2  # "<!-->" is one
        while i < end:
            byte = page[i]
            if byte == GREATER and num_dashes >= 2:
                break
            if byte == DASH:
                num_dashes += 1
            elif byte != BANG or num_dashes < 2 or i < start + 2:  # "--!>" ends one too
                num_dashes = 0
            i += 1
        return i + 1
    while i < end and page[i] != GREATER:
        i += 1
    return i + 1


@njit(cache=True, nogil=True)
def _read_name(page: UInt8Array, i: int, tag_slots: UInt64Array, tag_of_slot: Int32Array) -> Any:
    """Return where the name of a tag ends, and which it is."""
    end = len(page)
    key = FNV_OFFSET
    while i < end and not (_is_space(page[i]) or page[i] == GREATER or page[i] == SLASH):
        byte = page[i]
        key = (key ^ np.uint64(byte | 32 if 65 <= byte <= 90 else byte)) * FNV_PRIME
        i += 1
    slot = np.int64(key & np.uint64(TAG_TABLE - 1))
    while tag_slots[slot] != 0 and tag_slots[slot] != key:
        slot = (slot + 1) & (TAG_TABLE - 1)
    return i, np.int64(tag_of_slot[slot]) if tag_slots[slot] == key else UNKNOWN


@njit(cache=True, nogil=True)
def _read_attributes(
    page: UInt8Array,
    i: int,
    is_wanted: bool,
    next_state: Int16Array,
    symbols: UInt8Array,
    outputs: UInt64Array,
) -> Any:
    """Read up to the end of a tag; return where that is, and what the attributes say.

    The end is behind the page where ">" is missing. What they say: HIDDEN, LINK (there is an href),
    SELF_CLOSING; the kinds of names; and a hash of the class, digits left out.
    """
    end = len(page)
    mask = np.uint64(0)
    shape = FNV_OFFSET
    flags = 0
    while i < end and page[i] != GREATER:
        byte = page[i]
        if _is_space(byte) or byte == SLASH:
            flags = flags | SELF_CLOSING if byte == SLASH else flags & ~SELF_CLOSING
            i += 1
            continue
        flags &= ~SELF_CLOSING
        name_start = i
        i += 1
        while i < end and not (
            _is_space(page[i]) or page[i] == GREATER or page[i] == SLASH or page[i] == EQUALS
        ):
            i += 1
        name_end = i
        while i < end and _is_space(page[i]):
            i += 1
        start = stop = i
        if i < end and page[i] == EQUALS:
            i += 1
            while i < end and _is_space(page[i]):
                i += 1
            if i < end and (page[i] == QUOTE or page[i] == APOSTROPHE):
                quote = page[i]
                i += 1
                start = i
                while i < end and page[i] != quote:
                    i += 1
                stop = i
                i += 1
            else:
                start = i
                while i < end and not (_is_space(page[i]) or page[i] == GREATER):
                    i += 1
                stop = i
        if not is_wanted:
            continue
        first, size = page[name_start] | 32, name_end - name_start
        if first == LETTER_C and size == 5 and _is_name(page, name_start, name_end, b"class"):
            mask |= _scan_names(page, start, stop, next_state, symbols, outputs)
            for k in range(start, stop):
                byte = page[k]
                if not 48 <= byte <= 57:
                    shape = (shape ^ np.uint64(byte)) * FNV_PRIME
        elif (first == LETTER_I or first == LETTER_R) and (
            (size == 2 and _is_name(page, name_start, name_end, b"id"))
            or (size == 4 and _is_name(page, name_start, name_end, b"role"))
            or (size == 8 and _is_name(page, name_start, name_end, b"itemprop"))
        ):
            mask |= _scan_names(page, start, stop, next_state, symbols, outputs)
        elif first == LETTER_H and size == 4 and _is_name(page, name_start, name_end, b"href"):
            flags |= LINK
        elif (
            (first == LETTER_H and size == 6 and _is_name(page, name_start, name_end, b"hidden"))
            or (
                first == LETTER_S
                and size == 5
                and _is_name(page, name_start, name_end, b"style")
                and _has(page, start, stop, b"display:none")
            )
            or (
                first == LETTER_A
                and size == 11
                and _is_name(page, name_start, name_end, b"aria-hidden")
                and _has(page, start, stop, b"true")
            )
        ):
            flags |= HIDDEN
    if mask & COMMENTED_NAME:
        mask &= ~COMMENT_NAME
    return (i if i < end else end) + 1, flags, mask, shape


@njit(cache=True, nogil=True)
def _depth_after_end(
    tag: int,
    kind: int,
    tags: Int32Array,
    flags_of: Int32Array,
    depth: int,
    kind_of_tag: UInt8Array,
) -> int:
    """Return how many elements stay open after an end tag."""
    at = depth - 1
    while at > 0 and tags[at] != tag:
        other = tags[at]
        if H1 <= tag <= H6 and H1 <= other <= H6:  # any heading ends any
            break
        if other == TABLE or ((other == TD or other == TH) and not IN_TABLE[tag]):
            return depth
        if kind == SPAN and tag != A and kind_of_tag[other] == BLOCK:
            return depth
        if tag == LI and (other == UL or other == OL):
            return depth
        at -= 1
    if at == 0:
        return depth
    if tag == A:
        for k in range(at + 1, depth):
            if kind_of_tag[tags[k]] == BLOCK:
                # what is open inside stays open, and is no link any more
                tags[at] = SPAN_TAG
                for inner in range(at, depth):
                    flags_of[inner] &= ~(IN_LINK | LINK)
                return depth
    return at


@njit(cache=True, nogil=True)
def _depth_outside_drawing(tag: int, tags: Int32Array, depth: int, kind_of_tag: UInt8Array) -> int:
    """Return how many elements stay open before a start tag in what is left out: one of HTML ends a
    drawing or formula (HTML standard, 13.2.6.5), but inside its elements for HTML."""
    if kind_of_tag[tag] != BLOCK and tag != SPAN_TAG:
        return depth
    at = depth - 1
    while at > 0 and not HOLDS_HTML[tags[at]]:
        if tags[at] == SVG or tags[at] == MATH:
            return at
        at -= 1
    return depth


@njit(cache=True, nogil=True)
def _depth_before_start(tag: int, tags: Int32Array, depth: int, kind_of_tag: UInt8Array) -> int:
    """Return how many elements stay open before a start tag, which may imply the end of others."""
    if tag == A:
        at = depth - 1
        while at > 0 and kind_of_tag[tags[at]] != BLOCK and tags[at] != A:
            at -= 1
        return at if at > 0 and tags[at] == A else depth
    if tag == LI or tag == DD or tag == DT:
        at = depth - 1
        while at > 0:
            other = tags[at]
            if (tag == LI and other == LI) or (tag != LI and (other == DD or other == DT)):
                depth = at
                break
            if IS_BOUND[other] or (
                kind_of_tag[other] == BLOCK and other != DIV and other != P and other != ADDRESS
            ):
                break
            at -= 1
    elif IN_TABLE[tag] and tag != TABLE:  # a cell ends a cell, a row a row, a section a section
        at = depth - 1
        while at > 0 and tags[at] != TABLE and not IS_BOUND[tags[at]]:
            rank = TABLE_RANK[tags[at]]
            if rank > TABLE_RANK[tag]:
                break
            if rank > 0:
                depth = at
            at -= 1
    if ENDS_P[tag]:
        at = depth - 1
        while at > 0 and kind_of_tag[tags[at]] != BLOCK and not IS_BOUND[tags[at]]:
            at -= 1
        if at > 0 and (tags[at] == P or (H1 <= tag <= H6 and H1 <= tags[at] <= H6)):
            depth = at
    return depth
