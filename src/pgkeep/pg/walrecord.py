"""Where WAL records lie: the arithmetic of records and page headers (xlogrecord.h, xlog_internal.h, xlogreader.c).

1. Pure: LSNs and lengths in, LSNs out; and one reader that collects a record's bytes over page borders.
2. A record starts at a multiple of 8 and is interrupted by the header of every page that it crosses into.
"""

from __future__ import annotations

import os
from pathlib import Path

from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment

WAL_PAGE = 8192
LONG_HEADER = 40  # SizeOfXLogLongPHD, on a segment's first page
SHORT_HEADER = 24  # SizeOfXLogShortPHD
RECORD_HEADER = 24  # SizeOfXLogRecord
_ALIGN = 8


def record_pieces(lsn: int, length: int, segment_size: int) -> list[tuple[int, int]]:
    """(LSN, bytes) of each stretch of a record of `length` bytes (xl_tot_len) that starts at `lsn`."""
    pieces: list[tuple[int, int]] = []
    place, rest = lsn, length
    while rest > 0:
        if place % WAL_PAGE == 0:
            place += LONG_HEADER if place % segment_size == 0 else SHORT_HEADER
        size = min(rest, WAL_PAGE - place % WAL_PAGE)
        pieces.append((place, size))
        place += size
        rest -= size
    return pieces


def record_end(lsn: int, length: int, segment_size: int) -> Lsn:
    """The first byte after the record and its padding (EndRecPtr)."""
    place = lsn % WAL_PAGE
    if place and place + length <= WAL_PAGE:  # most records lie within a page
        return Lsn(-(-(lsn + length) // _ALIGN) * _ALIGN)
    place, size = record_pieces(lsn, length, segment_size)[-1]
    return Lsn(-(-(place + size) // _ALIGN) * _ALIGN)


def read_record(directory: Path, timeline: int, lsn: int, length: int, segment_size: int) -> bytes:
    """The record's bytes, from segment files in `directory`; OSError when one cannot be read."""
    parts: list[bytes] = []
    for place, size in record_pieces(lsn, length, segment_size):
        name = Segment.at(timeline, place, segment_size).name(segment_size)
        with (directory / name).open("rb") as file:
            parts.append(os.pread(file.fileno(), size, place % segment_size))
    return b"".join(parts)
