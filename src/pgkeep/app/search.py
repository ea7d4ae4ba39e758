"""Which server `init` means when nobody names one: the only one that runs on this machine.

1. What libpq's environment names (PGHOST, PGSERVICE ...) is a choice already made; the caller passes it on as "".
2. Several servers are listed and none is chosen: a backup of the wrong one is found out too late.
3. A server of another account is that account's to protect, for archive_command runs as it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pgkeep.app.place import APPLICATION
from pgkeep.errors import Fault
from pgkeep.pg import server
from pgkeep.pg.account import Account, owner_of
from pgkeep.pg.facts import ServerFacts
from pgkeep.pg.running import LocalServer, RunningServers, local_servers, running_servers

USUAL_CONNECTIONS: Final = ("", "host=/var/run/postgresql", "host=/tmp", "host=localhost")
"""Tried when no server is seen to run: it may be in a container, or seen by nobody but its owner."""
SUPERUSER: Final = "postgres"
"""The role to try where none is named like the account."""


def answering_server(connections: Sequence[str]) -> tuple[str, ServerFacts]:
    """(connection string, facts) of the first that answers; without any, of the server that runs here.

    usage (several run here, or it belongs to another account), postgres-unreachable, postgres-version.
    """
    if connections:
        return _first_that_answers(connections)
    running = running_servers()
    found = local_servers(running)
    if len(found) > 1:
        raise _several(found)
    if found:
        check_owner(owner_of(Path(found[0].directory)))
        return _first_that_answers((found[0].conninfo, f"{found[0].conninfo} user={SUPERUSER}"))
    try:
        return _first_that_answers(USUAL_CONNECTIONS)
    except Fault as fault:
        raise _none(fault, running) from fault


def check_owner(owner: Account) -> None:
    """Fault `usage` unless this process runs as the account that runs the server."""
    if not owner.is_self:
        raise Fault(
            "usage",
            f"the server runs as {owner.name}, who could not write WAL into what this account makes",
            hint=f"run it as that account: sudo -u {owner.name} pgkeep init ...",
        )


def _first_that_answers(connections: Sequence[str]) -> tuple[str, ServerFacts]:
    refused: Fault | None = None
    for connection in connections:
        try:
            with server.connect(connection, APPLICATION) as session:
                return connection, session.facts()
        except Fault as fault:
            if fault.code != "postgres-unreachable":
                raise
            refused = refused or fault
    assert refused is not None, "there is always a connection to try"
    raise refused


def _several(found: Sequence[LocalServer]) -> Fault:
    listed = "; ".join(f"port {one.port}, {one.directory}" for one in found)
    return Fault(
        "usage",
        f"{len(found)} servers run here ({listed}), expected the choice of one",
        hint=f'name it: --connection "{found[0].conninfo}"',
    )


def _none(fault: Fault, running: RunningServers) -> Fault:
    accounts = sorted(running.unseen_accounts)
    if not accounts:
        hint = 'start the server, or name it: --connection "host=/run/postgresql port=5433"'
        return Fault(fault.code, f"no server is seen to run here, and {fault.message}", hint=hint)
    return Fault(
        fault.code,
        f"a server runs here as {' and as '.join(accounts)}, and {fault.message}",
        hint=f"run it as that account: sudo -u {accounts[0]} pgkeep init ...",
    )
