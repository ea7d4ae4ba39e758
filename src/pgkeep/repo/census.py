"""Census: which packs there are, which backups and dumps need them, and whose leases run: what a sweep decides upon.

1. Looked at in this order: packs, leases, moves, manifests.  A pack that is seen was written under a lease that is
   seen after it, unless the lease was released: then the manifest was there before, and is seen after that.
2. Columns, not objects: a hundred backups of 50,000 packs each are planned in seconds and some dozen megabytes.
3. A manifest that cannot be read ends it: nobody knows which packs that backup or dump needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.footer import I64
from pgkeep.format.packtable import ID, Ids, Rows, bitmap_lengths, ids_of, object_ids, places_in
from pgkeep.repo.lease import SeenLease, seen_leases
from pgkeep.repo.moved import MovedIndex, MovedPack, moved_index
from pgkeep.repo.repository import Cluster
from pgkeep.repo.roots import open_any, root_ids
from pgkeep.values.ids import BackupId, ObjectId

F64 = npt.NDArray[np.float64]
_NOTHING: Final[Callable[[], None]] = lambda: None  # noqa: E731


@dataclass(frozen=True, slots=True, eq=False)
class Census:
    """Columns of n packs, ascending by id."""

    ids: Ids
    sizes: I64
    """Bytes of the objects."""
    modified: F64
    """Seconds since 1970 by the store's clock."""
    uses: Mapping[BackupId, I64]
    """The packs that each backup and each dump needs, as places in the columns, ascending."""
    leases: tuple[SeenLease, ...] = ()
    """All of them, also those that ran out."""
    moves: MovedIndex = field(default_factory=MovedIndex)
    carriers: frozenset[ObjectId] = frozenset()
    """Packs that hold moved frames that somebody needs."""

    def users(self, leaving: frozenset[BackupId] = frozenset()) -> I64:
        """How many backups and dumps need each pack, without those that are leaving; int64 (n,)."""
        count = np.zeros(len(self.ids), np.int64)
        for backup, places in self.uses.items():
            if backup not in leaving:
                count[places] += 1
        return count

    def freed_by(self) -> dict[BackupId, int]:
        """Bytes that only the one backup needs: what deleting it alone would free."""
        alone = self.users() == 1
        return {backup: int(self.sizes[places[alone[places]]].sum()) for backup, places in self.uses.items()}

    def places(self, packs: frozenset[ObjectId]) -> I64:
        """Where those of `packs` are that are there."""
        found = places_in(self.ids, ids_of(sorted(packs)))
        return found[found >= 0]


def take_census(cluster: Cluster, tick: Callable[[], None] = _NOTHING) -> Census:
    """See the module's docstring; `tick` is called between manifests.

    Damaged, format-unsupported, the store's faults.
    """
    ids, sizes, modified = _packs(cluster)
    leases = tuple(seen_leases(cluster))
    index = moved_index(cluster.repository, cluster.uuid)
    moved = index.packs()
    carriers: set[ObjectId] = set()
    uses: dict[BackupId, I64] = {}
    for backup in root_ids(cluster):
        tick()
        with suppress(_Gone):
            uses[backup] = _needed(cluster, backup, ids, moved, carriers)
    return Census(ids, sizes, modified, uses, leases, index, frozenset(carriers))


def roots_naming(cluster: Cluster, packs: frozenset[ObjectId]) -> frozenset[BackupId]:
    """The backups and dumps that name any of these packs; manifests that cannot be read are passed by."""
    if not packs:
        return frozenset()
    wanted = ids_of(sorted(packs))
    found: set[BackupId] = set()
    for root in root_ids(cluster):
        try:
            if any((places_in(wanted, rows["id"]) >= 0).any() for rows, _ in open_any(cluster, root).pack_columns()):
                found.add(root)
        except Fault as fault:
            if fault.code not in ("object-missing", "format-damaged", "format-unsupported"):
                raise
    return frozenset(found)


class _Gone(Exception):
    """The backup was deleted since it was listed."""


def _moved_away(rows: Rows, live: bytes, left: I64, moved: Mapping[ObjectId, MovedPack], places: I64) -> set[ObjectId]:
    """The carriers of those of a manifest's rows of which all that it needs has moved; their own places become -1."""
    ends = np.cumsum(bitmap_lengths(rows["frames"]))
    used: set[ObjectId] = set()
    for row, origin in zip(left.tolist(), object_ids(rows["id"][left]), strict=True):
        pack = moved[origin]
        begin = int(ends[row - 1]) if row else 0
        bitmap = live[begin : int(ends[row])]
        if int(rows["frames"][row]) == pack.origin.frames and pack.covers(bitmap):
            used |= {carrier.id for carrier in pack.carriers_of(bitmap)}
            places[row] = -1
    return used


def _packs(cluster: Cluster) -> tuple[Ids, I64, F64]:
    prefix = names.packs(cluster.uuid)
    ids = bytearray()
    sizes: list[int] = []
    modified: list[float] = []
    for stat in cluster.repository.store.list(prefix):
        with suppress(ValueError):
            ids += ObjectId.parse(stat.key[len(prefix) :])
            sizes.append(stat.size)
            modified.append(stat.modified.timestamp())
    column = np.frombuffer(bytes(ids), ID)  # listings ascend, and so do hexadecimal digits
    return column, np.array(sizes, np.int64), np.array(modified, np.float64)


def _needed(
    cluster: Cluster, backup: BackupId, ids: Ids, moved: Mapping[ObjectId, MovedPack], carriers: set[ObjectId]
) -> I64:
    """The places of the packs that hold what a backup or a dump needs: origins, or where their frames have moved to."""
    column = np.sort(ids_of(list(moved)))
    found: list[I64] = []
    try:
        for rows, live in open_any(cluster, backup).pack_columns():
            places = places_in(ids, rows["id"])
            left = np.flatnonzero(places_in(column, rows["id"]) >= 0) if moved else np.zeros(0, np.int64)
            if len(left):
                used = _moved_away(rows, live, left, moved, places)
                carriers |= used
                found.append(places_in(ids, ids_of(sorted(used))))
            found.append(places)
    except Fault as fault:
        if fault.code == "object-missing":
            raise _Gone from None
        if fault.code in ("format-damaged", "format-unsupported"):
            fault.hint = (
                f"nothing can be deleted while nobody can tell what this {backup.noun} needs: put its manifest back"
                f" from a copy of the repository, or delete the object {names.root(cluster.uuid, backup)}"
            )
        raise
    places = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    # A pack that is named and not there is a damaged backup's: verify says so.
    return places[places >= 0]
