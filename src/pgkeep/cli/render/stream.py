"""A text stream that outlives its reader: neither who stops listening nor a full disk may stop a backup."""

from __future__ import annotations

import os
from typing import TextIO


class Stream:
    """Just enough of a text file for rich and for us; once writing has failed, it does nothing.

    `failure` says why, when that was anything else than a reader who left.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._broken = False
        self.failure = ""

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
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        if not self._broken:
            try:
                self._file.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Let the interpreter's own flush at the end go nowhere (docs.python.org, library/signal, SIGPIPE)."""
        self._broken = True
        self.failure = "" if isinstance(error, BrokenPipeError) else error.strerror or str(error)
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, self._file.fileno())
        os.close(devnull)
