"""run_backup: one physical backup of a running primary, from the connection to the manifest.

The order, seen from a crash (docs/format/order.md): until the manifest is created there is no backup, whatever lies in
the store; the manifest is created when every pack is durable and every WAL segment from start to stop is archived.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

from pgkeep.backup.assemble import EntryMaker, bad_pages
from pgkeep.backup.copied import Copied, PackTable, joined_live
from pgkeep.backup.describe import Course, databases, manifest_info, server_info, tablespaces
from pgkeep.backup.detection import Detection, Detector, Mode
from pgkeep.backup.inheriting import BaseSettings
from pgkeep.backup.naming import NameReading, Names
from pgkeep.backup.report import Report
from pgkeep.backup.source import (
    Inventory,
    attachments,
    check_local,
    check_mounted,
    check_settings,
    owner_name,
    scan_complete,
)
from pgkeep.backup.tasks import Task, content_length, is_copied_apart, plan_tasks
from pgkeep.backup.walwait import read_history, wait_for_archive
from pgkeep.backup.worker import BackupWorker, Finished, TaskResult, WorkerSettings
from pgkeep.clock import Clock
from pgkeep.crew import Crew, prepare
from pgkeep.errors import Fault
from pgkeep.events import Announce, Phase, Progress, Warned
from pgkeep.format import names
from pgkeep.format.frame import FrameKind
from pgkeep.format.manifest import BadPages, Entry, Inner, ManifestInfo, Outer, Place, WalNeeds, WalRange
from pgkeep.format.packed import PackedRows
from pgkeep.pg.completeness import check_complete
from pgkeep.pg.controlfile import CONTROL_FILE, read_control_bytes
from pgkeep.pg.datadir import DataDirectory
from pgkeep.pg.entry import EntryTable, EntryType
from pgkeep.pg.facts import Identity, ServerFacts
from pgkeep.pg.page import BLCKSZ
from pgkeep.pg.server import Server, StartedBackup, StoppedBackup, connect
from pgkeep.repo.backups import seen_manifests, write_backup
from pgkeep.repo.check import RepositoryAddress
from pgkeep.repo.lease import Lease
from pgkeep.repo.packtables import LiveFrames, PackTables
from pgkeep.repo.packwriter import PackWriter, WrittenPack
from pgkeep.repo.repository import Cluster, Entropy, refuse_unknown_features
from pgkeep.repo.walarchive import WalArchive
from pgkeep.values.ids import BackupId, ObjectId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment, last_segment_number

WATCH_EVERY: Final = 5.0
"""Seconds between two looks at the server while files are copied."""
BackupCrew = Crew[Task, TaskResult, Finished]


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What the caller wants.  `processes` are workers, `level` is zstd's, `archive_timeout` seconds."""

    connection: str
    label: str = "pgkeep"
    fast_checkpoint: bool = True
    processes: int = 2
    level: int = 1
    archive_timeout: float = 60.0
    mode: Mode = "auto"
    """How changes are found, at best: what cannot be proven falls back, and the result says why."""


@dataclass(frozen=True, slots=True)
class BackupResult:
    """The backup that now exists."""

    info: ManifestInfo
    seconds: float
    checkpoint_seconds: float
    """Of them waiting for the start checkpoint."""
    archive_seconds: float
    """Of them waiting for the archive at the end."""


def run_backup(
    cluster: Cluster, request: BackupRequest, clock: Clock, announce: Announce, entropy: Entropy = os.urandom
) -> BackupResult:
    """Take a backup; returns when it exists.

    Faults: postgres-*, datadir-*, cluster-mismatch, backup-invalidated, wal-not-archived, wal-differs, worker-died,
    io, and those of the store.
    """
    prepare(BackupWorker.__module__)  # its imports run beside the connecting and the checkpoint
    refuse_unknown_features(cluster.repository.store, "write")
    with ExitStack() as stack:
        server = stack.enter_context(connect(request.connection))
        facts = server.facts()
        archive = _archive(cluster, facts)
        check_settings(facts)
        check_local(facts)
        backup = BackupId.make(clock.now(), entropy(4))
        job = _Job(cluster, archive, request, clock, announce, entropy, server, facts, backup)
        stack.callback(job.close)
        return job.run()


def _archive(cluster: Cluster, facts: ServerFacts) -> WalArchive:
    known = cluster.incarnation(facts.system_identifier)
    if known is None:
        listed = ", ".join(str(info.system_id) for info in cluster.incarnations)
        raise Fault(
            "cluster-mismatch",
            f"the server has system identifier {facts.system_identifier}, the repository's cluster {cluster.name} is"
            f" {listed}",
            hint="check connection in pgkeep.toml; after pg_upgrade or a restore: pgkeep init --adopt",
        )
    return WalArchive(cluster, facts.system_identifier, known.wal_segment_size)


@dataclass
class _Job:
    """One backup's state from start to manifest."""

    cluster: Cluster
    archive: WalArchive
    request: BackupRequest
    clock: Clock
    announce: Announce
    entropy: Entropy
    server: Server
    facts: ServerFacts
    backup: BackupId
    held: Lease | None = None
    """Taken when the checkpoint that begins the backup is over: that may last longer than a lease."""
    copied: Copied = field(default_factory=lambda: Copied(PackTable()))
    packs: list[WrittenPack] = field(default_factory=list)
    live: dict[ObjectId, bytes] = field(default_factory=dict)
    uncommitted: set[ObjectId] = field(default_factory=set)
    watched: float = 0.0

    def run(self) -> BackupResult:
        began = self.clock.monotonic()
        self.announce(Phase("start", "waiting for the checkpoint that begins the backup"))
        started = self.server.backup_start(self.request.label, fast=self.request.fast_checkpoint)
        self.held = Lease.take(self.cluster, self.clock, purpose="backup", entropy=self.entropy)
        began_at = self.server.clock()
        checkpointed = self.clock.monotonic()
        identity = self.server.identity()
        if identity.timeline != self.facts.timeline:
            self.server.check_same(self.facts.identity)
        with NameReading(self.request.connection, self.announce) as naming:
            with ExitStack() as crews:
                crew, detection, directory, inventory, control = self._copy(started, identity, crews)
                stopped = self._stop(crew, identity)
            names_read = naming.result()
        # All that is left to be done is done while the archiver works.
        self._check_still_complete(directory, inventory)
        after_stop = self.server.clock()
        snapshot = str(self.server.snapshot())
        copied_at = self.clock.monotonic()
        entries = self._entries(directory, control)
        needs = self._wait_for_wal(started, stopped, identity.timeline, detection)
        archived = self.clock.monotonic()
        course = Course(
            self.backup, self.request.label, started, stopped, began_at, after_stop, identity.timeline, snapshot,
            detection, self.copied.pages,
        )  # fmt: skip
        info = self._commit(course, directory, entries, names_read, inventory, needs)
        return BackupResult(info, self.clock.monotonic() - began, checkpointed - began, archived - copied_at)

    def close(self) -> None:
        """Give back what nobody will use, then the lease that protected it."""
        self.discard()
        if self.held is not None:
            self.held.release()

    @property
    def lease(self) -> Lease:
        assert self.held is not None, "nothing is copied before the lease"
        return self.held

    def discard(self) -> None:
        """Remove the packs of a backup that did not come into being; what cannot be removed is harmless."""
        for pack in self.uncommitted:
            with suppress(Fault):
                self.cluster.repository.store.delete(names.pack(self.cluster.uuid, pack))

    # ---- copying

    def _copy(
        self, started: StartedBackup, identity: Identity, crews: ExitStack
    ) -> tuple[BackupCrew, Detection, DataDirectory, Inventory, bytes]:
        """All files but pg_control by the workers, who then begin to finish, and pg_control."""
        detection = self._detect(started, identity)
        self.announce(Phase("copy", "copying the data directory"))
        directory, inventory = scan_complete(self.server, self.facts.data_directory)
        for path in directory.skipped:
            self.announce(Warned("file-skipped", f"{path} is a socket, pipe or device and not in the backup"))
        while True:
            try:
                crew = crews.enter_context(
                    Crew[Task, TaskResult, Finished](
                        self.request.processes, BackupWorker, self._worker_settings(started, detection)
                    )
                )
                self._copy_files(crew, identity, directory, detection)
                break
            except Fault as fault:
                crews.close()
                if fault.code not in ("base-doubtful", "format-damaged", "object-missing") or detection.base is None:
                    raise
                detection = self._fall_back(detection, fault)  # at most twice: by hash, then without a base
        self._watch(identity, now=True)
        _, control = read_control_bytes(os.path.join(self.facts.data_directory, CONTROL_FILE), self.clock)
        return crew, detection, directory, inventory, control

    def _detect(self, started: StartedBackup, identity: Identity) -> Detection:
        detector = Detector(
            self.cluster, self.archive, self.facts, started.lsn, identity.timeline, self.lease, self.clock,
            self.announce,
        )  # fmt: skip
        return detector.detect(self.request.mode)

    def _fall_back(self, detection: Detection, fault: Fault) -> Detection:
        """The base is not what it seemed: begin again without what made it doubtful."""
        self.discard()
        self.copied, self.packs, self.live, self.uncommitted = Copied(PackTable()), [], {}, set()
        if fault.code == "base-doubtful":
            hint = "something went back in time (a snapshot that was rolled back, a clone, a database made anew)"
            self.announce(Warned("base-dropped", f"{fault.message}; all pages are compared by their hashes", hint))
            return detection.by_hash(fault.message)
        self.announce(Warned("base-dropped", f"the base cannot be read ({fault.message}); everything is stored"))
        return Detection("full", f"the base cannot be read: {fault.message}")

    def _copy_files(self, crew: BackupCrew, identity: Identity, directory: DataDirectory, detection: Detection) -> None:
        total = sum(content_length(entry) for entry in directory.entries)
        segment_blocks = self.facts.relation_segment_blocks
        files = detection.files(segment_blocks)
        tasks = plan_tasks(directory.entries, segment_blocks, files.finder() if files else None)
        done, stored = 0, 0
        by_worker: dict[int, int] = {}
        for result in chain(crew.run(tasks, lambda: self._watch(identity)), crew.each(())):
            self.uncommitted.update(result.packs)
            by_worker[result.worker] = result.stored
            done += result.reported.length
            stored = sum(by_worker.values())
            self.copied.add(result.reported)
            self.announce(Progress(done, total, stored))
        self.live = self._maps_kept(detection)
        crew.ask_to_finish()
        self.announce(Progress(total, total, stored))

    def _own_finished(self, crew: BackupCrew) -> None:
        for one in crew.finish():  # as they come: if a later one fails, these packs must be given back
            self._own(one.packs)
            self.live = joined_live([self.live, one.live])

    def _maps_kept(self, detection: Detection) -> dict[ObjectId, bytes]:
        """The frames of the maps of files that workers shared and found unchanged: none of them could tell alone."""
        if detection.base is None:
            return {}
        packs = [(pack.id, pack.footer) for pack in detection.base.outer.packs]
        live = LiveFrames(PackTables(self.cluster.repository, self.cluster.uuid, packs))
        for where in self.copied.kept():
            if where.place is Place.MAP:
                live.mark(where.pack, FrameKind.MAPS, where.at, where.length)
        return live.bitmaps()

    def _worker_settings(self, started: StartedBackup, detection: Detection) -> WorkerSettings:
        return WorkerSettings(
            RepositoryAddress.of(self.cluster.repository),
            self.cluster.uuid,
            self.facts.data_directory,
            self.request.level,
            self.facts.data_checksums,
            started.lsn,
            self._base_settings(started, detection),
        )

    def _base_settings(self, started: StartedBackup, detection: Detection) -> BaseSettings | None:
        if detection.base is None:
            return None
        return BaseSettings(
            tuple((pack.id, pack.footer) for pack in detection.base.outer.packs),
            detection.avoid,
            Lsn(detection.base.info.start_lsn),
            started.lsn,
            int.from_bytes(self.entropy(8), "big"),
        )

    def _own(self, written: Sequence[WrittenPack]) -> None:
        self.packs += written
        self.uncommitted.update(pack.id for pack in written)

    def _watch(self, identity: Identity, *, now: bool = False) -> None:
        """Notice a lost connection, a restart or a promotion before hours are spent."""
        if not now and self.clock.monotonic() - self.watched < WATCH_EVERY:
            return
        self.watched = self.clock.monotonic()
        self.lease.renew_if_due()
        self.server.check_same(identity)

    # ---- stopping

    def _stop(self, crew: BackupCrew, identity: Identity) -> StoppedBackup:
        """The workers make their last packs durable meanwhile; what they made is known whatever the server says."""
        self.announce(Phase("stop", "ending the backup on the server"))
        try:
            self.server.check_same(identity)
            return self.server.backup_stop()
        finally:
            self._own_finished(crew)

    def _check_still_complete(self, directory: DataDirectory, before: Inventory) -> None:
        """What must be there and vanished while it was copied makes the backup void.

        Relation files are left aside: they vanish by DROP and TRUNCATE, and WAL knows.
        """
        after = Inventory.of(self.server)
        kept = EntryTable(
            entry
            for number, entry in enumerate(directory.entries)
            if entry.fork is None and number not in self.copied.vanished
        )
        left = replace(directory, entries=kept)
        fault = check_complete(left, before.homes_still_in(after), before.tablespaces_still_in(after))
        if fault is not None:
            raise fault
        check_mounted(directory, before.tablespaces_still_in(after))

    def _wait_for_wal(
        self, started: StartedBackup, stopped: StoppedBackup, timeline: int, detection: Detection
    ) -> WalNeeds:
        """The backup's own WAL, and what the proof of its base still lacked."""
        self.announce(Phase("archive", "waiting for the WAL that makes the backup consistent"))
        size = self.archive.segment_size
        needed = WalRange(timeline=timeline, first=started.lsn // size, last=last_segment_number(stopped.lsn, size))
        wal_directory = os.path.join(self.facts.data_directory, "pg_wal")
        own = (Segment(timeline, number) for number in range(needed.first, needed.last + 1))
        segments = [*detection.awaited, *own]
        timeout = self.request.archive_timeout
        idle, archiver = self.lease.renew_if_due, self.server.archiver
        wait_for_archive(self.archive, segments, wal_directory, self.clock, timeout, archiver, idle)
        return WalNeeds(ranges=[needed], history=read_history(self.archive, timeline, wal_directory))

    # ---- the manifest

    def _entries(self, directory: DataDirectory, control: bytes) -> PackedRows[Entry]:
        """The manifest's entries; writes the last pack, of pg_control and the extent maps."""
        repository = self.cluster.repository
        writer = PackWriter(
            repository, self.cluster.uuid, self.clock, page_size=BLCKSZ, level=self.request.level,
            entropy=self.entropy,
        )  # fmt: skip
        maker = EntryMaker(
            self.copied,
            lambda path, data: writer.add_bytes(path, 0, memoryview(data), FrameKind.MAPS),
            repository.keys.extent_map,
        )
        for number, entry in enumerate(directory.entries):
            if entry.type is EntryType.FILE and is_copied_apart(entry.path):
                report = Report()
                place = writer.add_bytes(os.fsencode(entry.path), 0, memoryview(control))
                report.place(number, 0, place, len(control))
                self.copied.add(report.done())
        entries = PackedRows(Entry, maker.entries(directory.entries))
        self._own(writer.finish())
        return entries

    def _commit(
        self, course: Course, directory: DataDirectory, entries: PackedRows[Entry], found: Names,
        inventory: Inventory, needs: WalNeeds,
    ) -> ManifestInfo:  # fmt: skip
        self.announce(Phase("commit", "writing the manifest"))
        bad = bad_pages(directory.entries, self.copied, course.stopped.lsn)
        for file in bad:
            self._warn_of(file)
        stored = sum(pack.footer.object_length for pack in self.packs)
        info = manifest_info(self.cluster, self.facts, course, entries, stored, sum(len(file.blocks) for file in bad))
        inner = Inner(
            server=server_info(self.facts, owner_name(self.facts.data_directory), course.snapshot),
            backup_label=course.stopped.backup_label,
            tablespace_map=course.stopped.tablespace_map,
            wal=needs,
            bad_pages=bad,
            relations=found.relations,
            collations=found.collations,
            attachments=attachments(self.facts, self.announce),
            tablespaces=tablespaces(inventory, directory),
            databases=databases(inventory),
        )
        base = course.detection.base
        packs = self.copied.packs.rows(self.packs, base.outer.packs if base else (), self.live)
        outer = Outer(info, seen_manifests(self.cluster), packs)
        self._create_manifest(outer, inner, entries)
        return info

    def _create_manifest(self, outer: Outer, inner: Inner, entries: Iterable[Entry]) -> None:
        """From here on a manifest may name the packs: an interrupt or an outage can come after it got its name.

        They are given back only where it is certain that it did not.
        """
        packs, self.uncommitted = self.uncommitted, set()
        try:
            write_backup(self.cluster, outer, inner, entries, self.clock, self.lease)
        except Fault as fault:
            if fault.code != "store-unreachable" and not self._may_exist():
                self.uncommitted = packs
            raise

    def _may_exist(self) -> bool:
        try:
            self.cluster.repository.store.stat(names.backup(self.cluster.uuid, self.backup))
        except Fault as fault:
            return fault.code != "object-missing"
        return True

    def _warn_of(self, file: BadPages) -> None:
        shown = ", ".join(map(str, file.blocks[:5])) + (" ..." if len(file.blocks) > 5 else "")
        path = file.path.decode("utf-8", "backslashreplace")
        self.announce(
            Warned(
                "bad-pages",
                f"{len(file.blocks)} pages of {path} are damaged on the server: blocks {shown}",
                "they are in the backup as they are; find the relation and restore it from an older backup",
            )
        )
