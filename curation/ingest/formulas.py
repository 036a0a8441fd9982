r"""Mathematics in HTML -> TeX in the text: what extraction engines drop or print twice.

An engine sees a formula as TeX between \( \) or \[ \], whatever the page made of it:

    <script type="math/tex">          its text (MathJax 2; the rendering beside it goes)
    <annotation encoding="...tex">    its text (KaTeX, Wikipedia, LaTeXML; the rendering goes)
    <math alttext="...">              the alternative text (LaTeXML)
    <math>                            a linear reading: \frac{a}{b}, x_{1}, \sqrt{2}
    <img class="latex" alt="...">     the alternative text (WordPress, old wikis)

TeX that stands in the text, between $ $ or \( \), needs nothing.
"""

import html
import re

from resiliparse.parse.html import DOMNode, HTMLTree

from curation.ingest.metadata import attributes_of

TAG = re.compile(r"<(/?)(math|script|span|mjx-container|img)\b([^<>]*)>", re.I)
LATEX_IMAGE = re.compile(r"<img\b[^<>]*latex", re.I)
DISPLAY = re.compile(r"""mode=display|display\s*=\s*["']?block|display\s*=\s*["']?true""", re.I)
# Of a class attribute.
RENDERED = re.compile(r"\b(katex-html|MathJax(?:_Preview|_SVG|_CHTML)?)\b")
IMAGE = re.compile(r"(?<!\S)(?:latex|tex)(?!\S)", re.I)
ANNOTATION = re.compile(r"<annotation\s([^<>]*)>", re.I)
TEX_ENCODING = re.compile(r"\s*(?:application/x-)?(?:la)?tex\b", re.I)
ELEMENT = re.compile(r"<[^<>]*>")
CDATA = re.compile(r"(?:%[ \t]*)?(?:<!\[CDATA\[|\]\]>)")
# A survey article has about 2,000 formulas of some 1,000 characters. What is beyond these bounds
# is left to the engine, or read as its text.
MAX_FORMULAS = 20_000
MAX_CHARS = 20_000
MAX_DEPTH = 50

FORMS = {  # element: number of its parts, and how they are written
    "mfrac": (2, "\\frac{{{}}}{{{}}}"),
    "mover": (2, "{}^{{{}}}"),
    "mroot": (2, "\\sqrt[{1}]{{{0}}}"),
    "msub": (2, "{}_{{{}}}"),
    "msubsup": (3, "{}_{{{}}}^{{{}}}"),
    "msup": (2, "{}^{{{}}}"),
    "munder": (2, "{}_{{{}}}"),
    "munderover": (3, "{}_{{{}}}^{{{}}}"),
}


def tex(page: str) -> str:
    """Return a page whose formulas stand in it as TeX, escaped for HTML. Linear in its length."""
    if not _has_formulas(page):
        return page
    has_source = "math/tex" in page
    parts: list[str] = []
    at = 0
    dropped: tuple[str, int] | None = None  # element whose rendering is left out, and its depth
    unclosed: set[str] = set()
    num_formulas = 0
    for tag in TAG.finditer(page):
        if tag.start() < at:
            continue
        if num_formulas > MAX_FORMULAS:
            break
        name, attributes = tag[2].lower(), tag[3]
        if dropped and name == dropped[0]:
            depth = dropped[1] + (-1 if tag[1] else 1)
            dropped = (name, depth) if depth else None
            if dropped is None:
                at = tag.end()
            continue
        if tag[1] or name in unclosed or (dropped and dropped[0] == "span"):
            continue
        formula = None
        end = tag.end()
        if name == "math" or (name == "script" and "math/tex" in attributes):
            close = page.find(f"</{tag[2]}", end)
            if close < 0:
                unclosed.add(name)
                continue
            inner = page[end:close]
            formula = _read(tag[0], inner) if name == "math" else _of_script(inner)
            end = page.find(">", close) + 1 or len(page)
        elif name == "img" and "tex" in attributes.lower():
            stated = attributes_of(attributes)
            if IMAGE.search(stated.get("class", "")) and "alt" in stated:
                formula = stated["alt"].strip("$")
        elif name == "mjx-container" or (
            name == "span"
            and ("katex" in attributes or "MathJax" in attributes)
            and (rendered := RENDERED.search(attributes_of(attributes).get("class", "")))
            and (rendered[1] == "katex-html" or has_source)
        ):
            dropped = (name, 1)
            parts.append(page[at : tag.start()])
            continue
        if formula is None:
            continue
        num_formulas += 1
        if not dropped:
            parts.append(_shown(page[at : tag.start()]))
        parts.append(_delimited(formula, display=DISPLAY.search(attributes) is not None))
        at = end
    if dropped:  # a rendering that never closes
        return page
    return "".join((*parts, page[at:]))


def _has_formulas(page: str) -> bool:
    """Return whether it is worth reading a page tag by tag: few are. 0.2 ms for 200 kB.

    What ends with a rare letter is found fast.
    """
    return (
        "</math>" in page
        or "math/tex" in page
        or ("latex" in page and LATEX_IMAGE.search(page) is not None)
        or 'class="tex"' in page
    )


def _shown(before: str) -> str:
    # the wrapper of a formula for screen readers only is hidden by style or class
    start = before.rfind("<span")
    if start >= 0 and before.find(">", start) == len(before) - 1:
        return before[:start] + "<span>"
    return before


def _of_script(inner: str) -> str:
    return html.unescape(CDATA.sub("", inner))


def _delimited(formula: str, display: bool) -> str:
    formula = " ".join(formula.split())
    if not formula:
        return ""
    text = f"\\[{formula}\\]" if display else f"\\({formula}\\)"
    return html.escape(text, quote=False)


def _read(tag: str, inner: str) -> str:
    """Return the TeX of a <math> element: its annotation's, its alternative text, or a reading."""
    for annotation in ANNOTATION.finditer(inner):
        if not TEX_ENCODING.match(attributes_of(annotation[1]).get("encoding", "")):
            continue
        end = inner.find("</annotation", annotation.end())
        if end >= 0 and (source := html.unescape(inner[annotation.end() : end]).strip()):
            return source
        break
    stated = attributes_of(tag)
    if source := (stated.get("alttext") or stated.get("alt") or "").strip():
        return source
    if len(inner) > MAX_CHARS:
        return html.unescape(ELEMENT.sub(" ", inner))
    tree = HTMLTree.parse(f"<math>{inner}</math>")
    math = tree.body.query_selector("math") if tree.body else None
    return "" if math is None else _linear(math, 0)


def _linear(node: DOMNode, depth: int) -> str:
    name = node.tag or ""
    if depth > MAX_DEPTH or not node.first_child or name in ("mi", "mn", "mo", "mtext", "ms"):
        return " ".join((node.text or "").split())
    if name in ("annotation", "annotation-xml"):
        return ""
    children = [
        child for child in node.child_nodes if child.tag != "#text" or (child.text or "").strip()
    ]
    parts = [_linear(child, depth + 1) for child in children]
    num_parts, form = FORMS.get(name, (0, ""))
    if form and len(parts) == num_parts:
        return form.format(*parts)
    if name == "msqrt":
        return f"\\sqrt{{{' '.join(parts)}}}"
    if name == "mtable":
        return " \\\\ ".join(parts)
    if name == "mtr":
        return " & ".join(parts)
    return " ".join(filter(None, parts))
