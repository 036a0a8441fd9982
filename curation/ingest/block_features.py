"""Blocks of a page -> what tells main text from the rest, one row of float32 a feature.

Every feature is a count or a quotient of counts in one fixed order, so that the same page gives the
same bits on every machine. `describe` looks at the page alone; `describe_again` at what a first
model made of it: how likely the neighbours of a block, what stands in the same element, and what is
built alike elsewhere on the page are main text.
"""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from curation.hashing import FNV_OFFSET, FNV_PRIME
from curation.ingest.blocks import (
    BLOCK_END,
    BLOCK_FLAGS,
    BLOCK_IMAGES,
    BLOCK_LINK_BYTES,
    BLOCK_LINKS,
    BLOCK_NODE,
    BLOCK_START,
    BROKEN,
    HIDDEN,
    IN_LINK,
    KINDS_OF_NAMES,
    KINDS_OF_PAGES,
    NODE_DEPTH,
    NODE_FLAGS,
    NODE_PARENT,
    NODE_TAG,
    OL,
    TAG_IDS,
    UL,
    VERBATIM,
    Blocks,
    block_element,
)
from curation.ingest.keywords import automaton
from curation.ingest.text import FOLD_BITS, KIND_AND_FOLD, MARK, SINGLE, WORD, decode

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
Int16Array = npt.NDArray[np.int16]
Int32Array = npt.NDArray[np.int32]
UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]

# Kinds of phrases in texts that are seldom, or mostly, main text.
KINDS_OF_PHRASES: dict[str, str] = {
    "copyright": "© copyright all_rights_reserved 版权所有 版权 著作权",
    "privacy": "cookie privacy gdpr 隐私",
    "subscribe": "subscribe newsletter sign_up 订阅 メルマガ",
    "login": "log_in login sign_in register password 登录 注册 登錄 ログイン",
    "share": "share tweet facebook twitter pinterest linkedin whatsapp 分享 微信 微博",
    "related": "related recommended also_like read_more see_also more_from trending popular "
    "相关 推荐 热门 更多 関連 おすすめ",
    "comments": "comment reply replies leave_a 评论 回复 评论 コメント",
    "posted": "posted published updated written_by 发布 发表于 作者 来源 编辑",
    "pager": "previous next_ older newer page_ 上一 下一 前へ 次へ",
    "advertisement": "advertisement sponsored 广告 広告",
    "follow": "follow_ 关注 フォロー",
    "contact": "contact phone tel: email 联系 电话 邮箱",
    "price": "$ € £ ¥ price add_to_cart in_stock shipping 价格 购买 税込",
    "search": "search 搜索 検索",
    "menu": "home menu about_us faq help 首页 导航",
    "photo": "photo image getty credit: 图片 摄 写真",
    "legal": "terms conditions disclaimer 声明 转载 免责",
    "browser": "javascript enable browser",
    "counts": "views likes votes 阅读 点赞 收藏 浏览 人气",
    "date": "january february march april june july august september october november december "
    "年 月 ago",
    "address": "http:// https:// www. .com @",
    "mark": "• · » \u203a | → « \u2039",
    "code": "{ } (); == -> := #include import_ def_",
    "more": "skip_to toggle expand show_more view_all load_more close loading 展开 加载",
    "said": "wrote: said says originally_posted 楼主 楼",
    "rating": "stars rating reviews out_of_5 评分",
}
PHRASES = automaton(KINDS_OF_PHRASES)

# What a block, or an element around it, is. The first NUM_OWN_GROUPS tell about the block itself.
GROUPS = (
    "p", "div", "li", "td th", "h1", "h2", "h3 h4 h5 h6", "pre listing", "dt dd",
    "figcaption caption", "blockquote", "button", "article", "main", "aside", "nav", "header",
    "footer", "form", "section", "figure", "table", "ul ol menu", "details", "address", "noscript",
)  # fmt: skip
NUM_OWN_GROUPS = 12
NAMES_OF_PAGES = (
    "comment", "forum", "product", "review", "card", "list", "article", "code", "event", "content",
    "byline", "user", "related", "thread", "blog_comments",
)  # fmt: skip
MAX_LEVELS = 4  # of enclosing elements that are described
NEIGHBOURS = (-3, -2, -1, 1, 2, 3)
WINDOWS = (4, 12)  # blocks to either side
_OWN = (
    "words", "chars_per_word", "link_share", "links", "digit_share", "upper_share", "single_share",
    "punctuation", "enders", "end", "starts_upper", "longest_word", "in_title", "title_in",
    "repeats", "images", "broken", "verbatim", "in_link", "hidden", "depth", "list_depth",
    "echo", "echoed",
)  # fmt: skip
_PLACE = (
    "place", "words_before", "blocks_since_heading", "words_since_heading", "from_h1", "from_best",
    "in_best", "levels_to_best", "since_comments", "before_comments", "like_blocks", "like_words",
    "like_link_share", "like_parents",
)  # fmt: skip
_LEVEL = ("words", "link_share", "blocks", "words_per_block", "page_share", "enders", "p_share")
_NEIGHBOUR = ("words", "link_share", "enders", "heading", "alike", "end")
_PAGE = (
    "words", "blocks", "link_share", "p_share", "best_share", "num_h1", "longest", "single_share",
    "words_per_block", "has_article", "has_main", "prose", "prose_before_comments",
    "prose_in_comments",
)  # fmt: skip
FEATURES = (
    *(f"own_{name}" for name in _OWN),
    *(f"is_{name.replace(' ', '_')}" for name in GROUPS[:NUM_OWN_GROUPS]),
    *(f"within_{name.replace(' ', '_')}" for name in GROUPS),
    *(f"named_{name}" for name in KINDS_OF_NAMES),
    *(f"says_{name}" for name in KINDS_OF_PHRASES),
    *_PLACE,
    *(f"level_{level}_{name}" for level, name in product(range(1, MAX_LEVELS + 1), _LEVEL)),
    *(f"at_{at:+d}_{name}" for at, name in product(NEIGHBOURS, _NEIGHBOUR)),
    *(f"window_{size}_{name}" for size, name in product(WINDOWS, ("words", "link_share"))),
    *(f"page_{name}" for name in _PAGE),
    *(f"page_named_{name}" for name in NAMES_OF_PAGES),
    *(f"body_named_{name}" for name in NAMES_OF_PAGES),
    *(f"page_is_{name}" for name in KINDS_OF_PAGES),
)
NEAR = (-4, -3, -2, -1, 1, 2, 3, 4)
SECOND_WINDOWS = (3, 10, 30)
SECOND_FEATURES = (
    "first",
    *(f"first_at_{at:+d}" for at in NEAR),
    *(f"first_window_{size}" for size in SECOND_WINDOWS),
    *(f"first_level_{level}" for level in range(1, MAX_LEVELS + 1)),
    "first_like",
    "first_page",
    "first_page_share",
    "first_before",
    "first_after",
    "blocks_from_sure_before",
    "blocks_from_sure_after",
)

SHINGLE = 4  # words of a run that is looked for elsewhere on the page
MAX_TITLE_WORDS = 64
MIN_PROSE_WORDS = 8  # of a block with the end of a sentence: prose
MAX_PROSE_LINKS = np.float32(0.3)
MAX_HEADING_WORDS = 5  # of a heading over comments
MIN_COMMENTED_WORDS = 20  # before comments
COPIED = np.float32(0.8)  # hidden text of which this much is shown elsewhere is a copy
FAR = 1_000  # blocks: nowhere
SURE = np.float32(0.7)  # probability of a block that the first model is sure of

NUM_GROUPS, NUM_NAMES, NUM_PHRASES = len(GROUPS), len(KINDS_OF_NAMES), len(KINDS_OF_PHRASES)
NUM_PAGES, NUM_PAGE_NAMES = len(KINDS_OF_PAGES), len(NAMES_OF_PAGES)
GROUP_OF_TAG = np.full(len(TAG_IDS) + 1, NUM_GROUPS, np.int32)
for _i, _names in enumerate(GROUPS):
    for _name in _names.split():
        GROUP_OF_TAG[TAG_IDS[_name]] = _i
P_GROUP, H1_GROUP, LAST_HEADING_GROUP = 0, GROUPS.index("h1"), GROUPS.index("h3 h4 h5 h6")
ARTICLE_GROUP, MAIN_GROUP = GROUPS.index("article"), GROUPS.index("main")
COMMENT_NAME = list(KINDS_OF_NAMES).index("comment")
COMMENTS = np.uint64(1 << list(KINDS_OF_PHRASES).index("comments"))
PAGE_NAME_BITS = np.array([list(KINDS_OF_NAMES).index(name) for name in NAMES_OF_PAGES], np.uint64)
NEIGHBOUR_SHIFTS = np.array(NEIGHBOURS, np.int64)
WINDOW_SIZES = np.array(WINDOWS, np.int64)
NEAR_SHIFTS = np.array(NEAR, np.int64)
SECOND_SIZES = np.array(SECOND_WINDOWS, np.int64)

# Where the rows of each family begin; inside a family they follow its tuple.
_FIRST = {name: i for i, name in reversed(list(enumerate(FEATURES)))}
IS, WITHIN, NAMED, SAYS = (
    _FIRST[name] for name in ("is_p", "within_p", "named_navigation", "says_copyright")
)
PLACE, LIKE, LEVEL = (_FIRST[name] for name in ("place", "like_blocks", "level_1_words"))
AT, WINDOW, OF_PAGE = (_FIRST[name] for name in ("at_-3_words", "window_4_words", "page_words"))
LINK_SHARE, REPEATS, LIST_DEPTH, ECHO, ECHOED = (
    _FIRST[f"own_{name}"] for name in ("link_share", "repeats", "list_depth", "echo", "echoed")
)
OWN_END, OWN_IN_LINK, OWN_HIDDEN, OWN_DEPTH = (
    _FIRST[f"own_{name}"] for name in ("end", "in_link", "hidden", "depth")
)

# What a block ends with.
NO_END, SENTENCE_END, COLON, MORE = range(4)
# In other scripts the full-width and ideographic ones: U+3002, U+FF01 and U+FF1F end sentences.
SENTENCE_ENDS = np.array([*b'.!?"', 0x3002, 0xFF01, 0xFF1F, 0x201D], np.int64)
AFTER_SENTENCES = np.array([*b' \n"'], np.int64)
COLONS = np.array([*b":", 0xFF1A], np.int64)
MORES = np.array([*b">", 0x2026, 0xBB], np.int64)
PUNCTUATION = np.array(
    [*b",.;:!?", 0x3001, 0x3002, 0xFF01, 0xFF0C, 0xFF1A, 0xFF1B, 0xFF1F], np.int64
)


class Shape(NamedTuple):
    """What `describe_again` needs of a page.

    levels: int32 (MAX_LEVELS, num_blocks), the elements around each block; like: int32, the number
    of each block's kind, which is that of all built alike; words: int32, of each block; copies:
    which are hidden, and shown elsewhere.
    """

    levels: Int32Array
    like: Int32Array
    words: Int32Array
    num_nodes: int
    copies: BoolArray


def describe(page: UInt8Array, blocks: Blocks) -> tuple[Float32Array, Shape]:
    """Return the features of a page's blocks, float32 (len(FEATURES), num_blocks), and its shape.

    page: the bytes that `blocks.parse` read. Cost: about 2 us a block.
    """
    num_blocks = len(blocks.blocks)
    found = np.zeros((len(FEATURES), num_blocks), np.float32)
    shape = Shape(
        np.zeros((MAX_LEVELS, num_blocks), np.int32),
        np.zeros(num_blocks, np.int32),
        np.zeros(num_blocks, np.int32),
        len(blocks.nodes),
        np.zeros(num_blocks, np.bool_),
    )
    if num_blocks:
        title = page[blocks.title[0] : blocks.title[1]]
        _describe(title, *blocks[:5], blocks.page_kinds, found, *shape[:3], KIND_AND_FOLD, *PHRASES)
        if found[OWN_HIDDEN].any():
            _find_copies(
                blocks.text, blocks.blocks, shape.words, found[OWN_HIDDEN], KIND_AND_FOLD,
                shape.copies,
            )  # fmt: skip
    return found, shape


def describe_again(first: Float32Array, shape: Shape) -> Float32Array:
    """Return what the first model's probabilities say, float32 (len(SECOND_FEATURES), num_blocks).

    first: float32 (num_blocks,), shape: as from `describe`.
    """
    found = np.zeros((len(SECOND_FEATURES), len(first)), np.float32)
    if len(first):
        _describe_again(first, *shape[:4], found)
    return found


@njit(cache=True, nogil=True)
def _describe(
    title: UInt8Array,
    text: UInt8Array,
    blocks: Int32Array,
    nodes: Int32Array,
    names: UInt64Array,
    shapes: UInt64Array,
    page_kinds: int,
    out: Float32Array,
    levels: Int32Array,
    like: Int32Array,
    words: Int32Array,
    table: UInt32Array,
    next_state: Int16Array,
    symbols: UInt8Array,
    outputs: UInt64Array,
) -> None:
    num_blocks = len(blocks)
    enders = np.zeros(num_blocks, np.int32)
    singles = np.zeros(num_blocks, np.int32)
    phrases = np.zeros(num_blocks, np.uint64)
    hashes = np.zeros(num_blocks, np.uint64)
    link_words = np.zeros(num_blocks, np.float32)
    own = np.zeros(num_blocks, np.int32)  # the innermost block element
    of_title = np.zeros(MAX_TITLE_WORDS, np.uint64)
    of_title = np.sort(of_title[: _hash_words(title, 0, len(title), table, of_title)])
    for b in range(num_blocks):
        words[b], enders[b], singles[b], phrases[b], hashes[b] = _describe_text(
            text[blocks[b, BLOCK_START] : blocks[b, BLOCK_END]],
            blocks[b], of_title, out[:, b], table, next_state, symbols, outputs,
        )  # fmt: skip
        link_words[b] = out[LINK_SHARE, b] * np.float32(words[b])
        node = blocks[b, BLOCK_NODE]
        out[OWN_IN_LINK, b] = (nodes[node, NODE_FLAGS] & IN_LINK) != 0
        own[b] = block_element(nodes, node)
        out[OWN_DEPTH, b] = nodes[own[b], NODE_DEPTH]
    _repeats(hashes, out)
    _echoes(text, blocks, words, table, out)
    _describe_alike(own, nodes, shapes, words, link_words, like, out)
    _describe_names(blocks, own, nodes, names, out)
    for b in range(num_blocks):
        for k in range(NUM_PHRASES):
            out[SAYS + k, b] = (phrases[b] >> np.uint64(k)) & np.uint64(1)
    group = GROUP_OF_TAG[nodes[own, NODE_TAG]]
    best = _best_element(blocks, own, nodes, words, enders, link_words)
    _describe_places(group, phrases, words, out)
    _describe_best(best, own, nodes, out)
    of_nodes = _sums(own, group, nodes, words, enders, link_words)
    _describe_levels(own, nodes, of_nodes, levels, out)
    _describe_neighbours(group, like, words, enders, link_words, out)
    _describe_page(
        group, best, of_nodes, names[0], page_kinds, words, enders, singles, out
    )  # fmt: skip


@njit(cache=True, nogil=True, inline="always")
def _share(part: Any, whole: Any) -> Any:
    return np.float32(part) / np.float32(whole) if whole else np.float32(0)


@njit(cache=True, nogil=True)
def _is_in(code_point: Any, of: npt.NDArray[np.int64]) -> bool:
    for each in of:
        if each == code_point:
            return True
    return False


@njit(cache=True, nogil=True)
def _find(key: Any, keys: UInt64Array) -> int:
    """Return where a key stands in sorted keys, or -1."""
    at = np.searchsorted(keys, key)
    return at if at < len(keys) and keys[at] == key else -1


@njit(cache=True, nogil=True)
def _hash_words(
    buffer: UInt8Array, start: int, end: int, table: UInt32Array, found: UInt64Array
) -> int:
    """Write the hashes of the folded words of a range into `found`; return how many."""
    i = start
    num = 0
    key: Any = FNV_OFFSET
    in_word = False
    while i < end and num < len(found):
        code_point, i = decode(buffer, i, end)
        entry = table[code_point]
        kind = entry >> np.uint32(FOLD_BITS)
        folded = np.uint64(entry & np.uint32((1 << FOLD_BITS) - 1))
        if in_word and kind != WORD and kind != MARK:
            found[num] = key
            num += 1
            key = FNV_OFFSET
            in_word = False
        if kind == WORD:
            key = (key ^ folded) * FNV_PRIME
            in_word = True
        elif kind == SINGLE and num < len(found):
            found[num] = (FNV_OFFSET ^ folded) * FNV_PRIME
            num += 1
    if in_word and num < len(found):
        found[num] = key
        num += 1
    return num


@njit(cache=True, nogil=True)
def _describe_text(
    text: UInt8Array,
    block: Int32Array,
    title: UInt64Array,
    out: Float32Array,
    table: UInt32Array,
    next_state: Int16Array,
    symbols: UInt8Array,
    outputs: UInt64Array,
) -> Any:
    """Write what stands in a block; return its words, sentence ends, single characters that are
    words, kinds of phrases, and hash."""
    num_words = num_chars = num_digits = num_upper = num_letters = num_single = 0
    num_punctuation = num_enders = longest = length = num_in_title = 0
    starts_upper = 0
    state = 0
    last = 0
    phrases = np.uint64(0)
    whole: Any = FNV_OFFSET
    key: Any = FNV_OFFSET
    in_title = np.zeros(len(title), np.bool_)
    end = len(text)
    i = 0
    while i < end:
        at = i
        code_point, i = decode(text, i, end)
        for k in range(at, i):
            state = next_state[state, symbols[text[k]]]
            phrases |= outputs[state]
        entry = table[code_point]
        kind = entry >> np.uint32(FOLD_BITS)
        folded = np.uint64(entry & np.uint32((1 << FOLD_BITS) - 1))
        if kind == MARK:
            if i < end or length == 0:
                continue
        elif kind == WORD or kind == SINGLE:
            num_chars += 1
            whole = (whole ^ folded) * FNV_PRIME
            last = code_point
            if 48 <= folded <= 57:
                num_digits += 1
            elif kind == WORD:
                num_letters += 1
                if 65 <= code_point <= 90:
                    num_upper += 1
                    if num_chars == 1:
                        starts_upper = 1
            if kind == WORD:
                length += 1
                key = (key ^ folded) * FNV_PRIME
                if i < end:
                    continue
        elif code_point > 32:
            num_chars += 1
            last = code_point
            num_punctuation += _is_in(code_point, PUNCTUATION)
            is_quote = code_point == 0x22 or code_point == 0x201D
            # that of ASCII is one before a space, a line end, a quote or the end of the text
            is_last = code_point > 127 or i >= end or _is_in(np.int64(text[i]), AFTER_SENTENCES)
            if _is_in(code_point, SENTENCE_ENDS) and not is_quote and is_last:
                num_enders += 1
        if length:  # a word ends here
            num_words += 1
            longest = max(longest, length)
            found = _find(key, title)
            if found >= 0:
                num_in_title += 1
                in_title[found] = True
            length = 0
            key = FNV_OFFSET
        if kind == SINGLE:
            num_words += 1
            num_single += 1
            found = _find((FNV_OFFSET ^ folded) * FNV_PRIME, title)
            if found >= 0:
                num_in_title += 1
                in_title[found] = True
    out[0] = num_words
    out[1] = _share(num_chars, num_words)
    out[2] = min(_share(block[BLOCK_LINK_BYTES], end), np.float32(1))
    out[3] = block[BLOCK_LINKS]
    out[4] = _share(num_digits, num_chars)
    out[5] = _share(num_upper, num_letters)
    out[6] = _share(num_single, num_words)
    out[7] = _share(num_punctuation, num_words)
    out[8] = num_enders
    if _is_in(last, SENTENCE_ENDS):
        out[9] = SENTENCE_END
    elif _is_in(last, COLONS):
        out[9] = COLON
    elif _is_in(last, MORES):
        out[9] = MORE
    out[10] = starts_upper
    out[11] = longest
    out[12] = _share(num_in_title, num_words)
    out[13] = _share(np.sum(in_title), len(title))
    out[15] = block[BLOCK_IMAGES]
    out[16] = (block[BLOCK_FLAGS] & BROKEN) != 0
    out[17] = (block[BLOCK_FLAGS] & VERBATIM) != 0
    return num_words, num_enders, num_single, phrases, whole


@njit(cache=True, nogil=True)
def _repeats(hashes: UInt64Array, out: Float32Array) -> None:
    """Write how often the same text stands elsewhere on the page."""
    order = np.argsort(hashes)
    first = 0
    while first < len(order):
        end = first
        while end < len(order) and hashes[order[end]] == hashes[order[first]]:
            end += 1
        for k in range(first, end):
            out[REPEATS, order[k]] = end - first - 1
        first = end


@njit(cache=True, nogil=True)
def _echoes(
    text: UInt8Array, blocks: Int32Array, words: Int32Array, table: UInt32Array, out: Float32Array
) -> None:
    """Write which share of a block's runs of SHINGLE words stands in another block too.

    `echo`: in one before it, `echoed`: in one after it.
    """
    keys, of_block = _room_for_runs(words)
    last = np.zeros(len(keys), np.int32)
    echoed = np.zeros(len(blocks), np.int32)
    for b in range(len(blocks)):
        if words[b] < SHINGLE:
            continue
        num = _hash_words(text, blocks[b, BLOCK_START], blocks[b, BLOCK_END], table, of_block)
        num_found = 0
        for w in range(num - SHINGLE + 1):
            key = _run_of(of_block, w)
            at = _slot_of(key, keys)
            if keys[at] == key and last[at] != b:
                num_found += 1
                echoed[last[at]] += 1
            keys[at] = key
            last[at] = b
        out[ECHO, b] = _share(num_found, num - SHINGLE + 1)
    for b in range(len(blocks)):
        out[ECHOED, b] = _share(echoed[b], max(words[b] - SHINGLE + 1, 0))


@njit(cache=True, nogil=True)
def _room_for_runs(words: Int32Array) -> Any:
    """Return an empty hash table for all runs of blocks, and room for the words of any block."""
    total = most = 0
    for num in words:
        total += max(num - SHINGLE + 1, 0)
        most = max(most, num)
    size = 16
    while size < 2 * total:
        size *= 2
    return np.zeros(size, np.uint64), np.zeros(most, np.uint64)


@njit(cache=True, nogil=True, inline="always")
def _run_of(words: UInt64Array, w: int) -> Any:
    """Return the hash of the run of words that begins at one; never 0."""
    key: Any = FNV_OFFSET
    for k in range(SHINGLE):
        key = (key ^ words[w + k]) * FNV_PRIME
        key ^= key >> np.uint64(29)
    return key | np.uint64(1)


@njit(cache=True, nogil=True, inline="always")
def _slot_of(key: Any, keys: UInt64Array) -> Any:
    """Return where a key stands in an open hash table, or would stand."""
    at = np.int64(key >> np.uint64(20)) & (len(keys) - 1)
    while keys[at] != 0 and keys[at] != key:
        at = (at + 1) & (len(keys) - 1)
    return at


@njit(cache=True, nogil=True)
def _find_copies(
    text: UInt8Array,
    blocks: Int32Array,
    words: Int32Array,
    hidden: Float32Array,
    table: UInt32Array,
    out: BoolArray,
) -> None:
    """Write which hidden blocks have COPIED of their runs in blocks that are not hidden."""
    keys, of_block = _room_for_runs(words)
    for wanted in (False, True):  # those that are shown, then the others
        for b in range(len(blocks)):
            if words[b] < SHINGLE or (hidden[b] > 0) != wanted:
                continue
            num = _hash_words(text, blocks[b, BLOCK_START], blocks[b, BLOCK_END], table, of_block)
            num_found = 0
            for w in range(num - SHINGLE + 1):
                key = _run_of(of_block, w)
                at = _slot_of(key, keys)
                num_found += keys[at] == key
                if not wanted:
                    keys[at] = key
            out[b] = wanted and _share(num_found, num - SHINGLE + 1) >= COPIED


@njit(cache=True, nogil=True)
def _describe_alike(
    own: Int32Array,
    nodes: Int32Array,
    shapes: UInt64Array,
    words: Int32Array,
    link_words: Float32Array,
    like: Int32Array,
    out: Float32Array,
) -> None:
    """Number the kinds of blocks, and write what all of a kind hold.

    A kind has the same tags and classes, three elements up.
    """
    num_blocks = len(own)
    paths = np.zeros(num_blocks, np.uint64)
    for b in range(num_blocks):
        node = own[b]
        key: Any = FNV_OFFSET ^ np.uint64(out[OWN_IN_LINK, b])
        for _ in range(3):
            key = (key ^ shapes[node]) * FNV_PRIME
            key ^= key >> np.uint64(29)
            if node > 0:
                node = nodes[node, NODE_PARENT]
        paths[b] = key
    order = np.argsort(paths, kind="mergesort")
    first = num_like = 0
    while first < num_blocks:
        end = first
        sum_words = num_parents = 0
        sum_link = np.float32(0)
        last_parent = -1
        while end < num_blocks and paths[order[end]] == paths[order[first]]:
            b = order[end]
            sum_words += words[b]
            sum_link += link_words[b]
            parent = nodes[own[b], NODE_PARENT]
            if parent != last_parent:
                num_parents += 1
            last_parent = parent
            end += 1
        for k in range(first, end):
            b = order[k]
            like[b] = num_like
            out[LIKE, b] = end - first
            out[LIKE + 1, b] = _share(sum_words, end - first)
            out[LIKE + 2, b] = _share(sum_link, sum_words)
            out[LIKE + 3, b] = num_parents
        num_like += 1
        first = end


@njit(cache=True, nogil=True)
def _describe_names(
    blocks: Int32Array, own: Int32Array, nodes: Int32Array, names: UInt64Array, out: Float32Array
) -> None:
    """Write what the elements around are, and are named: 3 the block's own, 2 up to three around
    it, 1 further out."""
    bits = np.zeros(3, np.uint64)
    within = np.zeros(NUM_GROUPS + 1, np.int32)
    for b in range(len(blocks)):
        node = blocks[b, BLOCK_NODE]
        if b > 0 and node == blocks[b - 1, BLOCK_NODE]:
            for row in range(IS, SAYS):
                out[row, b] = out[row, b - 1]
            out[OWN_HIDDEN, b] = out[OWN_HIDDEN, b - 1]
            out[LIST_DEPTH, b] = out[LIST_DEPTH, b - 1]
            continue
        bits[:] = 0
        within[:] = 0
        steps = 0
        while node > 0:
            tag = nodes[node, NODE_TAG]
            is_own = nodes[node, NODE_DEPTH] >= nodes[own[b], NODE_DEPTH]
            nearness = 3 if is_own else 2 if steps <= 3 else 1
            bits[3 - nearness] |= names[node]
            if nodes[node, NODE_FLAGS] & HIDDEN:
                out[OWN_HIDDEN, b] = 1
            if tag == UL or tag == OL:
                out[LIST_DEPTH, b] += 1
            group = GROUP_OF_TAG[tag]
            within[group] = max(within[group], nearness)
            if node <= own[b]:
                steps += 1
            node = nodes[node, NODE_PARENT]
        group = GROUP_OF_TAG[nodes[own[b], NODE_TAG]]
        if group < NUM_OWN_GROUPS:
            out[IS + group, b] = 1
        for g in range(NUM_GROUPS):
            out[WITHIN + g, b] = within[g]
        for k in range(NUM_NAMES):
            bit = np.uint64(1) << np.uint64(k)
            out[NAMED + k, b] = (
                3 if bits[0] & bit else 2 if bits[1] & bit else 1 if bits[2] & bit else 0
            )


@njit(cache=True, nogil=True)
def _best_element(
    blocks: Int32Array,
    own: Int32Array,
    nodes: Int32Array,
    words: Int32Array,
    enders: Int32Array,
    link_words: Float32Array,
) -> int:
    """Return the element with most prose right inside, that of its children's counted half.

    The scheme of Readability (Arc90, 2009), with words for points.
    """
    score = np.zeros(len(nodes), np.float32)
    for b in range(len(blocks)):
        if words[b] >= MIN_PROSE_WORDS and enders[b] > 0:
            prose = np.float32(words[b]) - link_words[b]
            is_line = blocks[b, BLOCK_FLAGS] & BROKEN
            parent = own[b] if is_line else max(nodes[own[b], NODE_PARENT], 0)
            score[parent] += prose
            if parent > 0:
                score[nodes[parent, NODE_PARENT]] += prose / np.float32(2)
    best = 0
    for node in range(len(nodes)):
        if score[node] > score[best]:
            best = node
    return best


@njit(cache=True, nogil=True)
def _describe_places(
    group: Int32Array, phrases: UInt64Array, words: Int32Array, out: Float32Array
) -> None:
    """Write where each block stands: on the page, after headings, after one over comments."""
    num_blocks = len(words)
    page_words = np.sum(words)
    first_h1 = -1
    for b in range(num_blocks):
        if group[b] == H1_GROUP:
            first_h1 = b
            break
    before = since_heading = words_since_heading = 0
    since_comments = words_before_comments = -1
    for b in range(num_blocks):
        if H1_GROUP <= group[b] <= LAST_HEADING_GROUP:
            since_heading = words_since_heading = 0
        if words[b] <= MAX_HEADING_WORDS and phrases[b] & COMMENTS and before > MIN_COMMENTED_WORDS:
            since_comments, words_before_comments = 0, before
        elif since_comments >= 0:
            since_comments += 1
        out[PLACE, b] = _share(b, num_blocks)
        out[PLACE + 1, b] = _share(before, page_words)
        out[PLACE + 2, b] = since_heading
        out[PLACE + 3, b] = words_since_heading
        out[PLACE + 4, b] = b - first_h1 if first_h1 >= 0 else -FAR
        out[PLACE + 8, b] = since_comments
        out[PLACE + 9, b] = words_before_comments
        since_heading += 1
        words_since_heading += words[b]
        before += words[b]


@njit(cache=True, nogil=True)
def _describe_best(best: int, own: Int32Array, nodes: Int32Array, out: Float32Array) -> None:
    """Write how far each block is from the best element: levels out of its own to the one that
    holds both, whether that is the best, and levels from there to the best."""
    is_above = np.zeros(len(nodes), np.bool_)
    node = best
    while node >= 0:
        is_above[node] = True
        node = nodes[node, NODE_PARENT]
    for b in range(len(own)):
        node = own[b]
        steps = 0
        while not is_above[node]:
            node = nodes[node, NODE_PARENT]
            steps += 1
        out[PLACE + 5, b] = steps
        out[PLACE + 6, b] = node == best
        out[PLACE + 7, b] = nodes[best, NODE_DEPTH] - nodes[node, NODE_DEPTH]


@njit(cache=True, nogil=True)
def _sums(
    own: Int32Array,
    group: Int32Array,
    nodes: Int32Array,
    words: Int32Array,
    enders: Int32Array,
    link_words: Float32Array,
) -> Any:
    """Return what stands in each element: words, blocks, sentence ends, words of `p`, of links."""
    num_nodes = len(nodes)
    counts = np.zeros((4, num_nodes), np.int32)
    linked = np.zeros(num_nodes, np.float32)
    for b in range(len(own)):
        node = own[b]
        counts[0, node] += words[b]
        counts[1, node] += 1
        counts[2, node] += enders[b]
        if group[b] == P_GROUP:
            counts[3, node] += words[b]
        linked[node] += link_words[b]
    for node in range(num_nodes - 1, 0, -1):  # children come after their parents
        parent = nodes[node, NODE_PARENT]
        for k in range(4):
            counts[k, parent] += counts[k, node]
        linked[parent] += linked[node]
    return counts, linked


@njit(cache=True, nogil=True)
def _describe_levels(
    own: Int32Array, nodes: Int32Array, of_nodes: Any, levels: Int32Array, out: Float32Array
) -> None:
    """Write what stands in the elements around that hold more blocks than the one inside them."""
    counts, linked = of_nodes
    page_words = counts[0, 0]
    for b in range(len(own)):
        node = own[b]
        level = 0
        held = -1
        while node >= 0 and level < MAX_LEVELS:
            num_blocks = counts[1, node]
            if num_blocks > held and (level > 0 or num_blocks > 1 or node == 0):
                levels[level, b] = node
                row = LEVEL + 7 * level
                num_words = counts[0, node]
                out[row, b] = num_words
                out[row + 1, b] = _share(linked[node], num_words)
                out[row + 2, b] = num_blocks
                out[row + 3, b] = _share(num_words, num_blocks)
                out[row + 4, b] = _share(num_words, page_words)
                out[row + 5, b] = _share(counts[2, node], num_words)
                out[row + 6, b] = _share(counts[3, node], num_words)
                held = num_blocks
                level += 1
            node = nodes[node, NODE_PARENT]
        while level < MAX_LEVELS:  # the page itself stands for what is missing
            row = LEVEL + 7 * level
            for k in range(7):
                out[row + k, b] = out[row - 7 + k, b] if level else 0
            level += 1


@njit(cache=True, nogil=True)
def _describe_neighbours(
    group: Int32Array,
    like: Int32Array,
    words: Int32Array,
    enders: Int32Array,
    link_words: Float32Array,
    out: Float32Array,
) -> None:
    """Write what the blocks before and after hold, one by one and in windows."""
    num_blocks = len(words)
    for k in range(len(NEIGHBOUR_SHIFTS)):
        row = AT + 6 * k
        for b in range(num_blocks):
            other = b + NEIGHBOUR_SHIFTS[k]
            if other < 0 or other >= num_blocks:
                out[row, b] = -1
                continue
            out[row, b] = words[other]
            out[row + 1, b] = out[LINK_SHARE, other]
            out[row + 2, b] = enders[other]
            out[row + 3, b] = H1_GROUP <= group[other] <= LAST_HEADING_GROUP
            out[row + 4, b] = like[b] == like[other]
            out[row + 5, b] = out[OWN_END, other]
    sum_words = np.zeros(num_blocks + 1, np.int64)
    sum_link = np.zeros(num_blocks + 1, np.float64)
    for b in range(num_blocks):
        sum_words[b + 1] = sum_words[b] + words[b]
        sum_link[b + 1] = sum_link[b] + np.float64(link_words[b])
    for k in range(len(WINDOW_SIZES)):
        for b in range(num_blocks):
            low = max(b - WINDOW_SIZES[k], 0)
            high = min(b + WINDOW_SIZES[k] + 1, num_blocks)
            around = sum_words[high] - sum_words[low]
            linked = sum_link[high] - sum_link[low]
            out[WINDOW + 2 * k, b] = np.float32(around - linked)
            out[WINDOW + 2 * k + 1, b] = _share(linked, around)


@njit(cache=True, nogil=True)
def _describe_page(
    group: Int32Array,
    best: int,
    of_nodes: Any,
    body_names: Any,
    page_kinds: int,
    words: Int32Array,
    enders: Int32Array,
    singles: Int32Array,
    out: Float32Array,
) -> None:
    """Write what kind of page it is, the same for all blocks."""
    counts, linked = of_nodes
    num_blocks = len(words)
    page_words = counts[0, 0]
    found = np.zeros(len(FEATURES) - OF_PAGE, np.float32)
    found[0] = page_words
    found[1] = num_blocks
    found[2] = _share(linked[0], page_words)
    found[3] = _share(counts[3, 0], page_words)
    found[4] = _share(counts[0, best], page_words)
    found[8] = _share(page_words, num_blocks)
    is_commented = False
    prose = prose_before = prose_in = num_singles = 0
    for b in range(num_blocks):
        found[5] += group[b] == H1_GROUP
        found[6] = max(found[6], np.float32(words[b]))
        num_singles += singles[b]
        if out[WITHIN + ARTICLE_GROUP, b]:
            found[9] = 1
        if out[WITHIN + MAIN_GROUP, b]:
            found[10] = 1
        in_comment = out[NAMED + COMMENT_NAME, b] > 0
        is_commented |= in_comment
        is_prose = words[b] >= MIN_PROSE_WORDS and enders[b] > 0
        if is_prose and out[LINK_SHARE, b] < MAX_PROSE_LINKS:
            prose += words[b]
            if not is_commented:
                prose_before += words[b]
            elif in_comment:
                prose_in += words[b]
    found[7] = _share(num_singles, page_words)
    found[11] = prose
    found[12] = prose_before
    found[13] = _share(prose_in, prose)
    at = len(found) - NUM_PAGES - 2 * NUM_PAGE_NAMES
    for k in range(NUM_PAGE_NAMES):
        bit = PAGE_NAME_BITS[k]
        num_named = 0
        for b in range(num_blocks):
            if out[NAMED + np.int64(bit), b]:
                num_named += words[b]
        found[at + k] = _share(num_named, page_words)
        found[at + NUM_PAGE_NAMES + k] = (body_names >> bit) & np.uint64(1)
    for k in range(NUM_PAGES):
        found[at + 2 * NUM_PAGE_NAMES + k] = (np.uint64(page_kinds) >> np.uint64(k)) & np.uint64(1)
    for k in range(len(found)):
        out[OF_PAGE + k, :] = found[k]


@njit(cache=True, nogil=True)
def _describe_again(
    first: Float32Array,
    levels: Int32Array,
    like: Int32Array,
    words: Int32Array,
    num_nodes: int,
    out: Float32Array,
) -> None:
    num_blocks = len(first)
    out[0] = first
    row = 1
    for k in range(len(NEAR_SHIFTS)):
        for b in range(num_blocks):
            other = b + NEAR_SHIFTS[k]
            out[row, b] = first[other] if 0 <= other < num_blocks else -1
        row += 1
    # means are weighted by words, of which every block has at least one here
    sums = np.zeros(num_blocks + 1, np.float64)
    weights = np.zeros(num_blocks + 1, np.float64)
    num_words = num_likely = 0
    for b in range(num_blocks):
        weight = np.float64(words[b] + 1)
        weights[b + 1] = weights[b] + weight
        sums[b + 1] = sums[b] + weight * np.float64(first[b])
        num_words += words[b]
        if first[b] > 0.5:
            num_likely += words[b]
    for k in range(len(SECOND_SIZES)):
        for b in range(num_blocks):
            low = max(b - SECOND_SIZES[k], 0)
            high = min(b + SECOND_SIZES[k] + 1, num_blocks)
            out[row, b] = np.float32((sums[high] - sums[low]) / (weights[high] - weights[low]))
        row += 1
    for level in range(MAX_LEVELS):
        _write_means(first, words, levels[level], num_nodes, out[row])
        row += 1
    _write_means(first, words, like, num_blocks, out[row])
    whole = sums[num_blocks]
    out[row + 1, :] = np.float32(whole / weights[num_blocks])
    out[row + 2, :] = _share(num_likely, num_words)
    since = FAR
    for b in range(num_blocks):
        if whole > 0:
            out[row + 3, b] = np.float32(sums[b] / whole)
            out[row + 4, b] = np.float32((whole - sums[b + 1]) / whole)
        out[row + 5, b] = since
        since = 1 if first[b] > SURE else min(since + 1, FAR)
    since = FAR
    for b in range(num_blocks - 1, -1, -1):
        out[row + 6, b] = since
        since = 1 if first[b] > SURE else min(since + 1, FAR)


@njit(cache=True, nogil=True)
def _write_means(
    first: Float32Array, words: Int32Array, group: Int32Array, num_groups: int, out: Float32Array
) -> None:
    """Write the mean of each block's group."""
    sums = np.zeros(num_groups, np.float64)
    weights = np.zeros(num_groups, np.float64)
    for b in range(len(first)):
        weight = np.float64(words[b] + 1)
        sums[group[b]] += weight * np.float64(first[b])
        weights[group[b]] += weight
    for b in range(len(first)):
        out[b] = np.float32(sums[group[b]] / weights[group[b]])
