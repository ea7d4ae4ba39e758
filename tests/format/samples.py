"""Small objects of every kind, for the tests of format and repo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from blake3 import blake3

from pgkeep.format.manifest import (
    Attachment,
    BadPages,
    Collation,
    Database,
    Entry,
    EntryType,
    Inner,
    ManifestInfo,
    Place,
    Relation,
    ServerInfo,
    Tablespace,
    Unit,
    WalNeeds,
    WalRange,
)
from pgkeep.values.ids import BackupId, ClusterUuid

BACKUP = BackupId("20260507T112900Z-3f9a01c7")
CLUSTER = ClusterUuid("6f1c2a34-9d1e-4c7b-8a55-0123456789ab")
SYSTEM_ID = 7_500_000_000_000_000_001
SEGMENT_SIZE = 1 << 20


def entropy(seed: str) -> Callable[[int], bytes]:
    """A source of bytes that looks random and is always the same."""
    drawn = 0

    def draw(length: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return blake3(f"{seed} {drawn}".encode()).digest(length=length)

    return draw


@dataclass
class StepClock:
    """Starts on the day of the accident; every look at it lasts a second."""

    at: datetime = field(default_factory=lambda: datetime(2026, 5, 7, 11, 29, tzinfo=UTC))

    def now(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at

    def monotonic(self) -> float:
        return self.now().timestamp()

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


INFO = ManifestInfo(
    backup=BACKUP, cluster=CLUSTER, cluster_name="main", writer="pgkeep 0.1", host="db1", label="nightly",
    started="2026-05-07T11:29:00+00:00", stopped="2026-05-07T11:30:00+00:00", system_id=SYSTEM_ID,
    server_version=170011, timeline=2, start_timeline=2, start_lsn=0x3000028, stop_lsn=0x3000148,
    wal_segment_size=SEGMENT_SIZE, source="primary", method="full", method_reason="first backup", base=None,
    base_proof="", logical_bytes=16384 + 3, stored_bytes=500, pages=2, pages_changed=2, files=2, bad_pages=1,
)  # fmt: skip

SERVER = ServerInfo(
    block_size=8192, relation_segment_blocks=131072, wal_block_size=8192, data_checksum_version=1,
    wal_log_hints=False, full_page_writes=True, wal_level="replica", catalog_version=202406281, encoding="UTF8",
    timezone="Europe/Moscow", data_directory="/var/lib/postgresql/17/main",
    config_file="/etc/postgresql/17/main/postgresql.conf", hba_file="/etc/postgresql/17/main/pg_hba.conf",
    ident_file="/etc/postgresql/17/main/pg_ident.conf", owner="postgres", max_connections=100,
    max_worker_processes=8, max_wal_senders=10, max_prepared_transactions=0, max_locks_per_transaction=64,
    shared_preload_libraries="", track_commit_timestamp=False, snapshot="740:740:",
)  # fmt: skip

HISTORY = b"1\t0/2000000\tno recovery target specified\n"

INNER = Inner(
    server=SERVER,
    backup_label=b"START WAL LOCATION: 0/3000028 (file 000000020000000000000030)\nLABEL: nightly\n",
    tablespace_map=b"",
    wal=WalNeeds(ranges=[WalRange(timeline=2, first=0x30, last=0x30)], history=HISTORY),
    bad_pages=[BadPages(path=b"base/5/16384", blocks=[1])],
    relations=[
        Relation(database=5, oid=16384, filenode=16384, schema=b"public", name=b"orders", kind="r", pages=2, rows=120.0)
    ],
    collations=[Collation(database=b"shop", name=b"default", provider="c", version="2.36")],
    attachments=[Attachment(path=b"/etc/postgresql/17/main/pg_hba.conf", role="hba", mode=0o640, content=b"local\n")],
    tablespaces=[Tablespace(oid=16500, name=b"fast", location=b"/mnt/fast")],
    databases=[Database(oid=5, name=b"shop", encoding="UTF8")],
)


def entries(pack: int = 0) -> list[Entry]:
    """A directory, an empty file, a file inline, a relation by map, a tablespace."""
    return [
        Entry(path=b"PG_VERSION", type=EntryType.FILE, mode=0o600, size=3, place=Place.INLINE, pack=pack, at=0),
        Entry(path=b"base", type=EntryType.DIRECTORY, mode=0o700, size=0),
        Entry(
            path=b"base/5/16384", type=EntryType.FILE, mode=0o600, size=16384, unit=Unit.PAGES, place=Place.MAP,
            pack=pack, at=0, length=88, hash=bytes(range(16)),
        ),
        Entry(path=b"base/5/16385", type=EntryType.FILE, mode=0o600, size=0, unit=Unit.PAGES),
        Entry(path=b"pg_tblspc/16500", type=EntryType.LINKED_TABLESPACE, mode=0o700, size=0),
    ]  # fmt: skip
