"""Frames: the unit of compression, encryption and range reads (docs/format/frame.md).

A frame's plain bytes are: u32 length of the pieces table, the pieces table, the data.  The pieces say whose bytes the
data are, so that a pack can be understood without any manifest.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from pgkeep.errors import Damaged
from pgkeep.format.limits import MAX_FRAME_DATA, MAX_PATH, MAX_PIECES_TABLE

_LENGTH: Final = struct.Struct("<I")
PIECES_HEAD: Final = _LENGTH.size
"""Bytes before the pieces table: its length."""
_PIECE: Final = struct.Struct("<HQI")
_SAME_PATH: Final = 0xFFFF
PIECE_LENGTH: Final = _PIECE.size
"""Bytes of a piece in the table, without its path."""


class FrameKind(IntEnum):
    """What the data are; each kind has its own address space of units in a pack."""

    PAGES = 1
    """Units are pages."""
    BYTES = 2
    """Units are bytes of files."""
    MAPS = 3
    """Units are bytes of encoded extent maps."""
    WAL = 4
    """Units are bytes of a WAL file."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of one file's units within a frame: `start` is a page of the *file* or a byte offset in it."""

    path: bytes
    start: int
    count: int


def encode_pieces(pieces: Sequence[Piece]) -> bytes:
    """The pieces table with its length in front: what a frame's plain bytes begin with."""
    parts: list[bytes] = []
    previous: bytes | None = None
    for piece in pieces:
        if piece.path == previous:
            parts.append(_PIECE.pack(_SAME_PATH, piece.start, piece.count))
        else:
            parts += [_PIECE.pack(len(piece.path), piece.start, piece.count), piece.path]
            previous = piece.path
    table = b"".join(parts)
    if len(table) > MAX_PIECES_TABLE:
        raise ValueError(f"a pieces table of {len(table)} bytes is over the limit")
    return _LENGTH.pack(len(table)) + table


def split_frame(raw: bytes | memoryview, obj: str) -> tuple[memoryview, memoryview]:
    """(pieces table, data) of a frame's plain bytes."""
    view = memoryview(raw)
    if len(raw) < 4:
        raise Damaged(obj, f"a frame of {len(raw)} bytes has no pieces table")
    length = _LENGTH.unpack_from(raw)[0]
    if length > MAX_PIECES_TABLE or 4 + length > len(raw) or len(raw) - 4 - length > MAX_FRAME_DATA:
        raise Damaged(obj, f"impossible pieces table of {length} bytes in a frame of {len(raw)}")
    return view[4 : 4 + length], view[4 + length :]


def decode_pieces(table: memoryview, obj: str) -> list[Piece]:
    """Read a pieces table (without its length)."""
    pieces: list[Piece] = []
    at = 0
    path: bytes | None = None
    while at < len(table):
        if at + _PIECE.size > len(table):
            raise Damaged(obj, "pieces table cut off")
        length, start, count = _PIECE.unpack_from(table, at)
        at += _PIECE.size
        if length != _SAME_PATH:
            if length > MAX_PATH or at + length > len(table):
                raise Damaged(obj, f"pieces table with an impossible path length {length}")
            path = bytes(table[at : at + length])
            at += length
        if path is None:
            raise Damaged(obj, "pieces table that begins without a path")
        pieces.append(Piece(path, start, count))
    return pieces
