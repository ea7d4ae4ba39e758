"""Keep what is there under another name, tablespaces too, so that it could be started again."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pgkeep.restore.tree import io_fault
from pgkeep.store.files import sync_folder


def move_aside(moved: Sequence[tuple[str, str]]) -> None:
    """Rename each (from, to), durably; the first is the data directory, the others places that its links name.

    Dying in between leaves every file under its old or its new name.  Fault `io`.
    """
    for path, to in moved:
        try:
            os.rename(path, to)
            sync_folder(os.path.dirname(to))
            if path != moved[0][0]:
                _lead_to(os.path.join(moved[0][1], "pg_tblspc"), path, to)
        except OSError as error:
            raise io_fault(error, path) from error


def _lead_to(links: str, old: str, new: str) -> None:
    """Let the links in the kept pg_tblspc that lead to `old` lead to `new`."""
    for name in os.listdir(links):
        link = os.path.join(links, name)
        # What the link names has been renamed: only its text tells.
        if os.path.islink(link) and os.path.realpath(link) == old:
            temporary = f"{link}.pgkeep"
            os.symlink(new, temporary)
            status = os.lstat(link)
            os.chown(temporary, status.st_uid, status.st_gid, follow_symlinks=False)
            os.rename(temporary, link)
    sync_folder(links)
