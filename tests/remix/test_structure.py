import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.remix.structure import KEYWORDS, STRUCTURE_SCHEMA, structure

CODE = {
    "python": "def area(radius):\n    total = math.pi * radius ** 2\n    return round(total, 2)\n",
    "rust": "pub fn len(&self) -> usize {\n    self.items.len()\n}\n",
    "c": '#include <stdio.h>\nint main(void) {\n\tprintf("hi\\n");\n\treturn 0;\n}\n',
    "java": "public static void main(String[] args) {\n    System.out.println(args[0]);\n}\n",
    "javascript": "const total = items.map(x => x.price);\nif (total === 0) { return null; }\n",
    "shell": "$ sudo apt-get install gcc\n$ ./configure --prefix=/usr && make\n",
    "sql": "SELECT count(*) FROM t WHERE t.a_b >= 3 AND t.c != '';\n",
    "html": '</div>\n<a href="x.html" class="y">\n</body>\n',
    "session": ">>> factor(12)\n>>> x_1 = [1, 2]\n",
}
PROSE = {
    "english": "The making of backups is one of the main duties of a person who runs machines.\n"
    "Many programs exist (some are old); each has its users: those who like it.\n",
    "title": "9.10. Backup\n",
    "dialogue": '"Well," he said, "what is it?"\nNobody knew.\n',
    "indented": "    It is a truth acknowledged by all, that a man must be in want of a wife.\n",
    "chinese": "\u5907\u4efd\u662f\u7ba1\u7406\u5458\u7684\u804c\u8d23\uff0c\u590d\u6742\u3002\n",
    "list": "- apples\n- pears, plums\n* figs\n",
}


def shares(text):
    return structure(pa.array([text]))[0].as_py()


@pytest.mark.parametrize("language", CODE)
def test_code_is_seen(language):
    assert shares(CODE[language])["code_share"] > 0.6


@pytest.mark.parametrize("kind", PROSE)
def test_prose_is_no_code(kind):
    assert shares(PROSE[kind]) == {"code_share": 0.0, "math_share": 0.0}


def test_shares_are_of_the_bytes_beside_spaces():
    prose, code = "the cat sat on a mat", "x = f(a_b);"
    found = shares(f"{prose}\n\n{code}\n")
    assert found["code_share"] == pytest.approx(9 / (15 + 9))


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        (r"so \(x^2\) is", r"\(x^2\)"),
        ("so \\[\na = b\n\\] is", r"\[a=b\]"),
        ("so $$a + b$$ is", "$$a+b$$"),
        ("so $x$ is", "$x$"),
        ("so $a_1 = 3$ is", "$a_1=3$"),
        ("for \u2200 x \u2208 \U0001d54a", "\u2200\u2208\U0001d54a"),
        ("it costs $5 and $6", ""),
        ("set $PATH and $HOME", ""),
        ("a $ b_c $ d", ""),
        (r"open \(x^2 never closed", ""),
        ("open \\(x\n\nother \\) end", ""),
        ("open $x_1 \n$ end", ""),
        ("$", ""),
        ("\\", ""),
        ("$$", ""),
        (r"\(a \\) b\)", r"\(a\\)b\)"),
    ],
)
def test_formulas(text, formulas):
    solid = len("".join(text.split()).encode())
    assert shares(text)["math_share"] == pytest.approx(len(formulas.encode()) / solid)


def test_nulls_and_nothing():
    found = structure(pa.array([None, "", " \n\t", "pad"])[:3])
    assert found.type == pa.struct(list(STRUCTURE_SCHEMA))
    nothing = {"code_share": 0.0, "math_share": 0.0}
    assert found.to_pylist() == [dict.fromkeys(nothing), nothing, nothing]


TEXTS = st.lists(
    st.none() | st.text("ab_(){};:=$\\ \n\t.\u4e2d\u2208#/<>", max_size=60), max_size=6
)


@given(TEXTS, st.integers(0, 6))
def test_shares_do_not_depend_on_the_batch_and_are_shares(texts, split):
    whole = structure(pa.array(["pad", *texts], pa.string())[1:])
    parts = [structure(pa.array(t, pa.large_string())) for t in (texts[:split], texts[split:])]
    assert pa.concat_arrays(parts).to_pylist() == whole.to_pylist()
    for row in whole.to_pylist():
        assert all(value is None or 0 <= value <= 1 for value in row.values())


def test_bytes_that_are_no_text():
    octets = pa.array([b"\xff\xfe$\\(\xe2", b"\xf0\x9d", b"\xe2\x88"], pa.binary())
    found = structure(pa.Array.from_buffers(pa.string(), 3, octets.buffers()))
    assert all(0 <= row["math_share"] <= 1 for row in found.to_pylist())


def test_keywords_are_lower_case_and_distinct():
    words = KEYWORDS.split()
    assert words == sorted(set(words))
    assert all(word.isalpha() and word.islower() for word in words)
