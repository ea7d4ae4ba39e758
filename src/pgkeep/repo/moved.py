"""Where the frames of packs that are gone lie now: every moves object of a cluster, put together by origin.

Objects are never changed, so what was read once is kept with the store; only new ones are read again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.footer import I64
from pgkeep.format.header import ObjectType
from pgkeep.format.keyed import HASH_LENGTH
from pgkeep.format.manifest import PackRef
from pgkeep.format.moves import DEAD, MovedTable, Moves, Origin, decode_moves
from pgkeep.repo.repository import Repository
from pgkeep.store.port import Store
from pgkeep.values.ids import ClusterUuid, ObjectId


@dataclass(frozen=True, slots=True, eq=False)
class MovedPack:
    """An origin of which some frames were moved, as the newest moves say; columns by frame number of the origin."""

    origin: Origin
    table: MovedTable
    carriers: tuple[PackRef, ...]
    carrier_frame: I64
    """In the carrier; DEAD for a frame that was not moved."""

    def live(self, bitmap: bytes) -> npt.NDArray[np.bool_]:
        """A manifest's bitmap of this origin as booleans, one a frame."""
        bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little", count=self.origin.frames)
        return bits.astype(np.bool_)

    def covers(self, bitmap: bytes) -> bool:
        """Whether every frame that a manifest needs of it has moved."""
        return not bool((self.live(bitmap) & (self.table.carrier == DEAD)).any())

    def used_carriers(self) -> list[PackRef]:
        """The carriers that hold any of its frames."""
        return [self.carriers[number] for number in np.unique(self.table.carrier).tolist() if number != DEAD]

    def carriers_of(self, bitmap: bytes) -> list[PackRef]:
        """The carriers that hold what a manifest needs of it."""
        used = np.unique(self.table.carrier[self.live(bitmap)])
        return [self.carriers[number] for number in used.tolist() if number != DEAD]


@dataclass(frozen=True, slots=True, eq=False)
class MovedIndex:
    """All moves of a cluster; `objects` by key, in the order in which later ones beat earlier ones."""

    objects: dict[str, Moves] = field(default_factory=dict)

    @property
    def generation(self) -> int:
        """The highest; 0 without moves."""
        return max((moves.info.generation for moves in self.objects.values()), default=0)

    def origins(self) -> frozenset[ObjectId]:
        """Every pack of which some frame was moved."""
        return frozenset(origin.id for moves in self.objects.values() for origin in moves.origins)

    def pack(self, origin: ObjectId) -> MovedPack | None:
        """Where the frames of one pack lie; None when none was moved."""
        known = [(moves, number) for moves in self.objects.values() for number in _numbers(moves, origin)]
        return _put_together(known) if known else None

    def packs(self) -> dict[ObjectId, MovedPack]:
        """All of them."""
        by_origin: defaultdict[ObjectId, list[tuple[Moves, int]]] = defaultdict(list)
        for moves in self.objects.values():
            for number, origin in enumerate(moves.origins):
                by_origin[origin.id].append((moves, number))
        return {origin: _put_together(known) for origin, known in by_origin.items()}


def _numbers(moves: Moves, origin: ObjectId) -> list[int]:
    return [number for number, known in enumerate(moves.origins) if known.id == origin]


def _put_together(known: Iterable[tuple[Moves, int]]) -> MovedPack:
    """One origin's frames; what comes later in `known` is newer."""
    found = list(known)
    origin = found[-1][0].origins[found[-1][1]]
    n = origin.frames
    carriers: dict[ObjectId, int] = {}
    references: list[PackRef] = []
    table = MovedTable(
        kind=np.zeros(n, np.uint8), codec=np.zeros(n, np.uint8), stored_length=np.zeros(n, np.uint32),
        raw_length=np.zeros(n, np.uint32), data_length=np.zeros(n, np.uint32),
        stored_hash=np.zeros((n, HASH_LENGTH), np.uint8), plain_hash=np.zeros((n, HASH_LENGTH), np.uint8),
        offset=np.zeros(n, np.int64), carrier=np.full(n, DEAD, np.int64), ordinal=np.zeros(n, np.int64),
    )  # fmt: skip
    carrier_frame = np.full(n, DEAD, np.int64)
    for moves, number in found:
        rows = moves.rows
        mine = np.flatnonzero(rows.origin == number)
        mine = mine[rows.frame[mine] < n]
        frames = rows.frame[mine]
        for carrier in moves.carriers:
            if carrier.id not in carriers:
                carriers[carrier.id] = len(references)
                references.append(carrier)
        places = np.array([carriers[carrier.id] for carrier in moves.carriers], np.int64)
        for name in ("kind", "codec", "stored_length", "raw_length", "data_length", "stored_hash", "plain_hash"):
            getattr(table, name)[frames] = getattr(rows, name)[mine]
        table.offset[frames] = rows.offset[mine].astype(np.int64)
        table.ordinal[frames] = rows.ordinal[mine].astype(np.int64)
        table.carrier[frames] = places[rows.carrier[mine]]
        carrier_frame[frames] = rows.carrier_frame[mine]
    return MovedPack(origin, table, tuple(references), carrier_frame)


_KNOWN: Final[WeakKeyDictionary[Store, dict[ClusterUuid, MovedIndex]]] = WeakKeyDictionary()


def moved_index(repository: Repository, cluster: ClusterUuid) -> MovedIndex:
    """Every moves object that there is now.  Damaged, format-unsupported, the store's faults."""
    of_store = _KNOWN.setdefault(repository.store, {})
    known = of_store.get(cluster, MovedIndex())
    keys = [stat.key for stat in repository.store.list(names.all_moves(cluster))]
    if set(keys) != set(known.objects):
        objects: dict[str, Moves] = {}
        for key in keys:
            with suppress(_Gone):
                objects[key] = known.objects.get(key) or _read(repository, key)
        order = sorted(objects, key=lambda key: (objects[key].info.generation, key))
        known = MovedIndex({key: objects[key] for key in order})
        of_store[cluster] = known
    return known


class _Gone(Exception):
    """A moves object that was deleted since it was listed."""


def _read(repository: Repository, key: str) -> Moves:
    try:
        return decode_moves(repository.read(key, ObjectType.MOVES), key)
    except Fault as fault:
        if fault.code == "object-missing":
            raise _Gone from None
        raise


def moved_pack(repository: Repository, cluster: ClusterUuid, origin: ObjectId) -> MovedPack | None:
    """Where a pack's frames lie, if it was moved.  Damaged, the store's faults."""
    pack = moved_index(repository, cluster).pack(origin)
    if pack is not None and pack.origin.frames != len(pack.table):
        raise Damaged(names.pack(cluster, origin), "its moves do not agree on how many frames it had")
    return pack
