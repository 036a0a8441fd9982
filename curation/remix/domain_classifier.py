"""The fastText domain classifier: what it reads, how it labels, how it is trained.

It reads what is in a text, not how often: the distinct words and signs of
`curation.quality.segmentation`, and how much of the text is code and formulas, in steps, as words
of their own. On pages of packages that it was not trained on this is better than running text
(tests/bench/domains.py has the numbers).
"""

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curation import models
from curation.errors import ConfigError, InputMissing
from curation.hashing import FNV_OFFSET, FNV_PRIME
from curation.ingest.text import utf8_buffers
from curation.quality.segmentation import segment
from curation.quality.tools import check_numbers, find_tool, train_fasttext
from curation.remix.structure import structure

KIND = "domains"
ANY_LANGUAGE = "*"
LABEL = "__label__"
MIN_TEXTS = 20

# A text is known by its first words; a novel would weigh no more than its first chapters.
MAX_WORDS = 5_000

# Upper bounds of the steps of code and formulas, and how often the word of a step stands in a line.
CODE_STEPS = (0.01, 0.05, 0.15, 0.3, 0.5)
MATH_STEPS = (0.0005, 0.005, 0.02)
STEP_REPEATS = 4

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Training:
    """How a domain classifier is trained; `min_chars` to `max_chars` are parts of words."""

    dim: int = 16
    lr: float = 0.2
    epoch: int = 10
    min_count: int = 2
    min_chars: int = 0
    max_chars: int = 0
    bucket: int = 100_000
    seed: int = 1
    held_out: float = 0.1


class Labelled(NamedTuple):
    """The most probable domain of texts, and its probability, 0..1."""

    label: pa.StringArray
    score: pa.DoubleArray


@dataclass(frozen=True)
class DomainClassifier:
    """A loaded classifier, with its card."""

    model: Any
    card: Mapping[str, Any]


def classify(text: pa.Array, classifier: DomainClassifier) -> Labelled:
    """Return the most probable domain of every text; null for null, and without a known word."""
    return classify_lines(features(text), classifier)


def classify_lines(lines: pa.Array, classifier: DomainClassifier) -> Labelled:
    """Label what `features` returned; a classifier tried on texts again and again reads it once."""
    predict = classifier.model.f.predict  # the bound one: the wrapper breaks under NumPy 2
    found = [
        (predict(line, 1, 0.0, "strict") or [(None, "")])[0] if line else (None, "")
        for line in lines.to_pylist()
    ]
    return Labelled(
        pa.array([label.removeprefix(LABEL) or None for _, label in found], pa.string()),
        pa.array([None if p is None else min(p, 1.0) for p, _ in found], pa.float64()),
    )


def features(text: pa.Array) -> pa.LargeStringArray:
    """Return what the classifier reads of every text, as a line; null for null, "" without a word.

    Cost: that of `segment` and `structure`.
    """
    data, offsets = utf8_buffers(segment(text).text)
    lines, ends = _distinct(data, offsets, MAX_WORDS)
    words = pa.LargeStringArray.from_buffers(len(text), pa.py_buffer(ends), pa.py_buffer(lines))
    shares = structure(text)
    prefix = pc.binary_join_element_wise(
        _steps("code", shares.field("code_share"), CODE_STEPS),
        _steps("math", shares.field("math_share"), MATH_STEPS),
        pa.scalar(" "),
    ).cast(pa.large_string())
    joined = pc.binary_join_element_wise(prefix, words, pa.scalar(" ", pa.large_string()))
    line = pc.if_else(pc.equal(pc.binary_length(words), 0), words, joined)
    return pc.if_else(text.is_valid(), line, pa.scalar(None, pa.large_string()))


def load(path: str, digest: str = "") -> DomainClassifier:
    """Return the classifier of a card, loaded once per process; raises as `models.card` does."""
    return _load(path, digest or models.sha256(path))


def train(
    texts: Mapping[str, Iterable[Sequence[str]]],
    to: Path,
    *,
    language: str = ANY_LANGUAGE,
    training: Training = Training(),
    sources: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Train on batches of texts by label; write `to` (the card, *.json) and the model beside it.

    A text is held out by its hash; of labels with fewer texts each is taken more often, so that all
    weigh about the same. The card has precision, recall and F1 of every label on the held-out texts
    and what was taken for what. Raises InputMissing for fewer than MIN_TEXTS texts of a label,
    ConfigError for a number out of range, PrerequisiteMissing without fastText's program. Memory:
    the lines of the largest label.
    """
    lines = {
        label: [line for batch in batches for line in features_of(batch)]
        for label, batches in texts.items()
    }
    return train_lines(lines, to, language=language, training=training, sources=sources)


def features_of(texts: Sequence[str]) -> list[str]:
    """Return the lines of texts that have a word."""
    return [line for line in features(pa.array(texts, pa.large_string())).to_pylist() if line]


def train_lines(
    lines: Mapping[str, Sequence[str]],
    to: Path,
    *,
    language: str = ANY_LANGUAGE,
    training: Training = Training(),
    sources: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Train as `train` does, on lines that `features` returned."""
    _check(training, to, lines)
    program = find_tool("fasttext")
    own, held = {}, {}
    for label, found in lines.items():
        is_held = [_fraction(line) < training.held_out for line in found]
        held[label] = [line for line, out in zip(found, is_held, strict=True) if out]
        own[label] = [line for line, out in zip(found, is_held, strict=True) if not out]
        if len(found) < MIN_TEXTS or not own[label]:
            raise InputMissing(
                f"{len(found)} texts are labelled {label}; a domain classifier needs {MIN_TEXTS} "
                "of each label: name more"
            )
    model_name = to.stem + ".bin"
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="curation-domains-") as folder:
        written = Path(folder, "train.txt")
        _write(own, written)
        options = {
            "dim": training.dim,
            "lr": training.lr,
            "epoch": training.epoch,
            "minCount": training.min_count,
            "minn": training.min_chars,
            "maxn": training.max_chars,
            "bucket": training.bucket,
            "seed": training.seed,
        }
        train_fasttext(program, written, Path(folder, "model"), options)
        unfinished = to.with_name(f".{model_name}.unfinished")
        shutil.copyfile(Path(folder, "model.bin"), unfinished)
        unfinished.replace(to.with_name(model_name))
    classifier = DomainClassifier(models.fasttext_model(str(to.with_name(model_name))), {})
    taken_for = {
        label: Counter(
            classify_lines(pa.array(found, pa.large_string()), classifier).label.to_pylist()
        )
        for label, found in held.items()
    }
    card = {
        "kind": KIND,
        "language": language,
        "files": {model_name: models.sha256(str(to.with_name(model_name)))},
        "labels": sorted(lines),
        "training": asdict(training),
        "data": {
            label: {
                "sources": list((sources or {}).get(label, ())),
                "num_texts": len(found),
                "num_held_out": len(held[label]),
                "sha256": hashlib.sha256("\n".join(found).encode()).hexdigest(),
            }
            for label, found in lines.items()
        },
        "held_out": metrics(taken_for),
    }
    models.write_card(to, card)
    return card


def metrics(taken_for: Mapping[str, Mapping[str | None, int]]) -> dict[str, Any]:
    """Return precision, recall and F1 of every label and their mean, of true label -> predicted."""
    by_label = {}
    for label, found in taken_for.items():
        true = found.get(label, 0)
        predicted = sum(other.get(label, 0) for other in taken_for.values())
        actual = sum(found.values())
        by_label[label] = {
            "precision": true / max(predicted, 1),
            "recall": true / max(actual, 1),
            "f1": 2 * true / max(predicted + actual, 1),
        }
    return {
        "macro_f1": sum(each["f1"] for each in by_label.values()) / max(len(by_label), 1),
        "by_label": by_label,
        "taken_for": {
            label: {str(name): count for name, count in sorted(found.items(), key=str)}
            for label, found in taken_for.items()
        },
    }


def _steps(name: str, share: pa.Array, bounds: Sequence[float]) -> pa.Array:
    """Return the word of each share's step, several times."""
    words = pa.array([" ".join([f"={name}{i}="] * STEP_REPEATS) for i in range(len(bounds) + 1)])
    step = np.searchsorted(bounds, np.asarray(share.fill_null(0.0)), side="right")
    return words.take(pa.array(step))


def _write(lines: Mapping[str, Sequence[str]], to: Path) -> None:
    most = max(len(found) for found in lines.values())
    with to.open("w", encoding="utf-8") as file:
        for label, found in lines.items():
            for line in found:
                file.write(f"{LABEL}{label} {line}\n" * max(1, round(most / len(found))))


def _fraction(line: str) -> float:
    return int.from_bytes(hashlib.sha256(line.encode()).digest()[:8], "big") / 2.0**64


def _check(training: Training, to: Path, lines: Mapping[str, object]) -> None:
    check_numbers(
        training,
        (
            ("dim", 1, 1000),
            ("lr", 1e-6, 10),
            ("epoch", 1, 1000),
            ("min_count", 1, 10**9),
            ("min_chars", 0, 10),
            ("max_chars", 0, 10),
            ("bucket", 1, 100_000_000),
            ("seed", 0, 2**31 - 1),
            ("held_out", 0.001, 0.9),
        ),
    )
    models.check_card_name(to)
    if len(lines) < 2:
        raise ConfigError(f"{len(lines)} labels; a domain classifier tells at least two apart")
    for label in lines:
        if not label or any(c.isspace() or c == "/" for c in label):
            raise ConfigError(f"the label {label!r} has a space or slash, or is empty; change it")


@lru_cache(maxsize=8)
def _load(path: str, digest: str) -> DomainClassifier:
    card = models.card(path, digest, KIND)
    (name,) = card["files"]
    return DomainClassifier(models.fasttext_model(str(models.beside(path, name))), card)


@njit(cache=True, nogil=True)
def _distinct(
    data: UInt8Array, offsets: Int64Array, max_words: int
) -> tuple[UInt8Array, Int64Array]:
    """Return the distinct words of lines, in the order of their first occurrence.

    Words are told apart by 64-bit hashes: of 5,000, two are alike with probability 1e-12.
    """
    out = np.empty(offsets[-1] - offsets[0], np.uint8)
    ends = np.zeros(len(offsets), np.int64)
    slots = np.zeros(1 << 14, np.uint64)  # at most a third full
    of_row = np.full(len(slots), -1, np.int64)
    filled = 0
    for row in range(len(offsets) - 1):
        num_words = 0
        at = offsets[row]
        while at < offsets[row + 1] and num_words < max_words:
            stop, h = at, FNV_OFFSET
            while stop < offsets[row + 1] and data[stop] != 32:
                h = (h ^ np.uint64(data[stop])) * FNV_PRIME
                stop += 1
            slot = np.int64(h & np.uint64(len(slots) - 1))
            while of_row[slot] == row and slots[slot] != h:
                slot = (slot + 1) & (len(slots) - 1)
            if of_row[slot] != row and stop > at:
                of_row[slot], slots[slot] = row, h
                if num_words:
                    out[filled] = 32
                    filled += 1
                out[filled : filled + stop - at] = data[at:stop]
                filled += stop - at
                num_words += 1
            at = stop + 1
        ends[row + 1] = filled
    return out[:filled], ends
