"""WAL segments of real servers, and files that only look like them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clusters import Cluster
from tests.conftest import MakeCluster
from tests.servers import pg_versions

from pgkeep.errors import Fault
from pgkeep.pg.controlfile import CONTROL_FILE, read_control
from pgkeep.pg.walfile import (
    LONG_HEADER_SIZE,
    MAJOR_OF_MAGIC,
    WalHeader,
    check_segment,
    parse_header,
    valid_until,
)
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment

MIB = 1 << 20
PAGE = 8192


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def header_bytes(
    magic: int = 0xD116, info: int = 2, address: int = 5 * MIB, size: int = MIB, block: int = PAGE
) -> bytes:
    return struct.pack("<HHIQI4xQII", magic, info, 1, address, 0, 77, size, block)


def page_bytes(address: int, magic: int = 0xD116, info: int = 1, timeline: int = 1) -> bytes:
    return struct.pack("<HHIQI4x", magic, info, timeline, address, 9).ljust(PAGE, b"w")


def segment_bytes(pages: int, tail: bytes = b"") -> bytes:
    """A 1 MiB segment at 5 MiB with so many pages of WAL, `tail` after them, and zeros to its end."""
    first = header_bytes().ljust(PAGE, b"w")
    rest = b"".join(page_bytes(5 * MIB + number * PAGE) for number in range(1, pages))
    return (first + rest + tail).ljust(MIB, b"\0")[:MIB]


@pg_versions("all")
def test_real_segments(cluster: MakeCluster) -> None:
    server = cluster(wal_segsize=1)
    server.sql("CREATE TABLE t AS SELECT i FROM generate_series(1, 30000) i")
    control = read_control(server.datadir / CONTROL_FILE)
    whole = [server.switch_wal()]
    server.sql("INSERT INTO t SELECT 1")
    flushed = Lsn.parse(server.value("SELECT pg_current_wal_flush_lsn()::text"))
    current = str(server.value("SELECT pg_walfile_name(pg_current_wal_flush_lsn())"))
    for name in [*whole, current]:
        data = (server.datadir / "pg_wal" / name).read_bytes()
        header = parse_header(data[:LONG_HEADER_SIZE])
        assert (header.major, header.segment_size, header.block_size) == (server.major, MIB, PAGE)
        segment = check_segment(header, name, len(data), control.system_identifier)
        assert segment == Segment.parse(name, MIB)
        assert check_segment(header, f"{name}.partial", len(data)) == segment
        with pytest.raises(Fault, match=r"expected 1$") as caught:
            check_segment(header, name, len(data), 1)
        assert caught.value.code == "cluster-mismatch"
    end = valid_until(reader(data))
    assert flushed <= end <= flushed + PAGE + 16 * PAGE, "pages past the flushed one are at most initialised"


def test_a_recycled_segment_ends_where_its_new_wal_ends(cluster: MakeCluster) -> None:
    """The tail of a recycled file holds valid pages, of another address."""
    server = cluster(wal_segsize=1, min_wal_size="'2MB'", max_wal_size="'3MB'", wal_recycle="on")
    server.sql("CREATE TABLE t (x text)")
    recycled = None
    for _ in range(20):
        server.sql("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 500)")
        server.sql("CHECKPOINT")
        recycled = recycled_file(server)
        if recycled is not None:
            break
    assert recycled is not None, "no segment was recycled"
    data = recycled.read_bytes()
    header = parse_header(data)
    with pytest.raises(Fault, match=r"expected .* by its name"):
        check_segment(header, recycled.name, len(data))
    assert valid_until(reader(data)) > header.page_address


def recycled_file(server: Cluster) -> Path | None:
    """A file in pg_wal for WAL to come that still begins with a page of its former name."""
    for path in sorted((server.datadir / "pg_wal").glob("0000*[0-9A-F]"), reverse=True):
        data = path.read_bytes()
        if any(data[:8]) and parse_header(data).page_address != Segment.parse(path.name, MIB).start(MIB):
            return path
    return None


@pytest.mark.parametrize("pages", [1, 2, 127, 128])
def test_wal_ends_with_its_last_page(pages: int) -> None:
    assert valid_until(reader(segment_bytes(pages))) == 5 * MIB + pages * PAGE


@pytest.mark.parametrize(
    "follower",
    [
        page_bytes(4 * MIB + 3 * PAGE),  # of the name it was recycled from
        page_bytes(5 * MIB + 3 * PAGE, magic=0xD118),
        page_bytes(5 * MIB + 3 * PAGE, info=2),  # a long header within a segment
        page_bytes(5 * MIB + 3 * PAGE, info=0x10),
        page_bytes(5 * MIB + 4 * PAGE),
        b"\xff" * PAGE,
    ],
)
def test_wal_ends_before_a_page_that_does_not_belong(follower: bytes) -> None:
    data = segment_bytes(3, tail=follower + page_bytes(5 * MIB + 4 * PAGE))
    assert valid_until(reader(data)) == 5 * MIB + 3 * PAGE


def test_pages_of_the_parent_timeline_belong() -> None:
    data = segment_bytes(3, tail=page_bytes(5 * MIB + 3 * PAGE, timeline=2))
    assert valid_until(reader(data)) == 5 * MIB + 4 * PAGE


def test_a_file_that_was_cut_short() -> None:
    assert valid_until(reader(segment_bytes(9)[: 4 * PAGE])) == 5 * MIB + 4 * PAGE
    assert valid_until(reader(segment_bytes(9)[: 4 * PAGE + 23])) == 5 * MIB + 4 * PAGE


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("000000010000000000000005", 2 * MIB, "2097152 bytes, expected 1048576"),
        ("000000010000000000000006", MIB, "first page is 0/500000, expected 0/600000"),
        ("000000010000000000001000", MIB, "name is none"),
        ("00000001.history", MIB, "name is none"),
        ("000000010000000000000005.partial.partial", MIB, "name is none"),
    ],
)
def test_a_segment_must_be_what_its_name_says(name: str, size: int, message: str) -> None:
    with pytest.raises(Fault, match=message) as caught:
        check_segment(parse_header(header_bytes()), name, size)
    assert caught.value.code == "wal-refused"


def test_the_timeline_in_the_header_may_be_an_ancestor() -> None:
    assert check_segment(parse_header(header_bytes()), "000000070000000000000005", MIB) == Segment(7, 5)


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", "wal-refused", "0 bytes, expected a header"),
        (header_bytes()[:39], "wal-refused", "39 bytes, expected a header"),
        (bytes(LONG_HEADER_SIZE), "wal-refused", "begins with zeros"),
        (header_bytes(magic=0xD106), "postgres-version", "begins with 0xd106"),
        (header_bytes(info=1), "wal-refused", "flags 0x0001"),
        (header_bytes(info=0x12), "wal-refused", "flags 0x0012"),
        (header_bytes(size=3 * MIB), "wal-refused", "3145728-byte segments"),
        (header_bytes(block=1000), "wal-refused", "1000-byte pages"),
    ],
)
def test_what_is_no_segment(data: bytes, code: str, message: str) -> None:
    with pytest.raises(Fault, match=message) as caught:
        parse_header(data)
    assert caught.value.code == code


@given(st.binary(max_size=64) | st.builds(header_bytes, magic=st.sampled_from(sorted(MAJOR_OF_MAGIC))))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (lambda: parse_header(data), lambda: valid_until(reader(data))):
        try:
            read()
        except Fault as fault:
            assert fault.code in ("wal-refused", "postgres-version")


@given(st.text(max_size=30) | st.from_regex(r"[0-9A-F]{24}(\.partial)?", fullmatch=True), st.integers(0, 2**31))
def test_any_name_is_judged(name: str, size: int) -> None:
    header = WalHeader(0xD116, 1, Lsn(5 * MIB), 77, MIB, PAGE)
    for length in (size, MIB):
        try:
            check_segment(header, name, length)
        except Fault as fault:
            assert fault.code == "wal-refused"
