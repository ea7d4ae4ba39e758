"""Headers: every field comes back, every flipped bit is noticed, newer versions are told from damage."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.errors import Damaged, Fault
from pgkeep.format.header import (
    Header,
    ObjectType,
    WalIdentity,
    decode_header,
    expect_header,
    pack_specific,
    page_size_of,
)
from pgkeep.format.limits import HEADER_LENGTH
from pgkeep.values.ids import ObjectId

u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)
ids = st.binary(min_size=16, max_size=16).map(ObjectId)


def fixed(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


headers = st.builds(
    Header, st.sampled_from(ObjectType), ids, ids, u64, fixed(64), epoch=u32, sealed_key=fixed(80),
    commitment=fixed(32), salt=fixed(32), metadata_commitment=fixed(32), writer_key=fixed(16), signature=fixed(64),
)  # fmt: skip
HEADER = Header(ObjectType.PACK, ObjectId(bytes(16)), ObjectId(bytes(range(16))), 1_777_777_777_000_000)


def with_checksum(head: bytes) -> bytes:
    """The header with its checksum made right again."""
    return head[:-32] + hashlib.sha256(head[:-32]).digest()


@given(headers)
def test_every_field_comes_back(header: Header) -> None:
    encoded = header.encode()
    assert len(encoded) == HEADER_LENGTH
    assert decode_header(encoded + b"what follows", "x") == header


def test_every_flipped_bit_is_noticed() -> None:
    encoded = HEADER.encode()
    for bit in range(8 * len(encoded)):
        flipped = bytearray(encoded)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged, match="the-object"):
            decode_header(bytes(flipped), "the-object")


def test_every_truncation_is_noticed() -> None:
    for length in range(HEADER_LENGTH):
        with pytest.raises(Damaged, match="the-object"):
            decode_header(HEADER.encode()[:length], "the-object")


@pytest.mark.parametrize(
    ("at", "value"),
    [(8, 2), (10, 1), (12, 999), (14, 1024), (52, 1), (400, 1)],
    ids=["version", "suite", "type", "header length", "flags", "reserved"],
)
def test_what_a_newer_version_wrote_is_not_called_damaged(at: int, value: int) -> None:
    head = bytearray(HEADER.encode())
    struct.pack_into("<H", head, at, value)
    with pytest.raises(Fault) as caught:
        decode_header(with_checksum(bytes(head)), "x")
    assert caught.value.code == "format-unsupported"


def test_another_object_under_the_name_is_noticed() -> None:
    expected = {"type_": HEADER.type, "repository": HEADER.repository, "object_": HEADER.object}
    for field, other in (
        ("type_", ObjectType.MANIFEST),
        ("repository", ObjectId(b"r" * 16)),
        ("object_", ObjectId(b"o" * 16)),
    ):
        with pytest.raises(Damaged):
            expect_header(HEADER.encode(), "x", **{**expected, field: other})  # type: ignore[arg-type]
    assert expect_header(HEADER.encode(), "x", **expected) == HEADER  # type: ignore[arg-type]


@given(st.builds(WalIdentity, u64, u64, u32, u32, u64, fixed(32)))
def test_wal_identities_come_back(identity: WalIdentity) -> None:
    header = replace(HEADER, specific=identity.encode())
    assert WalIdentity.decode(decode_header(header.encode(), "x").specific) == identity


def test_only_page_sizes_of_postgresql_are_accepted() -> None:
    for shift in range(16):
        header = replace(HEADER, specific=pack_specific(1 << shift))
        if 10 <= shift <= 15:
            assert page_size_of(header, "x") == 1 << shift
        else:
            with pytest.raises(Damaged):
                page_size_of(header, "x")
