"""Gold texts of pages -> the model of `main_text`, and how good it is on sites it has not seen.

A block's label is how much of it stands in the gold text: both are aligned word by word, in order,
so that runs of words count more than single ones. The first forest is trained on the features of a
page. The second also sees what a first forest says that has not seen the page's site, as it will
for any page that it is used on.
"""

import gzip
import hashlib
import importlib.util
import io
import json
import math
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from curation import models
from curation.errors import ConfigError, InputInvalid, InputMissing, PrerequisiteMissing
from curation.ingest import charset, urls, warc
from curation.ingest.block_features import Float32Array, Shape, describe, describe_again
from curation.ingest.blocks import Blocks
from curation.ingest.extract import CONTROLS, extract
from curation.ingest.main_text import (
    KIND,
    LOGIT,
    STEP_BITS,
    TABLE_SIZE,
    Forest,
    Model,
    arrays_of,
    blocks_of,
    decide,
    likelihood,
    read,
)
from curation.ingest.text import words

TAUGHT = "taught"  # the set of pages that trafilatura taught
GOLD = "ground-truth.jsonl.gz"
TORN = (OSError, EOFError, zlib.error)  # of a file that gzip cannot read
GOLD_COLUMNS = ("text", "main_content", "articleBody", "content")
NUM_FOLDS = 5
MIN_FOLDS = 3  # a model that is judged is trained by one that has not seen a second fold
MAX_WORDS = 36_000  # that are aligned; a longer page's end is labelled as not main text
NUM_TREES, DEPTH, LEARNING_RATE = 400, 6, 0.07
# Main text or not is clear above and below; in between a block counts less.
CLEAR = 0.5
BOOTSTRAP = 2_000


class Page(NamedTuple):
    """A page with the text that it should give; the set and site it is of."""

    set: str
    id: str
    site: str
    html: bytes
    gold: str
    weight: float = 1.0


class Example(NamedTuple):
    """A page as the forests see it: features, shape, share of gold words of each block."""

    page: Page
    blocks: Blocks
    features: Float32Array
    shape: Shape
    labels: Float32Array


def read_gold(folder: Path) -> list[Page]:
    """Return the pages of a gold set, in its order.

    The folder holds ground-truth.jsonl.gz, a JSON object a line with id, the gold text in one of
    GOLD_COLUMNS and the url where known, and html/**/ID.html.gz. Raises InputMissing and
    InputInvalid.
    """
    path = folder / GOLD
    if not path.is_file():
        raise InputMissing(f"{path} is missing; name a folder with {GOLD} and html/")
    files = {file.name.removesuffix(".html.gz"): file for file in folder.glob("html/**/*.html.gz")}
    pages: list[Page] = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                column = next(name for name in GOLD_COLUMNS if name in row)
                html = gzip.decompress(files[str(row["id"])].read_bytes())
                site = _site(str(row.get("url") or f"https://{row['id']}.invalid/"))
                gold = str(row[column] or "")
                pages.append(Page(folder.name, str(row["id"]), site, html, gold))
    except (ValueError, KeyError, TypeError, StopIteration, *TORN) as error:
        raise InputInvalid(
            f"{path}, line {len(pages) + 1}: needs JSON with id, one of "
            f"{', '.join(GOLD_COLUMNS)}, and html/**/ID.html.gz ({error!r})"
        ) from None
    return pages


def read_taught(archive: Path, weight: float) -> list[Page]:
    """Return the pages of a WARC file with trafilatura's text as gold, but those without text."""
    pages = []
    for batch in warc.read_records(archive):
        columns = [batch[name] for name in ("payload", "charset", "content_type")]
        texts = extract(*columns, engine="trafilatura").field("text").to_pylist()
        pages += [
            Page(TAUGHT, url, _site(url), html, text, weight)
            for url, html, text in zip(
                batch["url"].to_pylist(), batch["payload"].to_pylist(), texts, strict=True
            )
            if url and text
        ]
    return pages


def make(
    pages: Sequence[Page],
    to: Path,
    *,
    seed: int = 0,
    sources: Sequence[str] = (),
    held_out: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Cross-validate and train; write the model and its card, `to`, and return the card.

    The card has, for each gold set, the mean F1 on pages of sites that the model had not seen, with
    its bootstrap interval; and quantiles of the F1 that it expected of them. held_out: a file for
    the texts of those pages, JSON lines with set, id, text and expected_f1.
    """
    examples = [each for each in map(example, pages) if each]
    tell(f"{len(pages)} pages, {len(examples)} of them with text")
    _check(examples)
    firsts: Firsts = {}
    found = cross_validate(examples, seed, firsts, tell)
    texts = {  # a page without a block has no text
        (page.set, page.id): ("", 0.0) for page in pages if page.set != TAUGHT
    }
    texts.update(
        ((each.page.set, each.page.id), result)
        for each, result in zip(examples, found, strict=True)
        if each.page.set != TAUGHT
    )
    scores: dict[str, list[float]] = {}
    for page in pages:
        if page.set != TAUGHT and words(page.gold):
            scores.setdefault(page.set, []).append(
                f1(texts[page.set, page.id][0], page.gold) or 0.0
            )
    if held_out:
        with held_out.open("w", encoding="utf-8") as lines:
            for (name, id), (text, expected_f1) in texts.items():
                row = {"set": name, "id": id, "text": text, "expected_f1": expected_f1}
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    contents = contents_of(train(examples, seed, firsts))
    model = to.with_suffix(".npz")
    model.write_bytes(contents)
    data = hashlib.sha256()
    for page in pages:
        data.update(
            hashlib.sha256(page.html).digest() + hashlib.sha256(page.gold.encode()).digest()
        )
    card = {
        "kind": KIND,
        "language": "*",
        "files": {model.name: hashlib.sha256(contents).hexdigest()},
        "training": {
            "num_trees": NUM_TREES, "depth": DEPTH, "learning_rate": LEARNING_RATE, "seed": seed,
        },
        "data": {"sources": list(sources), "num_pages": len(pages), "sha256": data.hexdigest()},
        "cross_validation": {
            name: dict(
                zip(("f1", "low", "high"), (round(x, 4) for x in interval(own)), strict=True),
                num_pages=len(own),
            )
            for name, own in scores.items()
        },
        "expected_f1_quantiles": [
            round(float(x), 4)
            for x in np.quantile([e for _, e in texts.values()], np.linspace(0, 1, 101))
        ],
    }  # fmt: skip
    models.write_card(to, card)
    return card


def check_before(to: Path, held_out: Path | None, teacher_weight: float) -> None:
    """Raise what would stop a training at its end: ConfigError for a file that cannot be written or
    a weight that is none, PrerequisiteMissing without CatBoost."""
    models.check_card_name(to)
    if not 0 < teacher_weight < math.inf:
        raise ConfigError(
            f"--teacher-weight is {teacher_weight:g}; a weight is a number above 0, that of a page "
            "with a gold text is 1"
        )
    for path in filter(None, (to, held_out)):
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            raise ConfigError(f"{path} cannot be written; name a file in a folder of yours")
    require_catboost()


def require_catboost() -> None:
    """Raise PrerequisiteMissing unless CatBoost can be imported."""
    if importlib.util.find_spec("catboost") is None:
        raise PrerequisiteMissing(
            "training the extractor needs CatBoost; pip install 'curation[extractor]'"
        )


def _check(examples: Sequence[Example]) -> None:
    """Raise InputInvalid where there is too little to cross-validate on."""
    num_folds = len(set(_folds(examples)))
    labels = {bool(label > CLEAR) for each in examples for label in each.labels}
    if num_folds < MIN_FOLDS or len(labels) < 2:
        raise InputInvalid(
            f"{len(examples)} pages with text in {num_folds} of {NUM_FOLDS} folds by site, "
            f"{'both' if len(labels) == 2 else 'not both'} main text and other: at least "
            f"{MIN_FOLDS} folds and both are needed; give more pages, of more sites"
        )


def example(page: Page) -> Example | None:
    """Return what the forests see of a page, None where it has no block or no encoding."""
    decoded = charset.decode(page.html, None)
    if decoded is None:
        return None
    data, blocks = blocks_of(CONTROLS.sub("", decoded))
    if not len(blocks.blocks):
        return None
    features, shape = describe(data, blocks)
    return Example(page, blocks, features, shape, _labels(blocks, page.gold))


def train(examples: Sequence[Example], seed: int = 0, firsts: "Firsts | None" = None) -> Model:
    """Return the model of some examples: the same on the same machine and CatBoost.

    About five minutes for 800 pages, two with the first forests of `cross_validate`, which `firsts`
    brings. Needs the extra `extractor` (CatBoost); raises PrerequisiteMissing.
    """
    return _train(examples, _folds(examples), frozenset(), {} if firsts is None else firsts, seed)


def cross_validate(
    examples: Sequence[Example],
    seed: int = 0,
    firsts: "Firsts | None" = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[tuple[str, float]]:
    """Return, for each example, the text of a model that has not seen its site, and expected F1.

    firsts: receives the first forests, many of which `train` needs too.
    """
    firsts = {} if firsts is None else firsts
    folds = _folds(examples)
    found: list[tuple[str, float]] = [("", 0.0)] * len(examples)
    for fold in range(NUM_FOLDS):
        model = _train(examples, folds, frozenset({fold}), firsts, seed)
        for i, each in enumerate(examples):
            if folds[i] == fold:
                found[i] = text_of(each, model)
        tell(f"fold {fold + 1} of {NUM_FOLDS}")
    return found


def text_of(each: Example, model: Model) -> tuple[str, float]:
    """Return the text of an example by a model, and the F1 expected."""
    return decide(each.blocks, each.features, each.shape, model)


def f1(found: str, gold: str) -> float | None:
    """Return the F1 of two bags of words; None for a gold text without words."""
    found_words, gold_words = Counter(words(found)), Counter(words(gold))
    if not gold_words:
        return None
    return 2 * (found_words & gold_words).total() / (found_words.total() + gold_words.total())


def interval(scores: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Return the mean of scores, and the 95 % bootstrap interval of that mean."""
    rng = np.random.default_rng(seed)
    values = np.array(scores)
    means = values[rng.integers(0, len(values), (BOOTSTRAP, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def contents_of(model: Model) -> bytes:
    """Return the file of a model; the same model gives the same bytes."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays_of(model))  # type: ignore[arg-type]  # mistaken for a flag
    contents = file.getvalue()
    read(contents)
    return contents


def _site(url: str) -> str:
    """Return the registered domain of a URL, else its host."""
    (domain,) = urls.registered_domains(pa.array([url]), urls.compile_suffixes(None)).to_pylist()
    return domain or urlsplit(url).netloc


def _folds(examples: Sequence[Example]) -> list[int]:
    """Return the fold of each example: all pages of a site are in one."""
    return [
        int.from_bytes(hashlib.sha256(each.page.site.encode()).digest()[:8], "big") % NUM_FOLDS
        for each in examples
    ]


Firsts = dict[frozenset[int], Forest]
"""First forests by the folds that they have not seen."""


def _train(
    examples: Sequence[Example],
    folds: Sequence[int],
    unseen: frozenset[int],
    firsts: Firsts,
    seed: int,
) -> Model:
    """Return a model that has not seen some folds."""
    table = _probabilities()
    own = [i for i in range(len(examples)) if folds[i] not in unseen]
    both = []
    for i in own:  # each by a forest that has not seen its fold either
        first = _first(examples, folds, unseen | {folds[i]}, firsts, seed)
        again = describe_again(likelihood(examples[i].features, first, table), examples[i].shape)
        both.append(np.concatenate((examples[i].features, again)))
    first = _first(examples, folds, unseen, firsts, seed)
    return Model(first, _fit([examples[i] for i in own], both, seed), table)


def _first(
    examples: Sequence[Example],
    folds: Sequence[int],
    unseen: frozenset[int],
    firsts: Firsts,
    seed: int,
) -> Forest:
    if unseen not in firsts:
        own = [each for each, fold in zip(examples, folds, strict=True) if fold not in unseen]
        firsts[unseen] = _fit(own, [each.features for each in own], seed)
    return firsts[unseen]


def _labels(blocks: Blocks, gold: str) -> Float32Array:
    """Return which share of each block's words the gold text has, in its order."""
    numbers: dict[str, int] = {}
    of_blocks = [
        words(blocks.text[row[0] : row[1]].tobytes().decode("utf-8", "replace"))
        for row in blocks.blocks
    ]
    page, text = (
        np.array([numbers.setdefault(word, len(numbers)) for word in found][:MAX_WORDS], np.int64)
        for found in ([word for block in of_blocks for word in block], words(gold))
    )
    aligned = _align(page, text)
    starts = np.cumsum([0, *map(len, of_blocks)])
    return np.array(
        [
            aligned[start:end].sum() / (end - start) if end > start else 0.0
            for start, end in pairwise(starts)
        ],
        np.float32,
    )


@njit(cache=True, nogil=True)
def _align(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which words of `a` are aligned to words of `b`, in order.

    A word counts 1, and 3 where it goes on a run. Cost: len(a) * len(b) steps and bytes.
    """
    n, m = len(a), len(b)
    back = np.zeros((n + 1, m + 1), np.uint8)  # bit 0: goes on a run; bits 1, 2: from where
    gap = np.zeros(m + 1, np.int32)
    run = np.full(m + 1, -1, np.int32)
    for i in range(1, n + 1):
        diagonal_gap, diagonal_run = gap[0], run[0]
        for j in range(1, m + 1):
            up_gap, up_run = gap[j], run[j]
            bits = 0
            matched = -1
            if a[i - 1] == b[j - 1]:
                matched = diagonal_gap + 1
                if diagonal_run >= 0 and diagonal_run + 3 >= matched:
                    matched = diagonal_run + 3
                    bits = 1
            best, source = up_gap, 0
            if gap[j - 1] > best:
                best, source = gap[j - 1], 1
            if matched > best:
                best, source = matched, 2
            back[i, j] = bits | source << 1
            diagonal_gap, diagonal_run = up_gap, up_run
            gap[j], run[j] = best, matched
    aligned = np.zeros(n, np.bool_)
    i, j = n, m
    in_run = False
    while i > 0 and j > 0:
        source = back[i, j] >> 1
        if in_run or source == 2:
            aligned[i - 1] = True
            in_run = back[i, j] & 1 == 1
            i -= 1
            j -= 1
        elif source == 0:
            i -= 1
        else:
            j -= 1
    return aligned


def _fit(examples: Sequence[Example], features: Sequence[Float32Array], seed: int) -> Forest:
    """Return a forest of features, one array an example."""
    require_catboost()
    from catboost import CatBoostClassifier

    labels = np.concatenate([each.labels for each in examples])
    weights = np.concatenate([_weights(each) for each in examples])
    fitted = CatBoostClassifier(
        iterations=NUM_TREES,
        depth=DEPTH,
        learning_rate=LEARNING_RATE,
        l2_leaf_reg=5.0,
        boosting_type="Plain",
        bootstrap_type="Bernoulli",
        subsample=0.7,
        rsm=0.3,
        border_count=64,
        random_seed=seed,
        thread_count=1,  # the sums of several come in any order
        allow_writing_files=False,
        verbose=False,
    )
    fitted.fit(np.concatenate(features, axis=1).T, labels > CLEAR, sample_weight=weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "forest.json")
        fitted.save_model(str(path), format="json")
        return _forest(json.loads(path.read_text()))


def _weights(each: Example) -> npt.NDArray[np.float64]:
    """Return the weight of each block: its words, so that all pages weigh nearly the same."""
    num_words = np.maximum(each.shape.words, 0.3)
    clear = np.maximum(np.abs(2 * each.labels - 1), 0.1)
    weights: npt.NDArray[np.float64] = (
        each.page.weight * clear * num_words / num_words.sum() ** 0.75
    )
    return weights


def _forest(fitted: Mapping[str, Any]) -> Forest:
    """Return a forest that CatBoost wrote as JSON."""
    trees = fitted["oblivious_trees"]
    names = fitted["features_info"]["float_features"]
    column = {feature["feature_index"]: feature["flat_feature_index"] for feature in names}
    scale, (bias,) = fitted["scale_and_bias"]
    features = np.zeros((len(trees), DEPTH), np.int16)
    thresholds = np.full((len(trees), DEPTH), np.inf, np.float32)  # no value is above
    leaves = np.zeros((len(trees), 1 << DEPTH), np.int32)
    for i, tree in enumerate(trees):
        for k, split in enumerate(tree["splits"] or []):
            features[i, k] = column[split["float_feature_index"]]
            thresholds[i, k] = split["border"]
        values = np.array(tree["leaf_values"]) * scale * LOGIT
        leaves[i, : len(values)] = np.rint(values)
    return Forest(features, thresholds, leaves, round(bias * LOGIT))


def _probabilities() -> Float32Array:
    """Return the probability in the middle of each step of a logit."""
    step = (1 << STEP_BITS) / LOGIT
    logits = [(i - TABLE_SIZE // 2 + 0.5) * step for i in range(TABLE_SIZE)]
    return np.array([1 / (1 + math.exp(-logit)) for logit in logits], np.float32)
