"""A manifest's pack table as columns: for sweeps, which look at millions of rows (docs/format/manifest.md, PACKS)."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Damaged, Fault
from pgkeep.format.limits import MAX_FRAMES
from pgkeep.values.ids import ObjectId

ID: Final = np.dtype("S16")
"""Compares as sixteen bytes do; only its conversion to Python's bytes would drop zeros at the end (`object_ids`)."""
Ids = npt.NDArray[np.bytes_]
Rows = npt.NDArray[np.void]
PACK_ROW: Final = np.dtype([
    ("id", ID), ("length", "<u8"), ("offset", "<u8"), ("digest", "V32"), ("footer", "<u4"), ("lsns_end", "<u4"),
    ("frames_end", "<u4"), ("frames", "<u4"), ("flags", "<u4"),
])  # fmt: skip
GONE: Final = 1
"""Flag: the origin was moved; its frames are found through `moves`."""
KNOWN_FLAGS: Final = GONE
_COUNT: Final = struct.Struct("<I")


def pack_rows(content: bytes, live: bytes, obj: str) -> Rows:
    """The rows of one PACKS section, whose bitmaps are `live`; Damaged, format-unsupported."""
    n = _COUNT.unpack_from(content)[0] if len(content) >= _COUNT.size else -1
    if n < 0 or len(content) != _COUNT.size + n * PACK_ROW.itemsize:
        raise Damaged(obj, f"pack table of {len(content)} bytes cannot hold its {n} rows")
    rows = np.frombuffer(content, PACK_ROW, n, _COUNT.size)
    if bool((rows["flags"] & ~np.uint32(KNOWN_FLAGS)).any()):
        raise Fault("format-unsupported", f"{obj}: pack with unknown flags", hint="use a newer pgkeep", object=obj)
    if n and int(rows["frames"].max()) > MAX_FRAMES:
        raise Damaged(obj, "holds a pack with more frames than a pack can have")
    if int(bitmap_lengths(rows["frames"]).sum()) != len(live):
        raise Damaged(obj, "bitmap of live frames does not fit the pack table")
    return rows


def bitmap_lengths(frames: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Bytes of each row's bitmap."""
    return (frames.astype(np.int64) + 7) // 8


def ids_of(packs: list[bytes] | list[ObjectId]) -> Ids:
    """A column of pack ids, in the given order."""
    return np.frombuffer(b"".join(packs), ID)


def object_ids(column: Ids) -> list[ObjectId]:
    """The ids of a column, with the zeros at their ends."""
    data = np.ascontiguousarray(column).tobytes()
    return [ObjectId(data[at : at + 16]) for at in range(0, len(data), 16)]


def places_in(sorted_ids: Ids, wanted: Ids) -> npt.NDArray[np.int64]:
    """The place of each wanted id in an ascending column; -1 for those that it does not have."""
    if not len(sorted_ids) or not len(wanted):
        return np.full(len(wanted), -1, np.int64)
    known = _leading(sorted_ids)
    if bool((known[1:] == known[:-1]).any()):  # ids are random: practically never
        places = np.searchsorted(sorted_ids, wanted).astype(np.int64)
    else:
        places = np.searchsorted(known, _leading(wanted)).astype(np.int64)
    places[places == len(sorted_ids)] = 0
    return np.where(sorted_ids[places] == wanted, places, -1)


def _leading(ids: Ids) -> npt.NDArray[np.uint64]:
    """The first eight bytes as numbers, which ascend with the ids: they are found a dozen times faster."""
    pairs = np.ascontiguousarray(ids).view(">u8").reshape(len(ids), 2)
    return pairs[:, 0].astype(np.uint64)
