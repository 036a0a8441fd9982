"""URLs: their hosts, and the lists that block them.

Every URL, of a page or of a list, is read by one kernel into one form, on which all rules work:
`host/path?query` in lower case, without scheme, user, port, fragment, dots after the host and
slashes after the path. Hosts are Punycode (UTS 46), IPv6 is compressed; escapes of what is not
ASCII and of letters, digits and -._~ are decoded.

Lists are compiled once into flat arrays that are saved and memory-mapped, so that all Python
workers of a node share one copy: a hash table of 64-bit slots, which point at the entries
themselves, and an Aho-Corasick automaton for sub-words. A hit is compared with the bytes of the
entry; a collision of hashes costs a comparison and decides nothing.
"""

import gzip
import ipaddress
import json
import os
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
from curation.hashing import FNV_OFFSET, FNV_PRIME, fmix64
from curation.ingest.text import Int64Array, UInt8Array, utf8_buffers

# scheme://[user@]host[:port][/path][?query][#fragment], RFC 3986; a backslash ends the host, as in
# browsers. RE2: linear time, whatever the URL.
URL_PATTERN = (
    r"(?s)^\s*[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#\\]*@)?"
    r"(?P<host>\[[^\]/?#\\]*\]|[^/?#\\:]*)(?::[^/?#\\]*)?(?P<path>[^?#]*)"
)
HOST_OF = re.compile(
    r"^(\s*(?:[A-Za-z][A-Za-z0-9+.\-]*://)?(?:[^/?#\\]*@)?)(\[[^\]/?#\\]*\]|[^/?#\\:]*)", re.S
)
NO_HOST_CHARACTERS = re.compile(r"[\0- ]")  # browsers drop tabs and newlines wherever they stand
# Labels may hold underscores and outer hyphens: real lists and real hosts do.
HOST_FORM = r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]+\]"
# `0.0.0.0 ads.example.com`: a line of a hosts file
HOSTS_FILE_ADDRESS = r"^(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]*:[0-9a-fA-F:.]*(?:%\w+)?)\s+"
NOT_LETTERS = r"[^a-z0-9\x{80}-\x{10FFFF}]+"

COMPILED_VERSION = 2
"""Version of the compiled form and of the normal form; an older file is compiled again."""

FORMATS = (
    "domains",
    "hosts",
    "registered_domains",
    "urls",
    "words",
    "soft_words",
    "subwords",
    "expressions",
)
UT1_FILES = ("domains", "urls", "expressions")
MAX_SOFT_WORDS = 8  # distinct soft words that may be asked for
MIN_SUBWORD_LETTERS = 2  # one letter is in every URL

VERDICT_TYPE = pa.struct([("rule", pa.string()), ("entry", pa.string()), ("list", pa.string())])

DOMAIN, HOST, REGISTERED, SEGMENTS, EXACT, WORD, SOFT, SUBWORD = range(8)  # kinds of entries
PLAIN, WILDCARD, EXCEPTION = range(3)  # of the public suffix list; as hosts, hashed from the end
RULE_NAMES = (
    "url_domain",
    "url_host",
    "url_registered_domain",
    "url_prefix",
    "url_exact",
    "url_word",
    "url_soft_words",
    "url_subword",
)
PATH_RULE, EXPRESSION_RULE = "url_path", "url_expression"

MAX_LOAD = 0.7
MAPPED_BYTES = 4096  # files up to a page of memory are read

BoolArray = npt.NDArray[np.bool_]
UInt64Array = npt.NDArray[np.uint64]
Int32Array = npt.NDArray[np.int32]
Int16Array = npt.NDArray[np.int16]


@dataclass(frozen=True)
class UrlList:
    """A list of what to block: lines of a file, or `entries` of the configuration itself.

    format is one of FORMATS, or `takedown` (hosts, exact URLs, and URLs with all below them), or
    `paths` (substrings of the path, entries only). The README says what a line may be.
    """

    name: str
    format: str
    path: str = ""
    entries: tuple[str, ...] = ()


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
    """URLs in normal form; host_ends is -1 where there is no host."""

    data: UInt8Array
    offsets: Int64Array
    host_ends: Int64Array


@dataclass(frozen=True)
class CompiledLists:
    """Lists as `blocked` reads them: arrays that may be memory-mapped, and a few names."""

    names: tuple[str, ...]
    patterns: tuple[tuple[str, str, int], ...]  # rule, pattern, list
    min_soft_words: int
    lists: Int16Array  # of every entry
    has: BoolArray  # entries of each kind
    table: _Table
    suffixes: _Table
    automaton: _Automaton

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
    """Return each URL in the form on which rules work; null for a null and without a host.

    A scheme is not needed. Cost: one pass over the bytes; hosts that are not ASCII, or IPv6, pass
    through Python.
    """
    return _strings(_normalised(url))


def registered_domains(url: pa.Array, suffixes: _Table) -> pa.Array:
    """Return the registered domain of each URL: the public suffix and one label more.

    An IP address is its own. Null for a null, no host, and a host that is a public suffix.
    """
    urls = _normalised(url)
    starts = _registered_starts(*urls, suffixes)
    ends = np.where(starts < 0, 0, urls.host_ends)
    return pa.array(
        [
            None if start < 0 else urls.data[start:end].tobytes().decode("utf-8", "replace")
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ],
        pa.large_string(),
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
    if lists.num_entries == 0:
        return pa.nulls(len(url), VERDICT_TYPE)
    urls = _normalised(url)
    hits = np.full(len(url), -1, np.int64)
    soft_hits = np.full((len(url), MAX_SOFT_WORDS), -1, np.int64)
    _match(
        *urls,
        lists.table,
        lists.suffixes,
        lists.automaton,
        lists.min_soft_words,
        lists.has,
        hits,
        soft_hits,
    )
    verdicts: list[dict[str, str] | None] = [None] * len(url)
    for i in np.flatnonzero(hits >= 0).tolist():
        entries = soft_hits[i][soft_hits[i] >= 0].tolist() or [int(hits[i])]
        verdicts[i] = {
            "rule": RULE_NAMES[lists.table.kinds[hits[i]]],
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
    whole = _strings(urls)
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
    data = table.blob[table.offsets[entry] : table.offsets[entry + 1]]
    return data.tobytes().decode("utf-8", "replace")


def _strings(urls: _Urls) -> pa.Array:
    buffers = [None, pa.py_buffer(urls.offsets), pa.py_buffer(urls.data)]
    array = pa.Array.from_buffers(pa.large_binary(), len(urls.host_ends), buffers)
    array = pc.if_else(pa.array(urls.host_ends < 0), pa.scalar(None, pa.large_binary()), array)
    try:
        return pc.cast(array, pa.large_string())
    except pa.ArrowInvalid:  # an escape was decoded to what is not UTF-8
        texts = [None if v is None else v.decode("utf-8", "replace") for v in array.to_pylist()]
        return pa.array(texts, pa.large_string())


def _normalised(url: pa.Array) -> _Urls:
    urls, is_foreign = _normalise_all(*utf8_buffers(url))
    if is_foreign.any():
        mask = pa.array(is_foreign)
        texts = [_with_ascii_host(text) for text in url.filter(mask).to_pylist()]
        url = pc.replace_with_mask(url, mask, pa.array(texts, url.type))
        urls, _ = _normalise_all(*utf8_buffers(url))
    return urls


def _normalise_all(data: UInt8Array, offsets: Int64Array) -> tuple[_Urls, BoolArray]:
    num_urls = len(offsets) - 1
    out = np.empty(int(offsets[-1] - offsets[0]) + num_urls, np.uint8)
    out_offsets = np.zeros(num_urls + 1, np.int64)
    host_ends = np.empty(num_urls, np.int64)
    is_foreign = np.zeros(num_urls, np.bool_)
    num_bytes = _normalise(data, offsets, out, out_offsets, host_ends, is_foreign)
    return _Urls(out[:num_bytes], out_offsets, host_ends), is_foreign


def _with_ascii_host(url: str) -> str:
    """Return a URL with its host in Punycode or as compressed IPv6."""
    return HOST_OF.sub(lambda match: match[1] + _ascii_host(match[2]), url, count=1)


def _ascii_host(host: str) -> str:
    host = NO_HOST_CHARACTERS.sub("", unquote(host))
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


def ut1_category(name: str, folder: str) -> list[UrlList]:
    """Return the lists of a UT1 category: files `domains`, `urls`, `expressions`, or gzipped.

    Raises ArtifactMissing when there is none of them.
    """
    found = [
        UrlList(name, file, str(Path(folder, file + suffix)))
        for file in UT1_FILES
        for suffix in ("", ".gz")
        if Path(folder, file + suffix).is_file()
    ]
    if not found:
        raise ArtifactMissing(
            f"URL list {name!r}: {folder} is no UT1 category: it has no file "
            f"{', '.join(UT1_FILES)} (or with .gz); name the folder of one category, "
            "such as blacklists/adult"
        )
    return found


def compile_lists(
    lists: Sequence[UrlList], suffix_file: str | Path | None = None, min_soft_words: int = 2
) -> CompiledLists:
    """Read lists and return them compiled.

    `suffix_file` is a public suffix list, read for `registered_domains`. Raises ArtifactInvalid
    with file and line, ConfigError for an entry of the configuration. Cost: see the README;
    once per change of a list.
    """
    needs_suffixes = any(url_list.format == "registered_domains" for url_list in lists)
    suffixes = compile_suffixes(suffix_file if needs_suffixes else None)
    entries = _Entries()
    for number, url_list in enumerate(lists):
        entries.owner = number
        _add_list(_source(url_list), url_list.format, suffixes, entries)
    table = entries.table()
    return CompiledLists(
        names=tuple(url_list.name for url_list in lists),
        patterns=tuple(entries.patterns),
        min_soft_words=min_soft_words,
        lists=entries.owners(),
        has=np.isin(np.arange(len(RULE_NAMES)), table.kinds),
        table=table,
        suffixes=suffixes,
        automaton=_automaton(table),
    )


def compile_suffixes(path: str | Path | None) -> _Table:
    """Return a public suffix list, private section included, as `registered_domains` reads it.

    The private section makes a.github.io a site of its own. Raises ArtifactInvalid.
    """
    entries = _Entries()
    if path is not None:
        source = _read(str(path), comment="//")
        rule = pc.replace_substring_regex(source.lines, r"\s.*$", "")
        for mark, kind in (("!", EXCEPTION), ("*.", WILDCARD), ("", PLAIN)):
            chosen = pc.starts_with(rule, mark)
            texts = pc.utf8_slice_codeunits(rule.filter(chosen), len(mark))
            part = source.only(chosen)._replace(lines=texts)
            entries.add(_checked(part, "$", "is no public suffix"), kind)
            source, rule = source.only(pc.invert(chosen)), rule.filter(pc.invert(chosen))
    return entries.table()


def save(lists: CompiledLists, folder: Path) -> None:
    """Write compiled lists, to the disk itself, as .npy files, which `load` maps into memory."""
    arrays: dict[str, npt.NDArray[Any]] = {"lists": lists.lists, "has": lists.has}
    for part in ("table", "suffixes", "automaton"):
        for name, array in getattr(lists, part)._asdict().items():
            arrays[f"{part}_{name}"] = array
    for name, array in arrays.items():
        with (folder / f"{name}.npy").open("wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())
    about = [lists.names, lists.patterns, lists.min_soft_words]
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")


def load(folder: Path) -> CompiledLists:
    """Return compiled lists as `save` wrote them, mapped: workers of a node share the memory."""

    def read(name: str) -> Any:
        path = folder / f"{name}.npy"
        is_small = path.stat().st_size <= MAPPED_BYTES  # what is empty cannot be mapped
        return _frozen(np.asarray(np.load(path, mmap_mode=None if is_small else "r")))

    names, patterns, min_soft_words = json.loads((folder / "about.json").read_text("utf-8"))
    return CompiledLists(
        names=tuple(names),
        patterns=tuple((rule, pattern, owner) for rule, pattern, owner in patterns),
        min_soft_words=min_soft_words,
        lists=read("lists"),
        has=read("has"),
        table=_Table(*(read(f"table_{name}") for name in _Table._fields)),
        suffixes=_Table(*(read(f"suffixes_{name}") for name in _Table._fields)),
        automaton=_Automaton(*(read(f"automaton_{name}") for name in _Automaton._fields)),
    )


def _frozen(array: Any) -> Any:
    """Return an array that cannot be written: kernels are compiled for one kind of array."""
    array.flags.writeable = False
    return array


class _Source(NamedTuple):
    """Lines of one file, or entries of the configuration, with their numbers for messages."""

    where: str  # file, or setting
    is_file: bool
    lines: pa.Array
    written: pa.Array  # as they stand there
    numbers: Int64Array

    def only(self, mask: pa.Array) -> "_Source":
        """Return the lines where `mask` is true."""
        return self._replace(
            lines=self.lines.filter(mask),
            written=self.written.filter(mask),
            numbers=self.numbers[np.asarray(mask)],
        )

    def refuse_if(self, wrong: pa.Array | BoolArray, rule: str) -> None:
        """Raise for the first line where `wrong` is true."""
        places = np.flatnonzero(np.asarray(wrong))
        if not len(places):
            return
        entry, number = self.written[int(places[0])].as_py(), int(self.numbers[places[0]])
        if self.is_file:
            raise ArtifactInvalid(
                f"{self.where} line {number}: {entry!r} {rule}; mend or remove the line"
            )
        raise ConfigError(f"{self.where}[{number}] {entry!r} {rule}; mend or remove it")


class _Entries:
    """Entries of all lists as they are read."""

    def __init__(self) -> None:
        self.owner = 0  # list that is being read
        self.patterns: list[tuple[str, str, int]] = []
        self._blobs = [np.zeros(0, np.uint8)]
        self._lengths = [np.zeros(0, np.int64)]
        self._kinds = [np.zeros(0, np.int16)]
        self._owners = [np.zeros(0, np.int16)]

    def add(self, texts: pa.Array, kind: int) -> None:
        data, offsets = utf8_buffers(texts)
        self._blobs.append(data[offsets[0] : offsets[-1]])
        self._lengths.append(np.diff(offsets))
        self._kinds.append(np.full(len(texts), kind, np.int16))
        self._owners.append(np.full(len(texts), self.owner, np.int16))

    def owners(self) -> Int16Array:
        owners: Int16Array = _frozen(np.concatenate(self._owners))
        return owners

    def table(self) -> _Table:
        blob = _frozen(np.concatenate(self._blobs))
        offsets = _frozen(np.concatenate([[0], np.cumsum(np.concatenate(self._lengths))]))
        kinds = _frozen(np.concatenate(self._kinds))
        slots = np.zeros(1 << max(int(len(kinds) / MAX_LOAD), 1).bit_length(), np.uint64)
        _fill(slots, offsets, kinds, blob)
        return _Table(_frozen(slots), offsets, kinds, blob)


def _source(url_list: UrlList) -> _Source:
    if url_list.path:
        return _read(url_list.path)
    numbers = np.arange(len(url_list.entries), dtype=np.int64)
    lines = pa.array(url_list.entries, pa.large_string())
    return _Source(url_list.name, False, lines, lines, numbers)


def _read(path: str, comment: str = "#") -> _Source:
    """Read a text file, gzipped or not, as lines without blanks and comments."""
    try:
        data = Path(path).read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ArtifactInvalid(f"{path} cannot be read: {error}; restore the file") from None
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    offsets = np.concatenate([[0], ends + 1, [len(data)]]).astype(np.int64)
    lines = pa.Array.from_buffers(
        pa.large_binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    lines = pc.utf8_trim_whitespace(_as_text(path, lines))
    if comment == "#":
        lines = pc.utf8_rtrim_whitespace(pc.replace_substring_regex(lines, r"(?:^|\s)#.*$", ""))
    stays = pc.and_not(pc.not_equal(lines, ""), pc.starts_with(lines, comment))
    numbers = np.flatnonzero(np.asarray(stays)).astype(np.int64) + 1
    lines = lines.filter(stays)
    return _Source(path, True, lines, lines, numbers)


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


def _add_list(source: _Source, format: str, suffixes: _Table, entries: _Entries) -> None:
    if format == "domains":
        _add_hosts(source, DOMAIN, entries)
    elif format == "hosts":
        _add_hosts(source, HOST, entries)
    elif format == "registered_domains":
        _add_registered(source, suffixes, entries)
    elif format == "urls":
        entries.add(_checked_urls(source), SEGMENTS)
    elif format == "takedown":
        _add_takedown(source, entries)
    elif format == "words":
        entries.add(_joined(source), WORD)
    elif format == "soft_words":
        entries.add(_joined(source), SOFT)
    elif format == "subwords":
        joined = _joined(source)
        short = pc.less(pc.utf8_length(joined), MIN_SUBWORD_LETTERS)
        source.refuse_if(short, "is one letter, which is in every URL")
        entries.add(joined, SUBWORD)
    elif format == "expressions":
        _add_expressions(source, entries)
    elif format == "paths":
        _add_paths(source, entries)
    else:
        raise ValueError(format)


def _add_hosts(source: _Source, kind: int, entries: _Entries) -> None:
    entries.add(_checked_hosts(source, with_subdomains=kind != HOST), kind)


def _checked_hosts(source: _Source, with_subdomains: bool) -> pa.Array:
    lines = pc.replace_substring_regex(source.lines, HOSTS_FILE_ADDRESS, "")
    if with_subdomains:
        lines = pc.replace_substring_regex(lines, r"^(?:\*\.|\.)", "")
    return _checked(source._replace(lines=lines), "$", "is no host; write one such as example.com")


def _checked_urls(source: _Source) -> pa.Array:
    """Return URLs without `www.`, which squidGuard, for which UT1 is written, leaves out too."""
    texts = _checked(source, "(?:/|$)", "is no URL; write one such as example.com/path")
    return pc.replace_substring_regex(texts, r"^www\.", "")


def _checked(source: _Source, after_host: str, rule: str) -> pa.Array:
    """Return normal forms; raises for a line that is not a host and what may stand after it."""
    texts = normal_forms(source.lines)
    is_host = pc.match_substring_regex(texts, f"^(?:{HOST_FORM}){after_host}")
    has_space = pc.match_substring_regex(source.lines, r"\s")
    source.refuse_if(pc.or_(pc.invert(pc.fill_null(is_host, False)), has_space), rule)
    return texts


def _add_registered(source: _Source, suffixes: _Table, entries: _Entries) -> None:
    texts = registered_domains(_checked_hosts(source, with_subdomains=True), suffixes)
    source.refuse_if(pc.is_null(texts), "is a public suffix: it would block every site under it")
    entries.add(texts, REGISTERED)


def _add_takedown(source: _Source, entries: _Entries) -> None:
    """A line with a slash after the host is one page, or with `/*` at its end all below it."""
    rest = pc.replace_substring_regex(source.lines, r"^[A-Za-z][A-Za-z0-9+.\-]*://", "")
    is_url = pc.match_substring_regex(rest, r"[/?]")
    is_folder = pc.ends_with(source.lines, "/*")
    _add_hosts(source.only(pc.invert(is_url)), DOMAIN, entries)
    entries.add(_checked_urls(source.only(pc.and_not(is_url, is_folder))), EXACT)
    folders = source.only(is_folder)
    folders = folders._replace(lines=pc.utf8_slice_codeunits(folders.lines, 0, -1))
    entries.add(_checked_urls(folders), SEGMENTS)


def _joined(source: _Source) -> pa.Array:
    """Return words as they stand in URLs: only letters and digits; several words become one."""
    joined = pc.replace_substring_regex(pc.ascii_lower(source.lines), NOT_LETTERS, "")
    source.refuse_if(pc.equal(joined, ""), "has no letters or digits")
    return joined


def _add_paths(source: _Source, entries: _Entries) -> None:
    lower = pc.utf8_lower(source.lines)
    wrong = pc.or_(pc.equal(lower, ""), pc.not_equal(source.lines, lower))
    source.refuse_if(wrong, "is empty or not lower case, in which paths are compared")
    entries.patterns += [(PATH_RULE, text, entries.owner) for text in source.lines.to_pylist()]


def _add_expressions(source: _Source, entries: _Entries) -> None:
    for place, pattern in enumerate(source.lines.to_pylist()):
        try:
            pc.match_substring_regex(pa.array([""]), pattern, ignore_case=True)
        except pa.ArrowInvalid as error:
            wrong = np.arange(len(source.lines)) == place
            source.refuse_if(wrong, f"is no regular expression of RE2 ({error})")
        entries.patterns.append((EXPRESSION_RULE, pattern, entries.owner))


def _automaton(table: _Table) -> _Automaton:
    words = np.flatnonzero(table.kinds == SUBWORD)
    starts, ends = table.offsets[words], table.offsets[words + 1]
    is_used = np.zeros(256, np.bool_)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        is_used[table.blob[start:end]] = True
    classes = np.zeros(256, np.uint8)
    classes[is_used] = np.arange(1, int(is_used.sum()) + 1)
    num_states = 1 + int((ends - starts).sum())  # at most
    following = np.zeros((num_states, int(is_used.sum()) + 1), np.int32)
    found = np.full(num_states, -1, np.int32)
    size = _build_automaton(words, table.offsets, table.blob, classes, following, found)
    return _Automaton(*(_frozen(each) for each in (classes, following[:size], found[:size])))


# ---- kernels -----------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _normalise(
    data: UInt8Array,
    offsets: Int64Array,
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
            is_foreign[i] |= byte >= 128 or byte == 91 or byte == 37 or byte <= 32
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
        if byte == 63 and not in_query:
            if k + 1 == end or data[k + 1] == 35:
                break  # an empty query is none
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
    """Return where the authority starts: behind `scheme://` if there is one."""
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
    return start


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
    """Finish a hash, another one for every kind."""
    return fmix64(state ^ np.uint64(kind))


@njit(cache=True, nogil=True)
def _hash_back(data: UInt8Array, start: int, end: int) -> np.uint64:
    """Hash from the last byte to the first: domains share their ends."""
    state = FNV_OFFSET
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
        if kind == SUBWORD:  # the automaton has it
            continue
        if kind <= REGISTERED:
            state = _hash_back(blob, start, end)
        else:
            state = FNV_OFFSET
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
    """Return the entry of a kind that is data[start:end], -1 for none."""
    key = _key(state, kind)
    last = np.uint64(len(table.slots) - 1)
    place = key & last
    while table.slots[place] != 0:
        slot = table.slots[place]
        if slot >> np.uint64(32) == key >> np.uint64(32):
            entry = np.int64(slot & np.uint64(0xFFFFFFFF)) - 1
            first, length = table.offsets[entry], table.offsets[entry + 1] - table.offsets[entry]
            is_equal = table.kinds[entry] == kind and length == end - start
            k = 0
            while is_equal and k < length:
                is_equal = table.blob[first + k] == data[start + k]
                k += 1
            if is_equal:
                return int(entry)
        place = (place + np.uint64(1)) & last
    return -1


@njit(cache=True, nogil=True)
def _match(
    data: UInt8Array,
    offsets: Int64Array,
    host_ends: Int64Array,
    table: _Table,
    suffixes: _Table,
    automaton: _Automaton,
    min_soft_words: int,
    has: BoolArray,
    hits: Int64Array,
    soft_hits: Int64Array,
) -> None:
    """Write the first entry that blocks each URL, and the soft words that do."""
    for i in range(len(host_ends)):
        start, host_end, end = offsets[i], host_ends[i], offsets[i + 1]
        if host_end < 0:
            continue
        hit = _match_host(data, start, host_end, table, suffixes, has)
        if hit < 0 and (has[SEGMENTS] or has[EXACT]):
            hit = _match_url(data, start, host_end, end, table)
        if hit < 0 and has[WORD]:
            hit = _match_words(data, start, end, WORD, 1, table, soft_hits[i, :1])
            soft_hits[i, 0] = -1
        if hit < 0 and has[SOFT]:
            hit = _match_words(data, start, end, SOFT, min_soft_words, table, soft_hits[i])
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
    state = FNV_OFFSET
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
    state = FNV_OFFSET
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
def _match_url(data: UInt8Array, start: int, host_end: int, end: int, table: _Table) -> int:
    """Look up what the URL starts with, as whole segments, and all of it; without `www.`."""
    www = (119, 119, 119, 46)
    k = 0
    while k < 4 and start + k < host_end and data[start + k] == www[k]:
        k += 1
    if k == 4:
        start += 4
    state = FNV_OFFSET
    for k in range(start, end + 1):
        if k >= host_end and (k == end or data[k] == 47 or data[k] == 63):
            found = _find(state, SEGMENTS, data, start, k, table)
            if found >= 0:
                return found
        if k < end:
            state = _step(state, data[k])
    return _find(state, EXACT, data, start, end, table)


@njit(cache=True, nogil=True)
def _match_words(
    data: UInt8Array,
    start: int,
    end: int,
    kind: int,
    num_needed: int,
    table: _Table,
    found: Int64Array,
) -> int:
    """Write distinct words until there are enough; return the first of them, -1 for too few."""
    num_found = 0
    k = start
    while k < end:
        first = k
        state = FNV_OFFSET
        while k < end and _is_letter(data[k]):
            state = _step(state, data[k])
            k += 1
        if k > first:
            entry = _find(state, kind, data, first, k, table)
            is_new = entry >= 0
            for earlier in range(num_found):
                is_new &= found[earlier] != entry
            if is_new:
                found[num_found] = entry
                num_found += 1
                if num_found == num_needed:
                    return int(found[0])
        k += 1
    found[:num_found] = -1
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
