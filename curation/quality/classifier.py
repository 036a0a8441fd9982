"""The fastText quality classifier: what it reads, how it scores, how it is trained.

A classifier tells texts that one wants more of (label `hq`) from others (label `cc`), as in DCLM
(Li et al. 2024), by the tokens of `curation.quality.segmentation` and runs of them; a text is one
line.

Training runs fastText's own program (`make fasttext-tool`) in a child process, always in ten
threads: version 0.9.3 fills a tenth of its input matrix a thread, so that fewer leave the rest
empty. Threads race, so two trainings differ in a few digits; a model is pinned by the digests of
its card.
"""

import hashlib
import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation import models
from curation.errors import InputMissing
from curation.quality.segmentation import segment
from curation.quality.tools import check_numbers, find_tool, train_fasttext

FloatArray = npt.NDArray[np.float64]

KIND = "classifier"
HIGH, LOW = "hq", "cc"
LABEL = "__label__"
HIGH_LABEL = LABEL + HIGH
MIN_TEXTS = 20
KEEP_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)


@dataclass(frozen=True)
class Training:
    """How a classifier is trained. The defaults are fastText's, and pairs of words as in DCLM.

    But for the buckets of pairs: 500,000 in place of 2 million make 200 MB in place of 800 MB, of
    which every Python worker has its own.
    """

    dim: int = 100
    lr: float = 0.1
    epoch: int = 5
    word_ngrams: int = 2
    min_count: int = 1
    bucket: int = 500_000
    seed: int = 1
    held_out: float = 0.1
    keep_share: float = 0.1


@dataclass(frozen=True)
class Classifier:
    """A loaded classifier, with its card."""

    model: Any
    card: Mapping[str, Any]


def score(text: pa.Array, classifier: Classifier) -> pa.DoubleArray:
    """Return the probability of the label `hq` for every text, 0..1; null for null.

    A text without a token that the model has seen has no score either. Cost: fastText's own
    predict, about 30,000 texts of 1.6 kB a second and core.
    """
    predict = classifier.model.f.predict  # the bound one: the wrapper breaks under NumPy 2
    nothing = [(math.nan, "")]  # what is said of a text without a word that the model knows
    found = [
        (predict(line, 1, 0.0, "strict") or nothing)[0] if line else nothing[0]
        for line in segment(text).text.to_pylist()
    ]
    if not found:
        return pa.array([], pa.float64())
    probabilities, labels = zip(*found, strict=True)
    likely = np.minimum(probabilities, 1.0)  # they sum to one, give or take 1e-5 of each
    is_high = np.array([label == HIGH_LABEL for label in labels])
    return pa.array(np.where(is_high, likely, 1.0 - likely), mask=np.isnan(likely))


def load(path: str, digest: str = "") -> Classifier:
    """Return the classifier of a card, loaded once per process.

    Raises ArtifactMissing, ArtifactChanged or ArtifactInvalid as `models.card` does.
    """
    return _load(path, digest or models.sha256(path))


def train(
    positive: Iterable[Sequence[str]],
    negative: Iterable[Sequence[str]],
    to: Path,
    *,
    language: str,
    training: Training = Training(),
    reference: Iterable[Sequence[str]] = (),
    sources: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Train on batches of texts; write `to` (the card, *.json) and the model beside it.

    A text is held out by its hash, so the split does not depend on order, and copies of a text are
    on one side. The card has the held-out metrics, and for shares of texts to keep the score above
    which so many of `reference` lie (of the held-out negatives when there is none).
    Raises InputMissing for fewer than MIN_TEXTS texts on a side, ConfigError for a number out of
    range, PrerequisiteMissing without fastText's program. Memory: the scores and held-out texts.
    """
    _check(training, to)
    program = find_tool("fasttext")
    with tempfile.TemporaryDirectory(prefix="curation-classifier-") as folder:
        written = Path(folder, "train.txt")
        sides = {}
        with written.open("w", encoding="utf-8") as file:
            for label, batches in ((HIGH, positive), (LOW, negative)):
                sides[label] = _write_side(batches, label, training.held_out, file)
        for label, side in sides.items():
            if side.num_texts < MIN_TEXTS or not 0 < len(side.held_out) < side.num_texts:
                raise InputMissing(
                    f"{side.num_texts} texts are labelled {label}, {len(side.held_out)} of them "
                    f"held out; a classifier needs {MIN_TEXTS} of each label, some of them on "
                    "either side: name more"
                )
        options = {
            "dim": training.dim,
            "lr": training.lr,
            "epoch": training.epoch,
            "wordNgrams": training.word_ngrams,
            "minCount": training.min_count,
            "bucket": training.bucket,
            "seed": training.seed,
        }
        train_fasttext(program, written, Path(folder, "model"), options)
        model_name = to.stem + ".bin"
        to.parent.mkdir(parents=True, exist_ok=True)
        unfinished = to.with_name(f".{model_name}.unfinished")
        shutil.copyfile(Path(folder, "model.bin"), unfinished)
    classifier = Classifier(models.fasttext_model(str(unfinished)), {})
    held = {label: _scores(side.held_out, classifier) for label, side in sides.items()}
    asked = [s for batch in reference for s in _scores(batch, classifier).tolist()]
    based_on = np.array(asked) if asked else held[LOW]
    unfinished.replace(to.with_name(model_name))
    card = {
        "kind": KIND,
        "language": language,
        "files": {model_name: models.sha256(str(to.with_name(model_name)))},
        "labels": {"high": HIGH, "low": LOW},
        "training": asdict(training),
        "data": {
            label: {
                "sources": list((sources or {}).get(label, ())),
                "num_texts": side.num_texts,
                "num_held_out": len(side.held_out),
                "sha256": side.digest,
            }
            for label, side in sides.items()
        },
        "held_out": metrics(held[HIGH], held[LOW]),
        "thresholds": {
            "of": "reference" if asked else "held-out negatives",
            "num_texts": len(based_on),
            "keep_share": training.keep_share,
            "threshold": threshold(based_on, training.keep_share),
            "by_share": {f"{share:g}": threshold(based_on, share) for share in KEEP_SHARES},
        },
    }
    models.write_card(to, card)
    return card


def threshold(scores: FloatArray, keep_share: float) -> float:
    """Return the highest score at or above which at least `keep_share` of the scores are."""
    ordered = np.sort(scores)[::-1]
    return float(ordered[max(math.ceil(keep_share * len(ordered)) - 1, 0)])


def metrics(high: FloatArray, low: FloatArray) -> dict[str, float]:
    """Return AUC, and precision, recall and accuracy at 0.5, of the scores of both labels."""
    true, false = int((high >= 0.5).sum()), int((low >= 0.5).sum())
    return {
        "auc": auc(high, low),
        "precision": true / max(true + false, 1),
        "recall": true / len(high),
        "accuracy": (true + len(low) - false) / (len(high) + len(low)),
    }


def auc(high: FloatArray, low: FloatArray) -> float:
    """Return the share of pairs in which the first side scores higher; ties count one half.

    The area under the ROC curve, by ranks (Mann and Whitney 1947). Cost: O(n log n).
    """
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, side="left")
    not_above = np.searchsorted(ordered, high, side="right")
    return float((below + not_above).sum() / (2 * len(high) * len(low)))


@dataclass
class _Side:
    """The texts of one label."""

    num_texts: int
    held_out: list[str]
    digest: str


def _write_side(batches: Iterable[Sequence[str]], label: str, share: float, file: Any) -> _Side:
    """Write the training lines of a label, keep its held-out texts, and digest them all."""
    digest = hashlib.sha256()
    num_texts, held_out = 0, []
    for batch in batches:
        lines = segment(pa.array(batch, pa.large_string())).text.to_pylist()
        for text, line in zip(batch, lines, strict=True):
            if not line:
                continue
            own = hashlib.sha256(line.encode()).digest()
            digest.update(own)
            num_texts += 1
            if int.from_bytes(own[:8], "big") < share * 2**64:
                held_out.append(text)
            else:
                file.write(f"{LABEL}{label} {line}\n")
    return _Side(num_texts, held_out, digest.hexdigest())


def _check(training: Training, to: Path) -> None:
    check_numbers(
        training,
        (
            ("dim", 1, 1000),
            ("lr", 1e-6, 10),
            ("epoch", 1, 1000),
            ("word_ngrams", 1, 5),
            ("min_count", 1, 10**9),
            ("bucket", 1, 100_000_000),
            ("seed", 0, 2**31 - 1),
            ("held_out", 0.001, 0.9),
            ("keep_share", 1e-6, 1),
        ),
    )
    models.check_card_name(to)


def _scores(texts: Sequence[str], classifier: Classifier) -> FloatArray:
    found = score(pa.array(texts, pa.large_string()), classifier).drop_null()
    return np.asarray(found, np.float64)


@lru_cache(maxsize=8)
def _load(path: str, digest: str) -> Classifier:
    card = models.card(path, digest, KIND)
    (name,) = card["files"]
    return Classifier(models.fasttext_model(str(models.beside(path, name))), card)
