"""HTML -> main text by a model that decides for every block of a page: the engine `blocks`.

1. `blocks.parse`: the blocks of the page, in one pass over its bytes.
2. `block_features.describe`, a first forest, `describe_again`, a second forest: how likely each
   block is main text.
3. The blocks that make the expected F1 of the page highest are kept. With p the probability and w
   the words of a block, that of keeping the set K is 2 sum_K(p w) / (sum_K(w) + sum(p w)); the best
   set is that of the blocks above half of what it reaches (Lipton, Elkan, Naryanaswamy 2014).
4. They are written down: a list item after "- ", a row of a table as "| a | b |", code with its
   lines and indentation, a blank line between paragraphs.

A forest adds integers and compares float32 with float32, and probabilities are read from a table
that comes with the model, so that a page gives the same text on every machine.
"""

import hashlib
import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from curation import models
from curation.config import DEFAULT_EXTRACTOR_MODEL
from curation.errors import ArtifactInvalid
from curation.ingest import formulas
from curation.ingest.block_features import (
    FEATURES,
    KINDS_OF_PHRASES,
    SECOND_FEATURES,
    Float32Array,
    Shape,
    describe,
    describe_again,
)
from curation.ingest.blocks import (
    APART,
    BLOCK_END,
    BLOCK_FLAGS,
    BLOCK_NODE,
    BLOCK_START,
    BROKEN,
    DASH,
    DD,
    DT,
    IN_PRE,
    KINDS_OF_NAMES,
    KINDS_OF_PAGES,
    LI,
    LINE_END,
    NODE_FLAGS,
    NODE_PARENT,
    NODE_TAG,
    OL,
    PRE,
    SPACE,
    TABLE,
    TAG_KINDS,
    TD,
    TH,
    TR,
    UL,
    VERBATIM,
    Blocks,
    block_element,
    parse,
)

KIND = "extractor"
# A sum of leaves is an integer of this many parts of a logit; the table has a step every 1/64.
LOGIT = 1 << 16
STEP_BITS = 10
TABLE_SIZE = 2048  # logits from -16 to 16
# A page of which less is expected has no main text. On the gold sets, by models that had not seen
# the site: 8 of 15 pages without main text, and 2 of 586 others, whose text was wrong altogether.
LEAST_F1 = 0.1
MAX_INDENTS = 8  # of a list in lists
(BAR,) = b"|"

BoolArray = npt.NDArray[np.bool_]
Int16Array = npt.NDArray[np.int16]
Int32Array = npt.NDArray[np.int32]
UInt8Array = npt.NDArray[np.uint8]


class Forest(NamedTuple):
    """Oblivious trees: all nodes of a level ask the same.

    features: int16, thresholds: float32, both (num_trees, depth); leaves: int32
    (num_trees, 2^depth), in 1/LOGIT; bias: the logit of no tree, in 1/LOGIT.
    """

    features: Int16Array
    thresholds: Float32Array
    leaves: Int32Array
    bias: int


class Model(NamedTuple):
    """Two forests, and the probability of each step of a logit."""

    first: Forest
    second: Forest
    probabilities: Float32Array


class MainText(NamedTuple):
    """A text, and the F1 that the model expects of it, 0..1."""

    text: str
    expected_f1: float


def main_text(page: str, model: Model, *, comments: bool = True) -> MainText:
    """Return the main text of a decoded page and the expected F1. Cost: about 1.5 ms for 200 kB.

    Formulas stand in it as TeX (see `formulas`).

    comments: whether what stands in elements named after comments may be kept; without, a page that
    has nothing else (many forums name their posts so) is kept. Lone surrogates become "?".
    """
    data, blocks = blocks_of(page)
    if not len(blocks.blocks):
        return MainText("", 0.0)
    return decide(blocks, *describe(data, blocks), model, comments=comments)


def blocks_of(page: str) -> tuple[UInt8Array, Blocks]:
    """Return the blocks of a decoded page with its formulas as TeX, and the bytes that they are of.

    Few pages have formulas, and looking for some takes as long as to parse the page.
    """
    data = np.frombuffer(page.encode("utf-8", "replace"), np.uint8)
    blocks = parse(data)
    if blocks.has_formulas:
        data = np.frombuffer(formulas.tex(page).encode("utf-8", "replace"), np.uint8)
        blocks = parse(data)
    return data, blocks


def decide(
    blocks: Blocks, found: Float32Array, shape: Shape, model: Model, *, comments: bool = True
) -> MainText:
    """Return the main text of a page by its blocks and what describes them; see `main_text`."""
    kept, expected_f1 = choose(probabilities(found, shape, model), shape.words)
    if expected_f1 < LEAST_F1:
        return MainText("", expected_f1)
    elsewhere = kept & (found[COMMENT_ROW] == 0)
    if not comments and elsewhere.any():
        kept = elsewhere
    return MainText(written(blocks, kept), expected_f1)


def probabilities(found: Float32Array, shape: Shape, model: Model) -> Float32Array:
    """Return how likely each block is main text, float32 (num_blocks,), by what describes it."""
    first = likelihood(found, model.first, model.probabilities)
    both = np.concatenate((found, describe_again(first, shape)))
    likely = likelihood(both, model.second, model.probabilities)
    likely[shape.copies] = 0
    return likely


def likelihood(features: Float32Array, forest: Forest, table: Float32Array) -> Float32Array:
    """Return what a forest makes of features, float32 (num_features, num_blocks)."""
    found = np.empty(features.shape[1], np.float32)
    _likelihood(
        features, forest.features, forest.thresholds, forest.leaves, forest.bias, table, found
    )
    return found


def choose(likely: Float32Array, words: Int32Array) -> tuple[BoolArray, float]:
    """Return which blocks make the expected F1 highest, and that F1."""
    kept = np.zeros(len(likely), np.bool_)
    return kept, _choose(likely, words, kept)


def written(blocks: Blocks, kept: BoolArray) -> str:
    """Return the text of some blocks of a page."""
    out = np.empty(
        len(blocks.text) + 32 * len(blocks.blocks) + 2 * len(blocks.nodes) + 16, np.uint8
    )
    num_bytes = _write(blocks.text, blocks.blocks, blocks.nodes, kept, out)
    return out[:num_bytes].tobytes().decode("utf-8", "replace")


class Extractor(NamedTuple):
    """A model, and quantiles of the F1 that it expects of pages, least first."""

    model: Model
    expected_f1_quantiles: tuple[float, ...]


@lru_cache(maxsize=2)
def load(card: str = DEFAULT_EXTRACTOR_MODEL, digest: str = "") -> Extractor:
    """Return the extractor of a card, loaded once; with a digest, only that card.

    Raises what `models.card` raises, and ArtifactInvalid for a model of other features.
    """
    found = models.card(card, digest or models.sha256(card), KIND)
    quantiles = found.get("expected_f1_quantiles")
    if len(found["files"]) != 1 or not quantiles:
        raise ArtifactInvalid(
            f"{card} needs one file and expected_f1_quantiles; name a card that "
            "`curation train-extractor` wrote"
        )
    (name,) = found["files"]
    return Extractor(read(models.beside(card, name).read_bytes()), tuple(quantiles))


def least_expected(extractor: Extractor, share: float) -> float:
    """Return the F1 that an extractor expects of all but `share` of pages, or more.

    By its card's quantiles: of pages of its gold sets, each by a model that had not seen its site;
    of other pages the share is another. 1 is above what any page is expected to have.
    """
    if share >= 1:
        return 2.0
    quantiles = extractor.expected_f1_quantiles
    return float(np.interp(share, np.linspace(0, 1, len(quantiles)), quantiles))


def read(contents: bytes) -> Model:
    """Return the model of a file; raises ArtifactInvalid for one made for other features."""
    with np.load(io.BytesIO(contents), allow_pickle=False) as arrays:
        if "meaning" not in arrays or str(arrays["meaning"]) != MEANING:
            raise ArtifactInvalid(
                "the model for main text was trained on other features than this version has; "
                "train it again: python jobs/train_extractor.py --help"
            )
        first, second = (
            Forest(
                arrays[f"{name}_features"],
                arrays[f"{name}_thresholds"],
                arrays[f"{name}_leaves"],
                int(arrays[f"{name}_bias"]),
            )
            for name in ("first", "second")
        )
        return Model(first, second, arrays["probabilities"])


def arrays_of(model: Model) -> Mapping[str, npt.NDArray[np.generic]]:
    """Return what a model's file holds, by name."""
    found: dict[str, npt.NDArray[np.generic]] = {
        "meaning": np.array(MEANING),
        "probabilities": model.probabilities,
    }
    for name, forest in (("first", model.first), ("second", model.second)):
        found[f"{name}_features"] = forest.features
        found[f"{name}_thresholds"] = forest.thresholds
        found[f"{name}_leaves"] = forest.leaves
        found[f"{name}_bias"] = np.array(forest.bias, np.int64)
    return found


# What a model was trained on: the features, and the words and tags that they count.
MEANING = hashlib.sha256(
    repr(
        (FEATURES, SECOND_FEATURES, KINDS_OF_NAMES, KINDS_OF_PAGES, KINDS_OF_PHRASES, TAG_KINDS)
    ).encode()
).hexdigest()
COMMENT_ROW = FEATURES.index("named_comment")


@njit(cache=True, nogil=True)
def _likelihood(
    x: Float32Array,
    features: Int16Array,
    thresholds: Float32Array,
    leaves: Int32Array,
    bias: int,
    table: Float32Array,
    out: Float32Array,
) -> None:
    num_blocks = x.shape[1]
    total = np.full(num_blocks, bias, np.int64)
    index = np.zeros(num_blocks, np.int32)
    for t in range(features.shape[0]):
        index[:] = 0
        for k in range(features.shape[1]):
            row = x[features[t, k]]
            threshold = thresholds[t, k]
            bit = np.int32(1 << k)
            for b in range(num_blocks):
                index[b] |= bit if row[b] > threshold else np.int32(0)
        tree = leaves[t]
        for b in range(num_blocks):
            total[b] += tree[index[b]]
    for b in range(num_blocks):
        step = (total[b] >> STEP_BITS) + TABLE_SIZE // 2
        out[b] = table[min(max(step, 0), TABLE_SIZE - 1)]


@njit(cache=True, nogil=True)
def _choose(likely: Float32Array, words: Int32Array, kept: BoolArray) -> float:
    num_blocks = len(likely)
    expected = 0.0
    for b in range(num_blocks):
        expected += np.float64(likely[b]) * np.float64(words[b])
    if expected == 0.0:
        return 0.0
    order = np.argsort(-likely, kind="mergesort")
    best = 0.0
    shared = num_words = 0.0
    for k in range(num_blocks):
        b = order[k]
        shared += np.float64(likely[b]) * np.float64(words[b])
        num_words += np.float64(words[b])
        best = max(best, 2 * shared / (num_words + expected))
    for b in range(num_blocks):
        kept[b] = 2 * np.float64(likely[b]) > best
    return best


@njit(cache=True, nogil=True)
def _table_rows(blocks: Int32Array, nodes: Int32Array, kept: BoolArray) -> Any:
    """Return the row and cell of each kept block that stands in a row of cells, else -1, and of
    each cell its place in the row, of each row its cells.

    No row of cells has code in it, or a table, or a cell of several paragraphs, or text behind a
    cell, or one cell only; where only one is kept, another row of the table has two.
    """
    row_of = np.full(len(blocks), -1, np.int32)
    cell_of = np.full(len(blocks), -1, np.int32)
    place = np.zeros(len(nodes), np.int32)
    num_cells = np.zeros(len(nodes), np.int32)
    for n in range(1, len(nodes)):
        if nodes[n, NODE_TAG] == TD or nodes[n, NODE_TAG] == TH:
            row = nodes[n, NODE_PARENT]
            place[n] = num_cells[row]
            num_cells[row] += 1
    last = np.full(len(nodes), -1, np.int32)  # kept block of each cell
    num_kept = np.zeros(len(nodes), np.int32)  # cells of each row that have one
    is_broken = np.zeros(len(nodes), np.bool_)
    for b in range(len(blocks)):
        if not kept[b]:
            continue
        node = blocks[b, BLOCK_NODE]
        cell = node
        while cell > 0 and nodes[cell, NODE_TAG] != TD and nodes[cell, NODE_TAG] != TH:
            cell = nodes[cell, NODE_PARENT]
        row = nodes[cell, NODE_PARENT]
        is_cell = cell > 0 and nodes[row, NODE_TAG] == TR
        outer = nodes[row, NODE_PARENT] if is_cell else node
        if is_cell:
            row_of[b], cell_of[b] = row, cell
            before = last[cell]
            if before < 0:
                num_kept[row] += 1
            elif blocks[before, BLOCK_NODE] != node or not blocks[b, BLOCK_FLAGS] & BROKEN:
                is_broken[row] = True
            last[cell] = b
            if nodes[node, NODE_FLAGS] & IN_PRE:
                is_broken[row] = True
        while outer > 0:  # text between two cells would begin their row again each time
            if nodes[outer, NODE_TAG] == TR and (is_cell or num_kept[outer] > 0):
                is_broken[outer] = True
            outer = nodes[outer, NODE_PARENT]
    has_rows = np.zeros(len(nodes), np.bool_)  # of tables
    for row in range(1, len(nodes)):
        if num_kept[row] >= 2 and not is_broken[row]:
            has_rows[_around(nodes, row, TABLE)] = True
    for b in range(len(blocks)):
        row = row_of[b]
        if row >= 0 and (
            is_broken[row]
            or num_cells[row] < 2
            or (num_kept[row] < 2 and not has_rows[_around(nodes, row, TABLE)])
        ):
            row_of[b] = -1
    return row_of, cell_of, place, num_cells


@njit(cache=True, nogil=True)
def _around(nodes: Int32Array, n: Any, tag: int) -> Any:
    """Return the innermost element of a tag that holds a node or is it, or 0."""
    while n > 0 and nodes[n, NODE_TAG] != tag:
        n = nodes[n, NODE_PARENT]
    return n


@njit(cache=True, nogil=True)
def _put_bars(out: UInt8Array, at: int, num_bars: int) -> int:
    """Write " |" some times."""
    for _ in range(num_bars):
        out[at] = SPACE
        out[at + 1] = BAR
        at += 2
    return at


@njit(cache=True, nogil=True)
def _write(
    text: UInt8Array,
    blocks: Int32Array,
    nodes: Int32Array,
    kept: BoolArray,
    out: UInt8Array,
) -> int:
    """Write the kept blocks; return how many bytes.

    Besides the text that is at most 2 bytes a node (bars) and 32 a block (line ends, indentation).
    """
    row_of, cell_of, place, num_cells = _table_rows(blocks, nodes, kept)
    at = 0
    previous = -1
    open_row = open_cell = -1
    for b in range(len(blocks)):
        if not kept[b]:
            continue
        node = blocks[b, BLOCK_NODE]
        row, cell = row_of[b], cell_of[b]
        own = block_element(nodes, node)
        item = _around(nodes, own, LI)
        if open_row >= 0 and row != open_row:
            at = _put_bars(out, at, num_cells[open_row] - place[open_cell])
            open_row = -1
        if row < 0 or row != open_row:
            if previous >= 0:
                before = blocks[previous, BLOCK_NODE]
                out[at] = LINE_END
                at += 1
                if row >= 0 and row_of[previous] >= 0:
                    is_close = True
                elif previous == b - 1 and blocks[b, BLOCK_FLAGS] & (BROKEN | APART) == BROKEN:
                    is_close = own == block_element(nodes, before)
                elif nodes[node, NODE_FLAGS] & IN_PRE:
                    pre = _around(nodes, node, PRE)
                    is_close = pre > 0 and pre == _around(nodes, before, PRE)
                else:
                    before_own = block_element(nodes, before)
                    tag, before_tag = nodes[own, NODE_TAG], nodes[before_own, NODE_TAG]
                    is_close = (item > 0 and _around(nodes, before_own, LI) > 0) or (
                        (tag == DD or tag == DT) and (before_tag == DD or before_tag == DT)
                    )
                if not is_close:
                    out[at] = LINE_END
                    at += 1
            if row >= 0:
                out[at] = BAR
                at = _put_bars(out, at + 1, place[cell])
                out[at] = SPACE
                at += 1
        else:
            if cell != open_cell:
                at = _put_bars(out, at, place[cell] - place[open_cell])
            out[at] = SPACE
            at += 1
        open_row, open_cell = row, cell
        if item > 0 and row < 0 and not nodes[node, NODE_FLAGS] & IN_PRE:
            depth = -1
            n = nodes[item, NODE_PARENT]
            while n > 0:
                if nodes[n, NODE_TAG] == UL or nodes[n, NODE_TAG] == OL:
                    depth += 1
                n = nodes[n, NODE_PARENT]
            for _ in range(2 * min(depth, MAX_INDENTS)):
                out[at] = SPACE
                at += 1
            n = blocks[previous, BLOCK_NODE] if previous >= 0 else 0
            while n > item:
                n = nodes[n, NODE_PARENT]
            out[at] = SPACE if n == item else DASH  # a further block of the item, or its first
            out[at + 1] = SPACE
            at += 2
        end = blocks[b, BLOCK_END]
        if blocks[b, BLOCK_FLAGS] & VERBATIM and text[end - 1] == LINE_END:
            end -= 1  # the last line of a block is ended by its end, too
        for i in range(blocks[b, BLOCK_START], end):
            out[at] = text[i]
            at += 1
        previous = b
    if open_row >= 0:
        at = _put_bars(out, at, num_cells[open_row] - place[open_cell])
    return at
