"""MemoryStore: a store that ends with its process, for tests and rehearsals; the semantics are the port's.

Rules of this file:

1. One lock around one dict: every call is atomic, so racing writers have exactly one winner.
2. It refuses what a file system would refuse (a key that is both object and folder), so that what works here
   works on LocalStore.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from pgkeep.clock import Clock, SystemClock
from pgkeep.errors import Fault
from pgkeep.store import keys
from pgkeep.store.port import KeyParts, ObjectStat


class MemoryStore:
    """A `port.Store` in memory, safe to share between threads."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[ObjectStat, bytes]] = {}

    @property
    def url(self) -> str:
        """For messages only: another process cannot open it."""
        return "memory:"

    def file_of(self, key: str) -> str | None:
        keys.check_key(key)
        return None

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        keys.check_key(key)
        content = b"".join(parts)
        with self._lock:
            if self._is_taken(key):
                raise Fault("object-exists", f"{key}: already in memory, expected nothing", key=key)
            self._objects[key] = (ObjectStat(key, len(content), self._clock.now()), content)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        keys.check_key(key)
        keys.check_range(start, length)
        content = self._found(key)[1]
        return content[start:] if length is None else content[start : start + length]

    def stat(self, key: str) -> ObjectStat:
        keys.check_key(key)
        return self._found(key)[0]

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        keys.check_prefix(prefix)
        return self._list(prefix)

    def _list(self, prefix: str) -> Iterator[ObjectStat]:
        # Keys first and stats later, as a walk over a real store would: what is deleted meanwhile is left out.
        for key in self._keys(prefix):
            with self._lock:
                found = self._objects.get(key)
            if found is not None:
                yield found[0]

    def list_parts(self, prefix: str = "") -> KeyParts:
        keys.check_folder(prefix)
        return sorted({_next_part(key[len(prefix) :]) for key in self._keys(prefix)})

    def delete(self, key: str) -> None:
        keys.check_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def _keys(self, prefix: str) -> KeyParts:
        with self._lock:
            return sorted(key for key in self._objects if key.startswith(prefix))

    def _found(self, key: str) -> tuple[ObjectStat, bytes]:
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise Fault("object-missing", f"{key}: no such object in memory", key=key)
        return found

    def _is_taken(self, key: str) -> bool:
        """The key is there, or a folder has its name, or one of its folders is an object."""
        folder = key + "/"
        return (
            key in self._objects
            or any(above in self._objects for above in keys.folders_of(key))
            or any(other.startswith(folder) for other in self._objects)
        )


def _next_part(rest: str) -> str:
    name, slash, _ = rest.partition("/")
    return name + slash
