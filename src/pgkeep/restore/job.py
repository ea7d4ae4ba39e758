"""The restore: look, choose, plan; then write, and start.  Nothing is written before the plan stands and is safe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pgkeep.errors import Damaged, Fault
from pgkeep.events import Announce, Noted, Phase, Warned
from pgkeep.format.manifest import EntryType
from pgkeep.pg.account import Account
from pgkeep.pg.instance import free_port
from pgkeep.repo.backups import Manifest, backup_ids, read_manifest
from pgkeep.repo.repository import Cluster
from pgkeep.restore import preflight
from pgkeep.restore.materialise import materialise
from pgkeep.restore.overwrite import begin, plan_over
from pgkeep.restore.plan import (
    Caution,
    RestorePlan,
    directory_mode,
    gather_warnings,
    live_bytes,
    wal_to_replay,
)
from pgkeep.restore.present import How, Present, PresentWal, in_place_mappings, owned_targets
from pgkeep.restore.search import UNREADABLE, Search, Settled, Wanted
from pgkeep.restore.settings import Action, ConfigurationPlan, Place, Recovery, plan_configuration, spool_path
from pgkeep.restore.standby import Standby
from pgkeep.restore.start import Recovered, start_restored
from pgkeep.restore.survey import Survey, survey
from pgkeep.restore.tablespaces import MappedTablespace, check_created, map_tablespaces
from pgkeep.restore.target import Target, TargetKind
from pgkeep.values.ids import BackupId
from pgkeep.values.recovery import FILE_NAME, RecoveryLineage

_SOCKET_NAME: Final = "/.s.PGSQL.65535"
_SUN_PATH_MAX: Final = 107
_PREFETCHES_SINCE: Final = 15


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
    present: Present | None = None
    """What is there and is to be restored over (`look_at`); None: the directory must be absent or empty."""
    present_wal: PresentWal | None = None
    stamp: str = ""
    """The moment of the restore, for the names of what is kept."""
    standby: Standby | None = None


@dataclass(frozen=True, slots=True)
class PreparedRestore:
    """A plan and what carrying it out needs."""

    plan: RestorePlan
    cluster: Cluster
    manifest: Manifest
    processes: int


def server_zone(cluster: Cluster) -> str:
    """The time zone of the server as its newest backup knows it; 'UTC' without a backup.  For reading times."""
    for backup in reversed(backup_ids(cluster)):
        try:
            return read_manifest(cluster, backup).inner.server.timezone
        except Fault as fault:
            if fault.code not in UNREADABLE:
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
    if request.present is None:
        preflight.check_directory(directory)
    announce(Phase("plan", "choosing the backup and the WAL for the target"))
    settled = Search(cluster, _wanted(request), announce).run()
    with _pointing_at_other_backups():
        surveyed = survey(cluster, settled.manifest)
    spaces = _spaces(settled.manifest, directory, request)
    owned = owned_targets(request.present, spaces) if request.present is not None else frozenset()
    preflight.check_tablespaces(spaces, owned=owned)
    preflight.check_outside([directory, *(os.path.realpath(space.target) for space in spaces)])
    plan = _plan(request, directory, settled, surveyed, spaces)
    if request.present is not None:
        plan = plan_over(plan, request.present, settled.manifest, stamp=request.stamp, wal=request.present_wal)
    if request.standby is not None:
        cautions = tuple(Caution(*each) for each in request.standby.cautions)
        plan = replace(plan, warnings=(*plan.warnings, *cautions))
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
    kind = begin(plan)
    with _pointing_at_other_backups():
        written = materialise(
            prepared.cluster,
            prepared.manifest,
            plan.destination(),
            plan.overlays(),
            processes=prepared.processes,
            announce=announce,
            kind=kind,
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


def _wanted(request: RestoreRequest) -> Wanted:
    return Wanted(request.target, request.backup, request.bindir, request.processes, request.scratch)


def _spaces(manifest: Manifest, directory: str, request: RestoreRequest) -> tuple[MappedTablespace, ...]:
    mappings = {old: os.path.realpath(new) for old, new in request.tablespaces.items()}
    if request.present is not None and request.present.how is not How.KEEP:
        places = {space.oid: os.path.normpath(os.fsdecode(space.location)) for space in manifest.inner.tablespaces}
        mappings = in_place_mappings(request.present, places, manifest.inner.server.data_directory, mappings)
    return map_tablespaces(manifest.inner.tablespaces, directory, mappings)


def _plan(
    request: RestoreRequest,
    directory: str,
    settled: Settled,
    surveyed: Survey,
    spaces: tuple[MappedTablespace, ...],
) -> RestorePlan:
    inner, info = settled.manifest.inner, settled.manifest.info
    candidate, choice, stop = settled.candidate, settled.choice, settled.stop
    created = settled.scan.created_before(stop.replayed_before())
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
        standby=request.standby,
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


def _lineage(settled: Settled) -> RecoveryLineage:
    cluster = settled.cluster
    system_id = settled.candidate.info.system_id
    size, history = settled.choice.size, settled.choice.history
    reached = settled.candidate.reach
    last = reached.last + (reached.partial is not None)
    flush = reached.partial.flush if reached.partial is not None else None
    return RecoveryLineage(cluster.repository.id, cluster.uuid, system_id, size, history, last, flush)


def _modes(manifest: Manifest) -> list[int]:
    """Permission bits of the directories at the top."""
    return [e.mode for e in manifest.entries() if e.type is EntryType.DIRECTORY and b"/" not in e.path]


def _place(request: RestoreRequest, directory: str) -> Place:
    sockets = request.socket_directory
    if sockets is None:
        fits = len(os.fsencode(directory + _SOCKET_NAME)) <= _SUN_PATH_MAX and "," not in directory
        sockets = directory if fits else "/tmp"  # noqa: S108 - PostgreSQL's own default
    return Place(directory, request.port or free_port(), sockets, request.listen)


def _configuration(
    request: RestoreRequest, settled: Settled, surveyed: Survey, place: Place, account: Account
) -> ConfigurationPlan:
    recovery = Recovery(
        settled.stop.recover_to,
        settled.choice.history.timeline,
        request.action,
        request.fetch(account),
        os.path.join(place.directory, FILE_NAME),
        spool_path(place.directory, os.urandom(8).hex()),
        standby=request.standby,
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
