"""Whether a dump in the repository could be loaded: its tables of contents are read, and what they name is there.

For `verify`: the hashes prove that the bytes are those that were dumped; this proves that they are a dump.
"""

from __future__ import annotations

from typing import Final

from pgkeep.errors import Fault
from pgkeep.format.dump import GLOBALS
from pgkeep.logical.source import look_into
from pgkeep.logical.stored import StoredContent
from pgkeep.repo.dumps import open_dump
from pgkeep.repo.repository import Cluster
from pgkeep.values.ids import DumpId

_PROBLEMS: Final = frozenset({
    "dump-damaged", "dump-unsupported", "dump-unknown", "format-damaged", "format-unsupported", "object-missing",
})  # fmt: skip


def dump_problems(cluster: Cluster, dump: DumpId) -> tuple[str, ...]:
    """Why it could not be loaded; () when nothing speaks against it.  The store's faults."""
    found: list[str] = []
    try:
        reader = open_dump(cluster, dump)
        if not any(member.name == GLOBALS for member in reader.members()):
            found.append(f"the dump {dump} lacks its roles and tablespaces ({GLOBALS.decode()})")
        databases = reader.dumped.databases
    except Fault as fault:
        return _problem(fault)
    for database in databases:
        try:
            content = StoredContent(reader, database)
            if look_into(content).kind.value != reader.info.format:
                found.append(f"{content.shown} is no dump in {reader.info.format} format")
        except Fault as fault:
            found += _problem(fault)
    return tuple(found)


def _problem(fault: Fault) -> tuple[str]:
    if fault.code not in _PROBLEMS:
        raise fault
    return (fault.message,)
