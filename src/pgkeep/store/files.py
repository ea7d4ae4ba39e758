"""The POSIX calls behind LocalStore: each does one durable step and raises OSError as it comes.

Neighbours: `local` decides what an OSError means for the object at hand and asks `fault_of` for the rest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from pgkeep.errors import Fault

TEMPORARY = ".tmp-"
"""How the names of unfinished files begin; no key part begins with '.', so listings cannot meet them."""

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1  # linux/fs.h

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG})
# A file system without hard links answers EPERM (link(2)) or ENOTSUP; EMLINK: it has none to spare.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS})
_NO_RENAME = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
# Some file systems cannot fsync a directory and say so like this (PostgreSQL: fd.c, fsync_fname_ext).
_NO_FOLDER_SYNC = frozenset({errno.EBADF, errno.EINVAL})


def fault_of(error: OSError, what: str, root: str) -> Fault:
    """The Fault for an OSError met while working on `what` (a key) of the store at `root`.

    What is not known to be permanent is `store-unreachable`: EIO, ESTALE, ETIMEDOUT, ENOTCONN, EMFILE ...
    """
    code, found, hint = _meaning(error)
    said = error.strerror or str(error)
    return Fault(code, f"{what}: {found} in {root} ({said})", hint=hint, key=what, root=root, errno=error.errno)


def _meaning(error: OSError) -> tuple[str, str, str]:
    number = error.errno
    if number in _FULL:
        return "store-full", "no room for it", "free space, or raise the quota or the limit on file sizes"
    if number in _DENIED:
        return "store-denied", "access refused", "give this account read, write and search rights on the store"
    if number == errno.EROFS:
        return "store-read-only", "the file system is read-only", "mount it read-write"
    return "store-unreachable", "the file system failed", "check the mount and the kernel's log, then try again"


def temporary_in(folder: str) -> str:
    """The path of an unfinished file in `folder` that nobody else uses."""
    return f"{folder}/{TEMPORARY}{os.urandom(8).hex()}"


def create(path: str) -> int:
    """A new empty file, for this account alone: its descriptor, open for writing."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def create_temporary(folder: str) -> tuple[int, str]:
    """A new unfinished file in `folder`: its descriptor, open for writing, and its path."""
    path = temporary_in(folder)
    return create(path), path


def write_all(descriptor: int, parts: Iterable[bytes | memoryview]) -> None:
    """Every byte of every part: write(2) may take less than it is given."""
    for part in parts:
        rest = memoryview(part).cast("B")
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def read_range(descriptor: int, start: int, length: int) -> bytes:
    """`length` bytes from `start`, fewer only where the file ends: pread(2) stops at 2 GiB and at signals."""
    chunk = os.pread(descriptor, length, start)
    if len(chunk) == length or not chunk:
        return chunk
    chunks = [chunk]
    done = len(chunk)
    while done < length and (chunk := os.pread(descriptor, length - done, start + done)):
        chunks.append(chunk)
        done += len(chunk)
    return b"".join(chunks)


def read_into(descriptor: int, start: int, memory: memoryview) -> int:
    """Fill `memory` with bytes from `start`; how many: fewer only where the file ends."""
    done = os.preadv(descriptor, [memory], start)
    while 0 < done < len(memory) and (more := os.preadv(descriptor, [memory[done:]], start + done)):
        done += more
    return done


def sync_folder(path: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def place(temporary: str, final: str, descriptor: int) -> None:
    """Give the finished file its final name, or raise FileExistsError: it never replaces one.

    The temporary name may remain; the caller removes it.  Fault `store-denied` where the file system has
    no way to do this, because then two writers could overwrite each other.
    """
    try:
        _link_or_rename(temporary, final)
    except FileExistsError:
        # NFS sends a call again when the answer was lost, and then meets its own success.
        if not os.path.samestat(os.lstat(final), os.fstat(descriptor)):
            raise


def _link_or_rename(temporary: str, final: str) -> None:
    try:
        os.link(temporary, final)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        rename_no_replace(temporary, final)


def rename_no_replace(source: str, target: str) -> None:
    """renameat2(2) with RENAME_NOREPLACE; Fault `store-denied` where kernel, libc or file system lack it."""
    import ctypes  # only file systems without hard links pay for it

    number = errno.ENOSYS
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if rename(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
    if number not in _NO_RENAME:
        raise OSError(number, os.strerror(number), source, None, target)
    raise Fault(
        "store-denied",
        f"{target}: the file system has neither hard links nor a rename that refuses to replace, expected one",
        hint="put the repository on a file system that has hard links (ext4, xfs, btrfs, zfs, nfs)",
        path=target,
    )
