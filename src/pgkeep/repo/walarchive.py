"""WAL objects of one system identifier: create, compare, read, list; claims of timelines.

1. The key is the segment's name and the create is conditional, so a name has one content for ever.  "It exists" is
   decided by the header: equal identity means done, another one is refused.
2. An object that is there may not be durable yet (store/port.py), so "archived already" is said only after the store
   has refused a `put`.
3. `wal push` and `wal get` import this file once a segment: no numpy.
4. Names that are none of WAL are passed by: they are not ours.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.header import Header, ObjectType, WalIdentity, expect_header
from pgkeep.format.limits import HEADER_LENGTH, TAIL_LENGTH
from pgkeep.format.objects import ClaimInfo, decode_info, encode_object
from pgkeep.format.tail import decode_tail
from pgkeep.format.walobject import (
    Fill,
    WalFrames,
    close_wal,
    decode_frames,
    decode_pieces_of,
    decode_rows,
    decode_wal,
    encode_frames,
    encode_wal,
)
from pgkeep.repo.repository import Cluster, Repository, cluster_of_system
from pgkeep.store.port import ObjectStat
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment, WalFileKind, history_name, wal_file_kind

_TYPES: Final = {
    WalFileKind.SEGMENT: ObjectType.WAL_SEGMENT,
    WalFileKind.PARTIAL: ObjectType.WAL_PARTIAL,
    WalFileKind.HISTORY: ObjectType.WAL_HISTORY,
    WalFileKind.BACKUP_LABEL: ObjectType.WAL_BACKUP_LABEL,
}


@dataclass(frozen=True, slots=True)
class Partial:
    """An archived partial segment: its real WAL ends at `flush`."""

    segment: Segment
    flush: Lsn
    key: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What the archive of one system identifier holds; `segment_size` in bytes."""

    segment_size: int
    segments: dict[int, list[int]]
    """By timeline, ascending segment numbers."""
    partials: tuple[Partial, ...]
    timelines_with_history: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WalArchive:
    """The WAL of one system identifier of a cluster."""

    cluster: Cluster
    system_id: int
    segment_size: int

    def key(self, name: str, flush: Lsn | None = None) -> str:
        """The object's key for a WAL file name; a .partial needs `flush`."""
        kind = wal_file_kind(name)
        if kind is WalFileKind.HISTORY:
            return names.history(self.cluster.uuid, self.system_id, int(name[:8], 16))
        if kind is WalFileKind.PARTIAL:
            if flush is None:
                raise ValueError("a partial segment is stored under its flush position")
            return names.partial(self.cluster.uuid, self.system_id, name[:24], flush)
        if kind is None:
            raise ValueError(f"not a WAL file: {name!r}")
        return names.wal_file(self.cluster.uuid, self.system_id, name)

    def identity(self, name: str, content: bytes | memoryview, page_address: int) -> WalIdentity:
        """What the header of `content` under `name` must say."""
        digest = self.cluster.repository.keys.wal(content)
        return WalIdentity(self.system_id, page_address, self.segment_size, int(name[:8], 16), len(content), digest)

    def head(self, key: str, type_: ObjectType) -> WalIdentity | None:
        """The identity of the object under `key`; None when there is none.  Damaged."""
        repository = self.cluster.repository
        try:
            head = repository.store.get(key, 0, HEADER_LENGTH)
        except Fault as fault:
            if fault.code == "object-missing":
                return None
            raise
        header = expect_header(head, key, type_=type_, repository=repository.id, object_=names.object_id(key))
        return WalIdentity.decode(header.specific)

    def holds(self, name: str, content: bytes | memoryview, page_address: int) -> bool:
        """True when exactly `content` is there under `name` (no partial), durable or not.  Damaged."""
        kind = wal_file_kind(name)
        assert kind is not None
        return self.head(self.key(name), _TYPES[kind]) == self.identity(name, content, page_address)

    def put(
        self, name: str, content: bytes | memoryview, page_address: int, clock: Clock, *, flush: Lsn | None = None,
        level: int = 1, identity: WalIdentity | None = None, known_durable: bool = False,
    ) -> bool:  # fmt: skip
        """Make `content` durable under `name`; True when it was new, False when it was there already.

        `identity` is that of `content`, where the caller has it.  `known_durable` says that this very content was
        once durable under this name: if it is still there, it need not be sent again to learn that.
        wal-refused when other content has the name.
        """
        kind = wal_file_kind(name)
        key = self.key(name, flush)
        assert kind is not None
        repository = self.cluster.repository
        identity = identity or self.identity(name, content, page_address)
        if (present := self.head(key, _TYPES[kind])) is not None and present != identity:
            raise _other_content(name, key)
        if present is not None and known_durable:
            return False
        header = repository.header(_TYPES[kind], key, clock, identity.encode())
        return self._create(name, key, identity, encode_wal(header, name, content, repository.keys, level))

    def segment_frames(self, name: str, fill: Fill, level: int = 1) -> WalFrames:
        """What a whole segment's bytes become; they are asked for once, in order."""
        return encode_frames(name, self.segment_size, fill, self.cluster.repository.keys, level)

    def put_segment(self, name: str, frames: WalFrames, page_address: int, clock: Clock) -> tuple[bool, WalIdentity]:
        """As `put`, for a segment that was not there a moment ago."""
        key, size = self.key(name), self.segment_size
        identity = WalIdentity(self.system_id, page_address, size, int(name[:8], 16), size, frames.content_hash)
        header = self.cluster.repository.header(ObjectType.WAL_SEGMENT, key, clock, identity.encode())
        return self._create(name, key, identity, close_wal(header, frames)), identity

    def _create(self, name: str, key: str, identity: WalIdentity, parts: Sequence[bytes]) -> bool:
        kind = wal_file_kind(name)
        assert kind is not None
        try:
            self.cluster.repository.store.put(key, parts)
        except Fault as fault:
            if fault.code != "object-exists":
                raise
            if self.head(key, _TYPES[kind]) != identity:
                raise _other_content(name, key) from None
            return False
        return True

    def read(self, key: str, type_: ObjectType) -> bytes:
        """The verified content of the object under `key`; object-missing, Damaged."""
        data = self.cluster.repository.store.get(key)
        return decode_wal(data, self._header(data, key, type_), self.cluster.repository.keys, key)

    def _header(self, data: bytes, key: str, type_: ObjectType) -> Header:
        repository = self.cluster.repository
        header = expect_header(data, key, type_=type_, repository=repository.id, object_=names.object_id(key))
        identity = WalIdentity.decode(header.specific)
        if identity.system_id != self.system_id or identity.segment_size != self.segment_size:
            raise Damaged(key, f"holds WAL of system identifier {identity.system_id}, expected {self.system_id}")
        return header

    def segment(self, segment: Segment) -> bytes:
        """The verified content of a full segment, `segment_size` bytes; object-missing, Damaged."""
        key = self.key(segment.name(self.segment_size))
        content = self.read(key, ObjectType.WAL_SEGMENT)
        if len(content) != self.segment_size:
            raise Damaged(key, f"holds {len(content)} bytes of WAL, expected {self.segment_size}")
        return content

    def pieces(self, segment: Segment) -> Iterator[memoryview]:
        """The bytes of a full segment, some 128 KiB at a time, for whoever only looks at them: as stored, undamaged.

        `segment` proves besides that they are what was archived.  object-missing, Damaged.
        """
        key = self.key(segment.name(self.segment_size))
        data = self.cluster.repository.store.get(key)
        header = self._header(data, key, ObjectType.WAL_SEGMENT)
        if WalIdentity.decode(header.specific).length != self.segment_size:
            raise Damaged(key, f"does not hold {self.segment_size} bytes of WAL")
        return decode_pieces_of(data, header, key)

    def beginning(self, segment: Segment, length: int) -> bytes:
        """The first bytes of a full segment: `length` or, because frames are read whole, a few more.

        object-missing, Damaged.
        """
        store, key = self.cluster.repository.store, self.key(segment.name(self.segment_size))
        header = self._header(store.get(key, 0, HEADER_LENGTH), key, ObjectType.WAL_SEGMENT)
        size = store.stat(key).size
        tail = store.get(key, max(size - TAIL_LENGTH, 0), TAIL_LENGTH)
        place = decode_tail(tail, size, header.object, key)
        rows = decode_rows(memoryview(store.get(key, place.offset, place.length)), header, place, key)
        count = bisect_left([*accumulate(row.data_length for row in rows)], length) + 1
        stored = store.get(key, HEADER_LENGTH, sum(row.stored_length for row in rows[:count]))
        return b"".join(decode_frames(memoryview(stored), rows[:count], self.cluster.repository.keys, key))

    def partial(self, partial: Partial) -> bytes:
        """The verified bytes of a partial segment from its start to its flush position; object-missing, Damaged."""
        content = self.read(partial.key, ObjectType.WAL_PARTIAL)
        if len(content) != partial.flush - partial.segment.start(self.segment_size):
            raise Damaged(partial.key, f"holds {len(content)} bytes of WAL, which do not end at {partial.flush}")
        return content

    def history(self, timeline: int) -> bytes:
        """The verified text of a history file; object-missing, Damaged."""
        return self.read(self.key(history_name(timeline)), ObjectType.WAL_HISTORY)

    def stat(self, segment: Segment) -> ObjectStat:
        """When a full segment was archived (by the store's clock) and the size of its object; object-missing."""
        return self.cluster.repository.store.stat(self.key(segment.name(self.segment_size)))

    def listing(self) -> Listing:
        """Everything there is, by one listing of the store."""
        segments: dict[int, list[int]] = {}
        partials: list[Partial] = []
        histories: list[int] = []
        for stat in self.cluster.repository.store.list(self._root()):
            name = stat.key.rsplit("/", 1)[1]
            if (segment := self._segment(name)) is not None:
                segments.setdefault(segment.timeline, []).append(segment.number)
            elif wal_file_kind(name) is WalFileKind.HISTORY:
                histories.append(int(name[:8], 16))
            elif (partial := self._partial(name, stat.key)) is not None:
                partials.append(partial)
        for numbers in segments.values():
            numbers.sort()
        return Listing(self.segment_size, segments, tuple(partials), tuple(sorted(histories)))

    def objects(self) -> Iterator[tuple[str, ObjectType]]:
        """(key, type) of every object that holds WAL, by one listing; claims are left out."""
        for stat in self.cluster.repository.store.list(self._root()):
            name = stat.key.rsplit("/", 1)[1]
            kind = WalFileKind.PARTIAL if name[24:33] == ".partial." else wal_file_kind(name)
            if kind is not None:
                yield stat.key, _TYPES[kind]

    def timelines(self) -> list[int]:
        """Every timeline that the archive has a folder for, ascending, by one small listing."""
        found: list[int] = []
        for part in self.cluster.repository.store.list_parts(self._root()):
            with suppress(ValueError):
                found.append(int(part.removesuffix("/"), 16))
        return found

    def numbers_from(self, timeline: int, number: int) -> Iterator[int]:
        """The full segments of a timeline from `number` on, ascending; folders are listed as they are needed."""
        folder = names.wal_timeline(self.cluster.uuid, self.system_id, timeline)
        first_log = Segment(timeline, number).name(self.segment_size)[8:16]
        for part in self.cluster.repository.store.list_parts(folder):
            if not part.endswith("/") or part < first_log:
                continue
            for name in self.cluster.repository.store.list_parts(folder + part):
                segment = self._segment(name)
                if segment is not None and segment.timeline == timeline and segment.number >= number:
                    yield segment.number

    def partials_of(self, segment: Segment) -> tuple[Partial, ...]:
        """The archived partials of one segment, the longest first."""
        prefix = self.key(segment.name(self.segment_size)) + ".partial."
        found = (self._partial(stat.key.rsplit("/", 1)[1], stat.key) for stat in self._list(prefix))
        return tuple(sorted((p for p in found if p is not None), key=lambda p: p.flush, reverse=True))

    def _root(self) -> str:
        return names.wal_root(self.cluster.uuid, self.system_id)

    def _list(self, prefix: str) -> Iterator[ObjectStat]:
        return self.cluster.repository.store.list(prefix)

    def _segment(self, name: str) -> Segment | None:
        try:
            return Segment.parse(name, self.segment_size)
        except ValueError:
            return None

    def _partial(self, name: str, key: str) -> Partial | None:
        if name[24:33] != ".partial." or (segment := self._segment(name[:24])) is None:
            return None
        try:
            flush = Lsn(int(name[33:], 16))
        except ValueError:
            return None
        inside = segment.start(self.segment_size) < flush <= segment.end(self.segment_size)
        return Partial(segment, flush, key) if inside else None

    def claim(self, timeline: int) -> tuple[int, ClaimInfo | None]:
        """(generation, claim) in force on the timeline; (-1, None) when nobody has claimed it."""
        generation, current = -1, None
        while True:
            key = names.claim(self.cluster.uuid, self.system_id, timeline, generation + 1)
            try:
                data = self.cluster.repository.read(key, ObjectType.WAL_CLAIM)
                generation, current = generation + 1, decode_info(data, ClaimInfo, key)
            except Damaged as damage:
                damage.hint = f"remove {key} from the repository: the next push claims the timeline for its server"
                raise
            except Fault as fault:
                if fault.code == "object-missing":
                    return generation, current
                raise

    def put_claim(self, timeline: int, generation: int, claim: ClaimInfo, clock: Clock) -> bool:
        """Create a claim's next generation; False when another was faster."""
        key = names.claim(self.cluster.uuid, self.system_id, timeline, generation)
        header = self.cluster.repository.header(ObjectType.WAL_CLAIM, key, clock)
        try:
            self.cluster.repository.store.put(key, encode_object(header, claim))
        except Fault as fault:
            if fault.code == "object-exists":
                return False
            raise
        return True


def archive_of(repository: Repository, system_id: int) -> WalArchive:
    """The archive of the cluster that has this system identifier; cluster-unknown."""
    cluster = cluster_of_system(repository, system_id)
    incarnation = cluster.incarnation(system_id)
    assert incarnation is not None
    return WalArchive(cluster, system_id, incarnation.wal_segment_size)


def _other_content(name: str, key: str) -> Fault:
    return Fault(
        "wal-refused",
        f"{name} is archived already with other content than this server's",
        hint="two servers write under the same names (a clone, or a copy that was rolled back): give this one a"
        " repository of its own, or a timeline of its own (start it once with recovery.signal, which promotes it)",
        object=key,
    )
