"""WAL indexes: what is written comes back; whatever else lies in the store ends in a fault that names the object."""

from __future__ import annotations

import random
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.errors import Damaged, Fault
from pgkeep.format.header import ObjectType, decode_header
from pgkeep.format.limits import HEADER_LENGTH, MAX_INDEX_TIME
from pgkeep.format.record import encode_record
from pgkeep.format.section import SectionType, open_section, reopen_section
from pgkeep.format.walends import Ends, decode_ends, encode_ends, is_indexable, joined
from pgkeep.format.windex import (
    IndexedPoint,
    IndexedSegment,
    IndexedTablespace,
    SegmentEntry,
    WalIndex,
    WalIndexInfo,
    decode_index,
    encode_index,
    run_identity,
)
from tests.format.attacks import BOMBS
from tests.format.forge import reseal
from tests.format.samples import SYSTEM_ID
from tests.format.test_header import HEADER

OBJ = "the-object"
SIZE = 1 << 20
FIRST = 5
SECTIONS = [SectionType.INFO, SectionType.INDEXED, SectionType.POINTS, SectionType.SPACES, SectionType.ENDS]

rows = st.lists(
    st.tuples(
        st.integers(1, 3000), st.integers(34, 9000), st.integers(3, (1 << 32) - 1), st.integers(0, MAX_INDEX_TIME),
        st.integers(0, 3), st.lists(st.integers(3, (1 << 32) - 1), max_size=3),
    ),
    min_size=1, max_size=50,
)  # fmt: skip


def ends_of(drawn: list[tuple[int, int, int, int, int, list[int]]], start: int) -> Ends:
    gaps, lengths, xids, times, flags, children = zip(*drawn, strict=True)
    lsn = np.cumsum(np.array(gaps, np.uint64), dtype=np.uint64) + np.uint64(start)
    return Ends(
        lsn, lsn + np.array(lengths, np.uint64), np.array(xids, np.uint32), np.array(times, np.int64),
        np.array(flags, np.uint8), np.array([len(some) for some in children], np.uint32),
        np.array([xid for some in children for xid in some], np.uint32),
    )  # fmt: skip


def same(one: Ends, other: Ends) -> bool:
    names = ("lsn", "end", "xid", "time", "flags", "count", "subxacts")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def entry(number: int, ends: Ends | None, start: int) -> SegmentEntry:
    sections = tuple(encode_ends(ends, start)) if ends is not None else ()
    row = IndexedSegment(
        content_hash=bytes([number]) * 32, end=start + SIZE + 80, transactions=0 if ends is None else len(ends),
        sections=len(sections), earliest=5, latest=9, lowest=700, highest=710,
    )  # fmt: skip
    point = IndexedPoint(lsn=start + 40, end=start + 150, time=7, name=b"here")
    space = IndexedTablespace(lsn=start + 200, end=start + 260, xid=701, oid=16500, created=True, path=b"/mnt/fast")
    return SegmentEntry(row, sections, (point,), (space,))


SOME = ends_of([(100, 46, 700, 5, 1, []), (50, 80, 702, 9, 3, [703, 704]), (8, 46, 705, 6, 0, [])], FIRST * SIZE)


def written(ends: Ends = SOME) -> bytes:
    entries = [entry(0, ends, FIRST * SIZE), entry(1, None, (FIRST + 1) * SIZE)]
    identity = run_identity(SYSTEM_ID, 2, FIRST, SIZE, [one.row for one in entries])
    header = replace(HEADER, type=ObjectType.WAL_INDEX, specific=identity.encode())
    return b"".join(encode_index(header, WalIndexInfo(tool="pgkeep", tail=[b"t" * 32]), entries))


def read(data: bytes) -> tuple[WalIndex, Ends | None]:
    index = decode_index(decode_header(data, OBJ), data[HEADER_LENGTH:], lambda at, length: data[at : at + length], OBJ)
    found = [index.ends(number, lambda at, length: data[at : at + length]) for number in range(len(index.segments))]
    return index, found[0]


SAMPLE = written()


@given(rows, st.sampled_from([0, 7 * SIZE, 1 << 40]))
def test_transactions_come_back(drawn: list[tuple[int, int, int, int, int, list[int]]], start: int) -> None:
    ends = ends_of(drawn, start)
    assert is_indexable(ends)
    (section,) = encode_ends(ends, start)
    assert same(decode_ends(reopen_section(section, OBJ), start, SIZE, OBJ), ends)


@given(rows)
def test_many_transactions_take_several_sections(drawn: list[tuple[int, int, int, int, int, list[int]]]) -> None:
    ends = ends_of(drawn, 0)
    with patch("pgkeep.format.walends.MAX_INDEX_ENDS", 7):
        sections = encode_ends(ends, 0)
        parts = [decode_ends(reopen_section(section, OBJ), 0, SIZE, OBJ) for section in sections]
    assert len(parts) >= len(ends) / 7
    assert same(joined(parts), ends)


def test_an_index_comes_back() -> None:
    index, ends = read(SAMPLE)
    assert (index.first, index.identity.timeline, index.identity.length) == (FIRST, 2, 2 * SIZE)
    assert [row.transactions for row in index.segments] == [3, 0]
    assert [point.name for point in index.points] == [b"here", b"here"]
    assert [space.path for space in index.tablespaces] == [b"/mnt/fast", b"/mnt/fast"]
    assert index.info.tail == [b"t" * 32]
    assert ends is not None and same(ends, SOME)


def test_what_the_format_cannot_hold_is_not_indexable() -> None:
    for time in (-1, MAX_INDEX_TIME + 1):
        assert not is_indexable(ends_of([(1, 40, 700, time, 1, [])], 0))


def test_every_truncation_and_every_flipped_byte_is_noticed() -> None:
    for length in range(len(SAMPLE)):
        with pytest.raises(Damaged, match=OBJ):
            read(SAMPLE[:length])
    for at in range(len(SAMPLE)):
        flipped = bytearray(SAMPLE)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(Fault, match=OBJ):
            read(bytes(flipped))


def survives(data: bytes) -> None:
    try:
        read(data)
    except Fault as fault:
        assert OBJ in fault.message
        assert fault.code in ("format-damaged", "format-unsupported")


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("type_", SECTIONS, ids=lambda type_: type_.name)
def test_bombs(type_: SectionType, bomb: str) -> None:
    with pytest.raises(Fault, match=OBJ):
        read(reseal(SAMPLE, type_, BOMBS[bomb]))


@given(st.sampled_from(SECTIONS), st.binary(max_size=200))
def test_any_bytes_in_any_section_are_survived(type_: SectionType, content: bytes) -> None:
    survives(reseal(SAMPLE, type_, content))


@given(st.randoms(use_true_random=False), st.integers(1, 8))
def test_mended_mutations_of_the_plain_content_are_survived(source: random.Random, flips: int) -> None:
    """Bytes of a section's plain content are changed and every hash is made right again."""
    from pgkeep.format.section import decode_directory

    type_ = source.choice(SECTIONS)
    row = decode_directory(SAMPLE[HEADER_LENGTH:], None, OBJ).of(type_)[0]
    content = bytearray(open_section(row, SAMPLE[HEADER_LENGTH + row.offset : HEADER_LENGTH + row.end], OBJ))
    for _ in range(flips):
        content[source.randrange(len(content))] = source.randrange(256)
    survives(reseal(SAMPLE, type_, bytes(content)))


@pytest.mark.parametrize(
    "row",
    [{"end": FIRST * SIZE}, {"end": (FIRST + 9) * SIZE}, {"earliest": 10}, {"lowest": 711}, {"transactions": 0},
     {"transactions": 4}, {"sections": 2}, {"sections": 0}, {"latest": MAX_INDEX_TIME + 1}],
)  # fmt: skip
def test_impossible_rows_are_damage(row: dict[str, int]) -> None:
    good = [entry(0, SOME, FIRST * SIZE).row, entry(1, None, (FIRST + 1) * SIZE).row]
    fields = {name: getattr(good[0], name) for name in good[0].__struct_fields__} | row
    with pytest.raises(Damaged, match=OBJ):
        read(reseal(SAMPLE, SectionType.INDEXED, encode_record([fields, good[1]])))
