"""What goes wrong in the middle of a dump ends in words, and leaves no dump, no pack, no file, no program."""

from __future__ import annotations

import glob
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgkeep.app.dump import DumpTarget, dump
from pgkeep.errors import Fault
from pgkeep.events import Event, Progress
from pgkeep.logical.request import Chosen, DumpRequest
from pgkeep.pg.programs import Programs
from pgkeep.repo.dumps import dump_ids
from tests import requirements, servers
from tests.conftest import MakeCluster
from tests.logical.conftest import Ground, fill, left_behind
from tests.logical.test_drain import small_memory

pytestmark = pytest.mark.pg("17")
SHOP = DumpRequest(name="shop", database="shop", jobs=2)


@pytest.fixture
def own(cluster: MakeCluster, tmp_path: Path) -> Ground:
    """A server of the test's own, with enough in it that a dump has a middle."""
    server = cluster("own")
    fill(server, "shop", 100_000)
    for number in range(30):
        server.sql(f"CREATE TABLE t{number} AS SELECT * FROM sales.orders LIMIT 5000", dbname="shop")
    # Small on disk, and a second's work for COPY: the dump does not end while a test looks for its processes.
    wide = "SELECT n, repeat(md5(n::text), 1000) AS text FROM generate_series(1, 5000) n"
    server.sql(f"CREATE TABLE wide AS {wide}", dbname="shop")
    tmp_path.chmod(0o755)
    return Ground(server, tmp_path, server.conninfo)


def programs_of_this_process() -> list[int]:
    """The pids of pg_dump that this process has started, workers included."""
    found = []
    for name in os.listdir("/proc"):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            command = Path(f"/proc/{name}/comm").read_text().strip()
        except (OSError, IndexError):
            continue
        if command == "pg_dump" and fields[0] != "Z" and os.getpid() in {int(fields[1]), parent_of(int(fields[1]))}:
            found.append(int(name))
    return found


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@contextmanager
def in_the_middle(ground: Ground, act: Callable[[], None]) -> Iterator[Callable[[Event], None]]:
    """Announces events to `act` once, when pg_dump has begun with content; it stands still meanwhile."""
    done: list[bool] = []

    def announce(event: Event) -> None:
        if isinstance(event, Progress) and event.done and not done:
            done.append(True)
            pids = programs_of_this_process()
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            act()
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    yield announce
    assert done


def nothing_is_left(ground: Ground) -> None:
    assert dump_ids(ground.cluster) == [] and ground.packs() == []
    assert not left_behind()
    assert programs_of_this_process() == []


@pytest.mark.parametrize("form", ["directory", "custom", "plain"])
def test_the_server_goes_away(own: Ground, form: str) -> None:
    request = replace(SHOP, format=form, jobs=None)  # type: ignore[arg-type]
    prepared = own.prepare(request)
    with in_the_middle(own, lambda: own.server.stop(immediate=True)) as announce, pytest.raises(Fault) as caught:
        dump(prepared, own.place, own.clock, announce)
    assert (caught.value.code, caught.value.exit_status) == ("postgres-lost", 20) and caught.value.hint
    nothing_is_left(own)


def test_an_interrupt(own: Ground) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    prepared = own.prepare(replace(SHOP, format="custom", jobs=None))
    began: list[int] = []

    def announce(event: Event) -> None:
        if isinstance(event, Progress) and event.stored:
            began.append(event.stored)
            interrupt()

    with pytest.raises(KeyboardInterrupt):
        dump(prepared, own.place, own.clock, announce)
    assert began
    nothing_is_left(own)


def test_pg_dump_is_killed(own: Ground) -> None:
    def kill() -> None:
        for pid in programs_of_this_process():
            os.kill(pid, signal.SIGKILL)

    with in_the_middle(own, kill) as announce, pytest.raises(Fault, match="was ended by signal 9") as caught:
        dump(own.prepare(SHOP), own.place, own.clock, lambda event: quietly(announce, event))
    assert caught.value.code == "postgres-program"
    nothing_is_left(own)


def quietly(announce: Callable[[Event], None], event: Event) -> None:
    """Who was killed cannot be continued."""
    try:
        announce(event)
    except ProcessLookupError:
        return


def test_a_full_disk_under_a_path(own: Ground, tmp_path: Path) -> None:
    with small_memory(tmp_path / "small", "2m") as small:
        with pytest.raises(Fault, match="No space left on device") as caught:
            own.dump(replace(SHOP, compress="none"), DumpTarget(to=str(small / "shop")))
        assert caught.value.code == "target-space" and caught.value.hint
        assert list(small.iterdir()) == []


def test_a_named_scratch_directory_is_used_and_emptied(own: Ground, tmp_path: Path) -> None:
    with small_memory(tmp_path / "small", "64m") as small:
        made = own.dump(SHOP, DumpTarget(scratch=str(small)))
        assert made.plan.scratch is not None and made.plan.scratch.parent == str(small)
        assert list(small.iterdir()) == []
    assert len(dump_ids(own.cluster)) == 1
    with (
        small_memory(tmp_path / "tiny", "4m") as tiny,
        pytest.raises(Fault, match="are expected at one time") as caught,
    ):
        own.dump(SHOP, DumpTarget(scratch=str(tiny)))
    assert caught.value.code == "target-space"


def test_a_wrong_password(cluster: MakeCluster, tmp_path: Path) -> None:
    server = cluster("guarded")
    server.sql("CREATE ROLE guarded LOGIN PASSWORD 's3cr3t'")
    hba = server.datadir / "pg_hba.conf"
    hba.write_text("local all guarded scram-sha-256\n" + hba.read_text())
    server.reload()
    conninfo = f"host={server.instance.socket_dir} user=guarded password=wr0ng dbname=postgres"
    with pytest.raises(Fault, match="password authentication failed") as caught:
        Ground(server, tmp_path, conninfo).dump(SHOP, DumpTarget(to=str(tmp_path / "x")))
    assert (caught.value.code, caught.value.exit_status) == ("postgres-unreachable", 20)
    assert "wr0ng" not in str(caught.value.as_json())


def test_a_role_that_may_not_read_a_table(own: Ground, tmp_path: Path) -> None:
    own.server.sql("CREATE ROLE weak LOGIN")
    weak = Ground(own.server, tmp_path, own.server.instance.conninfo(user="weak"))
    with pytest.raises(Fault, match="permission denied") as caught:
        weak.dump(SHOP, DumpTarget(to=str(tmp_path / "x")))
    assert caught.value.code == "postgres-rights" and "pg_read_all_data" in caught.value.hint
    own.server.sql("GRANT SELECT ON customers, customers_id_seq TO weak", dbname="shop")
    made = weak.dump(replace(SHOP, chosen=Chosen(tables=("customers",))), DumpTarget(to=str(tmp_path / "x")))
    assert [warning.code for warning in made.plan.warnings] == ["no-role-passwords"]
    assert "PASSWORD" not in (tmp_path / "x" / "globals.sql").read_text()


def test_programs_that_are_all_too_old(ground: Ground, shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = servers.programs_of(14)
    if not isinstance(old, Programs):
        requirements.need("pg14", old)
    monkeypatch.setattr("pgkeep.app.dump.find_tools", lambda *_: [old])
    with pytest.raises(Fault, match="expected version 17 or newer") as caught:
        ground.prepare(SHOP)
    assert caught.value.code == "postgres-version" and "postgresql-client-17" in caught.value.hint


def test_kill_9_of_the_dump_itself(own: Ground, tmp_path: Path) -> None:
    """In a process of its own, while pg_dump waits for a lock that this test holds."""
    place, prepared = own.place, own.prepare(SHOP)
    with own.server.connect("shop") as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE sales.orders IN ACCESS EXCLUSIVE MODE")
        victim = os.fork()
        if not victim:
            try:
                dump(prepared, place, own.clock, lambda _event: None)
            finally:
                os._exit(1)
        until(lambda: bool(waiting(own)))
        assert glob.glob("/dev/shm/pgkeep-dump-*")
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        until(lambda: not waiting(own))
        until(lambda: not left_behind())
    assert dump_ids(own.cluster) == []
    own.dump(SHOP)
    assert len(dump_ids(own.cluster)) == 1


def waiting(ground: Ground) -> list[tuple[Any, ...]]:
    query = "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^pgkeep-dump-' AND wait_event_type = 'Lock'"
    return ground.server.sql(query)


def until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 30 s")
