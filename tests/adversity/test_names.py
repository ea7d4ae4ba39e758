"""Paths as people make them: blanks, quotes, percent signs, dollars, other alphabets, all the way through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pgkeep.pg.account import give
from tests.adversity.conftest import rows, started
from tests.clusters import Cluster
from tests.keeping import Kept

ODD = 'it\'s 100% "odd" $HOME `id` резерв'


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
