"""Agreement with datatrove: what is stored is whole, and our definitions are the kernel's."""

import gzip
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
DOCS = HERE / "data" / "dumps" / "docs.jsonl.gz"


@pytest.fixture(scope="module")
def agreement() -> ModuleType:
    sys.path.insert(0, str(HERE / "bench"))
    try:
        import agreement
    finally:
        sys.path.remove(str(HERE / "bench"))
    return agreement


def test_every_disagreement_is_explained(agreement: ModuleType) -> None:
    found = json.loads(agreement.RESULTS.read_text())
    assert list(found["rules"]) == [rule.name for rule in agreement.RULES]
    assert found["num_texts"] > 700
    for name, row in found["rules"].items():
        decided = (row[key] for key in ("both_keep", "both_reject", "only_ours", "only_datatrove"))
        assert sum(decided) == found["num_texts"], name
        assert sum(row["why"].values()) == row["only_ours"] + row["only_datatrove"], name
        named = {part for why in row["why"] for part in why.split(" + ")}
        assert named <= set(agreement.DEFINITIONS[name][0]), name
        assert named <= set(agreement.MEANINGS)


def test_our_definitions_are_those_of_the_kernel(agreement: ModuleType) -> None:
    """Each rule in plain Python, with all switches on, decides as signals and rules do."""
    with gzip.open(DOCS, "rt", encoding="utf-8") as lines:
        pages = [json.loads(line) for line in lines]
    texts = [page["text"] for page in pages if page["lang"] == "en" and len(page["text"]) < 20_000]
    assert len(texts) > 300
    for text, own in zip(texts, agreement.rejected_by_us(texts), strict=True):
        page = agreement.Page(text, [], [], [], [])
        for rule in agreement.RULES:
            switches, value = agreement.DEFINITIONS[rule.name]
            found = value(page, switches)
            rejects = found < rule.value if rule.bound == "min" else found > rule.value
            assert rejects == (rule.name in own), (rule.name, text[:80])
