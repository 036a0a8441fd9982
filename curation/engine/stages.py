"""Every stage declared once: what it reads, writes and depends on. No Spark, no data.

A unit is a stage on one slice (or one dump). Its key follows from the configuration, the frozen
inputs and the keys of its input units alone, so `plan` knows what is committed and what is to run
before any JVM starts.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from curation import models
from curation.config import Config
from curation.dedup import minhash
from curation.engine.lake import WHOLE_DUMP, Lake, RunRecord
from curation.errors import ConfigError
from curation.ingest.listing import (
    InputFile,
    RemoteListing,
    freeze,
    is_remote_listing,
    list_inputs,
    read_remote_listing,
)
from curation.ingest.urls import UrlList
from curation.quality.contamination import benchmark_files
from curation.quality.rules import settings_of as rule_settings
from curation.quality.scores import check_models


@dataclass(frozen=True)
class Stage:
    """A stage: `version` is raised by hand when its meaning changes."""

    name: str
    version: int
    whole_dump: bool
    reads: tuple[str, ...]
    settings: Callable[[Config], Mapping[str, Any]]
    artifacts: Callable[[Config], Sequence[str]] = lambda config: ()
    packages: Callable[[Config], Sequence[str]] = lambda config: ()
    help: str = ""


@dataclass(frozen=True)
class Unit:
    """One stage on one slice: what `plan` lists and `run` does."""

    stage: Stage
    dump: str
    slice: str
    key: str
    inputs: Mapping[str, str]  # "stage/dump/slice" -> key
    settings: Mapping[str, Any]
    artifacts: Mapping[str, str]
    packages: Mapping[str, str]
    committed: bool

    @property
    def name(self) -> str:
        """How a unit is called in plans, progress and run records."""
        return f"{self.stage.name}/{self.dump}/{self.slice}"


def _ingest_packages(config: Config) -> Sequence[str]:
    settings = config.ingest
    is_trafilatura = settings.extractor.startswith("trafilatura") or (
        settings.extractor == "blocks" and settings.unsure_share > 0
    )
    engine = ("trafilatura", "lxml", "justext") if is_trafilatura else ()
    readers = ("fastwarc", "warcio", "zlib-ng", "idna")
    return (*readers, "resiliparse", "chardet", "fasttext-predict", *engine)


def _language_models(config: Config) -> Sequence[str]:
    second = config.ingest.second_language_model
    return [config.ingest.language_model, *([second] if second else [])]


def _ingest_settings(config: Config) -> Mapping[str, Any]:
    settings = asdict(config.ingest)
    # files are among the artifacts, by their digests and in this order
    for file in (
        "language_model", "second_language_model", "public_suffix_list", "extractor_model",
    ):  # fmt: skip
        del settings[file]
    if config.ingest.extractor != "blocks":
        for option in ("unsure_share", "comments"):
            del settings[option]
    settings["url_lists"] = [[each.name, each.format] for each in _lists_in_files(config)]
    return settings


def _lists_in_files(config: Config) -> list[UrlList]:
    return [each for each in config.ingest.lists() if each.path]


def _ingest_artifacts(config: Config) -> Sequence[str]:
    lists = _lists_in_files(config)
    needs_suffixes = any(each.format == "registered_domains" for each in lists)
    return [
        *_language_models(config),
        *([config.ingest.extractor_model] if config.ingest.extractor == "blocks" else []),
        *([config.ingest.public_suffix_list] if needs_suffixes else []),
        *(each.path for each in lists),
    ]


def _dedup_settings(config: Config) -> Mapping[str, Any]:
    settings = asdict(config.dedup)
    # how fast it is, and when it stops, decide no row
    speed = ("max_rounds", "prefix_documents")
    alarm = ("alarm_share", "alarm_documents", "allowed_losses")
    for name in (*speed, *alarm):
        del settings[name]
    if config.dedup.scope != "window":
        del settings["window"]
    return settings


def _lines_settings(config: Config) -> Mapping[str, Any]:
    if config.lines.max_documents == 0:
        return {"max_documents": 0}
    return {**asdict(config.lines), "format": minhash.FORMAT_VERSION}


def _annotate_settings(config: Config) -> Mapping[str, Any]:
    return {
        "privacy": sorted(config.privacy.replace),
        "bad_words": sorted(config.annotate.bad_words),
        "num_models": len(config.annotate.models),
    }


def _annotate_artifacts(config: Config) -> Sequence[str]:
    bad_words = config.annotate.bad_words
    cards = [each.card for each in config.annotate.models]
    return [*cards, *(bad_words[language] for language in sorted(bad_words))]


def _annotate_packages(config: Config) -> Sequence[str]:
    return ["kenlm", "fasttext-predict"] if config.annotate.models else []


def _filter_settings(config: Config) -> Mapping[str, Any]:
    rules = config.rules()
    return {
        **rule_settings(rules),
        **({"buckets": config.filter.buckets} if config.annotate.models else {}),
        "cut_lines": config.filter.cut_lines,
        "takedown": [each.name for each in config.filter.takedown_lists()],
        # files are among the artifacts
        "domains": [
            {**asdict(domain), "host_file": bool(domain.host_file)} for domain in config.domains
        ],
        "default_domain": config.default_domain,
    }


def _filter_artifacts(config: Config) -> Sequence[str]:
    files = [domain.host_file for domain in config.domains if domain.host_file]
    return [*config.filter.takedown, *files]


def _decontaminate_settings(config: Config) -> Mapping[str, Any]:
    settings = config.contamination
    if not settings.benchmarks:
        return {"benchmarks": []}
    return {
        **asdict(settings),
        "benchmarks": [
            [each.name, each.fields, len(benchmark_files(each.path))]
            for each in settings.benchmarks
        ],
        **({} if settings.action == "cut" else {"min_chars": None}),
    }


def _decontaminate_artifacts(config: Config) -> Sequence[str]:
    return [path for each in config.contamination.benchmarks for path in benchmark_files(each.path)]


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "ingest",
            version=9,
            whole_dump=False,
            reads=(),
            settings=_ingest_settings,
            artifacts=_ingest_artifacts,
            packages=_ingest_packages,
            help="archives to documents: text, language, URL rules",
        ),
        Stage(
            "fingerprint",
            version=1,
            whole_dump=False,
            reads=("ingest",),
            settings=lambda config: {
                **asdict(config.fingerprint),
                "format": minhash.FORMAT_VERSION,
                **({"shingles": True} if config.dedup.verify == "exact" else {}),
            },
            help="documents to MinHash signatures",
        ),
        Stage(
            "dedup",
            version=2,
            whole_dump=True,
            reads=("fingerprint",),
            settings=_dedup_settings,
            help="signatures to duplicates, each with its retained twin",
        ),
        Stage(
            "lines",
            version=1,
            whole_dump=True,
            reads=("ingest", "dedup"),
            settings=_lines_settings,
            help="repeated lines and paragraphs of retained documents are cut",
        ),
        Stage(
            "annotate",
            version=5,
            whole_dump=False,
            reads=("ingest", "dedup", "lines"),
            settings=_annotate_settings,
            artifacts=_annotate_artifacts,
            packages=_annotate_packages,
            help="retained documents to quality signals; private data is replaced",
        ),
        Stage(
            "filter",
            version=7,
            whole_dump=False,
            reads=("ingest", "lines", "annotate"),
            settings=_filter_settings,
            artifacts=_filter_artifacts,
            packages=lambda config: ["idna"] if config.filter.takedown else [],
            help="signals to decisions: kept, rejected, lines cut",
        ),
        Stage(
            "decontaminate",
            version=1,
            whole_dump=False,
            reads=("ingest", "lines", "annotate", "filter"),
            settings=_decontaminate_settings,
            artifacts=_decontaminate_artifacts,
            help="kept documents with texts of benchmarks are dropped or cut",
        ),
        Stage(
            "encode",
            version=5,
            whole_dump=False,
            reads=("ingest", "lines", "annotate", "filter", "decontaminate"),
            settings=lambda config: {},
            artifacts=lambda config: [config.encode.tokenizer],
            packages=lambda config: ["tokenizers"],
            help="kept documents to token ids",
        ),
    )
}


def plan(
    config: Config,
    lake: Lake | None,
    dumps: Sequence[str] = (),
    first: str = "ingest",
    last: str = "encode",
    slices: Sequence[str] = (),
) -> list[Unit]:
    """Return every unit of the chosen dumps, stages and slices, in the order in which they run.

    `lake` is None where none exists yet. Raises ConfigError for an unknown dump, stage or slice,
    input errors for vanished or changed files. Cost: one stat of every local input file, one
    request for every remote listing that is not frozen yet; what is frozen needs no network.
    """
    chosen = _stage_range(first, last)
    for dump in dumps:
        config.dump_ordinal(dump)
    if lake is not None:
        lake.check_order([dump.name for dump in config.dumps])
    planner = _Planner(config, lake)
    return [
        planner.unit(stage, dump.name, slice)
        for dump in config.dumps
        if not dumps or dump.name in dumps
        for stage in chosen
        for slice in planner.chosen_slices(stage, dump.name, slices)
    ]


def changed(config: Config, lake: Lake | None, name: str) -> str:
    """Return how a commit, or the first that it depends on, differs from the configuration.

    `name` is that of a unit whose key is not that of its commit.
    """
    planner = _Planner(config, lake)
    while True:
        stage, dump, slice = name.split("/")
        unit = planner.unit(STAGES[stage], dump, slice)
        record = lake.record(stage, dump, slice) if lake else None
        if record is None:
            return f"ran before {name}, which has no commit any more"
        found = _differences(record, unit)
        if found:
            return f"ran with another configuration ({name}: {', '.join(found)})"
        others = [source for source, key in unit.inputs.items() if record.inputs.get(source) != key]
        if not others:
            return f"ran with other input files ({name})"
        name = others[0]


def _differences(record: RunRecord, unit: Unit) -> list[str]:
    """Return what the key of a unit covers besides its inputs, as it was and as it is."""
    then = {**record.settings, **record.packages, "stage version": record.stage_version}
    now: dict[str, Any] = json.loads(json.dumps(dict(unit.settings)))
    now |= {**unit.packages, "stage version": unit.stage.version}
    found = [
        f"{what} {then.get(what, 'unset')}, now {now.get(what, 'unset')}"
        for what in sorted({*then, *now})
        if then.get(what) != now.get(what)
    ]
    before, after = list(record.artifacts.values()), list(unit.artifacts.values())
    return found + (["an artifact with another digest"] if before != after else [])


def dumps_in_scope(config: Config, dump: str) -> list[str]:
    """Return the earlier dumps whose retained documents a dump is compared with."""
    names = [d.name for d in config.dumps]
    ordinal = config.dump_ordinal(dump)
    first = {"global": 0, "dump": ordinal, "window": max(0, ordinal - config.dedup.window + 1)}
    return names[first[config.dedup.scope] : ordinal]


def present_inputs(
    config: Config,
    lake: Lake | None,
    dump: str,
    listings: Mapping[str, RemoteListing] | None = None,
) -> list[InputFile]:
    """Return the input files of a dump: the frozen ones, checked, and the new ones after them.

    `listings` are what `present_listings` returns, which is asked for when they are not given.
    """
    declared = next(d for d in config.dumps if d.name == dump)
    if lake is not None:
        lake.check_slices(dump, config.ingest.slice_files)
    if listings is None:
        listings = present_listings(config, lake, dump)
    seen = list_inputs(declared.inputs, declared.format, base=declared.base, listings=listings)
    return freeze(lake.inputs(dump) if lake is not None else [], seen)


def present_listings(config: Config, lake: Lake | None, dump: str) -> dict[str, RemoteListing]:
    """Return the remote listings of a dump by URL: as they are frozen, and the new ones fetched."""
    declared = next(d for d in config.dumps if d.name == dump)
    entries = [entry for entry in declared.inputs if is_remote_listing(entry)]
    known = lake.listings(dump) if lake is not None and entries else {}
    return {
        entry: known[entry]
        if entry in known and known[entry].base == declared.base
        else read_remote_listing(entry, declared.base, config.remote)
        for entry in entries
    }


def slice_inputs(config: Config, files: Sequence[InputFile], slice: str) -> list[InputFile]:
    """Return the input files of a slice, by their frozen ordinals."""
    return [file for file in files if file.ordinal // config.ingest.slice_files == int(slice)]


def digest(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class _Planner:
    """Computes units, each once: keys refer to the keys of other units."""

    def __init__(self, config: Config, lake: Lake | None) -> None:
        self.config = config
        self.lake = lake
        self.files: dict[str, list[InputFile]] = {}
        self.units: dict[tuple[str, str, str], Unit] = {}

    def slices(self, stage: Stage, dump: str) -> list[str]:
        if stage.whole_dump:
            return [WHOLE_DUMP]
        last = self._files(dump)[-1].ordinal
        return [f"{n:04d}" for n in range(last // self.config.ingest.slice_files + 1)]

    def chosen_slices(self, stage: Stage, dump: str, chosen: Sequence[str]) -> list[str]:
        known = self.slices(stage, dump)
        if stage.whole_dump or not chosen:
            return known
        for slice in chosen:
            if slice not in known:
                raise ConfigError(
                    f"dump {dump} has no slice {slice!r}; its slices are {known[0]} to "
                    f"{known[-1]}: see curation run CONFIG --plan"
                )
        return [slice for slice in known if slice in chosen]

    def unit(self, stage: Stage, dump: str, slice: str) -> Unit:
        place = (stage.name, dump, slice)
        if place not in self.units:
            self.units[place] = self._unit(stage, dump, slice)
        return self.units[place]

    def _unit(self, stage: Stage, dump: str, slice: str) -> Unit:
        config = self.config
        inputs = {unit.name: unit.key for unit in self._input_units(stage, dump, slice)}
        settings = stage.settings(config)
        paths = self._artifacts(stage)
        artifacts = {path: models.sha256(path) for path in paths}
        packages = {name: version(name) for name in stage.packages(config)}
        parts = {
            "stage": stage.name,
            "version": stage.version,
            "settings": settings,
            "artifacts": [artifacts[path] for path in paths],  # which is which counts
            "packages": packages,
            "inputs": sorted(inputs.values()),
            "place": [config.dump_ordinal(dump), dump, slice],
        }
        if stage.name == "ingest":
            files = slice_inputs(config, self._files(dump), slice)
            parts["files"] = [asdict(file) for file in files]
            # its codecs and its reading of entities decide text
            parts["python"] = list(sys.version_info[:2])
            parts["format"] = next(d.format for d in config.dumps if d.name == dump)
        key = digest(parts)
        record = self.lake.record(stage.name, dump, slice) if self.lake is not None else None
        committed = record is not None and record.key == key
        return Unit(
            stage, dump, slice, key, inputs, settings, artifacts, packages, committed=committed
        )

    def _input_units(self, stage: Stage, dump: str, slice: str) -> list[Unit]:
        units = []
        for name in stage.reads:
            source = STAGES[name]
            slices = [slice] if not (stage.whole_dump or source.whole_dump) else None
            if stage.name == "filter" and name == "annotate" and self.config.annotate.models:
                slices = None  # percentiles are of the whole dump
            for part in slices or self.slices(source, dump):
                units.append(self.unit(source, dump, part))
        if stage.name in ("dedup", "lines"):
            for earlier in dumps_in_scope(self.config, dump):
                units.append(self.unit(stage, earlier, WHOLE_DUMP))
        return units

    def _artifacts(self, stage: Stage) -> Sequence[str]:
        paths = stage.artifacts(self.config)
        if "" in paths:
            raise ConfigError(
                f"stage {stage.name} needs encode.tokenizer, which is not set; train one with "
                "`curation train-tokenizer CONFIG --to FILE` or name a tokenizer.json"
            )
        if stage.name == "encode" and self.config.encode.sha256:
            models.verified(self.config.encode.tokenizer, self.config.encode.sha256)
        if stage.name == "annotate":
            check_models([(each.card, each.sha256) for each in self.config.annotate.models])
        return paths

    def _files(self, dump: str) -> list[InputFile]:
        if dump not in self.files:
            self.files[dump] = present_inputs(self.config, self.lake, dump)
        return self.files[dump]


def _stage_range(first: str, last: str) -> list[Stage]:
    names = list(STAGES)
    for name in (first, last):
        if name not in names:
            raise ConfigError(f"there is no stage {name!r}; stages are {', '.join(names)}")
    start, stop = names.index(first), names.index(last)
    if start > stop:
        raise ConfigError(f"--from {first} comes after --to {last}; swap them")
    return [STAGES[name] for name in names[start : stop + 1]]
