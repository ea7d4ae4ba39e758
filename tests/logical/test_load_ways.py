"""What comes with a dump, or does not: roles of the globals, tablespaces, another role, another scratch directory, and
what the dump's own options said; on real servers."""

from __future__ import annotations

import gzip
import os
import pwd
import shutil
from pathlib import Path

import pytest

from pgkeep.app import load as app_load
from pgkeep.app.dump import DumpTarget
from pgkeep.errors import Fault
from pgkeep.events import Warned
from pgkeep.logical.request import Chosen, DumpRequest, Format
from pgkeep.pg.account import Account
from pgkeep.pg.programs import Programs
from tests.clusters import Cluster
from tests.logical.conftest import Ground, content, fill
from tests.logical.sides import Load, databases, run_client
from tests.logical.test_drain import small_memory
from tests.logical.test_load_failures import message
from tests.servers import pg_versions

OWNERS = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'sales'::regnamespace"
WHERE = (
    "SELECT spcname FROM pg_tablespace AS t JOIN pg_class AS c ON c.reltablespace = t.oid WHERE c.relname = 'orders'"
)


def owned(server: Cluster) -> None:
    """The shop belongs to somebody, and somebody else may read it."""
    server.sql("CREATE ROLE seller")
    server.sql("CREATE ROLE reader")
    for statement in (
        "ALTER TABLE sales.orders OWNER TO seller",
        "GRANT SELECT ON sales.orders TO reader",
        "ALTER DATABASE shop OWNER TO seller",
        "GRANT CONNECT ON DATABASE shop TO reader",
        "ALTER ROLE reader IN DATABASE shop SET work_mem = '5MB'",
    ):
        server.sql(statement, dbname="shop")


# --- --no-owner and --no-acl of the dump


@pytest.mark.pg("18")
@pytest.mark.parametrize("form", ["directory", "custom", "plain"])
def test_no_owner_of_the_dump_holds_for_the_load(production: Ground, away: Cluster, form: Format) -> None:
    """Neither of the tables nor of the database itself; and where it is recorded, no option repeats it."""
    owned(production.server)
    request = DumpRequest(name="shop", database="shop", chosen=Chosen(owner=False, acl=False), format=form)
    production.dump(request)
    done = production.load(away, "shop", "shop")
    assert content(away, "shop") == content(production.server, "shop")
    assert away.sql(OWNERS, dbname="shop") == [("postgres",)]
    said = {event.code: event.text for event in production.events if isinstance(event, Warned)}
    assert ("no-owner" in said) == (form != "plain")
    assert "reader" in said["role-settings"]
    database = "SELECT datdba::regrole::text, datacl::text FROM pg_database WHERE datname = 'shop'"
    assert away.sql(database) == [("postgres", None)]
    assert done.plan.request.chosen.no_owner == (form != "plain")


@pytest.mark.pg("18")
def test_other_owners_come_before_the_recorded_none(production: Ground, away: Cluster) -> None:
    owned(production.server)
    production.dump(DumpRequest(name="shop", database="shop", chosen=Chosen(owner=False)))
    away.sql("CREATE ROLE trader")
    production.load(away, "shop", "shop", owners={"seller": "trader", "reader": "trader", "postgres": "postgres"})
    assert ("trader",) in away.sql(OWNERS, dbname="shop")


# --- roles


@pg_versions(14, 18)
def test_the_databases_own_roles_are_missing(production: Ground, away: Cluster, load: Load, tmp_path: Path) -> None:
    """Known before anything is loaded: who is granted the database itself; settings for a role go without it."""
    owned(production.server)
    production.dump(DumpRequest(name="shop", database="shop", format="custom"), DumpTarget(to=str(tmp_path / "d")))
    away.sql("CREATE ROLE seller")
    part = load(away, str(tmp_path / "d"), "--into", "shop", "--table", "public.customers", "--dry-run", "--json")
    assert part.status == 0 and "reader" not in part.out
    said = message(away, load, str(tmp_path / "d"), "--into", "shop")
    assert said.startswith("load-refused: the server has not the roles") and "reader" in said
    done = load(away, str(tmp_path / "d"), "--into", "shop", "--no-acl", "--json")
    assert done.status == 0, done.out
    assert "role-settings" in {line["code"] for line in done.lines if line.get("event") == "warning"}


@pytest.mark.pg("18")
def test_role(production: Ground, away: Cluster, load: Load, tmp_path: Path) -> None:
    """Become a role first: everything is its, as far as it may; and a role that is not there, or may not, is said."""
    archive = str(tmp_path / "d")
    production.dump(DumpRequest(name="shop", database="shop"), DumpTarget(to=archive))
    away.sql("CREATE ROLE builder")
    words = [archive, "--no-owner", "--no-acl", "--role", "builder", "--jobs", "2"]
    said = message(away, load, *words[:-1], "2", "--into", "shop", "--role", "nobody")
    assert said.startswith("load-refused: the server has no role nobody")
    said = message(away, load, *words, "--into", "shop")
    assert said.startswith(("load-failed: ", "postgres-rights: ")) and "permission denied for database" in said
    assert databases(away) == ["postgres", "template0", "template1"]
    away.sql("CREATE DATABASE shop TEMPLATE template0 OWNER builder")
    done = load(away, *words[:-2], "--into", "shop", "--exclude-table", "empty", "--json")
    assert done.status == 0, done.out
    assert away.sql(OWNERS, dbname="shop") == [("builder",)]


# --- tablespaces


@pytest.mark.pg("18")
def test_tablespaces(production: Ground, away: Cluster, load: Load, tmp_path: Path) -> None:
    """Missing: refused.  With --globals: made where the dumped server had them, if that place can be had; one of the
    same name stays as it is, wherever it lies."""
    old = production.server.directory("fast disk")
    production.server.sql(f"CREATE TABLESPACE fast LOCATION '{old}'")
    production.server.sql("ALTER TABLE sales.orders SET TABLESPACE fast", dbname="shop")
    archive = str(tmp_path / "d")
    production.dump(DumpRequest(name="shop", database="shop"), DumpTarget(to=archive))
    said = message(away, load, archive, "--into", "shop")
    assert said.startswith("load-refused: the server has not the tablespaces fast") and "--no-tablespaces" in said
    said = message(away, load, archive, "--into", "shop", "--globals")  # production's files are there
    assert said.startswith(f"load-refused: the tablespace fast was in {old}, which is not empty there | ")
    assert "--no-tablespaces" in said
    assert databases(away) == ["postgres", "template0", "template1"]
    done = load(away, archive, "--into", "plain", "--globals", "--no-tablespaces", "--json")
    assert done.status == 0 and away.sql(WHERE, dbname="plain") == []
    gone(production, old).rmdir()
    said = message(away, load, archive, "--into", "shop", "--globals")
    assert said.startswith(f"load-refused: the tablespace fast was in {old}, which does not exist")
    old.mkdir()  # not the server's own
    away.sql("CREATE ROLE weak CREATEDB CREATEROLE LOGIN")
    weak = away.instance.conninfo(user="weak")
    production.server.sql("CREATE ROLE newcomer")
    script = tmp_path / "globals.sql"
    script.write_text(f"CREATE ROLE newcomer;\nCREATE TABLESPACE fast OWNER newcomer LOCATION '{old}';\n")
    words = ["--globals-file", str(script), "--server", weak, "--no-owner", "--no-acl"]
    said = message(away, load, archive, "--into", "shop", *words)
    assert said.startswith("load-failed: the missing roles and tablespaces cannot be made") and "permission" in said
    assert "what was made stays: newcomer" in said and "--no-tablespaces" in said
    assert databases(away) == ["plain", "postgres", "template0", "template1"]
    new = away.directory("other")
    away.sql(f"CREATE TABLESPACE fast LOCATION '{new}'")
    done = load(away, archive, "--into", "shop", "--globals", "--json")
    assert done.status == 0, done.out
    assert done.result["plan"]["globals"]["kept_tablespaces"] == ["fast"]
    assert away.sql(WHERE, dbname="shop") == [("fast",)]
    assert away.value("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'") == str(new)


def gone(production: Ground, tablespace: Path) -> Path:
    """The dumped server is no more: its tablespace is an empty directory."""
    production.server.sql("DROP DATABASE shop")
    production.server.sql("DROP TABLESPACE fast")
    assert not list(tablespace.iterdir())
    return tablespace


@pytest.mark.pg("18")
def test_a_tablespace_is_made(production: Ground, away: Cluster, load: Load, tmp_path: Path) -> None:
    """In an empty directory that the dumped server had it in, with its owner, who is mapped."""
    old = production.server.directory("fast")
    production.server.sql("CREATE ROLE keeper")
    production.server.sql(f"CREATE TABLESPACE fast OWNER keeper LOCATION '{old}'")
    production.server.sql("ALTER TABLE sales.orders SET TABLESPACE fast", dbname="shop")
    archive = str(tmp_path / "d")
    production.dump(DumpRequest(name="shop", database="shop"), DumpTarget(to=archive))
    gone(production, old)
    away.sql("CREATE ROLE other")
    words = ["--globals", "--owner-map", "keeper=other", "--json"]
    done = load(away, archive, "--into", "shop", *words)
    assert done.status == 0, done.out
    assert done.result["created_tablespaces"] == ["fast"] and away.sql(WHERE, dbname="shop") == [("fast",)]
    owner = "SELECT spcowner::regrole::text FROM pg_tablespace WHERE spcname = 'fast'"
    assert away.value(owner) == "other" and not away.sql("SELECT 1 FROM pg_roles WHERE rolname = 'keeper'")


# --- where it lies meanwhile


@pytest.mark.pg("18")
def test_scratch(production: Ground, away: Cluster, tmp_path: Path) -> None:
    """A named place is used and emptied; one without room ends the load before a database is made."""
    production.dump(DumpRequest(name="shop", database="shop", compress="none"))
    with small_memory(tmp_path / "room", "64m") as room:
        production.load(away, "shop", "shop", scratch=str(room))
        assert list(room.iterdir()) == []
    fill(production.server, "large", 60_000)
    production.dump(DumpRequest(name="large", database="large", compress="none"))
    with small_memory(tmp_path / "tiny", "1m") as tiny:
        with pytest.raises(Fault, match="to spare") as caught:
            production.load(away, "large", "large", scratch=str(tiny))
        assert caught.value.code == "target-space" and "--scratch" in caught.value.hint
        assert list(tiny.iterdir()) == []
    assert databases(away) == ["postgres", "shop", "template0", "template1"]


@pytest.mark.pg("18")
def test_it_does_not_fit_in_memory(
    production: Ground, away: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place for it is the machine's memory unless somebody names one; when that is too small, a disk is named."""
    fill(production.server, "large", 60_000)
    production.dump(DumpRequest(name="large", database="large", compress="none"))
    with small_memory(tmp_path / "memory", "1m") as memory:
        monkeypatch.setattr("pgkeep.logical.loadjob.MEMORY", str(memory))
        with pytest.raises(Fault, match="the dump takes") as caught:
            production.load(away, "large", "large")
        assert caught.value.code == "target-space" and "--scratch DIR" in caught.value.hint
    disk = tmp_path / "disk"
    disk.mkdir()
    production.load(away, "large", "large", scratch=str(disk))
    assert content(away, "large") == content(production.server, "large") and not os.listdir(disk)


# --- programs


@pytest.mark.pg("17")
def test_a_psql_that_cannot_be_kept_from_commands(
    ground: Ground, shop: str, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script is refused; so is an archive that would go through psql.  Another way does without psql."""
    programs = ground.server.programs
    old = Programs(programs.bindir, "17.5", programs.major)
    monkeypatch.setattr(app_load, "find_tools", lambda *_: [old])
    script, archive = tmp_path / "s.sql", tmp_path / "d.gz"
    script.write_text("CREATE TABLE t ();\n")
    said = message(ground.server, load, str(script), "--into", "x")
    assert said.startswith("postgres-version: psql 17.5") and "--bindir" in said
    raw = run_client(ground.server, "pg_dump", "-Fc", shop)
    archive.write_bytes(gzip.compress(raw, 1))
    ground.server.sql("CREATE DATABASE x TEMPLATE template0")
    said = message(ground.server, load, str(archive), "--into", "x")
    assert said.startswith("load-refused: psql 17.5")
    assert load(ground.server, str(archive), "--into", "y", "--json").status == 0


# --- no room on the server


@pytest.mark.pg("18")
def test_a_full_disk_under_the_server(
    production: Ground, away: Cluster, load: Load, tmp_path: Path, server_user: Account
) -> None:
    """One transaction leaves nothing; several connections leave what the message lists."""
    fill(production.server, "large", 60_000)
    archive = str(tmp_path / "d")
    production.dump(DumpRequest(name="large", database="large"), DumpTarget(to=archive))
    with small_memory(away.home / "tiny", "32m") as tiny:
        credentials = pwd.getpwnam(server_user.name)
        os.chown(tiny, credentials.pw_uid, credentials.pw_gid)
        away.sql(f"CREATE TABLESPACE tiny LOCATION '{tiny}'")
        try:
            away.sql("CREATE DATABASE there TEMPLATE template0 TABLESPACE tiny")
            with (tiny / "others").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(tiny).free - (2 << 20))
            said = message(away, load, archive, "--into", "there")
            assert said.startswith("target-space: ") and "No space left on device" in said
            assert "nothing was left in the server | make room" in said
            assert away.value("SELECT count(*) FROM pg_class WHERE oid >= 16384", dbname="there") == 0
            said = message(away, load, archive, "--into", "there", "--jobs", "2", status=3)
            assert said.startswith("load-in-part: ") and "No space left on device" in said
            assert "there now holds " in said and "drop it and create it again" in said
        finally:
            away.sql("DROP DATABASE IF EXISTS there")
            away.sql("DROP TABLESPACE tiny")
