"""Memory for packs under way: every byte in its order, and used again."""

from __future__ import annotations

import os

import pytest

from pgkeep.repo.packbuffer import SEGMENT, PackBuffer, Segments


@pytest.mark.parametrize(
    "sizes", [[], [0], [1], [SEGMENT], [SEGMENT - 1, 1], [SEGMENT - 1, 2], [3, 2 * SEGMENT, 5], [SEGMENT, SEGMENT, 7]]
)
def test_every_byte_in_its_order(sizes: list[int]) -> None:
    pieces = [os.urandom(size) for size in sizes]
    buffer = PackBuffer(Segments())
    for piece in pieces:
        buffer.append(piece)
    parts = buffer.parts()
    assert b"".join(parts) == b"".join(pieces)
    assert all(len(part) == SEGMENT for part in parts[:-1])
    buffer.release()
    assert buffer.parts() == []


def test_memory_that_is_given_back_is_used_again() -> None:
    segments = Segments()
    first, second = PackBuffer(segments), PackBuffer(segments)
    first.append(bytes(2 * SEGMENT))
    second.append(b"second")
    known = {id(part.obj) for part in first.parts()}
    first.release()
    third = PackBuffer(segments)
    third.append(os.urandom(SEGMENT + 1))
    assert {id(part.obj) for part in third.parts()} == known
    assert b"".join(second.parts()) == b"second"


def test_a_buffer_goes_on_after_its_release() -> None:
    buffer = PackBuffer(Segments())
    buffer.append(b"x" * 100)
    buffer.release()
    buffer.append(b"y")
    assert b"".join(buffer.parts()) == b"y"
