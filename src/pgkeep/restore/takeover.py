"""What a restore left in a server's settings, to be taken back when that server takes over (pure).

1. What belongs to the recovery that is over goes at once: a later standby.signal would follow it again.
2. What keeps the server to itself (its port, its socket, no listener) is its owner's to take back: the former server
   may still hold that port.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pgkeep.restore.settings import RECOVERY

APART: Final = (
    "port",
    "listen_addresses",
    "unix_socket_directories",
    "synchronous_standby_names",
    "max_logical_replication_workers",
    "external_pid_file",
    "ssl",
    "cron.launch_active_jobs",
)
"""What `restore.settings.isolation_settings` writes besides archive_mode, and production has otherwise."""
READ_AT_START: Final = frozenset({"port", "listen_addresses", "unix_socket_directories", "external_pid_file"})
"""Those of APART that count from the next restart on (guc_tables.c, PGC_POSTMASTER)."""
_NAMES_NOTHING: Final = {"recovery_target_timeline": "latest", "recovery_target_inclusive": "on",
                         "recovery_target_action": "pause", "recovery_min_apply_delay": "0",
                         "recovery_prefetch": "try"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Takeover:
    """Names of settings to reset: `over` at once, `apart` when the server is to be production."""

    over: tuple[str, ...]
    apart: tuple[str, ...]


def plan_takeover(written: Iterable[tuple[str, str]]) -> Takeover:
    """`written` are names and values that postgresql.auto.conf decides."""
    found = dict(written)
    over = tuple(name for name in sorted(RECOVERY & found.keys()) if found[name] != _NAMES_NOTHING.get(name, ""))
    is_apart = found.get("listen_addresses") == ""
    return Takeover(over, tuple(name for name in APART if is_apart and name in found))
