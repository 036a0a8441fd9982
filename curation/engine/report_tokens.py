"""The report's section on tokens: how many, and how long documents are, by domain and language."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from curation.engine.ledger import TOKEN_LENGTHS, Funnel
from curation.engine.pictures import COLORS, label, num, picture
from curation.quality.percentiles import cutoff

MAX_STRATA = 30  # rows of the table
MAX_LINES = 6  # of the picture
PERCENTILES = (10, 50, 90, 99)


@dataclass(frozen=True)
class Stratum:
    """The encoded documents of a domain and language."""

    name: str
    num_documents: int
    tokens: int
    num_bytes: int  # of text
    share: float  # of all tokens
    percentiles: Sequence[int]  # of the length, each the least of its bin; see PERCENTILES


def tokens_section(flow: Funnel) -> Mapping[str, Any] | None:
    """Return what the section shows; None where no stage that counts lengths has encoded."""
    encode = flow.total("encode")
    counts = encode.counts if encode else {}
    lengths = {
        name.removeprefix(f"{TOKEN_LENGTHS}:"): Counter({int(k): n for k, n in bins.items()})
        for name, bins in counts.items()
        if name.startswith(f"{TOKEN_LENGTHS}:")
    }
    if not lengths:
        return None
    tokens, sizes = counts["stratum_tokens"], counts["stratum_bytes"]
    ranked = sorted(lengths, key=lambda name: (-tokens[name], name))
    whole = sum(tokens.values())
    rows = [
        _stratum(name, lengths[name], tokens[name], sizes[name], whole)
        for name in ranked[:MAX_STRATA]
    ]
    every = sum(lengths.values(), Counter[int]())
    return {
        "rows": rows,
        "total": _stratum("all", every, whole, sum(sizes.values()), whole),
        "percentiles": PERCENTILES,
        "num_hidden": len(ranked) - len(rows),
        "picture": picture(
            "Documents by their length in tokens",
            7,
            _draw({name: lengths[name] for name in ranked[:MAX_LINES]}),
        ),
        "num_lines": min(len(ranked), MAX_LINES),
    }


def _stratum(
    name: str, lengths: Mapping[int, int], tokens: int, num_bytes: int, whole: int
) -> Stratum:
    return Stratum(
        name,
        sum(lengths.values()),
        tokens,
        num_bytes,
        tokens / max(whole, 1),
        [cutoff(lengths, percentile) for percentile in PERCENTILES],
    )


def _draw(lengths: Mapping[str, Mapping[int, int]]) -> Callable[[Axes], None]:
    """Draw the share of documents in each octave of lengths, a line for each name."""

    def draw(axes: Axes) -> None:
        colors = [name for name in COLORS if name != "ingest"]
        octaves = [max(n, 1).bit_length() - 1 for bins in lengths.values() for n in bins]
        places = range(min(octaves), max(octaves) + 1)
        for number, (name, bins) in enumerate(lengths.items()):
            counts = Counter[int]()
            for length, count in bins.items():
                counts[max(length, 1).bit_length() - 1] += count
            shares = [100 * counts[place] / counts.total() for place in places]
            color = COLORS[colors[number % len(colors)]]
            axes.plot(places, shares, color=color, marker="o", markersize=3, label=label(name))
        step = -(-len(places) // 10)
        axes.set_xticks(places[::step], [num(2**place) for place in places[::step]])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("tokens of a document, from this to twice as many")
        axes.set_ylabel("documents, %")
        axes.figure.legend(loc="outside upper left", ncols=3)

    return draw
