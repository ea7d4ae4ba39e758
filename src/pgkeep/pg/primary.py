"""A primary as a replica will meet it: its connection string, and what it answers on a replication connection.

The check uses the walreceiver's own protocol (protocol-replication in the manual), so that a role which may only
replicate suffices, and pg_hba.conf's replication entries are tried too.  The driver is imported when it is needed:
other restores do without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pgkeep.errors import Fault

_LOCAL: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})
_NOT_FOR_STREAMING: Final = ("dbname", "replication", "client_encoding")
_SECRETS: Final = ("password", "sslpassword")
_READS_SLOTS_SINCE: Final = 150000
_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Primary:
    """A connection string for primary_conninfo, and what was found in it."""

    conninfo: str = field(repr=False)
    left_out_password: bool
    is_local: bool
    """A socket or a loopback address."""


@dataclass(frozen=True, slots=True)
class PrimaryState:
    """What the primary answered; `slot_exists` is None where it cannot be asked (before 15) or no slot was named."""

    system_id: int
    timeline: int
    slot_exists: bool | None


def primary_of(connection: str, *, keep_password: bool) -> Primary:
    """A string for primary_conninfo from any of libpq's; `usage` for what libpq cannot read."""
    import psycopg

    try:
        given = psycopg.conninfo.conninfo_to_dict(connection)
    except psycopg.Error as error:
        raise Fault(
            "usage",
            f"not a connection string: {str(error).strip()}",
            hint='expected keywords such as "host=db1 user=replicator", or a postgresql:// address',
        ) from error
    kept = {name: value for name, value in given.items() if name not in _NOT_FOR_STREAMING}
    secrets = [name for name in _SECRETS if name in kept]
    if not keep_password:
        for name in secrets:
            del kept[name]
    host = str(kept.get("host") or kept.get("hostaddr") or "")
    return Primary(
        psycopg.conninfo.make_conninfo("", **kept),
        bool(secrets) and not keep_password,
        host in _LOCAL or host.startswith(("/", "@")),
    )


def ask_primary(conninfo: str, slot: str) -> PrimaryState:
    """IDENTIFY_SYSTEM, and the slot when one is named; `postgres-unreachable`."""
    import psycopg

    try:
        with psycopg.connect(
            conninfo, autocommit=True, prepare_threshold=None, replication="true", connect_timeout=_SECONDS
        ) as connection:
            row = connection.execute(b"IDENTIFY_SYSTEM").fetchone()
            assert row is not None
            known: bool | None = None
            if slot and connection.info.server_version >= _READS_SLOTS_SINCE:
                found = connection.execute(f"READ_REPLICATION_SLOT {slot}".encode()).fetchone()
                known = found is not None and found[0] is not None
            return PrimaryState(int(row[0]), int(row[1]), known)
    except psycopg.Error as error:
        raise Fault(
            "postgres-unreachable",
            " ".join(str(error).split()),
            hint="the role needs REPLICATION, and pg_hba.conf of the primary an entry for the database replication",
        ) from error
