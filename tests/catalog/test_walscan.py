"""The scan, compared with what the test did on a real server, and with reading everything at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.clusters import Cluster
from tests.conftest import MakeCluster, Serve
from tests.servers import pg_versions
from tests.walfacts import fold, stretches
from tests.walfiles import CLOCK, SIZE, fill, make_failover, new_archive

from pgkeep.catalog import walbatch
from pgkeep.catalog.walbatch import plan_batches
from pgkeep.catalog.walfacts import Sought, WalScan, find
from pgkeep.catalog.walscan import scan
from pgkeep.errors import Fault
from pgkeep.events import Event, Progress
from pgkeep.pg.controlfile import CONTROL_FILE, read_control
from pgkeep.pg.waldump import RestorePoint, TablespaceCreated, TablespaceDropped, TransactionEnd, WalRecord
from pgkeep.repo.walarchive import WalArchive
from pgkeep.store.local import LocalStore
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment
from pgkeep.wal.push import push


@contextmanager
def batches_of(segments: int) -> Iterator[None]:
    """Within it a batch holds that many 1 MiB segments (in this process only)."""
    before = walbatch.BATCH_BYTES
    walbatch.BATCH_BYTES = segments * SIZE  # type: ignore[misc]
    try:
        yield
    finally:
        walbatch.BATCH_BYTES = before  # type: ignore[misc]


@dataclass
class Told:
    """What the test did, as the server answered it."""

    start: Lsn
    commits: list[int]
    aborted: int
    parent: int
    child: int
    prepared: int
    dropped_tablespace: int


def now(cluster: Cluster) -> Lsn:
    return Lsn.parse(cluster.value("SELECT pg_current_wal_insert_lsn()::text"))


def commit(cluster: Cluster) -> int:
    """A transaction that fills some WAL; its xid."""
    with cluster.connect() as connection:
        query = b"WITH x AS (INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, 300) n RETURNING 1)"
        row = connection.execute(query + b" SELECT pg_current_xact_id()::text, count(*) FROM x").fetchone()
        assert row is not None
        return int(row[0])


def act(cluster: Cluster, tablespace: Path) -> Told:
    """Everything that a scan must find, over some ten segments."""
    cluster.sql("CREATE TABLE t (n int, filler text)")
    cluster.sql("SELECT pg_switch_wal()")
    cluster.sql("CHECKPOINT")
    start = Lsn.parse(cluster.value("SELECT redo_lsn::text FROM pg_control_checkpoint()"))
    commits = [commit(cluster) for _ in range(20)]
    cluster.sql("SELECT pg_create_restore_point('before the accident')")
    with cluster.connect() as connection, connection.transaction(force_rollback=True):
        aborted = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        connection.execute("INSERT INTO t VALUES (0)")
    with cluster.connect() as connection, connection.transaction():
        parent = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        connection.execute("SAVEPOINT s")
        connection.execute("DELETE FROM t WHERE n = 1")
        child = connection.execute("SELECT max(xmax::text::bigint) FROM t WHERE n = 2 OR n = 1").fetchone()
        connection.execute("INSERT INTO t VALUES (-1)")
        child = connection.execute("SELECT xmin::text FROM t WHERE n = -1").fetchone()
        connection.execute("RELEASE s")
    cluster.sql(f"CREATE TABLESPACE fast LOCATION '{tablespace}'")
    oid = cluster.value("SELECT oid::bigint FROM pg_tablespace WHERE spcname = 'fast'")
    cluster.sql("DROP TABLESPACE fast")
    commits += [commit(cluster) for _ in range(40)]
    with cluster.connect() as connection:
        connection.execute("BEGIN")
        prepared = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        connection.execute("INSERT INTO t VALUES (1)")
        connection.execute("PREPARE TRANSACTION 'p'")
        connection.execute("COMMIT PREPARED 'p'")
    cluster.sql("SELECT pg_create_restore_point('at the end')")
    assert aborted and parent and child and prepared
    return Told(start, commits, int(aborted[0]), int(parent[0]), int(child[0]), int(prepared[0]), int(oid))


def archive_everything(cluster: Cluster, where: Path) -> WalArchive:
    """Push what the stopped server's pg_wal holds; the last segment as a partial."""
    control = read_control(cluster.datadir / CONTROL_FILE)
    archive = new_archive(LocalStore.create(where), control)
    last = control.checkpoint // SIZE
    for path in sorted((cluster.datadir / "pg_wal").glob("0" * 7 + "1*")):
        if len(path.name) != 24 or (number := Segment.parse(path.name, SIZE).number) > last:
            continue
        target = path if number < last else path.rename(path.with_suffix(".partial"))
        push(archive.cluster.repository, str(target), CLOCK, data_directory=cluster.datadir)
    return archive


def forget(archive: WalArchive) -> None:
    """Remove every index, so that the next scan reads the WAL."""
    store = archive.cluster.repository.store
    for stat in list(store.list(f"{archive.cluster.uuid}/windex/")):
        store.delete(stat.key)


def whole(archive: WalArchive, told: Told, cluster: Cluster, *, cold: bool = True, **options: Any) -> WalScan:
    """A scan of everything that was archived, without or with the index that earlier scans left."""
    if cold:
        forget(archive)
    held = archive.listing()
    (partial,) = held.partials
    last = held.segments[1][-1]
    return scan(archive, History(1), told.start, last, cluster.programs, partial=partial, **options)


@pg_versions("oldest", "newest")
def test_what_happened_is_found(cluster: MakeCluster, tmp_path: Path) -> None:
    server = cluster(wal_segsize=1, max_prepared_transactions="5", wal_keep_size="'1GB'")
    began = datetime.now(UTC)
    told = act(server, server.directory("space"))
    end = now(server)
    server.stop()
    ended = datetime.now(UTC)
    archive = archive_everything(server, tmp_path / "repository")
    assert len(archive.listing().segments[1]) >= 5
    with batches_of(2):
        found = whole(archive, told, server, workers=1)
    # Background work may commit on its own: what the test did is a subsequence.
    assert found.start == told.start
    assert found.end >= end
    assert [point.name for point in found.restore_points] == ["before the accident", "at the end"]
    created, dropped = found.tablespaces
    assert isinstance(created, TablespaceCreated)
    assert isinstance(dropped, TablespaceDropped)
    assert (created.oid, created.path, dropped.oid) == (
        told.dropped_tablespace, str(server.home / "space"), told.dropped_tablespace,
    )  # fmt: skip
    assert found.created_before(created.lsn) == ()
    assert found.created_before(None) == (created,)
    assert found.last is not None
    assert (found.last.xid, found.last.prepared) == (told.prepared, True)
    assert began < found.last.time < ended
    with batches_of(3):
        check_every_transaction(archive, told, server)
    check_times(archive, told, server)
    # The same from processes, and from one piece.
    with batches_of(10_000):
        assert whole(archive, told, server) == found
    assert whole(archive, told, server) == found
    assert whole(archive, told, server, cold=False) == found


def check_every_transaction(archive: WalArchive, told: Told, server: Cluster) -> None:
    for xid, committed in [(told.commits[0], True), (told.commits[-1], True), (told.aborted, False),
                           (told.parent, True), (told.prepared, True)]:  # fmt: skip
        found = whole(archive, told, server, sought=Sought(xid=xid), workers=1)
        assert found.hit is not None
        assert (found.hit.xid, found.hit.committed) == (xid, committed)
        assert whole(archive, told, server, cold=False, sought=Sought(xid=xid)) == found
    found = whole(archive, told, server, sought=Sought(xid=told.child), workers=1)
    assert found.hit is None
    assert found.owner is not None
    assert found.owner.xid == told.parent
    assert found.before == found.last
    assert whole(archive, told, server, sought=Sought(xid=told.prepared + 1000), workers=1).owner is None


def check_times(archive: WalArchive, told: Told, server: Cluster) -> None:
    middle = whole(archive, told, server, sought=Sought(xid=told.commits[25]), workers=1).hit
    assert middle is not None
    at = whole(archive, told, server, sought=Sought(time=middle.time, inclusive=False), workers=1)
    after = whole(archive, told, server, sought=Sought(time=middle.time), workers=1)
    assert at.hit == middle
    assert after.before == middle
    assert after.hit is not None
    assert after.hit.time > middle.time
    late = whole(archive, told, server, sought=Sought(time=middle.time + timedelta(days=1)), workers=1)
    assert late.hit is None
    assert late.before == late.last


def test_in_batches_and_processes_as_in_one_piece(cluster: MakeCluster, tmp_path: Path) -> None:
    """Records longer than a segment too: a logical message of 5 MiB crosses several batches of one segment."""
    server = cluster(wal_segsize=1, wal_level="logical", wal_keep_size="'1GB'")
    server.sql("CREATE TABLE t (n int, filler text)")
    server.sql("SELECT pg_switch_wal()")
    start = now(server)
    start = Lsn(-(-start // SIZE) * SIZE)
    for _ in range(3):
        commit(server)
        server.sql("SELECT pg_logical_emit_message(true, 'pgkeep', repeat('m', 5 * 1048576))")
        server.sql("SELECT pg_create_restore_point('after a long one')")
    server.stop()
    archive = archive_everything(server, tmp_path / "repository")
    told = Told(start, [], 0, 0, 0, 0, 0)
    with batches_of(10_000):
        expected = whole(archive, told, server, workers=1)
    assert len(expected.restore_points) == 3
    assert expected.transactions >= 5
    for segments in (1, 2, 3, 7):
        with batches_of(segments):
            assert whole(archive, told, server, workers=1) == expected
    assert not [*Path(tmp_path).glob("pgkeep-wal-*")]


def test_several_processes(cluster: MakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = cluster(wal_segsize=1, wal_keep_size="'1GB'")
    server.sql("CREATE TABLE t (n int, filler text)")
    start = Lsn(-(-now(server) // SIZE) * SIZE)
    fill(server, 9)
    server.stop()
    archive = archive_everything(server, tmp_path / "repository")
    told = Told(start, [], 0, 0, 0, 0, 0)
    seen: list[Event] = []
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with batches_of(2):
        found = whole(archive, told, server, announce=seen.append, scratch=scratch)
        alone = whole(archive, told, server, workers=1)
    assert found == alone
    assert [*scratch.iterdir()] == []
    steps = [event.done for event in seen if isinstance(event, Progress)]
    assert steps == sorted(steps)
    assert isinstance(seen[-1], Progress)
    assert seen[-1].done == seen[-1].total > 0


def test_over_a_failover(cluster: MakeCluster, serve: Serve, server_tmp: Path, tmp_path: Path) -> None:
    failover = make_failover(server_tmp, cluster, serve)
    archive = new_archive(LocalStore.create(tmp_path / "repository"), failover.control)
    for folder, instance in ((failover.old, failover.primary), (failover.new, failover.promoted)):
        for path in sorted(folder.iterdir()):
            push(archive.cluster.repository, str(path), CLOCK, data_directory=instance)
    programs = cluster("programs", start=False).programs
    held = archive.listing()
    start = Segment(1, held.segments[1][0]).start(SIZE)
    old = scan(archive, History(1), start, held.segments[1][-1], programs, workers=1)
    assert old.last is not None
    assert old.last.lsn > failover.switch
    for batch in (1, 3, 10_000):
        forget(archive)
        with batches_of(batch):
            new = scan(archive, failover.history, start, held.segments[2][-1], programs, workers=1)
        assert new.first == old.first
        assert new.end > failover.switch
        # The old branch's transactions behind the switch are none of this lineage's.
        sought = Sought(time=old.last.time, inclusive=False)
        forget(archive)
        found = scan(archive, failover.history, start, held.segments[2][-1], programs, sought=sought, workers=1)
        assert found.last is not None
        assert found.last.time < old.last.time  # the primary was started again after the promoted one had ended
        assert found.hit is None
    ending = scan(
        archive, History(1), start, failover.switch // SIZE - 1, programs, partial=held.partials[0], workers=1
    )
    assert failover.switch - 8192 <= ending.end <= failover.switch


def test_a_missing_segment_is_a_gap(cluster: MakeCluster, tmp_path: Path) -> None:
    server = cluster(wal_segsize=1, wal_keep_size="'1GB'")
    server.sql("CREATE TABLE t (n int, filler text)")
    start = Lsn(-(-now(server) // SIZE) * SIZE)
    fill(server, 4)
    server.stop()
    archive = archive_everything(server, tmp_path / "repository")
    told = Told(start, [], 0, 0, 0, 0, 0)
    for gone in (start // SIZE + 1, archive.listing().segments[1][-1]):  # in the middle, and before the partial
        archive.cluster.repository.store.delete(archive.key(Segment(1, gone).name(SIZE)))
        for batch in (1, 2, 3, 100):
            with batches_of(batch), pytest.raises(Fault) as caught:
                whole(archive, told, server, workers=1)
            assert caught.value.code == "wal-gap"


def test_batches_cover_the_range_once() -> None:
    with batches_of(3):
        batches = plan_batches(Lsn(5 * SIZE + 100), 12, SIZE)
    assert [[*batch.numbers(SIZE)] for batch in batches] == [[5, 6, 7], [8, 9, 10], [11, 12]]
    assert [batch.start for batch in batches] == [5 * SIZE + 100, 8 * SIZE, 11 * SIZE]
    assert [batch.is_last for batch in batches] == [False, False, True]
    assert plan_batches(Lsn(5 * SIZE), 4, SIZE) == []


def end_of(xid: int, lsn: int, minute: int, subxacts: tuple[int, ...] = ()) -> TransactionEnd:
    time = datetime(2026, 5, 7, 11, minute, tzinfo=UTC)
    return TransactionEnd(Lsn(lsn), Lsn(lsn + 40), xid, xid % 2 == 0, time, subxacts, False)


@pytest.mark.parametrize(
    "sought",
    [Sought(), Sought(xid=12), Sought(xid=99), Sought(xid=100), Sought(time=datetime(2026, 5, 7, 11, 4, tzinfo=UTC)),
     Sought(time=datetime(2026, 5, 7, 11, 4, tzinfo=UTC), inclusive=False), Sought(lsn=Lsn(300)),
     Sought(lsn=Lsn(300), inclusive=False), Sought(lsn=Lsn(301)), Sought(name="here"), Sought(name="there")],
)  # fmt: skip
def test_a_search_is_right_wherever_the_segments_end(sought: Sought) -> None:
    """Against a search that looks at every record, one after the other."""
    minutes = [1, 3, 2, 4, 4, 6, 5, 9]
    records: list[WalRecord] = [
        end_of(10 + n, n * 100 + 8, minute, (99,) if n == 5 else ()) for n, minute in enumerate(minutes)
    ]
    records.insert(4, RestorePoint(Lsn(350), Lsn(380), "here", datetime(2026, 5, 7, 11, 4, tzinfo=UTC)))
    for size in (64, 128, 256, 512, 1024):
        for start in (0, 8, 70, 300, 450):
            kept = [record for record in records if record.lsn >= start]
            found = find([s for s in stretches(records, 0, 1024, size) if s.end > start], sought)
            assert_found(found, sought, records)
            assert_found(fold(kept, sought, start, 1024, size), sought, kept)


def assert_found(found: WalScan, sought: Sought, records: list[WalRecord]) -> None:
    ends = [record for record in records if isinstance(record, TransactionEnd) and record.lsn >= found.start]
    at = next((n for n, end in enumerate(ends) if is_hit(end, sought, found)), None)
    assert found.hit == (None if at is None else ends[at])
    place = len(ends) if at is None else at
    assert found.before == (ends[place - 1] if place else None)
    assert found.previous == (ends[place - 2] if place > 1 else None)
    assert found.after == (ends[at + 1] if at is not None and at + 1 < len(ends) else None)
    assert (found.first, found.last) == ((ends[0], ends[-1]) if ends else (None, None))
    owners = [end for end in ends if sought.xid in end.subxacts and at is None]
    assert found.owner == (owners[0] if owners else None)
    if sought.xid is not None and at is None:
        assert found.lower == max((e for e in ends if e.xid < sought.xid), key=lambda e: e.xid, default=None)
        assert found.higher == min((e for e in ends if e.xid > sought.xid), key=lambda e: e.xid, default=None)


def is_hit(end: TransactionEnd, sought: Sought, found: WalScan) -> bool:
    if sought.xid is not None:
        return end.xid == sought.xid
    if sought.time is not None:
        return end.time > sought.time if sought.inclusive else end.time >= sought.time
    lsn = found.point.lsn if found.point is not None else sought.lsn
    return lsn is not None and (end.lsn > lsn if sought.inclusive else end.lsn >= lsn)
