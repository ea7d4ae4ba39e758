"""What a manifest of a dump may not say of its packs, each with every hash right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as replace_value

import pytest
from msgspec.structs import replace

from pgkeep.format import names
from pgkeep.format.dump import DumpInfo, Member, MemberExtent, encode_dump, member_sections
from pgkeep.format.header import ObjectType
from pgkeep.format.manifest import PackRef
from pgkeep.repo.checkdump import check_dump
from pgkeep.repo.dumps import open_dump_manifest
from pgkeep.store.memory import MemoryStore
from pgkeep.values.ids import DumpId
from tests.format.samples import StepClock
from tests.repo.dumped import add_dump
from tests.repo.made import Made, make

Change = Callable[[DumpInfo, list[PackRef], list[Member]], tuple[DumpInfo, list[PackRef], list[Member]]]


@pytest.fixture
def made() -> Made:
    return make(MemoryStore())


def problems(made: Made, dump: DumpId) -> str:
    return "; ".join(damage.problem for damage in check_dump(made.cluster, dump))


def forge(made: Made, dump: DumpId, change: Change) -> None:
    """Put another manifest into its place."""
    manifest = open_dump_manifest(made.cluster, dump)
    info, packs, members = change(manifest.info(), manifest.all_packs(), list(manifest.members()))
    key = names.dump(made.cluster.uuid, dump)
    header = made.repository.header(ObjectType.DUMP, key, StepClock())
    parts = encode_dump(header, info, packs, manifest.dumped(), member_sections(members))
    made.store.delete(key)
    made.store.put(key, parts)


def beyond(info: DumpInfo, packs: list[PackRef], members: list[Member]) -> tuple[DumpInfo, list[PackRef], list[Member]]:
    far = MemberExtent(pack=0, at=1 << 30, count=members[0].size)
    return info, packs, [replace(members[0], extents=[far]), *members[1:]]


def dead(info: DumpInfo, packs: list[PackRef], members: list[Member]) -> tuple[DumpInfo, list[PackRef], list[Member]]:
    return info, [replace_value(pack, live=bytes(len(pack.live))) for pack in packs], members


def twice(info: DumpInfo, packs: list[PackRef], members: list[Member]) -> tuple[DumpInfo, list[PackRef], list[Member]]:
    return info, packs, [*members, members[0]]


def fewer(info: DumpInfo, packs: list[PackRef], members: list[Member]) -> tuple[DumpInfo, list[PackRef], list[Member]]:
    return info, packs, members[1:]


def gone(info: DumpInfo, packs: list[PackRef], members: list[Member]) -> tuple[DumpInfo, list[PackRef], list[Member]]:
    return info, packs, [replace(members[0], extents=[replace(members[0].extents[0], pack=7)]), *members[1:]]


def escaping(
    info: DumpInfo, packs: list[PackRef], members: list[Member]
) -> tuple[DumpInfo, list[PackRef], list[Member]]:
    return info, packs, [replace(members[0], name=b"../../etc/passwd"), *members[1:]]


def shorter(
    info: DumpInfo, packs: list[PackRef], members: list[Member]
) -> tuple[DumpInfo, list[PackRef], list[Member]]:
    return info, packs, [replace(members[0], size=members[0].size - 1), *members[1:]]


def test_a_dump_that_is_sound(made: Made) -> None:
    assert problems(made, add_dump(made.cluster)) == ""


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (beyond, "lies beyond the end of its pack"),
        (dead, "does not call live"),
        (twice, "holds the member globals.sql twice"),
        (fewer, "holds 4 members"),
        (gone, "in a pack that is not in its table"),
        (escaping, "would leave the directory"),
        (shorter, "does not say where all"),
    ],
)
def test_what_is_wrong_with_it(made: Made, change: Change, wrong: str) -> None:
    dump = add_dump(made.cluster)
    forge(made, dump, change)
    assert wrong in problems(made, dump)


def test_what_is_missing(made: Made) -> None:
    dump = add_dump(made.cluster)
    packs = [pack.id for pack in open_dump_manifest(made.cluster, dump).packs()]
    made.store.delete(names.pack(made.cluster.uuid, packs[0]))
    assert "is missing" in problems(made, dump)
    made.store.delete(names.dump(made.cluster.uuid, dump))
    assert "there is no dump" in problems(made, dump)
