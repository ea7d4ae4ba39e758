"""The port: what an object store must guarantee, whatever is behind it.

Keys are relative, '/'-separated, made of the characters [A-Za-z0-9._-]; no part is empty or begins with '.'
(so neither '.' nor '..', and a store may keep its own files under such names).  `keys` checks them: a bad key,
prefix or range is a mistake of the program and raises ValueError.  A key is an object or a folder of other keys,
never both: a `put` that would make it both raises `object-exists`.

Every implementation guarantees:

* **Write-once.** `put` creates the object or raises `object-exists`; it never changes one that is there,
  also when two writers race: exactly one wins.
* **All or nothing.** An object is visible with its whole content or not at all, whenever the process, the
  connection or the machine dies.  What an interrupted `put` left behind is invisible to `list` and `get`.
* **Durable.** When `put` returns, the object survives power loss (as far as the store's medium promises it).
* **Read after write.** After `put` returns, `get`, `stat` and `list` of any client see the object;
  after `delete` returns, none does.
* **Presence before durability.**  A reader may see an object a moment before its `put` returns, that is, before
  it is durable.  Who must know that another writer's object is durable calls `put` and takes `object-exists`
  for the answer: a store raises it only for an object that survives power loss.
* **Ambiguity is said.** A `put` whose outcome is unknown raises `store-unreachable`; the caller may repeat it,
  and on `object-exists` compares what is there with what it meant to write.

Faults: `object-missing` (get, stat), `object-exists` (put), `store-unreachable` (may be retried), `store-full`,
`store-denied`, `store-read-only`.  `delete` of an absent object succeeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

KeyParts = list[str]  # `list` means the method inside the class


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a listing says of an object: key, size in bytes, time of its creation by the store's clock (UTC)."""

    key: str
    size: int
    modified: datetime


class Store(Protocol):
    """See the module's docstring for the semantics."""

    @property
    def url(self) -> str:
        """For messages and for `open_store` in another process; never holds a secret."""
        ...

    def file_of(self, key: str) -> str | None:
        """The file of this machine that would hold `key`, absolute; None for a store that is no directory here.

        Whoever has seen an object there may look at that file later without opening the store.
        """
        ...

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        """Create `key` from the concatenated parts, durably, or raise `object-exists`."""
        ...

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """`length` bytes from `start` (all to the end when None).

        A range that begins or ends past the object's end returns the bytes that exist.
        """
        ...

    def stat(self, key: str) -> ObjectStat: ...

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """Every object whose key starts with `prefix` (any string, not only whole parts), in ascending byte order."""
        ...

    def list_parts(self, prefix: str = "") -> KeyParts:
        """The distinct next key parts below the folder `prefix` ('' or ending in '/'), ascending.

        A part that is a folder ends in '/'.
        """
        ...

    def delete(self, key: str) -> None: ...
