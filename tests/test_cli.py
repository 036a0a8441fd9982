"""The `curation` command: help, wrong use, plans, and what it says without a JVM."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import typer
from rich.console import Console
from run_records import made

import curation
from curation import cli
from curation.config import load
from curation.engine.lake import Lake, TableWriter
from curation.engine.stages import Unit, plan
from curation.ingest.listing import InputFile
from curation.schemas import TABLES

COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
PYTHON = """
import sys
from curation.cli import main
try:
    main()
finally:
    loaded = sorted(name for name in ("pyspark", "py4j", "torch") if name in sys.modules)
    print("loaded:", *loaded, file=sys.stderr)
"""


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: exit code, standard output, standard error."""
    monkeypatch.setattr(cli, "console", Console(highlight=False, width=200))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["curation", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
            raise SystemExit(0)
        code = caught.value.code
        assert code is None or isinstance(code, int)
        return (code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of one dump of three files, that all exist and need not be read."""
    for i in range(3):
        (tmp_path / f"a-{i}.warc.gz").write_bytes(b"archive")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.ftz").write_text("")
    path = tmp_path / "c.toml"
    path.write_text(
        'lake = "lake"\n[[dumps]]\nname = "A"\ninputs = ["a-*.warc.gz"]\n'
        '[ingest]\nslice_files = 2\nlanguage_model = "model.ftz"\n'
        '[encode]\ntokenizer = "tokenizer.json"\n'
    )
    return path


def commit(lake: Lake, unit: Unit, num_in: int = 0, num_kept: int = 0, **more: object) -> None:
    """Commit a unit without doing it."""
    place = (unit.stage.name, unit.dump, unit.slice)
    lake.commit(made(*place, num_in, num_kept, key=unit.key, **more))


@pytest.fixture
def lake(config: Path) -> Lake:
    """A lake in which every unit of the configuration is committed."""
    loaded = load(config)
    lake = Lake.create(loaded.lake)
    files = sorted(config.parent.glob("a-*"))
    stats = [(str(path), path.stat()) for path in files]
    lake.freeze_inputs(
        "A", 0, 2, [InputFile(i, p, s.st_size, s.st_mtime_ns) for i, (p, s) in enumerate(stats)]
    )
    for unit in plan(loaded, lake):
        counts: dict[str, dict[str, int]] = {}
        if unit.stage.name == "ingest":
            rows, counts = (600, 400), {"rejects": {"min_chars": 150, "parser_error:[/bold]": 50}}
        elif unit.stage.name == "dedup":
            rows, counts = (800, 200), {"duplicates": {"near": 500, "exact": 100}}
        elif unit.stage.name == "filter":
            rows = (100, 50)
        else:
            rows, counts = (50, 50), {"tokens": {"web": 30_000}} if "encode" in unit.name else {}
        commit(lake, unit, *rows, counts=counts)
    return lake


def in_subprocess(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PYTHON, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(curation.__file__).parents[1])},
    )


# ---- help and wrong use ------------------------------------------------------------------------


def test_help_names_every_command(call: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert [name for name in COMMANDS if not re.search(rf"^  {name} +\w", out, re.M)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_explains_every_parameter_and_shows_a_use(
    call: Callable[..., tuple[int, str, str]], name: str
) -> None:
    code, out, err = call(name, "--help")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    for parameter in COMMANDS[name].params:
        assert parameter.opts[0].lower() in said.lower()  # typer's versions differ in case
        assert parameter.help and " ".join(parameter.help.split()) in said
    assert f"Example: curation {name} " in said


def examples() -> Iterator[list[str]]:
    for name, command in COMMANDS.items():
        example = " ".join(str(command.help).split()).split("Example: curation ")[1]
        assert example.split()[0] == name
        yield example.split()


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example[0])
def test_the_example_of_a_command_can_be_parsed(example: list[str]) -> None:
    """Whether it uses options that exist; its paths are in the repository or made by it."""
    command = COMMANDS[example[0]]
    command.make_context(example[0], example[1:])
    named = [a for a in example if a.startswith("jobs/") and a.endswith(".toml")]
    assert [p for p in named if not (Path(__file__).parents[1] / p).exists()] == []


def test_the_version_is_printed(call: Callable[..., tuple[int, str, str]]) -> None:
    assert call("--version") == (0, f"{curation.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["rnu"], "rnu"),
        (["run"], "config"),
        (["run", "c.toml", "--paln"], "--plan"),  # the nearest
        (["run", "c.toml", "--max-minutes", "soon"], "--max-minutes"),
        (["run", "c.toml", "d.toml"], "d.toml"),
        (["release", "demo"], "--config"),
        (["train-tokenizer", "c.toml"], "--to"),
        (["train-tokenizer", "c.toml", "--to", "t.json", "--vocabulary", "299"], "--vocabulary"),
        (["why", "lake"], "document"),
        (["show"], "lake"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_named_and_exits_with_2(
    call: Callable[..., tuple[int, str, str]], arguments: list[str], named: str
) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert named in err.lower() and "Traceback" not in err


def test_scaling_prints_the_laws_with_units(call: Callable[..., tuple[int, str, str]]) -> None:
    """For 1e20 FLOPs the formulas give 9.86e-4 and 1.017 M tokens."""
    code, out, _ = call("scaling", "--compute", "1e20")
    assert code == 0
    words = " ".join(out.replace("│", " ").split())
    assert "learning rate 0.000986 peak" in words
    assert "1.017e+06 tokens, 248 sequences of 4,096" in words
    code, out, _ = call("scaling", "--gpus", "8", "--hours", "168", "--mfu", "0.45")
    assert code == 0 and "preset " in out and " steps" in out


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.toml"], "no configuration at none.toml; see jobs/conf/demo.toml for one"),
        (["run", "[/bold][none].toml"], "no configuration at [/bold][none].toml; see"),
        (["run", "c.toml", "--set", "dedup.treshold=1"], "did you mean 'threshold'?"),
        (["run", "c.toml", "--set", "oops"], "--set 'oops' is not key=value"),
        (["run", "c.toml", "--plan", "--dump", "Z"], "dump 'Z' is not in the configuration"),
        (["run", "c.toml", "--plan", "--from", "x"], "there is no stage 'x'"),
        (["run", "c.toml", "--plan", "--lake", "other"], "format 999"),
        (["release", "demo", "--config", "c.toml"], "no [release.demo] in the configuration"),
        (["show", "none"], "there is no lake at none"),
        (["why", "none", "1"], "there is no lake at none"),
        (["gc", "none"], "there is no lake at none"),
        (["report", "c.toml"], "there is no lake at "),
        (["train-tokenizer", "c.toml", "--to", "t.json"], "there is no lake at "),
        (["train-tokenizer", "c.toml", "--to", "t.json", "--compare", "x"], "not NAME=PATH"),
        (["scaling"], "name one of --compute FLOPS and --gpus NUMBER"),
        (["scaling", "--compute", "0"], "compute is 0 FLOPs"),
        (["scaling", "--gpus", "8", "--mfu", "2"], "utilisation is 2"),
        (["inspect", "none"], "no release at none; make one with"),
        (["inspect", "none", "--split", "test"], "--split test: there are train, validation"),
        (["memmap", "none", "--to", "x", "--split", "test"], "--split test: there are"),
        (["memmap", "none", "--to", "x"], "no release at none"),
        (["export", "none", "--to", "x"], "there is no lake at none"),
        (["fetch-listing", "X", "--to", "a.txt"], "--to a.txt: the name of a path listing ends in"),
        (["fetch-index", "X", "--to", "a.gz"], "--to a.gz: the name of a path listing ends in"),
        (["fetch-index", "X", "--to", "a.paths"], "the index would give every page of the dump"),
        (["run", "c.toml", "--progress", "xml"], "--progress 'xml': it is live or json"),
        (["run", "c.toml", "--json"], "--json goes with --plan"),
        (["runs", "none"], "there is no lake at none"),
        (["check", "none"], "there is no lake at none"),
        (
            ["capacity", "none", "--dumps", "1", "--cores", "1", "--price", "0"],
            "--price is 0.0; it must be above 0",
        ),
        (
            ["capacity", "none", "--dumps", "1", "--cores", "1", "--price", "1"],
            "there is no lake at none",
        ),
        (["train-domains", "--label", "x", "--to", "d.json"], "--label 'x' is not LABEL=SOURCE"),
        (
            ["recall", "--seed", "s.txt", "--lake", "none", "--label", "m", "--to", "x"],
            "there is no lake at none",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_message_and_exits_with_1(
    call: Callable[..., tuple[int, str, str]],
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(config.parent)
    (config.parent / "other").mkdir()
    (config.parent / "other" / "_lake.json").write_text('{"format_version": 999}')
    before = sorted(config.parent.rglob("*"))
    code, out, err = call(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and message in err
    assert re.search(r" \(see README\.md#[a-z-]+\)\n$", err)
    assert err.count("\n") == 1
    assert sorted(config.parent.rglob("*")) == before, "an error makes no lake"


def test_an_error_shows_no_trace_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = in_subprocess(tmp_path, "show", "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0].startswith("error: there is no lake at none")
    assert "Traceback" not in done.stderr


# ---- without a JVM -----------------------------------------------------------------------------


def test_a_plan_makes_nothing_and_starts_nothing(config: Path) -> None:
    before = sorted(config.parent.rglob("*"))
    done = in_subprocess(config.parent, "run", "c.toml", "--plan")
    assert (done.returncode, done.stderr) == (0, "loaded:\n")
    assert "0 committed, 14 to run" in done.stdout  # 6 stages of two slices, dedup, lines
    assert sorted(config.parent.rglob("*")) == before


def test_a_plan_shows_what_is_committed(
    call: Callable[..., tuple[int, str, str]], config: Path, lake: Lake
) -> None:
    units = plan(load(config), lake)
    (lake.path / "_runs" / "filter" / "A" / "0001.json").unlink()
    code, out, _ = call("run", config, "--plan")
    assert code == 0 and "13 committed, 1 to run" in out
    for unit in units:
        state = "to run" if unit.name == "filter/A/0001" else "committed"
        row = rf"{unit.stage.name} .*A .*{unit.slice} .*{unit.key[:12]} .*{state}"
        assert re.search(row, out), unit.name
    _, out, _ = call("run", config, "--plan", "--from", "filter", "--to", "filter")
    assert "1 committed, 1 to run" in out
    _, out, _ = call("run", config, "--plan", "--set", "filter.cut_lines=false")
    assert "8 committed, 6 to run" in out
    _, out, _ = call("run", config, "--plan", "--lake", config.parent / "fresh")
    assert "0 committed, 14 to run" in out
    _, out, _ = call("run", config, "--plan", "--json")
    values = json.loads(out)
    assert values["lake"] == str(lake.path)
    assert values["units"] == [
        {
            "stage": unit.stage.name,
            "dump": unit.dump,
            "slice": unit.slice,
            "key": unit.key,
            "committed": unit.name != "filter/A/0001",
        }
        for unit in units
    ]


def test_a_check_shows_values_and_fails_on_an_alarm(
    call: Callable[..., tuple[int, str, str]], lake: Lake
) -> None:
    code, out, err = call("check", lake.path, "--min-kept", "0")
    assert (code, err) == (0, "")
    kept = sum(record.rows["kept"] for record in lake.records("encode"))
    code, out, err = call("check", lake.path, "--dump", "A", "--min-kept", kept + 1)
    assert code == 1 and "alarm" in out
    assert f"dump A: documents kept is {kept}, below {kept + 1}. Look at the report" in err


def test_where_all_is_committed_no_jvm_starts_and_no_lock_is_needed(
    config: Path, lake: Lake
) -> None:
    with lake.lock():
        done = in_subprocess(config.parent, "run", "c.toml")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "loaded:"
    planned = json.loads(done.stderr.splitlines()[0])
    assert (planned["event"], planned["slices"], planned["slices_committed"]) == ("planned", 14, 14)
    assert (config.parent / "report.html").stat().st_size > 0


def test_show_says_the_funnel_and_why_documents_left(
    call: Callable[..., tuple[int, str, str]], lake: Lake
) -> None:
    code, out, err = call("show", lake.path)
    assert (code, err) == (0, "")
    cells = [re.split(r"\s*[│┃|]\s*", line.strip("│┃| ")) for line in out.splitlines()]
    numbers = ["1,200", "800 (67%)", "200 (25%)", "100 (50%)", "60,000"]
    assert ["A", *numbers] in cells
    assert ["all", *numbers] in cells
    rules = [row for row in cells if row[0] in ("ingest", "dedup")]
    assert rules == [
        ["dedup", "near", "500"],
        ["dedup", "exact", "100"],
        ["ingest", "min_chars", "300"],
        ["ingest", "parser_error:[/bold]", "100"],
    ]


def test_runs_are_shown_with_what_they_did(
    call: Callable[..., tuple[int, str, str]], lake: Lake
) -> None:
    """The records of the fixture have no run id; 14 slices of a second."""
    code, out, err = call("runs", lake.path)
    assert (code, err) == (0, "")
    cells = [re.split(r"\s*[│┃|]\s*", line.strip("│┃| ")) for line in out.splitlines()]
    row = ["-", "2026-01-01T00:00:00Z", "done", "ingest to encode", "A", "14", "14.0"]
    assert [*row, "1,200", "100", "1,100"] in cells
    _, out, _ = call("runs", lake.path, "-", "--json")
    slices = [json.loads(line) for line in out.splitlines()]
    assert len(slices) == 14
    assert slices[0]["rejects"] == {"min_chars": 150, "parser_error:[/bold]": 50}
    _, out, _ = call("runs", lake.path, "-")
    assert len(re.findall(r"│ A +│", out)) == 14
    code, _, err = call("runs", lake.path, "r9")
    assert code == 1 and "has no run 'r9'; it has -" in err


def test_capacity_shows_stages_totals_and_assumptions(
    call: Callable[..., tuple[int, str, str]], config: Path, lake: Lake
) -> None:
    """14 slices of 36 CPU seconds: 0.14 core-hours a dump, whatever the number of cores."""
    question = ("--dumps", "10", "--cores", "2", "--price", "100")
    code, _, err = call("capacity", lake.path, *question)
    assert code == 1 and "does not say what its work took" in err
    resources = {"cores": 1, "cpu_seconds": 36.0, "shuffle_bytes": 0.0, "peak_worker_bytes": 2e9}
    for unit in plan(load(config), lake):
        more = {"archive_bytes": 7} if unit.stage.name == "ingest" else {}
        counts = {"tokens": {"web": 500}} if unit.stage.name == "encode" else {}
        commit(lake, unit, 50, 50, counts=counts, resources=resources | more)
    code, out, err = call("capacity", lake.path, *question)
    assert (code, err) == (0, "")
    cells = [re.split(r"\s*[│┃|]\s*", line.strip("│┃| ")) for line in out.splitlines()]
    row = ["ingest", "archive bytes", "720", "140 B", "0 B", "0 B", "2 GB", "extrapolated 10.0 x"]
    assert row in cells
    assert ["in all", "1.40", "0.7", "140.00", "0.7", "140.00"] in cells
    assert "- 2 cores: extrapolated 2.0 x" in out
    _, out, _ = call("capacity", lake.path, *question, "--json")
    found = json.loads(out)
    assert found["totals"]["per trillion tokens"]["cost"] == pytest.approx(140 / 10_000 * 1e12)
    assert found["stages"][0]["label"] == "extrapolated 10.0 x"


def test_show_of_a_lake_before_its_first_commit(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    Lake.create(tmp_path / "lake")
    assert call("show", tmp_path / "lake")[0] == 0


@pytest.mark.parametrize("archive", ["/opt/a.warc.gz", "/opt/[old]/a [/bold].warc.gz"])
def test_why_prints_names_as_they_are(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path, archive: str
) -> None:
    lake = Lake.create(tmp_path / "lake")
    lake.freeze_inputs("A", 0, 500, [])
    url = "https://example.org/[red]?a=[/x]"
    columns = {"doc_id": 7, "url": url, "archive": archive, "offset": 42}
    columns |= {"rule": "parser_error:[/bold]"}
    schema = TABLES["rejects"]
    row = {f.name: pa.array([columns.get(f.name)], f.type) for f in schema}
    writer = TableWriter(str(lake.path), "rejects", "ingest", "A", "0000", "part")
    writer.write(pa.table(row, schema=schema))
    lake.commit(made("ingest", "A", num_in=1, files=(writer.close(),)))
    code, out, err = call("why", lake.path, url)
    assert (code, err) == (0, "")
    assert out.splitlines()[:4] == [
        f"7  {url}",
        f"  A  {archive}",
        "  record 7 at offset 42",
        "  ingest: rejected by parser_error:[/bold]",
    ]


def test_the_report_is_written_where_the_configuration_says(
    call: Callable[..., tuple[int, str, str]], config: Path, lake: Lake
) -> None:
    code, out, _ = call("report", config, "--set", "report=[old].html")
    path = config.parent / "[old].html"
    assert (code, out) == (0, f"report: {path}\n")
    assert path.exists()


def test_gc_counts_what_it_removed(call: Callable[..., tuple[int, str, str]], lake: Lake) -> None:
    for name in ("a", "b"):
        path = lake.path / "kept" / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert call("gc", lake.path) == (0, "removed 2 files\n", "")
    assert call("gc", lake.path) == (0, "removed 0 files\n", "")
    with lake.lock():
        code, _, err = call("gc", lake.path)
    assert code == 1 and str(os.getpid()) in err
