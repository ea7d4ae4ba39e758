"""What WAL summaries say together: which blocks of which relations' main forks were changed.

A day of a large database names millions of blocks in nearly as many entries of its summaries: so there is no object a
relation, but three columns.  Each block is one number, the rank of its relation among those that are named, and below
it the block; sorted, so that a relation's blocks lie together.  What is added waits until there is enough of it to be
worth a merge, and no longer: memory is bounded by what is named, not by how often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

NO_LIMIT: Final = 0xFFFFFFFF
"""InvalidBlockNumber: the fork was neither truncated nor created."""
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
_LOW: Final = np.uint64(32)
_BLOCK: Final = np.uint64(0xFFFFFFFF)
_STEP: Final = 1 << 20
"""Blocks that are merged at a time."""


class RelationKey(NamedTuple):
    """A relation's main fork; `database` is 0 for shared relations."""

    tablespace: int
    database: int
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class ForkChanges:
    """What WAL did to one main fork: it changed `blocks` (uint32, ascending).

    Blocks at or beyond `limit` may have been cut off or made anew.
    """

    limit: int
    blocks: U32


_NOTHING: Final = ForkChanges(NO_LIMIT, np.zeros(0, np.uint32))
_EVERYTHING: Final = ForkChanges(0, np.zeros(0, np.uint32))


class _Part(NamedTuple):
    """Entries: relations as `_packed_key` has them, their limits, how many blocks each has, and the blocks."""

    keys: U64
    limits: U32
    counts: npt.NDArray[np.int64]
    blocks: U32


class Changes:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.databases: set[tuple[int, int]] = set()
        """(tablespace, database) of databases that were created or dropped: nothing in them may be taken for
        unchanged."""
        self._homes: dict[tuple[int, int], int] = {}
        self._waiting: list[_Part] = []
        self._held = 0
        self._keys: U64 = np.zeros(0, np.uint64)
        self._limits: U32 = np.zeros(0, np.uint32)
        self._blocks: U64 = np.zeros(0, np.uint64)
        self._begins: npt.NDArray[np.int64] = np.zeros(1, np.int64)

    def of(self, key: RelationKey) -> ForkChanges:
        """Of any relation; one that no summary names is unchanged."""
        if (key.tablespace, key.database) in self.databases:
            return _EVERYTHING
        return self.of_fork(key)

    def of_fork(self, key: RelationKey) -> ForkChanges:
        """As `of`, whatever became of its database."""
        self._merge()
        home = self._homes.get((key.tablespace, key.database))
        if home is None:
            return _NOTHING
        packed = np.uint64(home << 32 | key.number)
        at = int(self._keys.searchsorted(packed))
        if at == len(self._keys) or self._keys[at] != packed:
            return _NOTHING
        blocks = self._blocks[self._begins[at] : self._begins[at + 1]]
        return ForkChanges(int(self._limits[at]), blocks.astype(np.uint32))

    def relations(self) -> Iterator[RelationKey]:
        """All that are named."""
        self._merge()
        homes = {number: home for home, number in self._homes.items()}
        for packed in self._keys.tolist():
            yield RelationKey(*homes[packed >> 32], packed & NO_LIMIT)

    def add(self, key: RelationKey, limit: int, blocks: U32) -> None:
        """Of one relation."""
        home = np.array([key], np.uint32)
        columns = home[:, 0], home[:, 1], home[:, 2]
        self.add_all(*columns, limits=np.array([limit], np.uint32), counts=np.array([len(blocks)]), blocks=blocks)

    def add_all(
        self, tablespaces: U32, databases: U32, numbers: U32, *, limits: U32, counts: npt.NDArray[np.int64], blocks: U32
    ) -> None:
        """Of many, a column each: the first has the first `counts[0]` of the blocks, and so on."""
        pairs, which = np.unique(tablespaces.astype(np.uint64) << _LOW | databases, return_inverse=True)
        homes = [self._homes.setdefault((pair >> 32, pair & NO_LIMIT), len(self._homes)) for pair in pairs.tolist()]
        keys = np.array(homes, np.uint64)[which] << _LOW | numbers
        self._waiting.append(_Part(keys, limits, counts, blocks.astype(np.uint32)))
        self._held += len(keys) + len(blocks)
        if self._held >= 2 * _STEP:
            self._merge()

    def _merge(self) -> None:
        waiting, self._waiting, self._held = self._waiting, [], 0
        if not any(len(part.keys) for part in waiting):
            return
        added = np.concatenate([part.keys for part in waiting])
        keys = np.concatenate((self._keys, added))
        keys.sort()
        keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))]  # numpy's own, by hashes, takes ten times as long
        limits = np.full(len(keys), NO_LIMIT, np.uint32)
        limits[keys.searchsorted(self._keys)] = self._limits
        np.minimum.at(limits, keys.searchsorted(added), np.concatenate([part.limits for part in waiting]))
        ranks = keys.searchsorted(self._keys).astype(np.uint64)
        _rank_anew(self._blocks, ranks)
        _unite(self._blocks, _ranked(keys, waiting))
        self._keys, self._limits = keys, limits
        edges = np.arange(len(keys) + 1, dtype=np.uint64) << _LOW
        self._begins = self._blocks.searchsorted(edges)


def _rank_anew(blocks: U64, ranks: U64) -> None:
    """In place: blocks of the relation that had rank r get the rank `ranks[r]`; ranks ascend, so their order stays."""
    for at in range(0, len(blocks), _STEP):
        part = blocks[at : at + _STEP]
        part[:] = ranks[part >> _LOW] << _LOW | part & _BLOCK


def _ranked(keys: U64, parts: Sequence[_Part]) -> U64:
    """Their blocks under their relations' ranks among `keys`, ascending."""
    ranked = [
        np.repeat(keys.searchsorted(part.keys).astype(np.uint64) << _LOW, part.counts) | part.blocks for part in parts
    ]
    found = np.concatenate(ranked)
    found.sort()
    return found


def _unite(blocks: U64, more: U64) -> None:
    """Both in `blocks`, ascending, each number once; both ascend.  In place: there may be a hundred megabytes."""
    known = len(blocks)
    blocks.resize(known + len(more), refcheck=False)
    blocks[known:] = more
    blocks.sort(kind="stable")  # which merges runs that are sorted already
    kept = 0
    last: np.uint64 | None = None
    for at in range(0, len(blocks), _STEP):
        part = blocks[at : at + _STEP]
        first = np.array([last is None or part[0] != last])
        last = part[-1]
        single = part[np.concatenate((first, part[1:] != part[:-1]))]
        blocks[kept : kept + len(single)] = single
        kept += len(single)
    blocks.resize(kept, refcheck=False)
