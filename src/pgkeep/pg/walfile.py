"""WAL segment files: whose they are, and how far they are filled (access/xlog_internal.h).

Rules of this file:

1. Standard library alone: `wal push` judges a segment with it before it knows that there is work.
2. Only page headers are read, never records.
3. A page's timeline proves nothing: the first segment of a new timeline begins with pages of its parent.
4. A recycled segment still holds the pages of its former name.  Their addresses tell, so that WAL in a file ends
   before the first page whose magic number or address is not the expected one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pgkeep.errors import Fault
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment, is_segment_size

# XLOG_PAGE_MAGIC, from the headers of 14.23, 15.19, 16.15, 17.11 and 18.6
MAJOR_OF_MAGIC: Final = {0xD10D: 14, 0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18}
LONG_HEADER_SIZE: Final = 40
SHORT_HEADER_SIZE: Final = 24

_SHORT: Final = struct.Struct("<HHIQI4x")
_LONG: Final = struct.Struct("<QII")
_IS_LONG: Final = 0x0002  # XLP_LONG_HEADER
_ALL_FLAGS: Final = 0x000F  # XLP_ALL_FLAGS
_BLOCK_SIZES: Final = frozenset(1 << power for power in range(10, 17))  # --with-wal-blocksize


@dataclass(frozen=True, slots=True)
class WalHeader:
    """XLogLongPageHeaderData, on the first page of every segment; sizes in bytes."""

    magic: int
    timeline: int
    page_address: Lsn
    system_identifier: int
    segment_size: int
    block_size: int

    @property
    def major(self) -> int:
        """The major version that wrote the segment."""
        return MAJOR_OF_MAGIC[self.magic]


def parse_header(data: bytes) -> WalHeader:
    """Read the first LONG_HEADER_SIZE bytes of a segment.

    Raises Fault 'postgres-version' for the magic number of another version, 'wal-refused' for anything else that no
    server of a supported version begins a segment with.
    """
    if len(data) < LONG_HEADER_SIZE:
        raise _refused(f"it has {len(data)} bytes, expected a header of {LONG_HEADER_SIZE}")
    magic, info, timeline, address, _ = _SHORT.unpack_from(data)
    system_identifier, segment_size, block_size = _LONG.unpack_from(data, SHORT_HEADER_SIZE)
    if not (magic or info or address):
        raise _refused("it begins with zeros, expected a page header: nothing was written to it yet")
    if magic not in MAJOR_OF_MAGIC:
        known = ", ".join(f"{number:#06x} ({major})" for number, major in MAJOR_OF_MAGIC.items())
        raise Fault(
            "postgres-version",
            f"the segment begins with {magic:#06x}, expected one of {known}",
            hint="pgkeep supports PostgreSQL 14 to 18",
        )
    if not info & _IS_LONG or info & ~_ALL_FLAGS:
        raise _refused(f"its first page has flags {info:#06x}, expected a long header (0x0002)")
    if not is_segment_size(segment_size) or block_size not in _BLOCK_SIZES or not timeline:
        raise _refused(
            f"its header says {segment_size}-byte segments, {block_size}-byte pages and timeline {timeline}, which no"
            " server writes"
        )
    return WalHeader(magic, timeline, Lsn(address), system_identifier, segment_size, block_size)


def check_segment(header: WalHeader, name: str, size: int, system_identifier: int | None = None) -> Segment:
    """The segment that a file is, if its header agrees with its name and with its size in bytes.

    `name` may end in `.partial`.  With `system_identifier` the segment must be that cluster's.  Raises Fault
    'wal-refused' for a file that is not what its name says, 'cluster-mismatch' for another cluster's.
    """
    if size != header.segment_size:
        raise _refused(f"it has {size} bytes, expected {header.segment_size} as its header says", name)
    try:
        segment = Segment.parse(name.removesuffix(".partial"), header.segment_size)
    except ValueError as error:
        raise _refused(f"its name is none of a segment: {error}", name) from error
    start = segment.start(header.segment_size)
    if header.page_address != start:
        raise _refused(f"its first page is {header.page_address}, expected {start} by its name", name)
    if system_identifier is not None and header.system_identifier != system_identifier:
        raise Fault(
            "cluster-mismatch",
            f"{name} was written by the cluster with system identifier {header.system_identifier}, expected"
            f" {system_identifier}",
            hint="check that archive_command names this server's own cluster",
        )
    return segment


def valid_until(read: Callable[[int, int], bytes]) -> Lsn:
    """Where the WAL in a segment's file ends at the latest: the end of its last page that belongs there.

    `read(offset, length)` returns bytes of the file, fewer at its end.  The last page itself may be filled in part.
    Raises Fault as `parse_header` does when even the first page is not WAL.
    """
    header = parse_header(read(0, LONG_HEADER_SIZE))
    end = header.block_size
    while end < header.segment_size and _continues(header, end, read(end, SHORT_HEADER_SIZE)):
        end += header.block_size
    return Lsn(header.page_address + end)


def _continues(header: WalHeader, offset: int, data: bytes) -> bool:
    if len(data) < SHORT_HEADER_SIZE:
        return False
    magic, info, _, address, _ = _SHORT.unpack(data)
    is_short = not info & (~_ALL_FLAGS | _IS_LONG)
    return bool(is_short and magic == header.magic and address == header.page_address + offset)


def _refused(message: str, name: str = "the file") -> Fault:
    return Fault(
        "wal-refused",
        f"{name} is not a usable WAL segment: {message}",
        hint="pg_waldump shows what it holds; a segment that was copied while it was written must be copied again",
    )
