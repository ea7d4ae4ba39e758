"""A dump in the repository as the content of a load: chosen by id, by the beginning of one, or as the newest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pgkeep.errors import Fault
from pgkeep.format.dump import GLOBALS, DumpedDatabase, DumpInfo, Member
from pgkeep.logical.commands import DATABASE
from pgkeep.logical.content import Chunks
from pgkeep.pg.target import NewDatabase
from pgkeep.repo.dumps import DumpReader, dump_ids, open_dump, open_dump_manifest
from pgkeep.repo.repository import Cluster
from pgkeep.values.ids import DumpId

LATEST: Final = "latest"


class StoredContent:
    """One database of a dump.  For one thread."""

    def __init__(self, reader: DumpReader, database: DumpedDatabase) -> None:
        self._reader = reader
        self.database = database
        prefix = database.prefix
        self._members: dict[str, Member] = {
            os.fsdecode(member.name[len(prefix) :]): member
            for member in reader.members()
            if member.name.startswith(prefix) and member.name != GLOBALS
        }
        self._database_script = self._members.pop(DATABASE, None)

    @property
    def shown(self) -> str:
        info = self._reader.info
        return f"dump {info.dump} of {self.name} ({info.stopped[:16].replace('T', ' ')} UTC)"

    @property
    def name(self) -> str:
        """Of the database that was dumped."""
        return self.database.name.decode("utf-8", "surrogateescape")

    @property
    def path(self) -> str | None:
        return None

    @property
    def parts(self) -> Mapping[str, int]:
        return {name: member.size for name, member in self._members.items()}

    def read(self, part: str) -> Chunks:
        yield from self._reader.read(self._members[part])

    def globals_text(self) -> str | None:
        member = next((one for one in self._reader.members() if one.name == GLOBALS), None)
        if member is None:
            return None
        return b"".join(bytes(part) for part in self._reader.read(member)).decode("utf-8", "surrogateescape")

    def database_text(self) -> str | None:
        if self._database_script is None:
            return None
        return b"".join(bytes(part) for part in self._reader.read(self._database_script)).decode(
            "utf-8", "surrogateescape"
        )

    @property
    def without_owners(self) -> bool:
        """Whether it was taken with --no-owner: an archive names the owners nevertheless."""
        return "--no-owner" in self._reader.dumped.options

    def wishes(self) -> NewDatabase:
        """How the dumped database was made."""
        had = self.database
        provider = {"i": "icu", "b": "builtin"}.get(had.provider, "")
        return NewDatabase(had.encoding, provider, had.locale, had.collate, had.ctype, had.icu_rules)


def find_dump(cluster: Cluster, word: str, set_name: str | None, database: str | None) -> DumpId:
    """The dump that a word means: 'latest' of the set or of the database, an id, or the beginning of one.

    Faults 'dump-unknown', 'usage' for a beginning that several have.
    """
    ids = dump_ids(cluster)
    if word == LATEST:
        return _latest(cluster, ids, set_name, database)
    fitting = [one for one in ids if one.startswith(word)]
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 1:
        shown = ", ".join(fitting[-3:])
        raise Fault("usage", f"{len(fitting)} dumps begin with {word}: {shown} ...", hint="write more of the id")
    raise Fault(
        "dump-unknown",
        f"{word} is neither a file or directory here nor a dump of the cluster {cluster.name} ({len(ids)} dumps)",
        hint="see the dumps with: pgkeep list",
    )


def _latest(cluster: Cluster, ids: Sequence[DumpId], set_name: str | None, database: str | None) -> DumpId:
    seen: set[str] = set()
    for dump in reversed(ids):
        try:
            manifest = open_dump_manifest(cluster, dump)
            info = manifest.info()
            names = [one.name.decode("utf-8", "surrogateescape") for one in manifest.dumped().databases]
        except Fault as fault:
            if fault.code != "dump-unknown":  # deleted meanwhile
                raise
            continue
        seen.add(info.name)
        if (set_name is None or info.name == set_name) and (database is None or database in names):
            if set_name is None and database is None and (other := _other_set(cluster, ids, info)):
                raise Fault(
                    "usage",
                    f"there are dumps of several sets ({info.name}, {other} ...), expected the name of one",
                    hint=f"add --name {info.name}, or the id of a dump (pgkeep list)",
                )
            return dump
    what = f"of the set {set_name}" if set_name is not None else f"of the database {database}" if database else ""
    known = f", there are: {', '.join(sorted(seen))}" if seen else ""
    raise Fault(
        "dump-unknown", f"the cluster {cluster.name} has no dump {what}".rstrip() + known,
        hint="take one with: pgkeep dump",
    )  # fmt: skip


def _other_set(cluster: Cluster, ids: Sequence[DumpId], info: DumpInfo) -> str:
    for dump in reversed(ids):
        try:
            found = open_dump_manifest(cluster, dump).info().name
        except Fault:
            continue
        if found != info.name:
            return found
    return ""


def stored_content(cluster: Cluster, dump: DumpId, database: str | None) -> StoredContent:
    """The database of the dump that is meant; Fault 'usage' when it holds several and none is named."""
    reader = open_dump(cluster, dump)
    found = {one.name.decode("utf-8", "surrogateescape"): one for one in _databases(reader)}
    if database is None and len(found) == 1:
        return StoredContent(reader, next(iter(found.values())))
    if database in found:
        return StoredContent(reader, found[database])
    named = f"no database {database!r}" if database is not None else f"{len(found)} databases"
    raise Fault(
        "usage", f"dump {dump} holds {named}: it has {', '.join(sorted(found))}",
        hint="name one of them with --database NAME",
    )  # fmt: skip


def _databases(reader: DumpReader) -> Iterator[DumpedDatabase]:
    yield from reader.dumped.databases
