"""Laws 1, 2, 3 and 5 on a cut of the demo, in Spark."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from warcio.archiveiterator import ArchiveIterator

from curation.config import load
from curation.dedup.lsh import signature_matrix
from curation.dedup.minhash import MinHashSpec
from curation.dedup.oracle import Document, LeaderSpec, oracle
from curation.engine.lake import Lake
from curation.engine.ledger import rejects_by_rule, why
from curation.engine.release import make_release
from curation.engine.run import Selection, run
from curation.identity import origin
from curation.remix.split import held_out
from curation.schemas import TABLES
from curation.tokens import tokenizer as tokenizers
from curation.tokens.reader import open_shards

pytestmark = pytest.mark.spark

EDITING = ("lines", "annotate", "filter", "decontaminate")
TRUE_SPARK = "engine.single_task_documents=0"
BATCH = "spark.sql.execution.arrow.maxRecordsPerBatch"
SHUFFLE = "spark.sql.shuffle.partitions"
# Pages that share words, not phrases, share buckets: then a page waits for others.
SHARING = ("fingerprint.ngram=1", "fingerprint.rows=2")


def attempts_of(lake: Lake) -> dict[tuple[str, str, str], str]:
    """Return which attempt each run record commits."""
    return {(r.stage, r.dump, r.slice): r.attempt for r in lake.records()}


# ---- law 1 -------------------------------------------------------------------------------------


def test_rows_and_bytes_sum_at_every_stage(undisturbed, cut: Path) -> None:
    """Counted from the tables and, before and behind them, from archives and shards."""
    config, lake, manifest = undisturbed(4)
    every: Counter[str] = Counter()  # edits by stage
    for dump in lake.dumps():

        def table(name: str, stage: str | None = None, dump: str = dump) -> pa.Table:
            return lake.table(name, dump=dump, stage=stage).to_table()

        records = {r.stage: r for r in lake.records(dump=dump)}
        documents = table("documents").sort_by("doc_id")
        duplicates, kept = table("duplicates"), table("kept").sort_by("doc_id")
        left = {
            "ingest": table("rejects", "ingest"),
            "dedup": duplicates,
            "lines": table("rejects", "lines"),
            "filter": table("rejects", "filter"),
            "decontaminate": table("rejects", "decontaminate"),
        }
        flow = {  # stage -> what came in, what stayed
            "ingest": (num_responses(cut, dump), documents["doc_id"]),
            "fingerprint": (documents.num_rows, table("signatures")["doc_id"]),
            "dedup": (
                documents.num_rows,
                pc.filter(
                    documents["doc_id"],
                    pc.invert(pc.is_in(documents["doc_id"], duplicates["doc_id"])),
                ),
            ),
            "lines": (documents.num_rows - duplicates.num_rows, table("signals")["doc_id"]),
            "annotate": (
                documents.num_rows - duplicates.num_rows - left["lines"].num_rows,
                table("signals")["doc_id"],
            ),
            "filter": (table("signals").num_rows, kept["doc_id"]),
            "decontaminate": (kept.num_rows, table("tokens")["doc_id"]),
            "encode": (
                kept.num_rows - left["decontaminate"].num_rows,
                table("tokens")["doc_id"],
            ),
        }
        alive = set(documents["doc_id"].to_pylist())
        assert len(alive) == documents.num_rows
        for stage, (num_in, stays) in flow.items():
            gone = left[stage]["doc_id"].to_pylist() if stage in left else []
            assert num_in == len(stays) + len(gone), (dump, stage)
            if stage != "ingest":
                assert not set(gone) & set(stays.to_pylist())
                assert alive == set(stays.to_pylist()) | set(gone), (dump, stage)
                alive = set(stays.to_pylist())
            assert dict(records[stage].rows) == {
                "in": num_in,
                "kept": len(stays),
                "rejected": len(gone),
            }

        # bytes: of the text itself, not of the column that claims them
        texts = dict(
            zip(documents["doc_id"].to_pylist(), documents["text"].to_pylist(), strict=True)
        )
        assert documents["num_bytes"].to_pylist() == [len(t.encode()) for t in texts.values()]
        edits: dict[int, dict[tuple[int, int], str]] = {doc_id: {} for doc_id in texts}
        num_edits = Counter()
        for stage in ("fingerprint", "dedup", *EDITING, "encode"):
            if stage in EDITING:
                for row in table("edits", stage).to_pylist():
                    # a later edit of the same span stands in place of an earlier one
                    edits[row["doc_id"]][row["start"], row["end"]] = row["replacement"]
                    num_edits[stage] += 1
            before, stays = records[stage].num_bytes, flow[stage][1].to_pylist()
            size = sum(len(edited(texts[doc_id], edits[doc_id]).encode()) for doc_id in stays)
            assert before["kept"] == size, (dump, stage)
            assert before["in"] == before["kept"] + before["removed"]
            if stage == "filter":
                after = [
                    edited(texts[doc_id], edits[doc_id]) for doc_id in kept["doc_id"].to_pylist()
                ]
                assert kept["num_bytes"].to_pylist() == [len(text.encode()) for text in after]
                assert kept["num_chars"].to_pylist() == [len(text) for text in after]
        assert num_edits["lines"] > 0, "no line is repeated"
        every.update(num_edits)
        # and tokens decode to the kept text, byte for byte
        tokens = table("tokens").sort_by("doc_id")
        decoded = tokenizers.decode(
            tokens["input_ids"].combine_chunks(), tokenizers.load(config.encode.tokenizer)
        )
        assert decoded.to_pylist() == [
            edited(texts[doc_id], edits[doc_id]) for doc_id in tokens["doc_id"].to_pylist()
        ]
        assert (
            tokens["num_tokens"].to_pylist()
            == pc.list_value_length(tokens["input_ids"]).to_pylist()
        )

    assert all(every[stage] for stage in ("lines", "annotate", "decontaminate")), every
    mixture = lake.table("mixture").to_table()
    assert mixture.num_rows == lake.table("tokens").count_rows()
    # every copy ends with the end-of-text token
    taken = pc.add(
        pc.multiply(mixture["copies"], pc.add(mixture["num_tokens"], 1)), mixture["partial_tokens"]
    )
    for split in ("train", "validation"):
        shards = open_shards(Path(config.shards) / "demo", split)
        shards.verify()
        num_tokens = sum(row["num_tokens"] for row in shards.iterate())
        assert num_tokens > 0
        assert num_tokens == pc.sum(taken.filter(pc.equal(mixture["split"], split))).as_py()
        assert num_tokens == manifest.account[split]
    account = manifest.account
    assert account["in_lake"] == pc.sum(mixture["num_tokens"]).as_py() + mixture.num_rows
    assert account["in_lake"] + account["repeated"] == sum(
        account[name]
        for name in (
            *("train", "validation", "held_out"),
            *("truncated", "not_taken", "without_share"),
        )
    )


def test_no_validation_document_is_near_one_to_train_on(undisturbed) -> None:
    """By comparing every signature with every other, and every host with every other."""
    config, lake, _ = undisturbed(4)
    mixture = lake.table("mixture").to_table(["doc_id", "split"])
    split_of = dict(zip(*mixture.to_pydict().values(), strict=True))
    assert Counter(split_of.values()).keys() == {"train", "validation", "held_out"}
    hosts = lake.table("documents").to_table(["doc_id", "host"]).to_pydict()
    host_of = dict(zip(*hosts.values(), strict=True))
    by_split = {split: {host_of[d] for d in split_of if split_of[d] == split} for split in
                ("train", "validation", "held_out")}  # fmt: skip
    assert by_split["validation"] == by_split["held_out"] == {"www.postgresql.org"}
    assert not by_split["train"] & by_split["validation"]
    rows = lake.table("signatures").to_table(["doc_id", "signature"]).to_pylist()
    signature = {row["doc_id"]: np.frombuffer(row["signature"], "<u4") for row in rows}
    for doc_id, split in split_of.items():
        if split == "validation":
            for other, side in split_of.items():
                if side == "train":
                    same = (signature[doc_id] == signature[other]).mean()
                    assert same < config.dedup.threshold


def test_a_held_out_document_near_one_to_train_on_is_in_neither(spark, tmp_path) -> None:
    """The same page, but for a word, on two hosts that dedup does not compare: in two dumps."""
    words = np.array([f"word{i}" for i in range(2000)])
    dumps = []
    for number, host in enumerate(("a.example", "b.example")):
        rows = []
        for page in range(60):
            own = np.random.default_rng(page if page < 20 else 1000 * number + page)
            text = " ".join(own.choice(words, 120)) + (" changed" if number else " as it was")
            rows.append({"url": f"https://{host}/{page}", "text": f"the {text} and more of it."})
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        dumps.append(f'[[dumps]]\nname = "D{number}"\ninputs = ["{path}"]\nformat = "jsonl"\n')
    tokenizer = Path(__file__).parents[2] / "jobs" / "conf" / "demo-tokenizer.json"
    toml = tmp_path / "c.toml"
    toml.write_text(
        f'lake = "lake"\nshards = "shards"\n{"".join(dumps)}[ingest]\nlanguages = []\n'
        'min_language_score = 0.0\n[dedup]\nscope = "dump"\n[filter]\nprofiles = []\n'
        f'cut_lines = false\n[encode]\ntokenizer = "{tokenizer}"\n'
        "[release.r]\nshares = { web = 1.0 }\nvalidation_share = 0.5\nsequence_length = 64\n"
    )
    # a seed that holds out one of the two hosts
    hosts = pa.array(["a.example", "b.example"])
    seed = next(s for s in range(50) if held_out(hosts, np.arange(2), 0.5, s).sum() == 1)
    config = load(toml, [f"release.r.seed={seed}"])
    lake = run(config)
    make_release(config, "r")
    splits = Counter(lake.table("mixture").to_table(["split"])["split"].to_pylist())
    assert splits == {"train": 60, "validation": 40, "held_out": 20}


def num_responses(cut: Path, dump: str) -> int:
    """Count a dump's responses with a reader that is not ours."""
    num = 0
    for path in cut.glob(f"{dump}-*.warc.gz"):
        with path.open("rb") as file:
            num += sum(record.rec_type == "response" for record in ArchiveIterator(file))
    return num


def edited(text: str, edits: dict[tuple[int, int], str]) -> str:
    """Apply edits by their spans, from the last to the first."""
    data = text.encode()
    for (start, end), replacement in sorted(edits.items(), reverse=True):
        data = data[:start] + replacement.encode() + data[end:]
    return data.decode()


def test_the_lake_holds_what_its_records_list(undisturbed) -> None:
    """Each file with its rows and bytes, and no other file lies in the tables."""
    lake = undisturbed(4).lake
    listed = {e.path: (e.rows, e.bytes) for record in lake.records() for e in record.files}
    lying = {
        str(path.relative_to(lake.path)): (pq.read_metadata(path).num_rows, path.stat().st_size)
        for table in TABLES
        for path in (lake.path / table).rglob("*")
        if path.is_file()
    }
    assert listed == lying
    assert not list((lake.path / "_work").glob("*"))


# ---- law 2 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_dumps", "partitions", "batch_rows", "group_bytes"),
    [(4, 1, 3, 1), (2, 7, 10_000, 1_000_000_000)],
)
def test_partitions_and_batches_decide_nothing(
    spark,
    configure,
    undisturbed,
    rows_of,
    num_dumps: int,
    partitions: int,
    batch_rows: int,
    group_bytes: int,
) -> None:
    """Dedup by messages over Spark gives what one task gives, to the byte of a shard."""
    config = configure(
        TRUE_SPARK,
        f"engine.num_partitions={partitions}",
        f"engine.batch_rows={batch_rows}",
        f"engine.group_bytes={group_bytes}",
        dumps=num_dumps,
    )
    with session_conf(spark, {BATCH: str(batch_rows), SHUFFLE: str(partitions)}):
        lake = run(config)
        manifest = make_release(config, "demo")
    expected = undisturbed(num_dumps)
    assert rows_of(lake) == rows_of(expected.lake)
    assert [entry.sha256 for entry in manifest.files] == expected.digests
    assert manifest.fingerprint == expected.manifest.fingerprint


@contextmanager
def session_conf(spark, values: dict[str, str]) -> Iterator[None]:
    """Set keys of the session, and set them back."""
    before = {key: spark.conf.get(key) for key in values}
    try:
        for key, value in values.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, value in before.items():
            spark.conf.set(key, value)


# ---- law 3 -------------------------------------------------------------------------------------


def test_dumps_one_by_one_give_what_all_at_once_give(configure, undisturbed, rows_of) -> None:
    attempts: dict[tuple[str, str, str], str] = {}
    for num_dumps in range(1, 5):
        config = configure(dumps=num_dumps)
        lake = run(config)
        now = attempts_of(lake)
        assert attempts.items() <= now.items(), "a committed stage was done again"
        assert len(now) == 8 * num_dumps
        attempts = now
    expected = undisturbed(4)
    assert rows_of(lake) == rows_of(expected.lake)
    assert [entry.sha256 for entry in make_release(config, "demo").files] == expected.digests


# ---- dedup against its specification, and law 5 ------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "scopes", "overrides", "least"),  # least: rounds, solves
    [
        # of corpora made for it, test_dedup.py compares these scopes
        pytest.param(
            "global",
            [[0], [0, 1]],
            [*SHARING, "dedup.max_rounds=2"],
            (2, 2),
            id="global",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "window",
            [[0], [0, 1], [1, 2]],
            [*SHARING, "dedup.max_rounds=3"],
            (1, 0),
            id="window",
            marks=pytest.mark.slow,
        ),
        # Inside a dump of manuals no page repeats: ask for less than likeness.
        pytest.param(
            "dump",
            [[0], [1]],
            [*SHARING, "dedup.max_rounds=0", "dedup.threshold=0.3"],
            (0, 3),  # one an input file, at least
            id="dump",
        ),
    ],
)
def test_duplicates_equal_the_oracle(
    spark,
    configure,
    scope: str,
    scopes: list[list[int]],
    overrides: list[str],
    least: tuple[int, int],
) -> None:
    """Rounds and several solves on Spark, against one thread on the signatures of the lake."""
    config = configure(
        TRUE_SPARK,
        f"dedup.scope={scope}",
        "dedup.prefix_documents=5",
        *overrides,
        dumps=len(scopes),
    )
    lake = run(config, Selection(last="dedup"))
    counts = lake.records("dedup")[0].counts["leader"]
    assert counts["rounds"] >= least[0] and counts["solves"] >= least[1], "not what was to be tried"

    spec = LeaderSpec(
        minhash=MinHashSpec(**asdict(config.fingerprint)), threshold=config.dedup.threshold
    )
    stored = lake.table("signatures").to_table().sort_by("doc_id")
    matrix = signature_matrix(stored["signature"], spec.minhash)
    columns = (stored["doc_id"].to_pylist(), stored["content_hash"].to_pylist(), matrix)
    documents = [Document(*row) for row in zip(*columns, strict=True)]
    verdicts = oracle(documents, spec, lambda dump: scopes[dump])
    rows = lake.table("duplicates").to_table().to_pylist()
    assert {row["doc_id"]: (row["kind"], row["twin_id"], row["similarity"]) for row in rows} == {
        doc_id: tuple(verdict) for doc_id, verdict in verdicts.items() if verdict
    }
    assert len(rows) > 0


def test_every_removal_is_verified(undisturbed) -> None:
    """Law 5, from the stored signatures: a retained lower twin, as similar as the row says."""
    config, lake, _ = undisturbed(4)
    stored = lake.table("signatures").to_table().sort_by("doc_id")
    ids = stored["doc_id"].to_pylist()
    place = {doc_id: at for at, doc_id in enumerate(ids)}
    matrix = signature_matrix(stored["signature"], MinHashSpec())
    content = stored["content_hash"].to_pylist()
    rows = lake.table("duplicates").to_table().to_pylist()
    removed = {row["doc_id"] for row in rows}
    assert len(removed) == len(rows)
    assert {row["kind"] for row in rows} == {"exact", "near"}
    for row in rows:
        own, twin = place[row["doc_id"]], place[row["twin_id"]]
        assert row["twin_id"] < row["doc_id"]
        assert row["twin_id"] not in removed
        assert lake.dumps()[origin(row["twin_id"]).dump] == row["twin_dump"]
        similarity = np.count_nonzero(matrix[own] == matrix[twin]) / matrix.shape[1]
        assert row["similarity"] == similarity >= config.dedup.threshold
        assert (content[own] == content[twin]) == (row["kind"] == "exact")
        assert row["verified_by"] == {"exact": "content_hash", "near": "signature"}[row["kind"]]


# ---- takedown ----------------------------------------------------------------------------------


def test_a_takedown_runs_filter_again_and_nothing_before_it(
    spark, configure, rows_of, tmp_path: Path
) -> None:
    """One page goes; of the others no row changes, and no other document stays or comes."""
    lake = run(configure(dumps=1))
    before, attempts = rows_of(lake), attempts_of(lake)
    documents = lake.table("documents").to_table()
    urls = dict(zip(documents["doc_id"].to_pylist(), documents["url"].to_pylist(), strict=True))
    kept = lake.table("kept").to_table()["doc_id"].to_pylist()
    page = urls[kept[0]]
    (tmp_path / "pages.txt").write_text(f"# asked by its author\n{page}\n")

    lake = run(configure('filter.takedown=["pages.txt"]', dumps=1))
    again = {unit[0] for unit, attempt in attempts_of(lake).items() if attempts[unit] != attempt}
    assert again == {"filter", "decontaminate", "encode"}
    after = rows_of(lake)
    for table in ("documents", "signatures", "duplicates", "signals"):
        assert after[table] == before[table]
    gone = {doc_id for doc_id in kept if urls[doc_id] == page}
    assert set(lake.table("kept").to_table()["doc_id"].to_pylist()) == set(kept) - gone
    taken = [
        row
        for row in lake.table("rejects", stage="filter").to_table().to_pylist()
        if row["rule"] == "takedown"
    ]
    assert gone <= {row["doc_id"] for row in taken}
    for row in taken:
        assert (row["url"], row["rules"][0], row["threshold"]) == (page, "takedown", None)
        assert row["value"] == f"{page.split('://')[1].lower()} (pages.txt)"
    assert rejects_by_rule(lake)["filter"]["takedown"] == len(taken)
    decisions = [text for history in why(lake, page) for _, text in history.decisions]
    assert any(text.startswith("rejected by takedown: ") for text in decisions)
    # what other rules reject stays as it was, word for word
    others = [row for row in after["rejects"] if "'takedown'" not in row]
    assert set(others) <= set(before["rejects"])


def test_a_list_in_a_file_rejects_at_ingest_with_its_entry_and_name(
    undisturbed, spark, configure, tmp_path: Path
) -> None:
    host = undisturbed(1).lake.table("documents").to_table()["host"][0].as_py()
    (tmp_path / "hosts.txt").write_text(f"0.0.0.0 {host.upper()}\n")
    table = '[{ name = "ut1 docs", format = "hosts", path = "hosts.txt" }]'
    config = configure(f"ingest.url_lists={table}", dumps=1)
    lake = run(config, Selection(last="ingest"))
    assert host not in lake.table("documents").to_table()["host"].to_pylist()
    rows = [
        (row["rule"], row["value"])
        for row in lake.table("rejects").to_table().to_pylist()
        if row["host"] == host and row["rule"] != "http_status"
    ]
    assert set(rows) == {("url_host", f"{host} (ut1 docs)")}
