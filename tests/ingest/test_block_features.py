# ruff: noqa: RUF001
"""What describes a block: each feature against plain Python that gives it by its name."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ingest import block_features
from curation.ingest.block_features import (
    FEATURES,
    GROUPS,
    KINDS_OF_PHRASES,
    MAX_LEVELS,
    NAMES_OF_PAGES,
    NEAR,
    NEIGHBOURS,
    NUM_OWN_GROUPS,
    SECOND_FEATURES,
    SECOND_WINDOWS,
    WINDOWS,
    Shape,
    describe,
    describe_again,
)
from curation.ingest.blocks import (
    BLOCK,
    BROKEN,
    HIDDEN,
    IN_LINK,
    KIND_OF_TAG,
    KINDS_OF_NAMES,
    KINDS_OF_PAGES,
    TAGS,
    VERBATIM,
    Blocks,
    parse,
)
from curation.ingest.text import KIND, MARK, SEPARATOR, SINGLE, WORD, words

TAG_NAMES = ["", *TAGS]
PUNCTUATION = ",.;:!?、。！，：；？"
NAME_BITS, PAGE_BITS = list(KINDS_OF_NAMES), list(KINDS_OF_PAGES)


def described(page: str) -> tuple[np.ndarray, Shape, Blocks]:
    data = np.frombuffer(page.encode(), np.uint8)
    blocks = parse(data)
    return *describe(data, blocks), blocks


def rows(page: str) -> list[dict[str, float]]:
    """The features of each block, by name."""
    found, _, _ = described(page)
    return [dict(zip(FEATURES, column.tolist(), strict=True)) for column in found.T]


# --- the oracle ----------------------------------------------------------------------------------


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


class Oracle:
    """The same features by their definitions, one dictionary a block."""

    def __init__(self, page: str, blocks: Blocks) -> None:
        self.nodes = [tuple(map(int, node)) for node in blocks.nodes]
        self.parents = [node[0] for node in self.nodes]
        self.tags = [TAG_NAMES[node[1]] for node in self.nodes]
        self.flags = [node[2] for node in self.nodes]
        self.names = [int(mask) for mask in blocks.names]
        self.shapes = blocks.shapes.tolist()
        raw = blocks.text.tobytes()
        self.bytes = [raw[row[0] : row[1]] for row in blocks.blocks]
        self.texts = [each.decode() for each in self.bytes]
        self.rows = [dict(zip(("start", "end", "node", "flags", "link_bytes", "links", "images"),
                              map(int, row), strict=True)) for row in blocks.blocks]  # fmt: skip
        self.words = [words(text) for text in self.texts]
        start, end = blocks.title
        self.title = words(page.encode()[start:end].decode())[:64]
        self.page_kinds = int(blocks.page_kinds)
        self.own = [self.block_element(row["node"]) for row in self.rows]
        self.linked = [  # words, as many as the bytes of links tell
            min(share(row["link_bytes"], len(each)), 1) * len(own_words)
            for row, each, own_words in zip(self.rows, self.bytes, self.words, strict=True)
        ]
        self.ends = [enders(text) for text in self.texts]
        self.phrases = [
            {
                kind
                for kind, phrases in KINDS_OF_PHRASES.items()
                if any(phrase.replace("_", " ") in lower(text) for phrase in phrases.split())
            }
            for text in self.texts
        ]
        self.is_heading = [
            self.tags[node] in ("h1", "h2", "h3", "h4", "h5", "h6") for node in self.own
        ]
        self.found: list[dict[str, Any]] = [{} for _ in self.rows]
        for part in (self.own_features, self.echoes, self.elements, self.places, self.best,
                     self.alike, self.levels, self.neighbours, self.page):  # fmt: skip
            part()

    def block_element(self, node: int) -> int:
        while node > 0 and KIND_OF_TAG[self.nodes[node][1]] != BLOCK:
            node = self.parents[node]
        return node

    def path(self, node: int) -> list[int]:
        """A node and those around it, innermost first, without the page."""
        found = []
        while node > 0:
            found.append(node)
            node = self.parents[node]
        return found

    def own_features(self) -> None:
        copies = Counter("".join(own_words) for own_words in self.words)
        for b, text in enumerate(self.texts):
            row, own_words = self.rows[b], self.words[b]
            folded = "".join(own_words)
            kinds = [int(KIND[ord(c)]) for c in text]
            characters = [
                c
                for c, kind in zip(text, kinds, strict=True)
                if kind in (WORD, SINGLE) or (kind == SEPARATOR and c > " ")
            ]
            digits = sum("0" <= c <= "9" for c in folded)
            singles = kinds.count(SINGLE)
            letters = sum(
                kind == WORD and not words(c)[0].isdecimal()
                for c, kind in zip(text, kinds, strict=True)
            )
            runs = "".join(
                "x" if kind == WORD else "" if kind == MARK else " " for kind in kinds
            ).split()
            last = characters[-1] if characters else ""
            own: dict[str, float] = {
                "words": len(own_words),
                "chars_per_word": share(len(characters), len(own_words)),
                "link_share": min(share(row["link_bytes"], len(self.bytes[b])), 1),
                "links": row["links"],
                "digit_share": share(digits, len(characters)),
                "upper_share": share(sum("A" <= c <= "Z" for c in text), letters),
                "single_share": share(singles, len(own_words)),
                "punctuation": share(sum(c in PUNCTUATION for c in text), len(own_words)),
                "enders": self.ends[b],
                "end": 1 if last and last in '.!?"。！？”' else 2 if last and last in ":："
                else 3 if last and last in ">…»" else 0,
                "starts_upper": bool(characters) and "A" <= characters[0] <= "Z",
                "longest_word": max(map(len, runs), default=0),
                "in_title": share(sum(word in self.title for word in own_words), len(own_words)),
                "title_in": share(len(set(self.title) & set(own_words)), len(self.title)),
                "repeats": copies[folded] - 1,
                "images": row["images"],
                "broken": bool(row["flags"] & BROKEN),
                "verbatim": bool(row["flags"] & VERBATIM),
                "in_link": bool(self.flags[row["node"]] & IN_LINK),
                "hidden": any(self.flags[node] & HIDDEN for node in self.path(row["node"])),
                "depth": len(self.path(self.own[b])),
                "list_depth": sum(self.tags[n] in ("ul", "ol") for n in self.path(row["node"])),
            }  # fmt: skip
            self.found[b] |= {f"own_{name}": value for name, value in own.items()}
            self.found[b] |= {f"says_{kind}": kind in self.phrases[b] for kind in KINDS_OF_PHRASES}

    def echoes(self) -> None:
        """Each run of four words is counted once a block, towards the last block that had it."""
        last: dict[tuple[str, ...], int] = {}
        shared = [0] * len(self.words)
        runs = [[tuple(w[i : i + 4]) for i in range(len(w) - 3)] for w in self.words]
        for b, own in enumerate(runs):
            again = {run for run in own if run in last}
            for run in again:
                shared[last[run]] += 1
            last |= dict.fromkeys(own, b)
            self.found[b]["own_echo"] = share(len(again), len(own))
        for b, own in enumerate(runs):
            self.found[b]["own_echoed"] = share(shared[b], len(own))

    def elements(self) -> None:
        for b, row in enumerate(self.rows):
            path = self.path(row["node"])
            outside = path.index(self.own[b]) + 1 if self.own[b] else len(path)
            nearness = {
                node: 3 if i < outside else 2 if i < outside + 3 else 1
                for i, node in enumerate(path)
            }
            for i, group in enumerate(GROUPS):
                name = group.replace(" ", "_")
                tags = group.split()
                self.found[b][f"within_{name}"] = max(
                    (near for node, near in nearness.items() if self.tags[node] in tags), default=0
                )
                if i < NUM_OWN_GROUPS:
                    self.found[b][f"is_{name}"] = self.tags[self.own[b]] in tags
            for bit, name in enumerate(NAME_BITS):
                self.found[b][f"named_{name}"] = max(
                    (near for node, near in nearness.items() if self.names[node] >> bit & 1),
                    default=0,
                )

    def places(self) -> None:
        counts = [len(own_words) for own_words in self.words]
        first_h1 = next((b for b, node in enumerate(self.own) if self.tags[node] == "h1"), None)
        for b, features in enumerate(self.found):
            heading = max((k for k in range(b + 1) if self.is_heading[k]), default=0)
            over_comments = max(
                (
                    k
                    for k in range(b + 1)
                    if "comments" in self.phrases[k] and counts[k] <= 5 and sum(counts[:k]) > 20
                ),
                default=None,
            )
            features |= {
                "place": b / len(counts),
                "words_before": share(sum(counts[:b]), sum(counts)),
                "blocks_since_heading": b - heading,
                "words_since_heading": sum(counts[heading:b]),
                "from_h1": -1000 if first_h1 is None else b - first_h1,
                "since_comments": -1 if over_comments is None else b - over_comments,
                "before_comments": -1 if over_comments is None else sum(counts[:over_comments]),
            }

    def best(self) -> None:
        score = np.zeros(len(self.nodes), np.float32)
        for b, row in enumerate(self.rows):
            if len(self.words[b]) >= 8 and self.ends[b]:
                prose = np.float32(len(self.words[b])) - np.float32(self.linked[b])
                at = self.own[b] if row["flags"] & BROKEN else max(self.parents[self.own[b]], 0)
                score[at] += prose
                if at:
                    score[self.parents[at]] += prose / 2
        self.best_node = int(np.argmax(score))
        around = [*self.path(self.best_node), 0]
        for b, features in enumerate(self.found):
            path = [*self.path(self.own[b]), 0]
            common = next(node for node in path if node in around)
            features |= {
                "from_best": path.index(common),
                "in_best": common == self.best_node,
                "levels_to_best": around.index(common),
            }

    def alike(self) -> None:
        kinds = []
        for b, row in enumerate(self.rows):
            path = [*self.path(self.own[b]), 0, 0, 0][:3]
            in_link = bool(self.flags[row["node"]] & IN_LINK)
            kinds.append((in_link, *(self.shapes[node] for node in path)))
        self.kinds = kinds
        for b, features in enumerate(self.found):
            same = [k for k in range(len(kinds)) if kinds[k] == kinds[b]]
            parents = [self.parents[self.own[k]] for k in same]
            num_words = sum(len(self.words[k]) for k in same)
            features |= {
                "like_blocks": len(same),
                "like_words": num_words / len(same),
                "like_link_share": share(sum(self.linked[k] for k in same), num_words),
                "like_parents": sum(  # the page itself has none
                    parent >= 0 and (i == 0 or parents[i - 1] != parent)
                    for i, parent in enumerate(parents)
                ),
            }

    def levels(self) -> None:
        inside: list[list[int]] = [[] for _ in self.nodes]
        for b, own in enumerate(self.own):
            for node in {*self.path(own), 0}:
                inside[node].append(b)
        self.level_nodes = []
        for b, features in enumerate(self.found):
            levels: list[int] = []
            for node in [*self.path(self.own[b]), 0]:
                least = len(inside[levels[-1]]) if levels else 1
                if len(inside[node]) > least or (node == 0 and not levels):
                    levels.append(node)
            levels = levels[:MAX_LEVELS]
            self.level_nodes.append(levels)
            for level in range(1, MAX_LEVELS + 1):
                held = inside[levels[min(level, len(levels)) - 1]]
                num_words = sum(len(self.words[k]) for k in held)
                of_p = sum(len(self.words[k]) for k in held if self.tags[self.own[k]] == "p")
                values = {
                    "words": num_words,
                    "link_share": share(sum(self.linked[k] for k in held), num_words),
                    "blocks": len(held),
                    "words_per_block": num_words / len(held),
                    "page_share": share(num_words, sum(map(len, self.words))),
                    "enders": share(sum(self.ends[k] for k in held), num_words),
                    "p_share": share(of_p, num_words),
                }
                features |= {f"level_{level}_{name}": value for name, value in values.items()}

    def neighbours(self) -> None:
        for b, features in enumerate(self.found):
            for at in NEIGHBOURS:
                k = b + at
                values = dict.fromkeys(
                    ("words", "link_share", "enders", "heading", "alike", "end"), 0.0
                )
                if 0 <= k < len(self.found):
                    values = {
                        "words": len(self.words[k]),
                        "link_share": self.found[k]["own_link_share"],
                        "enders": self.ends[k],
                        "heading": self.is_heading[k],
                        "alike": self.kinds[k] == self.kinds[b],
                        "end": self.found[k]["own_end"],
                    }
                else:
                    values["words"] = -1
                features |= {f"at_{at:+d}_{name}": value for name, value in values.items()}
            for size in WINDOWS:
                around = range(max(b - size, 0), min(b + size + 1, len(self.found)))
                num_words = sum(len(self.words[k]) for k in around)
                linked = sum(self.linked[k] for k in around)
                features[f"window_{size}_words"] = num_words - linked
                features[f"window_{size}_link_share"] = share(linked, num_words)

    def page(self) -> None:
        counts = [len(own_words) for own_words in self.words]
        num_words = sum(counts)
        prose = [
            b
            for b, features in enumerate(self.found)
            if counts[b] >= 8 and self.ends[b] and features["own_link_share"] < np.float32(0.3)
        ]
        commented = [b for b, features in enumerate(self.found) if features["named_comment"]]
        first_comment = commented[0] if commented else len(counts)
        in_best = [b for b, own in enumerate(self.own)
                   if self.best_node in {*self.path(own), 0}]  # fmt: skip
        p_words = sum(n for n, own in zip(counts, self.own, strict=True) if self.tags[own] == "p")
        prose_words = sum(counts[b] for b in prose)
        singles = sum(int(KIND[ord(c)]) == SINGLE for text in self.texts for c in text)
        values = {
            "words": num_words,
            "blocks": len(counts),
            "link_share": share(sum(self.linked), num_words),
            "p_share": share(p_words, num_words),
            "best_share": share(sum(counts[b] for b in in_best), num_words),
            "num_h1": sum(self.tags[own] == "h1" for own in self.own),
            "longest": max(counts),
            "single_share": share(singles, num_words),
            "words_per_block": num_words / len(counts),
            "has_article": any(features["within_article"] for features in self.found),
            "has_main": any(features["within_main"] for features in self.found),
            "prose": prose_words,
            "prose_before_comments": sum(counts[b] for b in prose if b < first_comment),
            "prose_in_comments": share(
                sum(counts[b] for b in prose if b in commented), prose_words
            ),
        }
        found = {f"page_{name}": value for name, value in values.items()}
        for name in NAMES_OF_PAGES:
            named = sum(n for n, f in zip(counts, self.found, strict=True) if f[f"named_{name}"])
            found[f"page_named_{name}"] = share(named, num_words)
            found[f"body_named_{name}"] = self.names[0] >> NAME_BITS.index(name) & 1
        for bit, name in enumerate(PAGE_BITS):
            found[f"page_is_{name}"] = self.page_kinds >> bit & 1
        for features in self.found:
            features |= found


def lower(text: str) -> str:
    """ASCII only."""
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def enders(text: str) -> int:
    """Ends of sentences: those of ASCII stand before a space, a quote or the end."""
    return sum(
        c in "。！？" or (c in ".!?" and text[i + 1 : i + 2] in ("", " ", "\n", '"'))
        for i, c in enumerate(text)
    )


# --- pages ---------------------------------------------------------------------------------------

TEXTS = (
    "The quick brown fox jumps over the lazy dog, and seven wizards watch it in silence.",
    "Comments (3)", "Home", "Read more…", "Log in »", "Posted by Ann Lee on 4 March 2024:",
    "“Why?”",
    "Quick brown foxes! Are there 4,000 of them? She said: \"Yes.\" v1.2.3 is out",
    "the quick brown fox jumps over the quick brown fox jumps over the quick brown fox jumps",
    "東京で、会議を行った。本日、発表がありました。",
    "© 2024 Fox Ltd. All rights reserved", "—", "Cafe\u0301 NAI\u0308VE ÀB", "x = {1}; == y",
    "seven wizards watch it in silence", "Foxes", "A title of foxes and wizards", "１２ ﬁve",
)  # fmt: skip
TAGS_OF_SOUP = (
    "p div ul ol li h1 h2 h3 section article main nav aside table tr td blockquote pre span a "
    "form header footer figure figcaption dl dt dd button details address noscript em x-y"
)
CLASSES = ("nav", "comment 17", "comment-list", "content main", "sidebar", "byline", "hidden-xs",
           "card product", "forum thread", "", "related")  # fmt: skip


def soup(seed: int) -> str:
    """A page of nested elements, not all of them closed."""
    rng = random.Random(seed)
    tags = TAGS_OF_SOUP.split()
    parts = [f"<title>{rng.choice(TEXTS)}</title>"] * rng.randrange(2)
    if rng.random() < 0.3:
        parts.append("<meta property=og:type content=article>")
    parts.append(f'<body class="{rng.choice(CLASSES)}">')
    open_tags: list[str] = []
    for _ in range(rng.randrange(1, 60)):
        what = rng.random()
        if what < 0.4:
            tag = rng.choice(tags)
            attributes = rng.choice(
                ("", "", f' class="{rng.choice(CLASSES)}"', " hidden", " href=/")
            )
            parts.append(f"<{tag}{attributes}>")
            open_tags.append(tag)
        elif what < 0.55 and open_tags:
            parts.append(f"</{open_tags.pop()}>")
        elif what < 0.62:
            parts.append("<br>")
        elif what < 0.66:
            parts.append("<img>")
        elif what < 0.75:
            parts.append(f" <a href=/x>{rng.choice(TEXTS)}</a> ")
        else:
            parts.append(rng.choice(TEXTS))
    return "".join(parts)


# --- tests ---------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_every_feature_is_what_its_name_says(seed):
    page = soup(seed)
    found, shape, blocks = described(page)
    assert found.dtype == np.float32
    assert found.shape == (len(FEATURES), len(blocks.blocks))
    if not len(blocks.blocks):
        return
    oracle = Oracle(page, blocks)
    assert all(set(FEATURES) == set(features) for features in oracle.found)
    expected = np.array([[float(features[name]) for features in oracle.found] for name in FEATURES])
    wrong = ~np.isclose(found, expected, rtol=1e-5, atol=1e-4)
    assert not wrong.any(), [
        (FEATURES[i], int(b), found[i, b], expected[i, b]) for i, b in np.argwhere(wrong)[:5]
    ]
    assert shape.words.tolist() == [len(own_words) for own_words in oracle.words]
    assert shape.num_nodes == len(oracle.nodes)
    for b, levels in enumerate(oracle.level_nodes):
        assert shape.levels[:, b].tolist() == (levels + [0] * MAX_LEVELS)[:MAX_LEVELS]
    assert sorted(set(shape.like.tolist())) == list(range(len(set(oracle.kinds))))
    assert len({*zip(shape.like.tolist(), oracle.kinds, strict=True)}) == len(set(oracle.kinds))


def test_features_have_names_of_their_own():
    assert len(set(FEATURES)) == len(FEATURES)
    assert len(set(SECOND_FEATURES)) == len(SECOND_FEATURES)
    assert not set(FEATURES) & set(SECOND_FEATURES)


def test_the_soup_has_what_features_tell_apart():
    """Or the comparison above would prove little: every feature must vary."""
    pages = [described(soup(seed))[0] for seed in range(400)]
    found = np.concatenate(pages, axis=1)
    constant = {FEATURES[i] for i in np.flatnonzero(found.min(axis=1) == found.max(axis=1))}
    told = {name for name in constant if not name.startswith(("says_", "named_", "page_is_"))}
    assert told <= {f"{part}_{name}" for part in ("page_named", "body_named")
                    for name in NAMES_OF_PAGES}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS_OF_PHRASES)
def test_each_kind_of_phrases_has_its_row(kind):
    for phrase in KINDS_OF_PHRASES[kind].split():
        (features,) = rows(f"<p>xx{phrase.replace('_', ' ')}xx")
        assert features[f"says_{kind}"] == 1


@pytest.mark.parametrize("kind", KINDS_OF_NAMES)
def test_each_kind_of_names_has_its_row(kind):
    name = KINDS_OF_NAMES[kind].split()[0].replace("|", " ")
    own, inner, outer = rows(
        f"<p class='{name}'>x</p><div class='{name}'><p>x</p></div>"
        f"<div class='{name}'><div><div><div><p>x"
    )
    assert [each[f"named_{kind}"] for each in (own, inner, outer)] == [3, 2, 1]
    (of_body,) = rows(f"<body class='{name}'><p>x")
    assert of_body[f"named_{kind}"] == 0
    if kind in NAMES_OF_PAGES:
        assert of_body[f"body_named_{kind}"] == 1
        assert own[f"page_named_{kind}"] == 1


@pytest.mark.parametrize("kind", KINDS_OF_PAGES)
def test_each_kind_of_pages_has_its_row(kind):
    name = KINDS_OF_PAGES[kind].split()[0].strip("|").replace("|", " ")
    name = name.replace("og type", "og:type") if name.startswith("og ") else f"generator {name}"
    (features,) = rows(f"<meta x='{name}'><p>x")
    assert features[f"page_is_{kind}"] == 1


def test_echoes_tell_copies():
    text = "one two three four five six seven eight"
    first, second, other = rows(f"<p>{text}<div>{text} nine</div><p>another text of five words")
    assert (first["own_echo"], first["own_echoed"]) == (0, 1)
    assert second["own_echo"] == pytest.approx(5 / 6)
    assert second["own_echoed"] == 0
    assert (other["own_echo"], other["own_echoed"]) == (0, 0)


def test_repeats_do_not_mind_case_and_punctuation():
    found = rows("<p>Read more<p>READ MORE!<p>read moré<p>no more")
    assert [features["own_repeats"] for features in found] == [2, 2, 2, 0]


def test_a_page_without_blocks_has_no_features():
    found, shape, _ = described("<p></p>")
    assert found.shape == (len(FEATURES), 0)
    assert describe_again(np.empty(0, np.float32), shape).shape == (len(SECOND_FEATURES), 0)


def test_a_page_gives_the_same_bits_after_any_other():
    pages = [soup(seed) for seed in range(60)]
    before = [described(page)[0].tobytes() for page in pages]
    assert [described(page)[0].tobytes() for page in reversed(pages)] == before[::-1]


def test_text_that_is_no_utf_8_is_described_too():
    page = np.frombuffer(b"<title>\xc2</title><p>a\xff\xe6\x9d b.<p>\xf0\x9f", np.uint8)
    found, shape = describe(page, parse(page))
    assert np.isfinite(found).all()
    assert shape.words.tolist() == [2, 0]


def test_many_blocks_alike_are_described_in_linear_time():
    """All runs of words the same, all elements alike; a square would take minutes."""
    page = "<div>" * 500 + "<p>x"
    found, _, _ = described(page + "<p>spam spam spam spam spam. " * 20_000)
    assert found.shape[1] == 20_001
    assert found[FEATURES.index("like_blocks"), 5] == 20_001


# --- what a first model made of it ---------------------------------------------------------------


@given(st.integers(0, 2**32), st.data())
@settings(max_examples=50)
def test_what_the_first_model_says_is_averaged(seed, data):
    page = soup(seed)
    _, shape, blocks = described(page)
    n = len(blocks.blocks)
    if not n:
        return
    likely = st.sampled_from([0.0, 0.1, 0.4999, 0.5, 0.6, 0.7, 0.75, 0.9, 1.0])
    first = np.array(data.draw(st.lists(likely, min_size=n, max_size=n)), np.float32)
    found = describe_again(first, shape)
    assert found.dtype == np.float32
    assert found.shape == (len(SECOND_FEATURES), n)
    p = first.tolist()
    weight = (shape.words + 1).tolist()
    oracle = Oracle(page, blocks)

    def mean(of: list[int]) -> float:
        return sum(p[k] * weight[k] for k in of) / sum(weight[k] for k in of)

    for b in range(n):
        expected = {"first": p[b]}
        for at in NEAR:
            expected[f"first_at_{at:+d}"] = p[b + at] if 0 <= b + at < n else -1
        for size in SECOND_WINDOWS:
            expected[f"first_window_{size}"] = mean([k for k in range(n) if abs(k - b) <= size])
        for level in range(1, MAX_LEVELS + 1):
            # a mean is over the blocks whose element of that level is the same
            nodes = [([*levels, 0, 0, 0, 0])[level - 1] for levels in oracle.level_nodes]
            expected[f"first_level_{level}"] = mean([k for k in range(n) if nodes[k] == nodes[b]])
        expected["first_like"] = mean([k for k in range(n) if oracle.kinds[k] == oracle.kinds[b]])
        expected["first_page"] = mean(list(range(n)))
        num_words = shape.words.sum()
        expected["first_page_share"] = share(shape.words[first > 0.5].sum(), num_words)
        whole = sum(p[k] * weight[k] for k in range(n))
        expected["first_before"] = share(sum(p[k] * weight[k] for k in range(b)), whole)
        expected["first_after"] = share(sum(p[k] * weight[k] for k in range(b + 1, n)), whole)
        sure = [k for k in range(n) if first[k] > block_features.SURE]
        expected["blocks_from_sure_before"] = min((b - k for k in sure if k < b), default=1000)
        expected["blocks_from_sure_after"] = min((k - b for k in sure if k > b), default=1000)
        assert dict(zip(SECOND_FEATURES, found[:, b].tolist(), strict=True)) == pytest.approx(
            expected, rel=1e-5, abs=1e-5
        )
