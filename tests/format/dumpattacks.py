"""What a hostile repository may hold in the place of a dump's manifest, each with every hash right (`attacks`)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

import zstandard

from pgkeep.format.dump import (
    Dumped,
    DumpedDatabase,
    DumpInfo,
    Member,
    MemberExtent,
    encode_dump,
    member_sections,
    whole_dump,
)
from pgkeep.format.keyed import HASH_LENGTH
from pgkeep.format.limits import MAX_MEMBERS, MAX_ROWS, MAX_SECTION
from pgkeep.format.section import CRITICAL, SectionType
from tests.format.forge import Forged, forge_block, reseal
from tests.format.samples import BACKUP, CLUSTER
from tests.format.test_header import HEADER
from tests.format.test_manifestcodec import pack_ref

HEAD = HEADER.encode()
S = SectionType
Attack = Callable[[], object]
INFO = DumpInfo(
    dump=BACKUP, name="shop", cluster=CLUSTER, cluster_name="main", writer="pgkeep 0.1", host="db1", label="",
    started="2026-05-07T11:29:00+00:00", stopped="2026-05-07T11:30:00+00:00", system_id=7, server_version=170011,
    format="directory", compression="zstd:3", tool_version=180001, every_database=False, whole=True,
    role_passwords=True, databases=1, source_bytes=1 << 30, logical_bytes=3, stored_bytes=1000, members=1,
)  # fmt: skip
DUMPED = Dumped(
    databases=[DumpedDatabase(name=b"shop", prefix=b"shop/", size=1 << 30, encoding="UTF8")], options=[],
    tool="pg_dump (PostgreSQL) 18.1",
)  # fmt: skip
MEMBER = Member(
    name=b"shop/toc.dat", size=3, hash=bytes(HASH_LENGTH), extents=[MemberExtent(pack=0, at=0, count=3)]
)  # fmt: skip
DUMP = b"".join(encode_dump(HEADER, INFO, [pack_ref(0)], DUMPED, member_sections([MEMBER])))
SECTIONS = (S.INFO, S.PACKS, S.LIVE, S.DUMPED, S.MEMBERS)


def read_dump(data: bytes, obj: str) -> None:
    """Everything that a reader of a dump's manifest may ask for."""
    reader = whole_dump(data, obj)
    reader.info()
    reader.dumped()
    for _ in reader.members():
        pass


def forged(sections: Sequence[tuple[SectionType, bytes]]) -> bytes:
    """The dump with sections of these types replaced by compressed ones."""
    directory = whole_dump(DUMP, "x").directory
    block = DUMP[512:]
    replaced = {type_ for type_, _ in sections}
    kept = [
        Forged(row.number | CRITICAL, block[row.offset : row.end], row.codec, 0, row.raw_length)
        for row in directory.rows
        if row.number not in replaced
    ]
    new = [Forged(type_ | CRITICAL, zstandard.compress(data, 1), 1, raw_length=len(data)) for type_, data in sections]
    return HEAD + forge_block(HEAD, [*kept, *new])


def _member(name: bytes, extents: bytes) -> bytes:
    """A row as it is encoded; `extents` is an array."""
    return b"\x94\xc4" + bytes([len(name)]) + name + b"\x00\xc4\x10" + bytes(16) + extents


def dump_attacks(bombs: dict[str, bytes], obj: str) -> Iterator[tuple[str, Attack]]:
    def reading(data: bytes) -> Attack:
        return lambda: read_dump(data, obj)

    for type_ in (S.INFO, S.DUMPED, S.MEMBERS):
        for name, bomb in bombs.items():
            yield f"{name} in {type_.name} of a dump", reading(reseal(DUMP, type_, bomb))
        yield f"zstd bomb in {type_.name} of a dump", reading(forged([(type_, bytes(MAX_SECTION))]))
    for type_ in (S.INFO, S.DUMPED):
        section = (type_, DUMP[:10])
        yield f"{type_.name} of a dump twice", reading(forged([section, section]))
    # Rows of extents, one byte a number: as many as fit, and more than fit.
    extent, count = b"\x93\x00\x00\x01", MAX_MEMBERS // 4 - 100
    many = b"\x91" + _member(b"a", b"\xdd" + struct.pack(">I", count) + extent * count)
    yield "as many extents as fit", reading(forged([(S.MEMBERS, many)]))
    more = b"\x91" + _member(b"a", b"\xdd" + struct.pack(">I", 2 * count) + extent * (2 * count))
    yield "more extents than fit", reading(forged([(S.MEMBERS, more)]))
    rows = b"\xdd" + struct.pack(">I", MAX_ROWS) + _member(b"/", b"\x90") * MAX_ROWS
    yield "members upon members", reading(forged([(S.MEMBERS, rows)] * 200))
    for path in (b"..", b"/etc", b"a/../b", b"a\0b", b""):
        yield f"a member named {path!r}", reading(forged([(S.MEMBERS, b"\x91" + _member(path, b"\x90"))]))
