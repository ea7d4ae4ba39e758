"""WAL summaries (17 and newer, summarize_wal): which blocks WAL has changed, without reading WAL or pages.

Rules of this file:

1. The files in pg_wal/summaries are read as PostgreSQL wrote them (common/blkreftable.c, backup/walsummary.c): magic,
   one entry a relation fork with its chunks, an entry of zeros, CRC-32C of all before.  A file whose checksum is wrong
   is never half believed.
2. Only main forks are kept: what summaries say of fsm and vm is not to be relied on (before the minors of July 2026 a
   cleared bit of a visibility map was missing), so nobody may ask.
3. A summary covers [start, end) of one timeline.  Whoever wants a stretch of WAL covered asks for each timeline's part.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Fault
from pgkeep.pg.crc32c import crc32c_of_bulk
from pgkeep.pg.relfile import Fork
from pgkeep.values.lsn import Lsn

DIRECTORY: Final = "summaries"
"""Below pg_wal."""
NO_LIMIT: Final = 0xFFFFFFFF
"""InvalidBlockNumber: the fork was neither truncated nor created."""
_MAGIC: Final = 0x652B137B  # BLOCKREFTABLE_MAGIC
_BLOCKS_PER_CHUNK: Final = 1 << 16
_MAX_ENTRIES: Final = _BLOCKS_PER_CHUNK // 16  # a chunk of so many words is a bitmap
_HEAD: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<IIIiII")
_CRC: Final = struct.Struct("<I")
_NAME: Final = re.compile(r"([0-9A-F]{8})([0-9A-F]{16})([0-9A-F]{16})\.summary")
U32 = npt.NDArray[np.uint32]


class RelationKey(NamedTuple):
    """A relation's main fork; `database` is 0 for shared relations."""

    tablespace: int
    database: int
    number: int


@dataclass(frozen=True, slots=True, order=True)
class Summary:
    """One file: WAL from `start` to before `end` of `timeline`."""

    timeline: int
    start: Lsn
    end: Lsn
    name: str


class Stretch(NamedTuple):
    """WAL from `start` to before `end` of one timeline."""

    timeline: int
    start: Lsn
    end: Lsn


@dataclass(frozen=True, slots=True, eq=False)
class ForkChanges:
    """What WAL did to one main fork: it changed `blocks` (uint32, ascending).

    Blocks at or beyond `limit` may have been cut off or made anew.
    """

    limit: int
    blocks: U32


@dataclass(slots=True)
class Changes:
    """The union of any number of summaries."""

    forks: dict[RelationKey, ForkChanges] = field(default_factory=dict)
    databases: set[tuple[int, int]] = field(default_factory=set)
    """(tablespace, database) of databases that were created or dropped: nothing in them may be taken for unchanged."""

    def of(self, key: RelationKey) -> ForkChanges:
        """Of any relation; one that no summary names is unchanged."""
        if (key.tablespace, key.database) in self.databases:
            return _EVERYTHING
        return self.forks.get(key, _NOTHING)

    def add(self, key: RelationKey, limit: int, blocks: U32) -> None:
        known = self.forks.get(key)
        if known is not None:
            limit, blocks = min(limit, known.limit), np.union1d(known.blocks, blocks)
        self.forks[key] = ForkChanges(limit, blocks)


_NOTHING: Final = ForkChanges(NO_LIMIT, np.zeros(0, np.uint32))
_EVERYTHING: Final = ForkChanges(0, np.zeros(0, np.uint32))


def list_summaries(wal_directory: str) -> list[Summary]:
    """The summaries that the server has, ascending; none where it makes none.  io."""
    directory = os.path.join(wal_directory, DIRECTORY)
    try:
        found = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Fault("io", f"cannot read {directory}: {error.strerror}") from error
    return sorted(summary for name in found if (summary := parse_summary_name(name)) is not None)


def parse_summary_name(name: str) -> Summary | None:
    """None for what is no summary (one in the making ends in .temp)."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return Summary(int(match[1], 16), Lsn(int(match[2], 16)), Lsn(int(match[3], 16)), name)


def cover(summaries: Iterable[Summary], wanted: Sequence[Stretch]) -> tuple[list[Summary], Stretch | None]:
    """The summaries that cover every stretch without a gap, and what is missing at the first gap (None: nothing).

    Summaries may overlap, and reach beyond a stretch.
    """
    chosen: list[Summary] = []
    known = sorted(summaries)
    for stretch in wanted:
        reached = stretch.start
        for summary in known:
            if summary.timeline != stretch.timeline or summary.end <= reached:
                continue
            if reached >= stretch.end or summary.start > reached:
                break
            chosen.append(summary)
            reached = summary.end
        if reached < stretch.end:
            return chosen, Stretch(stretch.timeline, reached, stretch.end)
    return chosen, None


def read_changes(wal_directory: str, summaries: Iterable[Summary]) -> Changes:
    """What the summaries say together; summary-damaged, io (also for one that the server has removed meanwhile)."""
    changes = Changes()
    for summary in summaries:
        path = os.path.join(wal_directory, DIRECTORY, summary.name)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise Fault("io", f"cannot read {path}: {error.strerror}") from error
        decode_summary(data, path, changes)
    return changes


def decode_summary(data: bytes, path: str, changes: Changes) -> None:
    """Add what the file says to `changes`; summary-damaged."""
    body = data[: -_CRC.size]
    if len(data) < _HEAD.size + _ENTRY.size + _CRC.size or _HEAD.unpack_from(data)[0] != _MAGIC:
        raise _damaged(path, "is no WAL summary")
    if crc32c_of_bulk(body) != _CRC.unpack_from(data, len(body))[0]:
        raise _damaged(path, "has a wrong checksum")
    at = _HEAD.size
    try:
        while True:
            entry = _ENTRY.unpack_from(body, at)
            at += _ENTRY.size
            if not any(entry):
                break
            at = _entry(body, at, entry, changes)
    except (struct.error, ValueError) as error:
        raise _damaged(path, f"ends inside an entry ({error})") from None
    if at != len(body):
        raise _damaged(path, "goes on behind its last entry")


def _entry(body: bytes, at: int, entry: tuple[int, ...], changes: Changes) -> int:
    """Read one entry's chunks from byte `at`; the byte behind them."""
    tablespace, database, number, fork, limit, chunks = entry
    usage = np.frombuffer(body, "<u2", chunks, at)
    at += 2 * chunks
    parts: list[npt.NDArray[np.int64]] = []
    for chunk, used in enumerate(usage.tolist()):
        words = np.frombuffer(body, "<u2", used, at)
        at += 2 * used
        offsets = _bits(words) if used == _MAX_ENTRIES else np.sort(words).astype(np.int64)
        parts.append(offsets + chunk * _BLOCKS_PER_CHUNK)
    if number == 0:
        changes.databases.add((tablespace, database))
    elif fork == Fork.MAIN:
        blocks = np.concatenate(parts).astype(np.uint32) if parts else np.zeros(0, np.uint32)
        changes.add(RelationKey(tablespace, database, number), limit, blocks)
    return at


def _bits(words: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    return np.flatnonzero(np.unpackbits(words.astype("<u2").view(np.uint8), bitorder="little"))


def _damaged(path: str, what: str) -> Fault:
    return Fault("summary-damaged", f"the WAL summary {path} {what}")
