"""Rows that an extension keeps in tables of its own (pg_extension_config_dump): they are the user's, and come back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pgkeep.logical.request import DumpRequest, Format
from pgkeep.pg.account import Account
from pgkeep.pg.instance import InitOptions, initdb
from pgkeep.pg.programs import Programs
from tests import requirements
from tests.clusters import QUICK_SETTINGS, Cluster
from tests.conftest import _cluster_on, _programs_or_end
from tests.logical.conftest import Ground

CONTROL = "default_version = '1.0'\nrelocatable = false\nschema = kept\n"
SCRIPT = """
CREATE TABLE kept.settings (name text PRIMARY KEY, value text, is_ours bool NOT NULL DEFAULT false);
CREATE SEQUENCE kept.numbers;
CREATE TABLE kept.cache (n int);
INSERT INTO kept.settings VALUES ('version', '1', true);
SELECT pg_catalog.pg_extension_config_dump('kept.settings', 'WHERE NOT is_ours');
SELECT pg_catalog.pg_extension_config_dump('kept.numbers', '');
"""
ROWS = [("it's", "a \\ value\n"), ("größe", None)]


_OWN_PATH = 18
"""The first version that looks for extensions where it is told (extension_control_path)."""


def make_extension(share: Path) -> None:
    (share / "extension").mkdir(parents=True, exist_ok=True)
    (share / "extension/pgkeep_kept.control").write_text(CONTROL)
    (share / "extension/pgkeep_kept--1.0.sql").write_text(SCRIPT)


def with_extension(found: Programs, home: Path) -> Programs:
    """PostgreSQL's files once more (linked, not copied), with an extension among them."""
    tree = found.bindir.parent
    if not (tree / "share/extension/plpgsql.control").exists():
        requirements.need(f"pg{found.major}", f"{tree} does not hold its own extensions")
    copy = home / f"tree{found.major}"
    shutil.copytree(tree, copy, copy_function=_link, symlinks=True)
    make_extension(copy / "share")
    return Programs(copy / "bin", found.version, found.major)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or the kernel protects what is somebody else's
        shutil.copy2(source, target)
    return target


Make = Callable[[int], Cluster]


@pytest.fixture
def server_of(server_tmp: Path, server_user: Account) -> Iterator[Make]:
    with ExitStack() as stack:

        def make(major: int) -> Cluster:
            programs, conf, env = _programs_or_end(major), {}, {}
            if major >= _OWN_PATH:
                make_extension(server_tmp / "share")
                conf["extension_control_path"] = f"'{server_tmp / 'share'}:$system'"
            else:
                programs = with_extension(programs, server_tmp)
                env["LD_LIBRARY_PATH"] = str(programs.bindir.parent / "lib")
            datadir = server_tmp / f"data{major}"
            initdb(programs, datadir, server_user, InitOptions(sync=False))
            made = _cluster_on(datadir, programs, server_user, stack, settings={}, env=env)
            made.configure(**(QUICK_SETTINGS | conf))
            made.start()
            return made

        yield make


@pytest.mark.pg("18")
def test_rows_of_an_extension(server_of: Make, tmp_path: Path) -> None:
    """From 14 to 18 and back; what the extension itself brings is there once."""
    old, new = server_of(14), server_of(18)
    old.sql("CREATE DATABASE shop")
    old.sql("CREATE SCHEMA kept", dbname="shop")
    old.sql("CREATE EXTENSION pgkeep_kept", dbname="shop")
    old.sql("SELECT setval('kept.numbers', 41)", dbname="shop")
    for row in ROWS:
        old.sql("INSERT INTO kept.settings VALUES (%s, %s)", row, dbname="shop")
    old.sql("INSERT INTO kept.cache VALUES (1)", dbname="shop")
    tmp_path.chmod(0o755)
    forms: tuple[Format, ...] = ("directory", "plain")
    for number, form in enumerate(forms):
        there = Ground(old, tmp_path / f"there{number}", old.conninfo)
        there.home.mkdir(mode=0o755)
        there.dump(DumpRequest(name="shop", database="shop", format=form))
        there.load(new, "shop", form)
        assert found(new, form) == expected(), form
        back = Ground(new, tmp_path / f"back{number}", new.conninfo)
        back.home.mkdir(mode=0o755)
        back.dump(DumpRequest(name=form, database=form, format="custom"))
        back.load(old, form, form)
        assert found(old, form) == expected(), form


def expected() -> tuple[list[tuple[object, ...]], int, int]:
    return sorted([*((*row, False) for row in ROWS), ("version", "1", True)]), 41, 0


def found(server: Cluster, dbname: str) -> tuple[list[tuple[object, ...]], int, int]:
    rows = sorted(server.sql("SELECT * FROM kept.settings", dbname=dbname))
    cache = server.value("SELECT count(*) FROM kept.cache", dbname=dbname)
    return rows, server.value("SELECT last_value FROM kept.numbers", dbname=dbname), cache
