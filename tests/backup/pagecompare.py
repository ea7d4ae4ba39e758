"""The oracle of incremental backups: an independent full read of the server's files, compared page by page."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from pgkeep.pg.relfile import is_temporary_relation, relation_of
from tests.keeping import Kept

PAGE = 8192


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


def compare(kept: Kept, target: Path, start_lsn: int) -> int:
    """Every relation file of the running, quiet server against the restored, never started directory: equal but for
    pages that WAL from the backup's start on has touched.  The pages compared.
    """
    live = set(relation_files(kept.cluster.datadir))
    restored = set(relation_files(target))
    assert restored == live, (restored - live, live - restored)
    pages = 0
    for path in sorted(live):
        ours, theirs = (target / path).read_bytes(), (kept.cluster.datadir / path).read_bytes()
        for at in range(0, max(len(ours), len(theirs)), PAGE):
            one, other = ours[at : at + PAGE], theirs[at : at + PAGE]
            pages += 1
            if one != other and (len(other) < PAGE or lsn_of(other) < start_lsn):
                raise AssertionError(
                    f"{path} page {at // PAGE}: restored has LSN {lsn_of(one) if one else None:x}, the server"
                    f" {lsn_of(other) if other else None:x}; the backup began at {start_lsn:x}"
                )
    return pages
