"""Documents to pack, and packing by its definition in plain Python."""

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from curation.tokens.packing import DOCUMENTS_SCHEMA

EOS = 1

# (doc_id, tokens); token t of document d is a number that names both.
DOCUMENTS = st.lists(st.integers(0, 25), max_size=30).map(
    lambda lengths: [(100 + d, [1000 * d + t + 2 for t in range(n)]) for d, n in enumerate(lengths)]
)


def batch(documents):
    ids = pa.array([doc_id for doc_id, _ in documents], pa.int64())
    tokens = pa.array([tokens for _, tokens in documents], pa.list_(pa.int32()))
    copies = pa.array(np.zeros(len(documents), np.int32))
    return pa.RecordBatch.from_arrays([ids, copies, tokens], schema=DOCUMENTS_SCHEMA)


def batches(documents, sizes):
    """The documents in batches of these sizes, over and over: slices of one batch."""
    whole, start, i = batch(documents), 0, 0
    while start < whole.num_rows:
        yield whole.slice(start, sizes[i % len(sizes)])
        start += sizes[i % len(sizes)]
        i += 1


def packed_in_python(documents, length):
    """Rows by the definition, one token at a time."""
    stream = [
        (doc_id, t, token) for doc_id, tokens in documents for t, token in enumerate([*tokens, EOS])
    ]
    rows = []
    for start in range(0, len(stream), length):
        row = stream[start : start + length]
        begins = [i for i, (doc_id, t, _) in enumerate(row) if i == 0 or row[i - 1][0] != doc_id]
        rows.append(
            {
                "input_ids": [token for _, _, token in row] + [EOS] * (length - len(row)),
                "doc_starts": begins,
                "doc_ids": [row[i][0] for i in begins],
                "doc_offset": [row[i][1] for i in begins],
                "num_tokens": len(row),
            }
        )
    return rows


def corpus(num_documents=400, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (int(rng.integers(2**62)), rng.integers(2, 100_000, rng.integers(0, 300)).tolist())
        for _ in range(num_documents)
    ]


def best_fit_in_python(documents, length):
    """Rows by best fit decreasing, one piece at a time; all documents are of one window."""
    pieces = []  # (doc_id, offset, tokens)
    for doc_id, tokens in documents:
        whole = [*tokens, EOS]
        pieces += [(doc_id, at, whole[at : at + length]) for at in range(0, len(whole), length)]
    rows = []  # [latest to have its room, room, pieces]
    tick = 0
    for i in sorted(range(len(pieces)), key=lambda i: (-len(pieces[i][2]), i)):
        size, tick = len(pieces[i][2]), tick + 1
        fitting = [row for row in rows if row[1] >= size]
        if fitting:
            row = min(fitting, key=lambda row: (row[1], -row[0]))
        else:
            row = [0, length, []]
            rows.append(row)
        row[0], row[1] = tick, row[1] - size
        row[2].append(i)
    found = []
    for _, room, members in sorted(rows, key=lambda row: min(row[2])):
        ids, starts = [], []
        for i in sorted(members):
            starts.append(len(ids))
            ids += pieces[i][2]
        found.append(
            {
                "input_ids": ids + [EOS] * room,
                "doc_starts": starts,
                "doc_ids": [pieces[i][0] for i in sorted(members)],
                "doc_offset": [pieces[i][1] for i in sorted(members)],
                "num_tokens": length - room,
            }
        )
    return found
