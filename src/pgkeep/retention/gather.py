"""Reading the facts: every manifest's beginning and pack table, the WAL by a listing, all holds and leases.

Nothing is written.  What cannot be read becomes part of the facts, and so part of the plan; faults are the store's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from pgkeep.catalog.backups import own_history, stopped_at
from pgkeep.catalog.timelines import Timelines, read_timelines
from pgkeep.errors import Damaged, Fault
from pgkeep.format.dump import DumpInfo
from pgkeep.format.manifest import ManifestInfo
from pgkeep.repo.backups import backup_ids, read_info
from pgkeep.repo.census import Census, roots_naming, take_census
from pgkeep.repo.deleting import damaged_packs, retired_backups
from pgkeep.repo.dumps import dump_ids, open_dump_manifest
from pgkeep.repo.lease import SeenLease, seen_leases
from pgkeep.repo.pins import holds, pins
from pgkeep.repo.repository import Cluster
from pgkeep.repo.walarchive import WalArchive
from pgkeep.repo.walstock import wal_stock
from pgkeep.retention.facts import (
    ArchiveFacts,
    BackupFacts,
    DumpFact,
    HeldWindow,
    Hold,
    Leased,
    PackGroup,
    RetentionFacts,
    Unreadable,
    UnreadableDump,
)
from pgkeep.values.ids import BackupId, DumpId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History

_UNREADABLE: Final = frozenset({"format-damaged", "format-unsupported"})
_READERS: Final = frozenset({"restore", "sandbox", "drill"})
"""Purposes of leases whose holders replay WAL behind their backup."""
_USERS: Final = frozenset({"backup", "load", *_READERS})
"""Purposes whose holders need what their lease names."""


@dataclass(frozen=True, slots=True)
class KnownBackup:
    """A backup and what its manifest says of it; `info` None when that cannot be read, because of `problem`."""

    backup: BackupId
    info: ManifestInfo | None
    problem: str = ""


def known_backups(cluster: Cluster) -> list[KnownBackup]:
    """Every backup, oldest first."""
    found: list[KnownBackup] = []
    for backup in backup_ids(cluster):
        try:
            found.append(KnownBackup(backup, read_info(cluster, backup)))
        except Fault as fault:
            if fault.code in _UNREADABLE:
                found.append(KnownBackup(backup, None, fault.message))
            elif fault.code != "backup-unknown":  # deleted since it was listed
                raise
    return found


@dataclass(frozen=True, slots=True)
class KnownDump:
    """A dump and what its manifest says of it; `info` None when that cannot be read, because of `problem`."""

    dump: DumpId
    info: DumpInfo | None
    problem: str = ""


def known_dumps(cluster: Cluster) -> list[KnownDump]:
    """Every dump, oldest first."""
    found: list[KnownDump] = []
    for dump in dump_ids(cluster):
        try:
            found.append(KnownDump(dump, open_dump_manifest(cluster, dump).info()))
        except Fault as fault:
            if fault.code in _UNREADABLE:
                found.append(KnownDump(dump, None, fault.message))
            elif fault.code != "dump-unknown":  # deleted since it was listed
                raise
    return found


def gather(
    cluster: Cluster, now: datetime, known: Iterable[KnownBackup] | None = None, *,
    dumps: Iterable[KnownDump] | None = None, with_packs: bool = True,
) -> RetentionFacts:  # fmt: skip
    """The facts at `now`; `known` and `dumps` are the manifests, where the caller has read them already."""
    backups = known_backups(cluster) if known is None else list(known)
    dumped = known_dumps(cluster) if dumps is None else list(dumps)
    leaving = retired_backups(cluster)
    archives: list[ArchiveFacts] = []
    read: list[BackupFacts] = []
    unreadable = [Unreadable(one.backup, one.problem) for one in backups if one.info is None]
    for incarnation in cluster.incarnations:
        infos = [one.info for one in backups if one.info is not None and one.info.system_id == incarnation.system_id]
        archive = WalArchive(cluster, incarnation.system_id, incarnation.wal_segment_size)
        archives.append(_Archive(archive, infos, read, unreadable).facts())
    strays = (one.info for one in backups if one.info and cluster.incarnation(one.info.system_id) is None)
    read += [_backup(info, History(info.timeline)) for info in strays]
    return RetentionFacts(
        tuple(archives),
        tuple(one for one in read if one.backup not in leaving),
        tuple(sorted(unreadable, key=lambda one: one.backup)),
        tuple(_holds(cluster, now)),
        tuple(_leases(cluster, now, [*(one.backup for one in backups), *(one.dump for one in dumped)])),
        packs=_packs(cluster) if with_packs else (),
        leaving=tuple(one for one in read if one.backup in leaving),
        dumps=tuple(fact for one in dumped if (fact := _dump_fact(one, leaving)) is not None),
        unreadable_dumps=tuple(_unreadable_dumps(dumped)),
        damaged=roots_naming(cluster, damaged_packs(cluster)),
    )


def _dump_fact(one: KnownDump, leaving: frozenset[BackupId]) -> DumpFact | None:
    started = _moment(one.info.started) if one.info is not None else None
    if one.info is None or started is None:
        return None
    return DumpFact(one.dump, one.info.name, started, one.info.stored_bytes, one.dump in leaving)


def _unreadable_dumps(dumped: Iterable[KnownDump]) -> Iterator[UnreadableDump]:
    for one in dumped:
        if one.info is None:
            yield UnreadableDump(one.dump, one.problem)
        elif _moment(one.info.started) is None:
            yield UnreadableDump(one.dump, f"it holds no readable time ({one.info.started!r})")


class _Archive:
    """One system identifier; its backups go into `read` or `unreadable`."""

    def __init__(
        self, archive: WalArchive, infos: Sequence[ManifestInfo], read: list[BackupFacts], unreadable: list[Unreadable]
    ) -> None:
        self._archive = archive
        self._infos = infos
        self._read = read
        self._unreadable = unreadable

    def facts(self) -> ArchiveFacts:
        listing = self._archive.listing()
        timelines = read_timelines(self._archive, listing)
        own = [backup.history for info in self._infos if (backup := self._add(info, timelines)) is not None]
        found = read_timelines(self._archive, listing, own)
        unknown = frozenset({*found.damaged, *found.without})
        stock = tuple(wal_stock(self._archive))
        return ArchiveFacts(self._archive.system_id, self._archive.segment_size, found.histories, stock, unknown)

    def _add(self, info: ManifestInfo, timelines: Timelines) -> BackupFacts | None:
        try:
            backup = _backup(info, own_history(self._archive.cluster, info, timelines))
        except Fault as fault:
            if fault.code == "backup-unknown":
                return None
            if fault.code not in _UNREADABLE:
                raise
            self._unreadable.append(Unreadable(BackupId(info.backup), fault.message))
            return None
        self._read.append(backup)
        return backup


def _backup(info: ManifestInfo, history: History) -> BackupFacts:
    """Damaged for times that are none."""
    return BackupFacts(
        BackupId(info.backup), info.system_id, history, Lsn(info.start_lsn), Lsn(info.stop_lsn), _started(info),
        stopped_at(info), info.wal_segment_size, info.bad_pages, info.start_timeline,
    )  # fmt: skip


def _started(info: ManifestInfo) -> datetime:
    if (started := _moment(info.started)) is None:
        raise Damaged(f"backup {info.backup}", f"holds no readable time ({info.started!r})")
    return started


def _holds(cluster: Cluster, now: datetime) -> Iterator[Hold]:
    for backup, pin in sorted(pins(cluster).items()):
        if not holds(pin, now):
            continue
        if pin.why or not pin.windows:
            yield Hold(backup, pin.why)
        for one in pin.windows:
            begin = _moment(one.begin) or datetime.min.replace(tzinfo=UTC)
            end = _moment(one.end) or datetime.max.replace(tzinfo=UTC)
            yield Hold(backup, one.why, HeldWindow(one.timeline, begin, end, one.last))


def _moment(text: str) -> datetime | None:
    """An aware moment; None for what is none: then more is held, not less."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _leases(cluster: Cluster, now: datetime, everything: Sequence[BackupId]) -> Iterator[Leased]:
    for lease in seen_leases(cluster):
        if not lease.is_live(now):
            continue
        if lease.info is None:
            yield Leased(tuple(everything), "a job whose lease cannot be read", lease.first, reads_wal=True)
        elif lease.info.purpose in _USERS:
            names = tuple(one for one in everything if one in lease.info.bases)
            yield Leased(names, _what(lease), lease.first, lease.info.purpose in _READERS)


def _what(lease: SeenLease) -> str:
    assert lease.info is not None
    host = lease.info.holder.partition(" ")[0]
    return f"an unfinished backup on {host}" if lease.info.purpose == "backup" else f"a {lease.info.purpose} on {host}"


def _packs(cluster: Cluster) -> tuple[PackGroup, ...] | None:
    try:
        return pack_groups(take_census(cluster))
    except Fault as fault:
        if fault.code not in _UNREADABLE:
            raise
        return None


def pack_groups(census: Census) -> tuple[PackGroup, ...]:
    """The packs that backups and dumps need, by who needs them: one group for each set of those that has any."""
    backups = list(census.uses)
    owners = np.zeros((len(census.ids), (len(backups) + 7) // 8), np.uint8)
    for number, backup in enumerate(backups):
        owners[census.uses[backup], number // 8] |= np.uint8(1 << number % 8)
    sets, place = np.unique(owners, axis=0, return_inverse=True)
    place = place.reshape(-1)
    packs, sizes = np.bincount(place, minlength=len(sets)), np.zeros(len(sets), np.int64)
    np.add.at(sizes, place, census.sizes)
    groups = (
        (np.flatnonzero(np.unpackbits(row, bitorder="little")), int(count), int(size))
        for row, count, size in zip(sets, packs, sizes, strict=True)
    )
    return tuple(
        PackGroup(frozenset(backups[n] for n in found), count, size) for found, count, size in groups if len(found)
    )
