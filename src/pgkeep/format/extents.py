"""Extent maps: where each run of a file's units lies (docs/format/extents.md).

An extent names an immutable origin: pack id and the ordinal of its first unit in that pack's address space for the
unit (pages or bytes).  The pack's frame table turns an ordinal into frame and place in the frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Damaged
from pgkeep.format.footer import I64, U32
from pgkeep.format.limits import MAX_EXTENTS, MAX_ORDINAL
from pgkeep.values.ids import ObjectId

_HEAD: Final = struct.Struct("<4sHHIIQ")
_MAGIC: Final = b"PGKM"
_VERSION: Final = 1
_MAX_COUNT: Final = (1 << 32) - 1


HOLE: Final = 0xFFFFFFFF
"""Instead of an index into `packs`: units that are all zeros and lie nowhere; their ordinal is 0.

Never a file's last extent: so whoever writes what is stored makes every file, in its whole length.
"""


@dataclass(frozen=True, slots=True, eq=False)
class ExtentMap:
    """Extents that cover a file's units 0..total without gap or overlap, in order.

    `count` uint32 (n,), `pack` uint32 (n,) indexes `packs` or is HOLE, `ordinal` int64 (n,).
    """

    packs: tuple[ObjectId, ...]
    count: U32
    pack: U32
    ordinal: I64

    def total(self) -> int:
        """Units covered."""
        return int(self.count.sum(dtype=np.int64))

    def starts(self) -> I64:
        """The file unit at which each extent begins, int64 (n,)."""
        ends = np.cumsum(self.count, dtype=np.int64)
        return ends - self.count


def part_of(extents: ExtentMap, first: int, units: int) -> ExtentMap:
    """What covers the units from `first` on, `units` of them or as many as there are."""
    ends = np.cumsum(extents.count, dtype=np.int64)
    starts = ends - extents.count
    chosen = slice(int(np.searchsorted(ends, first, "right")), int(np.searchsorted(starts, first + units, "left")))
    starts, ends, pack = starts[chosen], ends[chosen], extents.pack[chosen]
    cut = np.maximum(first - starts, 0)
    count = np.minimum(ends, first + units) - starts - cut
    return ExtentMap(
        extents.packs, count.astype(np.uint32), pack, extents.ordinal[chosen] + np.where(pack == HOLE, 0, cut)
    )


def merge_adjacent(extents: ExtentMap) -> ExtentMap:
    """Join neighbours that continue each other in the same pack, and neighbouring holes."""
    count, pack, ordinal = extents.count.astype(np.int64), extents.pack, extents.ordinal
    if len(count) < 2:
        return extents
    follows = (ordinal[1:] == ordinal[:-1] + count[:-1]) | (pack[1:] == HOLE)
    follows &= pack[1:] == pack[:-1]
    first = np.flatnonzero(np.concatenate(([True], ~follows)))
    return _split_long(extents.packs, np.add.reduceat(count, first), pack[first], ordinal[first])


def _split_long(packs: tuple[ObjectId, ...], count: I64, pack: U32, ordinal: I64) -> ExtentMap:
    """Runs over the greatest count become several, full ones first: one form for equal maps, here too."""
    parts = -(-count // _MAX_COUNT)
    run = np.repeat(np.arange(len(count)), parts)
    done = (np.arange(len(run)) - np.repeat(np.cumsum(parts) - parts, parts)) * _MAX_COUNT
    counts = np.minimum(count[run] - done, _MAX_COUNT).astype(np.uint32)
    return ExtentMap(packs, counts, pack[run], ordinal[run] + np.where(pack[run] == HOLE, 0, done))


def _by_pack(extents: ExtentMap) -> tuple[I64, I64, I64, npt.NDArray[np.bool_]]:
    """(order of extents by pack, their counts, ordinals, True at each pack's first), all in that order."""
    order = np.argsort(extents.pack, kind="stable")
    pack = extents.pack[order]
    first = np.concatenate(([True], pack[1:] != pack[:-1]))
    return order, extents.count[order].astype(np.int64), extents.ordinal[order], first


def _deltas(extents: ExtentMap) -> I64:
    """Ordinals as distances from the end of the pack's extent before (holes: 0)."""
    order, count, ordinal, first = _by_pack(extents)
    previous_end = np.concatenate(([0], (ordinal + count)[:-1]))
    out = np.empty_like(ordinal)
    out[order] = ordinal - np.where(first, 0, previous_end)
    out[extents.pack == HOLE] = 0
    return out


def _undo_deltas(extents: ExtentMap) -> I64:
    """The ordinals, from distances in their place."""
    order, count, delta, first = _by_pack(extents)
    # A running sum of distance + count before, restarted at each pack.
    steps = delta + np.where(first, 0, np.concatenate(([0], count[:-1])))
    total = np.cumsum(steps)
    base = np.maximum.accumulate(np.where(first, np.arange(len(total)), 0))
    out = np.empty_like(total)
    out[order] = total - (total[base] - steps[base])
    out[extents.pack == HOLE] = 0
    return out


def _planes(column: npt.NDArray[np.generic]) -> bytes:
    """The column's bytes, all least significant ones first: counts and distances are small, so zstd halves them."""
    return np.ascontiguousarray(column.view(np.uint8).reshape(-1, column.itemsize).T).tobytes()


def _column(data: bytes | memoryview, dtype: str, n: int, at: int) -> npt.NDArray[np.generic]:
    width = np.dtype(dtype).itemsize
    planes = np.frombuffer(data, np.uint8, n * width, at).reshape(width, n)
    return np.ascontiguousarray(planes.T).view(dtype).reshape(n)


def encode_extents(extents: ExtentMap) -> bytes:
    """Canonical bytes: packs in order of first use, neighbours merged, so that equal maps have equal addresses."""
    merged = _canonical(merge_adjacent(extents))
    n = len(merged.count)
    if n > MAX_EXTENTS:
        raise ValueError(f"{n} extents in one map, the limit is {MAX_EXTENTS}")
    if n and int(merged.pack[-1]) == HOLE:
        raise ValueError("a map cannot end in a hole: the last unit must be stored")
    head = _HEAD.pack(_MAGIC, _VERSION, 0, len(merged.packs), n, merged.total())
    deltas = _deltas(merged) if n else merged.ordinal
    columns = merged.count.astype("<u4"), merged.pack.astype("<u4"), deltas.astype("<i8")
    return b"".join((head, *merged.packs, *map(_planes, columns)))


def _canonical(extents: ExtentMap) -> ExtentMap:
    stored = extents.pack != HOLE
    used, first_use = np.unique(extents.pack[stored], return_index=True)
    order = used[np.argsort(first_use)]
    renumber = np.zeros(max(len(extents.packs), 1), np.uint32)
    renumber[order] = np.arange(len(order), dtype=np.uint32)
    packs = tuple(extents.packs[int(index)] for index in order)
    pack = np.full(len(stored), HOLE, np.uint32)
    pack[stored] = renumber[extents.pack[stored]]
    return ExtentMap(packs, extents.count, pack, np.where(stored, extents.ordinal, 0))


def decode_extents(data: bytes | memoryview, obj: str) -> ExtentMap:
    """Damaged unless the columns fit their counts and every extent is possible."""
    if len(data) < _HEAD.size:
        raise Damaged(obj, f"an extent map of {len(data)} bytes is cut off")
    magic, version, reserved, n_packs, n, total = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != _VERSION or reserved:
        raise Damaged(obj, "not an extent map of this format")
    if n > MAX_EXTENTS or n_packs > n or len(data) != _HEAD.size + 16 * n_packs + 16 * n:
        raise Damaged(obj, f"an extent map of {len(data)} bytes cannot hold {n} extents of {n_packs} packs")
    at = _HEAD.size
    packs = tuple(ObjectId(bytes(data[at + 16 * i : at + 16 * i + 16])) for i in range(n_packs))
    at += 16 * n_packs
    count = _column(data, "<u4", n, at).astype(np.uint32)
    pack = _column(data, "<u4", n, at + 4 * n).astype(np.uint32)
    deltas = _column(data, "<i8", n, at + 8 * n).astype(np.int64)
    strange = (pack >= n_packs) & (pack != HOLE)
    strange[-1:] = pack[-1:] >= n_packs
    if bool(strange.any()) or bool(((deltas >= MAX_ORDINAL) | (deltas <= -MAX_ORDINAL)).any()):
        raise Damaged(obj, "extent map with impossible packs or places")
    extents = ExtentMap(packs, count, pack, deltas)
    if n:
        extents = ExtentMap(packs, count, pack, _undo_deltas(extents))
        if not 0 <= int(extents.ordinal.min()) <= int(extents.ordinal.max()) < MAX_ORDINAL or not int(count.min()):
            raise Damaged(obj, "extent map with an empty extent or one outside of its pack")
    if extents.total() != total:
        raise Damaged(obj, f"extents cover {extents.total()} units, expected {total}")
    return extents
