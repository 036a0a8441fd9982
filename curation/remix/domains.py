"""Domains: the part of the mixture that a document belongs to.

A rule may ask for hosts, parts of the URL and languages, for how much of the text is code or
formulas, and for the label of a domain classifier. All that it asks for must hold; the first rule
that holds names the document.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import ArtifactInvalid, ConfigError

DEFAULT_DOMAIN = "web"

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class DomainRule:
    """What documents of a domain are like; what is empty, or 0, asks for nothing.

    hosts: with their subdomains. urls: one of these is a part of the URL. min_code, min_math:
    lowest share of the text, 0..1. label, min_score: of the domain classifier. Raises ConfigError
    for a name that is empty, a host that is no bare host name, and a score without a label.
    """

    name: str
    hosts: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    min_code: float = 0.0
    min_math: float = 0.0
    label: str = ""
    min_score: float = 0.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a domain has an empty name; give it one, for example 'code'")
        for host in self.hosts:
            if not host.strip(".") or any(c in host for c in "/:*@") or host != host.strip():
                raise ConfigError(
                    f"domain {self.name!r} lists the host {host!r}, but a host is a bare name that "
                    "covers its subdomains; write it like 'example.org'"
                )
        if "" in self.urls:
            raise ConfigError(
                f"domain {self.name!r} lists an empty part of a URL, which every URL has; "
                "write one like '/wiki/', or drop it"
            )
        if self.min_score and not self.label:
            raise ConfigError(
                f"domain {self.name!r} has min_score without label; name the classifier's label"
            )


def label(
    documents: Mapping[str, pa.Array],
    rules: Sequence[DomainRule],
    default: str = DEFAULT_DOMAIN,
) -> pa.StringArray:
    """Return the domain of every document: the first rule that holds, else `default`.

    `documents` has the columns host (lower case, without port), url, lang, code_share, math_share,
    domain_label and domain_score. A null holds for no rule that asks for its column. Cost: one look
    at each distinct host and language, one search of each URL part in each URL.
    """
    num_rows = len(documents["host"])
    named = np.full(num_rows, len(rules))
    of_host = _rules_of_hosts(documents["host"], rules)
    for i in range(len(rules) - 1, -1, -1):
        named[_holds(documents, rules[i]) & of_host[i]] = i
    names = pa.array([rule.name for rule in rules] + [default], pa.string())
    return names.take(pa.array(named))


def _rules_of_hosts(host: pa.Array, rules: Sequence[DomainRule]) -> list[BoolArray]:
    """Return for every rule which documents have one of its hosts; all where it has none."""
    hosts, codes = encoded(host)
    by_suffix: dict[str, set[int]] = {}
    for i, rule in enumerate(rules):
        for name in rule.hosts:
            by_suffix.setdefault(name.lower().strip("."), set()).add(i)
    found = []
    for host_name in hosts:
        labels = host_name.split(".") if host_name is not None else []
        suffixes = (".".join(labels[k:]) for k in range(len(labels)))
        found.append(set().union(*(by_suffix.get(suffix, set()) for suffix in suffixes)))
    matches = (
        np.array([not rule.hosts or i in each for each in found], np.bool_)
        for i, rule in enumerate(rules)
    )
    return [match[codes] if len(found) else np.zeros(0, np.bool_) for match in matches]


def _holds(documents: Mapping[str, pa.Array], rule: DomainRule) -> BoolArray:
    """Return for which documents everything but the host holds."""
    holds = np.ones(len(documents["host"]), np.bool_)
    if rule.languages:
        holds &= np.asarray(pc.is_in(documents["lang"], pa.array(rule.languages)))
    if rule.urls:
        parts = [pc.match_substring(documents["url"], part).fill_null(False) for part in rule.urls]
        holds &= np.logical_or.reduce([np.asarray(part) for part in parts])
    for column, least in (("code_share", rule.min_code), ("math_share", rule.min_math)):
        if least:
            holds &= np.asarray(pc.greater_equal(documents[column], least).fill_null(False))
    if rule.label:
        holds &= np.asarray(pc.equal(documents["domain_label"], rule.label).fill_null(False))
        score = pc.greater_equal(documents["domain_score"], rule.min_score)
        holds &= np.asarray(score.fill_null(False))
    return holds


def read_hosts(octets: bytes, where: str) -> tuple[str, ...]:
    """Return the hosts of a file, one a line; `#` begins a comment. `where` is named in errors."""
    try:
        lines = octets.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ArtifactInvalid(f"{where} is not UTF-8 ({error}); convert it") from None
    hosts = tuple(host for line in lines if (host := line.partition("#")[0].strip()))
    if not hosts:
        raise ArtifactInvalid(f"{where} names no host; write one a line, or drop it")
    return hosts


def encoded(
    array: pa.Array,
) -> tuple[list[str | None], npt.NDArray[np.int64]]:
    """Return the distinct values, null among them, and the number of each row's value."""
    encoded = array.dictionary_encode(null_encoding="encode")
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return encoded.dictionary.to_pylist(), codes
