"""What a server lacks before it archives its WAL: the exact SQL, and what each statement needs to take effect.

Pure: facts in, statements out.  Nothing here runs them: changing a server's settings is its owner's decision
(`init --apply`).  What a statement has set already, and only a restart brings into force, is not asked for again.
Sources: manual, "Continuous Archiving and Point-in-Time Recovery"; contexts of the settings in guc_tables.c.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pgkeep.pg.facts import ServerFacts
from pgkeep.values.quantity import show_size

Effect = Literal["now", "reload", "restart"]
NEED_A_RESTART: Final = ("wal_level", "archive_mode")
QUIET_SERVER_TIMEOUT: Final = 60
"""Seconds: the archive_timeout that is proposed where there is none."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement to be run by a superuser, why, and when it takes effect."""

    sql: str
    why: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class ArchiveSetup:
    """Everything that is missing; `warnings` are what the statements would end or cannot mend."""

    statements: tuple[Statement, ...]
    warnings: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    """Settings that have their right value already, from the next restart on."""
    advice: tuple[Statement, ...] = ()
    """What the archive works without, but a person should decide on."""

    @property
    def is_complete(self) -> bool:
        return not self.statements and not self.pending

    @property
    def needs_restart(self) -> bool:
        return bool(self.pending) or any(statement.effect == "restart" for statement in self.statements)


def plan_setup(
    facts: ServerFacts, archive_command: str, grants: Sequence[str] = (), pending: Collection[str] = ()
) -> ArchiveSetup:
    """What `facts` lacks for `archive_command` (as the server is to run it, % doubled, with %p).

    `grants` are the statements that give the role its missing rights (pg.rights); `pending` the settings whose new
    value waits for a restart.
    """
    statements: list[Statement] = []
    warnings: list[str] = []
    waiting: list[str] = []
    if facts.wal_level == "minimal" and "wal_level" in pending:
        waiting.append("wal_level")
    elif facts.wal_level == "minimal":
        statements.append(_set("wal_level", "replica", "recovery needs more WAL than 'minimal' writes", "restart"))
    if facts.archive_mode == "off" and "archive_mode" in pending:
        waiting.append("archive_mode")
    elif facts.archive_mode == "off":
        statements.append(_set("archive_mode", "on", "WAL is archived as it is written", "restart"))
    if facts.archive_library:
        why = "while a library is set, PostgreSQL refuses or ignores archive_command"
        statements.append(Statement("ALTER SYSTEM SET archive_library = '';", why, "reload"))
        warnings.append(f"archive_library {facts.archive_library!r} archives now; it would end")
    if facts.archive_command != archive_command:
        statements.append(_set("archive_command", archive_command, "this is how WAL reaches the repository", "reload"))
        if facts.archive_command not in ("", "(disabled)"):
            warnings.append(f"archive_command is now {facts.archive_command!r}; that archive would end")
    if not facts.full_page_writes:
        statements.append(_set("full_page_writes", "on", "a page may be torn while it is copied", "reload"))
    statements += [Statement(sql, f"the role {facts.role} needs it for backups", "now") for sql in grants]
    advice = (_timeout(facts.wal_segment_size),) if facts.archive_timeout == 0 else ()
    return ArchiveSetup(tuple(statements), tuple(warnings), tuple(waiting), advice)


def _timeout(segment_size: int) -> Statement:
    why = (
        f"archive_timeout is off: what a quiet server writes is not archived until {show_size(segment_size)} of it have"
        f" come together. With {QUIET_SERVER_TIMEOUT} s, a lost disk costs about a minute of work; the price is one"
        " segment a minute while anything is written, some kB to some hundred kB in the repository"
    )
    return _set("archive_timeout", f"{QUIET_SERVER_TIMEOUT}s", why, "reload")


def _set(name: str, value: str, why: str, effect: Effect) -> Statement:
    quoted = value.replace("'", "''")
    return Statement(f"ALTER SYSTEM SET {name} = '{quoted}';", why, effect)
