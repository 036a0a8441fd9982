"""What a report draws and writes: SVG that takes its colours from the page, numbers as text."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

MAX_LABEL_CHARS = 32

COLORS = {
    "kept": "#2a9d6f",
    "ingest": "#8a8f98",
    "dedup": "#3b7dd8",
    "lines": "#1aa3a3",
    "filter": "#d98e04",
    "decontaminate": "#c8503c",
    "encode": "#b05cc6",
    "muted": "#7b8089",
}
"""Name of a CSS variable -> the colour that matplotlib draws; the page sets light and dark ones."""

FIGURE_WIDTH = 5.4  # inches, 518 CSS pixels: on a phone its text is still 9 pixels high
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.0,
    "font.family": ["sans-serif"],
    "text.parse_math": False,  # a name may hold a dollar sign
    "axes.edgecolor": COLORS["muted"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": COLORS["muted"],
    "grid.alpha": 0.25,
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.2,
}


def picture(title: str, num_rows: float, draw: Callable[[Axes], None]) -> Markup:
    """Draw an SVG element of `num_rows` rows that takes its colours and font from the page."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        # The browser has the glyphs; matplotlib only measures with a font of its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawn = figure(num_rows, draw)
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        drawn.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    svg = buffer.getvalue()
    _, view, body = re.split(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', svg, maxsplit=1)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # ids of another picture are the same
    for name, color in COLORS.items():
        body = re.sub(f"(fill|stroke): {color}", rf"\1: var(--{name})", body)
    start = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(view, title)
    return start + Markup(body.rstrip())


def figure(num_rows: float, draw: Callable[[Axes], None]) -> Figure:
    """Draw a figure of `num_rows` rows in the style of reports."""
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(FIGURE_WIDTH, 1.1 + 0.3 * num_rows), layout="constrained")
        draw(drawn.subplots())
    return drawn


def bars(axes: Axes, labels: Sequence[str], longest: float, unit: str, room: float) -> None:
    """Dress a picture of horizontal bars, the first on top, with room for text right of them."""
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, max(longest, 1) * (1 + room))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: num(int(x))))
    axes.set_xlabel(unit)


def label(name: str) -> str:
    """Shorten a name to the width of a label."""
    name = " ".join(name.split())
    return name if len(name) <= MAX_LABEL_CHARS else name[: MAX_LABEL_CHARS - 3] + "..."


def breakable(name: str) -> Markup:
    """Let the name of a rule break behind an underscore, where a phone has no room for it."""
    return Markup("_<wbr>").join(name.split("_"))


# ---- numbers as text ---------------------------------------------------------------------------


def num(value: int) -> str:
    """Write a number with commas."""
    return f"{value:,}"


def short(value: int) -> str:
    """Write a number in at most five characters: 950, 1.2k, 45k, 3.1M."""
    units = ["", "k", "M", "G", "T"]
    shown, digits = float(value), 0
    while round(shown, digits) >= 1000 and len(units) > 1:
        shown /= 1000
        units.pop(0)
        digits = 1 if round(shown, 1) < 10 else 0
    return f"{shown:.{digits}f}{units[0]}"


def percent(share: float | None) -> str:
    """Write a share as percent, None as a dash."""
    return "-" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def rounded(value: str) -> str:
    """Shorten a decimal number; anything else stays."""
    return f"{float(value):.6g}" if re.fullmatch(r"[0-9]+\.[0-9]+", value) else value


def size(num_bytes: float) -> str:
    """Write bytes with the unit that fits."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while num_bytes >= 1000 and len(units) > 1:
        num_bytes /= 1000
        units.pop(0)
    digits = 0 if units[0] == "B" else 1
    return f"{num_bytes:.{digits}f}\N{NO-BREAK SPACE}{units[0]}"


def seconds(value: float) -> str:
    """Write seconds with the unit that fits."""
    if value < 100:
        return f"{value:.1f}\N{NO-BREAK SPACE}s"
    minutes, hours = value / 60, value / 3600
    if hours < 2:
        return f"{minutes:.0f}\N{NO-BREAK SPACE}min"
    return f"{hours:.1f}\N{NO-BREAK SPACE}h"
