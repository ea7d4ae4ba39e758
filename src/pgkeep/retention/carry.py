"""Carrying a plan out, in the order that is right wherever it is stopped.

0. What is only known by backups that go is written down: the last segment of a held span.
1. The manifests that go, each marked first (repo.deleting).  From here on their packs and WAL are only superfluous.
2. The facts are read again.  WAL goes that was in the plan and that *still* nothing needs: a hold or a restore that
   came meanwhile is heard.
3. What goes of the WAL is written down, then deleted, the oldest first.
4. The sweep condemns packs that no backup names, and deletes what an earlier one condemned (repo.sweep).

Whoever is killed in between leaves what the next prune finds superfluous again, and deletes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Phase, Progress, Warned
from pgkeep.format.deletion import PrunedRange
from pgkeep.repo.deleting import retire
from pgkeep.repo.lease import Lease
from pgkeep.repo.repack import Budget
from pgkeep.repo.repository import Cluster, refuse_unknown_features
from pgkeep.repo.sweep import SweepResult, sweep
from pgkeep.repo.walarchive import WalArchive
from pgkeep.repo.walstock import WalObject, delete_wal, drop_indexes, record_pruned, wal_stock
from pgkeep.retention.holds import settle
from pgkeep.retention.plan import GoingWal, RetentionPlan
from pgkeep.values.ids import BackupId, DumpId

_REPACKING: Final = Budget()
_UNREADABLE: Final = frozenset({"format-damaged", "format-unsupported"})


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What was deleted, and what was not yet."""

    backups: tuple[BackupId, ...]
    """Their manifests are gone."""
    in_use: tuple[BackupId, ...]
    """Retired, and read by somebody now: a later prune deletes them."""
    held: tuple[BackupId, ...]
    """Held since the plan was made: they stay."""
    segments: int
    wal_bytes: int
    sweep: SweepResult | None
    """None when a manifest that cannot be read forbids to delete any pack."""
    dumps: tuple[DumpId, ...] = ()
    """Dumps whose manifests are gone; `in_use` and `held` name dumps too."""

    @property
    def is_whole(self) -> bool:
        return self.sweep is not None


def carry_out(
    cluster: Cluster, plan: RetentionPlan, plan_again: Callable[[], RetentionPlan], clock: Clock, announce: Announce,
    *, wait: bool = False,
) -> PruneResult:  # fmt: skip
    """Delete what the plan says; with `wait` stay until condemned packs are deleted too.

    lease-lost, format-unsupported, the faults of `plan_again` and of the store.
    """
    refuse_unknown_features(cluster.repository.store, "write")
    run = _Prune(cluster, clock, announce)
    with Lease.take(cluster, clock, purpose="prune") as lease:
        settle(cluster, plan.spans, clock)
        run.retire(plan, lease)
        segments, size = run.delete_wal(plan, plan_again(), lease) if plan.wal_goes else (0, 0)
    swept = run.sweep(wait=wait)
    backups = tuple(one for one in run.gone if not isinstance(one, DumpId))
    dumps = tuple(one for one in run.gone if isinstance(one, DumpId))
    return PruneResult(backups, tuple(run.in_use), tuple(run.held), segments, size, swept, dumps)


class _Prune:
    """A prune under way."""

    def __init__(self, cluster: Cluster, clock: Clock, announce: Announce) -> None:
        self._cluster = cluster
        self._clock = clock
        self._announce = announce
        self.gone: list[BackupId] = []
        self.in_use: list[BackupId] = []
        self.held: list[BackupId] = []

    def retire(self, plan: RetentionPlan, lease: Lease) -> None:
        """Manifests before everything that only they need."""
        why = f"no rule of the policy keeps it ({plan.policy.describe()})" if plan.policy is not None else ""
        going: list[tuple[BackupId, str]] = [(one.backup, why) for one in plan.goes]
        going += [(one.dump, one.why) for one in plan.dumps.goes]
        if going:
            self._announce(Phase("retire", f"deleting {len(going)} manifests"))
        for root, reason in going:
            lease.renew_if_due()
            try:
                done = retire(self._cluster, root, reason, self._clock, lease)
            except Fault as fault:
                if fault.code != "backup-held":
                    raise
                self.held.append(root)
                continue
            (self.gone if done else self.in_use).append(root)

    def delete_wal(self, plan: RetentionPlan, now: RetentionPlan, lease: Lease) -> tuple[int, int]:
        """(segments, bytes) of what both plans let go."""
        self._announce(Phase("wal", "deleting WAL that nothing needs"))
        segments = size = 0
        for system_id in dict.fromkeys(run.system_id for run in plan.wal_goes):
            objects = _in_both(plan.wal_goes, now.wal_goes, system_id)
            incarnation = self._cluster.incarnation(system_id)
            if not objects or incarnation is None:
                continue
            archive = WalArchive(self._cluster, system_id, incarnation.wal_segment_size)
            self._delete_of(archive, objects, lease)
            segments += sum(one.is_segment for one in objects)
            size += sum(one.bytes for one in objects)
        return segments, size

    def _delete_of(self, archive: WalArchive, objects: Sequence[WalObject], lease: Lease) -> None:
        lease.check()
        record_pruned(self._cluster, _ranges(archive.system_id, objects), self._clock)
        done = 0

        def tick(_one: WalObject) -> None:
            nonlocal done
            lease.renew_if_due()
            self._announce(Progress(done, len(objects), unit="objects"))
            done += 1

        delete_wal(archive, objects, tick)
        left = {(one.timeline, one.number) for one in wal_stock(archive)}
        for timeline in dict.fromkeys(one.timeline for one in objects):
            lease.renew_if_due()
            drop_indexes(archive, timeline, lambda number, of=timeline: (of, number) in left)  # type: ignore[misc]

    def sweep(self, *, wait: bool) -> SweepResult | None:
        try:
            return sweep(self._cluster, self._clock, self._announce, wait=wait, budget=_REPACKING)
        except Fault as fault:
            if fault.code not in _UNREADABLE:
                raise
            self._announce(Warned("packs-not-deleted", f"no pack was deleted: {fault.message}", fault.hint))
            return None


def _in_both(planned: Iterable[GoingWal], now: Iterable[GoingWal], system_id: int) -> list[WalObject]:
    still = {one.name for run in now if run.system_id == system_id for one in run.objects}
    return sorted(one for run in planned if run.system_id == system_id for one in run.objects if one.name in still)


def _ranges(system_id: int, objects: Iterable[WalObject]) -> list[PrunedRange]:
    return [
        PrunedRange(system_id=system_id, timeline=one.timeline, first=one.number, last=one.number)
        for one in objects
        if one.is_segment
    ]
