"""What a notebook shows of pages: HTML in which everything that came from a page is escaped."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from curation.engine.lake import Lake
from curation.engine.ledger import documents_of

MAX_CHARS = 500  # of a text among others
MAX_COMPARED_CHARS = 3000  # of each of two texts: differences cost the product of their words
MAX_WORDS = 1200  # of each of two texts

# A character of Chinese or Japanese is a word, as for dedup; white space goes with what it follows.
_CJK = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]\s*|[^\s{_CJK}]+\s*")

REMOVED = "background: #f6c7bd; color: black"
ADDED = "background: #bfe5d3; color: black"
CELL = "text-align: left; vertical-align: top; overflow-wrap: anywhere; min-width: 5em"
TEXT = "white-space: pre-wrap"


@dataclass(frozen=True)
class Html:
    """Safe HTML that Jupyter shows."""

    html: str

    def _repr_html_(self) -> str:
        return self.html


def documents(
    lake: Lake, rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str] | None = None
) -> Html:
    """Show documents: the columns of `rows`, of which one is doc_id, with URL and start of text.

    `titles` name columns otherwise.

    Cost: of the files that hold the documents, the row groups that do.
    """
    known = documents_of(lake, [int(row["doc_id"]) for row in rows], ["url", "text"])
    columns = [*(rows[0] if rows else ()), "url", "text"]
    found: list[list[object]] = []
    for row in rows:
        page = known.get(int(row["doc_id"]), {})
        text = " ".join(excerpt(page.get("text") or "", MAX_CHARS).split())
        found.append([*map(_shown, row.values()), page.get("url") or "", text])
    return table([(titles or {}).get(name, name) for name in columns], found)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """Show cells as a table; what is no Markup is escaped."""
    head = Markup("").join(
        Markup('<th style="text-align: left">{}</th>').format(c) for c in columns
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup('<td style="{}">{}</td>').format(CELL, cell) for cell in row)
        )
        for row in rows
    )
    return Html(Markup("<table><tr>{}</tr>{}</table>").format(head, body))


def excerpt(text: str, num_chars: int) -> str:
    """Return the start of a text."""
    return text if len(text) <= num_chars else text[:num_chars] + "..."


def differences(before: str, after: str) -> tuple[Markup, Markup]:
    """Return two texts, escaped, with the words that only one of them has highlighted."""
    old, new = _words(before), _words(after)
    sides = [Markup("")], [Markup("")]
    matcher = difflib.SequenceMatcher(
        None, [word.rstrip() for word in old], [word.rstrip() for word in new], autojunk=False
    )
    for kind, a, b, c, d in matcher.get_opcodes():
        for side, words, style in zip(sides, (old[a:b], new[c:d]), (REMOVED, ADDED), strict=True):
            if kind == "equal":
                side.append(escape("".join(words)))
            elif words:
                side.append(Markup('<span style="{}">{}</span>').format(style, "".join(words)))
    return Markup("").join(sides[0]), Markup("").join(sides[1])


def _words(text: str) -> list[str]:
    return _WORD.findall(excerpt(text, MAX_COMPARED_CHARS))[:MAX_WORDS]


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
