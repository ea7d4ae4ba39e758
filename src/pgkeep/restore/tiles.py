"""Tiles: stretches of large files whose pages lie scattered over many packs.

After a month of nightly backups a hot table lies in the packs of all those nights, a page here and a page there.  Read
pack by pack, each of its pages would be a write of its own; so a tile is put together in memory, from all the packs
that hold a part of it, and written as a whole.  Frames that reach over the edge of a tile are read for both: few, as a
pack holds a file's pages in their order.  All here is pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.format.footer import I64
from pgkeep.format.manifest import Unit
from pgkeep.restore.layout import Rows

SCATTERED: Final = 128 << 10
"""Bytes of an extent, on average, below which a stretch is a tile: what lies in longer ones is written well enough."""
LEAST: Final = 2 << 20
"""Bytes of stored pages that make a tile worth its reads."""


def tiles_of(rows: Rows, page_size: int, size: int) -> tuple[list[Rows], Rows]:
    """(the tiles of one file, of `size` bytes at most; the rows of it that are in none).

    `rows` ascend by their place in the file.
    """
    none: list[Rows] = []
    if not len(rows) or int(rows["unit"][0]) != Unit.PAGES:
        return none, rows
    pages = size // page_size
    parts = cut_at(rows, pages)
    stretch = parts["start"] // np.uint64(pages)
    begins = np.flatnonzero(np.concatenate(([True], stretch[1:] != stretch[:-1])))
    ends = np.append(begins[1:], len(parts))
    stored = np.add.reduceat(parts["count"].astype(np.int64), begins) * page_size
    chosen = (stored >= LEAST) & (stored < (ends - begins) * SCATTERED)
    if not bool(chosen.any()):
        return none, rows
    spans = list(zip(begins.tolist(), ends.tolist(), chosen.tolist(), strict=True))
    tiles = [parts[begin:end] for begin, end, is_tile in spans if is_tile]
    return tiles, np.concatenate([parts[:0], *(parts[begin:end] for begin, end, is_tile in spans if not is_tile)])


def cut_at(rows: Rows, units: int) -> Rows:
    """The rows of a file, cut wherever they cross a multiple of `units`."""
    first = rows["start"].astype(np.int64)
    last = first + rows["count"]
    pieces = (last - 1) // units - first // units + 1
    number = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    cut = np.repeat(rows, pieces)
    edge = (np.repeat(first // units, pieces) + number) * units
    begin = np.maximum(np.repeat(first, pieces), edge)
    end = np.minimum(np.repeat(last, pieces), edge + units)
    cut["ordinal"] += (begin - np.repeat(first, pieces)).astype(np.uint64)
    cut["start"] = begin
    cut["count"] = end - begin
    return cut


def by_pack(tile: Rows) -> Iterator[tuple[int, I64, I64, I64]]:
    """(pack, first ordinals, counts, pages from the tile's first page on) for every pack of a tile; int64 (n,)."""
    base = int(tile["start"][0])
    order = np.argsort(tile["pack"], kind="stable")
    packs, begins = np.unique(tile["pack"][order], return_index=True)
    for pack, chosen in zip(packs.tolist(), np.split(order, begins[1:]), strict=True):
        rows = tile[chosen]
        place = rows["start"].astype(np.int64) - base
        yield pack, rows["ordinal"].astype(np.int64), rows["count"].astype(np.int64), place


def filled(tile: Rows) -> list[tuple[int, int]]:
    """The pages of a tile that are stored, counted from its first, as (first, behind the last) of each run of them."""
    start = tile["start"].astype(np.int64) - int(tile["start"][0])
    end = start + tile["count"]
    first: npt.NDArray[np.bool_] = np.concatenate(([True], start[1:] != end[:-1]))
    behind = np.append(first[1:], True)
    return list(zip(start[first].tolist(), end[behind].tolist(), strict=True))
