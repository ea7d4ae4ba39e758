"""The argument lists of pg_dump and pg_dumpall, and what their messages mean."""

from __future__ import annotations

from typing import Final

from pgkeep.events import Announce, Progress, Warned
from pgkeep.logical.plan import DumpPlan, compress_option
from pgkeep.pg.link import Reach

ARCHIVE: Final = "dump.pgdump"
"""The one file of custom format."""
SCRIPT: Final = "dump.sql"
"""The one file of plain format."""
GLOBALS: Final = "globals.sql"
DATABASE: Final = "database.sql"
"""Beside plain format: CREATE DATABASE with its settings, which archives hold themselves."""
_WORK: Final = "dumping contents of table "


def dump_command(plan: DumpPlan, reach: Reach, *, file: str | None, sync: bool) -> list[str]:
    """pg_dump of one database into `file` (a directory in directory format), None means stdout.

    Without `sync`, whoever stores what it wrote answers for its durability.
    """
    command = [plan.tools.programs.path("pg_dump"), f"--dbname={reach.conninfo}", f"--format={plan.format}"]
    command += content_options(plan)
    if plan.format == "directory":
        command.append(f"--jobs={plan.jobs}")
    if plan.request.lock_timeout is not None:
        command.append(f"--lock-wait-timeout={max(1, round(plan.request.lock_timeout.total_seconds() * 1000))}")
    if file is not None:
        command.append(f"--file={file}")
    return [*command, *_QUIET_WAYS, *([] if sync else ["--no-sync"])]


_QUIET_WAYS: Final = ("--verbose", "--no-password")
# --verbose: its messages are the progress.


def content_options(plan: DumpPlan) -> list[str]:
    """Those options that decide what is in the dump, and in what form."""
    request = plan.request
    options = [*request.chosen.options(), compress_option(plan.compression, plan.tools.programs.major)]
    if request.chosen.schemas or request.chosen.tables:
        options.append("--strict-names")  # a pattern that finds nothing is an error, not an empty dump
    if request.inserts:
        options.append("--inserts")
    return options


def globals_command(plan: DumpPlan, reach: Reach) -> list[str]:
    """pg_dumpall of roles and tablespaces onto stdout."""
    # -l, because --dbname would ignore the database's name, and a database called postgres may not be there.
    command = [plan.tools.programs.path("pg_dumpall"), "--globals-only", f"--database={reach.conninfo}"]
    return [*command, "--no-password", *([] if plan.with_passwords else ["--no-role-passwords"])]


def properties_command(plan: DumpPlan, reach: Reach) -> list[str]:
    """pg_dump of little more than the database's own entry, as an archive on stdout."""
    command = [plan.tools.programs.path("pg_dump"), f"--dbname={reach.conninfo}", "--format=custom"]
    if not plan.request.chosen.acl:
        command.append("--no-acl")
    return [*command, "--section=pre-data", "--exclude-schema=*", compress_option("none", plan.tools.programs.major),
            "--no-password"]  # fmt: skip


class Listener:
    """Reads the messages of pg_dump: warnings are handed on, tables are counted."""

    def __init__(self, announce: Announce, tables: int) -> None:
        self._announce = announce
        self._tables = tables
        self._begun = 0
        self._bytes = 0

    def __call__(self, line: str) -> None:
        """A line of its stderr."""
        if _WORK in line:
            self._begun += 1
            self.progress()
        elif ": warning: " in line:
            self._announce(Warned("pg-dump", line.partition(": warning: ")[2]))

    def progress(self, taken: int = 0) -> None:
        """So many bytes were taken from pg_dump; announce how far it is: a table counts when it is begun."""
        self._bytes += taken
        self._announce(Progress(min(self._begun, self._tables), self._tables, self._bytes, "objects"))
