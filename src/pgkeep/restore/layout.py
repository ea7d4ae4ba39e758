"""Layout: for each pack, which of its units go where; the manifest's extents turned round.

A manifest says for every file where its units lie; a restore reads pack by pack.  The rows are kept in memory up to a
limit and then spilled, sorted by pack, to an unnamed file, so that a scattered backup of any size needs bounded memory.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Damaged
from pgkeep.format.extents import HOLE, ExtentMap
from pgkeep.format.manifest import Entry, Unit
from pgkeep.values.ids import ObjectId

ROW: Final = np.dtype(
    [("pack", "<u4"), ("unit", "u1"), ("ordinal", "<u8"), ("count", "<u4"), ("file", "<u4"), ("start", "<u8")]
)
"""`count` units of kind `unit` from `ordinal` in `pack` are the units from `start` of `file`."""
Rows = npt.NDArray[np.void]
MEMORY_ROWS: Final = 2_000_000
"""Rows kept in memory before they are spilled: 58 MB."""


def inline_row(entry: Entry, file: int, page_size: int, obj: str) -> Rows:
    """The one row of an INLINE entry."""
    rows = np.empty(1, ROW)
    count = units_of(entry.size, entry.unit, page_size, obj)
    if count >> 32:
        raise Damaged(obj, f"places {count} units in one extent")
    rows[0] = (entry.pack, entry.unit, entry.at, count, file, 0)
    return rows


def map_rows(extents: ExtentMap, file: int, unit: Unit, packs: dict[ObjectId, int], obj: str) -> Rows:
    """The rows of a file whose extents are a map; Damaged when it names a pack that the manifest does not.

    Holes have none: a new file is zeros there.
    """
    try:
        index = np.array([packs[pack] for pack in extents.packs], np.uint32)
    except KeyError as error:
        raise Damaged(obj, f"an extent map names the pack {error.args[0]}, which is not in the pack table") from None
    stored = extents.pack != HOLE
    rows = np.empty(int(stored.sum()), ROW)
    rows["pack"] = index[extents.pack[stored]]
    rows["unit"] = unit
    rows["ordinal"] = extents.ordinal[stored]
    rows["count"] = extents.count[stored]
    rows["file"] = file
    rows["start"] = extents.starts()[stored]
    return rows


def part_of(row: np.void, skipped: int, count: int) -> Rows:
    """The `count` units of a row that come after its first `skipped`, as one row."""
    part = np.array([row], ROW)
    part["ordinal"] += np.uint64(skipped)
    part["start"] += np.uint64(skipped)
    part["count"] = count
    return part


def units_of(size: int, unit: Unit, page_size: int, obj: str) -> int:
    """How many units a file of `size` bytes has."""
    if unit is Unit.BYTES:
        return size
    if size % page_size:
        raise Damaged(obj, f"counts a file of {size} bytes in pages of {page_size}")
    return size // page_size


@dataclass(frozen=True, slots=True)
class _Spilled:
    """A sorted run of rows in the spill file: row number of its first, the packs in it, and where each begins."""

    first: int
    packs: npt.NDArray[np.uint32]
    begins: npt.NDArray[np.int64]


class Layout:
    """See the module's docstring.  `directory` is where the spill file goes, if there must be one."""

    def __init__(self, directory: str, memory_rows: int = MEMORY_ROWS) -> None:
        self._directory = directory
        self._limit = memory_rows
        self._rows: list[Rows] = []
        self._held = 0
        self._spill: BinaryIO | None = None
        self._runs: list[_Spilled] = []
        self._total = 0

    def add(self, rows: Rows) -> None:
        self._rows.append(rows)
        self._held += len(rows)
        if self._held >= self._limit:
            self._flush()

    def by_pack(self) -> Iterator[tuple[int, Rows]]:
        """(pack, its rows by unit and ordinal) for every pack, ascending.  Nothing is added afterwards."""
        rest = self._sorted()
        packs, begins = _groups(rest)
        every = np.unique(np.concatenate([packs, *(run.packs for run in self._runs)]))
        for pack in every.tolist():
            parts = [self._read(run, pack) for run in self._runs]
            parts.append(_group(rest, packs, begins, pack))
            found = [part for part in parts if len(part)]
            yield pack, found[0] if len(found) == 1 else _sort(np.concatenate(found))

    def close(self) -> None:
        """Give the spill file back."""
        if self._spill is not None:
            self._spill.close()

    def _sorted(self) -> Rows:
        rows = _sort(np.concatenate(self._rows)) if self._rows else np.empty(0, ROW)
        self._rows = []
        self._held = 0
        return rows

    def _flush(self) -> None:
        rows = self._sorted()
        if self._spill is None:
            self._spill = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - closed in close()
        self._runs.append(_Spilled(self._total, *_groups(rows)))
        self._spill.seek(self._total * ROW.itemsize)
        self._spill.write(rows.tobytes())
        self._spill.flush()
        self._total += len(rows)

    def _read(self, run: _Spilled, pack: int) -> Rows:
        assert self._spill is not None
        at = int(np.searchsorted(run.packs, pack))
        if at == len(run.packs) or int(run.packs[at]) != pack:
            return np.empty(0, ROW)
        begin, end = int(run.begins[at]), int(run.begins[at + 1])
        offset = (run.first + begin) * ROW.itemsize
        return np.frombuffer(os.pread(self._spill.fileno(), (end - begin) * ROW.itemsize, offset), ROW)


def _sort(rows: Rows) -> Rows:
    return rows[np.lexsort((rows["ordinal"], rows["unit"], rows["pack"]))]


def _groups(rows: Rows) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """The packs of sorted rows, and where each begins (one more: the end)."""
    packs, begins = np.unique(rows["pack"], return_index=True)
    return packs, np.append(begins, len(rows)).astype(np.int64)


def _group(rows: Rows, packs: npt.NDArray[np.uint32], begins: npt.NDArray[np.int64], pack: int) -> Rows:
    at = int(np.searchsorted(packs, pack))
    if at == len(packs) or int(packs[at]) != pack:
        return rows[:0]
    return rows[int(begins[at]) : int(begins[at + 1])]


@dataclass(frozen=True, slots=True)
class TargetFile:
    """One file to write: below which root (number), its path there, size in bytes, permission bits."""

    root: int
    path: bytes
    size: int
    mode: int


class FileTable:
    """The files of a restore by number, as columns: a million of them take some tens of megabytes."""

    def __init__(self) -> None:
        self._paths = bytearray()
        self._ends = array("Q")
        self._sizes = array("Q")
        self._modes = array("H")
        self._roots = array("I")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, file: TargetFile) -> int:
        """The new file's number."""
        self._paths += file.path
        self._ends.append(len(self._paths))
        self._sizes.append(file.size)
        self._modes.append(file.mode)
        self._roots.append(file.root)
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> TargetFile:
        begin = self._ends[number - 1] if number else 0
        path = bytes(self._paths[begin : self._ends[number]])
        return TargetFile(self._roots[number], path, self._sizes[number], self._modes[number])
