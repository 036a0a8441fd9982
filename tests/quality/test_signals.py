"""Signals against a plain Python reading of their definitions, and texts counted by hand."""

import math
import re
import unicodedata
from collections import Counter
from itertools import groupby

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ingest.text import KIND, MARK, SEPARATOR, SINGLE, words
from curation.quality.edits import apply_edits
from curation.quality.signals import (
    NO_BAD_WORDS,
    SIGNALS,
    SIGNALS_SCHEMA,
    BadWords,
    compile_bad_words,
    count_words,
    signals,
)

STOP_WORDS = {
    "en": {"the", "be", "to", "of", "and", "that", "have", "with"},
    "zh": set("的是在不了有和以为為对對这這"),
}
CUT_TERMS = (
    *("javascript", "terms of use", "privacy policy", "cookie policy"),
    *("uses cookies", "use of cookies", "use cookies"),
    *("使用条款", "使用條款", "服务条款", "服務條款"),
    *("隐私政策", "隱私政策", "隐私权政策", "隱私權政策"),
)
BULLETS = tuple("-*\u2022\u2023\u2043\u25aa\u25ab\u25a0\u25a1\u25cf\u25cb\u25e6\u00b7\u2219")
TERMINALS = tuple(".?!\"'\u3002\uff1f\uff01\uff61\u2019\u201d\u300d\u300f")
ELLIPSES = r"\.{3,}|\u3002{3,}|\u2026+"
SENTENCE_ENDS = (
    "[\u3002\uff1f\uff01\uff61]|"
    "[.?!][.?!\"')\\]}\u2019\u201d\u300d\u300f\u300b\u3011\uff09\u00bb]*(?=\\s)"
)

# Unicode's Sentence_Terminal, of it what the fragments hold
SENTENCE_TERMINALS = (".", "!", "?", "\u3002", "\uff01", "\uff1f", "\u06d4", "\u0964")
BAD_WORDS = {
    "en": ["darn", "Holy Cow", "holy cow pat", "blast it", "\U0001f595"],
    "zh": ["性", "坏话", "笨蛋"],  # the first is on C4's list of exceptions
}

FRAGMENTS = st.sampled_from(
    [
        *("darn", "holy", "cow", "HOLY COW", "holy cow pat", "blast", "it"),
        *("坏", "话", "坏话", "性"),
        *("NASA", "A", "Éa", "ÉCOLE", "R2D2", "Ⅷ", "ǅ", "\u06d4", "।", "\U0001f595", "\u2028"),
        *("the", "The", "cat", "sat", "naïve", "cafe\u0301", "x86", "42", "\u0663", "JavaScript"),
        *("在", "有", "和", "的", "文", "字", "ひ", "ไ", "한국", "слово", "\U00020000", "隐私政策"),
        *("use cookies", "lorem ipsum", "Lorem Ipsum", "terms of use"),
        *(" ", " ", " ", " ", "\t", "\u3000", "\u00a0", "\n", "\n", "\n\n", "\r\n", "\x1c"),
        *(".", ". ", "...", "…", "……", "。", "。。。", "\uff01", "? ", '."', "! ", "」", "”", "、"),
        *("#", "{", "- ", "* ", "•", "->", "|", "\u200b", "\ufeff", "\ufffd", "\ue000"),
        "the cat sat on the mat and that was that ",
        "文字在这里有和的以不了是",
        'he said "stop." then (he left.) and so on? ',
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=60).map("".join) | st.text(max_size=60)
LANGS = st.sampled_from(["en", "zh", "de", None])


def oracle(text: str, lang: str | None) -> dict[str, object]:
    """The definitions, one expression each, in quadratic plain Python."""
    raw = text.split("\n")
    spans, start = [], 0
    for line in raw:
        size = len(line.encode())
        spans.append((start, min(start + size + 1, len(text.encode()))))
        start += size + 1
    stripped = [line.strip() for line in raw]
    lines = [line for line in stripped if line]
    plain = ["".join(c for c in line if KIND[ord(c)] != MARK).strip() for line in lines]
    text_words = [word for line in lines for word in words(line)]
    word_chars = sum(map(len, text_words))
    symbols = [
        piece
        for line in plain
        for piece in line.split()
        if all(KIND[ord(c)] == SEPARATOR for c in piece)
    ]
    in_ellipsis = [bool(re.search(f"({ELLIPSES})$", line)) for line in plain]
    upper = [c for word in cased(text) for c in word if is_upper(c)]
    counted = Counter(text_words)
    stop_words = [word for word in text_words if word in STOP_WORDS.get(lang or "", ())]
    paragraphs = [tuple(group) for filled, group in groupby(stripped, key=bool) if filled]
    line_chars = sum(map(len, lines))

    def ratio(part: float, whole: float) -> float:
        return part / whole if whole else 0.0

    def repeats(items: list) -> list:
        return [item for i, item in enumerate(items) if item in items[:i]]

    repeated_lines, repeated_paragraphs = repeats(lines), repeats(paragraphs)
    cut = [bool(line) and is_cut(line, lang) for line in stripped]
    cut_spans: list[list[int]] = []
    for i, span in enumerate(spans):
        after_cut = bool(cut_spans) and cut_spans[-1][1] == span[0]
        if cut[i] or (not stripped[i] and after_cut and span[0] < span[1]):
            if after_cut:
                cut_spans[-1][1] = span[1]
            else:
                cut_spans.append(list(span))
    kept = [line for line, is_out in zip(stripped, cut, strict=True) if line and not is_out]
    expected = {
        "num_chars": len(text),
        "num_lines": len(lines),
        "num_paragraphs": len(paragraphs),
        "num_sentences": sum(map(num_sentences, stripped)),
        "num_words": len(text_words),
        "mean_word_length": ratio(word_chars, len(text_words)),
        "hash_word_ratio": ratio(text.count("#"), len(text_words)),
        "ellipsis_word_ratio": ratio(
            sum(len(re.findall(ELLIPSES, line)) for line in plain), len(text_words)
        ),
        "bullet_line_fraction": ratio(sum(line[:1] in BULLETS for line in plain), len(lines)),
        "ellipsis_line_fraction": ratio(sum(in_ellipsis), len(lines)),
        "alphabetic_word_fraction": ratio(
            sum(not set(word) <= set("0123456789") for word in text_words),
            len(text_words) + len(symbols),
        ),
        "num_stop_words": len(STOP_WORDS[lang] & set(text_words)) if lang in STOP_WORDS else None,
        "stop_word_fraction": (
            ratio(len(stop_words), len(text_words)) if lang in STOP_WORDS else None
        ),
        "unique_word_fraction": ratio(len(counted), len(text_words)),
        "word_entropy": pytest.approx(
            -sum(n / len(text_words) * math.log(n / len(text_words)) for n in counted.values()),
            abs=2e-6,
        ),
        "all_caps_word_fraction": ratio(
            sum(
                any(map(is_upper, word))
                and all(is_upper(c) or words(c)[0] in "0123456789" for c in word)
                for word in cased(text)
            ),
            len(text_words),
        ),
        "upper_case_char_fraction": ratio(len(upper), word_chars),
        "digit_char_fraction": ratio(
            sum(c in "0123456789" for word in text_words for c in word), word_chars
        ),
        "short_line_fraction": ratio(sum(len(line) <= 30 for line in lines), len(lines)),
        "newline_word_ratio": ratio(text.count("\n"), len(text_words)),
        "sentence_terminal_line_fraction": ratio(
            sum(line[-1:] in SENTENCE_TERMINALS for line in plain if line), len(lines)
        ),
        "num_javascript_lines": sum("javascript" in ascii_lower(line) for line in lines),
        "num_bad_words": num_bad_words(text_words, lang),
        "duplicate_line_fraction": ratio(len(repeated_lines), len(lines)),
        "duplicate_line_char_fraction": ratio(sum(map(len, repeated_lines)), line_chars),
        "duplicate_paragraph_fraction": ratio(len(repeated_paragraphs), len(paragraphs)),
        "duplicate_paragraph_char_fraction": ratio(
            sum(len(line) for paragraph in repeated_paragraphs for line in paragraph), line_chars
        ),
        "terminal_line_fraction": ratio(
            sum(
                line[-1:] in TERMINALS and not dots
                for line, dots in zip(plain, in_ellipsis, strict=True)
            ),
            len(lines),
        ),
        "num_left_braces": text.count("{"),
        "num_lorem_ipsum": sum(line.encode().lower().count(b"lorem ipsum") for line in lines),
        "num_c4_lines_cut": sum(cut),
        "num_c4_bytes_cut": sum(end - start for start, end in cut_spans),
        "num_c4_chars_cut": sum(len(text.encode()[start:end].decode()) for start, end in cut_spans),
        "num_c4_sentences": sum(map(num_sentences, kept)),
        "c4_cuts": [{"start": start, "end": end} for start, end in cut_spans],
    }
    for n in (2, 3, 4):
        expected[f"top_{n}gram_char_fraction"] = ratio(top_chars(text_words, n), word_chars)
    for n in (5, 6, 7, 8, 9, 10):
        expected[f"duplicate_{n}gram_char_fraction"] = ratio(
            duplicate_chars(text_words, n), word_chars
        )
    return expected


def cased(text: str) -> list[str]:
    """The words of a text as they are written, without marks."""
    runs = "".join(
        {MARK: "", SEPARATOR: " ", SINGLE: f" {c} "}.get(int(KIND[ord(c)]), c) for c in text
    )
    return runs.split(" ")


def is_upper(character: str) -> bool:
    return unicodedata.ucd_3_2_0.category(character) in ("Lu", "Lt")


def ascii_lower(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


def num_bad_words(text_words: list[str], lang: str | None) -> int | None:
    """Places where a term begins, term by term, word by word."""
    if lang not in BAD_WORDS:
        return None
    terms = [words(term) for term in BAD_WORDS[lang] if term != "性"]
    return sum(
        any(term and text_words[i : i + len(term)] == term for term in terms)
        for i in range(len(text_words))
    )


def is_cut(line: str, lang: str | None) -> bool:
    found = any(term.encode() in line.encode().lower() for term in CUT_TERMS)
    return found or len(words(line)) < (5 if lang == "zh" else 3)


def num_sentences(line: str) -> int:
    plain = "".join(c for c in line if KIND[ord(c)] != MARK)
    return sum(bool(words(piece)) for piece in re.split(SENTENCE_ENDS, plain))


def top_chars(text_words: list[str], n: int) -> int:
    ngrams = [tuple(text_words[i : i + n]) for i in range(len(text_words) - n + 1)]
    counted = Counter(ngrams)
    most = max(counted.values(), default=0)
    if most < 2:
        return 0
    return max(
        covered_chars(text_words, n, [i for i, ngram in enumerate(ngrams) if ngram == top])
        for top, count in counted.items()
        if count == most
    )


def duplicate_chars(text_words: list[str], n: int) -> int:
    ngrams = [tuple(text_words[i : i + n]) for i in range(len(text_words) - n + 1)]
    counted = Counter(ngrams)
    return covered_chars(text_words, n, [i for i, g in enumerate(ngrams) if counted[g] > 1])


def covered_chars(text_words: list[str], n: int, places: list[int]) -> int:
    return sum(len(text_words[i]) for i in {place + k for place in places for k in range(n)})


def measure(
    text: str, lang: str | None = "en", bad_words: BadWords = NO_BAD_WORDS
) -> dict[str, object]:
    return signals(pa.array([text]), pa.array([lang], pa.string()), bad_words)[0].as_py()


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(TEXTS, LANGS), min_size=1, max_size=4))
def test_signals_equal_plain_python(rows: list[tuple[str, str | None]]) -> None:
    texts, langs = zip(*rows, strict=True)
    bad_words = compile_bad_words(BAD_WORDS)
    measured = signals(pa.array(texts), pa.array(langs, pa.string()), bad_words).to_pylist()
    assert measured == [
        {name: oracle(text, lang)[name] for name in SIGNALS_SCHEMA.names} for text, lang in rows
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.none() | TEXTS, LANGS), max_size=6), st.integers(0, 6), st.booleans())
def test_signals_do_not_depend_on_the_batch(
    rows: list[tuple[str | None, str | None]], split: int, large: bool
) -> None:
    text = pa.array([row[0] for row in rows], pa.large_string() if large else pa.string())
    lang = pa.array([row[1] for row in rows], pa.string())
    bad_words = compile_bad_words(BAD_WORDS)
    whole = signals(text, lang, bad_words)
    parts = [
        signals(text[:split], lang[:split], bad_words),
        signals(text[split:], lang[split:], bad_words),
    ]
    assert whole.to_pylist() == [row for part in parts for row in part.to_pylist()]
    assert [row is None for row in whole.to_pylist()] == [row[0] is None for row in rows]
    assert whole.type == pa.struct(list(SIGNALS_SCHEMA))
    whole.validate(full=True)


@settings(max_examples=100, deadline=None)
@given(TEXTS, LANGS)
def test_shares_are_shares(text: str, lang: str | None) -> None:
    for name, value in measure(text, lang).items():
        if name.endswith("_fraction"):
            assert value is None or 0 <= value <= 1, name


@settings(max_examples=100, deadline=None)
@given(TEXTS, LANGS)
def test_cut_text_has_nothing_left_to_cut(text: str, lang: str | None) -> None:
    before = measure(text, lang)
    edits = [[{**cut, "replacement": ""} for cut in before["c4_cuts"]]]
    edits_type = pa.list_(
        pa.struct([("start", pa.int32()), ("end", pa.int32()), ("replacement", pa.string())])
    )
    cut_text = apply_edits(pa.array([text]), pa.array(edits, edits_type))[0].as_py()
    after = measure(cut_text, lang)
    assert len(cut_text.encode()) + before["num_c4_bytes_cut"] == len(text.encode())
    assert len(cut_text) + before["num_c4_chars_cut"] == len(text)
    assert (after["num_c4_lines_cut"], after["c4_cuts"]) == (0, [])
    assert after["num_c4_sentences"] == before["num_c4_sentences"]
    assert after["num_lines"] == before["num_lines"] - before["num_c4_lines_cut"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | TEXTS, max_size=5))
def test_count_words_equals_words(texts: list[str | None]) -> None:
    array = pa.array([None, *texts], pa.string())[1:]
    assert count_words(array).to_pylist() == [
        None if text is None else len(words(text)) for text in texts
    ]


def test_every_signal_says_what_it_is() -> None:
    assert [signal.name for signal in SIGNALS] == SIGNALS_SCHEMA.names
    assert all(signal.doc and signal.source for signal in SIGNALS)


@pytest.mark.parametrize("text", ["", " \n\n\t", "...", "\u200b", "-", "a"])
def test_small_texts_divide_by_nothing(text: str) -> None:
    expected = oracle(text, "en")
    measured = measure(text, "en", compile_bad_words(BAD_WORDS))
    assert measured == {name: expected[name] for name in SIGNALS_SCHEMA.names}


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        # n, a, ï, v, e are five characters, of which one is two bytes
        ("naïve", "en", {"mean_word_length": 5.0, "num_words": 1}),
        ("The THE the", "en", {"num_stop_words": 1, "alphabetic_word_fraction": 1.0}),
        ("a -> b 42", "en", {"alphabetic_word_fraction": 0.5}),  # two of a, ->, b, 42
        ("中文 and 字", "zh", {"num_words": 4, "mean_word_length": 1.5}),
        ("他说……好", "zh", {"ellipsis_word_ratio": 1 / 3}),  # one ellipsis, three words
        ("Intro ........ 5", "en", {"ellipsis_word_ratio": 0.5}),
        ("Wait...\nGo on.\n\nNo end\n", "en", {"ellipsis_line_fraction": 1 / 3}),
        ("Wait...\nGo on.\n\nNo end\n", "en", {"terminal_line_fraction": 1 / 3}),
        ("他说\uff1a「好。」\n标题", "zh", {"terminal_line_fraction": 0.5}),
        ("- a\n\n * b\n• c\nd", "en", {"bullet_line_fraction": 0.75}),
        # one of two lines repeats the other, white space aside
        ("ab cd\n\n  ab cd \n", "en", {"duplicate_line_fraction": 0.5}),
        ("ab\ncd\n\nab\ncd", "en", {"duplicate_paragraph_fraction": 0.5}),
        ("ab\ncd\n\nab", "en", {"duplicate_paragraph_fraction": 0.0}),
        # an n-gram that occurs once is no repetition
        ("one two three four", "en", {"top_2gram_char_fraction": 0.0}),
        # "ha ha" occurs twice, overlapping: three words of four, six characters of eight
        ("ha ha ha no", "en", {"top_2gram_char_fraction": 0.75}),
        # a stop may be followed by closing quotes, and only white space lets it end a sentence
        ('He said "stop." Then (he left.) And so on', "en", {"num_c4_sentences": 3}),
        ("One. Two! Is pi 3.14? See example.com", "en", {"num_c4_sentences": 4}),
        ("一二三四五。六七八九十\uff01十一", "zh", {"num_c4_sentences": 3}),
    ],
)
def test_signals_counted_by_hand(text: str, lang: str, expected: dict[str, float]) -> None:
    measured = measure(text, lang)
    assert {name: measured[name] for name in expected} == expected


def test_cuts_counted_by_hand() -> None:
    text = "Home\n\nWe use cookies here.\nA line that stays.\n\nEnd of it\nTop\n"
    measured = measure(text)
    # bytes 0 to 27: "Home", the blank line after it, and the cookie notice; 57 to 61: "Top"
    assert measured["c4_cuts"] == [{"start": 0, "end": 27}, {"start": 57, "end": 61}]
    assert (measured["num_c4_lines_cut"], measured["num_c4_bytes_cut"]) == (3, 31)
    assert measured["num_c4_sentences"] == 2


def test_lines_without_terminal_punctuation_stay() -> None:
    assert measure("A heading without an end")["num_c4_lines_cut"] == 0


GOLDEN = [
    # text, language, what was counted by hand
    (
        "The cat sat. It is \u201cFINE\u201d!\n\nOK, 42 dogs\n",
        "en",
        {"num_words": 9, "num_sentences": 3, "num_paragraphs": 2, "all_caps_word_fraction": 2 / 9},
    ),
    (
        "DeepSeek 发布了 67B 模型。\n它很好用\uff01",
        "zh",
        # 发 布 了 模 型 它 很 好 用 and two Latin words; 13 letters and digits, 9 characters
        {"num_words": 11, "num_stop_words": 1, "num_sentences": 2, "digit_char_fraction": 2 / 20},
    ),
    (
        "これはテストです。ｶﾅ ガ カ\u3099",
        "ja",
        # nine kana before the stop, two half-width, ガ, and カ whose sound mark is no letter
        {"num_words": 12, "sentence_terminal_line_fraction": 0.0, "num_stop_words": None},
    ),
    (
        "한국어 문장은 띄어쓰기를 한다. 끝",
        "ko",
        {"num_words": 5, "mean_word_length": (3 + 3 + 5 + 2 + 1) / 5, "num_sentences": 2},
    ),
    ("ภาษาไทย ๓", "th", {"num_words": 8, "digit_char_fraction": 1 / 8}),
    (
        "I \u2764\ufe0f \U0001f469\u200d\U0001f4bb code \U0001f600",
        "en",
        # three emoji are symbols, two words are words
        {"num_words": 2, "alphabetic_word_fraction": 2 / 5, "unique_word_fraction": 1.0},
    ),
    (
        "שלום עולם.\nمرحبا بالعالم\u06d4\u200f\n",  # noqa: RUF001
        "he",
        {"num_words": 4, "sentence_terminal_line_fraction": 1.0, "upper_case_char_fraction": 0.0},
    ),
    (
        "Café CAFÉ cafe\u0301 — naïve; ß ﬁ",
        "en",
        # café three times, naïve, ß, ﬁ: six words, four of them distinct
        {"num_words": 6, "unique_word_fraction": 4 / 6, "all_caps_word_fraction": 1 / 6},
    ),
]


@pytest.mark.parametrize(("text", "lang", "by_hand"), GOLDEN)
def test_golden_table_of_scripts(text: str, lang: str, by_hand: dict[str, float]) -> None:
    measured = measure(text, lang, compile_bad_words(BAD_WORDS))
    expected = oracle(text, lang)
    assert measured == {name: expected[name] for name in SIGNALS_SCHEMA.names}
    assert {name: measured[name] for name in by_hand} == pytest.approx(by_hand)


def test_bad_words_counted_by_hand() -> None:
    listed = compile_bad_words(BAD_WORDS)
    # "holy cow pat" and "holy cow" begin at one place; "darned" is another word
    text = "Darn! Holy-cow pat, holy\ncow, darned, blast; it"
    assert measure(text, "en", listed)["num_bad_words"] == 4
    assert measure("这个坏话和性。", "zh", listed)["num_bad_words"] == 1
    assert measure(text, "de", listed)["num_bad_words"] is None


def test_capitals_of_other_scripts() -> None:
    measured = measure("ΑΒΓ БЕЛ aé \U0001d400")  # a bold capital of mathematics
    assert measured["upper_case_char_fraction"] == pytest.approx(7 / 9)


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe", b"ab\xe4\xbd", b"\xe4\xbd\x41 words\n" * 9, b"\xf0\x9f\x98", b"\x80" * 99],
)
def test_bytes_that_are_not_utf8_are_counted_not_feared(data: bytes) -> None:
    """Each byte that begins no character reads as U+FFFD, which is no word."""
    read = data.decode("utf-8", "surrogateescape")
    text = "".join("\ufffd" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in read)
    lang = pa.array(["en"])
    measured = signals(pa.array([data], pa.large_binary()), lang)[0].as_py()
    expected = measure(text)
    counted = ("num_words", "num_lines", "mean_word_length", "unique_word_fraction")
    assert {name: measured[name] for name in counted} == {n: expected[n] for n in counted}


@pytest.mark.parametrize(
    "piece",
    ["a", "字", "\n", " ", "ab ", "a\n", "...", "the cat sat on the mat. ", "x" * 999 + "\n"],
)
def test_fifty_megabytes_are_measured(piece: str) -> None:
    """One repeated piece, so that every table of repeated things has its worst case."""
    size = 50_000_000 // len(piece.encode())
    measured = measure(piece * size, "en", compile_bad_words(BAD_WORDS))
    assert measured["num_chars"] == size * len(piece)
    assert measured["newline_word_ratio"] == pytest.approx(
        size * piece.count("\n") / measured["num_words"] if measured["num_words"] else 0.0
    )
