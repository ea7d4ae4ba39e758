"""What workers report of the files that they read, as columns: a million files cost megabytes, not a gigabyte (pure).

A worker fills a `Report` for each task and sends what it came to; the job gathers them in `copied.Copied`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.format.extents import ExtentMap
from pgkeep.format.keyed import HASH_LENGTH
from pgkeep.format.manifest import Place
from pgkeep.values.ids import ObjectId

PLACED: Final = np.dtype([("file", "<u4"), ("pack", "<u4"), ("count", "<u4"), ("start", "<i8"), ("ordinal", "<i8")])
"""A stretch of a file from byte `start`: `count` pages or bytes from `ordinal` in the pack of index `pack`."""
DOUBTFUL: Final = np.dtype([("file", "<u4"), ("block", "<u4"), ("lsn", "<u8")])
"""A page that is wrong.  Its LSN says that WAL replaces it, if it is not beyond the stop; 0: no WAL does."""
SETTLED: Final = np.dtype([
    ("file", "<u4"), ("place", "u1"), ("pack", "<u4"), ("at", "<i8"), ("length", "<u4"), ("hashed", "?"),
    ("hash", "u1", (HASH_LENGTH,)),
])  # fmt: skip
"""A whole file as its entry will say it (format.manifest.Entry): its extent or map, and their hash if `hashed`."""
Rows = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True, eq=False)
class Reported:
    """What became of a task's runs; blocks are numbers within the file."""

    length: int
    """Bytes of all runs, those of vanished files included."""
    packs: tuple[ObjectId, ...]
    placed: Rows
    """PLACED; `pack` is an index into `packs`."""
    doubtful: Rows
    """DOUBTFUL."""
    vanished: tuple[int, ...]
    settled: Rows
    """SETTLED; `pack` is an index into `packs`.  Such a file has no stretches."""
    kept: tuple[KeptPart, ...]
    pages: int
    """Pages that were stored, not taken over."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Where the whole content of a file lies: as one extent at (pack, at), or as a map of `length` bytes there."""

    place: Place
    pack: ObjectId
    at: int
    length: int = 0
    hash: bytes = b""


@dataclass(frozen=True, slots=True)
class KeptPart:
    """`length` of the `whole` bytes of a file are what they are in the base, where the file lies at `settled`."""

    file: int
    settled: Settled
    length: int
    whole: int


class Report:
    """A `Reported` in the making."""

    def __init__(self) -> None:
        self._length = 0
        self._packs: dict[ObjectId, int] = {}
        self._placed: list[tuple[int, int, int, int, int]] = []
        self._end = 0
        """The byte of its file that follows the last stretch."""
        self._doubtful: list[tuple[int, int, int]] = []
        self._vanished: list[int] = []
        self._parts: list[Rows] = []
        self._settled: list[tuple[int, int, int, int, int, bool, tuple[int, ...]]] = []
        self._kept: list[KeptPart] = []
        self._pages = 0

    def begin(self, length: int) -> None:
        """A run of that many bytes."""
        self._length += length

    def place(self, file: int, start: int, place: tuple[ObjectId, int], length: int, unit: int = 1) -> None:
        """`length` bytes of a file from byte `start` lie at (pack, ordinal), in units of `unit` bytes."""
        pack, ordinal = self._packs.setdefault(place[0], len(self._packs)), place[1]
        count, follows = length // unit, start == self._end
        self._end = start + length
        if follows and self._placed:
            last_file, last_pack, last_count, last_start, last_ordinal = self._placed[-1]
            if (last_file, last_pack, last_ordinal + last_count) == (file, pack, ordinal):
                self._placed[-1] = (file, pack, last_count + count, last_start, last_ordinal)
                return
        self._placed.append((file, pack, count, start, ordinal))

    def place_part(self, file: int, start: int, extents: ExtentMap, unit: int) -> None:
        """A file from byte `start` on lies there; no holes."""
        # Not all that the map names: a pack in which nothing lies any more must not come into the manifest.
        used, pack = np.unique(extents.pack, return_inverse=True)
        known = [self._packs.setdefault(extents.packs[number], len(self._packs)) for number in used.tolist()]
        rows = np.zeros(len(extents.count), PLACED)
        rows["file"], rows["pack"], rows["count"] = file, np.array(known, np.uint32)[pack], extents.count
        rows["start"], rows["ordinal"] = start + extents.starts() * unit, extents.ordinal
        self._parts.append(rows)

    def keep(self, file: int, base: Settled, length: int, whole: int) -> None:
        """That part has been placed, and is what it is in the base."""
        self._kept.append(KeptPart(file, base, length, whole))

    def settle(self, file: int, where: Settled) -> None:
        """A whole file lies there."""
        pack = self._packs.setdefault(where.pack, len(self._packs))
        digest = tuple(where.hash or bytes(HASH_LENGTH))
        self._settled.append((file, where.place, pack, where.at, where.length, bool(where.hash), digest))

    def store(self, pages: int) -> None:
        """So many pages were stored."""
        self._pages += pages

    def doubt(self, file: int, block: int, lsn: int = 0) -> None:
        """A page that is wrong, now and when it was read again."""
        self._doubtful.append((file, block, lsn))

    def vanish(self, file: int) -> None:
        """DROP and TRUNCATE remove files while they are read."""
        self._vanished.append(file)

    def done(self) -> Reported:
        return Reported(
            self._length,
            tuple(self._packs),
            np.concatenate([np.array(self._placed, PLACED), *self._parts]),
            np.array(self._doubtful, DOUBTFUL),
            tuple(self._vanished),
            np.array(self._settled, SETTLED),
            tuple(self._kept),
            self._pages,
        )
