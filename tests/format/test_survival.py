"""Whatever lies in the store, a reader ends in a Fault that names the object: soon, and in bounded memory."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.errors import Damaged, Fault
from pgkeep.format.header import decode_header
from pgkeep.format.objects import ClaimInfo, decode_info, encode_object
from pgkeep.format.record import encode_record
from pgkeep.format.section import SectionType
from tests.format.attacks import MANIFEST, OBJ, read_all
from tests.format.dumpattacks import DUMP, read_dump
from tests.format.dumpattacks import SECTIONS as IN_DUMP
from tests.format.forge import reseal
from tests.format.test_header import HEADER

ROOT = Path(__file__).parents[2]
SECTIONS = [t for t in SectionType if t not in (SectionType.FRAMES, SectionType.PAGE_LSNS, SectionType.PAGE_HASHES)]
IN_INDEX = [SectionType.INDEXED, SectionType.POINTS, SectionType.SPACES, SectionType.ENDS]
ELSEWHERE = [
    SectionType.CLEAR_KEYS, SectionType.CONDEMNED_PACKS, SectionType.ORIGINS, SectionType.MOVED, SectionType.CARRIERS,
    SectionType.DUMPED, SectionType.MEMBERS,
]  # fmt: skip
IN_MANIFEST = [t for t in SECTIONS if t not in (SectionType.SEEN, *ELSEWHERE, *IN_INDEX)]


def read_whole(data: bytes) -> None:
    decode_header(data, OBJ)
    read_all(data)


def survives(data: bytes) -> None:
    """Either it can be read, or the fault names it."""
    try:
        read_whole(data)
    except Fault as fault:
        assert OBJ in fault.message
        assert fault.code in ("format-damaged", "format-unsupported")


@pytest.mark.timeout(300)
def test_every_attack_ends_in_a_fault_within_seconds_and_half_a_gigabyte() -> None:
    """In a process of its own, because the most memory that it ever used is what counts."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.format.attacks", "512", "5"],
        cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_sample_can_be_read() -> None:
    read_whole(MANIFEST)


def test_every_truncation_of_a_manifest_is_damage() -> None:
    for length in range(len(MANIFEST)):
        with pytest.raises(Damaged, match=OBJ):
            read_whole(MANIFEST[:length])


def test_every_flipped_byte_of_a_manifest_is_noticed() -> None:
    for at in range(len(MANIFEST)):
        flipped = bytearray(MANIFEST)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(Fault, match=OBJ):
            read_whole(bytes(flipped))


@given(st.binary(max_size=2000))
def test_random_bytes_are_damage(data: bytes) -> None:
    for candidate in (data, HEADER.encode() + data, HEADER.encode() + b"PGKSECT\n" + data):
        with pytest.raises(Fault, match=OBJ):
            read_whole(candidate)


keys = st.sampled_from(["path", "blocks", "oid", "name", "ranges", "history", "timeline", "first", "last", "location"])
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.binary(max_size=9)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys | st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)


@given(st.sampled_from(IN_MANIFEST), anything | st.lists(st.lists(anything, max_size=11), max_size=3))
def test_any_record_in_any_section_is_survived(type_: SectionType, value: object) -> None:
    survives(reseal(MANIFEST, type_, encode_record(value)))


@given(st.sampled_from(IN_MANIFEST), st.binary(max_size=200))
def test_any_bytes_in_any_section_are_survived(type_: SectionType, content: bytes) -> None:
    survives(reseal(MANIFEST, type_, content))


@given(st.randoms(use_true_random=False), st.integers(1, 8))
def test_mended_mutations_of_the_plain_content_are_survived(source: random.Random, flips: int) -> None:
    """Bytes of a section's plain content are changed and every hash is made right again."""
    from pgkeep.format.manifestcodec import whole_manifest
    from pgkeep.format.section import open_section

    type_ = source.choice(IN_MANIFEST)
    row = whole_manifest(MANIFEST, OBJ).directory.of(type_)[0]
    content = bytearray(open_section(row, MANIFEST[512 + row.offset : 512 + row.end], OBJ))
    for _ in range(flips if content else 0):
        content[source.randrange(len(content))] = source.randrange(256)
    survives(reseal(MANIFEST, type_, bytes(content)))


def read_dump_whole(data: bytes) -> None:
    decode_header(data, OBJ)
    read_dump(data, OBJ)


def survives_as_dump(data: bytes) -> None:
    try:
        read_dump_whole(data)
    except Fault as fault:
        assert OBJ in fault.message
        assert fault.code in ("format-damaged", "format-unsupported")


def test_every_truncation_and_every_flipped_byte_of_a_dump_is_noticed() -> None:
    read_dump(DUMP, OBJ)
    for length in range(len(DUMP)):
        with pytest.raises(Damaged, match=OBJ):
            read_dump_whole(DUMP[:length])
    for at in range(len(DUMP)):
        flipped = bytearray(DUMP)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(Fault, match=OBJ):
            read_dump_whole(bytes(flipped))


@given(st.sampled_from(IN_DUMP), anything | st.lists(st.lists(anything, max_size=5), max_size=3))
def test_any_record_in_any_section_of_a_dump_is_survived(type_: SectionType, value: object) -> None:
    survives_as_dump(reseal(DUMP, type_, encode_record(value)))


@given(st.sampled_from(IN_DUMP), st.binary(max_size=200))
def test_any_bytes_in_any_section_of_a_dump_are_survived(type_: SectionType, content: bytes) -> None:
    survives_as_dump(reseal(DUMP, type_, content))


@given(anything)
def test_any_record_in_a_claim_is_survived(value: object) -> None:
    claim = ClaimInfo(token=b"t" * 16, host="db1", data_directory="/srv", claimed="now")
    forged = reseal(b"".join(encode_object(HEADER, claim)), SectionType.INFO, encode_record(value))
    with pytest.raises(Damaged, match=OBJ):
        decode_info(forged, ClaimInfo, OBJ)
