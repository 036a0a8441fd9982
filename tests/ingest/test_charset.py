# ruff: noqa: RUF001
"""Bytes to characters: every encoding by every way to name it, published cases, real files."""

import codecs
import gzip
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.charset import META_BYTES, decode, detect, meta_charset
from curation.ingest.warc import read_records

DUMPS = Path(__file__).parents[1] / "data" / "dumps"
GOLD = os.environ.get("CURATION_GOLD_DATA")
needs_gold = pytest.mark.skipif(not GOLD, reason="CURATION_GOLD_DATA names no folder of gold data")

CHINESE = "<html><head>{}<title>题</title></head><body><p>" + "这是中文页面的正文。" * 20

# Sentences by language, written for this test, and the labels of the encodings that hold them.
SENTENCES = {
    "zh-Hans": (
        "昨天下午，我们在图书馆里找到了一本关于古代桥梁的书。",
        "这座城市的地铁每天早上五点半开始运行，深夜才停。",
        "如果明天不下雨，孩子们就去河边放风筝。",
        "老师把试卷发给大家，教室里立刻安静下来。",
    ),
    "zh-Hant": (
        "昨天下午，我們在圖書館裡找到了一本關於古代橋樑的書。",
        "這座城市的地鐵每天早上五點半開始運行，深夜才停。",
        "如果明天不下雨，孩子們就去河邊放風箏。",
        "老師把試卷發給大家，教室裡立刻安靜下來。",
    ),
    "ja": (
        "昨日の午後、図書館で古い橋についての本を見つけました。",
        "この町の電車は毎朝五時半に動き始めます。",
        "あした雨が降らなければ、子どもたちは川でたこあげをします。",
        "先生がテストを配ると、教室はすぐに静かになった。",
    ),
    "ko": (
        "어제 오후에 우리는 도서관에서 오래된 다리에 관한 책을 찾았습니다.",
        "이 도시의 지하철은 매일 아침 다섯 시 반에 운행을 시작합니다.",
        "내일 비가 오지 않으면 아이들은 강가에서 연을 날릴 것입니다.",
        "선생님이 시험지를 나누어 주자 교실이 곧 조용해졌습니다.",
    ),
    "ru": (
        "Вчера днём мы нашли в библиотеке книгу о старинных мостах.",
        "Метро в этом городе открывается каждое утро в половине шестого.",
        "Если завтра не будет дождя, дети пойдут к реке запускать змея.",
        "Учитель раздал контрольные, и в классе сразу стало тихо.",
    ),
    "pl": (
        "Wczoraj po południu znaleźliśmy w bibliotece książkę o dawnych mostach.",
        "Jeśli jutro nie będzie padać, dzieci pójdą nad rzekę puszczać latawce.",
        "Nauczyciel rozdał kartkówki i w klasie od razu zrobiło się cicho.",
    ),
    "fr": (
        "Hier après-midi, nous avons trouvé à la bibliothèque un livre sur les ponts anciens.",
        "S'il ne pleut pas demain, les élèves iront près de la rivière à vélo.",
        "Le maître a distribué les contrôles et la classe s'est tue aussitôt.",
    ),
    "el": (
        "Χθες το απόγευμα βρήκαμε στη βιβλιοθήκη ένα βιβλίο για παλιές γέφυρες.",
        "Αν δεν βρέξει αύριο, τα παιδιά θα πάνε στο ποτάμι.",
    ),
    "tr": (
        "Dün öğleden sonra kütüphanede eski köprüler hakkında bir kitap bulduk.",
        "Yarın yağmur yağmazsa çocuklar ırmağın kıyısında uçurtma uçuracak.",
    ),
    "he": (
        "אתמול אחר הצהריים מצאנו בספרייה ספר על גשרים עתיקים.",
        "אם לא ירד גשם מחר, הילדים ילכו אל הנהר.",
    ),
    "ar": (
        "وجدنا بعد ظهر أمس في المكتبة كتابا عن الجسور القديمة.",
        "إذا لم تمطر غدا فسيذهب الأطفال إلى النهر.",
    ),
    "th": ("เมื่อวานตอนบ่ายเราพบหนังสือเกี่ยวกับสะพานโบราณในห้องสมุด", "ถ้าพรุ่งนี้ฝนไม่ตก เด็กๆ จะไปเล่นว่าวที่ริมแม่น้ำ"),
    "lt": (
        "Vakar po pietų bibliotekoje radome knygą apie senovinius tiltus.",
        "Jeigu rytoj nelis, vaikai eis prie upės leisti aitvarų, o mokytoja juos palydės.",
    ),
}
ENCODINGS = [  # language, label of the page, Python's codec
    ("zh-Hans", "GB2312", "gb2312"),
    ("zh-Hans", "GBK", "gbk"),
    ("zh-Hans", "gb18030", "gb18030"),
    ("zh-Hant", "Big5", "big5"),
    ("zh-Hant", "gb18030", "gb18030"),
    ("ja", "Shift_JIS", "shift_jis"),
    ("ja", "EUC-JP", "euc_jp"),
    ("ja", "ISO-2022-JP", "iso2022_jp"),
    ("ko", "EUC-KR", "euc_kr"),
    ("ru", "KOI8-R", "koi8_r"),
    ("ru", "windows-1251", "cp1251"),
    ("ru", "IBM866", "cp866"),
    ("ru", "ISO-8859-5", "iso8859_5"),
    ("pl", "windows-1250", "cp1250"),
    ("pl", "ISO-8859-2", "iso8859_2"),
    ("fr", "windows-1252", "cp1252"),
    ("fr", "ISO-8859-1", "iso8859_1"),
    ("el", "windows-1253", "cp1253"),
    ("tr", "windows-1254", "cp1254"),
    ("he", "windows-1255", "cp1255"),
    ("ar", "windows-1256", "cp1256"),
    ("lt", "windows-1257", "cp1257"),
    ("th", "TIS-620", "tis_620"),
    *((language, "UTF-8", "utf_8") for language in SENTENCES),
    *((language, "UTF-16LE", "utf_16_le") for language in SENTENCES),
]
by_encoding = pytest.mark.parametrize(
    ("language", "label", "codec"), ENCODINGS, ids=[f"{e[0]}-{e[1]}" for e in ENCODINGS]
)


def page_of(sentences, meta=""):
    paragraphs = "".join(f"<p>{sentence}</p>\n" for sentence in sentences)
    return (
        f"<!DOCTYPE html><html><head>{meta}<title>T</title></head><body>{paragraphs}</body></html>"
    )


# --- every encoding by every way to name it ------------------------------------------------------


@by_encoding
@given(data=st.data())
def test_a_page_is_recovered_however_its_encoding_is_named(language, label, codec, data):
    some = st.lists(st.sampled_from(SENTENCES[language]), min_size=1, max_size=8)
    sentences = data.draw(some)
    page = page_of(sentences)
    assert decode(page.encode(codec), label) == page
    assert decode(page.encode(codec), f'"{label.lower()}"; x=y') == page
    for meta in (
        f"<meta charset={label}>",
        f'<META http-equiv="Content-Type" content="text/html; charset={label}">',
    ):
        if not label.startswith("UTF-16"):  # a <meta> cannot be read in it
            page = page_of(sentences, meta)
            assert decode(page.encode(codec)) == page


@by_encoding
def test_an_encoding_that_nobody_names_is_detected(language, label, codec):
    page = page_of(SENTENCES[language] * 2)
    assert decode(page.encode(codec)) == page


@pytest.mark.parametrize(
    ("language", "codec"),
    [("zh", "gb18030"), ("zh", "utf_8"), ("en", "cp1252"), ("en", "utf_8"), ("en", "utf_16_be")],
)
def test_pages_of_the_demo_survive_another_encoding(language, codec):
    with gzip.open(DUMPS / "docs.jsonl.gz", "rt") as lines:
        urls = {doc["url"] for doc in map(json.loads, lines) if doc["lang"] == language}
    pages = [
        row["payload"].decode()
        for batch in read_records(str(sorted(DUMPS.glob("*.warc.gz"))[0]))
        for row in batch.to_pylist()
        if row["payload"] and row["url"] in urls
    ]
    num_pages = num_detected = 0
    for page in pages:
        octets = re.sub(r"<meta[^>]*charset[^>]*>", "", page).encode(codec, "xmlcharrefreplace")
        text = octets.decode(codec)
        assert decode(octets, codec.replace("_", "-")) == text
        num_pages += 1
        num_detected += decode(octets) == text
    assert num_pages > 50
    assert num_detected >= 0.95 * num_pages  # some hold six Chinese characters


# --- what the ways to name it say against each other ---------------------------------------------


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ],
)
def test_a_byte_order_mark_overrules_the_header(mark, encoding):
    page = CHINESE.format("")
    assert decode(mark + page.encode(encoding), "iso-8859-1") == page
    assert decode(mark + "é".encode(encoding), "iso-8859-1") == "é"


def test_the_header_overrules_meta():
    page = page_of(SENTENCES["ru"], "<meta charset=windows-1251>")
    assert decode(page.encode("koi8-r"), "koi8-r") == page


def test_meta_counts_where_the_header_names_nothing_known():
    page = page_of(SENTENCES["ru"], "<meta charset=koi8-r>")
    assert decode(page.encode("koi8-r"), "no-such-charset") == page
    assert decode(page.encode("koi8-r"), "") == page


@by_encoding
def test_a_page_that_is_no_utf_8_is_not_taken_for_it(language, label, codec):
    page = page_of(SENTENCES[language])
    octets = page.encode(codec)
    if codec not in ("utf_8", "iso2022_jp") and not octets.isascii():
        assert decode(octets, "utf-8") == page


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("wrong", ["gbk", "big5", "shift_jis", "euc-kr", "iso-8859-1", "koi8-r"])
def test_a_page_in_utf_8_is_utf_8_under_any_label(language, wrong):
    page = page_of(SENTENCES[language] * 2, f"<meta charset={wrong}>")
    assert decode(page.encode(), wrong) == page
    assert decode(page.encode()) == page


def test_two_letters_that_look_like_utf_8_are_not_enough():
    page = page_of(["Ã©"])  # what windows-1252 makes of one é in UTF-8
    assert decode(page.encode("cp1252"), "windows-1252") == page
    page = page_of(["模"])  # in GBK it is one Latvian letter of UTF-8
    assert page.encode("gbk").decode("utf-8") != page
    assert decode(page.encode("gbk"), "gbk") == page


# --- broken bytes --------------------------------------------------------------------------------


@by_encoding
def test_one_broken_byte_costs_no_more_than_its_character(language, label, codec):
    page = page_of(SENTENCES[language] * 3)
    octets = page.encode(codec)
    if label in ("UTF-8", "GBK", "gb18030", "Big5", "EUC-KR", "EUC-JP", "Shift_JIS"):
        lost = "\uf8f3" if codec == "shift_jis" else "\ufffd"  # CP932 keeps FF for private use
        assert decode(octets + b"\xff\n" + octets, label) == f"{page}{lost}\n{page}"


@pytest.mark.parametrize(("language", "codec"), [("zh-Hans", "utf_8"), ("ja", "euc_jp")])
def test_a_page_cut_inside_a_character_loses_that_character_only(language, codec):
    octets = page_of(SENTENCES[language])[:-40].rstrip("</p>\n").encode(codec)
    assert decode(octets[:-1], codec.replace("_", "-")) == octets[:-1].decode(codec, "ignore")


def test_a_label_that_fits_nothing_is_still_better_than_none():
    octets = page_of(["caf\xe9"]).encode("latin-1")
    assert decode(octets, "utf-8") in (page_of(["caf\xe9"]), page_of(["caf\ufffd"]))


@given(st.binary(max_size=400), st.sampled_from([None, "utf-8", "gbk", "euc-jp", "big5", "x"]))
def test_any_bytes_decode_or_are_no_text(octets, label):
    text = decode(octets, label)
    assert text is None or not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def test_bytes_that_are_no_text_are_none():
    assert decode(bytes(range(256)) * 20) is None


# --- what browsers read beyond Python's codecs ---------------------------------------------------


def test_nec_characters_of_euc_jp():
    # row 13 of JIS X 0208 as NEC filled it; JIS X 0213 put the circled numbers in the same places
    octets = bytes(byte for cell in range(20) for byte in (0xAD, 0xA1 + cell))
    with pytest.raises(UnicodeDecodeError):
        octets.decode("euc_jp")
    assert decode(octets, "euc-jp") == octets.decode("euc_jis_2004") == "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳"
    assert decode(b"\xad\xea\xa4\xa2", "euc-jp") == "㈱あ"


def test_euro_signs_and_open_places_of_code_pages():
    assert decode(b"\x80 5, \xc4\xe3", "gbk") == "€ 5, 你"
    assert decode(b"\xa3\xe1 5, \xa7\x41", "big5") == "€ 5, 你"
    assert decode(b"a\x81\x93b", "windows-1252") == "a\x81\u201cb"


# --- <meta> --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"<meta charset=utf-8>", "utf-8"),
        (b"<!-- <meta charset=gbk> --><meta charset='big5'>", "big5hkscs"),
        (b"<!-- <meta charset=gbk>", None),
        (b"<meta name=x content='charset=gbk'>", None),
        (b"<title data-x='<meta charset=gbk>'>", None),
        (b"<meta charset=no-such><meta charset=koi8-r>", "koi8-r"),
        (b"<meta charset=utf-16le>", "utf-8"),
        (b"<meta charset=koi8-r", None),
        (b" " * 2_000 + b"<meta charset=koi8-r>", "koi8-r"),
        (b" " * META_BYTES + b"<meta charset=koi8-r>", None),
    ],
)
def test_meta_charset(head, expected):
    assert meta_charset(head) == expected


@needs_gold
def test_encoding_cases_of_html5lib():
    num_cases = 0
    for path in sorted(Path(GOLD).glob("encoding-html5lib/*.dat")):
        for case in path.read_bytes().split(b"#data\n")[1:]:
            data, _, expected = case.partition(b"\n#encoding\n")
            expected = codecs.lookup(expected.split(b"\n")[0].decode().strip()).name
            found = "utf-8" if data.startswith(codecs.BOM_UTF8) else meta_charset(data)
            assert codecs.lookup(found or "cp1252").name == expected, data
            num_cases += 1
    assert num_cases == 82


# --- real files ----------------------------------------------------------------------------------

# Folders of the set by the codec that reads them as browsers do; others are none of the web's.
CODECS = {
    "Big5": "big5hkscs",
    "CP932": "cp932",
    "CP949": "cp949",
    "EUC-JP": "euc_jp",
    "EUC-KR": "cp949",
    "GB2312": "gb18030",
    "IBM866": "cp866",
    "KOI8-R": "koi8_r",
    "MacCyrillic": "mac_cyrillic",
    "SHIFT_JIS": "cp932",
    "TIS-620": "cp874",
    "UTF-16": "utf_16",
    "UTF-16BE": "utf_16_be",
    "ascii": "ascii",
    "iso-2022-jp": "iso2022_jp_ext",
    "iso-8859-1": "cp1252",
    "iso-8859-2": "iso8859_2",
    "iso-8859-5": "iso8859_5",
    "iso-8859-7": "iso8859_7",
    "utf-8": "utf_8",
    "windows-1250": "cp1250",
    "windows-1251": "cp1251",
    "windows-1254": "cp1254",
    "windows-1255": "cp1255",
}


def real_files():
    """Yield (encoding, bytes, text) of the files in encodings of the web."""
    for path in sorted(Path(GOLD).glob("encoding-chardet-a/*/*")):
        name = re.sub(r"^((?:windows|iso-8859)-\d+)-.*", r"\1", path.parent.name)
        if name in CODECS:
            octets = path.read_bytes()
            text = octets.decode(CODECS[name], "replace").removeprefix("\ufeff")
            yield name, octets, text


@needs_gold
def test_real_files_that_name_their_encoding():
    files = list(real_files())
    assert len(files) == 194  # of 213; the others' encodings no browser knows
    for name, octets, text in files:
        assert decode(octets, name) == text, name


@needs_gold
def test_real_files_that_name_nothing():
    files = list(real_files())
    wrong = [name for name, octets, text in files if decode(octets) != text]
    assert len(wrong) <= 0.02 * len(files), wrong


def test_markup_and_scripts_do_not_drown_what_is_detected():
    page = "<script>var a = 1;</script>\n" * 9_999 + page_of(SENTENCES["ru"])
    assert detect(page.encode("koi8-r")) == "koi8-r"
