"""backup_label and tablespace_map, read and written byte for byte.

Both come from pg_backup_stop() and are stored as they came; these parsers say what is in them, and write the mapped
tablespace_map of a restore.  Sources: build_backup_content (access/transam/xlogbackup.c), do_pg_backup_start (xlog.c),
read_tablespace_map (xlogrecovery.c), all since 14.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from pgkeep.errors import Fault
from pgkeep.values.lsn import Lsn

_HEX: Final = r"(?:0|[1-9A-F][0-9A-F]{0,7})"  # %X
_LSN: Final = f"({_HEX}/{_HEX})"
# A label may hold anything, newlines too: only what stands before and after it is fixed.
_LABEL: Final = re.compile(
    rf"START WAL LOCATION: {_LSN} \(file ([0-9A-F]{{24}})\)\n"
    rf"CHECKPOINT LOCATION: {_LSN}\n"
    r"BACKUP METHOD: ([^\n]*)\n"
    r"BACKUP FROM: ([^\n]*)\n"
    r"START TIME: ([^\n]*)\n"
    r"LABEL: (.*)\n"
    r"START TIMELINE: ([1-9][0-9]{0,9})\n"
    rf"(?:INCREMENTAL FROM LSN: {_LSN}\nINCREMENTAL FROM TLI: ([1-9][0-9]{{0,9}})\n)?",
    re.DOTALL,
)
_MAP_OID: Final = re.compile(r"[1-9][0-9]{0,9}")
_ESCAPED: Final = re.compile(r"[\n\r\\]")


@dataclass(frozen=True, slots=True)
class BackupLabel:
    """What backup_label says.

    `start` is where recovery begins to replay (the redo point), in WAL file `start_file`; `checkpoint` is the
    checkpoint's record; `origin` is 'primary' or 'standby'; `start_time` is text in the server's log time zone.
    """

    start: Lsn
    start_file: str
    checkpoint: Lsn
    method: str
    origin: str
    start_time: str
    label: str
    timeline: int
    incremental_from: Lsn | None = None
    incremental_timeline: int | None = None


class TablespaceLink(NamedTuple):
    """A line of tablespace_map: the link pg_tblspc/<oid> leads to `location`, an absolute path."""

    oid: int
    location: str


def parse_label(data: bytes) -> BackupLabel:
    """Read a backup_label.  Raises Fault 'backup-invalidated' for anything that no server of 14 to 18 writes."""
    match = _LABEL.fullmatch(data.decode("utf-8", "surrogateescape"))
    if match is None:
        raise Fault(
            "backup-invalidated",
            f"not a backup_label: {data[:80]!r}, expected START WAL LOCATION and the lines that follow it",
            hint="take the backup again; PostgreSQL could not start from this one",
        )
    start, file, checkpoint, method, origin, time, label, timeline, base, base_timeline = match.groups()
    return BackupLabel(
        start=Lsn.parse(start),
        start_file=file,
        checkpoint=Lsn.parse(checkpoint),
        method=method,
        origin=origin,
        start_time=time,
        label=label,
        timeline=int(timeline),
        incremental_from=None if base is None else Lsn.parse(base),
        incremental_timeline=None if base_timeline is None else int(base_timeline),
    )


def format_label(label: BackupLabel) -> bytes:
    """The bytes of a backup_label, as PostgreSQL writes them."""
    text = (
        f"START WAL LOCATION: {label.start} (file {label.start_file})\n"
        f"CHECKPOINT LOCATION: {label.checkpoint}\n"
        f"BACKUP METHOD: {label.method}\n"
        f"BACKUP FROM: {label.origin}\n"
        f"START TIME: {label.start_time}\n"
        f"LABEL: {label.label}\n"
        f"START TIMELINE: {label.timeline}\n"
    )
    if label.incremental_from is not None:
        text += f"INCREMENTAL FROM LSN: {label.incremental_from}\n"
        text += f"INCREMENTAL FROM TLI: {label.incremental_timeline}\n"
    return text.encode("utf-8", "surrogateescape")


def parse_tablespace_map(data: bytes) -> tuple[TablespaceLink, ...]:
    """Read a tablespace_map, in the order of its lines; an empty one has none.

    Raises Fault 'backup-invalidated' for what PostgreSQL would refuse.
    """
    return tuple(_link(line) for line in _lines(data.decode("utf-8", "surrogateescape")))


def _lines(text: str) -> Iterable[str]:
    """Lines without their escapes: a backslash takes the meaning from the character after it."""
    line: list[str] = []
    escaped = False
    for char in text:
        if escaped or char not in "\n\r\\":
            line.append(char)
            escaped = False
        elif char == "\\":
            escaped = True
        elif line:
            yield "".join(line)
            line = []
    if line or escaped:
        raise _bad_map(f"{''.join(line)!r} without an end of line")


def _link(line: str) -> TablespaceLink:
    oid, _, location = line.partition(" ")
    if _MAP_OID.fullmatch(oid) is None or int(oid) > 0xFFFFFFFF or not location or "\0" in location:
        raise _bad_map(repr(line))
    return TablespaceLink(int(oid), location)


def format_tablespace_map(links: Iterable[TablespaceLink]) -> bytes:
    """The bytes of a tablespace_map: newline, carriage return and backslash are escaped with a backslash."""
    lines = (f"{link.oid} {_ESCAPED.sub(_escape, link.location)}\n" for link in links)
    return "".join(lines).encode("utf-8", "surrogateescape")


def _escape(match: re.Match[str]) -> str:
    return "\\" + match[0]


def _bad_map(found: str) -> Fault:
    return Fault(
        "backup-invalidated",
        f"not a tablespace_map: it holds {found}, expected lines of a tablespace's OID and its location",
        hint="take the backup again; PostgreSQL could not start from this one",
    )
