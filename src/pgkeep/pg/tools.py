"""Which pg_dump, pg_restore, pg_dumpall and psql to use: all that are installed, and a choice with its reason.

1. A dump is taken by a pg_dump that is at least as new as the server (pg_dump refuses newer servers), and among those
   by the newest that compresses as is wanted: an old server's dump gains zstd by a new program.
2. An archive is read by a pg_restore that is at least as new as the pg_dump that wrote it, and preferably of the target
   server's own version: a newer one may say what an older server does not understand.
3. The directory that the configuration names comes before all others whenever its version fits.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from pgkeep.errors import Fault
from pgkeep.pg.programs import NEWEST_MAJOR, OLDEST_MAJOR, Programs, all_programs, inspect, run_program

DUMP_TOOLS: Final = ("pg_dump", "pg_dumpall", "pg_restore")
LOAD_TOOLS: Final = ("pg_restore", "psql")
COMPRESSIONS: Final = ("zstd", "lz4", "gzip")
"""What a pg_dump may have been built with, the best first."""

FIRST_WITH_METHODS: Final = 16
"""Older versions know a level for gzip alone; 14 takes any word for level 0 and compresses nothing."""

_FIRST_MINOR_WITH_RESTRICT: Final = {14: 19, 15: 14, 16: 10, 17: 6}
"""Of psql: the minor versions of August 2025 (CVE-2025-8714); all of 18 know it."""
_NO_SUPPORT = b"does not support compression"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Programs of one version from one directory, and why these."""

    programs: Programs
    reason: str

    def __str__(self) -> str:
        return f"PostgreSQL {self.programs.version} in {self.programs.bindir}"


def find_tools(need: Sequence[str], bindir: Path | None = None) -> list[Programs]:
    """Every installation that holds all of `need`: the one in `bindir` first, then the newest version first.

    Raises Fault 'postgres-program' when there is none, or when `bindir` does not hold them.
    """
    named = _named(need, bindir)
    try:
        others = [one for one in all_programs(need=need[:1]) if _is_complete(one, need)]
    except Fault:
        if not named:
            raise
        others = []
    found = [*named, *(one for one in others if not named or one.bindir != bindir)]
    if not found:
        raise Fault(
            "postgres-program",
            f"no directory holds all of {', '.join(need)} of PostgreSQL {OLDEST_MAJOR} to {NEWEST_MAJOR}",
            hint=f"apt-get install postgresql-client-{NEWEST_MAJOR}",
        )
    return found


def _is_complete(programs: Programs, need: Sequence[str]) -> bool:
    """Whether the rest is there too; asking every program of every directory for its version takes its time."""
    return all(os.access(programs.bindir / name, os.X_OK) for name in need)


def _named(need: Sequence[str], bindir: Path | None) -> list[Programs]:
    if bindir is None:
        return []
    programs = inspect(bindir, need)
    if programs is None:
        raise Fault(
            "postgres-program",
            f"{bindir} does not hold working programs {', '.join(need)} of one version",
            hint="correct bindir in the configuration, or leave it out: the usual places are searched then",
        )
    return [programs]


def choose_dump_tools(
    found: Sequence[Programs],
    server_major: int,
    *,
    asked: int | None = None,
    named: Path | None = None,
    compression: str | None = None,
) -> ToolChoice:
    """The programs for a dump of a server of `server_major` (rule 1).

    `asked` is the only major version that will do, `named` the configured directory, `compression` what is wanted
    (None: the best that there is).  Raises Fault 'postgres-version' when the only programs are older than the server,
    or not of the version asked for.
    """
    fitting = [one for one in found if one.major >= server_major and asked in {None, one.major}]
    if not fitting:
        raise _none_for_dump(found, server_major, asked)
    if asked is not None:
        return ToolChoice(fitting[0], f"version {asked} was asked for")
    if fitting[0].bindir == named:
        return ToolChoice(fitting[0], "its directory is named in the configuration")
    for method in [compression] if compression is not None else COMPRESSIONS:
        for one in fitting:
            if method in Compressions(one):
                return ToolChoice(one, _why(one, fitting, method, server_major))
    return ToolChoice(fitting[0], f"the newest here, for a server of version {server_major}")


def _why(chosen: Programs, fitting: Sequence[Programs], method: str, server_major: int) -> str:
    newest = max(one.major for one in fitting)
    if chosen.major == newest:
        return f"the newest here, for a server of version {server_major}"
    return f"the newest here that compresses with {method}, for a server of version {server_major}"


def _none_for_dump(found: Sequence[Programs], server_major: int, asked: int | None) -> Fault:
    there = ", ".join(f"{one.version} in {one.bindir}" for one in found)
    if asked is not None and asked < server_major:
        return Fault(
            "postgres-version",
            f"pg_dump {asked} was asked for, but the server is PostgreSQL {server_major}, and pg_dump refuses servers"
            " newer than itself",
            hint=f"ask for version {server_major} or newer, or for none",
        )
    wanted = f"version {asked}" if asked is not None else f"version {server_major} or newer"
    return Fault(
        "postgres-version",
        f"no pg_dump for this server: expected {wanted}, found {there}",
        hint=f"install it (Debian: apt-get install postgresql-client-{asked or server_major}), or set bindir",
    )


def choose_load_tools(
    found: Sequence[Programs], archive_major: int | None, server_major: int, *, named: Path | None = None
) -> ToolChoice:
    """The programs that read an archive written by version `archive_major` (None: plain SQL) into a server (rule 2).

    Raises Fault 'postgres-version' when all programs are older than the archive, or when no psql may be given a script.
    """
    least = archive_major or 0
    fitting = [one for one in found if one.major >= least]
    if archive_major is None:
        fitting = [one for one in found if knows_restrict(one)]
        if not fitting:
            raise restrict_fault(found[0])
    if not fitting:
        there = ", ".join(f"{one.version} in {one.bindir}" for one in found)
        raise Fault(
            "postgres-version",
            f"the archive was written by pg_dump {archive_major}, expected a pg_restore at least as new, found {there}",
            hint=f"install it (Debian: apt-get install postgresql-client-{archive_major}), or set bindir",
        )
    if fitting[0].bindir == named:
        return ToolChoice(fitting[0], "its directory is named in the configuration")
    same = [one for one in fitting if one.major == server_major]
    if same:
        return ToolChoice(same[0], "the target server's own version")
    newer = sorted((one for one in fitting if one.major > server_major), key=lambda one: one.major)
    if newer:
        return ToolChoice(newer[0], f"the oldest here that reads the archive, for a server of version {server_major}")
    return ToolChoice(fitting[0], f"the newest here; the server is of version {server_major}")


def knows_restrict(programs: Programs) -> bool:
    """Whether psql can be kept from a script's own commands (\\restrict): programs, files, other databases."""
    minor = programs.version.partition(".")[2]
    first = _FIRST_MINOR_WITH_RESTRICT.get(programs.major, 0)
    return programs.major > 17 or (minor.isdecimal() and first > 0 and int(minor) >= first)


def restrict_fault(programs: Programs) -> Fault:
    """'postgres-version': this psql would run whatever a script says."""
    known = ", ".join(f"{major}.{minor}" for major, minor in _FIRST_MINOR_WITH_RESTRICT.items())
    return Fault(
        "postgres-version",
        f"psql {programs.version} in {programs.bindir} does not know \\restrict, which keeps a script from running"
        f" programs and from other databases; expected {known}, 18 or a newer minor version of these",
        hint=f"update PostgreSQL's client programs (Debian: apt-get install postgresql-client-{programs.major}), or"
        " name a directory of newer ones with --bindir",
    )


@dataclass(frozen=True, slots=True)
class Compressions(Collection[str]):
    """What a pg_dump can compress with, of COMPRESSIONS; each is asked of the program when somebody wants to know."""

    programs: Programs

    def __contains__(self, method: object) -> bool:
        if self.programs.major < FIRST_WITH_METHODS:
            return method == "gzip"
        return method in COMPRESSIONS and _has(self.programs, str(method))

    def __iter__(self) -> Iterator[str]:
        return (method for method in COMPRESSIONS if method in self)

    def __len__(self) -> int:
        return sum(1 for method in COMPRESSIONS if method in self)


@cache
def _has(programs: Programs, method: str) -> bool:
    """Asked without a server.

    pg_dump checks its compression before it connects (pg_dump.c, main), so a connection that cannot exist is enough.
    """
    command = [
        programs.path("pg_dump"), "--format=custom", f"--compress={method}", "--file=/dev/null",
        "--dbname=host=/dev/null port=1 connect_timeout=2",
    ]  # fmt: skip
    return _NO_SUPPORT not in run_program(command, timeout=30).stderr
