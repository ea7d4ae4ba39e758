"""The small objects by which deletion is safe: features, leases, marks, condemnations, pins (docs/format/objects.md).

How they are used is in docs/format/order.md; here are only their bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from pgkeep.errors import Damaged
from pgkeep.format.header import Header
from pgkeep.format.limits import MAX_CONDEMNED
from pgkeep.format.objects import decode_contents, encode_object, required
from pgkeep.format.record import Natural, Record, Small, TimelineId, decode_record
from pgkeep.format.section import SectionType
from pgkeep.values.ids import ObjectId

_COUNT: Final = struct.Struct("<I")
_ID_LENGTH: Final = 16


class FeatureInfo(Record, frozen=True, kw_only=True):
    """INFO of a feature object; its key alone decides."""

    name: str
    why: str
    writer: str
    created: str


class LeaseInfo(Record, frozen=True, kw_only=True):
    """INFO of one renewal of a lease."""

    holder: str
    """Host and process, for people."""
    purpose: str
    bases: list[str]
    """Backups that the holder reads, or inherits from."""
    seconds: Small
    """How long this renewal is good."""
    lock_until: str | None = None


class RetiredInfo(Record, frozen=True, kw_only=True):
    """INFO of the mark that a backup is leaving."""

    backup: str
    why: str
    writer: str
    created: str


class CondemnedInfo(Record, frozen=True, kw_only=True):
    """INFO of a list of packs that nobody may inherit from and that will be deleted."""

    writer: str
    created: str
    lease: Small
    """Seconds of the longest lease that the sweep saw."""
    skew: Small
    """Seconds that are waited besides."""


class PinWindow(Record, frozen=True, kw_only=True):
    """A span of which every moment is held, from a pinned backup on, along the lineage of a timeline."""

    begin: str
    """ISO 8601, as is `end`."""
    end: str
    timeline: TimelineId
    why: str
    last: Natural | None = None
    """Number of the last segment that is held; None while no backup began at or after `end`."""


class PinInfo(Record, frozen=True, kw_only=True):
    """INFO of a pin: one row of a backup's story of being held."""

    backup: str
    why: str
    """Of holding the backup itself; empty when only its windows are held."""
    until: str | None
    by: str
    released: bool
    created: str = ""
    windows: list[PinWindow] = msgspec.field(default_factory=list)


class DamagedInfo(Record, frozen=True, kw_only=True):
    """INFO of the mark that a verify found a pack damaged."""

    pack: str
    problem: str
    writer: str
    created: str


class PrunedRange(Record, frozen=True, kw_only=True):
    """Segments first..last of a timeline that a prune took out of the archive."""

    system_id: Natural
    timeline: TimelineId
    first: Natural
    last: Natural


class PrunedInfo(Record, frozen=True, kw_only=True):
    """INFO of the record of what prunes took out of a cluster's WAL archives."""

    writer: str
    created: str
    ranges: list[PrunedRange]


def encode_condemned(header: Header, info: CondemnedInfo, packs: Iterable[ObjectId]) -> list[bytes]:
    """The object that condemns `packs`, MAX_CONDEMNED of them at most."""
    ids = sorted(set(packs))
    if len(ids) > MAX_CONDEMNED:
        raise ValueError(f"{len(ids)} packs in one condemnation, the limit is {MAX_CONDEMNED}")
    return encode_object(header, info, condemned_packs=_COUNT.pack(len(ids)) + b"".join(ids))


def decode_condemned(data: bytes, obj: str) -> tuple[CondemnedInfo, Sequence[ObjectId]]:
    """The record and the packs, ascending; Damaged."""
    contents = decode_contents(data, obj)
    info = decode_record(required(contents, SectionType.INFO, obj), CondemnedInfo, obj)
    content = required(contents, SectionType.CONDEMNED_PACKS, obj)
    n = _COUNT.unpack_from(content)[0] if len(content) >= _COUNT.size else -1
    if not 0 <= n <= MAX_CONDEMNED or len(content) != _COUNT.size + n * _ID_LENGTH:
        raise Damaged(obj, f"{len(content)} bytes cannot hold its {n} condemned packs")
    packs = [ObjectId(content[at : at + _ID_LENGTH]) for at in range(_COUNT.size, len(content), _ID_LENGTH)]
    if any(before >= after for before, after in pairwise(packs)):
        raise Damaged(obj, "its condemned packs are not in order")
    return info, packs
