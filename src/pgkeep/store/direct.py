"""Writing large things past the page cache (O_DIRECT), where the file system can.

What a backup writes nobody reads soon, and a server's page cache has better use for that memory; finding free pages for
it and copying into them costs the processor more than handing the same bytes to the disk (measured in
docs/decisions/0012-direct-writes.md).  O_DIRECT wants memory, offset and length in whole blocks: bytes are collected in
an aligned buffer, and what is left at the end goes through the page cache.  It makes nothing durable: fsync does.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterable
from typing import Final

BLOCK: Final = 4096
"""Bytes: no file system in use wants larger units."""
CHUNK: Final = 4 << 20
"""Bytes of one write."""
_REFUSED: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


def set_direct(descriptor: int, on: bool) -> bool:
    """Switch O_DIRECT; False where the file system does not have it."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return False
    return True


def write_at(descriptor: int, blocks: memoryview, offset: int) -> int:
    """Write whole blocks of aligned memory at a whole block; how many bytes: fewer, or 0, where it is not to be had."""
    if not blocks or not set_direct(descriptor, True):
        return 0
    try:
        return os.pwrite(descriptor, blocks, offset)
    except OSError as error:
        if error.errno not in _REFUSED:  # some file systems refuse it only now
            raise
        return 0
    finally:
        set_direct(descriptor, False)


def write_all(descriptor: int, parts: Iterable[bytes | memoryview]) -> None:
    """Every byte of every part, one after the other, to a file that is empty.

    A long part that lies well in memory is written from where it is; all others are collected first.
    """
    # Not closed but dropped: a failed call's traceback still holds views of it.
    buffer = memoryview(mmap.mmap(-1, CHUNK))
    at = filled = 0
    for part in parts:
        with memoryview(part).cast("B") as rest:
            done = 0
            if not filled and len(rest) >= CHUNK:
                while len(rest) - done >= BLOCK and (count := _write_blocks(descriptor, rest[done:], at)):
                    done, at = done + count, at + count
            while done < len(rest):
                taken = min(CHUNK - filled, len(rest) - done)
                buffer[filled : filled + taken] = rest[done : done + taken]
                done, filled = done + taken, filled + taken
                if filled == CHUNK:
                    at, filled = at + _write_collected(descriptor, buffer, at), 0
    _write_collected(descriptor, buffer[:filled], at)


def _write_blocks(descriptor: int, data: memoryview, offset: int) -> int:
    """Write whole blocks of `data`; how many bytes of them: 0 where its memory is not aligned, for instance."""
    done = write_at(descriptor, data[: len(data) // BLOCK * BLOCK], offset)
    return done // BLOCK * BLOCK


def _write_collected(descriptor: int, data: memoryview, offset: int) -> int:
    """Write all of `data`, which is aligned; how many bytes that were."""
    done = write_at(descriptor, data[: len(data) // BLOCK * BLOCK], offset)
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)
    return done
