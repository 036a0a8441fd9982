import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.remix.domains import DomainRule, label

RULES = (
    DomainRule("code", hosts=("github.com", "stackoverflow.com")),
    DomainRule("encyclopedia-zh", hosts=("wikipedia.org",), languages=("zh",)),
    DomainRule("encyclopedia", hosts=("Wikipedia.org",)),
    DomainRule("chinese", languages=("zh", "yue")),
)

LABELS = ["a", "b", "org", "com", "ab"]
HOSTS = st.lists(st.sampled_from(LABELS), min_size=1, max_size=4).map(".".join)
LANGUAGES = st.sampled_from(["en", "zh", "de"])
ANY_RULES = st.lists(
    st.builds(
        DomainRule,
        st.sampled_from(["x", "y", "z"]),
        st.lists(HOSTS, max_size=3).map(tuple),
        st.lists(LANGUAGES, max_size=2).map(tuple),
    ),
    max_size=5,
)


def label_in_python(host, lang, rules, default):
    for rule in rules:
        host_matches = not rule.hosts or (
            host is not None and any(host == h or host.endswith("." + h) for h in rule.hosts)
        )
        if host_matches and (not rule.languages or lang in rule.languages):
            return rule.name
    return default


def test_first_rule_wins_and_hosts_match_subdomains():
    cases = [
        ("github.com", "zh", "code"),
        ("gist.github.com", "en", "code"),
        ("notgithub.com", "en", "web"),
        ("github.com.evil.net", "en", "web"),
        ("zh.wikipedia.org", "zh", "encyclopedia-zh"),
        ("en.wikipedia.org", "en", "encyclopedia"),
        ("wikipedia.org", None, "encyclopedia"),
        ("example.cn", "yue", "chinese"),
        (None, "zh", "chinese"),
        ("example.cn", None, "web"),
        (None, None, "web"),
        ("", "en", "web"),
    ]
    hosts, languages, expected = zip(*cases, strict=True)
    found = label(pa.array(hosts, pa.string()), pa.array(languages, pa.string()), RULES)
    assert found.type == pa.string()
    assert found.to_pylist() == list(expected)


@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | HOSTS, st.none() | LANGUAGES), max_size=12), ANY_RULES)
def test_label_is_its_definition_on_slices_and_large_strings(rows, rules):
    host = pa.array(["pad", *(host for host, _ in rows)], pa.string())[1:]
    lang = pa.array([None, *(lang for _, lang in rows)], pa.large_string())[1:]
    found = label(host, lang, rules, "rest").to_pylist()
    assert found == [label_in_python(host, lang, rules, "rest") for host, lang in rows]


def test_no_rules():
    assert label(pa.array(["a.org"]), pa.array(["en"]), ()).to_pylist() == ["web"]


@pytest.mark.parametrize("host", ["https://github.com", "*.github.com", "", ".", "a.org:80", " a"])
def test_a_host_is_a_bare_name(host):
    with pytest.raises(ConfigError, match=r"'code' lists the host .* write it like"):
        DomainRule("code", hosts=(host,))


def test_a_domain_has_a_name():
    with pytest.raises(ConfigError, match="empty name"):
        DomainRule("")
