"""That a server archives into this repository: seen, not concluded from its settings.

1. A segment counts when the server says that its archive_command took it, and the archive holds it.
2. A server that has shown this already, and reported no failure since, is not made to write anything.
3. Otherwise its present segment is completed, and its archiver is watched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.pg.facts import ArchiverState
from pgkeep.pg.server import Server
from pgkeep.values.wal import WalFileKind, wal_file_kind

WAIT_SECONDS: Final = 70.0
"""The archiver looks again after 60 s when its command has failed three times (pgarch.c, PGARCH_AUTOWAKE_INTERVAL)."""
_POLL: Final = 0.1


@dataclass(frozen=True, slots=True)
class Proof:
    """The segment that was seen to arrive; `seconds` it took, or None when it had arrived before anybody asked."""

    segment: str
    seconds: float | None


def prove_archiving(server: Server, holds: Callable[[str], bool], clock: Clock) -> Proof:
    """Wait until a segment of this server is in the archive; `holds` says whether the archive has one of that name.

    Fault 'wal-not-archived' after WAIT_SECONDS, with what the server says of its archiver; 'postgres-rights' when the
    role may not complete a segment.
    """
    before = server.archiver()
    if _is_healthy(before) and _has_arrived(before, holds):
        return Proof(before.last_archived_wal, None)
    began = clock.monotonic()
    server.write_and_switch_wal()
    while clock.monotonic() - began < WAIT_SECONDS:
        state = server.archiver()
        if state.archived_count != before.archived_count and _has_arrived(state, holds):
            return Proof(state.last_archived_wal, clock.monotonic() - began)
        clock.sleep(_POLL)
    raise _not_seen(before, server.archiver())


def _is_healthy(state: ArchiverState) -> bool:
    failed, archived = state.last_failed_time, state.last_archived_time
    return archived is not None and (failed is None or failed < archived)


def _has_arrived(state: ArchiverState, holds: Callable[[str], bool]) -> bool:
    name = state.last_archived_wal
    return wal_file_kind(name) is WalFileKind.SEGMENT and holds(name)


def _not_seen(before: ArchiverState, now: ArchiverState) -> Fault:
    failures = now.failed_count - before.failed_count
    if failures:
        said = f"its archive_command failed {failures} times meanwhile, last for {now.last_failed_wal}"
    elif now.last_failed_wal:
        said = f"its archive_command failed last for {now.last_failed_wal}"
    else:
        said = "it reports no failure of its archive_command"
    return Fault(
        "wal-not-archived",
        f"the server is set up, but no segment of it reached the repository within {WAIT_SECONDS:.0f} s; {said}",
        hint="the server's log has what archive_command printed; then: pgkeep init",
    )
