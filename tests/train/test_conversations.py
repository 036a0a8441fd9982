"""Conversations in DeepSeek LLM's template: what a model reads, and what of it is learned."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_release import TOKENIZER

from curation.errors import InputInvalid, InputMissing
from curation.tokens import tokenizer as tokenizers
from curation.train.conversations import conversation, preference, read_rows

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Nothing."},
]


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.load(TOKENIZER)


def text_of(ids, tokenizer):
    return tokenizers.decode(pa.array([ids], pa.list_(pa.int32())), tokenizer)[0].as_py()


def test_the_template_and_what_is_learned(tokenizer):
    found = conversation(TALK, tokenizer, "here")
    end = "<|end_of_text|>"
    assert text_of(found.input_ids, tokenizer) == (
        f"Be brief.\n\nUser: Why?\n\nAssistant: Because.{end}"
        f"User: And then?\n\nAssistant: Nothing.{end}"
    )
    learned = [id for id, learn in zip(found.input_ids, found.is_answer, strict=True) if learn]
    assert text_of(learned, tokenizer) == f" Because.{end} Nothing.{end}"


def test_preferences_end_where_the_answer_begins():
    found = preference({"prompt": TALK[:4], "chosen": "Yes.", "rejected": "No."}, "here", "<E>")
    assert found.prompt == (
        "Be brief.\n\nUser: Why?\n\nAssistant: Because.<E>User: And then?\n\nAssistant:"
    )
    assert (found.chosen, found.rejected) == (" Yes.", " No.")
    plain = preference({"prompt": "Why?", "chosen": "a", "rejected": "b"}, "here", "<E>")
    assert plain.prompt == "User: Why?\n\nAssistant:"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (None, "here has no messages; write"),
        ("hello", "here has no messages"),
        ([], "here has no messages"),
        ([{"role": "bot", "content": "x"}], "needs a role of system, user, assistant"),
        ([{"role": "user", "content": 5}], "a text as content"),
        (TALK[1:2], "here has no assistant message"),
        ([TALK[1], TALK[0], TALK[2]], "message 2 is of the system; it is the first"),
    ],
)
def test_what_is_no_conversation(messages, message, tokenizer):
    with pytest.raises(InputInvalid, match=message):
        conversation(messages, tokenizer, "here")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": TALK, "chosen": "a", "rejected": "b"}, "ends with assistant, but must"),
        ({"prompt": "x", "chosen": "", "rejected": "b"}, "no text 'chosen'"),
        ({"prompt": "x", "chosen": "a"}, "no text 'rejected'"),
        ({"chosen": "a", "rejected": "b"}, "has no messages"),
    ],
)
def test_what_is_no_preference(row, message):
    with pytest.raises(InputInvalid, match=message):
        preference(row, "here", "<E>")


def test_rows_of_files_and_where_they_stand(tmp_path):
    lines = tmp_path / "a.jsonl"
    lines.write_text(json.dumps({"messages": TALK}) + "\n\n" + json.dumps({"messages": []}) + "\n")
    assert [where for where, _ in read_rows(lines)] == [f"{lines}, line 1", f"{lines}, line 3"]
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"messages": [TALK]}), table)
    ((where, row),) = read_rows(table)
    assert (where, row["messages"]) == (f"{table}, row 1", TALK)
    lines.write_text("{")
    with pytest.raises(InputInvalid, match="line 1 is not JSON"):
        list(read_rows(lines))
    with pytest.raises(InputMissing, match="no file at"):
        list(read_rows(tmp_path / "none.jsonl"))
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(InputInvalid, match=r"neither \.parquet nor \.jsonl"):
        list(read_rows(tmp_path / "a.csv"))
