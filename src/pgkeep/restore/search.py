"""The search for the backup that a target needs, and for the place in the WAL where recovery will stop.

What is chosen is decided by `choice` and `stops`, which are pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pgkeep.catalog.timelines import parse_history, read_timelines
from pgkeep.catalog.walfacts import WalScan
from pgkeep.catalog.walindex import KnownWal
from pgkeep.catalog.walscan import scan
from pgkeep.clock import Clock, SystemClock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Warned
from pgkeep.format import names
from pgkeep.format.manifest import ManifestInfo
from pgkeep.pg.programs import Programs
from pgkeep.repo.backups import Manifest, backup_ids, read_info, read_manifest
from pgkeep.repo.repository import Cluster
from pgkeep.repo.walarchive import WalArchive
from pgkeep.repo.walstock import read_pruned
from pgkeep.restore import preflight
from pgkeep.restore.choice import ArchiveView, Candidate, Choice, choose
from pgkeep.restore.nearest import Seen, not_found
from pgkeep.restore.stops import Stop, is_over, last_segment, settle, sought
from pgkeep.restore.target import Target, TargetKind
from pgkeep.values.ids import BackupId
from pgkeep.values.xid import XidSnapshot

UNREADABLE: Final = frozenset({"format-damaged", "format-unsupported", "backup-unknown"})
"""Faults of a manifest alone; the last when it was deleted since it was listed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for, and with what means (as in job.RestoreRequest)."""

    target: Target
    backup: BackupId | None = None
    bindir: Path | None = None
    processes: int = 2
    scratch: Path | None = None
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True)
class Settled:
    """The backup that was chosen, and where recovery from it stops."""

    cluster: Cluster
    candidate: Candidate
    choice: Choice
    stop: Stop
    scan: WalScan
    manifest: Manifest
    programs: Programs


class Search:
    """Goes through the candidates, newest first, until one serves the target."""

    def __init__(self, cluster: Cluster, wanted: Wanted, announce: Announce) -> None:
        self._cluster = cluster
        self._wanted = wanted
        self._announce = announce
        self._seen = Seen([])
        self._known: KnownWal | None = None

    def run(self) -> Settled:
        infos = self._infos()
        archive = WalArchive(self._cluster, infos[0].system_id, infos[0].wal_segment_size)
        choice = choose(infos, self._view(archive, infos), self._wanted.target, self._wanted.backup)
        programs = preflight.programs_for(infos[0].server_version // 10000, self._wanted.bindir)
        for number, candidate in enumerate(choice.candidates):
            others = number + 1 < len(choice.candidates)
            manifest = self._manifest(candidate.id, others=others)
            if manifest is None or (self._too_new(manifest) and others):
                continue
            found = self._try(archive, choice, candidate, programs)
            if found is not None:
                return Settled(self._cluster, candidate, choice, *found, manifest, programs)
        raise not_found(self._wanted.target, choice, self._seen)

    def _infos(self) -> list[ManifestInfo]:
        """All backups of the incarnation that is meant: that of the named backup, else of the newest."""
        known = list(self._readable())
        if not known:
            raise Fault(
                "backup-unknown", f"cluster {self._cluster.name} has no backup", hint="take one with: pgkeep backup"
            )
        base = next((info for info in known if info.backup == self._wanted.backup), known[-1])
        return [info for info in reversed(known) if info.system_id == base.system_id]

    def _readable(self) -> Iterator[ManifestInfo]:
        """A damaged manifest costs its own backup alone; the fault of the last one when none can be read."""
        last: Fault | None = None
        found = False
        for backup in backup_ids(self._cluster):
            try:
                yield read_info(self._cluster, backup)
                found = True
            except Fault as fault:
                self._unreadable(backup, fault)
                last = fault
        if last is not None and not found:
            raise last

    def _manifest(self, backup: BackupId, *, others: bool) -> Manifest | None:
        """None for one that cannot be read, if there are others."""
        try:
            return read_manifest(self._cluster, backup)
        except Fault as fault:
            if not others:
                raise
            self._unreadable(backup, fault)
            return None

    def _unreadable(self, backup: BackupId, fault: Fault) -> None:
        if backup == self._wanted.backup or fault.code not in UNREADABLE:
            raise fault
        text = f"backup {backup} cannot be used: {fault.message}"
        self._announce(Warned("backup-unreadable", text, "see what is damaged with: pgkeep verify"))

    def _view(self, archive: WalArchive, infos: list[ManifestInfo]) -> ArchiveView:
        listing = archive.listing()
        newest = infos[0]
        backup = BackupId(newest.backup)
        manifest = self._manifest(backup, others=len(infos) > 1)
        text = manifest.inner.wal.history if manifest is not None else b""
        key = names.backup(self._cluster.uuid, backup)
        known = [parse_history(newest.timeline, text, key)] if text else []
        timelines = read_timelines(archive, listing, known)
        without = (*timelines.without, *timelines.damaged)
        return ArchiveView(listing, timelines.histories, without, read_pruned(self._cluster))

    def _too_new(self, manifest: Manifest) -> bool:
        target = self._wanted.target
        if target.kind is not TargetKind.XID or target.xid is None:
            return False
        try:
            return is_over(XidSnapshot.parse(manifest.inner.server.snapshot), target.xid)
        except ValueError:
            return False

    def _try(
        self, archive: WalArchive, choice: Choice, candidate: Candidate, programs: Programs
    ) -> tuple[Stop, WalScan] | None:
        target = self._wanted.target
        last = last_segment(target, candidate, choice.size)
        found = self._scan(archive, choice, candidate, programs, last)
        complete = last == candidate.reach.last
        stop = settle(target, candidate, found, choice, complete=complete)
        newest = candidate is choice.candidates[0]
        if stop is None and not complete and found.hit is None and (newest or target.kind is TargetKind.TIME):
            found = self._scan(archive, choice, candidate, programs, candidate.reach.last)
            stop = settle(target, candidate, found, choice, complete=True)
        self._seen.add(found, candidate)
        return (stop, found) if stop is not None else None

    def _scan(
        self, archive: WalArchive, choice: Choice, candidate: Candidate, programs: Programs, last: int
    ) -> WalScan:
        reached = candidate.reach
        if self._known is None:
            self._known = KnownWal(archive, choice.history, self._wanted.clock, self._announce)
        return scan(
            archive,
            choice.history,
            candidate.start,
            last,
            programs,
            partial=reached.partial if last == reached.last else None,
            sought=sought(self._wanted.target, candidate, choice.size),
            workers=self._wanted.processes,
            announce=self._announce,
            scratch=self._wanted.scratch,
            known=self._known,
        )
