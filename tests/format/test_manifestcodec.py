"""Manifests: what goes in comes out, whatever the entries; what no reader would accept is not written."""

from __future__ import annotations

from dataclasses import replace as replace_value

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pgkeep.errors import Damaged, Fault
from pgkeep.format.limits import HEADER_LENGTH, MAX_FRAMES, PACKS_PER_CHUNK, PATHS_PER_CHUNK
from pgkeep.format.manifest import Entry, EntryType, Inner, Outer, PackRef, Place, SeenManifest, Unit, WalRange
from pgkeep.format.manifestcodec import ManifestReader, encode_manifest, whole_manifest
from pgkeep.format.record import encode_record
from pgkeep.format.section import SectionType, directory_length
from pgkeep.format.tail import FooterPlace
from pgkeep.values.ids import ObjectId
from tests.format.forge import Forged, forge_block, reseal
from tests.format.samples import INFO, INNER, SERVER, entries
from tests.format.test_header import HEADER

PACKS = 3


def pack_ref(number: int, frames: int = 9) -> PackRef:
    place = FooterPlace(10_000 + number, 9000, 1000 + number - 88, 200, 300, bytes([number % 256]) * 32)
    return PackRef(ObjectId(number.to_bytes(16, "big")), place, frames, bytes([number % 256]) * ((frames + 7) // 8))


OUTER = Outer(INFO, [SeenManifest(backup=INFO.backup, hash=b"d" * 32)], [pack_ref(i) for i in range(PACKS)])


def encoded(outer: Outer = OUTER, inner: Inner = INNER, rows: list[Entry] | None = None) -> bytes:
    return b"".join(encode_manifest(HEADER, outer, inner, entries() if rows is None else rows))


def plain(inner: Inner) -> Inner:
    return replace_value(inner, relations=list(inner.relations))


part = st.binary(min_size=1, max_size=6).filter(lambda b: b not in (b".", b"..") and b"/" not in b and b"\0" not in b)
path = st.lists(part, min_size=1, max_size=4).map(b"/".join)


@st.composite
def entry(draw: st.DrawFn) -> Entry:
    type_ = draw(st.sampled_from(EntryType))
    mode = draw(st.integers(0, 0o7777))
    unit = draw(st.sampled_from(Unit))
    size = draw(st.integers(0, 1 << 36)) * (8192 if unit is Unit.PAGES else 1)
    if type_ is not EntryType.FILE or not size:
        return Entry(path=draw(path), type=type_, mode=mode, size=0, unit=unit)
    pack, at = draw(st.integers(0, PACKS - 1)), draw(st.integers(0, 1 << 40))
    inline = Entry(
        path=draw(path), type=type_, mode=mode, size=size, unit=unit, place=Place.INLINE, pack=pack, at=at,
        hash=draw(st.just(b"") | st.binary(min_size=16, max_size=16)),
    )  # fmt: skip
    if draw(st.booleans()):
        return inline
    digest = draw(st.binary(min_size=16, max_size=16))
    return replace(inline, place=Place.MAP, length=draw(st.integers(1, 1 << 20)), hash=digest)


@given(st.lists(entry(), max_size=20, unique_by=lambda e: e.path).map(lambda rows: sorted(rows, key=lambda e: e.path)))
def test_manifests_come_back(rows: list[Entry]) -> None:
    reader = whole_manifest(encoded(rows=rows), "x")
    assert reader.outer() == OUTER
    assert plain(reader.inner()) == INNER
    assert list(reader.entries()) == rows


def test_relations_can_be_read_again() -> None:
    relations = whole_manifest(encoded(), "x").inner().relations
    assert list(relations) == list(relations) == INNER.relations


def test_large_tables_are_cut_into_sections() -> None:
    rows = [Entry(path=b"d%06d" % i, type=EntryType.DIRECTORY, mode=0o700, size=0) for i in range(PATHS_PER_CHUNK + 1)]
    packs = [pack_ref(i, frames=i % 20) for i in range(PACKS_PER_CHUNK + 1)]
    reader = whole_manifest(encoded(Outer(INFO, [], packs), rows=rows), "x")
    for type_ in (SectionType.PATHS, SectionType.PACKS, SectionType.LIVE):
        assert len(reader.directory.of(type_)) == 2
    assert list(reader.entries()) == rows
    assert reader.outer().packs == packs


def test_a_list_fetches_no_paths() -> None:
    data = encoded()
    fetched: list[tuple[int, int]] = []

    def fetch(at: int, length: int) -> bytes:
        fetched.append((at, length))
        return data[at : at + length]

    block = data[HEADER_LENGTH:]
    directory = block[: directory_length(block, "x")]
    reader = ManifestReader.open(data[:HEADER_LENGTH], directory, fetch, "x")
    assert reader.info() == INFO
    row = reader.directory.of(SectionType.INFO)[0]
    assert fetched == [(HEADER_LENGTH + row.offset, row.stored_length)]


WAL = INNER.wal
FILE = Entry(path=b"f", type=EntryType.FILE, mode=0o600, size=8192, unit=Unit.PAGES, place=Place.INLINE, pack=0, at=0)
IMPOSSIBLE = [
    replace(FILE, path=b"/etc/passwd"),
    replace(FILE, path=b"../f"),
    replace(FILE, path=b"base/../../f"),
    replace(FILE, path=b"base//f"),
    replace(FILE, path=b"base/."),
    replace(FILE, path=b"f/"),
    replace(FILE, path=b"nul\0"),
    replace(FILE, pack=PACKS),
    replace(FILE, pack=-1),
    replace(FILE, place=Place.NONE),
    replace(FILE, size=0),
    replace(FILE, type=EntryType.DIRECTORY),
    replace(FILE, size=8191),
    replace(FILE, place=Place.MAP),
    replace(FILE, place=Place.MAP, hash=b"h" * 16),
]
OUT_OF_RANGE = [
    replace(FILE, path=b""),
    replace(FILE, path=b"p" * 4097),
    replace(FILE, size=-8192),
    replace(FILE, size=1 << 51),
    replace(FILE, mode=0o10000),
    replace(FILE, mode=-1),
    replace(FILE, at=-1),
    replace(FILE, at=(1 << 40) + 1),
    replace(FILE, pack=1 << 31),
    replace(FILE, place=Place.MAP, hash=b"h" * 16, length=1 << 40),
    replace(FILE, hash=b"h" * 17),
]


@pytest.mark.parametrize("bad", IMPOSSIBLE + OUT_OF_RANGE)
def test_impossible_entries_are_not_written(bad: Entry) -> None:
    with pytest.raises((ValueError, Damaged)):
        encoded(rows=[bad])


def test_impossible_records_are_not_written() -> None:
    for outer, inner in (
        (Outer(replace(INFO, timeline=0), [], []), INNER),
        (OUTER, replace_value(INNER, server=replace(SERVER, block_size=-1))),
        (OUTER, replace_value(INNER, wal=replace(WAL, ranges=[WalRange(timeline=0, first=0, last=0)]))),
    ):
        with pytest.raises(Damaged):
            encoded(outer, inner)


@pytest.mark.parametrize("bad", IMPOSSIBLE + OUT_OF_RANGE)
def test_impossible_entries_are_damage(bad: Entry) -> None:
    with pytest.raises(Damaged, match="the-manifest"):
        list(whole_manifest(forged(SectionType.PATHS, encode_record([bad])), "the-manifest").entries())


@pytest.mark.parametrize("second", [b"b", b"a", b"b/../b"])
def test_entries_ascend(second: bytes) -> None:
    rows = [replace(FILE, path=b"b"), replace(FILE, path=second)]
    with pytest.raises(ValueError, match=r"order|leave"):
        encoded(rows=rows)
    with pytest.raises(Damaged):
        list(whole_manifest(forged(SectionType.PATHS, encode_record(rows)), "x").entries())


def forged(type_: SectionType, content: bytes) -> bytes:
    return reseal(encoded(), type_, content)


@pytest.mark.parametrize(
    ("type_", "content"),
    [
        (SectionType.INFO, encode_record(replace(INFO, backup="../../etc"))),
        (SectionType.INFO, encode_record(replace(INFO, cluster="main"))),
        (SectionType.INFO, encode_record(replace(INFO, wal_segment_size=0))),
        (SectionType.INFO, encode_record(replace(INFO, start_lsn=-1))),
        (SectionType.INFO, encode_record(replace(INFO, start_lsn=INFO.stop_lsn + 1))),
        (SectionType.INFO, encode_record(replace(INFO, timeline=0))),
        (SectionType.SERVER, encode_record(replace(SERVER, block_size=0))),
        (SectionType.SERVER, encode_record(replace(SERVER, block_size=5000))),
        (SectionType.SERVER, encode_record(replace(SERVER, relation_segment_blocks=0))),
        (SectionType.WAL_RANGES, encode_record(replace(WAL, ranges=[WalRange(timeline=1, first=1, last=0)]))),
        (SectionType.WAL_RANGES, encode_record(replace(WAL, ranges=[WalRange(timeline=1, first=0, last=1 << 40)]))),
        (SectionType.WAL_RANGES, encode_record(replace(WAL, ranges=[WalRange(timeline=0, first=0, last=0)]))),
        (SectionType.PACKS, b""),
        (SectionType.PACKS, b"\xff\xff\xff\xff"),
        (SectionType.PACKS, bytes(4)),
        (SectionType.LIVE, b""),
        (SectionType.LIVE, bytes(100)),
    ],
)
def test_impossible_sections_are_damage(type_: SectionType, content: bytes) -> None:
    reader = whole_manifest(forged(type_, content), "the-manifest")
    with pytest.raises(Damaged, match="the-manifest"):
        reader.outer(), reader.inner()


@pytest.mark.parametrize(
    "bad",
    [
        pack_ref(0, frames=MAX_FRAMES + 8),
        replace_value(pack_ref(0), footer=replace_value(pack_ref(0).footer, offset=10)),
        replace_value(pack_ref(0), footer=replace_value(pack_ref(0).footer, lsns_end=301)),
        replace_value(pack_ref(0), footer=replace_value(pack_ref(0).footer, object_length=3 << 30)),
    ],
)
def test_impossible_packs_are_damage(bad: PackRef) -> None:
    with pytest.raises(Damaged, match="pack"):
        whole_manifest(encoded(Outer(INFO, [], [bad]), rows=[]), "x").outer()


def test_flags_of_a_newer_version_are_refused() -> None:
    content = bytearray(4 + 84)
    content[0] = 1
    content[-4] = 2
    with pytest.raises(Fault) as caught:
        whole_manifest(reseal(forged(SectionType.PACKS, bytes(content)), SectionType.LIVE, b""), "x").outer()
    assert caught.value.code == "format-unsupported"


@pytest.mark.parametrize("type_", [SectionType.INFO, SectionType.SERVER, SectionType.WAL_RANGES])
def test_a_missing_section_is_named(type_: SectionType) -> None:
    data = encoded()
    # Its number becomes one that nobody knows, not critical.
    with pytest.raises(Damaged, match=type_.name):
        reader = whole_manifest(_renumbered(data, type_), "x")
        reader.outer(), reader.inner()


def _renumbered(data: bytes, type_: SectionType) -> bytes:
    rows = whole_manifest(data, "x").directory.rows
    block = data[HEADER_LENGTH:]
    sections = [
        Forged(9999 if r.number == type_ else r.number, block[r.offset : r.end], r.codec, 0, r.raw_length) for r in rows
    ]
    return data[:HEADER_LENGTH] + forge_block(data[:HEADER_LENGTH], sections)
