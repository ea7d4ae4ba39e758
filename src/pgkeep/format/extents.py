"""Extent maps: where each run of a file's units lies (docs/format/extents.md).

An extent names an immutable origin: pack id and the ordinal of its first unit in that pack's address space for the
unit (pages or bytes).  The pack's frame table turns an ordinal into frame and place in the frame.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from pgkeep.errors import Damaged
from pgkeep.format.footer import I64, U32
from pgkeep.format.limits import MAX_EXTENTS
from pgkeep.values.ids import ObjectId

_HEAD: Final = struct.Struct("<4sHHIIQ")
_MAGIC: Final = b"PGKM"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class ExtentMap:
    """Extents that cover a file's units 0..total without gap or overlap, in order.

    `count` uint32 (n,), `pack` uint32 (n,) indexes `packs`, `ordinal` int64 (n,).
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


def merge_adjacent(extents: ExtentMap) -> ExtentMap:
    """Join neighbours that continue each other in the same pack."""
    count, pack, ordinal = extents.count.astype(np.int64), extents.pack, extents.ordinal
    if len(count) < 2:
        return extents
    follows = (pack[1:] == pack[:-1]) & (ordinal[1:] == ordinal[:-1] + count[:-1])
    group = np.concatenate(([0], np.cumsum(~follows)))
    summed = np.bincount(group, weights=count).astype(np.int64)
    if int(summed.max()) >= 1 << 32:
        return extents
    first = np.concatenate(([True], ~follows))
    return ExtentMap(extents.packs, summed.astype(np.uint32), pack[first], ordinal[first])


def _pack_deltas(extents: ExtentMap, *, undo: bool = False) -> I64:
    """Ordinals as distances from the end of the pack's extent before; or, `undo`, the ordinals from the distances."""
    order = np.argsort(extents.pack, kind="stable")
    pack, count, values = extents.pack[order], extents.count[order].astype(np.int64), extents.ordinal[order]
    first = np.concatenate(([True], pack[1:] != pack[:-1]))
    if undo:
        # Running sum of (distance + count before), restarted at each pack.
        steps = values + np.where(first, 0, np.concatenate(([0], count[:-1])))
        total = np.cumsum(steps)
        base = np.maximum.accumulate(np.where(first, np.arange(len(total)), 0))
        result = total - (total[base] - steps[base])
    else:
        previous_end = np.concatenate(([0], (values + count)[:-1]))
        result = values - np.where(first, 0, previous_end)
    out = np.empty_like(result)
    out[order] = result
    return out


def encode_extents(extents: ExtentMap) -> bytes:
    """Canonical bytes: packs in order of first use, neighbours merged, so that equal maps have equal addresses."""
    merged = _canonical(merge_adjacent(extents))
    n = len(merged.count)
    if n > MAX_EXTENTS:
        raise ValueError(f"{n} extents in one map, the limit is {MAX_EXTENTS}")
    head = _HEAD.pack(_MAGIC, _VERSION, 0, len(merged.packs), n, merged.total())
    deltas = _pack_deltas(merged) if n else merged.ordinal
    return b"".join((
        head, *merged.packs, merged.count.astype("<u4").tobytes(), merged.pack.astype("<u4").tobytes(),
        deltas.astype("<i8").tobytes(),
    ))  # fmt: skip


def _canonical(extents: ExtentMap) -> ExtentMap:
    used, first_use = np.unique(extents.pack, return_index=True)
    order = used[np.argsort(first_use)]
    renumber = np.zeros(max(len(extents.packs), 1), np.uint32)
    renumber[order] = np.arange(len(order), dtype=np.uint32)
    packs = tuple(extents.packs[int(index)] for index in order)
    return ExtentMap(packs, extents.count, renumber[extents.pack], extents.ordinal)


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
    count = np.frombuffer(data, "<u4", n, at)
    pack = np.frombuffer(data, "<u4", n, at + 4 * n)
    deltas = np.frombuffer(data, "<i8", n, at + 8 * n)
    if n and (int(pack.max()) >= n_packs or int(deltas.max()) >= 1 << 40 or int(deltas.min()) <= -(1 << 40)):
        raise Damaged(obj, "extent map with impossible packs or places")
    extents = ExtentMap(packs, count, pack, deltas.astype(np.int64))
    if n:
        extents = ExtentMap(packs, count, pack, _pack_deltas(extents, undo=True))
        if int(extents.ordinal.min()) < 0 or not int(count.min()):
            raise Damaged(obj, "extent map with an empty extent or one before its pack's beginning")
    if extents.total() != total:
        raise Damaged(obj, f"extents cover {extents.total()} units, expected {total}")
    return extents
