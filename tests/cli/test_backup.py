"""backup, list, verify and the WAL commands on one real server: the life of a repository, and then its damage."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.clusters import Cluster
from tests.conftest import MakeCluster

from pgkeep.pg.account import Account, credentials

INFO = {
    "label", "started", "stopped", "host", "system_id", "server_version", "timeline", "start_lsn", "stop_lsn",
    "source", "method", "method_reason", "base", "logical_bytes", "stored_bytes", "pages", "pages_changed", "files",
    "bad_pages",
}  # fmt: skip


@pytest.fixture
def archiving(cluster: MakeCluster, pgkeep_process: Run, server_tmp: Path) -> Cluster:
    """A server that archives into a repository by what `init` printed; pgkeep.toml lies in `server_tmp`."""
    server = cluster("main", archive_mode="on", wal_segsize=1)
    config = ("--config", str(server_tmp / "pgkeep.toml"))
    ran = pgkeep_process(
        *config, "init", "--repository", str(server_tmp / "r"), "--connection", server.conninfo, "--json"
    )
    for one in ran.result["statements"]:
        server.sql(one["sql"])
    server.reload()
    server.sql("CREATE TABLE orders AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 20000) AS i")
    return server


def objects(root: Path, part: str) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and f"/{part}/" in str(path))


def test_the_life_of_a_repository(archiving: Cluster, pgkeep_process: Run, server_tmp: Path) -> None:
    plan = pgkeep_process("backup", "--dry-run", "--json").result
    assert plan["dry_run"] is True
    assert plan["bytes"] > 10_000_000
    assert pgkeep_process("list").out == "no backup of cluster main yet; make one with: pgkeep backup\n"

    made = pgkeep_process("backup", "--label", "first", "--json")
    assert made.status == 0, made.err + made.out
    assert set(made.result) == {
        "verb", "dry_run", "backup", "info", "seconds", "checkpoint_seconds", "archive_seconds",
    }  # fmt: skip
    assert set(made.result["info"]) == INFO
    events = [line for line in made.lines if "event" in line]
    assert [line["name"] for line in events if line["event"] == "phase"] == [
        "start",
        "base",
        "copy",
        "stop",
        "archive",
        "commit",
    ]
    assert {line["unit"] for line in events if line["event"] == "progress"} == {"bytes"}

    text = pgkeep_process("backup", "--label", "second")
    assert text.status == 0, text.err
    assert "is complete" in text.out
    assert pgkeep_process("backup", "--quiet").out == ""

    listed = pgkeep_process("list", "--json").result
    labels = [one["info"]["label"] for one in listed["backups"]]
    assert labels[0] == "first" and sorted(labels[1:]) == ["pgkeep", "second"]  # of one second, perhaps: no order then
    assert all(one["restorable"] and set(one["info"]) == INFO for one in listed["backups"])
    assert set(listed["backups"][0]["window"]) == {
        "timeline", "from_lsn", "from_time", "to_lsn", "to_archived", "gap", "other_timelines", "pruned",
    }  # fmt: skip
    table = pgkeep_process("list").out
    assert "first" in table and "complete" in table and "3 backups, 3 of them restorable" in table

    verified = pgkeep_process("verify", "--json")
    assert verified.status == 0
    assert verified.result["sound"] is True
    assert len(verified.result["backups"]) == 3
    assert "everything is sound" in pgkeep_process("verify").out

    _damage_is_told(listed["backups"], pgkeep_process, server_tmp)


def _damage_is_told(backups: list[dict[str, str]], pgkeep_process: Run, server_tmp: Path) -> None:
    pack = max(objects(server_tmp / "r", "packs"), key=lambda path: path.stat().st_size)
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    verified = pgkeep_process("verify", "--json")
    assert verified.status == 14
    assert [one["sound"] for one in verified.result["backups"]] == [False] * 3  # they all need the first one's pages
    text = pgkeep_process("verify")
    assert text.status == 14
    assert "DAMAGED" in text.out and f"damage: {backups[0]['backup'][:8]}" in text.out

    manifest = objects(server_tmp / "r", "backups")[0]
    manifest.write_bytes(b"nonsense")
    listed = pgkeep_process("list")
    assert listed.status == 0
    assert "unreadable" in listed.out and "3 backups, 0 of them restorable" in listed.out  # verify marked the pack


def test_wal_get_answers_postgresql(archiving: Cluster, pgkeep_process: Run, server_tmp: Path) -> None:
    segment = archiving.switch_wal()
    assert pgkeep_process("backup").status == 0
    config = ("--config", str(server_tmp / "pgkeep.toml"))

    def get(*argv: str, name: str = segment, config: tuple[str, ...] = config) -> int:
        return pgkeep_process(*config, "wal", "get", *argv, name, "pg_wal/RECOVERYXLOG", cwd=archiving.datadir).status

    assert get() == 0
    assert (archiving.datadir / "pg_wal" / "RECOVERYXLOG").stat().st_size == 1 << 20
    assert get(name="0000000100000000000000FE") == 1
    assert get(name="00000007.history") == 1
    # whatever else goes wrong must not look like the end of WAL
    assert get(name="0000000100000000000000GG") > 125
    assert get(config=("--config", "/absent.toml")) > 125
    assert get("--lineage", "/absent") > 125
    assert get("--unknown-option") > 125
    broken = server_tmp / "broken.toml"
    broken.write_text("[repository\n")
    assert get(config=("--config", str(broken))) > 125
    (server_tmp / "r").rename(server_tmp / "away")
    assert get() > 125
    assert get(name="0000000100000000000000FE") > 125
    (server_tmp / "away").rename(server_tmp / "r")
    assert get() == 0


def test_wal_push_refuses_with_words(archiving: Cluster, pgkeep_process: Run, server_tmp: Path) -> None:
    config = ("--config", str(server_tmp / "pgkeep.toml"))
    ran = pgkeep_process(*config, "wal", "push", "pg_wal/nonsense", cwd=archiving.datadir)
    assert ran.status == 1
    assert ran.err.startswith("error: ")
    assert pgkeep_process("--config", "/absent", "wal", "push", "x", cwd=archiving.datadir).status == 2


@pytest.mark.parametrize("verb", [["backup"], ["verify"]])
@pytest.mark.parametrize("later", [0.0, 0.1, 0.3])
def test_ctrl_c_says_one_sentence(
    later: float,
    verb: list[str],
    archiving: Cluster,
    pgkeep_program: tuple[str, ...],
    server_tmp: Path,
    server_user: Account,
) -> None:
    """A terminal sends it to every process of the group, also to those that are only just starting."""
    who = credentials(server_user)
    process = subprocess.Popen(
        [*pgkeep_program, *verb],
        cwd=server_tmp, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={"PATH": os.environ["PATH"], "HOME": str(server_tmp)},
        user=who.user, group=who.group, extra_groups=who.extra_groups,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "copying" in line or "re-hashing" in line:
            break
    time.sleep(later)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err and "Error" not in err
    if out:
        return  # it was done before
    assert process.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted; earlier backups are as they were"
