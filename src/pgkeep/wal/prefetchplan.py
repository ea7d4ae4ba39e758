"""What to fetch ahead, and how much of it (pure), and whether it is worth while to begin.

`wal get` imports this file whenever it has served a segment: nothing slow at the top.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from pgkeep.errors import Fault
from pgkeep.format.header import ObjectType
from pgkeep.repo.walarchive import WalArchive
from pgkeep.values.recovery import RecoveryLineage
from pgkeep.values.wal import History, Segment
from pgkeep.wal.spool import Spool

MOST_BYTES: Final = 512 << 20
"""Of a spool: more would only be fetched in vain when recovery stops before it."""
SHARE: Final = 4
"""A spool takes at most this part (1/n) of the memory and of the disk space that are free."""


@dataclass(frozen=True, slots=True)
class Way:
    """Which file each segment number comes from.  Without `history` it is `timeline` throughout."""

    size: int
    timeline: int
    history: History | None = None
    last: int | None = None
    """The last number that may be fetched; None: as far as the archive goes."""

    @classmethod
    def of(cls, lineage: RecoveryLineage | None, asked: Segment, size: int) -> Way:
        """From the segment that was asked for on."""
        if lineage is None:
            return cls(size, asked.timeline)
        return cls(size, lineage.history.timeline, lineage.history, lineage.last_whole_segment)

    def segment(self, number: int) -> Segment:
        timeline = self.timeline if self.history is None else self.history.segment_timeline(number, self.size)
        return Segment(timeline, number)

    def allows(self, number: int) -> bool:
        return self.last is None or number <= self.last

    def after(self, number: int) -> Segment | None:
        """What follows that segment, if it may be fetched."""
        return self.segment(number + 1) if self.allows(number + 1) else None


@dataclass(frozen=True, slots=True)
class Window:
    """What the spool should hold: `room` segments at most, none before `begin`; all before `next` were fetched."""

    begin: int
    next: int
    room: int


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now: numbers to fetch, held ones to give up, and the window's next one after that."""

    fetch: tuple[int, ...]
    discard: tuple[int, ...]
    next: int


def plan_step(way: Way, window: Window, held: Collection[int], coming: Collection[int]) -> Step:
    """`held` lie in the spool, `coming` are being fetched; what was fetched and is neither was taken by the server."""
    inside = [number for number in held if number >= window.begin]
    low = min([window.next, *inside, *(number for number in coming if number >= window.begin)])
    high = low + window.room
    beyond = [number for number in inside if number >= high]
    number = min([window.next, *beyond])
    fetch: list[int] = []
    while number < high and way.allows(number):
        if number not in held and number not in coming:
            fetch.append(number)
        number += 1
    passed = (one for one in held if one < window.begin)
    return Step(tuple(fetch), (*passed, *beyond), number)


def room_for(size: int, free_memory: int, free_disk: int, spooled: int) -> int:
    """How many segments of `size` bytes a spool may hold that holds `spooled` bytes now.

    The files should stay in the page cache until they are read, and never be what fills the disk.
    """
    return min(MOST_BYTES, free_memory // SHARE, (free_disk + spooled) // SHARE) // size


def is_worth_while(archive: WalArchive, spool: Spool, lineage: RecoveryLineage | None, served: Segment) -> bool:
    """Leave a note that `served` came from the repository; True when somebody should begin to fetch what follows.

    A standby at the end of the archive asks for ever: nobody is started before there is a next segment.
    """
    try:
        spool.prepare()
        spool.note(served.name(archive.segment_size))
        if spool.is_being_filled():
            return False
    except OSError:
        return False  # a spool that cannot be made is no reason to fail
    following = Way.of(lineage, served, archive.segment_size).after(served.number)
    return following is not None and (lineage is not None or _is_archived(archive, following))


def _is_archived(archive: WalArchive, segment: Segment) -> bool:
    try:
        return archive.head(archive.key(segment.name(archive.segment_size)), ObjectType.WAL_SEGMENT) is not None
    except Fault:
        return False
