"""Archives and backups for the planner: a segment an hour, so that every number can be computed by hand.

Segment n of a `World` is written in the hour n after its epoch.  A backup begins in the segment of its hour and ends in
the next one, half an hour later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pgkeep.repo.walstock import WalObject
from pgkeep.retention.facts import ArchiveFacts, BackupFacts, Hold, Leased, RetentionFacts, Unreadable
from pgkeep.retention.plan import RetentionPlan, plan_retention
from pgkeep.retention.policy import KeepPolicy
from pgkeep.values.ids import BackupId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment, Switch

SIZE = 1 << 20
SYSTEM = 7_500_000_000_000_000_001
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BYTES = 1000
"""Stored bytes of a segment."""


def at(text: str, zone: str = "UTC") -> datetime:
    """'2026-11-20 03:00' in a zone, as a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def history(timeline: int, *left: tuple[int, int]) -> History:
    """Of a timeline whose ancestors were left within these (timeline, segment)."""
    return History(timeline, tuple(Switch(one, Lsn(segment * SIZE + 500)) for one, segment in left))


@dataclass
class World:
    """See the module's docstring; `zone` is that of the policy's days."""

    epoch: datetime
    zone: str = "UTC"
    now: datetime | None = None
    """The end of the newest WAL, unless a test says otherwise."""
    histories: dict[tuple[int, int], History] = field(default_factory=dict)
    backups: list[BackupFacts] = field(default_factory=list)
    objects: dict[int, list[WalObject]] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    leases: list[Leased] = field(default_factory=list)
    proven: set[BackupId] = field(default_factory=set)
    damaged: set[BackupId] = field(default_factory=set)
    unknown: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def segment(self, moment: datetime) -> int:
        return int((moment - self.epoch) / HOUR)

    def moment(self, segment: int) -> datetime:
        return self.epoch + segment * HOUR

    def wal(self, first: int, last: int, timeline: int = 1, system: int = SYSTEM) -> World:
        """Segments first..last, each archived at the end of its hour."""
        found = self.objects.setdefault(system, [])
        for number in range(first, last + 1):
            name = Segment(timeline, number).name(SIZE)
            found.append(WalObject(timeline, number, name, BYTES, self.moment(number + 1)))
        return self

    def backup(
        self, moment: datetime | str, *, clock: datetime | None = None, timeline: int = 1, system: int = SYSTEM,
        bad: int = 0, position: int | None = None,
    ) -> BackupId:  # fmt: skip
        """One that really began at `moment`; `clock` is what the server's clock said."""
        begun = at(moment, self.zone) if isinstance(moment, str) else moment
        segment = self.segment(begun) if position is None else position
        said = clock or begun
        name = BackupId.make(said, len(self.backups).to_bytes(4, "big"))
        known = self.histories.get((system, timeline), History(timeline))
        start, stop = Lsn(segment * SIZE + 40), Lsn((segment + 1) * SIZE + 40)
        self.backups.append(
            BackupFacts(name, system, known, start, stop, said, said + timedelta(minutes=30), SIZE, bad)
        )  # fmt: skip
        return name

    def facts(self, backups: Iterable[BackupFacts] | None = None) -> RetentionFacts:
        systems = dict.fromkeys([*self.objects, *(one.system_id for one in self.backups)])
        archives = tuple(
            ArchiveFacts(
                system, SIZE,
                {timeline: known for (of, timeline), known in self.histories.items() if of == system}
                | {one.timeline: History(one.timeline) for one in self.objects.get(system, ())
                   if (system, one.timeline) not in self.histories},
                tuple(sorted(self.objects.get(system, ()))),
                self.unknown.get(system, frozenset()),
            )
            for system in systems
        )  # fmt: skip
        return RetentionFacts(
            archives, tuple(self.backups if backups is None else backups), tuple(self.unreadable), tuple(self.holds),
            tuple(self.leases), frozenset(self.proven), damaged=frozenset(self.damaged),
        )  # fmt: skip

    def plan(self, policy: KeepPolicy | None, timeline: int | None = None) -> RetentionPlan:
        facts = self.facts()
        last = max((one.archived for archive in facts.archives for one in archive.objects), default=self.epoch)
        return plan_retention(facts, policy, ZoneInfo(self.zone), self.now or last, timeline)


def stays(plan: RetentionPlan) -> list[BackupId]:
    return [one.backup for one in plan.stays]


def why(plan: RetentionPlan, backup: BackupId) -> list[str]:
    return [reason.text for reason in plan.reasons(backup)]


def gone(plan: RetentionPlan, timeline: int = 1, system: int = SYSTEM) -> set[int]:
    """Numbers of the segments that go."""
    runs = (run for run in plan.wal_goes if (run.timeline, run.system_id) == (timeline, system))
    return {one.number for run in runs for one in run.objects}
