"""Hazards of taking pages over, each on a real server: without its rule the backup is wrong, with it exact.

docs/format/inheritance.md has the rules.  Those on lineages (which base, which ancestry) are in test_hazards_ancestry.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgkeep.backup import inheriting, worker
from pgkeep.backup.inheriting import BaseSettings, Inheritance, InheritedFile
from pgkeep.backup.tasks import BaseFile
from pgkeep.pg import summaries
from pgkeep.pg.account import Account
from pgkeep.pg.changes import NO_LIMIT, Changes, ForkChanges
from pgkeep.pg.crc32c import crc32c
from pgkeep.pg.entry import Entry
from pgkeep.pg.page import checksums, page_lsns
from pgkeep.pg.summaries import Stretch, Summary
from pgkeep.values.lsn import Lsn
from tests.backup.ground import Ground, Patch, page_of, put_page, quiet
from tests.backup.pagecompare import PAGE, lsn_of
from tests.conftest import _maker, _server_directory
from tests.keeping import Kept, keep
from tests.servers import NEWEST

MakeKept = Callable[..., Kept]
Monkey = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def ground(server_user: Account, pgkeep_program: tuple[str, ...]) -> Iterator[Ground]:
    """One quiet server for all tests that only add tables and backups; checksums and summaries are on."""
    home = _server_directory(server_user)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        kept = keep(_maker(NEWEST, home, server_user, stack), home, pgkeep_program, wal_segsize=1, **quiet(NEWEST))
        yield Ground(kept, kept.cluster)


# ---- rules that can be left out


def no_sample(patch: Monkey) -> None:
    """Of pages that WAL summaries do not name none is compared: what is to be seen must not depend on luck."""
    patch.setattr(inheriting, "SAMPLE", 0.0)


def lsns_up_to_this_start(patch: Monkey) -> None:
    """Pages with an LSN from the base's start to this backup's start count as old."""

    def settings(packs: Any, avoid: Any, _start: Lsn, this: Lsn, seed: int) -> BaseSettings:
        return BaseSettings(packs, avoid, this, this, seed)

    patch.setattr("pgkeep.backup.job.BaseSettings", settings)


def any_header(patch: Monkey) -> None:
    """Every page's LSN is believed."""
    patch.setattr(inheriting, "dated_pages", lambda data: (page_lsns(data), np.ones(len(data) // PAGE, np.bool_)))


def no_bad_pages(patch: Monkey) -> None:
    """What the base lists as damaged is as good as anything."""
    must = InheritedFile._must_be_stored

    def without(file: InheritedFile) -> Any:
        file.base = BaseFile(file.base.settled, file.base.units, file.base.how)
        return must(file)

    patch.setattr(InheritedFile, "_must_be_stored", without)


def all_forks(patch: Monkey) -> None:
    """_vm, _fsm and _init are taken for main forks."""
    patch.setattr(Entry, "inheritable", property(lambda entry: entry.fork is not None))


def no_limits(patch: Monkey) -> None:
    """That a relation was truncated or made anew is passed over."""
    of = Changes.of
    patch.setattr(Changes, "of", lambda changes, key: ForkChanges(NO_LIMIT, of(changes, key).blocks))


def no_databases(patch: Monkey) -> None:
    """That a database was made anew is passed over."""
    patch.setattr(Changes, "of", Changes.of_fork)
    no_sample(patch)


def any_lsn(patch: Monkey) -> None:
    """An LSN below the base's start need not be the stored one."""
    patch.setattr(InheritedFile, "_refuse", lambda *_: None)


def any_file(patch: Monkey) -> None:
    """A file of bytes is taken over by its name and size."""

    def takes_over(_self: Inheritance, run: Any, _digest: bytes) -> Any:
        return run.base.settled if run.base is not None and run.base.units == run.length else None

    patch.setattr(Inheritance, "takes_over", takes_over)


def any_cover(patch: Monkey) -> None:
    """The summaries that there are will do."""

    def cover(known: list[Summary], wanted: list[Stretch]) -> tuple[list[Summary], None]:
        return [one for one in known if one.end > wanted[0].start], None

    patch.setattr("pgkeep.backup.detection.cover", cover)
    no_sample(patch)


def any_summary(patch: Monkey) -> None:
    """A summary's checksum is not looked at."""
    decode = summaries.decode_summary

    def decoded(data: bytes, path: str, changes: Changes) -> None:
        decode(data[:-4] + crc32c(data[:-4]).to_bytes(4, "little"), path, changes)

    patch.setattr(summaries, "decode_summary", decoded)
    no_sample(patch)


def both(*patches: Patch) -> Patch:
    """Two rules that stand for each other."""

    def out(patch: Monkey) -> None:
        for one in patches:
            one(patch)

    return out


# ---- pages


def test_a_torn_image_in_the_base(own: Callable[..., Ground], monkeypatch: Monkey) -> None:
    """Read while it was written: the new header, an old tail, right under the base's own WAL only."""
    made = own(checksums=False, wal_log_hints="on")
    path = made.table("t")
    old = page_of(path)

    def write() -> None:
        made.sql("UPDATE t SET n = 1 WHERE id = 1", "CHECKPOINT")

    read = worker._read_exactly

    def torn(descriptor: int, view: memoryview, offset: int) -> None:
        read(descriptor, view, offset)
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(path) and offset == 0:
            view[512:PAGE] = old[512:]

    monkeypatch.setattr(worker, "_read_exactly", torn)
    base = made.backup("full", during=write)
    monkeypatch.setattr(worker, "_read_exactly", read)
    assert lsn_of(page_of(path)) >= base.info.start_lsn and page_of(path)[512:] != old[512:]
    made.kept.archive_all()
    made.prove("lsn", lsns_up_to_this_start, method="lsn")


@pytest.mark.parametrize("what", ["upper", "flags", "garbage"])
def test_headers_that_say_nothing(ground: Ground, what: str) -> None:
    """pd_upper = 0, impossible flags, a new page with content: the LSN is the base's, the page is not."""
    path = ground.table(f"header_{what}")
    if what == "garbage":
        put_page(path, 3, bytes(PAGE))
    ground.backup("full")
    page = bytearray(page_of(path, 3))
    match what:
        case "upper":
            page[14:16] = bytes(2)
        case "flags":
            page[10:12] = b"\xff\xff"
        case _:
            page[4000:4100] = b"?" * 100
    put_page(path, 3, bytes(page))
    exact = ground.prove("lsn", any_header, method="lsn")
    assert exact.info.bad_pages == 1
    ground.sql(f"DROP TABLE header_{what}", "CHECKPOINT")


def test_a_page_of_zeros(ground: Ground) -> None:
    """What a crash leaves of an extension, where the base has rows."""
    path = ground.table("zeros")
    ground.backup("full")
    put_page(path, 3, bytes(PAGE))
    exact = ground.prove("lsn", both(any_header, any_lsn), method="lsn")
    assert exact.info.pages_changed < 100 and not exact.info.bad_pages
    ground.sql("DROP TABLE zeros", "CHECKPOINT")


def test_pages_that_the_base_lists_as_damaged(ground: Ground) -> None:
    """The disk has recovered, and the page has the LSN that the base knows."""
    path = ground.table("damaged")
    good = page_of(path, 3)
    put_page(path, 3, good[:5000] + bytes([good[5000] ^ 0xFF]) + good[5001:])
    base = ground.backup("full")
    assert base.info.bad_pages == 1
    put_page(path, 3, good)
    exact = ground.prove("lsn", no_bad_pages, method="lsn")
    assert exact.info.bad_pages == 0


def test_a_page_that_wal_of_the_base_was_to_repair(ground: Ground) -> None:
    """Damaged on disk with an LSN of the base's own time: its WAL repairs the base, and nobody a later backup."""
    path = ground.table("pending")

    def write() -> None:
        ground.sql("UPDATE pending SET n = 1 WHERE id = 1", "CHECKPOINT")
        page = page_of(path)
        put_page(path, 0, page[:5000] + bytes([page[5000] ^ 0xFF]) + page[5001:])

    base = ground.backup("full", during=write)
    assert base.info.bad_pages == 0
    for mode in ("rescan", "lsn", "summaries"):
        later = ground.backup(mode)
        assert (later.info.method, later.info.bad_pages) == (mode, 1)
        assert not ground.wrong(later)
        ground.forget(later)
    ground.sql("DROP TABLE pending", "CHECKPOINT")


# ---- forks and files that change without an LSN


def test_a_visibility_map_whose_bit_was_cleared(ground: Ground) -> None:
    """Before the minors of July 2026 that gave the map's page no new LSN; the page is put as they leave it."""
    path = ground.table("seen")
    vm = path.with_name(f"{path.name}_vm")
    before = page_of(vm)
    ground.backup("full")
    ground.sql("DELETE FROM seen WHERE id = 1", "CHECKPOINT")
    page = bytearray(page_of(vm))
    page[:8] = before[:8]
    page[8:10] = checksums(page, 0).tobytes()
    assert page[24:] != before[24:]
    put_page(vm, 0, bytes(page))
    ground.prove("lsn", all_forks, method="lsn")


def test_a_free_space_map(ground: Ground) -> None:
    """What WAL did to blocks 1000 and on of the main fork says nothing of its maps."""
    ground.table("space", 60000)
    ground.sql("DELETE FROM space WHERE id > 40000")
    ground.backup("full")
    ground.sql("VACUUM (INDEX_CLEANUP off, TRUNCATE off) space", "CHECKPOINT")
    ground.prove("summaries", both(no_sample, all_forks), method="summaries")
    ground.sql("DROP TABLE space", "CHECKPOINT")


def test_an_init_fork(ground: Ground) -> None:
    """Written past shared buffers; here by hand, because PostgreSQL never changes one in place so far."""
    ground.sql("CREATE UNLOGGED TABLE fleeting (id int PRIMARY KEY)", "CHECKPOINT")
    path = ground.file("fleeting_pkey").with_name(ground.file("fleeting_pkey").name + "_init")
    ground.backup("full")
    page = bytearray(page_of(path))
    page[30] ^= 1
    put_page(path, 0, bytes(page))
    ground.prove("lsn", all_forks, method="lsn")
    ground.sql("DROP TABLE fleeting", "CHECKPOINT")


def test_relation_maps_and_slrus(ground: Ground) -> None:
    """VACUUM FULL of a mapped catalog changes pg_filenode.map, every transaction pg_xact; their sizes stay."""
    ground.backup("full")
    ground.sql("VACUUM FULL pg_class", "VACUUM FULL pg_database", "CHECKPOINT")
    for mode in ("rescan", "lsn", "summaries"):
        ground.forget(ground.prove(mode, any_file, method=mode))


# ---- what WAL summaries say


def test_a_relation_that_was_truncated_and_grew_again(ground: Ground) -> None:
    """Behind what was written anew lie zeros of an extension that a crash cut off: no WAL names them."""
    path = ground.table("regrown")
    ground.backup("full")
    ground.sql("DELETE FROM regrown", "VACUUM (TRUNCATE) regrown", "INSERT INTO regrown VALUES (1)", "CHECKPOINT")
    assert path.stat().st_size == PAGE
    with path.open("ab") as file:
        file.write(bytes(20 * PAGE))
    ground.prove("summaries", both(no_sample, no_limits), method="summaries")
    ground.sql("DROP TABLE regrown", "CHECKPOINT")


@pytest.mark.parametrize("mode", ["summaries", "lsn"])
def test_a_database_made_anew_by_copying_files(ground: Ground, mode: Any) -> None:
    """CREATE DATABASE ... FILE_COPY with the OID of one that was dropped: other pages with other, old LSNs."""
    one, other, copy = f"{mode}_one", f"{mode}_other", f"{mode}_copy"
    ground.sql(f"CREATE DATABASE {one}")
    ground.table("t", dbname=one)
    ground.sql(f"CREATE DATABASE {other} TEMPLATE {one} STRATEGY file_copy")
    ground.sql("UPDATE t SET n = 1 WHERE id = 1", "CHECKPOINT", dbname=other)
    ground.sql(f"CREATE DATABASE {copy} TEMPLATE {one} STRATEGY file_copy")
    oid = ground.server.value(f"SELECT oid FROM pg_database WHERE datname = '{copy}'")
    ground.backup("full")
    ground.sql(f"DROP DATABASE {copy}", f"CREATE DATABASE {copy} OID = {oid} TEMPLATE {other} STRATEGY file_copy")
    ground.sql("CHECKPOINT")
    if mode == "summaries":
        ground.prove(mode, no_databases, method=mode)
    else:
        exact = ground.prove(mode, any_lsn, method="rescan")
        assert "base-dropped" in exact.warnings and "does not explain" in exact.info.method_reason
    for name in (one, other, copy):
        ground.sql(f"DROP DATABASE {name}")


@pytest.mark.parametrize("why", ["removed", "switched off"])
def test_wal_summaries_with_a_gap(own: Callable[..., Ground], why: str) -> None:
    made = own()
    made.table("t")
    made.table("other")
    made.backup("full")
    if why == "removed":
        made.sql("UPDATE t SET n = 1 WHERE id = 1", "CHECKPOINT")
        for path in _summaries_of(made, "t"):
            path.unlink()
    else:
        made.sql("ALTER SYSTEM SET summarize_wal = off", "SELECT pg_reload_conf()", "SELECT pg_sleep(0.2)")
        made.sql("UPDATE t SET n = 1 WHERE id = 1")
        for _ in range(2):  # the WAL goes with the second checkpoint
            made.kept.archive_all()
            made.sql("CHECKPOINT")
        made.sql("ALTER SYSTEM SET summarize_wal = on", "SELECT pg_reload_conf()")
    made.sql("UPDATE other SET n = 1 WHERE id = 1", "CHECKPOINT")
    exact = made.prove("summaries", any_cover, method="lsn")
    assert "no WAL summary" in exact.info.method_reason


def _summaries_of(made: Ground, table: str) -> list[Path]:
    """The summary files since the last checkpoint but one that name the table."""
    query = "SELECT max(end_lsn) >= (SELECT redo_lsn FROM pg_control_checkpoint()) FROM pg_available_wal_summaries()"
    made.kept.wait(lambda: bool(made.server.value(query)), "the WAL summarizer does not follow")
    directory = made.path / "pg_wal" / "summaries"
    number = made.server.value(f"SELECT pg_relation_filenode('{table}')").to_bytes(4, "little")
    found = [directory / one.name for one in summaries.list_summaries(str(made.path / "pg_wal"))[-2:]]
    return [path for path in found if number in path.read_bytes()]


def test_a_damaged_wal_summary(own: Callable[..., Ground]) -> None:
    """A flipped bit names another relation."""
    made = own()
    made.table("t")
    made.backup("full")
    made.sql("UPDATE t SET n = 1 WHERE id = 1", "CHECKPOINT")
    number = made.server.value("SELECT pg_relation_filenode('t')").to_bytes(4, "little")
    (path,) = _summaries_of(made, "t")
    data = bytearray(path.read_bytes())
    data[data.find(number) + 2] ^= 0x40
    path.write_bytes(data)
    exact = made.prove("summaries", any_summary, method="lsn")
    assert "summary-damaged" in exact.warnings
