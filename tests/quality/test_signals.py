"""Signals against a plain Python reading of their definitions, and texts counted by hand."""

import re
from collections import Counter
from itertools import groupby

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ingest.text import KIND, MARK, SEPARATOR, words
from curation.quality.edits import apply_edits
from curation.quality.signals import SIGNALS, SIGNALS_SCHEMA, count_words, signals

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

FRAGMENTS = st.sampled_from(
    [
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


def measure(text: str, lang: str | None = "en") -> dict[str, object]:
    return signals(pa.array([text]), pa.array([lang], pa.string()))[0].as_py()


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(TEXTS, LANGS), min_size=1, max_size=4))
def test_signals_equal_plain_python(rows: list[tuple[str, str | None]]) -> None:
    texts, langs = zip(*rows, strict=True)
    measured = signals(pa.array(texts), pa.array(langs, pa.string())).to_pylist()
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
    whole = signals(text, lang)
    parts = [signals(text[:split], lang[:split]), signals(text[split:], lang[split:])]
    assert whole.to_pylist() == [row for part in parts for row in part.to_pylist()]
    assert [row is None for row in whole.to_pylist()] == [row[0] is None for row in rows]
    assert whole.type == pa.struct(list(SIGNALS_SCHEMA))
    whole.validate(full=True)


@settings(max_examples=100, deadline=None)
@given(TEXTS, LANGS)
def test_shares_are_shares(text: str, lang: str | None) -> None:
    for name, value in measure(text, lang).items():
        if name.endswith("_fraction"):
            assert 0 <= value <= 1, name


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
    assert measure(text) == {name: oracle(text, "en")[name] for name in SIGNALS_SCHEMA.names}


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
