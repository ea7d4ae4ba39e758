"""Cut a data directory into tasks for workers: large files in runs, small ones together (pure)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pgkeep.pg.controlfile import CONTROL_FILE
from pgkeep.pg.entry import Entry, EntryType
from pgkeep.pg.page import BLCKSZ

RUN_SIZE: Final = 32 << 20
"""Bytes of one file that a task reads at most: short enough to share the work evenly and to show progress."""
TASK_FILES: Final = 512


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


Task = tuple[FileRun, ...]


def content_length(entry: Entry) -> int:
    """Bytes of a file that a backup holds: whole pages of relations (WAL has a page that is being appended)."""
    return entry.size // BLCKSZ * BLCKSZ if entry.fork is not None else entry.size


def is_copied_apart(path: str) -> bool:
    """pg_control is read last, by the job."""
    return path == CONTROL_FILE


def plan_tasks(entries: Iterable[Entry], relation_segment_blocks: int) -> Iterator[Task]:
    """Every byte of every file once; entry numbers are positions in `entries`."""
    batch: list[FileRun] = []
    size = 0
    for number, entry in enumerate(entries):
        if entry.type is not EntryType.FILE or is_copied_apart(entry.path):
            continue
        for run in _runs(number, entry, relation_segment_blocks):
            batch.append(run)
            size += run.length
            if size >= RUN_SIZE or len(batch) >= TASK_FILES:
                yield tuple(batch)
                batch, size = [], 0
    if batch:
        yield tuple(batch)


def _runs(number: int, entry: Entry, relation_segment_blocks: int) -> Iterator[FileRun]:
    path = os.fsencode(entry.path)
    relation = entry.relation
    block = relation.first_block(relation_segment_blocks) if relation else 0
    pages = relation is not None
    length = content_length(entry)
    # An empty file is opened too: it may have vanished, or be one that must be readable.
    for start in range(0, max(length, 1), RUN_SIZE):
        yield FileRun(number, path, start, min(RUN_SIZE, length - start), pages, block + start // BLCKSZ)
