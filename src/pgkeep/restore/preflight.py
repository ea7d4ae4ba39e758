"""What must be true of this machine before a restore writes anything: looked at here, judged by code without I/O.

1. The target is absent or an empty directory, and so is every tablespace's, unless the user said what becomes of the
   data directory there (`present`); none lies within another cluster.  What is no data directory is never emptied; the
   way out is a rename, because it may be the last copy of something.
2. No server runs on the target, and none links a directory that a tablespace would go to.
3. There is room on every file system that is written to.
4. PostgreSQL's programs are of the backup's major version: a physical copy starts with no other.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pgkeep.errors import Fault
from pgkeep.pg.account import Account, current_account, named_account, server_account
from pgkeep.pg.instance import is_server_running
from pgkeep.pg.programs import Programs, find_programs
from pgkeep.pg.running import RunningServers, running_servers, tablespaces_in_use
from pgkeep.restore.mark import is_unfinished
from pgkeep.restore.tablespaces import MappedTablespace
from pgkeep.values.quantity import show_size

_HARMLESS: Final = frozenset({"lost+found"})
_SPARE_SEGMENTS: Final = 8
"""WAL segments that recovery holds in pg_wal at a time, generously."""


def resolve_directory(text: str) -> str:
    """The absolute path, with links resolved, of the directory to restore into; `target-unsafe` for what cannot be."""
    path = os.path.realpath(text)
    if path == "/" or "\n" in path or "\0" in path:
        raise Fault(
            "target-unsafe", f"{text!r} cannot be a data directory", hint="name a new directory, or an empty one"
        )
    return path


def check_directory(directory: str) -> None:
    """`target-in-use`, `target-not-empty`, `target-unsafe` unless it is absent or an empty directory."""
    if not os.path.lexists(directory):
        return
    if not os.path.isdir(directory):
        raise Fault(
            "target-unsafe",
            f"{directory} is no directory",
            hint="name a new directory, or an empty one",
            path=directory,
        )
    check_stopped(directory)
    names = _names_in(directory)
    if not names:
        return
    shown = ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
    raise Fault(
        "target-not-empty",
        f"{directory} is not empty (it holds {shown}), expected a new or an empty directory",
        hint=_way_out(directory, names),
        path=directory,
    )


def check_stopped(directory: str) -> None:
    """`target-in-use` when a server runs on the directory."""
    if is_server_running(Path(directory)):
        raise Fault(
            "target-in-use",
            f"a PostgreSQL server is running on {directory}",
            hint="restore into another directory; to put this one back, stop the server first",
            path=directory,
        )


def _way_out(directory: str, names: Sequence[str]) -> str:
    aside = f"mv {shlex.quote(directory)} {shlex.quote(directory + '.before')}"
    if is_unfinished(directory):
        left = shlex.join(["rm", "-r", directory, *_linked(directory)])
        return f"an interrupted restore left this unfinished copy; go on with --delta, or remove it: {left}"
    if "PG_VERSION" in names:
        return f"it may be the last copy of your data: keep it with  {aside}"
    return f"name another directory, or empty this one; rename it with  {aside}"


def _linked(directory: str) -> list[str]:
    """The tablespaces of an unfinished copy: no other directory beside it is known to be without worth."""
    links = os.path.join(directory, "pg_tblspc")
    try:
        return sorted(os.readlink(link.path) for link in os.scandir(links) if link.is_symlink())
    except OSError:
        return []


def _names_in(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError as error:
        raise Fault(
            "io", f"{directory} cannot be read ({error.strerror})", hint="run pgkeep as root or as its owner"
        ) from error


def check_outside(paths: Iterable[str], servers: RunningServers | None = None) -> None:
    """`target-unsafe` for a path (absolute, links resolved) within a data directory, or a tablespace that is in use."""
    in_use = tablespaces_in_use(servers or running_servers())
    for path in paths:
        for above in _parents(path):
            if os.path.lexists(os.path.join(above, "PG_VERSION")):
                raise _within(path, f"the data directory {above}")
            if above in in_use:
                raise _within(path, f"{above}, a tablespace of the running server on {in_use[above]}")


def _parents(path: str) -> Iterator[str]:
    while path != (above := os.path.dirname(path)):
        yield above
        path = above


def _within(path: str, what: str) -> Fault:
    return Fault(
        "target-unsafe",
        f"{path} lies within {what}",
        hint="name a directory outside of every cluster's files",
        path=path,
    )


def check_tablespaces(
    spaces: Iterable[MappedTablespace],
    servers: RunningServers | None = None,
    *,
    owned: frozenset[str] = frozenset(),
) -> None:
    """Rule A for the targets: `tablespace-unsafe` or `target-not-empty` unless each is absent or empty, and unused.

    Those in `owned` may hold something: it goes the way of the data directory that is there (`present`).
    """
    running = servers or running_servers()
    in_use = tablespaces_in_use(running)
    for space in spaces:
        real = os.path.realpath(space.target)
        if owner := in_use.get(real):
            raise Fault(
                "tablespace-unsafe",
                f"tablespace {space.name} would go to {space.target}, which the running server on {owner} uses",
                hint="choose another directory with --tablespace-map OLD=NEW, or leave the mapping out",
                path=space.target,
            )
        if space.target == space.source and running.unseen and not is_own(space.target):
            raise Fault(
                "tablespace-unsafe",
                f"tablespace {space.name} would go back to {space.target}, and {running.unseen} server processes cannot"
                " be looked at: one of them may use it",
                hint="run pgkeep as root or as the server's account, or map it to another directory",
                path=space.target,
            )
        if space.target not in owned:
            _check_empty(space)


def is_own(path: str) -> bool:
    """True for what is this account's or not there: a server of another account, which is what may not be looked at,
    starts in no directory that is not its own (checkDataDir in miscinit.c), and makes no tablespace there (chmod(2)).
    """
    try:
        return os.stat(path).st_uid == os.geteuid()
    except FileNotFoundError:
        return True


def _check_empty(space: MappedTablespace) -> None:
    if not os.path.lexists(space.target):
        return
    if not os.path.isdir(space.target):
        raise Fault("target-unsafe", f"{space.target} is no directory", hint="choose another with --tablespace-map")
    names = [name for name in _names_in(space.target) if name not in _HARMLESS]
    if names:
        raise Fault(
            "target-not-empty",
            f"{space.target}, the target of tablespace {space.name}, is not empty (it holds {min(names)})",
            hint="choose another directory with --tablespace-map OLD=NEW, or rename this one",
            path=space.target,
        )


@dataclass(frozen=True, slots=True)
class Volume:
    """A file system that is written to: one path on it, bytes needed, bytes free for this account."""

    path: str
    needed: int
    free: int


def volumes(needs: Mapping[str, int]) -> tuple[Volume, ...]:
    """The file systems behind the paths (absolute, may not exist yet) and what each must take, in bytes."""
    found: dict[int, Volume] = {}
    for path, needed in needs.items():
        there = _existing(path)
        device = os.stat(there).st_dev
        before = found.get(device)
        total = needed + (before.needed if before else 0)
        found[device] = Volume(before.path if before else path, total, _free(there))
    return tuple(found.values())


def _existing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _free(path: str) -> int:
    stat = os.statvfs(path)
    return stat.f_frsize * (stat.f_bfree if os.geteuid() == 0 else stat.f_bavail)


def wal_space(segment_size: int) -> int:
    """Bytes that recovery needs in pg_wal besides the backup."""
    return _SPARE_SEGMENTS * segment_size


def check_space(found: Iterable[Volume]) -> None:
    """`target-space` for the first file system that is too small."""
    for volume in found:
        if volume.needed > volume.free:
            raise Fault(
                "target-space",
                f"{volume.path} needs {show_size(volume.needed)}, its file system has {show_size(volume.free)} free",
                hint="free space, name a directory on a larger file system, or move tablespaces with --tablespace-map",
                path=volume.path,
                needed=volume.needed,
                free=volume.free,
            )


def programs_for(major: int, bindir: Path | None = None) -> Programs:
    """PostgreSQL's programs of that major version; `postgres-version` when only others are there."""
    need = ("postgres", "pg_waldump")
    try:
        return find_programs(major, bindir=bindir, need=need)
    except Fault as fault:
        raise Fault(
            "postgres-version",
            f"the backup is of PostgreSQL {major}: {fault.message}",
            hint=f"install PostgreSQL {major} (a physical backup starts with its own major version only), or name where"
            " it is with --bindir; to move to another version, restore with this one, then dump and load",
        ) from None


def account_for(owner: str) -> Account:
    """Who runs the restored server: this account; for root the backup's owner if it exists here, else the usual one."""
    if os.geteuid() != 0:
        return current_account()
    try:
        account = named_account(owner)
    except Fault:
        return server_account()
    return account if account.uid != 0 else server_account()


def existing_paths(paths: Iterable[str]) -> frozenset[str]:
    """Those of the paths that exist on this host, whatever they are."""
    return frozenset(path for path in paths if path and os.path.lexists(path))


def library_version() -> str:
    """glibc's version, which libc collations depend on; '' with another library."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):
        return ""
    return version if name == "glibc" else ""


def missing_libraries(programs: Programs, preloaded: str) -> tuple[str, ...]:
    """Names of shared_preload_libraries that the installation lacks; none when its library directory is not found."""
    places = [programs.bindir.parent / part for part in ("lib", "lib/postgresql", "lib64", "lib64/postgresql")]
    places = [place for place in places if (place / "plpgsql.so").exists()]
    names = [name.strip().strip('"') for name in preloaded.split(",") if name.strip()]
    if not places:
        return ()
    return tuple(name for name in names if not _is_there(name, places))


def _is_there(name: str, places: Sequence[Path]) -> bool:
    plain = name.removeprefix("$libdir/")
    file = plain if plain.endswith(".so") else f"{plain}.so"
    return os.path.exists(file) if file.startswith("/") else any((place / file).exists() for place in places)
