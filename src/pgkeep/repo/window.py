"""Ranges of one object, fetched a few megabytes at a time: for readers that ask for many small parts, in order."""

from __future__ import annotations

from typing import Final

from pgkeep.store.port import Store

FIRST_READ: Final = 64 << 10
"""Bytes: header, directory and first sections of nearly all objects that are read so."""
WINDOW: Final = 4 << 20


class Window:
    """See the module's docstring."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        self._start = 0
        self._data = memoryview(b"")

    def get(self, start: int, length: int) -> memoryview:
        at = start - self._start
        if at < 0 or at + length > len(self._data):
            self._data = memoryview(self._store.get(self._key, start, max(length, WINDOW if start else FIRST_READ)))
            self._start, at = start, 0
        return self._data[at : at + length]
