"""What the manifest of a logical dump says: its presence is the dump (docs/format/dumps.md).  And its bytes.

1. It is a root as a backup's manifest is (`root`): INFO, PACKS and LIVE are all that sweeps and lists need.
2. The content lies in packs as BYTES; a member says of its content in which packs and where.  Members come in the
   order in which they were ended, so that reading all of them reads each pack once, or a few together.
3. A member's name is a relative path that stays below where it is put: writers and readers check it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Final

import msgspec

from pgkeep.errors import Damaged
from pgkeep.format.header import Header
from pgkeep.format.keyed import HASH_LENGTH
from pgkeep.format.limits import HEADER_LENGTH, MAX_MEMBERS, MAX_PATH, MEMBERS_PER_CHUNK
from pgkeep.format.manifest import PackRef
from pgkeep.format.record import Length, Natural, Ordinal, Record, Small, decode_record
from pgkeep.format.root import RootReader, check_sizes, pack_sections, record_section, row_sections
from pgkeep.format.section import Directory, SectionType, StoredSection, decode_directory, seal_sections
from pgkeep.values.ids import ClusterUuid, DumpId

GLOBALS: Final = b"globals.sql"
"""The member that holds roles, tablespaces and their settings."""
FORMATS: Final = ("directory", "custom", "plain")
_PLAIN: Final = re.compile(rb"[A-Za-z0-9_-]")


class DumpInfo(Record, frozen=True, kw_only=True):
    """INFO: what a list of dumps shows.  Times are ISO 8601 in UTC by the server's clock, sizes bytes."""

    dump: str
    name: Annotated[str, msgspec.Meta(min_length=1)]
    """Of the set to which it belongs: what is kept is counted by set."""
    cluster: str
    cluster_name: str
    writer: str
    host: str
    label: str
    started: str
    """Before the snapshot was taken."""
    stopped: str
    system_id: Natural
    server_version: Small
    format: str
    """One of FORMATS."""
    compression: str
    """As pg_dump's --compress names it: 'zstd:3', 'gzip', 'none' ..."""
    tool_version: Small
    """Of pg_dump, as server_version_num."""
    every_database: bool
    """Whether every database was taken (--all)."""
    whole: bool
    """Whether nothing of its databases was left out by options."""
    role_passwords: bool
    """Whether the globals hold them: who cannot read pg_authid saves roles without."""
    databases: Natural
    source_bytes: Natural
    """What the databases took on the server."""
    logical_bytes: Natural
    """Sum of all members' lengths."""
    stored_bytes: Natural
    """Bytes of its packs."""
    members: Natural


class DumpedDatabase(Record, frozen=True, kw_only=True):
    """A database in a dump, and what a new one would need to take it in; names as the server has them."""

    name: bytes
    prefix: bytes
    """Begins the names of its members; empty, or ends in '/'."""
    size: Natural
    """pg_database_size(), bytes."""
    encoding: str
    provider: str = "c"
    """datlocprovider."""
    collate: str = ""
    ctype: str = ""
    locale: str = ""
    """Of ICU or of the builtin provider."""
    icu_rules: str = ""


class Dumped(Record, frozen=True, kw_only=True):
    """DUMPED: what was dumped and how."""

    databases: list[DumpedDatabase]
    options: list[str]
    """Those of pg_dump that decide what is in it and in what form, as they were given to it."""
    tool: str
    """What pg_dump says of itself."""


class MemberExtent(Record, frozen=True, kw_only=True, array_like=True):
    """A run of a member's bytes: `count` of them from ordinal `at` of the BYTES of a pack."""

    pack: Small
    """Index in PACKS."""
    at: Ordinal
    count: Annotated[int, msgspec.Meta(ge=1)]


class Member(Record, frozen=True, kw_only=True, array_like=True):
    """A file of the dump."""

    name: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_PATH)]
    size: Length
    hash: Annotated[bytes, msgspec.Meta(min_length=HASH_LENGTH, max_length=HASH_LENGTH)]
    """HashKeys.file of its content."""
    extents: list[MemberExtent]


def quoted_name(database: bytes) -> bytes:
    """A database's name as one part of a path, whatever bytes it has; no two names give the same."""
    return b"".join(byte if _PLAIN.match(byte) else b"%%%02X" % byte[0] for byte in _bytes_of(database))


def _bytes_of(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def name_problem(name: bytes) -> str:
    """Why a member cannot be called so; '' when it can."""
    parts = name.split(b"/")
    shown = name.decode("utf-8", "backslashreplace")
    if b"" in parts or b"." in parts or b".." in parts or b"\0" in name:
        return f"holds the member {shown!r}, which would leave the directory that it is put into"
    return f"holds a member whose name has {len(name)} bytes" if len(name) > MAX_PATH else ""


def member_problem(member: Member, packs: int) -> str:
    """What makes a member impossible; '' when nothing does."""
    if problem := name_problem(member.name):
        return problem
    shown = member.name.decode("utf-8", "backslashreplace")
    if sum(extent.count for extent in member.extents) != member.size:
        return f"does not say where all {member.size} bytes of {shown!r} lie"
    if any(extent.pack >= packs for extent in member.extents):
        return f"places {shown!r} in a pack that is not in its table"
    return ""


def member_sections(members: Iterable[Member]) -> Iterator[StoredSection]:
    """The table of members, a section for every few thousand of them."""
    return row_sections(SectionType.MEMBERS, members, MEMBERS_PER_CHUNK)


def encode_dump(
    header: Header, info: DumpInfo, packs: Sequence[PackRef], dumped: Dumped, members: Iterable[StoredSection]
) -> list[bytes]:
    """The parts of the manifest object; `members` are `member_sections`.  Damaged for what no reader would accept."""
    head = header.encode()
    sections = [
        record_section(SectionType.INFO, info),
        *pack_sections(packs),
        record_section(SectionType.DUMPED, dumped),
        *members,
    ]
    parts = [head, *seal_sections(head, sections)]
    obj = header.object.hex()
    directory = decode_directory(parts[1], head, obj)
    check_sizes(directory, obj)
    _check_members(directory, obj)
    return parts


def _check_members(directory: Directory, obj: str) -> None:
    longest = max((row.raw_length for row in directory.of(SectionType.MEMBERS)), default=0)
    if longest > MAX_MEMBERS:
        raise Damaged(obj, f"holds a table of members of {longest} bytes, the limit is {MAX_MEMBERS}")


class DumpManifest(RootReader):
    """A dump's manifest whose sections are fetched as they are needed; Damaged, format-unsupported."""

    __slots__ = ()

    def info(self) -> DumpInfo:
        info = decode_record(self.one(SectionType.INFO), DumpInfo, self.obj)
        try:
            DumpId(info.dump)
            ClusterUuid(info.cluster)
        except ValueError as error:
            raise Damaged(self.obj, f"holds an impossible INFO ({error})") from None
        return info

    def dumped(self) -> Dumped:
        return decode_record(self.one(SectionType.DUMPED), Dumped, self.obj)

    def members(self) -> Iterator[Member]:
        """Every member, in the order in which they lie in the packs; Damaged for one that cannot be."""
        _check_members(self.directory, self.obj)
        count = sum(1 for _ in self.packs())
        for member in self.rows(SectionType.MEMBERS, Member):
            if problem := member_problem(member, count):
                raise Damaged(self.obj, problem)
            yield member


def whole_dump(data: bytes, obj: str) -> DumpManifest:
    """A reader of a manifest in memory, whose header has been checked."""
    view = memoryview(data)
    return DumpManifest.open(data[:HEADER_LENGTH], view[HEADER_LENGTH:], lambda at, n: view[at : at + n], obj)
