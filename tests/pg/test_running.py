"""Running servers of this machine, as /proc and their postmaster.pid show them."""

from __future__ import annotations

from tests.clusters import Cluster

from pgkeep.pg.running import LocalServer, local_servers, running_servers
from pgkeep.pg.session import Session


def test_a_running_server_is_found_and_answers(shared_cluster: Cluster) -> None:
    found = [one for one in local_servers(running_servers()) if one.directory == str(shared_cluster.datadir)]
    assert len(found) == 1
    with Session.open(f"{found[0].conninfo} user=postgres", "test") as session:
        assert session.value("SHOW data_directory") == str(shared_cluster.datadir)


def test_a_socket_with_a_blank_is_quoted() -> None:
    assert LocalServer("/d", 5433, "/run/my sockets").conninfo == "host='/run/my sockets' port=5433"
    assert LocalServer("/d", 5433, "").conninfo == "host=localhost port=5433"
