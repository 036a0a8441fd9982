"""Rules: stored signals in, a decision with its reasons out. No text is read here.

A rule bounds one signal from one side, for some languages. Rules of the same kind for two languages
are two rules, each with its own name, so that a bound can be replaced by name. A profile is a TOML
file of rules, ours in `profiles/` or a user's:

    include = ["gopher", "c4_min_sentences"]    # profiles, or single rules of ours; they come first

    [rules.mine_max_digits]
    signal = "digit_char_fraction"              # a name of KNOWN_SIGNALS
    max = 0.3                                   # or min; the bound itself is allowed
    languages = ["en"]                          # left out: all
    source = "why this bound"
    note = "who computes something else"        # may be left out
"""

import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import ConfigError
from curation.quality.signals import KNOWN_SIGNALS

PROFILES = ("gopher", "c4", "fineweb", "deepseek")
"""The profiles that ship, each a file in `profiles/`."""

CHARACTERS_PER_WORD = 1.6
"""Chinese characters that say what one English word says.

Measured on 55 pages of LibreOffice help that exist in both languages, in words of
`curation.ingest.text`: median 1.54, four fifths of them between 1.47 and 1.73.
"""

DECISION_TYPE = pa.struct(
    [
        ("rules", pa.list_(pa.string())),
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Rule:
    """A bound on a signal: below a "min", or above a "max", a document is rejected.

    `languages` of None means all. A null signal breaks no rule.
    """

    name: str
    signal: str
    bound: Literal["min", "max"]
    value: float
    languages: tuple[str, ...] | None
    source: str
    note: str = ""


def load_rules(profiles: Sequence[str], overrides: Mapping[str, float]) -> tuple[Rule, ...]:
    """Return the rules of some profiles, in order, with the bounds of `overrides` by rule name.

    A profile is a name of PROFILES or the path of a TOML file. A rule that two of them hold counts
    once, where it comes first. An override may leave out the name of the profile where that is
    clear: `min_words` is `gopher_min_words`. A "max" of infinity, or a "min" of 0, turns a rule
    off. Raises ConfigError for an unknown profile, rule or signal, naming the nearest known one,
    for a file that is no profile, and for a bound that its signal cannot have.
    """
    found: dict[str, Rule] = {}
    for profile in profiles:
        for rule in load_profile(profile):
            if found.setdefault(rule.name, rule) != rule:
                raise ConfigError(
                    f"filter.profiles has two different rules {rule.name!r}; give the one of "
                    f"{profile} another name"
                )
    rules = list(found.values())
    known = [rule.name for rule in rules]
    for name, value in overrides.items():
        at = known.index(_full_name(name, known))
        _check_bound(rules[at], value, f"quality.{name}")
        rules[at] = replace(rules[at], value=float(value))
    return tuple(rules)


def load_profile(profile: str) -> tuple[Rule, ...]:
    """Return the rules of one profile, by its name or path. Raises ConfigError as `load_rules`."""
    if not profile.endswith(".toml"):
        if profile not in PROFILES:
            raise ConfigError(
                f"filter.profiles names {profile!r}; known are {', '.join(PROFILES)}, and paths of "
                "a profile.toml"
            )
        return _shipped(profile)
    try:
        return _parse(Path(profile).read_text(encoding="utf-8"), profile)
    except OSError as error:
        raise ConfigError(
            f"filter.profiles names {profile}, which cannot be read: {error.strerror}"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{profile} is not TOML: {error}; save it as UTF-8") from None


def settings_of(rules: Sequence[Rule]) -> dict[str, Any]:
    """Return what of rules decides rows, as plain values that a run record can compare."""
    names = json.dumps([rule.name for rule in rules])
    bounds = {
        f"rule {rule.name}": f"{rule.signal} {rule.bound} {rule.value!r} "
        f"{','.join(rule.languages or ['all'])}"
        for rule in rules
    }
    return {"order of rules": hashlib.sha256(names.encode()).hexdigest()[:12], **bounds}


def rules_of(settings: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Return the rules that `settings_of` described, by name; sources and the order are lost."""
    found = []
    for key, described in settings.items():
        if key.startswith("rule "):
            signal, bound, value, languages = described.split(" ")
            among = None if languages == "all" else tuple(languages.split(","))
            source = "a run record"
            name = key.removeprefix("rule ")
            found.append(Rule(name, signal, bound, float(value), among, source))
    return tuple(sorted(found, key=lambda rule: rule.name))


@lru_cache
def _shipped(profile: str) -> tuple[Rule, ...]:
    file = resources.files("curation.quality").joinpath(f"profiles/{profile}.toml")
    return _parse(file.read_text(encoding="utf-8"), f"profile {profile}")


def _parse(text: str, where: str) -> tuple[Rule, ...]:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}; mend that line") from None
    unknown = set(tree) - {"include", "rules"}
    if unknown:
        raise ConfigError(f"{where} has {sorted(unknown)[0]!r}; a profile has include and rules")
    included = tree.get("include", [])
    if not (isinstance(included, list) and all(isinstance(each, str) for each in included)):
        raise ConfigError(f"{where}: include is a list of names, got {included!r}")
    rules: list[Rule] = []
    for name in included:
        rules += _included(name, where)
    own = tree.get("rules", {})
    if not isinstance(own, dict):
        raise ConfigError(f"{where}: rules are tables [rules.NAME], got {own!r}")
    rules += [_rule(name, table, where) for name, table in own.items()]
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where} has the rule {name!r} twice; rename one of them")
    return tuple(rules)


def _included(name: str, where: str) -> tuple[Rule, ...]:
    if name in PROFILES:
        return load_profile(name)
    profile = name.partition("_")[0]
    listed = load_profile(profile) if profile in PROFILES else ()
    found = tuple(rule for rule in listed if rule.name == name)
    if not found:
        known = [*PROFILES, *(rule.name for rule in listed)]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise ConfigError(
            f"{where} includes {name!r}, which is neither a profile nor a rule of ours; did you "
            f"mean {near[0]!r}?"
        )
    return found


def _rule(name: str, table: Any, where: str) -> Rule:
    place = f"{where}: rules.{name}"
    if not isinstance(table, dict):
        raise ConfigError(f"{place} must be a table, got {table!r}")
    known = ("signal", "min", "max", "languages", "source", "note")
    for key in table:
        if key not in known:
            raise ConfigError(f"{place} has {key!r}; a rule has {', '.join(known)}")
    signal = table.get("signal")
    if not isinstance(signal, str) or signal not in KNOWN_SIGNALS:
        near = difflib.get_close_matches(str(signal), KNOWN_SIGNALS, n=1, cutoff=0.0)
        raise ConfigError(
            f"{place} bounds {signal!r}, which is no signal; did you mean {near[0]!r}? "
            "curation.quality.signals lists them"
        )
    bounds = [key for key in ("min", "max") if key in table]
    if len(bounds) != 1:
        raise ConfigError(f"{place} needs one of min and max, and has {len(bounds) or 'none'}")
    value = table[bounds[0]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{place}.{bounds[0]} must be a number, got {value!r}")
    languages = table.get("languages")
    if languages is not None and not (
        isinstance(languages, list) and languages and all(isinstance(x, str) for x in languages)
    ):
        raise ConfigError(
            f'{place}.languages must be a list of codes such as ["en"], got {languages!r}; leave '
            "it out for all"
        )
    source, note = table.get("source"), table.get("note", "")
    if not isinstance(source, str) or not source or not isinstance(note, str):
        raise ConfigError(f"{place} needs a source: who found this bound, or why it is yours")
    rule = Rule(
        name,
        signal,
        "min" if bounds == ["min"] else "max",
        float(value),
        None if languages is None else tuple(languages),
        " ".join(source.split()),
        " ".join(note.split()),
    )
    _check_bound(rule, value, f"{place}.{rule.bound}")
    return rule


def decide(
    signals: pa.RecordBatch | pa.StructArray, lang: pa.Array, rules: Sequence[Rule]
) -> pa.StructArray:
    """Return for every document the rules it breaks, as DECISION_TYPE; null where it is kept.

    `rules` are the names of all rules broken, in the order given; `rule`, `value` and `threshold`
    tell the first: its name, the document's signal and the bound. A bound itself is allowed.
    Cost: O(documents x rules), vectorised.
    """
    num_documents = len(lang)
    languages = lang.combine_chunks() if isinstance(lang, pa.ChunkedArray) else lang
    broken = np.zeros((len(rules), num_documents), np.bool_)
    values = {rule.signal: _numbers(signals, rule.signal) for rule in rules}
    for row, rule in enumerate(rules):
        value = values[rule.signal]  # NaN, which no comparison finds, where null
        outside = value < rule.value if rule.bound == "min" else value > rule.value
        broken[row] = outside & _is_in(languages, rule.languages)
    rejected = broken.any(axis=0)
    documents, which = np.nonzero(broken.T)
    ends = np.concatenate([[0], np.cumsum(np.bincount(documents, minlength=num_documents))])
    names = pa.array([rule.name for rule in rules], pa.string())
    first = broken.argmax(axis=0) if rules else np.zeros(num_documents, np.int64)
    value = np.zeros(num_documents)
    for row, rule in enumerate(rules):
        value = np.where(rejected & (first == row), values[rule.signal], value)
    bounds = np.array([rule.value for rule in rules] or [0], np.float64)
    kept = ~rejected
    return pa.StructArray.from_arrays(
        [
            pa.ListArray.from_arrays(
                pa.array(ends.astype(np.int32)), names.take(pa.array(which)), mask=pa.array(kept)
            ),
            names.take(pa.array(first, mask=kept)),
            pa.array(value, mask=kept),
            pa.array(bounds[first], mask=kept),
        ],
        fields=list(DECISION_TYPE),
        mask=pa.array(kept),
    )


def _full_name(name: str, known: Sequence[str]) -> str:
    """Return the rule that a name means; raises ConfigError where that is none or not clear."""
    if name in known:
        return name
    found = [each for each in known if each.partition("_")[2] == name]
    if len(found) > 1:
        raise ConfigError(f"quality.{name} may be {' or '.join(found)}; write the whole name")
    if found:
        return found[0]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"did you mean {near[0]!r}?" if near else "no profile is chosen: set filter.profiles"
    raise ConfigError(f"quality.{name} names no rule of the chosen profiles; {hint}")


def _check_bound(rule: Rule, value: float, where: str) -> None:
    is_share = rule.signal.endswith("_fraction") or rule.signal == "quality_score"
    is_percentile = rule.signal.endswith("_percentile")
    if rule.bound == "max" and value == math.inf:
        return
    high = 1 if is_share else 100 if is_percentile else math.inf
    if not 0 <= value <= high or value == math.inf:
        allowed = "at least 0 and finite" if high == math.inf else f"between 0 and {high}"
        off = "inf" if rule.bound == "max" else "0"
        raise ConfigError(
            f"{where} = {value!r}, but {rule.signal} is {allowed}; {off} turns the rule off"
        )


def _numbers(signals: pa.RecordBatch | pa.StructArray, name: str) -> npt.NDArray[np.float64]:
    """Return a signal as float64, NaN where it or its document is null."""
    if name not in KNOWN_SIGNALS:
        raise KeyError(f"no signal {name!r}; a rule names one of KNOWN_SIGNALS")
    if isinstance(signals, pa.StructArray):
        column = pc.struct_field(signals, name)
    else:
        column = signals.column(name)
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan))


def _is_in(lang: pa.Array, languages: tuple[str, ...] | None) -> npt.NDArray[np.bool_]:
    if languages is None:
        return np.ones(len(lang), np.bool_)
    return np.asarray(pc.is_in(lang, value_set=pa.array(languages, lang.type)))
