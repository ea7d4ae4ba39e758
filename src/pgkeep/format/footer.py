"""The footer of a pack: frame table and page table (docs/format/pack.md); its tail is in `tail`.

The tables are columns, not rows: they compress better and numpy reads them without a loop.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Damaged
from pgkeep.format.frame import FrameKind
from pgkeep.format.framerow import ROW_LENGTH, FrameRow
from pgkeep.format.keyed import HASH_LENGTH, PAGE_HASH_LENGTH
from pgkeep.format.limits import (
    HEADER_LENGTH,
    MAX_FRAME_DATA,
    MAX_FRAME_RAW,
    MAX_FRAME_STORED,
    MAX_FRAMES,
    MAX_OBJECT,
    MAX_PACK_PAGES,
    MAX_PIECES_TABLE,
)
from pgkeep.format.section import SectionType, StoredSection, encode_section, open_section
from pgkeep.format.tail import FooterPlace, close_object, footer_directory
from pgkeep.values.ids import ObjectId

_COUNT: Final = struct.Struct("<I")

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class FrameTable:
    """One row a frame, as columns of length n; byte lengths in bytes."""

    kind: U8
    codec: U8
    stored_length: U32
    raw_length: U32
    data_length: U32
    stored_hash: U8
    """Shape (n, 16): BLAKE3-128 of the stored bytes."""
    plain_hash: U8
    """Shape (n, 16): keyed hash of the plain bytes."""
    offset: I64
    """Where each frame begins in the object; follows from the lengths."""

    def __len__(self) -> int:
        return len(self.kind)

    def joins(self, frame: int, after: int) -> bool:
        """Whether `frame` lies directly behind the frame `after` in the same object, so that one read fetches both."""
        return frame == after + 1

    def distances(self, frames: I64) -> I64:
        """For each of these ascending frames but the first: how many bytes lie between the one before and it; negative
        where they do not lie behind one another in the same object.
        """
        return self.offset[frames[1:]] - self.offset[frames[:-1]] - self.stored_length[frames[:-1]]

    def rows(self, first: int, last: int) -> list[FrameRow]:
        """The rows `first` to `last`, both inclusive, as Python's own numbers: to take them one by one from the columns
        costs ten times as much.
        """
        return self.rows_of(slice(first, last + 1))

    def rows_of(self, part: slice | I64) -> list[FrameRow]:
        """As `rows`, for any frames."""
        return list(
            map(
                FrameRow,
                self.kind[part].tolist(),
                self.codec[part].tolist(),
                self.stored_length[part].tolist(),
                self.raw_length[part].tolist(),
                self.data_length[part].tolist(),
                _split(self.stored_hash[part]),
                _split(self.plain_hash[part]),
            )
        )

    def end(self) -> int:
        """The first byte after the last frame = where the footer begins."""
        return int(self.offset[-1] + self.stored_length[-1]) if len(self) else HEADER_LENGTH

    def unit_ends(self, kind: FrameKind, page_size: int) -> I64:
        """For each frame the ordinal after its last unit in `kind`'s address space.

        Frames of other kinds repeat the value before them, so `searchsorted(unit_ends, ordinal, side='right')`
        is the frame that holds `ordinal`.
        """
        size = page_size if kind is FrameKind.PAGES else 1
        units = np.where(self.kind == kind, self.data_length // size, 0)
        return np.cumsum(units, dtype=np.int64)


def frame_table(rows: list[FrameRow]) -> FrameTable:
    """The table of frames that lie back to back behind the header."""
    n = len(rows)
    stored = np.fromiter((row.stored_length for row in rows), np.uint32, n)
    return FrameTable(
        np.fromiter((row.kind for row in rows), np.uint8, n),
        np.fromiter((row.codec for row in rows), np.uint8, n),
        stored,
        np.fromiter((row.raw_length for row in rows), np.uint32, n),
        np.fromiter((row.data_length for row in rows), np.uint32, n),
        _hashes(b"".join(row.stored_hash for row in rows), n),
        _hashes(b"".join(row.plain_hash for row in rows), n),
        _offsets(stored),
    )


def _split(hashes: U8) -> list[bytes]:
    data = hashes.tobytes()
    return [data[at : at + HASH_LENGTH] for at in range(0, len(data), HASH_LENGTH)]


def _hashes(data: bytes, n: int) -> U8:
    return np.frombuffer(data, np.uint8).reshape(n, HASH_LENGTH)


def _offsets(stored: U32) -> I64:
    ends = np.cumsum(stored, dtype=np.int64)
    return HEADER_LENGTH + ends - stored


def encode_frame_table(table: FrameTable) -> bytes:
    return b"".join((
        _COUNT.pack(len(table)), table.kind.tobytes(), table.codec.tobytes(), table.stored_length.tobytes(),
        table.raw_length.tobytes(), table.data_length.tobytes(), table.stored_hash.tobytes(),
        table.plain_hash.tobytes(),
    ))  # fmt: skip


def decode_frame_table(content: bytes, obj: str) -> FrameTable:
    """Damaged unless the lengths are possible."""
    n = _COUNT.unpack_from(content)[0] if len(content) >= 4 else -1
    if not 0 <= n <= MAX_FRAMES or len(content) != 4 + n * ROW_LENGTH:
        raise Damaged(obj, f"frame table of {len(content)} bytes cannot hold its {n} rows")
    at = 4

    def column(dtype: type[np.generic], width: int) -> npt.NDArray[np.generic]:
        nonlocal at
        values = np.frombuffer(content, dtype, n * width // np.dtype(dtype).itemsize, at)
        at += n * width
        return values

    kind, codec = column(np.uint8, 1), column(np.uint8, 1)
    stored, raw, data = column(np.uint32, 4), column(np.uint32, 4), column(np.uint32, 4)
    plain_at = at + n * HASH_LENGTH
    table = FrameTable(
        kind.astype(np.uint8), codec.astype(np.uint8), stored.astype(np.uint32), raw.astype(np.uint32),
        data.astype(np.uint32), _hashes(content[at:plain_at], n), _hashes(content[plain_at:], n),
        _offsets(stored.astype(np.uint32)),
    )  # fmt: skip
    if n and not _is_possible(table):
        raise Damaged(obj, "frame table with impossible lengths or kinds")
    return table


def _is_possible(table: FrameTable) -> bool:
    # A kind that this version does not know takes part in no address space that it reads.
    overhead = table.raw_length.astype(np.int64) - table.data_length
    return (
        int(table.stored_length.max()) <= MAX_FRAME_STORED
        and int(table.raw_length.max()) <= MAX_FRAME_RAW
        and int(table.data_length.max()) <= MAX_FRAME_DATA
        and int(overhead.min()) >= 4
        and int(overhead.max()) <= 4 + MAX_PIECES_TABLE
        and int(table.kind.min()) > 0
        and table.end() <= MAX_OBJECT
    )


@dataclass(frozen=True, slots=True, eq=False)
class PageTable:
    """One row a stored page, in the order of page ordinals: LSN (uint64) and 64-bit keyed hash (uint64)."""

    lsn: U64
    hash: U64


def encode_page_lsns(lsns: U64) -> bytes:
    """Differences to the row before (modulo 2**64), as eight byte planes, least significant first."""
    deltas = np.diff(lsns, prepend=np.uint64(0))
    return np.ascontiguousarray(deltas.astype("<u8").view(np.uint8).reshape(-1, 8).T).tobytes()


def decode_page_lsns(content: bytes, n: int, obj: str) -> U64:
    if len(content) != n * 8:
        raise Damaged(obj, f"page table holds {len(content) // 8} LSNs for {n} pages")
    planes = np.frombuffer(content, np.uint8).reshape(8, n)
    deltas = np.ascontiguousarray(planes.T).view("<u8").reshape(n)
    return np.cumsum(deltas, dtype=np.uint64)


def decode_page_hashes(content: bytes, n: int, obj: str) -> U64:
    if len(content) != n * PAGE_HASH_LENGTH:
        raise Damaged(obj, f"page table holds {len(content) // PAGE_HASH_LENGTH} hashes for {n} pages")
    return np.frombuffer(content, "<u8")


def encode_footer(
    header: bytes, object_id: ObjectId, table: FrameTable, pages: PageTable | None, *behind: StoredSection
) -> tuple[list[bytes], FooterPlace]:
    """The parts that follow the frames (sections, then the tail), and where the footer lies.

    `behind` are further sections of a pack, which only those who know them read.
    """
    frames = encode_section(SectionType.FRAMES, encode_frame_table(table))
    if pages is None:
        return close_object(header, table.end(), [frames], 0, object_id)
    # PAGE_LSNS comes first, so that one range read from the footer's beginning is all that the mode `lsn` needs.
    lsns = encode_section(SectionType.PAGE_LSNS, encode_page_lsns(pages.lsn), critical=False)
    hashes = pages.hash.astype("<u8").tobytes()
    page_hashes = encode_section(SectionType.PAGE_HASHES, hashes, critical=False, packed=False)
    return close_object(header, table.end(), [lsns, frames, page_hashes, *behind], 1, object_id)


@dataclass(frozen=True, slots=True, eq=False)
class Footer:
    """A decoded footer.  The page columns are None when they were not asked for (or are not there)."""

    frames: FrameTable
    lsns: U64 | None
    hashes: U64 | None


def footer_prefix(place: FooterPlace, *, hashes: bool = False) -> int:
    """How many bytes of the footer `decode_footer` needs, from its beginning."""
    return place.length if hashes else place.frames_end


def decode_footer(
    body: bytes | memoryview,
    header: bytes | None,
    place: FooterPlace,
    page_size: int,
    obj: str,
    *,
    lsns: bool = False,
    hashes: bool = False,
) -> Footer:
    """Read the first `footer_prefix` bytes of a footer whose place is known from the tail or a manifest.

    `header` may be None where `place` comes from a manifest.
    """
    view = memoryview(body)
    directory = footer_directory(view, header, place, obj)

    def content(type_: SectionType) -> bytes | None:
        row = next(iter(directory.of(type_)), None)
        return None if row is None else open_section(row, view[row.offset : row.end], obj)

    table = decode_frame_table(content(SectionType.FRAMES) or b"", obj)
    if table.end() != place.offset:
        raise Damaged(obj, f"frames end at byte {table.end()}, the footer begins at {place.offset}")
    n = _count_pages(table, page_size, obj)
    lsn_content = content(SectionType.PAGE_LSNS) if lsns else None
    hash_content = content(SectionType.PAGE_HASHES) if hashes else None
    return Footer(
        table,
        None if lsn_content is None else decode_page_lsns(lsn_content, n, obj),
        None if hash_content is None else decode_page_hashes(hash_content, n, obj),
    )


def _count_pages(table: FrameTable, page_size: int, obj: str) -> int:
    lengths = table.data_length[table.kind == FrameKind.PAGES].astype(np.int64)
    n = int(lengths.sum()) // page_size
    if bool((lengths % page_size).any()) or n > MAX_PACK_PAGES:
        raise Damaged(obj, f"its frames do not hold whole pages of {page_size} bytes, {MAX_PACK_PAGES} at most")
    return n


def decode_lsns(body: bytes | memoryview, place: FooterPlace, obj: str) -> U64:
    """The LSN column alone, from the first `place.lsns_end` bytes of a footer that a manifest names; Damaged."""
    view = memoryview(body)
    row = footer_directory(view, None, place, obj).one(SectionType.PAGE_LSNS, obj)
    if row.raw_length > 8 * MAX_PACK_PAGES:
        raise Damaged(obj, f"page table of {row.raw_length // 8} pages, the limit is {MAX_PACK_PAGES}")
    return decode_page_lsns(open_section(row, view[row.offset : row.end], obj), row.raw_length // 8, obj)
