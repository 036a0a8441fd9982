"""What the command line says of an error: its message, and where README.md explains the subject."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from curation import config, errors
from curation.errors import SECTIONS, ConfigError, CurationError, LakeLocked, NotFound, explained
from curation.train import scaling

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type)]


def anchors(markdown: str) -> set[str]:
    """Return the fragments of headings, by GitHub's rules: lower case, no signs, hyphens."""
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_anchors_are_those_of_github() -> None:
    found = anchors("# What dedup took, and the alarm\n```\n# no heading\n```\n### A `b`/c-d\n")
    assert found == {"what-dedup-took-and-the-alarm", "a-bc-d"}


def test_every_section_is_a_heading_of_the_readme() -> None:
    named = {*SECTIONS.values(), *(kind.section for kind in KINDS if kind.section)}
    named.update(re.findall(r"README\.md#([\w-]+)", explained(CurationError())))
    assert named - anchors(README) == set()


def test_links_within_the_readme_are_headings() -> None:
    linked = set(re.findall(r"\]\(#([\w-]+)\)", README))
    assert linked and linked - anchors(README) == set()


def test_every_module_with_a_section_is_there() -> None:
    assert [name for name in SECTIONS if find_spec(name) is None] == []


def test_an_error_of_one_subject_names_its_section() -> None:
    assert explained(LakeLocked("x")) == "x (see README.md#faults)"


def test_other_errors_name_that_of_the_module_which_raised_them() -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(config.Config, {"thresold": 1})
    assert explained(caught.value).endswith(" (see README.md#settings)")
    with pytest.raises(ConfigError) as caught:
        scaling.optimum(-1)
    assert explained(caught.value).endswith(" (see README.md#scaling-laws)")


def test_errors_of_no_module_in_particular_name_the_commands() -> None:
    assert explained(NotFound("x")) == "x (see README.md#your-own-data)"
