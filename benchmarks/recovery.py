"""The race of restore_command: a server replays SEGMENTS segments out of the archive.

One cluster archives into the repositories of all contenders, so that they hold the same WAL; each has taken a backup
before it was written.  A run restores that backup, outside the clock, and starts the server: the clock stops when the
server logs the end of redo.

How long PostgreSQL waits for restore_command is its own word: the startup process's wait event RestoreCommand (since
15), sampled through a connection while it lasts.  That holds everything: fork, shell, program, the wait for its end.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import psycopg

from benchmarks.archiving import archive_with, until
from benchmarks.contenders import Contender, PgBackRest, PgKeep, Phases
from benchmarks.data import digest, fill
from benchmarks.measure import Cost, machine_seconds
from benchmarks.race import Course, Result, Run, race, settle
from benchmarks.server import RaceError, Server, Site, running

SEGMENTS = 200
_PATIENCE = 900.0  # seconds that a recovery may last before it is a failure
_POLL = 0.005
_PART = 10  # pgbench's scale and, times 50,000, orders of one round of writing
_ASKS = "SELECT wait_event IS NOT DISTINCT FROM 'RestoreCommand' FROM pg_stat_activity WHERE backend_type = 'startup'"


def recovery_race(course: Course) -> Result:
    """From the start of the server to the end of redo; `phases.restoring` is the part that restore_command took."""
    site = Site(course.site.folder("recovery"), course.site.programs, course.site.account)
    field = [moved for one in course.field if (moved := _moved(one, site)) is not None]
    expected = _record(course, site, field)
    return race(course, "recovery", field, lambda contender: _recover(site, contender, expected))


def _moved(contender: Contender, site: Site) -> Contender | None:
    """The contender with its repository where other races make no fresh one; None if it has no archive."""
    return replace(contender, site=site) if isinstance(contender, PgKeep | PgBackRest) else None


def _record(course: Course, site: Site, field: list[Contender]) -> str:
    """The backups and archives of all contenders, kept (some minutes to make); the digest at the end of the WAL."""
    complete = site.work / ("complete-" + "-".join(one.name for one in field))
    if complete.exists():
        return complete.read_text()
    shutil.rmtree(site.work)
    source = Server(site, site.folder("source") / "pgdata", site.work)
    source.initdb()
    source.configure("archive_mode=on\narchive_command='/bin/false'\nmax_wal_size=2GB\n")
    with running(site, source.data, "fsync=off") as server:
        for contender in field:
            contender.prepare(server)
        archive_with(server, " && ".join(one.recommended_archive_command(server) for one in field))
        for contender in field:
            site.run(*contender.backup(server))
        course.say(f"  writing {SEGMENTS} segments of WAL")
        _write(site, server)
        expected = digest(server)
        _archive_all(server)
    complete.write_text(expected)
    return expected


def _write(site: Site, server: Server) -> None:
    """New rows and indexes, then pgbench's transactions and bulk updates, with page images after each checkpoint."""
    fill(site, server, _PART, _PART * 50_000)
    while int(server.sql("select (pg_current_wal_lsn() - '0/0')::bigint")) < SEGMENTS << 24:
        server.sql("checkpoint")
        site.run(site.program("pgbench"), "-n", "-c", "4", "-t", "2500", server.conninfo)
        server.sql("update orders set tax = tax + 1 where id % 5 = 0")


def _archive_all(server: Server) -> None:
    last = server.sql("select pg_walfile_name(pg_switch_wal())")
    done = server.data / "pg_wal" / "archive_status" / f"{last}.done"
    until(done.exists, f"{last} is not being archived: see {server.data}.log")


def _recover(site: Site, contender: Contender, expected: str) -> Run:
    target = site.folder("restored") / contender.name
    shutil.rmtree(target, ignore_errors=True)
    log = Path(f"{target}.log")
    log.unlink(missing_ok=True)
    target.mkdir(mode=0o700)
    site.own(target)
    site.run(*contender.restore(target))
    settle(contender.repository)
    busy, began = machine_seconds(), time.monotonic()
    # Not to be waited for by pg_ctl, which answers when the server is open, long after it is consistent.
    with running(site, target, "archive_mode=off", "hot_standby=on", "log_destination=stderr") as server:
        share = _share_of_restoring(server, log)
        wall, machine = time.monotonic() - began, machine_seconds() - busy
        until(lambda: server.sql("select pg_is_in_recovery()") == "f", f"recovery does not end: see {log}")
        if (found := digest(server)) != expected:
            raise RaceError(f"{target} holds other rows: found {found}, expected {expected}")
    shutil.rmtree(target)
    return Run(contender.name, Cost(0, wall, machine, 0.0, 0, machine, ()), Phases(restoring=share * wall), 0.0, 0)


def _share_of_restoring(server: Server, log: Path) -> float:
    """Of the time until redo is done, the part (0 to 1) in which the startup process waits for restore_command."""
    waits = samples = 0
    deadline = time.monotonic() + _PATIENCE
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        while "redo done at" not in log.read_text():
            row = connection.execute(_ASKS).fetchone()
            samples += 1
            waits += bool(row and row[0])
            if time.monotonic() > deadline:
                raise RaceError(f"recovery does not end: see {log}")
            time.sleep(_POLL)
    return waits / samples
