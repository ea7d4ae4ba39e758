"""Whatever goes wrong in a load ends clearly: in the server is nothing of it, or the message says what."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgkeep.logical.loadjob import UNFINISHED
from tests.clusters import Cluster
from tests.conftest import MakeCluster
from tests.logical.sides import NEW, Load, Sides, databases, run_client

SLOW = 60_000
"""Rows of a table that takes a while to fill: each is checked, and that is slow."""


@pytest.fixture
def custom(sides: Sides) -> str:
    return str(sides.archive("custom", NEW))


def message(server: Cluster, load: Load, *argv: str, status: int = 1) -> str:
    """What a load that must fail says; the code comes first."""
    done = load(server, *argv, "--json")
    assert done.status == status, done.out
    error = done.lines[-1]["error"]
    return f"{error['code']}: {error['message']} | {error['hint']}"


# --- before anything is done


def test_a_server_that_is_not_there(sides: Sides, load: Load, custom: str) -> None:
    said = message(sides.new.server, load, custom, "--into", "x", "--server", "host=/nowhere", status=20)
    assert said.startswith("postgres-unreachable: cannot connect to PostgreSQL")


def test_a_wrong_password(cluster: MakeCluster, load: Load, sides: Sides, custom: str) -> None:
    server = cluster()
    server.sql("CREATE ROLE somebody LOGIN SUPERUSER PASSWORD 'right'")
    (server.datadir / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    server.reload()
    at = server.conninfo.replace("user=postgres", "user=somebody")
    said = message(server, load, custom, "--into", "x", "--server", f"{at} password=wrong", status=20)
    assert "password authentication failed" in said and "wrong" not in said.replace("wrong password", "")
    done = load(server, custom, "--into", "x", "--server", f"{at} password=right", "--no-owner", "--no-acl", "--json")
    assert "load-refused" in done.out  # policies name roles: a password is good, roles are missing
    assert databases(server) == ["postgres", "template0", "template1"]


def test_roles_are_missing(cluster: MakeCluster, load: Load, sides: Sides, custom: str) -> None:
    server = cluster(wal_level="logical")
    said = message(server, load, custom, "--into", "x")
    assert (
        said.startswith("load-refused: the server has not the roles") and "proof_owner" in said and "--globals" in said
    )
    globals_file = sides.home / "globals.sql"
    globals_file.write_bytes(run_client(sides.new.server, "pg_dumpall", "--globals-only"))
    server.sql("CREATE ROLE proof_app PASSWORD 'its own' CONNECTION LIMIT 3")
    before = server.sql("SELECT * FROM pg_authid WHERE rolname = 'proof_app'")
    done = load(server, custom, "--into", "x", "--globals-file", str(globals_file), "--json")
    assert done.status == 0, done.out
    plan = done.result["plan"]["globals"]
    assert plan["kept_roles"] == ["postgres", "proof_app"] and "proof_owner" in plan["creates_roles"]
    assert server.sql("SELECT * FROM pg_authid WHERE rolname = 'proof_app'") == before
    assert not server.sql("SELECT 1 FROM pg_auth_members WHERE member = 'proof_app'::regrole")
    assert not server.sql("SELECT 1 FROM pg_db_role_setting WHERE setrole = 'proof_app'::regrole AND setdatabase = 0")


def test_what_is_there_is_not_overwritten(sides: Sides, load: Load, custom: str) -> None:
    server = sides.new.server
    server.sql("CREATE DATABASE mine TEMPLATE template0")
    server.sql("CREATE SCHEMA shop CREATE TABLE kinds (mine int)", dbname="mine")
    server.sql("INSERT INTO shop.kinds VALUES (42)", dbname="mine")
    said = message(server, load, custom, "--into", "mine", "--yes")
    assert said.startswith("load-refused: mine has table shop.kinds already") and "--clean" in said
    asked = message(server, load, custom, "--into", "mine", "--clean", status=2)
    assert "nobody can be asked" in asked and "DROP" in asked
    assert server.value("SELECT mine FROM shop.kinds", dbname="mine") == 42
    done = load(server, custom, "--into", "mine", "--clean", "--yes", "--json")
    assert done.status == 0, done.out
    assert "shop.kinds" in done.result["plan"]["replaced"]
    assert server.value("SELECT count(*) FROM shop.kinds", dbname="mine") == 501


def test_an_older_archive_program(
    sides: Sides, load: Load, custom: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pg_restore older than the archive is not used, and when there is no other, said."""
    from pgkeep.app import load as module

    monkeypatch.setattr(module, "find_tools", lambda _need, _bindir: [sides.old.server.programs])
    said = message(sides.old.server, load, custom, "--into", "x", "--bindir", str(sides.old.server.programs.bindir))
    assert said.startswith("postgres-version: ") and "14" in said
    assert "x" not in databases(sides.old.server)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "dump-unsupported", "is empty"),
        (b"\xff\xfeC\0R\0", "dump-unsupported", "UTF-16"),
        (b"\x7fELF\0\0\0\0", "dump-unsupported", "neither an archive"),
        (b"--\n-- PostgreSQL database cluster dump\n--\n", "dump-unsupported", "whole cluster"),
        (b"CREATE DATABASE x;\n\\connect x\n", "dump-unsupported", "chooses a database by itself"),
        (b"PGDMP\x01\x63\0\x04\x08\x01", "dump-unsupported", "version 1.99"),
        (b"PGDMP\x01\x0e\0\x04\x08\x01\0\0", "dump-damaged", "ends too early"),
        (b"\x1f\x8b\x08\0garbage that is no deflate", "dump-damaged", "decompress"),
    ],
)  # fmt: skip
def test_what_is_no_dump(sides: Sides, load: Load, tmp_path: Path, content: bytes, code: str, words: str) -> None:
    path = tmp_path / "customer-prod.dump"
    path.write_bytes(content)
    said = message(sides.new.server, load, str(path), "--into", "x")
    assert said.startswith(f"{code}: {path}") and words in said


def test_a_directory_that_lost_a_file(sides: Sides, load: Load, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(sides.archive("directory", NEW)), str(copy)], check=True)
    lost = sorted(copy.glob("*.dat.*"))[3]
    lost.unlink()
    said = message(sides.new.server, load, str(copy), "--into", "x")
    assert "files of data are missing" in said and lost.name.split(".")[0] in said
    (copy / "toc.dat").unlink()
    assert "without toc.dat" in message(sides.new.server, load, str(copy), "--into", "x")


# --- foreign scripts


@pytest.mark.parametrize("line", ["\\! touch {}", "SELECT 1 \\g |touch {}", "\\o {}", "\\copy t TO {}"])
def test_a_script_runs_no_command_of_psqls(sides: Sides, load: Load, tmp_path: Path, line: str) -> None:
    touched = tmp_path / "touched"
    script = tmp_path / "evil.sql"
    body = "CREATE TABLE t (n int);\n" + line.format(touched) + "\n"
    for text in (body, "\\restrict abc\n" + body, "\\restrict abc\nSELECT 1;\n\\unrestrict abc\n" + body):
        script.write_text(text)
        before = databases(sides.new.server)
        said = message(sides.new.server, load, str(script), "--into", "x")
        assert "restricted" in said, said
        assert not touched.exists()
        assert databases(sides.new.server) == before


def test_a_script_that_is_not_whole(sides: Sides, load: Load, tmp_path: Path) -> None:
    """Cut between two statements it would run to its end without an error."""
    script = tmp_path / "half.sql"
    text = sides.archive("plain", NEW).read_text()
    script.write_text(text[: text.index("\n-- Data for Name:")])
    server = sides.new.server
    server.sql("CREATE DATABASE there TEMPLATE template0")
    for name in ("there", "anew"):
        said = message(server, load, str(script), "--into", name)
        assert said.startswith("dump-damaged: ") and "before its last line" in said
    assert server.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'shop'", dbname="there") == 0
    assert "anew" not in databases(server)


def test_a_foreign_script_stops_at_its_first_error(sides: Sides, load: Load, tmp_path: Path) -> None:
    script = tmp_path / "foreign.sql"
    script.write_text("CREATE TABLE a (n int);\nINSERT INTO a VALUES (1);\nCREATE TABEL b;\nCREATE TABLE c ();\n")
    said = message(sides.new.server, load, str(script), "--into", "x")
    assert said.startswith("load-failed: ") and 'at or near "TABEL"' in said and "nothing was left" in said
    script.write_text("CREATE TABLE a (n int);\nCOPY a FROM stdin;\n1\n2\n\\.\n")
    done = load(sides.new.server, str(script), "--into", "x", "--json")
    assert done.status == 0 and "foreign" in done.out
    assert sides.new.server.value("SELECT sum(n) FROM a", dbname="x") == 3


# --- in the middle


def test_characters_that_the_database_lacks(sides: Sides, load: Load, custom: str) -> None:
    server = sides.new.server
    said = message(server, load, custom, "--into", "latin", "--encoding", "LATIN1")
    assert said.startswith("load-failed: ") and "has no equivalent in encoding" in said
    assert "latin" not in databases(server)


@contextmanager
def slow(server: Cluster, home: Path) -> Iterator[str]:
    """A directory whose table `slow` is filled slowly: every row is checked by a function that sleeps."""
    server.sql("CREATE DATABASE slow TEMPLATE template0")
    with server.connect("slow") as connection:
        connection.execute("CREATE TABLE quick (n int)")
        connection.execute("INSERT INTO quick SELECT generate_series(1, 1000)")
        connection.execute("CREATE FUNCTION wait() RETURNS bool LANGUAGE sql AS 'SELECT true'")
        connection.execute("CREATE TABLE slow (n int CHECK (public.wait()))")
        connection.execute(f"INSERT INTO slow SELECT generate_series(1, {SLOW})".encode())
        sleeps = "SELECT pg_sleep(0.02) IS NOT NULL"
        connection.execute(f"CREATE OR REPLACE FUNCTION wait() RETURNS bool LANGUAGE sql AS '{sleeps}'".encode())
    archive = home / "slow.dump"
    run_client(server, "pg_dump", "-Fd", "-f", str(archive), "slow")
    yield str(archive)


def until(what: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def is_filling(server: Cluster) -> bool:
    return bool(server.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY public.slow%'"))


@contextmanager
def loading(server: Cluster, archive: str) -> Iterator[subprocess.Popen[str]]:
    """A load in a process of its own that is filling the slow table; its last line on stdout says how it ended."""
    words = ["load", archive, "--into", "x", "--jobs", "2", "--server", server.conninfo, "--json"]
    words += ["--bindir", str(server.programs.bindir)]
    command = [sys.executable, "-m", "pgkeep", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            until(lambda: is_filling(server))
            yield process
        finally:
            process.kill()


def test_the_server_goes(cluster: MakeCluster, tmp_path: Path) -> None:
    """What cannot be dropped is named, and it says itself that it is not whole."""
    server = cluster()
    with slow(server, tmp_path) as archive, loading(server, archive) as process:
        server.stop(immediate=True)
        out, _ = process.communicate(timeout=60)
        error = json.loads(out.splitlines()[-1])["error"]
        assert (process.returncode, error["code"]) == (20, "postgres-lost")
        assert UNFINISHED in error["message"] and "DROP DATABASE" in error["message"]
        server.start()
        (left,) = [name for name in databases(server) if name.startswith(UNFINISHED)]
        assert left in error["message"] and "x" not in databases(server)
        query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
        assert "not whole" in server.value(query, [left])


def test_an_error_of_one_of_several_connections(sides: Sides, load: Load, tmp_path: Path) -> None:
    """Into a new database: nothing is left.  Into one that exists: what is left is listed, and the status is 3."""
    server = sides.new.server
    server.sql("CREATE DATABASE broken TEMPLATE template0")
    with server.connect("broken") as connection:
        connection.execute("CREATE TABLE first (n int)")
        connection.execute("INSERT INTO first SELECT generate_series(1, 100)")
        connection.execute("CREATE FUNCTION fits(int) RETURNS bool LANGUAGE sql AS 'SELECT true'")
        connection.execute("CREATE TABLE second (n int CONSTRAINT positive CHECK (public.fits(n)))")
        connection.execute("INSERT INTO second VALUES (1), (-1)")
        connection.execute("CREATE OR REPLACE FUNCTION fits(int) RETURNS bool LANGUAGE sql AS 'SELECT $1 > 0'")
    archive = str(tmp_path / "broken")
    run_client(server, "pg_dump", "-Fd", "-f", archive, "broken")
    before = databases(server)
    said = message(server, load, archive, "--into", "x", "--jobs", "2")
    assert 'violates check constraint "positive"' in said and "nothing was left" in said
    assert databases(server) == before
    kept = message(server, load, archive, "--into", "x", "--jobs", "2", "--keep")
    (left,) = set(databases(server)) - set(before)
    assert left.startswith(UNFINISHED) and left in kept
    server.sql("CREATE DATABASE there TEMPLATE template0")
    said = message(server, load, archive, "--into", "there", "--jobs", "2", status=3)
    assert said.startswith("load-in-part: ") and "of the dump that it had not before" in said
    assert "drop it and create it again" in said
    server.sql("CREATE DATABASE whole TEMPLATE template0")
    said = message(server, load, archive, "--into", "whole")
    assert server.value("SELECT count(*) FROM pg_class WHERE relname IN ('first', 'second')", dbname="whole") == 0


def test_killed(sides: Sides, tmp_path: Path, seed: int) -> None:
    """kill -9: no database of that name, no program that goes on; only the unfinished one, which says what it is."""
    server = sides.new.server
    with slow(server, tmp_path) as archive, loading(server, archive) as process:
        time.sleep(random.Random(seed).random() / 5)
        process.kill()
        until(lambda: not is_filling(server))
        assert "x" not in databases(server)
        (left,) = [name for name in databases(server) if name.startswith(UNFINISHED)]
        until(lambda: not server.value("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [left]))


def test_interrupted(sides: Sides, tmp_path: Path) -> None:
    """Ctrl-C drops what was begun."""
    server = sides.new.server
    with slow(server, tmp_path) as archive:
        before = databases(server)
        with loading(server, archive) as process:
            os.kill(process.pid, signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and "interrupted" in out.splitlines()[-1]
        assert databases(server) == before
