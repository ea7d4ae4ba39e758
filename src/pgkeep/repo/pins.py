"""Pins: backups that somebody holds, with a reason (docs/format/objects.md).  Whoever wants to retire one looks here.

A row is never changed: releasing adds one.  The newest row of a backup counts, by the store's clock.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime

from pgkeep.clock import Clock
from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.deletion import PinInfo
from pgkeep.format.header import ObjectType
from pgkeep.format.objects import decode_info, encode_object
from pgkeep.repo.features import DELETION, announce_feature
from pgkeep.repo.repository import Cluster, Entropy
from pgkeep.store.port import ObjectStat
from pgkeep.values.ids import BackupId, ObjectId


def put_pin(cluster: Cluster, pin: PinInfo, clock: Clock, entropy: Entropy = os.urandom) -> None:
    """Add a row.  backup-retired when what it names is leaving already: then it is not held.

    An older pgkeep does not know pins, and must not delete what is held: hence the feature.
    """
    repository, backup = cluster.repository, BackupId(pin.backup)
    announce_feature(repository, DELETION, clock)
    key = names.pin(cluster.uuid, backup, ObjectId(entropy(16)))
    repository.store.put(key, encode_object(repository.header(ObjectType.PIN, key, clock), pin))
    # Looked at after the pin is there: `retire` marks first and looks for pins then, so one of the two sees the other.
    if not pin.released and is_marked(cluster, backup):
        repository.store.delete(key)
        raise Fault(
            "backup-retired",
            f"{backup} is being deleted already",
            hint="see what there is with: pgkeep list",
        )


def is_marked(cluster: Cluster, backup: BackupId) -> bool:
    """Whether the backup has the mark that it is leaving."""
    try:
        cluster.repository.store.stat(names.retired(cluster.uuid, backup))
    except Fault as fault:
        if fault.code != "object-missing":
            raise
        return False
    return True


def pins(cluster: Cluster) -> dict[BackupId, PinInfo]:
    """The newest row of every backup that has one, released ones too.  The store's faults.

    A row that cannot be read holds its backup until it is removed.
    """
    prefix = names.pins(cluster.uuid)
    newest: dict[BackupId, ObjectStat] = {}
    for stat in cluster.repository.store.list(prefix):
        backup, _, _ = stat.key[len(prefix) :].partition("/")
        with suppress(ValueError):
            known = newest.get(BackupId(backup))
            if known is None or stat.modified >= known.modified:
                newest[BackupId(backup)] = stat
    return {backup: _read(cluster, backup, stat.key) for backup, stat in newest.items()}


def _read(cluster: Cluster, backup: BackupId, key: str) -> PinInfo:
    try:
        return decode_info(cluster.repository.read(key, ObjectType.PIN), PinInfo, key)
    except Damaged as damage:
        why = f"{damage.message}; remove it to release the backup"
        return PinInfo(backup=str(backup), why=why, until=None, by="", released=False)


def holds(pin: PinInfo | None, now: datetime) -> bool:
    """Whether a pin is in force at `now`; one whose end cannot be read is."""
    if pin is None or pin.released:
        return False
    if pin.until is None:
        return True
    try:
        return datetime.fromisoformat(pin.until) > now
    except (ValueError, TypeError):
        return True


def drop_pins(cluster: Cluster, backup: BackupId) -> None:
    """Remove the rows of a backup that is gone; the store's faults."""
    for stat in list(cluster.repository.store.list(f"{names.pins(cluster.uuid)}{backup}/")):
        cluster.repository.store.delete(stat.key)
