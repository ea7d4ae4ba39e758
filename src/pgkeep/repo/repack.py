"""Repacking: the frames that are still needed of packs under half live go into new packs, byte for byte.

1. The order, seen from a crash (docs/format/order.md): carriers, each durable; then their moves; the origins are
   condemned by the next look of the sweep, like any pack.  Until then both places are right.
2. Stored bytes are copied and never changed, so a host that cannot decrypt can repack too.  Each frame's hash is
   verified on the way: damage is not carried on, such a pack stays where it is.
3. A pack is moved as a whole or not at all, within a budget of bytes and seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Phase, Progress, Warned
from pgkeep.format import names
from pgkeep.format.footer import U64, PageTable, encode_footer, frame_table
from pgkeep.format.frame import FrameKind
from pgkeep.format.framerow import FrameRow
from pgkeep.format.header import Header, ObjectType, pack_specific
from pgkeep.format.limits import MAX_FRAMES, MAX_MOVED, MAX_ORIGINS, PACK_TARGET
from pgkeep.format.manifest import PackRef
from pgkeep.format.moves import MovedRows, Moves, MovesInfo, Origin, carrier_section, encode_moves
from pgkeep.repo.deleting import damaged_packs, read_all_condemned
from pgkeep.repo.features import MOVES, WRITER, announce_feature
from pgkeep.repo.lease import Lease
from pgkeep.repo.moved import MovedIndex, MovedPack, moved_index
from pgkeep.repo.packreader import PackReader, StoredFrame, runs_of
from pgkeep.repo.repository import Cluster, Entropy, microseconds
from pgkeep.repo.roots import open_any, root_ids
from pgkeep.values.ids import ObjectId

HALF: Final = 0.5
"""Packs of which less is needed, counted in frames, are repacked."""
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Budget:
    """What one sweep may spend on repacking: stored bytes to copy, seconds, and bytes a second (0: no limit)."""

    bytes: int = 8 << 30
    seconds: float = 3600.0
    bandwidth: int = 0
    worth: int = 16 << 20
    """Bytes that it must free at least: less is not worth its reading and writing."""


@dataclass(frozen=True, slots=True, eq=False)
class SparsePack:
    """An object under half live: the frames of one or (a carrier) several origins that are needed of it."""

    id: ObjectId
    needed: tuple[tuple[ObjectId, Bits], ...]
    """(origin, which of its frames)."""
    frames: int
    size: int
    """Bytes of the object."""

    @property
    def live(self) -> int:
        """Frames that are needed."""
        return sum(int(bits.sum()) for _, bits in self.needed)

    @property
    def live_bytes(self) -> int:
        """About how many stored bytes those are."""
        return self.size * self.live // max(self.frames, 1)


def live_frames(cluster: Cluster, tick: Callable[[], None]) -> dict[ObjectId, tuple[int, bytearray]]:
    """(frames, bitmap) of every pack that some manifest names: the frames that any of them needs.  Damaged ..."""
    live: dict[ObjectId, tuple[int, bytearray]] = {}
    for backup in root_ids(cluster):
        tick()
        try:
            packs = open_any(cluster, backup).packs()
            for pack in packs:
                known = live.get(pack.id)
                if known is None:
                    live[pack.id] = pack.frames, bytearray(pack.live)
                elif known[1] != pack.live and len(known[1]) == len(pack.live):
                    both = int.from_bytes(known[1], "little") | int.from_bytes(pack.live, "little")
                    known[1][:] = both.to_bytes(len(pack.live), "little")
        except Fault as fault:
            if fault.code != "object-missing":
                raise
    return live


def plan_repack(
    live: dict[ObjectId, tuple[int, bytearray]], sizes: dict[ObjectId, int], index: MovedIndex,
    spared: frozenset[ObjectId], budget: Budget,
) -> list[SparsePack]:  # fmt: skip
    """The packs to repack (pure), those of which least is needed first, as many as the budget's bytes allow.

    `sizes` are the packs that are there; `spared` those that are condemned or damaged.
    """
    moved = {origin: pack for origin, pack in index.packs().items() if origin in live}
    found = list(_sparse_origins(live, sizes, moved)) + list(_sparse_carriers(live, sizes, moved))
    found = [pack for pack in found if pack.id not in spared and 0 < pack.live < pack.frames * HALF]
    chosen: list[SparsePack] = []
    left = budget.bytes
    for pack in sorted(found, key=lambda pack: (pack.live / pack.frames, pack.id)):
        left -= pack.live_bytes
        if left < 0 and chosen:
            break
        chosen.append(pack)
    return chosen if sum(pack.size - pack.live_bytes for pack in chosen) >= budget.worth else []


def _sparse_origins(
    live: dict[ObjectId, tuple[int, bytearray]], sizes: dict[ObjectId, int], moved: dict[ObjectId, MovedPack]
) -> Iterator[SparsePack]:
    for origin, (frames, bitmap) in live.items():
        few = int.from_bytes(bitmap, "little").bit_count() < frames * HALF
        if few and origin in sizes and not (origin in moved and moved[origin].covers(bytes(bitmap))):
            bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little", count=frames)
            yield SparsePack(origin, ((origin, bits.astype(np.bool_)),), frames, sizes[origin])


def _sparse_carriers(
    live: dict[ObjectId, tuple[int, bytearray]], sizes: dict[ObjectId, int], moved: dict[ObjectId, MovedPack]
) -> Iterator[SparsePack]:
    """Carriers, through the origins whose frames they hold."""
    held: dict[ObjectId, list[tuple[ObjectId, Bits]]] = {}
    carriers: dict[ObjectId, PackRef] = {}
    for origin, pack in moved.items():
        bitmap = bytes(live[origin][1])
        if not pack.covers(bitmap):
            continue
        needed = pack.live(bitmap)
        for number, carrier in enumerate(pack.carriers):
            mine = needed & (pack.table.carrier == number)
            if mine.any():
                carriers[carrier.id] = carrier
                held.setdefault(carrier.id, []).append((origin, mine))
    for carrier_id, parts in held.items():
        if carrier_id in sizes:
            yield SparsePack(carrier_id, tuple(parts), carriers[carrier_id].frames, sizes[carrier_id])


@dataclass(frozen=True, slots=True)
class Repacked:
    """What was moved: packs that are sparse no more, carriers that were written, bytes of their frames."""

    packs: int = 0
    carriers: int = 0
    bytes: int = 0


def repack(
    cluster: Cluster, sizes: dict[ObjectId, int], clock: Clock, announce: Announce, lease: Lease, budget: Budget,
    entropy: Entropy = os.urandom, pack_target: int = PACK_TARGET,
) -> Repacked:  # fmt: skip
    """Move what is needed of sparse packs.  `sizes` are the packs that are there; `lease` is the sweep's.

    lease-lost, the store's faults; wherever it ends, both places are right.
    """
    index = moved_index(cluster.repository, cluster.uuid)
    spared = damaged_packs(cluster) | read_all_condemned(cluster)
    chosen = plan_repack(live_frames(cluster, lease.renew_if_due), sizes, index, spared, budget)
    if not chosen:
        return Repacked()
    announce_feature(cluster.repository, MOVES, clock)
    announce(Phase("repack", f"repacking {len(chosen)} packs of which less than half is needed"))
    mover = _Mover(cluster, clock, lease, budget, entropy, pack_target, index.generation + 1)
    total = sum(pack.live_bytes for pack in chosen)
    moved = 0
    for pack in chosen:
        if mover.is_out_of_time():
            break
        try:
            mover.move(pack)
            moved += 1
        except Fault as fault:
            if fault.code not in ("format-damaged", "object-missing"):
                raise
            announce(Warned("repack-damaged", fault.message, "run pgkeep verify: it names the backups that this costs"))
        announce(Progress(mover.copied, total, mover.copied))
    mover.close()
    return Repacked(moved, mover.carriers, mover.copied)


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame on its way."""

    origin: Origin
    number: int
    ordinal: int
    row: FrameRow
    stored: bytes
    lsns: U64
    hashes: U64


@dataclass
class _Mover:
    """Reads frames, fills carriers, and puts each with its moves."""

    cluster: Cluster
    clock: Clock
    lease: Lease
    budget: Budget
    entropy: Entropy
    target: int
    generation: int
    carriers: int = 0
    copied: int = 0
    _frames: list[_Frame] = field(default_factory=list)
    _size: int = 0
    _page_size: int = 0
    _began: float = 0.0

    def __post_init__(self) -> None:
        self._began = self.clock.monotonic()

    def is_out_of_time(self) -> bool:
        return self.clock.monotonic() - self._began >= self.budget.seconds

    def move(self, pack: SparsePack) -> None:
        """All that is needed of one pack is read and verified before any of it is written."""
        for origin, bits in pack.needed:
            reader = PackReader.open(self.cluster.repository, self.cluster.uuid, origin, lsns=True, hashes=True)
            frames = list(self._read(reader, Origin(origin, len(reader.frames), reader.header.encode()), bits))
            if self._frames and reader.page_size != self._page_size:
                self.close()
            self._page_size = reader.page_size
            for frame in frames:
                self._add(frame)

    def _read(self, reader: PackReader, origin: Origin, bits: Bits) -> Iterator[_Frame]:
        ends = {kind: reader.frames.unit_ends(kind, reader.page_size) for kind in FrameKind}
        for run in runs_of(np.flatnonzero(bits).tolist(), reader.frames):
            self._pace()
            for found in reader.read_stored(run):
                yield self._frame(reader, origin, found, ends)

    def _frame(
        self, reader: PackReader, origin: Origin, found: StoredFrame, ends: dict[FrameKind, npt.NDArray[np.int64]]
    ) -> _Frame:
        kind = FrameKind(found.row.kind)
        units = found.row.data_length // (reader.page_size if kind is FrameKind.PAGES else 1)
        ordinal = int(ends[kind][found.number]) - units
        none = np.zeros(0, np.uint64)
        lsns, hashes = none, none
        if kind is FrameKind.PAGES and reader.footer.lsns is not None and reader.footer.hashes is not None:
            lsns = reader.footer.lsns[ordinal : ordinal + units]
            hashes = reader.footer.hashes[ordinal : ordinal + units]
        return _Frame(origin, found.number, ordinal, found.row, bytes(found.stored), lsns, hashes)

    def _pace(self) -> None:
        """Keep the lease, and the bandwidth."""
        self.lease.renew_if_due()
        if self.budget.bandwidth:
            ahead = (self.copied + self._size) / self.budget.bandwidth - (self.clock.monotonic() - self._began)
            if ahead > 0:
                self.clock.sleep(min(ahead, self.lease.seconds / 10))

    def _add(self, frame: _Frame) -> None:
        origins = {known.origin.id for known in self._frames} if len(self._frames) % 64 == 0 else set()
        full = self._size >= self.target or len(self._frames) >= min(MAX_MOVED, MAX_FRAMES)
        if full or len(origins) >= MAX_ORIGINS - 64:
            self.close()
        self._frames.append(frame)
        self._size += len(frame.stored)

    def close(self) -> None:
        """The carrier, durable; then its moves."""
        if not self._frames:
            return
        self.lease.check()
        carrier = ObjectId(self.entropy(16))
        repository, frames = self.cluster.repository, self._frames
        origins = list({frame.origin.id: frame.origin for frame in frames}.values())
        header = Header(
            ObjectType.PACK, repository.id, carrier, microseconds(self.clock), pack_specific(self._page_size)
        ).encode()
        table = frame_table([frame.row for frame in frames])
        rows = _rows(frames, origins, table.offset)
        pages = PageTable(np.concatenate([f.lsns for f in frames]), np.concatenate([f.hashes for f in frames]))
        ending, place = encode_footer(header, carrier, table, pages, carrier_section(origins, rows))
        stored = [frame.stored for frame in frames]
        repository.store.put(names.pack(self.cluster.uuid, carrier), [header, *stored, *ending])
        info = MovesInfo(
            writer=WRITER, created=self.clock.now().isoformat(), reason="less than half of the packs was needed",
            generation=self.generation,
        )  # fmt: skip
        key = names.moves(self.cluster.uuid, ObjectId(self.entropy(16)))
        order = np.lexsort((rows.frame, rows.origin))
        moves = Moves(info, origins, _ordered(rows, order), [PackRef(carrier, place, len(frames), b"")])
        repository.store.put(key, encode_moves(repository.header(ObjectType.MOVES, key, self.clock), moves))
        self.carriers += 1
        self.copied += self._size
        self._frames, self._size = [], 0


def _rows(frames: list[_Frame], origins: list[Origin], offsets: npt.NDArray[np.int64]) -> MovedRows:
    """In the order of the carrier."""
    number = {origin.id: at for at, origin in enumerate(origins)}

    def u32(values: list[int]) -> npt.NDArray[np.uint32]:
        return np.array(values, np.uint32)

    def hashes(values: list[bytes]) -> npt.NDArray[np.uint8]:
        return np.frombuffer(b"".join(values), np.uint8).reshape(len(frames), -1)

    return MovedRows(
        origin=u32([number[f.origin.id] for f in frames]), frame=u32([f.number for f in frames]),
        ordinal=np.array([f.ordinal for f in frames], np.uint64),
        kind=np.array([f.row.kind for f in frames], np.uint8), codec=np.array([f.row.codec for f in frames], np.uint8),
        stored_length=u32([f.row.stored_length for f in frames]), raw_length=u32([f.row.raw_length for f in frames]),
        data_length=u32([f.row.data_length for f in frames]),
        stored_hash=hashes([f.row.stored_hash for f in frames]), plain_hash=hashes([f.row.plain_hash for f in frames]),
        carrier=np.zeros(len(frames), np.uint32), carrier_frame=np.arange(len(frames), dtype=np.uint32),
        offset=offsets.astype(np.uint64),
    )  # fmt: skip


def _ordered(rows: MovedRows, order: npt.NDArray[np.int64]) -> MovedRows:
    return MovedRows(*(getattr(rows, name)[order] for name in MovedRows.__dataclass_fields__))
