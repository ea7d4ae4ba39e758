"""`init`: find the server, make the repository, register the cluster, say what the server lacks.

Nothing is made before the server has answered, and everything may be repeated.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pgkeep import __version__
from pgkeep.app.place import APPLICATION, patient
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
from pgkeep.store.open import create_store, open_store
from pgkeep.values.ids import ClusterUuid
from pgkeep.wal.claims import Adoption, adopt
from pgkeep.wal.setup import ArchiveSetup, plan_setup


@dataclass(frozen=True, slots=True)
class InitRequest:
    """What is to be brought about."""

    url: str
    cluster_name: str
    connections: Sequence[str]
    """Tried in this order; the first that answers counts."""
    program: Sequence[str]
    """How the server will start this pgkeep."""
    options: Sequence[str]
    """The global options of its `wal push %p`."""
    adopt: bool = False
    dry_run: bool = False


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
    setup: ArchiveSetup


def initialise(request: InitRequest, clock: Clock, announce: Announce = silent) -> InitReport:
    """Faults: postgres-unreachable, usage, cluster-mismatch (the name, or the server, is registered otherwise), and
    the store's.
    """
    announce(Phase("connect", "connecting to the server"))
    connection, facts = _first_that_answers(request.connections)
    if _is_here(facts):
        _check_account(request, owner_of(Path(facts.data_directory)))
    announce(Phase("register", f"opening the repository {request.url}"))
    repository, made = _open_or_create(request, clock, announce)
    cluster, registered = _registered(request, repository, facts, clock)
    command = f"{shell_command([*request.program, *request.options, 'wal', 'push'])} %p"
    return InitReport(
        url=request.url,
        connection=connection,
        facts=facts,
        cluster_name=request.cluster_name,
        cluster_uuid=cluster.uuid if cluster else None,
        made_repository=made,
        registered=registered,
        adoption=_adoption(request, repository, connection, facts, clock) if cluster and repository else None,
        setup=plan_setup(facts, command, missing_grants(connection, APPLICATION)),
    )


def _first_that_answers(connections: Sequence[str]) -> tuple[str, ServerFacts]:
    refused: Fault | None = None
    for connection in connections:
        try:
            with server.connect(connection, APPLICATION) as session:
                return connection, session.facts()
        except Fault as fault:
            if fault.code != "postgres-unreachable":
                raise
            refused = refused or fault
    assert refused is not None, "there is always a connection to try"
    raise refused


def _is_here(facts: ServerFacts) -> bool:
    """True when the data directory that the server names is this host's, and not another one under the same path."""
    try:
        control = read_control(os.path.join(facts.data_directory, CONTROL_FILE))
    except (Fault, OSError):
        return False
    return control.system_identifier == facts.system_identifier


def _check_account(request: InitRequest, owner: Account) -> None:
    """archive_command runs as the data directory's owner, with the server's environment."""
    if not owner.is_self:
        raise Fault(
            "usage",
            f"the server runs as {owner.name}, who could not write WAL into what this account makes",
            hint=f"run it as that account: sudo -u {owner.name} pgkeep init ...",
        )
    if not answers_version(owner, request.program):
        raise Fault(
            "postgres-program",
            f"the server could not run this pgkeep as {shlex.join(request.program)!r}",
            hint="install pgkeep where every account can run it, or name a script that runs it in PGKEEP_PROGRAM",
        )


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
    """Take over the timeline's claim, where that was asked for; usage when the data directory is elsewhere."""
    if not request.adopt or request.dry_run:
        return None
    if not _is_here(facts):
        raise Fault(
            "usage",
            f"--adopt needs the data directory {facts.data_directory}, which this host or account cannot read",
            hint="run it on the server's host, as the server's account",
        )
    with server.connect(connection, APPLICATION) as session:
        position = session.wal_position()
    return adopt(repository, facts.data_directory, clock, timeline=facts.timeline, position=position)
