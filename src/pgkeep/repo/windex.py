"""WAL index objects in the store: list, open, put (docs/format/objects.md).

1. They are rebuildable: whoever cannot read one reads the WAL instead, so no fault of theirs may end a plan.
2. One that is damaged, or no longer what the archive holds, is replaced: the only objects that are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from pgkeep.clock import Clock
from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.header import Header, ObjectType, expect_header
from pgkeep.format.limits import DIRECTORY_HEAD_LENGTH, HEADER_LENGTH
from pgkeep.format.section import directory_length
from pgkeep.format.walends import Ends
from pgkeep.format.windex import SegmentEntry, WalIndex, WalIndexInfo, decode_index, encode_index, run_identity
from pgkeep.repo.walarchive import WalArchive
from pgkeep.repo.window import Window
from pgkeep.values.wal import Segment


@dataclass(frozen=True, slots=True)
class StoredIndex:
    """An index in the store; its transactions are fetched on demand."""

    key: str
    index: WalIndex
    archive: WalArchive

    def ends(self, number: int) -> Ends | None:
        """The transactions of segment `number`; None when it has none.  object-missing, Damaged."""
        store = self.archive.cluster.repository.store
        return self.index.ends(number - self.index.first, lambda at, length: store.get(self.key, at, length))


def list_indexes(archive: WalArchive, timeline: int) -> list[tuple[int, str]]:
    """(number of the run's first segment, key) of every index of a timeline, ascending."""
    prefix = names.wal_indexes(archive.cluster.uuid, archive.system_id, timeline)
    found: list[tuple[int, str]] = []
    for stat in archive.cluster.repository.store.list(prefix):
        with suppress(ValueError):
            segment = Segment.parse(stat.key[len(prefix) :], archive.segment_size)
            if segment.timeline == timeline:
                found.append((segment.number, stat.key))
    return found


def open_index(archive: WalArchive, key: str) -> StoredIndex:
    """Everything but the transactions, verified.  object-missing, Damaged, format-unsupported."""
    repository = archive.cluster.repository
    window = Window(repository.store, key)
    head = bytes(window.get(0, HEADER_LENGTH))
    owner = names.object_id(key)
    header = expect_header(head, key, type_=ObjectType.WAL_INDEX, repository=repository.id, object_=owner)
    length = directory_length(window.get(HEADER_LENGTH, DIRECTORY_HEAD_LENGTH), key)
    index = decode_index(header, window.get(HEADER_LENGTH, length), window.get, key)
    identity = index.identity
    expected = key_of(archive, Segment(identity.timeline, index.first))
    if identity.system_id != archive.system_id or identity.segment_size != archive.segment_size or key != expected:
        raise Damaged(key, "describes the WAL of another archive or of other segments")
    return StoredIndex(key, index, archive)


def key_of(archive: WalArchive, first: Segment) -> str:
    """The key of the index whose run begins with `first`."""
    return names.wal_index(archive.cluster.uuid, archive.system_id, first.name(archive.segment_size))


def put_index(
    archive: WalArchive, first: Segment, info: WalIndexInfo, entries: Sequence[SegmentEntry], clock: Clock
) -> StoredIndex:
    """Store the index of a run; what lies under its key is replaced, unless it says the same or more.

    The store's faults.
    """
    repository, key = archive.cluster.repository, key_of(archive, first)
    rows = [entry.row for entry in entries]
    identity = run_identity(archive.system_id, first.timeline, first.number, archive.segment_size, rows)
    header: Header = repository.header(ObjectType.WAL_INDEX, key, clock, identity.encode())
    parts = encode_index(header, info, entries)
    try:
        repository.store.put(key, parts)
    except Fault as fault:
        if fault.code != "object-exists":
            raise
        if not _says_as_much(archive, key, entries):
            repository.store.delete(key)
            repository.store.put(key, parts)
    return open_index(archive, key)


def _says_as_much(archive: WalArchive, key: str, entries: Sequence[SegmentEntry]) -> bool:
    """Another process may have been faster."""
    try:
        present = open_index(archive, key).index.segments
    except Fault:
        return False
    hashes = [entry.row.content_hash for entry in entries]
    return [row.content_hash for row in present[: len(hashes)]] == hashes


def drop_index(archive: WalArchive, key: str) -> None:
    """Remove one that is damaged or stale.  The store's faults."""
    archive.cluster.repository.store.delete(key)
