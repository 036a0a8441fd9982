# ruff: noqa: RUF001
"""HTML to text: published texts, every encoding, and payloads that are no HTML at all."""

import datetime
import encodings.aliases
import gzip
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ingest.extract import (
    ENGINES,
    TEXT_TYPE,
    extract,
    normalise,
    plain_text,
)
from curation.ingest.text import words
from curation.ingest.warc import read_records

DUMPS = Path(__file__).parents[1] / "data" / "dumps"
GOLD = os.environ.get("CURATION_GOLD_DATA")
needs_gold = pytest.mark.skipif(not GOLD, reason="CURATION_GOLD_DATA names no folder of gold data")

SENTENCE = "The quick brown fox jumps over the lazy dog while seven wizards watch in silence. "
PAGE = (
    "<!DOCTYPE html><html><head><title>A &amp; B\n title</title></head><body>"
    "<nav><a href='/'>Home</a></nav><article><h1>Heading</h1>"
    f"<p>{SENTENCE * 3}</p><p>{SENTENCE * 2}</p></article></body></html>"
)
NOTHING = dict.fromkeys(field.name for field in TEXT_TYPE)
ERRORS = ("not_html", "too_large", "undecodable", "no_text", "parser_error:")


def run(payloads, charset=None, content_type=None, **options):
    payloads = pa.array(payloads, pa.binary())
    charsets = pa.array([charset] * len(payloads), pa.string())
    content_types = pa.array([content_type] * len(payloads), pa.string())
    found = extract(payloads, charsets, content_types, **options)
    assert found.type == TEXT_TYPE
    assert len(found) == len(payloads)
    return found.to_pylist()


def demo_records():
    """Yield (dump, record) of every page of the demo dumps."""
    for path in sorted(DUMPS.glob("*.warc.gz")):
        for batch in read_records(str(path)):
            rows = [row for row in batch.to_pylist() if row["payload"] is not None]
            yield from ((path.name.rpartition("-")[0], row) for row in rows)


def token_f1(found, expected):
    found, expected = Counter(words(found or "")), Counter(words(expected or ""))
    common = sum((found & expected).values())
    return 2 * common / max(1, sum(found.values()) + sum(expected.values()))


# --- main text -----------------------------------------------------------------------------------


def test_resiliparse_gives_the_published_text_of_the_demo():
    with gzip.open(DUMPS / "docs.jsonl.gz", "rt") as lines:
        published = {(doc["dump"], doc["url"]): doc["text"] for doc in map(json.loads, lines)}
    records = list(demo_records())[::4]
    found = run([row["payload"] for _, row in records], "utf-8", "text/html", engine="resiliparse")
    assert len(records) == 220
    for (dump, row), result in zip(records, found, strict=True):
        assert words(result["text"] or "") == words(published[dump, row["url"]]), row["url"]


@pytest.mark.parametrize("engine", ENGINES)
def test_title_and_main_text(engine):
    (found,) = run([PAGE.encode()], engine=engine)
    assert found["title"] == "A & B title"
    assert found["error"] is None
    assert words(SENTENCE) == words(found["text"])[-len(words(SENTENCE)) :]
    assert "Home" not in found["text"]


@needs_gold
@pytest.mark.parametrize(
    # the benchmark's authors report 0.958 for trafilatura on all of its pages, and 0.934 for the
    # next best tool; a fault of ours (encoding, settings) costs more than these margins
    ("engine", "floor"),
    [("trafilatura", 0.92), ("resiliparse", 0.88)],
)
def test_accuracy_on_news_articles(engine, floor):
    folder = Path(GOLD) / "extraction-scrapinghub-a"
    with gzip.open(folder / "ground-truth.jsonl.gz", "rt") as lines:
        gold = [json.loads(line) for line in lines][:30]
    files = [folder / "html" / f"{page['id']}.html.gz" for page in gold]
    pages = [gzip.decompress(file.read_bytes()) for file in files]
    found = run(pages, engine=engine)
    scores = [token_f1(f["text"], g["articleBody"]) for f, g in zip(found, gold, strict=True)]
    assert sum(scores) / len(scores) > floor


# --- what must survive extraction -----------------------------------------------------------------

RICH = f"""<!DOCTYPE html><html><head><title>Rich page</title>
<meta name="author" content="Ann Lee"><meta name="date" content="2024-05-20">
</head><body><nav><a href=/>Home</a></nav><article><h1>Rich page</h1><p>{SENTENCE * 3}</p>
<pre><code class="language-python">def f(x):
    if x &lt; 1:
        return 1

    # a <span class="c">comment</span>
<span></span>    <span class="k">for</span> <span>i</span> in x:
\ttabbed
</code></pre>
<p>{SENTENCE}</p>
<table><thead><tr><th>Name</th><th>Value</th></tr></thead><tbody><tr><td>alpha</td><td>1.5</td></tr>
<tr><td>beta gamma</td><td>22</td></tr></tbody></table>
<p>Inline $x^2 + y_1 &lt; z$ and \\(a_b\\) and \\[ \\int_0^1 f(x)\\,dx \\] stand. {SENTENCE}</p>
<p>Script: <script type="math/tex">e^{{i\\pi}} &lt; 1</script>, MathML:
<math><mfrac><mi>p</mi><mi>q</mi></mfrac></math>, annotated: <math><mi>c</mi>
<annotation encoding="application/x-tex">\\sqrt{{c}}</annotation></math>. {SENTENCE}</p>
<p>No&nbsp;break, co&shy;operate, zero&#8203;width, می&zwnj;خواهم, 👩\u200d💻. {SENTENCE}</p>
<p>{SENTENCE * 3}</p></article><footer>Copyright</footer></body></html>"""


@pytest.fixture(scope="module", params=ENGINES)
def rich(request):
    (found,) = run([RICH.encode()], engine=request.param)
    assert found["error"] is None
    return found


def test_code_keeps_its_lines_and_indentation(rich):
    # trafilatura by itself drops the blank line, its precise mode also spaces before <span>
    code = (
        "def f(x):\n    if x < 1:\n        return 1\n\n    # a comment\n    for i in x:\n\ttabbed\n"
    )
    assert code in rich["text"]


def test_a_table_keeps_its_rows_and_cells(rich):
    rows = [re.split(r"\s*\|\s*|\t+", line.strip("| ")) for line in rich["text"].split("\n")]
    for row in (["Name", "Value"], ["alpha", "1.5"], ["beta gamma", "22"]):
        assert row in rows


def test_formulas_survive_as_tex(rich):
    # by themselves engines drop the script, trafilatura drops MathML without TeX, and Resiliparse
    # prints the symbols of MathML before the annotation
    for formula in (
        "$x^2 + y_1 < z$",
        "\\(a_b\\)",
        "\\[ \\int_0^1 f(x)\\,dx \\]",
        "Script: \\(e^{i\\pi} < 1\\), MathML:",
        "\\(\\frac{p}{q}\\), annotated: \\(\\sqrt{c}\\).",
    ):
        assert formula in rich["text"].replace(":\n", ": ")


def test_invisible_characters(rich):
    # trafilatura by itself also drops the joiners, without which Persian and emoji fall apart
    line = "No break, cooperate, zerowidth, می\u200cخواهم, 👩\u200d💻."
    assert line in rich["text"]


def test_what_a_page_states_does_not_depend_on_the_engine(rich):
    when = datetime.datetime(2024, 5, 20, tzinfo=datetime.UTC)
    assert rich["title"] == "Rich page"
    assert rich["author"] == "Ann Lee"
    assert rich["published_at"] == when


def test_unsure_pages_go_to_trafilatura():
    ours, theirs = (run([RICH.encode()], engine=engine) for engine in ("blocks", "trafilatura"))
    assert ours[0]["text"] != theirs[0]["text"]
    assert run([RICH.encode()], unsure_share=0.0) == ours
    assert run([RICH.encode()], unsure_share=1.0) == theirs
    short = f"<p>{SENTENCE}</p>".encode()  # of which trafilatura makes nothing
    assert run([short], engine="trafilatura")[0]["error"] == "no_text"
    assert run([short], unsure_share=1.0)[0]["text"] == SENTENCE.strip()


def test_comments_are_left_out_on_demand():
    replies = "".join(
        f"<div class=comment><p>I saw {i}, and this is what I think. {SENTENCE * 2}</div>"
        for i in range(3)
    )
    page = (
        "<title>A forum</title><body class=forum><h1>What do foxes do?</h1><div class=question>"
        f"<p>Yesterday I asked myself: {SENTENCE * 2}</div><div class=thread>{replies}</div>"
    )
    texts = [run([page.encode()], comments=wanted)[0]["text"] for wanted in (True, False)]
    assert ["I saw 2" in text for text in texts] == [True, False]
    assert all("Yesterday I asked" in text for text in texts)


def test_stand_ins_never_show_and_runes_stay():
    runes = "ᚠᚢᚦᚨᚱᚲ"
    page = RICH.replace("Inline", f"{runes} inline").encode()
    for engine in ENGINES:
        (found,) = run([page], engine=engine)
        assert re.findall("[\u16a0-\u16ff]", found["text"]) == list(runes)
        assert "می\u200cخواهم" in found["text"]


def test_other_engines_do_not_import_trafilatura():
    code = (
        "import sys; import pyarrow as pa; from curation.ingest.extract import extract;"
        "n = pa.nulls(1, pa.string());"
        "extract(pa.array([b'<p>text</p>']), n, n, engine='resiliparse');"
        "assert 'trafilatura' not in sys.modules and 'lxml' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- laws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_pages_do_not_influence_each_other(engine):
    pages = [row["payload"] for _, row in demo_records()][:24]
    pages = [*pages, None, b"", *pages[:6], PAGE.encode()]  # copies: a stateful engine drops them
    whole = run(pages, engine=engine)
    array = pa.array(pages, pa.binary())
    nothing = pa.nulls(len(pages), pa.string())
    for size in (1, 5):
        parts = [
            row
            for i in range(0, len(pages), size)
            for row in extract(
                array[i : i + size], nothing[i : i + size], nothing[i : i + size], engine=engine
            ).to_pylist()
        ]
        assert parts == whole
    assert whole[24] is None


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=300)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
    | st.lists(st.sampled_from(["<p>", "</p>", "<", "<!--", "<table>", "&#0;", "x ", "\0"])).map(
        lambda parts: "".join(parts).encode()
    )
)
def test_any_payload_gives_text_or_a_reason(engine, payload):
    (found,) = run([payload, PAGE.encode()], engine=engine)[:1]
    assert (found["text"] is None) == (found["error"] is not None)
    assert found["error"] is None or found["error"].startswith(ERRORS)
    if found["text"] is not None:
        assert normalise(found["text"]) == found["text"]


# --- payloads that are no page -------------------------------------------------------------------

JUNK = random.Random(0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "payload",
    [
        JUNK.randbytes(5000),
        b"<html><body>" + JUNK.randbytes(5000),
        bytes(2000),
        bytes(range(256)) * 20,
        gzip.compress(JUNK.randbytes(900)),
        b"%PDF-1.7\n" + JUNK.randbytes(900),
        b"\x89PNG\r\n\x1a\n" + JUNK.randbytes(900),
    ],
)
def test_binary_junk_declared_as_html_is_not_html(engine, payload):
    (found,) = run([payload], "utf-8", "text/html", engine=engine)
    assert found == {**NOTHING, "error": "not_html"}


@pytest.mark.parametrize(
    ("content_type", "error"),
    [
        ("text/html", None),
        ("Text/HTML; charset=utf-8", None),
        ("application/xhtml+xml", None),
        (None, None),
        ("application/json", "not_html"),
        ("image/png", "not_html"),
        ("text/plain", "not_html"),
    ],
)
def test_the_declared_type_decides(content_type, error):
    (found,) = run([PAGE.encode()], None, content_type, engine="resiliparse")
    assert found["error"] == error


def test_pages_without_text_and_pages_above_the_limit():
    pages = [b"", b" \n ", b"<html><body></body></html>", PAGE.encode()]
    for engine in ENGINES:
        found = run(pages, engine=engine, max_html_bytes=len(PAGE) - 1)
        assert [row["error"] for row in found] == ["no_text", "no_text", "no_text", "too_large"]
        assert run(pages, engine=engine, max_html_bytes=len(PAGE))[3]["error"] is None


def test_an_exception_of_the_parser_is_a_reason(monkeypatch):
    def fail(page):
        raise RecursionError

    monkeypatch.setitem(ENGINES, "failing", fail)
    (found,) = run([PAGE.encode()], engine="failing")
    assert found["error"] == "parser_error:RecursionError"


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc\n", "a\nb\nc"),
        ("a \t\nb\u3000\n", "a\nb"),
        ("a\n\n\n\n\nb", "a\n\nb"),
        ("a\n \n \n \nb", "a\n\nb"),
        ("a\0b\x07c\x7f\td\ufeff", "abc\td"),
        ("page\x0cpage\u2028line", "page\npage\nline"),
        ("  indented\n", "  indented"),
        ("a\xa0b\u202fc\u2007d\xa0\n", "a b c d"),
        ("co\xadoperate zero\u200bwidth word\u2060joiner", "cooperate zerowidth wordjoiner"),
        ("می\u200cخواهم क्\u200dष", "می\u200cخواهم क्\u200dष"),
        ("a" + " " * 200_000 + "b", "a" + " " * 200_000 + "b"),  # in linear time
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


@given(st.text(st.sampled_from("a b\n\r\t\0\u3000\x0c\x85é文"), max_size=60) | st.text())
def test_normalise_is_a_projection(text):
    once = normalise(text)
    assert normalise(once) == once
    assert "\n\n\n" not in once
    assert not any(line != line.rstrip() for line in once.split("\n"))


def test_plain_text():
    payloads = [
        "文 \r\nb".encode(),
        None,
        b"",
        b"\xff\xfe" * 50,
        "cut 文".encode()[:-1],
        b"\0" * 99,
    ]
    found = plain_text(pa.array(payloads, pa.binary()))
    assert found.type == TEXT_TYPE
    assert [row and (row["text"], row["error"]) for row in found.to_pylist()] == [
        ("文\nb", None),
        None,
        (None, "no_text"),
        (None, "undecodable"),
        ("cut", None),
        (None, "undecodable"),
    ]
    assert plain_text(pa.array([], pa.binary())).type == TEXT_TYPE


@pytest.mark.parametrize("label", [*sorted({*encodings.aliases.aliases.values()}), "utf-32", "x y"])
def test_no_label_of_a_header_loses_a_page_in_ascii(label):
    """Python knows encodings that raise, expand or transform; a header may name any of them."""
    page = f"<html><body><main><p>{'Plain words stay plain words. ' * 9}</p></main>".encode()
    columns = pa.array([page]), pa.array([label]), pa.array(["text/html"])
    (found,) = extract(*columns, engine="resiliparse").to_pylist()
    assert found["error"] is None
    assert found["text"].startswith("Plain words stay")
