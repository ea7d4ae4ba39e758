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
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Fault
from pgkeep.pg.changes import Changes, RelationKey
from pgkeep.pg.crc32c import crc32c_of_bulk
from pgkeep.pg.relfile import Fork
from pgkeep.values.lsn import Lsn

DIRECTORY: Final = "summaries"
"""Below pg_wal."""
_MAGIC: Final = 0x652B137B  # BLOCKREFTABLE_MAGIC
_BLOCKS_PER_CHUNK: Final = 1 << 16
_MAX_ENTRIES: Final = _BLOCKS_PER_CHUNK // 16  # a chunk of so many words is a bitmap
_HEAD: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<IIIiII")
_ONE: Final = (_ENTRY.size + 2) // 2
"""Words of an entry with the length of its only chunk."""
_WINDOW: Final = 1 << 19
"""Words that are looked at together."""
_CRC: Final = struct.Struct("<I")
_NAME: Final = re.compile(r"([0-9A-F]{8})([0-9A-F]{16})([0-9A-F]{16})\.summary")


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
    try:
        at = _entries(body, changes)
    except (struct.error, ValueError, IndexError) as error:
        raise _damaged(path, f"ends inside an entry ({error})") from None
    if at != len(body):
        raise _damaged(path, "goes on behind its last entry")


def _entries(body: bytes, changes: Changes) -> int:
    """Read all entries; the byte behind the last.

    Nearly all have one chunk of a few numbers, and a day of a large database has millions of them: so the way from one
    to the next is worked out for every place where one could begin, and only walked in a loop.
    """
    if len(body) % 2:
        raise ValueError("an odd number of bytes")
    words = np.frombuffer(body, "<u2")
    at = _HEAD.size // 2
    while True:
        first, behind = at, _behind(words, at)
        places = []
        while at - first < len(behind) and (following := behind[at - first]):
            places.append(at)
            at = following
        if places:
            _add(words, np.array(places, np.int64), changes)
        if at - first < _WINDOW:
            entry = _ENTRY.unpack_from(body, 2 * at)
            if not any(entry):
                return 2 * at + _ENTRY.size
            at = _entry(body, 2 * at + _ENTRY.size, entry, changes) // 2


def _behind(words: npt.NDArray[np.uint16], first: int) -> list[int]:
    """For each place from `first` on, a window of them: where the entry ends that would begin there; 0 if it had not
    one chunk of numbers.
    """
    count = max(min(_WINDOW, len(words) - _ONE - first), 0)
    low, high, chunks, more, used = (words[first + skip :][:count] for skip in (4, 5, 10, 11, 12))
    ends = np.arange(first, first + count) + _ONE + used
    fits = (chunks == 1) & (more == 0) & (low | high != 0) & (used != _MAX_ENTRIES) & (ends <= len(words))
    found: list[int] = np.where(fits, ends, 0).tolist()
    return found


def _add(words: npt.NDArray[np.uint16], places: npt.NDArray[np.int64], changes: Changes) -> None:
    """The entries of one chunk of numbers that begin at `places`."""
    places = places[(words[places + 6] | words[places + 7]) == Fork.MAIN]
    count = words[places + 12].astype(np.int64)
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    where = np.repeat(places + _ONE - (ends - count), count) + np.arange(total)
    space, database, number, limit = (
        words[places + skip].astype(np.uint32) | words[places + skip + 1].astype(np.uint32) << np.uint32(16)
        for skip in (0, 2, 4, 8)
    )
    changes.add_all(space, database, number, limits=limit, counts=count, blocks=words[where].astype(np.uint32))


def _entry(body: bytes, at: int, entry: tuple[int, ...], changes: Changes) -> int:
    """Read one entry's chunks from byte `at`; the byte behind them."""
    tablespace, database, number, fork, limit, chunks = entry
    usage = np.frombuffer(body, "<u2", chunks, at)
    at += 2 * chunks
    parts: list[npt.NDArray[np.int64]] = []
    for chunk, used in enumerate(usage.tolist()):
        words = np.frombuffer(body, "<u2", used, at)
        at += 2 * used
        offsets = _bits(words) if used == _MAX_ENTRIES else words.astype(np.int64)
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
