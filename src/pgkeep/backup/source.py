"""The running cluster on this host: is this data directory the server's, and what belongs to it besides files."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pgkeep.errors import Fault
from pgkeep.events import Announce, Warned
from pgkeep.format.manifest import Attachment
from pgkeep.pg.completeness import DatabaseHome, check_complete
from pgkeep.pg.controlfile import CONTROL_FILE, read_control
from pgkeep.pg.datadir import DataDirectory, scan
from pgkeep.pg.facts import ServerFacts
from pgkeep.pg.instance import read_postmaster
from pgkeep.pg.inventory import Database, Tablespace
from pgkeep.pg.page import BLCKSZ
from pgkeep.pg.server import Server

MAX_ATTACHMENT: Final = 1 << 20
"""Bytes of a configuration file that is attached; a larger one is no configuration."""
_LOOKS: Final = 4
"""Scans of the data directory, of which all but the last may meet a DROP."""
STARTING_TIME: Final = 600
"""Seconds between postmaster.pid's start time and pg_postmaster_start_time() at most (crash recovery lies between)."""


def check_local(facts: ServerFacts) -> None:
    """The data directory is here, readable, and the one of the server that we are connected to."""
    directory = facts.data_directory
    if _is_missing(os.path.join(directory, CONTROL_FILE)):
        raise _not_this_server(directory, "it is not there")
    control = read_control(os.path.join(directory, CONTROL_FILE))
    running = read_postmaster(Path(directory))
    if control.system_identifier != facts.system_identifier:
        raise _not_this_server(directory, f"it belongs to system identifier {control.system_identifier}")
    if running is None:
        raise _not_this_server(directory, "no server runs on it here")
    age = facts.postmaster_started.timestamp() - running.started
    if not -2 <= age <= STARTING_TIME:
        raise _not_this_server(directory, f"the server on it here was started {abs(age):.0f} s apart")
    if facts.block_size != BLCKSZ:
        raise Fault(
            "postgres-version",
            f"the server was built with a block size of {facts.block_size}, pgkeep knows {BLCKSZ}",
        )


def _is_missing(path: str) -> bool:
    """True only when the path is known not to be there; what may not be looked at is for its reader to say."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _not_this_server(directory: str, found: str) -> Fault:
    return Fault(
        "datadir-mismatch",
        f"{directory} on this host is not the data directory of the server that answers: {found}",
        hint="run pgkeep on the database's own host, and check connection in pgkeep.toml",
    )


def check_settings(facts: ServerFacts) -> None:
    """What makes a backup impossible is said before it begins, with the statement that mends it."""
    if facts.in_recovery:
        raise Fault(
            "postgres-settings",
            "the server is a standby, and this pgkeep backs up primaries",
            hint="name the primary in connection of pgkeep.toml",
        )
    if facts.wal_level == "minimal":
        raise Fault(
            "postgres-settings",
            "wal_level is minimal, expected replica or logical",
            hint="ALTER SYSTEM SET wal_level = 'replica'; then restart the server",
        )
    if facts.archive_mode == "off":
        raise Fault(
            "postgres-settings",
            "archive_mode is off: without its WAL no backup can be restored",
            hint="pgkeep init prints the statements that are missing; archive_mode needs a restart",
        )
    if facts.archive_command in ("", "(disabled)") and not facts.archive_library:
        raise Fault(
            "postgres-settings",
            "archive_command is empty: no WAL would reach the repository",
            hint="pgkeep init prints the statement that sets it",
        )
    if not facts.full_page_writes:
        raise Fault(
            "postgres-settings",
            "full_page_writes is off: pages that are written while they are read could not be repaired",
            hint="ALTER SYSTEM SET full_page_writes = 'on'; SELECT pg_reload_conf();",
        )


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the catalogs say at one moment."""

    databases: tuple[Database, ...]
    tablespaces: tuple[Tablespace, ...]

    @classmethod
    def of(cls, server: Server) -> Inventory:
        return cls(server.databases(), server.tablespaces())

    def homes_still_in(self, later: Inventory) -> list[DatabaseHome]:
        """Databases that were there before and after, where they were: their files must be in the backup.

        One that is being dropped has lost them, or is about to.
        """
        after = {(each.oid, each.tablespace) for each in later.databases if not each.is_invalid}
        homes = (DatabaseHome(database.oid, database.tablespace) for database in self.databases)
        return [home for home in homes if home in after]

    def tablespaces_still_in(self, later: Inventory) -> list[int]:
        """Likewise."""
        after = {tablespace.oid for tablespace in later.tablespaces}
        return [tablespace.oid for tablespace in self.tablespaces if tablespace.oid in after]


def scan_complete(server: Server, path: str) -> tuple[DataDirectory, Inventory]:
    """Scan until nothing is missing; what is in the middle of its DROP may need a second look.

    A tablespace that is dropped while it is listed looks like one that went away: the next scan has none of it.
    """
    before = Inventory.of(server)
    fault: Fault | None = None
    for _ in range(_LOOKS):
        try:
            directory = scan(path)
        except Fault as met:
            if met.code not in ("datadir-invalid", "io"):
                raise
            fault, before = met, Inventory.of(server)
            continue
        after = Inventory.of(server)
        fault = check_complete(directory, before.homes_still_in(after), before.tablespaces_still_in(after))
        if fault is None:
            return directory, before
        before = after
    assert fault is not None
    raise fault


def check_mounted(directory: DataDirectory, tablespaces: Iterable[int]) -> None:
    """After copying: files that vanished were dropped only if their tablespace's directory is still there."""
    for oid in tablespaces:
        path = os.path.join(directory.path, "pg_tblspc", str(oid), directory.version_directory)
        if not os.path.isdir(path):
            raise Fault(
                "datadir-invalid",
                f"{path} went away while it was copied, although its tablespace is still there",
                hint="check that its file system is mounted, and start the backup again",
            )


def attachments(facts: ServerFacts, announce: Announce) -> list[Attachment]:
    """Configuration files outside the data directory (Debian keeps them in /etc), with their content."""
    roles = {facts.config_file: "config", facts.hba_file: "hba", facts.ident_file: "ident"}
    found: list[Attachment] = []
    for path in facts.external_config_files:
        try:
            with open(path, "rb") as file:
                content = file.read(MAX_ATTACHMENT + 1)
                mode = os.fstat(file.fileno()).st_mode & 0o7777
        except OSError as error:
            text = f"{path} is not in the backup: {error.strerror}"
            announce(Warned("attachment-unreadable", text, "keep a copy of it elsewhere, or make it readable"))
            continue
        if len(content) > MAX_ATTACHMENT:
            announce(Warned("attachment-too-large", f"{path} is not in the backup: it is over 1 MB"))
            continue
        role = roles.get(path, "include")
        found.append(Attachment(path=os.fsencode(path), role=role, mode=mode, content=content))
    return found


def owner_name(path: str) -> str:
    """The account that owns the data directory; its number where it has no name."""
    uid = os.stat(path).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
