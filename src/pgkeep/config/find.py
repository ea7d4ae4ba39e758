"""Which configuration file counts."""

from __future__ import annotations

import os

from pgkeep.errors import Fault

FILE_NAME = "pgkeep.toml"


def candidates(cwd: str, home: str) -> tuple[str, ...]:
    """Where a file is looked for when none is named, nearest first."""
    folders = (cwd, os.path.join(home, ".config", "pgkeep"), "/etc/pgkeep")
    return tuple(os.path.join(folder, FILE_NAME) for folder in folders)


def place_for_new(home: str) -> str:
    """Where `init` writes a file that nobody named: found again from any working directory.

    /etc/pgkeep when this account may write there, else the account's own.
    """
    shared = "/etc/pgkeep"
    folder = shared if os.access(shared, os.W_OK | os.X_OK) else os.path.join(home, ".config", "pgkeep")
    return os.path.join(folder, FILE_NAME)


def find_or_none(explicit: str | None, from_environment: str | None, cwd: str, home: str) -> str | None:
    """The absolute path of the file that counts; None when none is named and none is in its usual place.

    `explicit` is --config, `from_environment` PGKEEP_CONFIG: a file that is named must exist, else `config-missing`.
    """
    for named, by in ((explicit, "--config"), (from_environment, "PGKEEP_CONFIG")):
        if named:
            path = os.path.join(cwd, named)
            if not os.path.isfile(path):
                raise _missing(f"{path}: no such file, although {by} names it")
            return path
    return next((path for path in candidates(cwd, home) if os.path.isfile(path)), None)


def find(explicit: str | None, from_environment: str | None, cwd: str, home: str) -> str:
    """As `find_or_none`, with `config-missing` for None."""
    path = find_or_none(explicit, from_environment, cwd, home)
    if path is None:
        raise _missing(f"no configuration found; looked for {', '.join(candidates(cwd, home))}")
    return path


def _missing(message: str) -> Fault:
    return Fault("config-missing", message, hint="make one with: pgkeep init, or name one with: --config FILE")
