"""Where the first record of a segment begins: what makes it possible to read WAL in pieces (xlog_internal.h).

A record that does not fit into a segment goes on in the next one, whose first page says how many of its bytes are left.
"""

from __future__ import annotations

import struct
from typing import Final

from pgkeep.pg.walrecord import record_end
from pgkeep.values.lsn import Lsn

_SHORT: Final = struct.Struct("<HHIQI")
_FIRST_IS_CONTRECORD: Final = 0x0001


def first_record(beginning: bytes, start: int, segment_size: int) -> Lsn:
    """The LSN at which the first record that begins in the segment at `start`, or behind it, lies.

    `beginning` is the segment's first page.  The record that goes on there ends at that LSN; without one it is `start`
    itself, although the record begins behind the page's header: readers take either.
    """
    _, info, _, _, remaining = _SHORT.unpack_from(beginning)
    if not info & _FIRST_IS_CONTRECORD or not remaining:
        return Lsn(start)
    return record_end(start, remaining, segment_size)
