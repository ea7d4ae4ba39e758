"""Whole backups of real servers: what is in them, and what no bad luck may leave behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pgkeep.backup.job import BackupRequest, run_backup
from pgkeep.backup.source import check_mounted
from pgkeep.catalog.verification import verify
from pgkeep.clock import SystemClock
from pgkeep.errors import Fault
from pgkeep.events import silent
from pgkeep.pg.account import give
from pgkeep.pg.datadir import scan
from pgkeep.pg.rights import missing_grants
from pgkeep.repo.backups import read_manifest
from pgkeep.store.local import LocalStore
from pgkeep.values.ids import BackupId
from tests import requirements
from tests.aim import Aim
from tests.keeping import Kept
from tests.servers import pg_versions

MakeKept = Callable[..., Kept]


def _fill(kept: Kept, rows: int = 20_000, table: str = "orders") -> None:
    kept.cluster.sql(f"CREATE TABLE {table} AS SELECT g AS id, md5(g::text) AS note FROM generate_series(1, {rows}) g")


@pg_versions("oldest", "newest")
def test_a_backup_holds_what_the_manifest_says(kept: MakeKept) -> None:
    made = kept()
    _fill(made)
    backup = made.backup("--label", "before the move")
    manifest = read_manifest(made.catalogue(), BackupId(backup))
    assert manifest.info.label == "before the move"
    assert manifest.info.start_lsn < manifest.info.stop_lsn
    assert manifest.info.bad_pages == 0
    entries = {entry.path: entry for entry in manifest.entries()}
    assert entries[b"global/pg_control"].size == 8192
    assert b"postmaster.pid" not in entries and b"pgkeep.instance" not in entries
    assert not any(path.startswith(b"pg_wal/0") for path in entries)
    relations = {relation.name for relation in manifest.inner.relations}
    assert b"orders" in relations and b"pg_database" in relations
    filenode = made.cluster.value("SELECT pg_relation_filepath('orders')")
    assert entries[filenode.encode()].size == made.cluster.value("SELECT pg_relation_size('orders')")
    assert manifest.inner.backup_label.startswith(b"START WAL LOCATION: ")
    assert made.result("verify")["sound"] is True


def test_two_backups_at_once_both_succeed(kept: MakeKept) -> None:
    made = kept()
    _fill(made)
    first, second = made.start("backup"), made.start("backup")
    for process in (first, second):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert len(made.backups()) == 2
    assert made.result("verify")["sound"] is True


def test_interrupts_leave_earlier_backups_and_nothing_else(kept: MakeKept) -> None:
    """Ctrl-C reaches the whole foreground group, the workers too; SIGTERM the one process that is named."""
    made = kept()
    _fill(made, 100_000)
    made.backup()
    packs, backups = made.packs(), made.backups()
    process = made.start("backup", "--checkpoint", "spread")
    made.wait(lambda: bool(made.cluster.value(_IN_BACKUP)), "the backup did not connect")
    _interrupt(made, process, signal.SIGTERM)
    assert (made.packs(), made.backups()) == (packs, backups)
    for number in (signal.SIGINT, signal.SIGTERM):
        for _ in range(20):
            packs, backups = made.packs(), made.backups()
            if _interrupt_while_writing(made, number):
                assert made.backups() == backups
                if made.packs() == packs:
                    break  # else it came while the manifest was written, which must keep its packs: once more
        assert (made.packs(), made.backups()) == (packs, backups), "no interrupt met a worker that writes"
    made.wait(lambda: not made.cluster.value(_IN_BACKUP), "the server still believes in a running backup")
    made.backup()
    assert made.result("verify")["sound"] is True


def _interrupt_while_writing(made: Kept, number: int) -> bool:
    """False when the backup was faster."""
    process = made.start("backup", "--mode", "full")
    made.wait(lambda: bool(_unfinished(made)) or process.poll() is not None, "no worker writes a pack")
    interrupted = _interrupt(made, process, number)
    assert _unfinished(made) == []
    return interrupted


def _interrupt(made: Kept, process: subprocess.Popen[str], number: int) -> bool:
    """False when the backup was faster."""
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (0, 130), err
    assert "Traceback" not in err
    return process.returncode == 130


def _unfinished(made: Kept) -> list[Path]:
    """Packs on their way; the archiver has unfinished files of its own, also before the backup has begun."""
    return list(made.repository.glob("*/packs/.tmp-*"))


_IN_BACKUP = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgkeep'"


def test_kills_at_random_moments_leave_only_whole_backups(kept: MakeKept, seed: int) -> None:
    _kill_backups(kept(), times=4, seed=seed)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_many_kills_at_random_moments_leave_only_whole_backups(kept: MakeKept, seed: int) -> None:
    _kill_backups(kept(), times=100, seed=seed)


def _kill_backups(made: Kept, *, times: int, seed: int) -> None:
    chance = random.Random(seed)
    _fill(made, 100_000)
    began = time.monotonic()
    made.backup()
    aim = Aim(chance, time.monotonic() - began)
    for _ in range(times):
        before = made.backups()
        process = made.start("backup", "--mode", chance.choice(["auto", "full"]))
        time.sleep(aim.moment())
        made.kill(process)
        _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err
        aim.came(late=process.returncode == 0)
        left = made.backups()
        assert left[: len(before)] == before and len(left) <= len(before) + 1
    aim.check()
    made.backup()
    assert made.result("verify")["sound"] is True


def test_a_lost_connection_ends_the_backup(kept: MakeKept) -> None:
    made = kept()
    _fill(made)
    process = made.start("backup", "--checkpoint", "spread")
    made.wait(lambda: bool(made.cluster.value(_IN_BACKUP)), "the backup did not connect")
    made.cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgkeep'")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 20, err
    assert made.backups() == [] and made.packs() == []


def test_wal_that_does_not_arrive_is_no_backup(kept: MakeKept) -> None:
    made = kept()
    _fill(made)
    made.cluster.sql("ALTER SYSTEM SET archive_command = 'false'")
    made.cluster.reload()
    answer = made.json("backup", "--archive-timeout", "3s", status=1)
    assert answer["error"]["code"] == "wal-not-archived"
    assert made.backups() == [] and made.packs() == []


def test_wal_of_another_content_under_the_same_name_is_no_backup(kept: MakeKept) -> None:
    """A rolled-back copy that archived first: the backup must notice that the archive is not its own WAL."""
    made = kept()
    _fill(made)
    made.backup()
    made.archive_all()
    other = made.wal()[-1]
    size = made.cluster.value("SELECT setting::int FROM pg_settings WHERE name = 'wal_segment_size'")
    number = int(other.name[8:16], 16) * ((1 << 32) // size) + int(other.name[16:], 16)
    made.cluster.sql("ALTER SYSTEM SET archive_command = 'true'")
    made.cluster.reload()
    future = f"{other.name[:16]}{number + 1:08X}"
    give(made.account, [Path(shutil.copy(other, other.with_name(future)))])
    answer = made.json("backup", "--archive-timeout", "5s", status=14)
    assert answer["error"]["code"] == "format-damaged"
    assert len(made.backups()) == 1


def test_a_full_repository_fails_clearly_and_gives_its_space_back(kept: MakeKept) -> None:
    requirements.need_root()
    made = kept()
    made.cluster.sql("CREATE TABLE noise AS SELECT gen_random_uuid() AS a, gen_random_uuid() AS b"
                     " FROM generate_series(1, 400000)")  # fmt: skip
    size = sum(path.stat().st_size for path in made.repository.rglob("*") if path.is_file())
    packs = next(made.repository.glob("*-*"), made.repository) / "packs"
    packs.mkdir(exist_ok=True)
    give(made.account, [packs])
    os.system(f"mount -t tmpfs -o size=6m,mode=777 tmpfs {packs}")
    try:
        answer = made.json("backup", status=1)
        assert answer["error"]["code"] == "store-full", (answer, size)
        assert made.backups() == [] and list(packs.iterdir()) == []
    finally:
        os.system(f"umount {packs}")
    made.backup()
    assert made.result("verify")["sound"] is True


def test_a_data_directory_that_is_not_this_servers_is_refused(kept: MakeKept, cluster: Callable[..., object]) -> None:
    made = kept()
    other = cluster("other")
    text = made.config.read_text()
    made.config.write_text(text.replace(made.cluster.instance.conninfo(), other.instance.conninfo()))  # type: ignore[attr-defined]
    answer = made.json("backup", status=1)
    assert answer["error"]["code"] == "cluster-mismatch"


def test_a_damaged_page_is_reported_and_kept(kept: MakeKept) -> None:
    made = kept()
    _fill(made)
    path = made.cluster.datadir / made.cluster.value("SELECT pg_relation_filepath('orders')")
    made.cluster.sql("CHECKPOINT")
    with path.open("r+b") as file:
        file.seek(8192 * 3 + 5000)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0xFF]))
    done = made.run("backup", check=False)
    assert done.returncode == 3, done.stderr
    assert "damaged" in done.stderr + done.stdout
    manifest = read_manifest(made.catalogue(), BackupId(made.backups()[-1]))
    assert [list(bad.blocks) for bad in manifest.inner.bad_pages] == [[3]]


def test_a_restart_during_the_backup_ends_it(kept: MakeKept) -> None:
    made = kept()
    _fill(made)
    process = made.start("backup", "--checkpoint", "spread")
    made.wait(lambda: bool(made.cluster.value(_IN_BACKUP)), "the backup did not connect")
    made.cluster.restart(immediate=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (1, 20), err
    assert made.backups() == []
    made.backup()


def test_a_read_only_repository_is_refused(kept: MakeKept) -> None:
    made = kept()
    for path in [made.repository, *made.repository.rglob("*")]:
        if path.is_dir():
            path.chmod(0o500)
    answer = made.json("backup", "--archive-timeout", "3s", status=1)
    assert answer["error"]["code"] == "store-denied"
    assert answer["error"]["message"].startswith("the backup cannot write to the repository: ")
    for path in [made.repository, *made.repository.rglob("*")]:
        if path.is_dir():
            path.chmod(0o700)
    made.backup()


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace("\n", "\\n")


def test_names_with_blanks_quotes_and_newlines(kept: MakeKept, tmp_path: Path) -> None:
    made = kept()
    odd = made.cluster.directory('a "quoted" \\ path\nwith a newline')
    made.cluster.sql(f'CREATE TABLESPACE "odd ""space" LOCATION E\'{_escaped(odd)}\'')
    made.cluster.sql('CREATE DATABASE "da ta\'base"')
    made.cluster.sql(
        'CREATE TABLE "ta\nble" TABLESPACE "odd ""space" AS SELECT generate_series(1, 1000)', dbname="da ta'base"
    )
    backup = made.backup()
    manifest = read_manifest(made.catalogue(), BackupId(backup))
    assert os.fsencode(str(odd)) in [space.location for space in manifest.inner.tablespaces]
    assert b"ta\nble" in [relation.name for relation in manifest.inner.relations]
    assert made.result("verify")["sound"] is True


class InterruptedStore(LocalStore):
    """Ctrl-C, or a lost answer, at the worst moment: the manifest has its name, and the writer does not know it."""

    error: BaseException

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        super().put(key, parts)
        if "/backups/" in key:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Fault("store-unreachable", "the answer was lost")], ids=repr)
def test_an_interrupt_behind_the_manifest_leaves_a_whole_backup(kept: MakeKept, error: BaseException) -> None:
    made = kept()
    _fill(made)
    catalogue = made.catalogue()
    store = InterruptedStore(str(made.repository))
    store.error = error
    there = replace(catalogue, repository=replace(catalogue.repository, store=store))
    with pytest.raises(type(error)):
        run_backup(there, BackupRequest(made.cluster.conninfo), SystemClock(), silent)
    (backup,) = made.backups()
    packs = {path.name for path in made.packs()}
    assert {str(pack.id) for pack in read_manifest(catalogue, BackupId(backup)).outer.packs} == packs
    with ThreadPoolExecutor(1) as pool:
        assert verify(catalogue, pool, SystemClock(), silent).is_sound


def test_a_tablespace_link_that_no_catalog_names_can_be_restored(kept: MakeKept, server_tmp: Path) -> None:
    """What a crash in CREATE TABLESPACE leaves for ever, and one in progress for a moment."""
    made = kept()
    _fill(made)
    (made.cluster.datadir / "pg_tblspc" / "99999").symlink_to(made.cluster.directory("orphan"))
    backup = made.backup()
    spaces = read_manifest(made.catalogue(), BackupId(backup)).inner.tablespaces
    assert [(space.oid, space.name) for space in spaces] == [(99999, b"99999")]
    made.run("restore", str(server_tmp / "restored"), "--immediate")
    link = server_tmp / "restored" / "pg_tblspc" / "99999"
    assert os.readlink(link) == str(server_tmp / "restored-tablespaces" / "99999")


def test_names_that_cannot_be_read_cost_no_backup(kept: MakeKept) -> None:
    made = kept()
    _fill(made)
    made.cluster.sql("CREATE ROLE keeper LOGIN CONNECTION LIMIT 1")
    conninfo = f"{made.cluster.conninfo} user=keeper"
    for grant in missing_grants(conninfo, "test"):
        made.cluster.sql(grant)
    made.config.write_text(made.config.read_text().replace(made.cluster.conninfo, conninfo))
    done = made.run("backup")
    assert "names of relations are not in the backup" in done.stderr + done.stdout
    assert made.result("verify")["sound"] is True


def test_a_tablespace_that_went_away_is_not_one_whose_files_were_dropped(kept: MakeKept) -> None:
    made = kept()
    place = made.cluster.directory("space")
    made.cluster.sql(f"CREATE TABLESPACE aside LOCATION '{place}'")
    oid = made.cluster.value("SELECT oid FROM pg_tablespace WHERE spcname = 'aside'")
    directory = scan(str(made.cluster.datadir))
    check_mounted(directory, [oid])
    place.rename(place.with_name("elsewhere"))
    with pytest.raises(Fault, match="went away") as caught:
        check_mounted(directory, [oid])
    assert caught.value.code == "datadir-invalid"
    place.with_name("elsewhere").rename(place)
