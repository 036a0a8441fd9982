"""Conversations as tokens, in DeepSeek LLM's template. No torch.

    User: <question>\\n\\nAssistant: <answer><end of text>        and so on, turn by turn

A system message stands before the first turn, with an empty line after it. What is learned is the
answers and the end of text after each.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import InputInvalid, InputMissing
from curation.tokens import tokenizer as tokenizers
from curation.tokens.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")


class Tokens(NamedTuple):
    """A conversation, and which of its tokens are learned."""

    input_ids: list[int]
    is_answer: list[bool]


class Preference(NamedTuple):
    """A prompt, in the template, with a better and a worse answer."""

    prompt: str
    chosen: str
    rejected: str


def read_rows(path: str | Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the rows of a .parquet or .jsonl file with where each stands.

    Raises InputMissing for no file, InputInvalid for another kind and for a line that is no object.
    """
    path = Path(path)
    if not path.is_file():
        raise InputMissing(f"no file at {path}; name a .parquet or .jsonl file of conversations")
    if path.suffix == ".parquet":
        for number, row in enumerate(pq.read_table(path).to_pylist(), 1):
            yield f"{path}, row {number}", row
    elif path.suffix == ".jsonl":
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise InputInvalid(f"{path}, line {number} is not JSON: {error}") from None
                yield f"{path}, line {number}", row
    else:
        raise InputInvalid(f"{path} is neither .parquet nor .jsonl; convert it")


def conversation(messages: object, tokenizer: Tokenizer, where: str) -> Tokens:
    """Return a conversation as tokens; raises InputInvalid, naming `where`, for what is none."""
    turns = _turns(messages, where)
    if not any(role == "assistant" for role, _ in turns):
        raise InputInvalid(f"{where} has no assistant message, so nothing to learn; add an answer")
    ids: list[int] = []
    learned: list[bool] = []
    for part, is_answer in _parts(turns):
        own = _encode(part, tokenizer) + ([tokenizer.eos_id] if is_answer else [])
        ids += own
        learned += [is_answer] * len(own)
    return Tokens(ids, learned)


def preference(row: Mapping[str, Any], where: str, end: str) -> Preference:
    """Return a row of prompt (text or messages), chosen and rejected, in the template.

    `end` is the text of the end-of-text token, which stands after each earlier answer.
    """
    text = open_prompt(row, where, end)
    answers = []
    for name in ("chosen", "rejected"):
        answer = row.get(name)
        if not isinstance(answer, str) or not answer:
            raise InputInvalid(f"{where} has no text {name!r}; add one")
        answers.append(f" {answer}")
    return Preference(text, *answers)


def open_prompt(row: Mapping[str, Any], where: str, end: str) -> str:
    """Return the prompt of a row, text or messages, up to where the answer begins."""
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    turns = _turns(prompt, where)
    if turns[-1][0] != "user":
        raise InputInvalid(f"{where}: the prompt ends with {turns[-1][0]}, but must with user")
    return "".join(part + end * is_answer for part, is_answer in _parts(turns)) + "Assistant:"


def _turns(messages: object, where: str) -> list[tuple[str, str]]:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InputInvalid(
            f'{where} has no messages; write [{{"role": "user", "content": "..."}}, ...]'
        )
    turns = []
    for each in messages:
        role = each.get("role") if isinstance(each, Mapping) else None
        content = each.get("content") if isinstance(each, Mapping) else None
        if role not in ROLES or not isinstance(content, str):
            raise InputInvalid(
                f"{where} has the message {each!r}; it needs a role of {', '.join(ROLES)} and a "
                "text as content"
            )
        turns.append((role, content))
    for number, (role, _) in enumerate(turns):
        if role == "system" and number:
            raise InputInvalid(f"{where}: message {number + 1} is of the system; it is the first")
    return turns


def _parts(turns: Sequence[tuple[str, str]]) -> list[tuple[str, bool]]:
    """Return the text of every part, and whether it is an answer."""
    parts: list[tuple[str, bool]] = []
    for role, content in turns:
        if role == "system":
            parts.append((f"{content}\n\n", False))
        elif role == "user":
            parts.append((f"User: {content}\n\n", False))
        else:
            parts.append(("Assistant:", False))
            parts.append((f" {content}", True))
    return parts


def _encode(text: str, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = tokenizers.encode(pa.array([text]), tokenizer)[0].as_py()
    return ids
