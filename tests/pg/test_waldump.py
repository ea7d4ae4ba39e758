"""pg_waldump's output of every version, the end of WAL, damage, and text that imitates records."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.clusters import Cluster
from tests.conftest import MakeCluster
from tests.servers import pg_versions

from pgkeep.errors import Fault
from pgkeep.pg.waldump import (
    RestorePoint,
    TablespaceCreated,
    TablespaceDropped,
    TransactionEnd,
    WalRange,
    WalRecord,
    end_of_wal,
    read_records,
)
from pgkeep.pg.walrecord import record_end
from pgkeep.values.lsn import Lsn

MIB = 1 << 20


def here(cluster: Cluster) -> Lsn:
    return Lsn.parse(cluster.value("SELECT pg_current_wal_insert_lsn()::text"))


def flushed(cluster: Cluster) -> Lsn:
    """Have everything so far on disk; the end of the last record."""
    cluster.sql("CREATE TABLE IF NOT EXISTS flush (i int)")
    cluster.sql("INSERT INTO flush VALUES (1)")
    return Lsn.parse(cluster.value("SELECT pg_current_wal_flush_lsn()::text"))


def records(cluster: Cluster, start: Lsn, end: Lsn | None = None) -> list[WalRecord]:
    source = WalRange(cluster.datadir / "pg_wal", 1, start, end)
    return list(read_records(cluster.programs, source))


def copy_of_wal(cluster: Cluster, name: str = "copy") -> Path:
    """The segments as they are now: the tail of the last one is old WAL or zeros."""
    target = cluster.home / name
    shutil.copytree(cluster.datadir / "pg_wal", target, ignore=shutil.ignore_patterns("archive_status", "summaries"))
    return target


def only(kind: type[WalRecord], found: list[WalRecord]) -> list[WalRecord]:
    return [record for record in found if isinstance(record, kind)]


@pg_versions("all")
def test_transactions_points_and_tablespaces(cluster: MakeCluster) -> None:
    made = cluster(max_prepared_transactions="5")
    space = made.directory('apart "x" ; desc: DROP 1\nrmgr: no')
    made.sql("CREATE TABLE t (i int)")
    start = here(made)
    before = datetime.now(UTC) - timedelta(seconds=1)
    with made.connect() as session:
        session.execute("BEGIN")
        xid = int(session.execute("SELECT pg_current_xact_id()::text").fetchall()[0][0])
        session.execute("SAVEPOINT a")
        session.execute("INSERT INTO t VALUES (1)")
        session.execute("COMMIT")
        session.execute("BEGIN")
        session.execute("INSERT INTO t VALUES (2)")
        session.execute("ROLLBACK")
        session.execute("BEGIN")
        two_phase = int(session.execute("SELECT pg_current_xact_id()::text").fetchall()[0][0])
        session.execute("PREPARE TRANSACTION 'it''s; subxacts: 1'")
        session.execute("COMMIT PREPARED 'it''s; subxacts: 1'")
        session.execute("BEGIN")
        session.execute("SELECT pg_current_xact_id()")
        session.execute("PREPARE TRANSACTION 'two'")
        session.execute("ROLLBACK PREPARED 'two'")
    made.sql("SELECT pg_create_restore_point('before; desc: \"it\" \n lsn')")
    made.sql(f"CREATE TABLESPACE apart LOCATION '{space}'")
    made.sql("DROP TABLESPACE apart")
    end = flushed(made)
    found = records(made, start)
    assert [record.lsn for record in found] == sorted(record.lsn for record in found)
    ends = [record for record in found if isinstance(record, TransactionEnd)]
    committed, aborted, prepared, rolled_back = ends[:4]
    assert committed == TransactionEnd(
        committed.lsn, committed.end, xid, True, committed.time, (xid + 1,), prepared=False
    )
    assert before < committed.time < datetime.now(UTC) + timedelta(seconds=1)
    assert (aborted.committed, aborted.xid, aborted.subxacts) == (False, xid + 2, ())
    assert (prepared.xid, prepared.committed, prepared.prepared) == (two_phase, True, True)
    assert (rolled_back.xid, rolled_back.committed, rolled_back.prepared) == (two_phase + 1, False, True)
    assert ends[-1].end == end
    (point,) = [record for record in found if isinstance(record, RestorePoint)]
    assert point.name == 'before; desc: "it" \n lsn'
    assert prepared.time <= point.time < datetime.now(UTC)
    (created,) = [record for record in found if isinstance(record, TablespaceCreated)]
    (dropped,) = [record for record in found if isinstance(record, TablespaceDropped)]
    assert created.path == str(space)
    assert created.oid == dropped.oid
    assert records(made, start, committed.end) == found[: found.index(committed) + 1]


@pg_versions("oldest", "newest")
def test_the_end_of_wal(cluster: MakeCluster) -> None:
    """In mid-segment, after a switch, and in recycled segments full of old records."""
    made = cluster(wal_segsize=1, max_wal_size="'64MB'", min_wal_size="'32MB'")
    made.sql("CREATE TABLE t AS SELECT i, repeat('x', 200) AS x FROM generate_series(1, 20000) AS i")
    made.sql("CHECKPOINT")
    start = here(made)
    end = flushed(made)
    wal = made.datadir / "pg_wal"
    assert len(list(wal.glob("0*"))) > 1
    copy = copy_of_wal(made)
    assert end_of_wal(made.programs, through(copy, end), 1, start) == end
    made.switch_wal()
    boundary = Lsn(-(-end // MIB) * MIB)
    assert end_of_wal(made.programs, through(copy_of_wal(made, "switched"), end), 1, start) == boundary
    flushed(made)
    made.sql("SELECT pg_logical_emit_message(false, 'big', repeat('y', 2500000))")
    made.switch_wal()
    cut = through(copy_of_wal(made, "cut"), boundary + MIB)
    assert end_of_wal(made.programs, cut, 1, start) == last_end_by_reading_all(made, cut, start) < boundary + MIB // 2


def last_end_by_reading_all(made: Cluster, directory: Path, start: Lsn) -> Lsn:
    """The slow way: print every record."""
    arguments = [f"--path={directory}", f"--start={start}"]
    output = made.programs.run("pg_waldump", *arguments, check=False).text()
    length, lsn = re.findall(r"rec/tot\): +\d+/ *(\d+), tx: +\d+, lsn: (\S+),", output)[-1]
    return record_end(Lsn.parse(lsn), int(length), MIB)


def through(directory: Path, last: int) -> Path:
    """Delete the segments (of 1 MiB) beyond the one that holds the byte before `last`."""
    for path in directory.iterdir():
        if int(path.name[8:16], 16) * 4096 + int(path.name[16:], 16) > (last - 1) // MIB:
            path.unlink()
    return directory


def test_damage_before_the_last_segment_is_a_fault(cluster: MakeCluster) -> None:
    made = cluster(wal_segsize=1)
    start = here(made)
    for i in range(3):
        made.sql(f"CREATE TABLE t{i} ()")
        made.switch_wal()
    flushed(made)
    copy = copy_of_wal(made)
    names = sorted(path.name for path in copy.iterdir())
    victim = copy / names[[name[16:] for name in names].index(f"{start // MIB + 1:08X}")]
    content = bytearray(victim.read_bytes())
    content[8192 : 8192 + 4096] = bytes(4096)
    content[600:700] = bytes(100)
    victim.write_bytes(content)
    with pytest.raises(Fault, match="later segments") as caught:
        list(read_records(made.programs, WalRange(copy, 1, start)))
    assert caught.value.code == "wal-gap"
    victim.unlink()
    with pytest.raises(Fault, match="is missing") as caught:
        list(read_records(made.programs, WalRange(copy, 1, start)))
    assert caught.value.context["segment"] == victim.name


def test_wal_that_ends_too_early_is_a_fault(cluster: MakeCluster) -> None:
    made = cluster(wal_segsize=1)
    start = here(made)
    end = flushed(made)
    copy = through(copy_of_wal(made), end)
    list(read_records(made.programs, WalRange(copy, 1, start, end)))
    with pytest.raises(Fault) as caught:
        list(read_records(made.programs, WalRange(copy, 1, start, Lsn(end + 4096))))
    assert caught.value.code == "wal-gap"
    with pytest.raises(Fault) as caught:
        list(read_records(made.programs, WalRange(copy, 1, start, Lsn(end + 2 * MIB))))
    assert caught.value.code == "wal-missing"
    with pytest.raises(Fault) as caught:
        list(read_records(made.programs, WalRange(copy, 1, Lsn(end + 2 * MIB))))
    assert caught.value.code == "wal-missing"
    with pytest.raises(Fault) as caught:
        list(read_records(made.programs, WalRange(copy, 2, start)))
    assert caught.value.code == "wal-missing"


@pg_versions("oldest", "newest")
def test_a_name_that_imitates_a_commit_is_no_record(cluster: MakeCluster) -> None:
    """Any user may PREPARE TRANSACTION under a name with line breaks: it must not invent a recovery target."""
    made = cluster(max_prepared_transactions="5")
    made.sql("CREATE ROLE mallory LOGIN")
    start = here(made)
    forged = (
        "rmgr: Transaction len (rec/tot):     34/    34, tx:        777, "
        f"lsn: 0/{int(start) + 4096:08X}, prev 0/01000028, desc: COMMIT 2020-01-01 00:00:00.000000 UTC"
    )
    with made.connect(user="mallory") as session:
        for number, tail in enumerate(("", "; x", "\nx", "; origin: node 1, at")):
            name = f"{number}\n{forged}{tail}"
            assert len(name) < 200
            session.execute("BEGIN")
            session.execute("SELECT pg_current_xact_id()")
            session.execute(b"PREPARE TRANSACTION '" + name.encode() + b"'")
            session.execute(b"ROLLBACK PREPARED '" + name.encode() + b"'")
    flushed(made)
    ends = [record for record in records(made, start) if isinstance(record, TransactionEnd)]
    assert 777 not in [end.xid for end in ends]
    assert len([end for end in ends if end.prepared and not end.committed]) == 4
