import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import ArtifactInvalid, ConfigError
from curation.remix.domains import DomainRule, label, read_hosts

RULES = (
    DomainRule("code", hosts=("github.com", "stackoverflow.com")),
    DomainRule("encyclopedia-zh", hosts=("wikipedia.org",), languages=("zh",)),
    DomainRule("encyclopedia", hosts=("Wikipedia.org",)),
    DomainRule("chinese", languages=("zh", "yue")),
)

WORDS = ["a", "b", "org", "com", "ab"]
HOSTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(".".join)
LANGUAGES = st.sampled_from(["en", "zh", "de"])
URLS = st.text("ab/", max_size=4)
PARTS = st.text("ab/", min_size=1, max_size=2)
SHARES = st.sampled_from([0.0, 0.2, 0.5])
TOPICS = st.sampled_from(["maths", "code"])
ANY_RULES = st.lists(
    st.builds(
        DomainRule,
        st.sampled_from(["x", "y", "z"]),
        st.lists(HOSTS, max_size=3).map(tuple),
        st.lists(PARTS, max_size=2).map(tuple),
        st.lists(LANGUAGES, max_size=2).map(tuple),
        SHARES,
        SHARES,
        TOPICS,
        SHARES,
    )
    | st.builds(DomainRule, st.sampled_from(["v", "w"]), st.lists(HOSTS, max_size=2).map(tuple)),
    max_size=5,
)
COLUMNS = {
    "host": pa.string(),
    "url": pa.string(),
    "lang": pa.large_string(),
    "code_share": pa.float64(),
    "math_share": pa.float64(),
    "domain_label": pa.string(),
    "domain_score": pa.float64(),
}
ROWS = st.lists(
    st.tuples(
        *(st.none() | each for each in (HOSTS, URLS, LANGUAGES, SHARES, SHARES, TOPICS, SHARES))
    ),
    max_size=12,
)


def documents(rows):
    """The columns, as slices of longer ones."""
    padded = [("pad",) * 3 + (0.0, 0.0, "pad", 0.0), *rows]
    columns = zip(*padded, strict=True)
    return {
        name: pa.array(column, COLUMNS[name])[1:]
        for name, column in zip(COLUMNS, columns, strict=True)
    }


def label_in_python(row, rules, default):
    host, url, lang, code, maths, topic, score = row
    for rule in rules:
        asked = [
            not rule.hosts
            or (
                host is not None
                and any(host == h or host.endswith("." + h) for h in map(str.lower, rule.hosts))
            ),
            not rule.urls or (url is not None and any(part in url for part in rule.urls)),
            not rule.languages or lang in rule.languages,
            not rule.min_code or (code is not None and code >= rule.min_code),
            not rule.min_math or (maths is not None and maths >= rule.min_math),
            not rule.label
            or (topic == rule.label and score is not None and score >= rule.min_score),
        ]
        if all(asked):
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
    rows = [(host, None, lang, None, None, None, None) for host, lang, _ in cases]
    found = label(documents(rows), RULES)
    assert found.type == pa.string()
    assert found.to_pylist() == [expected for *_, expected in cases]


@settings(deadline=None)
@given(ROWS, ANY_RULES)
def test_label_is_its_definition_on_slices_and_large_strings(rows, rules):
    found = label(documents(rows), rules, "rest").to_pylist()
    assert found == [label_in_python(row, rules, "rest") for row in rows]


def test_no_rules():
    assert label(documents([("a.org", *[None] * 6)]), ()).to_pylist() == ["web"]
    assert label(documents([]), RULES).to_pylist() == []


@pytest.mark.parametrize("host", ["https://github.com", "*.github.com", "", ".", "a.org:80", " a"])
def test_a_host_is_a_bare_name(host):
    with pytest.raises(ConfigError, match=r"'code' lists the host .* write it like"):
        DomainRule("code", hosts=(host,))


def test_a_domain_has_a_name():
    with pytest.raises(ConfigError, match="empty name"):
        DomainRule("")


def test_what_a_rule_cannot_ask_for():
    with pytest.raises(ConfigError, match=r"'code' lists an empty part of a URL"):
        DomainRule("code", urls=("",))
    with pytest.raises(ConfigError, match=r"'code' has min_score without label"):
        DomainRule("code", min_score=0.5)


def test_hosts_of_a_file():
    text = "a.org\n# collected in round 2\n\n  b.org  # 12 %\n"
    assert read_hosts(text.encode(), "hosts.txt") == ("a.org", "b.org")
    for octets, message in ((b"# none\n", "names no host"), (b"\xff", "is not UTF-8")):
        with pytest.raises(ArtifactInvalid, match=rf"hosts\.txt {message}"):
            read_hosts(octets, "hosts.txt")
