"""Words against an oracle: whole texts through `unicodedata`, scripts told by their names."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.text import KIND, MARK, words

# Known by Unicode 3.2, so of the same nature in any Python's Unicode.
OLD = unicodedata.ucd_3_2_0
BLOCKS = {
    "Latin": (0x20, 0x24F),
    "diacritics": (0x300, 0x362),
    "Greek, Cyrillic": (0x386, 0x482),
    "Hebrew": (0x591, 0x5F4),
    "Arabic": (0x60C, 0x6DC),
    "Devanagari": (
        0x966,
        0x96F,
    ),  # digits; its letters with a dot are kept apart from those without
    "Thai": (0xE01, 0xE5B),
    "punctuation": (0x2000, 0x206F),
    "kana": (0x3041, 0x3096),
    "katakana": (0x30A1, 0x30FE),
    "ideographs": (0x4E00, 0x4FFF),
    "Hangul": (0xAC00, 0xACFF),
    "full width": (0xFF01, 0xFF9D),
    "extension B": (0x20000, 0x200FF),
}
SPACELESS = ("CJK ", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA", "THAI ")


def is_mark(character: str) -> bool:
    """Diacritics of the alphabets above, and what only directs or joins."""
    category = unicodedata.category(character)
    name = unicodedata.name(character, "")
    return category == "Cf" or (category[0] == "M" and not name.startswith("THAI "))


def is_single(character: str) -> bool:
    name = unicodedata.name(character, "")
    return name.startswith(SPACELESS) and unicodedata.category(character) != "Nd"


def fold(text: str) -> str:
    """Compatibility form, no diacritics, lower case, ASCII digits."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not is_mark(c))
    lower = unicodedata.normalize("NFC", bare).casefold()
    return "".join(str(unicodedata.decimal(c, c)) for c in lower)


def expected(text: str) -> list[str]:
    """Read a text as the module says, with no table."""
    spaced = ""
    for character in text:
        if is_mark(character):
            continue
        if unicodedata.category(character)[0] not in "LMN":
            spaced += " "
        elif is_single(character):
            spaced += f" {unicodedata.normalize('NFKC', character)} "
        else:
            spaced += fold(character)
    return spaced.split()


def folds_to_one(character: str) -> bool:
    """Others, such as the sharp s and ligatures, stand for themselves: see test_text.py."""
    form = unicodedata.normalize("NFKC", character) if is_single(character) else fold(character)
    return len(form) == 1 and form != " "


ALPHABETS = {
    name: [
        character
        for character in map(chr, range(first, last + 1))
        if OLD.category(character) != "Cn"
        and (
            is_mark(character)
            or unicodedata.category(character)[0] not in "LMN"
            or folds_to_one(character)
        )
    ]
    for name, (first, last) in BLOCKS.items()
}
TEXT = st.lists(
    st.sampled_from(sorted(ALPHABETS)).flatmap(lambda name: st.sampled_from(ALPHABETS[name]))
).map("".join)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_character_between_two_letters(block: str) -> None:
    assert len(ALPHABETS[block]) >= 10
    for character in ALPHABETS[block]:
        assert words(f"a{character}b") == expected(f"a{character}b"), f"U+{ord(character):04X}"


@given(TEXT)
def test_texts_of_many_scripts(text: str) -> None:
    assert words(text) == expected(text)


@given(st.text(), st.text())
def test_a_separator_makes_texts_independent(left: str, right: str) -> None:
    assert words(f"{left}\n{right}") == words(left) + words(right)


def test_variation_selectors_are_in_no_word() -> None:
    """They choose a glyph; those beyond U+E0100 follow ideographs of Japanese names."""
    selectors = [c for c in range(0x110000) if "VARIATION SELECTOR" in unicodedata.name(chr(c), "")]
    assert len(selectors) >= 256
    assert [f"U+{c:04X}" for c in selectors if KIND[c] != MARK] == []
