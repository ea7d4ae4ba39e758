"""Two calls of Linux that Python does not have: fallocate(2) without glibc's emulation, and sync_file_range(2).

posix_fallocate is no substitute: where the file system cannot do it, glibc reads and writes a byte in every block,
which is slow on a NAS and races with another process that fills the same file.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h
_UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = getattr(_libc, "fallocate", None)
_sync_file_range = getattr(_libc, "sync_file_range", None)


def allocate(descriptor: int, size: int) -> None:
    """Give the file its length and, where the file system can, its blocks.  OSError when there is no room."""
    number = errno.EINTR if _fallocate is not None else errno.ENOSYS
    while number == errno.EINTR:
        done = _fallocate is not None and _fallocate(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size)) == 0
        number = 0 if done else ctypes.get_errno()
    if number in _UNSUPPORTED:
        os.ftruncate(descriptor, size)
    elif number:
        raise OSError(number, os.strerror(number))


def start_writing(descriptor: int, offset: int, length: int) -> None:
    """Let the kernel begin to write these bytes to the disk; a hint, whose failure fsync would tell."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)
