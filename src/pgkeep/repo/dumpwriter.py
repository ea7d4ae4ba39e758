"""DumpWriter: a logical dump, member by member, into packs and a manifest (docs/format/dumps.md).

1. It holds a lease, which a thread renews: a dump can wait for hours for one table's lock.
2. Memory is bounded: content goes into frames as it comes, and what is known of a member is a row of some 50 bytes.
3. Without `commit` there is no dump, and its packs are given back.
4. Nothing of the content touches a disk on the way but in the repository's own packs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import numpy as np

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.dump import (
    Dumped,
    DumpedDatabase,
    DumpInfo,
    Member,
    MemberExtent,
    encode_dump,
    member_sections,
    name_problem,
)
from pgkeep.format.header import Header, ObjectType
from pgkeep.format.keyed import HASH_LENGTH
from pgkeep.format.limits import MAX_TABLE_ROWS, MEMBERS_PER_CHUNK
from pgkeep.format.manifest import PackRef, live_bitmap
from pgkeep.format.section import StoredSection
from pgkeep.repo.features import DUMPS, WRITER, announce_feature
from pgkeep.repo.keeping import Keeper
from pgkeep.repo.lease import LEASE_SECONDS, Lease
from pgkeep.repo.packwriter import PackWriter
from pgkeep.repo.repository import Cluster, Entropy, refuse_unknown_features
from pgkeep.repo.roots import write_root
from pgkeep.values.ids import DumpId, ObjectId

PIECE: Final = 4 << 20
"""Bytes that are handed to the packs at once."""
_READ: Final = 1 << 20
_PAGE_SIZE: Final = 8192
"""Of packs that hold no pages."""


@dataclass(frozen=True, slots=True)
class DumpFacts:
    """What a dump says of itself besides its content; see `DumpInfo` and `Dumped`, whose fields these are."""

    name: str
    started: str
    stopped: str
    system_id: int
    server_version: int
    format: str
    compression: str
    tool: str
    tool_version: int
    databases: Sequence[DumpedDatabase]
    options: Sequence[str] = ()
    label: str = ""
    every_database: bool = False
    whole: bool = True
    role_passwords: bool = True


class DumpWriter:
    """A dump that is being made: a context manager.  One thread; several members may be open at one time.

    `level` is zstd's, for content that is not compressed yet; what zstd does not make smaller is stored as it is.
    """

    def __init__(
        self, cluster: Cluster, clock: Clock, *, level: int = 1, entropy: Entropy = os.urandom,
        lease_seconds: int = LEASE_SECONDS, ahead: bool = True,
    ) -> None:  # fmt: skip
        """`ahead`: a full pack goes into the store while the next one is filled."""
        self._cluster = cluster
        self._clock = clock
        self._entropy = entropy
        self._lease_seconds = lease_seconds
        self.id = DumpId.make(clock.now(), entropy(4))
        self._packs = PackWriter(
            cluster.repository, cluster.uuid, clock, page_size=_PAGE_SIZE, level=level, entropy=entropy, ahead=ahead
        )
        self._level = level
        self._numbers: dict[ObjectId, int] = {}
        self._names: set[bytes] = set()
        self._rows: list[Member] = []
        self._sections: list[StoredSection] = []
        self._open = 0
        self._lease: Lease | None = None
        self._keeper: Keeper | None = None
        self._is_broken = False
        self._is_done = False
        self.logical = 0
        """Bytes of all members so far."""

    def __enter__(self) -> Self:
        """format-unsupported when a newer pgkeep has brought rules for writers; the store's faults."""
        refuse_unknown_features(self._cluster.repository.store, "write")
        # Before the first pack, so that no sweep that does not know dumps begins while there is one to come.
        announce_feature(self._cluster.repository, DUMPS, self._clock)
        self._lease = Lease.take(self._cluster, self._clock, purpose="dump", seconds=self._lease_seconds)
        self._keeper = Keeper(self._lease)
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_keeper()
        try:
            if not self._is_done:
                self._packs.discard()
        finally:
            if self._lease is not None:
                self._lease.release()

    @property
    def stored(self) -> int:
        """Bytes of the packs so far, the one that is being filled included."""
        return self._packs.stored

    def member(self, name: bytes, *, is_compressed: bool = False) -> MemberWriter:
        """Begin a member; ValueError for a name that is taken, or that would leave its directory.

        What `is_compressed` already is not tried again, which would take a fifth of the time that storing it takes.
        """
        if problem := name_problem(name):
            raise ValueError(problem)
        if name in self._names:
            raise ValueError(f"there is a member {name!r} already")
        if len(self._names) >= MAX_TABLE_ROWS:
            raise Fault(
                "dump-too-large",
                f"a dump in the repository has at most {MAX_TABLE_ROWS} files",
                hint="large objects are a file each in directory format: dump with --format custom",
            )
        self._names.add(name)
        self._open += 1
        return MemberWriter(self, name, None if is_compressed else self._level)

    def add_file(self, name: bytes, path: str | bytes, *, is_compressed: bool = False) -> int:
        """Store a file as a member; its bytes.  `io` when it cannot be read."""
        buffer = memoryview(bytearray(_READ))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                with self.member(name, is_compressed=is_compressed) as member:
                    while count := os.readv(descriptor, [buffer]):
                        member.write(buffer[:count])
                    return member.size
            finally:
                os.close(descriptor)
        except OSError as error:
            shown = os.fsdecode(path)
            raise Fault("io", f"cannot read {shown}: {error.strerror}", hint="look at the system's log") from error

    def commit(self, facts: DumpFacts) -> DumpInfo:
        """Make all durable and create the manifest: from now on there is the dump.

        lease-lost, backup-invalidated, the store's faults: then there is none.
        """
        if self._open or self._is_broken:
            raise ValueError("a member is still open, or was given up")
        written = self._packs.finish()
        known = {pack.id: pack for pack in written}
        rows = [
            PackRef(pack, known[pack].footer, known[pack].frames, live_bitmap(np.ones(known[pack].frames, np.bool_)))
            for pack in self._numbers
        ]
        self._flush()
        info = self._info(facts)
        dumped = Dumped(databases=list(facts.databases), options=list(facts.options), tool=facts.tool)

        def encode(header: Header, packs: Sequence[PackRef]) -> list[bytes]:
            return encode_dump(header, info, packs, dumped, self._sections)

        self._stop_keeper()
        self._check()
        key = names.dump(self._cluster.uuid, self.id)
        # From here on a manifest may name the packs: an interrupt or an outage can come after it got its name.
        self._is_done = True
        try:
            write_root(self._cluster, key, ObjectType.DUMP, rows, encode, self._clock, self._lease, purpose="dump")
        except Fault as fault:
            self._is_done = fault.code == "store-unreachable" or self._may_exist(key)
            raise
        return info

    def _may_exist(self, key: str) -> bool:
        try:
            self._cluster.repository.store.stat(key)
        except Fault as fault:
            return fault.code != "object-missing"
        return True

    def _info(self, facts: DumpFacts) -> DumpInfo:
        return DumpInfo(
            dump=self.id, name=facts.name, cluster=self._cluster.uuid, cluster_name=self._cluster.name, writer=WRITER,
            host=socket.gethostname(), label=facts.label, started=facts.started, stopped=facts.stopped,
            system_id=facts.system_id, server_version=facts.server_version, format=facts.format,
            compression=facts.compression, tool_version=facts.tool_version, every_database=facts.every_database,
            whole=facts.whole, role_passwords=facts.role_passwords, databases=len(facts.databases),
            source_bytes=sum(database.size for database in facts.databases), logical_bytes=self.logical,
            stored_bytes=self.stored, members=len(self._names),
        )  # fmt: skip

    def _check(self) -> None:
        if self._keeper is not None and self._keeper.lost is not None:
            raise self._keeper.lost

    def _stop_keeper(self) -> None:
        if self._keeper is not None and self._keeper.is_running:
            self._keeper.stop()

    def _flush(self) -> None:
        """The rows so far as they will lie in the manifest: a tenth of their size."""
        self._sections += member_sections(self._rows)
        self._rows = []

    def add_piece(self, name: bytes, offset: int, data: memoryview, level: int | None) -> MemberExtent:
        """For MemberWriter."""
        self._check()
        self._packs.level = level
        pack, at = self._packs.add_bytes(name, offset, data)
        return MemberExtent(pack=self._numbers.setdefault(pack, len(self._numbers)), at=at, count=len(data))

    def end_member(self, member: Member | None) -> None:
        """For MemberWriter; None when it was given up, which ends the dump."""
        self._open -= 1
        if member is None:
            self._is_broken = True
            return
        self.logical += member.size
        self._rows.append(member)
        if len(self._rows) == MEMBERS_PER_CHUNK:
            self._flush()


class MemberWriter:
    """A member that is being written: a context manager that closes it."""

    def __init__(self, dump: DumpWriter, name: bytes, level: int | None) -> None:
        """Use `DumpWriter.member`."""
        self.name = name
        self._level = level
        self.size = 0
        self._dump = dump
        self._hasher = dump._cluster.repository.keys.file_hasher()
        self._extents: list[MemberExtent] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._dump.end_member(None)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add to it; lease-lost, the store's faults (also those of what was written before)."""
        view = memoryview(data).cast("B")
        for at in range(0, len(view), PIECE):
            part = view[at : at + PIECE]
            self._hasher.update(part)
            self._place(self._dump.add_piece(self.name, self.size, part, self._level))
            self.size += len(part)

    def _place(self, extent: MemberExtent) -> None:
        last = self._extents[-1] if self._extents else None
        if last is not None and last.pack == extent.pack and last.at + last.count == extent.at:
            self._extents[-1] = MemberExtent(pack=last.pack, at=last.at, count=last.count + extent.count)
        else:
            self._extents.append(extent)

    def close(self) -> None:
        """End it."""
        digest = self._hasher.digest(HASH_LENGTH)
        self._dump.end_member(Member(name=self.name, size=self.size, hash=digest, extents=self._extents))
