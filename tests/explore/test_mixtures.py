"""What a release takes, against plain Python over the rows of the mixture."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import made_lake
import pytest

from curation.engine.lake import Lake
from curation.errors import NotCommitted
from curation.explore import mixtures

Rows = Callable[..., list[dict[str, Any]]]


@pytest.mark.parametrize("keys", [("component",), ("component", "stratum")])
def test_tokens_are_those_of_the_documents(connection: Any, rows: Rows, keys: tuple) -> None:
    available, taken, documents = Counter(), Counter(), Counter()  # type: ignore[var-annotated]
    for row in trained(rows):
        key = tuple(row[name] for name in keys)
        documents[key] += 1
        available[key] += row["num_tokens"] + 1
        taken[key] += tokens(row)
    by = mixtures.by_component if keys == ("component",) else mixtures.by_stratum
    found = by(connection, made_lake.RELEASE)
    assert len(found) == len(documents)
    for row in found.to_dict("records"):
        key = tuple(row[name] for name in keys)
        assert row["num_documents"] == documents[key]
        assert (row["available_tokens"], row["tokens"]) == (available[key], taken[key])
        assert row["epochs"] == pytest.approx(taken[key] / available[key])
        assert row["realised"] == pytest.approx(taken[key] / taken.total())
        if keys == ("component",):
            assert row["target"] == made_lake.TARGETS[row["component"]]
    if keys == ("component",):
        (axes,) = mixtures.mixture_figure(found).axes
        widths = [bar.get_width() for bar in axes.patches]
        assert widths == pytest.approx(
            [100 * share for name in ("available", "target", "realised") for share in found[name]]
        )


def test_repeats_and_hosts(connection: Any, rows: Rows) -> None:
    found = mixtures.repeats(connection, made_lake.RELEASE)
    expected = Counter((row["component"], row["copies"]) for row in trained(rows))
    assert {(r.component, r.copies): r.num_documents for r in found.itertuples()} == dict(expected)
    host = {row["doc_id"]: row["host"] for row in rows("tokens")}
    by_host: Counter[tuple[str, str]] = Counter()
    for row in trained(rows):
        by_host[host[row["doc_id"]], row["component"]] += tokens(row)
    most = sorted(by_host.items(), key=lambda item: (-item[1], item[0]))[:4]
    hosts = mixtures.hosts(connection, made_lake.RELEASE, 4)
    assert [((r.host, r.component), r.num_tokens) for r in hosts.itertuples()] == most


def test_a_lake_without_a_release_is_named(lake: Lake, tmp_path) -> None:
    assert mixtures.releases(lake) == [made_lake.RELEASE]
    account = mixtures.account(lake, made_lake.RELEASE)
    assert account["num_tokens"].tolist() == [7, 5, 2]
    with pytest.raises(NotCommitted, match="--release NAME"):
        mixtures.releases(Lake.create(tmp_path / "empty"))


def trained(rows: Rows) -> list[dict[str, Any]]:
    return [row for row in rows("mixture") if row["split"] == "train"]


def tokens(row: dict[str, Any]) -> int:
    return int(row["copies"] * (row["num_tokens"] + 1) + row["partial_tokens"])
