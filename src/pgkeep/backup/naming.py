"""The names that make a backup's files mean something later: read beside the copying, over connections of their own.

A backup without names is still a backup: what cannot be read is warned of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import Final, Self

from pgkeep.errors import Fault
from pgkeep.events import Announce, Warned
from pgkeep.format.manifest import Collation, Relation
from pgkeep.format.packed import PackedRows
from pgkeep.pg.inventory import Database
from pgkeep.pg.server import Server, connect

_ASK_EVERY: Final = 0.2
"""Seconds between two requests to cancel."""


class NameReading:
    """Reads in a thread from the block's beginning on; a block that is left by an exception does not wait for it."""

    def __init__(self, connection: str, announce: Announce) -> None:
        self._connection = connection
        self._announce = announce
        self._side = ThreadPoolExecutor(1)
        self._lock = Lock()
        self._server: Server | None = None
        self._given_up = False

    def __enter__(self) -> Self:
        self._names: Future[Names] = self._side.submit(self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Again and again: a request that comes between two statements cancels neither.
        while kind is not None and not wait([self._names], _ASK_EVERY).done:
            self._give_up()
        self._side.shutdown()

    def result(self) -> Names:
        return self._names.result()

    def _give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if self._server is not None:
                self._server.cancel_all()

    def _read(self) -> Names:
        try:
            with connect(self._connection) as server:
                with self._lock:
                    self._server = server
                    if self._given_up:
                        return Names([], [])
                return read_names(server, self._announce)
        except Fault as fault:
            if not self._given_up:
                text = f"the names of relations are not in the backup: {fault.message}"
                self._announce(Warned("names-unread", text))
            return Names([], [])


@dataclass(frozen=True, slots=True)
class Names:
    """Names that make the files mean something later."""

    relations: Iterable[Relation]
    """A million in large clusters."""
    collations: Sequence[Collation]


def read_names(server: Server, announce: Announce) -> Names:
    """Relation names and collation versions of every database that allows connections."""

    def unread(database: Database, fault: Fault) -> None:
        if fault.code == "interrupted":
            raise fault
        text = f"the names of relations in database {database.name} are not in the backup: {fault.message}"
        announce(Warned("names-unread", text))

    relations = (
        Relation(
            database=name.database,
            oid=name.oid,
            filenode=name.filenode,
            schema=_raw(name.schema),
            name=_raw(name.name),
            kind=name.kind,
            pages=max(name.pages, 0),
            rows=name.tuples,
            tablespace=name.tablespace,
        )
        for name in server.all_relation_names(unread)
    )
    return Names(PackedRows(Relation, relations), list(_collations(server)))


def _collations(server: Server) -> Iterator[Collation]:
    """The databases' own first ("" as name), then those that objects depend on."""
    for database in server.databases():
        if database.actual_collation_version:
            version = database.actual_collation_version
            yield Collation(database=_raw(database.name), name=b"", provider="", version=version)
        if not database.allow_connections:
            continue
        with suppress(Fault):  # a database that cannot be read was reported with its relation names
            for found in server.collations(database):
                name = _raw(f"{found.schema}.{found.name}")
                version = found.actual_version
                yield Collation(database=_raw(database.name), name=name, provider=found.provider, version=version)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
