"""A configuration: what loads, what is refused, and what the refusal says."""

import dataclasses
import math
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.config import Config, load
from curation.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
LEAST = 'lake = "lake"\n[[dumps]]\nname = "A"\ninputs = ["a.warc.gz"]\n'
RELEASE = "release.x.shares.web=1.0"  # a release needs shares before it needs anything else


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "c.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("path", sorted((ROOT / "jobs" / "conf").glob("*.toml")), ids=str)
def test_shipped_configurations_load(path: Path) -> None:
    config = load(path)
    assert config.dumps
    assert all(sum(r.shares.values()) == pytest.approx(1) for r in config.release.values())


def test_the_least_configuration_has_all_defaults(write) -> None:
    config = load(write(LEAST))
    defaults = Config(lake=config.lake, dumps=config.dumps)
    changed = {
        field.name
        for field in dataclasses.fields(Config)
        if getattr(config, field.name) != getattr(defaults, field.name)
    }
    assert changed == {"shards", "report"}, "these two became absolute; nothing else changed"


def test_settings_of_two_stages_cannot_be_changed_in_place(write) -> None:
    config = load(write(LEAST))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dedup.threshold = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("lakes", "lake"),
        ("ingest.extracter", "extractor"),
        ("dedup.treshold", "threshold"),
        ("fingerprint.band", "bands"),
        ("filter.profile", "profiles"),
        ("engine.batchrows", "batch_rows"),
        ("encode.sha", "sha256"),
        ("release.x.share", "shares"),
    ],
)
def test_an_unknown_key_names_the_nearest(write, key: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(LEAST), [f"{key}=1"])
    assert str(caught.value).startswith(f"{key} is not a setting; did you mean '{nearest}'?")


def test_an_unknown_key_of_a_listed_table_names_its_place(write) -> None:
    with pytest.raises(ConfigError, match=r"^dumps\[0\]\.input is not .*'inputs'"):
        load(write('lake = "l"\n[[dumps]]\nname = "A"\ninput = ["a"]\n'))


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("lake=3", "lake must be str, got 3"),
        ("dedup.bucket_cap=1.5", "dedup.bucket_cap must be int, got 1.5"),
        ("dedup.bucket_cap=true", "dedup.bucket_cap must be int, got True"),
        ('dedup.threshold="0.8"', "dedup.threshold must be float, got '0.8'"),
        ("dedup.threshold=true", "dedup.threshold must be float, got True"),
        ("filter.cut_lines=1", "filter.cut_lines must be bool, got 1"),
        ("ingest.languages=en", "ingest.languages must be a list, got 'en'"),
        ('ingest.languages=["en", 1]', "ingest.languages[1] must be str, got 1"),
        ("quality=3", "quality must be a table, got 3"),
        ('quality.a="x"', "quality.a must be float, got 'x'"),
        ("ingest=3", "ingest must be a table, got 3"),
        ("release.x=3", "release.x must be a table, got 3"),
        ('dumps=["a"]', "dumps[0] must be a table, got 'a'"),
        ("dumps=3", "dumps must be a list, got 3"),
        ("dedup.scope=galaxy", "dedup.scope must be one of global, dump, window, got 'galaxy'"),
    ],
)
def test_wrong_types_are_refused(write, override: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(LEAST), [override])
    assert rule in str(caught.value)


MAPPINGS = {"min_language_scores": "en", "epochs": "web", "bucket_weights": "head"}  # a key of each


def settings(cls: typing.Any, prefix: str) -> Iterator[tuple[str, type, dataclasses.Field]]:
    """Every scalar setting below a section, by its dotted name."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from settings(hint, f"{prefix}{field.name}.")
        elif field.name == "release":
            yield from settings(typing.get_args(hint)[1], "release.x.")
        elif field.name in MAPPINGS:
            yield f"{prefix}{field.name}.{MAPPINGS[field.name]}", typing.get_args(hint)[1], field
        else:
            yield f"{prefix}{field.name}", hint, field


RANGES = [
    (key, hint, side, field.metadata[side])
    for key, hint, field in settings(Config, "")
    for side in ("low", "high")
    if field.metadata[side] is not None
]


@pytest.mark.parametrize(("key", "hint", "side", "bound"), RANGES)
def test_each_range_holds_its_bound_and_nothing_beyond(
    write, key: str, hint: type, side: str, bound: float
) -> None:
    away = -math.inf if side == "low" else math.inf
    beyond = math.nextafter(bound, away) if hint is float else int(bound) + (-1, 1)[away > 0]
    path = write(LEAST)
    other = [RELEASE] if key != "release.x.temperature" or side == "low" else []
    load(path, [*other, f"{key}={hint(bound)}"])
    side_name = {"low": "at least", "high": "at most"}[side]
    with pytest.raises(ConfigError) as caught:
        load(path, [*other, f"{key}={beyond!r}"])
    assert str(caught.value).startswith(f"{key} must be {side_name} {bound:g}, got {beyond!r} (")


def test_every_number_has_a_lower_bound() -> None:
    numbers = [(key, field) for key, hint, field in settings(Config, "") if hint in (int, float)]
    assert numbers
    assert [key for key, field in numbers if field.metadata["low"] is None] == []


@pytest.mark.parametrize("key", ["dedup.threshold", "quality.any", "release.x.shares.web"])
def test_nan_is_no_number(write, key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key} must be a number, got nan"):
        load(write(LEAST), [f"{key}=nan"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('filter.profiles=["gofer"]', r"filter.profiles names 'gofer'; known are gopher, c4"),
        ("quality.gopher_words=9", "did you mean 'gopher_min_words'"),
        ("quality.gopher_max_duplicate_line=1.5", "between 0 and 1"),
        ("release.x.shares={web=0.5}", "release.x.shares sum to 0.5, but must sum to 1"),
        ("release.x.shares={}", "release.x has neither of shares and temperature; give it one"),
        ("release.x={shares={web=1}, temperature=2}", "release.x has both of shares and temp"),
        ("release.x={temperature=2, epochs={gold=2}}", "release.x.epochs names .* 'gold'; known"),
        ("release.x={shares={web=1}, epochs={'web/zh'=2}}", "'web/zh', which has no share"),
        ("release.x={shares={'gold/zh'=1}}", "release.x.shares names the domain 'gold/zh'; known"),
        ("release.x={shares={web=1}, bucket_weights={best=2}}", "'best'; buckets are head, middle"),
        ('release.x={shares={web=1}, packing="greedy"}', "packing must be one of concat, best_fit"),
        ("release.x={shares={web=1}, sequence_length=1}", "sequence_length must be at least 2"),
        ('default_domain="a/b"', "'a/b' has a slash"),
        ("release.x.shares={web=-1}", "share of domain 'web' is -1.0, but must be above 0"),
        ("release.x.shares={web=inf}", "share of domain 'web' is inf"),
        ("release.x={shares={web=1}, max_epochs=0}", "release.x.max_epochs must be at least 0.01"),
        ('lake="s3://bucket/lake"', "lake is s3://bucket/lake, a URL; it must be on a file"),
        ('ingest.language_model=""', "ingest.language_model is empty"),
        ("ingest.min_language_scores.cn=0.6", "names 'cn', which ingest.languages does not keep"),
        ('domains=[{name="", hosts=[]}]', "a domain has an empty name"),
        ('domains=[{name="a", hosts=["http://a.org/"]}]', "a host is a bare name"),
    ],
)
def test_what_a_stage_would_refuse_is_refused_at_load(write, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(write(LEAST), [override])


def test_infinity_turns_a_rule_off(write) -> None:
    config = load(write(LEAST), ["quality.gopher_max_words=inf"])
    assert config.quality == {"gopher_max_words": float("inf")}


def test_a_name_with_a_dot_is_quoted_in_an_override(write) -> None:
    config = load(
        write(LEAST + '[release."v1.0"]\nshares = {web = 1.0}\n'), ['release."v1.0".seed=3']
    )
    assert config.release["v1.0"].seed == 3
    with pytest.raises(ConfigError, match=r"'a b' is no key.*quote one"):
        load(write(LEAST), ["a b=1"])


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ('[[dumps]]\nname = "A"\ninputs = ["a"]\n', "lake"),
        ('lake = "l"\n', "dumps"),
        ('lake = "l"\n[[dumps]]\ninputs = ["a"]\n', r"dumps\[0\]\.name"),
        ('lake = "l"\n[[dumps]]\nname = "A"\n', r"dumps\[0\]\.inputs"),
        (LEAST + '[[domains]]\nhosts = ["a.org"]\n', r"domains\[0\]\.name"),
    ],
)
def test_what_is_missing_is_named_and_explained(write, text: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{missing} is missing \(.+\); add it"):
        load(write(text))


@pytest.mark.parametrize("key", ["lake", "shards", "report"])
def test_an_empty_path_is_not_the_working_directory(write, key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key} is empty"):
        load(write(LEAST), [f"{key}="])


@pytest.mark.parametrize(
    ("override", "section", "name", "value"),
    [
        ("dedup.bucket_cap=7", "dedup", "bucket_cap", 7),
        (" dedup.bucket_cap = 7 ", "dedup", "bucket_cap", 7),
        ("dedup.threshold=1", "dedup", "threshold", 1.0),
        ("engine.group_bytes=1_000", "engine", "group_bytes", 1000),
        ("filter.cut_lines=false", "filter", "cut_lines", False),
        ("dedup.scope=dump", "dedup", "scope", "dump"),
        ("dedup.scope = dump", "dedup", "scope", "dump"),
        ('dedup.scope="dump"', "dedup", "scope", "dump"),
        ("ingest.languages=[]", "ingest", "languages", ()),
        ('ingest.languages=["zh"]', "ingest", "languages", ("zh",)),
        ("quality.gopher_min_words=9", "", "quality", {"gopher_min_words": 9.0}),
        ("encode.sha256=a=b", "encode", "sha256", "a=b"),
    ],
)
def test_overrides(write, override: str, section: str, name: str, value: object) -> None:
    config = load(write(LEAST), [override])
    got = getattr(getattr(config, section) if section else config, name)
    assert got == value and type(got) is type(value)


def test_overrides_apply_in_order_over_the_file(write) -> None:
    path = write(LEAST + "[dedup]\nbucket_cap = 1\nwindow = 9\n")
    config = load(path, ["dedup.bucket_cap=2", "dedup.bucket_cap=3"])
    assert (config.dedup.bucket_cap, config.dedup.window) == (3, 9)


@pytest.mark.parametrize("override", ["", "dedup.threshold", "=3", " =3"])
def test_an_override_without_key_and_value_shows_the_form(write, override: str) -> None:
    with pytest.raises(ConfigError, match=r"is not key=value; write --set \S+=\S+$"):
        load(write(LEAST), [override])


def test_an_override_cannot_go_below_a_value(write) -> None:
    with pytest.raises(ConfigError, match="'lake' is a value, not a table"):
        load(write(LEAST), ["lake.path=3"])


@pytest.mark.parametrize("name", ["CC-MAIN-2023-14", "a", "A_1.b-c", "爬虫"])
@pytest.mark.parametrize("what", ["dump", "release"])
def test_names_that_make_a_folder(write, name: str, what: str) -> None:
    text = LEAST.replace('"A"', f'"{name}"')
    if what == "release":
        text = LEAST + f'[release."{name}"]\nshares = {{ web = 1.0 }}\n'
    config = load(write(text))
    assert name in ([d.name for d in config.dumps] if what == "dump" else config.release)


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "_a", "a/b", "a b", "a=b", "*", "a\\\\b"])
@pytest.mark.parametrize("what", ["dump", "release"])
def test_names_that_make_no_folder_are_refused(write, name: str, what: str) -> None:
    text = LEAST.replace('"A"', f'"{name}"')
    if what == "release":
        text = LEAST + f'[release."{name}"]\nshares = {{ web = 1.0 }}\n'
    with pytest.raises(ConfigError, match=f"^{what} name .* becomes a folder"):
        load(write(text))


def test_two_dumps_of_one_name_are_refused(write) -> None:
    with pytest.raises(ConfigError, match=r"^dump 'A' is listed twice"):
        load(write(LEAST + '[[dumps]]\nname = "A"\ninputs = ["b"]\n'))


def test_no_dump_is_refused(write) -> None:
    with pytest.raises(ConfigError, match=r"^dumps is empty"):
        load(write('lake = "l"\ndumps = []\n'))


def test_shares_of_unknown_domains_are_refused(write) -> None:
    text = LEAST + '[[domains]]\nname = "code"\n[release.x]\nshares = { code = 0.5, gold = 0.5 }\n'
    with pytest.raises(ConfigError, match=r"release\.x\.shares .*'gold'; known are code, web"):
        load(write(text))
    config = load(write(text), ["default_domain=gold"])
    assert config.release["x"].shares == {"code": 0.5, "gold": 0.5}


def test_paths_are_relative_to_the_file(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    write(
        'lake = "../lake"\nshards = "/opt/shards"\nreport = "~/report.html"\n'
        '[[dumps]]\nname = "A"\ninputs = ["in/*.gz", "/opt/b.paths", "s3://bucket/c"]\n'
        '[ingest]\nlanguage_model = "m.ftz"\nsecond_language_model = "n.bin"\n'
        '[encode]\ntokenizer = "t.json"\n'
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", "/opt/ann")
    config = load("../c.toml")
    folder = tmp_path.resolve()
    assert config.lake == str(folder.parent / "lake")
    assert config.shards == "/opt/shards"
    assert config.report == "/opt/ann/report.html"
    assert config.dumps[0].inputs == (f"{folder}/in/*.gz", "/opt/b.paths", "s3://bucket/c")
    assert config.ingest.language_model == f"{folder}/m.ftz"
    assert config.ingest.second_language_model == f"{folder}/n.bin"
    assert config.encode.tokenizer == f"{folder}/t.json"


def test_paths_into_packages_and_no_path_stay_as_written(write) -> None:
    config = load(write(LEAST), ["ingest.language_model=package:a/b.ftz"])
    assert (config.ingest.language_model, config.encode.tokenizer) == ("package:a/b.ftz", "")


def test_broken_toml_names_the_line(write) -> None:
    with pytest.raises(ConfigError, match=r"c\.toml is not TOML: .*line 2"):
        load(write('lake = "lake"\ndumps = oops\n'))


def test_bytes_that_are_no_text_are_not_toml(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"lake = '\xff\xfe'")
    with pytest.raises(ConfigError, match=r"c\.toml is not TOML"):
        load(tmp_path / "c.toml")


def test_a_missing_file_names_an_example(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no configuration at .*none\.toml; see (\S+) for one"
    ) as e:
        load(tmp_path / "none.toml")
    assert (ROOT / str(e.value).split("see ")[1].split(" for")[0]).exists()


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_the_ordinal_of_an_unknown_dump_names_the_known(write) -> None:
    config = load(write(LEAST + '[[dumps]]\nname = "B"\ninputs = ["b"]\n'))
    assert [config.dump_ordinal(name) for name in "AB"] == [0, 1]
    with pytest.raises(ConfigError, match=r"^dump 'C' is not in the configuration; it has A, B$"):
        config.dump_ordinal("C")
