r"""Formulas in HTML become TeX, whatever the page made of them."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest import formulas
from curation.ingest.formulas import tex
from curation.ingest.main_text import blocks_of

# As KaTeX 0.16, MathJax 2.7 and 3.2, MediaWiki, LaTeXML and WordPress write them, shortened.
KATEX = (
    '<span class="katex-display"><span class="katex"><span class="katex-mathml"><math '
    'display="block"><semantics><mrow><mi>c</mi></mrow><annotation encoding="application/x-tex">'
    "c &lt; \\sqrt{a}</annotation></semantics></math></span>"
    '<span class="katex-html" aria-hidden="true"><span class="base"><span>c</span>&lt;√a</span>'
    "</span></span></span>"
)
MATHJAX_2 = (
    '<span class="MathJax_Preview">x²</span><span class="MathJax" data-mathml="&lt;math&gt;">'
    '<nobr><span class="math"><span>x</span><span>2</span></span></nobr>'
    '<span class="MJX_Assistive_MathML"><math><msup><mi>x</mi><mn>2</mn></msup></math>'
    '</span></span><script type="math/tex" id="MathJax-Element-1">x^2</script>'
)
MATHJAX_3 = (
    '<mjx-container class="MathJax" jax="SVG"><svg><g><text>x2</text></g></svg>'
    "<mjx-assistive-mml><math><msup><mi>x</mi><mn>2</mn></msup></math></mjx-assistive-mml>"
    "</mjx-container>"
)
MEDIAWIKI = (
    '<span class="mwe-math-element"><span class="mwe-math-mathml-inline" style="display: none;">'
    '<math alttext="{\\displaystyle E}"><semantics><mrow><mi>E</mi></mrow>'
    '<annotation encoding="application/x-tex">{\\displaystyle E}</annotation></semantics></math>'
    '</span><img src="e.svg" class="mwe-math-fallback-image-inline" alt="{\\displaystyle E}">'
    "</span>"
)
LATEXML = '<math class="ltx_Math" alttext="a_{1}&lt;b" display="inline"><mi>a</mi></math>'
WORDPRESS = '<img src="l.php?latex=E" alt="E=mc^2" title="E=mc^2" class="latex" />'


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (KATEX, "\\[c < \\sqrt{a}\\]"),
        (MATHJAX_2, "\\(x^2\\)"),
        (MATHJAX_3, "\\(x^{2}\\)"),
        (MEDIAWIKI, "\\({\\displaystyle E}\\)"),
        (LATEXML, "\\(a_{1}<b\\)"),
        (WORDPRESS, "\\(E=mc^2\\)"),
        ('<script type="math/tex; mode=display">a &\n b</script>', "\\[a & b\\]"),
        ('<script type="math/tex">% <![CDATA[\na < b %]]></script>', "\\(a < b\\)"),
        ("<script type='math/tex'>a_1</script>", "\\(a_1\\)"),
        ("<script type=math/tex>a_1</script>", "\\(a_1\\)"),
        ("<img class='latex' alt='$a_1$'>", "\\(a_1\\)"),
        ("<img alt=a_1 class=latex>", "\\(a_1\\)"),
        ('<img class="mwe latex" alt="a_1">', "\\(a_1\\)"),
        ('<img class="tex" alt="a_1">', "\\(a_1\\)"),
    ],
)
def test_sources_of_tex(source, text):
    found = tex(f"<p>before {source} after</p>")
    visible = html.unescape(formulas.ELEMENT.sub("", found))
    assert visible == f"before {text} after"
    assert "display: none" not in found


@pytest.mark.parametrize(
    ("mathml", "reading"),
    [
        ("<mfrac><mi>p</mi><mi>q</mi></mfrac>", "\\frac{p}{q}"),
        ("<msub><mi>x</mi><mn>1</mn></msub>", "x_{1}"),
        ("<msubsup><mi>x</mi><mn>1</mn><mn>2</mn></msubsup>", "x_{1}^{2}"),
        ("<msqrt><mi>a</mi><mo>+</mo><mi>b</mi></msqrt>", "\\sqrt{a + b}"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot>", "\\sqrt[3]{x}"),
        (
            "<munderover><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi>"
            "</munderover><msup><mi>i</mi><mn>2</mn></msup>",
            "∑_{i = 1}^{n} i^{2}",
        ),
        (
            "<mtable><mtr><mtd><mi>a</mi></mtd><mtd><mi>b</mi></mtd></mtr>"
            "<mtr><mtd><mi>c</mi></mtd><mtd><mi>d</mi></mtd></mtr></mtable>",
            "a & b \\\\ c & d",
        ),
        ("<mi>a</mi> <mo>&lt;</mo>\n <mtext>two words</mtext>", "a < two words"),
        ("<msub><mi>broken</mi></msub>", "broken"),
    ],
)
def test_mathml_without_tex_is_read_in_order(mathml, reading):
    assert tex(f"<math>{mathml}</math>") == html.escape(f"\\({reading}\\)", quote=False)


@pytest.mark.parametrize(
    "page",
    [
        "<p>no formula, $x$ and \\(y\\) stay</p>",
        '<p><math> never closed <span class="katex-html">x</span>',
        '</math><span class="katex-html">never closed',
        '<script>var a = "math/tex";</script></math>',
    ],
)
def test_other_pages_stay_as_they_are(page):
    assert tex(page) == page


def test_an_empty_formula_leaves_nothing():
    assert tex("<p>a <math></math>b</p>") == "<p>a b</p>"


def test_a_formula_out_of_bounds_is_read_as_its_text():
    deep = "<math>" + "<mrow>" * 9_000 + "<mi>x</mi></math>"
    assert tex(f"<p>{deep}</p>") == "<p>\\(x\\)</p>"


PIECES = [
    "<math>",
    "</math>",
    "<span>",
    '<span class="katex-html">',
    "</span>",
    "x",
    "<mi>",
    "</p>",
]
PIECES += ['<script type="math/tex">', "</script>", "<mjx-container>", "</mjx-container>"]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_text_outside_formulas_is_kept_in_order(page):
    found = tex(f"first{page}<b>last</b>")
    assert found.startswith("first")
    assert found.endswith("<b>last</b>") or found == f"first{page}<b>last</b>"


@pytest.mark.parametrize(
    "source",
    [
        *(KATEX, MATHJAX_2, MATHJAX_3, MEDIAWIKI, LATEXML, WORDPRESS),
        *("<script type='math/tex'>a</script>", '<img class="tex" alt="a">'),
    ],
)
def test_pages_with_formulas_are_told_by_their_tags(source):
    """What the engine `blocks` parses before it looks for formulas, and then again."""
    page = f"<p>before {source} after</p>"
    data, _ = blocks_of(page)
    assert data.tobytes().decode() == tex(page) != page
    assert (
        blocks_of("<p>before <img src='a.png' alt='text'><script>x</script>")[1].has_formulas == 0
    )
