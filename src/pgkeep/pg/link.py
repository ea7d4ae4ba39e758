"""Link: how PostgreSQL's client programs reach the server that a Session reached, and nobody reads the password.

1. What the Session resolved (connection string, PG* variables, service file) is pinned: the programs never resolve
   anything again, and of several hosts they get the one that answered.
2. Options go into the program's environment, which only its own account may read; never onto its command line, which
   everybody may.  Names that a program's libpq does not know are ignored there, so versions may differ.
3. A secret that has no variable (sslpassword) is in a service file that exists in memory alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import psycopg

from pgkeep.pg.session import Session

_LEFT_OUT: Final = frozenset(
    # the programs' own business, and what was used up when the Session resolved it
    {"dbname", "service", "client_encoding", "fallback_application_name", "application_name", "replication"}
)
_SERVICE: Final = "pgkeep"


@dataclass(frozen=True, slots=True)
class Link:
    """Connection options by name; `secrets` (with the password) are kept out of every text."""

    options: tuple[tuple[str, str], ...]
    secrets: tuple[tuple[str, str], ...] = field(repr=False)
    application_name: str = "pgkeep"

    @contextmanager
    def to(self, dbname: str) -> Iterator[Reach]:
        """For a program that works in database `dbname`."""
        variables = {
            option.keyword.decode(): option.envvar.decode()
            for option in psycopg.pq.Conninfo.get_defaults()
            if option.envvar is not None
        }
        env = {"PGAPPNAME": self.application_name}
        plain = {"dbname": dbname}
        hidden = {}
        for name, value in self.options:
            if name in variables:
                env[variables[name]] = value
            else:
                plain[name] = value
        for name, value in self.secrets:
            if name in variables:
                env[variables[name]] = value
            else:
                hidden[name] = value
        if not hidden:
            yield Reach(_conninfo(plain), env)
            return
        with _service_file(hidden) as descriptor:
            env["PGSERVICEFILE"] = f"/proc/self/fd/{descriptor}"
            yield Reach(_conninfo({"service": _SERVICE} | plain), env, (descriptor,))


@dataclass(frozen=True, slots=True)
class Reach:
    """What a program is started with: the value of --dbname (no secret in it), variables, inherited descriptors."""

    conninfo: str
    env: Mapping[str, str] = field(repr=False)
    descriptors: tuple[int, ...] = ()


def link_of(session: Session, application_name: str = "pgkeep") -> Link:
    """The link to the server that `session` is connected to."""
    options: dict[str, str] = {}
    secrets: dict[str, str] = {}
    for name, value, is_secret in session.parameters():
        if name not in _LEFT_OUT:
            (secrets if is_secret else options)[name] = value
    if "password" not in secrets and (password := session.password):
        secrets["password"] = password
    return Link(tuple(options.items()), tuple(secrets.items()), application_name)


def _conninfo(options: Mapping[str, str]) -> str:
    """As libpq reads it; a name may be any bytes, which psycopg's own make_conninfo refuses."""
    quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in options.items()}
    return " ".join(f"{name}='{value}'" for name, value in quoted.items())


@contextmanager
def _service_file(options: Mapping[str, str]) -> Iterator[int]:
    descriptor = os.memfd_create("pgkeep-service")
    try:
        text = f"[{_SERVICE}]\n" + "".join(f"{name}={value}\n" for name, value in options.items())
        os.write(descriptor, text.encode())
        yield descriptor
    finally:
        os.close(descriptor)
