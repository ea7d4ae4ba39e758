"""WAL summaries: what the server itself says of them, files that are wrong, and what covers what."""

from __future__ import annotations

import random
import struct
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.clusters import Cluster

from pgkeep.errors import Fault
from pgkeep.pg import summaries
from pgkeep.pg.changes import NO_LIMIT, Changes, RelationKey
from pgkeep.pg.crc32c import crc32c
from pgkeep.pg.summaries import (
    Stretch,
    Summary,
    cover,
    decode_summary,
    list_summaries,
    parse_summary_name,
    read_changes,
)
from pgkeep.values.lsn import Lsn

CONTENTS = """
SELECT s.reltablespace::int8, s.reldatabase::int8, s.relfilenode::int8, s.relblocknumber, s.is_limit_block
  FROM pg_available_wal_summaries() AS a, pg_wal_summary_contents(a.tli, a.start_lsn, a.end_lsn) AS s
 WHERE s.relforknumber = 0
"""
KEY = RelationKey(1663, 5, 16400)


@pytest.mark.pg(">=17")
def test_the_files_say_what_the_server_says(cluster: Callable[..., Cluster]) -> None:
    server = cluster("summarized", summarize_wal="on", autovacuum="off", max_wal_size="4GB")
    server.sql("CREATE TABLE wide AS SELECT g, repeat('x', 1000) AS filler FROM generate_series(1, 60000) g")
    server.sql("CHECKPOINT")
    server.sql("UPDATE wide SET filler = 'y' WHERE g % 977 = 0")
    server.sql("CREATE TABLE gone AS SELECT g FROM generate_series(1, 9000) g")
    server.sql("DELETE FROM gone WHERE g > 50")
    server.sql("VACUUM gone")
    server.sql("TRUNCATE gone")
    server.sql("CREATE DATABASE other")
    server.sql("DROP DATABASE other")
    end = server.value("SELECT pg_current_wal_insert_lsn()")
    server.sql("CHECKPOINT")
    deadline = time.monotonic() + 60
    while server.value(f"SELECT coalesce(max(end_lsn), '0/0') < '{end}' FROM pg_available_wal_summaries()"):
        assert time.monotonic() < deadline, "the WAL is not summarized"
        time.sleep(0.1)
    blocks: defaultdict[RelationKey, set[int]] = defaultdict(set)
    limits: dict[RelationKey, int] = {}
    with server.connect() as connection:
        found = connection.execute(CONTENTS).fetchall()
    for space, database, number, block, is_limit in found:
        key = RelationKey(int(space), int(database), int(number))
        if is_limit:
            limits[key] = min(limits.get(key, NO_LIMIT), int(block))
        else:
            blocks[key].add(int(block))
    wal = server.datadir / "pg_wal"
    changes = read_changes(str(wal), list_summaries(str(wal)))
    named = {key for key in blocks.keys() | limits.keys() if key.number}
    assert set(changes.relations()) == named and len(named) > 20
    for key in named:
        assert changes.of_fork(key).blocks.tolist() == sorted(blocks[key]), key
        assert changes.of_fork(key).limit == limits.get(key, NO_LIMIT), key
    wiped = {key for key in limits if not key.number}
    assert {(key.tablespace, key.database) for key in wiped} == changes.databases != set()
    assert any(len(rows) > 4096 for rows in blocks.values()), "no chunk was a bitmap"


def _summary(*entries: tuple[RelationKey, int, int, list[list[int]]]) -> bytes:
    """(relation, fork, limit, chunks of offsets) as a file; a chunk of over 4,095 offsets is a bitmap."""
    body = struct.pack("<I", 0x652B137B)
    for key, fork, limit, chunks in entries:
        coded = [_bitmap(chunk) if len(chunk) > 4095 else np.array(chunk, "<u2") for chunk in chunks]
        body += struct.pack("<IIIiII", *key, fork, limit, len(chunks))
        body += struct.pack(f"<{len(coded)}H", *map(len, coded)) + b"".join(words.tobytes() for words in coded)
    body += bytes(24)
    return body + struct.pack("<I", crc32c(body))


def _bitmap(offsets: list[int]) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    bits = np.zeros(1 << 16, np.uint8)
    bits[offsets] = 1
    return np.packbits(bits, bitorder="little").view("<u2")


def test_chunks_of_both_forms() -> None:
    many = list(range(0, 60000, 7))
    data = _summary(
        (KEY, 0, 70000, [many, [], [9, 5]]), (KEY, 1, 3, [[1]]), (RelationKey(1663, 7, 0), 0, 0, []),
    )  # fmt: skip
    changes = Changes()
    decode_summary(data, "one", changes)
    assert changes.of(KEY).blocks.tolist() == [*many, 2 * 65536 + 5, 2 * 65536 + 9]
    assert changes.of(KEY).limit == 70000
    assert changes.of(RelationKey(1663, 7, 99)).limit == 0
    assert changes.of(RelationKey(1663, 8, 99)).limit == NO_LIMIT
    decode_summary(_summary((KEY, 0, NO_LIMIT, [[1, 7]])), "two", changes)
    assert changes.of(KEY).limit == 70000
    assert changes.of(KEY).blocks.tolist() == sorted({*many, 1, 2 * 65536 + 5, 2 * 65536 + 9})


@pytest.mark.parametrize("window", [1, 20, 700, 1 << 19])
def test_entries_of_every_form_one_after_the_other(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    """Whatever part of the file is looked at together."""
    monkeypatch.setattr(summaries, "_WINDOW", window)
    chance = random.Random(window)
    entries = []
    for number in range(1, 200):
        key = RelationKey(chance.choice([1663, 1664, 1 << 31]), chance.choice([5, 6]), number << chance.choice([0, 16]))
        chunks = [
            chance.sample(range(1 << 16), chance.choice([0, 1, 3])) for _ in range(chance.choice([0, 1, 1, 1, 2]))
        ]
        entries.append((key, chance.choice([0, 0, 1]), chance.choice([NO_LIMIT, 0, 70000]), chunks))
    entries[100] = (entries[100][0], 0, 9, [list(range(5000))])
    entries[150] = (RelationKey(1663, 7, 0), 0, 0, [])
    changes = Changes()
    decode_summary(_summary(*entries), "one", changes)
    named = {key: (limit, chunks) for key, fork, limit, chunks in entries if fork == 0 and key.number}
    assert set(changes.relations()) == set(named)
    for key, (limit, chunks) in named.items():
        blocks = sorted(block + (number << 16) for number, chunk in enumerate(chunks) for block in chunk)
        assert (changes.of(key).limit, changes.of(key).blocks.tolist()) == (limit, blocks)
    assert changes.databases == {(1663, 7)}


def test_no_flipped_byte_is_believed() -> None:
    data = _summary((KEY, 0, 70000, [[3, 4], [5]]))
    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        for wrong in (flipped, data[:at]):
            changes = Changes()
            with pytest.raises(Fault) as caught:
                decode_summary(wrong, "x", changes)
            assert caught.value.code == "summary-damaged"


def test_a_file_that_goes_on_is_not_believed() -> None:
    body = _summary((KEY, 0, 1, [[3]]))[:-4] + bytes(24)
    with pytest.raises(Fault, match="goes on"):
        decode_summary(body + struct.pack("<I", crc32c(body)), "x", Changes())


def _of(timeline: int, start: int, end: int) -> Summary:
    name = f"{timeline:08X}{start:016X}{end:016X}.summary"
    parsed = parse_summary_name(name)
    assert parsed == Summary(timeline, Lsn(start), Lsn(end), name)
    return parsed


def test_what_covers_and_what_lacks() -> None:
    known = [_of(1, 0, 100), _of(1, 100, 200), _of(1, 150, 300), _of(2, 300, 400), _of(1, 300, 350)]
    chosen, missing = cover(known, [Stretch(1, Lsn(50), Lsn(300)), Stretch(2, Lsn(300), Lsn(390))])
    assert missing is None
    assert chosen == [known[0], known[1], known[2], known[3]]
    assert cover(known, [Stretch(1, Lsn(50), Lsn(360))])[1] == Stretch(1, Lsn(350), Lsn(360))
    assert cover(known[1:], [Stretch(1, Lsn(50), Lsn(300))])[1] == Stretch(1, Lsn(50), Lsn(300))
    gap = [known[0], known[2]]
    assert cover(gap, [Stretch(1, Lsn(0), Lsn(300))])[1] == Stretch(1, Lsn(100), Lsn(300))
    assert cover(known, [Stretch(2, Lsn(200), Lsn(310))])[1] == Stretch(2, Lsn(200), Lsn(310))


def test_no_summaries_where_there_are_none(tmp_path: Path) -> None:
    assert list_summaries(str(tmp_path)) == []
    assert parse_summary_name("temp.summary") is None
