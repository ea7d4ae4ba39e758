"""Census: which packs there are, which backups need them, and whose leases run: what a sweep decides upon.

1. Looked at in this order: packs, leases, moves, manifests.  A pack that is seen was written under a lease that is
   seen after it, unless the lease was released: then the manifest was there before, and is seen after that.
2. Columns, not objects: a hundred backups of 50,000 packs each are planned in seconds and some dozen megabytes.
3. A manifest that cannot be read ends it: nobody knows which packs that backup needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.footer import I64
from pgkeep.format.packtable import ID, Ids, ids_of, places_in
from pgkeep.repo.backups import backup_ids, open_manifest
from pgkeep.repo.lease import SeenLease, seen_leases
from pgkeep.repo.repository import Cluster
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
    """The packs that each backup needs, as places in the columns, ascending."""
    leases: tuple[SeenLease, ...] = ()
    """All of them, also those that ran out."""

    def users(self, leaving: frozenset[BackupId] = frozenset()) -> I64:
        """How many backups need each pack, without those that are leaving; int64 (n,)."""
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
    uses: dict[BackupId, I64] = {}
    for backup in backup_ids(cluster):
        tick()
        with suppress(_Gone):
            uses[backup] = _needed(cluster, backup, ids)
    return Census(ids, sizes, modified, uses, leases)


class _Gone(Exception):
    """The backup was deleted since it was listed."""


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


def _needed(cluster: Cluster, backup: BackupId, ids: Ids) -> I64:
    try:
        reader = open_manifest(cluster, backup)
        found = [places_in(ids, rows["id"]) for rows, _ in reader.pack_columns()]
    except Fault as fault:
        if fault.code in ("backup-unknown", "object-missing"):
            raise _Gone from None
        if fault.code in ("format-damaged", "format-unsupported"):
            fault.hint = (
                "nothing can be deleted while nobody can tell what this backup needs: put its manifest back from a copy"
                f" of the repository, or delete the object {names.backup(cluster.uuid, backup)}"
            )
        raise
    places = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    # A pack that is named and not there is a damaged backup's: verify says so.
    return places[places >= 0]
