"""A restore that becomes a replica: it follows its primary, and takes from the archive what the primary lost (pure).

1. A replica has no recovery target: it goes on, along the newest timeline, also across a promotion of its primary.
   recovery_target_timeline is 'latest' here and nowhere else.
2. restore_command has no lineage: the archive answers for whatever timeline the primary is on.
3. What primary_conninfo says is written as it was given; what comes from the configuration loses its password.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Final

from pgkeep.errors import Fault
from pgkeep.pg.primary import Primary, PrimaryState

_SLOT: Final = re.compile(r"[a-z0-9_]{1,63}")  # ReplicationSlotValidateName
_READS_SLOTS_SINCE: Final = 15


@dataclass(frozen=True, slots=True)
class Standby:
    """Whom the replica follows: primary_conninfo (a secret: it may hold a password), and primary_slot_name or ''."""

    conninfo: str = field(repr=False)
    slot: str = ""
    cautions: tuple[tuple[str, str, str], ...] = ()
    """(code, text, hint) of what a person should know."""


def settings_of(standby: Standby) -> tuple[tuple[str, str], ...]:
    """What postgresql.auto.conf says of the primary."""
    return (
        ("primary_conninfo", standby.conninfo),
        ("primary_slot_name", standby.slot),
        ("recovery_target_timeline", "latest"),
    )


def check_slot(name: str) -> str:
    """The name itself; `usage` for one that PostgreSQL refuses."""
    if _SLOT.fullmatch(name):
        return name
    raise Fault(
        "usage",
        f"{name!r} cannot be a replication slot, expected lower-case letters, digits and underscores, 63 at most",
        hint="for example --slot replica_1",
    )


def plan_standby(primary: Primary, slot: str, known: frozenset[int], state: PrimaryState | Fault) -> Standby:
    """The replica's settings, from what the primary answered; `cluster-mismatch` for another cluster's.

    `known` are the system identifiers of the backups, a Fault for `state` says why the primary did not answer.
    """
    if isinstance(state, PrimaryState) and state.system_id not in known:
        raise Fault(
            "cluster-mismatch",
            f"the primary has system identifier {state.system_id}, the backups have {', '.join(map(str, known))}: a"
            " replica of it cannot begin with them",
            hint="correct --primary, or name the cluster of that server with --cluster",
        )
    found = [*_about_slot(slot, state), *_about_place(primary)]
    if primary.left_out_password:
        found.append(
            (
                "primary-password",
                "the configuration's password is not written into the replica's files",
                "let the replica's account have it in ~/.pgpass, or give the whole string with --primary",
            )
        )
    return Standby(primary.conninfo, slot, tuple(found))


def _about_slot(slot: str, state: PrimaryState | Fault) -> list[tuple[str, str, str]]:
    make = f"SELECT pg_create_physical_replication_slot('{slot}', true)"
    if isinstance(state, Fault):
        text = f"the primary could not be asked: {state.message}"
        return [("primary-unreachable", text, f"{state.hint}; the slot is made by: {make}" if slot else state.hint)]
    if not slot:
        return []
    if state.slot_exists is None:
        return [("slot-unknown", f"PostgreSQL before {_READS_SLOTS_SINCE} does not tell whether slot {slot} is there",
                 f"if it is not, run on the primary: {make}")]  # fmt: skip
    if not state.slot_exists:
        return [("slot-missing", f"the primary has no physical slot {slot}: the replica cannot stream before it is"
                 " there", f"run on the primary: {make}")]  # fmt: skip
    return []


def _about_place(primary: Primary) -> list[tuple[str, str, str]]:
    if not primary.is_local:
        return []
    return [
        (
            "primary-local",
            "the primary is reached through this machine itself: a replica beside it does not survive the machine, and"
            " CREATE TABLESPACE on the primary would lead the replica into the primary's own directory",
            "for a replica on another host, restore there with --primary "
            + shlex.quote("host=PRIMARY user=replicator"),
        )
    ]
