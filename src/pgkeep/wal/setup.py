"""What a server lacks before it archives its WAL: the exact SQL, and what each statement needs to take effect.

Pure: facts in, statements out.  Nothing here runs them: changing a server's settings is its owner's decision.
Sources: manual, "Continuous Archiving and Point-in-Time Recovery"; contexts of the settings in guc_tables.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pgkeep.pg.facts import ServerFacts

Effect = Literal["now", "reload", "restart"]


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

    @property
    def is_complete(self) -> bool:
        return not self.statements

    @property
    def needs_restart(self) -> bool:
        return any(statement.effect == "restart" for statement in self.statements)


def plan_setup(facts: ServerFacts, archive_command: str, grants: Sequence[str] = ()) -> ArchiveSetup:
    """What `facts` lacks for `archive_command` (as the server is to run it, % doubled, with %p).

    `grants` are the statements that give the role its missing rights (pg.rights).
    """
    statements: list[Statement] = []
    warnings: list[str] = []
    if facts.wal_level == "minimal":
        statements.append(_set("wal_level", "replica", "recovery needs more WAL than 'minimal' writes", "restart"))
    if facts.archive_mode == "off":
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
    return ArchiveSetup(tuple(statements), tuple(warnings))


def _set(name: str, value: str, why: str, effect: Effect) -> Statement:
    quoted = value.replace("'", "''")
    return Statement(f"ALTER SYSTEM SET {name} = '{quoted}';", why, effect)
