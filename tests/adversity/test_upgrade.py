"""pg_upgrade makes another system identifier: refused, adopted, backed up, and both sides of it restored."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pgkeep.pg.account import child_environment, credentials
from tests import servers
from tests.adversity.conftest import MakeKept, started
from tests.adversity.test_takeover import _archived, _of
from tests.clusters import Cluster
from tests.conftest import MakeCluster

FINGERPRINT = "SELECT count(*), md5(string_agg(o::text, ',' ORDER BY id)) FROM orders AS o"


def upgrade(old: Cluster, new: Cluster, work: Path) -> None:
    """pg_upgrade, as the account of both, in a directory that it may write to."""
    rights = credentials(new.account)
    arguments = ["-b", old.programs.bindir, "-B", new.programs.bindir, "-d", old.datadir, "-D", new.datadir]
    done = subprocess.run(
        [new.programs.path("pg_upgrade"), *map(str, arguments), "-U", "postgres", "-s", str(new.instance.socket_dir)],
        cwd=work, capture_output=True, text=True,
        env=child_environment(new.account, servers.library_path(new.programs)),
        user=rights.user, group=rights.group, extra_groups=rights.extra_groups, timeout=300,
    )  # fmt: skip
    logs = [path.read_text()[-1500:] for path in new.datadir.glob("pg_upgrade_output.d/*/log/*.log")]
    assert done.returncode == 0, "\n".join([done.stdout, done.stderr, *logs])


@pytest.mark.parametrize("before", [pytest.param(14, marks=pytest.mark.campaign), 17])
def test_an_upgraded_server_goes_on(make_kept: MakeKept, cluster: MakeCluster, before: int) -> None:
    kept = make_kept(major=before)
    old = kept.cluster
    old.sql("CREATE TABLE orders AS SELECT g AS id, md5(g::text) AS note FROM generate_series(1, 5000) AS g")
    expected = old.sql(FINGERPRINT)
    first = kept.backup()
    kept.archive_all()
    old.stop()
    new = cluster("new", major=servers.NEWEST, start=False, archive_mode="on")
    upgrade(old, new, new.directory("work"))
    new.start()
    upgraded = _of(kept, new, "upgraded")

    assert upgraded.json("init", status=1)["error"]["code"] == "cluster-mismatch"
    adopted = upgraded.result("init", "--adopt", "--apply")
    assert (adopted["cluster"]["adopted_timeline"], adopted["statements"]) == (1, [])
    assert adopted["proof"]["seconds"] is not None
    new.sql("INSERT INTO orders VALUES (5001, 'after the upgrade')")
    grown = new.sql(FINGERPRINT)
    second = upgraded.backup()
    _archived(upgraded, new)
    with started(upgraded, kept.home / "after", "--latest") as restored:
        assert restored.sql(FINGERPRINT) == grown
    with started(kept, kept.home / "earlier", "--backup", first) as restored:
        assert restored.sql(FINGERPRINT) == expected
    assert [one["backup"] for one in upgraded.result("list")["backups"]] == [first, second]
    assert upgraded.result("verify")["sound"] is True
