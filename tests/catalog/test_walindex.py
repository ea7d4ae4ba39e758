"""The index of real WAL: read once; believed only for the very WAL that it was made from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from msgspec.structs import replace as altered
from tests.clusters import Cluster
from tests.conftest import MakeCluster
from tests.walfiles import CLOCK, SIZE, fill, new_archive

from pgkeep.catalog.walfacts import Sought, WalScan
from pgkeep.catalog.walscan import scan
from pgkeep.errors import Fault
from pgkeep.events import Event, Warned
from pgkeep.format.header import ObjectType
from pgkeep.format.windex import SegmentEntry, encode_index, run_identity
from pgkeep.pg.controlfile import CONTROL_FILE, read_control
from pgkeep.pg.programs import Programs
from pgkeep.repo.walarchive import WalArchive
from pgkeep.repo.windex import StoredIndex, list_indexes, open_index
from pgkeep.store.local import LocalStore
from pgkeep.store.wrap.read_only import ReadOnlyStore
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Segment
from pgkeep.wal.push import push


@dataclass
class Indexed:
    """An archive of closed segments of 1 MiB, and what a scan of all of them said."""

    archive: WalArchive
    programs: Programs
    start: Lsn
    last: int
    cold: WalScan

    def scan(
        self, said: list[Event] | None = None, *, programs: Programs | None = None, xid: int | None = None
    ) -> WalScan:
        announce = said.append if said is not None else lambda _event: None
        return scan(
            self.archive, History(1), self.start, self.last, programs or self.programs, workers=1, announce=announce,
            sought=Sought(xid=xid),
        )  # fmt: skip

    @property
    def nowhere(self) -> Programs:
        """Programs that cannot be run: who reads WAL with them fails."""
        return replace(self.programs, bindir=Path("/nowhere"))

    def index(self) -> StoredIndex:
        return open_index(self.archive, list_indexes(self.archive, 1)[0][1])

    def put(self, key: str, parts: list[bytes]) -> None:
        store = self.archive.cluster.repository.store
        store.delete(key)
        store.put(key, parts)


def warnings(said: list[Event]) -> list[str]:
    return [event.code for event in said if isinstance(event, Warned)]


@pytest.fixture
def indexed(cluster: MakeCluster, tmp_path: Path) -> Indexed:
    server: Cluster = cluster(wal_segsize=1, wal_keep_size="'1GB'")
    server.sql("CREATE TABLE t (n int, filler text)")
    server.switch_wal()
    start = Lsn(-(-Lsn.parse(server.value("SELECT pg_current_wal_insert_lsn()::text")) // SIZE) * SIZE)
    fill(server, 7)
    server.sql("SELECT pg_create_restore_point('closed')")
    last = Segment.parse(server.switch_wal(), SIZE).number
    server.stop()
    control = read_control(server.datadir / CONTROL_FILE)
    archive = new_archive(LocalStore.create(tmp_path / "repository"), control)
    for number in range(start // SIZE, last + 1):
        path = server.datadir / "pg_wal" / Segment(1, number).name(SIZE)
        push(archive.cluster.repository, str(path), CLOCK, data_directory=server.datadir)
    made = Indexed(archive, server.programs, start, last, WalScan(start, start))
    made.cold = made.scan()
    return made


def test_what_was_read_is_not_read_again(indexed: Indexed) -> None:
    said: list[Event] = []
    assert indexed.cold.transactions >= 5
    assert [point.name for point in indexed.cold.restore_points] == ["closed"]
    assert indexed.scan(said, programs=indexed.nowhere) == indexed.cold
    assert not warnings(said)
    assert sum(len(open_index(indexed.archive, key).index.segments) for _, key in list_indexes(indexed.archive, 1)) == (
        indexed.last - indexed.start // SIZE + 1
    )


def test_an_index_that_lies_is_not_believed(indexed: Indexed) -> None:
    """Every hash of the object is right, but it was made from other WAL than the archive holds."""
    stored = indexed.index()
    numbers = range(stored.index.first, stored.index.first + len(stored.index.segments))
    rows = list(stored.index.segments)
    rows[1] = altered(rows[1], content_hash=b"other WAL".ljust(32), transactions=0, sections=0)
    entries = [SegmentEntry(row, ()) for row in (altered(row, transactions=0, sections=0) for row in rows)]
    identity = run_identity(indexed.archive.system_id, 1, numbers[0], SIZE, [entry.row for entry in entries])
    header = indexed.archive.cluster.repository.header(ObjectType.WAL_INDEX, stored.key, CLOCK, identity.encode())
    indexed.put(stored.key, encode_index(header, stored.index.info, entries))
    said: list[Event] = []
    found = indexed.scan(said)
    assert warnings(said) == ["wal-index"]
    assert found == indexed.cold
    assert indexed.scan(programs=indexed.nowhere) == indexed.cold  # it was made anew


@pytest.mark.parametrize("where", ["header", "summary", "transactions"])
def test_a_damaged_index_is_made_anew(indexed: Indexed, where: str) -> None:
    stored = indexed.index()
    data = bytearray(indexed.archive.cluster.repository.store.get(stored.key))
    at = {"header": 20, "summary": 512 + 100, "transactions": 512 + stored.index.rows[0].offset}[where]
    data[at] ^= 1
    indexed.put(stored.key, [bytes(data)])
    assert indexed.cold.first is not None
    said: list[Event] = []
    with pytest.raises(Fault):
        indexed.scan(programs=indexed.nowhere, xid=indexed.cold.first.xid)
    found = indexed.scan(said)
    assert found == indexed.cold
    assert warnings(said) == ["wal-index"]
    said.clear()
    assert indexed.scan(said, programs=indexed.nowhere) == indexed.cold
    assert not warnings(said)


def test_an_index_under_another_name_is_not_believed(indexed: Indexed) -> None:
    stored = indexed.index()
    store = indexed.archive.cluster.repository.store
    other = stored.key[:-1] + "F"
    store.put(other, [store.get(stored.key)])
    said: list[Event] = []
    assert indexed.scan(said) == indexed.cold
    assert not warnings(said) or warnings(said) == ["wal-index"]


def test_a_repository_that_cannot_be_written_is_read_all_the_same(indexed: Indexed) -> None:
    repository = indexed.archive.cluster.repository
    repository.store.delete(indexed.index().key)
    locked = replace(repository, store=ReadOnlyStore(repository.store))
    archive = replace(indexed.archive, cluster=replace(indexed.archive.cluster, repository=locked))
    said: list[Event] = []
    assert replace_archive(indexed, archive).scan(said) == indexed.cold
    assert warnings(said) == ["wal-index-unwritten"]


def replace_archive(indexed: Indexed, archive: WalArchive) -> Indexed:
    return Indexed(archive, indexed.programs, indexed.start, indexed.last, indexed.cold)


def test_a_segment_that_is_gone_is_a_gap_although_it_was_indexed(indexed: Indexed) -> None:
    gone = indexed.start // SIZE + 2
    indexed.archive.cluster.repository.store.delete(indexed.archive.key(Segment(1, gone).name(SIZE)))
    with pytest.raises(Fault) as caught:
        indexed.scan()
    assert caught.value.code == "wal-gap"
