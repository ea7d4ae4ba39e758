"""pg_filenode.map against the server's own view of it."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clusters import Cluster
from tests.servers import pg_versions

from pgkeep.errors import Fault
from pgkeep.pg.crc32c import crc32c
from pgkeep.pg.relmap import MAGIC, READ_ATTEMPTS, RELMAP_NAME, parse_relmap, read_relmap

MAPPED = "SELECT oid::bigint, pg_relation_filenode(oid)::bigint FROM pg_class WHERE relfilenode = 0"


class Repairer:
    """A clock whose first sleep lets the server finish its write."""

    def __init__(self, path: Path, whole: bytes) -> None:
        self.path, self.whole, self.slept = path, whole, 0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.slept += 1
        self.path.write_bytes(self.whole)


def made(mappings: int = 3, size: int = 524) -> bytes:
    capacity = 64 if size == 524 else 62
    body = struct.pack("<ii", MAGIC, mappings) + bytes(range(1, 25)).ljust(8 * capacity, b"\0")
    return (body + struct.pack("<I", crc32c(body))).ljust(size, b"\0")


@pg_versions("all")
def test_the_maps_hold_what_the_server_says(shared_cluster: Cluster) -> None:
    """Mapped catalogs stand in the map of the database if they are its own, else in that of global/."""
    database = shared_cluster.value("SELECT oid FROM pg_database WHERE datname = 'postgres'")
    homes = (shared_cluster.datadir / "base" / str(database), shared_cluster.datadir / "global")
    ours = {pair for home in homes for pair in parse_relmap(read_relmap(home / RELMAP_NAME))}
    theirs = set(shared_cluster.sql(MAPPED + " AND relkind IN ('r', 'i', 't')"))
    assert ours == theirs
    assert len(ours) > 40


@pytest.mark.parametrize("size", [512, 524])
def test_a_torn_map_is_read_again(tmp_path: Path, size: int) -> None:
    path = tmp_path / RELMAP_NAME
    whole = made(size=size)
    path.write_bytes(whole[:9] + b"\xff" + whole[10:])
    clock = Repairer(path, whole)
    assert read_relmap(path, clock) == whole
    assert clock.slept == 1


def test_a_damaged_map_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / RELMAP_NAME
    torn = made()[:-1] + b"!"
    path.write_bytes(torn)
    clock = Repairer(path, torn)
    with pytest.raises(Fault, match="checksum") as caught:
        read_relmap(path, clock)
    assert caught.value.code == "datadir-invalid"
    assert clock.slept == READ_ATTEMPTS - 1
    assert str(path) in caught.value.message


def test_a_database_that_is_gone_is_the_callers_to_judge(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_relmap(tmp_path / RELMAP_NAME)
    (tmp_path / RELMAP_NAME).mkdir()
    with pytest.raises(Fault, match="Is a directory"):
        read_relmap(tmp_path / RELMAP_NAME)


def resealed(data: bytes) -> bytes:
    return data[:520] + struct.pack("<I", crc32c(data[:520]))


@pytest.mark.parametrize("data", [b"", made()[:-1], made() + b"\0", made(size=512)[:504], made()[:100]])
def test_a_wrong_size(data: bytes) -> None:
    with pytest.raises(Fault, match="bytes, expected"):
        parse_relmap(data)


@pytest.mark.parametrize(("magic", "count"), [(MAGIC + 1, 3), (MAGIC, -1), (MAGIC, 65)])
def test_a_wrong_beginning(magic: int, count: int) -> None:
    with pytest.raises(Fault, match="begins with"):
        parse_relmap(resealed(struct.pack("<ii", magic, count) + made()[8:]))


@given(st.binary(max_size=530) | st.binary(min_size=512, max_size=512) | st.binary(min_size=524, max_size=524))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(Fault):
        parse_relmap(data)


@given(st.integers(0, 64), st.binary(min_size=512, max_size=512))
def test_any_sound_map_is_read(count: int, pairs: bytes) -> None:
    data = resealed(struct.pack("<ii", MAGIC, count) + pairs)
    assert [number for pair in parse_relmap(data) for number in pair] == list(
        struct.unpack(f"<{2 * count}I", pairs[: 8 * count])
    )
