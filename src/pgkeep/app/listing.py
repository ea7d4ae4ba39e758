"""`list`: every backup, what it can be recovered to, what it cost, what deleting it would free, and why it is kept.

And every logical dump.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgkeep.app.place import Place
from pgkeep.app.prune import plan_of
from pgkeep.catalog.backups import BackupRow, backup_rows
from pgkeep.catalog.dumps import DumpRow, dump_rows
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.retention.facts import PackGroup, Reason, RetentionFacts
from pgkeep.retention.gather import KnownBackup, KnownDump, gather
from pgkeep.retention.plan import RetentionPlan
from pgkeep.retention.zone import zone_of_days
from pgkeep.values.ids import BackupId


@dataclass(frozen=True, slots=True)
class ListedBackup:
    """A row of the list."""

    row: BackupRow
    frees: int | None = None
    """Bytes of the packs that only this backup needs; None when a manifest that cannot be read may need them too."""
    reasons: tuple[Reason, ...] = ()
    """Why the policy keeps it."""
    goes: bool = False
    """The next prune deletes it."""
    is_damaged: bool = False
    """A verify found packs of it damaged."""

    @property
    def is_restorable(self) -> bool:
        """As far as that is known without reading its packs."""
        return self.row.is_restorable and not self.is_damaged


@dataclass(frozen=True, slots=True)
class ListedDump:
    """A logical dump in the list."""

    row: DumpRow
    frees: int | None = None
    """As of a backup."""
    reasons: tuple[Reason, ...] = ()
    goes: bool = False
    is_damaged: bool = False


@dataclass(frozen=True, slots=True)
class ListReport:
    """See the module's docstring; oldest first."""

    cluster: str
    backups: tuple[ListedBackup, ...]
    has_policy: bool
    problem: str = ""
    """Why nobody can say what is kept, with the way out."""
    dumps: tuple[ListedDump, ...] = ()


def listing(place: Place, local_zone: str, clock: Clock) -> ListReport:
    """Damage is part of the answer; faults are those of the store.  Nothing is written."""
    rows = backup_rows(place.cluster)
    dumped = dump_rows(place.cluster)
    now = clock.now()
    known = [KnownBackup(row.backup, row.info, row.damage) for row in rows]
    facts = gather(place.cluster, now, known, dumps=[KnownDump(row.dump, row.info, row.damage) for row in dumped])
    plan: RetentionPlan | None = None
    problem = ""
    try:
        zone = zone_of_days(place.settings.timezone, local_zone)
        plan = plan_of(place, facts, zone, now)
    except Fault as fault:
        problem = fault.message
    exclusive = exclusive_bytes(facts.packs, (*(row.backup for row in rows), *(row.dump for row in dumped)))
    listed = tuple(_listed(row, exclusive.get(row.backup), plan, facts) for row in rows)
    dumps = tuple(_listed_dump(row, exclusive.get(row.dump), plan, facts) for row in dumped)
    return ListReport(place.cluster.name, listed, place.settings.keep is not None, problem, dumps)


def _listed(row: BackupRow, frees: int | None, plan: RetentionPlan | None, facts: RetentionFacts) -> ListedBackup:
    if plan is None:
        goes = any(one.backup == row.backup for one in facts.leaving)
        return ListedBackup(row, frees, goes=goes, is_damaged=row.backup in facts.damaged)
    goes = any(one.backup == row.backup for one in plan.goes)
    reasons = plan.reasons(row.backup) if plan.policy else ()
    return ListedBackup(row, frees, reasons, goes, row.backup in facts.damaged)


def _listed_dump(row: DumpRow, frees: int | None, plan: RetentionPlan | None, facts: RetentionFacts) -> ListedDump:
    if plan is None:
        goes = any(one.dump == row.dump and one.leaving for one in facts.dumps)
        return ListedDump(row, frees, goes=goes, is_damaged=row.dump in facts.damaged)
    goes = any(one.dump == row.dump for one in plan.dumps.goes)
    reasons = plan.dumps.reasons(row.dump) if plan.lets_go else ()
    return ListedDump(row, frees, reasons, goes, row.dump in facts.damaged)


def exclusive_bytes(packs: Iterable[PackGroup] | None, backups: Iterable[BackupId]) -> dict[BackupId, int]:
    """What only the one backup or dump needs; empty when that cannot be known."""
    if packs is None:
        return {}
    alone = dict.fromkeys(backups, 0)
    for group in packs:
        if len(group.owners) == 1:
            alone[next(iter(group.owners))] = group.bytes
    return alone
