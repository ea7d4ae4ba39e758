"""Servers that pgkeep starts: on the oldest and the newest version."""

from __future__ import annotations

from tests.conftest import MakeCluster
from tests.servers import pg_versions


@pg_versions("oldest", "newest")
def test_starts_and_answers(cluster: MakeCluster, pg_major: int) -> None:
    server = cluster()
    assert int(server.value("SHOW server_version_num")) // 10000 == pg_major
