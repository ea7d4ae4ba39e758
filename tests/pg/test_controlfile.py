"""pg_control of every version, field by field against pg_controldata."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clusters import Cluster
from tests.conftest import MakeCluster
from tests.servers import pg_versions

from pgkeep.errors import Fault
from pgkeep.pg.controlfile import (
    CONTROL_FILE,
    LAYOUTS,
    READ_ATTEMPTS,
    ControlFile,
    State,
    WalLevel,
    parse_control,
    read_control,
    read_control_bytes,
)
from pgkeep.pg.crc32c import crc32c

STATES = {
    "shut down": State.SHUT_DOWN,
    "in production": State.IN_PRODUCTION,
    "shut down in recovery": State.SHUT_DOWN_IN_RECOVERY,
    "in archive recovery": State.IN_ARCHIVE_RECOVERY,
}


def controldata(cluster: Cluster) -> dict[str, str]:
    """What pg_controldata prints, by its labels."""
    text = cluster.run("pg_controldata", "-D", str(cluster.datadir)).text()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def shown(control: ControlFile) -> dict[str, str]:
    """The same fields as pg_controldata would print them."""

    def on(flag: bool) -> str:
        return "on" if flag else "off"

    def yes(flag: bool) -> str:
        return "yes" if flag else "no"

    return {
        "pg_control version number": str(control.control_version),
        "Catalog version number": str(control.catalog_version),
        "Database system identifier": str(control.system_identifier),
        "Database cluster state": next(text for text, state in STATES.items() if state is control.state),
        "pg_control last modified": f"{datetime.fromtimestamp(control.time, UTC):%a %b %e %H:%M:%S %Y}",
        "Latest checkpoint location": str(control.checkpoint),
        "Latest checkpoint's REDO location": str(control.redo),
        "Latest checkpoint's TimeLineID": str(control.timeline),
        "Latest checkpoint's PrevTimeLineID": str(control.previous_timeline),
        "Latest checkpoint's full_page_writes": on(control.full_page_writes),
        "Fake LSN counter for unlogged rels": str(control.unlogged_lsn),
        "Minimum recovery ending location": str(control.min_recovery_point),
        "Min recovery ending loc's timeline": str(control.min_recovery_timeline),
        "Backup start location": str(control.backup_start),
        "Backup end location": str(control.backup_end),
        "End-of-backup record required": yes(control.backup_end_required),
        "wal_level setting": control.wal_level.name.lower(),
        "wal_log_hints setting": on(control.wal_log_hints),
        "max_connections setting": str(control.max_connections),
        "max_worker_processes setting": str(control.max_worker_processes),
        "max_wal_senders setting": str(control.max_wal_senders),
        "max_prepared_xacts setting": str(control.max_prepared_transactions),
        "max_locks_per_xact setting": str(control.max_locks_per_transaction),
        "track_commit_timestamp setting": on(control.track_commit_timestamp),
        "Database block size": str(control.block_size),
        "Blocks per segment of large relation": str(control.relseg_size),
        "WAL block size": str(control.wal_block_size),
        "Bytes per WAL segment": str(control.wal_segment_size),
        "Data page checksum version": str(control.data_checksum_version),
    }


def assert_agrees(cluster: Cluster) -> ControlFile:
    control = read_control(cluster.datadir / CONTROL_FILE)
    theirs, ours = controldata(cluster), shown(control)
    assert {name: theirs.get(name) for name in ours} == ours
    assert cluster.major in control.majors
    return control


@pg_versions("all")
def test_every_field_is_what_pg_controldata_says(cluster: MakeCluster) -> None:
    """Settings are all off their defaults, so that no two neighbouring fields can be mistaken for each other."""
    server = cluster(
        wal_segsize=4,
        env={"TZ": "UTC"},
        wal_level="logical",
        wal_log_hints="on",
        track_commit_timestamp="on",
        full_page_writes="off",
        max_connections="31",
        max_worker_processes="13",
        max_wal_senders="7",
        max_prepared_transactions="5",
        max_locks_per_transaction="70",
    )
    server.sql("SELECT pg_switch_wal()")
    server.sql("CHECKPOINT")
    running = assert_agrees(server)
    assert running.state is State.IN_PRODUCTION
    assert (running.data_checksum_version, running.wal_segment_size) == (1, 4 << 20)
    assert running.wal_level is WalLevel.LOGICAL
    server.stop()
    assert assert_agrees(server).state is State.SHUT_DOWN


@pg_versions("all")
def test_a_fresh_cluster_without_checksums(cluster: MakeCluster) -> None:
    server = cluster(start=False, checksums=False, env={"TZ": "UTC"})
    control = assert_agrees(server)
    assert control.data_checksum_version == 0
    assert not control.in_recovery
    assert abs(datetime.now(UTC) - datetime.fromtimestamp(control.time, UTC)) < timedelta(minutes=5)


@pg_versions("oldest", "newest")
def test_a_standby_says_where_it_must_replay_to(cluster: MakeCluster) -> None:
    server = cluster(env={"TZ": "UTC"})
    server.stop()
    (server.datadir / "standby.signal").touch()
    server.configure(restore_command="'false'")
    server.start()
    assert assert_agrees(server).state is State.IN_ARCHIVE_RECOVERY
    server.stop()
    control = assert_agrees(server)
    assert control.in_recovery
    assert control.min_recovery_point > 0


# --- files that are torn, foreign or garbage


class Sleeper:
    """A clock whose sleep lets something happen."""

    def __init__(self, path: Path, then: bytes, after: int) -> None:
        self.path, self.then, self.after, self.slept = path, then, after, 0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        assert seconds < 1
        self.slept += 1
        if self.slept == self.after:
            self.path.write_bytes(self.then)


@pytest.fixture
def control_bytes(shared_cluster: Cluster) -> bytes:
    return read_control_bytes(shared_cluster.datadir / CONTROL_FILE)[1]


def resealed(data: bytes, **fields: tuple[str, int, int]) -> bytes:
    """`data` with fields (struct format, offset, value) replaced and a right CRC."""
    changed = bytearray(data)
    for form, offset, value in fields.values():
        struct.pack_into(form, changed, offset, value)
    crc = LAYOUTS[int.from_bytes(data[8:12], "little")].crc
    struct.pack_into("<I", changed, crc, crc32c(bytes(changed[:crc])))
    return bytes(changed)


def test_a_torn_file_is_read_again(control_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pg_control"
    torn = bytearray(control_bytes)
    torn[40] ^= 1
    path.write_bytes(torn)
    clock = Sleeper(path, control_bytes, after=READ_ATTEMPTS - 1)
    assert read_control(path, clock) == parse_control(control_bytes)


def test_a_damaged_file_is_given_up(control_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pg_control"
    path.write_bytes(control_bytes[:288] + b"oops" + control_bytes[292:296] + bytes(4) + control_bytes[300:])
    clock = Sleeper(path, control_bytes, after=READ_ATTEMPTS)
    with pytest.raises(Fault, match=r"checksum is .*, expected") as caught:
        read_control(path, clock)
    assert caught.value.code == "datadir-invalid"
    assert clock.slept == READ_ATTEMPTS - 1


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="could not be read: No such file") as caught:
        read_control(tmp_path / "pg_control")
    assert caught.value.code == "datadir-invalid"


@pytest.mark.parametrize("version", [0, 1201, 1301, 1900])
def test_an_unknown_version_is_refused_at_once(control_bytes: bytes, tmp_path: Path, version: int) -> None:
    path = tmp_path / "pg_control"
    path.write_bytes(control_bytes[:8] + struct.pack("<I", version) + control_bytes[12:])
    clock = Sleeper(path, b"", after=1)
    with pytest.raises(Fault, match=f"version {version}, expected") as caught:
        read_control(path, clock)
    assert (caught.value.code, clock.slept) == ("postgres-version", 0)


def test_another_byte_order_is_named(control_bytes: bytes) -> None:
    with pytest.raises(Fault, match="big-endian") as caught:
        parse_control(control_bytes[:8] + control_bytes[8:12][::-1] + control_bytes[12:])
    assert caught.value.code == "postgres-version"


@pytest.mark.parametrize(
    ("field", "code"),
    [
        (("<I", 204, 4), "postgres-version"),  # maxAlign
        (("<I", 216, 16384), "postgres-version"),  # blcksz
        (("<I", 16, 7), "datadir-invalid"),  # state
        (("<i", 172, 3), "datadir-invalid"),  # wal_level
        (("<I", 220, 0), "datadir-invalid"),  # relseg_size
        (("<I", 228, 3 << 20), "datadir-invalid"),  # xlog_seg_size
    ],
)
def test_values_that_no_server_of_ours_writes(control_bytes: bytes, field: tuple[str, int, int], code: str) -> None:
    with pytest.raises(Fault) as caught:
        parse_control(resealed(control_bytes, field=field))
    assert caught.value.code == code


@given(st.binary(max_size=400), st.sampled_from([None, *LAYOUTS]), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, version: int | None, sealed: bool) -> None:
    if version is not None:
        data = data[:8].ljust(8, b"\0") + struct.pack("<I", version) + data[12:]
        if sealed:
            data = resealed(data.ljust(300, b"\0"))
    try:
        parse_control(data)
    except Fault as fault:
        assert fault.code in ("datadir-invalid", "postgres-version")


@given(data=st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    made = resealed(struct.pack("<QI", 7, 1800) + bytes(8192 - 12))
    at = data.draw(st.integers(0, LAYOUTS[1800].crc + 3))
    changed = made[:at] + bytes([made[at] ^ data.draw(st.integers(1, 255))]) + made[at + 1 :]
    with pytest.raises(Fault):
        parse_control(changed)
