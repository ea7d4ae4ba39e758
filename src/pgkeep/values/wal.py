"""Names and arithmetic of WAL files (src/include/access/xlog_internal.h) and timeline histories (timeline.c)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Self

from pgkeep.values.lsn import Lsn

_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")
_PARTIAL = re.compile(r"([0-9A-F]{24})\.partial")
_BACKUP_LABEL = re.compile(r"([0-9A-F]{24})\.([0-9A-F]{8})\.backup")
MIN_SEGMENT_SIZE = 1 << 20
MAX_SEGMENT_SIZE = 1 << 30


def is_segment_size(size: int) -> bool:
    """True for what initdb --wal-segsize allows: a power of two from 1 MiB to 1 GiB, in bytes."""
    return MIN_SEGMENT_SIZE <= size <= MAX_SEGMENT_SIZE and size & (size - 1) == 0


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One WAL segment: timeline and number (number = LSN // segment size)."""

    timeline: int
    number: int

    @classmethod
    def parse(cls, name: str, size: int) -> Self:
        """Read a 24-digit file name for segments of `size` bytes; ValueError if it is none."""
        match = _SEGMENT.fullmatch(name)
        if match is None:
            raise ValueError(f"not a WAL segment name: {name!r}")
        per_log = (1 << 32) // size
        low = int(match[3], 16)
        if low >= per_log:
            raise ValueError(f"not a WAL segment name for {size}-byte segments: {name!r}")
        return cls(int(match[1], 16), int(match[2], 16) * per_log + low)

    @classmethod
    def at(cls, timeline: int, lsn: int, size: int) -> Self:
        """The segment that holds the byte at `lsn`."""
        return cls(timeline, lsn // size)

    def name(self, size: int) -> str:
        per_log = (1 << 32) // size
        return f"{self.timeline:08X}{self.number // per_log:08X}{self.number % per_log:08X}"

    def start(self, size: int) -> Lsn:
        return Lsn(self.number * size)

    def end(self, size: int) -> Lsn:
        """The first byte after the segment."""
        return Lsn((self.number + 1) * size)


def last_segment_number(stop: int, size: int) -> int:
    """Number of the segment that holds the last byte *before* `stop` (XLByteToPrevSeg)."""
    return (stop - 1) // size


class WalFileKind(Enum):
    """What PostgreSQL may hand to archive_command or ask of restore_command."""

    SEGMENT = "segment"
    PARTIAL = "partial"
    HISTORY = "history"
    BACKUP_LABEL = "backup"


def wal_file_kind(name: str) -> WalFileKind | None:
    """Classify a file name; None when it is not a WAL file at all."""
    for pattern, kind in (
        (_SEGMENT, WalFileKind.SEGMENT),
        (_HISTORY, WalFileKind.HISTORY),
        (_PARTIAL, WalFileKind.PARTIAL),
        (_BACKUP_LABEL, WalFileKind.BACKUP_LABEL),
    ):
        if pattern.fullmatch(name):
            return kind
    return None


def timeline_of(name: str) -> int:
    """The timeline in the first eight digits of any WAL file name."""
    return int(name[:8], 16)


def history_name(timeline: int) -> str:
    return f"{timeline:08X}.history"


@dataclass(frozen=True, slots=True)
class Switch:
    """A line of a history file: `timeline` was left at `lsn`."""

    timeline: int
    lsn: Lsn
    reason: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """The lineage of one timeline: its ancestors, oldest first, each with the point where it was left."""

    timeline: int
    switches: tuple[Switch, ...] = ()

    @classmethod
    def parse(cls, timeline: int, text: str) -> Self:
        """Read a .history file (readTimeLineHistory); ValueError for lines it would refuse."""
        switches: list[Switch] = []
        for line in text.split("\n"):  # splitlines() would also break a reason's text at other separators
            stripped = line.strip()
            if not stripped or stripped.startswith("#"):
                continue
            parts = stripped.split(None, 2)
            if len(parts) < 2 or not parts[0].isdigit():
                raise ValueError(f"not a timeline history line: {line!r}")
            switch = Switch(int(parts[0]), Lsn.parse(parts[1]), parts[2] if len(parts) > 2 else "")
            if switches and switch.timeline <= switches[-1].timeline:
                raise ValueError(f"timelines in a history must ascend: {line!r}")
            switches.append(switch)
        if switches and switches[-1].timeline >= timeline:
            raise ValueError(f"timeline {timeline} cannot descend from {switches[-1].timeline}")
        return cls(timeline, tuple(switches))

    def timelines(self) -> tuple[int, ...]:
        """Every timeline of the lineage, oldest first, itself last."""
        return (*(switch.timeline for switch in self.switches), self.timeline)

    def left_at(self, timeline: int) -> Lsn | None:
        """Where `timeline` was left; None for the lineage's own last timeline; KeyError if not in it."""
        if timeline == self.timeline:
            return None
        for switch in self.switches:
            if switch.timeline == timeline:
                return switch.lsn
        raise KeyError(timeline)

    def began_at(self, timeline: int) -> Lsn:
        """Where `timeline` began: 0 for the first; KeyError if it is not in the lineage."""
        began = Lsn(0)
        for switch in self.switches:
            if switch.timeline == timeline:
                return began
            began = switch.lsn
        if timeline == self.timeline:
            return began
        raise KeyError(timeline)

    def timeline_at(self, lsn: int) -> int:
        """The timeline that holds the byte at `lsn` (tliOfPointInHistory)."""
        for switch in self.switches:
            if lsn < switch.lsn:
                return switch.timeline
        return self.timeline

    def segment_timeline(self, number: int, size: int) -> int:
        """The one timeline whose file of segment `number` recovery must read.

        A new timeline's first segment begins with a copy of its parent's bytes, so the segment that holds a
        switch point is read from the newest timeline that begins in or before it (XLogFileReadAnyTLI).
        """
        chosen = self.timelines()[0]
        for switch, child in zip(self.switches, self.timelines()[1:], strict=True):
            if switch.lsn // size <= number:
                chosen = child
        return chosen
