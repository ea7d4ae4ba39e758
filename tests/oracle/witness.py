"""The oracle: what every table held at a known LSN, recorded independently of pgkeep.

At a moment DDL is gated and every table locked in SHARE mode, so that nothing changes.  A hash of every table, a
restore point and its LSN, and the xid and commit time of a marker row are recorded; then the locks are released.
Any recovery that ends at that moment, by whatever kind of target, must show the same hashes.  For moments between
records there is a journal, whose rows are compared with their commit timestamps.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg

from tests.clusters import Cluster

_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname)
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND n.nspname <> 'oracle'
 ORDER BY 1
"""
_HASH = """
SELECT count(*)::text || ':' || coalesce(md5(string_agg(h, '' ORDER BY h)), '')
  FROM (SELECT md5(t::text) AS h FROM {} AS t) AS x
"""


@dataclass(frozen=True)
class Record:
    """One recorded moment."""

    number: int
    hashes: dict[str, str]
    lsn: str
    name: str
    xid: int
    time: datetime
    """The marker's commit time, microseconds."""


def prepare(cluster: Cluster) -> None:
    """The oracle's own schema, which is not hashed."""
    cluster.sql("CREATE SCHEMA oracle")
    cluster.sql("CREATE TABLE oracle.gate ()")
    cluster.sql("CREATE TABLE oracle.marker (number int)")
    cluster.sql("CREATE TABLE oracle.journal (id bigserial PRIMARY KEY, worker int, what text)")
    cluster.sql("CREATE TABLE public.stock (id int PRIMARY KEY, amount int NOT NULL, note text)")
    cluster.sql("INSERT INTO public.stock SELECT g, 0, repeat(md5(g::text), 4) FROM generate_series(1, 5000) g")


def hashes(cluster: Cluster, dbname: str = "postgres") -> dict[str, str]:
    """Rows and content of every table, independent of their order."""
    with cluster.connect(dbname) as connection:
        return _hashes(connection)


def _hashes(connection: psycopg.Connection[tuple[object, ...]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for (table,) in connection.execute(_TABLES).fetchall():
        row = connection.execute(_HASH.format(table).encode()).fetchone()
        assert row is not None
        found[str(table)] = str(row[0])
    return found


def record(cluster: Cluster, number: int) -> Record:
    """See the module's docstring."""
    with cluster.connect() as holder, cluster.connect() as marker, holder.transaction():
        holder.execute("LOCK TABLE oracle.gate IN SHARE MODE")
        for (table,) in holder.execute(_TABLES).fetchall():
            holder.execute(f"LOCK TABLE {table} IN SHARE MODE".encode())
        before = _hashes(holder)
        name = f"record {number}"
        (lsn,) = _row(holder, "SELECT pg_create_restore_point(%s)::text", name)
        (xid,) = _row(
            marker, "INSERT INTO oracle.marker VALUES (%s) RETURNING pg_current_xact_id()::text::bigint", number
        )
        (moment,) = _row(marker, "SELECT pg_xact_commit_timestamp(%s::text::xid)", str(int(str(xid)) % (1 << 32)))
        assert isinstance(moment, datetime)
        assert _hashes(holder) == before
        # The next commit must not share the marker's microsecond.
        time.sleep(0.001)
    return Record(number, before, str(lsn), name, int(str(xid)), moment)


def _row(connection: psycopg.Connection[tuple[object, ...]], query: str, value: object) -> tuple[object, ...]:
    row = connection.execute(query.encode(), (value,)).fetchone()
    assert row is not None
    return row


def journal(cluster: Cluster) -> dict[int, datetime]:
    """Commit time of every journal row that is there."""
    rows = cluster.sql("SELECT id, pg_xact_commit_timestamp(xmin) FROM oracle.journal")
    return {int(key): moment for key, moment in rows}


class Workload:
    """Writers and DDL in threads, from a printed seed, until told to stop."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.seed = seed
        self.failure: BaseException | None = None
        self._stop = threading.Event()

    @contextmanager
    def running(self, writers: int = 2) -> Iterator[None]:
        threads = [threading.Thread(target=self._guard, args=(self._write, number)) for number in range(writers)]
        threads.append(threading.Thread(target=self._guard, args=(self._ddl, 99)))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(60)
        assert self.failure is None, f"the workload failed (seed {self.seed}): {self.failure!r}"

    def _guard(self, what: object, number: int) -> None:
        assert callable(what)
        try:
            with self.cluster.connect() as connection:
                what(connection, random.Random(self.seed * 100 + number), number)
        except BaseException as error:
            self.failure = error

    def _write(self, connection: psycopg.Connection[tuple[object, ...]], chance: random.Random, number: int) -> None:
        while not self._stop.is_set():
            with connection.transaction():
                for _ in range(chance.randint(1, 5)):
                    key = chance.randint(1, 5000)
                    connection.execute("UPDATE public.stock SET amount = amount + 1 WHERE id = %s", (key,))
                connection.execute("INSERT INTO oracle.journal (worker, what) VALUES (%s, 'update')", (number,))
                if chance.random() < 0.1:
                    raise psycopg.Rollback
            time.sleep(0.002)

    def _ddl(self, connection: psycopg.Connection[tuple[object, ...]], chance: random.Random, number: int) -> None:
        serial = 0
        while not self._stop.is_set():
            serial += 1
            try:
                self._change(connection, chance, serial)
            except psycopg.errors.DeadlockDetected:
                continue
            time.sleep(0.05)

    @staticmethod
    def _change(connection: psycopg.Connection[tuple[object, ...]], chance: random.Random, serial: int) -> None:
        old = chance.randint(max(1, serial - 20), max(1, serial - 1))
        changes = (
            f"CREATE TABLE IF NOT EXISTS public.t{serial} AS SELECT g AS id, md5(g::text) AS note"
            f" FROM generate_series(1, {chance.randint(1, 3000)}) g",
            f"CREATE TABLE IF NOT EXISTS public.t{serial} (id int) PARTITION BY RANGE (id)",
            f"DROP TABLE IF EXISTS public.t{old}",
            f"DO $$ BEGIN IF to_regclass('public.t{old}') IS NOT NULL THEN TRUNCATE public.t{old}; END IF; END $$",
            f"CREATE INDEX IF NOT EXISTS stock_amount_{serial % 3} ON public.stock (amount, id)",
            f"DROP INDEX IF EXISTS public.stock_amount_{serial % 3}",
            "DELETE FROM public.stock WHERE id % 97 = 3 AND amount > 50",
            "SELECT lo_from_bytea(0, decode(repeat('ab', 5000), 'hex'))",
        )
        with connection.transaction():
            connection.execute("LOCK TABLE oracle.gate IN ROW EXCLUSIVE MODE")
            connection.execute(chance.choice(changes).encode())
        if chance.random() < 0.05:
            with connection.transaction():
                connection.execute("LOCK TABLE oracle.gate IN ROW EXCLUSIVE MODE")
                connection.execute("CLUSTER public.stock USING stock_pkey")
