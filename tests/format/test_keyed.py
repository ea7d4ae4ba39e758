"""Keyed hashes: one key a purpose, and lengths that are part of the format."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgkeep.format.keyed import HashKeys, stored_hash

KEYS = HashKeys(b"k" * 32)


@given(st.binary(max_size=100))
def test_purposes_do_not_share_hashes(data: bytes) -> None:
    hashes = [
        KEYS.frame(data), KEYS.extent_map(data), KEYS.file(data), KEYS.wal(data)[:16], stored_hash(data),
        HashKeys(b"l" * 32).frame(data),
    ]  # fmt: skip
    assert len(set(hashes)) == len(hashes)
    assert [len(h) for h in hashes] == [16] * 6
    assert len(KEYS.wal(data)) == 32


def test_pages_are_hashed_one_by_one() -> None:
    pages = b"a" * 8192 + b"b" * 8192
    both = KEYS.pages(memoryview(pages), 8192)
    assert both == KEYS.pages(memoryview(pages[:8192]), 8192) + KEYS.pages(memoryview(pages[8192:]), 8192)
    assert len(both) == 16


def test_a_frame_of_pages_is_named_by_its_pieces_and_its_pages() -> None:
    whole = KEYS.page_frame(b"pieces", b"hashes of")
    assert whole == KEYS.frame(b"pieceshashes of")
    assert whole not in (KEYS.page_frame(b"piece", b"hashes of"), KEYS.page_frame(b"pieces", b"hashes 0f"))


def test_the_hashes_of_format_1() -> None:
    """Written down, because a change would make every repository look damaged."""
    assert KEYS.frame(b"pgkeep").hex() == FRAME
    assert KEYS.pages(memoryview(b"pgkeep"), 8192).hex() == PAGE
    assert KEYS.wal(b"pgkeep").hex() == WAL
    assert KEYS.extent_map(b"pgkeep").hex() == MAP
    assert KEYS.file(b"pgkeep").hex() == FILE


FRAME = "779e1c4dc4bb174e93ae569027b21955"
PAGE = "daea3949954b91da"
WAL = "60b46da0ef5e30523bd3a5b4bf871395492b3b136c059c696b611b45863bbdb6"
MAP = "3c2ced718cd941ae6b32d422a9277c6f"
FILE = "a2ca0ac3f4cbc5c26256b2aeb1604219"
