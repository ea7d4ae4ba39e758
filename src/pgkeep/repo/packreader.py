"""PackReader: verified frames of one pack, read in large ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.codec import decompress
from pgkeep.format.extents import ExtentMap, decode_extents
from pgkeep.format.footer import U64, Footer, FrameTable, decode_footer, decode_lsns, footer_prefix
from pgkeep.format.frame import FrameKind, split_frame
from pgkeep.format.framerow import FrameRow
from pgkeep.format.header import Header, ObjectType, expect_header, page_size_of
from pgkeep.format.keyed import HashKeys, stored_hash
from pgkeep.format.limits import HEADER_LENGTH, TAIL_LENGTH
from pgkeep.format.tail import FooterPlace, decode_tail
from pgkeep.repo.repository import Repository
from pgkeep.values.ids import ClusterUuid, ObjectId

READ_SIZE = 8 << 20
"""Stored bytes that one range read fetches at most (unless a single frame is larger)."""


_PAGES: Final = int(FrameKind.PAGES)
"""An enumeration's member is slow to look up, once a frame."""


@dataclass(frozen=True, slots=True)
class FrameRun:
    """Neighbouring frames first..last (inclusive) that are fetched by one range read."""

    first: int
    last: int


def runs_of(frames: Sequence[int], table: FrameTable, limit: int = READ_SIZE) -> Iterator[FrameRun]:
    """Group ascending frame numbers into runs of neighbours of at most `limit` stored bytes."""
    first = last = -1
    size = 0
    lengths = table.stored_length[np.asarray(frames, np.int64)].tolist()
    for frame, length in zip(frames, lengths, strict=True):
        if first >= 0 and frame == last + 1 and size + length <= limit:
            last, size = frame, size + length
            continue
        if first >= 0:
            yield FrameRun(first, last)
        first = last = frame
        size = length
    if first >= 0:
        yield FrameRun(first, last)


def verified_frame(row: FrameRow, index: int, stored: memoryview, keys: HashKeys, obj: str) -> bytes:
    """The plain bytes of frame `index` whose stored hash is right; Damaged names object and frame.

    The plain hash is checked too, but for pages: theirs needs every page's hash, which `verify` computes (check.py).
    """
    if stored_hash(stored) != row.stored_hash:
        raise Damaged(obj, f"frame {index} is damaged (its hash is wrong)")
    raw = decompress(row.codec, stored, row.raw_length, f"{obj} frame {index}")
    if row.kind != _PAGES and keys.frame(raw) != row.plain_hash:
        raise Damaged(obj, f"frame {index} holds other content than was written (its keyed hash is wrong)")
    return raw


class PackReader:
    """One pack, its footer read and verified."""

    def __init__(self, repository: Repository, key: str, header: Header, footer: Footer, page_size: int) -> None:
        self._repository = repository
        self.key = key
        self.header = header
        self.frames = footer.frames
        self.footer = footer
        self.page_size = page_size

    @classmethod
    def open(
        cls, repository: Repository, cluster: ClusterUuid, pack: ObjectId, place: FooterPlace | None = None, *,
        lsns: bool = False, hashes: bool = False,
    ) -> PackReader:  # fmt: skip
        """`place` comes from a manifest; without it the tail is read.  object-missing, Damaged."""
        key = names.pack(cluster, pack)
        store = repository.store
        head = store.get(key, 0, HEADER_LENGTH)
        header = expect_header(head, key, type_=ObjectType.PACK, repository=repository.id, object_=pack)
        if place is None:
            size = store.stat(key).size
            place = decode_tail(store.get(key, max(size - TAIL_LENGTH, 0), TAIL_LENGTH), size, pack, key)
        body = store.get(key, place.offset, footer_prefix(place, hashes=hashes))
        page_size = page_size_of(header, key)
        footer = decode_footer(body, head, place, page_size, key, lsns=lsns, hashes=hashes)
        return cls(repository, key, header, footer, page_size)

    def read(self, run: FrameRun) -> Iterator[tuple[int, bytes]]:
        """(frame number, plain bytes) of each frame of the run, fetched by one range read, verified; Damaged."""
        for index, raw in self.read_each(run):
            if isinstance(raw, Damaged):
                raise raw
            yield index, raw

    def read_each(self, run: FrameRun) -> Iterator[tuple[int, bytes | Damaged]]:
        """As `read`, but a damaged frame is yielded as its Damaged, and the next ones follow."""
        table = self.frames
        start = int(table.offset[run.first])
        end = int(table.offset[run.last] + table.stored_length[run.last])
        data = memoryview(self._repository.store.get(self.key, start, end - start))
        if len(data) != end - start:
            raise Damaged(self.key, f"is cut off at byte {start + len(data)}")
        at = 0
        for index, row in enumerate(table.rows(run.first, run.last), start=run.first):
            stored = data[at : at + row.stored_length]
            at += row.stored_length
            try:
                yield index, verified_frame(row, index, stored, self._repository.keys, self.key)
            except Damaged as damaged:
                yield index, damaged

    def read_units(self, kind: FrameKind, first: int, count: int) -> bytes:
        """`count` units of `kind` from ordinal `first`, as bytes; Damaged when the pack does not have them."""
        size = self.page_size if kind is FrameKind.PAGES else 1
        ends = self.frames.unit_ends(kind, self.page_size)
        if not len(ends) or first + count > int(ends[-1]):
            raise Damaged(self.key, f"does not hold the units {first} to {first + count} of {kind.name}")
        lowest = int(np.searchsorted(ends, first, side="right"))
        highest = int(np.searchsorted(ends, first + count - 1, side="right"))
        wanted = [index for index in range(lowest, highest + 1) if self.frames.kind[index] == kind]
        before = int(ends[lowest - 1]) if lowest else 0
        parts = [split_frame(raw, self.key)[1] for run in runs_of(wanted, self.frames) for _, raw in self.read(run)]
        begin = (first - before) * size
        return b"".join(parts)[begin : begin + count * size]


def read_extents(reader: PackReader, at: int, length: int, digest: bytes, keys: HashKeys) -> ExtentMap:
    """The extent map of `length` bytes from byte `at` of the pack's maps, whose keyed hash is `digest`; Damaged."""
    obj = f"{reader.key} (extent map)"
    data = reader.read_units(FrameKind.MAPS, at, length)
    if keys.extent_map(data) != digest:
        raise Damaged(obj, "is not the one that the manifest names (its hash is wrong)")
    return decode_extents(data, obj)


def read_page_lsns(repository: Repository, cluster: ClusterUuid, pack: ObjectId, place: FooterPlace) -> U64:
    """pd_lsn of every page of a pack, uint64, by page ordinal, in one range read; object-missing, Damaged."""
    key = names.pack(cluster, pack)
    return decode_lsns(repository.store.get(key, place.offset, place.lsns_end), place, key)


def missing_as_damage(fault: Fault, obj: str) -> Fault:
    """An object that a manifest needs and the store lacks is damage of the backup, not an absent answer."""
    return Damaged(obj, "is missing from the repository") if fault.code == "object-missing" else fault
