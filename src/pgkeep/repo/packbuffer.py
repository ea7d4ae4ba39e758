"""The memory in which packs are put together: pieces at page boundaries, used again for the packs that follow.

Memory that is new costs a page fault for every 4 KiB, twenty for each second of a backup's frames, and memory at page
boundaries can be handed to the disk as it is (store/direct.py).
"""

from __future__ import annotations

import mmap
from typing import Final

SEGMENT: Final = 4 << 20
"""Bytes of a piece: what is written to a disk at a time."""


class Segments:
    """Pieces of memory that nobody uses at the moment.  Threads may give back what another one takes."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []

    def take(self) -> memoryview:
        """SEGMENT bytes of any content."""
        return self._free.pop() if self._free else memoryview(mmap.mmap(-1, SEGMENT))

    def give_back(self, segments: list[memoryview]) -> None:
        """Their content is not needed any more, and nobody else has views of them."""
        self._free += segments


class PackBuffer:
    """Bytes that are appended until they are handed over as a whole; its memory comes from `segments`."""

    def __init__(self, segments: Segments) -> None:
        self._segments = segments
        self._used: list[memoryview] = []
        self._room = 0
        """Bytes of the last piece that are free."""

    def append(self, data: bytes | memoryview) -> None:
        """Copy `data` behind what there is."""
        with memoryview(data).cast("B") as rest:
            at = 0
            while at < len(rest):
                if not self._room:
                    self._used.append(self._segments.take())
                    self._room = SEGMENT
                start, taken = SEGMENT - self._room, min(self._room, len(rest) - at)
                self._used[-1][start : start + taken] = rest[at : at + taken]
                at += taken
                self._room -= taken

    def parts(self) -> list[memoryview]:
        """All of it in order: views that are good until `release`."""
        if not self._used:
            return []
        return [*self._used[:-1], self._used[-1][: SEGMENT - self._room]]

    def release(self) -> None:
        """Empty it."""
        self._segments.give_back(self._used)
        self._used, self._room = [], 0
