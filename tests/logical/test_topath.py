"""Dumps to a path: whole or not at all."""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pgkeep.app.dump import DumpTarget
from pgkeep.errors import Fault
from pgkeep.logical.request import Chosen, DumpRequest
from pgkeep.logical.topath import PARTIAL
from tests.logical.conftest import Ground, content

pytestmark = pytest.mark.pg("17")
SHOP = DumpRequest(name="shop", database="shop", jobs=2)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


def test_a_directory_with_its_globals_inside(ground: Ground, shop: str, out: Path) -> None:
    made = ground.dump(SHOP, DumpTarget(to=str(out / "shop")))
    assert names(out) == ["shop"]
    assert made.written is not None and made.written.paths == (str(out / "shop"),)
    assert made.written.files == len(names(out / "shop")) and {"toc.dat", "globals.sql"} <= set(names(out / "shop"))
    assert (out / "shop").stat().st_mode & 0o777 == 0o700
    back = ground.restored("back", "pg_restore", "--jobs=2", str(out / "shop"))
    assert content(ground.server, back) == content(ground.server, shop)


def test_a_file_with_its_globals_beside_it(ground: Ground, shop: str, out: Path) -> None:
    ground.dump(replace(SHOP, format="custom", jobs=None), DumpTarget(to=str(out / "c")))
    ground.dump(replace(SHOP, format="plain", jobs=None), DumpTarget(to=str(out / "p")))
    assert names(out) == ["c", "c.globals.sql", "p", "p.database.sql", "p.globals.sql"]
    assert "CREATE DATABASE shop" in (out / "p.database.sql").read_text()
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}
    ground.restored("from_c", "pg_restore", str(out / "c"))
    ground.restored("from_p", "psql", "-Xqf", str(out / "p"), "-v", "ON_ERROR_STOP=1")
    assert content(ground.server, "from_c") == content(ground.server, "from_p") == content(ground.server, shop)


def test_every_database_in_one_directory(ground: Ground, shop: str, out: Path) -> None:
    ground.server.sql('CREATE DATABASE "a/b"')
    everything = DumpRequest(name="all", database=None)
    ground.dump(everything, DumpTarget(to=str(out / "all")))
    ground.dump(replace(everything, format="plain"), DumpTarget(to=str(out / "plain")))
    assert names(out / "all") == ["a%2Fb", "globals.sql", "shop"]
    assert names(out / "plain" / "shop") == ["database.sql", "dump.sql"]
    assert content(ground.server, ground.restored("back", "pg_restore", str(out / "all/shop"))) == content(
        ground.server, shop
    )


def test_nothing_is_overwritten(ground: Ground, shop: str, out: Path) -> None:
    (out / "shop").mkdir()
    (out / "file.globals.sql").write_text("mine")
    for target, form in (("shop", "directory"), ("file", "custom")):
        request = replace(SHOP, format=form, jobs=None)  # type: ignore[arg-type]
        with pytest.raises(Fault, match="exists already") as caught:
            ground.dump(request, DumpTarget(to=str(out / target)))
        assert caught.value.code == "target-not-empty"
    assert names(out) == ["file.globals.sql", "shop"] and names(out / "shop") == []
    with pytest.raises(Fault, match="is no directory"):
        ground.dump(SHOP, DumpTarget(to=str(out / "absent" / "shop")))


def test_a_dump_that_fails_leaves_nothing(ground: Ground, shop: str, out: Path) -> None:
    for form in ("directory", "custom", "plain"):
        request = replace(SHOP, format=form, jobs=None, chosen=Chosen(tables=("absent",)))
        with pytest.raises(Fault, match="no matching tables"):
            ground.dump(request, DumpTarget(to=str(out / "shop")))
        assert names(out) == []


def test_what_a_killed_dump_left_is_removed_and_what_a_living_one_writes_is_not(
    ground: Ground, shop: str, out: Path
) -> None:
    partial = out / f"shop{PARTIAL}"
    partial.mkdir()
    (partial / "dump").touch()
    lock = os.open(partial, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(Fault, match="another dump writes to") as caught:
        ground.dump(SHOP, DumpTarget(to=str(out / "shop")))
    assert caught.value.code == "target-in-use" and (partial / "dump").exists()
    os.close(lock)
    ground.dump(SHOP, DumpTarget(to=str(out / "shop")))
    assert names(out) == ["shop"]


def test_a_scratch_directory_is_for_the_repository(ground: Ground, shop: str, out: Path) -> None:
    with pytest.raises(Fault, match="--scratch is for directory format into the repository"):
        ground.dump(SHOP, DumpTarget(to=str(out / "shop"), scratch="/tmp"))
