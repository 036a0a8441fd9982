"""Segmentation against a plain Python reading of its definition, and texts done by hand."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ingest.text import FOLD, KIND, MARK, SEPARATOR, SINGLE
from curation.quality.segmentation import (
    MAX_LINE_TOKENS,
    NO_VOCABULARY,
    Segmented,
    segment,
    vocabulary_of,
)

KNOWN = ["the", "cat", "cafe", "r0d0", "中", "한국", "слово", "ss"]
FRAGMENTS = st.sampled_from(
    [
        *("the", "The", "cat", "Cat,", "CAFÉ", "cafe\u0301", "R2D2", "42", "\u0663", "naïve", "ß"),
        *("中", "文", "ひ", "ไ", "한국", "слово", "\U00020000", "\U0001f600", "\u200b", "Ⱥ"),
        *(" ", " ", " ", "\t", "\u3000", "\n", "\n\n", "\r\n", "\x00", "\x1c", "\u2028"),
        *(".", "...", "!!", "?!", "—", "。。", "=", "+x", "_", "\ufffd", "__label__hq", "</s>"),
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=30).map("".join) | st.text(max_size=40)


def oracle(text: str, known: set[str] | None, keep_lines: bool) -> tuple[str, int, int]:
    """Tokens, how many before they are spelled, and their characters."""
    lines: list[list[str]] = [[]]
    run = ""  # the present word
    last_sign = ""

    def close() -> None:
        nonlocal run
        if run:
            lines[-1].append(run)
            run = ""

    for character in text:
        kind = KIND[ord(character)]
        if kind == MARK:
            continue
        if kind == SEPARATOR:
            close()
            if character == "\n" and keep_lines:
                lines.append([])
            if character.isspace() or character < " " or character == "\ufffd":
                last_sign = ""
            elif character != last_sign:
                lines[-1].append(character)
                last_sign = character
            continue
        last_sign = ""
        letter = chr(FOLD[ord(character)])
        letter = "0" if letter in "0123456789" else letter
        if kind == SINGLE:
            close()
            lines[-1].append(letter)
        else:
            run += letter
    close()
    words = [token for line in lines for token in line]
    spelled = [" ".join(spell(token, known) for token in line) for line in lines if line]
    return "\n".join(spelled), len(words), sum(map(len, words))


def spell(token: str, known: set[str] | None) -> str:
    is_sign = all(KIND[ord(c)] == SEPARATOR for c in token)
    if known is None or is_sign or token in known:
        return token
    return " ".join(("+" if i else "=") + letter for i, letter in enumerate(token))


def rows(found: Segmented) -> list[tuple[str | None, int, int]]:
    return list(
        zip(
            found.text.to_pylist(),
            found.num_tokens.tolist(),
            found.num_chars.tolist(),
            strict=True,
        )
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_tokens_equal_plain_python(texts: list[str], keep_lines: bool, spells: bool) -> None:
    known = set(KNOWN) if spells else None
    vocabulary = vocabulary_of(pa.array(KNOWN)) if spells else NO_VOCABULARY
    found = segment(pa.array(texts), vocabulary, keep_lines=keep_lines)
    assert rows(found) == [oracle(text, known, keep_lines) for text in texts]
    assert found.num_lines.tolist() == [
        len(text.split("\n")) if text else 0 for text in found.text.to_pylist()
    ]
    found.text.validate(full=True)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | TEXTS, max_size=6), st.integers(0, 6))
def test_tokens_do_not_depend_on_the_batch(texts: list[str | None], split: int) -> None:
    array = pa.array(texts, pa.string())
    vocabulary = vocabulary_of(pa.array(KNOWN))
    whole = rows(segment(array, vocabulary, keep_lines=True))
    parts = [segment(part, vocabulary, keep_lines=True) for part in (array[:split], array[split:])]
    assert whole == [row for part in parts for row in rows(part)]
    assert [row[0] is None for row in whole] == [text is None for text in texts]


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_tokens_of_tokens_are_themselves(text: str) -> None:
    once = segment(pa.array([text]), keep_lines=True).text
    again = segment(once, keep_lines=True).text
    # "ß" and other letters whose fold has one of its own are folded once
    if once[0].as_py() == "".join(chr(FOLD[ord(c)]) for c in once[0].as_py()):
        assert again.equals(once)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat... sat!!", "the cat . =s +a +t !"),
        ("3.14 and R2D2", "=0 . =0 +0 =a +n +d r0d0"),
        ("中文", "中 =文"),
        ("a\n\n b", "=a\n=b"),
        ("__label__hq </s>", "_ =l +a +b +e +l _ =h +q < / =s >"),  # no label, no end of text
        ("", ""),
        (" \n ", ""),
    ],
)
def test_tokens_by_hand(text: str, expected: str) -> None:
    found = segment(pa.array([text]), vocabulary_of(pa.array(KNOWN)), keep_lines=True)
    assert found.text[0].as_py() == expected


def test_long_lines_are_cut() -> None:
    found = segment(pa.array(["the " * (2 * MAX_LINE_TOKENS + 1)]), keep_lines=True)
    assert [len(line.split()) for line in found.text[0].as_py().split("\n")] == [
        *[MAX_LINE_TOKENS] * 2,
        1,
    ]
    assert found.num_lines.tolist() == [3]


@pytest.mark.parametrize("data", [b"\xff\xfea", b"ab\xe4\xbd", b"\x80a" * 9, b"\xf0\x9f\x98 x"])
def test_bytes_that_are_not_utf8_are_white_space(data: bytes) -> None:
    read = data.decode("utf-8", "surrogateescape")
    plain = "".join(" " if 0xDC80 <= ord(c) <= 0xDCFF else c for c in read)
    assert rows(segment(pa.array([data], pa.large_binary()))) == rows(segment(pa.array([plain])))


@pytest.mark.parametrize("piece", ["a", "ab ", "字", "\n", "!", "!?", "Ⱥ"])
def test_fifty_megabytes_are_segmented(piece: str) -> None:
    size = 50_000_000 // len(piece.encode())
    found = segment(pa.array([piece * size]), vocabulary_of(pa.array(["ab"])), keep_lines=True)
    letters = {"a": size, "ab ": 2 * size, "字": size, "\n": 0, "!": 1, "!?": 2 * size, "Ⱥ": size}
    assert found.num_chars.tolist() == [letters[piece]]
