"""What the planner looks at: backups, archived WAL, holds and leases, as values without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from pgkeep.catalog.continuity import Span, missing, spans
from pgkeep.repo.walarchive import Listing
from pgkeep.repo.walstock import WalObject
from pgkeep.values.ids import BackupId, DumpId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, last_segment_number


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a backup or a dump stays: a permanent word for machines, a few words for people."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """A backup whose manifest can be read.  Times are aware, by the server's clock, and may be wrong."""

    backup: BackupId
    system_id: int
    history: History
    """Of the timeline on which it ended."""
    start_lsn: Lsn
    stop_lsn: Lsn
    started: datetime
    stopped: datetime
    segment_size: int
    bad_pages: int = 0
    start_timeline: int | None = None
    """Where that is another timeline than it ended on."""

    @property
    def timeline(self) -> int:
        return self.history.timeline

    @property
    def first_segment(self) -> int:
        return self.start_lsn // self.segment_size

    @property
    def last_segment(self) -> int:
        return last_segment_number(self.stop_lsn, self.segment_size)

    @property
    def wal(self) -> tuple[Span, ...]:
        """The segments that make it consistent."""
        if self.start_timeline in (None, self.timeline):
            return (Span(self.timeline, self.first_segment, self.last_segment),)
        return tuple(spans(self.history, self.segment_size, self.first_segment, self.last_segment))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A backup whose manifest cannot be read, and why."""

    backup: BackupId
    problem: str


@dataclass(frozen=True, slots=True)
class DumpFact:
    """A logical dump whose manifest can be read; `started` is aware, by the server's clock, and may be wrong."""

    dump: DumpId
    name: str
    """Of its set."""
    started: datetime
    stored_bytes: int = 0
    leaving: bool = False
    """Marked as retired, and still there."""


@dataclass(frozen=True, slots=True)
class UnreadableDump:
    """A dump whose manifest cannot be read, and why."""

    dump: DumpId
    problem: str


@dataclass(frozen=True)
class ArchiveFacts:
    """The WAL of one system identifier.  `objects` ascend by timeline and number."""

    system_id: int
    segment_size: int
    histories: Mapping[int, History]
    objects: tuple[WalObject, ...]
    unknown: frozenset[int] = frozenset()
    """Timelines whose history is missing or damaged: where they belong is not known."""

    @cached_property
    def listing(self) -> Listing:
        """The full segments, as the rooms below see them."""
        segments: dict[int, list[int]] = {}
        for one in self.objects:
            if one.is_segment:
                segments.setdefault(one.timeline, []).append(one.number)
        return Listing(self.segment_size, segments, (), ())

    @cached_property
    def by_timeline(self) -> Mapping[int, tuple[WalObject, ...]]:
        found: dict[int, list[WalObject]] = {}
        for one in self.objects:
            found.setdefault(one.timeline, []).append(one)
        return {timeline: tuple(objects) for timeline, objects in found.items()}

    def is_consistent(self, backup: BackupFacts) -> bool:
        """True when the WAL that makes the backup consistent is there."""
        return not any(missing(self.listing, span) for span in backup.wal)


@dataclass(frozen=True, slots=True)
class HeldWindow:
    """A span of time of which every moment is held, along the lineage of a timeline."""

    timeline: int
    begin: datetime
    end: datetime
    last: int | None = None
    """The last segment that it needs; None while that is not written down."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Somebody's word that a backup stays (`window` None), or that it stays as the base of a window."""

    backup: BackupId
    note: str
    window: HeldWindow | None = None


@dataclass(frozen=True, slots=True)
class Leased:
    """A job that runs: the backups it needs, and whether it also reads the WAL behind them (a restore does)."""

    backups: tuple[BackupId, ...]
    what: str
    """For people: 'an unfinished backup on db1'."""
    began: datetime
    """By the store's clock."""
    reads_wal: bool = False


@dataclass(frozen=True, slots=True)
class PackGroup:
    """Packs that exactly these backups and dumps name, and their bytes in the store."""

    owners: frozenset[BackupId]
    packs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RetentionFacts:
    """Everything of one cluster that the plan depends on."""

    archives: tuple[ArchiveFacts, ...]
    """In the order in which the system identifiers were first seen."""
    backups: tuple[BackupFacts, ...]
    unreadable: tuple[Unreadable, ...] = ()
    holds: tuple[Hold, ...] = ()
    leases: tuple[Leased, ...] = ()
    proven: frozenset[BackupId] = frozenset()
    """Those that a drill has restored."""
    packs: tuple[PackGroup, ...] | None = ()
    """None: not known, because a manifest cannot be read."""
    leaving: tuple[BackupFacts, ...] = ()
    """Marked as retired, and still there: they count for nothing, and go."""

    dumps: tuple[DumpFact, ...] = ()
    unreadable_dumps: tuple[UnreadableDump, ...] = ()
    damaged: frozenset[BackupId] = frozenset()
    """Backups and dumps that name a pack which the last verify to read it found damaged."""

    def archive(self, system_id: int) -> ArchiveFacts | None:
        return next((one for one in self.archives if one.system_id == system_id), None)

    def is_consistent(self, backup: BackupFacts) -> bool:
        archive = self.archive(backup.system_id)
        return archive is not None and archive.is_consistent(backup)
