"""Rows of a frame table, one at a time: what a writer knows of a frame, and the table of a WAL object.

The bytes are those of `footer.encode_frame_table`: columns.  Packs have thousands of rows and are read with numpy; a
WAL object has a hundred, and importing numpy would take longer than all the rest of `wal get`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pgkeep.errors import Damaged
from pgkeep.format.frame import FrameKind
from pgkeep.format.keyed import HASH_LENGTH
from pgkeep.format.limits import MAX_FRAME_DATA, MAX_FRAME_RAW, MAX_FRAME_STORED, MAX_PIECES_TABLE, MAX_WAL_FRAMES

ROW_LENGTH: Final = 1 + 1 + 4 + 4 + 4 + HASH_LENGTH * 2
_COUNT: Final = struct.Struct("<I")
_KINDS: Final = frozenset(int(kind) for kind in FrameKind)


@dataclass(frozen=True, slots=True)
class FrameRow:
    """What the writer knows of a frame it has just stored."""

    kind: int
    """A FrameKind, unless a newer version wrote the pack."""
    codec: int
    stored_length: int
    raw_length: int
    data_length: int
    stored_hash: bytes
    plain_hash: bytes


def encode_frame_rows(rows: Sequence[FrameRow]) -> bytes:
    """The frame table that holds `rows`."""
    lengths = [
        value
        for column in ("stored_length", "raw_length", "data_length")
        for value in (getattr(row, column) for row in rows)
    ]
    return b"".join((
        _COUNT.pack(len(rows)), bytes(row.kind for row in rows), bytes(row.codec for row in rows),
        struct.pack(f"<{len(lengths)}I", *lengths), *(row.stored_hash for row in rows),
        *(row.plain_hash for row in rows),
    ))  # fmt: skip


def decode_frame_rows(content: bytes, obj: str) -> list[FrameRow]:
    """The rows of a WAL object's frame table; Damaged unless their number, kinds and lengths are possible."""
    n = _COUNT.unpack_from(content)[0] if len(content) >= _COUNT.size else -1
    if not 0 <= n <= MAX_WAL_FRAMES or len(content) != _COUNT.size + n * ROW_LENGTH:
        raise Damaged(obj, f"frame table of {len(content)} bytes cannot hold its {n} rows")
    kinds, codecs = content[4 : 4 + n], content[4 + n : 4 + 2 * n]
    lengths = struct.unpack_from(f"<{3 * n}I", content, 4 + 2 * n)
    hashes = 4 + 14 * n
    rows = []
    for i in range(n):
        stored, raw, data = lengths[i], lengths[n + i], lengths[2 * n + i]
        fits = stored <= MAX_FRAME_STORED and raw <= MAX_FRAME_RAW and data <= MAX_FRAME_DATA
        fits = fits and 4 <= raw - data <= 4 + MAX_PIECES_TABLE
        if not fits or kinds[i] not in _KINDS:
            raise Damaged(obj, "frame table with impossible lengths or kinds")
        first, second = hashes + HASH_LENGTH * i, hashes + HASH_LENGTH * (n + i)
        digests = content[first : first + HASH_LENGTH], content[second : second + HASH_LENGTH]
        rows.append(FrameRow(FrameKind(kinds[i]), codecs[i], stored, raw, data, *digests))
    return rows
