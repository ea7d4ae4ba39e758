"""plan_dumps: which logical dumps stay and every reason why, and which go; set by set.  Pure.

1. A set of dumps is a name.  What stays of each is counted by its own policy, or by the cluster's where it has none (of
   sets, too, that the configuration does not name any more); without either everything stays.
2. `daily = 7` means what it means for backups: the last seven days that have a dump, each with its newest.  A dump of
   which a verify found packs damaged takes no place, and stays as long as others of its time would.
3. Never deleted, whatever the policy says: the newest dump of each set, and the newest without damage; what is held or
   in use; what cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from itertools import islice

from pgkeep.retention.calendar import Slot, slot
from pgkeep.retention.facts import DumpFact, Reason, RetentionFacts
from pgkeep.retention.policy import PERIODS, KeepPolicy
from pgkeep.values.ids import BackupId, DumpId


@dataclass(frozen=True, slots=True)
class DumpPolicies:
    """What the configuration says; `default` is the cluster's line keep, whose WAL says nothing of dumps."""

    default: KeepPolicy | None = None
    sets: Mapping[str, KeepPolicy] = field(default_factory=dict)

    def of(self, name: str) -> KeepPolicy | None:
        return self.sets.get(name, self.default)

    @property
    def any(self) -> bool:
        """Whether any dump can ever go."""
        return self.default is not None or bool(self.sets)


@dataclass(frozen=True, slots=True)
class StayingDump:
    """A dump that stays, with all reasons; `fact` None when its manifest cannot be read."""

    dump: DumpId
    fact: DumpFact | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class GoingDump:
    """A dump that no rule keeps; `why` is what its mark will say."""

    dump: DumpId
    fact: DumpFact
    why: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class DumpPlan:
    """See the module's docstring; in the order of the ids."""

    stays: tuple[StayingDump, ...] = ()
    goes: tuple[GoingDump, ...] = ()

    def reasons(self, dump: DumpId) -> tuple[Reason, ...]:
        """Why a dump stays; () when it goes, or is not known."""
        return next((one.reasons for one in self.stays if one.dump == dump), ())


def plan_dumps(facts: RetentionFacts, policies: DumpPolicies, zone: tzinfo) -> DumpPlan:
    """The plan for the facts' dumps; `zone` is that of the policies' days."""
    sets: dict[str, list[DumpFact]] = {}
    for dump in sorted(facts.dumps, key=_age, reverse=True):
        if not dump.leaving:
            sets.setdefault(dump.name, []).append(dump)
    kept: dict[DumpId, list[Reason]] = {}
    for name, dumps in sets.items():
        for dump, reason in _of_set(dumps, policies.of(name), zone, facts.damaged):
            kept.setdefault(dump.dump, []).append(reason)
    known: dict[BackupId, DumpFact] = {dump.dump: dump for dump in facts.dumps if not dump.leaving}
    for named, reason in _of_people(facts):
        if named in known:
            kept.setdefault(known[named].dump, []).append(reason)
    stays = [StayingDump(dump, known[dump], tuple(reasons)) for dump, reasons in kept.items()]
    stays += [StayingDump(one.dump, None, (_UNREADABLE,)) for one in facts.unreadable_dumps]
    goes = [
        GoingDump(dump.dump, dump, _why(policies.of(dump.name))) for dump in known.values() if dump.dump not in kept
    ]
    note = "an earlier prune has retired it"
    goes += [GoingDump(dump.dump, dump, note, note) for dump in facts.dumps if dump.leaving]
    return DumpPlan(
        tuple(sorted(stays, key=lambda one: one.dump)), tuple(sorted(goes, key=lambda one: one.dump))
    )  # fmt: skip


_UNREADABLE = Reason("unreadable", "its manifest cannot be read: it is never deleted, and never counts")


def _age(dump: DumpFact) -> tuple[object, str]:
    return dump.started, dump.dump


def _why(policy: KeepPolicy | None) -> str:
    assert policy is not None, "without a policy everything stays"
    return f"no rule of its set's policy keeps it ({policy.describe_counts()})"


Given = Iterator[tuple[DumpFact, Reason]]


def _of_set(
    dumps: Sequence[DumpFact], policy: KeepPolicy | None, zone: tzinfo, damaged: frozenset[BackupId]
) -> Given:  # fmt: skip
    """Of one set, newest first."""
    if policy is None:
        for dump in dumps:
            yield dump, Reason("no-policy", "no line keep speaks of it, so it is never deleted")
        return
    yield dumps[0], Reason("newest", f"newest of {dumps[0].name}")
    sound = [dump for dump in dumps if dump.dump not in damaged]
    if sound and sound[0] is not dumps[0]:
        yield sound[0], Reason("newest-restorable", f"newest of {dumps[0].name} without damage")
    last = sound[: policy.last]
    for at, dump in enumerate(last, 1):
        yield dump, Reason("last", f"last {at} of {policy.last}")
    for dump in dumps if policy.last else ():
        if dump.dump in damaged and (len(last) < policy.last or _age(dump) > _age(last[-1])):
            yield dump, Reason("last", f"damaged, and as new as the last {policy.last}")
    for period in PERIODS:
        yield from _of_period(period, policy.counts[period], dumps, zone, damaged)


def _of_period(
    period: str, count: int, dumps: Sequence[DumpFact], zone: tzinfo, damaged: frozenset[BackupId]
) -> Given:  # fmt: skip
    if not count:
        return
    best: dict[Slot, DumpFact] = {}
    for dump in dumps:
        here = slot(period, dump.started, zone)
        if here not in best or (best[here].dump in damaged and dump.dump not in damaged):
            best[here] = dump
    counted = list(islice((here for here, dump in best.items() if dump.dump not in damaged), count))
    for here, dump in best.items():
        if here in counted or (dump.dump in damaged and (len(counted) < count or here > counted[-1])):
            yield dump, Reason(period, f"{period} {here.label}")


def _of_people(facts: RetentionFacts) -> Iterator[tuple[BackupId, Reason]]:
    for hold in facts.holds:
        yield hold.backup, Reason("hold", f"hold: {hold.note}")
    for lease in facts.leases:
        yield from ((name, Reason("in-use", f"needed by {lease.what}")) for name in lease.backups)


def warnings(facts: RetentionFacts) -> Iterable[str]:
    """What is to be known of dumps besides the plan."""
    return (f"the dump {one.dump} cannot be read and stays: {one.problem}" for one in facts.unreadable_dumps)
