"""A dump to a path: written beside it, made durable, and renamed.

1. What is being written lies in PATH.pgkeep-partial, locked; after any end but success it is gone, and what a crash of
   the machine left of it is removed by the next dump to that path.
2. Nothing that exists is overwritten.
3. A directory holds its globals inside; a file has them beside it, as PATH.globals.sql.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pgkeep.errors import Fault
from pgkeep.events import Announce, Noted, Phase, silent
from pgkeep.logical.commands import ARCHIVE, DATABASE, GLOBALS, SCRIPT, Listener, dump_command, globals_command
from pgkeep.logical.database import database_script, run
from pgkeep.logical.guard import Guard
from pgkeep.logical.plan import DumpPlan, PlannedDatabase
from pgkeep.logical.scratch import locked_directory, remove_if_dead
from pgkeep.pg.child import Child
from pgkeep.pg.link import Link, Reach

PARTIAL: Final = ".pgkeep-partial"


@dataclass(frozen=True, slots=True)
class WrittenDump:
    """A dump at a path; `paths` are it and what lies beside it."""

    paths: tuple[str, ...]
    files: int
    bytes: int


def targets(plan: DumpPlan) -> tuple[str, ...]:
    """What the dump will be at: the path itself last, for it is renamed last."""
    assert plan.to is not None
    if _is_directory(plan):
        return (plan.to,)
    beside = [GLOBALS] if plan.format == "custom" else [GLOBALS, DATABASE]
    return (*(f"{plan.to}.{name}" for name in beside), plan.to)


def _is_directory(plan: DumpPlan) -> bool:
    return plan.format == "directory" or plan.request.database is None


def check_target(plan: DumpPlan) -> None:
    """'target-not-empty' when something is there already, 'usage' without a directory to write to."""
    for path in targets(plan):
        if os.path.lexists(path):
            raise Fault("target-not-empty", f"{path} exists already", hint="remove it, or name another path")
    parent = os.path.dirname(targets(plan)[-1])
    if not os.path.isdir(parent):
        raise Fault("usage", f"{parent} is no directory", hint=f"mkdir -p {parent}")


def dump_to_path(plan: DumpPlan, link: Link, announce: Announce = silent) -> WrittenDump:
    """Take the dump that the plan says; it is at its path when this returns.

    Faults: target-not-empty, target-in-use, target-space, usage, io, postgres-*, worker-died.  Nothing is left then.
    """
    check_target(plan)
    partial = targets(plan)[-1] + PARTIAL
    if remove_if_dead(partial):
        announce(Noted(f"removed what a dump that was killed left in {partial}"))
    if os.path.lexists(partial):
        raise Fault("target-in-use", f"another dump writes to {partial}", hint="wait for it, or name another path")
    try:
        with Guard() as guard, locked_directory(partial, guard):
            written = _Writing(plan, link, guard, partial, announce)
            written.write()
            announce(Phase("commit", "making the dump durable"))
            return written.publish()
    except OSError as error:
        raise Fault(
            "io", f"cannot write {error.filename or partial}: {error.strerror}", hint="make room, or name another path"
        ) from error


class _Writing:
    """One dump while it is written below `partial`."""

    def __init__(self, plan: DumpPlan, link: Link, guard: Guard, partial: str, announce: Announce) -> None:
        self._plan = plan
        self._link = link
        self._guard = guard
        self._partial = partial
        self._root = os.path.join(partial, "dump")
        self._announce = announce
        self._globals: bytes | None = None

    def write(self) -> None:
        """Globals are read beside the first database and written last: pg_dump wants its directory empty."""
        plan = self._plan
        if plan.request.database is None:
            os.mkdir(self._root, 0o700)
        self._announce(Phase("globals", "saving roles and tablespaces"))
        for database in plan.databases:
            with self._link.to(database.name) as reach:
                self._dump(database, reach)
        assert self._globals is not None, "a dump has a database"
        _write_durably(os.path.join(self._root if _is_directory(plan) else self._partial, GLOBALS), self._globals)

    def _dump(self, database: PlannedDatabase, reach: Reach) -> None:
        plan = self._plan
        is_single = plan.request.database is not None
        place = self._root if is_single else os.path.join(self._root, database.prefix.rstrip("/"))
        file = place
        if plan.format != "directory":
            if not is_single:
                os.mkdir(place, 0o700)
                file = os.path.join(place, ARCHIVE if plan.format == "custom" else SCRIPT)
            if plan.format == "plain":
                beside = os.path.join(self._partial if is_single else place, DATABASE)
                _write_durably(beside, database_script(plan, reach, self._guard))
        listener = Listener(self._announce, database.tables)
        with Child(dump_command(plan, reach, file=file, sync=True), reach=reach, on_line=listener) as child:
            self._guard.watch(child)
            if self._globals is None:
                self._globals = run(globals_command(plan, reach), reach, self._guard)
            self._announce(Phase("dump", f"dumping database {database.name}"))
            child.finish()
        self._guard.forget(child)

    def publish(self) -> WrittenDump:
        """Rename; the dump itself last, so that where it is, all of it is."""
        plan = self._plan
        final = targets(plan)
        files, size = _measure(self._root)
        for directory in _directories(self._root):
            _sync(directory)
        _sync(self._partial)
        check_target(plan)
        done = []
        try:
            for path in final:
                source = self._root if path == plan.to else os.path.join(self._partial, path[len(plan.to or "") + 1 :])
                os.rename(source, path)
                done.append(path)
            _sync(os.path.dirname(final[-1]))
        except BaseException:
            for path in done[: len(final) - 1]:
                with suppress(OSError):
                    os.unlink(path)
            raise
        return WrittenDump(final, files, size)


def _write_durably(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _directories(root: str) -> list[str]:
    return [parent for parent, _, _ in os.walk(root)]


def _measure(root: str) -> tuple[int, int]:
    """(files, bytes)."""
    if not os.path.isdir(root):
        return 1, os.path.getsize(root)
    sizes = [os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(root) for name in names]
    return len(sizes), sum(sizes)
