"""The pictures of the README, from the demo: `make run train-demo`, then this script.

    python notebooks/pictures/make.py [--demo out/demo] [--to notebooks/pictures]

Needs the extras `notebooks` and `dev`, and Chromium. What is drawn is what the notebooks draw.
"""

import argparse
import base64
import io
import shutil
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from playwright.sync_api import sync_playwright

import curation
from curation.explore import filters, mixtures, tables, training, twins

WIDTH = 1000  # CSS pixels
DPI = 88  # two figures beside each other
NUM_COLORS = 128  # of a file: there are no photographs
TOP = "vertical-align: top"
STYLE = f"font: 14px sans-serif; padding: 8px; display: inline-block; {TOP}"
PAIR = """
    SELECT twin_id, doc_id FROM duplicates JOIN documents AS page USING (doc_id)
    JOIN documents AS twin ON twin.doc_id = twin_id
    WHERE kind = 'near'
    ORDER BY
        regexp_matches(page.text || twin.text, '\\p{Han}'),  -- not every machine has such a font
        length(page.text) NOT BETWEEN 450 AND 800, similarity, doc_id
    LIMIT 1
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("out/demo"))
    parser.add_argument("--to", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
        browser = playwright.chromium.launch(executable_path=found, chromium_sandbox=False)
        context = browser.new_context(viewport={"width": WIDTH, "height": 400})
        page = context.new_page()
        page.goto((options.demo / "report.html").resolve().as_uri())
        curve = page.locator("#dedup figure").first.bounding_box()
        assert curve, "the report has no curve"
        clip: Any = {"x": 0, "y": 0, "width": WIDTH, "height": curve["y"] + curve["height"] + 12}
        save(page.screenshot(full_page=True, clip=clip), options.to / "report.png")
        page = context.new_page()  # without the policy of the report, which lets nothing load
        for name, html in shown(options.demo).items():
            page.set_content(f'<div style="{STYLE}">{html}</div>')
            save(page.locator("div").first.screenshot(), options.to / f"{name}.png")
        browser.close()


def shown(demo: Path) -> dict[str, str]:
    """Return by name what is shown of the demo, as HTML."""
    lake = curation.open(demo / "lake")
    connection = tables.connect(lake)
    ranked = filters.ranked(filters.rejections(connection), filters.rules_in_force(lake))[:8]
    signals = filters.histogram_figure(filters.histograms(connection, ranked), ranked)
    similar = twins.similarity_figure(twins.similarities(connection))
    twin_id, doc_id = connection.execute(PAIR).fetchall()[0]
    release = mixtures.releases(lake)[-1]
    mixture = mixtures.mixture_figure(mixtures.by_component(connection, release))
    return {
        "filters": images(signals),
        "dedup": images(twins.matrix_figure(lake), similar),
        "twins": twins.side_by_side(lake, twin_id, [doc_id]).html,
        "mixture": images(mixture),
        "training": images(training.loss_figure(training.read_runs(demo / "train"))),
    }


def images(*figures: Figure) -> str:
    """Return figures beside each other as HTML."""
    source = "data:image/png;base64,"
    return "".join(f'<img style="{TOP}" src="{source}{encoded(each)}">' for each in figures)


def encoded(figure: Figure) -> str:
    """Return the base64 of a figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return base64.b64encode(file.getvalue()).decode()


def save(png: bytes, to: Path) -> None:
    """Write a PNG of few colours."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(NUM_COLORS, dither=Image.Dither.NONE).save(to, optimize=True)


if __name__ == "__main__":
    main()
