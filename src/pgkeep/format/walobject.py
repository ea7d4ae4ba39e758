"""A WAL object as a whole: header, frames of the file's bytes in order, footer, tail (docs/format/wal.md).

It has a pack's form, so that a reader may fetch a range of it.  `wal push` and `wal get` do one object each: no numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pgkeep.errors import Damaged
from pgkeep.format.codec import compress, decompress
from pgkeep.format.frame import FrameKind, Piece, encode_pieces, split_frame
from pgkeep.format.framerow import FrameRow, decode_frame_rows, encode_frame_rows
from pgkeep.format.header import Header, WalIdentity
from pgkeep.format.keyed import HashKeys, stored_hash
from pgkeep.format.limits import FRAME_DATA, HEADER_LENGTH, MAX_WAL_TEXT, TAIL_LENGTH
from pgkeep.format.section import SectionType, encode_section, read_sections
from pgkeep.format.tail import FooterPlace, close_object, decode_tail, footer_directory
from pgkeep.values.wal import MAX_SEGMENT_SIZE

Fill = Callable[[int, memoryview], None]
"""Fills the memory with a file's bytes from that position on."""


@dataclass(frozen=True, slots=True)
class WalFrames:
    """What a WAL file becomes before its object's header is known."""

    length: int
    stored: list[bytes]
    rows: list[FrameRow]
    content_hash: bytes
    """Keyed, of the whole file: what the header's identity must say."""


def _most(identity: WalIdentity) -> int:
    """Bytes that the content of such an object may have."""
    return min(max(identity.segment_size, MAX_WAL_TEXT), MAX_SEGMENT_SIZE)


def encode_wal(header: Header, name: str, content: bytes | memoryview, keys: HashKeys, level: int) -> list[bytes]:
    """The parts of the object that holds `content`, the bytes of the WAL file `name`."""
    view = memoryview(content)

    def fill(at: int, memory: memoryview) -> None:
        memory[:] = view[at : at + len(memory)]

    return close_wal(header, encode_frames(name, len(view), fill, keys, level))


def encode_frames(name: str, length: int, fill: Fill, keys: HashKeys, level: int) -> WalFrames:
    """The frames of the WAL file `name` of `length` bytes, read once and piece by piece: each is still in the nearest
    cache while it is hashed, compressed and hashed again."""
    rows: list[FrameRow] = []
    frames: list[bytes] = []
    content = keys.wal_hasher()
    table = len(encode_pieces([Piece(name.encode(), 0, 0)]))
    memory = memoryview(bytearray(table + min(FRAME_DATA, length)))
    for at in range(0, length, FRAME_DATA):
        raw = memory[: table + min(FRAME_DATA, length - at)]
        data = raw[table:]
        raw[:table] = encode_pieces([Piece(name.encode(), at, len(data))])
        fill(at, data)
        content.update(data)
        codec, stored = compress(raw, level)
        digests = stored_hash(stored), keys.frame(raw)
        rows.append(FrameRow(FrameKind.WAL, codec, len(stored), len(raw), len(data), *digests))
        frames.append(stored)
    return WalFrames(length, frames, rows, content.digest())


def close_wal(header: Header, frames: WalFrames) -> list[bytes]:
    """The parts of the object that holds these frames of a WAL file."""
    if frames.length > _most(WalIdentity.decode(header.specific)):
        raise ValueError(f"{frames.length} bytes of WAL, which no reader would accept")
    head = header.encode()
    table = encode_section(SectionType.FRAMES, encode_frame_rows(frames.rows))
    end = HEADER_LENGTH + sum(map(len, frames.stored))
    ending, _ = close_object(head, end, [table], 0, header.object)
    return [head, *frames.stored, *ending]


def decode_wal(data: bytes, header: Header, keys: HashKeys, obj: str) -> bytes:
    """The content of a whole object whose `header` has been checked: every hash is verified, else Damaged."""
    identity = WalIdentity.decode(header.specific)
    place = decode_tail(data[-TAIL_LENGTH:], len(data), header.object, obj)
    view = memoryview(data)
    rows = decode_rows(view[place.offset : place.offset + place.length], header, place, obj)
    content = b"".join(decode_frames(view[HEADER_LENGTH : place.offset], rows, keys, obj))
    if keys.wal(content) != identity.content_hash:
        raise Damaged(obj, "holds other WAL than its header says")
    return content


def decode_pieces_of(data: bytes, header: Header, obj: str) -> Iterator[memoryview]:
    """The content of a whole object, frame by frame; only the hashes of the stored bytes are verified.  Damaged."""
    place = decode_tail(data[-TAIL_LENGTH:], len(data), header.object, obj)
    view = memoryview(data)
    rows = decode_rows(view[place.offset : place.offset + place.length], header, place, obj)
    yield from decode_frames(view[HEADER_LENGTH : place.offset], rows, None, obj)


def decode_rows(footer: memoryview, header: Header, place: FooterPlace, obj: str) -> list[FrameRow]:
    """The frames of an object, from its footer; together they have the length that the header says.  Damaged."""
    head = header.encode()
    footer_directory(footer, head, place, obj)
    sections = read_sections(footer, head, obj, [SectionType.FRAMES])
    rows = decode_frame_rows(next(sections).content, obj)
    for _ in sections:  # their hashes are verified on the way
        pass
    # Before anything is decompressed, so that a forged table cannot make it more than the header says.
    length, identity = sum(row.data_length for row in rows), WalIdentity.decode(header.specific)
    if length != identity.length or length > _most(identity):
        raise Damaged(obj, f"has frames of {length} bytes, its header says {identity.length}")
    if HEADER_LENGTH + sum(row.stored_length for row in rows) != place.offset:
        raise Damaged(obj, f"its frames do not end at byte {place.offset}, where the footer begins")
    return rows


def decode_frames(
    stored: memoryview, rows: Sequence[FrameRow], keys: HashKeys | None, obj: str
) -> Iterator[memoryview]:
    """The WAL bytes of the first frames of an object, which lie back to back in `stored`.  Damaged.

    Without `keys` only the hashes of the stored bytes are verified: damage is found all the same, and a third of the
    time saved; that a writer stored what it had read is then not proven again.
    """
    at = 0
    for index, row in enumerate(rows):
        piece = stored[at : at + row.stored_length]
        at += row.stored_length
        if row.kind is not FrameKind.WAL or stored_hash(piece) != row.stored_hash:
            raise Damaged(obj, f"frame {index} is damaged (its hash is wrong)")
        raw = decompress(row.codec, piece, row.raw_length, f"{obj} frame {index}")
        if keys is not None and keys.frame(raw) != row.plain_hash:
            raise Damaged(obj, f"frame {index} holds other content than was written (its keyed hash is wrong)")
        data = split_frame(raw, obj)[1]
        if len(data) != row.data_length:
            raise Damaged(obj, f"frame {index} holds {len(data)} bytes of WAL, expected {row.data_length}")
        yield data
