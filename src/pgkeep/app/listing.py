"""`list`: every backup, what it can be recovered to, what it cost, what deleting it would free, and why it is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgkeep.app.place import Place
from pgkeep.catalog.backups import BackupRow, backup_rows
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.retention.facts import PackGroup, RetentionFacts
from pgkeep.retention.gather import KnownBackup, gather
from pgkeep.retention.plan import Reason, RetentionPlan, plan_retention
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


@dataclass(frozen=True, slots=True)
class ListReport:
    """See the module's docstring; oldest first."""

    cluster: str
    backups: tuple[ListedBackup, ...]
    has_policy: bool
    problem: str = ""
    """Why nobody can say what is kept, with the way out."""


def listing(place: Place, local_zone: str, clock: Clock) -> ListReport:
    """Damage is part of the answer; faults are those of the store.  Nothing is written."""
    rows = backup_rows(place.cluster)
    now = clock.now()
    facts = gather(place.cluster, now, [KnownBackup(row.backup, row.info, row.damage) for row in rows])
    plan: RetentionPlan | None = None
    problem = ""
    try:
        zone = zone_of_days(place.settings.timezone, local_zone)
        plan = plan_retention(facts, place.settings.keep, zone, now)
    except Fault as fault:
        problem = fault.message
    exclusive = exclusive_bytes(facts.packs, (row.backup for row in rows))
    listed = tuple(_listed(row, exclusive.get(row.backup), plan, facts) for row in rows)
    return ListReport(place.cluster.name, listed, place.settings.keep is not None, problem)


def _listed(row: BackupRow, frees: int | None, plan: RetentionPlan | None, facts: RetentionFacts) -> ListedBackup:
    if plan is None:
        return ListedBackup(row, frees, goes=any(one.backup == row.backup for one in facts.leaving))
    goes = any(one.backup == row.backup for one in plan.goes)
    return ListedBackup(row, frees, plan.reasons(row.backup) if plan.policy else (), goes)


def exclusive_bytes(packs: Iterable[PackGroup] | None, backups: Iterable[BackupId]) -> dict[BackupId, int]:
    """What only the one backup needs; empty when that cannot be known."""
    if packs is None:
        return {}
    alone = dict.fromkeys(backups, 0)
    for group in packs:
        if len(group.owners) == 1:
            alone[next(iter(group.owners))] = group.bytes
    return alone
