"""Target: the moment to which a recovery goes (manual, section 20.5.6, "Recovery Target").

Pure.  The text forms that people type are read here and in `moment`; which backup and timeline serve a target is the
business of `plan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Self

from pgkeep.errors import Fault
from pgkeep.restore.moment import show_moment
from pgkeep.values.lsn import Lsn

MAX_NAME = 63
"""Bytes of a restore point's name (MAXFNAMELEN - 1 of xlog_internal.h)."""


class TargetKind(Enum):
    """What a target names."""

    TIME = "time"
    LSN = "lsn"
    XID = "xid"
    NAME = "name"
    IMMEDIATE = "immediate"
    """As soon as the backup is consistent."""
    LATEST = "latest"
    """The end of the archived WAL."""


@dataclass(frozen=True, slots=True)
class Target:
    """One moment.  Exactly the field of its kind is set; `inclusive` counts for TIME, LSN and XID alone.

    `timeline` is None unless the user named one.
    """

    kind: TargetKind
    time: datetime | None = None
    lsn: Lsn | None = None
    xid: int | None = None
    """64-bit, or its low 32 bits as logs and pg_waldump show them."""
    name: str | None = None
    inclusive: bool = True
    timeline: int | None = None

    @classmethod
    def at_time(cls, moment: datetime, *, inclusive: bool = True, timeline: int | None = None) -> Self:
        """The last commit at or (not inclusive) before an aware moment."""
        return cls(TargetKind.TIME, time=moment, inclusive=inclusive, timeline=timeline)

    @classmethod
    def at_lsn(cls, lsn: Lsn, *, inclusive: bool = True, timeline: int | None = None) -> Self:
        """The record at (inclusive) or just before a WAL position."""
        return cls(TargetKind.LSN, lsn=lsn, inclusive=inclusive, timeline=timeline)

    @classmethod
    def at_xid(cls, xid: int, *, inclusive: bool = True, timeline: int | None = None) -> Self:
        """The commit (or abort) of a top-level transaction, or just before it."""
        return cls(TargetKind.XID, xid=xid, inclusive=inclusive, timeline=timeline)

    @classmethod
    def at_name(cls, name: str, *, timeline: int | None = None) -> Self:
        """A restore point made with pg_create_restore_point.  `usage` for a name that none can have."""
        if not name or len(name.encode()) > MAX_NAME:
            raise Fault(
                "usage",
                f"not a restore point's name: {name!r}, expected 1 to {MAX_NAME} bytes",
                hint="use the name that was given to pg_create_restore_point",
            )
        return cls(TargetKind.NAME, name=name, timeline=timeline)

    @classmethod
    def immediate(cls, *, timeline: int | None = None) -> Self:
        """The end of the backup."""
        return cls(TargetKind.IMMEDIATE, timeline=timeline)

    @classmethod
    def latest(cls, *, timeline: int | None = None) -> Self:
        """Everything that is archived."""
        return cls(TargetKind.LATEST, timeline=timeline)

    def describe(self) -> str:
        """'just before transaction 741', for sentences."""
        before = "" if self.inclusive else "just before "
        match self.kind:
            case TargetKind.TIME:
                assert self.time is not None
                return f"{before}{show_moment(self.time)}"
            case TargetKind.LSN:
                return f"{before}{self.lsn}"
            case TargetKind.XID:
                return f"{before}transaction {self.xid}"
            case TargetKind.NAME:
                return f"restore point {self.name!r}"
            case TargetKind.IMMEDIATE:
                return "the end of the backup"
            case TargetKind.LATEST:
                return "the end of the archived WAL"


def parse_target_lsn(text: str) -> Lsn:
    """'0/3000148'; Fault `usage` otherwise."""
    try:
        return Lsn.parse(text)
    except ValueError as error:
        raise Fault("usage", str(error), hint="pg_current_wal_lsn() and pg_waldump show LSNs") from None


def parse_target_xid(text: str) -> int:
    """A decimal transaction id of 32 or 64 bits that a transaction can have; Fault `usage` otherwise."""
    stripped = text.strip()
    if not (stripped.isascii() and stripped.isdecimal() and 3 <= int(stripped) < 1 << 64):
        raise Fault(
            "usage",
            f"not a transaction id: {text!r}, expected a decimal number from 3 on",
            hint="txid_current(), log_line_prefix's %x and `pgkeep accidents` show them",
        )
    return int(stripped)
