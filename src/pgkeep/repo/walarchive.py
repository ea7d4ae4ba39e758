"""WAL objects of one system identifier: create, compare, read, list; claims of timelines.

The key is the segment's name and the create is conditional, so a name has one content for ever.  "It exists" is decided
by the header: equal identity means done, another one is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.codec import compress
from pgkeep.format.footer import FrameRow, FrameTable, decode_footer, decode_tail, encode_footer, frame_table
from pgkeep.format.frame import FrameKind, Piece, encode_pieces, split_frame
from pgkeep.format.header import Header, ObjectType, WalIdentity, expect_header
from pgkeep.format.keyed import HashKeys, stored_hash
from pgkeep.format.limits import FRAME_DATA, HEADER_LENGTH, TAIL_LENGTH
from pgkeep.format.objects import ClaimInfo, decode_info, encode_object
from pgkeep.repo.packreader import verified_frame
from pgkeep.repo.repository import Cluster
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
    """What the archive of one system identifier holds."""

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

    def put(
        self, name: str, content: bytes | memoryview, page_address: int, clock: Clock, *, flush: Lsn | None = None,
        level: int = 1,
    ) -> bool:  # fmt: skip
        """Make `content` durable under `name`; True when it was new, False when it was there already.

        wal-refused when other content has the name.
        """
        kind = wal_file_kind(name)
        key = self.key(name, flush)
        assert kind is not None
        identity = self.identity(name, content, page_address)
        present = self.head(key, _TYPES[kind])
        if present is None:
            header = self.cluster.repository.header(_TYPES[kind], key, clock, identity.encode())
            parts = _encode_wal(self.cluster.repository.keys, name, content, header, level)
            try:
                self.cluster.repository.store.put(key, parts)
            except Fault as fault:
                if fault.code != "object-exists":
                    raise
                present = self.head(key, _TYPES[kind])
            else:
                return True
        if present != identity:
            raise Fault(
                "wal-refused",
                f"{name} is archived already with other content than this server's",
                hint="another server archives under the same names (a clone, or a copy rolled back): give this one its"
                " own repository, or take over with: pgkeep init --adopt",
                object=key,
            )
        return False

    def read(self, key: str, type_: ObjectType) -> bytes:
        """The verified content of the object under `key`; object-missing, Damaged."""
        repository = self.cluster.repository
        data = repository.store.get(key)
        owner = names.object_id(key)
        header = expect_header(data, key, type_=type_, repository=repository.id, object_=owner)
        identity = WalIdentity.decode(header.specific)
        place = decode_tail(data[-TAIL_LENGTH:], len(data), owner, key)
        body = data[place.offset : place.offset + place.length]
        footer = decode_footer(body, data[:HEADER_LENGTH], place, 1, key)
        content = b"".join(_frames(data, footer.frames, repository.keys, key))
        if len(content) != identity.length or repository.keys.wal(content) != identity.content_hash:
            raise Damaged(key, "holds other WAL than its header says")
        return content

    def segment(self, segment: Segment) -> bytes:
        """The verified content of a full segment; object-missing, Damaged."""
        return self.read(self.key(segment.name(self.segment_size)), ObjectType.WAL_SEGMENT)

    def history(self, timeline: int) -> bytes:
        """The verified text of a history file; object-missing, Damaged."""
        return self.read(self.key(history_name(timeline)), ObjectType.WAL_HISTORY)

    def listing(self) -> Listing:
        """Everything there is, by one listing of the store."""
        segments: dict[int, list[int]] = {}
        partials: list[Partial] = []
        histories: list[int] = []
        for name, key in self._names():
            if wal_file_kind(name) is WalFileKind.SEGMENT:
                segment = Segment.parse(name, self.segment_size)
                segments.setdefault(segment.timeline, []).append(segment.number)
            elif wal_file_kind(name) is WalFileKind.HISTORY:
                histories.append(int(name[:8], 16))
            elif name[24:33] == ".partial.":
                segment = Segment.parse(name[:24], self.segment_size)
                partials.append(Partial(segment, Lsn(int(name[33:], 16)), key))
        for numbers in segments.values():
            numbers.sort()
        return Listing(segments, tuple(partials), tuple(sorted(histories)))

    def _names(self) -> Iterator[tuple[str, str]]:
        for stat in self.cluster.repository.store.list(names.wal_root(self.cluster.uuid, self.system_id)):
            yield stat.key.rsplit("/", 1)[1], stat.key

    def claim(self, timeline: int) -> tuple[int, ClaimInfo | None]:
        """(generation, claim) in force on the timeline; (-1, None) when nobody has claimed it."""
        generation, current = -1, None
        while True:
            key = names.claim(self.cluster.uuid, self.system_id, timeline, generation + 1)
            try:
                data = self.cluster.repository.read(key, ObjectType.WAL_CLAIM)
            except Fault as fault:
                if fault.code == "object-missing":
                    return generation, current
                raise
            generation, current = generation + 1, decode_info(data, ClaimInfo, key)

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


def _encode_wal(keys: HashKeys, name: str, content: bytes | memoryview, header: Header, level: int) -> list[bytes]:
    view = memoryview(content)
    rows: list[FrameRow] = []
    frames: list[bytes] = []
    for at in range(0, len(view), FRAME_DATA):
        data = view[at : at + FRAME_DATA]
        raw = encode_pieces([Piece(name.encode(), at, len(data))]) + data
        codec, stored = compress(raw, level)
        digests = stored_hash(stored), keys.frame(raw)
        rows.append(FrameRow(FrameKind.WAL, codec, len(stored), len(raw), len(data), *digests))
        frames.append(stored)
    head = header.encode()
    ending, _ = encode_footer(head, header.object, frame_table(rows), None)
    return [head, *frames, *ending]


def _frames(data: bytes, table: FrameTable, keys: HashKeys, obj: str) -> Iterator[memoryview]:
    view = memoryview(data)
    for index in range(len(table)):
        at = int(table.offset[index])
        stored = view[at : at + int(table.stored_length[index])]
        yield split_frame(verified_frame(table, index, stored, keys, obj), obj)[1]
