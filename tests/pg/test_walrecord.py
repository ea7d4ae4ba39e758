"""Arithmetic of records; the end of every record must be where pg_waldump finds the next one."""

from __future__ import annotations

import re
from itertools import pairwise

from tests.conftest import MakeCluster

from pgkeep.pg.walrecord import record_end, record_pieces
from pgkeep.values.lsn import Lsn

MIB = 1 << 20


def test_a_record_within_a_page() -> None:
    assert record_pieces(0x1000028, 34, 16 * MIB) == [(0x1000028, 34)]
    assert record_end(0x1000028, 34, 16 * MIB) == Lsn(0x1000050)


def test_headers_are_stepped_over() -> None:
    start = 16 * MIB - 8
    assert record_pieces(start, 9000, 16 * MIB) == [
        (start, 8),
        (16 * MIB + 40, 8192 - 40),
        (16 * MIB + 8192 + 24, 9000 - 8 - 8152),
    ]


def test_a_record_that_fills_its_page_ends_at_the_border() -> None:
    assert record_end(0x2000 - 32, 30, 16 * MIB) == Lsn(0x2000)


def test_each_end_is_the_next_records_start(cluster: MakeCluster) -> None:
    """Against pg_waldump, over segment borders and records of many pages."""
    made = cluster(wal_segsize=1)
    start = str(made.value("SELECT pg_current_wal_insert_lsn()"))
    made.sql("CREATE TABLE t AS SELECT i, repeat('x', i % 2000) AS x FROM generate_series(1, 1500) AS i")
    made.sql("SELECT pg_logical_emit_message(false, 'big', repeat('y', 2500000))")
    end = str(made.value("SELECT pg_current_wal_insert_lsn()"))
    made.sql("SELECT pg_switch_wal()")
    output = made.programs.run("pg_waldump", f"--path={made.datadir / 'pg_wal'}", f"--start={start}", f"--end={end}")
    found = [
        (Lsn.parse(lsn), int(length))
        for length, lsn in re.findall(r"rec/tot\): +\d+/ *(\d+), tx: +\d+, lsn: (\S+),", output.text())
    ]
    assert max(length for _, length in found) > 2 * MIB and len(found) > 1500
    for (lsn, length), (after, _) in pairwise(found):
        at = record_end(lsn, length, MIB)
        header = (40 if at % MIB == 0 else 24) if at % 8192 == 0 else 0
        assert at + header == after
