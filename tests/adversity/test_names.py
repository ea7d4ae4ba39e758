"""Paths as people make them: blanks, quotes, percent signs, dollars, other alphabets, all the way through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pgkeep.pg.account import give
from tests.adversity.conftest import MakeKept, rows, started
from tests.clusters import Cluster
from tests.keeping import Kept

ODD = 'it\'s 100% "odd" $HOME `id` резерв'


HOSTILE = """a "quoted" \\ path
with a newline, it's $(id) """


def test_names_and_paths_with_newlines(make_kept: MakeKept) -> None:
    """A tablespace, a database, a schema and a table of such names: backed up, restored in two places, and read."""
    kept = make_kept(wal_segsize=1)
    server = kept.cluster
    space = server.directory(HOSTILE.replace("'", ""))  # which PostgreSQL forbids in a location
    name = HOSTILE.replace('"', '""')
    server.sql(f"CREATE TABLESPACE \"{name}\" LOCATION '{space}'")
    server.sql(f'CREATE DATABASE "{name}" TABLESPACE "{name}"')
    server.sql(f'CREATE TABLE "{name}" AS SELECT 1 AS n', dbname=HOSTILE)
    kept.backup()
    server.sql(f'INSERT INTO "{name}" VALUES (2)', dbname=HOSTILE)
    kept.archive_all()
    with started(kept, kept.home / "beside") as restored:
        assert restored.sql(f'SELECT n FROM "{name}" ORDER BY n', dbname=HOSTILE) == [(1,), (2,)]
        (oid,) = restored.sql("SELECT oid FROM pg_tablespace WHERE spcname = %s", (HOSTILE,))[0]
        assert (kept.home / "beside/pg_tblspc" / str(oid)).readlink() == kept.home / f"beside-tablespaces/{oid}"
    mapped = kept.home / f"{space.name}2"
    with started(kept, kept.home / "mapped", "--tablespace-map", f"{space}={mapped}") as restored:
        assert restored.sql(f'SELECT n FROM "{name}" ORDER BY n', dbname=HOSTILE) == [(1,), (2,)]
        assert restored.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE oid = %s", (oid,)) == [
            (str(mapped),)
        ]


def test_odd_paths(cluster: Callable[..., Cluster], server_tmp: Path, pgkeep_program: tuple[str, ...]) -> None:
    """The repository, the configuration, the target and a tablespace: every command is quoted."""
    home = server_tmp / ODD
    home.mkdir()
    made = cluster("main", wal_segsize=1)
    give(made.account, [home])
    kept = Kept(made, home, pgkeep_program)
    place = ("--repository", str(kept.repository), "--connection", made.instance.conninfo())
    for statement in kept.result("init", *place)["statements"]:
        made.sql(statement["sql"])
    made.restart()
    space = made.directory("space " + ODD.replace("'", ""))
    made.sql(f"CREATE TABLESPACE fast LOCATION '{space}'")
    made.sql("CREATE TABLE t TABLESPACE fast AS SELECT 1 AS n")
    kept.backup()
    made.sql("INSERT INTO t VALUES (2)")
    kept.archive_all()
    mapped = home / "mapped = here"
    mapping = f"{space}={mapped}".replace("mapped = ", "mapped \\= ")
    with started(kept, home / "restored", "--tablespace-map", mapping) as server:
        assert rows(server) == [1, 2]
        assert list(mapped.glob("PG_*/*"))
