"""What other rules would keep, against running the filter under them."""

import json

import pytest

from curation.engine.ledger import rejects_by_rule
from curation.engine.run import Selection, run
from curation.engine.what_if import what_if
from curation.errors import NotCommitted

pytestmark = pytest.mark.spark

OTHERS = [
    ("quality.min_words=120", "quality.min_words_zh=150"),
    ('filter.profiles=["deepseek"]',),
    ("filter.cut_lines=false",),
    pytest.param(("quality.demo_max_perplexity_percentile=50",), marks=pytest.mark.slow),
    pytest.param(
        ('filter.profiles=["c4"]', "quality.c4_max_left_braces=inf"), marks=pytest.mark.slow
    ),
]


def kept_of(lake) -> dict[int, int]:
    rows = lake.table("kept").to_table(["doc_id", "num_chars"]).to_pylist()
    return {row["doc_id"]: row["num_chars"] for row in rows}


@pytest.mark.parametrize("overrides", OTHERS, ids=lambda o: o[0])
def test_the_dry_run_says_what_a_run_then_does(
    spark, configure, undisturbed, overrides: tuple[str, ...]
) -> None:
    config = configure(dumps=2)
    lake = run(config, Selection(last="filter"))
    before = kept_of(lake)
    lang = {
        row["doc_id"]: (row["dump"], row["lang"])
        for row in lake.table("signals").to_table(["doc_id", "lang", "dump"]).to_pylist()
    }
    files = sorted(lake.path.rglob("*"))
    other = configure(*overrides, dumps=2)
    found = what_if(lake, other)
    assert sorted(lake.path.rglob("*")) == files, "a dry run writes nothing"

    after = kept_of(run(other, Selection(last="filter")))
    assert {(c.dump, c.language) for c in found.changes} == set(lang.values())
    for change in found.changes:
        place = (change.dump, change.language)
        was = {i for i in before if lang[i] == place}
        stays = {i for i in after if lang[i] == place}
        assert (change.documents_before, change.documents_after) == (len(was), len(stays))
        assert (change.documents_gained, change.documents_lost) == (
            len(stays - was),
            len(was - stays),
        )
        assert change.chars_before == sum(before[i] for i in was)
        assert change.chars_after == sum(after[i] for i in stays)
        assert change.tokens_before is None  # nothing is encoded
    rules = rejects_by_rule(lake)["filter"]
    assert set(found.lost_by_rule) <= set(rules)
    assert sum(found.lost_by_rule.values()) == len(set(before) - set(after))


def test_tokens_are_estimated_by_those_of_the_language(undisturbed) -> None:
    config, lake, _ = undisturbed(4)
    found = what_if(lake, config)
    assert all(c.documents_gained == c.documents_lost == 0 for c in found.changes)
    tokens = lake.table("tokens").to_table(["doc_id", "num_tokens"]).to_pylist()
    assert sum(c.tokens_before for c in found.changes if c.tokens_before) == pytest.approx(
        sum(row["num_tokens"] for row in tokens), rel=0.1
    )  # a document that was cut by decontaminate has fewer
    assert found.lost_by_rule == {}


def test_a_takedown_stays(spark, configure, tmp_path) -> None:
    lake = run(configure(dumps=1), Selection(last="filter"))
    kept = sorted(kept_of(lake))
    documents = lake.table("documents").to_table(["doc_id", "url"]).to_pylist()
    url = next(row["url"] for row in documents if row["doc_id"] == kept[0])
    (tmp_path / "pages.txt").write_text(f"{url}\n")
    config = configure('filter.takedown=["pages.txt"]', dumps=1)
    lake = run(config, Selection(last="filter"))
    found = what_if(lake, configure('filter.takedown=["pages.txt"]', "filter.profiles=[]", dumps=1))
    total = lake.table("signals").count_rows()
    assert sum(change.documents_after for change in found.changes) == total - 1


def test_a_dump_without_decisions_is_named(spark, configure) -> None:
    config = configure(dumps=1)
    lake = run(config, Selection(last="annotate"))
    with pytest.raises(NotCommitted, match=r"DUMP-2021-bullseye has no decisions.*--to filter"):
        what_if(lake, config)


def test_the_command_shows_the_change(undisturbed, capsys) -> None:
    from curation import cli

    lake = undisturbed(4).lake
    toml = lake.path.parent.parent / f"{lake.path.parent.name}.toml"
    call = ["filter", str(toml), "--dry-run", "--set", "quality.min_words=200"]
    cli.app(call, standalone_mode=False)
    shown = capsys.readouterr().out
    assert "would be lost by gopher_min_words" in shown
    cli.app([*call, "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert sum(change["documents_lost"] for change in found["changes"]) == sum(
        found["lost_by_rule"].values()
    )
