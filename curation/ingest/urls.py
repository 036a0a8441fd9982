"""Hosts of URLs, and rules that block a URL by domain, host or path."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import ConfigError

# scheme://[user@]host[:port][/path][?query][#fragment], RFC 3986; a backslash ends the host, as in
# browsers. RE2: linear time, whatever the URL.
URL_PATTERN = (
    r"(?s)^\s*[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#\\]*@)?"
    r"(?P<host>\[[^\]/?#\\]*\]|[^/?#\\:]*)(?::[^/?#\\]*)?(?P<path>[^?#]*)"
)
RULE_TYPE = pa.struct([("rule", pa.string()), ("value", pa.string())])


@dataclass(frozen=True, slots=True)
class UrlRules:
    """What blocks a URL.

    domains: a host or any parent of one ("example.com" blocks a.b.example.com), lower case.
    hosts: exactly this host, lower case.
    paths: a substring of the path, compared in lower case; the query is not part of it.
    """

    domains: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, entries in (("domains", self.domains), ("hosts", self.hosts)):
            for entry in entries:
                if not entry or entry != entry.lower().strip().strip(".") or "/" in entry:
                    raise ConfigError(
                        f"URL rule {entry!r} in {field} is no host; write it in lower case "
                        "without scheme, path or outer dots, such as example.com"
                    )
        for entry in self.paths:
            if not entry or entry != entry.lower():
                raise ConfigError(
                    f"URL rule {entry!r} in paths is empty or not lower case; paths are compared "
                    "in lower case: write it so, or remove it"
                )


def hosts(url: pa.Array) -> pa.Array:
    """Return the lower-case host of each URL, without user, port and final dot.

    Null for a null, and for a URL without scheme or host. Cost: one regular expression per URL
    in Arrow's C++, no Python object.
    """
    return _host(_split(url))


def blocked(url: pa.Array, rules: UrlRules) -> pa.StructArray:
    """Return struct{rule, value} per URL: the first rule that blocks it; null when none does.

    rule is url_domain, url_host or url_path, tried in this order; value is the entry that matched
    (of several domains the longest, of several paths the first of the rules).
    Cost: one set lookup per distinct host and label, one substring search per path rule.
    """
    parts = _split(url)
    rule: pa.Array = pa.nulls(len(url), pa.string())
    value: pa.Array = pa.nulls(len(url), pa.string())
    path = pc.utf8_lower(pc.struct_field(parts, "path"))
    for entry in reversed(rules.paths):  # the first rule is written last and stands
        hit = pc.fill_null(pc.match_substring(path, entry), False)
        rule, value = pc.if_else(hit, "url_path", rule), pc.if_else(hit, entry, value)
    distinct = _host(parts).dictionary_encode()
    verdicts = [_match(host, rules) for host in distinct.dictionary.to_pylist()]
    by_host = pa.array(verdicts, RULE_TYPE).take(distinct.indices)
    rule = pc.coalesce(pc.struct_field(by_host, "rule"), rule)
    value = pc.coalesce(pc.struct_field(by_host, "value"), value)
    return pa.StructArray.from_arrays(
        [rule, value], fields=list(RULE_TYPE), mask=pa.array(np.asarray(rule.is_null()))
    )


def _split(url: pa.Array) -> pa.Array:
    return pc.extract_regex(url, URL_PATTERN)


def _host(parts: pa.Array) -> pa.Array:
    host = pc.utf8_lower(pc.utf8_rtrim(pc.struct_field(parts, "host"), "."))
    return pc.if_else(pc.equal(host, ""), pa.scalar(None, host.type), host)


def _match(host: str, rules: UrlRules) -> dict[str, str] | None:
    labels = host.split(".")
    for first in range(len(labels)):
        domain = ".".join(labels[first:])
        if domain in rules.domains:
            return {"rule": "url_domain", "value": domain}
    return {"rule": "url_host", "value": host} if host in rules.hosts else None
