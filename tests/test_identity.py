"""Ids of documents: lossless, in the order of the crawl, never silently too large."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import IdentityOverflow
from curation.identity import (
    DUMP_BITS,
    FILE_BITS,
    MAX_DUMPS,
    MAX_FILES,
    MAX_RECORDS,
    RECORD_BITS,
    Origin,
    check_record_ordinal,
    first_doc_id,
    origin,
)

ORIGIN = st.builds(
    Origin,
    st.integers(0, MAX_DUMPS - 1),
    st.integers(0, MAX_FILES - 1),
    st.integers(0, MAX_RECORDS - 1),
)


def pack(place: Origin) -> int:
    return first_doc_id(place.dump, place.file) + place.record


def test_an_id_is_a_signed_64_bit_integer() -> None:
    assert DUMP_BITS + FILE_BITS + RECORD_BITS == 63
    assert pack(Origin(MAX_DUMPS - 1, MAX_FILES - 1, MAX_RECORDS - 1)) == 2**63 - 1


@given(ORIGIN)
def test_decoding_gives_back_what_was_packed(place: Origin) -> None:
    assert origin(pack(place)) == place
    assert 0 <= pack(place) < 2**63


@given(ORIGIN, ORIGIN)
def test_ids_sort_like_the_crawl(left: Origin, right: Origin) -> None:
    assert (pack(left) < pack(right)) == (left < right)


@pytest.mark.parametrize("ordinal", [-1, MAX_DUMPS])
def test_a_dump_too_many_is_named(ordinal: int) -> None:
    with pytest.raises(IdentityOverflow, match=f"^dump CC-1 has ordinal {ordinal}, .* 4096 dumps"):
        first_doc_id(ordinal, 0, "CC-1")


@pytest.mark.parametrize("ordinal", [-1, MAX_FILES])
def test_a_file_too_many_is_named(ordinal: int) -> None:
    with pytest.raises(IdentityOverflow, match=rf"^file a\.warc\.gz has ordinal {ordinal}, "):
        first_doc_id(0, ordinal, "a.warc.gz")


def test_a_record_too_many_names_its_file() -> None:
    check_record_ordinal(MAX_RECORDS - 1, "a.warc.gz")
    with pytest.raises(IdentityOverflow, match=rf"^file a\.warc\.gz .* {MAX_RECORDS} records"):
        check_record_ordinal(MAX_RECORDS, "a.warc.gz")
