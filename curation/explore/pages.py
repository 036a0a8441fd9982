"""What a notebook shows of pages: HTML in which everything that came from a page is escaped."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from curation.engine.lake import Lake
from curation.engine.ledger import documents_of

MAX_CHARS = 600  # of a text beside others
MAX_COMPARED_CHARS = 3000  # of each of two texts: differences cost the product of their words
MAX_WORDS = 800  # of each of two texts

REMOVED = "background: #f6c7bd; color: black"
ADDED = "background: #bfe5d3; color: black"
CELL = "text-align: left; vertical-align: top; white-space: pre-wrap; overflow-wrap: anywhere"


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
        text = excerpt(page.get("text") or "", MAX_CHARS)
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
    left, right = [Markup("")], [Markup("")]
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        for side, words, style in ((left, old[a:b], REMOVED), (right, new[c:d], ADDED)):
            if kind == "equal":
                side.append(Markup("{} ").format(" ".join(words)))
            elif words:
                side.append(Markup('<span style="{}">{}</span> ').format(style, " ".join(words)))
    return Markup("").join(left), Markup("").join(right)


def _words(text: str) -> list[str]:
    return excerpt(text, MAX_COMPARED_CHARS).split()[:MAX_WORDS]


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
