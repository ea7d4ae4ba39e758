"""Tables of contents as pg_dump writes them, of every version; and bytes that are none."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import pytest
from tests.clusters import Cluster
from tests.servers import pg_versions

from pgkeep.errors import Fault
from pgkeep.pg.dumptoc import MAGIC, Toc, major_of, read_toc

NAMES = ["plain", "with blank", "1; 2 3 TABLE public x", "line\nbreak", 'quo"te', "Größe", "; --"]


def client(server: Cluster, *args: str) -> bytes:
    env = {"PGHOST": str(server.instance.socket_dir), "PGPORT": str(server.instance.port), "PGUSER": "postgres"}
    return server.programs.run("pg_dump", *args, env=env, timeout=60).stdout


def read(data: bytes) -> Toc:
    return read_toc(io.BytesIO(data).read, "it")


@pytest.fixture
def named(shared_cluster: Cluster) -> str:
    shared_cluster.sql("DROP DATABASE IF EXISTS tocs")
    shared_cluster.sql("CREATE DATABASE tocs TEMPLATE template0")
    with shared_cluster.connect("tocs") as connection:
        for name in NAMES:
            quoted = name.replace('"', '""')
            connection.execute(f'CREATE TABLE "{quoted}" (n int)'.encode())
            connection.execute(f'COMMENT ON TABLE "{quoted}" IS $$ a comment; $$'.encode())
    return "tocs"


@pg_versions("all")
def test_what_pg_dump_wrote(shared_cluster: Cluster, named: str, tmp_path: Path) -> None:
    """Names come back as they are, in custom files and in directories alike."""
    major = shared_cluster.major
    custom = read(client(shared_cluster, "-Fc", named))
    client(shared_cluster, "-Fd", "-f", str(tmp_path / "dir"), named)
    directory = read((tmp_path / "dir/toc.dat").read_bytes())
    for toc in (custom, directory):
        assert sorted(one.tag for one in toc.entries if one.desc == "TABLE") == sorted(NAMES)
        assert {one.namespace for one in toc.entries if one.desc == "TABLE DATA"} == {"public"}
        assert (toc.dbname, major_of(toc.program_version), toc.server_major) == (named, major, major)
        assert toc.needs_major <= major and toc.created is not None
        by_id = {one.dump_id: one for one in toc.entries}
        for one in toc.entries:
            if one.desc == "COMMENT":
                assert [by_id[number].desc for number in one.dependencies] == ["TABLE"]
                assert one.definition.endswith("IS ' a comment; ';\n")
    files = {one.filename for one in directory.entries if one.filename}
    assert len(files) == len(NAMES) and not any(one.filename for one in custom.entries)


def test_every_cut_and_many_wrong_bytes(shared_cluster: Cluster, named: str, seed: int) -> None:
    """A Fault, at once and in little memory; never another exception."""
    whole = client(shared_cluster, "-Fc", named)
    choose = random.Random(seed)
    for end in [*range(64), *(choose.randrange(len(whole)) for _ in range(50))]:
        try:
            read(whole[:end])
        except Fault as fault:
            assert fault.code in {"dump-damaged", "dump-unsupported"}
    for _ in range(300):
        at = choose.randrange(len(whole))
        damaged = whole[:at] + bytes([choose.randrange(256)]) + whole[at + 1 :]
        try:
            read(damaged)
        except Fault as fault:
            assert fault.code in {"dump-damaged", "dump-unsupported"}


def test_a_length_is_not_believed() -> None:
    head = MAGIC + bytes([1, 14, 0, 4, 8, 1]) + b"\0" + struct.pack("<i", 0)
    dates = b"".join(b"\0" + struct.pack("<i", number) for number in (0, 0, 0, 1, 0, 126, 0))
    with pytest.raises(Fault, match="announces a text of"):
        read(head + dates + b"\0" + struct.pack("<I", 0x7FFFFFFF))
