"""ObservedStore: counts calls, failures, bytes and seconds of each operation, and tells a callback of every call.

Rules of this file:

1. A call is counted once, when it ends: a listing when it is exhausted, dropped or broken.
2. Seconds are those spent inside the wrapped store; what a caller does between two items of a listing is not.
3. The callback runs in the calling thread, after the count; the lock is not held meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.store import keys
from pgkeep.store.port import KeyParts, ObjectStat, Store

T = TypeVar("T")


class Operation(Enum):
    """The calls of the port."""

    PUT = "put"
    GET = "get"
    STAT = "stat"
    LIST = "list"
    LIST_PARTS = "list_parts"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Call:
    """One finished call: `size` is bytes sent (put) or received (get), `failure` a Fault's code, '' for success."""

    operation: Operation
    key: str
    size: int
    seconds: float
    failure: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the calls of one operation; bytes count only for calls that succeeded."""

    calls: int = 0
    failures: int = 0
    size: int = 0
    seconds: float = 0.0

    def plus(self, call: Call) -> Tally:
        return replace(
            self,
            calls=self.calls + 1,
            failures=self.failures + bool(call.failure),
            size=self.size + call.size,
            seconds=self.seconds + call.seconds,
        )


def ignore(_call: Call) -> None:
    """A callback for callers that only want the tallies."""


class ObservedStore:
    """See the module's docstring; may be shared between threads."""

    def __init__(self, inner: Store, clock: Clock, callback: Callable[[Call], None] = ignore) -> None:
        self._inner = inner
        self._clock = clock
        self._callback = callback
        self._lock = threading.Lock()
        self._tallies = dict.fromkeys(Operation, Tally())

    def tally(self, operation: Operation) -> Tally:
        """What was counted so far."""
        with self._lock:
            return self._tallies[operation]

    @property
    def url(self) -> str:
        return self._inner.url

    def file_of(self, key: str) -> str | None:
        return self._inner.file_of(key)

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        size = sum(memoryview(part).nbytes for part in parts)
        self._timed(Operation.PUT, key, lambda: self._inner.put(key, parts), lambda _: size)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._timed(Operation.GET, key, lambda: self._inner.get(key, start, length), len)

    def stat(self, key: str) -> ObjectStat:
        return self._timed(Operation.STAT, key, lambda: self._inner.stat(key))

    def list_parts(self, prefix: str = "") -> KeyParts:
        return self._timed(Operation.LIST_PARTS, prefix, lambda: self._inner.list_parts(prefix))

    def delete(self, key: str) -> None:
        self._timed(Operation.DELETE, key, lambda: self._inner.delete(key))

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        keys.check_prefix(prefix)
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[ObjectStat]:
        seconds = 0.0
        failure = ""
        began = self._clock.monotonic()
        try:
            for found in self._inner.list(prefix):
                seconds += self._clock.monotonic() - began
                yield found
                began = self._clock.monotonic()
            seconds += self._clock.monotonic() - began
        except Fault as fault:
            seconds += self._clock.monotonic() - began
            failure = fault.code
            raise
        finally:
            self._count(Call(Operation.LIST, prefix, 0, seconds, failure))

    def _timed(
        self, operation: Operation, key: str, call: Callable[[], T], size: Callable[[T], int] = lambda _: 0
    ) -> T:
        began = self._clock.monotonic()
        try:
            result = call()
        except Fault as fault:
            self._count(Call(operation, key, 0, self._clock.monotonic() - began, fault.code))
            raise
        self._count(Call(operation, key, size(result), self._clock.monotonic() - began, ""))
        return result

    def _count(self, call: Call) -> None:
        with self._lock:
            self._tallies[call.operation] = self._tallies[call.operation].plus(call)
        self._callback(call)
