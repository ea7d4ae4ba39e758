"""Holding a backup or a dump, or every moment of a span, against the policy; releasing it; and what is held.

1. A span is held by the newest backup that ended before it began: without it the WAL alone is worth nothing.  Which
   backup that is, and along which timeline, is written into the pin, so that later backups change nothing.
2. What cannot be recovered any more is not held: the answer says from when on it can.
3. A backup has one pin, its newest row; holding more adds to it, releasing ends all of it (repo.pins).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from pgkeep.catalog.continuity import reach
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format.deletion import PinInfo, PinWindow
from pgkeep.repo.pins import holds, pins, put_pin
from pgkeep.repo.repository import Cluster
from pgkeep.repo.roots import root_ids
from pgkeep.retention.facts import BackupFacts, RetentionFacts
from pgkeep.retention.lineages import Lineage
from pgkeep.retention.plan import SettledSpan
from pgkeep.values.ids import BackupId


@dataclass(frozen=True, slots=True)
class Held:
    """A backup or a dump that is held; `exists` False when it is gone all the same."""

    backup: BackupId
    pin: PinInfo
    exists: bool


def held(cluster: Cluster, now: datetime) -> Iterator[Held]:
    """Everything that is held at `now`, by backup and dump."""
    there = {root: root for root in root_ids(cluster)}
    for named, pin in sorted(pins(cluster).items()):
        if holds(pin, now):
            yield Held(there.get(named, named), pin, named in there)


def base_of_span(facts: RetentionFacts, lineage: Lineage, begin: datetime, end: datetime) -> BackupFacts:
    """The backup that holding a span needs; target-unreachable when its moments cannot all be recovered to.  Pure."""
    whole = [one for one in lineage.reachable if facts.is_consistent(one)]
    early = [one for one in whole if one.stopped <= begin]
    sound = [one for one in early if one.backup not in facts.damaged]
    base = next(reversed(sound or early), None)
    if base is None:
        since = f"from {whole[0].stopped:%Y-%m-%d %H:%M:%S%z} on" if whole else "at no moment: there is no backup"
        raise Fault(
            "target-unreachable",
            f"no backup ended before {begin:%Y-%m-%d %H:%M:%S%z}; the cluster can be recovered {since}",
            hint="see what can be recovered with: pgkeep timeline",
        )
    archive = facts.archive(base.system_id)
    assert archive is not None, "what is consistent has an archive"
    reached = reach(archive.listing, lineage.history, base.first_segment)
    behind = next((one for one in lineage.reachable if one.started >= end), None)
    if reached.gap is not None and (behind is None or reached.gap.first < behind.first_segment):
        raise Fault(
            "target-unreachable",
            f"not every moment of the span can be recovered to: behind the backup {base.backup} the archive lacks"
            f" {reached.gap.describe(archive.segment_size)}",
            hint="see what can be recovered with: pgkeep timeline",
        )
    return base


def hold_backup(cluster: Cluster, backup: BackupId, note: str, by: str, clock: Clock) -> PinInfo:
    """Hold a backup or a dump.  backup-unknown, backup-retired, the store's faults."""
    _check_known(cluster, backup)
    return _put(cluster, replace(_pin(cluster, backup, clock), why=note), by, clock)


def hold_span(
    cluster: Cluster,
    base: BackupFacts,
    lineage: Lineage,
    begin: datetime,
    end: datetime,
    note: str,
    by: str,
    clock: Clock,
) -> PinInfo:
    """Hold every moment of a span on `base`, as `base_of_span` found it.  backup-retired, the store's faults."""
    pin = _pin(cluster, base.backup, clock)
    window = PinWindow(begin=begin.isoformat(), end=end.isoformat(), timeline=lineage.timeline, why=note)
    return _put(cluster, replace(pin, windows=[*pin.windows, window]), by, clock)


def settle(cluster: Cluster, spans: Iterable[SettledSpan], clock: Clock) -> None:
    """Write down the last segments of held spans, while the backups that tell them are there.  The store's faults."""
    for span in spans:
        pin = _pin(cluster, span.hold.backup, clock)
        windows = [_settled(one, span) for one in pin.windows]
        if windows != pin.windows:
            put_pin(cluster, replace(pin, windows=windows), clock)


def _settled(one: PinWindow, span: SettledSpan) -> PinWindow:
    window = span.hold.window
    assert window is not None, "only spans are settled"
    same = (one.end, one.timeline) == (window.end.isoformat(), window.timeline)
    return replace(one, last=span.last) if same and one.last is None else one


def release(cluster: Cluster, backup: BackupId, by: str, clock: Clock) -> PinInfo:
    """End all that is held on a backup; what that was.  backup-unknown when nothing is, the store's faults."""
    pin = pins(cluster).get(backup)
    if pin is None or not holds(pin, clock.now()):
        raise Fault("backup-unknown", f"nothing is held on {backup}", hint="see what is held with: pgkeep hold")
    _put(cluster, replace(pin, released=True), by, clock)
    return pin


def _check_known(cluster: Cluster, backup: BackupId) -> None:
    if backup not in root_ids(cluster):
        raise Fault(
            "backup-unknown",
            f"there is no backup and no dump {backup} of cluster {cluster.name}",
            hint="see what there is with: pgkeep list",
        )


def _pin(cluster: Cluster, backup: BackupId, clock: Clock) -> PinInfo:
    """What holds the backup now, or a pin that holds nothing yet."""
    pin = pins(cluster).get(backup)
    if pin is not None and holds(pin, clock.now()):
        return pin
    return PinInfo(backup=str(backup), why="", until=None, by="", released=False)


def _put(cluster: Cluster, pin: PinInfo, by: str, clock: Clock) -> PinInfo:
    row = replace(pin, by=by, created=clock.now().isoformat())
    put_pin(cluster, row, clock)
    return row
