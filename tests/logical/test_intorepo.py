"""Dumps into the repository come back as what was dumped, and leave nothing on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pgkeep.app.dump import DumpTarget, prepare_dump
from pgkeep.errors import Fault
from pgkeep.events import Phase, Progress
from pgkeep.logical.request import Chosen, DumpRequest
from pgkeep.repo.dumps import dump_ids
from tests.logical.conftest import Ground, content, fill, left_behind

pytestmark = pytest.mark.pg("17")
SHOP = DumpRequest(name="shop", database="shop", jobs=2)


def test_directory_format_comes_back(ground: Ground, shop: str, tmp_path: Path) -> None:
    made = ground.dump(SHOP)
    info = ground.newest().info
    assert made.info == info
    assert (info.name, info.format, info.compression, info.whole) == ("shop", "directory", "zstd", True)
    assert (info.databases, info.every_database, info.role_passwords) == (1, False, True)
    into = ground.fetch(tmp_path / "out")
    globals_ = (into / "globals.sql").read_bytes()
    assert b"CREATE ROLE postgres" in globals_
    (into / "globals.sql").unlink()
    back = ground.restored("back", "pg_restore", "--jobs=2", str(into))
    assert content(ground.server, back) == content(ground.server, shop)
    assert not left_behind()
    assert [event.name for event in ground.events if isinstance(event, Phase)] == ["globals", "dump", "commit"]
    last = [event for event in ground.events if isinstance(event, Progress)][-1]
    assert last.done == last.total == 3 and last.stored == info.logical_bytes - len(globals_)


def test_custom_format_comes_back(ground: Ground, shop: str, tmp_path: Path) -> None:
    ground.dump(replace(SHOP, format="custom", jobs=None, label="for the record"))
    assert ground.newest().info.label == "for the record"
    into = ground.fetch(tmp_path / "out")
    assert sorted(path.name for path in into.iterdir()) == ["dump.pgdump", "globals.sql"]
    back = ground.restored("back", "pg_restore", "--jobs=2", str(into / "dump.pgdump"))
    assert content(ground.server, back) == content(ground.server, shop)


def test_plain_format_keeps_the_databases_settings_beside_it(ground: Ground, shop: str, tmp_path: Path) -> None:
    ground.server.sql("ALTER DATABASE shop SET work_mem = '7MB'")
    ground.server.sql("COMMENT ON DATABASE shop IS 'the shop''s own'")
    ground.dump(replace(SHOP, format="plain", jobs=None))
    into = ground.fetch(tmp_path / "out")
    script = (into / "database.sql").read_text()
    assert "CREATE DATABASE shop" in script and "SET work_mem TO '7MB'" in script and "the shop''s own" in script
    assert "CREATE TABLE" not in script
    back = ground.restored("back", "psql", "-Xqf", str(into / "dump.sql"), "-v", "ON_ERROR_STOP=1")
    assert content(ground.server, back) == content(ground.server, shop)


def test_every_database_by_whatever_name(ground: Ground, tmp_path: Path) -> None:
    names = ['a/b "c" d\'s', "..", "Größe=1 \\", "postgresql://x", "-d"]
    for name in names:
        fill(ground.server, name, 100)
    ground.server.sql("CREATE DATABASE closed ALLOW_CONNECTIONS false")
    ground.server.sql("ALTER DATABASE postgres SET work_mem = '6MB'")
    try:
        made = ground.dump(DumpRequest(name="all", database=None, jobs=2))
        again = ground.prepare(DumpRequest(name="all", database=None))
        ground.server.sql("ALTER DATABASE postgres RESET work_mem")
        without = ground.prepare(DumpRequest(name="all", database=None))
    finally:
        ground.server.sql("ALTER DATABASE postgres RESET ALL")
    assert {database.name for database in made.plan.databases} == {*names, "postgres"}
    assert {one.name: one.why for one in without.plan.skipped}["postgres"] == "holds nothing"
    assert {one.name for one in again.plan.skipped} == {"closed", "template0", "template1"}
    reader = ground.newest()
    assert reader.info.every_database and reader.info.databases == len(names) + 1
    into = ground.fetch(tmp_path / "out")
    for number, database in enumerate(reader.dumped.databases):
        name = database.name.decode()
        if name in names:
            back = ground.restored(f"back{number}", "pg_restore", str(into / database.prefix.decode()))
            assert content(ground.server, back) == content(ground.server, name)


def test_a_part_of_a_database(ground: Ground, shop: str, tmp_path: Path) -> None:
    chosen = Chosen(schemas=("sal*",))
    prepared = ground.prepare(replace(SHOP, chosen=chosen))
    whole = ground.prepare(SHOP)
    assert (prepared.plan.databases[0].tables, whole.plan.databases[0].tables) == (1, 3)
    assert 0 < prepared.plan.databases[0].chosen < whole.plan.databases[0].chosen
    ground.dump(replace(SHOP, chosen=chosen))
    reader = ground.newest()
    assert not reader.info.whole and "--schema=sal*" in reader.dumped.options
    into = ground.fetch(tmp_path / "out")
    listed = ground.client("pg_restore", "--list", str(into))
    assert "TABLE sales orders" in listed and "customers" not in listed


def test_a_pattern_that_finds_nothing_is_an_error(ground: Ground, shop: str) -> None:
    chosen = Chosen(tables=("sales.orders", "no_such_table"))
    with pytest.raises(Fault, match=r"no matching tables were found for pattern .*no_such_table") as caught:
        ground.dump(replace(SHOP, chosen=chosen))
    assert caught.value.code == "postgres-program"
    nothing_is_left(ground)


def nothing_is_left(ground: Ground) -> None:
    assert dump_ids(ground.cluster) == []
    assert ground.packs() == []
    assert not left_behind()


def test_a_database_that_is_not_there(ground: Ground) -> None:
    with pytest.raises(Fault, match="has no database 'no such'") as caught:
        ground.dump(DumpRequest(name="x", database="no such"))
    assert caught.value.code == "database-unknown"


def test_a_repository_of_another_server(ground: Ground, shop: str) -> None:
    other = msgspec.structs.replace(ground.cluster.incarnations[0], system_id=1)
    stranger = replace(ground.cluster, incarnations=(other,))
    with pytest.raises(Fault, match="system identifier") as caught:
        prepare_dump(ground.settings, SHOP, DumpTarget(), ground.clock, stranger)
    assert caught.value.code == "cluster-mismatch"
