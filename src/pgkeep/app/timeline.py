"""`timeline`: what can be recovered, from when to when, on which timelines; and what of the server is not there yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from pgkeep.app.place import APPLICATION, Place
from pgkeep.catalog.continuity import Reach
from pgkeep.catalog.walindex import KnownWal
from pgkeep.catalog.walscan import scan
from pgkeep.catalog.windows import IncarnationView, LastCommit, view
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce
from pgkeep.pg.programs import Programs
from pgkeep.pg.server import connect
from pgkeep.repo.repository import damaged_incarnations
from pgkeep.repo.walarchive import WalArchive
from pgkeep.restore.preflight import programs_for
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History

_LOOKED_AT: Final = 8
"""Segments at the end of a window in which the last transaction is looked for."""


@dataclass(frozen=True, slots=True)
class Unarchived:
    """What a loss of the server's disk would cost now, as the server itself says."""

    archive_timeout: int
    """Seconds; 0 for off: a segment is archived when it is full."""
    segment_size: int
    last_archived: datetime | None
    """By the server's statistics; None when nothing was, since they were reset."""
    asked: datetime
    """By the server's clock (UTC)."""
    bytes: int
    """WAL that was written and is not in the archive's unbroken end."""

    @property
    def seconds(self) -> float | None:
        """How old the newest archived change may be."""
        return None if self.last_archived is None else (self.asked - self.last_archived).total_seconds()


@dataclass(frozen=True, slots=True)
class TimelineReport:
    """See the module's docstring."""

    cluster: str
    incarnations: tuple[IncarnationView, ...]
    unarchived: Unarchived | None
    """None when the server could not be asked."""
    server_problem: str
    """Why it could not."""
    problems: tuple[str, ...]
    """Objects that cannot be read."""


def timeline(place: Place, processes: int, clock: Clock, announce: Announce) -> TimelineReport:
    """Damage is part of the answer, and so is a server that does not answer; faults are those of the store."""
    ends = _Ends(place, processes, clock, announce)
    incarnations = view(place.cluster, ends.last)
    unarchived: Unarchived | None = None
    problem = ""
    try:
        unarchived = _ask(place, incarnations)
    except Fault as fault:
        problem = fault.message
    problems = tuple(one.fault.message for one in damaged_incarnations(place.repository))
    return TimelineReport(place.cluster.name, incarnations, unarchived, problem, problems)


class _Ends:
    """Finds the last transaction of a window: from an index, or in its last segments."""

    def __init__(self, place: Place, processes: int, clock: Clock, announce: Announce) -> None:
        self._bindir = Path(place.settings.bindir) if place.settings.bindir else None
        self._processes = processes
        self._clock = clock
        self._announce = announce
        self._programs: dict[int, Programs | None] = {}

    def last(
        self, archive: WalArchive, history: History, reached: Reach, begin: Lsn, version: int
    ) -> LastCommit | None:
        """None when it cannot be known; see catalog.windows.FindLast."""
        programs = self._for(version // 10000)
        if programs is None:
            return None
        first = Lsn(max(begin, (reached.last + 1 - _LOOKED_AT) * archive.segment_size))
        known = KnownWal(archive, history, self._clock, self._announce)
        try:
            found = scan(
                archive, history, first, reached.last, programs,
                partial=reached.partial, workers=self._processes, known=known,
            ).last  # fmt: skip
        except Fault as fault:
            if fault.code not in ("wal-gap", "format-damaged", "format-unsupported", "postgres-program"):
                raise
            return None
        return None if found is None else LastCommit(found.time, found.lsn, found.xid)

    def _for(self, major: int) -> Programs | None:
        if major not in self._programs:
            try:
                self._programs[major] = programs_for(major, self._bindir)
            except Fault:
                self._programs[major] = None
        return self._programs[major]


def _ask(place: Place, incarnations: tuple[IncarnationView, ...]) -> Unarchived | None:
    """None for a server that is none of the cluster's, or a standby."""
    with connect(place.settings.connection, APPLICATION) as server:
        facts = server.facts()
        known = next((one for one in incarnations if one.system_id == facts.system_identifier), None)
        if known is None or facts.in_recovery:
            return None
        ends = [window.end for window in known.windows if window.timeline == facts.timeline]
        position = server.wal_position()
        missing = position - max(ends) if ends and position > max(ends) else 0
        last = server.archiver().last_archived_time
        return Unarchived(facts.archive_timeout, facts.wal_segment_size, last, server.clock(), missing)
