"""Moves: where frames of packs that are gone lie now (docs/format/objects.md).

The stored bytes of a frame never change, so whoever cannot decrypt can move it.  Extents go on naming the origin, its
ordinals and its frame numbers; a moved pack's frame table is put together again from what moves say.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Damaged
from pgkeep.format.footer import I64, U8, U32, U64, FrameTable
from pgkeep.format.frame import FrameKind
from pgkeep.format.header import Header
from pgkeep.format.keyed import HASH_LENGTH
from pgkeep.format.limits import (
    HEADER_LENGTH,
    MAX_CARRIERS,
    MAX_FRAME_DATA,
    MAX_FRAME_RAW,
    MAX_FRAME_STORED,
    MAX_FRAMES,
    MAX_MOVED,
    MAX_OBJECT,
    MAX_ORDINAL,
    MAX_ORIGINS,
)
from pgkeep.format.manifest import PackRef
from pgkeep.format.objects import decode_contents, encode_object, required
from pgkeep.format.packtable import PACK_ROW, bitmap_lengths
from pgkeep.format.record import Natural, Record, decode_record
from pgkeep.format.root import decode_packs, encode_packs
from pgkeep.format.section import SectionType, StoredSection, encode_section
from pgkeep.values.ids import ObjectId

_COUNT: Final = struct.Struct("<I")
_ORIGIN: Final = struct.Struct("<16sI512s")
DEAD: Final = -1
"""Carrier of a frame that was not moved."""


class MovesInfo(Record, frozen=True, kw_only=True):
    """INFO of a moves object."""

    writer: str
    created: str
    reason: str
    generation: Natural


@dataclass(frozen=True, slots=True)
class Origin:
    """A pack whose frames were moved: its id, how many frames it had, its header's bytes."""

    id: ObjectId
    frames: int
    header: bytes


@dataclass(frozen=True, slots=True, eq=False)
class MovedRows:
    """One row a moved frame, as columns of length n; sorted by origin and frame."""

    origin: U32
    """Index in the origins."""
    frame: U32
    """In the origin."""
    ordinal: U64
    """Of its first unit in the origin."""
    kind: U8
    codec: U8
    stored_length: U32
    raw_length: U32
    data_length: U32
    stored_hash: U8
    """Shape (n, 16)."""
    plain_hash: U8
    """Shape (n, 16)."""
    carrier: U32
    """Index in the carriers."""
    carrier_frame: U32
    offset: U64
    """In the carrier."""

    def __len__(self) -> int:
        return len(self.frame)


_COLUMNS: Final = (
    ("origin", "<u4", 1), ("frame", "<u4", 1), ("ordinal", "<u8", 1), ("kind", "u1", 1), ("codec", "u1", 1),
    ("stored_length", "<u4", 1), ("raw_length", "<u4", 1), ("data_length", "<u4", 1),
    ("stored_hash", "u1", HASH_LENGTH), ("plain_hash", "u1", HASH_LENGTH), ("carrier", "<u4", 1),
    ("carrier_frame", "<u4", 1), ("offset", "<u8", 1),
)  # fmt: skip
assert [column[0] for column in _COLUMNS] == [field.name for field in fields(MovedRows)]


@dataclass(frozen=True, slots=True, eq=False)
class Moves:
    """A moves object."""

    info: MovesInfo
    origins: Sequence[Origin]
    rows: MovedRows
    carriers: Sequence[PackRef]
    """Without bitmaps."""


def encode_moves(header: Header, moves: Moves) -> list[bytes]:
    """The object; ValueError for more than it may hold."""
    if len(moves.rows) > MAX_MOVED or len(moves.origins) > MAX_ORIGINS or len(moves.carriers) > MAX_CARRIERS:
        raise ValueError(f"{len(moves.rows)} frames of {len(moves.origins)} origins are too many for one moves object")
    columns = [np.ascontiguousarray(getattr(moves.rows, name), dtype).tobytes() for name, dtype, _ in _COLUMNS]
    return encode_object(
        header, moves.info, origins=_encode_origins(moves.origins),
        moved=_COUNT.pack(len(moves.rows)) + b"".join(columns), carriers=encode_packs(moves.carriers),
    )  # fmt: skip


def decode_moves(data: bytes, obj: str) -> Moves:
    """Damaged unless everything in it is possible."""
    contents = decode_contents(data, obj)
    info = decode_record(required(contents, SectionType.INFO, obj), MovesInfo, obj)
    origins, rest = _decode_origins(required(contents, SectionType.ORIGINS, obj), obj)
    if rest:
        raise Damaged(obj, f"{len(rest)} bytes follow its origins")
    table = required(contents, SectionType.CARRIERS, obj)
    carriers = list(decode_packs(table, _no_bitmaps(table, obj), obj))
    rows = _decode_rows(required(contents, SectionType.MOVED, obj), obj)
    if len(rows) and not _is_possible(rows, origins, carriers):
        raise Damaged(obj, "says of frames what cannot be")
    return Moves(info, origins, rows, carriers)


def _no_bitmaps(table: bytes, obj: str) -> bytes:
    """What stands for the carriers' bitmaps of live frames, which are no part of moves."""
    n = _COUNT.unpack_from(table)[0] if len(table) >= _COUNT.size else -1
    if not 0 <= n <= MAX_CARRIERS or len(table) != _COUNT.size + n * PACK_ROW.itemsize:
        raise Damaged(obj, f"{len(table)} bytes cannot hold its {n} carriers")
    frames = np.frombuffer(table, PACK_ROW, n, _COUNT.size)["frames"]
    if n and int(frames.max()) > MAX_FRAMES:
        raise Damaged(obj, "names a carrier with more frames than a pack can have")
    return bytes(int(bitmap_lengths(frames).sum()))


def _decode_rows(content: bytes, obj: str) -> MovedRows:
    n = _COUNT.unpack_from(content)[0] if len(content) >= _COUNT.size else -1
    width = sum(np.dtype(dtype).itemsize * count for _, dtype, count in _COLUMNS)
    if not 0 <= n <= MAX_MOVED or len(content) != _COUNT.size + n * width:
        raise Damaged(obj, f"{len(content)} bytes cannot hold its {n} moved frames")
    at = _COUNT.size
    columns: list[npt.NDArray[np.generic]] = []
    for _, dtype, count in _COLUMNS:
        values = np.frombuffer(content, dtype, n * count, at)
        at += values.nbytes
        columns.append(values.reshape(n, count) if count > 1 else values)
    return MovedRows(*columns)  # type: ignore[arg-type]


def _is_possible(rows: MovedRows, origins: Sequence[Origin], carriers: Sequence[PackRef]) -> bool:
    if int(rows.origin.max()) >= len(origins) or int(rows.carrier.max()) >= len(carriers):
        return False
    place = rows.origin.astype(np.int64) * (MAX_FRAMES + 1) + rows.frame
    ends = np.array([carrier.footer.offset for carrier in carriers], np.uint64)[rows.carrier]
    counts = np.array([origin.frames for origin in origins], np.int64)[rows.origin]
    return bool(
        (np.diff(place) > 0).all()
        and (rows.frame < counts).all()
        and int(rows.ordinal.max()) <= MAX_ORDINAL
        and int(rows.stored_length.max()) <= MAX_FRAME_STORED
        and int(rows.raw_length.max()) <= MAX_FRAME_RAW
        and int(rows.data_length.max()) <= MAX_FRAME_DATA
        and (rows.raw_length >= rows.data_length).all()
        and int(rows.offset.max()) <= MAX_OBJECT
        and (rows.offset >= HEADER_LENGTH).all()
        and (rows.offset + rows.stored_length <= ends).all()
    )


def _encode_origins(origins: Sequence[Origin]) -> bytes:
    rows = (_ORIGIN.pack(origin.id, origin.frames, origin.header) for origin in origins)
    return _COUNT.pack(len(origins)) + b"".join(rows)


def _decode_origins(content: bytes, obj: str) -> tuple[list[Origin], bytes]:
    n = _COUNT.unpack_from(content)[0] if len(content) >= _COUNT.size else -1
    end = _COUNT.size + n * _ORIGIN.size
    if not 0 <= n <= MAX_ORIGINS or len(content) < end:
        raise Damaged(obj, f"{len(content)} bytes cannot hold its {n} origins")
    origins = [
        Origin(ObjectId(row[0]), row[1], row[2]) for row in _ORIGIN.iter_unpack(memoryview(content)[_COUNT.size : end])
    ]
    if any(origin.frames > MAX_FRAMES for origin in origins):
        raise Damaged(obj, "names an origin with more frames than a pack can have")
    return origins, content[end:]


def carrier_section(origins: Sequence[Origin], rows: MovedRows) -> StoredSection:
    """ORIGINS of a carrier, whose frames are `rows` in the carrier's order."""
    columns = rows.origin.astype("<u4").tobytes() + rows.frame.astype("<u4").tobytes()
    return encode_section(SectionType.ORIGINS, _encode_origins(origins) + columns, critical=False)


@dataclass(frozen=True, slots=True, eq=False)
class MovedTable(FrameTable):
    """The frame table of an origin that is gone: a row for each of its frames, also for those that were dead.

    `offset` is in the carrier.
    """

    carrier: I64
    """Index in the carriers of its reader; DEAD for a frame that was not moved."""
    ordinal: I64
    """Of the first unit of each moved frame; 0 for the others."""

    def joins(self, frame: int, after: int) -> bool:
        """Frames that were neighbours may lie in different carriers, or apart."""
        end = int(self.offset[after]) + int(self.stored_length[after])
        same = self.carrier[frame] == self.carrier[after]
        return frame == after + 1 and bool(same) and int(self.offset[frame]) == end

    def distances(self, frames: I64) -> I64:
        same = self.carrier[frames[1:]] == self.carrier[frames[:-1]]
        return np.where(same, FrameTable.distances(self, frames), -1)

    def unit_ends(self, kind: FrameKind, page_size: int) -> I64:
        """As in a whole table where a frame has moved; a gap of dead units belongs to a row that is not of `kind`.

        Rows behind one another that hold no unit of `kind` end where the next moved frame of `kind` begins.
        """
        size = page_size if kind is FrameKind.PAGES else 1
        mine = np.flatnonzero((self.kind == kind) & (self.carrier != DEAD))
        if not len(mine):
            return np.zeros(len(self), np.int64)
        ends = self.ordinal[mine] + self.data_length[mine].astype(np.int64) // size
        following = np.searchsorted(mine, np.arange(len(self)), side="left")
        last = following == len(mine)
        filled = np.where(last, ends[-1], self.ordinal[mine[np.minimum(following, len(mine) - 1)]])
        filled[mine] = ends
        return filled.astype(np.int64)
