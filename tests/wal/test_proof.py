"""Archiving is seen, not concluded: real archivers that work, fail, or archive elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import MakeCluster

from pgkeep.clock import SystemClock
from pgkeep.errors import Fault
from pgkeep.pg.server import connect
from pgkeep.wal import proof
from pgkeep.wal.proof import prove_archiving


def test_a_segment_is_seen_once_and_remembered(cluster: MakeCluster, server_tmp: Path) -> None:
    archive = server_tmp / "archive"
    server = cluster("main", wal_segsize=1, archive_mode="on", archive_command=f"'cp %p {archive}/%f'")
    server.run("psql", "-c", f"COPY (SELECT 1) TO PROGRAM 'mkdir {archive}'")
    with connect(server.conninfo) as session:
        first = prove_archiving(session, lambda name: (archive / name).exists(), SystemClock())
        assert first.seconds is not None
        again = prove_archiving(session, lambda name: (archive / name).exists(), SystemClock())
        assert (again.segment, again.seconds) == (first.segment, None)


def test_what_archives_elsewhere_or_fails_is_no_success(
    cluster: MakeCluster, server_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "WAIT_SECONDS", 1.5)
    server = cluster("main", wal_segsize=1, archive_mode="on", archive_command="'/bin/true'")
    with connect(server.conninfo) as session:
        with pytest.raises(Fault, match="it reports no failure of its archive_command") as caught:
            prove_archiving(session, lambda _name: False, SystemClock())
        assert caught.value.code == "wal-not-archived"
        server.configure(archive_command="'/bin/false'")
        server.reload()
        with pytest.raises(Fault, match=r"its archive_command failed \d times meanwhile, last for 0000000"):
            prove_archiving(session, lambda _name: False, SystemClock())
