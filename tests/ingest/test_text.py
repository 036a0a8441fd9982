"""Words and normalising: the frozen tables, UTF-8, Arrow buffers, words of many scripts."""

import itertools
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curation.ingest.text import (
    FOLD,
    KIND,
    MARK,
    SEPARATOR,
    SINGLE,
    WORD,
    build_tables,
    decode,
    utf8_buffers,
    words,
)

TABLES_UNICODE = "14.0.0"  # of Python 3.11, which made the frozen tables
STRINGS = (pa.string(), pa.large_string())
BINARIES = (pa.binary(), pa.large_binary())


def test_frozen_tables_are_what_this_program_builds() -> None:
    if unicodedata.unidata_version != TABLES_UNICODE:
        pytest.skip(f"needs Unicode {TABLES_UNICODE}; has {unicodedata.unidata_version}")
    kind, fold = build_tables()
    assert np.array_equal(kind, KIND)
    assert np.array_equal(fold, FOLD)


def test_tables_cover_unicode() -> None:
    assert len(KIND) == len(FOLD) == 0x110000
    assert set(np.unique(KIND).tolist()) == {SEPARATOR, WORD, SINGLE, MARK}


def test_a_folded_character_is_part_of_a_word_and_folds_no_further() -> None:
    """Or a shingle, which joins words by spaces, could not be taken apart again."""
    in_words = np.nonzero((KIND == WORD) | (KIND == SINGLE))[0]
    folded = FOLD[in_words]
    assert np.isin(KIND[folded], (WORD, SINGLE)).all()
    assert np.array_equal(FOLD[folded], folded)


def test_ascii_follows_python() -> None:
    for code_point in range(128):
        character = chr(code_point)
        assert KIND[code_point] == (WORD if character.isalnum() else SEPARATOR)
        if character.isalnum():
            assert chr(FOLD[code_point]) == character.lower()


def decoded(data: bytes) -> list[int]:
    """What `decode` reads, with other text behind the end."""
    buffer = np.frombuffer(data + b"\xbf\xbf\xbf", np.uint8)
    found, i = [], 0
    while i < len(data):
        code_point, i = decode(buffer, i, len(data))
        found.append(int(code_point))
    assert i == len(data)
    return found


def decoded_by_python(data: bytes) -> list[int]:
    """Python's strict decoder, one character at a time; a byte that starts none is U+FFFD."""
    found, i = [], 0
    while i < len(data):
        for length in (1, 2, 3, 4):
            try:
                found.append(ord(data[i : i + length].decode()))
            except (UnicodeDecodeError, TypeError):
                continue
            i += length
            break
        else:
            found.append(0xFFFD)
            i += 1
    return found


@given(st.text())
def test_valid_text_decodes_to_its_code_points(text: str) -> None:
    assert decoded(text.encode()) == [ord(character) for character in text]


@given(
    st.one_of(
        st.binary(max_size=40),
        # Bytes near the borders of UTF-8: overlong forms, surrogates, beyond U+10FFFF, cut ends.
        st.lists(
            st.sampled_from(
                list(
                    b"a\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xec\xed"
                    b"\xee\xef\xf0\xf1\xf3\xf4\xf5\xff"
                )
            ),
            max_size=40,
        ).map(bytes),
    )
)
@example(b"\xc0\x80")
@example(b"\xed\xa0\x80")
@example(b"\xf4\x90\x80\x80")
@example(b"\xe4\xbd")
def test_any_bytes_decode_like_python(data: bytes) -> None:
    assert decoded(data) == decoded_by_python(data)


def test_every_code_point_decodes() -> None:
    code_points = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF][::7]
    assert decoded("".join(map(chr, code_points)).encode()) == code_points


def ranges(array: pa.Array | pa.ChunkedArray) -> list[bytes]:
    """The bytes of every value, by the buffers that the kernels see."""
    data, offsets = utf8_buffers(array)
    assert data.dtype == np.uint8 and offsets.dtype == np.int64
    return [bytes(data[a:b]) for a, b in itertools.pairwise(offsets)]


@given(st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=6), st.data())
def test_buffers_of_slices_and_chunks(values: list[str | None], draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(values)))
    stop = draw.draw(st.integers(start, len(values)))
    expected = [(value or "").encode() for value in values[start:stop]]
    for data_type in STRINGS:
        array = pa.array(values, data_type)
        assert ranges(array[start:stop]) == expected
        chunks = pa.chunked_array([array[:start], array[start:stop], array[stop:]])
        assert ranges(chunks[start:stop]) == expected


@pytest.mark.parametrize("data_type", BINARIES, ids=str)
def test_buffers_of_bytes(data_type: pa.DataType) -> None:
    assert ranges(pa.array([b"\xff", None, b"", b"ab"], data_type)[1:]) == [b"", b"", b"ab"]


@pytest.mark.parametrize("data_type", (*STRINGS, *BINARIES), ids=str)
def test_buffers_of_nothing(data_type: pa.DataType) -> None:
    for empty in (pa.array([], data_type), pa.chunked_array([], data_type)):
        assert utf8_buffers(empty)[1].tolist() == [0]
    assert ranges(pa.array([None, None], data_type)) == [b"", b""]
    assert ranges(pa.array(["", ""], pa.string()).cast(data_type)) == [b"", b""]


def test_an_untyped_null_is_a_null_string() -> None:
    assert ranges(pa.nulls(3)) == [b"", b"", b""]


@pytest.mark.parametrize("data_type", (*STRINGS, *BINARIES), ids=str)
def test_bytes_under_a_null_are_not_seen(data_type: pa.DataType) -> None:
    """The child of a null struct keeps its bytes."""
    values = pa.array([b"kept", b"hidden", b"also"], data_type)
    struct = pa.StructArray.from_arrays([values], ["x"], mask=pa.array([False, True, False]))
    (child,) = struct.flatten()
    assert child.null_count == 1
    assert ranges(child) == [b"kept", b"", b"also"]
    assert ranges(child[1:]) == [b"", b"also"]


@pytest.mark.parametrize(
    "array", [pa.array([1]), pa.array([["a"]]), pa.array([b"a"], pa.binary(1))]
)
def test_other_types_are_a_defect_of_the_caller(array: pa.Array) -> None:
    with pytest.raises(TypeError, match="expected a string or binary array"):
        utf8_buffers(array)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t--...", []),
        ("It's 3.5% of co-op_x", ["it", "s", "3", "5", "of", "co", "op", "x"]),
        ("Über Größe, Ärger; Straße", ["uber", "große", "arger", "straße"]),  # sharp s is a letter
        ("Việt Nam, Łódź", ["viet", "nam", "łodz"]),  # the stroke of an L is no mark
        ("数据去重,2023年", ["数", "据", "去", "重", "2023", "年"]),
        ("用Python写𠀀", ["用", "python", "写", "𠀀"]),
        ("がギー、東京", ["が", "ギ", "ー", "東", "京"]),  # voiced kana are letters of their own
        ("ｱｲｳ", ["ア", "イ", "ウ"]),  # half-width
        ("한국어 처리", ["한국어", "처리"]),
        ("ภาษา๑๒", ["ภ", "า", "ษ", "า", "12"]),
        ("हिन्दी भाषा १२", ["हिन्दी", "भाषा", "12"]),  # vowel signs and virama stay
        ("العَرَبِيَّة ٤٥", ["العربية", "45"]),  # harakat go
        ("שָׁלוֹם", ["שלום"]),
        ("Ελλάδα Ёлка", ["ελλαδα", "елка"]),
        ("ok👍🏽go 👩‍👩‍👧", ["ok", "go"]),
        ("ＡＢＣ　１２３", ["abc", "123"]),  # noqa: RUF001
        ("e\u0301te\u0301 na\u00efve", ["ete", "naive"]),  # marks combined and not
        ("co\u00adop\u200bera\u2060tion", ["cooperation"]),  # soft hyphen, joiners
        ("x² ½ Ⅷ", ["x2", "½", "ⅷ"]),
    ],
)  # fmt: skip
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text())
def test_words_are_words_of_themselves(text: str) -> None:
    """Folding twice is folding once; a word holds no separator and no mark."""
    for word in words(text):
        assert "".join(words(word)) == word


@given(st.text())
def test_words_ignore_upper_case_of_letters_that_come_back(text: str) -> None:
    """Where upper and lower are each other's only partner; not the sharp s, not the ligatures."""
    stable = "".join(c for c in text if c.upper().lower() == c.lower() and len(c.upper()) == 1)
    assert words(stable.upper()) == words(stable.lower())
