"""Domains: the part of the mixture that a document belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.errors import ConfigError

DEFAULT_DOMAIN = "web"


@dataclass(frozen=True)
class DomainRule:
    """Documents of some hosts, with their subdomains, and some languages; empty matches any.

    Raises ConfigError for a name that is empty and for a host that is not a bare host name.
    """

    name: str
    hosts: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a domain has an empty name; give it one, for example 'code'")
        for host in self.hosts:
            if not host.strip(".") or any(c in host for c in "/:*@") or host != host.strip():
                raise ConfigError(
                    f"domain {self.name!r} lists the host {host!r}, but a host is a bare name that "
                    "covers its subdomains; write it like 'example.org'"
                )


def label(
    host: pa.Array, lang: pa.Array, rules: Sequence[DomainRule], default: str = DEFAULT_DOMAIN
) -> pa.StringArray:
    """Return the domain of every document: the first rule that matches its host and language.

    Hosts are lower case, without port. A null host or language matches only rules that match any;
    what no rule matches, nulls included, is `default`, so every document is in one domain.
    Cost: one look at each distinct host and each distinct (host, language).
    """
    rules_of_host = _RulesOfHost(rules)
    hosts, host_codes = encoded(host)
    langs, lang_codes = encoded(lang)
    matching = [rules_of_host(name) for name in hosts]
    pairs, pair_of_row = np.unique(host_codes * len(langs) + lang_codes, return_inverse=True)
    labels = []
    for pair in pairs.tolist():
        candidates, language = matching[pair // len(langs)], langs[pair % len(langs)]
        labels.append(next((r.name for r in candidates if _speaks(r, language)), default))
    return pa.array(labels, pa.string()).take(pa.array(pair_of_row))


class _RulesOfHost:
    """The rules that match a host, in their order."""

    def __init__(self, rules: Sequence[DomainRule]) -> None:
        self.rules = rules
        self.any_host = {i for i, rule in enumerate(rules) if not rule.hosts}
        self.by_suffix: dict[str, set[int]] = {}
        for i, rule in enumerate(rules):
            for host in rule.hosts:
                self.by_suffix.setdefault(host.lower().strip("."), set()).add(i)

    def __call__(self, host: str | None) -> list[DomainRule]:
        found = set(self.any_host)
        labels = host.split(".") if host is not None else []
        for k in range(len(labels)):
            found |= self.by_suffix.get(".".join(labels[k:]), set())
        return [self.rules[i] for i in sorted(found)]


def _speaks(rule: DomainRule, language: str | None) -> bool:
    return not rule.languages or language in rule.languages


def encoded(
    array: pa.Array,
) -> tuple[list[str | None], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return the distinct values, null among them, and the number of each row's value."""
    encoded = array.dictionary_encode(null_encoding="encode")
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return encoded.dictionary.to_pylist(), codes
