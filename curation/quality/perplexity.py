"""The KenLM language model: how it scores, how it is trained.

As CCNet (Wenzek et al. 2020): a line is a sentence, and perplexity is 10 ** (-log10 p / (tokens +
lines)), with the end of every line counted. Unlike CCNet, tokens are words, signs and, of words
that are not in the vocabulary, letters (`curation.quality.segmentation`) rather than SentencePiece:
one pass of a kernel in place of a tokenizer that takes longer than the model. Perplexities by token
are comparable within a model only; by character they are between models, too.

Training runs `lmplz` and `build_binary` (`make kenlm-tools`) in child processes. The same texts
give the same model, byte by byte.
"""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation import models
from curation.errors import ArtifactInvalid, ConfigError, InputMissing
from curation.quality.percentiles import perplexity_bin
from curation.quality.segmentation import segment, vocabulary_of
from curation.quality.tools import check_numbers, find_tool

KIND = "perplexity"
MIN_LINES = 200

SCORE_TYPE = pa.struct(
    [
        ("num_tokens", pa.int64()),
        ("log10_prob", pa.float64()),
        ("perplexity", pa.float64()),
        ("perplexity_char", pa.float64()),
        ("perplexity_bin", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Training:
    """How a model is trained. CCNet: 5-grams of 65,536 word pieces; order and pruning set size."""

    order: int = 5
    prune: tuple[int, ...] = (0, 0, 1)  # n-grams that occur so often or less; the last for all more
    vocabulary: int = 65_536  # words, the most frequent ones
    min_count: int = 3  # occurrences of a word of the vocabulary
    quantize_bits: int = 8  # of probabilities and of back-offs; 0 keeps floats
    held_out: float = 0.02
    memory: str = "20%"  # of lmplz, and then it sorts on disk


@dataclass(frozen=True)
class Model:
    """A loaded model: KenLM's, mapped into memory, which all processes of a machine share."""

    model: Any
    vocabulary: npt.NDArray[np.uint64]
    card: Mapping[str, Any]


def score(text: pa.Array, model: Model) -> pa.StructArray:
    """Return SCORE_TYPE for every text; null for null, null numbers for a text without a token.

    A word that is spelled is one token, and characters are those of words and signs.

    Cost: KenLM's own, about 1 M tokens/s and core.
    """
    found = segment(text, model.vocabulary, keep_lines=True)
    line_score = model.model.score
    log10_prob = np.zeros(len(text))
    for row, lines in enumerate(found.text.to_pylist()):
        if lines:
            log10_prob[row] = sum(map(line_score, lines.split("\n")))
    empty = pa.array(found.num_tokens == 0)
    total = pc.if_else(empty, None, pa.array(log10_prob))
    units, num_chars = pa.array(found.num_tokens + found.num_lines), pa.array(found.num_chars)
    columns = {
        "num_tokens": pa.array(found.num_tokens),
        "log10_prob": total,
        "perplexity": _perplexity(total, units),
        "perplexity_char": _perplexity(total, num_chars),
        "perplexity_bin": perplexity_bin(total, num_chars),
    }
    return pa.StructArray.from_arrays(
        [columns[field.name].cast(field.type) for field in SCORE_TYPE],
        fields=list(SCORE_TYPE),
        mask=pa.array(np.asarray(pc.is_null(text))),
    )


def load(path: str, digest: str = "") -> Model:
    """Return the model of a card, loaded once per process.

    Raises ArtifactMissing, ArtifactChanged or ArtifactInvalid as `models.card` does.
    """
    return _load(path, digest or models.sha256(path))


def train(
    texts: Iterable[Sequence[str]],
    to: Path,
    *,
    language: str,
    training: Training = Training(),
    sources: Sequence[str] = (),
) -> dict[str, Any]:
    """Train on batches of texts; write `to` (the card, *.json), the model and its vocabulary.

    Lines that occur again are used once. A text is held out by its hash. Raises InputMissing for
    fewer than MIN_LINES lines, ConfigError for a number out of range, PrerequisiteMissing without
    KenLM's programs, ArtifactInvalid with what they say. Memory: the distinct lines' hashes, and
    what `training.memory` allows; the rest is on disk.
    """
    _check(training, to)
    lmplz, build_binary = find_tool("lmplz"), find_tool("build_binary")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="curation-perplexity-") as name:
        folder = Path(name)
        corpus = _write_corpus(texts, folder, training)
        words = _vocabulary(corpus.counts, training)
        vocabulary = vocabulary_of(pa.array(words, pa.string()))
        num_lines = _write_lines(folder, vocabulary)
        if num_lines < MIN_LINES:
            raise InputMissing(
                f"{corpus.num_texts} texts have {num_lines} different lines to train on; a model "
                f"needs {MIN_LINES}: name more"
            )
        _run_kenlm(lmplz, build_binary, folder, training)
        names = {"bin": f"{to.stem}.bin", "vocabulary": f"{to.stem}.vocabulary"}
        (folder / "words").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        for made, placed in (("model.bin", names["bin"]), ("words", names["vocabulary"])):
            unfinished = to.with_name(f".{placed}.unfinished")
            shutil.copyfile(folder / made, unfinished)
            unfinished.replace(to.with_name(placed))
        model = Model(_open(to.with_name(names["bin"])), vocabulary, {})
        held_out = pq.read_table(folder / "held_out.parquet")["text"].combine_chunks()
        found = score(held_out, model)
    card = {
        "kind": KIND,
        "language": language,
        "files": {placed: models.sha256(str(to.with_name(placed))) for placed in names.values()},
        "training": asdict(training),
        "data": {
            "sources": list(sources),
            "num_texts": corpus.num_texts,
            "num_lines": num_lines,
            "sha256": corpus.digest,
        },
        "vocabulary": len(words),
        "held_out": {
            "num_texts": len(held_out),
            **{
                f"median_{column}": pc.quantile(found.field(column), 0.5)[0].as_py()
                for column in ("perplexity", "perplexity_char")
            },
        },
    }
    models.write_card(to, card)
    return card


def _perplexity(log10_prob: pa.Array, num_units: pa.Array) -> pa.DoubleArray:
    decades = np.asarray(pc.negate(pc.divide(log10_prob, num_units.cast(pa.float64()))))
    # a hopeless text is worth no infinity, which no rule's bound could name
    found = np.power(10.0, np.minimum(np.nan_to_num(decades), 300.0))
    return pa.array(found, mask=np.asarray(pc.is_null(log10_prob)))


@dataclass
class _Corpus:
    num_texts: int
    digest: str
    counts: pa.Table  # word, count


def _write_corpus(texts: Iterable[Sequence[str]], folder: Path, training: Training) -> _Corpus:
    """Write the texts to train on and those held out, and count words of the former."""
    digest = hashlib.sha256()
    num_texts = 0
    schema = pa.schema([("text", pa.large_string())])
    counted = []
    with (
        pq.ParquetWriter(folder / "train.parquet", schema) as train_file,
        pq.ParquetWriter(folder / "held_out.parquet", schema) as held_out_file,
    ):
        for batch in texts:
            held_out = []
            for text in batch:
                own = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
                digest.update(own)
                held_out.append(int.from_bytes(own[:8], "big") < training.held_out * 2**64)
            rows = pa.table({"text": pa.array(batch, pa.large_string())})
            is_out = pa.array(held_out, pa.bool_())
            num_texts += rows.num_rows
            train_file.write_table(rows.filter(pc.invert(is_out)))
            held_out_file.write_table(rows.filter(is_out))
            lines = segment(rows["text"].combine_chunks().filter(pc.invert(is_out))).text
            tokens = pc.split_pattern(lines, " ").flatten()
            counted.append(
                pa.table({"word": tokens}).group_by("word").aggregate([([], "count_all")])
            )
    none = pa.table(
        {"word": pa.array([], pa.large_string()), "count_all": pa.array([], pa.int64())}
    )
    every = pa.concat_tables([none, *counted])
    sums = every.group_by("word").aggregate([("count_all", "sum")])
    return _Corpus(num_texts, digest.hexdigest(), sums.rename_columns(["word", "count"]))


def _vocabulary(counts: pa.Table, training: Training) -> list[str]:
    """Return the most frequent words, ascending; of equally frequent ones the lower come first."""
    frequent = counts.filter(pc.greater_equal(counts["count"], training.min_count))
    ordered = frequent.sort_by([("count", "descending"), ("word", "ascending")])
    chosen = ordered["word"].slice(0, training.vocabulary).to_pylist()
    return sorted(word for word in chosen if word)


def _write_lines(folder: Path, vocabulary: npt.NDArray[np.uint64]) -> int:
    """Write the lines that lmplz reads, each once; return how many."""
    seen: set[bytes] = set()
    with (
        pq.ParquetFile(folder / "train.parquet") as file,
        (folder / "lines").open("w", encoding="utf-8") as lines,
    ):
        for batch in file.iter_batches(1_000):
            found = segment(batch["text"], vocabulary, keep_lines=True).text.to_pylist()
            for line in (line for text in found if text for line in text.split("\n")):
                own = hashlib.blake2b(line.encode(), digest_size=12).digest()
                if own not in seen:
                    seen.add(own)
                    lines.write(line + "\n")
    return len(seen)


def _check(training: Training, to: Path) -> None:
    check_numbers(
        training,
        (
            ("order", 2, 6),
            ("vocabulary", 100, 10_000_000),
            ("min_count", 1, 10**9),
            ("quantize_bits", 0, 25),
            ("held_out", 0.001, 0.9),
        ),
    )
    prune = training.prune
    if not 1 <= len(prune) <= training.order or prune[0] != 0 or sorted(prune) != list(prune):
        raise ConfigError(
            f"prune is {prune!r}; it holds up to {training.order} counts that ascend from 0"
        )
    models.check_card_name(to)


def _run_kenlm(lmplz: Path, build_binary: Path, folder: Path, training: Training) -> None:
    arpa, binary = folder / "model.arpa", folder / "model.bin"
    command = [str(lmplz), "--order", str(training.order), "--text", str(folder / "lines")]
    command += ["--arpa", str(arpa), "--temp_prefix", f"{folder}/", "--memory", training.memory]
    command += ["--discount_fallback", "--prune", *map(str, training.prune)]
    _run(command)
    bits = str(training.quantize_bits)
    quantize = ["-q", bits, "-b", bits] if training.quantize_bits else []
    # 22 bits of pointers are compressed, at a tenth of the speed: the trie of Bhiksha Raj
    _run([str(build_binary), *quantize, "-a", "22", "trie", str(arpa), str(binary)])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise ArtifactInvalid(
            f"{Path(command[0]).name} ended with {done.returncode}: "
            f"{' '.join(said[-2:]) or 'no message'}; see its manual for `{' '.join(command[1:4])}`"
        )


def _open(path: Path) -> Any:
    import kenlm

    config = kenlm.Config()
    config.load_method = kenlm.LoadMethod.LAZY  # mapped, and pages are read when they are asked for
    config.show_progress = False
    try:
        return kenlm.Model(str(path), config)
    except OSError as error:
        raise ArtifactInvalid(f"{path} is no KenLM model ({error}); train it again") from None


@lru_cache(maxsize=8)
def _load(path: str, digest: str) -> Model:
    card = models.card(path, digest, KIND)
    files = {Path(name).suffix: models.beside(path, name) for name in card["files"]}
    words = files[".vocabulary"].read_text(encoding="utf-8").splitlines()
    return Model(_open(files[".bin"]), vocabulary_of(pa.array(words, pa.string())), card)
