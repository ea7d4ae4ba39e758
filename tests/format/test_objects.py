"""Small objects: repository, incarnation, claim."""

from __future__ import annotations

from dataclasses import replace as replace_value

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pgkeep.errors import Damaged
from pgkeep.format.objects import (
    ClaimInfo,
    ClearKeys,
    IncarnationInfo,
    RepositoryInfo,
    decode_contents,
    decode_incarnation,
    decode_info,
    encode_object,
    required,
)
from pgkeep.format.record import decode_record, encode_record
from pgkeep.format.section import SectionType
from tests.format.forge import reseal
from tests.format.samples import SYSTEM_ID
from tests.format.test_header import HEADER

REPOSITORY = RepositoryInfo(created="2026-05-07T11:29:00+00:00", writer="pgkeep 0.1")
KEYS = ClearKeys(hash_key=b"h" * 32, metadata_key=b"m" * 32)
INCARNATION = IncarnationInfo(
    system_id=SYSTEM_ID, cluster_name="main", server_version=170011, first_seen="2026-05-07", wal_segment_size=1 << 24
)
CLAIM = ClaimInfo(token=b"t" * 16, host="db1", data_directory="/srv/pg", claimed="2026-05-07T11:29:00+00:00")


@given(st.text(), st.text(), st.binary(min_size=16, max_size=16))
def test_claims_come_back(host: str, directory: str, token: bytes) -> None:
    claim = replace(CLAIM, host=host, data_directory=directory, token=token)
    assert decode_info(b"".join(encode_object(HEADER, claim)), ClaimInfo, "x") == claim


def test_a_repository_header_comes_back() -> None:
    data = b"".join(encode_object(HEADER, REPOSITORY, clear_keys=KEYS))
    contents = decode_contents(data, "x")
    assert decode_info(data, RepositoryInfo, "x") == REPOSITORY
    assert decode_record(required(contents, SectionType.CLEAR_KEYS, "x"), ClearKeys, "x") == KEYS
    with pytest.raises(Damaged, match="SERVER"):
        required(contents, SectionType.SERVER, "x")


def test_every_flipped_bit_is_noticed() -> None:
    data = b"".join(encode_object(HEADER, CLAIM))
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged, match="the-claim"):
            decode_info(bytes(flipped), ClaimInfo, "the-claim")


@pytest.mark.parametrize("size", [0, 1 << 19, 1 << 31, 12345678])
def test_impossible_segment_sizes_are_damage(size: int) -> None:
    data = b"".join(encode_object(HEADER, replace(INCARNATION, wal_segment_size=size)))
    with pytest.raises(Damaged):
        decode_incarnation(data, "x")
    assert decode_incarnation(b"".join(encode_object(HEADER, INCARNATION)), "x") == INCARNATION


@pytest.mark.parametrize("key", [b"", b"k" * 31, b"k" * 33])
def test_keys_of_another_length_are_damage(key: bytes) -> None:
    data = b"".join(encode_object(HEADER, REPOSITORY, clear_keys=KEYS))
    forged = reseal(data, SectionType.CLEAR_KEYS, encode_record({"hash_key": key, "metadata_key": b"m" * 32}))
    with pytest.raises(Damaged):
        decode_record(decode_contents(forged, "x")[SectionType.CLEAR_KEYS], ClearKeys, "x")


def test_sections_of_another_object_do_not_fit() -> None:
    mine = b"".join(encode_object(HEADER, CLAIM))
    other = b"".join(encode_object(replace_value(HEADER, epoch=1), CLAIM))
    with pytest.raises(Damaged, match="another header"):
        decode_info(other[:512] + mine[512:], ClaimInfo, "x")
