"""What a hostile repository may hold, each with every hash right; run by test_survival in a process of its own.

An attack is a function that makes the reader read; it must end in a Fault that names the object 'the-object'.
"""

from __future__ import annotations

import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

import zstandard

from pgkeep.errors import Fault
from pgkeep.format.codec import decompress, decompress_into
from pgkeep.format.extents import decode_extents
from pgkeep.format.footer import decode_footer, decode_lsns
from pgkeep.format.frame import decode_pieces, split_frame
from pgkeep.format.header import WalIdentity
from pgkeep.format.keyed import HashKeys
from pgkeep.format.limits import MAX_EXTENTS, MAX_RECORDS, MAX_ROWS, MAX_SECTION, MAX_TABLES
from pgkeep.format.manifest import Outer
from pgkeep.format.manifestcodec import encode_manifest, whole_manifest
from pgkeep.format.objects import ClaimInfo, decode_info
from pgkeep.format.section import CRITICAL, SectionType
from pgkeep.format.tail import decode_tail
from pgkeep.format.walobject import decode_wal
from tests.format.dumpattacks import dump_attacks
from tests.format.forge import Forged, forge_block, forge_tail, reseal
from tests.format.samples import INFO, INNER, entries
from tests.format.test_header import HEADER
from tests.format.test_manifestcodec import pack_ref

OBJ = "the-object"
HEAD = HEADER.encode()
S = SectionType
Attack = Callable[[], object]


def packed(content: bytes) -> bytes:
    return zstandard.compress(content, 1)


def read_all(data: bytes) -> None:
    """Everything that a reader of a manifest may ask for."""
    reader = whole_manifest(data, OBJ)
    reader.outer()
    inner = reader.inner()
    for stream in (inner.relations, reader.entries()):
        for _ in stream:
            pass


MANIFEST = b"".join(encode_manifest(HEADER, Outer(INFO, [], [pack_ref(0)]), INNER, entries()))


def in_section(type_: SectionType, content: bytes) -> Attack:
    return lambda: read_all(reseal(MANIFEST, type_, content))


def in_packed_section(type_: SectionType, content: bytes, raw_length: int | None = None) -> Attack:
    """The manifest with its section replaced by one that is compressed."""

    def attack() -> None:
        directory = whole_manifest(MANIFEST, OBJ).directory
        block = MANIFEST[512:]
        length = len(content) if raw_length is None else raw_length
        sections = [
            Forged(type_ | CRITICAL, packed(content), 1, 0, length)
            if row.number == type_
            else Forged(row.number, block[row.offset : row.end], row.codec, 0, row.raw_length)
            for row in directory.rows
        ]
        read_all(HEAD + forge_block(HEAD, sections))

    return attack


RECORDS = [S.INFO, S.SERVER, S.WAL_RANGES]
TABLES = [S.PATHS, S.RELATIONS, S.BAD_PAGES, S.DATABASES, S.TABLESPACES, S.COLLATIONS, S.ATTACHMENTS]
BOMBS = {
    "array32": b"\xdd\xff\xff\xff\xff",
    "array32 of arrays": b"\xdd\xff\xff\xff\xff" * 1000,
    "map32": b"\xdf\xff\xff\xff\xff",
    "bin32": b"\xc6\xff\xff\xff\xff",
    "ext32": b"\xc9\xff\xff\xff\xff\x00",
    "deep arrays": b"\x91" * 2_000_000,
    "deep maps": b"\x81\xa1x" * 1_000_000,
    "deep in an unknown field": b"\x81\xa7unknown" + b"\x91" * 2_000_000,
    "no MessagePack": b"\xc1" * 100,
    "nothing": b"",
    "nil": b"\xc0",
    "many rows": b"\xdd" + struct.pack(">I", MAX_ROWS) + b"\x90" * MAX_ROWS,
}


def manifest_attacks() -> Iterator[tuple[str, Attack]]:
    for type_ in RECORDS + TABLES:
        for name, bomb in BOMBS.items():
            yield f"{name} in {type_.name}", in_section(type_, bomb)
    for type_ in [*RECORDS, *TABLES, S.PACKS, S.LIVE]:
        yield f"zstd bomb in {type_.name}", in_packed_section(type_, bytes(MAX_SECTION))
        yield f"zstd bomb beyond its length in {type_.name}", in_packed_section(type_, bytes(MAX_SECTION), 10)
    yield "as many blocks as fit", in_packed_section(S.BAD_PAGES, b"\x91" + _bad_pages(MAX_RECORDS - 100, b"\xff"))
    yield "a million sections of bad pages", many_sections(S.BAD_PAGES, b"\x91" + _bad_pages(1 << 20, b"\x07"), 200)
    yield "rows upon rows", many_sections(S.COLLATIONS, _rows(b"\x94\xc4\x00\xc4\x00\xa0\xa0"), 50)
    yield "packs upon packs", many_sections(S.PACKS, struct.pack("<I", 1 << 19) + bytes(84 << 19), 3)
    yield "live upon live", many_sections(S.LIVE, bytes(MAX_SECTION), 300)
    for count, length in ((1 << 16, 1 << 62), (1 << 31, 96), ((1 << 32) - 1, 1 << 30)):
        directory = struct.pack("<8sIIQQ64x", b"PGKSECT\n", count, 0, length, 0)
        yield f"a directory of {count} sections", partial(read_all, HEAD + directory)
    for length in (MAX_SECTION + 1, (1 << 64) - 1, 1 << 62):
        long = Forged(S.INFO, b"", stored_length=length)
        yield f"a section of {length} bytes", partial(read_all, HEAD + forge_block(HEAD, [long]))
        long = Forged(S.INFO, packed(b"x"), 1, raw_length=length)
        yield f"plain content of {length} bytes", partial(read_all, HEAD + forge_block(HEAD, [long]))
    for type_ in (S.INFO, S.SERVER, S.WAL_RANGES, S.BACKUP_LABEL, S.TABLESPACE_MAP):
        yield f"{type_.name} twice", doubled(type_)


def _bad_pages(count: int, block: bytes) -> bytes:
    return b"\x82\xa4path\xc4\x01p\xa6blocks\xdd" + struct.pack(">I", count) + block * count


def _rows(row: bytes) -> bytes:
    return b"\xdd" + struct.pack(">I", MAX_ROWS) + row * MAX_ROWS


def many_sections(type_: SectionType, content: bytes, times: int) -> Attack:
    def attack() -> None:
        directory = whole_manifest(MANIFEST, OBJ).directory
        block = MANIFEST[512:]
        kept = [
            Forged(row.number, block[row.offset : row.end], row.codec, 0, row.raw_length)
            for row in directory.rows
            if row.number != type_
        ]
        bomb = Forged(type_, packed(content), 1, raw_length=len(content))
        read_all(HEAD + forge_block(HEAD, [*kept, *([bomb] * times)]))

    return attack


def doubled(type_: SectionType) -> Attack:
    row = whole_manifest(MANIFEST, OBJ).directory.one(type_, OBJ)
    section = Forged(type_, MANIFEST[512 + row.offset : 512 + row.end], row.codec, 0, row.raw_length)
    return lambda: read_all(HEAD + forge_block(HEAD, [section, section]))


def small_object(sections: list[Forged]) -> Attack:
    return lambda: decode_info(HEAD + forge_block(HEAD, sections), ClaimInfo, OBJ)


def object_attacks() -> Iterator[tuple[str, Attack]]:
    for name, bomb in BOMBS.items():
        yield f"{name} in a claim", small_object([Forged(S.INFO, bomb)])
    zeros = packed(bytes(MAX_SECTION))
    every = [Forged(type_, zeros, 1, raw_length=MAX_SECTION) for type_ in S]
    yield "a claim with a bomb in every section", small_object(every)
    yield "a claim without INFO", small_object([])
    yield (
        "an extent map of most extents",
        lambda: decode_extents(
            struct.pack("<4sHHIIQ", b"PGKM", 1, 0, 0, MAX_EXTENTS, 0) + bytes(16 * MAX_EXTENTS), OBJ
        ),
    )
    yield (
        "an extent map of 2**32 extents",
        lambda: decode_extents(struct.pack("<4sHHIIQ", b"PGKM", 1, 0, (1 << 32) - 1, (1 << 32) - 1, 0), OBJ),
    )
    yield (
        "a frame that is one table",
        lambda: decode_pieces(split_frame(struct.pack("<I", 256 << 10) + bytes(256 << 10), OBJ)[0], OBJ),
    )
    yield "zstd without a length", lambda: decompress(1, zstandard.ZstdCompressor().compressobj().compress(b""), 9, OBJ)
    huge = zstandard.ZstdCompressor(write_content_size=True).compressobj(size=1 << 40)
    start = huge.compress(b"x" * 100_000) + huge.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    yield "zstd that says a terabyte", lambda: decompress(1, start, 1 << 20, OBJ)
    two = packed(b"x" * 10) + packed(b"y" * 10)
    yield "two zstd frames", lambda: decompress(1, two, 10, OBJ)
    yield "zstd of nothing", lambda: decompress(1, b"", 10, OBJ)
    for what, stored in (("of nothing", b""), ("that says a terabyte", start), ("cut off", packed(b"x" * 1000)[:-5])):
        yield f"zstd in place {what}", partial(decompress_into, stored, memoryview(bytearray(1000)), OBJ)


def footer_of(sections: list[Forged], frames_end: int, lsns_end: int) -> Attack:
    def attack() -> None:
        footer = forge_block(HEAD, sections)
        tail = forge_tail(footer, 512, lsns_end, frames_end, HEADER.object)
        place = decode_tail(tail, 512 + len(footer) + 88, HEADER.object, OBJ)
        decode_lsns(footer, place, OBJ)
        decode_footer(footer, HEAD, place, 8192, OBJ, lsns=True, hashes=True)

    return attack


def footer_attacks() -> Iterator[tuple[str, Attack]]:
    rows = 1 << 18
    lengths = struct.pack("<I", 16) * rows
    table = struct.pack("<I", rows) + b"\x01" * rows + b"\0" * rows + lengths * 3 + bytes(32 * rows)
    bomb, zeros = packed(table), packed(bytes(MAX_SECTION))
    start = 96 + 64 * 3
    sections = [
        Forged(S.PAGE_LSNS, zeros, 1, raw_length=MAX_SECTION),
        Forged(S.FRAMES | CRITICAL, bomb, 1, raw_length=len(table)),
        Forged(S.PAGE_HASHES, zeros, 1, raw_length=MAX_SECTION),
    ]
    ends = start + len(zeros), start + len(zeros) + len(bomb)
    yield "the largest footer", footer_of(sections, ends[1], ends[0])
    tiny = packed(bytes(1 << 20))
    few = [Forged(S.PAGE_LSNS, tiny, 1, raw_length=1 << 20), Forged(S.FRAMES | CRITICAL, struct.pack("<I", 0))]
    yield "more LSNs than pages", footer_of(few, 224 + len(tiny) + 4, 224 + len(tiny))
    yield "no frame table", footer_of([], 96, 96)
    yield "lengths that lie", footer_of(few, 300, 250)


def wal_attacks() -> Iterator[tuple[str, Attack]]:
    keys = HashKeys(b"k" * 32)
    for rows, length in ((1 << 18, 1 << 30), (1 << 12, 1 << 30), (64, 16 << 20)):
        raw = struct.pack("<I", 0) + bytes(256 << 10)
        stored = packed(raw)
        columns = [(len(stored)), len(raw), 256 << 10]
        table = struct.pack("<I", rows) + b"\x04" * rows + b"\x01" * rows
        table += b"".join(struct.pack("<I", value) * rows for value in columns)
        from pgkeep.format.keyed import stored_hash

        table += stored_hash(stored) * rows + keys.frame(raw) * rows
        identity = WalIdentity(7, 0, 16 << 20, 1, length, bytes(32))
        header = replace(HEADER, specific=identity.encode())
        head = header.encode()
        small = packed(table)
        footer = forge_block(head, [Forged(S.FRAMES | CRITICAL, small, 1, raw_length=len(table))])
        frames = stored * rows if rows < 1 << 18 else b""
        tail = forge_tail(footer, 512 + len(frames), 160, 160 + len(small), HEADER.object)
        data = head + frames + footer + tail
        yield f"WAL of {rows} frames that says {length} bytes", partial(decode_wal, data, header, keys, OBJ)


def attacks() -> dict[str, Attack]:
    found = [*manifest_attacks(), *object_attacks(), *footer_attacks(), *wal_attacks()]
    return dict([*found, *dump_attacks(BOMBS, OBJ)])


def burdens() -> None:
    """The most that a manifest may make its reader hold: it is believed, and costs memory."""
    in_packed_section(S.BAD_PAGES, b"\x91" + _bad_pages(MAX_RECORDS - 1000, b"\x07"))()
    sections = MAX_TABLES // (5 + 7 * MAX_ROWS)
    with suppress(Fault):  # it stops at MAX_TABLE_ROWS
        many_sections(S.COLLATIONS, _rows(b"\x94\xc4\x00\xc4\x00\xa0\xa0"), sections)()


def run(name: str, attack: Attack, seconds: float) -> str:
    """What is wrong with how the reader took it ('' if nothing is)."""
    begun = time.process_time()  # a busy machine is no attack
    try:
        attack()
    except Fault as fault:
        if OBJ not in fault.message or OBJ not in str(fault.context.get("object", "")):
            return f"{name}: does not name the object: {fault.message} {fault.context}"
    except BaseException as error:
        return f"{name}: {error!r}"
    else:
        return f"{name}: was believed"
    taken = time.process_time() - begun
    return f"{name}: took {taken:.1f} s" if taken > seconds else ""


def main() -> int:
    """One attack after the other under a limit of memory; prints what went wrong, and the most memory used."""
    megabytes, seconds = int(sys.argv[1]), float(sys.argv[2])
    problems = [problem for name, attack in attacks().items() if (problem := run(name, attack, seconds))]
    burdens()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    if used > megabytes:
        problems.append(f"used {used} MB")
    print("\n".join(problems) or f"{len(attacks())} attacks survived in {used} MB")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
