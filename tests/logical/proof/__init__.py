"""The proof schema, and what it means that two databases hold the same.

The oracle is not pgkeep: the schema as pg_dump writes it, rows and large objects by hashes that the servers compute,
sequences and the database's own settings from the catalogs.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgkeep.pg.child import Child
from pgkeep.pg.link import link_of
from pgkeep.pg.programs import Programs
from pgkeep.pg.session import Session
from tests.clusters import Cluster

HERE = Path(__file__).parent
ROLES = ("proof_owner", "proof_app", "proof reader", 'Robert"); DROP TABLE students; --')
_VOLATILE = re.compile(r"^(\\(un)?restrict .*|-- Dumped (from|by) .*)\n", re.MULTILINE)

_TABLES = """
    SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname) FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^(pg_|information_schema)' AND (c.relkind = 'r' OR c.relispopulated)
    ORDER BY 1, 2
"""
_BLOBS = """
    SELECT oid::text, md5(lo_get(oid)), pg_get_userbyid(lomowner), lomacl::text FROM pg_largeobject_metadata ORDER BY 1
"""
_SEQUENCES = "SELECT format('%I.%I', schemaname, sequencename), last_value FROM pg_sequences ORDER BY 1"
_DATABASE = """
    SELECT pg_get_userbyid(datdba), datacl::text, shobj_description(oid, 'pg_database'), datconnlimit, encoding,
           datcollate, ARRAY(SELECT coalesce(r.rolname, '') || ' ' || s.setconfig::text FROM pg_db_role_setting s
                 LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = d.oid ORDER BY 1)
    FROM pg_database d WHERE datname = current_database()
"""


@dataclass(frozen=True)
class Picture:
    """Everything that a dump should bring back."""

    schema: str
    rows: dict[str, tuple[int, str]]
    blobs: list[tuple[Any, ...]]
    sequences: list[tuple[Any, ...]]
    database: list[tuple[Any, ...]]


def make(cluster: Cluster, dbname: str = "proof", *more: str) -> None:
    """The roles and the database, filled by psql; `more` are further scripts."""
    if not cluster.sql("SELECT 1 FROM pg_roles WHERE rolname = 'proof_owner'"):
        psql(cluster, "postgres", (HERE / "roles.sql").read_text())
    cluster.run("createdb", "-T", "template0", dbname)
    for script in ("common.sql", *more):
        psql(cluster, dbname, (HERE / script).read_text())
    cluster.sql(f"ALTER DATABASE \"{dbname}\" SET work_mem = '9MB'")
    cluster.sql(f'ALTER ROLE proof_app IN DATABASE "{dbname}" SET search_path = shop, ext')
    cluster.sql(f"COMMENT ON DATABASE \"{dbname}\" IS 'the proof''s'")
    cluster.sql(f'ALTER DATABASE "{dbname}" OWNER TO proof_owner')
    cluster.sql(f'GRANT CONNECT ON DATABASE "{dbname}" TO "proof reader"')


def psql(cluster: Cluster, dbname: str, script: str) -> None:
    path = cluster.home / "script.sql"
    path.write_text(script)
    path.chmod(0o644)
    try:
        cluster.run("psql", "-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", dbname, "-f", str(path))
    finally:
        path.unlink()


def dump(programs: Programs, cluster: Cluster, dbname: str, *options: str) -> bytes:
    """What pg_dump of `programs` writes to stdout."""
    import subprocess

    with Session.open(cluster.instance.conninfo(dbname), "test") as session:
        link = link_of(session)
    with link.to(dbname) as reach:
        command = [programs.path("pg_dump"), f"--dbname={reach.conninfo}", *options]
        with Child(command, reach=reach, stdout=subprocess.PIPE) as child:
            written = child.stdout.read()
            child.finish()
    return written


def picture(cluster: Cluster, dbname: str, programs: Programs) -> Picture:
    """`programs` write the schema: the same for both sides of a comparison."""
    tables = cluster.sql(_TABLES, dbname=dbname)
    rows = {}
    for _, _, quoted in tables:
        query = f"SELECT count(*), coalesce(md5(string_agg(r, E'\\n' ORDER BY r COLLATE \"C\")), '') FROM" \
                f" (SELECT t::text AS r FROM ONLY {quoted} t) AS x"  # fmt: skip
        (found,) = cluster.sql(query, dbname=dbname)
        rows[quoted] = (found[0], found[1])
    schema = dump(programs, cluster, dbname, "--schema-only").decode()
    return Picture(
        _VOLATILE.sub("", schema),
        rows,
        cluster.sql(_BLOBS, dbname=dbname),
        cluster.sql(_SEQUENCES, dbname=dbname),
        cluster.sql(_DATABASE, dbname=dbname),
    )


def differences(one: Picture, other: Picture) -> list[str]:
    """Lines of the schema that differ ('-...', '+...'), and what else does."""
    diff = difflib.unified_diff(one.schema.splitlines(), other.schema.splitlines(), n=0, lineterm="")
    found = [line for line in diff if not line.startswith(("---", "+++", "@@", "+--")) and line not in {"-", "+"}]
    for name in ("rows", "blobs", "sequences", "database"):
        mine, yours = getattr(one, name), getattr(other, name)
        if mine != yours:
            found.append(f"{name}: {mine} != {yours}")
    return found
