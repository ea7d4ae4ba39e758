"""The data set: pgbench's tables and 5 million orders, made once and kept as a stopped cluster.

pgbench alone is too regular: its filler columns are blanks.  The orders have random foreign keys, timestamps,
numerics, text of which half is random, and small jsonb.  All of it is drawn from PostgreSQL's own seeded hash
functions, so two builds hold the same rows in the same order (files differ in transaction ids and the like).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.bare import copied_files
from benchmarks.server import Server, Site, running

SEED = 20260507


@dataclass(frozen=True, slots=True)
class Scale:
    """pgbench's scale factor (100,000 accounts each) and the number of orders."""

    name: str
    pgbench: int
    orders: int


SCALES = {
    "large": Scale("large", 350, 17_500_000),
    "full": Scale("full", 100, 5_000_000),
    "small": Scale("small", 2, 100_000),
}

# hashint8extended(value, seed) is stable within a major version; & keeps it positive.
_ORDERS = """
create function draw(n bigint, salt bigint) returns bigint language sql immutable strict parallel safe
    return hashint8extended(n, {seed} + salt) & 9223372036854775807;
create table orders (
    id bigint not null,
    account_id int not null,
    teller_id int not null,
    placed_at timestamptz not null,
    amount numeric(12, 2) not null,
    tax numeric(12, 2) not null,
    note text not null,
    details jsonb not null
);
insert into orders
select n,
       1 + draw(n, 1) % ({pgbench} * 100000),
       1 + draw(n, 2) % ({pgbench} * 10),
       timestamptz '2024-01-01 00:00:00+00' + draw(n, 3) % 63072000 * interval '1 second',
       (draw(n, 4) % 1000000)::numeric / 100,
       (draw(n, 5) % 10000)::numeric / 100,
       md5(draw(n, 6)::text) || ' please leave the parcel with ' ||
           (array['the neighbour', 'the concierge', 'the shop next door', 'nobody'])[1 + draw(n, 7) % 4],
       jsonb_build_object('sku', draw(n, 8) % 50000, 'quantity', 1 + draw(n, 9) % 9,
                          'gift', draw(n, 10) % 5 = 0)
from generate_series(1, {orders}) as n;
alter table orders add primary key (id);
create index orders_account on orders (account_id);
create index orders_placed on orders (placed_at);
alter table orders add foreign key (account_id) references pgbench_accounts,
    add foreign key (teller_id) references pgbench_tellers;
"""
_DIGEST = """
select count(*), sum(hashtextextended(orders::text, 0)::numeric),
       (select count(*) || '/' || sum(abalance) from pgbench_accounts)
from orders
"""


@dataclass(frozen=True, slots=True)
class DataSet:
    """A stopped cluster: data directory, bytes without WAL, PostgreSQL's version, what its rows add up to."""

    data: str
    size: int
    postgres: str
    digest: str


def data_set(site: Site, scale: Scale) -> DataSet:
    """The kept cluster of this recipe, or a new one (a few minutes)."""
    version = site.run(site.program("postgres"), "--version")
    recipe = hashlib.sha256(f"{_ORDERS}{SEED}{scale}{version}".encode()).hexdigest()[:8]
    home = site.folder("data") / f"{scale.name}-{recipe}"
    record = home / "dataset.json"
    if record.exists():
        return DataSet(**json.loads(record.read_text()))
    shutil.rmtree(home, ignore_errors=True)
    site.folder("data", home.name)
    built = _build(site, scale, home / "pgdata")
    record.write_text(json.dumps(asdict(built), indent=1))
    return built


def digest(server: Server) -> str:
    """What must be equal on a restored server."""
    return server.sql(_DIGEST)


def tree_size(root: Path) -> int:
    """Bytes of the regular files below `root`."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def fill(site: Site, server: Server, pgbench: int, orders: int) -> None:
    """Make and fill the tables: pgbench's at that scale, and so many orders."""
    site.run(site.program("pgbench"), "-i", "-q", "-s", str(pgbench), server.conninfo)
    for statement in _ORDERS.format(seed=SEED, pgbench=pgbench, orders=orders).split(";\n"):
        if statement.strip():
            server.sql(statement)


def _build(site: Site, scale: Scale, data: Path) -> DataSet:
    Server(site, data, data).initdb()
    hurry = ("fsync=off", "wal_level=minimal", "max_wal_senders=0", "max_wal_size=256MB", "maintenance_work_mem=512MB")
    with running(site, data, *hurry) as server:
        fill(site, server, scale.pgbench, scale.orders)
        server.sql("vacuum (freeze, analyze)")
        sums = digest(server)
        version = server.sql("show server_version")
        server.sql("checkpoint")
    return DataSet(str(data), sum(size for _, size in copied_files(data)), version, sums)
