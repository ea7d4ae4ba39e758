"""`hold`: keep a backup, or every moment of a span, whatever the policy says; release it; list what is held."""

from __future__ import annotations

from dataclasses import dataclass

from pgkeep.app.place import Place
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format.deletion import PinInfo
from pgkeep.restore.job import server_zone
from pgkeep.restore.moment import Zone, parse_moment
from pgkeep.retention.gather import gather
from pgkeep.retention.holds import Held, base_of_span, held, hold_backup, hold_span, release
from pgkeep.retention.lineages import lineages
from pgkeep.retention.plan import anchor_of
from pgkeep.values.ids import BackupId


@dataclass(frozen=True, slots=True)
class SpanWords:
    """A span as it was typed."""

    begin: str
    end: str
    timeline: int | None = None
    local_zone: str = ""


def holds(place: Place, clock: Clock) -> tuple[Held, ...]:
    """What is held now; the store's faults."""
    return tuple(held(place.cluster, clock.now()))


def hold(place: Place, backup: str, note: str, by: str, clock: Clock, *, dry_run: bool = False) -> PinInfo:
    """Hold a backup.  usage (no name of one), backup-unknown, backup-retired, the store's faults."""
    name = backup_named(backup)
    if dry_run:
        return PinInfo(backup=str(name), why=note, until=None, by=by, released=False)
    return hold_backup(place.cluster, name, note, by, clock)


def hold_window(place: Place, words: SpanWords, note: str, by: str, clock: Clock, *, dry_run: bool = False) -> PinInfo:
    """Hold every moment of a span.  usage, time-*, target-unreachable, backup-retired, the store's faults."""
    zones = [Zone("the server's zone", server_zone(place.cluster))]
    if words.local_zone and words.local_zone != zones[0].name:
        zones.append(Zone("this machine's zone", words.local_zone))
    begin, end = parse_moment(words.begin, zones, "--from"), parse_moment(words.end, zones, "--to")
    if end <= begin:
        raise Fault("usage", f"the span ends at {words.end}, which is not after {words.begin}", hint="change --to")
    now = clock.now()
    facts = gather(place.cluster, now, with_packs=False)
    found = lineages(facts, anchor_of(facts, now), words.timeline)
    if not found:
        raise Fault("target-unreachable", "there is no backup to hold yet", hint="make one with: pgkeep backup")
    base = base_of_span(facts, found[0], begin, end)
    if dry_run:
        return PinInfo(backup=str(base.backup), why=note, until=None, by=by, released=False)
    return hold_span(place.cluster, base, found[0], begin, end, note, by, clock)


def release_hold(place: Place, backup: str, by: str, clock: Clock) -> PinInfo:
    """End what is held on a backup; what that was.  usage, backup-unknown, the store's faults."""
    return release(place.cluster, backup_named(backup), by, clock)


def backup_named(text: str) -> BackupId:
    """Fault `usage` for what is no name of a backup."""
    try:
        return BackupId(text)
    except ValueError as error:
        raise Fault("usage", str(error), hint="see the backups with: pgkeep list") from None
