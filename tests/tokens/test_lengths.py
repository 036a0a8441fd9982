"""Bins of lengths, against their definition in words."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curation.tokens.lengths import length_bin

LENGTHS = st.lists(st.none() | st.integers(0, 2**31 - 1))


@given(LENGTHS, LENGTHS)
def test_a_bin_keeps_four_binary_digits(left: list[int | None], right: list[int | None]) -> None:
    found = length_bin(pa.array(left + right, pa.int32())).to_pylist()
    assert found == [
        None if n is None else int(f"{n:b}"[:4].ljust(len(f"{n:b}"), "0"), 2) for n in left + right
    ]
    parts = [length_bin(pa.array(part, pa.int32())).to_pylist() for part in (left, right)]
    assert found == parts[0] + parts[1]


def test_a_slice_has_the_bins_of_its_rows() -> None:
    lengths = pa.array([1, 17, None, 1023, 2**31 - 1], pa.int32())
    assert length_bin(lengths[1:4]).to_pylist() == [16, None, 960]
