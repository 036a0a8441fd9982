"""What a user may get wrong: one clear message, nothing lost."""

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from curation.config import load
from curation.dedup import minhash
from curation.engine import ledger
from curation.engine.lake import Lake
from curation.engine.release import make_release
from curation.engine.report import write_report
from curation.engine.run import Selection, run, runnable
from curation.engine.stages import plan
from curation.errors import (
    ArtifactInvalid,
    ConfigError,
    DumpOrderChanged,
    InputChanged,
    InputInvalid,
    InputMissing,
    InputVanished,
    LakeCorrupt,
    LakeLocked,
    LakeReadOnly,
    LakeVersion,
    NotCommitted,
    SlicesChanged,
    StageStopped,
    TimeBudgetSpent,
)

PAGE = "<html><body><main><p>" + "The quick brown fox jumps over the lazy dog. " * 20
INGEST = Selection(last="ingest")


def write_warc(path: Path, bodies: list[bytes]) -> None:
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for i, body in enumerate(bodies):
            http = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1")
            writer.write_record(
                writer.create_warc_record(
                    f"https://example.org/{i}", "response", io.BytesIO(body), http_headers=http
                )
            )


def configuration(folder: Path, inputs: str = "a.warc.gz", format: str = "warc", more: str = ""):
    path = folder / "c.toml"
    path.write_text(
        f'lake = "lake"\n[[dumps]]\nname = "A"\ninputs = ["{inputs}"]\nformat = "{format}"\n{more}'
    )
    return load(path)


def pages(n: int) -> list[bytes]:
    return [
        f"{PAGE} Page number {i} of this site.</p></main></body></html>".encode() for i in range(n)
    ]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"a\.warc\.gz"):
        run(configuration(tmp_path))


def test_empty_dump(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputMissing, match="empty"):
        run(configuration(tmp_path, "empty"))


@pytest.mark.spark
def test_truncated_gzip_keeps_every_record_before(spark, tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", pages(6))
    whole = (tmp_path / "a.warc.gz").read_bytes()
    (tmp_path / "a.warc.gz").write_bytes(whole[:-40])
    lake = run(configuration(tmp_path), INGEST)
    assert lake.table("documents").count_rows() == 5
    rejects = lake.table("rejects").to_table().to_pylist()
    assert [row["rule"] for row in rejects] == ["truncated"]
    assert rejects[0]["archive"].endswith("a.warc.gz")


@pytest.mark.spark
def test_binary_junk_as_html_is_a_reject(spark, tmp_path: Path) -> None:
    junk = bytes((i * 7919 + i // 3) % 256 for i in range(50_000))
    write_warc(tmp_path / "a.warc.gz", [*pages(1), junk])
    lake = run(configuration(tmp_path), INGEST)
    assert lake.table("documents").count_rows() == 1
    assert lake.table("rejects").count_rows() == 1


@pytest.mark.spark
def test_changed_and_vanished_inputs_are_refused_by_name(spark, tmp_path: Path) -> None:
    archive = tmp_path / "a.warc.gz"
    write_warc(archive, pages(2))
    config = configuration(tmp_path, "*.warc.gz")
    run(config, INGEST)
    write_warc(archive, pages(3))
    with pytest.raises(InputChanged, match=r"a\.warc\.gz"):
        run(config, INGEST)
    write_warc(tmp_path / "b.warc.gz", pages(1))
    archive.unlink()
    with pytest.raises(InputVanished, match=r"a\.warc\.gz"):
        run(config, INGEST)


@pytest.mark.spark
def test_a_new_file_gets_the_next_ordinal_and_only_its_slice_runs(spark, tmp_path: Path) -> None:
    write_warc(tmp_path / "b.warc.gz", pages(2))
    config = configuration(tmp_path, "*.warc.gz", more="[ingest]\nslice_files = 1\n")
    run(config, INGEST)
    write_warc(tmp_path / "a.warc.gz", pages(2))
    units = plan(config, Lake(config.lake), last="ingest")
    assert [unit.committed for unit in units] == [True, False]
    lake = run(config, INGEST)
    assert [Path(file.path).name for file in lake.inputs("A")] == ["b.warc.gz", "a.warc.gz"]


@pytest.mark.spark
def test_the_card_of_another_model_is_no_extractor(spark, tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", pages(1))
    card = "package:curation/quality/models/perplexity-en.json"
    config = configuration(tmp_path, more=f'[ingest]\nextractor_model = "{card}"\n')
    with pytest.raises(
        ArtifactInvalid,
        match=r"perplexity-en\.json is the card of a perplexity, not of an extractor; name",
    ):
        run(config, INGEST)


def test_config_typo_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'extractor'"):
        configuration(tmp_path, more='[ingest]\nextracter = "resiliparse"\n')


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[dedup]\nthreshold = 1.5\n", "at most 1"),
        ("[dedup]\nbucket_cap = 0\n", "at least 1"),
        ('[dedup]\nbucket_cap = "many"\n', "must be int"),
        ('[dedup]\nscope = "galaxy"\n', "one of global, dump, window"),
        ("[release.x]\nshares = { gold = 1.0 }\n", "gold"),
    ],
)
def test_config_ranges(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configuration(tmp_path, more=line)


def test_two_runs_at_once_the_second_names_the_holder(tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", pages(1))
    config = configuration(tmp_path)
    Lake.create(config.lake)
    hold = (
        "import sys; from curation.engine.lake import Lake\n"
        f"with Lake({config.lake!r}).lock():\n    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LakeLocked, match=str(holder.pid)):
            run(config, INGEST)
    finally:
        holder.kill()
        holder.communicate()
    with Lake(config.lake).lock():
        pass  # the lock died with its process


def test_reordered_dumps_are_refused(configure) -> None:
    config = configure()
    lake = Lake.create(config.lake)
    lake.freeze_inputs(config.dumps[1].name, 0, 500, [])
    with pytest.raises(DumpOrderChanged, match=config.dumps[1].name):
        plan(config, lake)


def test_a_lake_of_another_version_is_refused(tmp_path: Path) -> None:
    Lake.create(tmp_path / "lake")
    (tmp_path / "lake" / "_lake.json").write_text(json.dumps({"format_version": 999}))
    with pytest.raises(LakeVersion, match="999"):
        Lake(tmp_path / "lake")


def test_a_read_only_lake_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        child = os.fork()
        if child == 0:  # root is not stopped by permissions, so be nobody
            code = 1
            try:
                if os.getuid() == 0:
                    os.setuid(65534)
                else:
                    os.chmod(folder, 0o555)
                Lake.create(Path(folder) / "lake")
            except LakeReadOnly as error:
                code = 0 if "cannot be written" in str(error) else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        os.chmod(folder, 0o755)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.spark
def test_a_spent_time_budget_stops_between_slices_and_goes_on(spark, tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", pages(2))
    config = configuration(tmp_path)
    with pytest.raises(TimeBudgetSpent, match="run the same command again"):
        run(config, INGEST, max_minutes=0.0)
    assert run(config, INGEST).table("documents").count_rows() == 2


def test_a_later_dump_needs_the_earlier_ones(configure) -> None:
    config = configure()
    with pytest.raises(NotCommitted, match=f"--dump {config.dumps[0].name} --to dedup"):
        run(config, Selection(dumps=(config.dumps[1].name,)))


@pytest.mark.spark
def test_an_index_of_another_version_is_refused_by_name(spark, configure, monkeypatch) -> None:
    """Or the dump would be compared with signatures that do not mean the same."""
    first, second = (dump.name for dump in configure(dumps=2).dumps)
    run(configure(dumps=2), Selection(dumps=(first,), last="dedup"))
    version = minhash.FORMAT_VERSION
    monkeypatch.setattr(minhash, "FORMAT_VERSION", version + 1)
    wanted = (
        rf"{second}/all needs dedup/{first}/all, .*fingerprint/{first}/0000: format {version}, "
    )
    with pytest.raises(NotCommitted, match=wanted + rf"now {version + 1}"):
        run(configure(dumps=2), Selection(dumps=(second,), last="dedup"))
    monkeypatch.undo()
    for setting, told in (
        ("fingerprint.seed=2", r"fingerprint/.*: seed 1, now 2"),
        ("dedup.threshold=0.7", r"dedup/.*: threshold 0\.8, now 0\.7"),
        ("ingest.min_chars=7", r"ingest/.*: min_chars 100, now 7"),
    ):
        with pytest.raises(NotCommitted, match=told):
            run(configure(setting, dumps=2), Selection(dumps=(second,), last="dedup"))


def test_a_release_needs_encoded_dumps(configure) -> None:
    config = configure()
    Lake.create(config.lake)
    with pytest.raises(NotCommitted, match="encode"):
        make_release(config, "demo")
    with pytest.raises(ConfigError, match="demo"):
        make_release(config, "gold")


@pytest.mark.spark
def test_a_release_never_changes(spark, configure, tmp_path: Path) -> None:
    """What a killed one left beside it goes; the path is one that Spark takes for a pattern."""
    config = configure(dumps=1, lake="a[b]{c,d}")
    dead = Path(config.shards) / ".demo.0123456789ab"
    dead.mkdir(parents=True)
    run(config)
    first = make_release(config, "demo")
    assert not dead.exists()
    assert make_release(config, "demo") == first
    changed = load(tmp_path / "a[b]{c,d}.toml", ["release.demo.seed=5"])
    with pytest.raises(LakeCorrupt, match="never changes"):
        make_release(changed, "demo")
    (Path(config.shards) / "demo" / "manifest.json").unlink()
    with pytest.raises(LakeCorrupt, match="holds no manifest, so it is no release; delete it"):
        make_release(config, "demo")


@pytest.mark.spark
def test_an_error_of_the_system_is_one_message(spark, tmp_path: Path) -> None:
    """Here a file lies where a folder must be made, as the disk might be full."""
    write_warc(tmp_path / "a.warc.gz", pages(2))
    config = configuration(tmp_path)
    lake = Lake.create(config.lake)
    (lake.path / "documents").write_text("")
    with pytest.raises(StageStopped, match=r"ingest/A/0000 stopped: .*documents.*Mend the cause"):
        run(config, INGEST)
    assert lake.records() == []
    (lake.path / "documents").unlink()
    assert run(config, INGEST).table("documents").count_rows() == 2


def test_a_refused_run_and_a_plan_leave_nothing(tmp_path: Path) -> None:
    write_warc(tmp_path / "a.warc.gz", pages(1))
    config = configuration(tmp_path)
    for act in (run, runnable):
        with pytest.raises(NotCommitted, match=r"dedup/A/all needs .*, which has not run"):
            act(config, Selection(first="dedup", last="dedup"))
    assert not Path(config.lake).exists()


@pytest.mark.spark
def test_other_slices_are_refused_and_a_changed_ingest_outdates_the_rest(
    spark, configure, tmp_path: Path
) -> None:
    config = configure(dumps=1)
    before = run(config)
    (document,) = before.table("kept").head(1, columns=["doc_id"])["doc_id"].to_pylist()
    with pytest.raises(SlicesChanged, match=r"slice_files is 1, .* slices of 500 files"):
        run(load(tmp_path / "lake.toml", ["ingest.slice_files=1"]))

    lake = run(load(tmp_path / "lake.toml", ["ingest.min_chars=100_000"]), INGEST)
    assert {record.stage for record in lake.records()} == {"ingest"}
    assert lake.table("kept").count_rows() == lake.table("duplicates").count_rows() == 0
    (history,) = ledger.why(lake, str(document))
    assert [stage for stage, _ in history.decisions] == ["ingest"]
    write_report(lake, tmp_path / "report.html", config)  # has nothing to say of what is outdated

    again = run(config)
    assert document in again.table("kept").to_table()["doc_id"].to_pylist()
    assert len(again.records()) == 8


@pytest.mark.spark
def test_other_sources_and_an_error_inside_a_worker(spark, tmp_path: Path) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 10
    (tmp_path / "good.jsonl").write_text(json.dumps({"url": "u:1", "text": text}) + "\n{broken\n")
    lake = run(configuration(tmp_path, "good.jsonl", "jsonl"), INGEST)
    assert lake.table("documents").to_table()["url"].to_pylist() == ["u:1"]
    assert lake.table("rejects").to_table()["rule"].to_pylist() == ["malformed:line 2"]
    assert ledger.why(lake, "u:1")[0].where["dump"] == "A"
    (tmp_path / "other").mkdir()
    with gzip.open(tmp_path / "other" / "bad.jsonl.gz", "wt") as file:
        file.write(json.dumps({"body": text}) + "\n")
    with pytest.raises(InputInvalid, match="no key 'text'"):
        run(configuration(tmp_path / "other", "bad.jsonl.gz", "jsonl"), INGEST)
