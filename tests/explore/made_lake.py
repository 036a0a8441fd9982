"""Lakes of made documents, written without Spark: their signals are drawn, rules decide on them.

`python tests/explore/made_lake.py LAKE NUM_DOCUMENTS` makes one of any size.
"""

import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.engine.lake import WHOLE_DUMP, FileEntry, Lake, TableWriter
from curation.identity import first_doc_id
from curation.quality.rules import decide, load_rules, settings_of
from curation.schemas import SIGNALS, TABLES

sys.path.append(str(Path(__file__).parents[1]))  # where this runs by itself

import run_records

DUMPS = ("B-2021", "A-2023", "C-2026")  # not in the order of their names
MAX_FILE_ROWS = 50_000
BATCH_ROWS = 10_000
LANGUAGES = ("en", "zh", "de")
RULES = tuple(
    rule
    for rule in load_rules(("gopher", "c4"), {"max_words": np.inf})
    if rule.signal in ("num_words", "mean_word_length", "duplicate_5gram_char_fraction")
)
RELEASE = "made"
TARGETS = {"web": 0.7, "code": 0.3}


def make(path: Path, num_documents: int, seed: int = 0) -> Lake:
    """Write a lake of three dumps with a release; the same one for the same arguments."""
    lake = Lake.create(path)
    rng = np.random.default_rng(seed)
    words = random.Random(seed)
    retained: list[tuple[int, str]] = []
    for ordinal, dump in enumerate(DUMPS):
        lake.freeze_inputs(dump, ordinal, 500, [])
        num = num_documents // len(DUMPS) + (ordinal < num_documents % len(DUMPS))
        num_files = max(2, -(-num // MAX_FILE_ROWS))
        files: dict[str, list[FileEntry]] = {}
        counts: dict[str, dict[str, int]] = {"kinds": {}, "twins": {}, "rules": {}}
        bins: dict[str, dict[str, int]] = {}
        for number in range(num_files):
            rows = num // num_files + (number < num % num_files)
            ids = first_doc_id(ordinal, number) + np.arange(rows, dtype=np.int64)
            writers: dict[str, TableWriter] = {}
            for start in range(0, rows, BATCH_ROWS):
                made = _tables(dump, ids[start : start + BATCH_ROWS], retained, rng, words, counts)
                for name, table in made.items():
                    stage = {"documents": "ingest", "rejects": "filter"}.get(name, name)
                    if name not in writers:
                        writers[name] = TableWriter(
                            str(lake.path), name, stage, dump, "0000", f"part-{number:05d}"
                        )
                    writers[name].write(table)
                for lang, counted in _bins(made["signals"]).items():
                    own = bins.setdefault(f"perplexity_bins:{lang}", {})
                    for key, count in counted.items():
                        own[key] = own.get(key, 0) + count
            for name, writer in writers.items():
                entry = writer.close()
                if entry is not None:
                    files.setdefault(name, []).append(entry)
        num_rows = {name: sum(entry.rows for entry in found) for name, found in files.items()}
        gone, kept = num_rows.get("duplicates", 0), num_rows["kept"]
        _commit(lake, "ingest", dump, num, num, files["documents"], {})
        found = {"duplicates": counts["kinds"], "twin_dumps": counts["twins"]}
        _commit(lake, "dedup", dump, num, num - gone, files.get("duplicates", []), found)
        _commit(lake, "annotate", dump, num - gone, num - gone, files["signals"], bins)
        own_files = [*files["kept"], *files["rejects"]]
        found = {"rejects": counts["rules"]}
        _commit(lake, "filter", dump, num - gone, kept, own_files, found, settings_of(RULES))
        _commit(lake, "encode", dump, kept, kept, files["tokens"], {})
    _release(lake, rng)
    return lake


def _tables(
    dump: str,
    ids: npt.NDArray[np.int64],
    retained: list[tuple[int, str]],
    rng: np.random.Generator,
    words: random.Random,
    counts: Mapping[str, dict[str, int]],
) -> dict[str, pa.Table]:
    """Draw the rows of some documents of a dump."""
    texts, duplicates, stays = [], [], []
    for doc_id in ids.tolist():
        if retained and words.random() < 0.3:
            twin_id, twin = retained[int(len(retained) * words.random() ** 3)]
            kind = words.choice(("exact", "near"))
            text = twin if kind == "exact" else f"{twin[:60]} other {twin[60:]}"
            similarity = 1.0 if kind == "exact" else 0.8 + 0.2 * words.random()
            duplicates.append((doc_id, kind, twin_id, DUMPS[twin_id >> 51], similarity, len(text)))
        else:
            text = " ".join(words.choices(VOCABULARY, k=words.randint(40, 160)))
            if len(retained) < 100_000:
                retained.append((doc_id, text))
            stays.append(doc_id)
        texts.append(text)
    num = len(ids)
    lang = pa.array(rng.choice([*LANGUAGES, None], num, p=[0.5, 0.3, 0.15, 0.05]), pa.string())
    documents = _filled(
        "documents",
        num,
        doc_id=ids,
        url=[f"https://{dump.lower()}.example/{i}?<b>" for i in ids.tolist()],
        host=[f"h{i % 7}.example" for i in ids.tolist()],
        lang=lang,
        lang_score=np.ones(num),
        text=texts,
        num_bytes=[len(text.encode()) for text in texts],
    )
    is_retained = pa.array(np.isin(ids, np.array(stays, np.int64)))
    signals = _signals(ids, lang, rng).filter(is_retained)
    lang = signals["lang"].combine_chunks()
    rule = decide(signals.combine_chunks().to_batches()[0], lang, RULES)
    is_kept = rule.field("rule").is_null()
    kept_ids = signals["doc_id"].filter(is_kept)
    lost = rule.filter(rule.field("rule").is_valid())
    rejects = _filled(
        "rejects",
        len(lost),
        doc_id=signals["doc_id"].filter(rule.field("rule").is_valid()),
        rule=lost.field("rule"),
        rules=lost.field("rules"),
    )
    for name in lost.field("rule").to_pylist():
        counts["rules"][name] = counts["rules"].get(name, 0) + 1
    for _, kind, _, twin_dump, *_ in duplicates:
        counts["kinds"][kind] = counts["kinds"].get(kind, 0) + 1
        counts["twins"][twin_dump] = counts["twins"].get(twin_dump, 0) + 1
    num_kept = len(kept_ids)
    domain = pa.array(rng.choice(["web", "code"], num_kept), pa.string())
    num_tokens = rng.integers(1, 900, num_kept)
    same = {"doc_id": kept_ids, "domain": domain, "lang": lang.filter(is_kept)}
    columns = [pa.array(column) for column in zip(*duplicates, strict=True)] if duplicates else []
    names = ("doc_id", "kind", "twin_id", "twin_dump", "similarity", "num_bytes")
    made = {
        "documents": documents,
        "signals": signals,
        "rejects": rejects,
        "kept": _filled("kept", num_kept, **same, num_chars=signals["num_chars"].filter(is_kept)),
        "tokens": _filled(
            "tokens",
            num_kept,
            **same,
            host=[f"h{i % 7}.example" for i in kept_ids.to_pylist()],
            num_tokens=num_tokens,
        ),
        "duplicates": _filled(
            "duplicates",
            len(duplicates),
            **dict(zip(names, columns, strict=True)) if columns else {},
            verified_by=["signature"] * len(duplicates),
        ),
    }
    return {name: table for name, table in made.items() if table.num_rows}


def _signals(ids: npt.NDArray[np.int64], lang: pa.Array, rng: np.random.Generator) -> pa.Table:
    """Draw signals: skewed numbers, some on a bound of a rule, some null or no number."""
    num = len(ids)
    columns: dict[str, Any] = {"doc_id": ids, "lang": lang}
    for field in SIGNALS:
        if field.name in columns or field.name in ("c4_cuts", "domain_label"):
            continue
        if pa.types.is_integer(field.type):
            values = np.floor(rng.lognormal(5, 1.5, num))
        elif field.name == "mean_word_length":
            values = rng.integers(2, 24, num) / 2
        else:
            values = np.round(rng.beta(1, 12, num), 2)
            values[rng.random(num) < 0.01] = np.nan
        on_bound = [rule.value for rule in RULES if rule.signal == field.name]
        for value in on_bound:
            if np.isfinite(value):
                values[rng.random(num) < 0.02] = value
        is_null = rng.random(num) < 0.02
        numbers = pa.array(values, pa.float64(), mask=is_null)
        columns[field.name] = numbers.cast(field.type)
    columns["num_chars"] = rng.integers(100, 5000, num).astype(np.int32)
    columns["num_c4_chars_cut"] = np.zeros(num, np.int32)
    columns["perplexity_bin"] = rng.integers(1000, 1200, num).astype(np.int32)
    return _filled("signals", num, **columns)


def _bins(signals: pa.Table) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    counted = signals.group_by(["lang", "perplexity_bin"]).aggregate([([], "count_all")])
    for row in counted.to_pylist():
        if row["lang"] is not None:
            found.setdefault(row["lang"], {})[str(row["perplexity_bin"])] = row["count_all"]
    return found


def _release(lake: Lake, rng: np.random.Generator) -> None:
    """Take every document 0 to 2 times, by chance."""
    writer = TableWriter(str(lake.path), "mixture", "release", RELEASE, WHOLE_DUMP, "part-00000")
    for batch in lake.table("tokens").to_batches(
        columns=["doc_id", "domain", "lang", "num_tokens"]
    ):
        num = batch.num_rows
        split = rng.choice(["train", "validation", "held_out"], num, p=[0.8, 0.1, 0.1])
        is_train = split == "train"
        domain = batch["domain"].to_pylist()
        stratum = [f"{d}/{c or ''}" for d, c in zip(domain, batch["lang"].to_pylist(), strict=True)]
        component = np.where(is_train, np.array(domain, object), "*held out")
        copies = np.where(is_train, rng.integers(0, 3, num), split == "validation")
        writer.write(
            _filled(
                "mixture",
                num,
                doc_id=batch["doc_id"],
                component=component.tolist(),
                stratum=stratum,
                split=split.tolist(),
                num_tokens=batch["num_tokens"],
                weight=np.ones(num, np.int32),
                copies=copies.astype(np.int32),
                partial_tokens=np.where(is_train & (copies == 0), rng.integers(0, 2, num), 0),
                share=[TARGETS.get(name) for name in component.tolist()],
            )
        )
    entry = writer.close()
    assert entry is not None
    counts = {"account": {"in_lake": 7, "train": 5, "not_taken": 2}}
    _commit(lake, "release", RELEASE, entry.rows, entry.rows, [entry], counts, slice=WHOLE_DUMP)


def _filled(name: str, num_rows: int, **columns: Any) -> pa.Table:
    """Return rows of a table; columns that are not given are null."""
    return pa.table(
        [
            _array(columns[field.name], field.type)
            if field.name in columns
            else pa.nulls(num_rows, field.type)
            for field in TABLES[name]
        ],
        schema=TABLES[name],
    )


def _array(values: Any, data_type: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.cast(data_type)
    return pa.array(values).cast(data_type) if len(values) else pa.array([], data_type)


def _commit(
    lake: Lake,
    stage: str,
    dump: str,
    num_in: int,
    num_kept: int,
    files: Sequence[FileEntry],
    counts: Mapping[str, Mapping[str, int]],
    settings: Mapping[str, Any] | None = None,
    slice: str = "0000",
) -> None:
    more = {"counts": counts, "settings": settings or {}, "files": tuple(files)}
    lake.commit(run_records.made(stage, dump, slice, num_in, num_kept, **more))


VOCABULARY = [f"{a}{b}{c}" for a in ("ba", "do", "ki", "<i>") for b in "aeiou" for c in "lnrst&"]

if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]))
