"""CRC-32C (Castagnoli), with which PostgreSQL guards pg_control, pg_filenode.map and WAL summaries (port/pg_crc32c.h).

`crc32c` is a table and a loop: about 10 MB/s, with the standard library alone, for files of some hundred bytes.
`crc32c_of_bulk` runs the same loop in many lanes at once with numpy, for WAL summaries of megabytes.
"""

from __future__ import annotations

from functools import cache, reduce
from operator import xor
from typing import Final

_REFLECTED_POLYNOMIAL: Final = 0x82F63B78


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_REFLECTED_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE: Final = tuple(_table_entry(byte) for byte in range(256))


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of `data` as PostgreSQL stores it (INIT_CRC32C, COMP_CRC32C, FIN_CRC32C): 0 <= value < 2**32."""
    return _continued(0xFFFFFFFF, data)


_BULK: Final = 1 << 15
"""Bytes from which lanes are worth their set-up."""
_LANE: Final = 512
"""Bytes of a lane: so many turns of the loop, whatever the length."""


def crc32c_of_bulk(data: bytes | memoryview) -> int:
    """As `crc32c`, some hundred MB/s.

    CRC is linear over GF(2): the CRC of two pieces is that of the first, moved on by as many zero bytes as the second
    has, xor that of the second, begun at zero.
    """
    lanes = len(data) // _LANE
    if len(data) < _BULK:
        return crc32c(data)
    import numpy as np  # wal push reads pg_control without it

    table = np.array(_TABLE, np.uint32)
    columns = np.ascontiguousarray(np.frombuffer(data, np.uint8, lanes * _LANE).reshape(lanes, _LANE).T)
    state = np.zeros(lanes, np.uint32)
    state[0] = 0xFFFFFFFF
    for column in columns:
        state = table[(state ^ column) & 0xFF] ^ state >> 8
    moved = _moved_on()
    crc = 0
    for lane in state.tolist():
        crc = moved[0][crc & 0xFF] ^ moved[1][crc >> 8 & 0xFF] ^ moved[2][crc >> 16 & 0xFF] ^ moved[3][crc >> 24] ^ lane
    return _continued(crc, data[lanes * _LANE :])


def _continued(crc: int, data: bytes | memoryview) -> int:
    table = _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@cache
def _moved_on() -> tuple[tuple[int, ...], ...]:
    """For each byte of a state, what it becomes after a lane of zero bytes."""
    bits = []
    for bit in range(32):
        crc = 1 << bit
        for _ in range(_LANE):
            crc = _TABLE[crc & 0xFF] ^ crc >> 8
        bits.append(crc)

    def of(byte: int, place: int) -> int:
        return reduce(xor, (bits[8 * place + bit] for bit in range(8) if byte >> bit & 1), 0)

    return tuple(tuple(of(byte, place) for byte in range(256)) for place in range(4))
