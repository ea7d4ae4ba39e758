"""global/pg_control: what the cluster is, and where its last checkpoint lies (catalog/pg_control.h).

Rules of this file:

1. Standard library alone: `wal push` reads this before it knows that there is work.
2. The layout is known for the pg_control versions in LAYOUTS, by their offsets on little-endian 64-bit machines
   (measured with offsetof on the headers of 14.23, 15.19, 16.15, 17.11 and 18.6).  Any other version is refused:
   a field read from the wrong place would be believed.
3. The server overwrites the file in place, so that a reader may see half of an update: the CRC tells, and
   `read_control` reads again, as PostgreSQL's own programs do (common/controldata_utils.c).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from pgkeep.clock import Clock, SystemClock
from pgkeep.errors import Fault
from pgkeep.pg.crc32c import crc32c
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import is_segment_size

CONTROL_FILE: Final = "global/pg_control"
CONTROL_FILE_SIZE: Final = 8192
BLOCK_SIZE: Final = 8192
READ_ATTEMPTS: Final = 10
RETRY_SECONDS: Final = 0.01

_CLOCK: Final = SystemClock()
_VERSIONS: Final = struct.Struct("<QII")


class _Layout(NamedTuple):
    """Where the CRC lies, in bytes from the start, and which major versions write this layout."""

    crc: int
    majors: tuple[int, ...]


# 18 put default_char_signedness before the nonce, which moved the CRC; 17 put wal_level into a gap of CheckPoint.
LAYOUTS: Final[dict[int, _Layout]] = {
    1300: _Layout(288, (14, 15, 16)),  # 13 wrote 1300 too: PG_VERSION tells them apart
    1700: _Layout(288, (17,)),
    1800: _Layout(292, (18,)),
}

# state, time, checkPoint | CheckPoint: redo, ThisTimeLineID, PrevTimeLineID, fullPageWrites | unloggedLSN,
# minRecoveryPoint, its timeline, backupStartPoint, backupEndPoint, backupEndRequired | wal_level, wal_log_hints,
# MaxConnections .. max_locks_per_xact, track_commit_timestamp | maxAlign, floatFormat, blcksz, relseg_size,
# xlog_blcksz, xlog_seg_size | data_checksum_version
_FIELDS: Final = struct.Struct("<16x I4x qQ QII?71x Q QI4x QQ?3x i?3x iiiii?3x IdIIII 20x I")
_FLOAT_FORMAT: Final = 1234567.0  # FLOATFORMAT_VALUE


class State(IntEnum):
    """DBState: how the cluster was last seen."""

    STARTUP = 0
    SHUT_DOWN = 1
    SHUT_DOWN_IN_RECOVERY = 2
    SHUTTING_DOWN = 3
    IN_CRASH_RECOVERY = 4
    IN_ARCHIVE_RECOVERY = 5
    IN_PRODUCTION = 6


class WalLevel(IntEnum):
    """WalLevel of access/xlog.h."""

    MINIMAL = 0
    REPLICA = 1
    LOGICAL = 2


@dataclass(frozen=True, slots=True)
class ControlFile:
    """The fields of pg_control that pgkeep uses, under pg_controldata's names where those are plain.

    Sizes are bytes, except `relseg_size`: pages in a relation's segment file.  `time` is when the file was written,
    in seconds since 1970 (UTC).  `data_checksum_version` is 0 where data checksums are off.
    """

    system_identifier: int
    control_version: int
    catalog_version: int
    state: State
    time: int
    checkpoint: Lsn
    redo: Lsn
    timeline: int
    previous_timeline: int
    full_page_writes: bool
    unlogged_lsn: Lsn
    min_recovery_point: Lsn
    min_recovery_timeline: int
    backup_start: Lsn
    backup_end: Lsn
    backup_end_required: bool
    wal_level: WalLevel
    wal_log_hints: bool
    max_connections: int
    max_worker_processes: int
    max_wal_senders: int
    max_prepared_transactions: int
    max_locks_per_transaction: int
    track_commit_timestamp: bool
    block_size: int
    relseg_size: int
    wal_block_size: int
    wal_segment_size: int
    data_checksum_version: int

    @property
    def majors(self) -> tuple[int, ...]:
        """The major versions that write this version of the file; PG_VERSION says which it is."""
        return LAYOUTS[self.control_version].majors

    @property
    def in_recovery(self) -> bool:
        """True if the server that wrote this was a standby or was restoring."""
        return self.state in (State.SHUT_DOWN_IN_RECOVERY, State.IN_ARCHIVE_RECOVERY)


def parse_control(data: bytes) -> ControlFile:
    """Read the bytes of pg_control.

    Raises Fault 'postgres-version' for a layout or a build that pgkeep does not know, 'datadir-invalid' for a file
    that is short, or whose CRC or values are wrong.
    """
    if len(data) < _FIELDS.size:
        raise _invalid(f"pg_control has {len(data)} bytes, expected {CONTROL_FILE_SIZE}")
    system_identifier, version, catalog_version = _VERSIONS.unpack_from(data)
    layout = _layout(version)
    if len(data) < layout.crc + 4:
        raise _invalid(f"pg_control has {len(data)} bytes, expected {CONTROL_FILE_SIZE}")
    (stored,) = struct.unpack_from("<I", data, layout.crc)
    computed = crc32c(memoryview(data)[: layout.crc])
    if stored != computed:
        raise _invalid(f"pg_control's checksum is {stored:08x}, expected {computed:08x}")
    return _control(system_identifier, version, catalog_version, _FIELDS.unpack_from(data))


def _layout(version: int) -> _Layout:
    layout = LAYOUTS.get(version)
    if layout is not None:
        return layout
    if int.from_bytes(version.to_bytes(4, "little"), "big") in LAYOUTS:
        raise Fault(
            "postgres-version",
            "pg_control was written by a big-endian machine, expected a little-endian one",
            hint="run pgkeep on the machine that the cluster runs on; big-endian machines are not supported",
        )
    raise Fault(
        "postgres-version",
        f"pg_control has version {version}, expected one of {', '.join(map(str, LAYOUTS))} (PostgreSQL 14 to 18)",
        hint="use a release of pgkeep that knows this version of PostgreSQL",
    )


def _control(
    system_identifier: int, version: int, catalog_version: int, fields: tuple[int | float, ...]
) -> ControlFile:
    """Name the fields, in the order of _FIELDS, and refuse values that this build of pgkeep cannot work with."""
    *head, max_align, float_format, blcksz, relseg, wal_blcksz, segsize, checksum_version = fields
    (state, time, checkpoint, redo, timeline, previous, full_page_writes, unlogged, min_recovery,
     min_recovery_timeline, backup_start, backup_end, end_required, wal_level, *settings) = map(int, head)  # fmt: skip
    hints, connections, workers, senders, prepared, locks, commit_timestamps = settings
    if max_align != 8 or float_format != _FLOAT_FORMAT or blcksz != BLOCK_SIZE:
        raise Fault(
            "postgres-version",
            f"the cluster has {blcksz}-byte blocks and {max_align}-byte alignment, expected {BLOCK_SIZE} and 8",
            hint="pgkeep supports PostgreSQL as it is built by default on 64-bit machines",
        )
    if state not in set(State) or wal_level not in set(WalLevel) or not relseg or not is_segment_size(int(segsize)):
        raise _invalid(
            f"pg_control holds state {state}, wal_level {wal_level}, {relseg} pages in a segment and"
            f" {segsize}-byte WAL segments, which no server writes"
        )
    return ControlFile(
        system_identifier=system_identifier,
        control_version=version,
        catalog_version=catalog_version,
        state=State(state),
        time=time,
        checkpoint=Lsn(checkpoint),
        redo=Lsn(redo),
        timeline=timeline,
        previous_timeline=previous,
        full_page_writes=bool(full_page_writes),
        unlogged_lsn=Lsn(unlogged),
        min_recovery_point=Lsn(min_recovery),
        min_recovery_timeline=min_recovery_timeline,
        backup_start=Lsn(backup_start),
        backup_end=Lsn(backup_end),
        backup_end_required=bool(end_required),
        wal_level=WalLevel(wal_level),
        wal_log_hints=bool(hints),
        max_connections=connections,
        max_worker_processes=workers,
        max_wal_senders=senders,
        max_prepared_transactions=prepared,
        max_locks_per_transaction=locks,
        track_commit_timestamp=bool(commit_timestamps),
        block_size=int(blcksz),
        relseg_size=int(relseg),
        wal_block_size=int(wal_blcksz),
        wal_segment_size=int(segsize),
        data_checksum_version=int(checksum_version),
    )


def read_control(path: str | os.PathLike[str], clock: Clock = _CLOCK) -> ControlFile:
    """Read a pg_control file, again while it looks half written: ten times, 10 ms apart.

    Raises what `parse_control` raises, and 'datadir-invalid' when the file cannot be read.
    """
    return read_control_bytes(path, clock)[0]


def read_control_bytes(path: str | os.PathLike[str], clock: Clock = _CLOCK) -> tuple[ControlFile, bytes]:
    """As `read_control`, and the very bytes that were judged: a backup stores those, never a second reading."""
    for _ in range(READ_ATTEMPTS - 1):
        data = _read(path)
        try:
            return parse_control(data), data
        except Fault as fault:
            if fault.code != "datadir-invalid":
                raise
        clock.sleep(RETRY_SECONDS)
    data = _read(path)
    return parse_control(data), data


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(CONTROL_FILE_SIZE)
    except OSError as error:
        raise Fault(
            "datadir-invalid",
            f"{os.fspath(path)} could not be read: {error.strerror}, expected PostgreSQL's control file",
            hint="name the data directory itself, and run pgkeep under the account that owns it",
        ) from error


def _invalid(message: str) -> Fault:
    return Fault(
        "datadir-invalid",
        message,
        hint="run pg_controldata on the data directory; if it complains too, restore the file from a backup",
    )
