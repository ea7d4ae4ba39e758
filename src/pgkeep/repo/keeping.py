"""kept: a lease for jobs that read, renewed beside them by a thread.

A job that only reads must not fail for want of a lease: on a medium that is mounted read-only nothing is deleted, and
elsewhere what is condemned stays for at least a lease.  So what goes wrong is a warning.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Warned
from pgkeep.repo.deleting import still_there
from pgkeep.repo.lease import LEASE_SECONDS, Lease
from pgkeep.repo.repository import Cluster
from pgkeep.values.ids import BackupId

_LOOKS: Final = 10
"""How often in the time of a lease the thread looks whether a renewal is due."""


@contextmanager
def kept(
    cluster: Cluster, clock: Clock, announce: Announce, *, purpose: str, bases: Iterable[BackupId],
    seconds: int = LEASE_SECONDS,
) -> Iterator[Lease | None]:  # fmt: skip
    """Hold a lease on `bases` during the block; None, and a warning, where it cannot be written."""
    named = tuple(bases)
    try:
        lease = Lease.take(cluster, clock, purpose=purpose, bases=named, seconds=seconds)
    except Fault as fault:
        announce(
            Warned(
                "lease-unwritten",
                f"no lease can be written ({fault.message})",
                f"do not run pgkeep prune on this repository before this {purpose} has ended",
            )
        )
        yield None
        return
    keeper = Keeper(lease)
    keeper.start()
    try:
        _warn_of_leaving(cluster, named, purpose, announce)
        yield lease
    finally:
        keeper.stop()
        lease.release()
        if keeper.lost is not None:
            announce(Warned(keeper.lost.code, keeper.lost.message, keeper.lost.hint))


def _warn_of_leaving(cluster: Cluster, bases: tuple[BackupId, ...], purpose: str, announce: Announce) -> None:
    """Looked at after the lease is there: what is not leaving now stays as long as the lease does."""
    leaving = [backup for backup in bases if not still_there(cluster, backup)]
    if leaving:
        text = f"being deleted by a prune: {', '.join(leaving)}; its packs stay for about an hour more"
        announce(Warned("backup-leaving", text, f"if this {purpose} fails, choose another {leaving[0].noun}"))


class Keeper:
    """The thread; it alone uses the lease while it runs."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self.lost: Fault | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped: until then the lease is not its taker's to use."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._lease.seconds / _LOOKS):
            try:
                self._lease.renew_if_due()
            except Fault as fault:
                self.lost = fault
                return
