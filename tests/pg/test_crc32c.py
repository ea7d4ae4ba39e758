"""CRC-32C against the check values of its specification (RFC 3720, appendix B.4)."""

from __future__ import annotations

import random

import pytest

from pgkeep.pg.crc32c import crc32c, crc32c_of_bulk


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_values(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected
    assert crc32c(memoryview(data)) == expected


@pytest.mark.parametrize("length", [0, 1, 32767, 32768, 32769, 33280, 100_001])
def test_bulk_says_the_same(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert crc32c_of_bulk(data) == crc32c_of_bulk(memoryview(data)) == crc32c(data)
