"""WAL objects as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgkeep.errors import Damaged, Fault
from pgkeep.format.frame import FrameKind, Piece, encode_pieces
from pgkeep.format.framerow import FrameRow, encode_frame_rows
from pgkeep.format.header import Header, ObjectType, WalIdentity, decode_header
from pgkeep.format.keyed import HashKeys, stored_hash
from pgkeep.format.limits import FRAME_DATA, HEADER_LENGTH
from pgkeep.format.section import SectionType, decode_directory
from pgkeep.format.walobject import decode_wal, encode_wal
from tests.format.forge import Forged, forge_block, forge_tail
from tests.format.test_header import HEADER

KEYS = HashKeys(b"k" * 32)
NAME = "000000020000000000000030"


def header_for(content: bytes) -> Header:
    identity = WalIdentity(7, 0x3000000, 1 << 20, 2, len(content), KEYS.wal(content))
    return replace(HEADER, type=ObjectType.WAL_SEGMENT, specific=identity.encode())


def wal_object(content: bytes) -> bytes:
    return b"".join(encode_wal(header_for(content), NAME, content, KEYS, 1))


def read(data: bytes) -> bytes:
    return decode_wal(data, decode_header(data, "the-segment"), KEYS, "the-segment")


@settings(max_examples=25)
@given(st.sampled_from([0, 1, FRAME_DATA - 1, FRAME_DATA, FRAME_DATA + 1, 300_000]), st.binary(max_size=40))
def test_content_comes_back(zeros: int, rest: bytes) -> None:
    assert read(wal_object(bytes(zeros) + rest)) == bytes(zeros) + rest


def test_every_flipped_byte_and_every_truncation_is_noticed() -> None:
    data = wal_object(bytes(FRAME_DATA) + b"the second frame")
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 0x40
        for broken in (bytes(flipped), data[:at]):
            with pytest.raises(Damaged, match="the-segment"):
                read(broken)


def forged(content: bytes, rows: list[FrameRow], stored: bytes, *, extra: Forged | None = None) -> bytes:
    """An object whose hashes are right, with the frames and the table that are given."""
    header = header_for(content)
    head = header.encode()
    sections = [Forged(SectionType.FRAMES | 0x8000, encode_frame_rows(rows))] + ([extra] if extra else [])
    footer = forge_block(head, sections)
    frames = decode_directory(footer, head, "x").of(SectionType.FRAMES)[0]
    offset = HEADER_LENGTH + len(stored)
    return head + stored + footer + forge_tail(footer, offset, frames.offset, frames.end, header.object)


def frame(data: bytes, **change: int) -> tuple[FrameRow, bytes]:
    raw = encode_pieces([Piece(NAME.encode(), 0, len(data))]) + data
    lengths = {"stored_length": len(raw), "raw_length": len(raw), "data_length": len(data), **change}
    return FrameRow(FrameKind.WAL, 0, **lengths, stored_hash=stored_hash(raw), plain_hash=KEYS.frame(raw)), raw


def test_the_forger_forges() -> None:
    row, stored = frame(b"wal")
    assert read(forged(b"wal", [row], stored)) == b"wal"


def test_frames_that_do_not_make_the_content_are_damage() -> None:
    row, stored = frame(b"wal")
    short, _ = frame(b"wal", data_length=2)
    kind = replace(row, kind=FrameKind.BYTES)
    for content, rows in ((b"lav", [row]), (b"walwal", [row]), (b"wal", []), (b"wal", [short]), (b"wal", [kind])):
        with pytest.raises(Damaged, match="the-segment"):
            read(forged(content, rows, stored))


def test_sections_of_a_newer_version_are_skipped_but_vouched_for() -> None:
    row, stored = frame(b"wal")
    data = forged(b"wal", [row], stored, extra=Forged(999, b"newer"))
    assert read(data) == b"wal"
    with pytest.raises(Damaged, match="999"):
        read(data.replace(b"newer", b"never"))


def test_an_unknown_compression_is_unsupported() -> None:
    row, stored = frame(b"wal")
    with pytest.raises(Fault) as caught:
        read(forged(b"wal", [replace(row, codec=9)], stored))
    assert caught.value.code == "format-unsupported"
