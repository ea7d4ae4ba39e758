"""A restore that must not be: refused before anything is written, each time with the way out; and exit statuses."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pgkeep.pg.account import child_environment, give
from tests import requirements
from tests.adversity.conftest import MakeKept, Past, refused, rows, started
from tests.clusters import Cluster
from tests.keeping import Kept
from tests.servers import OLDEST, programs_of


def test_directories_that_are_not_empty(past: Past, aside: Kept) -> None:
    target = aside.cluster.directory(f"{aside.home.name}-target")
    note = target / "note.txt"
    note.write_text("mine")
    error = refused(aside, target, code="target-not-empty")
    assert f"mv {target} {target}.before" in error["hint"]
    (target / "PG_VERSION").write_text("18\n")
    assert "last copy of your data" in refused(aside, target, code="target-not-empty")["hint"]
    assert note.read_text() == "mine"
    (aside.home / "link").symlink_to(target)
    refused(aside, aside.home / "link", code="target-not-empty")
    refused(aside, note, code="target-unsafe")
    shutil.rmtree(target)


def test_production_itself(past: Past, aside: Kept) -> None:
    server = past.kept.cluster
    error = refused(aside, server.datadir, code="target-in-use")
    assert "stop the server first" in error["hint"]
    refused(aside, server.datadir / "base" / "new", code="target-unsafe")
    refused(aside, past.space, code="target-not-empty")
    refused(aside, Path("/"), code="target-unsafe")
    assert rows(server) == [1, 2, 3]


def test_programs_of_another_version(past: Past, aside: Kept) -> None:
    other = programs_of(OLDEST)
    if isinstance(other, str):
        requirements.need(f"pg{OLDEST}", other)
    error = refused(aside, aside.home / "restored", "--bindir", str(other.bindir), code="postgres-version")
    assert f"PostgreSQL {aside.cluster.major}" in error["message"]
    assert "dump and load" in error["hint"]


def test_a_place_that_cannot_be_written(past: Past, aside: Kept) -> None:
    closed = aside.home / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    refused(aside, closed / "restored", code="io")


def test_production_keeps_its_tablespaces(past: Past, aside: Kept) -> None:
    """A restore beside the running server writes, drops and vacuums, and production's files stay as they are."""
    before = _fingerprint(past.space)
    restored, mapped = aside.home / "restored", aside.home / "mapped"
    for target in (past.space, past.space / "below"):
        code = "tablespace-unsafe" if target == past.space else "target-unsafe"
        refused(aside, restored, "--tablespace-map", f"{past.space}={target}", code=code)
    refused(aside, restored, "--tablespace-map", "/nowhere=/tmp/x", code="usage", status=2)
    with started(aside, restored) as server:
        assert server.value("SELECT count(*) FROM big") == 40000
        (place,) = server.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'")[0]
        assert place.startswith(f"{restored}-tablespaces/")
        server.sql("UPDATE big SET md5 = ''")
        server.sql("VACUUM FULL big")
        server.sql("CREATE TABLE more TABLESPACE fast AS SELECT * FROM big")
        server.sql("DROP TABLE big")
        server.sql("CHECKPOINT")
    assert _fingerprint(past.space) == before
    with started(aside, aside.home / "again", "--tablespace-map", f"{past.space}={mapped}") as server:
        assert server.value("SELECT count(*) FROM big") == 40000
        assert list(mapped.glob("PG_*/*"))
        server.sql("DROP TABLE big")
        server.sql("DROP TABLESPACE fast")
    assert _fingerprint(past.space) == before
    assert past.kept.cluster.value("SELECT count(*) FROM big") == 40000


def _fingerprint(space: Path) -> list[tuple[str, int, int, bytes]]:
    files = [path for path in sorted(space.rglob("*")) if path.is_file()]
    assert files
    return [(str(path), path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in files]


def test_a_tablespace_that_was_created_during_the_backup(make_kept: MakeKept) -> None:
    """Its CREATE TABLESPACE is replayed, and would link to the original path: refused although it is in the backup."""
    kept = make_kept(checkpoint_timeout="1h")
    server = kept.cluster
    server.sql("CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 50000) g")
    process = kept.start("backup", "--checkpoint", "spread")
    running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgkeep' AND query LIKE '%backup%start%'"
    kept.wait(lambda: bool(server.value(running)), "the backup does not begin")
    kept.wait(lambda: "checkpoint starting" in server.log.read_text(), "no checkpoint begins")
    space = server.directory("space")
    server.sql(f"CREATE TABLESPACE fast LOCATION '{space}'")
    server.sql("CHECKPOINT")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    error = refused(kept, kept.home / "restored", code="tablespace-unsafe")
    assert str(space) in error["message"]
    refused(kept, kept.home / "restored", "--tablespace-map", f"{space}={kept.home / 'x'}", code="tablespace-unsafe")


@pytest.mark.parametrize("there", ["another cluster", "nothing"])
def test_a_server_on_another_host(
    past: Past, aside: Kept, cluster: Callable[..., Cluster], server_tmp: Path, there: str
) -> None:
    """The connection leads elsewhere: under the path that the server names, this host has something else."""
    requirements.need_root()
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        requirements.need("mount-namespace", "unshare -m is refused")
    other = cluster("other", start=False).datadir if there == "another cluster" else aside.cluster.directory("none")
    account = aside.account
    script = 'mount --bind "$0" "$1" && cd / && shift && exec setpriv --reuid "$1" --regid "$2" --clear-groups "${@:3}"'
    command = ["unshare", "-m", "bash", "-c", script, other, past.kept.cluster.datadir, account.uid, account.gid]
    done = subprocess.run(
        [*map(str, command), *aside.command("--json", "backup")],
        capture_output=True, text=True, env=child_environment(account), timeout=120,
    )  # fmt: skip
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert (done.returncode, error["code"]) == (1, "datadir-mismatch"), done.stdout + done.stderr
    assert "on the database's own host" in error["hint"]


@pytest.mark.parametrize(
    ("change", "argv", "status", "code"),
    [
        (("", ""), ("restore", "x", "--lsn", "nonsense"), 2, "usage"),
        (("", ""), ("--cluster", "other", "list"), 2, "usage"),
        (("[repository]", "[repository"), ("list",), 2, "config-invalid"),
        (("repository\"", "nothing\""), ("list",), 1, "store-unreachable"),
        (("repository\"", "empty\""), ("list",), 10, "no-repository"),
        (("repository\"", "empty\""), ("backup",), 10, "no-repository"),
        (("[cluster.main]", "[cluster.other]"), ("list",), 10, "cluster-unknown"),
        (("port=", "port=1"), ("backup",), 20, "postgres-unreachable"),
        (("", ""), ("--config", "/absent.toml", "list"), 2, "config-missing"),
        (("", ""), ("restore", "x", "--backup", "20200101T000000Z-00000000"), 1, "backup-unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_exit_statuses(
    past: Past, server_tmp: Path, change: tuple[str, str], argv: tuple[str, ...], status: int, code: str
) -> None:
    """docs/exit-status.md, by the real program; 3, 13, 14 and 130 are met elsewhere."""
    kept = Kept(past.kept.cluster, server_tmp, past.kept.program)
    empty = past.kept.home / "empty"
    empty.mkdir(exist_ok=True)
    text = past.kept.config.read_text()
    kept.config.write_text(text.replace(*change) if change[0] else text)
    give(kept.account, [kept.config, empty])
    error = kept.json(*argv, status=status)["error"]
    assert error["code"] == code
    assert error["hint"]
    assert set(error) == {"code", "message", "hint", "context"}
