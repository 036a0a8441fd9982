"""The identity of a document: constructed from where it was crawled, never drawn or hashed.

doc_id = 12 bits dump ordinal | 21 bits file ordinal | 30 bits record ordinal

are 63 bits, so an int64 that is never negative. Ids sort like the crawl, are stable across reruns
and can be decoded by hand.
"""

from typing import NamedTuple

from curation.errors import IdentityOverflow

DUMP_BITS, FILE_BITS, RECORD_BITS = 12, 21, 30
MAX_DUMPS, MAX_FILES, MAX_RECORDS = 1 << DUMP_BITS, 1 << FILE_BITS, 1 << RECORD_BITS


class Origin(NamedTuple):
    """Where a document was crawled: ordinals of its dump, its file and its record."""

    dump: int
    file: int
    record: int


def first_doc_id(dump: int, file: int, name: str = "") -> int:
    """Return the id of record 0 of a file; add the record ordinal to it.

    Raises IdentityOverflow, naming `name`, when an ordinal does not fit its bits.
    """
    if not 0 <= dump < MAX_DUMPS:
        raise IdentityOverflow(
            f"dump {name or dump} has ordinal {dump}, but a doc_id holds {MAX_DUMPS} dumps; "
            "start another lake for the dumps beyond"
        )
    if not 0 <= file < MAX_FILES:
        raise IdentityOverflow(
            f"file {name or file} has ordinal {file}, but a dump holds {MAX_FILES} files; "
            "pack the input into larger files, or split the dump in two"
        )
    return (dump << FILE_BITS | file) << RECORD_BITS


def check_record_ordinal(ordinal: int, name: str) -> None:
    """Raise IdentityOverflow, naming the file, when a record ordinal does not fit 30 bits."""
    if ordinal >= MAX_RECORDS:
        raise IdentityOverflow(
            f"file {name} has more than {MAX_RECORDS} records, but a doc_id has {RECORD_BITS} bits "
            "for them; split the file"
        )


def origin(doc_id: int) -> Origin:
    """Decode a doc_id into the ordinals of its dump, file and record."""
    return Origin(
        doc_id >> (FILE_BITS + RECORD_BITS),
        doc_id >> RECORD_BITS & (MAX_FILES - 1),
        doc_id & (MAX_RECORDS - 1),
    )
