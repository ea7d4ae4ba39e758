"""PackWriter: pages and bytes of any files -> frames -> packs in the store.

One writer serves one process.  Adding returns (pack id, ordinal of the first unit); units added by one call lie
together in one pack.  A pack becomes visible only as a whole, when it is full or at `finish`.

A writer that is `ahead` puts a full pack into the store by a thread while it fills the next one: at most two are in
memory.  What the thread met is raised by a later call, at the latest by `finish`.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.codec import STORED, compress
from pgkeep.format.footer import I64, U64, PageTable, encode_footer, frame_table
from pgkeep.format.frame import PIECE_LENGTH, PIECES_HEAD, FrameKind, Piece, encode_pieces
from pgkeep.format.framerow import FrameRow
from pgkeep.format.header import Header, ObjectType, pack_specific
from pgkeep.format.keyed import PAGE_HASH_LENGTH, stored_hash
from pgkeep.format.limits import FRAME_DATA, MAX_ADD, MAX_PACK_PAGES, PACK_FRAMES, PACK_TARGET, PIECES_TABLE
from pgkeep.format.runs import first_of_runs, lengths
from pgkeep.format.tail import FooterPlace
from pgkeep.repo.packbuffer import PackBuffer, Segments
from pgkeep.repo.repository import Entropy, Repository, microseconds
from pgkeep.values.ids import ClusterUuid, ObjectId

HEADROOM: Final = 4096
"""Bytes before pages that let their first frame be made in place, whatever its file's path."""


@dataclass(frozen=True, slots=True)
class WrittenPack:
    """A pack that is durable in the store, or, of a writer that is `ahead`, on its way there until `finish`."""

    id: ObjectId
    footer: FooterPlace
    frames: int


@dataclass(slots=True)
class _Pending:
    """Units of one kind that wait for their frame to fill."""

    pieces: list[Piece] = field(default_factory=list)
    data: list[memoryview] = field(default_factory=list)
    size: int = 0
    table: int = 0
    """Bytes of the pieces table, at most."""


def _plain(table: bytes, pending: _Pending, ending: memoryview | None) -> bytes | memoryview:
    """A frame's plain bytes.  `ending` ends with its last piece, and may be overwritten before that."""
    if ending is not None and len(pending.data) == 1 and len(ending) >= len(table) + pending.size:
        frame = ending[len(ending) - pending.size - len(table) :]
        frame[: len(table)] = table
        return frame
    return b"".join((table, *pending.data))


class PackWriter:
    """See the module's docstring.  `level` is zstd's; sizes in bytes."""

    def __init__(
        self, repository: Repository, cluster: ClusterUuid, clock: Clock, *, page_size: int, level: int = 1,
        pack_target: int = PACK_TARGET, entropy: Entropy = os.urandom, ahead: bool = False,
    ) -> None:  # fmt: skip
        self._repository = repository
        self._cluster = cluster
        self._clock = clock
        self._page_size = page_size
        self.level: int | None = level
        """zstd's for frames that are filled from now on; None stores them as they are."""
        self._target = pack_target
        self._entropy = entropy
        self._thread = ThreadPoolExecutor(1, "pack-writer") if ahead else None
        self._under_way: Future[None] | None = None
        if self._thread is not None:
            # Started now: `discard` must find it, and a signal that raises can come while a thread is being started.
            self._thread.submit(lambda: None).result()
        self.written: list[WrittenPack] = []
        self._segments = Segments()
        self._reset()

    def _reset(self) -> None:
        self._id: ObjectId | None = None
        self._header = b""
        self._buffer = PackBuffer(self._segments)
        self._rows: list[FrameRow] = []
        self._stored = 0
        self._units = dict.fromkeys(FrameKind, 0)
        self._pending = {kind: _Pending() for kind in FrameKind}
        self._lsns = bytearray()
        self._hashes = bytearray()
        self._hashed = 0

    @property
    def stored(self) -> int:
        """Bytes of the packs written so far, the one that is being filled included."""
        return sum(pack.footer.object_length for pack in self.written) + self._stored

    def add_pages(
        self, path: bytes, first_block: int, data: memoryview, lsns: U64, headroom: int = 0
    ) -> tuple[ObjectId, int]:
        """Whole pages of one file from `first_block` (of the file); `lsns` their pd_lsn, uint64 (pages,).

        With `headroom`, so many bytes of `data` come before the pages, and all of it is overwritten: frames are made in
        place, which spares a copy.
        """
        pages = data[headroom:]
        if len(pages) != len(lsns) * self._page_size:
            raise ValueError(f"{len(pages)} bytes with {len(lsns)} LSNs are no whole pages of {self._page_size} bytes")
        place = self._begin_pages(pages, lsns)
        self._add(FrameKind.PAGES, path, first_block, data, self._page_size, headroom)
        return place

    def _begin_pages(self, data: memoryview, lsns: U64) -> tuple[ObjectId, int]:
        place = self._begin(FrameKind.PAGES, len(lsns))
        # Bytes: a pack of one-page files would hold as many arrays, each fifteen times its number.
        self._lsns += np.ascontiguousarray(lsns, "<u8").data
        self._hashes += self._repository.keys.pages(data, self._page_size)
        return place

    def add_blocks(self, path: bytes, blocks: I64, data: memoryview, lsns: U64) -> tuple[ObjectId, int]:
        """Scattered pages of one file: `blocks` (int64, ascending) are their numbers, `data` the pages in order."""
        size = self._page_size
        if len(data) != len(blocks) * size or len(lsns) != len(blocks):
            raise ValueError(f"{len(data)} bytes with {len(lsns)} LSNs are not {len(blocks)} pages of {size} bytes")
        place = self._begin_pages(data, lsns)
        at = 0
        while at < len(blocks):  # a frame at a time, not a run: most runs are of one page
            pending = self._pending[FrameKind.PAGES]
            room = (FRAME_DATA - pending.size) // size
            here = blocks[at : at + room]
            first = first_of_runs(here)
            runs = zip(here[first].tolist(), lengths(first, len(here)).tolist(), strict=True)
            pieces = [Piece(path, start, count) for start, count in runs]
            self._add_pieces(pending, FrameKind.PAGES, pieces, data[at * size : (at + len(here)) * size])
            at += len(here)
        return place

    def add_bytes(
        self, path: bytes, offset: int, data: memoryview, kind: FrameKind = FrameKind.BYTES
    ) -> tuple[ObjectId, int]:
        """A run of bytes of one file (or, as MAPS, of encoded extent maps)."""
        place = self._begin(kind, len(data))
        self._add(kind, path, offset, data, 1)
        return place

    def _begin(self, kind: FrameKind, units: int) -> tuple[ObjectId, int]:
        if units * (self._page_size if kind is FrameKind.PAGES else 1) > MAX_ADD:
            raise ValueError(f"{units} units at once, the limit is {MAX_ADD} bytes")
        if self._is_full(units if kind is FrameKind.PAGES else 0):
            self._close()
        if self._id is None:
            self._id = ObjectId(self._entropy(16))
            self._header = Header(
                ObjectType.PACK, self._repository.id, self._id, microseconds(self._clock),
                pack_specific(self._page_size),
            ).encode()  # fmt: skip
            self._buffer.append(self._header)
        ordinal = self._units[kind]
        self._units[kind] += units
        return self._id, ordinal

    def _is_full(self, pages: int) -> bool:
        return (
            self._stored >= self._target
            or len(self._rows) >= PACK_FRAMES
            or self._units[FrameKind.PAGES] + pages > MAX_PACK_PAGES
        )

    def _add(self, kind: FrameKind, path: bytes, start: int, data: memoryview, unit: int, headroom: int = 0) -> None:
        at = headroom
        while at < len(data):
            pending = self._pending[kind]
            room = (FRAME_DATA - pending.size) // unit * unit
            taken = data[at : at + room]
            at += len(taken)
            piece = Piece(path, start + (at - headroom - len(taken)) // unit, len(taken) // unit)
            self._add_pieces(pending, kind, [piece], taken, data[:at] if headroom else None)

    def _add_pieces(
        self, pending: _Pending, kind: FrameKind, pieces: list[Piece], taken: memoryview,
        ending: memoryview | None = None,
    ) -> None:  # fmt: skip
        """Pieces of one file that the frame has room for, and their bytes, with which `ending` ends (see `_plain`)."""
        pending.pieces += pieces
        pending.table += len(pieces) * (PIECE_LENGTH + len(pieces[0].path))
        # A view of the caller's buffer must not outlive this call: only whole frames are taken from it.
        whole = pending.size + len(taken) >= FRAME_DATA or pending.table >= PIECES_TABLE
        pending.data.append(taken if whole else memoryview(bytes(taken)))
        pending.size += len(taken)
        if whole:
            self._flush(kind, ending)

    def _flush(self, kind: FrameKind, ending: memoryview | None = None) -> None:
        pending = self._pending[kind]
        if not pending.size:
            return
        table = encode_pieces(pending.pieces)
        raw = _plain(table, pending, ending)
        codec, stored = compress(raw, self.level) if self.level is not None else (STORED, bytes(raw))
        plain = self._page_hash(table, pending.size) if kind is FrameKind.PAGES else self._repository.keys.frame(raw)
        self._buffer.append(stored)
        row = FrameRow(kind, codec, len(stored), len(raw), pending.size, stored_hash(stored), plain)
        self._rows.append(row)
        self._stored += len(stored)
        self._pending[kind] = _Pending()

    def _page_hash(self, table: bytes, size: int) -> bytes:
        """The plain hash of the frame that takes the next `size` bytes of pages."""
        end = self._hashed + size // self._page_size * PAGE_HASH_LENGTH
        hashes = self._hashes[self._hashed : end]
        self._hashed = end
        return self._repository.keys.page_frame(table[PIECES_HEAD:], hashes)

    def _close(self) -> None:
        if self._id is None:
            return
        for kind in FrameKind:
            self._flush(kind)
        pages = PageTable(np.frombuffer(bytes(self._lsns), "<u8"), np.frombuffer(bytes(self._hashes), "<u8"))
        ending, place = encode_footer(self._header, self._id, frame_table(self._rows), pages)
        key = names.pack(self._cluster, self._id)
        # Known before it is begun: `discard` must find it, wherever an interrupt comes.
        self.written.append(WrittenPack(self._id, place, len(self._rows)))
        for part in ending:
            self._buffer.append(part)
        if self._thread is None:
            self._put(key, self._buffer)
        else:
            self._await_put()
            self._under_way = self._thread.submit(self._put, key, self._buffer)
        self._reset()

    def _put(self, key: str, buffer: PackBuffer) -> None:
        self._repository.store.put(key, buffer.parts())
        buffer.release()

    def _await_put(self) -> None:
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None

    def discard(self) -> None:
        """Remove the packs that it wrote; what cannot be removed nobody names, and a sweep takes it."""
        with suppress(Fault):
            self._await_put()
        if self._thread is not None:  # a signal may also have come between the handing over and the note of it
            self._thread.shutdown()
        for pack in self.written:
            with suppress(Fault):
                self._repository.store.delete(names.pack(self._cluster, pack.id))

    def finish(self) -> list[WrittenPack]:
        """Make all packs durable; every pack that this writer wrote."""
        self._close()
        self._await_put()
        return self.written
