"""Facts, names and backups over SQL, asked of real servers of the oldest and the newest version."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest
from tests.clusters import Cluster
from tests.conftest import MakeCluster, MakeStandby
from tests.requirements import need
from tests.servers import pg_versions

from pgkeep.errors import Fault
from pgkeep.pg import instance
from pgkeep.pg.inventory import Database
from pgkeep.pg.server import Server, connect
from pgkeep.values.lsn import Lsn
from pgkeep.values.xid import XidSnapshot

ENDS = pg_versions("oldest", "newest")


def database_named(server: Server, name: str) -> Database:
    return next(database for database in server.databases() if database.name == name)


@pg_versions("all")
def test_facts(shared_cluster: Cluster) -> None:
    with connect(shared_cluster.conninfo) as server:
        facts = server.facts()
    control = shared_cluster.programs.run("pg_controldata", shared_cluster.datadir, account=shared_cluster.account)
    said = dict(line.split(":", 1) for line in control.text().splitlines() if ":" in line)
    assert facts.system_identifier == int(said["Database system identifier"])
    assert facts.catalog_version == int(said["Catalog version number"])
    assert facts.wal_segment_size == int(said["Bytes per WAL segment"]) == 16 << 20
    assert facts.relation_segment_blocks == int(said["Blocks per segment of large relation"])
    assert (facts.block_size, facts.wal_block_size) == (8192, 8192)
    assert facts.major == shared_cluster.major
    assert facts.data_directory == str(shared_cluster.datadir)
    assert facts.data_checksums and facts.data_checksum_version == 1
    assert (facts.wal_level, facts.archive_mode, facts.encoding) == ("logical", "off", "UTF8")
    assert (facts.timeline, facts.in_recovery, facts.full_page_writes) == (1, False, True)
    assert facts.external_config_files == ()
    assert facts.max_prepared_transactions == 5
    assert abs(datetime.now(UTC) - facts.postmaster_started).total_seconds() < 3600


def test_facts_of_an_unusual_cluster(cluster: MakeCluster) -> None:
    made = cluster(start=False, checksums=False, wal_segsize=1, wal_log_hints="on", full_page_writes="off")
    elsewhere = made.directory("etc") / "more.conf"
    elsewhere.write_text("archive_timeout = '2min'\ntimezone = 'Europe/Athens'\n")
    elsewhere.chmod(0o644)
    made.configure(include=f"'{elsewhere}'")
    made.start()
    with connect(made.conninfo) as server:
        facts = server.facts()
    assert not facts.data_checksums and facts.data_checksum_version == 0
    assert facts.wal_log_hints and not facts.full_page_writes
    assert facts.wal_segment_size == 1 << 20
    assert facts.archive_timeout == 120
    assert facts.timezone == "Europe/Athens"
    assert facts.external_config_files == (str(elsewhere),)


def test_a_role_with_few_rights_is_told_the_grant(shared_cluster: Cluster) -> None:
    shared_cluster.sql('DROP ROLE IF EXISTS "no body"')
    shared_cluster.sql('CREATE ROLE "no body" LOGIN')
    with connect(shared_cluster.instance.conninfo(user="no body")) as server:
        with pytest.raises(Fault) as caught:
            server.facts()
        assert caught.value.code == "postgres-rights"
        assert 'GRANT pg_read_all_settings TO "no body";' in caught.value.hint
        with pytest.raises(Fault) as caught:
            server.backup_start("x", fast=True)
        assert caught.value.code == "postgres-rights"
        shared_cluster.sql('GRANT pg_read_all_settings TO "no body"')
        assert server.facts().role == "no body"


@ENDS
def test_backup_start_and_stop(cluster: MakeCluster) -> None:
    made = cluster()
    space = made.directory("space with\nnewline")
    made.sql(f"CREATE TABLESPACE apart LOCATION '{space}'")
    with connect(made.conninfo, "pgkeep backup") as server:
        before = server.identity()
        started = server.backup_start("pgkeep 20260507T112900Z-3f9a01c7", fast=True)
        assert made.value("SELECT application_name FROM pg_stat_activity WHERE pid = %s", [before.backend_pid]) == (
            "pgkeep backup"
        )
        assert made.value("SELECT state FROM pg_stat_activity WHERE pid = %s", [before.backend_pid]) == "idle"
        server.check_same(before)
        stopped = server.backup_stop()
        (tablespace,) = server.tablespaces()
    assert tablespace.name == "apart" and tablespace.location == str(space) and not tablespace.in_place
    label = stopped.backup_label.decode()
    assert f"START WAL LOCATION: {started.lsn} " in label
    assert "LABEL: pgkeep 20260507T112900Z-3f9a01c7\n" in label and label.endswith("START TIMELINE: 1\n")
    escaped = str(space).replace("\n", "\\\n")
    assert stopped.tablespace_map == f"{tablespace.oid} {escaped}\n".encode()
    assert stopped.lsn > started.lsn


def test_the_files_are_the_servers_bytes(cluster: MakeCluster) -> None:
    """A path that is no UTF-8 must reach tablespace_map unchanged, whatever the database's encoding."""
    made = cluster(encoding="SQL_ASCII")
    space = made.home / "caf\udce9"
    made.directory(space.name)
    with made.connect(client_encoding="SQL_ASCII") as connection:
        connection.execute(f"CREATE TABLESPACE apart LOCATION '{space}'".encode("utf-8", "surrogateescape"))
    with connect(made.conninfo) as server:
        server.backup_start("bytes", fast=True)
        stopped = server.backup_stop()
        assert server.tablespaces()[0].location == str(space)
    assert b"/caf\xe9\n" in stopped.tablespace_map


def test_a_waiting_start_can_be_cancelled(cluster: MakeCluster) -> None:
    made = cluster(checkpoint_timeout="'1h'", checkpoint_completion_target="0.9")
    made.sql("CREATE TABLE t AS SELECT generate_series(1, 200000) AS i")
    with connect(made.conninfo) as server:
        threading.Timer(0.5, server.cancel).start()
        began = time.monotonic()
        with pytest.raises(Fault) as caught:
            server.backup_start("slow", fast=False)
        assert caught.value.code == "interrupted"
        assert time.monotonic() - began < 30
        server.backup_start("quick", fast=True)
        server.backup_stop()


def test_a_crash_in_mid_backup_is_a_lost_connection(cluster: MakeCluster) -> None:
    made = cluster()
    with connect(made.conninfo) as server:
        before = server.identity()
        server.backup_start("doomed", fast=True)
        made.restart(immediate=True)
        with pytest.raises(Fault) as caught:
            server.check_same(before)
        assert caught.value.code == "postgres-lost"
        assert not server.is_open
    with connect(made.conninfo) as server:
        with pytest.raises(Fault, match="the server was restarted") as caught:
            server.check_same(before)
        assert caught.value.code == "backup-invalidated"


@ENDS
def test_a_promotion_in_mid_backup_invalidates_it(cluster: MakeCluster, standby_of: MakeStandby) -> None:
    standby = standby_of(cluster())
    with connect(standby.conninfo) as server:
        before = server.identity()
        assert before.in_recovery and before.timeline == 1
        server.backup_start("on a standby", fast=True)
        assert standby.value("SELECT pg_promote()")
        with pytest.raises(Fault, match="promoted") as caught:
            server.check_same(before)
        assert caught.value.code == "backup-invalidated"
        with pytest.raises(Fault, match="promoted") as caught:
            server.backup_stop()
        assert caught.value.code == "backup-invalidated"
        assert server.identity().timeline == 2


@ENDS
def test_relation_names(cluster: MakeCluster) -> None:
    made = cluster()
    space = made.directory("apart")
    made.sql(f"CREATE TABLESPACE apart LOCATION '{space}'")
    made.sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    made.sql("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    made.sql("CREATE DATABASE closed")
    made.sql("ALTER DATABASE closed ALLOW_CONNECTIONS false")
    made.sql('CREATE TABLE "größe" (i int)', dbname="latin")
    made.sql('INSERT INTO "größe" SELECT generate_series(1, 1000)', dbname="latin")
    made.sql("VACUUM ANALYZE", dbname="latin")
    made.sql("CREATE TABLE parted (i int) PARTITION BY RANGE (i)", dbname="latin")
    made.sql("CREATE TABLE away (i int) TABLESPACE apart", dbname="latin")
    with made.connect("ascii", client_encoding="SQL_ASCII") as connection:
        connection.execute(b'CREATE TABLE "caf\xe9" (i int)')
    unread: list[Database] = []
    with connect(made.conninfo) as server:
        databases = {database.name: database for database in server.databases()}
        names = list(server.all_relation_names(lambda database, _: unread.append(database)))
    assert not unread and not databases["closed"].allow_connections
    assert databases["latin"].encoding == "LATIN1"
    user = {(row.database, row.name): row for row in names if row.oid >= 16384}
    table = user[databases["latin"].oid, "größe"]
    assert (table.schema, table.kind, table.tuples) == ("public", "r", 1000)
    assert table.filenode == made.value("SELECT pg_relation_filenode('größe')", dbname="latin")
    assert table.pages == made.value("SELECT pg_relation_size('größe') / 8192", dbname="latin")
    assert user[databases["latin"].oid, "parted"].filenode == 0
    assert user[databases["latin"].oid, "away"].tablespace == made.value(
        "SELECT oid FROM pg_tablespace WHERE spcname = 'apart'"
    )
    assert (databases["ascii"].oid, "caf\udce9") in user
    shared = [row for row in names if row.name == "pg_database"]
    assert [(row.database, row.tablespace) for row in shared] == [(0, 1664)]
    assert shared[0].filenode == made.value("SELECT pg_relation_filenode('pg_database')")


def test_a_database_that_cannot_be_read_does_not_stop_the_others(cluster: MakeCluster) -> None:
    made = cluster()
    made.sql("CREATE DATABASE aaa")
    made.sql("CREATE DATABASE zzz")
    made.sql("CREATE TABLE there (i int)", dbname="zzz")
    unread: list[tuple[str, str]] = []
    with connect(made.conninfo) as server:
        rows = server.all_relation_names(lambda database, fault: unread.append((database.name, fault.code)))
        first = next(rows)
        made.sql("DROP DATABASE aaa")
        names = {first.name} | {row.name for row in rows}
    assert unread == [("aaa", "postgres-unreachable")]
    assert "there" in names


@pytest.mark.pg("==15")
def test_collations_in_use(cluster: MakeCluster) -> None:
    made = cluster()
    if not made.value("SELECT count(*) FROM pg_collation WHERE collprovider = 'i'"):
        need("icu", f"{made.programs.bindir} was built without it")
    made.sql("CREATE COLLATION german (provider = icu, locale = 'de')")
    made.sql("CREATE COLLATION unused (provider = icu, locale = 'fr')")
    made.sql("CREATE TABLE t (name text COLLATE german)")
    with connect(made.conninfo) as server:
        (collation,) = server.collations(database_named(server, "postgres"))
    assert (collation.name, collation.provider) == ("german", "i")
    assert collation.version == collation.actual_version != ""


@ENDS
def test_snapshot_position_and_restore_point(shared_cluster: Cluster) -> None:
    with connect(shared_cluster.conninfo) as server, shared_cluster.connect() as other:
        other.execute("BEGIN")
        xid = int(other.execute("SELECT pg_current_xact_id()::text").fetchall()[0][0])
        snapshot = server.snapshot()
        assert xid in snapshot.in_progress or xid >= snapshot.xmax
        assert XidSnapshot.parse(str(snapshot)) == snapshot
        assert snapshot.xmin <= xid
        other.execute("ROLLBACK")
        point = server.create_restore_point("before the release")
        assert server.switch_wal() >= point > Lsn(0)
        assert server.wal_position() >= point
        assert server.archiver().archived_count == 0
        assert abs((server.clock() - datetime.now(UTC)).total_seconds()) < 5


def test_nobody_listens() -> None:
    with pytest.raises(Fault) as caught:
        connect(f"host=127.0.0.1 port={instance.free_port()} user=postgres")
    assert (caught.value.code, caught.value.exit_status) == ("postgres-unreachable", 20)


def test_an_unreadable_connection_string_is_a_usage_error() -> None:
    with pytest.raises(Fault) as caught:
        connect("host=127.0.0.1 colour=blue")
    assert caught.value.code == "usage"


def test_a_roles_own_settings_do_not_end_a_backup(shared_cluster: Cluster) -> None:
    """statement_timeout set for the role must not cut a long checkpoint, nor may search_path mislead."""
    shared_cluster.sql("DROP ROLE IF EXISTS hurried")
    shared_cluster.sql("CREATE ROLE hurried LOGIN SUPERUSER")
    shared_cluster.sql("ALTER ROLE hurried SET statement_timeout = '50ms'")
    shared_cluster.sql("ALTER ROLE hurried SET search_path = 'public', 'pg_catalog'")
    with connect(shared_cluster.instance.conninfo(user="hurried")) as server:
        server._session.value("SELECT pg_sleep(0.2)")
        assert server._session.value("SHOW search_path") == "pg_catalog"
