"""Other owners: what belonged to one role belongs to another, exactly, in every format and on every way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgkeep.errors import Fault
from pgkeep.logical.ownermap import parse_owner_map
from pgkeep.logical.request import DumpRequest
from tests.clusters import Cluster
from tests.conftest import MakeCluster
from tests.logical.conftest import Ground
from tests.logical.proof import Picture, differences, picture
from tests.logical.sides import NEW, OLD, Load, Sides, run_client
from tests.logical.test_load_failures import message

NAMES = {
    "proof_owner": 'owner = "new"; --',
    "proof_app": "app",
    "proof reader": "Proof reader's",
    'Robert"); DROP TABLE students; --': "robert",
}
QUOTED = {old: '"' + old.replace('"', '""') + '"' if old != old.lower() or " " in old else old for old in NAMES}
NEW_QUOTED = {new: '"' + new.replace('"', '""') + '"' if not new.isalpha() else new for new in NAMES.values()}
MAP = [f"{QUOTED[old]}={NEW_QUOTED[new]}" for old, new in NAMES.items()]
WORDS = [word for pair in MAP for word in ("--owner-map", pair)]


def mapped(found: Picture) -> Picture:
    """What the map should make of it, in the text of pg_dump."""
    schema = found.schema
    for old, new in NAMES.items():
        schema = schema.replace(QUOTED[old], NEW_QUOTED[new])
    return replace(found, schema=schema, blobs=bare(found.blobs, NAMES), database=bare(found.database, NAMES))


def bare(rows: list[tuple[Any, ...]], names: Mapping[str, str]) -> list[tuple[Any, ...]]:
    """Rows of the catalogs with other names, all without quotes: those of lists of privileges are quoted twice."""

    def one(value: Any) -> Any:
        if isinstance(value, list):
            return sorted(map(one, value))
        if not isinstance(value, str):
            return value
        text = value.replace("\\", "").replace('"', "")
        for old, new in names.items():
            text = text.replace(old.replace('"', ""), new.replace('"', ""))
        return text

    return [tuple(map(one, row)) for row in rows]


def assert_mapped(server: Cluster, dbname: str, expected: Picture, *, exists: bool = False) -> None:
    found = picture(server, dbname, server.programs)
    found = replace(found, blobs=bare(found.blobs, {}), database=bare(found.database, {}))
    expected = mapped(expected)
    if exists:  # what is said of the database itself comes with a new one alone
        expected = replace(expected, database=found.database)
    assert differences(expected, found) == []


@pytest.fixture
def strange(cluster: MakeCluster) -> Iterator[Cluster]:
    """A server that knows the new roles alone."""
    server = cluster("strange", major=NEW, wal_level="logical")
    for new in NAMES.values():
        server.sql(f"CREATE ROLE {NEW_QUOTED[new]}")
    yield server


@pytest.mark.pg("18")
def test_every_way(sides: Sides, strange: Cluster, load: Load, tmp_path: Path) -> None:
    said = message(strange, load, str(sides.archive("custom", NEW)), "--into", "x", "--json")
    assert said.startswith("load-refused: the server has not the roles") and "--owner-map OLD=NEW" in said
    for kind, jobs in (("directory", 2), ("custom", 1), ("tar", 1)):
        done = load(strange, str(sides.archive(kind, NEW)), "--into", kind, "--jobs", "2", *WORDS, "--json")
        assert done.status == 0, done.out
        plan = done.result["plan"]
        assert (plan["jobs"], plan["owner_map"]) == (jobs, NAMES)
        assert_mapped(strange, kind, sides.new.expected)
    strange.sql("CREATE DATABASE there TEMPLATE template0")
    for kind, into, words in (  # in one transaction; and in place of what is there
        ("custom", "there", []),
        ("custom", "there", ["--clean", "--yes"]),
        ("directory", "directory", ["--clean", "--yes"]),
    ):
        done = load(strange, str(sides.archive(kind, NEW)), "--into", into, *WORDS, *words, "--json")
        assert done.status == 0, done.out
        assert done.result["plan"]["one_transaction"]
    assert_mapped(strange, "there", sides.new.expected, exists=True)
    assert_mapped(strange, "directory", sides.new.expected)
    assert not strange.sql("SELECT rolname FROM pg_roles WHERE rolname ~ 'proof_|Robert'")


@pytest.mark.pg("18")
def test_some_roles_alone_with_the_globals(sides: Sides, strange: Cluster, load: Load, tmp_path: Path) -> None:
    """Who is mapped is not made, the others are; and nobody becomes a member of anything for the mapped one's sake."""
    script = tmp_path / "globals.sql"
    script.write_bytes(run_client(sides.new.server, "pg_dumpall", "--globals-only"))
    words = ["--globals-file", str(script), "--owner-map", "proof_owner=app", "--owner-map", "nobody=app"]
    done = load(strange, str(sides.archive("directory", NEW)), "--into", "x", *words, "--json")
    assert done.status == 0, done.out
    assert done.result["created_roles"] == ['Robert"); DROP TABLE students; --', "proof reader", "proof_app"]
    assert any(line.get("code") == "owner-map" and "nobody" in str(line) for line in done.lines), done.out
    members = strange.sql("SELECT roleid::regrole::text FROM pg_auth_members WHERE roleid >= 16384")
    assert members == [('"proof reader"',)]
    assert strange.value("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'kinds'", dbname="x") == "app"


@pytest.mark.pg("18")
def test_from_the_repository(sides: Sides, tmp_path: Path, strange: Cluster) -> None:
    """As the repository holds them: a directory laid out, a custom archive through a pipe."""
    tmp_path.chmod(0o755)
    ground = Ground(sides.new.server, tmp_path, sides.new.server.conninfo)
    for form in ("directory", "custom"):
        ground.dump(DumpRequest(name=form, database="proof", format=form))
        ground.load(strange, form, form, owners=NAMES)
        assert_mapped(strange, form, sides.new.expected)


def test_an_old_archive(sides: Sides, load: Load) -> None:
    """Of PostgreSQL 14, whose table of contents has other fields, into 18, where the old roles are too."""
    server = sides.new.server
    server.sql("CREATE ROLE someone")
    try:
        for kind in ("directory", "custom"):
            words = ["--into", kind, "--owner-map", "proof_owner=someone", "--json"]
            done = load(server, str(sides.archive(kind, OLD)), *words)
            assert done.status == 0, done.out
            owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'shop'::regnamespace"
            assert {"someone"} <= {one for (one,) in server.sql(owners, dbname=kind)}
            assert not server.sql(
                "SELECT 1 FROM pg_shdepend WHERE refobjid = 'proof_owner'::regrole AND dbid ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())", dbname=kind,
            )  # fmt: skip
    finally:
        for kind in ("directory", "custom"):
            server.sql(f"DROP DATABASE IF EXISTS {kind}")
        server.sql("DROP ROLE someone")


@pytest.mark.parametrize("text", ["a", "=b", "a=", "a=b=c", '"a=b', '"a"b=c', ""])
def test_what_is_no_pair(text: str) -> None:
    with pytest.raises(Fault, match="OLD=NEW") as caught:
        parse_owner_map([text])
    assert caught.value.code == "usage" and caught.value.hint


def test_pairs() -> None:
    assert parse_owner_map(["a=B", '"x=""y"= z', "a=B"]) == {"a": "B", 'x="y': " z"}
    with pytest.raises(Fault, match="twice"):
        parse_owner_map(["a=b", "a=c"])
