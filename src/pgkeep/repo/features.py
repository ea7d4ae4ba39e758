"""Feature objects: rules that came after version 1, announced before their first use (docs/format/objects.md)."""

from __future__ import annotations

from typing import Final

from pgkeep import __version__
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.deletion import FeatureInfo
from pgkeep.format.header import ObjectType
from pgkeep.format.objects import encode_object
from pgkeep.repo.repository import Repository

DELETION: Final = "deletion.write"
"""Packs may be condemned: a writer that does not look would commit a backup of what is being deleted."""
MOVES: Final = "moves.read"
"""Frames may lie in other packs than their extents name."""
DUMPS: Final = "dumps.write"
"""There are dumps: a sweep that does not know them would delete their packs."""
_WHY: Final = {
    DELETION: "packs may be condemned, and are deleted then",
    MOVES: "frames may have been moved to other packs",
    DUMPS: "dumps need packs, as backups do",
}
WRITER: Final = f"pgkeep {__version__}"


def announce_feature(repository: Repository, name: str, clock: Clock) -> None:
    """Make sure that the feature's object is there, before its first use; the store's faults."""
    key = names.feature(name)
    info = FeatureInfo(name=name, why=_WHY[name], writer=WRITER, created=clock.now().isoformat())
    try:
        repository.store.put(key, encode_object(repository.header(ObjectType.FEATURE, key, clock), info))
    except Fault as fault:
        if fault.code != "object-exists":
            raise
