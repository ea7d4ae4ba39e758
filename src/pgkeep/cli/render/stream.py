"""A text stream that outlives its reader: who stops listening must not stop a backup."""

from __future__ import annotations

import os
from typing import TextIO


class Stream:
    """Just enough of a text file for rich and for us; after a broken pipe, writing does nothing."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._broken = False

    @property
    def encoding(self) -> str:
        return self._file.encoding

    def isatty(self) -> bool:
        return self._file.isatty()

    def fileno(self) -> int:
        return self._file.fileno()

    def write(self, text: str) -> int:
        if not self._broken:
            try:
                self._file.write(text)
            except BrokenPipeError:
                self._give_up()
        return len(text)

    def flush(self) -> None:
        if not self._broken:
            try:
                self._file.flush()
            except BrokenPipeError:
                self._give_up()

    def _give_up(self) -> None:
        """Let the interpreter's own flush at the end go nowhere (docs.python.org, library/signal, SIGPIPE)."""
        self._broken = True
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, self._file.fileno())
        os.close(devnull)
