"""The tokenizer: byte-level BPE trained once, pinned by its sha256, used everywhere.

The recipe is DeepSeek LLM's (arXiv 2401.02954, section 2.1): byte-level BPE by Hugging Face
`tokenizers`, digits one by one, no merge across line breaks, punctuation or between CJK characters
and letters. Unlike theirs the alphabet holds all 256 bytes, so every text can be encoded.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from curation import models as artifacts
from curation.errors import ArtifactError, ConfigError, InputMissing
from curation.tokens import fast
from curation.tokens.pieces import PIECES

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"
# Fifteen, as DeepSeek LLM has: filling in the middle (Bavarian et al. 2022), conversations, spare.
SPECIAL_TOKENS = (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    "<|pad|>",
    *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end_of_turn|>"),
    *(f"<|reserved_{i}|>" for i in range(5)),
)
VOCAB_MULTIPLE = 128
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)

# A pair of tokens must be seen twice to become one: what occurs once is noise of its document.
MIN_FREQUENCY = 2

# Pieces of every kind, and where they meet, which a kernel must encode as the library does.
SELF_CHECK = (
    "The value is 12345, and it's 3.14  (twice)!\n\n\tif x == y:\r\n        return  \n ",
    "\u4eca\u5929\u5929\u6c14\uff0c\u53bb park\u3002\u3000\u30b3\u30fc\u30d2\u30fc \ud55c\uad6d",
    "caf\u00e9 na\u00efve e\u0301 \u00fc \u00df \u0416\u0443\u043a \u0661\u0662 \u00b2\u2167",
    "\u0e20\u0e32\u0e29\u0e32 \u05e9\u05dc\u05d5\u05dd \u00a0\u2028\x0b\x00 \U0001f600\u200d\u2764",
    "\ufe0f \u2018x\u2019 \u2014\u2014 ... <|x|> \U00010400\uff21\uff42\uff11\u00bd",
)

# What published tokenizers call the end of a document: ours and Llama 3's, GPT-2's, DeepSeek's.
END_TOKENS = (END_OF_TEXT, "<|endoftext|>", "<\uff5cend\u2581of\u2581sentence\uff5c>")


@dataclass(frozen=True)
class Tokenizer:
    """A loaded tokenizer: the Hugging Face model, its digest and the numbers that packing needs."""

    model: tokenizers.Tokenizer
    sha256: str
    vocab_size: int
    eos_id: int
    encoder: fast.Encoder | None  # None where the library encodes


def train(texts: Iterator[list[str]], vocab_size: int, to: str | Path) -> dict[str, Any]:
    """Train a byte-level BPE on batches of texts, write `to` (a tokenizer.json), return its card.

    The file depends on the texts only, not on their order or batches. A small corpus gives fewer
    tokens than asked for; the card says how many. Raises ConfigError for a vocabulary smaller than
    the bytes and the special tokens, InputMissing when there is no text. Cost: about 1 MB/s and
    core; memory grows with the number of distinct words.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise ConfigError(
            f"vocab_size is {vocab_size}, but 256 bytes and {len(SPECIAL_TOKENS)} special tokens "
            f"need {MIN_VOCAB_SIZE}; DeepSeek LLM has 100000"
        )
    counted = _Counted(texts)
    model = _untrained()
    model.train_from_iterator(counted, _trainer(vocab_size))
    if counted.num_bytes == 0:
        raise InputMissing(
            "there is no text to train a tokenizer on; name dumps whose documents are committed"
        )
    to = Path(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    unfinished = to.with_name(f".{to.name}.{uuid4().hex}.tmp")
    unfinished.write_text(model.to_str(pretty=True), encoding="utf-8")
    unfinished.replace(to)
    return {
        "sha256": artifacts.sha256(str(to)),
        "vocab_size": model.get_vocab_size(),
        "vocab_size_requested": vocab_size,
        "model_vocab_size": padded(model.get_vocab_size()),
        "special_tokens": {token: model.token_to_id(token) for token in SPECIAL_TOKENS},
        "num_texts": counted.num_texts,
        "num_bytes": counted.num_bytes,
        "tokenizers_version": tokenizers.__version__,
    }


def padded(vocab_size: int, multiple: int = VOCAB_MULTIPLE) -> int:
    """Return the vocabulary of a model: rounded up, for whole tiles of matrices."""
    return -(-vocab_size // multiple) * multiple


def load(path: str | Path, sha256: str | None = None) -> Tokenizer:
    """Load a tokenizer.json; with `sha256`, only if that is its digest.

    Any tokenizer of Hugging Face `tokenizers` with an end-of-text token will do. A special token
    that is written out in a page is encoded as the plain text it is. Raises ArtifactMissing,
    ArtifactChanged, or ArtifactError for a file that is no such tokenizer. Cost: about 0.2 s for
    100,000 tokens, so call it once a worker.
    """
    digest = sha256 or artifacts.sha256(str(path))
    file = artifacts.verified(str(path), digest)
    try:
        model = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception
        raise ArtifactError(
            f"{file} is not a tokenizer.json ({error}); train a tokenizer, "
            "or name a file that Hugging Face tokenizers wrote"
        ) from None
    known = (model.token_to_id(token) for token in END_TOKENS)
    eos_id = next((token_id for token_id in known if token_id is not None), None)
    if eos_id is None:
        raise ArtifactError(
            f"{file} has no end-of-text token; packing needs one of {', '.join(END_TOKENS)}: "
            "add one as a special token"
        )
    model.no_truncation()
    model.no_padding()
    model.encode_special_tokens = True
    # One task is one core: a Spark worker must not start a thread per core of the machine.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    encoder = fast.load(file)
    if encoder is not None and not _agrees(model, encoder):
        encoder = None
    return Tokenizer(model, digest, model.get_vocab_size(), eos_id, encoder)


@lru_cache(maxsize=2)
def load_once(path: str, sha256: str) -> Tokenizer:
    """Load a tokenizer, once per process: what a worker calls for every batch."""
    return load(path, sha256)


def encode(text: pa.Array, tokenizer: Tokenizer) -> pa.ListArray:
    """Return the token ids of every text as list<int32>; null for null, no special tokens added.

    Cost: 10 M tokens/s and core and more with the kernel of `curation.tokens.fast`, about 0.5 M
    where the library has to do it.
    """
    ids, ends = _ids(text, tokenizer)
    null = None if text.null_count == 0 else pa.array(np.asarray(text.is_null()))
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(ids), mask=null)


def num_tokens(text: pa.Array, tokenizer: Tokenizer) -> pa.Int32Array:
    """Return how many tokens `encode` gives for every text; null for null."""
    _, ends = _ids(text, tokenizer)
    return pa.array(np.diff(ends).astype(np.int32), mask=np.asarray(text.is_null()))


def decode(input_ids: pa.ListArray, tokenizer: Tokenizer) -> pa.StringArray:
    """Return the text of every list of token ids, special tokens included; null for null.

    The inverse of `encode`. A list cut inside a character gives U+FFFD there.
    """
    lists = input_ids.to_pylist()
    texts = iter(
        tokenizer.model.decode_batch(
            [ids for ids in lists if ids is not None], skip_special_tokens=False
        )
    )
    return pa.array([None if ids is None else next(texts) for ids in lists], pa.string())


class _Counted:
    """Passes batches of texts on and counts them."""

    def __init__(self, batches: Iterable[list[str]]) -> None:
        self.batches = batches
        self.num_texts = 0
        self.num_bytes = 0

    def __iter__(self) -> Iterator[list[str]]:
        for batch in self.batches:
            self.num_texts += len(batch)
            self.num_bytes += sum(len(text.encode()) for text in batch)
            yield batch


def _untrained() -> tokenizers.Tokenizer:
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    model.decoder = decoders.ByteLevel()
    return model


def _trainer(vocab_size: int) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def _ids(text: pa.Array, tokenizer: Tokenizer) -> tuple[Int32Array, Int64Array]:
    """Return the ids of all texts, and the n + 1 ends of each text's; a null has none."""
    if tokenizer.encoder is None:
        return _by_library(text, tokenizer.model)
    ids, ends, left_out = fast.encode(text, tokenizer.encoder)
    if len(left_out) == 0:
        return ids, ends
    others, other_ends = _by_library(text.take(pa.array(left_out)), tokenizer.model)
    lengths = np.diff(ends)
    lengths[left_out] = np.diff(other_ends)
    whole_ends = np.concatenate([[0], np.cumsum(lengths)])
    whole = np.empty(whole_ends[-1], np.int32)
    is_other = np.zeros(len(lengths), np.bool_)
    is_other[left_out] = True
    owner = np.repeat(is_other, lengths)
    whole[owner], whole[~owner] = others, ids
    return whole, whole_ends


def _by_library(text: pa.Array, model: tokenizers.Tokenizer) -> tuple[Int32Array, Int64Array]:
    """Encode by Hugging Face `tokenizers`. The `str` objects are the cost of the C library."""
    present = [value for value in text.to_pylist() if value is not None]
    encodings = model.encode_batch_fast(present, add_special_tokens=False)
    lengths = np.zeros(len(text), np.int64)
    lengths[np.asarray(text.is_valid())] = [len(encoding) for encoding in encodings]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), np.int32, ends[-1])
    return ids, ends


def _agrees(model: tokenizers.Tokenizer, encoder: fast.Encoder) -> bool:
    """Return whether kernel and library give the same ids for texts that are hard to split."""
    text = pa.array(SELF_CHECK)
    ids, ends, left_out = fast.encode(text, encoder)
    expected, expected_ends = _by_library(text, model)
    return (
        len(left_out) == 0 and np.array_equal(ids, expected) and np.array_equal(ends, expected_ends)
    )
