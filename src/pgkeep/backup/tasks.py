"""Cut a data directory into tasks for workers: large files in runs, small ones together (pure)."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.backup.report import Settled
from pgkeep.pg.controlfile import CONTROL_FILE
from pgkeep.pg.entry import Entry, EntryType
from pgkeep.pg.page import BLCKSZ

RUN_SIZE: Final = 32 << 20
"""Bytes of one file that a task reads at most: short enough to share the work evenly and to show progress."""
TASK_FILES: Final = 64
"""Few enough that the last task is short: a small file costs a third of a millisecond, not bytes."""
HOT: Final = 16 << 20
"""Bytes that a task reads of a file of which WAL summaries name more: scattered pages take longer than runs."""
CUT_AT: Final = 16
"""Files are cut at multiples of so many pages: neighbours that are sampled together stay together."""
EXTENT_LENGTH: Final = 16
"""Bytes of an extent in an encoded map."""
HELD_EXTENTS: Final = 1 << 19
"""Extents, about, that the job may hold of files that several workers share: 28 bytes each, until the manifest."""


class How(IntEnum):
    """What tells whether a page of the base is still right."""

    HASH = 0
    """Its keyed hash: whatever else is doubtful."""
    LSN = 1
    SUMMARY = 2
    """WAL summaries name every page that may have changed."""


@dataclass(frozen=True, slots=True, eq=False)
class BaseFile:
    """A file's content in the base, and how to tell what of it has changed."""

    settled: Settled
    units: int
    how: How
    bad: tuple[int, ...] = ()
    """Blocks that the base lists as damaged."""
    limit: int = 0
    """SUMMARY: blocks from here on may have changed, whatever `changed` says."""
    changed: npt.NDArray[np.uint32] | None = None
    """SUMMARY: blocks of this file that may have changed, ascending."""
    is_sampled: bool = False
    """SUMMARY: that of the other blocks a few are compared by LSN, not all."""


@dataclass(frozen=True, slots=True)
class FileRun:
    """A run of one file.  `start` and `length` are bytes; `file` numbers the file within the backup."""

    file: int
    path: bytes
    start: int
    length: int
    pages: bool
    first_block: int
    """Number within the relation of the page at `start`, for its checksum."""
    base: BaseFile | None = None
    """What the base holds under the same path, of the whole file."""
    whole: int = 0
    """With a base: bytes of the whole file."""

    @property
    def is_part(self) -> bool:
        """With a base: other workers read the rest of the file."""
        return self.length != self.whole


Task = tuple[FileRun, ...]


def content_length(entry: Entry) -> int:
    """Bytes of a file that a backup holds: whole pages of relations (WAL has a page that is being appended)."""
    return entry.size // BLCKSZ * BLCKSZ if entry.fork is not None else entry.size


def is_copied_apart(path: str) -> bool:
    """pg_control is read last, by the job."""
    return path == CONTROL_FILE


def plan_tasks(
    entries: Collection[Entry], relation_segment_blocks: int, base: Callable[[Entry], BaseFile | None] | None = None
) -> Iterator[Task]:
    """Every byte of every file once; entry numbers are positions in `entries`.

    `base` knows what the base backup has of a file; it is asked in the order of the entries.
    """
    if base is not None:
        yield from _batches(entries, relation_segment_blocks, lambda _: True, base)
        return
    # What a later backup compares by content lies together: it needs the hashes of few packs then, not of all.
    yield from _batches(entries, relation_segment_blocks, lambda entry: not entry.inheritable, None)
    yield from _batches(entries, relation_segment_blocks, lambda entry: entry.inheritable, None)


def _batches(
    entries: Iterable[Entry], relation_segment_blocks: int, chosen: Callable[[Entry], bool],
    base: Callable[[Entry], BaseFile | None] | None,
) -> Iterator[Task]:  # fmt: skip
    batch: list[FileRun] = []
    size = 0
    sharing = _Sharing()
    for number, entry in enumerate(entries):
        if entry.type is not EntryType.FILE or is_copied_apart(entry.path) or not chosen(entry):
            continue
        known = base(entry) if base is not None else None
        for run in _runs(number, entry, relation_segment_blocks, known, sharing):
            batch.append(run)
            size += _cost(run)
            if size >= RUN_SIZE or len(batch) >= TASK_FILES:
                yield tuple(batch)
                batch, size = [], 0
    if batch:
        yield tuple(batch)


def _cost(run: FileRun) -> int:
    """Bytes that will be read, about."""
    base = run.base
    if base is None or base.changed is None:
        return run.length
    first, end = run.start // BLCKSZ, (run.start + run.length) // BLCKSZ
    named = len(base.changed)
    if run.is_part:
        low, high = np.searchsorted(base.changed, [first, end])
        named = int(high - low)
    return min(run.length, BLCKSZ * (named + max(end - max(base.limit, first), 0)))


class _Sharing:
    """Where files with a base are cut, so that workers share the large ones, as long as their extents may be held."""

    def __init__(self) -> None:
        self._left = HELD_EXTENTS

    def cuts(self, base: BaseFile, pages: int) -> list[int]:
        """The first pages of the file's parts; the first is 0."""
        if _is_short(base, pages):
            return [0]
        if base.how is How.SUMMARY:
            named = _named(base, pages)
            cuts = named[:: HOT // BLCKSZ] // CUT_AT * CUT_AT
            extents = 2 * len(named)
        else:
            cuts = np.arange(0, pages, RUN_SIZE // BLCKSZ)
            extents = 0
        cuts = np.unique(cuts[1:])
        extents += base.settled.length // EXTENT_LENGTH + len(cuts)
        if not len(cuts) or extents > self._left:
            return [0]
        self._left -= extents
        return [0, *cuts[cuts > 0].tolist()]


def _is_short(base: BaseFile, pages: int) -> bool:
    """Whether one task is enough, as far as that can be told without a closer look: it is of nearly every file."""
    if base.changed is None:
        return pages <= RUN_SIZE // BLCKSZ
    return len(base.changed) + max(pages - base.limit, 0) <= HOT // BLCKSZ


def _named(base: BaseFile, pages: int) -> npt.NDArray[np.int64]:
    """The pages that WAL summaries say must be read, ascending."""
    assert base.changed is not None
    changed = base.changed[base.changed < min(base.limit, pages)].astype(np.int64)
    return np.concatenate((changed, np.arange(base.limit, pages)))


def _runs(
    number: int, entry: Entry, relation_segment_blocks: int, base: BaseFile | None, sharing: _Sharing
) -> Iterator[FileRun]:
    path = os.fsencode(entry.path)
    relation = entry.relation
    block = relation.first_block(relation_segment_blocks) if relation else 0
    pages = relation is not None
    length = content_length(entry)
    if base is not None:
        # Whole where it is not large: one worker knows then where all of it lies, and the job need not.
        cuts = sharing.cuts(base, length // BLCKSZ) if pages else [0]
        for first, end in zip(cuts, [*cuts[1:], 0], strict=True):
            size = (end * BLCKSZ if end else length) - first * BLCKSZ
            yield FileRun(number, path, first * BLCKSZ, size, pages, block + first, base, length)
        return
    # An empty file is opened too: it may have vanished, or be one that must be readable.
    for start in range(0, max(length, 1), RUN_SIZE):
        yield FileRun(number, path, start, min(RUN_SIZE, length - start), pages, block + start // BLCKSZ)
