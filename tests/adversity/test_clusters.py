"""Every PostgreSQL, and the ways in which clusters differ: backed up, restored, started, and equal to the original."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.adversity.conftest import MakeKept, started
from tests.clusters import Cluster
from tests.keeping import Kept


@dataclass(frozen=True)
class Kind:
    """A version, initdb's choices, and what is special in it."""

    major: int
    options: dict[str, Any] = field(default_factory=dict)
    odd: str = "naïve"
    """A name that is written in the cluster's encoding."""
    encoding: str = "utf-8"


KINDS = [
    Kind(14, {"checksums": False, "wal_segsize": 64, "encoding": "SQL_ASCII"}, "\udcff\udcfe\udce9", "ascii"),
    Kind(15, {"encoding": "LATIN1", "wal_segsize": 1}, "naïve", "latin-1"),
    Kind(16, {"encoding": "EUC_JP"}, "日本", "euc-jp"),
    Kind(17, {"summarize_wal": "on", "wal_level": "logical"}),
    Kind(18, {"checksums": False, "encoding": "SQL_ASCII", "wal_segsize": 1}, "\udce9t\udce9", "ascii"),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"pg{kind.major}")
def test_a_cluster_comes_back_as_it_was(make_kept: MakeKept, kind: Kind) -> None:
    kept = make_kept(major=kind.major, **kind.options)
    _furnish(kept, kind)
    backup = kept.backup()
    _change(kept, kind)
    kept.archive_all()
    listed = kept.result("list")["backups"][0]
    assert (listed["backup"], listed["restorable"]) == (backup, True)
    with started(kept, kept.home / "restored", "--latest") as restored:
        assert _dump(restored) == _dump(kept.cluster)
        for setting in ("data_checksums", "wal_segment_size", "server_encoding"):
            assert restored.value(f"SHOW {setting}") == kept.cluster.value(f"SHOW {setting}")


def _psql(cluster: Cluster, dbname: str, *statements: str) -> None:
    """By psql, which passes bytes through: psycopg would translate."""
    commands = [word for statement in statements for word in ("-c", statement)]
    cluster.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dbname, *commands)


def _spelt(kind: Kind) -> str:
    """The odd name as an argument whose bytes are in the cluster's encoding."""
    return kind.odd.encode(kind.encoding, "surrogateescape").decode("utf-8", "surrogateescape")


def _furnish(kept: Kept, kind: Kind) -> None:
    odd = _spelt(kind)
    space = kept.cluster.directory("space")
    _psql(
        kept.cluster,
        "postgres",
        f'CREATE ROLE "{odd}"',
        f"CREATE TABLESPACE fast LOCATION '{space}'",
        f'CREATE DATABASE "{odd}"',
        "CREATE TABLE kept AS SELECT g AS id, md5(g::text) AS note FROM generate_series(1, 5000) g",
        "CREATE INDEX ON kept (note)",
        "CREATE TABLE moved TABLESPACE fast AS SELECT * FROM kept",
        "CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS one",
        "SELECT lo_from_bytea(0, decode(repeat('ab', 5000), 'hex'))",
    )
    _psql(
        kept.cluster,
        odd,
        f'CREATE SCHEMA "{odd}" AUTHORIZATION "{odd}"',
        f'CREATE TABLE "{odd}"."{odd}" AS SELECT g AS id, \'{odd}\'::text AS "{odd}" FROM generate_series(1, 100) g',
    )


def _change(kept: Kept, kind: Kind) -> None:
    """After the backup: what only WAL brings back."""
    odd = _spelt(kind)
    _psql(
        kept.cluster,
        "postgres",
        "UPDATE kept SET note = 'changed' WHERE id % 7 = 0",
        "DELETE FROM moved WHERE id % 2 = 0",
        "TRUNCATE fleeting",
        f'CREATE DATABASE "{odd} 2" TEMPLATE "{odd}"',
    )
    _psql(kept.cluster, odd, f'CREATE TABLE "{odd}"."{odd} 2" (LIKE "{odd}"."{odd}")')


def _dump(server: Cluster) -> list[bytes]:
    """Everything, but for what differs by nature: the tablespace's directory, and pg_dump's own random key."""
    lines = server.run("pg_dumpall").stdout.splitlines()
    assert len(lines) > 7000
    return [line for line in lines if not line.startswith((b"CREATE TABLESPACE", b"\\restrict", b"\\unrestrict"))]
