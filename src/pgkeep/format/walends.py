"""Ends of transactions as columns: the sections ENDS of a WAL index (docs/format/objects.md)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Damaged
from pgkeep.format.limits import MAX_INDEX_ENDS, MAX_INDEX_SUBXACTS, MAX_INDEX_TIME
from pgkeep.format.section import SectionType, StoredSection, encode_section

COMMITTED: Final = 1
PREPARED: Final = 2
_COUNTS: Final = struct.Struct("<II")
_COLUMNS: Final = (
    ("lsn", "<u4"), ("length", "<u4"), ("xid", "<u4"), ("time", "<i8"), ("subxacts", "<u4"), ("flags", "u1"),
)  # fmt: skip
_WIDTH: Final = sum(np.dtype(kind).itemsize for _, kind in _COLUMNS)
_LEVEL: Final = 3

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """Ends of transactions in WAL order, one row each; all columns have the same length but `subxacts`."""

    lsn: U64
    end: U64
    """The first byte after the record."""
    xid: U32
    time: I64
    """Microseconds since 1970."""
    flags: U8
    """COMMITTED | PREPARED."""
    count: U32
    """How many of `subxacts` are this row's."""
    subxacts: U32
    """Of all rows, in order."""

    def __len__(self) -> int:
        return len(self.lsn)

    def part(self, first: int, last: int) -> Ends:
        """Rows first..last-1."""
        ends = np.concatenate(([0], np.cumsum(self.count, dtype=np.int64)))
        rows = slice(first, last)
        return Ends(
            self.lsn[rows], self.end[rows], self.xid[rows], self.time[rows], self.flags[rows], self.count[rows],
            self.subxacts[int(ends[first]) : int(ends[last])],
        )  # fmt: skip


def joined(parts: Sequence[Ends]) -> Ends:
    """The rows of all parts, at least one, in order."""
    if len(parts) == 1:
        return parts[0]
    names = ("lsn", "end", "xid", "time", "flags", "count", "subxacts")
    return Ends(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def is_indexable(ends: Ends) -> bool:
    """False for what the format cannot hold: a time before 1970, or more subtransactions than a section may have."""
    if not len(ends):
        return True
    return (
        0 <= int(ends.time.min()) <= int(ends.time.max()) <= MAX_INDEX_TIME
        and int(ends.count.max()) <= MAX_INDEX_SUBXACTS
    )


def encode_ends(ends: Ends, start: int) -> list[StoredSection]:
    """The sections ENDS of a segment that begins at LSN `start`; as many as the limits ask for."""
    if not len(ends):
        return []
    if len(ends) > MAX_INDEX_ENDS or (len(ends) > 1 and len(ends.subxacts) > MAX_INDEX_SUBXACTS):
        middle = len(ends) // 2
        return [*encode_ends(ends.part(0, middle), start), *encode_ends(ends.part(middle, len(ends)), start)]
    columns = {
        "lsn": np.diff(ends.lsn, prepend=np.uint64(start)),
        "length": ends.end - ends.lsn,
        "xid": ends.xid,
        "time": np.diff(ends.time, prepend=np.int64(0)),
        "subxacts": ends.count,
        "flags": ends.flags,
    }
    planes = [_planes(columns[name].astype(kind)) for name, kind in _COLUMNS]
    content = b"".join([_COUNTS.pack(len(ends), len(ends.subxacts)), *planes, _planes(ends.subxacts.astype("<u4"))])
    return [encode_section(SectionType.ENDS, content, level=_LEVEL)]


def _planes(column: npt.NDArray[np.generic]) -> bytes:
    """All first bytes, then all second ones ...: equal bytes come together and compress."""
    width = column.dtype.itemsize
    return np.ascontiguousarray(column).view(np.uint8).reshape(-1, width).T.tobytes()


def decode_ends(content: bytes, start: int, size: int, obj: str) -> Ends:
    """A section ENDS of the segment of `size` bytes at LSN `start`; Damaged unless every row is possible."""
    n, m = _COUNTS.unpack_from(content) if len(content) >= _COUNTS.size else (0, 0)
    if not 0 < n <= MAX_INDEX_ENDS or m > MAX_INDEX_SUBXACTS or len(content) != _COUNTS.size + n * _WIDTH + 4 * m:
        raise Damaged(obj, f"its {len(content)} bytes of ENDS cannot hold {n} transactions")
    at = _COUNTS.size
    columns: dict[str, npt.NDArray[np.int64]] = {}
    for name, kind in _COLUMNS:
        columns[name], at = _column(content, at, n, kind)
    subxacts, _ = _column(content, at, m, "<u4")
    offset, time = np.cumsum(columns["lsn"]), np.cumsum(columns["time"])
    if (
        int(columns["lsn"][1:].min(initial=1)) < 1
        or int(offset[-1]) >= size
        or int(columns["length"].min()) < 1
        or int(columns["subxacts"].sum()) != m
        or int(columns["flags"].max()) > COMMITTED | PREPARED
        or int(np.abs(columns["time"]).max()) > MAX_INDEX_TIME
        or not 0 <= int(time.min()) <= int(time.max()) <= MAX_INDEX_TIME
    ):
        raise Damaged(obj, "holds impossible ENDS")
    lsn = offset.astype(np.uint64) + np.uint64(start)
    return Ends(
        lsn, lsn + columns["length"].astype(np.uint64), columns["xid"].astype(np.uint32), time,
        columns["flags"].astype(np.uint8), columns["subxacts"].astype(np.uint32), subxacts.astype(np.uint32),
    )  # fmt: skip


def _column(content: bytes, at: int, n: int, kind: str) -> tuple[I64, int]:
    width = np.dtype(kind).itemsize
    planes = np.frombuffer(content, np.uint8, n * width, at).reshape(width, n)
    values = np.ascontiguousarray(planes.T).reshape(-1).view(kind)
    return values.astype(np.int64), at + n * width
