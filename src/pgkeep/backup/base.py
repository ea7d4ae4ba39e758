"""Which earlier backup may be inherited from (pure), and what it holds under a path (docs/format/inheritance.md)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from pgkeep.backup.report import Settled
from pgkeep.backup.tasks import BaseFile, How, content_length
from pgkeep.format.limits import PACK_TARGET
from pgkeep.format.manifest import BadPages, EntryType, ManifestInfo, PackRef, Place, ServerInfo, Unit
from pgkeep.format.manifest import Entry as Stored
from pgkeep.pg.changes import NO_LIMIT, U32, Changes, RelationKey
from pgkeep.pg.entry import Entry
from pgkeep.pg.facts import ServerFacts
from pgkeep.pg.page import BLCKSZ
from pgkeep.pg.relfile import PG_GLOBAL, RelationFile
from pgkeep.pg.summaries import Stretch
from pgkeep.repo.backups import Manifest
from pgkeep.values.ids import ObjectId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History

FIRST_NORMAL: Final = 16384
"""FirstNormalObjectId (access/transam.h): relfilenodes below are catalogs' of initdb."""
SCATTERED: Final = 3
"""A restore may touch so many times the packs of a fresh full backup, then the scattered part is stored again."""
FEW_PACKS: Final = 24
"""So many packs are never too many."""


def format_refusal(info: ManifestInfo, server: ServerInfo, facts: ServerFacts) -> str | None:
    """Why this backup's pages are not comparable with the server's at all; None when they are."""
    if (server.block_size, server.relation_segment_blocks) != (facts.block_size, facts.relation_segment_blocks):
        return f"backup {info.backup} has pages or segments of another size"
    return None


def ancestry_refusal(
    info: ManifestInfo, server: ServerInfo, facts: ServerFacts, history: History, start: Lsn
) -> str | None:
    """Why this backup is not the server's own past, so that LSNs prove nothing; None when it may be.

    `history` is the server's, `start` where the new backup began.
    """
    name = f"backup {info.backup}"
    if info.system_id != facts.system_identifier:
        return f"{name} is of another system identifier (pg_upgrade or initdb)"
    if server.data_checksum_version != facts.data_checksum_version:
        return f"data checksums were switched since {name}, which changes pages and not their LSNs"
    if info.source != "primary":
        return f"{name} was not taken from a primary"
    for timeline in (info.start_timeline, info.timeline):
        if timeline not in history.timelines():
            return f"{name} is of timeline {timeline}, which is not in the server's history"
    left = history.left_at(info.timeline)
    if left is not None and info.stop_lsn > left:
        return f"{name} ended at {Lsn(info.stop_lsn)}, after the server's history left its timeline at {left}"
    if info.stop_lsn > start:
        return f"{name} ended at {Lsn(info.stop_lsn)}, after this one began"
    return None


def lsn_refusal(info: ManifestInfo, facts: ServerFacts, timeline: int) -> str | None:
    """Why equal LSNs do not prove that a page is what it was in this backup; None when they do.

    VACUUM marks a page all-visible by WAL, but gives it that WAL's LSN only where hint bits are logged, with checksums
    or wal_log_hints (visibilitymap_set, heap_xlog_visible).  An old image of such a page under the present visibility
    map is corruption: the next UPDATE would not clear its bit, and index-only scans would show both versions.  Neither
    setting changes while a server runs; what one that was started since had in between, nothing tells.
    """
    if not (facts.data_checksums or facts.wal_log_hints):
        return "without data checksums or wal_log_hints not every change of a page gives it a new LSN"
    if info.timeline != timeline:
        return f"the server was promoted since backup {info.backup}, and may have had wal_log_hints off before"
    if not _is_same_life(info, facts):
        return f"the server was started since backup {info.backup}, and may have had wal_log_hints or checksums off"
    return None


def _is_same_life(info: ManifestInfo, facts: ServerFacts) -> bool:
    """Whether the server runs on since the backup.

    A clock that was set back makes a start look older than the backup before it, but not equal to the start before
    that.  Manifests of earlier writers tell no more than their own time.
    """
    if info.server_started:
        return facts.postmaster_started == datetime.fromisoformat(info.server_started)
    return facts.postmaster_started < datetime.fromisoformat(info.started)


def stretches(history: History, first: Lsn, end: Lsn) -> list[Stretch]:
    """The timelines' parts of the WAL from `first` to before `end`, ascending."""
    found = []
    for timeline in history.timelines():
        left = history.left_at(timeline)
        low, high = max(first, history.began_at(timeline)), end if left is None else min(end, left)
        if low < high:
            found.append(Stretch(timeline, Lsn(low), Lsn(high)))
    return found


def scattered_packs(packs: Sequence[PackRef]) -> frozenset[ObjectId]:
    """Of a base's packs those whose pages should be stored again, so that a restore touches few packs.

    Those that hold least go first, until half of what is allowed is left.
    """
    live = [_live_bytes(pack) for pack in packs]
    fresh = -(-sum(live) // PACK_TARGET)
    allowed = max(SCATTERED * fresh, FEW_PACKS)
    if len(packs) <= allowed:
        return frozenset()
    order = np.argsort(np.array(live), kind="stable")[: len(packs) - allowed // 2]
    return frozenset(packs[int(number)].id for number in order)


def _live_bytes(pack: PackRef) -> int:
    """Stored bytes that the base needs of a pack, as far as its bitmap tells."""
    return pack.footer.offset * int.from_bytes(pack.live, "little").bit_count() // max(pack.frames, 1)


def in_step(stored: Iterable[Stored]) -> Callable[[bytes], Stored | None]:
    """A look-up in entries that ascend by path, for paths that are asked for in ascending order."""
    rows: Iterator[Stored] = iter(stored)
    held: list[Stored | None] = [next(rows, None)]

    def find(path: bytes) -> Stored | None:
        while (row := held[0]) is not None and row.path < path:
            held[0] = next(rows, None)
        return row if row is not None and row.path == path else None

    return find


@dataclass(frozen=True, slots=True, eq=False)
class BaseFiles:
    """What the base holds of each file, and how its pages are to be compared.

    `how` is for main forks; all else is compared by hash.
    """

    manifest: Manifest
    how: How
    changes: Changes | None
    relation_segment_blocks: int

    def finder(self) -> Callable[[Entry], BaseFile | None]:
        """For entries in ascending order of their paths: the base's file, None where there is nothing to take over."""
        find = in_step(self.manifest.entries())
        packs = [pack.id for pack in self.manifest.outer.packs]
        bad: Mapping[bytes, BadPages] = {file.path: file for file in self.manifest.inner.bad_pages}

        def found(entry: Entry, path: bytes) -> BaseFile | None:
            stored = find(path)
            if stored is None or stored.type is not EntryType.FILE or stored.place is Place.NONE:
                return None
            if stored.unit is not (Unit.BYTES if entry.fork is None else Unit.PAGES) or not content_length(entry):
                return None
            where = Settled(stored.place, packs[stored.pack], stored.at, stored.length, stored.hash)
            if entry.fork is None:
                return BaseFile(where, stored.size, How.HASH) if stored.place is Place.INLINE else None
            blocks = tuple(bad[path].blocks) if path in bad else ()
            return self._pages(entry, where, stored.size // BLCKSZ, blocks)

        return lambda entry: found(entry, os.fsencode(entry.path))

    def _pages(self, entry: Entry, where: Settled, units: int, bad: tuple[int, ...]) -> BaseFile:
        relation = entry.relation
        if not entry.inheritable or relation is None:
            return BaseFile(where, units, How.HASH, bad)
        if self.changes is None:
            return BaseFile(where, units, self.how, bad)
        limit, blocks = self._changed(self.changes, relation)
        sampled = relation.tablespace != PG_GLOBAL and relation.number >= FIRST_NORMAL
        return BaseFile(where, units, How.SUMMARY, bad, limit, blocks, sampled)

    def _changed(self, changes: Changes, relation: RelationFile) -> tuple[int, U32]:
        """(limit, blocks) as numbers within the segment file."""
        found = changes.of(RelationKey(relation.tablespace, relation.database, relation.number))
        size = self.relation_segment_blocks
        first = relation.first_block(size)
        blocks = found.blocks
        if first or (len(blocks) and int(blocks[-1]) >= size):  # most relations are one file: a million of them are
            low, high = np.searchsorted(blocks, [first, first + size])
            blocks = blocks[low:high] - np.uint32(first)
        limit = size if found.limit == NO_LIMIT else min(max(found.limit - first, 0), size)
        return limit, blocks
