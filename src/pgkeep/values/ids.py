"""Identifiers: 128-bit object ids, names of backups and dumps, cluster uuids."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import ClassVar, Self

_BACKUP = re.compile(r"(\d{8})T(\d{6})Z-([0-9a-f]{8})")
_CLUSTER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ObjectId(bytes):
    """Sixteen bytes; text form is 32 lower-case hexadecimal digits."""

    __slots__ = ()

    def __new__(cls, value: bytes) -> Self:
        if len(value) != 16:
            raise ValueError(f"an object id has 16 bytes, not {len(value)}")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        if not re.fullmatch(r"[0-9a-f]{32}", text):
            raise ValueError(f"not an object id: {text!r}")
        return cls(bytes.fromhex(text))

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"ObjectId({self.hex()!r})"


class BackupId(str):
    """'20260507T112900Z-3f9a01c7': when the backup started (UTC) and 32 random bits; sorts by time."""

    __slots__ = ()
    noun: ClassVar[str] = "backup"
    """What people call what it names."""

    def __new__(cls, text: str) -> Self:
        if not _BACKUP.fullmatch(text):
            raise ValueError(f"not a backup id: {text!r} (expected a form like 20260507T112900Z-3f9a01c7)")
        return super().__new__(cls, text)

    @classmethod
    def make(cls, started: datetime, entropy: bytes) -> Self:
        """From an aware start time and at least four random bytes."""
        return cls(f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}-{entropy[:4].hex()}")


class DumpId(BackupId):
    """A dump's id: of the same form.  A type of its own, because its manifest lies elsewhere.

    Pins, leases and marks name either; so it must be usable as a backup's id is.
    """

    __slots__ = ()
    noun = "dump"


class ClusterUuid(str):
    """The identity of a cluster in a repository: stays when pg_upgrade changes the system identifier."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not _CLUSTER.fullmatch(text):
            raise ValueError(f"not a cluster uuid: {text!r}")
        return super().__new__(cls, text)

    @classmethod
    def make(cls, entropy: bytes) -> Self:
        """From sixteen random bytes (a version 4 uuid)."""
        return cls(str(uuid.UUID(bytes=entropy, version=4)))
