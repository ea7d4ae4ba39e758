"""Pieces of frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.errors import Damaged
from pgkeep.format.frame import Piece, decode_pieces, encode_pieces, split_frame
from pgkeep.format.limits import MAX_FRAME_DATA, MAX_PATH, MAX_PIECES_TABLE

paths = st.sampled_from([b"base/5/16384", b"base/5/16385", b"\xff\xfe", b"p" * MAX_PATH]) | st.binary(max_size=40)
pieces = st.builds(Piece, paths, st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1))


@given(st.lists(pieces, max_size=12), st.binary(max_size=100))
def test_pieces_and_data_come_back(wanted: list[Piece], data: bytes) -> None:
    table, rest = split_frame(encode_pieces(wanted) + data, "x")
    assert (decode_pieces(table, "x"), bytes(rest)) == (wanted, data)


def test_a_repeated_path_is_written_once() -> None:
    first = encode_pieces([Piece(b"base/5/16384", 0, 1)])
    assert len(encode_pieces([Piece(b"base/5/16384", 0, 1), Piece(b"base/5/16384", 7, 1)])) == len(first) + 14


@given(st.binary(max_size=200))
def test_anything_else_is_damage(raw: bytes) -> None:
    try:
        decode_pieces(split_frame(raw, "x")[0], "x")
    except Damaged as damaged:
        assert damaged.object == "x"


@pytest.mark.parametrize(
    "raw",
    [
        b"\0\0\0",
        (MAX_PIECES_TABLE + 1).to_bytes(4, "little") + bytes(MAX_PIECES_TABLE + 1),
        bytes(4 + MAX_FRAME_DATA + 1),
        b"\x05\0\0\0four",
    ],
)
def test_impossible_lengths_are_damage(raw: bytes) -> None:
    with pytest.raises(Damaged):
        split_frame(raw, "x")


def test_truncated_tables_are_damage() -> None:
    table, _ = split_frame(encode_pieces([Piece(b"base/1", 3, 4), Piece(b"base/2", 1, 1)]), "x")
    whole = {0, 14 + 6, 2 * (14 + 6)}
    for length in range(len(table)):
        if length not in whole:
            with pytest.raises(Damaged):
                decode_pieces(table[:length], "x")
