"""Rejections, histograms and thresholds, against plain Python and the filter's dry run."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import made_lake
import numpy as np
import pytest

from curation.config import Config, FilterConfig
from curation.engine.lake import Lake
from curation.engine.what_if import what_if
from curation.errors import NotCommitted, NotFound
from curation.explore import filters
from curation.quality.rules import PROFILES, load_profile, rules_of, settings_of

Rows = Callable[..., list[dict[str, Any]]]
RULES = {rule.name: rule for rule in made_lake.RULES}


@pytest.mark.parametrize("profile", PROFILES)
def test_rules_of_a_run_record_are_those_that_decided(profile: str) -> None:
    rules = load_profile(profile)
    rules = (*rules, replace(rules[0], name="off", bound="max", value=math.inf))
    found = rules_of(settings_of(rules))
    assert [replace(rule, source="", note="") for rule in found] == sorted(
        (replace(rule, source="", note="") for rule in rules), key=lambda rule: rule.name
    )


def test_the_lake_names_its_rules(lake: Lake, tmp_path) -> None:
    assert {name: rule.value for name, rule in filters.rules_in_force(lake).items()} == {
        name: rule.value for name, rule in RULES.items()
    }
    empty = Lake.create(tmp_path / "empty")
    with pytest.raises(NotCommitted, match="curation run CONFIG --to filter"):
        filters.rules_in_force(empty)
    empty.freeze_inputs("B-2021", 0, 500, [])
    empty.commit(replace(lake.records("filter")[0], dump="B-2021", settings={}))
    with pytest.raises(NotFound, match=r"without rules; name some in filter\.profiles"):
        filters.rules_in_force(empty)


def test_rejections_are_counted_by_rule_and_language(connection: Any, rows: Rows) -> None:
    lang = {row["doc_id"]: row["lang"] or "" for row in rows("signals")}
    broken, first, alone = Counter(), Counter(), Counter()  # type: ignore[var-annotated]
    for row in rows("rejects"):
        for rule in row["rules"]:
            key = (rule, lang[row["doc_id"]])
            broken[key] += 1
            first[key] += rule == row["rule"]
            alone[key] += len(row["rules"]) == 1
    found = {}
    for row in filters.rejections(connection).itertuples():
        found[row.rule, row.lang] = (row.num_broken, row.num_first, row.num_alone)
    assert found == {key: (broken[key], first[key], alone[key]) for key in broken}
    by_rule = Counter(row["rule"] for row in rows("rejects"))
    order = [rule.name for rule in filters.ranked(filters.rejections(connection), RULES)]
    assert order == sorted(RULES, key=lambda name: (-by_rule[name], name))


def test_histograms_count_every_number(connection: Any, rows: Rows) -> None:
    found = filters.histograms(connection, list(RULES.values()), num_languages=2)
    common = Counter(row["lang"] or "" for row in rows("signals")).most_common(2)
    assert set(found["lang"]) == {lang for lang, _ in common}
    assert set(found["signal"]) == {rule.signal for rule in RULES.values()}
    for (signal, lang), bins in found.groupby(["signal", "lang"]):
        edges = [*bins["low"], bins["high"].iloc[-1]]
        expected = [0] * len(bins)
        for row in rows("signals"):
            value = row[signal]
            if (row["lang"] or "") == lang and value is not None and not math.isnan(value):
                place = bisect_left(edges, value) - 1
                expected[min(max(place, 0), len(bins) - 1)] += 1
        assert bins["num_documents"].tolist() == expected
    drawn = filters.histogram_figure(found, list(RULES.values()))
    titles = [axes.get_title(loc="left") for axes in drawn.axes if axes.get_title(loc="left")]
    assert titles == [f"{rule.name}: {rule.bound} {rule.value:g}" for rule in RULES.values()]


@pytest.mark.parametrize("name", RULES)
def test_a_threshold_says_what_every_bound_changes(connection: Any, rows: Rows, name: str) -> None:
    rule = RULES[name]
    found = filters.threshold(connection, rule)
    assert rule.value in found.bounds
    signals = {row["doc_id"]: row for row in rows("signals")}
    kept = [signals[row["doc_id"]] for row in rows("kept")]
    alone = [signals[r["doc_id"]] for r in rows("rejects") if r["rules"] == [name]]
    for bound in found.bounds:
        lost = [row for row in kept if _breaks(replace(rule, value=bound), row)]
        gained = [row for row in alone if not _breaks(replace(rule, value=bound), row)]
        change = found.change(bound).set_index("lang")
        for what, documents in (("newly_rejected", lost), ("newly_kept", gained)):
            assert change[f"num_{what}"].to_dict() == dict.fromkeys(change.index, 0) | dict(
                Counter(row["lang"] or "" for row in documents)
            )
            assert change[f"num_chars_{what}"].sum() == sum(row["num_chars"] for row in documents)
        assert change["num_kept_after"].sum() == change["num_kept"].sum() + len(gained) - len(lost)
    unchanged = found.change(rule.value)
    assert not unchanged[["num_newly_rejected", "num_newly_kept"]].to_numpy().any()


@pytest.mark.parametrize("name", ["gopher_min_words", "gopher_max_duplicate_5gram"])
def test_a_threshold_agrees_with_the_dry_run(connection: Any, lake: Lake, name: str) -> None:
    found = filters.threshold(connection, RULES[name])
    for bound in found.bounds[::9]:
        text = "".join(
            f"[rules.{r.name}]\nsignal = '{r.signal}'\n{r.bound} = "
            f"{bound if r.name == name else r.value}\nsource = 'a test'\n"
            + (f"languages = {list(r.languages)}\n" if r.languages else "")
            for r in RULES.values()
        )
        path = lake.path.parent / "rules.toml"
        path.write_text(text)
        config = Config(lake="", dumps=(), filter=FilterConfig(profiles=(str(path),)))
        changes = what_if(lake, config).changes
        change = found.change(bound)
        assert change["num_newly_rejected"].sum() == sum(c.documents_lost for c in changes)
        assert change["num_newly_kept"].sum() == sum(c.documents_gained for c in changes)


def test_samples_are_of_what_changes(connection: Any, lake: Lake, rows: Rows) -> None:
    rule = RULES["gopher_min_words"]
    found = filters.threshold(connection, rule)
    bound = found.bounds[found.bounds.index(rule.value) + 12]
    html = found.samples(bound, lake)._repr_html_()
    stricter = replace(rule, value=bound)
    signals = {row["doc_id"]: row for row in rows("signals")}
    kept = {row["doc_id"] for row in rows("kept")}
    ids = [doc_id for doc_id in signals if f">{doc_id}</td>" in html]
    assert len(ids) == filters.NUM_SAMPLES
    for doc_id in ids:
        assert doc_id in kept and _breaks(stricter, signals[doc_id])
        assert f">{signals[doc_id]['num_words']}</td>" in html
    assert "newly rejected" in html and "num_words" in html
    assert "&lt;b&gt;" in html and "<b>" not in html and "<i>" not in html
    steps = found.steps["examples"].map(len)
    assert steps.max() <= filters.NUM_EXAMPLES


def test_bars_of_a_threshold_are_its_documents(connection: Any) -> None:
    for name in RULES:
        found = filters.threshold(connection, RULES[name])
        known = found.steps[found.steps["place"] >= 0]
        for bound in (found.bounds[0], found.bounds[-1]):
            (axes,) = found.figure(bound).axes
            heights = sum(bar.get_height() for bar in axes.patches)
            assert heights == known["num_documents"].sum()


def test_another_bound_is_refused_or_measured(connection: Any) -> None:
    rule = RULES["gopher_min_words"]
    with pytest.raises(NotFound, match=r"not measured at 51\.5; .*threshold\(connection, rule"):
        filters.threshold(connection, rule).change(51.5)
    found = filters.threshold(connection, rule, [51.5])
    assert found.bounds == [50.0, 51.5]
    assert found.change(51.5)["num_newly_rejected"].sum() >= 0


def test_the_slider_has_every_bound(connection: Any, lake: Lake) -> None:
    pytest.importorskip("ipywidgets", reason="needs ipywidgets, of the extra notebooks")
    found = filters.threshold(connection, RULES["gopher_min_words"])
    made = filters.slider(found, lake)
    choices = made.children[0]
    assert [value for _, value in choices.options] == list(found.bounds)
    assert choices.value == found.rule.value


def _breaks(rule: Any, row: dict[str, Any]) -> bool:
    value = row[rule.signal]
    if value is None or math.isnan(value):
        return False
    if rule.languages is not None and row["lang"] not in rule.languages:
        return False
    return bool(value < rule.value if rule.bound == "min" else value > np.float64(rule.value))
