"""URLs and lists of URLs: against urllib and tldextract, and against sets and loops in Python."""

import gzip
import multiprocessing
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
import tldextract
from hypothesis import given
from hypothesis import strategies as st

from curation import models
from curation.errors import ArtifactChanged, ArtifactInvalid, ArtifactMissing, ConfigError
from curation.ingest.urls import (
    FORMATS,
    UrlList,
    blocked,
    compile_lists,
    compile_suffixes,
    hosts,
    load,
    normal_forms,
    registered_domains,
    save,
    ut1_category,
)

GOLD = os.environ.get("CURATION_GOLD_DATA")
needs_gold = pytest.mark.skipif(not GOLD, reason="CURATION_GOLD_DATA names no folder of gold data")
SUFFIXES = models.resolve("package:tldextract/.tld_set_snapshot")
EXTRACT = tldextract.TLDExtract(
    cache_dir=None, suffix_list_urls=(), include_psl_private_domains=True
)


def registered(host: str) -> str | None:
    return EXTRACT(host).top_domain_under_public_suffix or None


# ---- hosts and normal forms --------------------------------------------------------------------


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
        ("HTTP://me:pw@WWW.Example.COM.:8080/A/?Q=1#f", "www.example.com/a/?q=1"),
        ("example.com", "example.com"),
        ("//example.com/a", None),  # no host before the path
        ("http://e.com/a//", "e.com/a"),
        ("http://e.com?q", "e.com/?q"),
        ("http://e.com/%7Euser/%C3%A9%2F%zz%", "e.com/~user/\u00e9%2f%zz%"),
        ("http://e.com\\a\\b?\\", "e.com/a/b?\\"),
        ("http://b\u00fccher.example/\u00e9", "xn--bcher-kva.example/\u00e9"),  # RFC 3492's ue
        ("http://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("http://B%C3%BCCHER.example", "xn--bcher-kva.example"),
        ("http://\u4f8b\u5b50.\u4e2d\u56fd\u3002:80", "xn--fsqu00a.xn--fiqs8s"),
        ("http://\u2603.net/", "xn--n3h.net"),  # a snowman, which IDNA 2008 forbids
        ("http://[2001:DB8:0:0::1]:80/", "[2001:db8::1]"),
        ("http://192.0.2.1:80/x", "192.0.2.1/x"),
        ("http://e.com/%ff", "e.com/\ufffd"),
        ("http:///path", None),
        ("", None),
        (None, None),
    ],
)
def test_normal_forms(url, expected):
    assert normal_forms(pa.array([url], pa.string()))[0].as_py() == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [  # of the test vectors of publicsuffix.org (public domain)
        ("com", None),
        ("example.com", "example.com"),
        ("a.b.example.com", "example.com"),
        ("b.example.example", "example.example"),
        ("test.ac.jp", "test.ac.jp"),
        ("ide.kyoto.jp", None),
        ("a.b.ide.kyoto.jp", "b.ide.kyoto.jp"),
        ("c.kobe.jp", None),
        ("a.b.c.kobe.jp", "b.c.kobe.jp"),
        ("www.city.kobe.jp", "city.kobe.jp"),
        ("test.ck", None),
        ("a.b.test.ck", "b.test.ck"),
        ("www.www.ck", "www.ck"),
        ("test.k12.ak.us", "test.k12.ak.us"),
        ("www.\u98df\u72ee.com.cn", "xn--85x722f.com.cn"),
        ("www.\u98df\u72ee.\u516c\u53f8.cn", "xn--85x722f.xn--55qx5d.cn"),
        ("xn--fiqs8s", None),
        ("a.b.github.io", "b.github.io"),
        ("192.0.2.1", "192.0.2.1"),
        ("[::1]", "[::1]"),
    ],
)
def test_registered_domains(host, expected):
    suffixes = compile_suffixes(SUFFIXES)
    assert registered_domains(pa.array([f"http://{host}/"]), suffixes)[0].as_py() == expected


def test_registered_domains_are_those_of_tldextract():
    """Under every rule of the list: the suffix itself, and one, two and three labels more."""
    names = set()
    for line in SUFFIXES.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("//"):
            rule = line.removeprefix("!").replace("*", "any").encode("idna").decode()
            names |= {rule, f"a.{rule}", f"b.a.{rule}", f"c.b.a.{rule}"}
    names = sorted(names)
    found = registered_domains(pa.array(names), compile_suffixes(SUFFIXES)).to_pylist()
    expected = [registered(name) for name in names]
    assert len(names) > 20_000
    assert found == expected


# ---- rules, against sets and loops -------------------------------------------------------------

WORD = st.sampled_from(["win", "bet", "casino", "poker", "cas", "ino", "x"])
NAME = st.lists(st.sampled_from(["a", "bet", "win", "co", "uk", "com", "www"]), min_size=1).map(
    lambda labels: ".".join(labels[:4])
)
PATH = st.lists(WORD, max_size=3).flatmap(
    lambda words: st.sampled_from(["/", "-", "/?", "="]).map(lambda by: "/" + by.join(words))
)
URL = st.tuples(st.sampled_from(["http://", "https://me@", ""]), NAME, PATH).map("".join)
ENTRY = {
    "domains": NAME,
    "hosts": NAME,
    "registered_domains": NAME.filter(lambda name: registered(name) is not None),
    "urls": st.tuples(NAME, PATH).map("".join),
    "takedown": NAME | st.tuples(NAME, PATH).map("".join) | NAME.map("{}/win/*".format),
    "words": WORD,
    "soft_words": WORD,
    "subwords": st.tuples(WORD, WORD).map("".join).filter(lambda word: len(word) > 1),
    "expressions": st.tuples(WORD, WORD).map(".?".join),
    "paths": WORD,
}
LISTS = st.lists(
    st.sampled_from(sorted(ENTRY)).flatmap(
        lambda format: st.lists(ENTRY[format], max_size=2).map(
            lambda entries: (format, tuple(entries))
        )
    ),
    max_size=4,
).map(lambda pairs: [UrlList(f"list {i}", *pair[:1], "", pair[1]) for i, pair in enumerate(pairs)])


def normal(url: str) -> str:
    parts = urlsplit(url if "://" in url else "http://" + url)
    host = parts.netloc.rpartition("@")[2].lower()
    path = parts.path.lower() or ("/" if parts.query else "")
    rest = f"{path}?{parts.query.lower()}" if "?" in url else path.rstrip("/")
    return host + rest


def verdict(url: str, lists: list[UrlList], min_soft_words: int):
    """What blocks a URL, by the README: sets and loops."""
    whole = normal(url)
    host = re.split("[/?]", whole)[0]
    path = whole[len(host) :].partition("?")[0]
    bare = whole.removeprefix("www.")
    starts = [bare[:k] for k in range(len(bare.split("/")[0]), len(bare) + 1)]
    starts = [start for start in starts if bare[len(start) :][:1] in ("", "/", "?")]
    labels = host.split(".")
    parents = [".".join(labels[k:]) for k in range(len(labels))]
    tokens = re.findall("[a-z0-9]+", whole)
    letters = "".join(tokens)

    def first(rule, entries_of, candidates):
        for candidate in candidates:
            for each in lists:
                if candidate in entries_of(each):
                    return {"rule": rule, "entry": candidate, "list": each.name}
        return None

    def of(*formats):
        return lambda each: each.entries if each.format in formats else ()

    def urls_of(*, folders, pages):
        def entries(each):
            found = [e for e in each.entries if each.format == "urls" and folders]
            if each.format == "takedown":
                found += [e[:-1] for e in each.entries if e.endswith("/*") and folders]
                found += [e for e in each.entries if "/" in e and e[-2:] != "/*" and pages]
            return {normal(e).removeprefix("www.") for e in found}

        return entries

    def takedown_hosts(each):
        plain = [e for e in each.entries if "/" not in e]
        return plain if each.format in ("domains", "takedown") else ()

    soft = [each for each in lists if each.format == "soft_words"]
    found_soft = list(dict.fromkeys(t for t in tokens if any(t in s.entries for s in soft)))
    if len(found_soft) >= min_soft_words:
        name = next(s.name for s in soft if found_soft[0] in s.entries)
        enough = ",".join(found_soft[:min_soft_words])
        soft_verdict = {"rule": "url_soft_words", "entry": enough, "list": name}
    else:
        soft_verdict = None

    def registered_entries(each):
        return {registered(e) for e in each.entries if each.format == "registered_domains"}

    subwords = [letters[i:j] for j in range(len(letters) + 1) for i in range(j)]
    return (
        first("url_domain", takedown_hosts, parents)
        or first("url_host", of("hosts"), [host])
        or first("url_registered_domain", registered_entries, [registered(host) or "none"])
        or first("url_prefix", urls_of(folders=True, pages=False), starts)
        or first("url_exact", urls_of(folders=False, pages=True), [bare])
        or first("url_word", of("words"), tokens)
        or soft_verdict
        or first("url_subword", of("subwords"), subwords)
        or next(
            (
                {"rule": rule, "entry": entry, "list": each.name}
                for each in lists
                for entry in each.entries
                for rule, format, hit in (
                    ("url_path", "paths", entry in path),
                    ("url_expression", "expressions", re.search(entry, whole)),
                )
                if each.format == format and hit
            ),
            None,
        )
    )


@given(LISTS, st.lists(URL | st.none(), max_size=6), st.integers(1, 3))
def test_rules_are_those_of_sets_and_loops(lists, urls, min_soft_words):
    compiled = compile_lists(lists, SUFFIXES, min_soft_words)
    found = blocked(pa.array(urls, pa.string()), compiled).to_pylist()
    assert found == [url and verdict(url, lists, min_soft_words) for url in urls]


@pytest.mark.parametrize(
    ("format", "entry", "url", "is_blocked"),
    [
        ("domains", "Bad.COM.", "http://x.bad.com/", True),
        ("domains", "*.bad.com", "http://bad.com/", True),
        ("domains", "bad.com", "http://notbad.com/", False),
        ("domains", "bad.com", "http://bad.com.org/", False),
        ("domains", "0.2.1", "http://192.0.2.1/", False),  # an address has no subdomains
        ("domains", "192.0.2.1", "http://192.0.2.1:8/", True),
        ("domains", "B\u00fccher.example", "http://xn--bcher-kva.example/", True),
        ("domains", "xn--bcher-kva.example", "http://b\u00fccher.example/", True),
        ("hosts", "0.0.0.0 ads.bad.com", "http://ads.bad.com/", True),
        ("hosts", "::1 bad.com", "http://ads.bad.com/", False),
        ("hosts", "[2001:db8:0::1]", "http://[2001:DB8::1]/", True),
        ("registered_domains", "www.bad.co.uk", "http://x.bad.co.uk/", True),
        ("registered_domains", "www.bad.co.uk", "http://good.co.uk/", False),
        ("urls", "http://bad.com:80/a/", "https://www.bad.com/a/b", True),
        ("urls", "www.bad.com/a", "http://bad.com/a?q", True),
        ("urls", "bad.com/a", "http://bad.com/ab", False),
        ("urls", "bad.com/%7ea", "http://bad.com/~A/", True),
        ("takedown", "bad.com/a", "http://bad.com/a/b", False),
        ("takedown", "http://bad.com/", "http://bad.com/b", False),  # the front page alone
        ("takedown", "http://bad.com/", "https://www.bad.com", True),
        ("takedown", "bad.com/a?id=1", "http://bad.com/a?id=1#x", True),
        ("takedown", "bad.com/a?id=1", "http://bad.com/a?id=12", False),
        ("takedown", "bad.com/a/*", "http://bad.com/a/b?c", True),
        ("takedown", "http://bad.com", "http://x.bad.com/b", True),
        ("words", "2 girls", "http://e.com/a-2girls.html", True),
        ("words", "\u8d4c\u535a", "http://e.com/%E8%B5%8C%E5%8D%9A/", True),
        ("words", "bet", "http://alphabet.com/", False),
        ("subwords", "pha-bet", "http://al.pha.bet/", True),
        ("expressions", "(^|[-?+=&/_])(bet|win)([-?+=&/_]|$)", "http://e.com/?q=WIN", True),
        ("paths", "login", "http://login.com/?next=login", False),
    ],
)
def test_forms_of_entries(format, entry, url, is_blocked):
    lists = compile_lists([UrlList("l", format, entries=(entry,))], SUFFIXES)
    assert blocked(pa.array([url]), lists).is_valid().to_pylist() == [is_blocked]


EVERY_FORMAT = [
    UrlList("d", "domains", entries=("bad.com", "b\u00fccher.example")),
    UrlList("u", "urls", entries=("ok.com/casino",)),
    UrlList("w", "soft_words", entries=("win", "bet")),
    UrlList("s", "subwords", entries=("poker",)),
    UrlList("p", "paths", entries=("login",)),
]


@pytest.mark.parametrize(
    "url",
    [
        "http://bad.com /x",
        "http://ba\td.com/",
        "http://bad.com%20/",
        "http://bad.com\n",
        "bad.com?",
    ],
)
def test_white_space_in_a_host_hides_nothing(url):
    """Browsers drop tabs and newlines wherever they stand, and crawlers keep them."""
    lists = compile_lists([UrlList("l", "domains", entries=("bad.com",))], SUFFIXES)
    assert blocked(pa.array([url]), lists).field("rule").to_pylist() == ["url_domain"]


def test_an_empty_query_is_none():
    lists = compile_lists([UrlList("l", "takedown", entries=("http://e.com/a",))], SUFFIXES)
    urls = pa.array(
        ["http://e.com/a?", "http://e.com/a/?#top", "http://e.com/a?b", "http://e.com/a"]
    )
    assert blocked(urls, lists).is_valid().to_pylist() == [True, True, False, True]


@given(
    st.lists(
        st.none()
        | st.sampled_from(
            ["http://x.bad.com/login", "http://ok.com/casino", "e.com/win-bet", "http://\u00e9.fr"]
        )
        | st.text(max_size=12).map("http://e.com/{}".format)
        | st.text(max_size=20),
        max_size=12,
    ),
    st.integers(0, 12),
    st.sampled_from([pa.string(), pa.large_string()]),
)
def test_batches_and_slices_make_no_difference(urls, cut, string_type):
    array = pa.array(urls, string_type)
    lists = compile_lists(EVERY_FORMAT)
    for kernel in (hosts, normal_forms, lambda part: blocked(part, lists)):
        whole = kernel(array)
        assert len(whole) == len(urls)
        assert all(
            url is not None or value is None
            for url, value in zip(urls, whole.to_pylist(), strict=True)
        )
        assert (
            kernel(array[:cut]).to_pylist() + kernel(array[cut:]).to_pylist() == whole.to_pylist()
        )


# ---- files of lists ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "line", "named"),
    [
        ("domains", "bad.com/path", "is no host"),
        ("domains", "bad..com", "is no host"),
        ("domains", "bad com", "is no host"),
        ("domains", "b$d.com", "is no host"),
        ("hosts", "0.0.0.0", None),  # an address is a host
        ("registered_domains", "co.uk", "is a public suffix"),
        ("urls", "/only/a/path", "is no URL"),
        ("urls", "bad.com/a b", "is no URL"),
        ("words", "...", "has no letters"),
        ("subwords", "x", "is one letter"),
        ("expressions", "(bet", "is no regular expression"),
        ("takedown", "/*", "is no URL"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, format, line, named):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf# comment\r\n\r\n" + line.encode() + b" # why\r\n")
    lists = [UrlList("l", format, str(path))]
    if named is None:
        assert compile_lists(lists, SUFFIXES).num_entries == 1
        return
    with pytest.raises(ArtifactInvalid, match=f"list.txt line 3: .*{named}") as error:
        compile_lists(lists, SUFFIXES)
    assert repr(line)[1:-1] in str(error.value)


def test_files_that_are_no_lists_are_refused(tmp_path):
    path = tmp_path / "list"
    path.write_bytes(b"a.com\n\xff.com\n")
    with pytest.raises(ArtifactInvalid, match=r"list line 2: .* is not UTF-8"):
        compile_lists([UrlList("l", "domains", str(path))])
    path.write_bytes(gzip.compress(b"a.com\n" * 100)[:-9])
    with pytest.raises(ArtifactInvalid, match="cannot be read"):
        compile_lists([UrlList("l", "domains", str(path))])
    with pytest.raises(ArtifactMissing, match="is no UT1 category"):
        ut1_category("adult", str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"# only a comment", b"\n\n"])
def test_an_empty_list_blocks_nothing(tmp_path, content):
    path = tmp_path / "list"
    path.write_bytes(content)
    for format in FORMATS:
        compiled = compile_lists([UrlList("l", format, str(path))], SUFFIXES)
        assert blocked(pa.array(["http://a.com/"]), compiled).to_pylist() == [None]


def test_entries_of_the_configuration_are_named_by_their_place():
    for format in ("domains", "hosts"):
        with pytest.raises(ConfigError, match=rf"blocked_{format}\[1\] 'a/b' is no host"):
            compile_lists([UrlList(f"blocked_{format}", format, entries=("a", "a/b"))])
    for entry in ("", "/Casino"):
        with pytest.raises(ConfigError, match=f"{entry!r} is empty or not lower case"):
            compile_lists([UrlList("blocked_paths", "paths", entries=(entry,))])


def test_a_saved_form_decides_alike_from_mapped_memory(tmp_path):
    many = UrlList("many", "domains", entries=tuple(f"d{i}.net" for i in range(3000)))
    for lists in (EVERY_FORMAT, [], [*EVERY_FORMAT, many]):
        compiled = compile_lists(lists)
        folder = tmp_path / str(len(lists))
        folder.mkdir()
        save(compiled, folder)
        urls = pa.array(["http://x.bad.com", "e.com/win-bet", "poker.com", "/login", "a.d2999.net"])
        mapped = load(folder)
        assert blocked(urls, mapped).to_pylist() == blocked(urls, compiled).to_pylist()
        assert mapped.num_entries == sum(len(each.entries) for each in lists)
    assert isinstance(mapped.table.blob.base, type(mapped.table.slots.base))
    assert not mapped.table.slots.flags.owndata  # a view of the mapping


def _of_worker(arguments):
    path, digest, cache = arguments
    os.environ["XDG_CACHE_HOME"] = cache
    lists = models.url_lists([UrlList("l", "domains", path)], {path: digest})
    return blocked(pa.array(["http://x.d7.net/"]), lists)[0].as_py()["entry"]


def test_workers_share_one_compiled_form(tmp_path, monkeypatch):
    """Four processes at once find one folder, whole; the digest of the file names it."""
    path = tmp_path / "list"
    path.write_text("".join(f"d{i}.net\n" for i in range(20_000)))
    cache = tmp_path / "cache"
    digest = models.sha256(str(path))
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        jobs = [(str(path), digest, str(cache))] * 4
        assert pool.map(_of_worker, jobs, chunksize=1) == ["d7.net"] * 4
    folders = [entry for entry in (cache / "curation" / "urls").iterdir() if entry.is_dir()]
    assert len(folders) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    path.write_text("other.net\n")
    with pytest.raises(ArtifactChanged, match=digest):
        models.url_lists([UrlList("new name", "domains", str(path))], {str(path): digest})
    assert [entry for entry in (cache / "curation" / "urls").iterdir() if entry.is_dir()] == folders


@needs_gold
def test_ut1_as_it_is(tmp_path):
    """Every category: each domain blocks itself and subdomains, each URL what lies below it."""
    source = Path(GOLD, "blocklist-ut1-a")
    lists, entries = [], {"domains": set(), "urls": set()}
    for path in sorted(source.glob("*.gz")):
        category, kind, _ = path.name.split(".")
        if category != "liste_blanche":
            (tmp_path / category).mkdir(exist_ok=True)
            (tmp_path / category / f"{kind}.gz").symlink_to(path)
            entries[kind] |= set(gzip.decompress(path.read_bytes()).decode().split())
    for folder in sorted(tmp_path.iterdir()):
        lists += ut1_category(f"ut1 {folder.name}", str(folder))
    compiled = compile_lists(lists)
    domains = sorted(entries["domains"])
    assert len(domains) > 50_000
    for form in ("http://{}/", "https://A.{}:8080/x?y#z"):
        if "A." in form:  # an address has no subdomains
            domains = [domain for domain in domains if not domain[-1].isdigit()]
        found = blocked(pa.array([form.format(domain) for domain in domains]), compiled)
        assert found.null_count == 0
        assert found.field("rule").unique().to_pylist() == ["url_domain"]
        # the longest that is listed: the domain itself
        assert [v["entry"] for v in found.to_pylist()] == [
            "a." + d if "a." + d in entries["domains"] and "A." in form else d for d in domains
        ]
    urls = sorted(entries["urls"])
    assert blocked(pa.array([f"http://{u}/x" for u in urls]), compiled).null_count == 0
    names = {v["list"] for v in found.to_pylist()}
    assert names == {f"ut1 {folder.name}" for folder in tmp_path.iterdir()}
    # and nothing that is not listed, by loops
    plain = [f"http://{name}.example/{name}" for name in ("ok", "docs", "a.b")]
    assert blocked(pa.array(plain), compiled).null_count == len(plain)


@needs_gold
def test_word_lists_as_they_are():
    """RefinedWeb's words by name, and bad words in 27 languages: each blocks itself."""
    folder = Path(GOLD, "badwords-datatrove-url")
    lists = [
        UrlList(format, format, str(folder / name))
        for format, name in (
            ("words", "banned_words.txt"),
            ("soft_words", "soft_banned_words.txt"),
            ("subwords", "banned_subwords.txt"),
        )
    ]
    for path in sorted(Path(GOLD, "badwords-ldnoobw").glob("*.txt")):
        lists.append(UrlList(path.stem, "words", str(path)))
    for each in lists:
        compiled = compile_lists([each], min_soft_words=1)
        words = [w.strip() for w in Path(each.path).read_text(encoding="utf-8").splitlines()]
        words = [re.sub(r"\W|_", "", w) for w in words if w.isascii() and not w.startswith("#")]
        found = blocked(pa.array([f"http://e.com/-{w.upper()}." for w in words if w]), compiled)
        assert found.null_count == 0
