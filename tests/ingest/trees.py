"""Pages made as trees, with what a parser must find in them: the oracle walks the tree, no tags.

`pages()` draws a tree that is well-formed by the content model of HTML, so that no tag implies the
end of another. `expected(tree)` are its blocks and nodes; `html_of(tree)` is its source.
"""

import html
from typing import Any, NamedTuple

from hypothesis import strategies as st

INLINE = frozenset({"b", "em", "code"})
OF_BLOCKS = "div p ul ol li table tr td th h2 pre blockquote section article nav dl dt dd"
BLOCKS = frozenset(OF_BLOCKS.split())
LEFT_OUT = frozenset({"svg", "select", "g", "option"})
NO_NODE = INLINE | {"option"}


class Element(NamedTuple):
    """An element: its attributes, and in it elements, texts and what holds no text to be seen."""

    tag: str
    attributes: dict[str, str]
    children: list[Any]


class Unseen(NamedTuple):
    """Source without text: a comment, a script, a form control."""

    source: str


class Piece(NamedTuple):
    """A block as the tree has it."""

    text: str
    node: int
    link_bytes: int
    links: int
    images: int
    is_broken: bool
    is_verbatim: bool


class Expected(NamedTuple):
    """The blocks of a page, and the tag and parent of each of its nodes."""

    blocks: list[Piece]
    nodes: list[tuple[str, int]]


def html_of(tree: Any) -> str:
    if isinstance(tree, str):
        return html.escape(tree, quote=False)
    if isinstance(tree, Unseen):
        return tree.source
    attributes = "".join(f' {name}="{html.escape(v)}"' for name, v in tree.attributes.items())
    inside = "".join(map(html_of, tree.children))
    if tree.tag in ("br", "hr", "img"):
        return f"<{tree.tag}{attributes}>"
    return f"<{tree.tag}{attributes}>{inside}</{tree.tag}>"


class _Walk:
    def __init__(self) -> None:
        self.nodes: list[tuple[str, int]] = [("", -1)]
        self.blocks: list[Piece] = []
        self.characters: list[tuple[str, bool]] = []  # each with whether it stands in a link
        self.node = self.links = self.images = 0
        self.is_broken = self.is_verbatim = False

    def end(self, is_broken: bool = False) -> None:
        characters = self.characters
        if not self.is_verbatim:
            seen: list[tuple[str, bool]] = []
            has_space = False
            for character, in_link in characters:
                if character in " \t\n\r\f\xa0":
                    has_space = True
                    continue
                if has_space and seen:
                    seen.append((" ", in_link))
                has_space = False
                seen.append((character, in_link))
            characters = seen
        text = "".join(c for c, _ in characters)
        self.characters = []
        if text:
            link_bytes = sum(len(c.encode()) for c, in_link in characters if in_link)
            self.blocks.append(
                Piece(
                    text,
                    self.node,
                    link_bytes,
                    self.links,
                    self.images,
                    self.is_broken,
                    self.is_verbatim,
                )
            )
            self.links = self.images = 0
            self.is_broken = is_broken
        elif not is_broken:
            self.is_broken = False
        self.is_verbatim = False

    def write(self, text: str, node: int, in_link: bool, in_pre: bool) -> None:
        is_first = not any(in_pre or not c.isspace() for c, _ in self.characters)
        if is_first and text and (in_pre or text.strip(" \t\n\r\f\xa0")):
            self.node, self.is_verbatim = node, in_pre
        self.characters += [(c, in_link) for c in text]

    def visit(self, tree: Any, node: int, in_link: bool, in_pre: bool, is_seen: bool) -> None:
        if isinstance(tree, Unseen):
            return
        if isinstance(tree, str):
            if is_seen:
                self.write(tree, node, in_link, in_pre)
            return
        if tree.tag == "br":
            if in_pre:
                self.write("\n", node, in_link=False, in_pre=True)
            else:
                self.end(is_broken=True)
            return
        if tree.tag == "img":
            self.images += 1
            return
        is_block = tree.tag in BLOCKS
        if is_block or tree.tag == "hr":
            self.end()
        if tree.tag == "hr":
            return
        if tree.tag not in NO_NODE:
            self.nodes.append((tree.tag, node))
            node = len(self.nodes) - 1
        if tree.tag == "a" and "href" in tree.attributes:
            in_link = True
            self.links += 1
        for child in tree.children:
            self.visit(
                child,
                node,
                in_link,
                in_pre or tree.tag == "pre",
                is_seen and tree.tag not in LEFT_OUT,
            )
        if is_block:
            self.end()


def expected(tree: Element) -> Expected:
    walk = _Walk()
    walk.visit(tree, 0, in_link=False, in_pre=False, is_seen=True)
    walk.end()
    return Expected(walk.blocks, walk.nodes)


# --- strategies ----------------------------------------------------------------------------------

WORDS = ["one", "Two", "three.", "<tag>", "a&b", "&amp;", "4,000", "naïve", "東京", "мир", "😀"]
SPACES = (" ", "\n", "\t ", "\xa0", "\r\n", "  ", "")
UNSEEN = (
    "<!-- a comment <p>no</p> -->",
    "<!-->",
    "<!doctype html>",
    "<script>if (a < b) { '<p>no</p>' }</script>",
    "<style>p > a { color: red }</style>",
    "<textarea>no</textarea>",
    "<input value=no>",
    "<iframe><p>no</p></iframe>",
)
CLASSES = ("", "nav", "content", "comment 12", "comment 7", "hidden-xs topAd")

words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6)


@st.composite
def texts(draw: st.DrawFn) -> str:
    found = draw(st.sampled_from(SPACES))
    for word in draw(words):
        found += word + draw(st.sampled_from(SPACES))
    return found


unseen = st.sampled_from(UNSEEN).map(Unseen)


def element(tag: str, children: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[Element]:
    if tag == "a":
        attributes = st.sampled_from([{"href": "/x?a=1&b=2"}, {"name": "here"}, {}])
    else:
        attributes = st.sampled_from([{}, *({"class": name} for name in CLASSES)])
    return st.builds(Element, st.just(tag), attributes, children.map(apart))


def apart(children: list[Any]) -> list[Any]:
    """Two texts in a row would be one to a parser."""
    found: list[Any] = []
    for child in children:
        if found and isinstance(child, str) and isinstance(found[-1], str):
            found.append(Element("b", {}, [child]))
        else:
            found.append(child)
    return found


def several(*strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.one_of(strategies), min_size=1, max_size=5)


line_break = st.just(Element("br", {}, []))
image = st.just(Element("img", {"alt": "no"}, []))
words_only = several(texts(), element("b", several(texts())), element("x-y", several(texts())))
dropped = st.one_of(
    element("svg", several(texts(), element("g", several(texts())))),
    element("select", several(element("option", several(texts())))),
)
link = element("a", words_only)
phrase = element("span", several(texts(), link, element("em", words_only), dropped))
lines = element("b", st.tuples(texts(), line_break, texts(), line_break, link).map(list))
inline = (texts(), link, lines, phrase, unseen, line_break, image, dropped)
verbatim = st.lists(
    st.sampled_from(("x = 1", "  if a < b:\n", "\n\n\treturn &amp;", "end")).map(
        lambda text: text if text[0] != "\n" else "." + text
    )
    | line_break
    | element("span", st.lists(st.sampled_from(["k", "  v "]), max_size=1))
    | element("a", st.lists(st.just("ref"), max_size=1)),
    max_size=5,
)
leaf = st.one_of(
    *inline,
    element("p", several(*inline)),
    element("h2", several(*inline)),
    element("pre", verbatim),
    st.just(Element("hr", {}, [])),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    flow = several(inner, leaf, lines)
    cells = several(element("td", flow), element("th", flow))
    return st.one_of(
        *(element(tag, flow) for tag in ("div", "section", "article", "nav", "blockquote")),
        *(element(tag, several(element("li", flow), unseen)) for tag in ("ul", "ol")),
        element("table", several(element("tr", cells))),
        element("dl", several(element("dt", several(*inline)), element("dd", flow))),
    )


def pages() -> st.SearchStrategy[Element]:
    return element("div", several(st.recursive(leaf, containers, max_leaves=20), texts()))
