"""Checks of data quality on run records: both sides of every bound, and the distance."""

import random
from collections import Counter

import pytest
from run_records import made

from curation.engine.checks import RULE_STAGES, Bounds, distance, judge
from curation.engine.lake import Lake
from curation.engine.ledger import PERPLEXITY_BINS
from curation.engine.stages import STAGES
from curation.errors import NotFound


@pytest.fixture
def lake(tmp_path) -> Lake:
    made = Lake.create(tmp_path / "lake")
    for ordinal, dump in enumerate(("A", "B")):
        made.freeze_inputs(dump, ordinal, 500, [])
    return made


def committed(lake: Lake, stage: str, dump: str, num_in: int, kept: int, **counts) -> None:
    slice = "all" if STAGES[stage].whole_dump else "0000"
    lake.commit(made(stage, dump, slice, num_in, kept, counts=counts))


def finished(lake: Lake, dump: str, retained: int, kept: int) -> None:
    committed(lake, "ingest", dump, retained, retained)
    committed(lake, "dedup", dump, retained, retained)
    committed(lake, "encode", dump, kept, kept)


def alarms(lake: Lake, *dumps: str, **bounds) -> list[str]:
    return [each.what for each in judge(lake, dumps, Bounds(**bounds)) if each.is_alarm]


def test_documents_kept_have_a_floor(lake: Lake) -> None:
    finished(lake, "A", 200, 2)
    assert alarms(lake, min_kept=2) == []
    assert alarms(lake, min_kept=3) == ["documents kept"]
    assert alarms(lake, min_kept=0, min_kept_share=0.01) == []
    assert alarms(lake, min_kept=0, min_kept_share=0.011) == ["share kept after dedup"]
    assert alarms(lake, min_kept_share=1, min_documents=201) == []


def test_a_dump_on_its_way_is_no_empty_dump(lake: Lake) -> None:
    committed(lake, "ingest", "A", 200, 200)
    committed(lake, "dedup", "A", 200, 200)
    assert judge(lake) == []


@pytest.mark.parametrize("stage", RULE_STAGES)
def test_no_rule_may_take_nearly_all(lake: Lake, stage: str) -> None:
    committed(lake, stage, "A", 200, 10, rejects={"few": 10, "wild": 180})
    assert alarms(lake, max_rule_share=0.9) == []
    assert alarms(lake, max_rule_share=0.89) == [f"{stage}/wild"]
    assert alarms(lake, max_rule_share=0.04) == [f"{stage}/wild", f"{stage}/few"]
    assert alarms(lake, max_rule_share=0.1, min_documents=201) == []
    (alarm,) = judge(lake, bounds=Bounds(max_rule_share=0.5))
    assert alarm.said == f"dump A: {stage}/wild is 0.9, above 0.5"


def test_drift_is_since_the_last_dump_with_the_language(lake: Lake) -> None:
    committed(lake, "annotate", "A", 200, 200, **{f"{PERPLEXITY_BINS}:en": {"10": 200}})
    both = {f"{PERPLEXITY_BINS}:en": {"10": 50, "20": 150}, f"{PERPLEXITY_BINS}:zh": {"9": 200}}
    committed(lake, "annotate", "B", 400, 400, **both)
    assert alarms(lake, max_drift=0.75) == []
    assert alarms(lake, max_drift=0.74) == ["drift of perplexity of en since A"]
    assert alarms(lake, "A", max_drift=0) == []
    assert alarms(lake, max_drift=0, min_documents=201) == []


def test_the_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    """Against the definition, on the samples themselves: the greatest gap of the two shares."""
    rng = random.Random(0)
    for _ in range(20):
        left, right = ([rng.randrange(9) for _ in range(rng.randrange(1, 30))] for _ in range(2))
        gaps = [
            abs(sum(v <= at for v in left) / len(left) - sum(v <= at for v in right) / len(right))
            for at in range(9)
        ]
        assert distance(Counter(left), Counter(right)) == pytest.approx(max(gaps))


def test_an_unknown_dump_is_named(lake: Lake) -> None:
    with pytest.raises(NotFound, match="has no dump 'C'; it has A, B"):
        judge(lake, ["A", "C"])
