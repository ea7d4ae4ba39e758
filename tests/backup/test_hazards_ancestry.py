"""Hazards of the lineage: a base that is not this server's past, or changes that no LSN and no summary tells.

As test_hazards: without its rule the backup is wrong, with it exact.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pgkeep.backup import base, detection
from pgkeep.backup.base import ancestry_refusal
from pgkeep.catalog import continuity
from pgkeep.catalog.continuity import Gap
from pgkeep.errors import Damaged
from pgkeep.pg.page import checksums
from pgkeep.repo.packtables import PackTables
from pgkeep.repo.walarchive import Listing
from pgkeep.values.ids import ObjectId
from pgkeep.values.wal import History
from pgkeep.wal import token
from tests.adversity.conftest import started
from tests.backup.ground import Ground, page_of, put_page
from tests.backup.pagecompare import lsn_of
from tests.backup.test_hazards import any_cover, any_lsn, both, no_sample
from tests.clusters import Cluster
from tests.conftest import MakeStandby, Serve
from tests.keeping import Kept
from tests.servers import pg_versions

MakeGround = Callable[..., Ground]
Monkey = pytest.MonkeyPatch


# ---- rules that can be left out


def by_start(patch: Monkey) -> None:
    """A base must have begun, not ended, before its timeline was left."""

    def refusal(info: Any, *rest: Any) -> str | None:
        return ancestry_refusal(replace(info, stop_lsn=info.start_lsn), *rest)

    patch.setattr(detection, "ancestry_refusal", refusal)
    no_sample(patch)


def any_checksums(patch: Monkey) -> None:
    """Checksums may have been switched."""

    def refusal(info: Any, server: Any, facts: Any, *rest: Any) -> str | None:
        return ancestry_refusal(info, replace(server, data_checksum_version=facts.data_checksum_version), facts, *rest)

    patch.setattr(detection, "ancestry_refusal", refusal)
    no_sample(patch)


def any_settings(patch: Monkey) -> None:
    """LSNs are believed whatever was logged of hint bits."""
    patch.setattr(detection, "lsn_refusal", lambda *_: None)


def any_gap(patch: Monkey) -> None:
    """The archive may lack segments, not only the last, which is about to come."""

    def gaps(listing: Listing, history: History, first: int, last: int) -> list[Gap]:
        return [gap for gap in continuity.gaps(listing, history, first, last) if gap.last == last]

    patch.setattr(detection, "gaps", gaps)


def any_archive(patch: Monkey) -> None:
    """Archived segments need not be the server's own."""
    patch.setattr(detection.Detector, "_own", lambda *_: ())


# ---- changes without an LSN


@pg_versions("oldest", "newest")
def test_pages_that_became_all_visible_without_an_lsn(own: MakeGround, server_tmp: Path) -> None:
    """Without checksums and wal_log_hints VACUUM marks pages by WAL that gives them no LSN: corruption, not a hint."""
    made = own(checksums=False)
    _all_visible_since_the_base(made)
    broken = made.backup("lsn", without=any_settings)
    assert made.wrong(broken)
    with started(made.kept, server_tmp / "restored", "--backup", broken.info.backup, "--immediate") as server:
        assert _counts(server) != (99, 99), "index-only scans find no deleted row: the rule would be needless"
    made.forget(broken)
    exact = made.backup("lsn")
    assert exact.info.method == "rescan" and "wal_log_hints" in exact.info.method_reason
    assert not made.wrong(exact)
    shutil.rmtree(server_tmp / "restored")
    with started(made.kept, server_tmp / "restored", "--backup", exact.info.backup, "--immediate") as server:
        assert _counts(server) == (99, 99)


def _all_visible_since_the_base(made: Ground) -> None:
    made.sql("CREATE TABLE t AS SELECT g AS id, 0 AS n FROM generate_series(1, 5000) g", "CREATE INDEX ON t (id)")
    made.sql("SELECT count(*) FROM t", "CHECKPOINT")
    made.backup("full")
    before = page_of(made.file("t"))
    made.sql("VACUUM t", "CHECKPOINT")
    after = page_of(made.file("t"))
    assert after != before and after[:8] == before[:8], "the page was given a new LSN"


def _counts(server: Cluster) -> tuple[int, int]:
    """Rows up to 100 when one of them was deleted: by an index-only scan, and by reading the table."""
    with server.connect() as connection:
        connection.execute("DELETE FROM t WHERE id = 1")
        connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_indexscan = off")
        by_index = connection.execute("SELECT count(*) FROM t WHERE id <= 100").fetchone()
        connection.execute("SET enable_seqscan = on; SET enable_indexonlyscan = off")
        by_table = connection.execute("SELECT count(*) FROM t WHERE id <= 100").fetchone()
    assert by_index is not None and by_table is not None
    return by_index[0], by_table[0]


def test_checksums_that_were_off_for_a_while(own: MakeGround) -> None:
    """Base and server have them, and what happened in between gave no page an LSN."""
    made = own()
    made.sql("CREATE TABLE t AS SELECT g AS id, 0 AS n FROM generate_series(1, 5000) g", "CHECKPOINT")
    made.backup("full")
    with made.stopped():
        _pg_checksums(made, "--disable")
    made.sql("VACUUM t")
    with made.stopped():
        _pg_checksums(made, "--enable")
    exact = made.prove("lsn", any_settings, method="rescan")
    assert "started since" in exact.info.method_reason
    assert made.backup("lsn").info.method == "lsn", "the next one has a base that this life of the server made"


def _pg_checksums(made: Ground, what: str) -> None:
    made.server.programs.run("pg_checksums", what, "-D", str(made.path), account=made.server.account, timeout=120)


@pytest.mark.parametrize("switched", ["--enable", "--disable"])
def test_checksums_that_were_switched(own: MakeGround, switched: str) -> None:
    """Enabling changes every page and no LSN."""
    made = own(checksums=switched == "--disable", wal_log_hints="on")
    made.table("t")
    made.backup("full")
    with made.stopped():
        _pg_checksums(made, switched)
    if switched == "--enable":
        exact = made.prove("summaries", any_checksums, method="rescan")
    else:  # pages keep what they have; the rule holds all the same
        exact = made.backup("summaries")
        assert not made.wrong(exact)
    assert (exact.info.method, "checksums were switched" in exact.info.method_reason) == ("rescan", True)


# ---- a base that is not this server's past


@pytest.mark.pg(">=17")
def test_a_base_that_ended_on_a_dead_branch(own: MakeGround, standby_of: MakeStandby) -> None:
    """The standby is promoted while the base is read: what the old primary did after that is in the base."""
    made = own()
    path = made.table("t")
    standby = standby_of(made.server)

    def promote() -> None:
        _await_replay(made.server, standby)
        standby.sql("SELECT pg_promote()")
        made.sql("UPDATE t SET n = 1 WHERE id = 1", "CHECKPOINT")

    base = made.backup("full", during=promote)
    assert lsn_of(page_of(path)) > base.info.start_lsn
    made.server.stop()
    _write_wal_beyond(standby, base.info.stop_lsn)
    other = Ground(made.kept, standby, made.ids)
    exact = other.prove("summaries", by_start, method="rescan")
    assert "after the server's history left its timeline" in exact.info.method_reason


def _await_replay(primary: Cluster, standby: Cluster) -> None:
    lsn = primary.value("SELECT pg_current_wal_flush_lsn()::text")
    Kept.wait(lambda: bool(standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'")), "the standby does not follow")


def _write_wal_beyond(server: Cluster, lsn: int) -> None:
    while int(server.value("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")) <= lsn + (2 << 20):
        server.sql("SELECT pg_create_restore_point('going on')")
        server.switch_wal()
    server.sql("CHECKPOINT")


@dataclass
class Lives:
    """Makes two lives of one data directory, a copy of which was made cold; the first one's deeds are in the base.

    The first sets n of a row to 1 before the base, the second to 2: without `other` both pages have one LSN.  What the
    second writes under names that the first has archived, and `skipped` segments more, it takes out of the archive's
    way: only then is there nobody who would refuse it.
    """

    made: Ground
    serve: Serve

    def make(self, *, clone: bool, skipped: int = 0, other: bool = False) -> Ground:
        made = self.made
        made.table("t")
        made.kept.archive_all()  # its token is in the directory from then on
        copy = made.kept.home / "copy"
        with made.stopped():
            subprocess.run(["cp", "-a", made.path, copy], check=True)
            _keep_the_inode(copy / token.FILE_NAME)
        made.sql("UPDATE t SET n = 1 WHERE id = 1", "CHECKPOINT")
        first = lsn_of(page_of(made.file("t")))
        second = self._begin(copy, other=other) if clone else None
        base = made.backup("full")
        made.server.stop()
        if second is None:
            made.path.rename(made.kept.home / "the first life")
            copy.rename(made.path)
            second = self._begin(made.path, other=other)
        ground = Ground(made.kept, second, made.ids)
        lsn = lsn_of(page_of(ground.file("t")))
        assert (lsn == first) != other and lsn < base.info.start_lsn
        self._pass_by(second, skipped)
        return ground

    def _begin(self, path: Path, *, other: bool) -> Cluster:
        server = self.serve(path, start=False)
        server.configure(archive_command="'true'")
        server.start()
        if other:
            server.sql("INSERT INTO t VALUES (0)")
        server.sql("UPDATE t SET n = 2 WHERE id = 1")
        server.sql("CHECKPOINT")
        return server

    def _pass_by(self, server: Cluster, skipped: int) -> None:
        """Go on in silence until the archive has no segment of the next names, then archive."""
        last = int(self.made.kept.wal()[-1].name[16:], 16) + skipped
        while (name := _complete_segment(server)) < last:
            continue
        done = f"SELECT right(last_archived_wal, 8) >= '{name:08X}' FROM pg_stat_archiver"
        Kept.wait(lambda: bool(server.value(done)), "the second life does not pass its WAL by")
        server.configure(archive_command="'" + _archive_command(self.made).replace("'", "''") + "'")
        server.reload()
        time.sleep(0.5)  # the archiver reads its configuration between two files
        for _ in range(3):
            name = _complete_segment(server)
        wal = self.made.kept.wal
        Kept.wait(lambda: int(wal()[-1].name[16:], 16) >= name, "the second life does not archive")
        server.sql("CHECKPOINT")  # what is archived, and not to be kept, goes


def _archive_command(made: Ground) -> str:
    """As configured when the cluster came into care."""
    lines = made.kept.home / "the first life" if (made.kept.home / "the first life").exists() else made.path
    text = (lines / "postgresql.conf").read_text()
    (found,) = re.findall(r"^archive_command = '(.*)'$", text, re.M)
    return str(found).replace("''", "'")


def _complete_segment(server: Cluster) -> int:
    """The number of the segment that was made complete."""
    server.sql("SELECT pg_create_restore_point('going on')")
    return int(server.switch_wal()[16:], 16)


def _keep_the_inode(path: Path) -> None:
    """As a snapshot of a volume does, and no copy: else the claim of the timeline would refuse the second life."""
    words = path.read_text().split()
    path.write_bytes(token._encode(words[1], str(path.stat().st_ino)))


@pytest.fixture
def lives(own: MakeGround, serve: Serve) -> Callable[..., Lives]:
    return lambda **options: Lives(own(**options), serve)


@pytest.fixture
def one_life(monkeypatch: Monkey) -> None:
    """That the server was started since the base, which would refuse it too, is put aside: each rule by itself."""
    monkeypatch.setattr(base, "_is_same_life", lambda *_: True)


@pytest.mark.pg(">=17")
def test_a_directory_that_was_rolled_back(lives: Callable[..., Lives]) -> None:
    """Its WAL has the archived segments' names and lengths, and other content."""
    ground = lives(wal_keep_size="'1GB'").make(clone=False)
    exact = ground.prove("summaries", both(no_sample, any_archive), method="rescan")
    assert "not this server's own" in exact.info.method_reason and "base-dropped" in exact.warnings


@pg_versions("oldest", "newest")
@pytest.mark.usefixtures("one_life")
def test_two_clones_on_one_timeline(lives: Callable[..., Lives]) -> None:
    """One clone's backup is the other's base, and the page has one LSN in both."""
    ground = lives(wal_keep_size="'1GB'").make(clone=True)
    exact = ground.prove("lsn", any_archive, method="rescan")
    assert "not this server's own" in exact.info.method_reason and "base-dropped" in exact.warnings


@pytest.mark.usefixtures("one_life")
def test_a_gap_in_the_archive(lives: Callable[..., Lives]) -> None:
    """The segments that would show the other life are gone from the server; one is missing in the archive."""
    ground = lives(summarize_wal="off").make(clone=True, skipped=1)
    exact = ground.prove("lsn", any_gap, method="rescan")
    assert "the WAL archive lacks" in exact.info.method_reason


@pg_versions("oldest", "newest")
@pytest.mark.usefixtures("one_life")
def test_an_lsn_that_the_base_does_not_explain(lives: Callable[..., Lives]) -> None:
    """Nothing is left to compare, but the page's LSN is not the base's, and older than it."""
    ground = lives().make(clone=True, other=True)
    exact = ground.prove("lsn", any_lsn, method="rescan")
    assert "does not explain" in exact.info.method_reason and "base-dropped" in exact.warnings


@pytest.mark.pg(">=17")
def test_wal_that_pg_resetwal_threw_away(own: MakeGround) -> None:
    """Summaries go with it.  Either of two rules would do: the archive has a gap, and so have the summaries."""
    made = own()
    made.table("t")
    made.sql("VACUUM")
    made.backup("full")
    made.sql("UPDATE t SET n = 1 WHERE id = 1", "CHECKPOINT")
    with made.stopped():
        made.server.programs.run("pg_resetwal", "-D", str(made.path), account=made.server.account, timeout=60)
    _leave_behind(made)
    exact = made.prove("summaries", both(any_gap, any_cover), method="rescan")
    assert "the WAL archive lacks" in exact.info.method_reason
    made.forget(exact)
    made.prove("summaries", both(any_gap, any_cover), method="rescan")


@pytest.mark.pg(">=17")
def test_a_spell_at_wal_level_minimal(own: MakeGround) -> None:
    """What it changed is in no summary, and much of it in no WAL."""
    made = own()
    made.table("t")
    made.sql("VACUUM")  # later, a look at a catalog could prune its page, and the catalogs' LSNs are all compared
    made.backup("full")
    with made.stopped():
        made.server.configure(wal_level="minimal", archive_mode="off", max_wal_senders="0", summarize_wal="off")
    made.sql("UPDATE t SET n = 1 WHERE id = 1", "CHECKPOINT")
    with made.stopped():
        made.server.configure(wal_level="replica", archive_mode="on", max_wal_senders="10", summarize_wal="on")
    _leave_behind(made)
    exact = made.prove("summaries", both(any_gap, any_cover), method="rescan")
    assert "started since" in exact.info.method_reason or "lacks" in exact.info.method_reason


def _leave_behind(made: Ground) -> None:
    """Archive some segments, so that the one before a backup's start is there."""
    for _ in range(2):
        made.kept.archive_all()


@pg_versions("oldest")
def test_a_promoted_standby_that_had_other_settings(own: MakeGround, standby_of: MakeStandby) -> None:
    """It replayed with wal_log_hints off what the primary did with it on: all-visible pages that keep their LSN."""
    made = own(checksums=False, wal_log_hints="on")
    made.sql("CREATE TABLE t AS SELECT g AS id, 0 AS n FROM generate_series(1, 5000) g", "SELECT count(*) FROM t")
    made.sql("CHECKPOINT")
    standby = standby_of(made.server)
    standby.configure(wal_log_hints="off")
    standby.restart()
    made.backup("full")
    made.sql("VACUUM t")
    _await_replay(made.server, standby)
    standby.configure(wal_log_hints="on")
    standby.restart()
    made.server.stop()
    standby.sql("SELECT pg_promote()")
    standby.sql("CHECKPOINT")
    other = Ground(made.kept, standby, made.ids)
    _complete_segment(standby)
    made.kept.wait(lambda: any(made.kept.repository.rglob("*.history")), "the new timeline is not archived")
    exact = other.prove("lsn", any_settings, method="rescan")
    assert "promoted since" in exact.info.method_reason


# ---- bases that cannot be read


def test_a_pack_of_the_base_that_is_gone(own: MakeGround) -> None:
    made = own()
    made.table("t")
    made.backup("full")
    for pack in made.kept.packs():
        pack.unlink()
    found = made.backup("lsn")
    assert (found.info.method, found.info.base) == ("full", None) and "base-dropped" in found.warnings
    assert not made.wrong(found)


def test_a_doubtful_base_whose_hashes_are_damaged(own: MakeGround, monkeypatch: Monkey) -> None:
    """Two ways down at once: by hash instead of LSN, then nothing of it at all."""
    made = own()
    path = made.table("t")
    made.backup("full")
    with made.stopped():
        page = bytearray(page_of(path))
        page[4:8] = (int.from_bytes(page[4:8], "little") - 8).to_bytes(4, "little")
        page[8:10] = checksums(page, 0).tobytes()
        put_page(path, 0, bytes(page))
    monkeypatch.setattr(detection, "lsn_refusal", lambda *_: None)

    def damaged(_tables: PackTables, pack: ObjectId) -> Any:
        raise Damaged(f"pack {pack}", "has a damaged table of hashes")

    monkeypatch.setattr(PackTables, "_read_hashes", damaged)
    _leave_behind(made)
    found = made.backup("lsn")
    assert (found.info.method, found.info.base) == ("full", None)
    assert not made.wrong(found)
