"""Which logical dumps there are, and what is in each."""

from __future__ import annotations

from dataclasses import dataclass

from pgkeep.errors import Fault
from pgkeep.format.dump import Dumped, DumpInfo
from pgkeep.repo.dumps import dump_ids, open_dump_manifest
from pgkeep.repo.repository import Cluster
from pgkeep.values.ids import DumpId


@dataclass(frozen=True, slots=True)
class DumpRow:
    """One dump.  `info` and `dumped` are None when its manifest cannot be read, because of `damage`."""

    dump: DumpId
    info: DumpInfo | None = None
    dumped: Dumped | None = None
    damage: str = ""

    @property
    def databases(self) -> tuple[str, ...]:
        """Their names, for people: bytes that are no UTF-8 are escaped."""
        found = self.dumped.databases if self.dumped is not None else []
        return tuple(one.name.decode("utf-8", "backslashreplace") for one in found)


def dump_rows(cluster: Cluster) -> list[DumpRow]:
    """Every dump of the cluster, oldest first; damage is part of the answer."""
    return [row for dump in dump_ids(cluster) if (row := _row(cluster, dump)) is not None]


def _row(cluster: Cluster, dump: DumpId) -> DumpRow | None:
    try:
        manifest = open_dump_manifest(cluster, dump)
        return DumpRow(dump, manifest.info(), manifest.dumped())
    except Fault as fault:
        if fault.code in ("format-damaged", "format-unsupported"):
            return DumpRow(dump, damage=fault.message)
        if fault.code != "dump-unknown":  # deleted since it was listed
            raise
    return None
