"""A storm of DDL and DML from a seed, one statement after the other, so that there are quiet moments to compare at."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.clusters import Cluster

TABLES = 10
_NAMES = [f"t{number}" for number in range(TABLES)]
_IN_TABLESPACES = ("pg_default", "fast", "slow")


class Storm:
    """Each `step` does one thing that always succeeds, or nothing; what it did is in `log`."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.chance = random.Random(seed)
        self.log: list[str] = []
        self._serial = 0

    def prepare(self, home: Path) -> None:
        """`home` is a directory that the server may write to."""
        for name in _IN_TABLESPACES[1:]:
            place = self.cluster.directory(name) if home == self.cluster.home else home / name
            self._do(f"CREATE TABLESPACE {name} LOCATION '{place}'")
        for name in _NAMES[:5]:
            self._create(name)
        self._do("CREATE TABLE parts (id int, n int, pad text) PARTITION BY HASH (id)")
        for number in range(3):
            self._do(f"CREATE TABLE part{number} PARTITION OF parts FOR VALUES WITH (MODULUS 3, REMAINDER {number})")
        self._do("CREATE SEQUENCE counter")
        self._do("CREATE DATABASE original")
        self._do(f"CREATE TABLE kept AS {self._rows(4000)}", "original")
        self._do("CREATE DATABASE twin TEMPLATE original")

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def step(self) -> None:
        self.chance.choice(self._deeds())()

    def _do(self, statement: str, dbname: str = "postgres") -> None:
        self.log.append(statement if dbname == "postgres" else f"[{dbname}] {statement}")
        self.cluster.sql(statement, dbname=dbname)

    def _rows(self, most: int) -> str:
        self._serial += 1
        count = self.chance.randint(1, most)
        return f"SELECT g AS id, {self._serial} AS n, repeat(md5(g::text), 3) AS pad FROM generate_series(1, {count}) g"

    def _tables(self, where: str = "true") -> list[str]:
        query = f"SELECT relname FROM pg_class WHERE relname = ANY (%s) AND relkind = 'r' AND {where} ORDER BY 1"
        return [name for (name,) in self.cluster.sql(query, (_NAMES,))]

    def _deeds(self) -> Sequence[Callable[[], None]]:
        changes = (self._insert, self._update, self._delete, self._update, self._insert, self._vacuum)
        rewrites = (self._truncate, self._full, self._cluster, self._reindex, self._move, self._log, self._retype)
        others = (self._make, self._drop, self._partition, self._object, self._sequence, self._catalog)
        return (*changes, *rewrites, *others, *[self._database] * 4, self._copy_freeze, self._checkpoint, self._abort)

    def _create(self, name: str) -> None:
        kind = self.chance.choice(["", "", "", "UNLOGGED "])
        space = self.chance.choice(_IN_TABLESPACES)
        self._do(f"CREATE {kind}TABLE {name} TABLESPACE {space} AS {self._rows(6000)}")
        for index in self.chance.sample(["btree (id)", "gist (point(id, n))", "brin (id)", "hash (n)"], 2):
            self._do(f"CREATE INDEX ON {name} USING {index}")
        self._do(f"CREATE INDEX {name}_order ON {name} (n, id)")

    def _any(self, where: str = "true") -> str | None:
        found = self._tables(where)
        return self.chance.choice(found) if found else None

    def _each(self, statement: str, where: str = "true") -> None:
        """With one table in the place of {}; nothing when there is none."""
        name = self._any(where)
        if name is not None:
            self._do(statement.format(name))

    def _make(self) -> None:
        name = self.chance.choice(_NAMES)
        if name not in self._tables():
            self._create(name)

    def _drop(self) -> None:
        self._each("DROP TABLE {}")

    def _insert(self) -> None:
        self._each(f"INSERT INTO {{}} {self._rows(3000)}")

    def _update(self) -> None:
        part = self.chance.choice([2, 7, 50, 1000])
        self._each(f"UPDATE {{0}} SET n = n + 1 WHERE id % {part} = {self.chance.randrange(part)}")

    def _delete(self) -> None:
        self._each(f"DELETE FROM {{}} WHERE id > {self.chance.randint(1, 5000)}")

    def _vacuum(self) -> None:
        how = self.chance.choice(["", " (FREEZE)", " (ANALYZE)", " (INDEX_CLEANUP off)"])
        self._each(f"VACUUM{how} {{}}") if self.chance.random() < 0.8 else self._do(f"VACUUM{how}")

    def _truncate(self) -> None:
        again = f"; INSERT INTO {{0}} {self._rows(3000)}" if self.chance.random() < 0.5 else ""
        self._each(f"BEGIN; TRUNCATE {{0}}{again}; COMMIT")

    def _full(self) -> None:
        self._each("VACUUM FULL {}")

    def _cluster(self) -> None:
        self._each("CLUSTER {0} USING {0}_order")

    def _reindex(self) -> None:
        self._each(self.chance.choice(["REINDEX TABLE {}", "REINDEX TABLE CONCURRENTLY {}"]))

    def _move(self) -> None:
        space = self.chance.choice(_IN_TABLESPACES)
        self._each(self.chance.choice([f"ALTER TABLE {{}} SET TABLESPACE {space}",
                                       f"ALTER INDEX {{}}_order SET TABLESPACE {space}"]))  # fmt: skip

    def _log(self) -> None:
        self._each("ALTER TABLE {} SET LOGGED", "relpersistence = 'u'")
        if self.chance.random() < 0.5:
            self._each("ALTER TABLE {} SET UNLOGGED", "relpersistence = 'p'")

    def _retype(self) -> None:
        self._each(f"ALTER TABLE {{}} ALTER n TYPE {self.chance.choice(['int', 'bigint'])}")

    def _partition(self) -> None:
        number = self.chance.randrange(3)
        part = f"part{number}"
        anew = f"CREATE TABLE {part} PARTITION OF parts FOR VALUES WITH (MODULUS 3, REMAINDER {number})"
        changes = (
            f"INSERT INTO parts {self._rows(2000)}",
            f"TRUNCATE {part}",
            f"VACUUM (FREEZE) {part}",
            f"ALTER TABLE parts DETACH PARTITION {part}; DROP TABLE {part}; {anew}",
        )
        self._do(self.chance.choice(changes))

    def _object(self) -> None:
        if self.chance.random() < 0.6:
            self._do(f"SELECT lo_from_bytea(0, decode(repeat('ab', {self.chance.randint(1, 20000)}), 'hex'))")
        else:
            self._do("SELECT lo_unlink(oid) FROM (SELECT oid FROM pg_largeobject_metadata ORDER BY oid LIMIT 1) AS x")

    def _sequence(self) -> None:
        changes = ("SELECT nextval('counter')", "SELECT setval('counter', 7)", "ALTER SEQUENCE counter RESTART")
        self._do(self.chance.choice(changes))

    def _catalog(self) -> None:
        name = self.chance.choice(["pg_class", "pg_attribute", "pg_database", "pg_statistic", "pg_depend"])
        self._do(self.chance.choice([f"VACUUM FULL {name}", f"REINDEX TABLE {name}", f"VACUUM (FREEZE) {name}"]))

    def _copy_freeze(self) -> None:
        name = self.chance.choice(_NAMES)
        if name in self._tables():
            return
        self.log.append(f"COPY FREEZE into {name}")
        with self.cluster.connect() as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {name} (id int, n int, pad text)".encode())
            with cursor.copy(f"COPY {name} FROM STDIN (FREEZE)".encode()) as copy:
                for number in range(self.chance.randint(1, 3000)):
                    copy.write_row((number, 0, "frozen" * 10))
        self._do(f"CREATE INDEX {name}_order ON {name} (n, id)")

    def _checkpoint(self) -> None:
        self._do("CHECKPOINT")

    def _abort(self) -> None:
        self._each(f"BEGIN; UPDATE {{0}} SET n = -1; SAVEPOINT a; INSERT INTO {{0}} {self._rows(500)}; ROLLBACK")

    def _database(self) -> None:
        """The twin changes, moves, or is made anew, from 15 on with the OID that it had."""
        match self.chance.randrange(6):
            case 0:
                self._do(f"UPDATE kept SET n = n + 1 WHERE id % {self.chance.randint(2, 500)} = 0", "twin")
            case 1:
                self._do(f"UPDATE kept SET n = n + 1 WHERE id % {self.chance.randint(2, 500)} = 0", "original")
            case 2:
                self._do(f"ALTER DATABASE twin SET TABLESPACE {self.chance.choice(_IN_TABLESPACES)}")
            case _:
                self._anew()

    def _anew(self) -> None:
        oid = self.cluster.value("SELECT oid FROM pg_database WHERE datname = 'twin'")
        self._do("DROP DATABASE twin")
        if self.cluster.major < 15:
            self._do("CREATE DATABASE twin TEMPLATE original")
            return
        strategy = self.chance.choice(["file_copy", "wal_log"])
        self._do(f"CREATE DATABASE twin OID = {oid} TEMPLATE original STRATEGY {strategy}")


def shown(storm: Storm, rounds: Sequence[Any]) -> str:
    """The end of what was done, for a failure."""
    return "\n".join((*map(str, rounds[-6:]), *storm.log[-25:]))
