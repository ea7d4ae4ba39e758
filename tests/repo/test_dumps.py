"""Dumps in the store: written, listed, read back."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.repo.dumps import dump_ids, open_dump
from pgkeep.repo.dumpwriter import DumpWriter
from pgkeep.repo.lease import seen_leases
from pgkeep.store.memory import MemoryStore
from pgkeep.values.ids import DumpId
from tests.format.samples import StepClock, entropy
from tests.repo.dumped import FACTS, MEMBERS, add_dump
from tests.repo.made import Made, make

OTHER = DumpId("20260508T112900Z-00000000")


@pytest.fixture
def made() -> Made:
    return make(MemoryStore())


def packs_of(made: Made) -> list[str]:
    return [stat.key for stat in made.store.list(names.packs(made.cluster.uuid))]


def test_a_dump_is_what_was_written(made: Made) -> None:
    dump = add_dump(made.cluster)
    assert dump_ids(made.cluster) == [dump]
    reader = open_dump(made.cluster, dump)
    assert [member.name for member in reader.members()] == list(MEMBERS)
    assert {member.name: b"".join(reader.read(member)) for member in reader.members()} == MEMBERS
    info = reader.info
    assert (info.dump, info.name, info.format, info.label) == (dump, "shop", "directory", "before the release")
    assert (info.members, info.logical_bytes) == (len(MEMBERS), sum(map(len, MEMBERS.values())))
    sizes = [made.store.stat(key).size for key in packs_of(made) if str(made.pack.id) not in key]
    assert info.stored_bytes == sum(sizes)
    assert (info.source_bytes, info.databases, info.whole) == (123_456, 1, False)
    assert reader.dumped.options == FACTS.options
    assert reader.dumped.databases == FACTS.databases
    assert not seen_leases(made.cluster)
    assert names.feature("dumps.write") in [stat.key for stat in made.store.list(names.FEATURES)]


def test_large_members_go_through_many_packs_in_parts(made: Made) -> None:
    """Written in odd parts, over several packs, beside a member that shares a frame with its end."""
    content = entropy("large")(9_000_000)
    with DumpWriter(made.cluster, StepClock()) as writer:
        writer._packs._target = 1 << 20
        with writer.member(b"a") as member:
            member.write(b"first")
        with writer.member(b"large") as member:
            for at in range(0, len(content), 700_001):
                member.write(memoryview(content)[at : at + 700_001])
        with writer.member(b"z") as member:
            member.write(bytearray(b"last"))
        writer.commit(FACTS)
    reader = open_dump(made.cluster, writer.id)
    large = reader.find(b"large")
    assert len(large.extents) > 5
    assert b"".join(reader.read(large)) == content
    assert b"".join(reader.read(b"z")) == b"last"
    assert b"".join(reader.read(b"a")) == b"first"


def test_files_go_in_and_come_out(made: Made, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(3_000_000))
    with DumpWriter(made.cluster, StepClock()) as writer:
        assert writer.add_file(b"dump.pgdump", str(source)) == 3_000_000
        with pytest.raises(Fault, match="cannot read"):
            writer.add_file(b"missing", str(tmp_path / "missing"))
        writer.commit(FACTS)
    reader = open_dump(made.cluster, writer.id)
    assert reader.write_to(b"dump.pgdump", str(target)) == 3_000_000
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Fault, match="exists"):
        reader.write_to(b"dump.pgdump", str(target))


def test_without_a_commit_there_is_nothing(made: Made) -> None:
    before = packs_of(made)
    with pytest.raises(RuntimeError), DumpWriter(made.cluster, StepClock()) as writer:
        writer._packs._target = 1000
        for number in range(3):
            with writer.member(b"%d" % number) as member:
                member.write(entropy(str(number))(300_000))
        assert len(packs_of(made)) > len(before)
        raise RuntimeError
    assert not dump_ids(made.cluster)
    assert packs_of(made) == before
    assert not seen_leases(made.cluster)


def test_a_member_that_was_given_up_ends_the_dump(made: Made) -> None:
    with DumpWriter(made.cluster, StepClock()) as writer:
        with pytest.raises(RuntimeError), writer.member(b"a") as member:
            member.write(b"half")
            raise RuntimeError
        with pytest.raises(ValueError, match="given up"):
            writer.commit(FACTS)
    assert not dump_ids(made.cluster)


@pytest.mark.parametrize("name", [b"", b"/etc/passwd", b"../x", b"a/../b", b"a//b", b"a/.", b"a\0b", b"x" * 5000])
def test_members_stay_below_where_they_are_put(made: Made, name: bytes) -> None:
    with DumpWriter(made.cluster, StepClock()) as writer, pytest.raises(ValueError, match="holds"):
        writer.member(name)


def test_members_have_names_of_their_own(made: Made) -> None:
    with DumpWriter(made.cluster, StepClock()) as writer:
        with writer.member(b"a"):
            pass
        with pytest.raises(ValueError, match="already"):
            writer.member(b"a")
        writer.member(b"b")
        with pytest.raises(ValueError, match="still open"):
            writer.commit(FACTS)


def test_members_that_are_written_at_one_time(made: Made) -> None:
    contents = {b"even": [bytes([number]) * 300_000 for number in range(0, 40, 2)], b"odd": [b"1" * 70_000] * 20}
    with DumpWriter(made.cluster, StepClock()) as writer:
        members = {name: writer.member(name, is_compressed=name == b"odd") for name in contents}
        for parts in zip(*contents.values(), strict=True):
            for member, part in zip(members.values(), parts, strict=True):
                member.write(part)
        for member in reversed(members.values()):
            member.close()
        writer.commit(FACTS)
    reader = open_dump(made.cluster, writer.id)
    assert [member.name for member in reader.members()] == [b"odd", b"even"]
    for name, written in contents.items():
        assert b"".join(reader.read(name)) == b"".join(written)


def test_what_there_is_not(made: Made) -> None:
    with pytest.raises(Fault) as caught:
        open_dump(made.cluster, OTHER)
    assert caught.value.code == "dump-unknown"
    reader = open_dump(made.cluster, add_dump(made.cluster))
    with pytest.raises(Fault) as caught:
        list(reader.read(b"missing"))
    assert caught.value.code == "dump-unknown"


def test_a_damaged_frame_and_a_pack_that_is_gone(made: Made) -> None:
    before = set(packs_of(made))
    reader = open_dump(made.cluster, add_dump(made.cluster))
    (key,) = set(packs_of(made)) - before
    data = bytearray(made.store.get(key))
    data[600] ^= 1
    made.store.delete(key)
    made.store.put(key, [bytes(data)])
    with pytest.raises(Fault, match="its hash is wrong"):
        list(reader.read(b"globals.sql"))
    made.store.delete(key)
    with pytest.raises(Fault, match="is missing") as caught:
        list(open_dump(made.cluster, reader.id).read(b"globals.sql"))
    assert caught.value.code == "format-damaged"


def test_a_writer_that_does_not_know_the_rules_does_not_begin(made: Made) -> None:
    made.store.put(names.FEATURES + "tomorrow.write", [b""])
    with pytest.raises(Fault) as caught, DumpWriter(made.cluster, StepClock()):
        pass
    assert caught.value.code == "format-unsupported"


def test_a_pack_that_went_meanwhile_makes_no_dump(made: Made) -> None:
    before = set(packs_of(made))
    with pytest.raises(Fault) as caught, DumpWriter(made.cluster, StepClock()) as writer:
        writer._packs._target = 1000
        for name in (b"a", b"b", b"c"):
            with writer.member(name) as member:
                member.write(entropy("gone")(300_000))
        made.store.delete(sorted(set(packs_of(made)) - before)[0])
        writer.commit(replace(FACTS, name="other"))
    assert caught.value.code == "backup-invalidated"
    assert "dump again" in caught.value.hint
    assert not dump_ids(made.cluster)
    assert set(packs_of(made)) == before
