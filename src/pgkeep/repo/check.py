"""Re-hash objects of the repository: what `verify` does to each of them, one object a call, in any process.

Every check reads the whole object and believes nothing but hashes.  Damage is a value here, not an exception: a check
goes on to the next object.  Other faults (the store cannot be reached) end it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from pgkeep.clock import SystemClock
from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.extents import ExtentMap
from pgkeep.format.frame import FrameKind, decode_pieces, split_frame
from pgkeep.format.header import ObjectType
from pgkeep.format.keyed import PAGE_HASH_LENGTH, HashKeys
from pgkeep.format.limits import TAIL_LENGTH
from pgkeep.format.manifest import Entry, EntryType, PackRef, Place, Unit
from pgkeep.format.moves import DEAD
from pgkeep.format.tail import FooterPlace, decode_tail
from pgkeep.repo.backups import Manifest
from pgkeep.repo.moved import moved_index
from pgkeep.repo.packreader import MovedReader, PackReader, missing_as_damage, read_extents, runs_of
from pgkeep.repo.packtables import LiveFrames, PackTables
from pgkeep.repo.repository import Cluster, Repository
from pgkeep.repo.walarchive import WalArchive
from pgkeep.store.open import open_store
from pgkeep.store.wrap.patient import patient
from pgkeep.values.ids import ClusterUuid, ObjectId

SHOWN: Final = 8
"""Damaged frames of a pack that are named."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with one object."""

    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class Checked:
    """One object that was read: its key, bytes read, and what was wrong."""

    key: str
    bytes: int
    damage: tuple[Damage, ...] = ()


@dataclass(frozen=True, slots=True)
class RepositoryAddress:
    """How another process opens the same repository, as patiently as this one (picklable)."""

    url: str
    id: ObjectId
    hash_key: bytes

    @classmethod
    def of(cls, repository: Repository) -> RepositoryAddress:
        return cls(repository.store.url, repository.id, repository.keys.root)

    def open(self) -> Repository:
        return Repository(patient(open_store(self.url), SystemClock()), self.id, HashKeys(self.hash_key))


def is_damage(fault: Fault) -> bool:
    """True for what says something of the object, not of the way to it."""
    return fault.code in ("format-damaged", "format-unsupported", "object-missing")


def check_pack(
    repository: Repository, cluster: ClusterUuid, pack: ObjectId, place: FooterPlace | None = None
) -> Checked:
    """Every frame's stored and plain hash, its pieces, and every page's row of the page table."""
    key = names.pack(cluster, pack)
    try:
        reader = PackReader.open(repository, cluster, pack, place, lsns=True, hashes=True)
        if isinstance(reader, MovedReader):
            return _check_moved(repository, reader)
        stat = repository.store.stat(key)
        if place is not None and stat.size != place.object_length:
            return Checked(key, 0, (Damage(key, f"has {stat.size} bytes, expected {place.object_length}"),))
        damage = tuple(_check_frames(repository, reader))
        if place is not None and not damage:
            # Readers take the place from the manifest; the tail is for the day when there is none.
            tail = repository.store.get(key, stat.size - TAIL_LENGTH, TAIL_LENGTH)
            if decode_tail(tail, stat.size, pack, key) != place:
                damage = (Damage(key, f"{key}: its tail does not lead to the footer that the manifest names"),)
        return Checked(key, stat.size, damage)
    except Fault as fault:
        if not is_damage(fault):
            raise
        return Checked(key, 0, (Damage(key, missing_as_damage(fault, key).message),))


def _check_moved(repository: Repository, reader: MovedReader) -> Checked:
    """A pack that is gone: what was moved of it, where it lies now."""
    table, expected = reader.frames, reader.footer.hashes
    ends = table.unit_ends(FrameKind.PAGES, reader.page_size)
    damaged: list[int] = []
    size = 0
    for run in runs_of(np.flatnonzero(reader.moved.table.carrier != DEAD).tolist(), table):
        for index, raw in reader.read_each(run):
            own = None if isinstance(raw, Damaged) else _check_frame(repository.keys, reader, index, raw)
            count = len(own or b"") // PAGE_HASH_LENGTH
            end = int(ends[index])
            if own is None or (count and (expected is None or own != expected[end - count : end].tobytes())):
                damaged.append(index)
            size += int(table.stored_length[index])
    found = (Damage(reader.key, f"{reader.key}: {_shown(damaged, len(table))}, in the packs that they were moved to"),)
    return Checked(reader.key, size, found if damaged else ())


def _shown(damaged: list[int], frames: int) -> str:
    shown = ", ".join(map(str, damaged[:SHOWN])) + (" ..." if len(damaged) > SHOWN else "")
    return f"{len(damaged)} of {frames} frames do not hold what was written: {shown}"


def _check_frames(repository: Repository, reader: PackReader) -> Iterator[Damage]:
    """The sound frames around a damaged one are checked too; one finding sums them up."""
    hashes = bytearray()
    damaged: list[int] = []
    for run in runs_of(range(len(reader.frames)), reader.frames):
        for index, raw in reader.read_each(run):
            own = None if isinstance(raw, Damaged) else _check_frame(repository.keys, reader, index, raw)
            if own is None:
                damaged.append(index)
            else:
                hashes += own
    if damaged:
        yield Damage(reader.key, f"{reader.key}: {_shown(damaged, len(reader.frames))}")
        return
    expected = reader.footer.hashes
    if expected is None or bytes(hashes) != expected.tobytes():
        yield Damage(reader.key, f"{reader.key}: the page table does not describe the pages (its hashes are wrong)")


def _check_frame(keys: HashKeys, reader: PackReader, index: int, raw: bytes) -> bytes | None:
    """The hashes of the frame's pages (none for other kinds); None when it holds other pages than were written."""
    table, data = split_frame(raw, reader.key)
    decode_pieces(table, reader.key)
    if reader.frames.kind[index] != FrameKind.PAGES:
        return b""
    own = keys.pages(data, reader.page_size)
    return own if keys.page_frame(table, own) == reader.frames.plain_hash[index].tobytes() else None


def check_wal(archive: WalArchive, key: str, type_: ObjectType) -> Checked:
    """A segment, partial, history or .backup file: every hash, and the content's own identity."""
    try:
        content = archive.read(key, type_)
    except Fault as fault:
        if not is_damage(fault):
            raise
        return Checked(key, 0, (Damage(key, missing_as_damage(fault, key).message),))
    return Checked(key, len(content))


def check_manifest(cluster: Cluster, manifest: Manifest) -> list[Damage]:
    """All of the manifest, and that its extents fit its packs.

    Every section has its hash, every row can be read, every file's content lies within frames of its packs without a
    gap, and within frames that the manifest calls live; extent maps have their own hash.
    """
    packs = manifest.outer.packs
    tables = PackTables(cluster.repository, cluster.uuid, [(pack.id, pack.footer) for pack in packs])
    live = LiveFrames(tables)
    damage: list[Damage] = []
    try:
        manifest.reader.check_sections()
        for _ in manifest.inner.relations:
            pass
        for entry in manifest.entries():
            if entry.type is EntryType.FILE and entry.place is not Place.NONE:
                damage += _check_place(tables, live, entry, manifest, cluster.repository.keys)
        damage += check_covered(cluster, tables, packs, manifest.key)
        for pack, frames in live.unmarked(packs).items():
            damage.append(Damage(manifest.key, f"needs {frames} frames of pack {pack} that it does not call live"))
    except Fault as fault:
        if not is_damage(fault):
            raise
        damage.append(Damage(manifest.key, fault.message))
    return damage


def check_covered(cluster: Cluster, tables: PackTables, packs: Iterable[PackRef], key: str) -> Iterator[Damage]:
    """Of a pack that is gone, everything that the manifest `key` calls live must have been moved."""
    moved = moved_index(cluster.repository, cluster.uuid).origins()
    for pack in packs:
        reader = tables.reader(pack.id) if pack.id in moved else None
        if isinstance(reader, MovedReader) and not (
            pack.frames == len(reader.frames) and reader.moved.covers(pack.live)
        ):
            yield Damage(key, f"needs frames of pack {pack.id}, which is gone, that were not moved")


def _check_place(
    tables: PackTables, live: LiveFrames, entry: Entry, manifest: Manifest, keys: HashKeys
) -> Iterator[Damage]:
    shown = entry.path.decode("utf-8", "backslashreplace")
    page = manifest.inner.server.block_size
    units, rest = divmod(entry.size, page if entry.unit is Unit.PAGES else 1)
    if rest:
        yield Damage(manifest.key, f"{shown} is {entry.size} bytes, which is no whole number of pages")
        return
    kind = FrameKind.PAGES if entry.unit is Unit.PAGES else FrameKind.BYTES
    pack = manifest.outer.packs[entry.pack].id
    if entry.place is Place.INLINE:
        if entry.at + units <= tables.units(pack, kind):
            live.mark(pack, kind, entry.at, units)
        else:
            yield Damage(manifest.key, f"{shown} lies beyond the end of its pack")
        return
    columns = read_map(tables.reader(pack), entry, keys)
    live.mark(pack, FrameKind.MAPS, entry.at, entry.length)
    if columns.total() != units:
        yield Damage(manifest.key, f"the extents of {shown} cover {columns.total()} of {units} units")
        return
    problem = _outside(tables, columns, kind)
    if problem:
        yield Damage(manifest.key, f"{shown} {problem}")
    else:
        live.mark_extents(columns, kind)


def _outside(tables: PackTables, columns: ExtentMap, kind: FrameKind) -> str:
    """What is wrong with a map whose extents do not all lie in packs of the pack table; empty when they do."""
    for number, pack in enumerate(columns.packs):
        if pack not in tables.known:
            return f"needs the pack {pack}, which is not in the pack table"
        mine = columns.pack == number
        end = int((columns.ordinal[mine] + columns.count[mine]).max()) if mine.any() else 0
        if end > tables.units(pack, kind):
            return f"lies beyond the end of the pack {pack}"
    return ""


def read_map(reader: PackReader, entry: Entry, keys: HashKeys) -> ExtentMap:
    """The extent map of an entry whose place is MAP; Damaged."""
    return read_extents(reader, entry.at, entry.length, entry.hash, keys)
