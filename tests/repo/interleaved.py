"""Actors that run the real code in threads, one store call at a time, in whatever order a test wants.

An actor waits before each of its store calls until it is told to go on; so only one runs at any moment, and a test that
draws the order draws every interleaving that processes on several hosts could have.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from pgkeep.errors import Fault
from pgkeep.store.port import KeyParts, ObjectStat, Store
from tests.store.faulty import Crash

_PATIENCE = 60.0


class Actor:
    """A job under way; `waits_for` is the call that comes next ('put', key), None when it has ended."""

    def __init__(self, name: str, inner: Store, job: Callable[[Store], None]) -> None:
        self.name = name
        self.waits_for: tuple[str, str] | None = None
        self.fault: Fault | None = None
        self.killed = False
        self._mistake: BaseException | None = None
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(inner, job), daemon=True)
        self._thread.start()
        self._wait()

    @property
    def is_running(self) -> bool:
        return self.waits_for is not None

    def step(self, calls: int = 1) -> None:
        """Let it make so many calls, or end."""
        for _ in range(calls):
            if self.is_running:
                self._go.release()
                self._wait()

    def run(self) -> None:
        """Until it ends."""
        while self.is_running:
            self.step()

    def kill(self) -> None:
        """The process dies before its next call."""
        self.killed = True
        self.run()

    def _wait(self) -> None:
        assert self._stopped.acquire(timeout=_PATIENCE), f"{self.name} hangs"
        if self._mistake is not None:
            raise self._mistake

    def _run(self, inner: Store, job: Callable[[Store], None]) -> None:
        try:
            job(Between(inner, self.gate))
        except Fault as fault:
            self.fault = fault
        except Crash:
            pass
        except BaseException as mistake:
            self._mistake = mistake
        self.waits_for = None
        self._stopped.release()

    def gate(self, operation: str, key: str) -> None:
        if not self.killed:
            self.waits_for = operation, key
            self._stopped.release()
            assert self._go.acquire(timeout=_PATIENCE)
        if self.killed:
            raise Crash(f"{operation} {key}")


class Between:
    """A store that calls `before(operation, key)` before each of its calls."""

    def __init__(self, inner: Store, before: Callable[[str, str], None]) -> None:
        self._inner = inner
        self._before = before

    @property
    def url(self) -> str:
        return self._inner.url

    def file_of(self, key: str) -> str | None:
        return self._inner.file_of(key)

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        self._before("put", key)
        self._inner.put(key, parts)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._before("get", key)
        return self._inner.get(key, start, length)

    def stat(self, key: str) -> ObjectStat:
        self._before("stat", key)
        return self._inner.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        self._before("list", prefix)
        return iter([*self._inner.list(prefix)])

    def list_parts(self, prefix: str = "") -> KeyParts:
        self._before("list_parts", prefix)
        return self._inner.list_parts(prefix)

    def delete(self, key: str) -> None:
        self._before("delete", key)
        self._inner.delete(key)
