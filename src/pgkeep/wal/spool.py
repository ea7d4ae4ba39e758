"""The spool: full segments that were fetched ahead, in a directory of their own inside pg_wal.

1. It lies in pg_wal, so that handing a file over is a rename(2), and no backup tool copies it.
2. Its name carries the id of one restore, and only that restore's restore_command names it: what a copied, rolled-back
   or reused directory brings along is served to nobody, and removed by the next `prepare`.
3. A file has its WAL name only when it is verified and durable.  Names that begin with a dot are the spool's own.
4. The holder of the lock alone adds files.  The server takes them away meanwhile, by mv.
5. `wal get` imports this file before it knows whether there is work: nothing slow at the top.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import Final

WAL_DIRECTORY: Final = "pg_wal"
_LOCK: Final = ".lock"
_ASKED: Final = ".asked"
_COMING: Final = ".coming."
_PATIENCE: Final = 5.0
"""Seconds to wait for a segment that is being fetched; then `wal get` asks the repository itself."""
_STEP: Final = 0.002
_LOCK_ATTEMPTS: Final = 50


class Spool:
    """The spool in directory `path`; methods raise OSError as it comes, where they do not say otherwise."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")

    def take(self, name: str, destination: str, patience: float = _PATIENCE) -> bool:
        """Move the file to `destination`, waiting while it is being fetched; False when it is not to be had."""
        deadline = time.monotonic() + patience
        while True:
            is_coming = self._is_coming(name)
            try:
                os.rename(f"{self.path}/{name}", destination)
            except OSError:
                if not is_coming or time.monotonic() > deadline:
                    return False
                time.sleep(_STEP)
            else:
                return True

    def _is_coming(self, name: str) -> bool:
        try:
            return os.path.exists(f"{self.path}/{_COMING}{name}") and self.is_being_filled()
        except OSError:
            return False

    # -- the server's side

    def belongs_to(self, data_directory: str) -> bool:
        """False in a copy of the directory that the spool was made for: its restore_command names the original's."""
        try:
            return os.path.samefile(os.path.dirname(self.path), os.path.join(data_directory, WAL_DIRECTORY))
        except OSError:
            return False

    def prepare(self) -> None:
        """Make the directory, and remove the spools of other restores."""
        folder, own = os.path.split(self.path)
        if not os.path.isdir(self.path):
            os.makedirs(self.path, 0o700, exist_ok=True)
            from pgkeep.values.recovery import SPOOL_PREFIX

            for name in os.listdir(folder):
                if name.startswith(SPOOL_PREFIX) and name != own:
                    Spool(f"{folder}/{name}").remove()

    def note(self, name: str) -> None:
        """Tell whoever fills the spool which segment the server has just been given from the repository."""
        with open(f"{self.path}/{_ASKED}", "w", encoding="ascii") as file:
            file.write(f"{name} {time.monotonic_ns()}\n")

    def is_being_filled(self) -> bool:
        """True while somebody holds the lock."""
        descriptor = self._lock(fcntl.LOCK_SH)
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    # -- the side of who fills it

    def lock(self) -> int | None:
        """A descriptor that holds the lock until it is closed; None when somebody else has it."""
        for _ in range(_LOCK_ATTEMPTS):  # is_being_filled holds it for a moment, too
            descriptor = self._lock(fcntl.LOCK_EX)
            if descriptor is not None:
                return descriptor
            time.sleep(_STEP)
        return None

    def _lock(self, how: int) -> int | None:
        descriptor = os.open(f"{self.path}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def asked(self) -> tuple[str, str] | None:
        """(name, mark) of the last `note`; another mark means another note.  None when there is none, or half of it."""
        try:
            with open(f"{self.path}/{_ASKED}", encoding="ascii", errors="replace") as file:
                text = file.read(128)
        except FileNotFoundError:
            return None
        words = text.split()
        return (words[0], words[1]) if text.endswith("\n") and len(words) == 2 else None

    def names(self) -> list[str]:
        """The files that may be taken."""
        return [name for name in os.listdir(self.path) if not name.startswith(".")]

    def announce(self, name: str) -> None:
        """Say that the file is being fetched, so that nobody else does it too."""
        os.close(os.open(f"{self.path}/{_COMING}{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))

    def add(self, name: str, content: bytes) -> None:
        """Make the verified content of an announced file durable, and give it its name."""
        from pgkeep.store import files

        coming = f"{self.path}/{_COMING}{name}"
        descriptor = os.open(coming, os.O_WRONLY | os.O_CLOEXEC)
        try:
            files.write_all(descriptor, [content])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(coming, f"{self.path}/{name}")

    def withdraw(self, name: str) -> None:
        """The announced file does not come."""
        _unlink(f"{self.path}/{_COMING}{name}")

    def discard(self, name: str) -> None:
        """Remove a file; one that was taken meanwhile is fine."""
        _unlink(f"{self.path}/{name}")

    def withdraw_all(self) -> None:
        """No announced file comes; who still fetches one cannot add it any more."""
        for name in os.listdir(self.path):
            if name.startswith(_COMING):
                _unlink(f"{self.path}/{name}")

    def empty(self) -> None:
        """Remove all files, announced ones included; for the holder of the lock."""
        self.withdraw_all()
        for name in self.names():
            self.discard(name)

    def remove(self) -> None:
        """Remove the directory with everything in it; one that is gone, or filled again meanwhile, is fine."""
        try:
            for name in os.listdir(self.path):
                _unlink(f"{self.path}/{name}")
            os.rmdir(self.path)
        except OSError:
            return


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
