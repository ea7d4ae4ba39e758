"""WAL objects: a name has one content for ever, and a claim one generation after the other."""

from __future__ import annotations

from dataclasses import replace as replace_value

import pytest
from msgspec.structs import replace

from pgkeep.errors import Damaged, Fault
from pgkeep.format.header import ObjectType
from pgkeep.format.limits import FRAME_DATA
from pgkeep.repo.walarchive import archive_of
from pgkeep.store.memory import MemoryStore
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment
from tests.format.samples import SEGMENT_SIZE, SYSTEM_ID, StepClock
from tests.repo.made import CLAIM, HISTORY, SEGMENT, WAL, Made, make
from tests.store.faulty import FaultyStore

ADDRESS = 0x3000000
NEXT = "000000020000000000000031"


@pytest.fixture
def made() -> Made:
    return make(MemoryStore())


def test_content_comes_back(made: Made) -> None:
    assert made.archive.segment(Segment(2, 0x30)) == WAL
    assert made.archive.history(2) == HISTORY
    assert archive_of(made.repository, SYSTEM_ID) == made.archive


def test_the_same_again_is_done_and_something_else_is_refused(made: Made) -> None:
    put = made.archive.put
    assert put(SEGMENT, WAL, ADDRESS, StepClock()) is False
    assert put(SEGMENT, WAL, ADDRESS, StepClock(), level=19) is False
    for content, address in ((WAL[:-1] + b"x", ADDRESS), (WAL, ADDRESS + SEGMENT_SIZE), (WAL[:-1], ADDRESS)):
        with pytest.raises(Fault) as caught:
            put(SEGMENT, content, address, StepClock())
        assert caught.value.code == "wal-refused"
    assert made.archive.segment(Segment(2, 0x30)) == WAL
    assert put(NEXT, WAL, ADDRESS + SEGMENT_SIZE, StepClock()) is True


def test_the_header_says_whose_wal_it_is(made: Made) -> None:
    identity = made.archive.head(made.archive.key(SEGMENT), ObjectType.WAL_SEGMENT)
    assert identity is not None
    assert (identity.system_id, identity.page_address, identity.segment_size, identity.timeline, identity.length) == (
        SYSTEM_ID, ADDRESS, SEGMENT_SIZE, 2, SEGMENT_SIZE,
    )  # fmt: skip
    assert made.archive.head(made.archive.key(NEXT), ObjectType.WAL_SEGMENT) is None
    with pytest.raises(Damaged):
        replace_value(made.archive, segment_size=2 * SEGMENT_SIZE).read(
            made.archive.key(SEGMENT), ObjectType.WAL_SEGMENT
        )


def test_partials_lie_beside_each_other_under_their_flush_positions(made: Made) -> None:
    start = Segment(2, 0x31).start(SEGMENT_SIZE)
    for length in (8192, 24):
        content = WAL[:length]
        assert made.archive.put(NEXT + ".partial", content, start, StepClock(), flush=Lsn(start + length))
    partials = made.archive.partials_of(Segment(2, 0x31))
    assert [partial.flush - start for partial in partials] == [8192, 24]
    assert [made.archive.partial(partial) for partial in partials] == [WAL[:8192], WAL[:24]]
    assert set(made.archive.listing().partials) == set(partials)
    with pytest.raises(ValueError, match="flush"):
        made.archive.put(NEXT + ".partial", b"x", start, StepClock())


def test_a_listing_passes_by_what_is_not_wal(made: Made) -> None:
    folder = made.archive.key(SEGMENT).rsplit("/", 1)[0]
    for name in ("notes", "0000000200000000FFFFFFFF", NEXT + ".partial.xyz", NEXT + ".partial.0000000000000001"):
        made.store.put(f"{folder}/{name}", [b""])
    listing = made.archive.listing()
    assert (listing.segments, listing.partials, listing.timelines_with_history) == ({2: [0x30]}, (), (2,))


def test_claims_have_generations(made: Made) -> None:
    archive = made.archive
    assert archive.claim(1) == (-1, None)
    assert archive.claim(2) == (0, CLAIM)
    second = replace(CLAIM, token=b"u" * 16)
    assert archive.put_claim(2, 0, second, StepClock()) is False
    assert archive.put_claim(2, 1, second, StepClock()) is True
    assert archive.put_claim(2, 1, CLAIM, StepClock()) is False
    assert archive.claim(2) == (1, second)


def test_what_no_reader_would_accept_is_not_written(made: Made) -> None:
    with pytest.raises(ValueError, match="no reader"):
        made.archive.put("00000003.history", bytes((16 << 20) + 1), 0, StepClock())
    assert 3 not in made.archive.listing().timelines_with_history


def test_a_beginning_costs_no_whole_object(made: Made) -> None:
    size = 1 << 20
    content = b"".join(bytes([number]) * 4096 for number in range(256))
    segment = Segment(3, 7)
    made.archive.put(segment.name(size), content, segment.start(size), StepClock())
    for length in (1, 8192, FRAME_DATA, FRAME_DATA + 1, size):
        found = made.archive.beginning(segment, length)
        assert content.startswith(found)
        assert length <= len(found) < length + FRAME_DATA
    key = made.archive.key(segment.name(size))
    stored = made.store.get(key)
    made.store.delete(key)
    made.store.put(key, [stored[:600], bytes([stored[600] ^ 1]), stored[601:]])
    with pytest.raises(Damaged):
        made.archive.beginning(segment, 1)


def test_segments_from_a_number_on(made: Made) -> None:
    for number in (5, 4095, 4096, 4099, 9000):  # 1 MiB segments: 4096 to a log file's folder
        segment = Segment(5, number)
        made.archive.put(segment.name(SEGMENT_SIZE), b"wal", segment.start(SEGMENT_SIZE), StepClock())
    assert [*made.archive.numbers_from(5, 0)] == [5, 4095, 4096, 4099, 9000]
    assert [*made.archive.numbers_from(5, 4096)] == [4096, 4099, 9000]
    assert [*made.archive.numbers_from(5, 9001)] == []
    assert [*made.archive.numbers_from(6, 0)] == []
    assert 5 in made.archive.timelines()


def test_archived_already_is_said_only_after_the_store_has_refused(made: Made) -> None:
    """An object may be seen before it is durable; `object-exists` is the store's word that it is (store/port.py)."""
    store = FaultyStore(made.store)
    cluster = replace_value(made.cluster, repository=replace_value(made.repository, store=store))
    archive = replace_value(made.archive, cluster=cluster)
    assert not archive.put(SEGMENT, WAL, 0x3000000, StepClock())
    assert store.count("put") == 1
