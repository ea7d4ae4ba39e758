"""A private directory for what pg_dump writes, and what dead dumps left of theirs.

1. It is 0700, and locked (flock on the directory itself) as long as its dump lives: what can be locked is left over.
2. It is told to the watchdog before it is made, and removed at the end whatever happens.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from pgkeep.errors import Fault
from pgkeep.logical.guard import Guard

MEMORY: Final = "/dev/shm"  # noqa: S108  (a tmpfs on every Linux; the directory in it is ours alone)
PREFIX: Final = "pgkeep-dump-"


@contextmanager
def scratch_directory(parent: str, guard: Guard) -> Iterator[str]:
    """A new directory below `parent`; 'io' when there can be none."""
    path = os.path.join(parent, PREFIX + secrets.token_hex(8))
    with locked_directory(path, guard):
        yield path


@contextmanager
def locked_directory(path: str, guard: Guard) -> Iterator[None]:
    """Make the directory `path`, hold its lock, and remove it at the end with all that is in it then."""
    guard.remove(path)
    descriptor = _make(path)
    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)
        guard.keep(path)


def _make(path: str) -> int:
    try:
        os.mkdir(path, 0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Between the two calls another dump may have taken it for a leftover.
        if not os.path.isdir(path):
            os.close(descriptor)
            return _make(path)
    except OSError as error:
        raise Fault(
            "io",
            f"cannot make the directory {path}: {error.strerror}",
            hint="name a directory that this account may write to",
        ) from error
    return descriptor


def remove_leftovers(parent: str) -> tuple[str, ...]:
    """Remove what dumps of this account that are dead left below `parent`; their paths."""
    try:
        names = [name for name in os.listdir(parent) if name.startswith(PREFIX)]
    except OSError:
        return ()
    return tuple(path for path in (os.path.join(parent, name) for name in names) if remove_if_dead(path))


def remove_if_dead(path: str) -> bool:
    """Remove the directory when it is this account's and nobody holds its lock."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_uid != os.geteuid():
                return False
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
        finally:
            os.close(descriptor)
        return True
    return False
