"""Small dumps in repositories, for the tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from pgkeep.clock import Clock
from pgkeep.format.dump import DumpedDatabase
from pgkeep.repo.dumpwriter import DumpFacts, DumpWriter
from pgkeep.repo.repository import Cluster, Entropy
from pgkeep.values.ids import DumpId
from tests.format.samples import SYSTEM_ID, StepClock

FACTS = DumpFacts(
    name="shop", started="2026-05-07T11:29:00+00:00", stopped="2026-05-07T11:30:00+00:00", system_id=SYSTEM_ID,
    server_version=170011, format="directory", compression="zstd:3", tool="pg_dump (PostgreSQL) 18.1",
    tool_version=180001, databases=[DumpedDatabase(name=b"shop", prefix=b"", size=123_456, encoding="UTF8")],
    options=["--schema=public"], label="before the release", whole=False,
)  # fmt: skip
MEMBERS: Mapping[bytes, bytes] = {
    b"globals.sql": b"CREATE ROLE app;\n" * 50,
    b"toc.dat": bytes(range(256)) * 40,
    b"4001.dat.zst": b"row\n" * 100_000,
    b"4002.dat.zst": b"",
    b"blobs_5/blob_16385.dat": b"\x00\xff" * 3,
}


def add_dump(
    cluster: Cluster, name: str = "shop", members: Mapping[bytes, bytes] = MEMBERS, clock: Clock | None = None,
    started: str = FACTS.started, draw: Entropy = os.urandom,
) -> DumpId:  # fmt: skip
    """A dump of these members."""
    with DumpWriter(cluster, clock or StepClock(), entropy=draw) as writer:
        for member, content in members.items():
            with writer.member(member) as file:
                file.write(content)
        writer.commit(replace(FACTS, name=name, started=started))
        return writer.id
