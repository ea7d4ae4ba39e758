"""The plan of a dump: everything that is decided before a program is started.  Pure.

1. Every database's own dump is consistent in itself; of several, each has a snapshot of its own.
2. Into the repository, content that pg_dump cannot compress well is left to the repository's own zstd.
3. Directory format into the repository passes through a scratch directory, which holds what is written and not stored
   yet: some pieces of a table for each job, for files are stored and emptied while they grow.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from pgkeep.errors import Fault
from pgkeep.events import Warned
from pgkeep.format.dump import quoted_name
from pgkeep.logical.patterns import LARGE_OBJECTS, chosen_tables
from pgkeep.logical.request import DumpRequest, Format
from pgkeep.logical.room import Room
from pgkeep.pg.dumpable import DumpableDatabase, DumpServer, TableSize
from pgkeep.pg.tools import FIRST_WITH_METHODS, ToolChoice
from pgkeep.values.quantity import show_size

FIRST_WITH_FILTER: Final = 17
MOST_JOBS: Final = 8
"""By default: every job is a connection that reads as fast as it can."""
_GZIP_LEVELS: Final = tuple(str(level) for level in range(10))
_PER_JOB: Final = 16 << 20
"""Bytes that are written and not stored yet, as a rule; pg_dump is paused when it is more than fits."""
UNLESS_IN_USE: Final = frozenset({"postgres", "template1"})
"""Databases that every server has; --all takes them when somebody has made something in them."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A database that is to be dumped, and the sizes of its tables."""

    database: DumpableDatabase
    tables: tuple[TableSize, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A database that --all leaves out."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class PlannedDatabase:
    """One run of pg_dump.  `prefix` begins its members' names; sizes in bytes on the server."""

    facts: DumpableDatabase
    prefix: str
    size: int
    chosen: int
    """Of the tables that are chosen; 0 where no data is dumped."""
    at_once: int
    """The most that is being written at one time, as far as the server's sizes tell."""
    tables: int

    @property
    def name(self) -> str:
        return self.facts.name


@dataclass(frozen=True, slots=True)
class ScratchPlan:
    """Where directory format lies on its way into the repository."""

    parent: str
    room: Room
    expected: int
    """Bytes at one time."""


@dataclass(frozen=True, slots=True)
class DumpPlan:
    """What will be done.  `to` is a path, None means the repository."""

    request: DumpRequest
    server: DumpServer
    databases: tuple[PlannedDatabase, ...]
    skipped: tuple[Skipped, ...]
    tools: ToolChoice
    jobs: int
    compression: str
    to: str | None
    scratch: ScratchPlan | None
    warnings: tuple[Warned, ...]

    @property
    def format(self) -> Format:
        return self.request.format

    @property
    def size(self) -> int:
        """Bytes of its databases on the server."""
        return sum(database.size for database in self.databases)

    @property
    def with_passwords(self) -> bool:
        """Whether the globals hold the roles' passwords."""
        return self.server.reads_passwords


def plan_dump(
    request: DumpRequest,
    server: DumpServer,
    surveyed: Sequence[Surveyed],
    skipped: Sequence[Skipped],
    tools: ToolChoice,
    methods: Collection[str],
    *,
    to: str | None,
    scratch: tuple[str, Room] | None,
    processors: int,
) -> DumpPlan:
    """The plan; `methods` are the compressions of that pg_dump, `scratch` the directory for it and its room.

    Faults: 'usage' for what does not go together, 'postgres-version' for what this pg_dump cannot do, 'target-space'
    when the scratch directory is too small.
    """
    jobs = _jobs(request, processors)
    compression = choose_compression(request, tools, methods, into_repository=to is None)
    if request.chosen.filter is not None and tools.programs.major < FIRST_WITH_FILTER:
        raise Fault(
            "postgres-version",
            f"--filter needs pg_dump {FIRST_WITH_FILTER} or newer, this is {tools}",
            hint=f"install postgresql-client-{FIRST_WITH_FILTER}, or choose with --table and --exclude-table",
        )
    several = request.database is None
    databases = tuple(_planned(request, one, jobs, several=several) for one in surveyed)
    planned = None
    if to is None and request.format == "directory" and scratch is not None:
        planned = _scratch(databases, *scratch)
    warnings = tuple(_warnings(request, server, planned, into_repository=to is None))
    return DumpPlan(request, server, databases, tuple(skipped), tools, jobs, compression, to, planned, warnings)


def which_databases(
    known: Sequence[DumpableDatabase], wanted: str | None, in_use: frozenset[str]
) -> tuple[list[DumpableDatabase], list[Skipped]]:
    """The databases of a dump, and those that --all (`wanted` None) leaves out; `in_use` of UNLESS_IN_USE.

    'database-unknown', or 'postgres-rights' when the role may not connect.
    """
    if wanted is not None:
        return [_named(known, wanted)], []
    skipped = [
        Skipped(
            one.name, "its DROP was begun and not ended, nobody can connect" if one.is_invalid else "no connections"
        )
        for one in known
        if one.is_invalid or not one.allows_connections
    ]
    takes = [one for one in known if one.allows_connections and not one.is_invalid]
    unused = {one.name for one in takes if one.name in UNLESS_IN_USE - in_use}
    skipped += [Skipped(name, "holds nothing") for name in sorted(unused)]
    chosen = [one for one in takes if one.name not in unused]
    for one in chosen:
        _check_right(one)
    if not chosen:
        raise Fault(
            "database-unknown", "this server has no database that holds anything", hint="name one: pgkeep dump NAME"
        )
    return chosen, skipped


def _named(known: Sequence[DumpableDatabase], wanted: str) -> DumpableDatabase:
    for one in known:
        if one.name == wanted:
            if one.is_invalid or not one.allows_connections:
                raise Fault("database-unknown", f"the database {wanted} takes no connections", hint="dump another one")
            _check_right(one)
            return one
    listed = ", ".join(one.name for one in known if one.allows_connections)
    raise Fault("database-unknown", f"the server has no database {wanted!r}, it has: {listed}", hint="correct the name")


def _check_right(database: DumpableDatabase) -> None:
    if not database.may_connect:
        raise Fault(
            "postgres-rights",
            f"the role may not connect to the database {database.name}",
            hint="grant it CONNECT there, or dump databases one by one",
        )


def _jobs(request: DumpRequest, processors: int) -> int:
    if request.format == "directory":
        return request.jobs or min(processors, MOST_JOBS)
    if request.jobs not in {None, 1}:
        raise Fault(
            "usage",
            f"--jobs {request.jobs} needs directory format, the {request.format} format is written by one process",
            hint="leave out --jobs or --format",
        )
    return 1


def choose_compression(
    request: DumpRequest, tools: ToolChoice, methods: Collection[str], *, into_repository: bool
) -> str:
    """What pg_dump is told, as the newer versions' --compress writes it ('zstd', 'gzip:6', 'none')."""
    if request.compress is None:
        if request.format == "plain":
            return "none"
        if "zstd" in methods:
            return "zstd"
        if into_repository:
            return "none"
        return "lz4" if "lz4" in methods else "gzip"
    wanted = request.compress
    method = wanted.partition(":")[0]
    if wanted in _GZIP_LEVELS:
        return "none" if wanted == "0" else f"gzip:{wanted}"
    if method == "none" or method in methods:
        return wanted
    raise Fault(
        "postgres-version",
        f"this pg_dump cannot compress with {method!r} ({tools}), it has {', '.join(sorted({*methods, 'none'}))}",
        hint="leave out --compress, or install a pg_dump that has it (zstd: 16 and newer)",
    )


def compress_option(compression: str, major: int) -> str:
    """The option that says so to a pg_dump of that version: older ones know a level for gzip alone."""
    if major >= FIRST_WITH_METHODS:
        return f"--compress={compression}"
    method, _, level = compression.partition(":")
    return "--compress=0" if method == "none" else f"--compress={level.removeprefix('level=') or 6}"


def _planned(request: DumpRequest, one: Surveyed, jobs: int, *, several: bool) -> PlannedDatabase:
    prefix = quoted_name(one.database.name.encode("utf-8", "surrogateescape")).decode() + "/" if several else ""
    tables = [] if request.chosen.part == "schema" else chosen_tables(request.chosen, one.tables)
    sizes = [table.size for table in tables]
    return PlannedDatabase(
        facts=one.database, prefix=prefix, size=one.database.size or 0, chosen=sum(sizes),
        at_once=sum(min(size, _PER_JOB) for size in sizes[:jobs]),
        tables=sum(1 for table in tables if (table.schema, table.name) != LARGE_OBJECTS),
    )  # fmt: skip


def _scratch(databases: Sequence[PlannedDatabase], parent: str, room: Room) -> ScratchPlan:
    expected = max(database.at_once for database in databases)
    if expected > room.free - room.reserve:
        raise space_fault(parent, room, f"about {show_size(expected)} are expected at one time")
    return ScratchPlan(parent, room, expected)


def space_fault(parent: str, room: Room, why: str) -> Fault:
    """'target-space', with every way out."""
    kind = "in memory" if room.in_memory else "on disk"
    return Fault(
        "target-space",
        f"{parent} ({kind}) has {show_size(room.free)} free for what pg_dump writes, but {why}",
        hint="use --format custom (one process, nothing lies anywhere on the way), fewer --jobs, or name a directory on"
        " a disk that you trust with --scratch",
        path=parent,
        free=room.free,
    )


def _warnings(
    request: DumpRequest, server: DumpServer, scratch: ScratchPlan | None, *, into_repository: bool
) -> list[Warned]:
    found = []
    if not server.reads_passwords:
        found.append(
            Warned(
                "no-role-passwords",
                f"the role {server.role} may not read pg_authid: the globals hold the roles without their passwords",
                "dump as a superuser to have them",
            )
        )
    if not request.chosen.owner and request.format != "plain":
        found.append(
            Warned(
                "owners-in-archive",
                f"an archive of the {request.format} format always names its objects' owners"
                + ("; pgkeep load leaves them out" if into_repository else ""),
                "pg_restore by hand needs --no-owner" if into_repository else "load it with --no-owner",
            )
        )
    if request.inserts:
        found.append(
            Warned(
                "inserts",
                "--inserts writes a statement for every row: the dump is larger, and loads many times more slowly than"
                " with COPY; it serves other database systems alone",
                "leave out --inserts to load into PostgreSQL",
            )
        )
    if scratch is not None and scratch.room.may_swap:
        found.append(
            Warned(
                "scratch-may-swap",
                f"this machine may write the memory of {scratch.parent} to its swap area",
                "use --format custom, or encrypt the swap area",
            )
        )
    if scratch is not None and not scratch.room.in_memory:
        found.append(
            Warned(
                "scratch-on-disk",
                f"{scratch.parent} is on a disk: what pg_dump has written lies there in plain form for moments",
                "leave out --scratch to keep it in memory",
            )
        )
    return found
