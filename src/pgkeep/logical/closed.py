"""ClosedFiles: which files of a directory their writers have closed, as the kernel tells it (inotify(7)).

Python has no inotify; the three calls and one struct are here.  Where the kernel gives none (its limit of watches is
reached), nothing is reported: then all files are there at the end, and only memory is lost.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

_CLOSE_WRITE: Final = 0x00000008  # linux/inotify.h
_OVERFLOW: Final = 0x00004000
_ONLY_DIRECTORY: Final = 0x01000000
_EVENT: Final = struct.Struct("iIII")  # wd, mask, cookie, length of the name
_READ: Final = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class ClosedFiles:
    """Watches one directory (not what lies below); use as a context manager."""

    def __init__(self, directory: str) -> None:
        self.lost = False
        """Events were lost: some closed files will not be reported."""
        self._descriptor = self._watch(os.fsencode(directory))

    @property
    def works(self) -> bool:
        return self._descriptor >= 0

    @staticmethod
    def _watch(directory: bytes) -> int:
        init, add = getattr(_libc, "inotify_init1", None), getattr(_libc, "inotify_add_watch", None)
        if init is None or add is None:
            return -1
        descriptor = int(init(os.O_NONBLOCK | os.O_CLOEXEC))
        if descriptor >= 0 and add(descriptor, directory, ctypes.c_uint32(_CLOSE_WRITE | _ONLY_DIRECTORY)) < 0:
            os.close(descriptor)
            return -1
        return descriptor

    def wait(self, timeout: float) -> list[str]:
        """Names of files that were closed since the last call, in that order; [] after `timeout` seconds."""
        if not self.works:
            select.select([], [], [], timeout)
            return []
        if not select.select([self._descriptor], [], [], timeout)[0]:
            return []
        found: dict[str, None] = {}
        with suppress(BlockingIOError):
            while data := os.read(self._descriptor, _READ):
                found.update(dict.fromkeys(self._names(data)))
        return list(found)

    def _names(self, data: bytes) -> list[str]:
        names, at = [], 0
        while at < len(data):
            _, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            if mask & _OVERFLOW:
                self.lost = True
            elif name := data[at : at + length].rstrip(b"\0"):
                names.append(os.fsdecode(name))
            at += length
        return names

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.works:
            os.close(self._descriptor)
            self._descriptor = -1
