"""Where each unit of one file lies, one row a unit: base pages overlaid with new ones, and back to extents (pure)."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from pgkeep.format.extents import HOLE, ExtentMap
from pgkeep.format.footer import I64, U32
from pgkeep.format.runs import lengths
from pgkeep.values.ids import ObjectId

_NOWHERE = np.uint32(HOLE - 1)
"""Units that nobody has placed yet."""


class Units:
    """`pack` uint32 (n,) indexes `packs`, or is HOLE; `ordinal` int64 (n,)."""

    def __init__(self, packs: tuple[ObjectId, ...], pack: U32, ordinal: I64) -> None:
        self._index = {identity: number for number, identity in enumerate(packs)}
        self.packs = list(packs)
        self.pack = pack
        self.ordinal = ordinal

    @classmethod
    def of(cls, extents: ExtentMap) -> Self:
        """One row for each unit that the extents cover."""
        if len(extents.count) == 1:  # most files
            n, first = int(extents.count[0]), int(extents.ordinal[0])
            return cls(extents.packs, np.full(n, extents.pack[0], np.uint32), np.arange(first, first + n))
        count = extents.count.astype(np.int64)
        within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        return cls(extents.packs, np.repeat(extents.pack, count), np.repeat(extents.ordinal, count) + within)

    def __len__(self) -> int:
        return len(self.pack)

    def resize(self, n: int) -> None:
        """Cut rows off, or append some that lie nowhere yet."""
        if n == len(self):
            return
        kept = min(n, len(self))
        pack, ordinal = np.full(n, _NOWHERE, np.uint32), np.zeros(n, np.int64)
        pack[:kept], ordinal[:kept] = self.pack[:kept], self.ordinal[:kept]
        self.pack, self.ordinal = pack, ordinal

    def place(self, where: I64, pack: ObjectId, ordinal: int) -> None:
        """The units `where` (in order) lie in `pack`, one after the other from `ordinal` on."""
        if pack not in self._index:
            self._index[pack] = len(self.packs)
            self.packs.append(pack)
        self.pack[where] = self._index[pack]
        self.ordinal[where] = np.arange(ordinal, ordinal + len(where))

    def lies_in(self, packs: frozenset[ObjectId]) -> npt.NDArray[np.bool_]:
        """Which units lie in one of these packs."""
        numbers = [number for number, identity in enumerate(self.packs) if identity in packs]
        if not numbers:
            return np.zeros(len(self), np.bool_)
        return np.isin(self.pack, np.array(numbers, np.uint32))

    def extents(self) -> ExtentMap:
        """Runs of units that follow each other in one pack; AssertionError while a unit lies nowhere."""
        if (self.pack == _NOWHERE).any():
            raise AssertionError(f"{int((self.pack == _NOWHERE).sum())} of {len(self)} units lie nowhere")
        if not len(self):
            return ExtentMap((), self.pack, self.pack, self.ordinal)
        ordinal = np.where(self.pack == HOLE, 0, self.ordinal)
        follows = (ordinal[1:] == ordinal[:-1] + 1) | (self.pack[1:] == HOLE)
        follows &= self.pack[1:] == self.pack[:-1]
        first = np.flatnonzero(np.concatenate(([True], ~follows)))
        count = lengths(first, len(self)).astype(np.uint32)
        return ExtentMap(tuple(self.packs), count, self.pack[first], ordinal[first])
