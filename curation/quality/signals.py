"""Quality signals: text and language in, one row of numbers a document out.

Every number that a rule of `curation.quality.rules` compares is computed here, once, and stored, so
that thresholds can change without reading text again. Definitions, the same for every script:

word        as in `curation.ingest.text`: a run of letters and digits, or one character of a script
            written without spaces. Its length is in characters, marks not counted. Words are equal
            when their folded forms are, so case and diacritics make no difference.
symbol      what white space separates and holds punctuation or symbols but no word: "->", "|".
line        what "\\n" separates, stripped of white space. Blank lines are no lines. Lines are equal
            when their bytes are.
paragraph   a run of lines without a blank line between them.
ellipsis    a maximal run of three or more full stops, or of the ellipsis character: the six dots of
            a Chinese ellipsis are one, and so are the dots of a line in a table of contents.
sentence    a stretch of a line that holds a word, up to a full stop, question or exclamation mark
            (a Western one must be followed by white space, closing quotes between them allowed) or
            to the end of the line. Abbreviations end sentences too.
characters  code points. Shares of characters by n-grams are of the characters of words.
bad word    a term of the language's list, word by word: at word borders, or anywhere in scripts
            written without spaces. Where several terms begin, one is counted.

A ratio with nothing to divide by is 0.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curation.hashing import FNV_OFFSET, FNV_PRIME, GOLDEN
from curation.ingest.text import (
    FOLD,
    KIND,
    MARK,
    NUM_CODE_POINTS,
    SEPARATOR,
    SINGLE,
    WORD,
    decode,
    utf8_buffers,
    words,
)

UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
Table = tuple[UInt64Array, Int32Array, Int32Array, Int32Array]

STOP_WORDS: Mapping[str, Sequence[str]] = {
    # Rae et al. 2021 (Gopher), section A1.1
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    # Function characters among the most frequent of any Chinese text: eleven, of which three are
    # written otherwise in traditional script. On pages in both languages as many distinct ones
    # occur as of the English words, or more.
    "zh": ("的", "是", "在", "不", "了", "有", "和", "以", "为", "為", "对", "對", "这", "這"),
}
MIN_LINE_WORDS: Mapping[str, int] = {
    # FineWeb and datatrove: lines of 3 words, pages of 5 sentences. C4's published code has 5 words
    # and 3 sentences.
    "en": 3,
    # 1.6 Chinese characters say what one English word says (see `rules.CHARACTERS_PER_WORD`)
    "zh": 5,
}
MIN_LINE_WORDS_ELSEWHERE = 3  # words, for languages that have no number of their own
CUT_TERMS = (
    # Raffel et al. 2020 section 2.2, and the list of its published code
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
    # The same notices in Chinese, simplified and traditional: ours
    "使用条款",
    "使用條款",
    "服务条款",
    "服務條款",
    "隐私政策",
    "隱私政策",
    "隐私权政策",
    "隱私權政策",
)
LOREM_IPSUM = "lorem ipsum"
JAVASCRIPT = "javascript"
SHORT_LINE_CHARS = 30  # FineWeb (Penedo et al. 2024, section 3.6)
ALLOWED_WORDS: Mapping[str, Sequence[str]] = {
    # Terms of LDNOOBW that C4's published code leaves out, since they are common words or syllables
    "ja": ("sm", "グロ", "女の子"),
    "zh": ("性",),
}

BULLETS = "-*\u2022\u2023\u2043\u25aa\u25ab\u25a0\u25a1\u25cf\u25cb\u25e6\u00b7\u2219"
STOPS = ".?!"
WIDE_STOPS = "\u3002\uff1f\uff01\uff61"
# Raffel et al. 2020: full stop, question mark, exclamation mark or closing quotation mark
TERMINALS = STOPS + WIDE_STOPS + "\"'\u2019\u201d\u300d\u300f"
# Unicode 15.1, PropList.txt: Sentence_Terminal. FineWeb's `line_punct_ratio` takes the same ones.
SENTENCE_TERMINAL_RANGES = (
    (0x21, 0x21), (0x2E, 0x2E), (0x3F, 0x3F), (0x589, 0x589), (0x61D, 0x61F), (0x6D4, 0x6D4),
    (0x700, 0x702), (0x7F9, 0x7F9), (0x837, 0x837), (0x839, 0x839), (0x83D, 0x83E), (0x964, 0x965),
    (0x104A, 0x104B), (0x1362, 0x1362), (0x1367, 0x1368), (0x166E, 0x166E), (0x1735, 0x1736),
    (0x17D4, 0x17D6), (0x17D9, 0x17DA), (0x1803, 0x1803), (0x1809, 0x1809), (0x1944, 0x1945),
    (0x1AA8, 0x1AAB), (0x1B5A, 0x1B5B), (0x1B5E, 0x1B5F), (0x1B7D, 0x1B7E), (0x1C3B, 0x1C3C),
    (0x1C7E, 0x1C7F), (0x203C, 0x203D), (0x2047, 0x2049), (0x2E2E, 0x2E2E), (0x2E3C, 0x2E3C),
    (0x2E53, 0x2E54), (0x3002, 0x3002), (0xA4FF, 0xA4FF), (0xA60E, 0xA60F), (0xA6F3, 0xA6F3),
    (0xA6F7, 0xA6F7), (0xA876, 0xA877), (0xA8CE, 0xA8CF), (0xA92F, 0xA92F), (0xA9C8, 0xA9C9),
    (0xAA5D, 0xAA5F), (0xAAF0, 0xAAF1), (0xABEB, 0xABEB), (0xFE52, 0xFE52), (0xFE56, 0xFE57),
    (0xFF01, 0xFF01), (0xFF0E, 0xFF0E), (0xFF1F, 0xFF1F), (0xFF61, 0xFF61), (0x10A56, 0x10A57),
    (0x10F55, 0x10F59), (0x10F86, 0x10F89), (0x11047, 0x11048), (0x110BE, 0x110C1),
    (0x11141, 0x11143), (0x111C5, 0x111C6), (0x111CD, 0x111CD), (0x111DE, 0x111DF),
    (0x11238, 0x11239), (0x1123B, 0x1123C), (0x112A9, 0x112A9), (0x1144B, 0x1144C),
    (0x115C2, 0x115C3), (0x115C9, 0x115D7), (0x11641, 0x11642), (0x1173C, 0x1173E),
    (0x11944, 0x11944), (0x11946, 0x11946), (0x11A42, 0x11A43), (0x11A9B, 0x11A9C),
    (0x11C41, 0x11C42), (0x11EF7, 0x11EF8), (0x11F43, 0x11F44), (0x16A6E, 0x16A6F),
    (0x16AF5, 0x16AF5), (0x16B37, 0x16B38), (0x16B44, 0x16B44), (0x16E98, 0x16E98),
    (0x1BC9F, 0x1BC9F), (0x1DA88, 0x1DA88),
)  # fmt: skip
CLOSERS = "\"')]}\u2019\u201d\u300d\u300f\u300b\u3011\uff09\u00bb"
UPPER_CASE_BLOCKS = (  # where all capitals of Unicode 3.2 are
    (0x41, 0x590),
    (0x10A0, 0x10D0),
    (0x1E00, 0x2190),
    (0xFF21, 0xFF3B),
    (0x10400, 0x10428),
    (0x1D400, 0x1D800),
)
ELLIPSIS = 0x2026
DOTS = (0x2E, 0x3002)  # full stop and ideographic full stop; three make an ellipsis
MIN_ELLIPSIS_DOTS = 3

NGRAMS_TOP = (2, 3, 4)
NGRAMS_DUPLICATE = (5, 6, 7, 8, 9, 10)

_C4 = "Raffel et al. 2020, section 2.2"
_QUALITY = "Rae et al. 2021, section A1.1, quality filtering"
_REPETITION = "Rae et al. 2021, section A1.1 and table A1, repetition removal"
_FINEWEB = "Penedo et al. 2024 (FineWeb), section 3.6"
_REDPAJAMA = "Weber et al. 2024 (RedPajama-V2), quality signals"
_CONTEXT = "no rule; says how large the text is"
RATIO = pa.float64()


@dataclass(frozen=True)
class Signal:
    """A column of the signals: what it counts, and who asks for it."""

    name: str
    doc: str
    source: str
    type: pa.DataType = RATIO


SIGNALS = (
    Signal("num_chars", "code points of the text", _CONTEXT, pa.int32()),
    Signal("num_lines", "lines that are not blank", _CONTEXT, pa.int32()),
    Signal("num_paragraphs", "paragraphs", _CONTEXT, pa.int32()),
    Signal("num_sentences", "sentences of all lines", _REDPAJAMA, pa.int32()),
    Signal("num_words", "words", _QUALITY, pa.int32()),
    Signal("mean_word_length", "characters of words / words", _QUALITY),
    Signal("hash_word_ratio", "characters '#' / words", _QUALITY),
    Signal("ellipsis_word_ratio", "ellipses / words", _QUALITY),
    Signal("bullet_line_fraction", "lines that begin with a bullet", _QUALITY),
    Signal("ellipsis_line_fraction", "lines that end in an ellipsis", _QUALITY),
    Signal("alphabetic_word_fraction", "words with a letter / (words + symbols)", _QUALITY),
    Signal(
        "num_stop_words",
        "distinct stop words of the language; null where it has no list",
        _QUALITY,
        pa.int32(),
    ),
    Signal(
        "stop_word_fraction",
        "words that are stop words of the language / words; null where it has no list",
        _REDPAJAMA,
    ),
    Signal("unique_word_fraction", "distinct words / words", _REDPAJAMA),
    Signal(
        "word_entropy",
        "entropy of the distribution of words, in nats, to six decimals",
        _REDPAJAMA,
    ),
    Signal("all_caps_word_fraction", "words with letters, all upper case / words", _REDPAJAMA),
    Signal("upper_case_char_fraction", "upper-case letters / characters of words", _REDPAJAMA),
    Signal("digit_char_fraction", "digits / characters of words", _REDPAJAMA),
    Signal(
        "short_line_fraction", f"lines of at most {SHORT_LINE_CHARS} characters / lines", _FINEWEB
    ),
    Signal("newline_word_ratio", "characters '\\n' / words", _FINEWEB),
    Signal(
        "sentence_terminal_line_fraction",
        "lines that end in a sentence terminal of Unicode, marks and white space aside; an "
        "ellipsis of full stops is one, closing quotes are none",
        _FINEWEB,
    ),
    Signal("duplicate_line_fraction", "lines that repeat an earlier one", _REPETITION),
    Signal("duplicate_line_char_fraction", "characters of those / of all lines", _REPETITION),
    Signal("duplicate_paragraph_fraction", "paragraphs that repeat an earlier one", _REPETITION),
    Signal("duplicate_paragraph_char_fraction", "characters of those / of all lines", _REPETITION),
    *(
        Signal(
            f"top_{n}gram_char_fraction",
            f"characters inside the most frequent word {n}-gram, each once; of equally frequent "
            "ones the one that covers most; 0 when none occurs twice",
            _REPETITION,
        )
        for n in NGRAMS_TOP
    ),
    *(
        Signal(
            f"duplicate_{n}gram_char_fraction",
            f"characters inside word {n}-grams that occur at least twice, each once",
            _REPETITION,
        )
        for n in NGRAMS_DUPLICATE
    ),
    Signal("terminal_line_fraction", "lines that end like a sentence", _C4),
    Signal("num_javascript_lines", "lines with 'javascript'", _C4, pa.int32()),
    Signal(
        "num_bad_words",
        "occurrences of terms of the language's list of bad words; null where it has no list",
        _C4,
        pa.int32(),
    ),
    Signal("num_left_braces", "characters '{'", _C4, pa.int32()),
    Signal("num_lorem_ipsum", "occurrences of 'lorem ipsum'", _C4, pa.int32()),
    Signal("num_c4_lines_cut", "lines that C4 would cut", _C4, pa.int32()),
    Signal("num_c4_bytes_cut", "bytes of c4_cuts", _C4, pa.int32()),
    Signal("num_c4_chars_cut", "characters of c4_cuts", _C4, pa.int32()),
    Signal("num_c4_sentences", "sentences of the lines that stay", _C4, pa.int32()),
    Signal(
        "c4_cuts",
        "UTF-8 byte spans of the cut lines, disjoint and ascending",
        _C4,
        pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())])),
    ),
)
SIGNALS_SCHEMA = pa.schema([(signal.name, signal.type) for signal in SIGNALS])

_MODEL = "the model of the language; null where there is none"
SCORES = (
    Signal(
        "num_private_spans",
        "spans that privacy replaced",
        _CONTEXT,
        pa.int32(),
    ),
    Signal("quality_score", f"probability of the label hq, 0..1, by {_MODEL}", "fastText"),
    Signal(
        "perplexity", f"perplexity by word and sign, {_MODEL}", "KenLM; Wenzek et al. 2020 (CCNet)"
    ),
    Signal("perplexity_char", f"perplexity by character of words and signs, {_MODEL}", "KenLM"),
    Signal(
        "perplexity_bin",
        "floor(256 log2 perplexity_char)",
        "curation.quality.percentiles",
        pa.int32(),
    ),
    Signal("code_share", "bytes beside spaces in lines of code, 0..1", "curation.remix.structure"),
    Signal("math_share", "bytes beside spaces in formulas, 0..1", "curation.remix.structure"),
    Signal("domain_label", f"most probable domain, by {_MODEL}", "fastText", pa.string()),
    Signal("domain_score", "its probability, 0..1", "fastText"),
)
"""What `annotate` measures beside SIGNALS, by models and privacy."""
PERPLEXITY_PERCENTILE = Signal(
    "perplexity_percentile",
    "smallest p for which p % of the dump's documents of the language have no higher "
    "perplexity_char; "
    "computed by `filter` from the dump's histogram",
    "Wenzek et al. 2020 (CCNet): head up to 30, middle up to 60",
    pa.int32(),
)
KNOWN_SIGNALS = tuple(
    signal.name
    for signal in (*SIGNALS, *SCORES, PERPLEXITY_PERCENTILE)
    if signal.name not in ("c4_cuts", "domain_label")
)
"""What a rule may bound."""

# Columns of the kernel's table of counts; ratios are divided afterwards, in numpy.
(
    CHARS,
    LINES,
    WORDS,
    WORD_CHARS,
    HASHES,
    ELLIPSES,
    BULLET_LINES,
    ELLIPSIS_LINES,
    ALPHABETIC_WORDS,
    SYMBOLS,
    STOP_WORD_BITS,
    LINE_CHARS,
    DUPLICATE_LINES,
    DUPLICATE_LINE_CHARS,
    PARAGRAPHS,
    DUPLICATE_PARAGRAPHS,
    DUPLICATE_PARAGRAPH_CHARS,
    TERMINAL_LINES,
    LEFT_BRACES,
    LOREM_IPSUMS,
    LINES_CUT,
    BYTES_CUT,
    CHARS_CUT,
    SENTENCES_KEPT,
    CUTS,
    SENTENCES,
    STOP_WORDS_SEEN,
    UNIQUE_WORDS,
    ENTROPY_MICRONATS,
    ALL_CAPS_WORDS,
    UPPER_CHARS,
    DIGIT_CHARS,
    SHORT_LINES,
    NEWLINES,
    SENTENCE_TERMINAL_LINES,
    JAVASCRIPT_LINES,
    BAD_WORDS,
    NGRAM_CHARS,  # and the next: one for each n from 2 to 10
) = range(38)
MAX_NGRAM = max(NGRAMS_DUPLICATE)
NUM_COUNTS = NGRAM_CHARS + MAX_NGRAM - 1

# Classes of characters, bits of the table CLASSES
SPACE, BULLET, STOP, WIDE_STOP, TERMINAL, CLOSER = 1, 2, 4, 8, 16, 32
SENTENCE_TERMINAL, UPPER = 64, 128
FIRST_WORD_BITS = 16  # of a word's hash: the bitmap of words that begin a bad word

MIN_TABLE_BITS = 10


class BadWords(NamedTuple):
    """Lists of bad words, compiled; row i of the arrays belongs to languages[i]."""

    languages: tuple[str, ...]
    first: npt.NDArray[np.bool_]  # [language, low bits of a word's hash]: may begin a term
    lengths: Int32Array  # [language, k]: numbers of words that terms have, ascending, then 0
    terms: UInt64Array  # of all languages, ascending by language
    ends: Int64Array  # terms of language i are terms[ends[i] : ends[i + 1]], ascending


def compile_bad_words(lists: Mapping[str, Sequence[str]]) -> BadWords:
    """Return lists of terms by language as `signals` needs them; ALLOWED_WORDS are left out.

    A term counts by its words, so case and signs make no difference. A term without a letter or
    digit (LDNOOBW's English list has an emoji) cannot be found, and is left out.
    """
    first = np.zeros((len(lists), 1 << FIRST_WORD_BITS), np.bool_)
    hashes, lengths = [], []
    for row, (language, terms) in enumerate(lists.items()):
        allowed = {tuple(words(term)) for term in ALLOWED_WORDS.get(language, ())}
        phrases = {tuple(words(term)) for term in terms} - allowed - {()}
        hashes.append(sorted(_hash_phrase(phrase) for phrase in phrases))
        lengths.append(sorted({len(phrase) for phrase in phrases}))
        for phrase in phrases:
            first[row, _hash_word(phrase[0]) & ((1 << FIRST_WORD_BITS) - 1)] = True
    width = max(map(len, lengths), default=0)
    padded = [row + [0] * (width - len(row)) for row in lengths]
    return BadWords(
        tuple(lists),
        first,
        np.array(padded, np.int32).reshape(len(lists), width),
        np.array([term for row in hashes for term in row], np.uint64),
        np.cumsum([0, *map(len, hashes)]),
    )


NO_BAD_WORDS = BadWords(
    (),
    np.zeros((0, 1 << FIRST_WORD_BITS), np.bool_),
    np.zeros((0, 0), np.int32),
    np.zeros(0, np.uint64),
    np.zeros(1, np.int64),
)


def signals(text: pa.Array, lang: pa.Array, bad_words: BadWords = NO_BAD_WORDS) -> pa.StructArray:
    """Return the signals of every text: one struct of SIGNALS_SCHEMA, null for a null text.

    `lang` (string) chooses stop words, the shortest line and the list of bad words; a language
    without its own numbers, or null, gets nulls. c4_cuts are the lines that C4 cuts for holding one
    of CUT_TERMS (ASCII case ignored) or fewer than MIN_LINE_WORDS words, each with its newline and
    the blank lines after it; neighbours are one span. C4's cut of lines without terminal
    punctuation is not among them: FineWeb (Penedo et al. 2024, section 3.5) found that it removes
    30 % of tokens and left it out, and half of all documentation pages would lose more than half of
    their lines. The share of lines with terminal punctuation is a signal.

    Two lines, paragraphs or words are taken for equal when 64-bit hashes are.
    Cost: O(bytes), about 30 MB/s on a core. Memory: 15 bytes for each of the longest text, 40 when
    it is nothing but newlines.
    """
    data, offsets = utf8_buffers(text)
    languages = _language_codes(lang, list(STOP_WORDS))
    bad_languages = _language_codes(lang, list(bad_words.languages))
    stop_words, min_line_words = _LANGUAGE_TABLES
    terms, term_offsets, first_term, lorem_ipsum, javascript = _TERMS
    counts, cuts = _signals(
        data,
        offsets,
        languages,
        stop_words,
        min_line_words,
        KIND,
        FOLD,
        CLASSES,
        terms,
        term_offsets,
        first_term,
        lorem_ipsum,
        javascript,
        bad_languages,
        bad_words.first,
        bad_words.lengths,
        bad_words.terms,
        bad_words.ends,
    )
    has_stop_words = languages < len(STOP_WORDS)
    has_bad_words = bad_languages < len(bad_words.languages)
    columns = _columns(counts, cuts, has_stop_words, has_bad_words)
    return pa.StructArray.from_arrays(
        [columns[field.name].cast(field.type) for field in SIGNALS_SCHEMA],
        fields=list(SIGNALS_SCHEMA),
        mask=pa.array(np.asarray(pc.is_null(text))),
    )


def count_words(text: pa.Array) -> pa.Int32Array:
    """Return the number of words of every text, null for a null text. Cost: O(bytes)."""
    data, offsets = utf8_buffers(text)
    null = np.asarray(pc.is_null(text))
    return pa.array(_count_words(data, offsets, KIND), mask=null)


def _language_codes(lang: pa.Array, known: Sequence[str]) -> Int32Array:
    """Return the place of each language among the known ones, and their number for any other."""
    if isinstance(lang, pa.ChunkedArray):
        lang = lang.combine_chunks()
    codes = pc.index_in(lang.cast(pa.string()), value_set=pa.array(known, pa.string()))
    return np.asarray(codes.fill_null(len(known)), dtype=np.int32)


def _language_tables() -> tuple[UInt64Array, Int32Array]:
    """Return stop word hashes [language, word] (0: none) and the shortest line by language."""
    width = max(len(listed) for listed in STOP_WORDS.values())
    hashes = np.zeros((len(STOP_WORDS) + 1, width), np.uint64)
    shortest = np.full(len(STOP_WORDS) + 1, MIN_LINE_WORDS_ELSEWHERE, np.int32)
    for row, (language, listed) in enumerate(STOP_WORDS.items()):
        hashes[row, : len(listed)] = np.array([_hash_word(words(w)[0]) for w in listed], np.uint64)
        shortest[row] = MIN_LINE_WORDS[language]
    return hashes, shortest


def _hash_word(word: str) -> int:
    """The plain-Python twin of the kernel's word hash."""
    h = int(FNV_OFFSET)
    for character in word:
        h = ((h ^ ord(character)) * int(FNV_PRIME)) & 0xFFFFFFFFFFFFFFFF
    return h


def _hash_phrase(phrase: Sequence[str]) -> int:
    """The plain-Python twin of the kernel's hash of several words."""
    h = int(FNV_OFFSET)
    for word in phrase:
        h = ((h ^ _hash_word(word)) * int(GOLDEN)) & 0xFFFFFFFFFFFFFFFF
    return h


def _columns(
    counts: Int64Array,
    cuts: Int32Array,
    has_stop_words: npt.NDArray[np.bool_],
    has_bad_words: npt.NDArray[np.bool_],
) -> dict[str, pa.Array]:
    def share(
        part: int, whole: int | Int64Array, valid: npt.NDArray[np.bool_] | None = None
    ) -> pa.Array:
        divisor = counts[:, whole] if isinstance(whole, int) else whole
        shares = np.zeros(len(counts))
        np.divide(counts[:, part], divisor, out=shares, where=divisor > 0)
        return pa.array(shares, mask=None if valid is None else ~valid)

    spans = pa.StructArray.from_arrays(
        [pa.array(cuts[:, 0]), pa.array(cuts[:, 1])], names=["start", "end"]
    )
    cut_offsets = np.concatenate([[0], np.cumsum(counts[:, CUTS])]).astype(np.int32)
    columns = {
        "num_chars": pa.array(counts[:, CHARS]),
        "num_lines": pa.array(counts[:, LINES]),
        "num_paragraphs": pa.array(counts[:, PARAGRAPHS]),
        "num_sentences": pa.array(counts[:, SENTENCES]),
        "num_words": pa.array(counts[:, WORDS]),
        "mean_word_length": share(WORD_CHARS, WORDS),
        "hash_word_ratio": share(HASHES, WORDS),
        "ellipsis_word_ratio": share(ELLIPSES, WORDS),
        "bullet_line_fraction": share(BULLET_LINES, LINES),
        "ellipsis_line_fraction": share(ELLIPSIS_LINES, LINES),
        "alphabetic_word_fraction": share(ALPHABETIC_WORDS, counts[:, WORDS] + counts[:, SYMBOLS]),
        "num_stop_words": pa.array(
            np.bitwise_count(counts[:, STOP_WORD_BITS]).astype(np.int32),
            mask=~has_stop_words,
        ),
        "stop_word_fraction": share(STOP_WORDS_SEEN, WORDS, has_stop_words),
        "unique_word_fraction": share(UNIQUE_WORDS, WORDS),
        "word_entropy": pa.array(counts[:, ENTROPY_MICRONATS] / 1e6),
        "all_caps_word_fraction": share(ALL_CAPS_WORDS, WORDS),
        "upper_case_char_fraction": share(UPPER_CHARS, WORD_CHARS),
        "digit_char_fraction": share(DIGIT_CHARS, WORD_CHARS),
        "short_line_fraction": share(SHORT_LINES, LINES),
        "newline_word_ratio": share(NEWLINES, WORDS),
        "sentence_terminal_line_fraction": share(SENTENCE_TERMINAL_LINES, LINES),
        "duplicate_line_fraction": share(DUPLICATE_LINES, LINES),
        "duplicate_line_char_fraction": share(DUPLICATE_LINE_CHARS, LINE_CHARS),
        "duplicate_paragraph_fraction": share(DUPLICATE_PARAGRAPHS, PARAGRAPHS),
        "duplicate_paragraph_char_fraction": share(DUPLICATE_PARAGRAPH_CHARS, LINE_CHARS),
        "terminal_line_fraction": share(TERMINAL_LINES, LINES),
        "num_javascript_lines": pa.array(counts[:, JAVASCRIPT_LINES]),
        "num_bad_words": pa.array(counts[:, BAD_WORDS].astype(np.int32), mask=~has_bad_words),
        "num_left_braces": pa.array(counts[:, LEFT_BRACES]),
        "num_lorem_ipsum": pa.array(counts[:, LOREM_IPSUMS]),
        "num_c4_lines_cut": pa.array(counts[:, LINES_CUT]),
        "num_c4_bytes_cut": pa.array(counts[:, BYTES_CUT]),
        "num_c4_chars_cut": pa.array(counts[:, CHARS_CUT]),
        "num_c4_sentences": pa.array(counts[:, SENTENCES_KEPT]),
        "c4_cuts": pa.ListArray.from_arrays(pa.array(cut_offsets), spans),
    }
    for n in NGRAMS_TOP:
        columns[f"top_{n}gram_char_fraction"] = share(NGRAM_CHARS + n - 2, WORD_CHARS)
    for n in NGRAMS_DUPLICATE:
        columns[f"duplicate_{n}gram_char_fraction"] = share(NGRAM_CHARS + n - 2, WORD_CHARS)
    return columns


def _build_classes() -> UInt8Array:
    classes = np.zeros(NUM_CODE_POINTS, np.uint8)
    spaces = (chr(c) for c in range(0x3001) if chr(c).isspace())  # U+3000 is the last one
    for bit, characters in (
        (SPACE, spaces),
        (BULLET, BULLETS),
        (STOP, STOPS),
        (WIDE_STOP, WIDE_STOPS),
        (TERMINAL, TERMINALS),
        (CLOSER, CLOSERS),
    ):
        for character in characters:
            classes[ord(character)] |= bit
    for first, last in SENTENCE_TERMINAL_RANGES:
        classes[first : last + 1] |= SENTENCE_TERMINAL
    for start, stop in UPPER_CASE_BLOCKS:
        for code_point in range(start, stop):
            # Unicode 3.2 comes with every Python, so that no version can change a signal
            if unicodedata.ucd_3_2_0.category(chr(code_point)) in ("Lu", "Lt"):
                classes[code_point] |= UPPER
    return classes


def _build_terms() -> tuple[UInt8Array, Int64Array, Int64Array, int, int]:
    """Return the terms' bytes, their offsets, the first term of each first byte, and the numbers of
    LOREM_IPSUM and JAVASCRIPT.

    Terms are sorted by bytes, so those that begin with byte b are first[b] to first[b + 1].
    """
    terms = sorted(term.encode() for term in (*CUT_TERMS, LOREM_IPSUM))
    offsets = np.concatenate([[0], np.cumsum([len(term) for term in terms])])
    first = np.searchsorted([term[0] for term in terms], np.arange(257))
    joined = np.frombuffer(b"".join(terms), np.uint8)
    lorem_ipsum, javascript = (terms.index(term.encode()) for term in (LOREM_IPSUM, JAVASCRIPT))
    return joined, offsets.astype(np.int64), first, lorem_ipsum, javascript


_LANGUAGE_TABLES = _language_tables()
CLASSES = _build_classes()
_TERMS = _build_terms()


@njit(cache=True, nogil=True)
def _signals(
    data: UInt8Array,
    offsets: Int64Array,
    languages: Int32Array,
    stop_words: UInt64Array,
    min_line_words: Int32Array,
    kind: UInt8Array,
    fold: UInt32Array,
    classes: UInt8Array,
    terms: UInt8Array,
    term_offsets: Int64Array,
    first_term: Int64Array,
    lorem_ipsum: int,
    javascript: int,
    bad_languages: Int32Array,
    bad_first: npt.NDArray[np.bool_],
    bad_lengths: Int32Array,
    bad_terms: UInt64Array,
    bad_ends: Int64Array,
) -> tuple[Int64Array, Int32Array]:
    """Return counts [text, NUM_COUNTS] and the spans [cut, (start, end)] of all texts in order."""
    num_texts = len(offsets) - 1
    counts = np.zeros((num_texts, NUM_COUNTS), np.int64)
    longest, most_lines, num_lines = 0, 0, 0
    for i in range(num_texts):
        longest = max(longest, offsets[i + 1] - offsets[i])
        lines = _count_byte(data, offsets[i], offsets[i + 1], 0x0A) + 1
        most_lines = max(most_lines, lines)
        num_lines += lines
    cuts = np.empty((num_lines, 2), np.int32)
    num_cuts = 0
    # A word is one byte and a separator, or a SINGLE of three bytes.
    most_words = longest // 2 + 1
    word_hashes = np.empty(most_words, np.uint64)
    chars_before = np.zeros(most_words + 1, np.int64)  # characters of the words before each word
    ngrams = np.empty(most_words, np.int32)
    tallies = np.empty((3, most_words), np.int32)
    line_spans = np.empty((most_lines, 3), np.int64)  # first byte, its text's first and last
    line_cut = np.empty(most_lines, np.bool_)
    table = _new_table(MIN_TABLE_BITS)
    for i in range(num_texts):
        start, end = offsets[i], offsets[i + 1]
        row = counts[i]
        row[CHARS] = _count_chars(data, start, end)
        lines = _split_lines(data, start, end, classes, line_spans)
        row[NEWLINES] = lines - (end > start and data[end - 1] != 0x0A)
        num_words = 0
        for j in range(lines):
            line_start, line_end = line_spans[j, 1], line_spans[j, 2]
            line_cut[j] = False
            if line_start == line_end:
                continue
            words_before = num_words
            num_words, num_sentences = _read_line(
                data,
                line_start,
                line_end,
                kind,
                fold,
                classes,
                stop_words[languages[i]],
                word_hashes,
                chars_before,
                num_words,
                row,
            )
            has_cut_term, num_lorem_ipsum, has_javascript = _find_terms(
                data, line_start, line_end, terms, term_offsets, first_term, lorem_ipsum, javascript
            )
            row[SENTENCES] += num_sentences
            row[LOREM_IPSUMS] += num_lorem_ipsum
            row[JAVASCRIPT_LINES] += has_javascript
            if has_cut_term or num_words - words_before < min_line_words[languages[i]]:
                line_cut[j] = True
                row[LINES_CUT] += 1
            else:
                row[SENTENCES_KEPT] += num_sentences
        row[WORDS] = num_words
        row[WORD_CHARS] = chars_before[num_words]
        most_keys = max(num_words, 2 * lines)  # words, or lines and paragraphs
        if _table_bits(most_keys) > _table_bits(len(table[0]) // 2):
            table = _new_table(_table_bits(most_keys))
        _count_duplicate_lines(data, line_spans, lines, table, row)
        _count_ngrams(word_hashes, chars_before, num_words, ngrams, tallies, table, row)
        if bad_languages[i] < len(bad_first):
            language = bad_languages[i]
            row[BAD_WORDS] = _count_bad_words(
                word_hashes,
                num_words,
                bad_first[language],
                bad_lengths[language],
                bad_terms[bad_ends[language] : bad_ends[language + 1]],
            )
        num_cuts = _cut_lines(data, line_spans, line_cut, lines, start, end, cuts, num_cuts, row)
    return counts, cuts[:num_cuts].copy()


@njit(cache=True, nogil=True)
def _count_words(data: UInt8Array, offsets: Int64Array, kind: UInt8Array) -> Int32Array:
    num_words = np.zeros(len(offsets) - 1, np.int32)
    for text in range(len(num_words)):
        in_word = False
        i = offsets[text]
        while i < offsets[text + 1]:
            code_point, i = decode(data, i, offsets[text + 1])
            what = kind[code_point]
            if what == SINGLE or (what == WORD and not in_word):
                num_words[text] += 1
            if what != MARK:
                in_word = what == WORD
    return num_words


@njit(cache=True, nogil=True)
def _count_byte(data: UInt8Array, start: int, end: int, byte: int) -> int:
    count = 0
    for i in range(start, end):
        count += data[i] == byte
    return count


@njit(cache=True, nogil=True)
def _count_chars(data: UInt8Array, start: int, end: int) -> int:
    """Count the bytes that begin a character."""
    count = 0
    for i in range(start, end):
        count += data[i] & 0xC0 != 0x80
    return count


@njit(cache=True, nogil=True)
def _split_lines(
    data: UInt8Array, start: int, end: int, classes: UInt8Array, spans: Int64Array
) -> int:
    """Fill `spans` with each line's first byte and the bytes of its stripped text; return how many.

    Blank lines are included, with an empty text.
    """
    num_lines = 0
    line = start
    while line < end:
        stop = line
        while stop < end and data[stop] != 0x0A:
            stop += 1
        first = line
        while first < stop:
            code_point, after = decode(data, first, stop)
            if classes[code_point] & SPACE == 0:
                break
            first = after
        last = stop
        while last > first:
            before = last - 1
            while before > first and data[before] & 0xC0 == 0x80:
                before -= 1
            code_point, _ = decode(data, before, last)
            if classes[code_point] & SPACE == 0:
                break
            last = before
        spans[num_lines, 0] = line
        spans[num_lines, 1] = first
        spans[num_lines, 2] = last
        num_lines += 1
        line = stop + 1
    return num_lines


@njit(cache=True, nogil=True)
def _read_line(
    data: UInt8Array,
    start: int,
    end: int,
    kind: UInt8Array,
    fold: UInt32Array,
    classes: UInt8Array,
    stop_words: UInt64Array,
    word_hashes: UInt64Array,
    chars_before: Int64Array,
    num_words: int,
    row: Int64Array,
) -> tuple[int, int]:
    """Append the words of one stripped line, and count what it holds into `row`.

    Returns the number of words so far and the sentences of the line. Marks count as nothing.
    """
    piece_has_word, piece_has_symbol = False, False  # a piece is what white space separates
    num_sentences, sentence_start, stopped = 0, num_words, False
    dot, num_dots, before = 0, 0, 0  # the last run of dots, and the character before this one
    first_class, last_class = -1, 0
    i = start
    while i < end:
        code_point, i = decode(data, i, end)
        what = kind[code_point]
        if what == MARK:
            continue
        if what != SEPARATOR:
            h, length, num_digits, num_upper, i = _read_word(
                code_point, data, i, end, kind, fold, classes
            )
            word_hashes[num_words] = h
            chars_before[num_words + 1] = chars_before[num_words] + length
            num_words += 1
            row[ALPHABETIC_WORDS] += num_digits < length
            row[DIGIT_CHARS] += num_digits
            row[UPPER_CHARS] += num_upper
            row[ALL_CAPS_WORDS] += num_upper > 0 and num_upper + num_digits == length
            for k in range(len(stop_words)):
                if stop_words[k] == h:
                    row[STOP_WORD_BITS] |= 1 << k
                    row[STOP_WORDS_SEEN] += 1
                    break
            first_class, last_class = max(first_class, 0), 0
            piece_has_word, stopped, num_dots, before = True, False, 0, 0
            continue
        its_class = int(classes[code_point])
        if its_class & SPACE:
            row[SYMBOLS] += piece_has_symbol and not piece_has_word
            piece_has_word, piece_has_symbol = False, False
        else:
            first_class = its_class if first_class < 0 else first_class
            last_class = its_class
            piece_has_symbol = True
            row[HASHES] += code_point == 0x23
            row[LEFT_BRACES] += code_point == 0x7B
        if its_class & WIDE_STOP or (its_class & SPACE and stopped):
            num_sentences += num_words > sentence_start
            sentence_start = num_words
        stopped = its_class & STOP != 0 or (stopped and its_class & CLOSER != 0)
        if code_point == ELLIPSIS or code_point == DOTS[0] or code_point == DOTS[1]:
            num_dots = num_dots + 1 if code_point == before else 1
            dot = code_point
            row[ELLIPSES] += num_dots == (1 if dot == ELLIPSIS else MIN_ELLIPSIS_DOTS)
        elif its_class & SPACE == 0:
            num_dots = 0
        before = code_point
    num_sentences += num_words > sentence_start
    row[SYMBOLS] += piece_has_symbol and not piece_has_word
    ends_in_ellipsis = num_dots >= (1 if dot == ELLIPSIS else MIN_ELLIPSIS_DOTS)
    row[BULLET_LINES] += first_class > 0 and first_class & BULLET != 0
    row[ELLIPSIS_LINES] += ends_in_ellipsis
    row[TERMINAL_LINES] += last_class & TERMINAL != 0 and not ends_in_ellipsis
    row[SENTENCE_TERMINAL_LINES] += last_class & SENTENCE_TERMINAL != 0
    return num_words, num_sentences


@njit(cache=True, nogil=True, inline="always")
def _read_word(
    code_point: int,
    data: UInt8Array,
    i: int,
    end: int,
    kind: UInt8Array,
    fold: UInt32Array,
    classes: UInt8Array,
) -> tuple[np.uint64, int, int, int, int]:
    """Return hash, length, digits, upper-case letters, and the end of the word of `code_point`.

    Its next character, if there is one, begins at byte i.
    """
    h, length, num_digits, num_upper = FNV_OFFSET, 0, 0, 0
    is_single = kind[code_point] == SINGLE
    what = WORD
    while True:
        if what == WORD:  # else a mark
            folded = np.int64(fold[code_point])
            h = (h ^ np.uint64(folded)) * FNV_PRIME
            length += 1
            num_digits += int(0x30 <= folded <= 0x39)  # the fold makes ASCII of every digit
            # the fold changes every upper-case letter
            num_upper += folded != code_point and classes[code_point] & UPPER != 0
        if is_single or i >= end:
            break
        code_point, after = decode(data, i, end)
        what = kind[code_point]
        if what in (SINGLE, SEPARATOR):
            break
        i = after
    return h, length, num_digits, num_upper, i


@njit(cache=True, nogil=True)
def _find_terms(
    data: UInt8Array,
    start: int,
    end: int,
    terms: UInt8Array,
    term_offsets: Int64Array,
    first_term: Int64Array,
    lorem_ipsum: int,
    javascript: int,
) -> tuple[bool, int, bool]:
    """Return whether a term of CUT_TERMS is in the bytes, how often LOREM_IPSUM is, and whether
    JAVASCRIPT is."""
    has_cut_term, num_lorem_ipsum, has_javascript = False, 0, False
    for i in range(start, end):
        byte = _ascii_lower(data[i])
        for term in range(first_term[byte], first_term[byte + 1]):
            length = term_offsets[term + 1] - term_offsets[term]
            if i + length > end:
                continue
            k = 1
            while k < length and _ascii_lower(data[i + k]) == terms[term_offsets[term] + k]:
                k += 1
            if k == length and term == lorem_ipsum:
                num_lorem_ipsum += 1
            elif k == length:
                has_cut_term = True
                has_javascript |= term == javascript
    return has_cut_term, num_lorem_ipsum, has_javascript


@njit(cache=True, nogil=True, inline="always")
def _ascii_lower(byte: int) -> int:
    return byte | 0x20 if 0x41 <= byte <= 0x5A else byte


@njit(cache=True, nogil=True)
def _count_duplicate_lines(
    data: UInt8Array, spans: Int64Array, num_lines: int, table: Table, row: Int64Array
) -> None:
    """Count lines and paragraphs, and those that repeat an earlier one."""
    _clear(table)
    bits = _table_bits(2 * num_lines)
    num_keys = 0
    paragraph, paragraph_chars = GOLDEN, 0  # another start than a line's, so both share the table
    for j in range(num_lines + 1):
        if j < num_lines and spans[j, 1] < spans[j, 2]:
            h = FNV_OFFSET
            for i in range(spans[j, 1], spans[j, 2]):
                h = (h ^ np.uint64(data[i])) * FNV_PRIME
            num_chars = _count_chars(data, spans[j, 1], spans[j, 2])
            row[LINES] += 1
            row[LINE_CHARS] += num_chars
            row[SHORT_LINES] += num_chars <= SHORT_LINE_CHARS
            if _find_or_add(table, bits, h, num_keys) < num_keys:
                row[DUPLICATE_LINES] += 1
                row[DUPLICATE_LINE_CHARS] += num_chars
            else:
                num_keys += 1
            paragraph = (paragraph ^ h) * FNV_PRIME
            paragraph_chars += num_chars
        elif paragraph_chars > 0:
            row[PARAGRAPHS] += 1
            if _find_or_add(table, bits, paragraph, num_keys) < num_keys:
                row[DUPLICATE_PARAGRAPHS] += 1
                row[DUPLICATE_PARAGRAPH_CHARS] += paragraph_chars
            else:
                num_keys += 1
            paragraph, paragraph_chars = GOLDEN, 0


@njit(cache=True, nogil=True)
def _count_ngrams(
    word_hashes: UInt64Array,
    chars_before: Int64Array,
    num_words: int,
    ngrams: Int32Array,
    tallies: Int32Array,
    table: Table,
    row: Int64Array,
) -> None:
    """Count the characters inside repeated n-grams, n from 2 to MAX_NGRAM.

    `ngrams[j]` is the number of the n-gram that begins at word j, or -1 when it occurs once. An
    n-gram that occurs twice is made of two (n-1)-grams that do, so each round hashes only pairs of
    what the round before left, and natural text leaves little.
    """
    occurrences = tallies[0]
    for n in range(1, MAX_NGRAM + 1):
        num_positions = num_words - n + 1
        _clear(table)
        bits = _table_bits(num_words)
        num_keys = 0
        for j in range(num_positions):
            if n == 1:
                key = word_hashes[j]
            elif ngrams[j] >= 0 and ngrams[j + 1] >= 0:
                key = np.uint64(ngrams[j]) << np.uint64(32) | np.uint64(ngrams[j + 1])
            else:
                ngrams[j] = -1
                continue
            number = _find_or_add(table, bits, key, num_keys)
            if number == num_keys:
                occurrences[number] = 0
                num_keys += 1
            occurrences[number] += 1
            ngrams[j] = number
        if n == 1:
            row[UNIQUE_WORDS] = num_keys
            row[ENTROPY_MICRONATS] = _entropy_micronats(occurrences[:num_keys], num_words)
        num_repeated = 0
        for j in range(num_positions):
            if ngrams[j] >= 0:
                if occurrences[ngrams[j]] == 1:
                    ngrams[j] = -1
                else:
                    num_repeated += 1
        if num_repeated == 0:
            return  # nor do longer ones repeat
        if 2 <= n <= NGRAMS_TOP[-1]:
            row[NGRAM_CHARS + n - 2] = _top_ngram_chars(
                chars_before, ngrams, num_positions, n, tallies, num_keys
            )
        elif n > NGRAMS_TOP[-1]:
            row[NGRAM_CHARS + n - 2] = _repeated_ngram_chars(chars_before, ngrams, num_positions, n)


@njit(cache=True, nogil=True)
def _entropy_micronats(occurrences: Int32Array, num_words: int) -> int:
    """Return ln N - sum(c ln c) / N in millionths, in which the last bits of a libm are lost."""
    if num_words == 0:
        return 0
    total = 0.0
    for count in occurrences:
        if count > 1:
            total += count * math.log(count)
    return round(1e6 * (math.log(num_words) - total / num_words))


@njit(cache=True, nogil=True)
def _count_bad_words(
    word_hashes: UInt64Array,
    num_words: int,
    first: npt.NDArray[np.bool_],
    lengths: Int32Array,
    terms: UInt64Array,
) -> int:
    """Count the words at which a term begins."""
    found = 0
    for j in range(num_words):
        if not first[word_hashes[j] & np.uint64((1 << FIRST_WORD_BITS) - 1)]:
            continue
        h, length = FNV_OFFSET, 0
        for wanted in lengths:
            if wanted == 0 or j + wanted > num_words:
                break
            while length < wanted:
                h = (h ^ word_hashes[j + length]) * GOLDEN
                length += 1
            place = np.searchsorted(terms, h)
            if place < len(terms) and terms[place] == h:
                found += 1
                break
    return found


@njit(cache=True, nogil=True)
def _top_ngram_chars(
    chars_before: Int64Array,
    ngrams: Int32Array,
    num_positions: int,
    n: int,
    tallies: Int32Array,
    num_keys: int,
) -> int:
    occurrences, covered, covered_to = tallies[0], tallies[1], tallies[2]
    most = 0
    for number in range(num_keys):
        most = max(most, occurrences[number])
        covered[number] = 0
        covered_to[number] = 0
    best = 0
    for j in range(num_positions):
        number = ngrams[j]
        if number >= 0 and occurrences[number] == most:
            start = max(j, covered_to[number])  # overlapping itself: "ha ha ha"
            covered[number] += chars_before[j + n] - chars_before[start]
            covered_to[number] = j + n
            best = max(best, covered[number])
    return best


@njit(cache=True, nogil=True)
def _repeated_ngram_chars(
    chars_before: Int64Array, ngrams: Int32Array, num_positions: int, n: int
) -> int:
    num_chars, covered_to = 0, 0
    for j in range(num_positions):
        if ngrams[j] >= 0:
            num_chars += chars_before[j + n] - chars_before[max(j, covered_to)]
            covered_to = j + n
    return num_chars


@njit(cache=True, nogil=True)
def _cut_lines(
    data: UInt8Array,
    spans: Int64Array,
    line_cut: npt.NDArray[np.bool_],
    num_lines: int,
    start: int,
    end: int,
    cuts: Int32Array,
    num_cuts: int,
    row: Int64Array,
) -> int:
    """Append the spans of the cut lines, from the text's own first byte; return their number."""
    cutting = False
    for j in range(num_lines):
        is_blank = spans[j, 1] == spans[j, 2]
        if not line_cut[j] and not (is_blank and cutting):
            cutting = False
            continue
        if not cutting:
            cuts[num_cuts, 0] = spans[j, 0] - start
            num_cuts += 1
            row[CUTS] += 1
            cutting = True
        after = spans[j + 1, 0] if j + 1 < num_lines else end
        cuts[num_cuts - 1, 1] = after - start
        row[BYTES_CUT] += after - spans[j, 0]
        row[CHARS_CUT] += _count_chars(data, spans[j, 0], after)
    return num_cuts


@njit(cache=True, nogil=True)
def _table_bits(num_keys: int) -> int:
    """Return the size, as a power of two, of a table that `num_keys` keys fill to at most half."""
    bits = MIN_TABLE_BITS
    while (1 << bits) < 2 * num_keys:
        bits += 1
    return bits


@njit(cache=True, nogil=True)
def _new_table(bits: int) -> Table:
    """Return an open-addressing table: keys, their numbers, the stamp of each slot, and the stamp.

    A slot is taken when it bears the present stamp, so clearing costs nothing, and a small text
    uses only the first slots of a large table.
    """
    size = 1 << bits
    return (
        np.empty(size, np.uint64),
        np.empty(size, np.int32),
        np.zeros(size, np.int32),
        np.zeros(1, np.int32),
    )


@njit(cache=True, nogil=True, inline="always")
def _clear(table: Table) -> None:
    table[3][0] += 1


@njit(cache=True, nogil=True, inline="always")
def _find_or_add(table: Table, bits: int, key: np.uint64, number: int) -> int:
    """Return the number of a key; a new key gets `number`."""
    keys, numbers, stamps, stamp = table
    mask = (1 << bits) - 1
    slot = np.int64((key * GOLDEN) >> np.uint64(64 - bits))
    while stamps[slot] == stamp[0]:
        if keys[slot] == key:
            return int(numbers[slot])
        slot = (slot + 1) & mask
    keys[slot] = key
    numbers[slot] = number
    stamps[slot] = stamp[0]
    return number
