"""Hosts of URLs, against urllib, and the rules that block a URL."""

from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.ingest.urls import UrlRules, blocked, hosts

RULES = UrlRules(
    domains=frozenset({"bad.com", "sub.worse.org"}),
    hosts=frozenset({"only.this.net", "bad.com"}),
    paths=("/casino", "login"),
)


def host(url):
    return hosts(pa.array([url], pa.string()))[0].as_py()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://Example.COM/a", "example.com"),
        ("https://user:pa@ss@e.com:8080/x@y", "e.com"),
        ("http://e.com.?q=http://other.com", "e.com"),
        ("http://[2001:DB8::1]:80/", "[2001:db8::1]"),
        ("  http://e.com", "e.com"),
        ("http://e.com\\@evil.com/", "e.com"),  # as browsers read it
        ("http://例子.中国/路", "例子.中国"),
        ("ftp://e.com", "e.com"),
        ("file:///etc/passwd", None),
        ("http:///path", None),
        ("mailto:a@b.c", None),
        ("no url", None),
        ("", None),
        (None, None),
    ],
)
def test_hosts(url, expected):
    assert host(url) == expected


LABEL = st.text("abcXYZ019-", min_size=1, max_size=8)


@given(
    st.sampled_from(["http", "HTTPS"]),
    st.sampled_from(["", "me@", "me:secret@"]),
    st.lists(LABEL, min_size=1, max_size=4).map(".".join),
    st.sampled_from(["", ":1", ":65535"]),
    st.text("ab/@:?#.", max_size=12),
)
def test_hosts_are_those_of_urllib(scheme, user, name, port, rest):
    rest = "/" + rest if rest and rest[0] not in "/?#" else rest
    url = f"{scheme}://{user}{name}{port}{rest}"
    assert host(url) == urlsplit(url).hostname


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://bad.com/", ("url_domain", "bad.com")),
        ("http://a.b.bad.com/", ("url_domain", "bad.com")),
        ("http://BAD.com:80/login", ("url_domain", "bad.com")),  # domain before host before path
        ("http://notbad.com/", None),
        ("http://bad.com.org/", None),
        ("http://sub.worse.org/", ("url_domain", "sub.worse.org")),
        ("http://worse.org/", None),
        ("http://only.this.net/", ("url_host", "only.this.net")),
        ("http://www.only.this.net/", None),
        ("http://ok.com/Casino/login", ("url_path", "/casino")),
        ("http://ok.com/a-login", ("url_path", "login")),
        ("http://login.com/?next=login#login", None),
        ("no url", None),
        (None, None),
    ],
)
def test_blocked(url, expected):
    verdict = blocked(pa.array([url], pa.string()), RULES)[0].as_py()
    assert verdict == (expected and {"rule": expected[0], "value": expected[1]})


@given(
    st.lists(
        st.none()
        | st.sampled_from(
            ["http://bad.com/", "http://x.bad.com/login", "http://ok.com/casino", "-"]
        ),
        max_size=12,
    ),
    st.integers(0, 12),
    st.sampled_from([pa.string(), pa.large_string()]),
)
def test_batches_and_slices_make_no_difference(urls, cut, string_type):
    array = pa.array(urls, string_type)
    for kernel in (hosts, lambda part: blocked(part, RULES)):
        whole = kernel(array)
        assert len(whole) == len(urls)
        assert (
            kernel(array[:cut]).to_pylist() + kernel(array[cut:]).to_pylist() == whole.to_pylist()
        )


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ({"domains": frozenset({"Bad.com"})}, "Bad.com"),
        ({"domains": frozenset({".bad.com"})}, ".bad.com"),
        ({"hosts": frozenset({"http://bad.com"})}, "http://bad.com"),
        ({"paths": ("",)}, "''"),
        ({"paths": ("/Casino",)}, "/Casino"),
    ],
)
def test_rules_that_could_never_or_always_match_are_refused(rules, named):
    with pytest.raises(ConfigError, match=named):
        UrlRules(**rules)
