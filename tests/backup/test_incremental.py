"""Incremental backups of real servers: what is stored, what is taken over, and that each restores exactly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from pgkeep.format.manifest import ManifestInfo
from pgkeep.repo.backups import read_info
from pgkeep.values.ids import BackupId
from tests.backup.pagecompare import compare
from tests.keeping import Kept
from tests.servers import pg_versions

MakeKept = Callable[..., Kept]
QUIET = {"autovacuum": "off", "bgwriter_lru_maxpages": "0", "summarize_wal": "on"}
MODES = ["rescan", "lsn", "summaries"]


def settings(major: int) -> dict[str, Any]:
    """A server on which nothing happens by itself."""
    return {name: value for name, value in QUIET.items() if name != "summarize_wal" or major >= 17}


def backup(kept: Kept, mode: str = "auto") -> ManifestInfo:
    done = kept.result("backup", "--mode", mode)
    return read_info(kept.catalogue(), BackupId(done["backup"]))


def check(kept: Kept, info: ManifestInfo) -> None:
    """The backup restores to what the server's files hold now."""
    target = kept.home / "restored"
    kept.run("restore", str(target), "--backup", info.backup, "--immediate")
    assert compare(kept, target, info.start_lsn) > 100
    shutil.rmtree(target)
    shutil.rmtree(f"{target}-tablespaces", ignore_errors=True)


def fill(kept: Kept) -> None:
    rows = "SELECT g AS id, md5(g::text) AS note, 0 AS n FROM generate_series(1, 60000) g"
    kept.cluster.sql(f"CREATE TABLE orders AS {rows}")
    kept.cluster.sql("CREATE INDEX ON orders (id)")
    kept.cluster.sql("VACUUM orders")


@pg_versions("oldest", "newest")
@pytest.mark.parametrize("mode", MODES)
def test_what_has_not_changed_is_not_stored(kept: MakeKept, pg_major: int, mode: str) -> None:
    if mode == "summaries" and pg_major < 17:
        mode = "auto"
    made = kept(**settings(pg_major))
    fill(made)
    first = backup(made)
    assert (first.method, first.base, first.pages_changed) == ("full", None, first.pages)
    made.cluster.sql("UPDATE orders SET n = n + 1 WHERE id % 6000 = 0")
    second = backup(made, mode)
    assert second.method == ("lsn" if mode == "auto" else mode)
    assert second.base == first.backup and second.base_proof
    assert 10 <= second.pages_changed < 200 < second.pages
    assert second.stored_bytes < first.stored_bytes / 5
    check(made, second)
    assert made.result("verify")["sound"] is True
