"""A restored tree that was never started equals what pg_basebackup copies from the same quiet cluster, file by file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from tests.clusters import Cluster
from tests.keeping import Kept, keep
from tests.servers import pg_versions

EXCEPTIONS = {
    "backup_label",  # each backup has its own start
    "backup_manifest",  # pg_basebackup's own
    "pgkeep.instance",  # who archives: a copy must not pass for this server
    "global/pg_control",  # the second backup's checkpoint
    "pgkeep.restore.json",  # which WAL the restored server may read
    "postgresql.auto.conf",  # recovery settings are added
    "recovery.signal",  # recovery is asked for
    "tablespace_map",  # tablespaces lie elsewhere
}


def _tree(root: Path) -> dict[str, tuple[str, int, bytes]]:
    """Kind, permissions and content by path; links in pg_tblspc are followed, and their targets not compared."""
    found: dict[str, tuple[str, int, bytes]] = {}
    for folder, folders, files in os.walk(root, followlinks=True):
        for name in (*folders, *files):
            path = Path(folder, name)
            info = path.stat()
            kind = "directory" if stat.S_ISDIR(info.st_mode) else "file"
            content = path.read_bytes() if kind == "file" else b""
            found[str(path.relative_to(root))] = (kind, stat.S_IMODE(info.st_mode), content)
    return found


def _furnish(kept: Kept) -> None:
    """What a cluster may hold that is easily got wrong."""
    sql = kept.cluster.sql
    linked = kept.cluster.directory('a "linked" space\nof two lines')
    sql("CREATE TABLESPACE linked LOCATION E'{}'".format(str(linked).replace("\n", "\\n")))
    if kept.cluster.major >= 15:
        with kept.cluster.connect() as connection:
            connection.execute("SET allow_in_place_tablespaces = on")
            connection.execute("CREATE TABLESPACE inside LOCATION ''")
    else:
        sql("CREATE TABLESPACE inside LOCATION '{}'".format(kept.cluster.directory("inside")))
    for number, space in enumerate(("pg_default", "linked", "inside")):
        sql(f"CREATE TABLE logged{number} TABLESPACE {space} AS SELECT g, md5(g::text) FROM generate_series(1, 9000) g")
        sql(f"CREATE UNLOGGED TABLE gone{number} TABLESPACE {space} AS SELECT generate_series(1, 9000) g")
        sql(f"CREATE INDEX ON logged{number} (g) TABLESPACE {space}")
    options = "TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    sql(f'CREATE DATABASE "an \'odd name" {options}')
    sql("SELECT lo_from_bytea(0, decode(repeat('ab', 9000), 'hex'))")
    sql("VACUUM")
    sql("CREATE TABLE empty ()")


@pg_versions("oldest", "newest")
def test_the_restored_tree_is_pg_basebackups(
    cluster: Callable[..., Cluster], server_tmp: Path, pgkeep_program: tuple[str, ...]
) -> None:
    kept = keep(cluster, server_tmp, pgkeep_program, checkpoint_timeout="1h", log_directory="'log'")
    _furnish(kept)
    kept.cluster.restart()  # statistics are written, nothing is in flight
    kept.cluster.sql("CHECKPOINT")
    kept.backup()
    restored, copied = kept.home / "restored", kept.home / "copied"
    kept.run("restore", str(restored), "--latest")
    spaces = kept.cluster.sql("SELECT pg_tablespace_location(oid) FROM pg_tablespace ORDER BY oid")
    mapped = [
        f"--tablespace-mapping={space}={kept.home / f'copied-{number}'}"
        for number, (space,) in enumerate(spaces)
        if str(space).startswith("/")
    ]
    kept.cluster.run("pg_basebackup", "-D", str(copied), "-Fp", "-Xnone", "-c", "fast", *mapped)
    ours, theirs = _tree(restored), _tree(copied)
    for path in EXCEPTIONS:
        ours.pop(path, None)
        theirs.pop(path, None)
    assert sorted(ours) == sorted(theirs)
    assert [path for path in ours if ours[path] != theirs[path]] == []
