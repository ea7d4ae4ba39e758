"""RetryingStore: asks again after `store-unreachable`, a bounded number of times, at growing and random intervals.

Rules of this file:

1. Only `store-unreachable` is asked again: every other fault is an answer.
2. A repeated put sends the very same bytes.  If an attempt of *this* put was ambiguous and a later one is told
   `object-exists`, the object is compared with what was meant: equal means that the put succeeded.
   `object-exists` on the first attempt is the caller's business and is passed on.
3. A listing that breaks off goes on after the last key that it gave; every key gained renews its patience.
4. Clock and randomness are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Warned, silent
from pgkeep.store import keys
from pgkeep.store.port import KeyParts, ObjectStat, Store

_COMPARE_BYTES = 8 << 20

T = TypeVar("T")
Parts = Sequence[bytes | memoryview]
Compare = Callable[[Store, str, Parts], bool]
"""Does the object at this key hold what these parts say?  May raise what `stat` and `get` raise."""


@dataclass(frozen=True, slots=True)
class Patience:
    """`attempts` in all; after the n-th a pause of `first` * 2**(n-1) seconds, at most `longest`.

    Half of each pause is random.  The default gives up after 4 to 8 seconds: long enough for a restart of a
    gateway, and short enough for PostgreSQL, which asks archive_command again by itself.
    """

    attempts: int = 6
    first: float = 0.25
    longest: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first < 0 or self.longest < 0:
            raise ValueError(f"no patience at all: {self}")

    def pause(self, failures: int, chance: float) -> float:
        """Seconds to wait after `failures` (>= 1) failed attempts; `chance` in [0, 1) spreads out a crowd."""
        # The exponent is capped because 2.0**1024 overflows; by then `longest` has long decided.
        full = min(self.longest, self.first * 2.0 ** min(failures - 1, 64))
        return full * (0.5 + chance / 2)


def same_content(store: Store, key: str, parts: Parts) -> bool:
    """Same length and equal bytes, read back 8 MiB at a time: the default `Compare`."""
    if store.stat(key).size != sum(memoryview(part).nbytes for part in parts):
        return False
    start = 0
    for part in parts:
        view = memoryview(part).cast("B")
        for offset in range(0, len(view), _COMPARE_BYTES):
            piece = view[offset : offset + _COMPARE_BYTES]
            if store.get(key, start, len(piece)) != piece:
                return False
            start += len(piece)
    return True


class RetryingStore:
    """See the module's docstring.  Announces `Warned('store-retry', ...)` before each pause."""

    def __init__(
        self,
        inner: Store,
        clock: Clock,
        chance: Callable[[], float],
        *,
        patience: Patience | None = None,
        compare: Compare = same_content,
        announce: Announce = silent,
    ) -> None:
        """`chance` gives floats in [0, 1), such as `random.random`; `compare` is handed this same retrying store."""
        self._inner = inner
        self._clock = clock
        self._chance = chance
        self._patience = patience or Patience()
        self._compare = compare
        self._announce = announce

    @property
    def url(self) -> str:
        return self._inner.url

    def file_of(self, key: str) -> str | None:
        return self._inner.file_of(key)

    def put(self, key: str, parts: Parts) -> None:
        failures = 0
        while True:
            try:
                return self._inner.put(key, parts)
            except Fault as fault:
                if fault.code == "object-exists" and failures and self._is_ours(key, parts):
                    return None
                failures += 1
                self._pause_or_raise(fault, failures)

    def _is_ours(self, key: str, parts: Parts) -> bool:
        """True if the ambiguous attempt took effect (or somebody wrote the same bytes, which is as good)."""
        try:
            return self._compare(self, key, parts)
        except Fault as fault:
            if fault.code == "object-missing":  # a folder is in its place, or it was deleted since
                return False
            raise

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._again(lambda: self._inner.get(key, start, length))

    def stat(self, key: str) -> ObjectStat:
        return self._again(lambda: self._inner.stat(key))

    def list_parts(self, prefix: str = "") -> KeyParts:
        return self._again(lambda: self._inner.list_parts(prefix))

    def delete(self, key: str) -> None:
        self._again(lambda: self._inner.delete(key))

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        keys.check_prefix(prefix)
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[ObjectStat]:
        last = ""
        failures = 0
        while True:
            try:
                for found in self._inner.list(prefix):
                    if found.key > last:
                        last, failures = found.key, 0
                        yield found
                return
            except Fault as fault:
                failures += 1
                self._pause_or_raise(fault, failures)

    def _again(self, call: Callable[[], T]) -> T:
        failures = 0
        while True:
            try:
                return call()
            except Fault as fault:
                failures += 1
                self._pause_or_raise(fault, failures)

    def _pause_or_raise(self, fault: Fault, failures: int) -> None:
        """To be called while `fault` is being handled."""
        if fault.code != "store-unreachable" or failures >= self._patience.attempts:
            raise fault
        seconds = self._patience.pause(failures, self._chance())
        self._announce(Warned("store-retry", f"{fault.message}; trying again in {seconds:.1f} s", fault.hint))
        self._clock.sleep(seconds)
