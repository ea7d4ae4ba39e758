"""Footers of packs: tables come back, parts can be read alone, and what is impossible is damage."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.errors import Damaged
from pgkeep.format.footer import (
    FrameTable,
    PageTable,
    decode_footer,
    decode_frame_table,
    decode_lsns,
    decode_page_lsns,
    encode_footer,
    encode_frame_table,
    encode_page_lsns,
    footer_prefix,
    frame_table,
)
from pgkeep.format.frame import FrameKind
from pgkeep.format.framerow import FrameRow, decode_frame_rows, encode_frame_rows
from pgkeep.format.limits import (
    HEADER_LENGTH,
    MAX_FRAME_DATA,
    MAX_FRAME_RAW,
    MAX_FRAME_STORED,
    MAX_FRAMES,
    MAX_PIECES_TABLE,
    TAIL_LENGTH,
)
from pgkeep.format.tail import FooterPlace, decode_tail
from tests.format.test_header import HEADER

HEAD = HEADER.encode()
PAGE = 8192
digest = st.binary(min_size=16, max_size=16)


@st.composite
def rows(draw: st.DrawFn) -> list[FrameRow]:
    def row(kind: FrameKind) -> FrameRow:
        unit = PAGE if kind is FrameKind.PAGES else 1
        data = draw(st.integers(0, MAX_FRAME_DATA // unit)) * unit
        raw = data + 4 + draw(st.integers(0, MAX_PIECES_TABLE))
        return FrameRow(kind, draw(st.integers(0, 1)), draw(st.integers(0, MAX_FRAME_STORED)), raw, data,
                        draw(digest), draw(digest))  # fmt: skip

    return [row(kind) for kind in draw(st.lists(st.sampled_from(FrameKind), max_size=8))]


def page_table(wanted: list[FrameRow], seed: int = 1) -> PageTable:
    pages = sum(row.data_length for row in wanted if row.kind is FrameKind.PAGES) // PAGE
    random = np.random.default_rng(seed)
    return PageTable(random.integers(0, 1 << 63, pages, np.uint64), random.integers(0, 1 << 63, pages, np.uint64))


def same(one: FrameTable, other: FrameTable) -> bool:
    columns = ("kind", "codec", "stored_length", "raw_length", "data_length", "stored_hash", "plain_hash", "offset")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)


@given(rows())
def test_frame_tables_come_back_as_columns_and_as_rows(wanted: list[FrameRow]) -> None:
    encoded = encode_frame_table(frame_table(wanted))
    assert encode_frame_rows(wanted) == encoded
    assert decode_frame_rows(encoded, "x") == wanted
    table = decode_frame_table(encoded, "x")
    assert same(table, frame_table(wanted))
    assert table.end() == HEADER_LENGTH + sum(row.stored_length for row in wanted)


@given(rows())
def test_ordinals_lead_to_their_frames(wanted: list[FrameRow]) -> None:
    table = frame_table(wanted)
    for kind in FrameKind:
        ends = table.unit_ends(kind, PAGE)
        unit = PAGE if kind is FrameKind.PAGES else 1
        ordinal = 0
        for index, row in enumerate(wanted):
            if row.kind is kind and row.data_length:
                for inside in (0, row.data_length // unit - 1):
                    assert np.searchsorted(ends, ordinal + inside, side="right") == index
                ordinal += row.data_length // unit


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=50))
def test_lsns_come_back(wanted: list[int]) -> None:
    encoded = encode_page_lsns(np.array(wanted, np.uint64))
    assert list(decode_page_lsns(encoded, len(wanted), "x")) == wanted


@given(rows())
def test_every_part_of_a_footer_can_be_read_alone(wanted: list[FrameRow]) -> None:
    pages = page_table(wanted)
    parts, place = encode_footer(HEAD, HEADER.object, frame_table(wanted), pages)
    body, tail = b"".join(parts[:-1]), parts[-1]
    assert decode_tail(tail, place.object_length, HEADER.object, "x") == place
    assert place.object_length == place.offset + len(body) + TAIL_LENGTH
    assert np.array_equal(decode_lsns(body[: place.lsns_end], place, "x"), pages.lsn)
    restore = decode_footer(body[: footer_prefix(place)], None, place, PAGE, "x", lsns=True)
    assert same(restore.frames, frame_table(wanted))
    assert restore.lsns is not None
    assert np.array_equal(restore.lsns, pages.lsn)
    whole = decode_footer(body[: footer_prefix(place, hashes=True)], HEAD, place, PAGE, "x", hashes=True)
    assert whole.hashes is not None
    assert whole.lsns is None
    assert np.array_equal(whole.hashes, pages.hash)


WANTED = [
    FrameRow(FrameKind.PAGES, 0, 2 * PAGE + 24, 2 * PAGE + 24, 2 * PAGE, b"s" * 16, b"p" * 16),
    FrameRow(FrameKind.BYTES, 1, 10, 30, 3, b"t" * 16, b"q" * 16),
]


def test_every_flipped_bit_of_footer_and_tail_is_noticed() -> None:
    parts, place = encode_footer(HEAD, HEADER.object, frame_table(WANTED), page_table(WANTED))
    ending = b"".join(parts)
    for bit in range(8 * len(ending)):
        flipped = bytearray(ending)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged, match="the-pack"):
            found = decode_tail(bytes(flipped[-TAIL_LENGTH:]), place.object_length, HEADER.object, "the-pack")
            decode_footer(bytes(flipped[:-TAIL_LENGTH]), HEAD, found, PAGE, "the-pack", lsns=True, hashes=True)


def test_a_footer_that_a_manifest_does_not_mean_is_noticed() -> None:
    parts, place = encode_footer(HEAD, HEADER.object, frame_table(WANTED), page_table(WANTED, seed=2))
    _, other = encode_footer(HEAD, HEADER.object, frame_table(WANTED), page_table(WANTED, seed=3))
    with pytest.raises(Damaged, match="another"):
        decode_footer(b"".join(parts[:-1]), None, other, PAGE, "x")
    assert place != other


def table_with(**change: object) -> bytes:
    names = ("kind", "codec", "stored_length", "raw_length", "data_length", "stored_hash", "plain_hash")
    fields = {name: change.get(name, getattr(WANTED[0], name)) for name in names}
    return struct.pack(
        "<IBBIII16s16s", 1, fields["kind"], fields["codec"], fields["stored_length"], fields["raw_length"],
        fields["data_length"], fields["stored_hash"], fields["plain_hash"],
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"stored_length": MAX_FRAME_STORED + 1},
        {"raw_length": MAX_FRAME_RAW + 1},
        {"data_length": MAX_FRAME_DATA + PAGE, "raw_length": MAX_FRAME_DATA + PAGE + 4},
        {"raw_length": 2 * PAGE + 3},
        {"raw_length": 2 * PAGE - 1},
        {"raw_length": 2 * PAGE + MAX_PIECES_TABLE + 5},
        {"kind": 0},
    ],
)
def test_impossible_frames_are_damage(change: dict[str, object]) -> None:
    with pytest.raises(Damaged):
        decode_frame_table(table_with(**change), "x")
    with pytest.raises(Damaged):
        decode_frame_rows(table_with(**change), "x")


@pytest.mark.parametrize("content", [b"", b"\0", struct.pack("<I", 1), struct.pack("<I", MAX_FRAMES + 1) + bytes(46)])
def test_tables_of_another_length_are_damage(content: bytes) -> None:
    with pytest.raises(Damaged):
        decode_frame_table(content, "x")
    with pytest.raises(Damaged):
        decode_frame_rows(content, "x")


def test_an_unknown_kind_of_frame_leaves_the_others_readable() -> None:
    table = decode_frame_table(table_with(kind=77), "x")
    assert int(table.unit_ends(FrameKind.PAGES, PAGE)[-1]) == 0
    assert int(table.unit_ends(FrameKind.BYTES, PAGE)[-1]) == 0


def test_a_frame_of_pages_holds_whole_pages() -> None:
    row = FrameRow(FrameKind.PAGES, 0, 100, 100, 50, b"s" * 16, b"p" * 16)
    parts, place = encode_footer(HEAD, HEADER.object, frame_table([row]), page_table([]))
    with pytest.raises(Damaged, match="whole pages"):
        decode_footer(b"".join(parts[:-1]), HEAD, place, PAGE, "x")


@given(st.integers(0, 1 << 64), st.integers(0, 1 << 33), st.integers(0, 1 << 33), st.integers(0, 1 << 33))
def test_only_possible_places_are_believed(total: int, offset: int, lsns_end: int, frames_end: int) -> None:
    place = FooterPlace(total, offset, total - offset - TAIL_LENGTH, lsns_end, frames_end, bytes(32))
    if place.is_possible():
        assert HEADER_LENGTH <= offset < offset + lsns_end <= offset + frames_end <= total - TAIL_LENGTH <= 2 << 30
