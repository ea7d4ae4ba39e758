"""Real WAL of a failover, made once a test worker: what a primary and the server promoted from its copy archived.

timeline 1 (the primary)  ... segment ... | segment that both have | more segments: it went on by mistake
timeline 2 (the promoted)                 | .history, .partial of timeline 1, segments
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pgkeep.clock import SystemClock
from pgkeep.format.objects import IncarnationInfo
from pgkeep.pg.controlfile import CONTROL_FILE, ControlFile, read_control
from pgkeep.repo.repository import create_repository, register_cluster
from pgkeep.repo.walarchive import WalArchive
from pgkeep.store.memory import MemoryStore
from pgkeep.store.port import Store
from pgkeep.values.lsn import Lsn
from pgkeep.values.recovery import RecoveryLineage
from pgkeep.values.wal import History, Segment
from tests.clusters import Cluster

SIZE = 1 << 20
CLOCK = SystemClock()


@dataclass(frozen=True)
class Failover:
    """`primary` and `promoted` are stopped data directories; `old` and `new` hold what each has archived."""

    home: Path
    primary: Path
    promoted: Path
    old: Path
    new: Path
    history: History
    """Of timeline 2."""

    @property
    def switch(self) -> Lsn:
        return self.history.switches[0].lsn

    @property
    def control(self) -> ControlFile:
        return read_control(self.primary / CONTROL_FILE)

    @property
    def partial(self) -> Path:
        (found,) = self.new.glob("*.partial")
        return found

    def segments(self, timeline: int) -> list[Path]:
        """The full segments of a timeline, ascending, as its server archived them."""
        folder = self.old if timeline == 1 else self.new
        return sorted(path for path in folder.glob(f"{timeline:08X}*") if len(path.name) == 24)

    def common(self) -> list[Path]:
        """Timeline 1's segments before the one that holds the switch."""
        return [path for path in self.segments(1) if number(path) < self.switch // SIZE]


def number(path: Path) -> int:
    return Segment.parse(path.name[:24], SIZE).number


def make_failover(home: Path, make: Callable[..., Cluster], serve: Callable[..., Cluster]) -> Failover:
    """Run both servers in `home` and stop them again."""
    old, new = home / "old", home / "new"
    primary = make(
        "primary", wal_segsize=1, wal_level="replica", archive_mode="on",
        archive_command=f"'test ! -f {old}/%f && cp %p {old}/%f'",
    )  # fmt: skip
    for folder in (old, new):
        folder.mkdir()
        os.chown(folder, primary.account.uid, primary.account.gid)
    primary.sql("CREATE TABLE t (n int, filler text)")
    with primary.connect() as connection:  # its session must last as long as the backup
        start, stop = "pg_backup_start('x', true)", "pg_backup_stop()"
        if primary.major < 15:
            start, stop = "pg_start_backup('x', true, false)", "pg_stop_backup(false)"
        connection.execute(f"SELECT {start}".encode())
        fill(primary, 4)
        connection.execute(f"SELECT * FROM {stop}".encode())
    wait_archived(primary, old)
    primary.stop()
    copied = home / "promoted"
    subprocess.run(["cp", "-a", primary.datadir, copied], check=True)
    (copied / "standby.signal").touch()
    with (copied / "postgresql.conf").open("a") as file:
        file.write(f"archive_command = 'test ! -f {new}/%f && cp %p {new}/%f'\nrestore_command = 'cp {old}/%f %p'\n")
    promoted = serve(copied)
    promoted.sql("SELECT pg_promote()")
    fill(promoted, 3)
    wait_archived(promoted, new)
    promoted.stop()
    primary.start()
    fill(primary, 3)
    wait_archived(primary, old)
    primary.stop()
    text = (new / "00000002.history").read_text()
    return Failover(home, primary.datadir, copied, old, new, History.parse(2, text))


def fill(cluster: Cluster, segments: int) -> None:
    """Write and complete that many segments."""
    for _ in range(segments):
        cluster.sql("INSERT INTO t SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 500) n")
        cluster.switch_wal()


def wait_archived(cluster: Cluster, folder: Path, seconds: float = 60) -> None:
    """Until every completed segment of the present timeline is in `folder`."""
    cluster.sql("CHECKPOINT")
    last = cluster.switch_wal()
    deadline = time.monotonic() + seconds
    while not (folder / last).exists() or any((cluster.datadir / "pg_wal/archive_status").glob("*.ready")):
        assert time.monotonic() < deadline, f"{last} was not archived: {cluster.log.read_text()[-2000:]}"
        time.sleep(0.1)


def copy_instance(source: Path, target: Path) -> Path:
    """A data directory that is good for archive_command only: its control file and pg_wal."""
    (target / "global").mkdir(parents=True)
    (target / "pg_wal").mkdir()
    shutil.copy(source / CONTROL_FILE, target / CONTROL_FILE)
    return target


def new_archive(store: Store, control: ControlFile) -> WalArchive:
    """A new repository in `store` that knows the cluster."""
    repository = create_repository(store, CLOCK, "test")
    info = IncarnationInfo(
        system_id=control.system_identifier, cluster_name="main", server_version=180000,
        first_seen="2026-05-07T11:00:00+00:00", wal_segment_size=control.wal_segment_size,
    )  # fmt: skip
    cluster = register_cluster(repository, info, CLOCK)
    return WalArchive(cluster, control.system_identifier, control.wal_segment_size)


def lineage_of(
    archive: WalArchive, history: History, last: int | None = None, flush: Lsn | None = None
) -> RecoveryLineage:
    """What a restore along `history` may read; see RecoveryLineage for the bounds."""
    repository, uuid = archive.cluster.repository.id, archive.cluster.uuid
    return RecoveryLineage(repository, uuid, archive.system_id, archive.segment_size, history, last, flush)


def archive_in_memory(system_id: int = 7_300_000_000_000_000_001, size: int = SIZE) -> WalArchive:
    """An empty archive that needs no server and no disk."""
    repository = create_repository(MemoryStore(), CLOCK, "test")
    info = IncarnationInfo(
        system_id=system_id, cluster_name="main", server_version=180000, first_seen="2026-05-07T11:00:00+00:00",
        wal_segment_size=size,
    )  # fmt: skip
    return WalArchive(register_cluster(repository, info, CLOCK), system_id, size)
