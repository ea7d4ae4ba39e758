"""A dump or a load that waits for somebody's lock says for whom, and gives up when it was told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pgkeep.app.dump import DumpTarget, dump
from pgkeep.errors import Fault
from pgkeep.events import Warned
from pgkeep.logical.request import DumpRequest
from pgkeep.pg.session import Session
from pgkeep.repo.dumps import dump_ids
from tests.clusters import Cluster
from tests.logical.conftest import Ground
from tests.servers import pg_versions

SHOP = DumpRequest(name="shop", database="shop")


@contextmanager
def locked(server: Cluster, table: str, until: Callable[[], bool]) -> Iterator[None]:
    """Somebody holds an ACCESS EXCLUSIVE lock until then; at the end of the block it must be over."""
    held = threading.Event()

    def hold() -> None:
        with server.connect("shop", application_name="psql") as connection:
            connection.execute("BEGIN")
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            held.set()
            deadline = time.monotonic() + 60
            while not until() and time.monotonic() < deadline:
                time.sleep(0.02)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    try:
        yield
    finally:
        thread.join()


def said(ground: Ground) -> list[Warned]:
    return [event for event in ground.events if isinstance(event, Warned) and event.code == "lock-wait"]


@pg_versions("oldest", "newest")
def test_a_dump_says_for_whom_it_waits(ground: Ground, shop: str) -> None:
    """The plan waits for nobody; pg_dump does, and goes on when the lock is gone."""
    with locked(ground.server, "sales.orders", lambda: bool(said(ground))):
        prepared = ground.prepare(SHOP)
        assert prepared.plan.databases[0].tables == 3
        ground.dump(SHOP)
    first = said(ground)[0]
    assert first.text.startswith("it waits for the lock on sales.orders, which process ")
    assert "of postgres (psql, idle in transaction" in first.text
    assert first.text.endswith("holds: LOCK TABLE sales.orders IN ACCESS EXCLUSIVE MODE")
    assert "--lock-timeout" in first.hint
    assert len(dump_ids(ground.cluster)) == 1


@pytest.mark.parametrize("form", ["directory", "custom"])
def test_a_dump_gives_up(ground: Ground, shop: str, form: str, tmp_path: Path) -> None:
    over: list[bool] = []
    request = replace(SHOP, format=form, lock_timeout=timedelta(seconds=2))  # type: ignore[arg-type]
    with locked(ground.server, "sales.orders", lambda: bool(over)):
        with pytest.raises(Fault) as caught:
            ground.dump(request, DumpTarget(to=str(tmp_path / "x")))
        over.append(True)
    assert (caught.value.code, caught.value.exit_status) == ("lock-timeout", 1)
    assert "it waits for the lock on sales.orders, which process " in caught.value.message
    assert "--lock-timeout" in caught.value.hint
    assert not (tmp_path / "x").exists()
    ground.dump(request, DumpTarget(to=str(tmp_path / "x")))


def test_without_the_right_to_look(ground: Ground, shop: str, tmp_path: Path) -> None:
    """The process is named, what it runs is not."""
    ground.server.sql("DROP ROLE IF EXISTS weak")
    ground.server.sql("CREATE ROLE weak LOGIN IN ROLE pg_read_all_data")
    try:
        ground.server.sql("SELECT lo_unlink(oid) FROM pg_largeobject_metadata", dbname="shop")
        weak = Ground(ground.server, tmp_path, ground.server.instance.conninfo(user="weak"))
        with locked(ground.server, "sales.orders", lambda: bool(said(weak))):
            weak.dump(SHOP, DumpTarget(to=str(tmp_path / "x")))
        assert "pg_read_all_stats would show it" in said(weak)[0].text and "LOCK" not in said(weak)[0].text
    finally:
        ground.server.sql("DROP ROLE weak")


def test_without_a_connection_to_spare(ground: Ground, shop: str, tmp_path: Path) -> None:
    asked: list[bool] = []

    def refused(_name: str | None) -> Session:
        asked.append(True)
        raise Fault("postgres-unreachable", "too many connections")

    prepared = ground.prepare(SHOP, DumpTarget(to=str(tmp_path / "y")))
    with locked(ground.server, "sales.orders", lambda: bool(asked)):
        dump(replace(prepared, ask=refused), None, ground.clock, ground.events.append)
    assert said(ground) == [] and (tmp_path / "y").exists()


def test_a_load_says_for_whom_it_waits(ground: Ground, shop: str) -> None:
    ground.dump(SHOP)
    with locked(ground.server, "sales.orders", lambda: bool(said(ground))):
        ground.load(ground.server, "shop", "shop", clean=True)
    assert "lock on sales.orders, which process " in said(ground)[0].text
