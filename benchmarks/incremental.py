"""Incremental backups: the same work on a copy of the data set for each contender, then what each stores of it.

Each pair: TRANSACTIONS of pgbench with a seed of the pair, a checkpoint, `sync`; then one incremental backup.  The
repository grows from pair to pair as it does in life.  At the end every tool's newest backup is restored, timed, and
its rows are compared with those of the server that it was taken from.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders import Contender, Phases
from benchmarks.data import digest, tree_size
from benchmarks.measure import tree_ticks
from benchmarks.race import Course, Result, Run, await_archiver, clusters, race, settle
from benchmarks.server import RaceError, Server, running

TRANSACTIONS = 20_000
_SETTINGS = "summarize_wal=on\nmax_wal_size='8GB'\nautovacuum=off\n"


def incremental_races(course: Course) -> Iterator[Result]:
    """The race, and the restore of what it made."""
    with clusters(course, _SETTINGS) as servers:
        turns = dict.fromkeys(servers, 0)
        for contender in course.field:
            _full(contender, servers[contender.name])

        def once(contender: Contender) -> Run:
            server = servers[contender.name]
            turns[contender.name] += 1
            _work(server, seed=turns[contender.name])
            await_archiver(server)
            settle(server.data)
            stored, before = _stored(contender), tree_ticks(server.pid)
            cost = server.site.race(contender.incremental(server))
            spent = tree_ticks(server.pid) - before
            return Run(contender.name, cost, contender.phases(cost.lines), spent, _stored(contender) - stored)

        yield race(course, "incremental", course.field, once)
        expected = {name: digest(server) for name, server in servers.items()}
        for contender in course.field:
            servers[contender.name].sql("select pg_switch_wal()")
            await_archiver(servers[contender.name])
    for server in servers.values():  # nobody needs them any more, and the restores need the room
        shutil.rmtree(server.data)
    yield _restores(course, expected)


def _full(contender: Contender, server: Server) -> None:
    contender.prepare(server)
    server.sql("checkpoint")
    server.site.run(*contender.backup(server))


def _work(server: Server, seed: int) -> None:
    words = ("-n", "-c", "1", "-t", str(TRANSACTIONS), f"--random-seed={seed}", server.conninfo)
    server.site.run(server.site.program("pgbench"), *words)
    server.sql("checkpoint")


def _stored(contender: Contender) -> int:
    return sum(tree_size(folder) for folder in contender.backups)


def _restores(course: Course, expected: dict[str, str]) -> Result:
    able = [contender for contender in course.field if contender.restore(Path("/"))]
    home = course.site.folder("restored")

    def once(contender: Contender) -> Run:
        target = home / contender.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(mode=0o700)
        course.site.own(target)
        settle(contender.repository)
        return Run(contender.name, course.site.race(contender.restore(target)), Phases(), 0.0, 0)

    result = race(course, "restore of the last incremental", able, once)
    for contender in able:
        with running(course.site, home / contender.name, "archive_mode=off") as server:
            if (found := digest(server)) != expected[contender.name]:
                raise RaceError(f"{contender.name} restored other rows: {found}, not {expected[contender.name]}")
        course.say(f"  {contender.name}: the restored server holds the same rows")
    shutil.rmtree(home)
    return result
