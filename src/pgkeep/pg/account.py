"""Accounts: under whose name PostgreSQL's programs run.

1. PostgreSQL refuses to run as root (src/backend/main/main.c, check_root).  Root therefore starts servers as
   `postgres` or, where that is missing, as `nobody`; everybody else starts them as themselves.
2. A child inherits the environment without PG*: a stray PGPORT or PGDATA must never steer a program to
   somebody's production server.  The environment is handed on here, never interpreted.
3. Reachability is tried, not computed: a path counts as executable for an account when the kernel ran it.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgkeep.errors import Fault

SERVER_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """A row of passwd: name, numeric ids, home directory."""

    name: str
    uid: int
    gid: int
    home: str

    @property
    def is_self(self) -> bool:
        return self.uid == os.geteuid()

    def groups(self) -> list[int]:
        return os.getgrouplist(self.name, self.gid)


def current_account() -> Account:
    """The account of this process.

    Raises Fault 'postgres-program' when it has no passwd entry: initdb and libpq need one.
    """
    try:
        return _account(pwd.getpwuid(os.geteuid()))
    except KeyError:
        raise Fault(
            "postgres-program",
            f"the account with uid {os.geteuid()} has no passwd entry, and PostgreSQL needs one",
            hint="run pgkeep under an account that `getent passwd` lists",
        ) from None


def named_account(name: str) -> Account:
    """The account called `name`; Fault 'postgres-program' when there is none."""
    try:
        return _account(pwd.getpwnam(name))
    except KeyError:
        raise Fault("postgres-program", f"there is no account named {name!r}") from None


def server_account() -> Account:
    """Who runs the servers that pgkeep starts: this account, or for root the first of SERVER_ACCOUNTS."""
    if os.geteuid() != 0:
        return current_account()
    for name in SERVER_ACCOUNTS:
        try:
            return _account(pwd.getpwnam(name))
        except KeyError:
            continue
    raise Fault(
        "postgres-program",
        "PostgreSQL refuses to run as root, and neither of the accounts postgres and nobody exists",
        hint="create one: useradd --system postgres",
    )


def owner_of(path: Path) -> Account:
    """The account that owns `path` (a data directory's server must run as it); Fault when it has no name."""
    uid = path.stat().st_uid
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError:
        raise Fault("postgres-program", f"{path} belongs to uid {uid}, which has no passwd entry") from None


def child_environment(account: Account, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without PG* (PGKEEP_* stays), with LC_ALL=C and the account's own HOME."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG") or name.startswith("PGKEEP_")}
    env["LC_ALL"] = "C"
    if not account.is_self:
        env.update(HOME=account.home, USER=account.name, LOGNAME=account.name)
    env.update(extra or {})
    return env


@dataclass(frozen=True, slots=True)
class Credentials:
    """The `user`, `group` and `extra_groups` arguments of subprocess.Popen."""

    user: int | None = None
    group: int | None = None
    extra_groups: list[int] | None = None


def credentials(account: Account) -> Credentials:
    """How Popen becomes `account`: nothing at all when it already is."""
    if account.is_self:
        return Credentials()
    return Credentials(account.uid, account.gid, account.groups())


def can_run(account: Account, command: Sequence[str], *, expect: str = "", timeout: float = 60.0) -> bool:
    """True when `command`, executed by `account` from '/', exits 0 and its output contains `expect`."""
    who = credentials(account)
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False, cwd="/",
            env=child_environment(account), user=who.user, group=who.group, extra_groups=who.extra_groups,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and expect in done.stdout.decode(errors="replace")


def can_enter(account: Account, directory: Path) -> bool:
    """True when `account` may traverse every directory down to `directory`."""
    return can_run(account, ["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)])


def give(account: Account, paths: Iterable[Path]) -> None:
    """Make `account` the owner of each path (as root; nothing to do otherwise)."""
    if account.is_self:
        return
    for path in paths:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def give_tree(account: Account, root: Path) -> None:
    """Make `account` the owner of `root` and of everything beneath it; symbolic links are not followed."""
    if account.is_self:
        return
    give(account, [root])
    for parent, directories, files in os.walk(root):
        give(account, (Path(parent, name) for name in (*directories, *files)))


def _account(row: pwd.struct_passwd) -> Account:
    return Account(row.pw_name, row.pw_uid, row.pw_gid, row.pw_dir)
