"""Duplicates of a made lake, against plain Python over its rows."""

import re
from collections import Counter
from collections.abc import Callable
from hashlib import md5
from typing import Any

import made_lake
import pytest

from curation.engine import duplication
from curation.engine.lake import Lake
from curation.engine.ledger import funnel
from curation.errors import NotCommitted, NotFound
from curation.explore import pages, twins

Rows = Callable[..., list[dict[str, Any]]]


def test_rates_and_the_curve(lake: Lake, rows: Rows) -> None:
    documents, gone = 0, 0
    for row in twins.by_dump(lake).itertuples():
        own = rows("duplicates", dump=row.dump)
        num = len(rows("documents", dump=row.dump))
        documents, gone = documents + num, gone + len(own)
        assert (row.num_documents, row.rate) == (num, len(own) / num)
        assert row.num_exact == sum(each["kind"] == "exact" for each in own)
        assert row.rate_together == gone / documents
    _, ours = twins.curve_figure(lake).axes[0].lines
    assert ours.get_ydata()[-1] == pytest.approx(100 * gone / documents)


def test_the_matrix_has_the_twins_of_every_dump(lake: Lake, rows: Rows) -> None:
    (image,) = twins.matrix_figure(lake).axes[0].images
    shown = image.get_array()
    for i, dump in enumerate(made_lake.DUMPS):
        counts = Counter(row["twin_dump"] for row in rows("duplicates", dump=dump))
        num = len(rows("documents", dump=dump))
        for k, twin in enumerate(made_lake.DUMPS):
            assert shown[i, k] == pytest.approx(100 * counts[twin] / num)


def test_similarities_are_binned(connection: Any, rows: Rows) -> None:
    near = [row["similarity"] for row in rows("duplicates") if row["kind"] == "near"]
    expected = Counter(min(int(100 * each // 1), 99) for each in near)
    found = twins.similarities(connection)
    assert {round(100 * row.low): row.num_documents for row in found.itertuples()} == dict(expected)
    (axes,) = twins.similarity_figure(found).axes
    assert sum(bar.get_height() for bar in axes.patches) == len(near)


def test_the_largest_clusters_and_their_members(connection: Any, lake: Lake, rows: Rows) -> None:
    sizes = Counter(row["twin_id"] for row in rows("duplicates"))
    ranked = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:10]
    found = twins.largest(connection)
    assert list(zip(found["twin_id"], found["num_duplicates"], strict=True)) == ranked
    twin_id = ranked[0][0]
    duplicates = [row for row in rows("duplicates") if row["twin_id"] == twin_id]
    own = sorted((row["similarity"], row["doc_id"]) for row in duplicates)
    members = twins.members(connection, twin_id, 4)
    assert list(zip(members["similarity"], members["doc_id"], strict=True)) == own[:4]
    classes = twins.sizes(connection, lake)
    assert classes == duplication.clusters(lake, funnel(lake)).classes
    (axes,) = twins.sizes_figure(classes).axes
    assert sum(bar.get_width() for bar in axes.patches) == len(rows("documents"))


def test_pairs_are_the_same_every_time(connection: Any, rows: Rows) -> None:
    within = [
        row["doc_id"]
        for row in rows("duplicates")
        if row["kind"] == "near" and 0.85 <= row["similarity"] <= 0.95
    ]
    within.sort(key=lambda doc_id: md5(str(doc_id).encode()).hexdigest())
    assert twins.pairs(connection, 0.85, 0.95, 5)["doc_id"].tolist() == within[:5]


def test_texts_stand_side_by_side(connection: Any, lake: Lake, rows: Rows) -> None:
    pair = twins.pairs(connection, num=1).iloc[0]
    html = twins.side_by_side(lake, pair["twin_id"], [pair["doc_id"]])._repr_html_()
    urls = {row["doc_id"]: row["url"] for row in rows("documents")}
    for doc_id in (pair["twin_id"], pair["doc_id"]):
        assert urls[doc_id].replace("<b>", "&lt;b&gt;") in html
    added = re.findall(f'<span style="{pages.ADDED}">([^<]*)</span>', html)
    assert any("other" in words for words in added)  # what a made near duplicate has more
    with pytest.raises(NotFound, match=f"{77 + (1 << 29)} is no document"):
        twins.side_by_side(lake, pair["twin_id"], [77 + (1 << 29)])


def test_a_lake_that_is_not_deduplicated_is_named(tmp_path) -> None:
    empty = Lake.create(tmp_path / "empty")
    for show in (twins.by_dump, twins.curve_figure, twins.matrix_figure):
        with pytest.raises(NotCommitted, match="curation run CONFIG --to dedup"):
            show(empty)
