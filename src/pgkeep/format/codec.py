"""Compression of frames and sections: zstd, with the raw length known and bounded beforehand."""

from __future__ import annotations

import threading
from typing import Final

import zstandard

from pgkeep.errors import Damaged, Fault
from pgkeep.format.limits import FRAME_DATA

STORED: Final = 0
ZSTD: Final = 1
_HASH_LOG: Final = {1: 12, 2: 13}
_local = threading.local()


def compress(data: bytes | memoryview | bytearray, level: int = 1) -> tuple[int, bytes]:
    """(codec id, stored bytes); stored as it is when compression would not make it smaller."""
    compressors: dict[int, zstandard.ZstdCompressor] | None = getattr(_local, "compressors", None)
    if compressors is None:
        compressors = _local.compressors = {}
    compressor = compressors.get(level)
    if compressor is None:
        compressor = compressors[level] = zstandard.ZstdCompressor(compression_params=_parameters(level))
    packed = compressor.compress(data)
    return (ZSTD, packed) if len(packed) < len(data) else (STORED, bytes(data))


def _parameters(level: int) -> zstandard.ZstdCompressionParameters:
    """zstd's own parameters for pieces of a frame's size, but for the fast levels, whose hash table is cut to a part of
    the nearest cache: the two threads of a core share that one (docs/decisions/0005).
    """
    chosen = {"hash_log": _HASH_LOG[level]} if level in _HASH_LOG else {}
    return zstandard.ZstdCompressionParameters.from_level(level, source_size=FRAME_DATA, **chosen)


def decompress(codec: int, stored: bytes | memoryview, raw_length: int, obj: str) -> bytes:
    """Exactly `raw_length` bytes (the caller has checked it against its limit), or Damaged."""
    if codec == STORED:
        if len(stored) != raw_length:
            raise Damaged(obj, f"holds {len(stored)} bytes, expected {raw_length}")
        return bytes(stored)
    if codec != ZSTD:
        raise Fault("format-unsupported", f"{obj}: unknown compression {codec}", object=obj)
    decompressor = _decompressor()
    try:
        declared = zstandard.frame_content_size(stored)
        if declared != raw_length:
            raise Damaged(obj, f"would decompress to {declared} bytes, expected {raw_length}")
        raw = decompressor.decompress(stored, max_output_size=raw_length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damaged(obj, f"cannot be decompressed ({error})") from None
    if len(raw) != raw_length:
        raise Damaged(obj, f"decompressed to {len(raw)} bytes, expected {raw_length}")
    return raw


def decompress_into(stored: bytes | memoryview, raw: memoryview, obj: str) -> None:
    """Fill `raw` with what `stored`, compressed with ZSTD, holds: as `decompress`, without memory of its own."""
    try:
        declared = zstandard.frame_content_size(stored)
        if declared != len(raw):
            raise Damaged(obj, f"would decompress to {declared} bytes, expected {len(raw)}")
        # With room for all of it zstd decompresses at once, and to where it belongs.
        filled = _decompressor().stream_reader(stored).readinto(raw)
    except zstandard.ZstdError as error:
        raise Damaged(obj, f"cannot be decompressed ({error})") from None
    if filled != len(raw):
        raise Damaged(obj, f"decompressed to {filled} bytes, expected {len(raw)}")


def _decompressor() -> zstandard.ZstdDecompressor:
    known: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if known is None:
        # A window above the largest section would only serve a bomb.
        known = _local.decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    return known
