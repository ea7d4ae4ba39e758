"""A repository that lives: hours pass, WAL is archived, backups that store only what changed are taken, prunes come by.

The real rooms below retention, on a store in memory; only the clock is bent, and no server runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_value
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from pgkeep.events import silent
from pgkeep.format.manifest import WalNeeds, WalRange
from pgkeep.repo.backups import backup_ids, write_backup
from pgkeep.repo.lease import Lease
from pgkeep.repo.repository import Cluster, cluster_named, open_repository
from pgkeep.repo.walarchive import WalArchive
from pgkeep.retention.carry import PruneResult, carry_out
from pgkeep.retention.gather import gather
from pgkeep.retention.plan import RetentionPlan, plan_retention
from pgkeep.retention.policy import KeepPolicy
from pgkeep.store.memory import MemoryStore
from pgkeep.store.port import Store
from pgkeep.values.ids import BackupId
from pgkeep.values.wal import Segment
from tests.format.samples import INNER, SEGMENT_SIZE, SYSTEM_ID, entropy
from tests.repo.story import Files, Writer, content, open_story, problems

SIZE = SEGMENT_SIZE
HOUR = timedelta(hours=1)


@dataclass
class BentClock:
    """Goes on by a millisecond at every look, and by whatever a test says."""

    at: datetime

    def now(self) -> datetime:
        self.at += timedelta(milliseconds=1)
        return self.at

    def monotonic(self) -> float:
        return self.now().timestamp()

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class Lived:
    """See the module's docstring."""

    clock: BentClock = field(default_factory=lambda: BentClock(datetime(2026, 3, 1, tzinfo=UTC)))
    zone: str = "Europe/Berlin"
    segment: int = 3
    taken: int = 0
    step: timedelta = HOUR
    """How long a segment lasts."""

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)
        self.cluster = open_story(self.store, self.clock)
        self.files: Files = {b"base/%d" % number: content(f"file {number}") for number in range(4)}

    @property
    def archive(self) -> WalArchive:
        return WalArchive(self.cluster, SYSTEM_ID, SIZE)

    def archive_segment(self, lasting: timedelta | None = None) -> None:
        """One segment becomes full and is archived."""
        self.clock.at += lasting or self.step
        segment = Segment(1, self.segment)
        self.archive.put(segment.name(SIZE), b"wal %d" % self.segment, segment.start(SIZE), self.clock)
        self.segment += 1

    def live(self, until: datetime) -> None:
        while self.clock.at < until:
            self.archive_segment()

    def backup(self, changed: Sequence[int] | None = None, bad: int = 0) -> BackupId:
        """A backup of which the files in `changed` are new since the one before (all of them in the first)."""
        there = backup_ids(self.cluster)
        base = there[-1] if there else None
        new = range(len(self.files)) if base is None else (changed or ())
        self.taken += 1
        started, first = self.clock.now(), self.segment
        name = BackupId.make(started, self.taken.to_bytes(4, "big"))
        for number in new:
            self.files[b"base/%d" % number] = content(f"{number} of {name}")
        draw = entropy(str(name))
        with Lease.take(self.cluster, self.clock, purpose="backup", bases=there[-1:], entropy=draw) as lease:
            writer = Writer(self.cluster, self.clock, 0, draw, lease)
            writer.store({b"base/%d" % number: self.files[b"base/%d" % number] for number in new})
            if base is not None:
                writer.inherit(base, sorted(self.files))
            self.archive_segment(timedelta(minutes=10))
            outer, entries = writer.outer_and_entries()
            info = replace(
                outer.info, backup=str(name), cluster=self.cluster.uuid, timeline=1, start_timeline=1,
                start_lsn=first * SIZE + 40, stop_lsn=first * SIZE + 300, started=started.isoformat(),
                stopped=(started + timedelta(minutes=20)).isoformat(), bad_pages=bad,
            )  # fmt: skip
            needs = WalNeeds(ranges=[WalRange(timeline=1, first=first, last=first)], history=b"")
            inner = replace_value(INNER, bad_pages=[], wal=needs)
            write_backup(self.cluster, replace_value(outer, info=info), inner, entries, self.clock, lease)
        return name

    def plan(self, policy: KeepPolicy, cluster: Cluster | None = None) -> RetentionPlan:
        now = self.clock.now()
        return plan_retention(gather(cluster or self.cluster, now), policy, ZoneInfo(self.zone), now)

    def prune(self, policy: KeepPolicy, store: Store | None = None, plan: RetentionPlan | None = None) -> PruneResult:
        cluster = self.cluster if store is None else cluster_named(open_repository(store), self.cluster.name)
        planned = plan or self.plan(policy, cluster)
        return carry_out(cluster, planned, lambda: self.plan(policy, cluster), self.clock, silent)

    def backups(self) -> list[BackupId]:
        return backup_ids(self.cluster)

    def segments(self) -> list[int]:
        return self.archive.listing().segments.get(1, [])

    def packs(self) -> set[str]:
        return {stat.key for stat in self.store.list(f"{self.cluster.uuid}/packs/")}

    def copy_of_store(self) -> MemoryStore:
        copy = MemoryStore(self.clock)
        copy._objects = dict(self.store._objects)
        return copy

    def damage(self) -> list[str]:
        """What a verify would say, and whatever backup lacks the WAL that makes it consistent."""
        facts = gather(self.cluster, self.clock.now())
        lacking = [f"{one.backup} lacks WAL" for one in facts.backups if not facts.is_consistent(one)]
        return [*problems(self.cluster), *lacking]
