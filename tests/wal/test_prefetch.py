"""Prefetching in real recoveries: the spool is used and gone afterwards, whatever happens to who fills it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tests.adversity.test_disks import _small
from tests.clusters import Cluster
from tests.conftest import Serve, _maker, _programs_or_end, _server_directory
from tests.keeping import Kept, keep
from tests.servers import pg_versions
from tests.store.faulty import Effect, FaultyStore, Strike
from tests.walfiles import CLOCK, SIZE, Failover, lineage_of, number

from pgkeep.pg.account import Account, give, give_tree
from pgkeep.repo.repository import Repository
from pgkeep.repo.walarchive import WalArchive
from pgkeep.values.lsn import Lsn
from pgkeep.values.recovery import RecoveryLineage
from pgkeep.wal.prefetch import fill
from pgkeep.wal.push import push
from pgkeep.wal.spool import Spool

SEGMENTS = 16
ROWS = 600


@pytest.fixture(scope="session")
def _kept(server_user: Account, pgkeep_program: tuple[str, ...]) -> Iterator[Callable[[int], Kept]]:
    made: dict[int, Kept] = {}
    with ExitStack() as stack:

        def get(major: int) -> Kept:
            if major not in made:
                home = _server_directory(server_user)
                made[major] = _record(
                    keep(_maker(major, home, server_user, stack), home, pgkeep_program, wal_segsize=1)
                )
            return made[major]

        yield get


@pytest.fixture
def kept(pg_major: int, _kept: Callable[[int], Kept]) -> Kept:
    """A cluster with a backup and SEGMENTS segments of WAL behind it, archived; its server is stopped."""
    _programs_or_end(pg_major)
    return _kept(pg_major)


def _record(kept: Kept) -> Kept:
    kept.cluster.sql("CREATE TABLE t (n int, filler text)")
    kept.backup()
    kept.cluster.configure(archive_command="''")
    kept.cluster.reload()
    for turn in range(SEGMENTS):
        if turn == SEGMENTS // 2:
            kept.cluster.sql("SELECT pg_create_restore_point('half')")
        rows = f"SELECT {turn}, repeat(md5(g::text), 30) FROM generate_series(1, {ROWS}) g"
        kept.cluster.sql(f"INSERT INTO t {rows}")
    kept.cluster.switch_wal()
    kept.cluster.stop()
    archive_ready(kept)
    return kept


def archive_ready(kept: Kept) -> None:
    """Archive what the stopped server has left, in this process: a program a segment would take most of the test."""
    wal = kept.cluster.datadir / "pg_wal"
    for ready in sorted((wal / "archive_status").glob("*.ready")):
        push(kept.catalogue().repository, str(wal / ready.stem), CLOCK, data_directory=kept.cluster.datadir)
    give_tree(kept.account, kept.repository)
    give_tree(kept.account, kept.cluster.datadir)


def restored(kept: Kept, home: Path, *options: str) -> Path:
    """A restored directory, not yet started; its log will show what came out of the spool (mv -v)."""
    target = home / "restored"
    kept.run("restore", str(target), *options)
    change_command(kept, target, "mv -f", "mv -v -f")
    return target


def change_command(kept: Kept, target: Path, old: str, new: str) -> None:
    auto = target / "postgresql.auto.conf"
    text = auto.read_text()
    assert old in text
    auto.write_text(text.replace(old, new))
    give(kept.account, [auto])


def spooled(server: Cluster) -> int:
    """How many segments the server took out of the spool."""
    return server.log.read_text().count("renamed ")


def spools(target: Path) -> list[str]:
    return sorted(path.name for path in (target / "pg_wal").glob("pgkeep.spool.*"))


def await_end(server: Cluster) -> None:
    Kept.wait(lambda: server.value("SELECT NOT pg_is_in_recovery()"), "recovery does not end", 120)


def rows(server: Cluster) -> int:
    return int(server.value("SELECT count(*) FROM t"))


def prefetchers(target: Path) -> list[int]:
    """The processes that fill a spool of the directory."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"prefetch" in words and any(word.startswith(os.fsencode(f"{target}/pg_wal")) for word in words):
                found.append(int(entry))
    return found


@pg_versions("oldest", "newest")
def test_a_recovery_reads_the_spool_and_leaves_nothing(kept: Kept, serve: Serve, server_tmp: Path) -> None:
    target = restored(kept, server_tmp)
    server = serve(target)
    await_end(server)
    assert rows(server) == SEGMENTS * ROWS
    assert spooled(server) > 2, server.log.read_text()  # more, unless the machine is busy
    assert spools(target) == []
    Kept.wait(lambda: not prefetchers(target), "a prefetcher outlives its recovery")


def test_a_target_before_the_end_leaves_nothing_either(kept: Kept, serve: Serve, server_tmp: Path) -> None:
    target = restored(kept, server_tmp, "--name", "half")
    server = serve(target)
    await_end(server)
    assert rows(server) == SEGMENTS // 2 * ROWS
    assert spooled(server) > 0
    assert spools(target) == []
    Kept.wait(lambda: not prefetchers(target), "a prefetcher outlives its recovery")


def test_whoever_fills_the_spool_may_be_killed_at_any_time(kept: Kept, serve: Serve, server_tmp: Path) -> None:
    target = restored(kept, server_tmp)
    change_command(kept, target, "mv -v -f", "sleep 0.05; mv -v -f")
    killed: set[int] = set()
    ended = threading.Event()

    def kill() -> None:
        """From before the server starts: on an idle machine one prefetcher fills the spool in a moment."""
        while not ended.wait(0.01):
            for pid in prefetchers(target):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        server = serve(target, hot_standby="on")
        await_end(server)
    finally:
        ended.set()
        killer.join()
    assert rows(server) == SEGMENTS * ROWS
    assert killed
    assert spools(target) == []


def test_what_another_restore_has_left_is_not_read(kept: Kept, serve: Serve, server_tmp: Path) -> None:
    """Files of the right names and the wrong content: a server that read one would end its recovery there."""
    target = restored(kept, server_tmp)
    foreign = target / "pg_wal/pgkeep.spool.0123456789abcdef"
    foreign.mkdir()
    for path in kept.wal():
        (foreign / path.name).write_bytes(bytes(1 << 20))
    server = serve(target)
    await_end(server)
    assert rows(server) == SEGMENTS * ROWS
    assert spools(target) == []


def test_a_lost_repository_stops_recovery_and_opens_nothing(kept: Kept, serve: Serve, server_tmp: Path) -> None:
    target = restored(kept, server_tmp)
    change_command(kept, target, "mv -v -f", "sleep 0.1; mv -v -f")
    away = kept.home / "away"
    server = serve(target, start=False)
    server.instance.start()
    Kept.wait(lambda: server.log.exists() and spooled(server) >= 2, "nothing comes out of the spool")
    kept.repository.rename(away)
    try:
        Kept.wait(lambda: not server.instance.is_running(), "the server goes on without its WAL", 120)
        said = server.log.read_text()
        assert "selected new timeline" not in said and "could not restore file" in said, said
    finally:
        away.rename(kept.repository)
    server.start()
    await_end(server)
    assert rows(server) == SEGMENTS * ROWS
    assert spools(target) == []


def test_a_standby_at_the_end_of_the_archive_rests(kept: Kept, serve: Serve, server_tmp: Path) -> None:
    """No lineage, recovery without end: what is there is fetched ahead, and then nobody runs in vain."""
    target = restored(kept, server_tmp)
    change_command(kept, target, f" --lineage {target}/pgkeep.restore.json", "")
    change_command(kept, target, "recovery_target_timeline = '1'", "recovery_target_timeline = 'latest'")
    (target / "recovery.signal").unlink()
    (target / "standby.signal").touch()
    server = serve(target, wal_retrieve_retry_interval="100ms")
    Kept.wait(lambda: rows(server) == SEGMENTS * ROWS, "the standby does not catch up", 120)
    assert spooled(server) > 0
    Kept.wait(lambda: not prefetchers(target), "somebody goes on at the end of the archive")
    asked = server.log.read_text().count("pg_wal/RECOVERYXLOG")
    time.sleep(1)
    assert not prefetchers(target)
    assert server.log.read_text().count("pg_wal/RECOVERYXLOG") == asked
    server.sql("SELECT pg_promote()")
    assert spools(target) == []


# --- what is fetched, of a real failover's WAL


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(f"{tmp_path}/data/pg_wal/pgkeep.spool.1")
    made.prepare()
    return made


@pytest.fixture
def along_two(failover: Failover, full: WalArchive) -> RecoveryLineage:
    """A restore that follows timeline 2 to the end of the archive."""
    return lineage_of(full, failover.history, number(failover.segments(2)[-1]))


def wanted(failover: Failover) -> list[Path]:
    """What recovery along timeline 2 asks for behind the first segment."""
    return [*failover.common()[1:], *failover.segments(2)]


def fill_behind_first(failover: Failover, archive: WalArchive, spool: Spool, lineage: RecoveryLineage | None) -> None:
    spool.note(failover.common()[0].name)
    fill(archive, spool, lineage, CLOCK)


def test_two_timelines(failover: Failover, full: WalArchive, along_two: RecoveryLineage, spool: Spool) -> None:
    fill_behind_first(failover, full, spool, along_two)
    assert sorted(spool.names()) == [path.name for path in wanted(failover)]
    for path in wanted(failover):
        assert Path(spool.path, path.name).read_bytes() == path.read_bytes()
    assert not spool.is_being_filled()


def test_the_plans_end_is_the_end(
    failover: Failover, full: WalArchive, along_two: RecoveryLineage, spool: Spool
) -> None:
    last = wanted(failover)[-1]
    bounded = replace(along_two, flush=Lsn(number(last) * SIZE + 8192))
    fill_behind_first(failover, full, spool, bounded)
    assert sorted(spool.names()) == [path.name for path in wanted(failover)[:-1]]


def test_without_a_plan_the_timeline_that_was_asked_for(failover: Failover, full: WalArchive, spool: Spool) -> None:
    fill_behind_first(failover, full, spool, None)
    assert sorted(spool.names()) == [path.name for path in failover.common()[1:]]


def test_what_is_damaged_or_missing_is_left_to_wal_get(
    failover: Failover, full: WalArchive, along_two: RecoveryLineage, spool: Spool, tmp_path: Path
) -> None:
    victim = wanted(failover)[2]
    stored = tmp_path / "repository" / full.key(victim.name)
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    for _ in range(2):
        fill_behind_first(failover, full, spool, along_two)
        assert victim.name not in spool.names()
        right = {path.name: path.read_bytes() for path in wanted(failover)}
        assert all(Path(spool.path, name).read_bytes() == right[name] for name in spool.names())
        stored.unlink(missing_ok=True)


def test_what_a_killed_one_left_is_not_trusted(
    failover: Failover, full: WalArchive, along_two: RecoveryLineage, spool: Spool
) -> None:
    first, second = wanted(failover)[:2]
    Path(spool.path, first.name).write_bytes(bytes(SIZE))
    Path(spool.path, f".coming.{second.name}").write_bytes(second.read_bytes()[:1000])
    fill_behind_first(failover, full, spool, along_two)
    for path in (first, second):
        assert Path(spool.path, path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("nth", [1, 2, 5])
def test_an_outage_ends_it_without_a_word(
    failover: Failover, full: WalArchive, along_two: RecoveryLineage, spool: Spool, nth: int
) -> None:
    known = full.cluster.repository
    store = FaultyStore(known.store, Strike(Effect.BEFORE, operation="get", nth=nth, onward=True))
    broken = WalArchive(replace(full.cluster, repository=Repository(store, known.id, known.keys)), full.system_id, SIZE)
    fill_behind_first(failover, broken, spool, along_two)
    assert len(spool.names()) < nth
    assert not spool.is_being_filled()


@pytest.mark.parametrize("options", ["size=900m,nr_inodes=6", "size=3m"])
def test_a_full_disk(
    failover: Failover, full: WalArchive, along_two: RecoveryLineage, tmp_path: Path, options: str,
    server_user: Account, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("pgkeep.wal.prefetch._IDLE_SECONDS", 0.3)
    (tmp_path / "data").mkdir()
    with _small(tmp_path / "data/pg_wal", server_user, options):
        spool = Spool(f"{tmp_path}/data/pg_wal/pgkeep.spool.1")
        spool.prepare()
        fill_behind_first(failover, full, spool, along_two)
        assert len(spool.names()) < 3
        for name in spool.names():
            assert Path(spool.path, name).stat().st_size == SIZE


def test_it_follows_a_server_that_goes_back(
    failover: Failover, full: WalArchive, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup of a busy server: its checkpoint is read first, and then redo begins segments before it."""
    monkeypatch.setattr("pgkeep.wal.prefetch.room_for", lambda *_: 2)
    lineage = lineage_of(full, failover.history, number(failover.segments(2)[-1]) + 9)
    names = [path.name for path in wanted(failover)]
    spool.note(names[2])
    filling = threading.Thread(target=fill, args=(full, spool, lineage, CLOCK), daemon=True)
    filling.start()
    Kept.wait(lambda: sorted(spool.names()) == names[3:5], "the window is not filled", 20)
    spool.note(names[0])
    for at in range(1, len(names)):
        Kept.wait(partial(spool.take, names[at], f"{spool.path}/../taken"), f"{names[at]} does not come", 20)
        assert Path(spool.path, "../taken").read_bytes() == wanted(failover)[at].read_bytes()
    filling.join(20)
    assert not filling.is_alive()
