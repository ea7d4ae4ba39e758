"""`init`: find the server, make the repository, register the cluster, say what the server lacks.

Nothing is made before the server has answered, and everything may be repeated.  What changes the server, or makes it
write, is in `settle`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pgkeep import __version__
from pgkeep.app.place import APPLICATION
from pgkeep.app.search import answering_server, check_owner
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Phase, silent
from pgkeep.format.objects import IncarnationInfo
from pgkeep.pg import server
from pgkeep.pg.account import Account, owner_of
from pgkeep.pg.controlfile import CONTROL_FILE, read_control
from pgkeep.pg.facts import ServerFacts
from pgkeep.pg.rights import missing_grants
from pgkeep.pg.runtime import answers_version, shell_command
from pgkeep.repo.repository import (
    Cluster,
    Repository,
    clusters,
    create_repository,
    open_repository,
    register_cluster,
)
from pgkeep.restore.preflight import volumes
from pgkeep.restore.takeover import READ_AT_START, plan_takeover
from pgkeep.store.disks import share_a_disk
from pgkeep.store.open import create_store, directory_of, open_store
from pgkeep.store.wrap.patient import patient
from pgkeep.values.ids import ClusterUuid
from pgkeep.values.quantity import show_size
from pgkeep.wal.claims import Adoption, adopt
from pgkeep.wal.setup import NEED_A_RESTART, ArchiveSetup, Statement, plan_setup


@dataclass(frozen=True, slots=True)
class InitRequest:
    """What is to be brought about."""

    url: str
    cluster_name: str
    connections: Sequence[str]
    """Tried in this order, the first that answers counts; none: the server that runs on this machine is looked for."""
    program: Sequence[str]
    """How the server will start this pgkeep."""
    options: Sequence[str]
    """The global options of its `wal push %p`."""
    script: str = ""
    """What the server's shell reads first (wal/archived.sh), and what then runs the program; '': nothing."""
    adopt: bool = False
    dry_run: bool = False

    @property
    def archive_command(self) -> str:
        push = f"{shell_command([*self.program, *self.options, 'wal', 'push'])} %p"
        return f"set -- {push}; . {shell_command([self.script])}" if self.script else push


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the backups go, as far as this machine can tell; bytes."""

    database_size: int
    free: int | None
    """None for a store that is no directory."""
    same_disk: bool


@dataclass(frozen=True, slots=True)
class InitReport:
    """What was found and made (in a dry run: would be made)."""

    url: str
    connection: str
    facts: ServerFacts
    cluster_name: str
    cluster_uuid: ClusterUuid | None
    """None when a dry run did not register it."""
    made_repository: bool
    registered: bool
    adoption: Adoption | None
    storage: Storage
    setup: ArchiveSetup


def initialise(request: InitRequest, clock: Clock, announce: Announce = silent) -> InitReport:
    """Faults: postgres-unreachable, usage, cluster-mismatch (the name, or the server, is registered otherwise), and
    the store's.
    """
    announce(Phase("connect", "connecting to the server"))
    connection, facts = answering_server(request.connections)
    if is_here(facts):
        _check_account(request, owner_of(Path(facts.data_directory)))
    if request.adopt:
        _check_adoptable(facts)
    announce(Phase("register", f"opening the repository {request.url}"))
    repository, made = _open_or_create(request, clock, announce)
    cluster, registered = _registered(request, repository, facts, clock)
    return InitReport(
        url=request.url,
        connection=connection,
        facts=facts,
        cluster_name=request.cluster_name,
        cluster_uuid=cluster.uuid if cluster else None,
        made_repository=made,
        registered=registered,
        adoption=_adoption(request, repository, connection, facts, clock) if cluster and repository else None,
        storage=_storage(request, connection, facts),
        setup=needed_setup(request, connection, facts),
    )


def is_here(facts: ServerFacts) -> bool:
    """True when the data directory that the server names is this host's, and not another one under the same path."""
    try:
        control = read_control(os.path.join(facts.data_directory, CONTROL_FILE))
    except (Fault, OSError):
        return False
    return control.system_identifier == facts.system_identifier


def needed_setup(request: InitRequest, connection: str, facts: ServerFacts) -> ArchiveSetup:
    """What the server lacks now; faults of the connection."""
    with server.connect(connection, APPLICATION) as session:
        pending = session.pending_restart(NEED_A_RESTART)
        written = session.set_by_alter_system() if request.adopt else ()
    setup = plan_setup(facts, request.archive_command, missing_grants(connection, APPLICATION), pending)
    takeover = plan_takeover(written)
    over = [_reset(name, "the restore left it, for a recovery that is over") for name in takeover.over]
    apart = [
        _reset(name, "the restore keeps this server to itself: take it back in production") for name in takeover.apart
    ]
    return replace(setup, statements=(*setup.statements, *over), advice=(*setup.advice, *apart))


def _reset(name: str, why: str) -> Statement:
    return Statement(f"ALTER SYSTEM RESET {name};", why, "restart" if name in READ_AT_START else "reload")


def _check_account(request: InitRequest, owner: Account) -> None:
    """archive_command runs as the data directory's owner, with the server's environment."""
    check_owner(owner)
    if not answers_version(owner, request.program):
        raise Fault(
            "postgres-program",
            f"the server could not run this pgkeep as {shlex.join(request.program)!r}",
            hint="install pgkeep where every account can run it, or name a script that runs it in PGKEEP_PROGRAM",
        )


def _check_adoptable(facts: ServerFacts) -> None:
    """Before anything is registered: a server that follows another one has no timeline of its own to archive."""
    if facts.in_recovery:
        raise Fault(
            "usage",
            f"the server is still in recovery on timeline {facts.timeline}, which belongs to the server it comes from",
            hint="let it open first, which gives it a timeline of its own: SELECT pg_promote(); then adopt it",
        )
    if not is_here(facts):
        raise Fault(
            "usage",
            f"--adopt needs the data directory {facts.data_directory}, which this host or account cannot read",
            hint="run it on the server's host, as the server's account",
        )


def _storage(request: InitRequest, connection: str, facts: ServerFacts) -> Storage:
    with server.connect(connection, APPLICATION) as session:
        size = session.size()
    directory = directory_of(request.url)
    if directory is None:
        return Storage(size, None, same_disk=False)
    same = is_here(facts) and share_a_disk(directory, facts.data_directory)
    return Storage(size, volumes({directory: size})[0].free, same)


def storage_warnings(report: InitReport) -> tuple[str, ...]:
    """What makes the place a bad one for backups, as sentences."""
    storage, warnings = report.storage, []
    if storage.same_disk:
        warnings.append(
            f"{report.url} is on the same disk as the server's data: whatever destroys that disk takes the backups too."
            " Use other storage, or copy the repository elsewhere regularly"
        )
    if storage.free is not None and storage.free < storage.database_size:
        warnings.append(
            f"{report.url} has {show_size(storage.free)} free, and the databases take"
            f" {show_size(storage.database_size)}: compressed, they may or may not fit"
        )
    return tuple(warnings)


def _open_or_create(request: InitRequest, clock: Clock, announce: Announce) -> tuple[Repository | None, bool]:
    """(repository, was made); no repository in a dry run that would make one."""
    if request.dry_run:
        return _open_if_there(request.url)
    store = patient(create_store(request.url), clock, announce)
    try:
        return open_repository(store), False
    except Fault as fault:
        if fault.code != "no-repository":
            raise
    try:
        return create_repository(store, clock, f"pgkeep {__version__}"), True
    except Fault as fault:
        if fault.code != "repository-exists":  # another init was a moment faster
            raise
    return open_repository(store), False


def _open_if_there(url: str) -> tuple[Repository | None, bool]:
    """For a dry run: a place that is not there yet would be made."""
    try:
        return open_repository(open_store(url)), False
    except Fault as fault:
        if fault.code not in {"no-repository", "store-unreachable"}:
            raise
        return None, True


def _registered(
    request: InitRequest, repository: Repository | None, facts: ServerFacts, clock: Clock
) -> tuple[Cluster | None, bool]:
    """(cluster, was registered now); cluster-mismatch."""
    if repository is None:
        return None, True
    known = list(clusters(repository))
    ours = next((cluster for cluster in known if cluster.incarnation(facts.system_identifier)), None)
    if ours is not None:
        if ours.name != request.cluster_name:
            raise _other_name(request, ours)
        return ours, False
    named = next((cluster for cluster in known if cluster.name == request.cluster_name), None)
    if named is not None and not request.adopt:
        raise _other_server(request, named, facts)
    if request.dry_run:
        return named, True
    info = IncarnationInfo(
        system_id=facts.system_identifier,
        cluster_name=request.cluster_name,
        server_version=facts.version_num,
        first_seen=clock.now().isoformat(),
        wal_segment_size=facts.wal_segment_size,
    )
    return register_cluster(repository, info, clock, uuid=named.uuid if named else None), True


def _other_name(request: InitRequest, ours: Cluster) -> Fault:
    return Fault(
        "cluster-mismatch",
        f"the repository knows this server as {ours.name!r}, not as {request.cluster_name!r}",
        hint=f"name it [cluster.{ours.name}] in the configuration, or use --cluster {ours.name}",
    )


def _other_server(request: InitRequest, named: Cluster, facts: ServerFacts) -> Fault:
    known = ", ".join(str(incarnation.system_id) for incarnation in named.incarnations)
    return Fault(
        "cluster-mismatch",
        f"the repository knows another server as {request.cluster_name!r}: system identifier {known}, and this one has"
        f" {facts.system_identifier}",
        hint="if this server continues that one (after pg_upgrade or a reload of its data): pgkeep init --adopt;"
        " if it is another one, give it another name with --cluster",
    )


def _adoption(
    request: InitRequest, repository: Repository, connection: str, facts: ServerFacts, clock: Clock
) -> Adoption | None:
    """Take over the timeline's claim, where that was asked for."""
    if not request.adopt or request.dry_run:
        return None
    with server.connect(connection, APPLICATION) as session:
        position = session.wal_position()
    return adopt(repository, facts.data_directory, clock, timeline=facts.timeline, position=position)
