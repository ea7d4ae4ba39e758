"""pg_filenode.map: the file numbers of the mapped catalogs (src/backend/utils/cache/relmapper.c).

Without it a database cannot be opened, and WAL repairs it only where it was changed during the backup.  14 and 15
overwrite it in place, so that a copy can be torn; 16 and later write a new file and rename it.  `read_relmap` returns
bytes whose CRC is right, and a backup stores those.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from pgkeep.clock import Clock, SystemClock
from pgkeep.errors import Fault
from pgkeep.pg.crc32c import crc32c

RELMAP_NAME: Final = "pg_filenode.map"
MAGIC: Final = 0x592717
READ_ATTEMPTS: Final = 10
RETRY_SECONDS: Final = 0.01

# Size of the file -> MAX_MAPPINGS: 512 bytes with four of padding in 14 and 15, 524 without since 16.
_CAPACITY: Final = {512: 62, 524: 64}
_CLOCK: Final = SystemClock()


def parse_relmap(data: bytes) -> tuple[tuple[int, int], ...]:
    """The pairs (catalog OID, relfilenode) of a map.

    Raises Fault 'datadir-invalid' when size, magic number, count or CRC are not what read_relmap_file accepts.
    """
    capacity = _CAPACITY.get(len(data))
    if capacity is None:
        raise _invalid(f"it has {len(data)} bytes, expected {' or '.join(map(str, _CAPACITY))}")
    magic, count = struct.unpack_from("<ii", data)
    if magic != MAGIC or not 0 <= count <= capacity:
        raise _invalid(f"it begins with {magic:#x} and {count} mappings, expected {MAGIC:#x} and at most {capacity}")
    end = 8 + 8 * capacity
    (stored,) = struct.unpack_from("<I", data, end)
    computed = crc32c(memoryview(data)[:end])
    if stored != computed:
        raise _invalid(f"its checksum is {stored:08x}, expected {computed:08x}")
    numbers = struct.unpack_from(f"<{2 * count}I", data, 8)
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def read_relmap(path: str | os.PathLike[str], clock: Clock = _CLOCK) -> bytes:
    """The bytes of a map, read again while they look half written: ten times, 10 ms apart.

    Raises Fault 'datadir-invalid' when they stay wrong; FileNotFoundError passes, since a database may be dropped
    while it is read.
    """
    for attempt in range(READ_ATTEMPTS):
        data = _read(path)
        try:
            parse_relmap(data)
        except Fault as fault:
            if attempt == READ_ATTEMPTS - 1:
                raise _invalid(f"{os.fspath(path)}: {fault.message}") from fault
            clock.sleep(RETRY_SECONDS)
        else:
            return data
    raise AssertionError("unreachable")


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(max(_CAPACITY) + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _invalid(f"{os.fspath(path)} could not be read: {error.strerror}") from error


def _invalid(message: str) -> Fault:
    return Fault(
        "datadir-invalid",
        f"not a usable {RELMAP_NAME}: {message}",
        hint="the database cannot be opened with such a file; restore it from an older backup",
    )
