"""`dump`: the server is asked, the plan is made, and carried out: into the repository, or to a path."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from pgkeep.app.place import APPLICATION, Place, available_processors
from pgkeep.clock import Clock
from pgkeep.config.settings import ClusterSettings
from pgkeep.errors import Fault
from pgkeep.events import Announce
from pgkeep.format.dump import DumpInfo
from pgkeep.logical.intorepo import dump_into_repository
from pgkeep.logical.lockwatch import FIRST_LOOK, Ask, LockWatch
from pgkeep.logical.plan import UNLESS_IN_USE, DumpPlan, Skipped, Surveyed, plan_dump, which_databases
from pgkeep.logical.request import DumpRequest
from pgkeep.logical.room import Room, room_in
from pgkeep.logical.scratch import MEMORY
from pgkeep.logical.topath import WrittenDump, check_target, dump_to_path
from pgkeep.pg.dumpable import (
    DumpableDatabase,
    DumpServer,
    holds_something,
    read_dump_server,
    read_dumpable,
    read_table_sizes,
)
from pgkeep.pg.link import Link, link_of
from pgkeep.pg.programs import NEWEST_MAJOR, OLDEST_MAJOR
from pgkeep.pg.session import Session
from pgkeep.pg.tools import DUMP_TOOLS, Compressions, choose_dump_tools, find_tools
from pgkeep.repo.repository import Cluster


@dataclass(frozen=True, slots=True)
class DumpTarget:
    """Where a dump goes: to a path (absolute), or into the repository by way of `scratch` (None: in memory)."""

    to: str | None = None
    scratch: str | None = None


@dataclass(frozen=True, slots=True)
class PreparedDump:
    """A plan, and what carrying it out needs besides."""

    plan: DumpPlan
    link: Link
    now: Callable[[], datetime]
    """The server's clock, in UTC."""
    ask: Ask
    """Who holds what a dump waits for."""


@dataclass(frozen=True, slots=True)
class DumpResult:
    """What was made: `info` in the repository, or `written` at a path."""

    plan: DumpPlan
    info: DumpInfo | None
    written: WrittenDump | None
    seconds: float


def prepare_dump(
    settings: ClusterSettings, request: DumpRequest, target: DumpTarget, clock: Clock, cluster: Cluster | None = None
) -> PreparedDump:
    """Ask the server and decide; nothing is started.  `cluster`, of the repository, must be the server's.

    Faults: usage, database-unknown, cluster-mismatch, target-space, target-not-empty, postgres-*.
    """
    bindir = Path(settings.bindir) if settings.bindir else None
    found = find_tools(DUMP_TOOLS, bindir)
    with Session.open(settings.connection, APPLICATION) as session:
        server = _check_version(read_dump_server(session))
        if cluster is not None:
            _check_cluster(cluster, server)
        now = _server_clock(session, clock)
        link = link_of(session, f"{APPLICATION}-dump-{secrets.token_hex(4)}")
        known = read_dumpable(session)
    method = request.compress.partition(":")[0] if request.compress else None
    tools = choose_dump_tools(found, server.major, asked=request.program_major, named=bindir, compression=method)
    surveyed, skipped = _survey(settings, request, known)
    plan = plan_dump(
        request, server, surveyed, skipped, tools, Compressions(tools.programs),
        to=target.to, scratch=_scratch(request, target), processors=available_processors(),
    )  # fmt: skip
    if plan.to is not None:
        check_target(plan)
    return PreparedDump(plan, link, now, lambda name: Session.open(settings.connection, APPLICATION, name))


def dump(prepared: PreparedDump, place: Place | None, clock: Clock, announce: Announce) -> DumpResult:
    """Carry the plan out; `place` None when it goes to a path.  Faults of the two kinds of dump."""
    began = clock.monotonic()
    plan, link = prepared.plan, prepared.link
    for warning in plan.warnings:
        announce(warning)
    info, written = None, None
    with _lock_watch(prepared, announce):
        if place is None:
            written = dump_to_path(plan, link, announce)
        else:
            level = place.settings.compression_level
            info = dump_into_repository(plan, link, place.cluster, prepared.now, clock, announce, level=level)
    return DumpResult(plan, info, written, clock.monotonic() - began)


@contextmanager
def _lock_watch(prepared: PreparedDump, announce: Announce) -> Iterator[None]:
    """Says for whom pg_dump waits; and whom it has waited for when it gave up."""
    timeout = prepared.plan.request.lock_timeout
    hint = "it goes on when that transaction ends"
    if timeout is None:
        hint += "; to give up after a while: --lock-timeout 5min"
    first = FIRST_LOOK if timeout is None else timeout.total_seconds() / 2
    watch = LockWatch(prepared.ask, prepared.link.application_name, announce, hint, first=first)
    try:
        with watch:
            yield
    except Fault as fault:
        if fault.code == "lock-timeout" and watch.last:
            fault.message += f"; {watch.last}"
            fault.args = (fault.message,)
        raise


def _check_version(server: DumpServer) -> DumpServer:
    if not OLDEST_MAJOR <= server.major <= NEWEST_MAJOR:
        raise Fault(
            "postgres-version",
            f"the server is PostgreSQL {server.major}; supported are {OLDEST_MAJOR} to {NEWEST_MAJOR}",
        )
    return server


def _check_cluster(cluster: Cluster, server: DumpServer) -> None:
    if server.system_id and cluster.incarnation(server.system_id) is None:
        listed = ", ".join(str(info.system_id) for info in cluster.incarnations)
        raise Fault(
            "cluster-mismatch",
            f"the server has system identifier {server.system_id}, the repository's cluster {cluster.name} is {listed}",
            hint="check the connection; after pg_upgrade or initdb run pgkeep init again",
        )


def _server_clock(session: Session, clock: Clock) -> Callable[[], datetime]:
    """The server's clock as it is now, continued by ours: no connection stands idle through a long dump."""
    there = cast(datetime, session.value("SELECT clock_timestamp()")).astimezone(UTC)
    here = clock.monotonic()
    return lambda: there + timedelta(seconds=clock.monotonic() - here)


def _survey(
    settings: ClusterSettings, request: DumpRequest, known: Sequence[DumpableDatabase]
) -> tuple[list[Surveyed], list[Skipped]]:
    in_use = frozenset[str]()
    if request.database is None:
        usual = [one for one in known if one.name in UNLESS_IN_USE and one.allows_connections and one.may_connect]
        in_use = frozenset(one.name for one in usual if one.has_settings or _is_used(settings, one.name))
    databases, skipped = which_databases(known, request.database, in_use)
    surveyed = []
    for database in databases:
        with Session.open(settings.connection, APPLICATION, database.name) as session:
            surveyed.append(Surveyed(database, read_table_sizes(session)))
    return surveyed, skipped


def _is_used(settings: ClusterSettings, name: str) -> bool:
    with Session.open(settings.connection, APPLICATION, name) as session:
        return holds_something(session)


def _scratch(request: DumpRequest, target: DumpTarget) -> tuple[str, Room] | None:
    """Where directory format passes through on its way into the repository."""
    if target.scratch is not None and (target.to is not None or request.format != "directory"):
        raise Fault(
            "usage",
            "--scratch is for directory format into the repository; nothing lies anywhere on the way of other dumps",
            hint="leave out --scratch",
        )
    if target.to is not None or request.format != "directory":
        return None
    parent = target.scratch or MEMORY
    try:
        room = room_in(parent)
    except OSError as error:
        raise Fault(
            "io", f"cannot use {parent} as scratch directory: {error.strerror}",
            hint="name another with --scratch, or use --format custom, which needs none",
        ) from error  # fmt: skip
    if target.scratch is None and not room.in_memory:
        raise Fault(
            "usage",
            f"{MEMORY} is not in memory on this machine, so what is dumped would lie on a disk",
            hint="use --format custom, which needs no scratch directory, or name one with --scratch",
        )
    return parent, room
