"""patient: the one recipe by which every process of pgkeep asks a store again.

A job and its workers must agree: a repository that is away for a moment would else end the job through the one that
gives up first.
"""

from __future__ import annotations

import os

from pgkeep.clock import Clock
from pgkeep.events import Announce, silent
from pgkeep.store.port import Store
from pgkeep.store.wrap.retrying import RetryingStore


def patient(store: Store, clock: Clock, announce: Announce = silent) -> Store:
    """The store, asked again after `store-unreachable`, with the default Patience."""
    return RetryingStore(store, clock, _chance, announce=announce)


def _chance() -> float:
    """Uniform in [0, 1); the module `random` would cost `wal push` more to import than this."""
    return int.from_bytes(os.urandom(4)) / (1 << 32)
