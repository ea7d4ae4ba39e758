"""The race of dumps: bare pg_dump, pgkeep to a path, pgkeep into the repository; one format and compression for all.

The reference is the same pg_dump of the same version with the same jobs, that makes its dump durable as it does by
default.  pgkeep's figures include the globals and the program's own start.  Afterwards every member of each dump is
compared with what the bare pg_dump wrote.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.contenders import PgKeep, Phases
from benchmarks.data import tree_size
from benchmarks.measure import tree_ticks
from benchmarks.race import Course, Result, Run, clusters, race, settle
from benchmarks.server import RaceError, Server
from pgkeep.app.place import Selection, open_place
from pgkeep.clock import SystemClock
from pgkeep.config.load import load
from pgkeep.repo.dumps import dump_ids, open_dump

JOBS = 2
COMPRESS = "zstd:3"
DATABASE = "postgres"
FORMATS = {"dump": "directory", "dump-custom": "custom"}
"""By the name of the race."""
BARE, TO_PATH, INTO = "pg_dump", "pgkeep --to", "pgkeep"


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str


def dump_race(course: Course, form: str) -> Result:
    """A format of FORMATS; directory format with JOBS jobs."""
    pgkeep = next((one for one in course.field if isinstance(one, PgKeep)), None)
    if pgkeep is None:
        raise RaceError("the race of dumps needs pgkeep among the contenders")
    with clusters(replace(course, field=(pgkeep,))) as servers:
        server = servers[pgkeep.name]
        pgkeep.prepare(server)
        return _race(course, pgkeep, server, form)


def _race(course: Course, pgkeep: PgKeep, server: Server, form: str) -> Result:
    home = course.site.folder("dumps")
    places = {BARE: home / "bare", TO_PATH: home / "path", INTO: pgkeep.repository}

    def once(entry: _Entry) -> Run:
        if entry.name == INTO:
            pgkeep.prepare(server)
        _clear(places[entry.name], home)
        server.sql("checkpoint")
        settle(server.data)
        before = tree_ticks(server.pid)
        cost = course.site.race(_command(course, pgkeep, server, form, entry.name, places))
        spent = tree_ticks(server.pid) - before
        return Run(entry.name, cost, Phases(), spent, tree_size(places[entry.name]))

    result = race(course, f"dump-{form}", [_Entry(BARE), _Entry(TO_PATH), _Entry(INTO)], once)
    _compare(course, pgkeep, places)
    shutil.rmtree(home)
    return result


def _command(
    course: Course, pgkeep: PgKeep, server: Server, form: str, name: str, places: dict[str, Path]
) -> tuple[str, ...]:
    jobs = (f"--jobs={JOBS}",) if form == "directory" else ()
    if name == BARE:
        options = (f"--format={form}", f"--compress={COMPRESS}", f"--file={places[BARE]}", *jobs)
        return (course.site.program("pg_dump"), f"--dbname={server.conninfo}", *options)
    to = ("--to", str(places[TO_PATH])) if name == TO_PATH else ()
    return pgkeep.command("dump", DATABASE, "--format", form, "--compress", COMPRESS, *jobs, *to)


def _clear(place: Path, home: Path) -> None:
    """Nothing of the run before is at a path; a repository is made anew as a whole."""
    if place.parent == home:
        for path in home.glob(f"{place.name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _compare(course: Course, pgkeep: PgKeep, places: dict[str, Path]) -> None:
    """The data of every dump is the same, file by file; archives' heads hold the time of their making."""
    expected = dict(_files(places[BARE]))
    for name, found in ((TO_PATH, dict(_files(places[TO_PATH]))), (INTO, dict(_stored(pgkeep)))):
        missing = [file for file, content in expected.items() if found.get(file) != content]
        if missing or not expected:
            raise RaceError(f"{name} holds other data than the bare pg_dump wrote: {', '.join(missing) or 'nothing'}")
        course.say(f"  {name}: the same data as the bare pg_dump's, in {len(expected)} files")


def _files(place: Path) -> Iterator[tuple[str, str]]:
    """(name, hash) of files of data; of an archive in one file its length alone."""
    if not place.is_dir():
        yield "archive", str(place.stat().st_size // 1024)
        return
    for path in place.glob("*.dat*"):
        if path.name != "toc.dat":
            yield path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def _stored(pgkeep: PgKeep) -> Iterator[tuple[str, str]]:
    cluster = open_place(load(str(pgkeep.config), {}), Selection(), SystemClock()).cluster
    reader = open_dump(cluster, dump_ids(cluster)[-1])
    for member in reader.members():
        name = os.fsdecode(member.name)
        if name.endswith(".pgdump"):
            yield "archive", str(member.size // 1024)
            continue
        digest = hashlib.sha256()
        for part in reader.read(member):
            digest.update(part)
        yield name, digest.hexdigest()
