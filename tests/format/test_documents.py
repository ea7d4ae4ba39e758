"""docs/format/ says what the code does: offsets, numbers, limits, names of fields, keys."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import msgspec
import pytest

from pgkeep.format import (
    deletion,
    dump,
    framerow,
    header,
    limits,
    manifest,
    moves,
    names,
    objects,
    root,
    section,
    tail,
    windex,
)
from pgkeep.format.frame import FrameKind
from pgkeep.format.header import ObjectType
from pgkeep.format.record import Record
from pgkeep.format.section import REPEATABLE, SectionType
from pgkeep.values.ids import DumpId, ObjectId
from pgkeep.values.lsn import Lsn
from tests.format.samples import BACKUP, CLUSTER

DOCS = Path(__file__).parents[2] / "docs" / "format"
Table = list[list[str]]


def tables(name: str) -> list[Table]:
    """Every table of a page, without its heading rows, cells stripped."""
    found: list[Table] = []
    rows: Table = []
    for line in [*(DOCS / name).read_text().splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            found.append(rows[2:])
            rows = []
    return found


def layout(table: Table) -> list[tuple[int, int]]:
    return [(int(row[0]), int(row[1])) for row in table]


def fields(structure: struct.Struct) -> list[tuple[int, int]]:
    """(offset, length) of each field of a packed layout."""
    found = []
    at = 0
    for count, code in re.findall(r"(\d*)([sxHBIQ])", structure.format):
        for _ in range(1 if code in "sx" else int(count or 1)):
            length = int(count or 1) if code in "sx" else struct.calcsize(f"<{code}")
            found.append((at, length))
            at += length
    return found


def test_the_header() -> None:
    table = layout(tables("header.md")[0])
    assert table == [*fields(header._LAYOUT), (480, 32)]
    assert table[-1][0] + table[-1][1] == limits.HEADER_LENGTH
    signature = next(row for row in tables("header.md")[0] if row[2] == "signature")
    assert (int(signature[0]), int(signature[1])) == (header.SIGNATURE_AT, header.SIGNATURE_LENGTH)


def test_the_specific_areas() -> None:
    rows = tables("header.md")[1]
    wal = [(int(row[1]) - 320, int(row[2])) for row in rows if row[0] == "WAL_*"]
    assert wal == fields(header._WAL)
    assert [row[1:3] for row in rows if row[0] == "PACK"] == [["320", "4"]]


def test_directories() -> None:
    head, row = tables("sections.md")[:2]
    assert layout(head) == fields(section._HEAD)
    assert layout(row) == fields(section._ROW)


def test_section_numbers() -> None:
    written, reserved = tables("sections.md")[2:4]
    assert {row[1]: int(row[0]) for row in written} == {t.name: int(t) for t in SectionType}
    assert {row[1] for row in written if row[5] == "yes"} == {t.name for t in REPEATABLE}
    assert not {int(row[0]) for row in reserved} & {int(t) for t in SectionType}


def test_object_types() -> None:
    assert {row[1]: int(row[0]) for row in tables("layout.md")[0]} == {t.name: int(t) for t in ObjectType}


@pytest.mark.parametrize(
    ("type_", "key"),
    [
        (ObjectType.REPOSITORY, names.REPOSITORY),
        (ObjectType.INCARNATION, names.incarnation(CLUSTER, 7)),
        (ObjectType.PACK, names.pack(CLUSTER, ObjectId(bytes(16)))),
        (ObjectType.MANIFEST, names.backup(CLUSTER, BACKUP)),
        (ObjectType.WAL_SEGMENT, names.wal_file(CLUSTER, 7, "0000000A0000000B0000000C")),
        (ObjectType.WAL_PARTIAL, names.partial(CLUSTER, 7, "0000000A0000000B0000000C", Lsn(255))),
        (ObjectType.WAL_BACKUP_LABEL, names.wal_file(CLUSTER, 7, "0000000A0000000B0000000C.00000028.backup")),
        (ObjectType.WAL_HISTORY, names.history(CLUSTER, 7, 10)),
        (ObjectType.WAL_INDEX, names.wal_index(CLUSTER, 7, "0000000A0000000B0000000C")),
        (ObjectType.MOVES, names.moves(CLUSTER, ObjectId(bytes(16)))),
        (ObjectType.LEASE, names.lease(CLUSTER, ObjectId(bytes(16)), 12)),
        (ObjectType.RETIRED, names.retired(CLUSTER, BACKUP)),
        (ObjectType.CONDEMNED, names.condemned(CLUSTER, ObjectId(bytes(16)))),
        (ObjectType.PIN, names.pin(CLUSTER, BACKUP, ObjectId(bytes(16)))),
        (ObjectType.DAMAGED, names.damaged(CLUSTER, ObjectId(bytes(16)))),
        (ObjectType.PRUNED, names.pruned_record(CLUSTER, ObjectId(bytes(16)))),
        (ObjectType.DUMP, names.dump(CLUSTER, DumpId(BACKUP))),
        (ObjectType.FEATURE, names.feature("deletion.read")),
        (ObjectType.WAL_CLAIM, names.claim(CLUSTER, 7, 10, 0)),
        (ObjectType.WAL_CLAIM, names.claim(CLUSTER, 7, 10, 2).removesuffix(".2")),
    ],
)
def test_keys(type_: ObjectType, key: str) -> None:
    forms = {
        "<cluster>": re.escape(CLUSTER), "<sysid>": "7", "<tli>": "0000000A", "<log>": "0000000B",
        "<segment>": "0000000A0000000B0000000C", "<pack id>": "0{32}", "<id>": "0{32}",
        "<n>": "0000000012", "<name>": "deletion", "<backup id>": re.escape(BACKUP), "<dump id>": re.escape(BACKUP),
        "<flush lsn>": "00000000000000FF", "<offset>": "00000028",
    }  # fmt: skip
    row = next(row for row in tables("layout.md")[0] if row[1] == type_.name)
    match = re.search(r"`([^`]+)`", row[2])
    assert match is not None
    pattern = match[1].replace(".", r"\.")
    for form, meaning in forms.items():
        pattern = pattern.replace(form, meaning)
    assert re.fullmatch(pattern, key), (pattern, key)


def test_frame_kinds() -> None:
    assert {row[1]: int(row[0]) for row in tables("frame.md")[2]} == {k.name: int(k) for k in FrameKind}


def test_frame_tables_and_tails() -> None:
    columns, tail_rows = tables("pack.md")[1:3]
    assert sum(int(row[0]) for row in columns) == framerow.ROW_LENGTH
    assert layout(tail_rows) == fields(tail._LAYOUT)
    order = [row[0] for row in tables("pack.md")[0]]
    assert order == ["PAGE_LSNS", "FRAMES", "PAGE_HASHES"]


def test_pack_tables() -> None:
    rows = next(table for table in tables("manifest.md") if table[0][:2] == ["0", "16"])
    assert layout(rows) == fields(root.PACK_ROW)


def test_limits() -> None:
    documented = {row[0]: int(row[1]) for row in tables("limits.md")[0]}
    assert documented == {name: getattr(limits, name) for name in dir(limits) if name.isupper()}


RECORDS = [
    *(("manifest.md", getattr(manifest, name)) for name in (
        "ManifestInfo", "SeenManifest", "ServerInfo", "WalNeeds", "WalRange", "Entry", "BadPages", "Relation",
        "Collation", "Attachment", "Tablespace", "Database",
    )),
    *(("objects.md", getattr(objects, name)) for name in (
        "RepositoryInfo", "ClearKeys", "IncarnationInfo", "ClaimInfo",
    )),
    *(("objects.md", getattr(deletion, name)) for name in (
        "FeatureInfo", "LeaseInfo", "RetiredInfo", "CondemnedInfo", "PinInfo", "PinWindow", "DamagedInfo",
        "PrunedInfo", "PrunedRange",
    )),
    *(("dumps.md", getattr(dump, name)) for name in (
        "DumpInfo", "Dumped", "DumpedDatabase", "Member", "MemberExtent",
    )),
    ("objects.md", moves.MovesInfo),
    *(("objects.md", getattr(windex, name)) for name in (
        "WalIndexInfo", "IndexedSegment", "IndexedPoint", "IndexedTablespace",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("page", "record"), RECORDS, ids=lambda value: getattr(value, "__name__", value))
def test_fields_of_records(page: str, record: type[Record]) -> None:
    """All of them, in their order: in records that are arrays the order is the format."""
    text = (DOCS / page).read_text()
    part = re.split(rf"^#+ .*\b{record.__name__}\b.*$", text, flags=re.MULTILINE)[1]
    rows = re.search(r"((?:^\|.*\n)+)", part, re.MULTILINE)
    assert rows is not None
    documented = [line.split("|")[1].strip() for line in rows[1].splitlines()[2:]]
    assert documented == [field.name for field in msgspec.structs.fields(record)]


def test_which_records_are_arrays() -> None:
    text = (DOCS / "records.md").read_text()
    arrays = {record.__name__ for _, record in RECORDS if record.__struct_config__.array_like}
    listed = re.search(r"positions are permanent: ([^.]+)\.", text)
    assert listed is not None
    assert {name.strip() for name in listed[1].replace("\n", " ").split(",")} == arrays


def test_links_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([a-z-]+\.md)\)", page.read_text()):
            assert (DOCS / target).exists(), f"{page.name}: {target}"
