"""Rules: both sides of every bound, from texts and from numbers; and decisions in plain Python."""

import math
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.quality.rules import (
    DECISION_TYPE,
    PROFILES,
    Rule,
    decide,
    load_profile,
    load_rules,
)
from curation.quality.signals import KNOWN_SIGNALS, SIGNALS_SCHEMA, compile_bad_words, signals

ALL = load_rules(PROFILES, {})
BAD_WORDS = compile_bad_words({"en": ["darn"]})

# Rae et al. 2021, section A1.1 and table A1; Raffel et al. 2020, section 2.2 as FineWeb sets it;
# Penedo et al. 2024, section 3.6 and table 2
PUBLISHED = {
    ("num_words", "min"): 50,
    ("num_words", "max"): 100_000,
    ("mean_word_length", "min"): 3,
    ("mean_word_length", "max"): 10,
    ("hash_word_ratio", "max"): 0.1,
    ("ellipsis_word_ratio", "max"): 0.1,
    ("bullet_line_fraction", "max"): 0.9,
    ("ellipsis_line_fraction", "max"): 0.3,
    ("alphabetic_word_fraction", "min"): 0.8,
    ("num_stop_words", "min"): 2,
    ("duplicate_line_fraction", "max"): 0.3,
    ("duplicate_paragraph_fraction", "max"): 0.3,
    ("duplicate_line_char_fraction", "max"): 0.2,
    ("duplicate_paragraph_char_fraction", "max"): 0.2,
    ("top_2gram_char_fraction", "max"): 0.2,
    ("top_3gram_char_fraction", "max"): 0.18,
    ("top_4gram_char_fraction", "max"): 0.16,
    ("duplicate_5gram_char_fraction", "max"): 0.15,
    ("duplicate_6gram_char_fraction", "max"): 0.14,
    ("duplicate_7gram_char_fraction", "max"): 0.13,
    ("duplicate_8gram_char_fraction", "max"): 0.12,
    ("duplicate_9gram_char_fraction", "max"): 0.11,
    ("duplicate_10gram_char_fraction", "max"): 0.1,
    ("num_lorem_ipsum", "max"): 0,
    ("num_left_braces", "max"): 0,
    ("num_c4_sentences", "min"): 5,
    ("num_bad_words", "max"): 0,
    ("sentence_terminal_line_fraction", "min"): 0.12,
    ("short_line_fraction", "max"): 0.67,
    ("newline_word_ratio", "max"): 0.3,
}
FINEWEB_DUPLICATES = 0.01


def broken(text: str, lang: str) -> list[str]:
    langs = pa.array([lang])
    decision = decide(signals(pa.array([text]), langs, BAD_WORDS), langs, ALL)[0].as_py()
    return decision["rules"] if decision else []


def unique(num_words: int, length: int = 4, first: int = 0) -> list[str]:
    """Distinct words of `length` letters, none of them a stop word."""
    letters = map("".join, product("qxzjkv", repeat=min(length, 7)))
    return [word + "q" * (length - 7) for word in islice(letters, first, first + num_words)]


def characters(num_words: int, first: int = 0) -> list[str]:
    return [chr(0x5000 + first + i) for i in range(num_words)]


def repeated(phrase: list[str], times: int, total: int, more: Callable[..., list[str]]) -> str:
    """`total` words: the phrase so often, with words between that occur once."""
    filler = iter(more(total, first=500))
    text: list[str] = []
    for _ in range(times):
        text += [*phrase, next(filler)]
    text += islice(filler, total - len(text))
    return (" " if more is unique else "").join(text)


def lines(*groups: tuple[int, str], between: str = "\n") -> str:
    """So many lines of each pattern; {} becomes a word of its own."""
    number = iter(unique(1_000))
    return between.join(
        pattern.format(next(number)) for times, pattern in groups for _ in range(times)
    )


def lines_of_two(num_more: int) -> str:
    """Two equal lines of two characters, and so many that differ."""
    more = characters(2 * num_more)
    return "\n".join(["一二", "一二", *(more[i] + more[i + 1] for i in range(0, len(more), 2))])


def english_cases() -> list[tuple[str, str, str, str]]:
    words = " ".join(unique(50))
    cases = [
        ("gopher_min_words", words, " ".join(unique(49))),
        ("gopher_max_words", " ".join(unique(100_000, 7)), " ".join(unique(100_001, 7))),
        ("gopher_min_word_length", "abc def ghi", "abc def gh"),
        ("gopher_max_word_length", "abcdefghij ABCDEFGHIJ", "abcdefghij ABCDEFGHIJK"),
        ("gopher_max_hash_ratio", words + " #" * 5, words + " #" * 6),
        ("gopher_max_ellipsis_ratio", words + " ..." * 5, words + " \u2026" * 6),
        ("gopher_max_bullet_lines", lines((9, "- {}"), (1, "{}")), lines((10, "- {}"), (1, "{}"))),
        (
            "gopher_max_ellipsis_lines",
            lines((3, "{}..."), (7, "{}")),
            lines((3, "{}..."), (6, "{}")),
        ),
        ("gopher_min_alphabetic_words", "a b c d 1", "a b c d 1 2"),
        ("gopher_min_stop_words", "the and", "the the"),
        ("gopher_max_duplicate_line", lines((4, "a"), (6, "{}")), lines((4, "a"), (5, "{}"))),
        (
            "gopher_max_duplicate_paragraph",
            lines((4, "a"), (6, "{}"), between="\n\n"),
            lines((4, "a"), (5, "{}"), between="\n\n"),
        ),
        # lines of four characters: one of five repeats, then one of four
        (
            "gopher_max_duplicate_line_char",
            lines((2, "same"), (3, "{}")),
            lines((2, "same"), (2, "{}")),
        ),
        (
            "gopher_max_duplicate_paragraph_char",
            lines((2, "same"), (3, "{}"), between="\n\n"),
            lines((2, "same"), (2, "{}"), between="\n\n"),
        ),
        ("c4_max_lorem_ipsum", "lorem and ipsum", "Lorem Ipsum"),
        ("c4_max_left_braces", "a } b", "a { b"),
        ("c4_min_sentences", "I am here. " * 5, "I am here. " * 4),
        ("c4_max_bad_words", "darned", "Darn!"),
        (
            "fineweb_min_sentence_terminal_lines",
            lines((3, "{}."), (22, "{}")),  # 3 of 25 are 0.12
            lines((3, "{}."), (23, "{}")),
        ),
        (
            "fineweb_max_short_lines",
            lines((67, "a " * 14 + "a{:.1s}"), (33, "a " * 14 + "a{:.2s}")),  # 30 and 31 characters
            lines((68, "a " * 14 + "a{:.1s}"), (32, "a " * 14 + "a{:.2s}")),
        ),
        # four characters repeat, of 400, then of 396
        (
            "fineweb_max_duplicate_line_char",
            lines((2, "same"), (98, "{}")),
            lines((2, "same"), (97, "{}")),
        ),
        ("fineweb_max_newline_ratio", words + "\n" * 15, words + "\n" * 16),
    ]
    for n, times in ((2, 10), (3, 6), (4, 4)):  # 20, 18 and 16 words of 100, then of 99
        phrase = unique(n)
        at, beyond = (repeated(phrase, times, total, unique) for total in (100, 99))
        cases.append((f"gopher_max_top_{n}gram", at, beyond))
    for n, length in zip(range(5, 11), (15, 14, 13, 12, 11, 10), strict=True):
        phrase = unique(length)  # twice in 200 words, then in 199
        at, beyond = (repeated(phrase, 2, total, unique) for total in (200, 199))
        cases.append((f"gopher_max_duplicate_{n}gram", at, beyond))
    return [("en", *case) for case in cases]


def chinese_cases() -> list[tuple[str, str, str, str]]:
    words = "".join(characters(80))
    cases = [
        ("gopher_min_words_zh", words, "".join(characters(79))),
        ("gopher_max_words_zh", "字" * 160_000, "字" * 160_001),
        ("gopher_max_word_length_zh", "字 hello", "字 helloo"),
        ("gopher_max_hash_ratio_zh", words + "#" * 5, words + "#" * 6),
        (
            "gopher_max_ellipsis_ratio_zh",
            words + "\u2026\u2026字" * 5,
            words + "\u2026\u2026字" * 6,
        ),
        ("gopher_min_alphabetic_words_zh", "一二三四 1", "一二三四 1 2"),
        ("gopher_min_stop_words_zh", "的是", "的的"),
        ("c4_min_sentences_zh", "我在这里啊。" * 3, "我在这里啊。" * 2),
        (
            "fineweb_min_sentence_terminal_lines_zh",
            "\n".join(["字。"] * 53 + ["字"] * 447),  # 53 of 500 are 0.106
            "\n".join(["字。"] * 53 + ["字"] * 448),
        ),
        (
            "fineweb_max_duplicate_line_char_zh",
            lines_of_two(8),
            lines_of_two(7),
        ),
        (
            "fineweb_max_newline_ratio_zh",
            "".join(characters(100)) + "\n" * 11,
            "".join(characters(100)) + "\n" * 12,
        ),
    ]
    for n, times, total in ((3, 20, 300), (4, 19, 400)):
        at, beyond = (repeated(characters(n), times, t, characters) for t in (total, total - 1))
        cases.append((f"gopher_max_top_{n}gram_zh", at, beyond))
    for n, length in ((8, 15), (10, 14)):
        at, beyond = (repeated(characters(length), 2, t, characters) for t in (200, 199))
        cases.append((f"gopher_max_duplicate_{n}gram_zh", at, beyond))
    return [("zh", *case) for case in cases]


CASES = english_cases() + chinese_cases()


@pytest.mark.parametrize(
    ("lang", "name", "at", "beyond"), CASES, ids=[f"{case[1]}" for case in CASES]
)
def test_a_bound_is_allowed_and_nothing_beyond_it(
    lang: str, name: str, at: str, beyond: str
) -> None:
    assert name not in broken(at, lang)
    assert name in broken(beyond, lang)


def test_every_rule_has_a_text_on_both_sides() -> None:
    assert {case[1] for case in CASES} == {rule.name for rule in ALL}


def test_english_bounds_are_the_published_ones() -> None:
    english = [rule for rule in ALL if rule.languages is None or "en" in rule.languages]
    strict = [rule for rule in english if rule.name == "fineweb_max_duplicate_line_char"]
    assert [rule.value for rule in strict] == [FINEWEB_DUPLICATES]  # Gopher bounds the same signal
    assert {
        (rule.signal, rule.bound): rule.value for rule in english if rule not in strict
    } == PUBLISHED


def test_rules_are_well_formed() -> None:
    assert len({rule.name for rule in ALL}) == len(ALL)
    assert {rule.signal for rule in ALL} <= set(KNOWN_SIGNALS)
    assert all(rule.source for rule in ALL)
    for profile in PROFILES:
        own = [rule.name for rule in load_profile(profile) if rule.name.startswith(f"{profile}_")]
        others = {rule.name.partition("_")[0] for rule in load_profile(profile)}
        assert own or profile == "deepseek"
        assert others <= {*PROFILES}


NUMBERS = ("num_words", "mean_word_length", "num_stop_words")
RULES = st.lists(
    st.builds(
        Rule,
        name=st.uuids().map(str),
        signal=st.sampled_from(NUMBERS),
        bound=st.sampled_from(["min", "max"]),
        value=st.integers(0, 4).map(float),
        languages=st.sampled_from([None, ("en",), ("zh",), ("en", "zh")]),
        source=st.just("test"),
    ),
    max_size=6,
)
DOCUMENTS = st.lists(
    st.tuples(
        st.sampled_from(["en", "zh", "de", None]),
        st.none() | st.tuples(*[st.none() | st.integers(0, 4) for _ in NUMBERS]),
    ),
    max_size=6,
)


def as_signals(rows: list[dict[str, float | None] | None]) -> pa.StructArray:
    return pa.array(rows, pa.struct(list(SIGNALS_SCHEMA)))


@given(DOCUMENTS, RULES, st.integers(0, 3))
def test_decisions_equal_plain_python(
    documents: list[tuple[str | None, tuple[int | None, ...] | None]],
    rules: list[Rule],
    offset: int,
) -> None:
    rows = [None if row is None else dict(zip(NUMBERS, row, strict=True)) for _, row in documents]
    langs = [lang for lang, _ in documents]
    expected = []
    for lang, row in zip(langs, rows, strict=True):
        failed = []
        for rule in rules:
            value = None if row is None else row[rule.signal]
            applies = rule.languages is None or lang in rule.languages
            if applies and value is not None:
                below, above = value < rule.value, value > rule.value
                if below if rule.bound == "min" else above:
                    failed.append((rule.name, value, rule.value))
        expected.append(
            {
                "rules": [name for name, _, _ in failed],
                "rule": failed[0][0],
                "value": failed[0][1],
                "threshold": failed[0][2],
            }
            if failed
            else None
        )
    lang = pa.array(langs, pa.string())
    decision = decide(as_signals(rows)[offset:], lang[offset:], rules)
    assert decision.to_pylist() == expected[offset:]
    assert decision.type == DECISION_TYPE
    decision.validate(full=True)
    assert decision.field("rule").null_count == expected[offset:].count(None)


def test_record_batches_and_structs_decide_alike() -> None:
    lang = pa.array(["en", "zh", "de"])
    measured = signals(pa.array(["short", "短", "kurz"]), lang)
    batch = pa.RecordBatch.from_struct_array(measured)
    assert decide(batch, lang, ALL).equals(decide(measured, lang, ALL))


def test_languages_without_rules_are_judged_by_lines_alone() -> None:
    assert broken("kurz", "de") == []
    assert "gopher_max_duplicate_line" in broken("kurz\n" * 9, "de")


def test_profiles_keep_their_order_and_overrides_change_bounds_alone() -> None:
    rules = load_rules(["c4", "gopher"], {"gopher_min_words": 10, "c4_max_left_braces": math.inf})
    assert [rule.name for rule in rules] == [
        rule.name for profile in ("c4", "gopher") for rule in load_profile(profile)
    ]
    changed = {rule.name: rule.value for rule in rules if rule not in ALL}
    assert changed == {"gopher_min_words": 10, "c4_max_left_braces": math.inf}
    assert load_rules([], {}) == ()


@pytest.mark.parametrize("value", [np.inf, 1e300])
def test_an_infinite_bound_turns_a_rule_off(value: float) -> None:
    lang = pa.array(["en"])
    rules = load_rules(["c4"], {"c4_max_left_braces": value, "c4_min_sentences": 0})
    assert decide(signals(pa.array(["{" * 9]), lang), lang, rules).to_pylist() == [None]


@pytest.mark.parametrize(
    ("profiles", "overrides", "message"),
    [
        (["gofer"], {}, r"'gofer'; known are gopher, c4"),
        (["gopher"], {"gopher_min_word": 9}, r"gopher_min_word names.*mean 'gopher_min_words'"),
        (["gopher"], {"c4_min_sentences": 9}, r"no rule of the chosen profiles"),
        ([], {"c4_min_sentences": 9}, r"no profile is chosen"),
        (["gopher"], {"gopher_min_words": -1}, r"gopher_min_words = -1.*at least 0.*0 turns"),
        (["gopher"], {"gopher_min_words": math.inf}, r"finite"),
        (["gopher"], {"gopher_max_words": math.nan}, r"nan.*inf turns the rule off"),
        (["gopher"], {"gopher_max_bullet_lines": 90}, r"= 90.*between 0 and 1; inf"),
        (
            ["deepseek"],
            {"max_duplicate_line_char": 0.1},
            r"may be gopher_max_duplicate_line_char or fineweb_max_dup.*whole name",
        ),
        (["/nowhere/my.toml"], {}, r"/nowhere/my.toml.*No such file"),
    ],
)
def test_wrong_settings_are_named(
    profiles: list[str], overrides: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_rules(profiles, overrides)


def test_a_short_name_is_enough_where_it_is_clear() -> None:
    (first, *_) = load_rules(["gopher", "c4"], {"min_words": 80})
    assert (first.name, first.value) == ("gopher_min_words", 80)


def test_rules_of_several_profiles_count_once() -> None:
    assert load_rules(["deepseek", "gopher", "fineweb"], {}) == load_rules(["deepseek"], {})


def test_own_profile(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'include = ["c4_min_sentences", "fineweb"]\n'
        '[rules.mine_max_digits]\nsignal = "digit_char_fraction"\nmax = 0.3\n'
        'languages = ["en"]\nsource = "tables of numbers"\n'
    )
    rules = load_rules([str(path)], {"mine_max_digits": 0.5})
    assert [rule.name for rule in rules] == [
        "c4_min_sentences",
        *(rule.name for rule in load_profile("fineweb")),
        "mine_max_digits",
    ]
    assert rules[-1].value == 0.5
    lang = pa.array(["en", "en", "zh"])
    decision = decide(signals(pa.array(["a1", "a11", "字11"]), lang), lang, rules[-1:])
    assert [row and row["rule"] for row in decision.to_pylist()] == [None, "mine_max_digits", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rules.a]\nsignal = 'num_word'\nmin = 1\nsource = 's'", r"'num_word'.*mean 'num_words'"),
        ("[rules.a]\nmin = 1\nsource = 's'", r"bounds None, which is no signal"),
        ("[rules.a]\nsignal = 'c4_cuts'\nmin = 1\nsource = 's'", r"'c4_cuts', which is no signal"),
        ("[rules.a]\nsignal = 'num_words'\nsource = 's'", r"one of min and max, and has none"),
        (
            "[rules.a]\nsignal = 'num_words'\nmin = 1\nmax = 2\nsource = 's'",
            r"one of min and max, and has 2",
        ),
        ("[rules.a]\nsignal = 'num_words'\nmin = '1'\nsource = 's'", r"min must be a number"),
        ("[rules.a]\nsignal = 'num_words'\nmin = true\nsource = 's'", r"min must be a number"),
        ("[rules.a]\nsignal = 'num_words'\nmin = 1", r"needs a source"),
        (
            "[rules.a]\nsignal = 'num_words'\nmin = 1\nsource = 's'\nlanguages = 'en'",
            r"languages must be a list.*got 'en'",
        ),
        (
            "[rules.a]\nsignal = 'perplexity_percentile'\nmax = 101\nsource = 's'",
            r"101.*between 0 and 100",
        ),
        ("[rules.a]\nsignal = 'num_words'\nmim = 1\nsource = 's'", r"has 'mim'; a rule has"),
        ("[rules]\na = 1", r"rules.a must be a table"),
        ("rules = 1", r"rules are tables"),
        ("include = ['gofer']", r"includes 'gofer'.*mean 'gopher'"),
        ("include = ['c4_min_sentence']", r"mean 'c4_min_sentences'"),
        ("include = 'c4'", r"include is a list"),
        ("include = ['c4', 'c4_min_sentences']", r"'c4_min_sentences' twice"),
        ("profile = 1", r"has 'profile'; a profile has include and rules"),
        ("[rules", r"is not TOML"),
    ],
)
def test_wrong_profiles_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        load_rules([str(path)], {})
    assert str(path) in str(raised.value)


def test_two_different_rules_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[rules.c4_min_sentences]\nsignal = 'num_words'\nmin = 1\nsource = 's'\n")
    with pytest.raises(ConfigError, match=r"two different rules 'c4_min_sentences'.*mine.toml"):
        load_rules(["c4", str(path)], {})
