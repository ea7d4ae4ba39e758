"""How this very program is started again: by archive_command, by restore_command, by the demo."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import pgkeep


def own_command(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Absolute: PGKEEP_PROGRAM if set (a wrapper), the script `pgkeep` if this process is it, else python -m pgkeep."""
    if wrapper := environment.get("PGKEEP_PROGRAM"):
        return (wrapper,)
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) == "pgkeep" and os.access(script, os.X_OK):
        return (script,)
    return (sys.executable, "-P", "-m", "pgkeep")


def hook_command(environment: Mapping[str, str]) -> tuple[str, ...]:
    """As `own_command`, for what the server starts once a segment: without `site`, `runpy` and pip's script.

    Those three cost more than the whole call when the segment is archived already (docs/decisions/0008).
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
