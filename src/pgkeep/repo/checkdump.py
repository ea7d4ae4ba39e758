"""Check a dump's manifest against its packs: what `verify` does to it besides re-hashing the packs.

The content of each member is proven by the frames that it is said to lie in, whose hashes `check_pack` proves; so it is
not read twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.format.dump import DumpManifest, Member
from pgkeep.format.frame import FrameKind
from pgkeep.format.manifest import PackRef
from pgkeep.repo.check import Damage, check_covered, is_damage
from pgkeep.repo.dumps import open_dump_manifest
from pgkeep.repo.packtables import LiveFrames, PackTables
from pgkeep.repo.repository import Cluster
from pgkeep.values.ids import DumpId


def check_dump(cluster: Cluster, dump: DumpId) -> list[Damage]:
    """All of the manifest: every section has its hash, every row can be read, every member lies in frames of the packs.

    And in such that the manifest calls live; the sums are right, and no name is there twice.  The store's faults.
    """
    key = names.dump(cluster.uuid, dump)
    try:
        return list(_check(cluster, open_dump_manifest(cluster, dump)))
    except Fault as fault:
        if not (is_damage(fault) or fault.code == "dump-unknown"):
            raise
        return [Damage(key, fault.message)]


def _check(cluster: Cluster, manifest: DumpManifest) -> Iterator[Damage]:
    manifest.check_sections()
    info, packs, key = manifest.info(), manifest.all_packs(), manifest.obj
    manifest.dumped()
    tables = PackTables(cluster.repository, cluster.uuid, [(pack.id, pack.footer) for pack in packs])
    live = LiveFrames(tables)
    seen: set[bytes] = set()
    size = 0
    for member in manifest.members():
        yield from _check_member(tables, live, member, packs, key)
        if member.name in seen:
            yield Damage(key, f"holds the member {_shown(member)} twice")
        seen.add(member.name)
        size += member.size
    if (len(seen), size) != (info.members, info.logical_bytes):
        yield Damage(
            key,
            f"holds {len(seen)} members of {size} bytes, and says {info.members} of {info.logical_bytes} bytes",
        )
    yield from check_covered(cluster, tables, packs, key)
    for pack, frames in live.unmarked(packs).items():
        yield Damage(key, f"needs {frames} frames of pack {pack} that it does not call live")


def _check_member(
    tables: PackTables, live: LiveFrames, member: Member, packs: list[PackRef], key: str
) -> Iterator[Damage]:
    for extent in member.extents:
        pack = packs[extent.pack].id
        if extent.at + extent.count <= tables.units(pack, FrameKind.BYTES):
            live.mark(pack, FrameKind.BYTES, extent.at, extent.count)
        else:
            yield Damage(key, f"{_shown(member)} lies beyond the end of its pack")


def _shown(member: Member) -> str:
    return member.name.decode("utf-8", "backslashreplace")
