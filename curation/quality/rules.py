"""Rules: stored signals in, a decision with its reasons out. No text is read here.

A rule bounds one signal from one side, for some languages. Rules of the same kind for two languages
are two rules, each with its own name, so that a bound can be replaced by name.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import ConfigError
from curation.quality.signals import SIGNALS_SCHEMA

CHARACTERS_PER_WORD = 1.6
"""Chinese characters that say what one English word says.

Measured on 55 pages of LibreOffice help that exist in both languages, in words of
`curation.ingest.text`: median 1.54, four fifths of them between 1.47 and 1.73.
"""

_GOPHER_QUALITY = "Rae et al. 2021, section A1.1, quality filtering"
_GOPHER_REPETITION = "Rae et al. 2021, table A1"
_C4 = "Raffel et al. 2020, section 2.2"
_SCALED = f"ours: the English bound at {CHARACTERS_PER_WORD} characters a word"

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


_EN, _ZH = ("en",), ("zh",)

# Bounds without a language count lines, and lines mean the same in every script.
PROFILES: Mapping[str, tuple[Rule, ...]] = {
    "gopher": (
        Rule("gopher_min_words", "num_words", "min", 50, _EN, _GOPHER_QUALITY),
        Rule("gopher_min_words_zh", "num_words", "min", 80, _ZH, _SCALED),
        Rule("gopher_max_words", "num_words", "max", 100_000, _EN, _GOPHER_QUALITY),
        Rule("gopher_max_words_zh", "num_words", "max", 160_000, _ZH, _SCALED),
        Rule("gopher_min_word_length", "mean_word_length", "min", 3, _EN, _GOPHER_QUALITY),
        Rule("gopher_max_word_length", "mean_word_length", "max", 10, _EN, _GOPHER_QUALITY),
        Rule(
            "gopher_max_word_length_zh",
            "mean_word_length",
            "max",
            3,
            _ZH,
            "ours: a Chinese character is 1 and an English word 5 long, so at 3 every second word "
            "is no longer Chinese",
        ),
        Rule("gopher_max_hash_ratio", "hash_word_ratio", "max", 0.1, _EN, _GOPHER_QUALITY),
        Rule("gopher_max_hash_ratio_zh", "hash_word_ratio", "max", 0.0625, _ZH, _SCALED),
        Rule("gopher_max_ellipsis_ratio", "ellipsis_word_ratio", "max", 0.1, _EN, _GOPHER_QUALITY),
        Rule("gopher_max_ellipsis_ratio_zh", "ellipsis_word_ratio", "max", 0.0625, _ZH, _SCALED),
        Rule("gopher_max_bullet_lines", "bullet_line_fraction", "max", 0.9, None, _GOPHER_QUALITY),
        Rule(
            "gopher_max_ellipsis_lines",
            "ellipsis_line_fraction",
            "max",
            0.3,
            None,
            _GOPHER_QUALITY,
        ),
        Rule(
            "gopher_min_alphabetic_words",
            "alphabetic_word_fraction",
            "min",
            0.8,
            _EN,
            _GOPHER_QUALITY,
        ),
        Rule(
            "gopher_min_alphabetic_words_zh",
            "alphabetic_word_fraction",
            "min",
            0.8,
            _ZH,
            "ours: as in English; more words carry the same numbers and symbols, so it is milder",
        ),
        Rule("gopher_min_stop_words", "num_stop_words", "min", 2, _EN, _GOPHER_QUALITY),
        Rule(
            "gopher_min_stop_words_zh",
            "num_stop_words",
            "min",
            2,
            _ZH,
            "ours: as in English; at least as many of the Chinese list occur on the same page",
        ),
        *(
            Rule(f"gopher_max_{signal}", f"{signal}_fraction", "max", value, None, source)
            for signal, value, source in (
                ("duplicate_line", 0.30, _GOPHER_REPETITION),
                ("duplicate_paragraph", 0.30, _GOPHER_REPETITION),
                ("duplicate_line_char", 0.20, _GOPHER_REPETITION),
                ("duplicate_paragraph_char", 0.20, _GOPHER_REPETITION),
            )
        ),
        *(
            Rule(
                f"gopher_max_top_{n}gram",
                f"top_{n}gram_char_fraction",
                "max",
                value,
                _EN,
                _GOPHER_REPETITION,
            )
            for n, value in ((2, 0.20), (3, 0.18), (4, 0.16))
        ),
        Rule(
            "gopher_max_top_3gram_zh",
            "top_3gram_char_fraction",
            "max",
            0.20,
            _ZH,
            "ours: three characters are the two words of the English 2-gram; two are one word",
        ),
        Rule(
            "gopher_max_top_4gram_zh",
            "top_4gram_char_fraction",
            "max",
            0.19,
            _ZH,
            "ours: four characters lie half-way between two words (0.20) and three (0.18)",
        ),
        *(
            Rule(
                f"gopher_max_duplicate_{n}gram",
                f"duplicate_{n}gram_char_fraction",
                "max",
                value,
                _EN,
                _GOPHER_REPETITION,
            )
            for n, value in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
        ),
        Rule(
            "gopher_max_duplicate_8gram_zh",
            "duplicate_8gram_char_fraction",
            "max",
            0.15,
            _ZH,
            "ours: eight characters are the five words of the English 5-gram; shorter runs repeat "
            "in any Chinese text",
        ),
        Rule(
            "gopher_max_duplicate_10gram_zh",
            "duplicate_10gram_char_fraction",
            "max",
            0.14,
            _ZH,
            "ours: ten characters are the six words of the English 6-gram",
        ),
    ),
    "c4": (
        Rule("c4_max_lorem_ipsum", "num_lorem_ipsum", "max", 0, None, _C4),
        Rule("c4_max_left_braces", "num_left_braces", "max", 0, None, _C4),
        Rule(
            "c4_min_sentences",
            "num_c4_sentences",
            "min",
            5,
            _EN,
            f"{_C4}, as FineWeb and datatrove set it",
        ),
        Rule(
            "c4_min_sentences_zh",
            "num_c4_sentences",
            "min",
            3,
            _ZH,
            "ours: the bound of C4's published code; a news flash is complete in three sentences",
        ),
    ),
}
"""Rule sets by name, in the order in which a first reason is looked for."""


def load_rules(profiles: Sequence[str], overrides: Mapping[str, float]) -> tuple[Rule, ...]:
    """Return the rules of some profiles, in order, with the bounds of `overrides` by rule name.

    A "max" of infinity, or a "min" of 0, turns a rule off. Raises ConfigError for an unknown
    profile or rule, naming the nearest known one, and for a bound that its signal cannot have.
    """
    rules: list[Rule] = []
    for profile in dict.fromkeys(profiles):
        if profile not in PROFILES:
            raise ConfigError(
                f"filter.profiles names {profile!r}; known are {', '.join(PROFILES)}; use those"
            )
        rules += PROFILES[profile]
    known = [rule.name for rule in rules]
    for name, value in overrides.items():
        if name not in known:
            raise ConfigError(_unknown_rule(name, known))
        at = known.index(name)
        _check_bound(rules[at], value)
        rules[at] = replace(rules[at], value=float(value))
    return tuple(rules)


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


def _unknown_rule(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = f"did you mean {near[0]!r}?" if near else "no profile is chosen: set filter.profiles"
    return f"filter.rules names {name!r}, which is no rule of the chosen profiles; {hint}"


def _check_bound(rule: Rule, value: float) -> None:
    is_share = rule.signal.endswith("_fraction")
    if rule.bound == "max" and value == np.inf:
        return
    if not 0 <= value < np.inf or (is_share and value > 1):
        allowed = "between 0 and 1" if is_share else "at least 0 and finite"
        off = "inf" if rule.bound == "max" else "0"
        raise ConfigError(
            f"filter.rules.{rule.name} = {value!r}, but {rule.signal} is {allowed}; the default is "
            f"{rule.value:g}, and {off} turns the rule off"
        )


def _numbers(signals: pa.RecordBatch | pa.StructArray, name: str) -> npt.NDArray[np.float64]:
    """Return a signal as float64, NaN where it or its document is null."""
    if SIGNALS_SCHEMA.get_field_index(name) < 0:
        raise KeyError(f"no signal {name!r}; a rule names one of SIGNALS_SCHEMA")
    if isinstance(signals, pa.StructArray):
        column = pc.struct_field(signals, name)
    else:
        column = signals.column(name)
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan))


def _is_in(lang: pa.Array, languages: tuple[str, ...] | None) -> npt.NDArray[np.bool_]:
    if languages is None:
        return np.ones(len(lang), np.bool_)
    return np.asarray(pc.is_in(lang, value_set=pa.array(languages, lang.type)))
