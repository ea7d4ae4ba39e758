"""How a WAL file arrives in a data directory: whole and durable under its name, or not at all.

PostgreSQL ends restore_command with SIGTERM when it shuts down, so an unfinished file may stay behind.  Its name says
which process wrote it, and the next one removes what the dead have left.
"""

from __future__ import annotations

import os
from contextlib import suppress

from pgkeep.errors import Fault
from pgkeep.store import files


def write_durably(destination: str, content: bytes, zeros: int = 0) -> None:
    """Write `content` and that many zero bytes to `destination`, replacing what was there.  Fault 'io'."""
    folder, name = os.path.split(destination)
    folder = folder or "."
    prefix = f"{name}.pgkeep-"
    try:
        _remove_leftovers(folder, prefix)
        temporary = f"{folder}/{prefix}{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            files.write_all(descriptor, [content, bytes(zeros)])
            os.fsync(descriptor)
            os.rename(temporary, destination)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        files.sync_folder(folder)
    except OSError as error:
        raise Fault(
            "io",
            f"{destination} could not be written: {error.strerror}",
            hint="restore_command runs in the data directory, and %p is relative to it",
            path=destination,
        ) from error


def _remove_leftovers(folder: str, prefix: str) -> None:
    for name in os.listdir(folder):
        writer = name.removeprefix(prefix)
        if writer != name and writer.isdecimal() and not is_running(int(writer)):
            with suppress(FileNotFoundError):
                os.unlink(f"{folder}/{name}")


def is_running(pid: int) -> bool:
    """True unless it is certain that no such process runs here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
