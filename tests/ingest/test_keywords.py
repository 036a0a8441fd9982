"""The automaton of words against a search for each word by itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.block_features import KINDS_OF_PHRASES, PHRASES
from curation.ingest.blocks import KINDS_OF_NAMES, KINDS_OF_PAGES
from curation.ingest.keywords import Automaton, automaton


def found_in(made: Automaton, text: bytes) -> int:
    """Which kinds the automaton finds, by its definition."""
    state = found = 0
    for byte in text:
        state = int(made.next_state[state, made.symbols[byte]])
        found |= int(made.outputs[state])
    return found


def searched(kinds: dict[str, str], text: bytes) -> int:
    """The same with bytes' own search, for phrases without boundaries."""
    lower = bytes(byte + 32 if 65 <= byte <= 90 else byte for byte in text)
    return sum(
        1 << bit
        for bit, words in enumerate(kinds.values())
        if any(word.replace("_", " ").encode() in lower for word in words.split())
    )


def searched_between(kinds: dict[str, str], text: bytes) -> int:
    """The same where all that is no letter is one symbol, "|" in a word."""
    letters = "".join(chr(b | 32) if chr(b).isalpha() and b < 128 else "|" for b in text)
    return sum(
        1 << bit
        for bit, words in enumerate(kinds.values())
        if any(word.replace("-", "|").replace("_", "|") in letters for word in words.split())
    )


words = st.text("abé_", min_size=1, max_size=5).filter(lambda word: word != "_")
kinds_of_words = st.lists(st.lists(words, max_size=4).map(" ".join), min_size=1, max_size=5).map(
    lambda texts: {f"kind {i}": text for i, text in enumerate(texts)}
)


@given(kinds_of_words, st.lists(st.text("abAé c", max_size=30), max_size=8))
def test_it_finds_what_a_search_for_each_word_finds(kinds, texts):
    made = automaton(kinds)
    for text in texts:
        assert found_in(made, text.encode()) == searched(kinds, text.encode())


@given(
    st.lists(st.text("ab|-", min_size=1, max_size=5), max_size=6).map(
        lambda words: {f"kind {i}": word for i, word in enumerate(words)}
    ),
    st.lists(st.text("abAB-_9 é", max_size=30), max_size=8),
)
def test_with_boundaries_all_but_letters_is_one_symbol(kinds, texts):
    made = automaton(kinds, boundaries=True)
    for text in texts:
        assert found_in(made, text.encode()) == searched_between(kinds, text.encode())


@pytest.mark.parametrize("kind", KINDS_OF_PHRASES)
def test_every_phrase_tells_its_kind(kind):
    bit = list(KINDS_OF_PHRASES).index(kind)
    for phrase in KINDS_OF_PHRASES[kind].replace("_", "\x00").split():
        text = f"xx{phrase}yy".replace("\x00", " ").upper().encode()
        assert found_in(PHRASES, text) >> bit & 1, phrase
        assert found_in(PHRASES, text) == searched(KINDS_OF_PHRASES, text)


def test_an_end_of_a_longer_word_is_found_too():
    made = automaton({"long": "abcde", "middle": "bcd", "end": "cd"})
    assert found_in(made, b"abcd") == 0b110
    assert found_in(made, b"abcde") == 0b111
    assert found_in(made, b"abce") == 0


def test_no_byte_of_another_character_is_a_part_of_a_word():
    made = automaton({"kind": "版权"})
    assert found_in(made, "版权".encode()) == 1
    assert found_in(made, "版".encode() + b"x" + "权".encode()) == 0


@pytest.mark.parametrize("boundaries", [False, True])
def test_nothing_is_found_of_no_words(boundaries):
    made = automaton({"none": ""}, boundaries=boundaries)
    assert found_in(made, bytes(range(256))) == 0


def test_a_mask_has_64_bits():
    kinds = {f"kind {i}": "a" * (i + 1) for i in range(64)}
    assert found_in(automaton(kinds), b"a" * 64) == 2**64 - 1
    with pytest.raises(ValueError, match="65 kinds"):
        automaton({**kinds, "one more": "b"})
    for kinds in (KINDS_OF_NAMES, KINDS_OF_PAGES, KINDS_OF_PHRASES):
        assert len(kinds) <= 64
        assert np.uint64(1) << np.uint64(len(kinds) - 1)
