"""The race of loads: bare pg_restore, pgkeep from a path, pgkeep from the repository; the same jobs for all.

The reference is pg_restore of the same version into a database that was made before the clock started; pgkeep plans,
makes the database, loads it and gives it its name within its time.  Each load is into a fresh database; afterwards the
rows of all are compared.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.contenders import PgKeep, Phases
from benchmarks.data import tree_size
from benchmarks.dumping import COMPRESS, DATABASE, JOBS
from benchmarks.measure import tree_ticks
from benchmarks.race import Course, Result, Run, clusters, race, settle
from benchmarks.server import RaceError, Server

BARE, FROM_PATH, FROM_REPOSITORY = "pg_restore", "pgkeep from a path", "pgkeep"
_DATABASES = {BARE: "bare", FROM_PATH: "from_path", FROM_REPOSITORY: "from_repository"}
_TABLES = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'"


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str


def load_race(course: Course) -> Result:
    """A directory with JOBS jobs."""
    pgkeep = next((one for one in course.field if isinstance(one, PgKeep)), None)
    if pgkeep is None:
        raise RaceError("the race of loads needs pgkeep among the contenders")
    with clusters(replace(course, field=(pgkeep,))) as servers:
        server = servers[pgkeep.name]
        pgkeep.prepare(server)
        return _race(course, pgkeep, server)


def _race(course: Course, pgkeep: PgKeep, server: Server) -> Result:
    site = course.site
    home = site.folder("loads")
    archive = home / "archive"
    shutil.rmtree(archive, ignore_errors=True)
    options = ("--format=directory", f"--jobs={JOBS}", f"--compress={COMPRESS}", f"--file={archive}")
    site.run(site.program("pg_dump"), f"--dbname={server.conninfo}", *options)
    site.run(*pgkeep.command("dump", DATABASE, "--jobs", str(JOBS), "--compress", COMPRESS))

    def once(entry: _Entry) -> Run:
        database = _DATABASES[entry.name]
        server.sql(f"DROP DATABASE IF EXISTS {database}")
        if entry.name == BARE:
            server.sql(f"CREATE DATABASE {database} TEMPLATE template0")
        server.sql("checkpoint")
        settle(archive if entry.name != FROM_REPOSITORY else pgkeep.repository)
        before = tree_ticks(server.pid)
        cost = site.race(_command(course, pgkeep, server, entry.name, archive))
        return Run(entry.name, cost, Phases(), tree_ticks(server.pid) - before, tree_size(archive))

    result = race(course, "load", [_Entry(BARE), _Entry(FROM_PATH), _Entry(FROM_REPOSITORY)], once)
    _compare(course, server)
    shutil.rmtree(home)
    return result


def _command(course: Course, pgkeep: PgKeep, server: Server, name: str, archive: Path) -> tuple[str, ...]:
    if name == BARE:
        dbname = server.conninfo.replace(f"dbname={DATABASE}", f"dbname={_DATABASES[BARE]}")
        return (course.site.program("pg_restore"), f"--dbname={dbname}", f"--jobs={JOBS}", str(archive))
    source = str(archive) if name == FROM_PATH else "latest"
    return pgkeep.command("load", source, "--into", _DATABASES[name], "--jobs", str(JOBS))


def _compare(course: Course, server: Server) -> None:
    tables = server.sql(_TABLES).split("\n")
    for name, database in _DATABASES.items():
        for table in tables:
            query = f"SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0))::text, '') FROM {table} t"
            if server.sql(query, database) != server.sql(query):
                raise RaceError(f"{name} loaded other rows into {table}")
        course.say(f"  {name}: the same rows as the dumped database's, in {len(tables)} tables")
