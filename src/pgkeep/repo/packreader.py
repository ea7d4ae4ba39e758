"""PackReader: verified frames of one pack, read in large ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pgkeep.errors import Damaged, Fault
from pgkeep.format import names
from pgkeep.format.codec import ZSTD, decompress, decompress_into
from pgkeep.format.extents import ExtentMap, decode_extents
from pgkeep.format.footer import I64, U64, Footer, FrameTable, decode_footer, decode_lsns, footer_prefix
from pgkeep.format.frame import FrameKind, split_frame
from pgkeep.format.framerow import FrameRow
from pgkeep.format.header import Header, ObjectType, expect_header, page_size_of
from pgkeep.format.keyed import HashKeys, stored_hash
from pgkeep.format.limits import HEADER_LENGTH, TAIL_LENGTH
from pgkeep.format.moves import DEAD
from pgkeep.format.tail import FooterPlace, decode_tail
from pgkeep.repo.moved import MovedPack, moved_pack
from pgkeep.repo.repository import Repository
from pgkeep.values.ids import ClusterUuid, ObjectId

READ_SIZE = 8 << 20
"""Stored bytes that one range read fetches at most (unless a single frame is larger)."""


NEAR: Final = 128 << 10
"""Stored bytes that are fetched along and left alone rather than that a second range read is made."""
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
        if first >= 0 and size + length <= limit and table.joins(frame, last):
            last, size = frame, size + length
            continue
        if first >= 0:
            yield FrameRun(first, last)
        first = last = frame
        size = length
    if first >= 0:
        yield FrameRun(first, last)


def near_runs(frames: I64, table: FrameTable) -> Iterator[I64]:
    """Group ascending frame numbers into what one range read fetches: at most READ_SIZE bytes of one object, with no
    more than NEAR between two of them.
    """
    if not len(frames):
        return
    between = table.distances(frames)
    cuts = np.flatnonzero((between < 0) | (between > NEAR)) + 1
    for part in np.split(frames, cuts):
        ends = table.offset[part] + table.stored_length[part]
        at = 0
        while at < len(part):
            limit = int(table.offset[part[at]]) + READ_SIZE
            after = max(int(np.searchsorted(ends, limit, side="right")), at + 1)
            yield part[at:after]
            at = after


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


def verified_pages_into(
    row: FrameRow, index: int, stored: memoryview, out: memoryview, headroom: int, obj: str
) -> bool:
    """As `verified_frame` and `split_frame`, of a frame of pages: they fill `out` behind its first `headroom` bytes.

    Those bytes are lent: the pieces table, which comes before the pages, passes through them.  False when the frame
    must be read in the other way.
    """
    table = row.raw_length - row.data_length
    if row.kind != _PAGES or row.codec != ZSTD or table > headroom or row.data_length != len(out) - headroom:
        return False
    if stored_hash(stored) != row.stored_hash:
        raise Damaged(obj, f"frame {index} is damaged (its hash is wrong)")
    lent = bytes(out[headroom - table : headroom])
    try:
        decompress_into(stored, out[headroom - table :], f"{obj} frame {index}")
        if len(split_frame(out[headroom - table :], obj)[1]) != row.data_length:
            raise Damaged(obj, f"frame {index} has another pieces table than its row in the frame table says")
    finally:
        out[headroom - table : headroom] = lent
    return True


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame as it lies in the store."""

    number: int
    row: FrameRow
    stored: memoryview


class PackReader:
    """One pack, its footer read and verified."""

    def __init__(self, repository: Repository, key: str, header: Header, footer: Footer, page_size: int) -> None:
        self._repository = repository
        self.key = key
        self.header = header
        self.frames = footer.frames
        self.footer = footer
        self.page_size = page_size
        self._page_ends: I64 | None = None

    @property
    def page_ends(self) -> I64:
        """The frame table's `unit_ends` of pages."""
        if self._page_ends is None:
            self._page_ends = self.frames.unit_ends(FrameKind.PAGES, self.page_size)
        return self._page_ends

    @classmethod
    def open(
        cls, repository: Repository, cluster: ClusterUuid, pack: ObjectId, place: FooterPlace | None = None, *,
        lsns: bool = False, hashes: bool = False,
    ) -> PackReader:  # fmt: skip
        """`place` comes from a manifest; without it the tail is read.  object-missing, Damaged.

        A pack that is gone is read through its moves.
        """
        try:
            return cls._open(repository, cluster, pack, place, lsns=lsns, hashes=hashes)
        except Fault as fault:
            moved = moved_pack(repository, cluster, pack) if fault.code == "object-missing" else None
            if moved is None:
                raise
            return _open_moved(repository, cluster, moved, lsns=lsns, hashes=hashes)

    @classmethod
    def _open(
        cls, repository: Repository, cluster: ClusterUuid, pack: ObjectId, place: FooterPlace | None, *,
        lsns: bool, hashes: bool,
    ) -> PackReader:  # fmt: skip
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

    def key_of(self, frame: int) -> str:
        """The object that holds a frame; Damaged for one that was dead when the pack was moved."""
        return self.key

    def read(self, run: FrameRun) -> Iterator[tuple[int, bytes]]:
        """(frame number, plain bytes) of each frame of the run, fetched by one range read, verified; Damaged."""
        for index, raw in self.read_each(run):
            if isinstance(raw, Damaged):
                raise raw
            yield index, raw

    def read_frames(self, frames: I64) -> Iterator[tuple[int, bytes]]:
        """As `read`, of any ascending frames, by few range reads; what lies between them is not looked at."""
        for index, row, stored, key in self.fetch_frames(frames):
            yield index, self.plain(index, row, stored, key)

    def fetch_frames(self, frames: I64) -> Iterator[tuple[int, FrameRow, memoryview, str]]:
        """(frame, row, stored bytes, object that holds it) of any ascending frames; nothing is verified yet."""
        for near in near_runs(frames, self.frames):
            yield from self._fetch_near(near)

    def plain(self, index: int, row: FrameRow, stored: memoryview, key: str) -> bytes:
        """The plain bytes of what `fetch_frames` found, verified; Damaged."""
        return verified_frame(row, index, stored, self._repository.keys, key)

    def read_each(self, run: FrameRun) -> Iterator[tuple[int, bytes | Damaged]]:
        """As `read`, but a damaged frame is yielded as its Damaged, and the next ones follow."""
        for index, row, stored, key in self._fetch(run):
            try:
                yield index, verified_frame(row, index, stored, self._repository.keys, key)
            except Damaged as damaged:
                yield index, damaged

    def read_stored(self, run: FrameRun) -> Iterator[StoredFrame]:
        """The frames of the run as they lie in the store, their stored hashes verified; Damaged."""
        for index, row, stored, key in self._fetch(run):
            if stored_hash(stored) != row.stored_hash:
                raise Damaged(key, f"frame {index} is damaged (its hash is wrong)")
            yield StoredFrame(index, row, stored)

    def _fetch(self, run: FrameRun) -> Iterator[tuple[int, FrameRow, memoryview, str]]:
        """(frame, row, stored bytes, object that holds it), by one range read; nothing is verified yet."""
        return self._fetch_near(np.arange(run.first, run.last + 1))

    def _fetch_near(self, frames: I64) -> Iterator[tuple[int, FrameRow, memoryview, str]]:
        """As `_fetch`, of frames that lie behind one another in one object."""
        table = self.frames
        first, last = int(frames[0]), int(frames[-1])
        key = self.key_of(first)
        start = int(table.offset[first])
        end = int(table.offset[last] + table.stored_length[last])
        try:
            data = memoryview(self._repository.store.get(key, start, end - start))
        except Fault as fault:
            # A pack may be moved while it is read, and is deleted a lease later.
            moved = self._moved_meanwhile() if fault.code == "object-missing" else None
            if moved is None:
                raise
            for part in near_runs(frames, moved.frames):
                yield from moved._fetch_near(part)
            return
        if len(data) != end - start:
            raise Damaged(key, f"is cut off at byte {start + len(data)}")
        places = (table.offset[frames] - start).tolist()
        for index, row, at in zip(frames.tolist(), table.rows_of(frames), places, strict=True):
            yield index, row, data[at : at + row.stored_length], key

    def _moved_meanwhile(self) -> PackReader | None:
        """The reader of the places where the frames lie now; None when there are no others."""
        cluster = ClusterUuid(self.key.partition("/")[0])
        moved = moved_pack(self._repository, cluster, self.header.object)
        return None if moved is None else _open_moved(self._repository, cluster, moved, lsns=False, hashes=False)

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
        found = b"".join(parts)[begin : begin + count * size]
        if len(found) != count * size:
            raise Damaged(self.key, f"no longer holds all units from {first} to {first + count} of {kind.name}")
        return found


class MovedReader(PackReader):
    """A pack that is gone, read from its carriers; its frames and ordinals are what they were."""

    def __init__(
        self, repository: Repository, key: str, header: Header, footer: Footer, page_size: int, moved: MovedPack,
        carriers: Sequence[str],
    ) -> None:  # fmt: skip
        super().__init__(repository, key, header, footer, page_size)
        self._moved = moved
        self._carriers = carriers

    def key_of(self, frame: int) -> str:
        number = int(self._moved.table.carrier[frame])
        if number == DEAD:
            raise Damaged(self.key, f"frame {frame} was not needed by any backup when the pack was moved")
        return self._carriers[number]

    def _moved_meanwhile(self) -> PackReader | None:
        """Moved again: by moves that were not there when this one was opened."""
        newer = super()._moved_meanwhile()
        known = [carrier.id for carrier in self._moved.carriers]
        return newer if isinstance(newer, MovedReader) and newer.carriers != known else None

    @property
    def carriers(self) -> list[ObjectId]:
        """The packs that hold its frames."""
        return [carrier.id for carrier in self._moved.carriers]

    @property
    def moved(self) -> MovedPack:
        """Where its frames lie."""
        return self._moved


def _open_moved(
    repository: Repository, cluster: ClusterUuid, moved: MovedPack, *, lsns: bool, hashes: bool
) -> PackReader:
    key = names.pack(cluster, moved.origin.id)
    header = expect_header(
        moved.origin.header, key, type_=ObjectType.PACK, repository=repository.id, object_=moved.origin.id
    )
    page_size = page_size_of(header, key)
    found_lsns, found_hashes = None, None
    if lsns or hashes:
        found_lsns, found_hashes = _moved_columns(repository, cluster, moved, page_size)
    footer = Footer(moved.table, found_lsns if lsns else None, found_hashes if hashes else None)
    carriers = [names.pack(cluster, carrier.id) for carrier in moved.carriers]
    return MovedReader(repository, key, header, footer, page_size, moved, carriers)


def _moved_columns(repository: Repository, cluster: ClusterUuid, moved: MovedPack, page_size: int) -> tuple[U64, U64]:
    """LSNs and hashes by ordinal of the origin; 0 for pages that were dead."""
    table = moved.table
    ends = table.unit_ends(FrameKind.PAGES, page_size)
    lsns = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint64)
    hashes = np.zeros_like(lsns)
    for number, carrier in enumerate(moved.carriers):
        mine = np.flatnonzero((table.carrier == number) & (table.kind == _PAGES))
        if not len(mine):
            continue
        reader = PackReader.open(repository, cluster, carrier.id, carrier.footer, lsns=True, hashes=True)
        there = reader.frames.unit_ends(FrameKind.PAGES, page_size)
        if reader.footer.lsns is None or reader.footer.hashes is None or reader.page_size != page_size:
            raise Damaged(reader.key, "lacks the page table of what was moved into it")
        for frame in mine.tolist():
            at = int(moved.carrier_frame[frame])
            count = int(table.data_length[frame]) // page_size
            if at >= len(there) or int(there[at]) < count:
                raise Damaged(reader.key, f"does not hold the frame {at} that was moved into it")
            first, to = int(there[at]) - count, int(table.ordinal[frame])
            lsns[to : to + count] = reader.footer.lsns[first : first + count]
            hashes[to : to + count] = reader.footer.hashes[first : first + count]
    return lsns, hashes


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
    try:
        body = repository.store.get(key, place.offset, place.lsns_end)
    except Fault as fault:
        if fault.code != "object-missing":
            raise
        reader = PackReader.open(repository, cluster, pack, place, lsns=True)
        assert reader.footer.lsns is not None  # it was asked for, and a pack that moved has it or is damaged
        return reader.footer.lsns
    return decode_lsns(body, place, key)


def missing_as_damage(fault: Fault, obj: str) -> Fault:
    """An object that a manifest needs and the store lacks is damage of the backup, not an absent answer."""
    return Damaged(obj, "is missing from the repository") if fault.code == "object-missing" else fault
