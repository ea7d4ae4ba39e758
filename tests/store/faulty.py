"""FaultyStore: a store that fails, tears, delays or dies at chosen calls; for tests of everything above stores.

One run of a job for each of its store calls:

    calls = FaultyStore(MemoryStore())
    job(calls)                                        # once without faults, to count
    for number in range(1, len(calls.calls) + 1):
        job(FaultyStore(MemoryStore(), Strike(Effect.BEFORE, nth=number)))      # a call fails
        job(FaultyStore.dying_at(number, MemoryStore()))                        # the process dies: raises Crash

Calls are counted when they are made (a listing when `list` is called, not when it is read), over all threads.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from pgkeep.errors import Fault
from pgkeep.store.open import open_store
from pgkeep.store.port import KeyParts, ObjectStat, Store


class Crash(BaseException):
    """The process died here: no `except Exception` of the code under test may survive it."""


class Effect(Enum):
    """What a strike does to the call."""

    BEFORE = "the call fails and has no effect"
    AFTER = "the call takes effect and then fails: an ambiguous answer"
    TORN = "a put leaves half a temporary file (local stores), a listing gives half its items; then it fails"
    DELAY = "the call waits and then works"


def unreachable(operation: str, key: str) -> BaseException:
    """The default failure: the one that may be retried."""
    return Fault("store-unreachable", f"{key}: {operation} failed by the test's order")


def crash(operation: str, key: str) -> BaseException:
    return Crash(f"{operation} {key}")


@dataclass(frozen=True)
class StoreCall:
    """A call that was made: its number from 1, the method's name, and the key or prefix."""

    number: int
    operation: str
    key: str


@dataclass
class Strike:
    """When and how to strike: a call matches by operation and key (None: any); `nth` counts the matching calls.

    `nth` None strikes every matching call; `onward` strikes the nth and every later one.
    """

    effect: Effect
    operation: str | None = None
    nth: int | None = None
    key: Callable[[str], bool] | None = None
    onward: bool = False
    seconds: float = 0.0
    failure: Callable[[str, str], BaseException] = unreachable
    seen: int = 0

    def strikes(self, operation: str, key: str) -> bool:
        if self.operation not in (None, operation) or not (self.key is None or self.key(key)):
            return False
        self.seen += 1
        return self.nth is None or self.seen == self.nth or (self.onward and self.seen > self.nth)


class FaultyStore:
    """A `port.Store` around `inner`; the first strike that matches a call is the one that happens."""

    def __init__(self, inner: Store, *strikes: Strike, sleep: Callable[[float], None] = time.sleep) -> None:
        self.inner = inner
        self.strikes = list(strikes)
        self.calls: list[StoreCall] = []
        self._sleep = sleep
        self._lock = threading.Lock()

    @classmethod
    def dying_at(cls, number: int, inner: Store, effect: Effect = Effect.BEFORE) -> FaultyStore:
        """The process dies at call `number` (from 1): that call and every later one raise Crash."""
        first = Strike(effect, nth=number, failure=crash)
        return cls(inner, first, Strike(Effect.BEFORE, nth=number, onward=True, failure=crash))

    def count(self, operation: str | None = None) -> int:
        """How many calls of `operation` (or in all) were made."""
        return sum(operation in (None, call.operation) for call in self.calls)

    @property
    def url(self) -> str:
        return self.inner.url

    def file_of(self, key: str) -> str | None:
        return self.inner.file_of(key)

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        strike = self._begin("put", key)
        if strike and strike.effect is Effect.TORN:
            leave_half(self.inner, key, b"".join(parts))
            raise strike.failure("put", key)
        self.inner.put(key, parts)
        self._end(strike, "put", key)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        strike = self._begin("get", key)
        content = self.inner.get(key, start, length)
        self._end(strike, "get", key)
        return content

    def stat(self, key: str) -> ObjectStat:
        strike = self._begin("stat", key)
        found = self.inner.stat(key)
        self._end(strike, "stat", key)
        return found

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        strike = self._begin("list", prefix)
        items = self.inner.list(prefix)
        return items if strike is None else self._list(strike, items, prefix)

    def _list(self, strike: Strike, items: Iterator[ObjectStat], prefix: str) -> Iterator[ObjectStat]:
        found = [*items]
        yield from found[: len(found) // 2] if strike.effect is Effect.TORN else found
        self._end(strike, "list", prefix)

    def list_parts(self, prefix: str = "") -> KeyParts:
        strike = self._begin("list_parts", prefix)
        parts = self.inner.list_parts(prefix)
        self._end(strike, "list_parts", prefix)
        return parts

    def delete(self, key: str) -> None:
        strike = self._begin("delete", key)
        self.inner.delete(key)
        self._end(strike, "delete", key)

    def _begin(self, operation: str, key: str) -> Strike | None:
        with self._lock:
            self.calls.append(StoreCall(len(self.calls) + 1, operation, key))
            # Every strike counts every call, also when another one happens.
            matching = [strike for strike in self.strikes if strike.strikes(operation, key)]
        strike = matching[0] if matching else None
        if strike and strike.effect is Effect.BEFORE:
            raise strike.failure(operation, key)
        if strike and strike.effect is Effect.DELAY:
            self._sleep(strike.seconds)
        return strike

    @staticmethod
    def _end(strike: Strike | None, operation: str, key: str) -> None:
        if strike and strike.effect in (Effect.AFTER, Effect.TORN):
            raise strike.failure(operation, key)


def leave_half(store: Store, key: str, content: bytes) -> None:
    """What a local put leaves behind when its process dies while writing; nothing on other stores."""
    if not store.url.startswith("file:"):
        return
    root = getattr(open_store(store.url), "_root")  # noqa: B009  (the tests' business, not the port's)
    folder = os.path.dirname(f"{root}/{key}")
    os.makedirs(folder, 0o700, exist_ok=True)
    with open(f"{folder}/.tmp-torn{os.urandom(4).hex()}", "wb") as file:
        file.write(content[: len(content) // 2])
