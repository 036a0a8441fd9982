import dataclasses
import multiprocessing
import shutil

import fsspec
import numpy as np
import pytest

from curation.errors import NotFound, ShardCorrupt
from curation.tokens import reader
from curation.tokens.reader import open_shards
from curation.tokens.shards import sha256_of, write_manifest


def as_python(row):
    return {k: v if k == "num_tokens" else v.tolist() for k, v in row.items()}


def test_read_what_was_written(release):
    folder, manifest, rows = release
    dataset = open_shards(folder)
    assert dataset.manifest == manifest
    assert len(dataset) == len(rows) == manifest.rows
    assert [as_python(row) for row in dataset.iterate()] == rows
    assert [as_python(row) for row in dataset.iterate(len(rows) - 3)] == rows[-3:]
    assert list(dataset.iterate(len(rows))) == []
    for i in np.random.default_rng(0).permutation(len(rows)).tolist():
        assert as_python(dataset.row(i)) == rows[i]
    assert dataset.row(0)["input_ids"].dtype == np.int32
    for i in (-1, len(rows)):
        with pytest.raises(IndexError, match=f"row {i} "):
            dataset.row(i)
    dataset.verify()
    assert len(open_shards(folder / "manifest.json")) == len(rows)


def flip_a_byte(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_byte, r"2\.parquet has sha256 .* manifest says"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), r"2\.parquet has sha256"),
        (lambda file: file.unlink(), r"2\.parquet is gone"),
    ],
)
def test_verify_names_the_damaged_file(release, damage, message):
    folder, _, _ = release
    damage(folder / "2.parquet")
    with pytest.raises(ShardCorrupt, match=message):
        open_shards(folder).verify()


def test_the_first_touch_of_a_file_compares_it(release):
    folder, _, rows = release
    flip_a_byte(folder / "2.parquet")
    dataset = open_shards(folder)
    assert as_python(dataset.row(0)) == rows[0]
    with pytest.raises(ShardCorrupt, match=r"2\.parquet has sha256 .* restore the file"):
        dataset.row(len(rows) - 1)


def test_a_file_that_is_another_than_the_manifest_says(release):
    """The manifest was made for a file of other rows: what its digest cannot show."""
    folder, manifest, rows = release
    file = folder / "2.parquet"
    shutil.copy(folder / "0.parquet", file)
    entries = list(manifest.files)
    entries[2] = dataclasses.replace(entries[2], sha256=sha256_of(file))
    write_manifest(folder, dataclasses.replace(manifest, files=tuple(entries)))
    with pytest.raises(ShardCorrupt, match=r"2\.parquet: \d+ rows .* manifest says"):
        open_shards(folder).row(len(rows) - 1)
    file.unlink()
    with pytest.raises(ShardCorrupt, match=r"2\.parquet is gone"):
        list(open_shards(folder).iterate())


def test_ids_of_several_rows(release):
    folder, _, rows = release
    dataset = open_shards(folder)
    expected = np.array([row["input_ids"] for row in rows], np.int32)
    for start, stop in ((0, 0), (0, 1), (3, len(rows)), (5, 40), (len(rows), len(rows))):
        found = dataset.ids(start, stop)
        assert found.dtype == np.int32
        assert (found == expected[start:stop]).all()
        assert found.shape == (stop - start, 64)
    for start, stop in ((-1, 3), (3, 2), (0, len(rows) + 1)):
        with pytest.raises(IndexError):
            dataset.ids(start, stop)


def test_a_row_group_is_decoded_once_when_reading_on(release, monkeypatch):
    folder, _, rows = release
    decoded = []
    group = reader._OpenShard.group

    def counted(self, number):
        decoded.append((self.path.name, number))
        return group(self, number)

    monkeypatch.setattr(reader._OpenShard, "group", counted)
    dataset = open_shards(folder)
    assert len(list(dataset.iterate())) == len(rows)
    assert len(decoded) == len(set(decoded)) > 4
    dataset.row(len(rows) - 1)  # still there
    assert len(decoded) == len(set(decoded))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_for_themselves(release, method):
    folder, _, rows = release
    dataset = open_shards(folder)
    dataset.row(0)
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(dataset.row, range(0, len(rows), 7))
    assert [as_python(row) for row in found] == rows[::7]


def test_a_release_behind_a_url(release, tmp_path):
    folder, manifest, rows = release
    memory = fsspec.filesystem("memory")
    for file in folder.iterdir():
        memory.pipe(f"/data/demo/{file.name}", file.read_bytes())
    cache = tmp_path / "cache"
    dataset = open_shards("memory://data/demo", cache_folder=cache)
    assert [as_python(row) for row in dataset.iterate()] == rows
    assert sorted(file.name for file in cache.rglob("*.parquet")) == [
        entry.path for entry in manifest.files if entry.rows
    ]
    memory.rm("/data/demo/0.parquet")  # it is in the cache
    again = open_shards("memory://data/demo/manifest.json", cache_folder=cache)
    assert as_python(again.row(0)) == rows[0]


def test_the_cache_of_a_url_is_bounded_and_damage_is_found(release, tmp_path):
    folder, manifest, rows = release
    memory = fsspec.filesystem("memory")
    for file in folder.iterdir():
        memory.pipe(f"/data/small/{file.name}", file.read_bytes())
    cache = tmp_path / "cache"
    dataset = open_shards("memory://data/small", cache_folder=cache, cache_bytes=1)
    assert [as_python(row) for row in dataset.iterate()] == rows
    assert len(list(cache.rglob("*.parquet"))) == 1
    memory.pipe("/data/small/0.parquet", b"x" * manifest.files[0].bytes)
    with pytest.raises(ShardCorrupt, match=r"memory://data/small/0\.parquet has sha256"):
        open_shards("memory://data/small", cache_folder=tmp_path / "other").row(0)
    memory.rm("/data/small/0.parquet")
    with pytest.raises(ShardCorrupt, match=r"0\.parquet is gone"):
        open_shards("memory://data/small", cache_folder=tmp_path / "other").row(0)
    with pytest.raises(NotFound, match="no release at memory://nowhere/manifest"):
        open_shards("memory://nowhere")


def test_an_unknown_split(release):
    with pytest.raises(ValueError, match="split 'test'; there are train, validation"):
        open_shards(release[0], "test")
    assert len(open_shards(release[0], "validation")) == 0
