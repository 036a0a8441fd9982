"""The language and the script of a text, by fastText's lid.176 model and Unicode's tables.

Both look at the first characters only, cleaned of what belongs to no language. The table of scripts
in `unicode_scripts.npz` is made of Unicode's files, so that no machine's Unicode version decides:

    python -m curation.ingest.langid /usr/share/unicode    # Debian's package unicode-data
"""

import bz2
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curation.ingest.text import NUM_CODE_POINTS, UInt8Array, decode, utf8_buffers

# Characters that are read. A document in one language is recognised from far fewer; the bound
# keeps the cost of a page independent of its length.
MAX_CHARACTERS = 2_000
LABEL_PREFIX = "__label__"

# What cleaning does was chosen by measuring each part (tests/bench/langid.py). Left out: lower
# case, which gains little on sentences and loses more on Chinese pages with some English; tags and
# entities, whose removal makes no difference once their signs are gone.
ADDRESSES = r"(?:https?://|www\.)\S+|\S+@\S+"
STOPS = tuple(map(ord, ".,\u3002\uff0c"))  # kept: they part sentences, and differ by script
JOINERS = "'\u2019\u200c\u200d"  # inside words: apostrophes and zero-width (non-)joiners

# Scripts (ISO 15924) that a language is written in: the labels of lid.176, by script. Others are
# taken in any script. Latin and Arabic stand where a country or a century used them.
_LANGUAGES_OF_SCRIPT = {
    "Latn": "af als an ast az bar bcl br bs ca cbk ceb co cs cy da de diq dsb eml en eo es et eu "
    "fi fr frr fy ga gd gl gn gom gv hif hr hsb ht hu ia id ie ilo io is it jbo jv kk ku kw la lb "
    "li lmo lt lv mg min ms mt mwl nah nap nds nl nn no oc pam pfl pl pms pt qu rm ro sc scn sco "
    "sh sk sl so sq sr su sv sw tg tk tl tr tt ug uz vec vep vi vls vo wa war yo",
    "Cyrl": "av az ba be bg bs bxr ce cv kk krc ku kv ky lez mhr mk mn mrj myv os ro ru rue sah sh "
    "sr tg tk tt tyv ug uk uz xal",
    "Arab": "ar arz az azb ckb fa kk ku ky lrc ms mzn pa pnb ps sd tg tk ug ur uz",
    "Deva": "bh dty gom hi hif mai mr ne new sa sd",
    **{"Armn": "hy", "Beng": "as bn bpy", "Ethi": "am", "Geor": "ka xmf", "Grek": "el"},
    **{"Gujr": "gu", "Guru": "pa", "Hang": "ko", "Hani": "zh yue wuu", "Hebr": "he yi"},
    **{"Java": "jv", "Jpan": "ja", "Khmr": "km", "Knda": "kn", "Laoo": "lo", "Mlym": "ml"},
    **{"Mong": "mn", "Mymr": "my", "Orya": "or", "Sinh": "si", "Sund": "su", "Taml": "ta"},
    **{"Telu": "te", "Thaa": "dv", "Thai": "th", "Tibt": "bo"},
}
LANGUAGE_SCRIPTS: dict[str, tuple[str, ...]] = {
    language: tuple(s for s, listed in _LANGUAGES_OF_SCRIPT.items() if language in listed.split())
    for languages in _LANGUAGES_OF_SCRIPT.values()
    for language in languages.split()
}
# Scripts made of several; Han is counted in three columns, see `build_table`.
PARTS_OF_SCRIPT = {
    "Hani": ("Hani", "Hans", "Hant"),
    "Jpan": ("Hira", "Kana", "Hani", "Hans", "Hant"),
}

# ISO 639-3 codes of labels like eng_Latn, and what lid.176 calls the language.
_ISO_639_1 = (
    "aar:aa abk:ab ave:ae afr:af aka:ak amh:am arg:an ara:ar asm:as ava:av aym:ay aze:az bak:ba "
    "bel:be bul:bg bis:bi bam:bm ben:bn bod:bo bre:br bos:bs cat:ca che:ce cha:ch cos:co cre:cr "
    "ces:cs chu:cu chv:cv cym:cy dan:da deu:de div:dv dzo:dz ewe:ee ell:el eng:en epo:eo spa:es "
    "est:et eus:eu fas:fa ful:ff fin:fi fij:fj fao:fo fra:fr fry:fy gle:ga gla:gd glg:gl grn:gn "
    "guj:gu glv:gv hau:ha heb:he hin:hi hmo:ho hrv:hr hat:ht hun:hu hye:hy her:hz ina:ia ind:id "
    "ile:ie ibo:ig iii:ii ipk:ik ido:io isl:is ita:it iku:iu jpn:ja jav:jv kat:ka kon:kg kik:ki "
    "kua:kj kaz:kk kal:kl khm:km kan:kn kor:ko kau:kr kas:ks kur:ku kom:kv cor:kw kir:ky lat:la "
    "ltz:lb lug:lg lim:li lin:ln lao:lo lit:lt lub:lu lav:lv mlg:mg mah:mh mri:mi mkd:mk mal:ml "
    "mon:mn mar:mr msa:ms mlt:mt mya:my nau:na nde:nd nep:ne ndo:ng nld:nl nno:nn nor:no nbl:nr "
    "nav:nv nya:ny oci:oc oji:oj orm:om ori:or oss:os pan:pa pli:pi pol:pl pus:ps por:pt que:qu "
    "roh:rm run:rn ron:ro rus:ru kin:rw san:sa srd:sc snd:sd sme:se sag:sg hbs:sh sin:si slk:sk "
    "slv:sl smo:sm sna:sn som:so sqi:sq srp:sr ssw:ss sot:st sun:su swe:sv swa:sw tam:ta tel:te "
    "tgk:tg tha:th tir:ti tuk:tk tgl:tl tsn:tn ton:to tur:tr tso:ts tat:tt twi:tw tah:ty uig:ug "
    "ukr:uk urd:ur uzb:uz ven:ve vie:vi vol:vo wln:wa wol:wo xho:xh yid:yi yor:yo zha:za zho:zh "
    "zul:zu "
    # members of macrolanguages that models name for the whole
    "als:sq arb:ar ayr:ay azj:az cmn:zh ekk:et fil:tl gaz:om gug:gn khk:mn kmr:ku knc:kr lvs:lv "
    "nob:no npi:ne ory:or pbt:ps pes:fa plt:mg quy:qu swh:sw uzn:uz ydd:yi zsm:ms"
)
ISO_639_1 = dict(pair.split(":") for pair in _ISO_639_1.split())

LANGUAGE_TYPE = pa.struct(
    [
        ("code", pa.string()),
        ("score", pa.float32()),
        ("script", pa.string()),
        ("script_share", pa.float32()),
    ]
)
SEPARATOR, NO_SCRIPT, FIRST_SCRIPT = 0, 1, 2  # values of the table of scripts

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


class LanguageModel(Protocol):
    """A loaded fastText model; `f` is fastText's binding (its wrapper fails under NumPy 2)."""

    f: Any


def _load_table() -> tuple[UInt8Array, list[str]]:
    with resources.files("curation.ingest").joinpath("unicode_scripts.npz").open("rb") as file:
        table = np.load(file)
        return table["script"], table["names"].tolist()


def detect(text: pa.Array, model: LanguageModel) -> pa.StructArray:
    """Return struct{code, score, script, script_share} per text, of its first 2,000 characters.

    code: the model's best label; those in the form of GlotLID and OpenLID (`eng_Latn`) as ISO 639-1
    where there is a code. score: its probability, 0..1 (fastText's float sums reach 1.00006).
    script: ISO 15924, the one with most letters among those of the language, or among all where it
    has none of these. Chinese is Hans or Hant by the characters that exist in one script only, Hani
    where these are none or even. script_share: share of the letters that are in scripts of the
    language; null for a language that is not in LANGUAGE_SCRIPTS.

    Null for a null text and for one without a letter. Cost: one Python string per document, as the
    library wants it; about 3,000 documents of 2,000 characters a second and core.
    """
    cleaned, letters = clean(text)
    codes: list[str | None] = []
    scores: list[float | None] = []
    for line in cleaned.to_pylist():
        best = model.f.predict(line, 1, 0.0, "strict") if line else []
        codes.append(_code(best[0][1]) if best else None)
        scores.append(min(best[0][0], 1.0) if best else None)
    code = pa.array(codes, pa.string())
    script, share = _scripts(codes, letters)
    return pa.StructArray.from_arrays(
        [code, pa.array(scores, pa.float32()), script, share],
        fields=list(LANGUAGE_TYPE),
        mask=pa.array(np.asarray(code.is_null())),
    )


def clean(text: pa.Array) -> tuple[pa.LargeStringArray, Int32Array]:
    """Return what a model shall read of each text, and its letters by script [text, SCRIPTS].

    Addresses go; letters stay with their marks; whatever is between them becomes one space, after
    its first full stop or comma, if it has one. Empty for a null.
    """
    head = pc.utf8_slice_codeunits(text, 0, MAX_CHARACTERS)
    head = pc.replace_substring_regex(head, ADDRESSES, " ")
    buffer, offsets = utf8_buffers(head)
    cleaned, ends, letters = _clean(buffer, offsets, SCRIPT, len(SCRIPTS))
    return (
        pa.LargeStringArray.from_buffers(len(text), pa.py_buffer(ends), pa.py_buffer(cleaned)),
        letters,
    )


def _code(label: str) -> str:
    code, _, script = label.removeprefix(LABEL_PREFIX).partition("_")
    # without a script it is lid.176's own code: its `als` is Alemannic, not Albanian
    return ISO_639_1.get(code, code) if script else code


def _scripts(codes: list[str | None], letters: Int32Array) -> tuple[pa.Array, pa.Array]:
    """Return the script of each text and the share of letters in the scripts of its language."""
    script = np.full(len(codes), None, object)
    share = np.full(len(codes), np.nan)
    total = letters.sum(axis=1)
    rows_of = defaultdict(list)
    for row, code in enumerate(codes):
        rows_of[code].append(row)
    for code, rows in rows_of.items():
        known = LANGUAGE_SCRIPTS.get(code or "")
        if known:
            own = _by_script(letters[rows], known)
            share[rows] = own.sum(axis=1) / np.maximum(total[rows], 1)
            script[rows] = np.where(own.any(axis=1), np.array(known, object)[own.argmax(1)], None)
    rest = [row for row in np.flatnonzero(total) if script[row] is None]
    most = _by_script(letters[rest], ALL_SCRIPTS).argmax(axis=1)
    script[rest] = np.array(ALL_SCRIPTS, object)[most]
    hans, hant = (letters[:, SCRIPTS.index(name)] for name in ("Hans", "Hant"))
    is_han = script == "Hani"
    script[is_han & (hans > hant)] = "Hans"
    script[is_han & (hans < hant)] = "Hant"
    return pa.array(script, pa.string()), pa.array(share, pa.float32(), mask=np.isnan(share))


def _by_script(letters: Int32Array, scripts: tuple[str, ...]) -> Int64Array:
    columns = [
        letters[:, [SCRIPTS.index(part) for part in PARTS_OF_SCRIPT.get(script, (script,))]].sum(1)
        for script in scripts
    ]
    return np.stack(columns, axis=1)


@njit(cache=True, nogil=True)
def _clean(
    buffer: UInt8Array, offsets: Int64Array, table: UInt8Array, num_scripts: int
) -> tuple[UInt8Array, Int64Array, Int32Array]:
    num_texts = len(offsets) - 1
    letters = np.zeros((num_texts, num_scripts), np.int32)
    ends = np.zeros(num_texts + 1, np.int64)
    # a lone stop of one byte becomes two; nothing else grows
    cleaned = np.empty(2 * (offsets[-1] - offsets[0]), np.uint8)
    end = 0
    for text in range(num_texts):
        start = end
        stop_at, stop_bytes, is_apart = 0, 0, False
        i = offsets[text]
        while i < offsets[text + 1]:
            code_point, following = decode(buffer, i, offsets[text + 1])
            kind = table[code_point]
            if kind == SEPARATOR:
                is_apart = True
                if stop_bytes == 0 and code_point in STOPS:
                    stop_at, stop_bytes = i, following - i
            else:
                if is_apart and end > start:
                    for k in range(stop_bytes):
                        cleaned[end + k] = buffer[stop_at + k]
                    cleaned[end + stop_bytes] = 32
                    end += stop_bytes + 1
                stop_bytes, is_apart = 0, False
                for k in range(i, following):
                    cleaned[end] = buffer[k]
                    end += 1
                if kind >= FIRST_SCRIPT:
                    letters[text, kind - FIRST_SCRIPT] += 1
            i = following
        if end > start:
            for k in range(stop_bytes):
                cleaned[end + k] = buffer[stop_at + k]
            end += stop_bytes
        ends[text + 1] = end
    return cleaned[:end], ends, letters


def build_table(folder: Path) -> tuple[UInt8Array, list[str]]:
    """Compute the script of every letter and mark from files of the Unicode Character Database.

    Values: 0 for anything else, 1 for letters and marks of no or several scripts, from 2 on the
    scripts in the order of the names returned. A Han character is Hans if Unihan knows other
    characters as its traditional form and none as its simplified one, Hant in the reverse case, and
    Hani if it is at home in both.
    """
    script_of = _script_property(folder) | _han_variants(folder)
    scripts = sorted(set(script_of.values()) - {"Zyyy", "Zinh"})
    table = np.zeros(NUM_CODE_POINTS, np.uint8)
    for span, category in _categories(folder / "UnicodeData.txt"):
        if category[0] in "LM":
            for code_point in span:
                name = script_of.get(code_point, "Zzzz")
                has_one = name in scripts
                table[code_point] = FIRST_SCRIPT + scripts.index(name) if has_one else NO_SCRIPT
    for joiner in JOINERS:
        table[ord(joiner)] = NO_SCRIPT
    return table, scripts


def _script_property(folder: Path) -> dict[int, str]:
    codes = {}
    for kind, code, name, *_ in _fields(folder / "PropertyValueAliases.txt"):
        if kind == "sc":
            codes[name] = code
    return {
        code_point: codes[name]
        for span, name in _fields(folder / "Scripts.txt")
        for code_point in _code_points(span)
    }


def _han_variants(folder: Path) -> dict[int, str]:
    variants: dict[str, dict[int, set[int]]] = defaultdict(dict)
    for line in _lines(folder / "Unihan_Variants.txt"):
        code_point, field, others = line.split("\t")
        found = {int(match, 16) for match in re.findall(r"U\+([0-9A-F]+)", others)}
        variants[field][int(code_point[2:], 16)] = found
    simplified, traditional = variants["kSimplifiedVariant"], variants["kTraditionalVariant"]
    return {
        code_point: script
        for forms, opposite, script in (
            (simplified, traditional, "Hant"),
            (traditional, simplified, "Hans"),
        )
        for code_point, found in forms.items()
        if code_point not in found and not opposite.get(code_point, set()) - {code_point}
    }


def _categories(path: Path) -> Iterator[tuple[range, str]]:
    first = 0
    for line in _lines(path):
        code, name, category, *_ = line.split(";")
        if name.endswith("First>"):
            first = int(code, 16)
        else:
            last = int(code, 16)
            yield range(first if name.endswith("Last>") else last, last + 1), category


def _code_points(span: str) -> range:
    first, _, last = span.partition("..")
    return range(int(first, 16), int(last or first, 16) + 1)


def _fields(path: Path) -> Iterator[list[str]]:
    for line in _lines(path):
        yield [field.strip() for field in line.split(";")]


def _lines(path: Path) -> Iterator[str]:
    packed = path.with_name(path.name + ".bz2")
    octets = bz2.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    for line in octets.decode().splitlines():
        content = line.partition("#")[0].strip()
        if content:
            yield content


if __name__ == "__main__":
    made, made_names = build_table(Path(sys.argv[1]))
    made_path = str(resources.files("curation.ingest").joinpath("unicode_scripts.npz"))
    np.savez_compressed(made_path, script=made, names=np.array(made_names))
else:
    SCRIPT, SCRIPTS = _load_table()
    ALL_SCRIPTS = tuple(name for name in SCRIPTS if name not in ("Hans", "Hant"))
