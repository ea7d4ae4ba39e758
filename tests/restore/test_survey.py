"""The configuration that a backup brings, judged by PostgreSQL itself (postgres -C reads it and starts nothing)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pgkeep.format.manifest import Attachment
from pgkeep.pg.account import give_tree
from pgkeep.repo.backups import read_manifest
from pgkeep.restore.settings import Action, Place, Recovery, plan_configuration
from pgkeep.restore.survey import Survey, survey
from pgkeep.restore.target import Target
from pgkeep.values.ids import BackupId
from pgkeep.values.lsn import Lsn
from tests.clusters import Cluster
from tests.restore.backups_of import BACKUP, DirectoryBackup, new_cluster, server_info
from tests.servers import pg_versions

Make = Callable[..., Cluster]


def surveyed(tmp_path: Path, source: Path, attachments: list[Attachment] | None = None, **server: object) -> Survey:
    repository = new_cluster(tmp_path / "repository")
    DirectoryBackup(repository, source, attachments=attachments or [], server=server_info(**server)).write()
    return survey(repository, read_manifest(repository, BackupId(BACKUP)))


@pg_versions("oldest", "newest")
def test_a_server_of_debians_layout_reads_nothing_of_productions(
    cluster: Make, tmp_path: Path, server_tmp: Path
) -> None:
    server = cluster("main", start=False)
    etc = "/etc/postgresql/15/main"
    attachments = [
        Attachment(
            path=f"{etc}/postgresql.conf".encode(), role="config", mode=0o644,
            content=f"""
data_directory = '/var/lib/postgresql/15/main'
hba_file = '{etc}/pg_hba.conf'
ident_file = '{etc}/pg_ident.conf'
external_pid_file = '/var/run/postgresql/15-main.pid'
port = 5432
ssl = on
ssl_cert_file = '/etc/ssl/certs/ssl-cert-snakeoil.pem'
include_dir = 'conf.d'
""".encode(),
        ),
        Attachment(path=f"{etc}/conf.d/10.conf".encode(), role="include", mode=0o644, content=b"work_mem = 7MB\n"),
        Attachment(path=f"{etc}/pg_hba.conf".encode(), role="hba", mode=0o640, content=b"local all all peer\n"),
        Attachment(path=f"{etc}/pg_ident.conf".encode(), role="ident", mode=0o640, content=b""),
    ]  # fmt: skip
    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        (server.datadir / name).unlink()
    home = "/var/lib/postgresql/15/main"
    found = surveyed(
        tmp_path, server.datadir, attachments, data_directory=home, config_file=f"{etc}/postgresql.conf",
        hba_file=f"{etc}/pg_hba.conf", ident_file=f"{etc}/pg_ident.conf", max_connections=250,
    )  # fmt: skip
    assert found.warnings == ()
    target = server_tmp / "target"
    shutil.copytree(server.datadir, target)
    place = Place(str(target), 6001, str(target))
    recovery = Recovery(Target.at_lsn(Lsn(0x3000148)), 1, Action.PROMOTE, ("pgkeep", "wal", "get"), "/x", "/y")
    plan = plan_configuration(found.configuration, server_info(max_connections=250), server.major, place, recovery, {})
    for path, content in plan.files.items():
        if content is not None:
            (target / path).write_text(content)
    give_tree(server.account, target)
    target.chmod(0o700)

    def value(name: str) -> str:
        output = server.programs.run("postgres", "-D", target, "-C", name, account=server.account, timeout=60)
        return output.text().strip()

    assert value("data_directory") == str(target)
    assert value("hba_file") == f"{target}/pg_hba.conf"
    assert value("ident_file") == f"{target}/pg_ident.conf"
    assert value("external_pid_file") == f"{target}/external.pid"
    assert value("port") == "6001"
    assert value("work_mem") in ("7168", "7MB")
    assert value("max_connections") == "250"
    assert value("ssl") == "off"
    assert value("archive_mode") == "off"
    assert value("recovery_target_lsn") == "0/3000148"
    assert '|| pgkeep wal get "%f" "%p"' in value("restore_command")


def test_sizes_by_tablespace_in_whole_blocks(tmp_path: Path) -> None:
    source, space = tmp_path / "source", tmp_path / "space"
    for directory in (source / "base/5", source / "pg_tblspc", space / "PG_15_202209061/5"):
        directory.mkdir(parents=True)
    (source / "pg_tblspc/16400").symlink_to(space)
    (source / "base/5/1").write_bytes(bytes(8192))
    (source / "PG_VERSION").write_bytes(b"15\n")
    (space / "PG_15_202209061/5/2").write_bytes(bytes(3 * 8192))
    found = surveyed(tmp_path, source)
    assert (found.files, found.bytes) == (3, 4 * 8192 + 3)
    # Directories count a block each: base, base/5, pg_tblspc, the link itself; PG_..., PG_.../5.
    assert found.on_disk == {0: 8192 + 4096 + 4 * 4096, 16400: 3 * 8192 + 2 * 4096}


def test_a_backup_without_configuration_says_so(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "PG_VERSION").write_bytes(b"15\n")
    found = surveyed(tmp_path, source)
    assert len(found.warnings) == 2
    assert found.configuration.hba == "local all all peer\n"


@pytest.mark.parametrize("name", ["postgresql.conf", "pg_hba.conf", "conf.d/a.conf"])
def test_configuration_in_the_data_directory_is_read(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    (source / "conf.d").mkdir(parents=True)
    (source / name).write_bytes(b"# \xfc\n")
    files = surveyed(tmp_path, source).configuration.files.contents
    assert files[f"/var/lib/postgresql/15/main/{name}"] == "# \udcfc\n"
