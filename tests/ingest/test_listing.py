"""Which files a dump has, and that their order never moves."""

import gzip
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import InputChanged, InputInvalid, InputMissing, InputVanished
from curation.ingest.listing import InputFile, freeze, list_inputs


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


def test_no_entry_and_a_url_are_refused():
    with pytest.raises(InputMissing, match="no input is configured"):
        list_inputs([])
    with pytest.raises(InputMissing, match=r"https://e\.com/a\.warc\.gz is a URL"):
        list_inputs(["https://e.com/a.warc.gz"])


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
