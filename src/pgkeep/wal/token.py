"""The instance token: sixteen random bytes in the data directory that say which instance archives.

1. The file records its own inode number.  A copy of the data directory (cp -a, rsync, tar, a copied disk tree) gets
   another inode, so the token is not valid there and the copy mints its own; backups leave the file out altogether
   (pg/datadir.py).  A clone at block level keeps inodes: that one is found when its WAL first differs.
2. The file appears whole and durable or not at all, and never replaces a valid one.  Only the holder of the lock on a
   stale file may replace that file, so that racing processes agree on one token.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pgkeep.errors import Fault
from pgkeep.store import files

FILE_NAME: Final = "pgkeep.instance"
TOKEN_LENGTH: Final = 16
_MAGIC: Final = "pgkeep-instance-1"
_LONGEST: Final = 256
_ATTEMPTS: Final = 20

Entropy = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class _Found:
    """What the file says, and the inode number that it has."""

    token: bytes
    recorded: int
    inode: int


def instance_token(data_directory: str | os.PathLike[str], entropy: Entropy = os.urandom) -> bytes:
    """The token of the instance on this data directory; minted durably when it has none of its own.

    Raises Fault 'datadir-invalid' for a damaged file, 'io' when it cannot be read or made.
    """
    path = os.path.join(os.fspath(data_directory), FILE_NAME)
    try:
        for _ in range(_ATTEMPTS):
            found = _read(path)
            if found is None:
                with suppress(FileExistsError):
                    _create(path, entropy)
            elif found.recorded == found.inode:
                return found.token
            else:
                _replace(path, found.inode, entropy)
    except OSError as error:
        raise _unusable(path, error) from error
    raise Fault("io", f"{path} changes all the time, expected it to stay once it is made", path=path)


def known_token(data_directory: str | os.PathLike[str]) -> bytes | None:
    """The token that the instance has; None when it has none of its own.  Makes nothing.  Faults as above."""
    path = os.path.join(os.fspath(data_directory), FILE_NAME)
    try:
        found = _read(path)
    except OSError as error:
        raise _unusable(path, error) from error
    return found.token if found is not None and found.recorded == found.inode else None


def _read(path: str) -> _Found | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        text = os.pread(descriptor, _LONGEST, 0)
        return _parse(path, text, os.fstat(descriptor).st_ino)
    finally:
        os.close(descriptor)


def _parse(path: str, text: bytes, inode: int) -> _Found:
    words = text.decode("ascii", "replace").split()
    if len(words) == 4 and words[0] == _MAGIC and text == _encode(words[1], words[2]):
        with suppress(ValueError):
            token = bytes.fromhex(words[1])
            if len(token) == TOKEN_LENGTH:
                return _Found(token, int(words[2]), inode)
    raise Fault(
        "datadir-invalid",
        f"{path} is damaged ({len(text)} bytes), expected the token that pgkeep wrote there",
        hint="remove it, and let this server take its timeline over with: pgkeep init --adopt",
        path=path,
    )


def _encode(token: str, inode: str) -> bytes:
    line = f"{_MAGIC} {token} {inode}"
    return f"{line} {hashlib.sha256(line.encode('ascii', 'replace')).hexdigest()[:16]}\n".encode("ascii", "replace")


def _create(path: str, entropy: Entropy) -> None:
    """Make the file, or raise FileExistsError."""
    folder = os.path.dirname(path) or "."
    descriptor, temporary = _write_temporary(folder, entropy)
    try:
        files.place(temporary, path, descriptor)
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    files.sync_folder(folder)


def _replace(path: str, stale: int, entropy: Entropy) -> None:
    """Put a file of our own in the place of the one with inode `stale`, unless somebody else has done so."""
    folder = os.path.dirname(path) or "."
    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # NFS locks only what is open for writing
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_ino != stale or os.stat(path).st_ino != stale:
            return
        descriptor, temporary = _write_temporary(folder, entropy)
        os.close(descriptor)
        os.rename(temporary, path)
        files.sync_folder(folder)
    finally:
        os.close(lock)


def _write_temporary(folder: str, entropy: Entropy) -> tuple[int, str]:
    descriptor, temporary = files.create_temporary(folder)
    try:
        text = _encode(entropy(TOKEN_LENGTH).hex(), str(os.fstat(descriptor).st_ino))
        files.write_all(descriptor, [text])
        if os.geteuid() == 0:
            # `init --adopt` may run as root; the archiver, which runs as the directory's owner, must read it.
            owner = os.stat(folder)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.fsync(descriptor)
    except BaseException:
        os.close(descriptor)
        os.unlink(temporary)
        raise
    return descriptor, temporary


def _unusable(path: str, error: OSError) -> Fault:
    return Fault(
        "io",
        f"{path}: the instance's token cannot be read or made ({error.strerror}), expected a file of this account's",
        hint="run pgkeep under the account that owns the data directory",
        path=path,
    )
