"""The restore: look, choose, plan; then write, and start.  Nothing is written before the plan stands and is safe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pgkeep.catalog.timelines import parse_history, read_timelines
from pgkeep.catalog.walfacts import WalScan, merge
from pgkeep.catalog.walscan import scan
from pgkeep.errors import Damaged, Fault
from pgkeep.events import Announce, Noted, Phase, Warned
from pgkeep.format import names
from pgkeep.format.manifest import EntryType, ManifestInfo
from pgkeep.pg.account import Account
from pgkeep.pg.instance import free_port
from pgkeep.pg.programs import Programs
from pgkeep.repo.backups import Manifest, backup_ids, read_info, read_manifest
from pgkeep.repo.repository import Cluster
from pgkeep.repo.walarchive import WalArchive
from pgkeep.restore import preflight
from pgkeep.restore.choice import ArchiveView, Candidate, Choice, choose
from pgkeep.restore.materialise import materialise
from pgkeep.restore.plan import (
    RestorePlan,
    directory_mode,
    gather_warnings,
    live_bytes,
    wal_to_replay,
)
from pgkeep.restore.settings import Action, ConfigurationPlan, Place, Recovery, plan_configuration
from pgkeep.restore.start import Recovered, start_restored
from pgkeep.restore.stops import Stop, is_over, last_segment, not_found, settle, sought
from pgkeep.restore.survey import Survey, survey
from pgkeep.restore.tablespaces import MappedTablespace, check_created, map_tablespaces
from pgkeep.restore.target import Target, TargetKind
from pgkeep.values.ids import BackupId
from pgkeep.values.lsn import Lsn
from pgkeep.values.recovery import FILE_NAME, RecoveryLineage
from pgkeep.values.xid import XidSnapshot

_SOCKET_NAME: Final = "/.s.PGSQL.65535"
_SUN_PATH_MAX: Final = 107
_PREFETCHES_SINCE: Final = 15
_UNREADABLE: Final = frozenset({"format-damaged", "format-unsupported", "backup-unknown"})
"""Faults of a manifest alone; the last when it was deleted since it was listed."""


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What was asked for.

    `fetch` gives the words of `pgkeep --config ABS wal get` that an account can run.  `port` None takes a free one;
    `socket_directory` None the data directory itself, or /tmp where that path is too long for a socket.
    """

    directory: str
    target: Target
    fetch: Callable[[Account], tuple[str, ...]]
    backup: BackupId | None = None
    action: Action = Action.PROMOTE
    tablespaces: Mapping[str, str] = field(default_factory=dict)
    """Original path -> new path (`tablespaces.parse_mapping`)."""
    port: int | None = None
    socket_directory: str | None = None
    listen: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of the restored server that beat all others."""
    bindir: Path | None = None
    processes: int = 2
    scratch: Path | None = None
    """Where WAL is laid out to be read; None: the system's temporary directory."""


@dataclass(frozen=True, slots=True)
class PreparedRestore:
    """A plan and what carrying it out needs."""

    plan: RestorePlan
    cluster: Cluster
    manifest: Manifest
    processes: int


@dataclass(frozen=True, slots=True)
class _Settled:
    """The backup that was chosen, and where recovery from it stops."""

    cluster: Cluster
    candidate: Candidate
    choice: Choice
    stop: Stop
    scan: WalScan
    manifest: Manifest
    programs: Programs


def server_zone(cluster: Cluster) -> str:
    """The time zone of the server as its newest backup knows it; 'UTC' without a backup.  For reading times."""
    for backup in reversed(backup_ids(cluster)):
        try:
            return read_manifest(cluster, backup).inner.server.timezone
        except Fault as fault:
            if fault.code not in _UNREADABLE:
                raise
    return "UTC"


def plan_restore(cluster: Cluster, request: RestoreRequest, announce: Announce) -> PreparedRestore:
    """Look at everything, refuse what cannot be, and say what will be done.  Writes nothing to the target."""
    if request.action is Action.PAUSE and request.target.kind is TargetKind.LATEST:
        raise Fault(
            "usage",
            "recovery to the end of the archive cannot pause there: the server promotes itself at the end of WAL",
            hint="name a target (--time, --lsn), or leave out --action pause",
        )
    directory = preflight.resolve_directory(request.directory)
    preflight.check_directory(directory)
    announce(Phase("plan", "choosing the backup and the WAL for the target"))
    settled = _Search(cluster, request, announce).run()
    with _pointing_at_other_backups():
        surveyed = survey(cluster, settled.manifest)
    spaces = _spaces(settled.manifest, directory, request)
    preflight.check_tablespaces(spaces)
    preflight.check_outside([directory, *(os.path.realpath(space.target) for space in spaces)])
    plan = _plan(request, directory, settled, surveyed, spaces)
    preflight.check_space(plan.volumes)
    for warning in plan.warnings:
        announce(Warned(warning.code, warning.text, warning.hint))
    return PreparedRestore(plan, cluster, settled.manifest, request.processes)


def restore(
    cluster: Cluster, request: RestoreRequest, announce: Announce, *, start: bool = False
) -> tuple[RestorePlan, Recovered | None]:
    """Plan, write and, with `start`, recover.  Who wants to show the plan first calls the steps."""
    prepared = plan_restore(cluster, request, announce)
    carry_out(prepared, announce)
    return prepared.plan, start_restored(prepared.plan, announce) if start else None


def carry_out(prepared: PreparedRestore, announce: Announce) -> int:
    """Write the files of a plan; bytes written.  The directory is then ready to be started."""
    plan = prepared.plan
    preflight.check_directory(plan.directory)
    with _pointing_at_other_backups():
        written = materialise(
            prepared.cluster,
            prepared.manifest,
            plan.destination(),
            plan.overlays(),
            processes=prepared.processes,
            announce=announce,
        )
    announce(Noted(f"restored backup {plan.backup.backup} to {plan.directory}"))
    return written


@contextmanager
def _pointing_at_other_backups() -> Iterator[None]:
    try:
        yield
    except Damaged as damage:
        damage.hint = "restore from another backup with --backup ID; pgkeep verify names those that are sound"
        raise


class _Search:
    """Goes through the candidates, newest first, until one serves the target."""

    def __init__(self, cluster: Cluster, request: RestoreRequest, announce: Announce) -> None:
        self._cluster = cluster
        self._request = request
        self._announce = announce
        self._points: list[str] = []

    def run(self) -> _Settled:
        infos = self._infos()
        archive = WalArchive(self._cluster, infos[0].system_id, infos[0].wal_segment_size)
        choice = choose(infos, self._view(archive, infos), self._request.target, self._request.backup)
        programs = preflight.programs_for(infos[0].server_version // 10000, self._request.bindir)
        for number, candidate in enumerate(choice.candidates):
            others = number + 1 < len(choice.candidates)
            manifest = self._manifest(candidate.id, others=others)
            if manifest is None or (self._too_new(manifest) and others):
                continue
            found = self._try(archive, choice, candidate, programs)
            if found is not None:
                return _Settled(self._cluster, candidate, choice, *found, manifest, programs)
        raise not_found(self._request.target, choice, tuple(self._points))

    def _infos(self) -> list[ManifestInfo]:
        """All backups of the incarnation that is meant: that of the named backup, else of the newest."""
        known = list(self._readable())
        if not known:
            raise Fault(
                "backup-unknown", f"cluster {self._cluster.name} has no backup", hint="take one with: pgkeep backup"
            )
        base = next((info for info in known if info.backup == self._request.backup), known[-1])
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
        if backup == self._request.backup or fault.code not in _UNREADABLE:
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
        return ArchiveView(listing, read_timelines(archive, listing, known).histories)

    def _too_new(self, manifest: Manifest) -> bool:
        target = self._request.target
        if target.kind is not TargetKind.XID or target.xid is None:
            return False
        try:
            return is_over(XidSnapshot.parse(manifest.inner.server.snapshot), target.xid)
        except ValueError:
            return False

    def _try(
        self, archive: WalArchive, choice: Choice, candidate: Candidate, programs: Programs
    ) -> tuple[Stop, WalScan] | None:
        target = self._request.target
        last = last_segment(target, candidate, choice.size)
        found = self._scan(archive, choice, candidate, programs, candidate.start, last)
        complete = last == candidate.reach.last
        stop = settle(target, candidate, found, choice, complete=complete)
        newest = candidate is choice.candidates[0]
        if stop is None and not complete and found.hit is None and (newest or target.kind is TargetKind.TIME):
            # What begins at the end of the first stretch and goes on behind it was not read: so from there.
            rest = self._scan(archive, choice, candidate, programs, found.end, candidate.reach.last)
            found = merge([found, rest])
            stop = settle(target, candidate, found, choice, complete=True)
        self._points += [point.name for point in found.restore_points]
        return (stop, found) if stop is not None else None

    def _scan(
        self, archive: WalArchive, choice: Choice, candidate: Candidate, programs: Programs, first: Lsn, last: int
    ) -> WalScan:
        reached = candidate.reach
        return scan(
            archive,
            choice.history,
            first,
            last,
            programs,
            partial=reached.partial if last == reached.last else None,
            sought=sought(self._request.target),
            workers=self._request.processes,
            announce=self._announce,
            scratch=self._request.scratch,
        )


def _spaces(manifest: Manifest, directory: str, request: RestoreRequest) -> tuple[MappedTablespace, ...]:
    mappings = {old: os.path.realpath(new) for old, new in request.tablespaces.items()}
    return map_tablespaces(manifest.inner.tablespaces, directory, mappings)


def _plan(
    request: RestoreRequest,
    directory: str,
    settled: _Settled,
    surveyed: Survey,
    spaces: tuple[MappedTablespace, ...],
) -> RestorePlan:
    inner, info = settled.manifest.inner, settled.manifest.info
    candidate, choice, stop = settled.candidate, settled.choice, settled.stop
    created = settled.scan.created_before(_replayed_before(stop))
    unmade = check_created(created, preflight.existing_paths(space.path for space in created))
    account = preflight.account_for(inner.server.owner)
    place = _place(request, directory)
    configuration = _configuration(request, settled, surveyed, place, account)
    wal = wal_to_replay(candidate, choice, stop)
    needs = {space.target: surveyed.on_disk[space.oid] for space in spaces}
    needs[directory] = surveyed.on_disk[0] + min(preflight.wal_space(choice.size), wal.bytes + 2 * choice.size)
    return RestorePlan(
        directory=directory,
        target=request.target,
        stop=stop,
        action=request.action,
        backup=info,
        timeline=choice.history.timeline,
        history=choice.history,
        lineage=_lineage(settled),
        files=surveyed.files,
        write_bytes=surveyed.bytes,
        read_bytes=live_bytes(settled.manifest.outer.packs),
        wal=wal,
        tablespaces=spaces,
        volumes=preflight.volumes(needs),
        place=place,
        configuration=configuration,
        programs=settled.programs,
        account=account,
        mode=directory_mode(_modes(settled.manifest)),
        zone=inner.server.timezone,
        warnings=gather_warnings(
            inner,
            candidate,
            choice,
            surveyed,
            configuration,
            stop=stop,
            missing_libraries=preflight.missing_libraries(settled.programs, inner.server.shared_preload_libraries),
            library_version=preflight.library_version(),
            unmade=unmade,
        ),
    )


def _lineage(settled: _Settled) -> RecoveryLineage:
    cluster = settled.cluster
    system_id = settled.candidate.info.system_id
    size, history = settled.choice.size, settled.choice.history
    reached = settled.candidate.reach
    last = reached.last + (reached.partial is not None)
    return RecoveryLineage(cluster.repository.id, cluster.uuid, system_id, size, history, last)


def _modes(manifest: Manifest) -> list[int]:
    """Permission bits of the directories at the top."""
    return [e.mode for e in manifest.entries() if e.type is EntryType.DIRECTORY and b"/" not in e.path]


def _replayed_before(stop: Stop) -> Lsn | None:
    """Records that begin before this may be replayed; None: all that were scanned.

    An inclusive LSN of the user's need not be where a record begins: the next one is replayed then.
    """
    if stop.position is None or (stop.recover_to.kind is TargetKind.LSN and stop.last is None):
        return None if stop.recover_to.inclusive else stop.position
    return Lsn(stop.position + 1)


def _place(request: RestoreRequest, directory: str) -> Place:
    sockets = request.socket_directory
    if sockets is None:
        fits = len(os.fsencode(directory + _SOCKET_NAME)) <= _SUN_PATH_MAX and "," not in directory
        sockets = directory if fits else "/tmp"  # noqa: S108 - PostgreSQL's own default
    return Place(directory, request.port or free_port(), sockets, request.listen)


def _configuration(
    request: RestoreRequest, settled: _Settled, surveyed: Survey, place: Place, account: Account
) -> ConfigurationPlan:
    recovery = Recovery(
        settled.stop.recover_to,
        settled.choice.history.timeline,
        request.action,
        request.fetch(account),
        os.path.join(place.directory, FILE_NAME),
        looks_ahead=settled.candidate.reach.gap is None or settled.programs.major < _PREFETCHES_SINCE,
    )
    return plan_configuration(
        surveyed.configuration,
        settled.manifest.inner.server,
        settled.programs.major,
        place,
        recovery,
        request.settings,
    )
