"""Logical dumps in the store: listed, and read back member by member (docs/format/dumps.md).  Written: `dumpwriter`.

What is read was verified frame by frame, and each member as a whole at its end.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.dump import DumpManifest, Member, MemberExtent
from pgkeep.format.footer import I64
from pgkeep.format.frame import FrameKind, split_frame
from pgkeep.format.header import ObjectType
from pgkeep.format.keyed import HASH_LENGTH
from pgkeep.repo.packreader import PackReader, missing_as_damage, runs_of
from pgkeep.repo.repository import Cluster
from pgkeep.repo.roots import ids_below, open_root
from pgkeep.values.ids import DumpId

_BUFFER: Final = 1 << 20
_OPEN_PACKS: Final = 8
"""Footers that are held: members lie in order, so one at a time is read, or two."""
_MODE: Final = 0o600


def dump_ids(cluster: Cluster) -> list[DumpId]:
    """Every dump of the cluster, oldest first."""
    return ids_below(cluster, names.dumps(cluster.uuid), DumpId)


def open_dump_manifest(cluster: Cluster, dump: DumpId) -> DumpManifest:
    """Header and directory verified, sections read on demand.  dump-unknown, Damaged, format-unsupported."""
    try:
        return open_root(cluster, names.dump(cluster.uuid, dump), ObjectType.DUMP, DumpManifest)
    except Fault as fault:
        if fault.code != "object-missing":
            raise
        raise Fault(
            "dump-unknown",
            f"there is no dump {dump} of cluster {cluster.name}",
            hint="see the dumps with: pgkeep list",
        ) from None


def open_dump(cluster: Cluster, dump: DumpId) -> DumpReader:
    """dump-unknown, Damaged, format-unsupported.  Hold a lease that names it (`keeping.kept`) while you read."""
    return DumpReader(cluster, open_dump_manifest(cluster, dump))


@dataclass(frozen=True, slots=True, eq=False)
class _OpenPack:
    reader: PackReader
    ends: I64
    """By frame the ordinal after its last byte."""


class DumpReader:
    """A dump in the repository.  Quickest when members are read in the order of `members`.  For one thread.

    Damaged, format-unsupported, the store's faults.
    """

    def __init__(self, cluster: Cluster, manifest: DumpManifest) -> None:
        """Use `open_dump`."""
        self._cluster = cluster
        self.manifest = manifest
        self.info = manifest.info()
        self.dumped = manifest.dumped()
        self._packs = manifest.all_packs()
        self._open: OrderedDict[int, _OpenPack] = OrderedDict()
        self._last: tuple[int, int, bytes] | None = None
        """(pack, frame, data) of the frame that was read last: small members share one."""

    @property
    def id(self) -> DumpId:
        return DumpId(self.info.dump)

    def members(self) -> Iterator[Member]:
        """Every member, in the order in which they lie in the packs."""
        return self.manifest.members()

    def find(self, name: bytes) -> Member:
        """The member of this name; member-unknown."""
        for member in self.members():
            if member.name == name:
                return member
        shown = name.decode("utf-8", "backslashreplace")
        raise Fault("dump-unknown", f"the dump {self.id} has no member {shown!r}")

    def read(self, member: Member | bytes) -> Iterator[memoryview]:
        """Its content in order, in parts of at most a frame; each is verified, and the whole when all of it was read.

        Damaged, also behind the last part: what was read until then must not be relied on.
        """
        if isinstance(member, bytes):
            member = self.find(member)
        hasher = self._cluster.repository.keys.file_hasher()
        for extent in member.extents:
            for part in self._extent(extent):
                hasher.update(part)
                yield part
        if hasher.digest(HASH_LENGTH) != member.hash:
            shown = member.name.decode("utf-8", "backslashreplace")
            raise Damaged(self.manifest.obj, f"the member {shown!r} has other content than was dumped")

    def write_to(self, member: Member | bytes, path: str | bytes) -> int:
        """Its content as a new file, for this account alone; its bytes.  `io` when that cannot be written."""
        size = 0
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
            with open(descriptor, "wb", buffering=_BUFFER) as file:
                for part in self.read(member):
                    file.write(part)
                    size += len(part)
        except OSError as error:
            raise Fault(
                "io",
                f"cannot write {os.fsdecode(path)}: {error.strerror}",
                hint="free space there, or name another place",
            ) from error
        return size

    def _extent(self, extent: MemberExtent) -> Iterator[memoryview]:
        opened = self._pack(extent.pack)
        ends, key = opened.ends, opened.reader.key
        first, last = extent.at, extent.at + extent.count
        if not len(ends) or last > int(ends[-1]):
            raise Damaged(key, f"does not hold the bytes {first} to {last} that a dump needs")
        lowest = int(np.searchsorted(ends, first, side="right"))
        highest = int(np.searchsorted(ends, last - 1, side="right"))
        for frame, data in self._frames(extent.pack, opened, lowest, highest):
            begin = int(ends[frame]) - len(data)
            yield memoryview(data)[max(first - begin, 0) : last - begin]

    def _frames(self, number: int, opened: _OpenPack, lowest: int, highest: int) -> Iterator[tuple[int, bytes]]:
        """The frames of bytes from `lowest` to `highest`."""
        reader = opened.reader
        if self._last is not None and self._last[:2] == (number, lowest):
            yield lowest, self._last[2]
            lowest += 1
        wanted = [frame for frame in range(lowest, highest + 1) if reader.frames.kind[frame] == FrameKind.BYTES]
        for run in runs_of(wanted, reader.frames):
            for frame, raw in reader.read(run):
                data = bytes(split_frame(raw, reader.key)[1])
                before = int(opened.ends[frame - 1]) if frame else 0
                if len(data) != int(opened.ends[frame]) - before:
                    raise Damaged(reader.key, f"frame {frame} does not hold the bytes that its pack's table says")
                self._last = (number, frame, data)
                yield frame, data

    def _pack(self, number: int) -> _OpenPack:
        opened = self._open.get(number)
        if opened is None:
            pack = self._packs[number]
            try:
                reader = PackReader.open(self._cluster.repository, self._cluster.uuid, pack.id, pack.footer)
            except Fault as fault:
                raise missing_as_damage(fault, f"pack {pack.id}") from None
            opened = _OpenPack(reader, reader.frames.unit_ends(FrameKind.BYTES, reader.page_size))
            self._open[number] = opened
            if len(self._open) > _OPEN_PACKS:
                self._open.popitem(last=False)
        return opened
