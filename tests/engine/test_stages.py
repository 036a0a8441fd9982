"""Plans: what a key depends on, what it must not, and in which order units run."""

import dataclasses
import hashlib
import json
import os
import typing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_records import made

from curation.config import Config, load
from curation.dedup import minhash
from curation.engine import stages
from curation.engine.lake import Lake, RunRecord
from curation.engine.stages import STAGES, Unit, digest, dumps_in_scope, plan
from curation.errors import ArtifactChanged, ConfigError

ORDER = ["ingest", "fingerprint", "dedup", "lines", "annotate", "filter", "decontaminate", "encode"]
FOLLOWING = {  # a stage and everything after it in the flow of the data
    **{stage: set(ORDER[place:]) for place, stage in enumerate(ORDER)},
    "": set(),
}
# Another value of every setting, and the first stage whose rows or files it decides; "" for none.
CHANGES = {
    "lake": ('"other"', ""),
    "shards": ('"other"', ""),
    "report": ('"other.html"', ""),
    "ingest.slice_files": ("2", "ingest"),
    "ingest.extractor": ('"trafilatura"', "ingest"),
    "ingest.extractor_model": ('"other.json"', "ingest"),
    "ingest.unsure_share": ("0.01", "ingest"),
    "ingest.comments": ("false", "ingest"),
    "ingest.max_record_bytes": ("5_000_000", "ingest"),
    "ingest.language_model": ('"other.ftz"', "ingest"),
    "ingest.max_html_bytes": ("1_000_000", "ingest"),
    "ingest.max_html_tags": ("5_000", "ingest"),
    "ingest.max_html_depth": ("100", "ingest"),
    "ingest.max_html_attributes": ("5_000", "ingest"),
    "ingest.max_tag_attributes": ("100", "ingest"),
    "ingest.max_chars": ("1_000_000", "ingest"),
    "ingest.page_cpu_seconds": ("30.0", "ingest"),
    "ingest.page_memory_bytes": ("500_000_000", "ingest"),
    "ingest.languages": ('["en"]', "ingest"),
    "ingest.min_language_score": ("0.65", "ingest"),
    "ingest.min_language_scores": ("{ zh = 0.65 }", "ingest"),
    "ingest.min_script_share": ("0.5", "ingest"),
    "ingest.second_language_model": ('"other.ftz"', "ingest"),
    "ingest.min_chars": ("50", "ingest"),
    "ingest.blocked_domains": ('["a.org"]', "ingest"),
    "ingest.blocked_hosts": ('["www.a.org"]', "ingest"),
    "ingest.blocked_paths": ('["/tag/"]', "ingest"),
    "ingest.url_lists": ('[{ name = "l", format = "domains", path = "a.txt" }]', "ingest"),
    "ingest.public_suffix_list": ('"a.txt"', ""),  # with a list of registered domains, below
    "ingest.min_soft_words": ("3", "ingest"),
    "remote.user_agent": ('"lab/1.0"', ""),
    "remote.connections": ("1", ""),
    "remote.requests_per_second": ("1.0", ""),
    "remote.bytes_per_second": ("1e6", ""),
    "remote.attempts": ("1", ""),
    "remote.max_wait_seconds": ("1.0", ""),
    "remote.timeout_seconds": ("1.0", ""),
    "remote.anonymous": ("true", ""),
    "remote.s3_endpoint": ('"http://127.0.0.1:9000"', ""),
    "fingerprint.bands": ("20", "fingerprint"),
    "fingerprint.rows": ("10", "fingerprint"),
    "fingerprint.ngram": ("3", "fingerprint"),
    "fingerprint.seed": ("2", "fingerprint"),
    "dedup.threshold": ("0.7", "dedup"),
    "dedup.verify": ('"exact"', "fingerprint"),
    "dedup.scope": ('"dump"', "dedup"),
    "dedup.window": ("3", ""),  # without the scope of that name; with it, below
    "dedup.bucket_cap": ("2", "dedup"),
    "dedup.index_ranges": ("4", "dedup"),
    "dedup.alarm_share": ("0.5", ""),
    "dedup.alarm_documents": ("9", ""),
    "dedup.allowed_losses": ('["dump"]', ""),
    "dedup.max_rounds": ("0", ""),
    "dedup.prefix_documents": ("10", ""),
    "lines.max_documents": ("9", "lines"),
    "lines.min_words": ("2", ""),  # while nothing is cut
    "lines.min_chars": ("7", ""),
    "privacy.replace": ('["email"]', "annotate"),
    "annotate.models": ('[{ card = "en.json" }]', "annotate"),
    "annotate.bad_words": ("{ en = 'a.txt' }", "annotate"),
    "filter.profiles": ('["gopher"]', "filter"),
    "quality": ("{ gopher_min_words = 10 }", "filter"),
    "contamination.benchmarks": ('[{ name = "b", path = "a.txt" }]', "decontaminate"),
    "contamination.action": ('"cut"', ""),  # without benchmarks; with them, below
    "contamination.ngram": ("8", ""),
    "contamination.min_ngram": ("4", ""),
    "contamination.min_chars": ("7", ""),
    "filter.buckets": ("[20, 70]", ""),  # without models; with them, below
    "filter.cut_lines": ("false", "filter"),
    "filter.takedown": ('["a.txt"]', "filter"),
    "domains": ('[{ name = "chinese", languages = ["zh"] }]', "filter"),
    "default_domain": ('"other"', "filter"),
    "encode.tokenizer": ('"other.json"', "encode"),
    "encode.sha256": (f'"{hashlib.sha256(b"tokenizer").hexdigest()}"', ""),  # the file's own
    "release": ("{ r = { shares = { web = 1.0 } } }", ""),
    "engine.group_bytes": ("1", ""),
    "engine.batch_rows": ("1", ""),
    "engine.single_task_documents": ("0", ""),
    "engine.num_partitions": ("7", ""),
    "engine.core_hour_price": ("0.04", ""),
}
Keys = dict[tuple[str, str, str], str]


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Config]:
    """Two dumps of two slices each, an artifact of each kind, and another of each."""
    for name in ("A-0", "A-1", "B-0", "B-1", "C-0"):
        path = tmp_path / f"{name}.warc.gz"
        path.write_bytes(b"archive")
        os.utime(path, ns=(0, 0))
    for name in ("model.ftz", "tokenizer.json"):
        (tmp_path / name).write_bytes(name.split(".")[0].encode())
    (tmp_path / "a.txt").write_text("a.net\n")
    (tmp_path / "en.bin").write_bytes(b"model")
    files = {"en.bin": hashlib.sha256(b"model").hexdigest()}
    card = {"kind": "classifier", "language": "en", "files": files}
    (tmp_path / "en.json").write_text(json.dumps(card))
    for name in ("other.ftz", "other.json"):
        (tmp_path / name).write_bytes(b"other")

    def configure(*overrides: str, dumps: str = "AB") -> Config:
        tables = "".join(f'[[dumps]]\nname = "{d}"\ninputs = ["{d}-*.warc.gz"]\n' for d in dumps)
        path = tmp_path / "c.toml"
        path.write_text(
            f'lake = "lake"\n{tables}[ingest]\nlanguage_model = "model.ftz"\nslice_files = 1\n'
            '[encode]\ntokenizer = "tokenizer.json"\n'
        )
        return load(path, overrides)

    return configure


def keys(config: Config) -> Keys:
    return {(u.stage.name, u.dump, u.slice): u.key for u in plan(config, None)}


def changed(before: Keys, after: Keys) -> set[tuple[str, str, str]]:
    """The units that are to be run again, or for the first time."""
    return {unit for unit in after if after[unit] != before.get(unit)}


def units(stage_names: set[str], dumps: str = "AB") -> set[tuple[str, str, str]]:
    """Every unit of some stages and dumps of two slices."""
    return {
        (stage, dump, slice)
        for stage in stage_names
        for dump in dumps
        for slice in (["all"] if stage in ("dedup", "lines") else ["0000", "0001"])
    }


def settings(cls: typing.Any, prefix: str = "") -> Iterator[str]:
    """Every setting that is not a part of a listed table."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from settings(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


# ---- keys --------------------------------------------------------------------------------------


def test_every_setting_is_decided_here() -> None:
    assert set(CHANGES) | {"dumps"} == set(settings(Config))
    assert list(STAGES) == ORDER


@pytest.mark.parametrize("setting", CHANGES)
def test_a_setting_changes_the_stages_that_it_decides_and_what_follows(
    configure: Callable[..., Config], setting: str
) -> None:
    value, first = CHANGES[setting]
    config, other = configure(), configure(f"{setting}={value}")
    assert config != other
    after = keys(other)
    expected = units(FOLLOWING[first])
    if setting == "ingest.slice_files":  # two files a slice
        expected = {unit for unit in expected if unit[2] != "0001"}
    assert changed(keys(config), after) == expected


def test_a_window_decides_in_its_scope(configure: Callable[..., Config]) -> None:
    config, other = (configure('dedup.scope="window"', f"dedup.window={n}") for n in (1, 2))
    assert changed(keys(config), keys(other)) == units(FOLLOWING["dedup"])


def test_percentiles_are_of_the_whole_dump(configure: Callable[..., Config]) -> None:
    """With models a slice is decided by what all slices of its dump have measured."""
    without, with_models = (
        plan(configure(*overrides), None)
        for overrides in ((), ('annotate.models=[{card="en.json"}]',))
    )
    inputs = [
        next(u.inputs for u in planned if u.name == "filter/A/0000")
        for planned in (without, with_models)
    ]
    assert set(inputs[1]) - set(inputs[0]) == {"annotate/A/0001"}
    before = keys(configure('annotate.models=[{card="en.json"}]'))
    for setting in ("filter.buckets=[20, 60]", "filter.buckets=[30, 70]"):
        after = keys(configure('annotate.models=[{card="en.json"}]', setting))
        assert changed(before, after) == units(FOLLOWING["filter"])


def test_an_altered_model_is_refused_before_anything_runs(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    config = configure('annotate.models=[{card="en.json"}]')
    plan(config, None)
    (tmp_path / "en.bin").write_bytes(b"other")
    with pytest.raises(ArtifactChanged, match=r"en.bin has sha256"):
        plan(config, None)
    with pytest.raises(ArtifactChanged, match=r"0000 is pinned"):
        plan(configure(f'annotate.models=[{{card="en.json", sha256="{"0" * 64}"}}]'), None)


def test_two_models_for_one_language_are_refused(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "two.json").write_bytes((tmp_path / "en.json").read_bytes())
    config = configure('annotate.models=[{card="en.json"}, {card="two.json"}]')
    with pytest.raises(
        ConfigError, match=r"two classifier models for en: .*en.json and .*two.json"
    ):
        plan(config, None)


@pytest.mark.parametrize(
    ("setting", "counts"),
    [
        ('contamination.action="cut"', True),
        ("contamination.ngram=8", True),
        ("contamination.min_ngram=4", True),
        ("contamination.min_chars=7", False),  # of what a cut leaves
    ],
)
def test_rules_of_contamination_count_with_benchmarks(
    configure: Callable[..., Config], setting: str, counts: bool
) -> None:
    benchmarks = 'contamination.benchmarks=[{name="b", path="a.txt"}]'
    before, after = keys(configure(benchmarks)), keys(configure(benchmarks, setting))
    assert changed(before, after) == units(FOLLOWING["decontaminate"] if counts else set())


def test_benchmarks_count_by_name_fields_and_content(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "same.txt").write_bytes((tmp_path / "a.txt").read_bytes())
    (tmp_path / "b.txt").write_text("another\n")

    def key(*benchmarks: str) -> str:
        tables = f"contamination.benchmarks=[{', '.join(benchmarks)}]"
        return keys(configure(tables))["decontaminate", "A", "0000"]

    assert key('{name="b", path="a.txt"}') == key('{name="b", path="same.txt"}')
    different = [
        key('{name="b", path="a.txt"}'),
        key('{name="c", path="a.txt"}'),
        key('{name="b", path="b.txt"}'),
        key('{name="b", path="a.txt", fields=["x"]}'),
        key('{name="b", path="[ab].txt"}'),
        key('{name="b", path="a.txt"}', '{name="c", path="b.txt"}'),
        key('{name="b", path="[ab].txt"}', '{name="c", path="b.txt"}'),
    ]
    assert len(set(different)) == len(different)


def test_which_language_model_is_the_second_counts(configure: Callable[..., Config]) -> None:
    chosen = [
        (f"ingest.language_model={first}.ftz", f"ingest.second_language_model={second}")
        for first, second in (
            ("model", ""),
            ("model", "model.ftz"),
            ("model", "other.ftz"),
            ("other", "model.ftz"),
        )
    ]
    assert len({keys(configure(*overrides))["ingest", "A", "0000"] for overrides in chosen}) == 4


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("dedup.threshold=1", "dedup.threshold=1.0"),
        (
            "quality={ gopher_min_words = 1, gopher_max_words = 2 }",
            "quality={ max_words = 2.0, min_words = 1.0 }",
        ),
        ("ingest.max_record_bytes=10_000_000", "ingest.min_chars=100"),  # both the default
    ],
)
def test_one_value_written_in_two_ways_has_one_key(
    configure: Callable[..., Config], override: str, same: str
) -> None:
    assert keys(configure(override)) == keys(configure(same))


def test_the_order_of_profiles_and_domains_counts(configure: Callable[..., Config]) -> None:
    for setting, a, b in (
        ("filter.profiles", '"gopher"', '"c4"'),
        ("domains", '{ name = "x" }', '{ name = "y" }'),
    ):
        one, two = (keys(configure(f"{setting}=[{x}, {y}]")) for x, y in ((a, b), (b, a)))
        assert changed(one, two) == units(FOLLOWING["filter"])


def test_an_artifact_counts_by_its_content_not_by_its_path(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    before = keys(configure())
    for name, first in (("model.ftz", "ingest"), ("tokenizer.json", "encode")):
        path, content = tmp_path / name, (tmp_path / name).read_bytes()
        setting = {"ingest": "ingest.language_model", "encode": "encode.tokenizer"}[first]
        (tmp_path / "copy").write_bytes(content)
        assert keys(configure(f"{setting}=copy")) == before
        path.write_bytes(content[::-1])  # of the same size
        os.utime(path, ns=(1, 1))
        assert changed(before, keys(configure())) == units(FOLLOWING[first])
        path.write_bytes(content)
        os.utime(path, ns=(2, 2))
        assert keys(configure()) == before


def test_url_lists_count_by_name_format_and_content(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    for folder, files in (
        ("one", ("domains", "urls")),
        ("two", ("urls",)),
        ("three", ("domains",)),
    ):
        (tmp_path / folder).mkdir()
        for file in files:
            (tmp_path / folder / file).write_text("a.net\n")
    (tmp_path / "same.txt").write_text("a.net\n")
    (tmp_path / "b.txt").write_text("b.net\n")

    def key(*lists: str) -> str:
        tables = ", ".join(
            f'{{ name = "{name}", format = "{format}", path = "{path}" }}'
            for name, format, path in map(str.split, lists)
        )
        return keys(configure(f"ingest.url_lists=[{tables}]"))["ingest", "A", "0000"]

    assert key("l hosts a.txt") == key("l hosts same.txt")
    different = [
        key("l hosts a.txt"),
        key("l hosts b.txt"),
        key("l domains a.txt"),
        key("other hosts a.txt"),
        key("l hosts a.txt", "l domains b.txt"),
        key("l hosts b.txt", "l domains a.txt"),
        key("l hosts a.txt", "l domains a.txt", "l words b.txt"),
        key("l hosts a.txt", "l domains b.txt", "l words b.txt"),
        key("l ut1 one"),
        key("l ut1 two"),
    ]
    assert len(set(different)) == len(different)
    assert key("l ut1 three") == key("l domains a.txt")
    before = key("l registered_domains a.txt")
    suffixes = 'ingest.public_suffix_list="b.txt"'
    lists = 'ingest.url_lists=[{ name = "l", format = "registered_domains", path = "a.txt" }]'
    assert keys(configure(lists, suffixes))["ingest", "A", "0000"] != before


def test_a_grown_takedown_list_runs_filter_again_not_ingest(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    config = configure('filter.takedown=["a.txt"]')
    before = keys(config)
    (tmp_path / "a.txt").write_text("a.net\nb.net\n")
    assert changed(before, keys(config)) == units(FOLLOWING["filter"])


def test_a_tokenizer_that_is_not_the_pinned_one_is_refused(
    configure: Callable[..., Config],
) -> None:
    config = configure(f"encode.sha256={'a' * 64}")
    plan(config, None, last="filter")
    with pytest.raises(ArtifactChanged, match="a" * 64):
        plan(config, None)


@pytest.mark.parametrize(
    ("package", "extractor", "first"),
    [
        ("fastwarc", "resiliparse", "ingest"),
        ("warcio", "resiliparse", "ingest"),
        ("zlib-ng", "resiliparse", "ingest"),
        ("resiliparse", "resiliparse", "ingest"),
        ("resiliparse", "trafilatura", "ingest"),  # it decodes bytes for either
        ("trafilatura", "trafilatura", "ingest"),
        ("lxml", "trafilatura", "ingest"),
        ("justext", "trafilatura", "ingest"),
        ("trafilatura", "trafilatura_fast", "ingest"),
        ("chardet", "resiliparse", "ingest"),
        ("fasttext-predict", "resiliparse", "ingest"),
        ("idna", "resiliparse", "ingest"),
        ("trafilatura", "resiliparse", ""),
        ("trafilatura", "blocks", ""),
        ("tokenizers", "resiliparse", "encode"),
        ("pyspark", "resiliparse", ""),
        ("pyarrow", "resiliparse", ""),
        ("curation", "resiliparse", ""),
    ],
)
def test_a_package_counts_where_it_decides_rows(
    configure: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extractor: str,
    first: str,
) -> None:
    config = configure(f"ingest.extractor={extractor}")
    before, real = keys(config), stages.version
    monkeypatch.setattr(stages, "version", lambda name: real(name) + "+" * (name == package))
    assert changed(before, keys(config)) == units(FOLLOWING[first])


@pytest.mark.parametrize("name", ORDER)
def test_a_new_version_of_a_stage_runs_it_again_and_what_follows(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = keys(configure())
    monkeypatch.setitem(STAGES, name, replace(STAGES[name], version=STAGES[name].version + 1))
    assert changed(before, keys(configure())) == units(FOLLOWING[name])


@pytest.mark.parametrize("setting", ["lines.min_words=2", "lines.min_chars=7"])
def test_how_lines_are_cut_counts_where_they_are(
    configure: Callable[..., Config], setting: str
) -> None:
    on = "lines.max_documents=9"
    assert changed(keys(configure(on)), keys(configure(on, setting))) == units(FOLLOWING["lines"])


def test_a_new_format_of_signatures_is_another_fingerprint(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(configure())
    monkeypatch.setattr(minhash, "FORMAT_VERSION", minhash.FORMAT_VERSION + 1)
    assert changed(before, keys(configure())) == units(FOLLOWING["fingerprint"])


@pytest.mark.parametrize("fact", ["size", "mtime", "format"])
def test_an_input_counts_in_its_slice_and_in_what_is_compared_with_it(
    configure: Callable[..., Config], tmp_path: Path, fact: str
) -> None:
    """A file of B, the later dump: nothing of A, and of B only the slice of the file, but dedup."""
    before = keys(configure())
    path = tmp_path / "B-1.warc.gz"
    config = configure()
    if fact == "size":
        path.write_bytes(b"longer archive")
        os.utime(path, ns=(0, 0))
    elif fact == "mtime":
        os.utime(path, ns=(0, 1))
    else:
        dumps = (config.dumps[0], replace(config.dumps[1], format="jsonl"))
        config = replace(config, dumps=dumps)
    expected = units(set(ORDER), "B")
    if fact != "format":
        expected -= {("ingest", "B", "0000"), ("fingerprint", "B", "0000")}
    assert changed(before, keys(config)) == expected


@pytest.mark.parametrize(
    ("scope", "reached"), [("global", "B"), ("window", "B"), ("dump", "")], ids=str
)
def test_an_earlier_dump_counts_where_it_is_in_scope(
    configure: Callable[..., Config], tmp_path: Path, scope: str, reached: str
) -> None:
    config = configure(f"dedup.scope={scope}")
    before = keys(config)
    os.utime(tmp_path / "A-0.warc.gz", ns=(0, 1))
    expected = units(set(ORDER), "A") - {("ingest", "A", "0001"), ("fingerprint", "A", "0001")}
    assert changed(before, keys(config)) == expected | units(FOLLOWING["dedup"], reached)


@pytest.mark.parametrize("scope", ["global", "window", "dump"])
def test_an_appended_dump_leaves_every_earlier_key(
    configure: Callable[..., Config], scope: str
) -> None:
    """Law 3."""
    before = keys(configure(f"dedup.scope={scope}"))
    after = keys(configure(f"dedup.scope={scope}", dumps="ABC"))
    assert changed(before, after) == {u for u in after if u[1] == "C"}
    assert before.items() <= after.items()


def test_a_dump_counts_by_its_place_and_name(configure: Callable[..., Config]) -> None:
    """Documents' ids hold the place, rows the name."""
    scope = "dedup.scope=dump"
    assert changed(keys(configure(scope)), keys(configure(scope, dumps="BA"))) == units(set(ORDER))
    config = configure(scope)
    renamed = replace(config, dumps=(config.dumps[0], replace(config.dumps[1], name="X")))
    one, other = keys(config), keys(renamed)
    assert all(one[unit] == other[unit] for unit in units(set(ORDER), "A"))
    assert not {one[unit] for unit in units(set(ORDER), "B")} & set(other.values())


# ---- plans -------------------------------------------------------------------------------------


def test_units_run_dump_after_dump_and_stage_after_stage(configure: Callable[..., Config]) -> None:
    slices = ["0000", "0001"]
    assert [unit.name for unit in plan(configure(), None)] == [
        f"{stage}/{dump}/{slice}"
        for dump in "AB"
        for stage in ORDER
        for slice in (["all"] if stage in ("dedup", "lines") else slices)
    ]


def test_inputs_are_the_units_that_are_read_and_come_before(
    configure: Callable[..., Config],
) -> None:
    by_name: dict[str, Unit] = {}
    for unit in plan(configure(dumps="ABC"), None):
        for name, key in unit.inputs.items():
            assert by_name[name].key == key
        by_name[unit.name] = unit
    assert {name: set(unit.inputs) for name, unit in by_name.items() if "/B/" in name} == {
        "ingest/B/0000": set(),
        "ingest/B/0001": set(),
        "fingerprint/B/0000": {"ingest/B/0000"},
        "fingerprint/B/0001": {"ingest/B/0001"},
        "dedup/B/all": {"fingerprint/B/0000", "fingerprint/B/0001", "dedup/A/all"},
        "lines/B/all": {"ingest/B/0000", "ingest/B/0001", "dedup/B/all", "lines/A/all"},
        "annotate/B/0000": {"ingest/B/0000", "dedup/B/all", "lines/B/all"},
        "annotate/B/0001": {"ingest/B/0001", "dedup/B/all", "lines/B/all"},
        "filter/B/0000": {"ingest/B/0000", "lines/B/all", "annotate/B/0000"},
        "filter/B/0001": {"ingest/B/0001", "lines/B/all", "annotate/B/0001"},
        **{
            f"{stage}/B/{n}": {f"ingest/B/{n}", "lines/B/all", *(f"{s}/B/{n}" for s in read)}
            for n in ("0000", "0001")
            for stage, read in (
                ("decontaminate", ("annotate", "filter")),
                ("encode", ("annotate", "filter", "decontaminate")),
            )
        },
    }
    assert set(by_name["dedup/C/all"].inputs) == {
        "fingerprint/C/0000",
        "dedup/A/all",
        "dedup/B/all",
    }


def test_a_part_of_the_plan_has_the_keys_of_the_whole(configure: Callable[..., Config]) -> None:
    config = configure()
    part = plan(config, None, dumps=["B"], first="dedup", last="filter")
    assert [unit.name for unit in part] == [
        "dedup/B/all",
        "lines/B/all",
        *(f"{stage}/B/000{i}" for stage in ("annotate", "filter") for i in (0, 1)),
    ]
    whole = keys(config)
    assert all(unit.key == whole[unit.stage.name, unit.dump, unit.slice] for unit in part)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("scope=global", ["", "A", "AB", "ABC"]),
        ("scope=dump", ["", "", "", ""]),
        ("window=1", ["", "", "", ""]),
        ("window=2", ["", "A", "B", "C"]),
        ("window=3", ["", "A", "AB", "BC"]),
        ("window=9", ["", "A", "AB", "ABC"]),
    ],
)
def test_dumps_in_scope(
    configure: Callable[..., Config], override: str, expected: list[str]
) -> None:
    overrides = [f"dedup.{override}"]
    if "window" in override:
        overrides.append("dedup.scope=window")
    config = configure(*overrides, dumps="ABCD")
    assert ["".join(dumps_in_scope(config, dump)) for dump in "ABCD"] == expected


def test_committed_is_what_has_a_record_under_its_key(configure: Callable[..., Config]) -> None:
    config = configure()
    lake = Lake.create(config.lake)
    for unit in plan(config, lake):
        if unit.name in ("ingest/A/0000", "dedup/A/all", "encode/B/0001"):
            key = unit.key if unit.dump == "A" else "0" * 64
            lake.commit(record_of(unit, key))
    committed = [unit.name for unit in plan(config, lake) if unit.committed]
    assert committed == ["ingest/A/0000", "dedup/A/all"]
    assert not any(unit.committed for unit in plan(configure("ingest.min_chars=1"), lake))


def record_of(unit: Unit, key: str) -> RunRecord:
    return made(unit.stage.name, unit.dump, unit.slice, key=key)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dumps": ["Z"]}, r"dump 'Z' is not in the configuration; it has A, B"),
        ({"first": "ingets"}, f"there is no stage 'ingets'; stages are {', '.join(ORDER)}"),
        ({"last": "release"}, "there is no stage 'release'"),
        ({"first": "filter", "last": "dedup"}, "--from filter comes after --to dedup; swap them"),
    ],
)
def test_a_part_that_is_none_is_refused(
    configure: Callable[..., Config], arguments: dict[str, typing.Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(configure(), None, **arguments)


def test_only_encode_needs_a_tokenizer(configure: Callable[..., Config]) -> None:
    config = configure("encode.tokenizer=")
    assert {unit.stage.name for unit in plan(config, None, last="decontaminate")} == set(ORDER[:-1])
    with pytest.raises(ConfigError, match=r"encode\.tokenizer, which is not set; train one with"):
        plan(config, None)


def test_a_plan_makes_nothing(configure: Callable[..., Config], tmp_path: Path) -> None:
    config = configure()
    before = sorted(tmp_path.rglob("*"))
    plan(config, None)
    assert sorted(tmp_path.rglob("*")) == before


# ---- digests -----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_digest_survives_a_run_record(value: object) -> None:
    """Keys are computed of settings as they are and as a record gives them back."""
    assert digest(value) == digest(json.loads(json.dumps(value)))


@given(st.dictionaries(st.text(), st.integers(), min_size=2, max_size=5))
def test_a_digest_does_not_see_the_order_of_keys(value: dict[str, int]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


@given(JSON, JSON)
def test_digests_are_equal_where_values_are(left: object, right: object) -> None:
    same = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert (digest(left) == digest(right)) == same


def test_a_digest_is_the_sha256_of_canonical_json() -> None:
    text = b'{"a":[1,2.5,null,true],"b":"\\u00e9"}'
    assert digest({"b": "é", "a": (1, 2.5, None, True)}) == hashlib.sha256(text).hexdigest()
