"""One SQL connection: opened, asked, cancelled, closed; psycopg's errors end here.

1. A Session is autocommit: no transaction stays open between two statements, so a backup that runs for hours
   holds back no VACUUM.
2. What the role or the database may have set is overruled: no timeout ends a long checkpoint, and search_path is
   pg_catalog alone, so that nobody's function in `public` runs with a backup role's rights.
3. Text arrives as the server's own bytes (client_encoding SQL_ASCII converts nothing) and becomes str by
   surrogateescape: paths and labels survive byte for byte, as `os.fsdecode` would give them.  A caller that
   reads names asks for UTF-8 instead (`read_utf8`).
4. Errors: 'postgres-unreachable' (never connected), 'postgres-lost' (was connected), 'postgres-rights'
   (SQLSTATE 42501), 'interrupted' (57014, cancelled), 'postgres-settings' (whatever else the server refused).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, cast

import psycopg
from psycopg import errors
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from pgkeep.errors import Fault

Row = tuple[Any, ...]

# A peer that vanished is noticed after idle + interval * count = 2 minutes.
_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "6",
}
_OVERRULED = {
    "search_path": "pg_catalog",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "DateStyle": "ISO, YMD",
    "TimeZone": "UTC",
    "client_min_messages": "warning",
}
_TEXT_TYPES = (0, "text", "name", "varchar", "bpchar", '"char"', "pg_lsn")
_OF_THE_CHOICE = {"hostaddr", "password", "target_session_attrs", "load_balance_hosts"}  # among several hosts
_CONVERTS_TO_NOTHING = {"SQL_ASCII", "MULE_INTERNAL"}
_LOST = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.IdleSessionTimeout)


class _Bytes(Loader):
    """Any text, never failing: UTF-8 with surrogateescape."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode("utf-8", "surrogateescape")


class Session:
    """One connection; use as a context manager, or `close` it."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection

    @classmethod
    def open(cls, conninfo: str, application_name: str, dbname: str | None = None) -> Self:
        """Connect; what `conninfo` leaves open comes from libpq's own defaults (PG* variables, service file).

        Raises Fault 'postgres-unreachable', or 'usage' for a connection string that libpq cannot read.
        """
        options = _connection_options(conninfo, application_name, dbname)
        try:
            connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None, **options)
        except (psycopg.Error, UnicodeError) as error:
            raise _unreachable(error, options.get("dbname")) from error
        for name in _TEXT_TYPES:
            connection.adapters.register_loader(name, _Bytes)
        session = cls(connection)
        try:
            session._overrule()
        except BaseException:
            session.close()
            raise
        return session

    def _overrule(self) -> None:
        """Settings that this version knows; set one by one because a server refuses an unknown name."""
        self.rows(
            "SELECT set_config(wanted.name, wanted.value, false)"
            " FROM unnest(%s::text[], %s::text[]) AS wanted(name, value)"
            " JOIN pg_catalog.pg_settings AS known ON lower(known.name) = lower(wanted.name)",
            (list(_OVERRULED), list(_OVERRULED.values())),
        )

    def read_utf8(self) -> None:
        """From now on text is UTF-8, whatever the database's encoding; where there is no conversion, raw bytes."""
        encoding = self.value("SHOW server_encoding")
        if encoding not in _CONVERTS_TO_NOTHING:
            self.rows("SELECT set_config('client_encoding', 'UTF8', false)")

    def rows(self, query: str, params: Sequence[Any] | None = None) -> list[Row]:
        """Run one statement; all its rows."""
        with _mapped(self._connection):
            cursor = self._connection.execute(query.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def row(self, query: str, params: Sequence[Any] | None = None) -> Row:
        """The first row."""
        return self.rows(query, params)[0]

    def value(self, query: str, params: Sequence[Any] | None = None) -> Any:
        """The first column of the first row."""
        return self.row(query, params)[0]

    def stream(self, query: str, params: Sequence[Any] | None = None) -> Iterator[Row]:
        """The rows one at a time, as the server sends them: memory stays bounded."""
        with _mapped(self._connection), self._connection.cursor() as cursor:
            yield from cursor.stream(query.encode(), params)

    @property
    def version_num(self) -> int:
        """170011 for 17.11."""
        return self._connection.info.server_version

    @property
    def backend_pid(self) -> int:
        return self._connection.info.backend_pid

    @property
    def dbname(self) -> str:
        return self._connection.info.dbname

    def parameters(self) -> list[tuple[str, str, bool]]:
        """(name, value, secret) of the connection options in use that are not libpq's built-in defaults.

        Resolved: from the connection string, the environment and the service file; of several hosts the one that
        answered.  The password is not among them.
        """
        connection = self._connection.pgconn
        used = {"host": connection.host, "port": connection.port, "user": connection.user}
        if connection.hostaddr and any(option.keyword == b"hostaddr" and option.val for option in connection.info):
            used["hostaddr"] = connection.hostaddr
        found = [(name, _decoded(value), False) for name, value in used.items() if value]
        for option in connection.info:
            name = option.keyword.decode()
            if option.val is None or option.val == option.compiled or name in used or name in _OF_THE_CHOICE:
                continue
            found.append((name, _decoded(option.val), option.dispchar in {b"*", b"D"}))
        return found

    @property
    def password(self) -> str:
        """What the server was given, from wherever libpq had it; '' when it had none."""
        return _decoded(self._connection.pgconn.password)

    @property
    def is_open(self) -> bool:
        """False once the connection is known to be gone."""
        return not self._connection.closed and not self._connection.broken

    def cancel(self) -> None:
        """Cancel the running statement, from any thread; it ends there with Fault 'interrupted'."""
        try:
            self._connection.cancel_safe(timeout=10)
        except psycopg.Error as error:
            raise Fault("postgres-lost", f"cannot reach the server to cancel a statement: {_text(error)}") from error

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _connection_options(conninfo: str, application_name: str, dbname: str | None) -> dict[str, Any]:
    """Keywords that beat `conninfo`: ours where neither it nor libpq's environment says otherwise."""
    try:
        given = psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.Error as error:
        raise Fault(
            "usage",
            f"not a connection string: {_text(error)}",
            hint='expected keywords such as "host=/run/postgresql user=pgkeep", or a postgresql:// address',
        ) from error
    surroundings = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults() if option.val}
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in given}
    if "connect_timeout" in surroundings:
        defaults.pop("connect_timeout", None)
    options: dict[str, Any] = {**defaults, "application_name": application_name, "client_encoding": "SQL_ASCII"}
    if dbname is not None:
        options["dbname"] = dbname
    elif "dbname" not in given and "service" not in given and not surroundings & {"dbname", "service"}:
        options["dbname"] = "postgres"  # rather than a database named like the role
    return options


@contextmanager
def _mapped(connection: psycopg.Connection[Row]) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise _fault(error, lost=connection.closed or connection.broken) from error


def _fault(error: psycopg.Error, *, lost: bool) -> Fault:
    text = _text(error)
    if lost or isinstance(error, _LOST):
        return Fault(
            "postgres-lost",
            f"the connection to the server was lost: {text}",
            hint="look into the server's log for a restart, a crash or a terminated session",
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return Fault("postgres-rights", f"the role lacks a right: {text}", sqlstate=error.sqlstate)
    if isinstance(error, errors.QueryCanceled):
        return Fault("interrupted", f"the statement was cancelled: {text}")
    return Fault("postgres-settings", f"the server refused: {text}", sqlstate=error.sqlstate)


def _unreachable(error: Exception, dbname: str | None) -> Fault:
    where = f" (database {dbname})" if dbname else ""
    return Fault(
        "postgres-unreachable",
        f"cannot connect to PostgreSQL{where}: {_text(error)}",
        hint="check that the server runs, and the host, port, user and password of the connection",
    )


def _text(error: Exception) -> str:
    """The error in one line; a PostgreSQL detail or hint is kept."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return "; ".join(lines) or type(error).__name__


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def as_text(value: Any) -> str:
    """A column that is text in PostgreSQL, '' for NULL."""
    return "" if value is None else cast(str, value)
