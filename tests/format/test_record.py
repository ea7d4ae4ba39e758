"""Records: what is read back is what was written; everything else is damage, soon and in little memory."""

from __future__ import annotations

import struct

import msgspec
import pytest

from pgkeep.errors import Damaged
from pgkeep.format.limits import MAX_ROWS
from pgkeep.format.manifest import BadPages, SeenManifest
from pgkeep.format.record import Record, decode_record, decode_rows, encode_record, encode_rows
from pgkeep.values.lsn import Lsn
from tests.format.samples import BACKUP


class Newer(Record, frozen=True, kw_only=True):
    path: bytes
    blocks: list[int]
    colour: str


def test_values_of_the_field_are_written_plainly() -> None:
    assert encode_record([Lsn(7), BACKUP]) == encode_record([7, str(BACKUP)])
    with pytest.raises(TypeError):
        encode_record(object())


def test_fields_of_a_newer_version_are_ignored() -> None:
    newer = encode_record(Newer(path=b"p", blocks=[1], colour="red"))
    assert decode_record(newer, BadPages, "x") == BadPages(path=b"p", blocks=[1])


def test_rows_may_be_longer_in_a_newer_version() -> None:
    longer = msgspec.msgpack.encode([[str(BACKUP), b"h" * 32, "something new"]])
    assert decode_rows(longer, SeenManifest, "x") == [SeenManifest(backup=str(BACKUP), hash=b"h" * 32)]


def test_rows_over_the_limit_continue_in_another_section() -> None:
    rows = [SeenManifest(backup=str(BACKUP), hash=i.to_bytes(32, "big")) for i in range(MAX_ROWS + 3)]
    contents = encode_rows(rows)
    assert len(contents) == 2
    assert [row for content in contents for row in decode_rows(content, SeenManifest, "x")] == rows


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        b"\x82\xa4path\xc4\x01a\xa6blocks\xdd\xff\xff\xff\xff",
        b"\x82\xa4path\xc6\xff\xff\xff\xffa",
        b"\x83\xa4path\xc4\x01a\xa6blocks\x90\xa1x" + b"\x91" * 1_000_000,
        b"\x82\xa4path\xc4\x01a\xa6blocks\x91\xff",
        b"\x81\xa4path\xc4\x01a",
        encode_record(BadPages(path=b"p", blocks=[1])) + b"\0",
    ],
    ids=["empty", "reserved", "array bomb", "bytes bomb", "deep", "negative", "field missing", "trailing"],
)
def test_anything_else_is_damage(content: bytes) -> None:
    with pytest.raises(Damaged, match="the-object"):
        decode_record(content, BadPages, "the-object")


@pytest.mark.parametrize("count", [MAX_ROWS + 1, (1 << 32) - 1])
def test_too_many_rows_are_refused_before_they_are_made(count: int) -> None:
    with pytest.raises(Damaged, match=str(count)):
        decode_rows(struct.pack(">BI", 0xDD, count) + b"\x92\xa0\xc4\x00" * 10, SeenManifest, "x")
