"""What a backup holds: against the files of pg_basebackup, and against directories made to be awkward."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clusters import Cluster
from tests.conftest import MakeCluster
from tests.servers import pg_versions

from pgkeep.errors import Fault
from pgkeep.pg.datadir import (
    CONTENT_LEFT_OUT,
    FILES_LEFT_OUT,
    DataDirectory,
    Walk,
    read_major,
    scan,
    tablespace_oid,
)
from pgkeep.pg.entry import Entry, EntryType, Unit
from pgkeep.pg.relfile import Fork

# What pg_basebackup writes into its copy, beside what it copied.
ITS_OWN = {"backup_label", "backup_manifest"}
VERSIONED = "PG_17_202406281"

OBJECTS = """
CREATE TABLE plain AS SELECT i, md5(i::text) m FROM generate_series(1, 20000) i;
CREATE INDEX ON plain (m);
CREATE UNLOGGED TABLE unlogged (id serial PRIMARY KEY, t text);
INSERT INTO unlogged (t) SELECT repeat('x', 3000) FROM generate_series(1, 50);
CREATE DATABASE other;
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE in_place LOCATION '';
CREATE TABLE there (id int) TABLESPACE in_place;
CREATE UNLOGGED TABLE unlogged_there (id int PRIMARY KEY) TABLESPACE in_place;
VACUUM plain
"""
LEFT_OUT = [
    "postgresql.auto.conf.tmp",
    "tablespace_map",
    "backup_manifest",
    "base/pgsql_tmp/pgsql_tmp1.0",
    "global/pg_internal.init.1",
    "base/1/t9_16384",
    "base/1/t9_16384_fsm.1",
]
ODD_NAMES = ['blank and "quotes"', "line\nbreak", "back\\slash"]


def furnish(server: Cluster) -> list[Path]:
    """Objects of every kind; the locations of linked tablespaces with awkward names."""
    with server.connect() as connection:
        for statement in OBJECTS.split(";\n"):
            connection.execute(statement.encode())
        locations = [server.directory(name) for name in ODD_NAMES]
        for number, location in enumerate(locations):
            spelled = str(location).replace("\\", "\\\\").replace("\n", "\\n")
            connection.execute(f"CREATE TABLESPACE linked{number} LOCATION E'{spelled}'".encode())
            connection.execute(f"CREATE TABLE linked{number} (id int PRIMARY KEY) TABLESPACE linked{number}".encode())
            connection.execute(f"CREATE UNLOGGED TABLE u{number} (id int) TABLESPACE linked{number}".encode())
    return locations


def litter(server: Cluster) -> None:
    """Files that PostgreSQL does not know, and some that it leaves out."""
    top = server.datadir
    (top / "notes of the admin").mkdir()
    for spelled in [b"plain", b"caf\xc3\xa9", b"not utf-8 \xff", b"a.b", b"a-b", b'"quoted" name']:
        Path(os.fsdecode(os.path.join(os.fsencode(top / "notes of the admin"), spelled))).write_text("x")
    (top / "notes of the admin" / "a").mkdir()
    (top / "notes of the admin" / "a" / "b").write_text("y" * 1000)
    (top / "notes of the admin" / "empty").mkdir(mode=0o750)
    (top / "base" / "pgsql_tmp").mkdir(exist_ok=True)
    for name in LEFT_OUT:
        (top / name).write_text("left out")
    for path in [top / "notes of the admin", *(top / "notes of the admin").rglob("*")]:
        os.chown(path, server.account.uid, server.account.gid)


def copied_by_basebackup(server: Cluster, locations: list[Path]) -> dict[str, tuple[EntryType, int, int]]:
    """Path -> (type, permission bits, bytes) of what pg_basebackup -Fp -Xnone copies."""
    target = server.home / "copy"
    mappings = [f"--tablespace-mapping={location}={server.home}/copied{n}" for n, location in enumerate(locations)]
    server.run("pg_basebackup", "-D", str(target), "-Fp", "-Xnone", "--checkpoint=fast", "--no-sync", *mappings)
    found: dict[str, tuple[EntryType, int, int]] = {}

    def walk(path: str) -> None:
        for item in os.scandir(target / path):
            name = f"{path}/{item.name}" if path else item.name
            kind, size = EntryType.FILE, item.stat(follow_symlinks=False).st_size
            if item.is_symlink():
                kind, size = EntryType.LINKED_TABLESPACE, 0
            elif item.is_dir():
                in_place = path == "pg_tblspc"
                kind, size = EntryType.IN_PLACE_TABLESPACE if in_place else EntryType.DIRECTORY, 0
            found[name] = (kind, stat.S_IMODE(item.stat(follow_symlinks=False).st_mode), size)
            if item.is_dir():
                walk(name)

    walk("")
    return {path: what for path, what in found.items() if path not in ITS_OWN}


def as_dict(directory: DataDirectory) -> dict[str, tuple[EntryType, int, int]]:
    return {entry.path: (entry.type, entry.mode, entry.size) for entry in directory.entries}


@pg_versions("all")
def test_the_list_is_that_of_pg_basebackup(cluster: MakeCluster) -> None:
    """A live server with temporary and unlogged tables, spilled sorts, tablespaces of both kinds, litter."""
    server = cluster(allow_in_place_tablespaces="on", work_mem="'64kB'", max_wal_senders="3")
    locations = furnish(server)
    litter(server)
    with server.connect() as session:
        session.execute("CREATE TEMP TABLE temporary AS SELECT i FROM generate_series(1, 5000) i")
        with session.transaction():
            session.execute("DECLARE spilled CURSOR FOR SELECT i, m FROM plain ORDER BY m || i")
            session.execute("FETCH 1 FROM spilled")
            assert len(list((server.datadir / "base" / "pgsql_tmp").iterdir())) > 1, "nothing was spilled"
            theirs = copied_by_basebackup(server, locations)
            directory = scan(str(server.datadir))
    ours = as_dict(directory)
    assert ours == theirs
    assert_typed(server, directory, locations)


def assert_typed(server: Cluster, directory: DataDirectory, locations: list[Path]) -> None:
    """Tablespaces lead where they do, and the forks of a table are recognised as the server names them."""
    linked = [entry for entry in directory.tablespaces if entry.type is EntryType.LINKED_TABLESPACE]
    assert [entry.target for entry in linked] == [str(location) for location in locations]
    oids = server.sql("SELECT oid::int FROM pg_tablespace WHERE oid > 16000 ORDER BY 1")
    assert sorted(tablespace_oid(entry) for entry in directory.tablespaces) == [oid for (oid,) in oids]
    by_path = {entry.path: entry for entry in directory.entries}
    for table, path in server.sql(
        "SELECT relname, pg_relation_filepath(oid) FROM pg_class WHERE relname ~ 'there|plain$'"
    ):
        forks = {entry.fork for entry in directory.entries if entry.path.partition("_init")[0].split("_vm")[0] == path}
        assert forks == ({Fork.INIT} if "unlogged" in table else forks | {Fork.MAIN}), table
    plain = by_path[str(server.value("SELECT pg_relation_filepath('plain')"))]
    assert (plain.unit, plain.inheritable) == (Unit.PAGES, True)
    assert not by_path[f"{plain.path}_vm"].inheritable
    assert by_path[f"{plain.path}_vm"].unit is Unit.PAGES
    assert by_path["global/pg_control"].unit is by_path["PG_VERSION"].unit is Unit.BYTES
    paths = [os.fsencode(entry.path) for entry in directory.entries]
    assert paths == sorted(set(paths))


def test_a_tablespace_inside_the_data_directory_is_listed_once(cluster: MakeCluster) -> None:
    """PostgreSQL warns of it and allows it; pg_basebackup copies it as a tablespace alone."""
    server = cluster()
    inside = server.datadir / "inside"
    inside.mkdir()
    os.chown(inside, server.account.uid, server.account.gid)
    server.sql(f"CREATE TABLESPACE inside LOCATION '{inside}'")
    server.sql("CREATE TABLE t (id int) TABLESPACE inside")
    theirs = copied_by_basebackup(server, [inside])
    ours = as_dict(scan(str(server.datadir)))
    assert ours == theirs
    assert not [path for path in ours if path.startswith("inside/")]


# --- directories made by hand


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The skeleton of a data directory, as far as `Walk` looks at it."""
    for name in ["base/5", "global", "pg_wal", "pg_tblspc", "pg_notify"]:
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def listed(tree: Path) -> list[Entry]:
    return list(Walk(str(tree), 17, VERSIONED))


def paths(tree: Path, under: str) -> list[str]:
    return [entry.path for entry in listed(tree) if entry.path.startswith(under)]


def fill(tree: Path, *names: str) -> None:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)


def test_what_is_left_out_is_left_out_where_it_belongs(tree: Path) -> None:
    fill(tree, *FILES_LEFT_OUT, "pgkeep.restore", "pgkeep.restore-state/journal", "pgkeep.notes")
    fill(tree, *(f"{name}/content" for name in CONTENT_LEFT_OUT), "pg_wal/archive_status/x.done")
    fill(tree, "sub/postmaster.pid", "sub/pg_notify/kept", "sub/pg_internal.init", "sub/t1_2", "sub/pgsql_tmp.1")
    fill(tree, "base/5/pg_internal.init", "base/5/pg_internal.init.77", "global/pg_internal.init", "base/pgsql_tmp/1")
    files = [entry.path for entry in listed(tree) if entry.type is EntryType.FILE]
    assert files == [
        "pgkeep.notes",
        "sub/pg_internal.init",
        "sub/pg_notify/kept",
        "sub/postmaster.pid",
        "sub/t1_2",
    ]
    assert {entry.path for entry in listed(tree)} >= CONTENT_LEFT_OUT


@pytest.mark.parametrize(("major", "inside"), [(14, {"archive_status"}), (17, {"archive_status", "summaries"})])
def test_pg_wal_is_empty_but_for_its_directories(tree: Path, major: int, inside: set[str]) -> None:
    (tree / "pg_wal" / "000000010000000000000001").touch()
    (tree / "pg_wal").chmod(0o750)
    entries = [entry for entry in Walk(str(tree), major, VERSIONED) if entry.path.startswith("pg_wal")]
    assert {entry.path for entry in entries} == {"pg_wal", *(f"pg_wal/{name}" for name in inside)}
    assert {(entry.type, entry.mode) for entry in entries} == {(EntryType.DIRECTORY, 0o750)}


def test_forks_of_unlogged_relations(tree: Path) -> None:
    fill(tree, "base/5/7", "base/5/7.1", "base/5/7_fsm", "base/5/7_vm", "base/5/7_init", "base/5/70", "base/5/70_fsm")
    fill(tree, "base/4/7", "base/5/7_initial", "base/5/7.x")
    assert paths(tree, "base/4/") == ["base/4/7"]
    assert paths(tree, "base/5/") == ["base/5/7.x", "base/5/70", "base/5/70_fsm", "base/5/7_init", "base/5/7_initial"]


def test_links_that_stand_for_directories(tree: Path) -> None:
    (tree / "pg_wal").rmdir()
    (tree / "pg_notify").rmdir()
    (tree / "pg_wal").symlink_to("/nowhere")
    (tree / "pg_notify").symlink_to("/tmp")
    entries = {entry.path: entry for entry in listed(tree)}
    assert entries["pg_wal"] == Entry("pg_wal", EntryType.DIRECTORY, 0o700)
    assert entries["pg_notify"] == Entry("pg_notify", EntryType.DIRECTORY, 0o700)
    assert "pg_wal/archive_status" in entries


@pytest.mark.parametrize("name", ["log", "base/5/16384", "global/x", "base/6", "pg_tblspc/name", "pg_tblspc/007"])
def test_any_other_link_is_a_fault(tree: Path, name: str) -> None:
    (tree / name).symlink_to("/tmp")
    with pytest.raises(Fault, match="is a symbolic link") as caught:
        listed(tree)
    assert caught.value.code == "datadir-invalid"
    assert str(tree / name) in caught.value.message


def test_links_that_are_left_out_do_not_matter(tree: Path) -> None:
    (tree / "postmaster.opts").symlink_to("/nowhere")
    (tree / "base" / "5" / "t1_16384").symlink_to("/nowhere")
    listed(tree)


def test_a_tablespace_holds_this_servers_directory_alone(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    location = tmp_path_factory.mktemp("location")
    fill(location, f"{VERSIONED}/5/16400", f"{VERSIONED}/pgsql_tmp/x", "PG_16_202307071/5/16400", "lost+found/x")
    (tree / "pg_tblspc" / "16390").symlink_to(location)
    (tree / "pg_tblspc" / "16391").symlink_to(location / "not mounted")
    fill(tree, f"pg_tblspc/16392/{VERSIONED}/5/1_vm", "pg_tblspc/16392/PG_15_1/5/1", "pg_tblspc/note")
    entries = {entry.path: entry for entry in listed(tree) if entry.path.startswith("pg_tblspc/")}
    assert list(entries) == [
        "pg_tblspc/16390",
        f"pg_tblspc/16390/{VERSIONED}",
        f"pg_tblspc/16390/{VERSIONED}/5",
        f"pg_tblspc/16390/{VERSIONED}/5/16400",
        "pg_tblspc/16391",
        "pg_tblspc/16392",
        f"pg_tblspc/16392/{VERSIONED}",
        f"pg_tblspc/16392/{VERSIONED}/5",
        f"pg_tblspc/16392/{VERSIONED}/5/1_vm",
        "pg_tblspc/note",
    ]
    assert entries["pg_tblspc/16390"].target == str(location)
    assert entries[f"pg_tblspc/16390/{VERSIONED}/5/16400"].inheritable
    relation = entries[f"pg_tblspc/16392/{VERSIONED}/5/1_vm"].relation
    assert relation == (16392, 5, 1, Fork.VM, 0)
    assert entries["pg_tblspc/16392"].type is EntryType.IN_PLACE_TABLESPACE


def test_sockets_and_pipes_are_named_and_skipped(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(tree)
        listener.bind(".s.PGSQL.5432")
    walk = Walk(str(tree), 17, VERSIONED)
    assert not {"pipe", ".s.PGSQL.5432"} & {entry.path for entry in walk}
    assert sorted(walk.skipped) == [".s.PGSQL.5432", "pipe"]


def test_the_directory_of_a_database_may_vanish(tree: Path) -> None:
    """A database that is dropped after its directory was seen, and before it was entered."""
    fill(tree, "base/5/1", "base/6/2", "global/3")
    walk = Walk(str(tree), 17, VERSIONED)
    steps = iter(walk)
    assert next(entry for entry in steps if entry.path == "base/6").type is EntryType.DIRECTORY
    (tree / "base/6/2").unlink()
    (tree / "base/6").rmdir()
    rest = [entry.path for entry in steps if entry.type is EntryType.FILE]
    assert rest == ["global/3"]
    assert walk.vanished == ["base/6"]


def test_a_file_between_listing_and_looking(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tree, "base/5/1", "base/5/2")
    real = os.lstat

    def slow(path: str) -> os.stat_result:
        if path.endswith("base/5/1"):
            (tree / "base/5/1").unlink()
        return real(path)

    monkeypatch.setattr(os, "lstat", slow)
    walk = Walk(str(tree), 17, VERSIONED)
    assert [entry.path for entry in walk if entry.type is EntryType.FILE] == ["base/5/2"]
    assert walk.vanished == ["base/5/1"]


@pytest.mark.parametrize("name", ["global", "base", "sub"])
def test_any_other_directory_may_not_vanish(tree: Path, name: str) -> None:
    fill(tree, "base/5/1", "global/1262", "sub/file")
    steps = iter(Walk(str(tree), 17, VERSIONED))
    assert next(entry for entry in steps if entry.path == name)
    (tree / name).rename(tree / "elsewhere")
    with pytest.raises(Fault, match="is not there") as caught:
        list(steps)
    assert caught.value.code == "datadir-invalid"


def test_what_cannot_be_read_is_a_fault(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.listdir

    def denied(path: str) -> list[str]:
        if path.endswith("/base/5"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(Fault, match="Permission denied") as caught:
        listed(tree)
    assert caught.value.code == "io"


NAMES = st.binary(min_size=1, max_size=6).filter(
    lambda name: not set(name) & {0, ord("/")} and name not in (b".", b"..")
)


@settings(max_examples=40)
@given(files=st.lists(st.lists(NAMES, min_size=1, max_size=3).map(b"/".join), max_size=12))
def test_any_names_are_listed_in_the_order_of_their_bytes(
    tmp_path_factory: pytest.TempPathFactory, files: list[bytes]
) -> None:
    top = tmp_path_factory.mktemp("tree")
    (top / "pg_tblspc").mkdir()
    home = os.fsencode(top / "any")
    wanted = set()
    for name in files:
        path = os.path.join(home, name)
        if os.path.exists(path):
            continue
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            continue
        Path(os.fsdecode(path)).touch()
        wanted.add(b"any/" + name)
    got = [os.fsencode(entry.path) for entry in listed(top)]
    assert got == sorted(set(got))
    assert {path for path in got if os.path.isfile(os.path.join(os.fsencode(top), path))} == wanted


# --- what is no data directory


@pytest.mark.parametrize(("text", "major"), [("17\n", 17), ("14", 14)])
def test_major_version(tmp_path: Path, text: str, major: int) -> None:
    (tmp_path / "PG_VERSION").write_text(text)
    assert read_major(str(tmp_path)) == major


@given(st.binary(max_size=80))
def test_any_version_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    home = tmp_path_factory.mktemp("version")
    (home / "PG_VERSION").write_bytes(data)
    try:
        read_major(str(home))
    except Fault as fault:
        assert fault.code == "datadir-invalid"


def test_a_directory_without_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="expected a PostgreSQL data directory") as caught:
        scan(str(tmp_path))
    assert caught.value.code == "datadir-invalid"


@pytest.mark.parametrize("major", ["13", "19", "9.6"])
def test_versions_that_do_not_fit_pg_control(cluster: MakeCluster, major: str) -> None:
    server = cluster(start=False)
    (server.datadir / "PG_VERSION").write_text(f"{major}\n")
    with pytest.raises(Fault) as caught:
        scan(str(server.datadir))
    assert caught.value.code == ("datadir-invalid" if "." in major else "postgres-version")
