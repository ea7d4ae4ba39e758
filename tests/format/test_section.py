"""Blocks of sections: round trips, single fetches, critical bits, and every single byte vouched for."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.errors import Damaged, Fault
from pgkeep.format.limits import DIRECTORY_HEAD_LENGTH, DIRECTORY_ROW_LENGTH
from pgkeep.format.section import (
    CRITICAL,
    REPEATABLE,
    SectionType,
    decode_directory,
    directory_length,
    encode_section,
    open_section,
    read_sections,
    seal_sections,
)
from tests.format.forge import Forged, forge_block
from tests.format.test_header import HEADER

HEAD = HEADER.encode()
contents = st.lists(
    st.tuples(
        st.sampled_from(SectionType), st.binary(max_size=300) | st.just(bytes(5000)), st.booleans(), st.booleans()
    ),
    max_size=6,
    unique_by=lambda item: item[0],
)


@given(contents)
def test_sections_come_back_together_and_one_by_one(wanted: list[tuple[SectionType, bytes, bool, bool]]) -> None:
    stored = [encode_section(t, content, critical=c, packed=p) for t, content, c, p in wanted]
    block = b"".join(seal_sections(HEAD, stored))
    assert [(s.type, s.content) for s in read_sections(block, HEAD, "x")] == [(t, c) for t, c, _, _ in wanted]
    directory = decode_directory(block[: directory_length(block, "x")], None, "x")
    assert directory.length == len(block)
    for (type_, content, critical, _), row in zip(wanted, directory.rows, strict=True):
        assert (row.number, row.critical) == (type_, critical)
        assert open_section(row, block[row.offset : row.end], "x") == content


def small_block() -> bytes:
    sections = [
        encode_section(SectionType.INFO, b"info"),
        encode_section(SectionType.PATHS, bytes(1000)),
        encode_section(SectionType.PATHS, b"more"),
    ]
    return b"".join(seal_sections(HEAD, sections))


def test_every_flipped_bit_is_noticed() -> None:
    block = small_block()
    for bit in range(8 * len(block)):
        flipped = bytearray(block)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Fault, match="the-object"):
            list(read_sections(bytes(flipped), HEAD, "the-object", wanted=[SectionType.INFO]))


def test_every_truncation_and_every_addition_is_noticed() -> None:
    block = small_block()
    for length in range(len(block)):
        with pytest.raises(Damaged, match="the-object"):
            list(read_sections(block[:length], HEAD, "the-object"))
    with pytest.raises(Damaged):
        list(read_sections(block + b"\0", HEAD, "x"))


def test_sections_are_bound_to_their_header_but_not_to_its_signature() -> None:
    block = small_block()
    for at in (0, 9, 60, 255, 320, 479):
        other = bytearray(HEAD)
        other[at] ^= 1
        with pytest.raises(Damaged, match="another header"):
            list(read_sections(block, bytes(other), "x"))
    signed = bytearray(HEAD)
    signed[256:320] = b"s" * 64
    signed[480:512] = b"c" * 32
    assert len(list(read_sections(block, bytes(signed), "x"))) == 3


def test_unknown_sections_are_skipped_and_unknown_critical_ones_refused() -> None:
    known = Forged(SectionType.INFO | CRITICAL, b"info")
    assert [s.content for s in read_sections(forge_block(HEAD, [known, Forged(9999, b"?")]), HEAD, "x")] == [b"info"]
    with pytest.raises(Fault, match="9999") as caught:
        list(read_sections(forge_block(HEAD, [known, Forged(9999 | CRITICAL, b"?")]), HEAD, "x"))
    assert caught.value.code == "format-unsupported"


def test_a_sealed_section_is_refused_only_when_it_is_wanted() -> None:
    block = forge_block(HEAD, [Forged(SectionType.INFO, b"info"), Forged(SectionType.SERVER, b"?", protection=1)])
    assert [s.content for s in read_sections(block, HEAD, "x", [SectionType.INFO])] == [b"info"]
    with pytest.raises(Fault) as caught:
        list(read_sections(block, HEAD, "x"))
    assert caught.value.code == "format-unsupported"


@pytest.mark.parametrize("type_", SectionType)
def test_only_tables_continue_in_a_second_section(type_: SectionType) -> None:
    block = forge_block(HEAD, [Forged(type_, b"one"), Forged(type_, b"two")])
    if type_ in REPEATABLE:
        assert [s.content for s in read_sections(block, HEAD, "x")] == [b"one", b"two"]
    else:
        with pytest.raises(Damaged, match=type_.name):
            list(read_sections(block, HEAD, "x"))


def test_offsets_follow_from_the_rows() -> None:
    sections = [encode_section(SectionType.PATHS, bytes([i]) * i, packed=False) for i in range(5)]
    block = b"".join(seal_sections(HEAD, sections))
    rows = decode_directory(block, HEAD, "x").rows
    start = DIRECTORY_HEAD_LENGTH + 5 * DIRECTORY_ROW_LENGTH
    assert [row.offset for row in rows] == [start + n for n in accumulate([0, 0, 1, 2, 3])]
