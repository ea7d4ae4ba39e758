"""How this very program is started again: by archive_command and by restore_command."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import pgkeep


def hook_command(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What the server starts once a segment: PGKEEP_PROGRAM if set (a wrapper), else this package's own file.

    Without `site`, `runpy` and pip's script, which cost more than all the rest of a short call (docs/decisions/0008).
    """
    if wrapper := environment.get("PGKEEP_PROGRAM"):
        return (wrapper,)
    return (sys.executable, "-SP", os.path.join(_folder(), "__main__.py"))


def archive_script(environment: Mapping[str, str]) -> str:
    """What archive_command's shell reads before it runs the `hook_command` (wal/archived.sh).

    '' before a wrapper, whose words are not those of the process that leaves the markers.
    """
    return "" if environment.get("PGKEEP_PROGRAM") else os.path.join(_folder(), "wal", "archived.sh")


def _folder() -> str:
    return os.path.dirname(os.path.abspath(pgkeep.__file__))
