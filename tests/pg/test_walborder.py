"""Where the first record behind a segment's border lies, checked with pg_waldump."""

from __future__ import annotations

from tests.conftest import MakeCluster
from tests.servers import pg_versions

from pgkeep.pg.walborder import first_record
from pgkeep.pg.walrecord import WAL_PAGE
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment

MIB = 1 << 20


@pg_versions("oldest", "newest")
def test_every_border_of_a_busy_server(cluster: MakeCluster) -> None:
    server = cluster(wal_segsize=1, wal_level="logical", wal_keep_size="'1GB'")
    server.sql("SELECT pg_switch_wal()")
    first = Lsn.parse(server.value("SELECT pg_current_wal_lsn()::text")) // MIB + 1
    server.sql("CREATE TABLE t AS SELECT n, repeat('x', 100) FROM generate_series(1, 30000) n")
    server.sql("SELECT pg_logical_emit_message(false, 'pgkeep', repeat('m', 3 * 1048576 + 5))")
    server.switch_wal()
    server.sql("SELECT pg_switch_wal()")
    last = Lsn.parse(server.value("SELECT pg_current_wal_lsn()::text")) // MIB
    server.stop()
    wal = server.datadir / "pg_wal"
    crossing = 0
    for number in range(first, last):
        segment = Segment(1, number)
        with (wal / segment.name(MIB)).open("rb") as file:
            found = first_record(file.read(WAL_PAGE), segment.start(MIB), MIB)
        dumped = server.programs.run(
            "pg_waldump", f"--path={wal}", f"--start={segment.start(MIB)}", "--limit=1", check=False
        ).text()
        told = Lsn.parse(dumped.split("lsn: ")[1].split(",")[0])
        # Without a record that goes on here, ours is the border itself; then the record lies behind the page's header.
        assert told == (found + 40 if found == segment.start(MIB) else found + 24 * (found % WAL_PAGE == 0))
        crossing += found > segment.end(MIB)
    assert crossing >= 2  # the long message fills whole segments
