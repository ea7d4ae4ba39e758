"""Pages of real clusters judged by pgkeep and by pg_checksums, and what torn or garbled pages look like."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clusters import Cluster
from tests.conftest import MakeCluster
from tests.servers import pg_versions

from pgkeep.pg import page
from pgkeep.pg.account import credentials
from pgkeep.pg.datadir import scan
from pgkeep.pg.entry import Entry, Unit
from pgkeep.pg.page import BATCH_PAGES, BLCKSZ, PageChecker, PageReport
from pgkeep.pg.relfile import Fork
from pgkeep.values.lsn import Lsn

AT_REST = 2**64 - 1

# Every access method and fork: each formats its pages in its own way.
EVERY_KIND_OF_PAGE = """
CREATE TABLE t (id int PRIMARY KEY, k int, words text, place point, tags int[]);
ALTER TABLE t ALTER words SET STORAGE EXTERNAL;
INSERT INTO t SELECT i, i % 97, repeat(md5(i::text), 100), point(i, i), ARRAY[i, i % 7]
    FROM generate_series(1, 3000) i;
CREATE INDEX ON t USING hash (k);
CREATE INDEX ON t USING gin (tags);
CREATE INDEX ON t USING gist (place);
CREATE INDEX ON t USING spgist (place);
CREATE INDEX ON t USING brin (id);
CREATE UNLOGGED TABLE u (id serial PRIMARY KEY);
INSERT INTO u SELECT i FROM generate_series(1, 500) i;
DELETE FROM t WHERE id % 3 = 0;
"""


def pages_of(datadir: Path) -> Iterator[tuple[Entry, bytes]]:
    for entry in scan(str(datadir)).entries:
        if entry.unit is Unit.PAGES:
            yield entry, (datadir / entry.path).read_bytes()


def judge(entry: Entry, data: bytes, *, checksums: bool, start_lsn: int = AT_REST) -> PageReport:
    assert entry.relation is not None
    first = entry.relation.first_block()
    return page.inspect(data, first, checksums=checksums, start_lsn=start_lsn)


def pg_checksums(cluster: Cluster) -> tuple[int, str]:
    command = [cluster.programs.path("pg_checksums"), "--check", "-D", str(cluster.datadir)]
    who = credentials(cluster.account)
    done = subprocess.run(
        command, capture_output=True, text=True, user=who.user, group=who.group, extra_groups=who.extra_groups
    )
    return done.returncode, done.stdout + done.stderr


def a_page(cluster: Cluster) -> tuple[Path, int]:
    """A file of a table of a running cluster, and a block of it."""
    cluster.sql("CREATE TABLE pages AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i")
    cluster.sql("CHECKPOINT")
    return cluster.datadir / str(cluster.value("SELECT pg_relation_filepath('pages')")), 77


@pg_versions(14, 15, 17, 18)
def test_every_page_of_a_real_cluster_is_sound(cluster: MakeCluster) -> None:
    server = cluster()
    for statement in EVERY_KIND_OF_PAGE.split(";\n"):
        if statement.strip():
            server.sql(statement)
    server.sql("VACUUM t")
    server.stop()
    seen = dict.fromkeys(Fork, 0)
    for entry, data in pages_of(server.datadir):
        report = judge(entry, data, checksums=True)
        assert not report.bad.any(), entry
        assert not report.pending.any(), entry
        assert entry.fork is not None
        seen[entry.fork] += len(report.lsns) - int(report.new.sum())
    assert min(seen.values()) > 0, seen
    status, text = pg_checksums(server)
    assert status == 0, text


@pg_versions(14, 15, 17, 18)
def test_without_checksums_headers_alone_are_judged(cluster: MakeCluster) -> None:
    server = cluster(checksums=False, start=False)
    wrong = 0
    for entry, data in pages_of(server.datadir):
        report = judge(entry, data, checksums=False)
        assert not report.bad.any(), entry
        wrong += int(judge(entry, data, checksums=True).bad.sum())
    assert wrong > 100, "pages without checksums must not look as if they had them"


def test_a_flipped_bit_is_found_where_pg_checksums_finds_it(cluster: MakeCluster) -> None:
    server = cluster()
    path, block = a_page(server)
    server.stop()
    data = bytearray(path.read_bytes())
    data[block * BLCKSZ + 5000] ^= 0x10
    path.write_bytes(data)
    report = page.inspect(data, 0, checksums=True, start_lsn=AT_REST)
    assert np.flatnonzero(report.bad).tolist() == [block]
    status, text = pg_checksums(server)
    assert status == 1
    assert f'{path.name}", block {block}:' in text
    expected = int(page.checksums(data, 0)[block])
    assert f"calculated checksum {expected:X} " in text


def test_a_page_in_the_wrong_place_is_found(shared_cluster: Cluster) -> None:
    path, block = a_page(shared_cluster)
    data = bytearray(path.read_bytes())
    here, there = slice(block * BLCKSZ, (block + 1) * BLCKSZ), slice((block + 1) * BLCKSZ, (block + 2) * BLCKSZ)
    data[here], data[there] = data[there], data[here]
    report = page.inspect(data, 0, checksums=True, start_lsn=AT_REST)
    assert np.flatnonzero(report.bad).tolist() == [block, block + 1]


def test_checksums_of_a_second_segment_satisfy_pg_checksums(cluster: MakeCluster) -> None:
    """pg_checksums mixes the block number within the relation: ours of segment 1 must be what it computes."""
    server = cluster()
    path, _ = a_page(server)
    server.stop()
    data = bytearray(path.read_bytes())
    written = ~page.inspect(data, 0, checksums=True, start_lsn=0).new
    fields = np.frombuffer(data, dtype="<u2").reshape(-1, BLCKSZ // 2)
    fields[written, 4] = page.checksums(data, 131072)[written]
    first, second = path.with_name("99999"), path.with_name("99999.1")
    second.write_bytes(data)
    first.touch()
    os.truncate(first, 1 << 30)
    for made in (first, second):
        os.chown(made, server.account.uid, server.account.gid)
    status, text = pg_checksums(server)
    assert status == 0, text
    (entry,) = [entry for entry in scan(str(server.datadir)).entries if entry.path.endswith("/99999.1")]
    assert not judge(entry, bytes(data), checksums=True).bad.any()


def test_pages_under_load_are_never_bad_twice(cluster: MakeCluster) -> None:
    """While pages are written, one that looks bad looks right, or newer than the start, when it is read again."""
    server = cluster(shared_buffers="'2MB'", checkpoint_timeout="'30s'")
    server.run("pgbench", "-i", "-q", "-s", "4", "postgres")
    filepath = str(server.value("SELECT pg_relation_filepath('pgbench_accounts')"))
    control = server.value("SELECT redo_lsn::text FROM pg_control_checkpoint()")
    start = Lsn.parse(control)
    load = threading.Thread(target=lambda: server.run("pgbench", "-T", "3", "-c", "4", "-N", "postgres"))
    load.start()
    judged = newer = 0
    with (server.datadir / filepath).open("rb", buffering=0) as file:
        while load.is_alive():
            for block in range(0, 4096, 256):
                data = os.pread(file.fileno(), 256 * BLCKSZ, block * BLCKSZ)
                report = page.inspect(data, block, checksums=True, start_lsn=start)
                for again in np.flatnonzero(report.bad):
                    one = os.pread(file.fileno(), BLCKSZ, (block + int(again)) * BLCKSZ)
                    second = page.inspect(one, block + int(again), checksums=True, start_lsn=start)
                    assert not second.bad.any(), f"block {block + int(again)}"
                judged += len(report.lsns)
                newer += int((report.lsns >= np.uint64(start)).sum())
    load.join()
    assert judged > 10_000
    assert newer > 0


# --- pages made by hand


def sound(lsn: int = 0x1_0000_2000, block: int = 0, fill: int = 0xAB) -> bytearray:
    """A page with a sane header and the right checksum."""
    made = bytearray([fill]) * BLCKSZ
    header = np.zeros(12, dtype="<u2")
    header[:4] = np.frombuffer((lsn >> 32).to_bytes(4, "little") + (lsn & 0xFFFFFFFF).to_bytes(4, "little"), "<u2")
    header[6:10] = (24, 4000, BLCKSZ, BLCKSZ | 4)
    made[:24] = header.tobytes()
    return sealed(made, block)


def sealed(made: bytearray, block: int = 0) -> bytearray:
    made[8:10] = int(page.checksums(made, block)[0]).to_bytes(2, "little")
    return made


def one(data: bytes | bytearray, *, checksums: bool = True, start_lsn: int = AT_REST) -> tuple[bool, bool, bool]:
    """(new, bad, pending) of a single page at block 0."""
    report = page.inspect(data, 0, checksums=checksums, start_lsn=start_lsn)
    return bool(report.new[0]), bool(report.bad[0]), bool(report.pending[0])


def test_the_lsn_is_two_words_high_first() -> None:
    assert page.page_lsns(sound(lsn=0xABCD_0123_4567)).tolist() == [0xABCD_0123_4567]
    assert page.page_lsns(sound(lsn=2**64 - 2)).tolist() == [2**64 - 2]


def test_a_page_of_zeros_is_new_and_sound() -> None:
    assert one(bytes(BLCKSZ)) == (True, False, False)
    assert one(bytes(BLCKSZ), start_lsn=0) == (True, False, False)


@pytest.mark.parametrize("at", [0, 9, 16, 24, BLCKSZ - 1])
def test_zeros_with_one_byte_are_not_new(at: int) -> None:
    """What a page looks like that is half extended, or whose header was lost: pd_upper = 0, but not empty."""
    data = bytearray(BLCKSZ)
    data[at] = 1
    assert one(data) == (False, True, False)
    assert one(data, checksums=False) == (False, True, False)


def test_a_half_written_page_counts_only_with_an_old_lsn() -> None:
    old, new = sound(lsn=0x1000, fill=1), sound(lsn=0x9000, fill=2)
    new_head = new[:4096] + old[4096:]
    old_head = old[:4096] + new[4096:]
    assert one(new_head, start_lsn=0x5000) == (False, False, True)
    assert one(old_head, start_lsn=0x5000) == (False, True, False)
    assert one(new, start_lsn=0x5000) == one(old, start_lsn=0x5000) == (False, False, False)


def test_the_start_itself_is_walls_business() -> None:
    data = sound(lsn=0x5000)
    data[5000] ^= 1
    assert one(data, start_lsn=0x5000) == (False, False, True)
    assert one(data, start_lsn=0x5001) == (False, True, False)


def test_garbage_in_the_lsn_does_not_hide_a_page() -> None:
    """A lost header reads as an LSN far in the future: pending, with the LSN there to be judged after the stop."""
    report = page.inspect(b"\xff" * BLCKSZ, 0, checksums=True, start_lsn=0x5000)
    assert report.pending.tolist() == [True]
    assert report.lsns.tolist() == [2**64 - 1]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (10, 0x0008),  # an unknown flag
        (12, 4002),  # lower past upper
        (14, BLCKSZ + 8),  # upper past special
        (16, BLCKSZ + 8),  # special past the end
        (16, BLCKSZ - 4),  # special not aligned
        (16, 3992),  # special before upper
    ],
)
def test_an_insane_header_is_bad_although_its_checksum_is_right(at: int, value: int) -> None:
    data = sound()
    data[at : at + 2] = value.to_bytes(2, "little")
    sealed(data)
    assert one(data) == (False, True, False)
    assert one(data, checksums=False) == (False, True, False)


@pytest.mark.parametrize(("at", "value"), [(10, 0x0007), (12, 4000), (16, 4000), (12, 0)])
def test_headers_that_postgresql_accepts(at: int, value: int) -> None:
    data = sound()
    data[at : at + 2] = value.to_bytes(2, "little")
    assert one(sealed(data)) == (False, False, False)


@given(st.integers(0, BLCKSZ * 8 - 1))
def test_any_flipped_bit_is_found(bit: int) -> None:
    data = sound()
    data[bit // 8] ^= 1 << bit % 8
    _, bad, pending = one(data)
    assert bad or pending


def reference(data: bytes | bytearray, block: int) -> int:
    """checksum_impl.h, a word at a time."""
    words = [int(word) for word in np.frombuffer(data, dtype="<u4")]
    words[2] &= 0xFFFF0000
    lanes = [int(offset) for offset in page._OFFSETS]
    for index, word in enumerate([*words, *[0] * 64]):
        mixed = lanes[index % 32] ^ word
        lanes[index % 32] = (mixed * 16777619 & 0xFFFFFFFF) ^ mixed >> 17
    folded = block
    for lane in lanes:
        folded ^= lane
    return folded % 65535 + 1


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(0, 2**32 - 4))
def test_checksums_agree_with_the_scalar_form(seed: int, pages: int, block: int) -> None:
    data = np.random.default_rng(seed).bytes(pages * BLCKSZ)
    expected = [reference(data[at * BLCKSZ : (at + 1) * BLCKSZ], block + at) for at in range(pages)]
    assert page.checksums(data, block).tolist() == expected


@pytest.mark.parametrize("count", [0, 1, BATCH_PAGES - 1, BATCH_PAGES, BATCH_PAGES + 1, 3 * BATCH_PAGES + 5])
def test_batches_do_not_show(count: int) -> None:
    """Scratch memory is used again, in part: pages must come out as they do one by one, in any order of calls."""
    data = np.random.default_rng(count).bytes(count * BLCKSZ)
    checker = PageChecker()
    together = checker.checksums(data, 7)
    for at in range(0, count, 50):
        assert checker.checksums(data[at * BLCKSZ : (at + 1) * BLCKSZ], 7 + at).tolist() == [together[at]]
    assert checker.checksums(memoryview(data), 7).tolist() == together.tolist()


def test_block_numbers_do_not_overflow() -> None:
    data = sound()
    assert page.checksums(data * 2, 2**32 - 2).tolist() == [reference(data, 2**32 - 2), reference(data, 2**32 - 1)]


def test_nothing_is_written_to_the_buffer() -> None:
    data = sound()
    before = bytes(data)
    page.inspect(data, 3, checksums=True, start_lsn=0)
    assert data == before


@pytest.mark.parametrize("size", [1, BLCKSZ - 1, BLCKSZ + 1])
def test_a_piece_of_a_page_is_the_callers_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="not whole pages"):
        page.inspect(bytes(size), 0, checksums=True, start_lsn=0)


@given(st.binary(min_size=64, max_size=64), st.integers(0, 2**64 - 1), st.booleans())
def test_any_bytes_get_one_verdict(seed: bytes, start_lsn: int, checksums: bool) -> None:
    report = page.inspect(seed * (BLCKSZ // 64), 0, checksums=checksums, start_lsn=start_lsn)
    assert int(report.new[0]) + int(report.bad[0]) + int(report.pending[0]) <= 1
    if report.pending[0]:
        assert report.lsns[0] >= start_lsn


def test_threads_have_scratch_memory_of_their_own() -> None:
    data = [np.random.default_rng(seed).bytes(300 * BLCKSZ) for seed in range(4)]
    expected = [PageChecker().checksums(each, 0).tolist() for each in data]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(10):
            if page.checksums(data[index], 0).tolist() != expected[index]:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
