"""Measure how often bytes become the right characters, as Markdown tables.

    CURATION_GOLD_DATA=FOLDER python tests/bench/charsets.py

The folder holds `encoding-chardet-a` (files by encoding) and `langid-lingua-a` (sentences by
language), which are not part of this project. Right means: the same characters as Python's codec
for the encoding gives. `named`: the HTTP header says it; `detected`: nothing does.

The files come from chardet's own tests, so chardet may know them; the sentences, put into a page
with some markup and encoded, it does not. Detectors that are installed are compared on both.
"""

import contextlib
import gzip
import os
import re
import sys
import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from resiliparse.parse.encoding import detect_encoding

from curation.ingest import charset

# Codecs that read folders of the set as browsers do; None: no codec. Others: the folder's name.
CODECS = {
    "Big5": "big5hkscs",
    "EUC-KR": "cp949",
    "EUC-TW": None,
    "GB2312": "gb18030",
    "MacCyrillic": "mac_cyrillic",
    "SHIFT_JIS": "cp932",
    "TIS-620": "cp874",
    "iso-2022-jp": "iso2022_jp_ext",
    "iso-8859-1": "cp1252",
}
BY_LANGUAGE = {
    **{"zh": "gb18030 big5", "ja": "cp932 euc_jp iso2022_jp", "ko": "cp949"},
    **{"ru": "koi8_r cp1251 cp866 iso8859_5", "uk": "koi8_u cp1251", "bg": "cp1251"},
    **dict.fromkeys(("pl", "cs", "hu"), "cp1250 iso8859_2"),
    **{"ro": "cp1250", "el": "cp1253 iso8859_7", "tr": "cp1254", "he": "cp1255", "ar": "cp1256"},
    **{"fa": "cp1256", "lt": "cp1257", "lv": "cp1257", "et": "cp1257", "vi": "cp1258"},
    **{"th": "cp874"},
    **dict.fromkeys(("de", "fr", "es", "pt", "it", "sv", "fi", "da", "nl", "is"), "cp1252"),
}
Decoder = Callable[[bytes], str | None]


def main() -> None:
    if not os.environ.get("CURATION_GOLD_DATA"):
        sys.exit("CURATION_GOLD_DATA names no folder; set it to the one with encoding-chardet-a")
    folder = Path(os.environ["CURATION_GOLD_DATA"])
    rows = defaultdict(lambda: [0, 0, 0])
    for name, octets, text in files(folder):
        row = rows[name]
        row[0] += 1
        row[1] += charset.decode(octets, name) == text
        row[2] += charset.decode(octets) == text
    print("| encoding | files | named | detected |\n|---|---:|---:|---:|")
    for name, counts in sorted(rows.items(), key=lambda row: row[0].lower()):
        print(f"| {name} | {' | '.join(map(str, counts))} |")
    print(
        f"| all | {' | '.join(str(sum(column)) for column in zip(*rows.values(), strict=True))} |"
    )
    print("\n| detector | files | 1 sentence | 5 sentences | 20 sentences | MB/s |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, decode in decoders():
        seconds, num_bytes, cells = 0.0, 0, []
        for sample in (files(folder), *(pages(folder, size) for size in (1, 5, 20))):
            right = defaultdict(list)
            for key, octets, text in sample:
                start = time.process_time()
                right[key].append(decode(octets) == text)
                seconds += time.process_time() - start
                num_bytes += len(octets)
            if not cells:
                cells.append(f"{sum(map(sum, right.values()))}")
            else:  # every pair of language and encoding counts the same
                cells.append(f"{sum(sum(v) / len(v) for v in right.values()) / len(right):.3f}")
        print(f"| {name} | {' | '.join(cells)} | {num_bytes / seconds / 1e6:.1f} |")


def files(folder: Path) -> Iterator[tuple[str, bytes, str]]:
    """Yield (encoding, bytes, text) of the files whose encoding has a codec."""
    for path in sorted(folder.glob("encoding-chardet-a/*/*")):
        name = re.sub(r"^((?:windows|iso-8859)-\d+)-.*", r"\1", path.parent.name)
        codec = CODECS.get(name, name)
        if codec:
            octets = path.read_bytes()
            yield name, octets, octets.decode(codec, "replace").removeprefix("\ufeff")


def pages(folder: Path, size: int) -> Iterator[tuple[str, bytes, str]]:
    """Yield (language and encoding, bytes, text) of pages of so many sentences, that many times."""
    sentences = defaultdict(list)
    with gzip.open(folder / "langid-lingua-a" / "sentences.tsv.gz", "rt") as lines:
        for line in lines:
            language, _, sentence = line.rstrip("\n").partition("\t")
            sentences[language].append(sentence)
    for language, codecs in BY_LANGUAGE.items():
        for codec in codecs.split():
            for start in range(0, min(len(sentences[language]), 160 if size > 1 else 60), size):
                some = sentences[language][start : start + size]
                body = "".join(f'<div class="row"><p>{text}</p></div>\n' for text in some)
                page = (
                    f"<!DOCTYPE html><html><head><title>{some[0][:20]}</title><script>function f(x)"
                    f'{{return x}}</script></head><body class="home">{body}</body></html>'
                )
                if codec == "cp1258":
                    page = unicodedata.normalize("NFD", page)
                octets = page.encode(codec, "xmlcharrefreplace")
                if not octets.isascii() or codec == "iso2022_jp":
                    yield f"{language} {codec}", octets, octets.decode(codec)


def decoders() -> Iterator[tuple[str, Decoder]]:
    """Yield ours, and what a detector's label gives with the codec that browsers would take."""
    yield "curation (chardet 7, markup left out)", charset.decode
    yield "Resiliparse", labelled(detect_encoding)
    try:
        import chardet
        import charset_normalizer
    except ImportError:
        return
    yield "chardet, all encodings", labelled(lambda octets: chardet.detect(octets)["encoding"])
    best = charset_normalizer.from_bytes
    yield (
        "charset-normalizer",
        labelled(lambda octets: getattr(best(octets).best(), "encoding", "")),
    )
    try:
        import chardetng_py
    except ImportError:
        return
    yield "chardetng", labelled(chardetng_py.detect)


def labelled(detect: Callable[[bytes], str | None]) -> Decoder:
    def decode(octets: bytes) -> str | None:
        label = (detect(octets) or "ascii").replace("_", "-")
        if b"\x1b" not in octets and b"\0" not in octets:  # UTF-8 is easily seen: so for all
            with contextlib.suppress(UnicodeDecodeError):
                return octets.decode("utf-8").removeprefix("\ufeff")
        try:
            return octets.decode(charset.codec(label) or label, "replace").removeprefix("\ufeff")
        except LookupError:
            return None

    return decode


if __name__ == "__main__":
    main()
