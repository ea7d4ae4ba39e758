"""ReadOnlyStore: reads pass, writes are refused; for verify, drills, and a copy that nobody may touch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pgkeep.errors import Fault
from pgkeep.store import keys
from pgkeep.store.port import KeyParts, ObjectStat, Store


class ReadOnlyStore:
    """`put` and `delete` raise `store-read-only`, whatever is there; everything else goes to `inner`."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    @property
    def url(self) -> str:
        return self._inner.url

    def file_of(self, key: str) -> str | None:
        return self._inner.file_of(key)

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        raise self._refusal("put", key)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        return self._inner.get(key, start, length)

    def stat(self, key: str) -> ObjectStat:
        return self._inner.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        return self._inner.list(prefix)

    def list_parts(self, prefix: str = "") -> KeyParts:
        return self._inner.list_parts(prefix)

    def delete(self, key: str) -> None:
        raise self._refusal("delete", key)

    def _refusal(self, operation: str, key: str) -> Fault:
        keys.check_key(key)
        return Fault(
            "store-read-only",
            f"{key}: {operation} refused, because {self.url} was opened for reading only",
            hint="run a command that writes, or open the repository for writing",
            key=key,
        )
