"""Root manifests as bytes (docs/format/manifest.md).

Encoding takes paths and relations as streams and decoding gives them as streams, a section at a time, so that a
million files need no million objects.  A reader fetches single sections, so `list` reads no paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pgkeep.errors import Damaged
from pgkeep.format.header import Header
from pgkeep.format.keyed import HASH_LENGTH
from pgkeep.format.limits import HEADER_LENGTH, MAX_WAL_SEGMENTS, PATHS_PER_CHUNK
from pgkeep.format.limits import ROWS_PER_CHUNK as ROWS
from pgkeep.format.manifest import (
    Attachment,
    BadPages,
    Collation,
    Database,
    Entry,
    EntryType,
    Inner,
    ManifestInfo,
    Outer,
    Place,
    Relation,
    SeenManifest,
    ServerInfo,
    Tablespace,
    Unit,
    WalNeeds,
)
from pgkeep.format.record import decode_record
from pgkeep.format.root import RootReader, Stream, check_sizes, pack_sections, record_section, row_sections
from pgkeep.format.section import SectionType, StoredSection, decode_directory, encode_section, seal_sections
from pgkeep.values.ids import BackupId, ClusterUuid
from pgkeep.values.wal import is_segment_size

_BLOCK_SIZES: Final = frozenset(1024 << shift for shift in range(6))


def encode_manifest(header: Header, outer: Outer, inner: Inner, entries: Iterable[Entry]) -> list[bytes]:
    """The parts of the manifest object.  `entries` ascend by path.

    ValueError or Damaged for what no reader would accept.
    """
    head = header.encode()
    sections = [
        record_section(SectionType.INFO, outer.info),
        *row_sections(SectionType.SEEN, outer.seen, ROWS, critical=False),
        *pack_sections(outer.packs),
        *_inner_sections(inner, _sound(entries, len(outer.packs), inner.server.block_size)),
    ]
    parts = [head, *seal_sections(head, sections)]
    # A manifest that its readers refuse must fail here.
    check_sizes(decode_directory(parts[1], head, header.object.hex()), header.object.hex())
    return parts


def _sound(entries: Iterable[Entry], packs: int, block_size: int) -> Iterator[Entry]:
    # A backup that cannot be read is worse than one that fails.
    previous = b""
    for entry in entries:
        if problem := entry_problem(entry, previous, packs, block_size):
            raise ValueError(problem)
        previous = entry.path
        yield entry


def _inner_sections(inner: Inner, entries: Iterable[Entry]) -> Iterator[StoredSection]:
    S = SectionType  # noqa: N806
    yield record_section(S.SERVER, inner.server)
    yield encode_section(S.BACKUP_LABEL, inner.backup_label)
    yield encode_section(S.TABLESPACE_MAP, inner.tablespace_map)
    yield record_section(S.WAL_RANGES, inner.wal)
    yield from row_sections(S.BAD_PAGES, inner.bad_pages, ROWS)
    yield from row_sections(S.TABLESPACES, inner.tablespaces, ROWS)
    yield from row_sections(S.DATABASES, inner.databases, ROWS)
    yield from row_sections(S.COLLATIONS, inner.collations, ROWS, critical=False)
    yield from row_sections(S.ATTACHMENTS, inner.attachments, ROWS, critical=False)
    yield from row_sections(S.RELATIONS, inner.relations, ROWS, critical=False)
    yield from row_sections(S.PATHS, entries, PATHS_PER_CHUNK)


@dataclass(frozen=True, slots=True)
class ManifestReader(RootReader):
    """A manifest whose sections are fetched as they are needed; every method raises Damaged and format-unsupported."""

    def info(self) -> ManifestInfo:
        info = decode_record(self.one(SectionType.INFO), ManifestInfo, self.obj)
        try:
            BackupId(info.backup)
            ClusterUuid(info.cluster)
        except ValueError as error:
            raise Damaged(self.obj, f"holds an impossible INFO ({error})") from None
        if not is_segment_size(info.wal_segment_size) or info.start_lsn > info.stop_lsn:
            raise Damaged(self.obj, "holds an impossible INFO (WAL segment size or LSNs)")
        return info

    def outer(self) -> Outer:
        return Outer(self.info(), self.table(SectionType.SEEN, SeenManifest), self.all_packs())

    def inner(self) -> Inner:
        """The inner part but for the paths; its relations are read when they are iterated."""
        S = SectionType  # noqa: N806
        return Inner(
            server=self._server(),
            backup_label=self.one(S.BACKUP_LABEL),
            tablespace_map=self.one(S.TABLESPACE_MAP),
            wal=self._wal(),
            bad_pages=self.table(S.BAD_PAGES, BadPages),
            relations=Stream(self, S.RELATIONS, Relation),
            collations=self.table(S.COLLATIONS, Collation),
            attachments=self.table(S.ATTACHMENTS, Attachment),
            tablespaces=self.table(S.TABLESPACES, Tablespace),
            databases=self.table(S.DATABASES, Database),
        )

    def _server(self) -> ServerInfo:
        server = decode_record(self.one(SectionType.SERVER), ServerInfo, self.obj)
        if server.block_size not in _BLOCK_SIZES or not server.relation_segment_blocks:
            raise Damaged(self.obj, f"holds an impossible block size {server.block_size} or segment size")
        return server

    def _wal(self) -> WalNeeds:
        needs = decode_record(self.one(SectionType.WAL_RANGES), WalNeeds, self.obj)
        for wanted in needs.ranges:
            if not 0 <= wanted.last - wanted.first < MAX_WAL_SEGMENTS:
                raise Damaged(self.obj, f"needs impossible WAL segments {wanted.first} to {wanted.last}")
        return needs

    def entries(self) -> Iterator[Entry]:
        """Every entry, ascending; Damaged for a path that leaves the target, disorder or an impossible place."""
        count = sum(1 for _ in self.packs())
        block_size = self._server().block_size
        previous = b""
        for entry in self.rows(SectionType.PATHS, Entry):
            if problem := entry_problem(entry, previous, count, block_size):
                raise Damaged(self.obj, problem)
            previous = entry.path
            yield entry


def whole_manifest(data: bytes, obj: str) -> ManifestReader:
    """A reader of a manifest in memory, whose header has been checked."""
    view = memoryview(data)
    return ManifestReader.open(data[:HEADER_LENGTH], view[HEADER_LENGTH:], lambda at, n: view[at : at + n], obj)


def entry_problem(entry: Entry, previous: bytes, packs: int, block_size: int) -> str:
    """What makes an entry impossible ('' if nothing does); `previous` is the path before it."""
    shown = entry.path.decode("utf-8", "backslashreplace")
    parts = entry.path.split(b"/")
    if b"" in parts or b"." in parts or b".." in parts or b"\0" in entry.path:
        return f"holds the path {shown!r}, which would leave the target directory"
    if entry.path <= previous:
        return f"holds the path {shown!r} out of order"
    if entry.place is not Place.NONE and not 0 <= entry.pack < packs:
        return f"places {shown!r} in a pack that is not in its table"
    if entry.place is Place.MAP and (len(entry.hash) != HASH_LENGTH or not entry.length):
        return f"names no extent map for {shown!r}"
    if (entry.place is Place.NONE) != (entry.size == 0 or entry.type is not EntryType.FILE):
        return f"does not say where the content of {shown!r} lies"
    if entry.unit is Unit.PAGES and entry.size % block_size:
        return f"holds {shown!r} of {entry.size} bytes, which is no whole number of pages"
    return ""
