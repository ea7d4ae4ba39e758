"""backup_label and tablespace_map as servers write them, byte for byte."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import MakeCluster
from tests.servers import pg_versions

from pgkeep.errors import Fault
from pgkeep.pg.backuplabel import (
    BackupLabel,
    TablespaceLink,
    format_label,
    format_tablespace_map,
    parse_label,
    parse_tablespace_map,
)
from pgkeep.values.lsn import Lsn

TRICKY_LABEL = "it's\nSTART TIMELINE: 9\nLABEL: \\ é"
ODD_NAMES = [
    "plain",
    "with blank",
    'double "quotes"',
    "line\nbreak",
    "carriage\rreturn",
    "back\\slash",
    "end\\",
    " lead",
]


@pg_versions("all")
def test_what_pg_backup_stop_returns(cluster: MakeCluster) -> None:
    server = cluster(wal_segsize=4)
    v14 = server.major == 14
    locations = [server.directory(name) for name in ODD_NAMES]
    for number, location in enumerate(locations):
        spelled = str(location).replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        server.sql(f"CREATE TABLESPACE s{number} LOCATION E'{spelled}'")
    with server.connect() as session:
        start = session.execute(
            b"SELECT pg_start_backup(%s, true, false)::text" if v14 else b"SELECT pg_backup_start(%s, true)::text",
            [TRICKY_LABEL],
        ).fetchone()
        stop = session.execute(
            b"SELECT labelfile, spcmapfile FROM pg_stop_backup(false, false)"
            if v14
            else b"SELECT labelfile, spcmapfile FROM pg_backup_stop(false)"
        ).fetchone()
    assert start is not None
    assert stop is not None
    file, links = stop[0].encode(), stop[1].encode()
    label = parse_label(file)
    assert label.start == Lsn.parse(start[0])
    assert label.start_file == server.value("SELECT pg_walfile_name(%s::pg_lsn)", [start[0]])
    assert (label.label, label.timeline, label.method, label.origin) == (TRICKY_LABEL, 1, "streamed", "primary")
    assert label.checkpoint >= label.start
    assert format_label(label) == file
    mapped = parse_tablespace_map(links)
    theirs = server.sql("SELECT oid::int, pg_tablespace_location(oid) FROM pg_tablespace WHERE oid > 16000 ORDER BY 1")
    assert sorted(mapped) == theirs
    assert {location for _, location in theirs} == {str(location) for location in locations}
    assert format_tablespace_map(mapped) == links


INCREMENTAL = b"""START WAL LOCATION: 0/6000028 (file 000000010000000000000006)
CHECKPOINT LOCATION: 0/6000080
BACKUP METHOD: streamed
BACKUP FROM: standby
START TIME: 2026-05-07 11:29:00 UTC
LABEL: pg_basebackup base backup
START TIMELINE: 3
INCREMENTAL FROM LSN: 0/4000028
INCREMENTAL FROM TLI: 2
"""


def test_an_incremental_label_names_its_base() -> None:
    label = parse_label(INCREMENTAL)
    assert (label.incremental_from, label.incremental_timeline) == (Lsn.parse("0/4000028"), 2)
    assert (label.timeline, label.origin) == (3, "standby")
    assert format_label(label) == INCREMENTAL


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        INCREMENTAL[:-1],
        INCREMENTAL + b"\n",
        INCREMENTAL.replace(b"(file 0", b"(file x"),
        INCREMENTAL.replace(b"0/6000028", b"6000028"),
        INCREMENTAL.replace(b"CHECKPOINT LOCATION: 0/6000080\n", b""),
        INCREMENTAL.replace(b"\n", b"\r\n"),
        INCREMENTAL.replace(b"INCREMENTAL FROM TLI: 2\n", b""),
    ],
)
def test_a_damaged_label_is_refused(damaged: bytes) -> None:
    with pytest.raises(Fault, match="not a backup_label") as caught:
        parse_label(damaged)
    assert caught.value.code == "backup-invalidated"


LSNS = st.integers(0, 2**64 - 1).map(Lsn)
LINES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))


@given(
    st.builds(
        BackupLabel,
        start=LSNS,
        start_file=st.from_regex(r"[0-9A-F]{24}", fullmatch=True),
        checkpoint=LSNS,
        method=LINES,
        origin=LINES,
        start_time=LINES,
        label=st.text(st.characters(exclude_categories=["Cs"])),
        timeline=st.integers(1, 2**32 - 1),
    )
)
def test_labels_come_back(label: BackupLabel) -> None:
    assert parse_label(format_label(label)) == label


@given(
    st.lists(
        st.builds(
            TablespaceLink,
            st.integers(1, 2**32 - 1),
            st.binary(min_size=1).map(lambda b: b.replace(b"\0", b"/").decode("utf-8", "surrogateescape")),
        )
    )
)
def test_maps_come_back(links: list[TablespaceLink]) -> None:
    assert parse_tablespace_map(format_tablespace_map(links)) == tuple(links)


@pytest.mark.parametrize("data", [b"16385 /x", b"16385\n", b"16385 \n", b" /x\n", b"x /x\n", b"16385 /x\\", b"0 /x\n"])
def test_a_damaged_map_is_refused(data: bytes) -> None:
    with pytest.raises(Fault, match="not a tablespace_map") as caught:
        parse_tablespace_map(data)
    assert caught.value.code == "backup-invalidated"


@given(st.binary(max_size=200), st.integers(0, len(INCREMENTAL)), st.integers(0, 40))
def test_any_bytes_are_read_or_refused(data: bytes, at: int, cut: int) -> None:
    spliced = INCREMENTAL[:at] + data + INCREMENTAL[at + cut :]
    for parse, given_bytes in ((parse_label, spliced), (parse_label, data), (parse_tablespace_map, data)):
        try:
            parse(given_bytes)
        except Fault as fault:
            assert fault.code == "backup-invalidated"
    if b"\nLABEL: " in spliced:
        with suppress(Fault):
            assert format_label(parse_label(spliced)) == spliced
