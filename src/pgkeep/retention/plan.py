"""plan_retention: which backups stay and every reason why, which go, which WAL goes, and what that frees.  Pure.

1. A backup stays when any rule keeps it.  What no rule keeps goes; a policy that is not written keeps everything.
2. Never deleted, whatever the policy says: of each lineage the newest backup, the newest that is whole, the newest
   clean one and the newest proven one; the base of the WAL window; what is held or in use; what cannot be read.
3. Time is counted back from the newest archived WAL, not from now: when a server dies, its last days do not follow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from itertools import groupby

from pgkeep.catalog.timelines import continues
from pgkeep.repo.walstock import WalObject
from pgkeep.retention import dumps
from pgkeep.retention.calendar import Quality, representatives, succession
from pgkeep.retention.dumps import DumpPlan, DumpPolicies, plan_dumps
from pgkeep.retention.facts import ArchiveFacts, BackupFacts, HeldWindow, Hold, Reason, RetentionFacts, Unreadable
from pgkeep.retention.lineages import Lineage, lineages
from pgkeep.retention.needs import (
    NeededWal,
    Window,
    around_unreadable,
    behind,
    everything,
    first_sound,
    of_backup,
    unneeded,
    windows,
)
from pgkeep.retention.policy import KeepPolicy, show_span
from pgkeep.values.ids import BackupId
from pgkeep.values.wal import Segment


@dataclass(frozen=True, slots=True)
class Staying:
    """A backup that stays, with all reasons; `facts` None when its manifest cannot be read."""

    backup: BackupId
    facts: BackupFacts | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Going:
    """A backup that no rule keeps; `note` says what else is to be known of it."""

    backup: BackupId
    facts: BackupFacts
    note: str = ""


@dataclass(frozen=True, slots=True)
class GoingWal:
    """Archived segments first..last of a timeline that nothing needs; with what belongs to them."""

    system_id: int
    timeline: int
    first: int
    last: int
    segment_size: int
    objects: tuple[WalObject, ...]

    @property
    def first_name(self) -> str:
        return Segment(self.timeline, self.first).name(self.segment_size)

    @property
    def last_name(self) -> str:
        return Segment(self.timeline, self.last).name(self.segment_size)

    @property
    def segments(self) -> int:
        return sum(one.is_segment for one in self.objects)

    @property
    def bytes(self) -> int:
        """In the store."""
        return sum(one.bytes for one in self.objects)


@dataclass(frozen=True, slots=True)
class Freed:
    """What the plan frees, in bytes of the store: packs that no remaining backup or dump names, and WAL.

    None for packs while a manifest cannot be read: nobody knows which packs it names, so none is deleted.
    """

    packs: int | None
    pack_bytes: int | None
    segments: int
    wal_bytes: int


@dataclass(frozen=True, slots=True)
class SettledSpan:
    """A held span of which the last segment is known now, by a backup that may go."""

    hold: Hold
    last: int


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """See the module's docstring; backups are in the order of their names."""

    policy: KeepPolicy | None
    anchor: datetime
    """What the policy's span is counted back from."""
    stays: tuple[Staying, ...]
    goes: tuple[Going, ...]
    windows: tuple[Window, ...]
    needed: tuple[NeededWal, ...]
    wal_goes: tuple[GoingWal, ...]
    freed: Freed
    warnings: tuple[str, ...] = ()
    spans: tuple[SettledSpan, ...] = ()
    """To be written down before anything goes."""
    dumps: DumpPlan = field(default_factory=DumpPlan)
    lets_go: bool = False
    """Whether the configuration has any line keep, of backups or of dumps."""

    def reasons(self, backup: BackupId) -> tuple[Reason, ...]:
        """Why a backup stays; () when it goes, or is not known."""
        return next((one.reasons for one in self.stays if one.backup == backup), ())


def plan_retention(
    facts: RetentionFacts, policy: KeepPolicy | None, zone: tzinfo, now: datetime, timeline: int | None = None,
    sets: Mapping[str, KeepPolicy] | None = None,
) -> RetentionPlan:  # fmt: skip
    """The plan.  `zone` is that of the policy's days; `timeline` says which of several live branches is the cluster's.

    `sets` are the policies of sets of dumps that have one of their own.  Fault `usage` when several branches live and
    nobody said which.
    """
    policies = DumpPolicies(policy, sets or {})
    dumped = plan_dumps(facts, policies, zone)
    facts = replace(facts, backups=tuple(sorted(facts.backups, key=lambda one: one.backup)))
    anchor = anchor_of(facts, now)
    if policy is None:
        return replace(_keep_everything(facts, anchor, dumped), lets_go=policies.any)
    found = lineages(facts, anchor, timeline)
    reasons = _Reasons(facts)
    for backup, reason in _all_reasons(facts, policy, found, zone):
        reasons.add(backup, reason)
    shown = list(windows(policy, found, facts, anchor, reasons.kept))
    for lineage, window, base in shown:
        if base is not None:
            reasons.add(base.backup, _window_reason(policy, window))
            sound = first_sound(lineage, facts) if base.backup in facts.damaged and policy.wal is not None else None
            if sound is not None:
                reasons.add(sound.backup, Reason("window", "oldest in the WAL window without damaged packs"))
    needed = tuple(_needed(facts, found, shown, reasons.kept))
    wal = tuple(one for archive in facts.archives for one in _going_wal(archive, needed))
    going = [Going(one.backup, one, _note(one, facts)) for one in reasons.others()]
    going += [Going(one.backup, one, "an earlier prune has retired it") for one in facts.leaving]
    goes = tuple(sorted(going, key=lambda one: one.backup))
    return RetentionPlan(
        policy,
        anchor,
        tuple(reasons.stays()),
        goes,
        tuple(window for _, window, _ in shown),
        needed,
        wal,
        _freed(facts, goes, dumped, wal),
        tuple(_warnings(facts)),
        tuple(_settled(facts, found)),
        dumped,
        lets_go=True,
    )


def _settled(facts: RetentionFacts, found: Sequence[Lineage]) -> Iterator[SettledSpan]:
    backups = {backup.backup: backup for backup in facts.backups}
    for hold in facts.holds:
        base = backups.get(hold.backup)
        if base is None or hold.window is None or hold.window.last is not None:
            continue
        for lineage in _lineages_of(base, found):
            last = last_of_span(lineage, hold.window)
            if last is not None and hold.window.timeline in lineage.history.timelines():
                yield SettledSpan(hold, last)
                break


def anchor_of(facts: RetentionFacts, now: datetime) -> datetime:
    """The end of the time that a policy speaks of: when the newest WAL was archived, but not after `now`."""
    archived = [objects[-1].archived for one in facts.archives for objects in one.by_timeline.values()]
    return min(now, max(archived, default=now))


def _keep_everything(facts: RetentionFacts, anchor: datetime, dumped: DumpPlan) -> RetentionPlan:
    reason = Reason("no-policy", "the configuration has no line keep, so nothing is ever deleted")
    reasons = _Reasons(facts)
    for backup in facts.backups:
        reasons.add(backup.backup, reason)
    return RetentionPlan(
        None, anchor, tuple(reasons.stays()), (), (), (), (), _freed(facts, (), dumped, ()), tuple(_warnings(facts)),
        dumps=dumped,
    )  # fmt: skip


class _Reasons:
    """Reasons by backup, collected rule by rule."""

    def __init__(self, facts: RetentionFacts) -> None:
        self._backups = {one.backup: one for one in facts.backups}
        self._unreadable = facts.unreadable
        self.kept: dict[BackupId, list[Reason]] = {}

    def add(self, backup: BackupId, reason: Reason) -> None:
        found = self.kept.setdefault(backup, []) if backup in self._backups else []
        if reason not in found:
            found.append(reason)

    def stays(self) -> Iterator[Staying]:
        staying = [Staying(one.backup, None, (_unreadable(one),)) for one in self._unreadable]
        staying += [Staying(name, self._backups[name], tuple(reasons)) for name, reasons in self.kept.items()]
        yield from sorted(staying, key=lambda one: one.backup)

    def others(self) -> Iterator[BackupFacts]:
        return (one for name, one in self._backups.items() if name not in self.kept)


def _unreadable(one: Unreadable) -> Reason:
    return Reason("unreadable", "its manifest cannot be read: it is never deleted, and never counts")


Given = Iterator[tuple[BackupId, Reason]]


def _all_reasons(facts: RetentionFacts, policy: KeepPolicy, found: Sequence[Lineage], zone: tzinfo) -> Given:
    yield from _last(facts, policy.last, found)
    for name, period, label in representatives(policy, found, zone, lambda one: _quality(one, facts)):
        yield name, Reason(period, f"{period} {label}")
    for lineage in found:
        yield from _newest_of(lineage, facts)
    homed = {backup.backup for lineage in found for backup in lineage.backups}
    for backup in facts.backups:
        if backup.backup not in homed:
            yield backup.backup, Reason("unknown", f"the system identifier {backup.system_id} is not known here")
    for hold in facts.holds:
        yield hold.backup, Reason("hold", _held(hold))
    for lease in facts.leases:
        yield from ((name, Reason("in-use", f"needed by {lease.what}")) for name in lease.backups)


def _last(facts: RetentionFacts, count: int, found: Sequence[Lineage]) -> Given:
    """Damaged ones take no place, and stay while they are as new as those that do: their packs may be put back."""
    at = 0
    for backup in succession(found) if count else ():
        quality = _quality(backup, facts)
        if quality.counts:
            at += 1
            yield backup.backup, Reason("last", f"last {at} of {count}")
            if at == count:
                return
        elif quality is Quality.DAMAGED:
            yield backup.backup, Reason("last", f"damaged, and as new as the last {count}")


def _quality(backup: BackupFacts, facts: RetentionFacts) -> Quality:
    if not facts.is_consistent(backup):
        return Quality.LOST
    if backup.backup in facts.damaged:
        return Quality.DAMAGED
    return Quality.BAD_PAGES if backup.bad_pages else Quality.CLEAN


def _newest_of(lineage: Lineage, facts: RetentionFacts) -> Given:
    """Of each lineage the newest, the newest whole one, the newest clean one, and the newest proven one."""
    rules: list[tuple[str, str, list[BackupFacts]]] = [
        ("newest", "newest of its lineage", list(lineage.backups)),
        ("newest-restorable", "newest of its lineage that can be restored", _restorable(lineage, facts)),
        ("newest-clean", "newest of its lineage without damaged pages", _at_least(Quality.CLEAN, lineage, facts)),
        ("newest-proven", "newest proven of its lineage", [b for b in lineage.backups if b.backup in facts.proven]),
    ]
    said: set[BackupId] = set()
    for kind, text, backups in rules:
        if backups and (kind == "newest-proven" or backups[-1].backup not in said):
            said.add(backups[-1].backup)
            yield backups[-1].backup, Reason(kind, text)


def _restorable(lineage: Lineage, facts: RetentionFacts) -> list[BackupFacts]:
    """Those that can be restored; where there are none, those that lack nothing but damaged packs."""
    whole = _at_least(Quality.BAD_PAGES, lineage, facts)
    return whole or _at_least(Quality.DAMAGED, lineage, facts)


def _at_least(least: Quality, lineage: Lineage, facts: RetentionFacts) -> list[BackupFacts]:
    return [backup for backup in lineage.backups if _quality(backup, facts) >= least]


def _held(hold: Hold) -> str:
    if hold.window is None:
        return f"hold: {hold.note}"
    begin, end = hold.window.begin, hold.window.end
    return f"hold {begin:%Y-%m-%d %H:%M%z} to {end:%Y-%m-%d %H:%M%z}: {hold.note}"


def _window_reason(policy: KeepPolicy, window: Window) -> Reason:
    if policy.wal is None:
        return Reason("window", "oldest kept backup, where the WAL begins")
    text = f"base of the WAL window of {show_span(policy.wal)}"
    return Reason("window", text if window.is_filled else f"{text}, which is not filled yet")


Shown = Sequence[tuple[Lineage, Window, BackupFacts | None]]


def _needed(
    facts: RetentionFacts, found: Sequence[Lineage], shown: Shown, kept: Iterable[BackupId]
) -> Iterator[NeededWal]:
    names = {*kept, *(backup.backup for backup in facts.leaving)}
    for backup in (*facts.backups, *facts.leaving):
        if backup.backup in names:
            yield from of_backup(backup, f"makes {backup.backup} consistent")
    for lineage, window, base in shown:
        archive = facts.archive(lineage.system_id)
        assert archive is not None
        if base is not None:
            yield from behind(base, lineage, f"the window from {window.base} on")
        elif not lineage.is_beside:
            yield from everything(archive, lineage.history.timelines(), "no backup reaches this branch yet")
    for lineage in found:
        if lineage.backups:
            yield from behind(_restorable_end(lineage, facts), lineage, "behind the newest backup of its branch")
    yield from _needed_by_people(facts, found)
    for archive in facts.archives:
        yield from around_unreadable(facts, archive)
        yield from everything(archive, archive.unknown, "where this timeline belongs is not known")
        if not any(backup.system_id == archive.system_id for backup in facts.backups):
            yield from everything(archive, archive.by_timeline, "there is no backup that could be read")


def _restorable_end(lineage: Lineage, facts: RetentionFacts) -> BackupFacts:
    """The newest backup of a lineage that can be restored, or just the newest."""
    restorable = _restorable(lineage, facts)
    return restorable[-1] if restorable else lineage.backups[-1]


def _needed_by_people(facts: RetentionFacts, found: Sequence[Lineage]) -> Iterator[NeededWal]:
    """WAL of held windows, and behind the backups that a restore reads."""
    backups = {backup.backup: backup for backup in (*facts.backups, *facts.leaving)}
    for hold in facts.holds:
        base = backups.get(hold.backup)
        if hold.window is not None and base is not None:
            for lineage in _lineages_of(base, found):
                if hold.window.timeline in lineage.history.timelines():
                    last = last_of_span(lineage, hold.window)
                    yield from behind(base, lineage, f"hold: {hold.note}", last)
    for lease in facts.leases:
        for name in lease.backups if lease.reads_wal else ():
            if (base := backups.get(name)) is not None:
                for lineage in _lineages_of(base, found):
                    yield from behind(base, lineage, f"needed by {lease.what}")


def _lineages_of(backup: BackupFacts, found: Sequence[Lineage]) -> Iterator[Lineage]:
    """The lineages along which a backup can be recovered."""
    for lineage in found:
        if lineage.system_id == backup.system_id and continues(lineage.history, backup.timeline, backup.stop_lsn):
            yield lineage


def last_of_span(lineage: Lineage, window: HeldWindow) -> int | None:
    """The last segment that a held span needs: where the first backup began that started at or after its end.

    None when there is none yet.  The server's own clock on both sides; when WAL was archived would say less, because it
    may be archived late.
    """
    if window.last is not None:
        return window.last
    return next((one.first_segment for one in lineage.reachable if one.started >= window.end), None)


def _going_wal(archive: ArchiveFacts, needed: Iterable[NeededWal]) -> Iterator[GoingWal]:
    """What nothing needs, as gapless runs."""
    numbered: list[tuple[int, WalObject]] = []
    run = 0
    previous: WalObject | None = None
    for one in unneeded(archive, needed):
        if previous is not None and (one.timeline != previous.timeline or one.number > previous.number + 1):
            run += 1
        numbered.append((run, one))
        previous = one
    for _, group in groupby(numbered, key=lambda pair: pair[0]):
        objects = tuple(one for _, one in group)
        first, last = objects[0], objects[-1]
        yield GoingWal(archive.system_id, first.timeline, first.number, last.number, archive.segment_size, objects)


def _freed(facts: RetentionFacts, goes: Sequence[Going], dumped: DumpPlan, wal: Sequence[GoingWal]) -> Freed:
    gone = frozenset({*(one.backup for one in goes), *(one.dump for one in dumped.goes)})
    free = None if facts.packs is None else [group for group in facts.packs if group.owners <= gone]
    return Freed(
        None if free is None else sum(group.packs for group in free),
        None if free is None else sum(group.bytes for group in free),
        sum(one.segments for one in wal),
        sum(one.bytes for one in wal),
    )


def _note(backup: BackupFacts, facts: RetentionFacts) -> str:
    if not facts.is_consistent(backup):
        return "the WAL that makes it consistent is missing: it cannot be restored"
    if backup.backup in facts.damaged:
        return "a verify found packs of it damaged: not all of it can be restored"
    return f"holds {backup.bad_pages} damaged pages" if backup.bad_pages else ""


def _warnings(facts: RetentionFacts) -> Iterator[str]:
    for one in facts.unreadable:
        yield f"{one.backup} cannot be read and stays, with the WAL around it: {one.problem}"
    yield from dumps.warnings(facts)
    known = {one.backup for one in facts.backups} | {one.backup for one in facts.unreadable}
    known |= {one.dump for one in facts.dumps} | {one.dump for one in facts.unreadable_dumps}
    for hold in facts.holds:
        if hold.backup not in known:
            yield f"the backup {hold.backup} is held ({hold.note}), and there is no such backup"
    for archive in facts.archives:
        for timeline in sorted(archive.unknown):
            yield f"the history of timeline {timeline} is missing or damaged: all of its WAL stays"
