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
from tests.clusters import Cluster
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


@pytest.mark.parametrize(
    ("kind", "compression"),
    [("custom", "gzip"), ("custom", "zstd"), ("custom", "lz4"), ("tar", "xz"), ("plain", "gzip"), ("plain", "bzip2")],
)
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


# --- a part of a dump


def names(server: Cluster, dbname: str) -> set[str]:
    """Relations, constraints, triggers, policies and types of a database, by a short word and name."""
    query = """
        SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'shop'::regnamespace
        UNION ALL SELECT 'constraint ' || conname FROM pg_constraint
                  WHERE connamespace = 'shop'::regnamespace AND contype <> 'n'
        UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'policy ' || polname FROM pg_policy
        UNION ALL SELECT 'type ' || typname FROM pg_type
                  WHERE typnamespace = 'shop'::regnamespace AND typtype IN ('e', 'd')
    """
    return {name for (name,) in server.sql(query, dbname=dbname)}


@pytest.mark.parametrize("kind", ["directory", "custom"])
def test_a_table_with_what_is_its_own(sides: Sides, load: Load, kind: str) -> None:
    """Indexes, sequences, triggers, the types that it needs; no other table, and no key to one."""
    server = sides.new.server
    words = [str(sides.archive(kind, NEW)), "--into", "part", "--json"]
    done = load(server, *words, "-t", "shop.numbered", "-t", "shop.child", "-t", "shop.secrets")
    assert done.status == 0, done.out
    found = names(server, "part")
    assert {"relation numbered", "relation child", "relation secrets", "relation numbered_id_seq"} <= found
    assert {"constraint numbered_pkey", "trigger noting; --", "policy own", "policy not; before"} <= found
    assert not {"relation parent", "relation kinds", "constraint fk; --"} & found
    assert any("fk; --" in one for one in done.result["plan"]["left_out"])
    assert server.value("SELECT count(*) FROM shop.numbered", dbname="part") == 900
    assert server.value("SELECT nextval('shop.numbered_id_seq')", dbname="part") == 1001
    owner = server.value("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'secrets'", dbname="part")
    assert owner == "proof_owner"


def test_a_partitioned_table_brings_its_partitions(sides: Sides, load: Load) -> None:
    server = sides.new.server
    words = [str(sides.archive("directory", NEW)), "--into", "part", "--json"]
    done = load(server, *words, "--table", "shop.measures", "--jobs", "2")
    assert done.status == 0, done.out
    count = "SELECT count(*), count(DISTINCT tableoid) FROM shop.measures"
    assert server.sql(count, dbname="part") == server.sql(count, dbname="proof")
    alone = load(server, *words[:1], "--into", "one", "--json", "--table", "shop.measures_2025")
    assert alone.status == 0, alone.out
    assert "relation measures" not in names(server, "one")


def test_a_needed_type_comes_with_its_table(sides: Sides, load: Load) -> None:
    server = sides.new.server
    words = [str(sides.archive("custom", NEW)), "--into", "part", "--json"]
    done = load(server, *words, "--table", "shop.kinds")
    assert done.status == 0, done.out
    assert {"type mood", "type positive", "relation kinds"} <= names(server, "part")
    assert server.value("SELECT count(*) FROM pg_extension WHERE extname IN ('hstore', 'citext')", dbname="part") == 2
    query = "SELECT md5(string_agg(k::text, ',' ORDER BY id)) FROM shop.kinds k"
    assert server.value(query, dbname="part") == server.value(query, dbname="proof")


def test_one_table_replaced_in_a_live_database(sides: Sides, load: Load) -> None:
    """The rest stays as it is; what points at it is put back with it."""
    server = sides.new.server
    assert load(server, str(sides.archive("directory", NEW)), "--into", "live").status == 0
    server.sql("DELETE FROM shop.child", dbname="live")
    server.sql("DELETE FROM shop.tree WHERE id > 10", dbname="live")
    words = [str(sides.archive("custom", NEW)), "--into", "live", "--table", "shop.child", "--clean", "--yes"]
    done = load(server, *words, "--json")
    assert done.status == 0, done.out
    assert done.result["plan"]["replaced"] == ["shop.child"]
    expected = sides.new.expected
    found = sides.new.picture("live")
    assert found.schema == expected.schema
    assert found.rows["shop.child"] == expected.rows["shop.child"]
    assert found.rows["shop.tree"][0] == 10


def test_rows_alone(sides: Sides, load: Load) -> None:
    server, archive = sides.new.server, str(sides.archive("custom", NEW))
    assert load(server, archive, "--into", "live", "--schema-only", "--json").status == 0
    assert server.value("SELECT count(*) FROM shop.numbered", dbname="live") == 0
    words = [archive, "--into", "live", "--data-only", "--disable-triggers", "-T", "shop.child", "--yes", "--json"]
    done = load(server, *words)  # a row of `child` breaks a constraint that was never checked
    assert done.status == 0, done.out
    assert "shop.numbered" in done.result["plan"]["appended"]
    found, expected = sides.new.picture("live"), sides.new.expected
    assert found.rows.pop("shop.child")[0] == 0
    rows = {name: one for name, one in expected.rows.items() if name != "shop.child"}
    unlike = {name for name, one in rows.items() if found.rows.get(name) != one}
    assert unlike == {"shop.totals", "shop.totals_of_totals"}  # pg_restore refreshes no view with --data-only
    assert found.sequences == expected.sequences


def test_patterns_and_exclusions(sides: Sides, load: Load) -> None:
    server, archive = sides.new.server, str(sides.archive("directory", NEW))
    done = load(
        server, archive, "--into", "part", "--exclude-schema", '"Grö"*', "-T", "shop.parent", "-T", "shop.egg", "--json"
    )
    assert done.status == 0, done.out
    found = names(server, "part")
    assert not {"relation parent", "relation egg", "constraint chicken_egg_fkey"} & found
    assert {"relation chicken", "relation child", "relation kinds"} <= found
    assert server.value("SELECT count(*) FROM pg_namespace WHERE nspname ~ 'Gr'", dbname="part") == 0
    unknown = load(server, archive, "--into", "x", "--table", "shop.ordres", "--json")
    assert (unknown.status, unknown.lines[-1]["error"]["code"]) == (2, "usage")


def test_other_owners(sides: Sides, load: Load) -> None:
    server, archive = sides.new.server, str(sides.archive("custom", NEW))
    words = [archive, "--into", "mine", "--no-owner", "--no-acl", "--json"]
    assert load(server, *words).status == 0
    owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'shop'::regnamespace"
    assert server.sql(owners, dbname="mine") == [("postgres",)]
    assert server.value("SELECT count(*) FROM pg_class WHERE relacl IS NOT NULL AND oid >= 16384", dbname="mine") == 0
