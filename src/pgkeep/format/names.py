"""Keys of the repository's objects: the one place that knows the layout (docs/format/layout.md)."""

from __future__ import annotations

import hashlib

from pgkeep.values.ids import BackupId, ClusterUuid, DumpId, ObjectId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import history_name

REPOSITORY = "pgkeep"
FEATURES = "features/"
"""What a reader or writer of this repository must know beyond v1: names ending in '.read' or '.write'."""


def object_id(key: str) -> ObjectId:
    """The object id of everything but packs: bound to the key, so that a swapped object is noticed."""
    return ObjectId(hashlib.sha256(b"pgkeep v1 object id\n" + key.encode()).digest()[:16])


def incarnation(cluster: ClusterUuid, system_id: int) -> str:
    return f"{cluster}/incarnations/{system_id}"


def incarnations(cluster: ClusterUuid) -> str:
    return f"{cluster}/incarnations/"


def packs(cluster: ClusterUuid) -> str:
    return f"{cluster}/packs/"


def pack(cluster: ClusterUuid, pack_id: ObjectId) -> str:
    return f"{cluster}/packs/{pack_id}"


def backups(cluster: ClusterUuid) -> str:
    return f"{cluster}/backups/"


def backup(cluster: ClusterUuid, backup_id: BackupId) -> str:
    return f"{cluster}/backups/{backup_id}"


def dumps(cluster: ClusterUuid) -> str:
    return f"{cluster}/dumps/"


def dump(cluster: ClusterUuid, dump_id: DumpId) -> str:
    return f"{cluster}/dumps/{dump_id}"


def root(cluster: ClusterUuid, root_id: BackupId) -> str:
    """Of a backup's or a dump's manifest."""
    return dump(cluster, root_id) if isinstance(root_id, DumpId) else backup(cluster, root_id)


def wal_root(cluster: ClusterUuid, system_id: int) -> str:
    return f"{cluster}/wal/{system_id}/"


def wal_timeline(cluster: ClusterUuid, system_id: int, timeline: int) -> str:
    return f"{cluster}/wal/{system_id}/{timeline:08X}/"


def wal_indexes(cluster: ClusterUuid, system_id: int, timeline: int) -> str:
    return f"{cluster}/windex/{system_id}/{timeline:08X}/"


def wal_index(cluster: ClusterUuid, system_id: int, segment: str) -> str:
    """Of the run that begins with `segment`, a 24-digit name."""
    return wal_indexes(cluster, system_id, int(segment[:8], 16)) + segment


def claim(cluster: ClusterUuid, system_id: int, timeline: int, generation: int) -> str:
    """Generation 0 is made by the first push; an adoption adds the next."""
    suffix = f".{generation}" if generation else ""
    return f"{wal_timeline(cluster, system_id, timeline)}claim{suffix}"


def history(cluster: ClusterUuid, system_id: int, timeline: int) -> str:
    return wal_timeline(cluster, system_id, timeline) + history_name(timeline)


def wal_file(cluster: ClusterUuid, system_id: int, name: str) -> str:
    """A segment or a .backup file: below its timeline and its log number (the middle eight digits)."""
    return f"{wal_timeline(cluster, system_id, int(name[:8], 16))}{name[8:16]}/{name}"


def partial(cluster: ClusterUuid, system_id: int, segment: str, flush: Lsn) -> str:
    """`segment` is the 24-digit name; `flush` is where its real WAL ends, as 16 hexadecimal digits."""
    return f"{wal_file(cluster, system_id, segment)}.partial.{int(flush):016X}"


def feature(name: str) -> str:
    """`name` ends in '.read' or '.write'."""
    return FEATURES + name


def leases(cluster: ClusterUuid) -> str:
    return f"{cluster}/leases/"


def lease(cluster: ClusterUuid, lease_id: ObjectId, number: int) -> str:
    """Renewal `number`, from 1: ten digits, so that listings are in order."""
    return f"{cluster}/leases/{lease_id}/{number:010d}"


def retired_marks(cluster: ClusterUuid) -> str:
    return f"{cluster}/retired/"


def retired(cluster: ClusterUuid, backup_id: BackupId) -> str:
    return f"{cluster}/retired/{backup_id}"


def condemnations(cluster: ClusterUuid) -> str:
    return f"{cluster}/condemned/"


def condemned(cluster: ClusterUuid, condemned_id: ObjectId) -> str:
    return f"{cluster}/condemned/{condemned_id}"


def pins(cluster: ClusterUuid) -> str:
    return f"{cluster}/pins/"


def pin(cluster: ClusterUuid, backup_id: BackupId, pin_id: ObjectId) -> str:
    return f"{cluster}/pins/{backup_id}/{pin_id}"


def all_moves(cluster: ClusterUuid) -> str:
    return f"{cluster}/moves/"


def moves(cluster: ClusterUuid, moves_id: ObjectId) -> str:
    return f"{cluster}/moves/{moves_id}"


def damaged_marks(cluster: ClusterUuid) -> str:
    return f"{cluster}/damaged/"


def damaged(cluster: ClusterUuid, pack_id: ObjectId) -> str:
    return f"{cluster}/damaged/{pack_id}"


def pruned_records(cluster: ClusterUuid) -> str:
    return f"{cluster}/pruned/"


def pruned_record(cluster: ClusterUuid, record_id: ObjectId) -> str:
    return f"{cluster}/pruned/{record_id}"
