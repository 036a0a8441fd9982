"""Which files a dump has, and that their order never moves."""

import gzip
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import InputChanged, InputInvalid, InputMissing, InputVanished
from curation.ingest.listing import InputFile, RemoteListing, freeze, list_inputs, resolve


@pytest.fixture
def tree(tmp_path):
    """A folder with archives, data, and files that are neither."""
    taken = "b.warc.gz a.warc sub/c.warc.gz sub/d.warc.wet.gz UP.WARC.GZ"
    unfinished = "e.warc.gz.tmp f.warc.part .hidden.warc.gz .git/g.warc.gz"
    for name in f"{taken} {unfinished} README.md docs.jsonl.gz x.parquet".split():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def names(found, root):
    return [os.path.relpath(path, root) for path, _, _ in found]


def test_a_directory_gives_its_archives_and_nothing_else(tree):
    found = list_inputs([str(tree)])
    assert names(found, tree) == [
        "UP.WARC.GZ", "a.warc", "b.warc.gz", "sub/c.warc.gz", "sub/d.warc.wet.gz",
    ]  # fmt: skip
    assert names(list_inputs([str(tree)], "jsonl"), tree) == ["docs.jsonl.gz"]
    assert names(list_inputs([str(tree)], "parquet"), tree) == ["x.parquet"]


def test_paths_are_absolute_with_size_and_mtime(tree, monkeypatch):
    monkeypatch.chdir(tree / "sub")
    facts = os.stat(tree / "a.warc")
    assert list_inputs(["../a.warc"]) == [(str(tree / "a.warc"), 6, facts.st_mtime_ns)]


def test_globs_are_sorted_and_skip_hidden_and_unfinished_files(tree):
    assert names(list_inputs([f"{tree}/*.warc*"]), tree) == ["a.warc", "b.warc.gz"]
    assert names(list_inputs([f"{tree}/**/*.warc.gz"]), tree) == ["b.warc.gz", "sub/c.warc.gz"]


def test_a_name_with_glob_characters_is_a_file_first(tmp_path):
    (tmp_path / "a[1].warc").write_bytes(b"x")
    assert names(list_inputs([f"{tmp_path}/a[1].warc"]), tmp_path) == ["a[1].warc"]


def test_entries_keep_their_order_and_a_file_counts_once(tree):
    entries = [f"{tree}/sub", f"{tree}/b.warc.gz", str(tree), f"{tree}/b.warc.gz"]
    assert names(list_inputs(entries), tree) == [
        "sub/c.warc.gz", "sub/d.warc.wet.gz", "b.warc.gz", "UP.WARC.GZ", "a.warc",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["list.paths", "list.paths.gz"])
def test_a_listing_names_files_relative_to_itself(tree, name, monkeypatch):
    text = f"sub/c.warc.gz\n\n{tree}/a.warc\n".encode()
    (tree / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    monkeypatch.chdir("/")
    assert names(list_inputs([str(tree / name)]), tree) == ["a.warc", "sub/c.warc.gz"]


def test_a_listing_names_the_line_that_is_wrong(tree):
    (tree / "list.paths").write_text("a.warc\ngone.warc\n")
    with pytest.raises(InputMissing, match=r"list\.paths line 2 names .*/gone\.warc"):
        list_inputs([str(tree / "list.paths")])
    (tree / "list.paths.gz").write_bytes(b"no gzip")
    with pytest.raises(InputInvalid, match=r"list\.paths\.gz cannot be read"):
        list_inputs([str(tree / "list.paths.gz")])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("gone.warc", r"gone\.warc does not exist"),
        ("empty", "empty holds no warc file"),
        ("*.nothing", r"\*\.nothing matches no file"),
        ("void.paths", r"void\.paths names no file"),
    ],
)
def test_an_entry_that_yields_nothing_is_named(tmp_path, entry, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "void.paths").write_text("\n")
    with pytest.raises(InputMissing, match=message):
        list_inputs([str(tmp_path / entry)])


def test_no_entry_is_refused():
    with pytest.raises(InputMissing, match="no input is configured"):
        list_inputs([])


def test_a_remote_file_is_not_asked_for_its_size():
    """No host of these names exists; nothing is asked of them."""
    urls = ["https://h.invalid/a.warc.gz", "s3://bucket/b.warc.gz"]
    assert list_inputs(urls) == [(url, None, None) for url in urls]


def test_file_urls_are_local_paths(tree):
    assert names(list_inputs([f"file://{tree}/a.warc"]), tree) == ["a.warc"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://h.invalid/*.warc.gz", "folder or a pattern"),
        ("s3://bucket/folder/", "write the URLs of the files into a path listing"),
        ("https://ann:secret@h.invalid/a.warc.gz", "~/.netrc"),
        ("https://ann:secret@h.invalid/a.paths", "~/.netrc"),
    ],
)
def test_a_url_that_names_no_file_is_refused(url, message):
    with pytest.raises(InputInvalid, match=message):
        list_inputs([url])


CC = "https://data.commoncrawl.org/crawl-data/CC-MAIN-2023-14/warc.paths.gz"


@pytest.mark.parametrize(
    ("line", "listing", "base", "url"),
    [
        # from the root of the host or bucket, as Common Crawl's listings are
        (
            "crawl-data/CC-MAIN-2023-14/segments/1/warc/a.warc.gz",
            CC,
            "",
            "https://data.commoncrawl.org/crawl-data/CC-MAIN-2023-14/segments/1/warc/a.warc.gz",
        ),
        ("crawl-data/X/a.gz", "s3://commoncrawl/crawl-data/Y/wet.paths.gz", "",
         "s3://commoncrawl/crawl-data/X/a.gz"),
        # a mirror below a folder of its own
        ("crawl-data/X/a.gz", "https://m.example/cc/crawl-data/Y/l.paths", "",
         "https://m.example/cc/crawl-data/X/a.gz"),
        # beside the listing
        ("a.gz", "https://m.example/x/l.paths", "", "https://m.example/x/a.gz"),
        ("x", "https://m.example/x/l.paths", "", "https://m.example/x/x"),
        ("sub/a.gz", "https://m.example/x/l.paths?v=1", "", "https://m.example/x/sub/a.gz"),
        ("a.gz", "https://m.example/l.paths", "", "https://m.example/a.gz"),
        # by the setting, and complete
        ("crawl-data/X/a.gz", CC, "s3://mirror/cc/", "s3://mirror/cc/crawl-data/X/a.gz"),
        ("https://h.example/a.gz", CC, "s3://mirror", "https://h.example/a.gz"),
    ],
)  # fmt: skip
def test_what_a_line_of_a_remote_listing_means(line, listing, base, url):
    assert resolve(line, listing, base) == url


def test_a_listing_on_disk_may_name_urls(tree):
    listing = tree / "list.paths"
    listing.write_text("https://h.invalid/b.warc.gz\na.warc\n")
    found = list_inputs([str(listing)])
    assert found[1] == ("https://h.invalid/b.warc.gz", None, None)
    assert found[0][0] == str(tree / "a.warc")


def test_lines_are_relative_to_the_base(tree):
    """Common Crawl's listing, downloaded: its files are there, or copied elsewhere."""
    listing = tree / "lists" / "warc.paths"
    listing.parent.mkdir()
    listing.write_text("sub/c.warc.gz\n")
    with pytest.raises(InputMissing, match=r"set dumps\.base"):
        list_inputs([str(listing)])
    assert list_inputs([str(listing)], base="https://h.invalid/") == [
        ("https://h.invalid/sub/c.warc.gz", None, None)
    ]
    assert names(list_inputs([str(listing)], base=str(tree)), tree) == ["sub/c.warc.gz"]


def test_a_remote_listing_that_is_known_is_not_fetched(tree):
    url = "https://h.invalid/warc.paths.gz"
    known = RemoteListing("0" * 64, "", ("https://h.invalid/a.gz", "https://h.invalid/b.gz"))
    found = list_inputs([url, "https://h.invalid/a.gz", f"{tree}/a.warc"], listings={url: known})
    assert [path for path, _, _ in found] == [*known.paths, f"{tree}/a.warc"]


def test_freezing_keeps_remote_files_by_their_url():
    url = "https://h.example/a.warc.gz"
    frozen = freeze([], [(url, None, None)])
    assert freeze(frozen, [(url, None, None)]) == frozen == [InputFile(0, url, None, None)]
    with pytest.raises(InputVanished, match=r"a\.warc\.gz was frozen, and is no longer"):
        freeze(frozen, [])


def test_freezing_numbers_new_files_in_path_order_behind_the_old_ones():
    first = freeze([], [("/b", 2, 20), ("/a", 1, 10)])
    assert first == [InputFile(0, "/a", 1, 10), InputFile(1, "/b", 2, 20)]
    grown = freeze(first, [("/aa", 3, 30), ("/a", 1, 10), ("/A", 4, 40), ("/b", 2, 20)])
    assert grown == [*first, InputFile(2, "/A", 4, 40), InputFile(3, "/aa", 3, 30)]


@given(
    st.lists(st.sets(st.text("abc/", min_size=1, max_size=6), max_size=8), min_size=1, max_size=4)
)
def test_ordinals_never_move_and_never_repeat(arrivals):
    frozen, present = [], {}
    for paths in arrivals:
        present |= {path: (path, len(path), 1) for path in paths}
        grown = freeze(frozen, present.values())
        assert grown[: len(frozen)] == frozen
        assert [file.ordinal for file in grown] == list(range(len(present)))
        frozen = grown


def test_a_vanished_file_is_refused_by_name():
    frozen = [InputFile(0, "/a", 1, 10), InputFile(1, "/b", 2, 20)]
    with pytest.raises(InputVanished, match="/b was frozen with 2 bytes, mtime 20 ns"):
        freeze(frozen, [("/a", 1, 10)])


@pytest.mark.parametrize("now", [(3, 20), (2, 21)])
def test_a_changed_file_is_refused_with_both_states(now):
    with pytest.raises(
        InputChanged, match=f"/b .* 2 bytes, mtime 20 ns, .*{now[0]} bytes, mtime {now[1]} ns"
    ):
        freeze([InputFile(0, "/b", 2, 20)], [("/b", *now)])
