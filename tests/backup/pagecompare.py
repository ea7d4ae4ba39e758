"""The oracle of incremental backups: an independent full read of the server's files, compared page by page."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from pgkeep.pg.relfile import is_temporary_relation, relation_of
from pgkeep.values.lsn import Lsn
from tests.keeping import Kept

PAGE = 8192
Pages = Mapping[str, bytes]
"""By path below the data directory the content of files."""


def relation_files(directory: Path) -> Iterator[str]:
    """Paths of all relation files, in tablespaces too, as a backup knows them; without unlogged and temporary ones."""
    found = []
    for root, folders, files in os.walk(directory, followlinks=True):
        home = os.path.relpath(root, directory)
        if home == "." or not (home == "global" or home.startswith(("base", "pg_tblspc"))):
            folders[:] = [name for name in folders if home != "." or name in ("base", "global", "pg_tblspc")]
            continue
        folders[:] = [name for name in folders if not name.startswith("pgsql_tmp")]
        found += [f"{home}/{name}" for name in files if not is_temporary_relation(name)]
    unlogged = {path.removesuffix("_init") for path in found if path.endswith("_init")}
    for path in sorted(found):
        relation = relation_of(path)
        if relation is not None and not _is_of(path, unlogged):
            yield path


def _is_of(path: str, unlogged: set[str]) -> bool:
    home, _, name = path.rpartition("/")
    stem = name.split(".")[0].split("_")[0]
    return f"{home}/{stem}" in unlogged and not name.endswith("_init")


def lsn_of(page: bytes) -> int:
    high, low = struct.unpack_from("<II", page)
    return int(high) << 32 | int(low)


def _shown(page: bytes) -> str:
    return str(Lsn(lsn_of(page))) if page else "no such page"


def compare(kept: Kept, target: Path, start_lsn: int) -> int:
    """Every relation file of the running, quiet server against the restored, never started directory: equal but for
    pages that WAL from the backup's start on has touched.  The pages compared.
    """
    live = list(relation_files(kept.cluster.datadir))
    theirs = list(relation_files(target))
    assert set(theirs) == set(live), (set(theirs) ^ set(live), "are on one side alone")
    pages = 0
    for path in live:
        server = (kept.cluster.datadir / path).read_bytes()
        wrong = differing({path: (target / path).read_bytes()}, {path: server}, start_lsn)
        assert not wrong, wrong
        pages += -(-len(server) // PAGE)
    return pages


def differing(ours: Pages, live: Pages, start_lsn: int, *, masked: bool = False) -> list[str]:
    """What a backup that began at `start_lsn` holds wrongly (`ours`) of the files that a quiet server has (`live`).

    A page may differ when WAL from the start on has touched it, and file lists may not differ.  `masked` says that hint
    bits may: of a cluster that does not log them.
    """
    wrong = [f"{path} is on one side alone" for path in sorted(ours.keys() ^ live.keys())]
    for path in sorted(ours.keys() & live.keys()):
        mine, theirs = ours[path], live[path]
        if relation_of(path) is None:
            wrong += [f"{path} differs"] if mine != theirs else []
            continue
        for at in range(0, max(len(mine), len(theirs)), PAGE):
            one, other = mine[at : at + PAGE], theirs[at : at + PAGE]
            if one == other or (masked and len(one) == len(other) and mask(one) == mask(other)):
                continue
            if len(other) < PAGE or lsn_of(other) < start_lsn:
                wrong.append(
                    f"{path} page {at // PAGE}: the backup has LSN {_shown(one)}, the server {_shown(other)};"
                    f" the backup began at {Lsn(start_lsn)}"
                )
    return wrong


_HINT_FLAGS = 0x0001 | 0x0002
"""PD_HAS_FREE_LINES and PD_PAGE_FULL; PD_ALL_VISIBLE is no hint."""
_HINT_BITS = 0x0100 | 0x0200 | 0x0400 | 0x0800
"""HEAP_XMIN_COMMITTED, _INVALID, HEAP_XMAX_COMMITTED, _INVALID."""
_LP_NORMAL, _LP_DEAD = 1, 3


def mask(page: bytes) -> bytes:
    """The page without what may change and is not logged (access/common/bufmask.c, heap_mask, btree_mask)."""
    lower, upper, special = struct.unpack_from("<HHH", page, 12)
    if not upper or not 24 <= lower <= upper <= special <= PAGE:
        return page
    masked = bytearray(page)
    masked[10] &= 0xFF ^ _HINT_FLAGS
    masked[20:24] = bytes(4)  # pd_prune_xid
    for at in range(24, lower, 4):
        (pointer,) = struct.unpack_from("<I", page, at)
        offset, state, length = pointer & 0x7FFF, pointer >> 15 & 3, pointer >> 17
        if special < PAGE and state == _LP_DEAD and length:
            struct.pack_into("<I", masked, at, pointer & ~(3 << 15) | _LP_NORMAL << 15)
        if special == PAGE and state == _LP_NORMAL and length >= 23 and offset + length <= PAGE:
            (bits,) = struct.unpack_from("<H", page, offset + 20)
            struct.pack_into("<H", masked, offset + 20, bits & ~_HINT_BITS)
    if special == PAGE - 16:
        masked[PAGE - 4 : PAGE] = bytes(4)  # BTP_HAS_GARBAGE and the cycle id; LH_PAGE_HAS_DEAD_TUPLES of hash indexes
    return bytes(masked)
