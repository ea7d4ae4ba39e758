"""Round trips of the proof schema: over versions, formats and ways; what differs afterwards is named and reviewed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from tests import requirements
from tests.logical import proof
from tests.logical.proof import Picture, differences, picture
from tests.logical.sides import NEW, OLD, Load, Side, Sides, databases, run_client


def assert_same(side: Side, dbname: str, expected: Picture, reviewed: tuple[str, ...] = ()) -> None:
    """`reviewed` are the beginnings of lines that may differ, each with its reason where it stands."""
    found = differences(expected, side.picture(dbname))
    unexplained = [line for line in found if not line.startswith(reviewed)]
    assert not unexplained, "\n".join(unexplained)


@pytest.mark.parametrize("major", [OLD, NEW])
@pytest.mark.parametrize("kind", ["directory", "custom", "tar", "plain"])
def test_every_format_into_a_new_database(sides: Sides, load: Load, kind: str, major: int) -> None:
    side = sides.side(major)
    done = load(side.server, str(sides.archive(kind, major)), "--into", "copy", "--jobs", "2", "--json")
    assert done.status == 0, done.out
    assert done.result["plan"]["jobs"] == (2 if kind in {"directory", "custom"} else 1)
    expected = side.expected
    if kind == "plain":  # a script without what belongs to the database: pgkeep dump saves that beside it
        expected = Picture(
            expected.schema, expected.rows, expected.blobs, expected.sequences, side.picture("copy").database
        )
    assert_same(side, "copy", expected)


_QUALIFIED = re.compile(r"\b(circle2|circle|counting|kinds|measures|numbered|totals)\.(?=\w)")


def comparable(found: Picture) -> Picture:
    """Servers since 16 write a view's columns without their table where one table is asked: qualifiers go."""
    return replace(found, schema=_QUALIFIED.sub("", found.schema))


UP = (
    "-ALTER SCHEMA public OWNER TO postgres;",  # since 15 it belongs to whom the database belongs to
    "-GRANT ALL ON SEQUENCE shop.audit_id_seq TO proof_app;",  # lost by pg_dump 14; `pgkeep dump` uses the newest
)
DOWN = (
    "+ALTER SCHEMA public OWNER TO postgres;",
    "+REVOKE USAGE ON SCHEMA public FROM PUBLIC;",  # before 15 everybody may create there: the plan warns
    "+GRANT ALL ON SCHEMA public TO PUBLIC;",
    "-    at timestamp with time zone CONSTRAINT measures_at_not_null NOT NULL,",  # before 18 they have no names
    "+    at timestamp with time zone NOT NULL,",
    "-    city text CONSTRAINT measures_city_not_null NOT NULL,",
    "+    city text NOT NULL,",
)


@pytest.mark.parametrize(("kind", "jobs"), [("directory", "2"), ("custom", "1")])
def test_to_a_newer_version(sides: Sides, load: Load, kind: str, jobs: str) -> None:
    programs = sides.new.server.programs
    done = load(sides.new.server, str(sides.archive(kind, OLD)), "--into", "up", "--jobs", jobs, "--json")
    assert done.status == 0, done.out
    expected = comparable(picture(sides.old.server, "proof", programs))
    found = comparable(picture(sides.new.server, "up", programs))
    assert [line for line in differences(expected, found) if line not in UP] == []


@pytest.mark.parametrize(("kind", "jobs"), [("directory", "2"), ("custom", "1"), ("plain", "1")])
@pytest.mark.parametrize("exists", [False, True], ids=["new", "existing"])
def test_to_an_older_version(sides: Sides, load: Load, kind: str, jobs: str, exists: bool) -> None:
    """What an older server does not understand is let pass, or left out, by name; nothing else is."""
    programs, server = sides.new.server.programs, sides.old.server
    if exists:
        server.sql("CREATE DATABASE down TEMPLATE template0")
    words = [str(sides.archive(kind, NEW)), "--into", "down", "--jobs", jobs, "--bindir", str(programs.bindir)]
    done = load(server, *words, "--json")
    assert done.status == 0, done.out
    warnings = {line["code"] for line in done.lines if line.get("event") == "warning"}
    assert {"older-server", "public-schema"} - warnings == ({"public-schema"} if exists or kind == "plain" else set())
    is_direct = done.result["plan"]["way"] == "pg_restore"
    assert ("tolerated" in warnings, bool(done.result["tolerated"])) == (is_direct, is_direct)
    found = comparable(picture(server, "down", programs))
    expected = comparable(sides.new.expected)
    if exists or kind == "plain":  # what belongs to the database itself comes with a new one alone
        expected = replace(expected, database=found.database)
    assert [line for line in differences(expected, found) if line not in DOWN] == []


def test_what_only_the_newest_version_knows(sides: Sides, load: Load, tmp_path: Path) -> None:
    """18 to 18 keeps all of it; 14 refuses it, and nothing of it is left there."""
    new = sides.new.server
    proof.make(new, "newest", "since15.sql", "since18.sql")
    archive = str(tmp_path / "newest")
    run_client(new, "pg_dump", "-Fd", "-j2", "-f", archive, "newest")
    expected = picture(new, "newest", new.programs)
    done = load(new, archive, "--into", "copy", "--jobs", "2", "--json")
    assert done.status == 0, done.out
    assert differences(expected, picture(new, "copy", new.programs)) == []
    before = databases(sides.old.server)
    refused = load(
        sides.old.server, archive, "--into", "copy", "--jobs", "2", "--bindir", str(new.programs.bindir), "--json"
    )
    assert refused.status == 1
    assert refused.lines[-1]["error"]["code"] == "load-failed"
    assert "unrecognized collation provider: builtin" in refused.lines[-1]["error"]["message"]
    assert databases(sides.old.server) == before


@pytest.mark.parametrize("compression", ["gzip", "zstd", "bzip2", "xz", "lz4"])
@pytest.mark.parametrize("kind", ["custom", "tar", "plain"])
def test_compressed_outside(sides: Sides, load: Load, kind: str, compression: str, tmp_path: Path) -> None:
    """Into a database that exists: one transaction, whose end waits for the end of the file."""
    if compression == "lz4" and shutil.which("lz4") is None:
        requirements.need("lz4", "there is no such program")
    raw = sides.archive(kind, NEW).read_bytes()
    path = tmp_path / "customer prod"
    path.write_bytes(compressed(raw, compression))
    server = sides.new.server
    server.sql("CREATE DATABASE copy TEMPLATE template0")
    half = tmp_path / "half"
    half.write_bytes(path.read_bytes()[: -max(12, path.stat().st_size // 3)])
    cut = load(server, str(half), "--into", "copy", "--json")
    assert cut.status == 1, cut.out
    assert cut.lines[-1]["error"]["code"] in {"dump-damaged", "load-failed"}, cut.out
    assert server.value("SELECT count(*) FROM pg_class WHERE relname = 'kinds'", dbname="copy") == 0
    done = load(server, str(path), "--into", "copy", "--json")
    assert done.status == 0, done.out
    assert done.result["plan"]["source"]["compression"] == compression
    assert done.result["plan"]["one_transaction"]
    found = sides.new.picture("copy")
    assert differences(replace(sides.new.expected, database=found.database), found) == []


def compressed(raw: bytes, compression: str) -> bytes:
    match compression:
        case "gzip":
            return gzip.compress(raw[:1000]) + gzip.compress(raw[1000:], 1)  # two members are one file
        case "bzip2":
            return bz2.compress(raw, 1)
        case "xz":
            return lzma.compress(raw, preset=0)
        case "zstd":
            return zstandard.compress(raw[:1000]) + zstandard.compress(raw[1000:])
    return subprocess.run(["lz4", "-c"], input=raw, capture_output=True, check=True).stdout
