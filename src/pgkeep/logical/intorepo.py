"""A dump into the repository: through a pipe, or through a scratch directory that is drained (`drain`)."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable
from datetime import datetime
from typing import IO, Final

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Noted, Phase, silent
from pgkeep.format.dump import DumpedDatabase, DumpInfo
from pgkeep.logical.closed import ClosedFiles
from pgkeep.logical.commands import (
    ARCHIVE,
    DATABASE,
    GLOBALS,
    SCRIPT,
    Listener,
    content_options,
    dump_command,
    globals_command,
)
from pgkeep.logical.database import database_script
from pgkeep.logical.drain import drain
from pgkeep.logical.guard import Guard
from pgkeep.logical.plan import DumpPlan, PlannedDatabase
from pgkeep.logical.scratch import remove_leftovers, scratch_directory
from pgkeep.pg.child import Child
from pgkeep.pg.link import Link, Reach
from pgkeep.repo.dumpwriter import DumpFacts, DumpWriter, MemberWriter
from pgkeep.repo.repository import Cluster

_PIECE: Final = 1 << 20
TOC: Final = "toc.dat"
_COMPRESSED: Final = (".zst", ".lz4", ".gz")
"""What pg_dump adds to the names of files that it has compressed (compress_io.c)."""


def dump_into_repository(
    plan: DumpPlan, link: Link, cluster: Cluster, now: Callable[[], datetime], clock: Clock,
    announce: Announce = silent, *, level: int = 1,
) -> DumpInfo:  # fmt: skip
    """Take the dump that the plan says; it exists when this returns.  `now` is the server's clock, in UTC.

    Faults: postgres-*, target-space, io, lease-lost, worker-died, dump-too-large, and the store's.  Then there is no
    dump, and nothing of it is left on this machine.
    """
    with Guard() as guard:
        if plan.scratch is not None:
            for path in remove_leftovers(plan.scratch.parent):
                announce(Noted(f"removed what a dump that was killed left in {path}"))
        with DumpWriter(cluster, clock, level=level) as writer:
            started = now()
            job = _Job(plan, link, guard, writer, announce)
            for database in plan.databases:
                job.dump(database)
            announce(Phase("commit", "making the dump durable"))
            return writer.commit(dump_facts(plan, started, now()))


class _Job:
    """What the parts of one dump have in common."""

    def __init__(self, plan: DumpPlan, link: Link, guard: Guard, writer: DumpWriter, announce: Announce) -> None:
        self._plan = plan
        self._link = link
        self._guard = guard
        self._writer = writer
        self._announce = announce

    def dump(self, database: PlannedDatabase) -> None:
        """One database, in the format of the plan; the first one with the globals."""
        listener = Listener(self._announce, database.tables)
        with self._link.to(database.name) as reach:
            if self._plan.format == "directory":
                self._directory(database, reach, listener)
                return
            self._begin(database, reach)
            command = dump_command(self._plan, reach, file=None, sync=False)
            if self._plan.format == "custom":
                self._pipe(database.prefix + ARCHIVE, command, reach, listener)
            else:
                self._pipe(database.prefix + DATABASE, None, reach, None)
                self._pipe(database.prefix + SCRIPT, command, reach, listener)

    def _begin(self, database: PlannedDatabase, reach: Reach) -> None:
        """Roles and tablespaces first: they are small, and what is wrong with the connection shows at once."""
        if database is self._plan.databases[0]:
            self._announce(Phase("globals", "saving roles and tablespaces"))
            self._pipe(GLOBALS, globals_command(self._plan, reach), reach, None)
        self._announce(Phase("dump", f"dumping database {database.name}"))

    def _directory(self, database: PlannedDatabase, reach: Reach, listener: Listener) -> None:
        scratch = self._plan.scratch
        assert scratch is not None
        stored: set[str] = set()

        def begin(name: str) -> _Counted:
            stored.add(name)
            member = self._writer.member(os.fsencode(database.prefix + name), is_compressed=name.endswith(_COMPRESSED))
            return _Counted(member, listener)

        with scratch_directory(scratch.parent, self._guard) as directory, ClosedFiles(directory) as closed:
            command = dump_command(self._plan, reach, file=directory, sync=False)
            with Child(command, reach=reach, on_line=listener) as child:
                self._guard.watch(child)
                drain(child, closed, directory, scratch, begin, lambda: self._begin(database, reach))
            self._guard.forget(child)
        if TOC not in stored:
            raise _nothing_came("pg_dump", database.name)

    def _pipe(self, name: str, command: list[str] | None, reach: Reach, listener: Listener | None) -> None:
        """What a program writes to its stdout becomes the member `name`."""
        is_compressed = name.endswith(ARCHIVE) and self._plan.compression != "none"
        with self._writer.member(os.fsencode(name), is_compressed=is_compressed) as member:
            if command is None:
                member.write(database_script(self._plan, reach, self._guard))
                return
            with Child(command, reach=reach, stdout=subprocess.PIPE, on_line=listener) as child:
                self._guard.watch(child)
                buffer = memoryview(bytearray(_PIECE))
                while count := _read_some(child.stdout, buffer):
                    member.write(buffer[:count])
                    if listener is not None:
                        listener.progress(count)
                child.finish()
            self._guard.forget(child)
            if not member.size:
                raise _nothing_came(child.name, name)


class _Counted:
    """A member whose bytes are progress."""

    def __init__(self, member: MemberWriter, listener: Listener) -> None:
        self._member = member
        self._listener = listener

    def write(self, data: memoryview) -> None:
        self._member.write(data)
        self._listener.progress(len(data))

    def close(self) -> None:
        self._member.close()


def _read_some(stream: IO[bytes], buffer: memoryview) -> int:
    """A full buffer, or what is left: frames are filled by pieces of some size."""
    assert isinstance(stream, io.BufferedReader)
    return stream.readinto(buffer)


def _nothing_came(program: str, what: str) -> Fault:
    return Fault(
        "postgres-program",
        f"{program} reported success, but wrote nothing of {what}",
        hint="run it again; if it stays so, run the same program by hand",
    )


def dump_facts(plan: DumpPlan, started: datetime, stopped: datetime) -> DumpFacts:
    """What the manifest says of the dump."""
    request, server, programs = plan.request, plan.server, plan.tools.programs
    major, _, minor = programs.version.partition(".")
    return DumpFacts(
        name=shown(request.name), started=started.isoformat(), stopped=stopped.isoformat(), system_id=server.system_id,
        server_version=server.version_num, format=plan.format, compression=plan.compression,
        tool=f"pg_dump (PostgreSQL) {programs.version}", tool_version=int(major) * 10000 + int(minor or 0),
        databases=[_dumped(database) for database in plan.databases],
        options=[shown(one) for one in content_options(plan)],
        label=shown(request.label), every_database=request.database is None, whole=request.chosen.is_whole,
        role_passwords=plan.with_passwords,
    )  # fmt: skip


def shown(text: str) -> str:
    """What a manifest can hold: bytes that are not UTF-8 are escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _dumped(database: PlannedDatabase) -> DumpedDatabase:
    facts = database.facts
    return DumpedDatabase(
        name=facts.name.encode("utf-8", "surrogateescape"), prefix=database.prefix.encode(), size=database.size,
        encoding=facts.encoding, provider=facts.provider, collate=facts.collate, ctype=facts.ctype,
        locale=facts.locale, icu_rules=facts.icu_rules,
    )  # fmt: skip
