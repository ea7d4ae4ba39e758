"""The races of archive_command: draining a backlog, and pushing what is archived already.

A backlog is a stopped cluster with SEGMENTS finished WAL files that nobody has archived.  Every run has a fresh copy
and a fresh repository; the server is idle.  The clock starts when the server is told its archive_command, and stops
when PostgreSQL has noted the last file as archived.

An archiver may go on by itself while PostgreSQL still asks for earlier files, so the CPU time that is quoted is the
whole machine's, and the machine must be quiet.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.contenders import Contender, Phases
from benchmarks.data import fill, tree_size
from benchmarks.measure import Cost, machine_seconds
from benchmarks.race import Course, Result, Run, race, settle
from benchmarks.server import RaceError, Server, Site, running

SEGMENTS = 200
CALLS = 100
_PATIENCE = 900.0  # seconds that a drain may last before it is a failure
_POLL = 0.01
_NO_ARCHIVE = "archive_mode=on\narchive_command='/bin/false'\nmax_wal_size=16GB\n"
_PART = 10  # pgbench's scale and, times 50,000, orders of one round of writing


def drain_race(course: Course) -> Result:
    """All of the backlog, from the first call of archive_command to the last."""
    source = _backlog(course)
    return race(course, "drain", _archivers(course), lambda contender: _drain(course.site, contender, source))


def push_again_race(course: Course) -> Result:
    """CALLS calls in a row, each a process of its own, for a segment that is archived already."""
    source = _backlog(course)
    return race(course, "push-again", _archivers(course), lambda contender: _again(course.site, contender, source))


def _archivers(course: Course) -> list[Contender]:
    return [contender for contender in course.field if contender.archive_command]


def _drain(site: Site, contender: Contender, source: Path) -> Run:
    with _copy(site, contender, source) as server:
        command = contender.recommended_archive_command(server)
        settle(server.data / "pg_wal")
        busy, began = machine_seconds(), time.monotonic()
        archive_with(server, command)
        until(lambda: not _waiting(server), f"{contender.name} does not drain {server.data}")
        cost = _cost(began, busy)
        return Run(contender.name, cost, Phases(), 0.0, tree_size(contender.repository))


def _again(site: Site, contender: Contender, source: Path) -> Run:
    """The oldest segment, with its status as it is while PostgreSQL asks."""
    with _copy(site, contender, source) as server:
        name = _waiting(server)[0]
        push = _hold(server, contender, name)
        script = f"i=0; while [ $i -lt {CALLS} ]; do i=$((i+1)); {push} || exit 1; done"
        settle(server.data / "pg_wal")
        busy, began = machine_seconds(), time.monotonic()
        site.run("/bin/sh", "-c", f"cd '{server.data}' && {script}")
        cost = _cost(began, busy)
        return Run(contender.name, cost, Phases(), 0.0, tree_size(contender.repository))


def _hold(server: Server, contender: Contender, name: str) -> str:
    """Archive everything but let the server believe that `name` waits; the command that pushes it, in a shell of its
    own as the server would run it."""
    command = contender.recommended_archive_command(server)
    push = f"/bin/sh -c {shlex.quote(command.replace('%p', f'pg_wal/{name}').replace('%%', '%'))}"
    server.site.run("/bin/sh", "-c", f"cd '{server.data}' && {push}")
    time.sleep(5)  # who works ahead is to be out of the way
    server.site.run("/bin/sh", "-c", f"cd '{server.data}' && {push}")
    return push


@contextlib.contextmanager
def _copy(site: Site, contender: Contender, source: Path) -> Iterator[Server]:
    copy = site.folder("backlogs") / contender.name
    shutil.rmtree(copy, ignore_errors=True)
    site.run("cp", "-a", "--reflink=auto", str(source), str(copy))
    with running(site, copy) as server:
        contender.prepare(server)
        yield server
        # Not to be archived while it stops, which would take time and prove nothing.
        archive_with(server, "/bin/false")
    shutil.rmtree(copy)


def archive_with(server: Server, command: str) -> None:
    """Give a running server its archive_command."""
    server.sql("alter system set archive_command = '" + command.replace("'", "''") + "'")
    server.sql("select pg_reload_conf()")


def _waiting(server: Server) -> list[str]:
    """Segments that wait, oldest first."""
    status = server.data / "pg_wal" / "archive_status"
    return sorted(name.removesuffix(".ready") for name in os.listdir(status) if name.endswith(".ready"))


def until(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait for the condition; RaceError with that sentence when it does not come."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RaceError(otherwise)
        time.sleep(_POLL)


def _cost(began: float, busy: float) -> Cost:
    machine = machine_seconds() - busy
    return Cost(0, time.monotonic() - began, machine, 0.0, 0, machine, ())


def _backlog(course: Course) -> Path:
    """The kept backlog, or a new one (some minutes): tables are filled until enough segments wait."""
    site = course.site
    home = site.folder("data") / f"backlog-{SEGMENTS}"
    if (home / "complete").exists():
        return home / "pgdata"
    shutil.rmtree(home, ignore_errors=True)
    site.folder("data", home.name)
    Server(site, home / "pgdata", home).initdb()
    Server(site, home / "pgdata", home).configure(_NO_ARCHIVE)
    course.say(f"  writing {SEGMENTS} segments of WAL")
    with running(site, home / "pgdata", "fsync=off", "autovacuum=on") as server:
        _write_until_enough(site, server)
    (home / "complete").touch()
    return home / "pgdata"


def _write_until_enough(site: Site, server: Server) -> None:
    """pgbench's transactions on freshly made tables: images of pages, small records, new rows and indexes."""
    fill(site, server, _PART, _PART * 50_000)
    while len(names := _waiting(server)) < SEGMENTS:
        server.sql("checkpoint")
        site.run(site.program("pgbench"), "-n", "-c", "4", "-t", "5000", server.conninfo)
        server.sql("select pg_switch_wal()")
    status = server.data / "pg_wal" / "archive_status"
    for name in names[SEGMENTS:]:
        (status / f"{name}.ready").rename(status / f"{name}.done")
