"""URLs: their hosts, and the lists that block them.

Every URL, of a page or of a list, is read by one kernel into one form, on which all rules work:
`host/path?query` in lower case, without scheme, user, port, fragment, dots after the host and
slashes after the path. Hosts are Punycode (UTS 46), IPv6 is compressed; `%7e` and everything that
is not ASCII are decoded in the path, as in `~` and UTF-8.

Lists are compiled once (`compile_lists`) into flat arrays that are saved and memory-mapped, so that
all Python workers of a node share one copy: a hash table of 64-bit slots, which point at the
entries themselves, and an Aho-Corasick automaton for sub-words. A hit is compared with the bytes of
the entry; a collision of hashes costs a comparison and decides nothing.
"""

import gzip
import ipaddress
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import idna
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curation.errors import ArtifactInvalid, ArtifactMissing, ConfigError
from curation.ingest.text import Int64Array, UInt8Array, utf8_buffers

# scheme://[user@]host[:port][/path][?query][#fragment], RFC 3986; a backslash ends the host, as in
# browsers. RE2: linear time, whatever the URL.
URL_PATTERN = (
    r"(?s)^\s*[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#\\]*@)?"
    r"(?P<host>\[[^\]/?#\\]*\]|[^/?#\\:]*)(?::[^/?#\\]*)?(?P<path>[^?#]*)"
)
HOST_OF = re.compile(
    r"^(\s*(?:[A-Za-z][A-Za-z0-9+.\-]*://)?(?:[^/?#\\]*@)?)"
    r"(\[[^\]/?#\\]*\]|[^/?#\\:]*)",
    re.S,
)
# Labels may hold underscores and outer hyphens: real lists and real hosts do.
HOST_FORM = r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]+\]"
# `0.0.0.0 ads.example.com`: a line of a hosts file
HOSTS_FILE_ADDRESS = r"^(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]*:[0-9a-fA-F:.]*(?:%\w+)?)\s+"
# What squidGuard, for which UT1 is written, leaves out before a host of a URL list.
WWW = r"^(?:www|web|ftp)[0-9]*\.([^./]+\.[^/]*)"
NOT_LETTERS = r"[^a-z0-9\x{80}-\x{10FFFF}]+"

COMPILED_VERSION = 1
"""Version of the compiled form and of the normal form; an older file is compiled again."""

FORMATS = (
    "ut1",
    "domains",
    "hosts",
    "registered_domains",
    "urls",
    "words",
    "soft_words",
    "subwords",
    "expressions",
    "takedown",
)
UT1_FILES = {"domains": "domains", "urls": "urls", "expressions": "expressions"}
MAX_SOFT_WORDS = 8  # distinct soft words that a list may ask for
MIN_SUBWORD_LETTERS = 2  # one letter is in every URL

VERDICT_TYPE = pa.struct([("rule", pa.string()), ("entry", pa.string()), ("list", pa.string())])

# Kinds of entries. Soft words have a kind for each list, from SOFT on: they are counted by list.
DOMAIN, HOST, REGISTERED, SEGMENTS, EXACT, PREFIX, WORD, SUBWORD, SOFT = range(9)
PLAIN, WILDCARD, EXCEPTION = range(3)  # of the public suffix list
RULE_NAMES = (
    "url_domain",
    "url_host",
    "url_registered_domain",
    "url_prefix",
    "url_exact",
    "url_prefix",
    "url_word",
    "url_subword",
    "url_soft_words",
)
PATH_RULE, EXPRESSION_RULE = "url_path", "url_expression"

FNV_BASIS = np.uint64(14695981039346656037)  # FNV-1a, 64 bit
FNV_PRIME = np.uint64(1099511628211)
MAX_LOAD = 0.7

BoolArray = npt.NDArray[np.bool_]
UInt64Array = npt.NDArray[np.uint64]
Int32Array = npt.NDArray[np.int32]
Int16Array = npt.NDArray[np.int16]


@dataclass(frozen=True)
class UrlList:
    """A list of what to block: files (`path`) or `entries` of the configuration itself.

    format is one of FORMATS or `paths` (a substring of the path, entries only); `min_words` is how
    many distinct soft words block a URL. The README says what a line of each format may be.
    """

    name: str
    format: str
    path: str = ""
    entries: tuple[str, ...] = ()
    min_words: int = 2


class _Table(NamedTuple):
    """Entries, and an open-addressing hash table over them."""

    slots: UInt64Array  # 32 bits of the hash above the place of the entry + 1; 0 is empty
    offsets: Int64Array
    kinds: Int16Array
    blob: UInt8Array


class _Automaton(NamedTuple):
    """Aho-Corasick over the bytes that occur in sub-words."""

    classes: UInt8Array  # [256], 0 for bytes of no sub-word
    following: Int32Array  # [state, class]
    found: Int32Array  # [state] entry, -1 for none


class _Urls(NamedTuple):
    """URLs in normal form; host_ends is -1 where there is no URL."""

    data: UInt8Array
    offsets: Int64Array
    host_ends: Int64Array


@dataclass(frozen=True)
class CompiledLists:
    """Lists as `blocked` reads them: arrays that may be memory-mapped, and a few names."""

    names: tuple[str, ...]
    patterns: tuple[tuple[str, str, int], ...]  # rule, pattern, list
    table: _Table
    lists: Int16Array  # of every entry
    suffixes: _Table
    automaton: _Automaton
    has: BoolArray  # entries of each kind, up to SOFT
    min_words: Int64Array  # of every soft list
    prefix_lengths: BoolArray
    max_tokens: int  # of a word

    @property
    def num_entries(self) -> int:
        """Entries of all lists, duplicates too."""
        return len(self.table.kinds) + len(self.patterns)


# ---- URLs --------------------------------------------------------------------------------------


def hosts(url: pa.Array) -> pa.Array:
    """Return the lower-case host of each URL, without user, port and final dot.

    Null for a null, and for a URL without scheme or host. Cost: one regular expression per URL
    in Arrow's C++, no Python object.
    """
    parts = pc.extract_regex(url, URL_PATTERN)
    host = pc.utf8_lower(pc.utf8_rtrim(pc.struct_field(parts, "host"), "."))
    return pc.if_else(pc.equal(host, ""), pa.scalar(None, host.type), host)


def normal_forms(url: pa.Array) -> pa.Array:
    """Return each URL in the form on which rules work; null without a scheme or host.

    Cost: one pass over the bytes; hosts that are not ASCII, or IPv6, pass through Python.
    """
    urls = _normalised(url, needs_scheme=True)
    return _strings(urls.data, urls.offsets, urls.host_ends < 0)


def registered_domains(url: pa.Array, suffixes: _Table) -> pa.Array:
    """Return the registered domain of each URL: the public suffix and one label more.

    An IP address is its own. Null for a null, no URL, and a host that is a public suffix.
    """
    urls = _normalised(url, needs_scheme=True)
    starts = _registered_starts(*urls, suffixes)
    ends = np.where(starts < 0, 0, urls.host_ends)
    return pa.array(
        [
            None if start < 0 else urls.data[start:end].tobytes().decode()
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ],
        pa.string(),
    )


def blocked(url: pa.Array, lists: CompiledLists) -> pa.StructArray:
    """Return struct{rule, entry, list} per URL: what blocks it; null when nothing does.

    Rules are tried in this order: url_domain (of several the longest), url_host,
    url_registered_domain, url_prefix (the shortest), url_exact, url_word, url_soft_words,
    url_subword, url_path, url_expression. entry is the entry that matched, in normal form (soft
    words: the first that are enough, with commas); of equal entries the first list has it.

    Cost: per URL one pass over its bytes and one probe of the table for every label of its host,
    and for every path segment and word where lists have such entries; one regular expression per
    URL and expression. No Python object but for what is blocked.
    """
    urls = _normalised(url, needs_scheme=True)
    hits = np.full(len(url), -1, np.int64)
    soft_hits = np.full((len(url), MAX_SOFT_WORDS), -1, np.int64)
    _match(
        *urls,
        lists.table,
        lists.suffixes,
        lists.automaton,
        lists.min_words,
        lists.prefix_lengths,
        lists.max_tokens,
        lists.has,
        hits,
        soft_hits,
    )
    verdicts: list[dict[str, str] | None] = [None] * len(url)
    for i in np.flatnonzero(hits >= 0).tolist():
        entries = soft_hits[i][soft_hits[i] >= 0].tolist() or [int(hits[i])]
        verdicts[i] = {
            "rule": RULE_NAMES[min(int(lists.table.kinds[hits[i]]), SOFT)],
            "entry": ",".join(_entry(lists.table, entry) for entry in entries),
            "list": lists.names[lists.lists[hits[i]]],
        }
    _match_patterns(urls, lists, verdicts)
    return pa.array(verdicts, VERDICT_TYPE)


def _match_patterns(
    urls: _Urls, lists: CompiledLists, verdicts: list[dict[str, str] | None]
) -> None:
    """Try the substrings of paths and the expressions on what nothing has blocked."""
    if not lists.patterns or not verdicts:
        return
    whole = _strings(urls.data, urls.offsets, urls.host_ends < 0)
    paths = pc.struct_field(pc.extract_regex(whole, r"(?s)^[^/]*(?P<path>[^?]*)"), "path")
    for rule, pattern, owner in lists.patterns:
        if rule == PATH_RULE:
            found = pc.match_substring(paths, pattern)
        else:
            found = pc.match_substring_regex(whole, pattern, ignore_case=True)
        for i in np.flatnonzero(pc.fill_null(found, False)).tolist():
            if verdicts[i] is None:
                verdicts[i] = {"rule": rule, "entry": pattern, "list": lists.names[owner]}


def _entry(table: _Table, entry: int) -> str:
    return table.blob[table.offsets[entry] : table.offsets[entry + 1]].tobytes().decode()


def _strings(data: UInt8Array, offsets: Int64Array, is_null: BoolArray) -> pa.Array:
    array = pa.Array.from_buffers(
        pa.large_binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    array = pc.if_else(pa.array(is_null), pa.scalar(None, pa.large_binary()), array)
    # a percent escape may have decoded to bytes that are not UTF-8
    valid = pc.cast(array, pa.large_string(), safe=False)
    try:
        valid.validate(full=True)
    except pa.ArrowInvalid:
        texts = [None if v is None else v.decode("utf-8", "replace") for v in array.to_pylist()]
        return pa.array(texts, pa.large_string())
    return valid


def _normalised(url: pa.Array, needs_scheme: bool) -> _Urls:
    data, offsets = utf8_buffers(url)
    urls, is_foreign = _normalise_all(data, offsets, needs_scheme)
    if is_foreign.any():
        mask = pa.array(is_foreign)
        texts = [_with_ascii_host(text) for text in url.filter(mask).to_pylist()]
        url = pc.replace_with_mask(url, mask, pa.array(texts, url.type))
        urls, _ = _normalise_all(*utf8_buffers(url), needs_scheme)
    return urls


def _normalise_all(
    data: UInt8Array, offsets: Int64Array, needs_scheme: bool
) -> tuple[_Urls, BoolArray]:
    num_urls = len(offsets) - 1
    out = np.empty(int(offsets[-1] - offsets[0]) + num_urls, np.uint8)
    out_offsets = np.zeros(num_urls + 1, np.int64)
    host_ends = np.empty(num_urls, np.int64)
    is_foreign = np.zeros(num_urls, np.bool_)
    num_bytes = _normalise(data, offsets, needs_scheme, out, out_offsets, host_ends, is_foreign)
    return _Urls(out[:num_bytes], out_offsets, host_ends), is_foreign


def _with_ascii_host(url: str) -> str:
    """Return a URL with its host in Punycode or as compressed IPv6."""
    return HOST_OF.sub(lambda match: match[1] + _ascii_host(match[2]), url, count=1)


def _ascii_host(host: str) -> str:
    host = unquote(host)
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1].partition('%')[0]).compressed}]"
        except ValueError:
            return host
    try:
        return idna.encode(host.rstrip("."), uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        # browsers take more than IDNA 2008 does, emoji for example
        return ".".join(_ascii_label(label) for label in host.split("."))


def _ascii_label(label: str) -> str:
    if label.isascii():
        return label
    return "xn--" + label.lower().encode("punycode", "replace").decode("ascii")


# ---- lists -------------------------------------------------------------------------------------


def list_files(url_list: UrlList) -> list[str]:
    """Return the files of a list: one, or those of a UT1 category folder.

    Raises ArtifactMissing when there is none.
    """
    if not url_list.path:
        return []
    path = Path(url_list.path)
    if url_list.format != "ut1":
        if path.is_file():
            return [str(path)]
        raise ArtifactMissing(
            f"URL list {url_list.name!r}: no file at {path}; check url_lists.path"
        )
    found = [
        str(path / f"{name}{suffix}")
        for name in UT1_FILES
        for suffix in ("", ".gz")
        if (path / f"{name}{suffix}").is_file()
    ]
    if found:
        return found
    raise ArtifactMissing(
        f"URL list {url_list.name!r}: {path} is no UT1 category: there is no file "
        f"{', '.join(UT1_FILES)} (or with .gz) in it; name the folder of one category, "
        "such as blacklists/adult"
    )


def compile_lists(lists: Sequence[UrlList], suffix_file: str | Path | None = None) -> CompiledLists:
    """Read lists and return them compiled.

    Raises ArtifactMissing, ArtifactInvalid with file and line, or ConfigError for an entry of the
    configuration. `suffix_file` is a public suffix list, needed for `registered_domains`. Cost:
    about 1 second and 100 MB of working memory per million hosts; once per change of a list.
    """
    needs_suffixes = any(url_list.format == "registered_domains" for url_list in lists)
    if needs_suffixes and suffix_file is None:
        raise ConfigError("a list of registered_domains needs public_suffix_list; set it")
    suffixes = compile_suffixes(suffix_file if needs_suffixes else None)
    entries = _Entries()
    min_words = []
    for number, url_list in enumerate(lists):
        if url_list.format == "soft_words":
            min_words.append(url_list.min_words)
        for source in _sources(url_list):
            soft = SOFT + len(min_words) - 1
            _READERS[source.format](source, number, soft, suffixes, entries)
    table = entries.table()
    lengths = np.diff(table.offsets)[table.kinds == PREFIX]
    prefix_lengths = np.zeros(int(lengths.max()) + 1 if len(lengths) else 0, np.bool_)
    prefix_lengths[lengths] = True
    return CompiledLists(
        names=tuple(url_list.name for url_list in lists),
        patterns=tuple(entries.patterns),
        table=table,
        lists=entries.owners(),
        suffixes=suffixes,
        automaton=_automaton(table),
        has=np.isin(np.arange(SOFT + 1), np.minimum(table.kinds, SOFT)),
        min_words=np.array(min_words, np.int64),
        prefix_lengths=prefix_lengths,
        max_tokens=entries.max_tokens,
    )


def compile_suffixes(path: str | Path | None) -> _Table:
    """Return a public suffix list, private section included, as `registered_domains` reads it.

    The private section makes a.github.io a site of its own. Raises ArtifactInvalid.
    """
    entries = _Entries()
    if path is not None:
        source = _read(str(path), "public suffixes", comment="//")
        rule = pc.replace_substring_regex(source.lines, r"\s.*$", "")
        for mark, kind in (("!", EXCEPTION), ("*.", WILDCARD), ("", PLAIN)):
            chosen = pc.starts_with(rule, mark)
            part = source.only(chosen)._replace(
                lines=pc.utf8_slice_codeunits(rule.filter(chosen), len(mark))
            )
            entries.add(_checked(part, "is no public suffix"), kind, 0)
            rest = pc.invert(chosen)
            source, rule = source.only(rest), rule.filter(rest)
    return entries.table()


def save(lists: CompiledLists, folder: Path) -> None:
    """Write compiled lists as .npy files, which `load` maps into memory."""
    named = {
        **{f"table_{name}": array for name, array in lists.table._asdict().items()},
        **{f"suffixes_{name}": array for name, array in lists.suffixes._asdict().items()},
        **{f"automaton_{name}": array for name, array in lists.automaton._asdict().items()},
        "lists": lists.lists,
        "has": lists.has,
        "min_words": lists.min_words,
        "prefix_lengths": lists.prefix_lengths,
    }
    for name, array in named.items():
        np.save(folder / f"{name}.npy", array)
    about = {"names": lists.names, "patterns": lists.patterns, "max_tokens": lists.max_tokens}
    (folder / "about.json").write_text(json.dumps(about))


def load(folder: Path) -> CompiledLists:
    """Return compiled lists as `save` wrote them, mapped: workers of a node share the memory."""

    def read(name: str) -> Any:
        path = folder / f"{name}.npy"
        try:
            return np.asarray(np.load(path, mmap_mode="r"))
        except ValueError:  # an empty file cannot be mapped
            array = np.load(path)
            array.flags.writeable = False
            return array

    about = json.loads((folder / "about.json").read_text())
    return CompiledLists(
        names=tuple(about["names"]),
        patterns=tuple(tuple(pattern) for pattern in about["patterns"]),
        table=_Table(*(read(f"table_{name}") for name in _Table._fields)),
        lists=read("lists"),
        suffixes=_Table(*(read(f"suffixes_{name}") for name in _Table._fields)),
        automaton=_Automaton(*(read(f"automaton_{name}") for name in _Automaton._fields)),
        has=read("has"),
        min_words=read("min_words"),
        prefix_lengths=read("prefix_lengths"),
        max_tokens=about["max_tokens"],
    )


class _Source(NamedTuple):
    """Lines of one file, or entries of the configuration, with their numbers for messages."""

    where: str  # file, or setting
    is_file: bool
    format: str
    lines: pa.Array
    numbers: Int64Array

    def only(self, mask: pa.Array) -> "_Source":
        """Return the lines where `mask` is true."""
        chosen = np.asarray(mask)
        return self._replace(lines=self.lines.filter(mask), numbers=self.numbers[chosen])

    def refuse_if(self, wrong: pa.Array | BoolArray, rule: str) -> None:
        """Raise for the first line where `wrong` is true."""
        places = np.flatnonzero(np.asarray(wrong))
        if not len(places):
            return
        entry, number = self.lines[int(places[0])].as_py(), int(self.numbers[places[0]])
        if self.is_file:
            raise ArtifactInvalid(
                f"{self.where} line {number}: {entry!r} {rule}; mend or remove the line"
            )
        raise ConfigError(f"{self.where}[{number}] {entry!r} {rule}; mend or remove it")


class _Entries:
    """Entries of all lists as they are read."""

    def __init__(self) -> None:
        self.patterns: list[tuple[str, str, int]] = []
        self.max_tokens = 0
        self._parts: list[tuple[UInt8Array, Int64Array]] = []  # bytes, lengths
        self._kinds: list[Int16Array] = []
        self._owners: list[Int16Array] = []

    def add(self, texts: pa.Array, kind: int, owner: int) -> None:
        data, offsets = utf8_buffers(texts)
        lengths = np.diff(offsets)
        self._parts.append((data[offsets[0] : offsets[-1]].copy(), lengths))
        self._kinds.append(np.full(len(lengths), kind, np.int16))
        self._owners.append(np.full(len(lengths), owner, np.int16))

    def owners(self) -> Int16Array:
        return np.concatenate([np.zeros(0, np.int16), *self._owners])

    def table(self) -> _Table:
        blob = np.concatenate([np.zeros(0, np.uint8), *(data for data, _ in self._parts)])
        lengths = np.concatenate([np.zeros(0, np.int64), *(each for _, each in self._parts)])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        kinds = np.concatenate([np.zeros(0, np.int16), *self._kinds])
        num_slots = 1 << max(int(len(kinds) / MAX_LOAD), 1).bit_length()
        slots = np.zeros(num_slots, np.uint64)
        for array in (blob, offsets, kinds):
            array.flags.writeable = False
        _fill(slots, offsets, kinds, blob)
        slots.flags.writeable = False
        return _Table(slots, offsets, kinds, blob)


def _sources(url_list: UrlList) -> list[_Source]:
    """Return the lines of a list's files, without comments and blanks, and its entries."""
    sources = []
    for path in list_files(url_list):
        name = Path(path).name.removesuffix(".gz")
        format = UT1_FILES[name] if url_list.format == "ut1" else url_list.format
        sources.append(_read(path, format))
    if url_list.entries:
        lines = pa.array(url_list.entries, pa.string())
        numbers = np.arange(len(lines), dtype=np.int64)
        sources.append(_Source(url_list.name, False, url_list.format, lines, numbers))
    return sources


def _read(path: str, format: str, comment: str = "#") -> _Source:
    """Read a text file, gzipped or not, as lines without blanks and comments."""
    try:
        data = Path(path).read_bytes()
        if path.endswith(".gz"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ArtifactInvalid(f"{path} cannot be read: {error}; restore the file") from None
    data = data.removeprefix(b"\xef\xbb\xbf")
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")).astype(np.int64)
    offsets = np.concatenate([[0], ends + 1, [len(data)]]).astype(np.int64)
    lines = pa.Array.from_buffers(
        pa.large_binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    lines = pc.utf8_trim_whitespace(_as_text(path, lines))
    if comment == "#":
        lines = pc.utf8_rtrim_whitespace(pc.replace_substring_regex(lines, r"(?:^|\s)#.*$", ""))
    stays = pc.and_not(pc.not_equal(lines, ""), pc.starts_with(lines, comment))
    numbers = np.flatnonzero(np.asarray(stays)).astype(np.int64) + 1
    return _Source(path, True, format, lines.filter(stays), numbers)


def _as_text(path: str, lines: pa.Array) -> pa.Array:
    try:
        return pc.cast(lines, pa.large_string())
    except pa.ArrowInvalid:
        for number, line in enumerate(lines.to_pylist(), 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                raise ArtifactInvalid(
                    f"{path} line {number}: {line[:80]!r} is not UTF-8; convert the file"
                ) from None
        raise


def _read_hosts(kind: int) -> Any:
    def read(source: _Source, owner: int, soft: int, suffixes: _Table, entries: _Entries) -> None:
        lines = pc.replace_substring_regex(source.lines, HOSTS_FILE_ADDRESS, "")
        if kind != HOST:
            lines = pc.replace_substring_regex(lines, r"^(?:\*\.|\.)", "")
        texts = _checked(source._replace(lines=lines), "is no host; write one such as example.com")
        if kind == REGISTERED:
            data, offsets = utf8_buffers(texts)
            starts = _registered_starts(data, offsets, offsets[1:], suffixes)
            source.refuse_if(starts < 0, "is a public suffix: it would block every site under it")
            texts = pa.array(
                [
                    data[start:end].tobytes().decode()
                    for start, end in zip(starts.tolist(), offsets[1:].tolist(), strict=True)
                ],
                pa.large_string(),
            )
        entries.add(texts, kind, owner)

    return read


def _checked(source: _Source, rule: str) -> pa.Array:
    """Return hosts in normal form; raises for a line that is more than a host, or none."""
    urls = _normalised(source.lines, needs_scheme=False)
    texts = _strings(urls.data, urls.offsets, urls.host_ends < 0)
    is_host = pc.fill_null(pc.match_substring_regex(texts, f"^(?:{HOST_FORM})$"), False)
    wrong = pc.or_(pc.invert(is_host), pc.match_substring_regex(source.lines, r"\s"))
    source.refuse_if(wrong, rule)
    return texts


def _read_urls(source: _Source, owner: int, soft: int, suffixes: _Table, entries: _Entries) -> None:
    texts = _checked_urls(source)
    entries.add(pc.replace_substring_regex(texts, WWW, r"\1"), SEGMENTS, owner)


def _checked_urls(source: _Source) -> pa.Array:
    urls = _normalised(source.lines, needs_scheme=False)
    texts = _strings(urls.data, urls.offsets, urls.host_ends < 0)
    is_url = pc.fill_null(pc.match_substring_regex(texts, f"^(?:{HOST_FORM})(?:/|$)"), False)
    wrong = pc.or_(pc.invert(is_url), pc.match_substring_regex(source.lines, r"\s"))
    source.refuse_if(wrong, "is no URL; write one such as example.com/path")
    return texts


def _read_takedown(
    source: _Source, owner: int, soft: int, suffixes: _Table, entries: _Entries
) -> None:
    is_url = pc.match_substring_regex(source.lines, r"[/?]")
    is_prefix = pc.ends_with(source.lines, "*")
    source.refuse_if(
        pc.and_not(is_prefix, is_url), "is a prefix without a path; write example.com/*"
    )
    _read_hosts(DOMAIN)(source.only(pc.invert(is_url)), owner, soft, suffixes, entries)
    exact = source.only(pc.and_not(is_url, is_prefix))
    entries.add(_checked_urls(exact), EXACT, owner)
    prefixes = source.only(is_prefix)
    bodies = pc.utf8_slice_codeunits(prefixes.lines, 0, -1)
    is_folder = pc.ends_with(bodies, "/")
    for chosen, kind in ((is_folder, SEGMENTS), (pc.invert(is_folder), PREFIX)):
        part = prefixes.only(chosen)._replace(lines=bodies.filter(chosen))
        entries.add(_checked_urls(part), kind, owner)


def _read_words(kind: int) -> Any:
    def read(source: _Source, owner: int, soft: int, suffixes: _Table, entries: _Entries) -> None:
        letters = pc.ascii_lower(source.lines)
        tokens = pc.utf8_trim(pc.replace_substring_regex(letters, NOT_LETTERS, " "), " ")
        joined = pc.replace_substring(tokens, " ", "")
        source.refuse_if(pc.equal(joined, ""), "has no letters or digits")
        if kind == SUBWORD:
            source.refuse_if(
                pc.less(pc.utf8_length(joined), MIN_SUBWORD_LETTERS),
                "is one letter, which is in every URL",
            )
            entries.add(joined, SUBWORD, owner)
            return
        num_tokens = pc.add(pc.count_substring(tokens, " "), 1)
        entries.max_tokens = max(entries.max_tokens, pc.max(num_tokens).as_py() or 0)
        entries.add(tokens, soft if kind == SOFT else kind, owner)
        several = pc.greater(num_tokens, 1)
        entries.add(joined.filter(several), soft if kind == SOFT else kind, owner)

    return read


def _read_paths(
    source: _Source, owner: int, soft: int, suffixes: _Table, entries: _Entries
) -> None:
    wrong = pc.or_(
        pc.equal(source.lines, ""), pc.not_equal(source.lines, pc.utf8_lower(source.lines))
    )
    source.refuse_if(wrong, "is empty or not lower case, in which paths are compared")
    entries.patterns += [(PATH_RULE, text, owner) for text in source.lines.to_pylist()]


def _read_expressions(
    source: _Source, owner: int, soft: int, suffixes: _Table, entries: _Entries
) -> None:
    for place, pattern in enumerate(source.lines.to_pylist()):
        try:
            pc.match_substring_regex(pa.array([""]), pattern, ignore_case=True)
        except pa.ArrowInvalid as error:
            wrong = np.arange(len(source.lines)) == place
            source.refuse_if(wrong, f"is no regular expression of RE2 ({error})")
        entries.patterns.append((EXPRESSION_RULE, pattern, owner))


_READERS = {
    "domains": _read_hosts(DOMAIN),
    "hosts": _read_hosts(HOST),
    "registered_domains": _read_hosts(REGISTERED),
    "urls": _read_urls,
    "takedown": _read_takedown,
    "words": _read_words(WORD),
    "soft_words": _read_words(SOFT),
    "subwords": _read_words(SUBWORD),
    "expressions": _read_expressions,
    "paths": _read_paths,
}


def _automaton(table: _Table) -> _Automaton:
    words = np.flatnonzero(table.kinds == SUBWORD)
    classes = np.zeros(256, np.uint8)
    is_used = np.zeros(256, np.bool_)
    starts, ends = table.offsets[words], table.offsets[words + 1]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        is_used[table.blob[start:end]] = True
    classes[is_used] = np.arange(1, int(is_used.sum()) + 1)
    num_states = 1 + int((ends - starts).sum())  # at most
    following = np.zeros((num_states, int(is_used.sum()) + 1), np.int32)
    found = np.full(num_states, -1, np.int32)
    size = _build_automaton(words, table.offsets, table.blob, classes, following, found)
    automaton = _Automaton(classes, following[:size].copy(), found[:size].copy())
    for array in automaton:
        array.flags.writeable = False
    return automaton


# ---- kernels -----------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _normalise(
    data: UInt8Array,
    offsets: Int64Array,
    needs_scheme: bool,
    out: UInt8Array,
    out_offsets: Int64Array,
    host_ends: Int64Array,
    is_foreign: BoolArray,
) -> int:
    """Write URLs in normal form; return how many bytes. is_foreign: the host needs Python."""
    w = 0
    for i in range(len(offsets) - 1):
        out_offsets[i] = w
        host_ends[i] = -1
        start, end = offsets[i], offsets[i + 1]
        while start < end and data[start] <= 32:
            start += 1
        while end > start and data[end - 1] <= 32:
            end -= 1
        authority = _after_scheme(data, start, end)
        if authority < 0:
            if needs_scheme:
                continue
            authority = start
        path = authority
        while path < end and data[path] not in (35, 47, 63, 92):  # # / ? \
            path += 1
        host = authority
        for k in range(authority, path):
            if data[k] == 64:  # @
                host = k + 1
        stop = host
        if host < path and data[host] == 91:  # [
            while stop < path and data[stop] != 93:
                stop += 1
            stop = stop + 1 if stop < path else host
        if stop == host:
            while stop < path and data[stop] != 58:  # :
                stop += 1
        while stop > host and data[stop - 1] == 46:
            stop -= 1
        if stop == host:
            continue
        for k in range(host, stop):
            byte = _lower(data[k])
            is_foreign[i] |= byte >= 128 or byte == 91 or byte == 37
            out[w] = byte
            w += 1
        host_ends[i] = w
        w = _normalise_path(data, path, end, out, w)
    out_offsets[len(offsets) - 1] = w
    return w


@njit(cache=True, nogil=True)
def _normalise_path(data: UInt8Array, k: int, end: int, out: UInt8Array, w: int) -> int:
    first = w
    in_query = False
    if k < end and data[k] == 63:
        out[w] = 47
        w += 1
    while k < end and data[k] != 35:
        byte = data[k]
        if byte == 63:
            in_query = True
        elif byte == 92 and not in_query:
            byte = np.uint8(47)
        elif byte == 37 and k + 2 < end:
            high, low = _hex(data[k + 1]), _hex(data[k + 2])
            value = high * 16 + low
            if high >= 0 and low >= 0 and (value >= 128 or _is_unreserved(value)):
                byte = np.uint8(value)
                k += 2
        out[w] = _lower(byte)
        w += 1
        k += 1
    while not in_query and w > first and out[w - 1] == 47:
        w -= 1
    return w


@njit(cache=True, nogil=True, inline="always")
def _after_scheme(data: UInt8Array, start: int, end: int) -> int:
    """Return where the authority starts, -1 without a scheme."""
    k = start
    while k < end:
        byte = _lower(data[k])
        is_letter = 97 <= byte <= 122
        is_other = 48 <= byte <= 57 or byte == 43 or byte == 45 or byte == 46
        if not (is_letter or (is_other and k > start)):
            break
        k += 1
    if k > start and k + 2 < end and data[k] == 58 and data[k + 1] == 47 and data[k + 2] == 47:
        return k + 3
    return -1


@njit(cache=True, nogil=True, inline="always")
def _lower(byte: np.uint8) -> np.uint8:
    return np.uint8(byte + 32) if 65 <= byte <= 90 else byte


@njit(cache=True, nogil=True, inline="always")
def _hex(byte: np.uint8) -> int:
    if 48 <= byte <= 57:
        return int(byte) - 48
    lower = int(_lower(byte))
    return lower - 87 if 97 <= lower <= 102 else -1


@njit(cache=True, nogil=True, inline="always")
def _is_unreserved(byte: int) -> bool:
    """Letters, digits, hyphen, dot, underscore, tilde (RFC 3986, 2.3)."""
    return (
        48 <= byte <= 57
        or 65 <= byte <= 90
        or 97 <= byte <= 122
        or byte == 45
        or byte == 46
        or byte == 95
        or byte == 126
    )


@njit(cache=True, nogil=True, inline="always")
def _is_letter(byte: np.uint8) -> bool:
    """ASCII letters (lower case) and digits, and all bytes of other characters."""
    return bool(97 <= byte <= 122 or 48 <= byte <= 57 or byte >= 128)


@njit(cache=True, nogil=True, inline="always")
def _step(state: np.uint64, byte: np.uint8) -> np.uint64:
    return np.uint64((state ^ np.uint64(byte)) * FNV_PRIME)


@njit(cache=True, nogil=True, inline="always")
def _key(state: np.uint64, kind: int) -> np.uint64:
    """Finish a hash (MurmurHash3's fmix64), another one for every kind."""
    key = state ^ np.uint64(kind)
    key ^= key >> np.uint64(33)
    key = np.uint64(key * np.uint64(0xFF51AFD7ED558CCD))
    key ^= key >> np.uint64(33)
    key = np.uint64(key * np.uint64(0xC4CEB9FE1A85EC53))
    return key ^ (key >> np.uint64(33))


@njit(cache=True, nogil=True)
def _hash_back(data: UInt8Array, start: int, end: int) -> np.uint64:
    """Hash from the last byte to the first: domains share their ends."""
    state = FNV_BASIS
    for k in range(end - 1, start - 1, -1):
        state = _step(state, data[k])
    return state


@njit(cache=True, nogil=True)
def _fill(slots: UInt64Array, offsets: Int64Array, kinds: Int16Array, blob: UInt8Array) -> None:
    """Enter every entry, of equal ones the first. Kinds of hosts are hashed from the end."""
    table = _Table(slots, offsets, kinds, blob)
    last = np.uint64(len(slots) - 1)
    for entry in range(len(kinds)):
        start, end, kind = offsets[entry], offsets[entry + 1], kinds[entry]
        if kind == SUBWORD:
            continue
        if kind <= REGISTERED:
            state = _hash_back(blob, start, end)
        else:
            state = FNV_BASIS
            for k in range(start, end):
                state = _step(state, blob[k])
        if _find(state, kind, blob, start, end, table) >= 0:
            continue
        key = _key(state, kind)
        place = key & last
        while slots[place] != 0:
            place = (place + np.uint64(1)) & last
        slots[place] = (key >> np.uint64(32)) << np.uint64(32) | np.uint64(entry + 1)


@njit(cache=True, nogil=True)
def _find(
    state: np.uint64, kind: int, data: UInt8Array, start: int, end: int, table: _Table
) -> int:
    """Return the entry of a kind that is data[start:end], -1 for none.

    Runs of separators in data count as one space, as in entries of several words.
    """
    key = _key(state, kind)
    last = np.uint64(len(table.slots) - 1)
    place = key & last
    while True:
        slot = table.slots[place]
        if slot == 0:
            return -1
        if slot >> np.uint64(32) == key >> np.uint64(32):
            entry = np.int64(slot & np.uint64(0xFFFFFFFF)) - 1
            if table.kinds[entry] == kind and _is_entry(
                data,
                start,
                end,
                table.blob,
                table.offsets[entry],
                table.offsets[entry + 1],
                kind == WORD or kind >= SOFT,
            ):
                return int(entry)
        place = (place + np.uint64(1)) & last


@njit(cache=True, nogil=True)
def _is_entry(
    data: UInt8Array,
    start: int,
    end: int,
    blob: UInt8Array,
    first: int,
    stop: int,
    of_words: bool,
) -> bool:
    k = start
    for place in range(first, stop):
        if k >= end:
            return False
        if of_words and blob[place] == 32:
            if _is_letter(data[k]):
                return False
            while k < end and not _is_letter(data[k]):
                k += 1
        elif data[k] != blob[place]:
            return False
        else:
            k += 1
    return k == end


@njit(cache=True, nogil=True)
def _match(
    data: UInt8Array,
    offsets: Int64Array,
    host_ends: Int64Array,
    table: _Table,
    suffixes: _Table,
    automaton: _Automaton,
    min_words: Int64Array,
    prefix_lengths: BoolArray,
    max_tokens: int,
    has: BoolArray,
    hits: Int64Array,
    soft_hits: Int64Array,
) -> None:
    """Write the first entry that blocks each URL, and the soft words that do."""
    found_soft = np.empty((len(min_words), MAX_SOFT_WORDS), np.int64)
    for i in range(len(host_ends)):
        start, host_end, end = offsets[i], host_ends[i], offsets[i + 1]
        if host_end < 0:
            continue
        hit = _match_host(data, start, host_end, table, suffixes, has)
        if hit < 0 and (has[SEGMENTS] or has[EXACT] or has[PREFIX]):
            hit = _match_url(data, start, host_end, end, start, table, prefix_lengths, has)
            bare = _after_www(data, start, host_end)
            if hit < 0 and bare > start and has[SEGMENTS]:
                hit = _match_url(data, start, host_end, end, bare, table, prefix_lengths, has)
        if hit < 0 and has[WORD]:
            hit = _match_word(data, start, end, table, max_tokens)
        if hit < 0 and has[SOFT]:
            hit = _match_soft(
                data, start, end, table, max_tokens, min_words, found_soft, soft_hits[i]
            )
        if hit < 0 and has[SUBWORD]:
            hit = _match_subword(data, start, end, automaton)
        hits[i] = hit


@njit(cache=True, nogil=True)
def _match_host(
    data: UInt8Array,
    start: int,
    end: int,
    table: _Table,
    suffixes: _Table,
    has: BoolArray,
) -> int:
    is_address = _is_address(data, start, end)
    state = FNV_BASIS
    domain = -1
    for k in range(end - 1, start - 1, -1):
        state = _step(state, data[k])
        if has[DOMAIN] and (k == start or (data[k - 1] == 46 and not is_address)):
            found = _find(state, DOMAIN, data, k, end, table)
            if found >= 0:
                domain = found
    if domain < 0 and has[HOST]:
        domain = _find(state, HOST, data, start, end, table)
    if domain < 0 and has[REGISTERED]:
        first = _registered_start(data, start, end, suffixes)
        if first >= 0:
            state = _hash_back(data, first, end)
            domain = _find(state, REGISTERED, data, first, end, table)
    return domain


@njit(cache=True, nogil=True, inline="always")
def _is_address(data: UInt8Array, start: int, end: int) -> bool:
    """Whether a host is an IP address: its last label is a number, or it stands in brackets."""
    if data[start] == 91:
        return True
    k = end - 1
    while k >= start and data[k] != 46:
        if not 48 <= data[k] <= 57:
            return False
        k -= 1
    return True


@njit(cache=True, nogil=True)
def _registered_starts(
    data: UInt8Array, offsets: Int64Array, host_ends: Int64Array, suffixes: _Table
) -> Int64Array:
    starts = np.full(len(host_ends), -1, np.int64)
    for i in range(len(host_ends)):
        if host_ends[i] > offsets[i]:
            starts[i] = _registered_start(data, offsets[i], host_ends[i], suffixes)
    return starts


@njit(cache=True, nogil=True)
def _registered_start(data: UInt8Array, start: int, end: int, suffixes: _Table) -> int:
    """Return where the registered domain of a host starts, -1 when it is a public suffix.

    The rules of publicsuffix.org: an exception prevails, else the longest rule, else the last
    label; `*` stands for one whole label.
    """
    if _is_address(data, start, end):
        return start
    state = FNV_BASIS
    suffix = -1  # start of the public suffix
    parent = -1  # start of the label after the current one
    under_wildcard = False
    is_decided = False
    for k in range(end - 1, start - 1, -1):
        state = _step(state, data[k])
        if k > start and data[k - 1] != 46:
            continue
        if _find(state, EXCEPTION, data, k, end, suffixes) >= 0:
            suffix, is_decided = parent, True
        if not is_decided and (
            suffix < 0 or under_wildcard or _find(state, PLAIN, data, k, end, suffixes) >= 0
        ):
            suffix = k
        under_wildcard = _find(state, WILDCARD, data, k, end, suffixes) >= 0
        parent = k
    if suffix <= start:
        return -1
    first = suffix - 1  # the dot before the suffix
    while first > start and data[first - 1] != 46:
        first -= 1
    return first


@njit(cache=True, nogil=True)
def _after_www(data: UInt8Array, start: int, end: int) -> int:
    """Return where a host starts without (www|web|ftp)[0-9]*, if two labels remain."""
    if end - start < 4:
        return start
    a, b, c = data[start], data[start + 1], data[start + 2]
    is_www = a == 119 and b == 119 and c == 119
    is_web = a == 119 and b == 101 and c == 98
    is_ftp = a == 102 and b == 116 and c == 112
    if not (is_www or is_web or is_ftp):
        return start
    k = start + 3
    while k < end and 48 <= data[k] <= 57:
        k += 1
    if k >= end or data[k] != 46:
        return start
    for rest in range(k + 2, end):
        if data[rest] == 46:
            return k + 1
    return start


@njit(cache=True, nogil=True)
def _match_url(
    data: UInt8Array,
    start: int,
    host_end: int,
    end: int,
    origin: int,
    table: _Table,
    prefix_lengths: BoolArray,
    has: BoolArray,
) -> int:
    """Look up what the URL starts with, from `origin` on: whole segments, prefixes, all of it."""
    state = FNV_BASIS
    for k in range(origin, end + 1):
        if k >= host_end:
            is_boundary = k == end or data[k] == 47 or data[k] == 63
            if is_boundary and has[SEGMENTS]:
                found = _find(state, SEGMENTS, data, origin, k, table)
                if found >= 0:
                    return found
            length = k - origin
            if origin == start and length < len(prefix_lengths) and prefix_lengths[length]:
                found = _find(state, PREFIX, data, origin, k, table)
                if found >= 0:
                    return found
        if k < end:
            state = _step(state, data[k])
    return _find(state, EXACT, data, origin, end, table) if origin == start else -1


@njit(cache=True, nogil=True)
def _match_word(data: UInt8Array, start: int, end: int, table: _Table, max_tokens: int) -> int:
    k = start
    while k < end:
        if not _is_letter(data[k]):
            k += 1
            continue
        found, stop = _find_run(data, k, end, table, max_tokens, WORD)
        if found >= 0:
            return found
        k = stop
    return -1


@njit(cache=True, nogil=True)
def _find_run(
    data: UInt8Array, start: int, end: int, table: _Table, max_tokens: int, kind: int
) -> tuple[int, int]:
    """Return the entry that is the word at `start`, or it and words that follow, and its end."""
    state = FNV_BASIS
    k = start
    first_stop = end
    for num_tokens in range(1, max_tokens + 1):
        while k < end and _is_letter(data[k]):
            state = _step(state, data[k])
            k += 1
        if num_tokens == 1:
            first_stop = k
        found = _find(state, kind, data, start, k, table)
        if found >= 0:
            return found, first_stop
        while k < end and not _is_letter(data[k]):
            k += 1
        if k == end:
            break
        state = _step(state, np.uint8(32))
    return -1, first_stop


@njit(cache=True, nogil=True)
def _match_soft(
    data: UInt8Array,
    start: int,
    end: int,
    table: _Table,
    max_tokens: int,
    min_words: Int64Array,
    found_soft: Int64Array,
    reported: Int64Array,
) -> int:
    """Count distinct soft words by list; report those that were enough for the first list."""
    for number in range(len(min_words)):
        num_found = 0
        k = start
        while k < end and num_found < min_words[number]:
            if not _is_letter(data[k]):
                k += 1
                continue
            found, k = _find_run(data, k, end, table, max_tokens, SOFT + number)
            is_new = found >= 0
            for earlier in range(num_found):
                is_new &= found_soft[number, earlier] != found
            if is_new:
                found_soft[number, num_found] = found
                num_found += 1
        if num_found >= min_words[number]:
            reported[:num_found] = found_soft[number, :num_found]
            return int(found_soft[number, 0])
    return -1


@njit(cache=True, nogil=True)
def _match_subword(data: UInt8Array, start: int, end: int, automaton: _Automaton) -> int:
    state = 0
    for k in range(start, end):
        if _is_letter(data[k]):
            state = automaton.following[state, automaton.classes[data[k]]]
            if automaton.found[state] >= 0:
                return int(automaton.found[state])
    return -1


@njit(cache=True, nogil=True)
def _build_automaton(
    words: Int64Array,
    offsets: Int64Array,
    blob: UInt8Array,
    classes: UInt8Array,
    following: Int32Array,
    found: Int32Array,
) -> int:
    """Build the trie, then make every missing move that of the longest suffix (breadth first).

    A state reports the longest word that ends there. Returns the number of states.
    """
    num_states = 1
    for word in words:
        state = 0
        for k in range(offsets[word], offsets[word + 1]):
            symbol = classes[blob[k]]
            if following[state, symbol] == 0:
                following[state, symbol] = num_states
                num_states += 1
            state = following[state, symbol]
        if found[state] < 0:
            found[state] = word
    fallback = np.zeros(num_states, np.int32)
    queue = np.empty(num_states, np.int32)
    first, last = 0, 0
    for symbol in range(1, following.shape[1]):
        if following[0, symbol] != 0:
            queue[last] = following[0, symbol]
            last += 1
    while first < last:
        state = queue[first]
        first += 1
        if found[state] < 0:
            found[state] = found[fallback[state]]
        for symbol in range(1, following.shape[1]):
            child = following[state, symbol]
            if child == 0:
                following[state, symbol] = following[fallback[state], symbol]
            else:
                fallback[child] = following[fallback[state], symbol]
                queue[last] = child
                last += 1
    return num_states
