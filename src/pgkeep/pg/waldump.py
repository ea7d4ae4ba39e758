"""What pg_waldump finds in a directory of segments: ends of transactions, restore points, tablespaces.

1. One call reads one timeline; who follows a history calls once for each of its timelines.
2. pg_waldump fails at the end of WAL, always: that is told apart from damage by where it failed.  In the last
   segment there is, it is the end; before that, it is a Fault.
3. Lines hold text that users chose (names of prepared transactions, of restore points, paths), line breaks
   included, so nothing is searched for in a line: patterns match whole descriptions, and a COMMIT with the
   remainder of another line behind it is a forgery and no record.
4. Times are printed in the reader's zone: it runs with TZ=UTC.
5. pg_waldump 14 takes one resource manager at a time (15 made -r repeatable): it runs once for each there.

Formats: src/backend/access/rmgrdesc/{xact,xlog,tblspc}desc.c and src/bin/pg_waldump/pg_waldump.c, 14 to 18.
"""

from __future__ import annotations

import heapq
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from pgkeep.errors import Fault
from pgkeep.pg.programs import Programs
from pgkeep.pg.walrecord import RECORD_HEADER, WAL_PAGE, read_record, record_end
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import Segment, WalFileKind, timeline_of, wal_file_kind

TRANSACTION, XLOG, TABLESPACE = "Transaction", "XLOG", "Tablespace"
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_TIME = r"\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} UTC"
_LINE = re.compile(
    r"rmgr: (?P<rmgr>\S+) +len \(rec/tot\): +\d+/ *(?P<length>\d+), tx: +(?P<xid>\d+), "
    r"lsn: (?P<lsn>[0-9A-F]+/[0-9A-F]{8}), prev [0-9A-F]+/[0-9A-F]{8}, desc: (?P<desc>.*)",
    re.DOTALL,
)
# Nearly all lines of a busy server: an ending with nothing behind it, so that nothing can be forged in it.
_PLAIN = re.compile(
    r"rmgr: Transaction +len \(rec/tot\): +\d+/ *(\d+), tx: +(\d+), lsn: ([0-9A-F]+)/([0-9A-F]{8}), "
    r"prev [0-9A-F]+/[0-9A-F]{8}, desc: (COMMIT|ABORT) (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) UTC"
)
_END = re.compile(
    rf"(?P<verb>COMMIT|ABORT)(?:_PREPARED (?P<prepared>\d+):)? (?P<time>{_TIME})(?P<rest>(?:; .*)?)", re.DOTALL
)
_ORIGIN = re.compile(rf"; origin: node \d+, lsn [0-9A-F]+/[0-9A-F]+, at {_TIME}$")
_SUBXACTS = re.compile(r"; subxacts:((?: \d+)+)(?:;|$)")
_POINT = re.compile(r"RESTORE_POINT (?P<name>.*)", re.DOTALL)
_CREATE = re.compile(r'CREATE (?P<oid>\d+) "(?P<path>.*)"', re.DOTALL)
_DROP = re.compile(r"DROP (?P<oid>\d+)")
_SEGMENT_NAME = re.compile(r"[0-9A-F]{24}")
_LSN = re.compile(r"\b[0-9A-F]{1,8}/[0-9A-F]{1,8}\b")
_LAST_GOOD = re.compile(r"error in WAL record at ([0-9A-F]+/[0-9A-F]+):")
_NO_RECORD = "could not find a valid record after"


@dataclass(frozen=True, slots=True)
class WalRecord:
    """A record from `lsn` up to the first byte after it, `end`."""

    lsn: Lsn
    end: Lsn


@dataclass(frozen=True, slots=True)
class TransactionEnd(WalRecord):
    """COMMIT or ABORT of top-level transaction `xid` (32 bits), at `time` (UTC) by the server's clock.

    `subxacts` are the xids that its rows may carry but that recovery_target_xid cannot find.
    """

    xid: int
    committed: bool
    time: datetime
    subxacts: tuple[int, ...]
    prepared: bool


@dataclass(frozen=True, slots=True)
class RestorePoint(WalRecord):
    """pg_create_restore_point(name), at `time` (UTC)."""

    name: str
    time: datetime


@dataclass(frozen=True, slots=True)
class TablespaceCreated(WalRecord):
    """Replaying this links to `path`, the original absolute path; '' for an in-place tablespace."""

    xid: int
    oid: int
    path: str


@dataclass(frozen=True, slots=True)
class TablespaceDropped(WalRecord):
    xid: int
    oid: int


@dataclass(frozen=True, slots=True)
class WalRange:
    """The segments of one timeline in `directory`, to be read from `start` up to `end`.

    `end` None: to the end of the WAL that is there.  A record that begins before `end` and ends after it is not read.
    """

    directory: Path
    timeline: int
    start: Lsn
    end: Lsn | None = None


def read_records(
    programs: Programs, source: WalRange, rmgrs: Sequence[str] = (TRANSACTION, XLOG, TABLESPACE)
) -> Iterator[WalRecord]:
    """The records of `rmgrs` that this module knows, in WAL order.

    `programs` must be of the version that wrote the WAL.  Raises Fault 'wal-missing' when a needed segment is not
    there, 'wal-gap' when WAL is unreadable although more of it follows.
    """
    span = _span(source)
    if source.end is not None and source.end <= source.start:
        return iter(())
    if programs.major >= 15:
        return _read(programs, source, span, rmgrs)
    return heapq.merge(*(_read(programs, source, span, [name]) for name in rmgrs), key=lambda record: record.lsn)


def end_of_wal(programs: Programs, directory: Path, timeline: int, start: Lsn) -> Lsn:
    """Where valid WAL of `timeline` ends, at or after the record at `start`: the first byte after its last record.

    Raises as read_records does.  When no record can be read from `start` on, the answer is `start`.
    """
    source = WalRange(directory, timeline, start)
    span = _span(source)
    last_segment = Lsn(max(start, span.numbers[-1] * span.segment_size))
    for begin in dict.fromkeys((last_segment, start)):
        said = _why_it_ended(programs, replace(source, start=begin), span)
        if _NO_RECORD in said:
            continue  # the segment holds nothing but the rest of a record that began before it
        if (good := _LAST_GOOD.search(said)) is not None:
            return _last_end(programs, replace(source, start=Lsn.parse(good[1])), span) or start
        return _end_before_boundary(programs, replace(source, start=begin), span) or start
    return start


def _why_it_ended(programs: Programs, source: WalRange, span: _Span) -> str:
    """What pg_waldump says when it has read (and not printed) `source`; '' when every byte of it was WAL."""
    try:
        for _ in programs.lines("pg_waldump", *_arguments(source, span), f"--rmgr={TABLESPACE}"):
            pass
    except Fault as fault:
        _judge_end(fault, source, span)
        return str(fault.context["stderr"])
    return ""


def _end_before_boundary(programs: Programs, source: WalRange, span: _Span) -> Lsn | None:
    """The end of the last record in segments that are known to be whole: looked for from their end backwards.

    Printing every record of a segment takes long, and a page or two hold the last ones.
    """
    for pages in (2, 32, 512, span.segment_size // WAL_PAGE * len(span.numbers)):
        near = Lsn(max(source.start, span.end - pages * WAL_PAGE))
        end = _last_end(programs, replace(source, start=near), span)
        if end is not None:
            return end
    return None


@dataclass(frozen=True, slots=True)
class _Span:
    """The gapless run of segments that a range needs, their size in bytes, and the LSN to read up to."""

    numbers: range
    segment_size: int
    end: Lsn


def _span(source: WalRange) -> _Span:
    """Find the segments of `source`; Fault 'wal-missing' or 'wal-gap' when they do not suffice."""
    names = {
        name: path.stat().st_size
        for path in source.directory.iterdir()
        if wal_file_kind(name := path.name) is WalFileKind.SEGMENT and timeline_of(name) == source.timeline
    }
    sizes = set(names.values())
    if len(sizes) > 1:
        raise Fault("wal-gap", f"segments in {source.directory} differ in size: {sorted(sizes)} bytes")
    size = sizes.pop() if sizes else 0
    numbers = sorted(Segment.parse(name, size).number for name in names)
    first = source.start // size if size else 0
    numbers = [number for number in numbers if number >= first]
    if not numbers or numbers[0] != first:
        raise Fault(
            "wal-missing",
            f"no segment of timeline {source.timeline} that holds {source.start} is in {source.directory}",
        )
    last = numbers[-1]
    if source.end is not None:
        last = min(last, (source.end - 1) // size)
    _refuse_gap(source, [number for number in numbers if number <= last], size)
    end = Lsn((last + 1) * size)
    if source.end is not None and source.end > end:
        raise Fault("wal-missing", f"WAL of timeline {source.timeline} is needed up to {source.end} but ends at {end}")
    return _Span(range(first, last + 1), size, min(end, source.end or end))


def _refuse_gap(source: WalRange, numbers: Sequence[int], size: int) -> None:
    for before, after in pairwise(numbers):
        if after != before + 1:
            missing = Segment(source.timeline, before + 1).name(size)
            raise Fault("wal-gap", f"segment {missing} is missing, but later ones are there", segment=missing)


def _read(programs: Programs, source: WalRange, span: _Span, rmgrs: Sequence[str]) -> Iterator[WalRecord]:
    for line in _lines(programs, source, span, [f"--rmgr={name}" for name in rmgrs]):
        record: WalRecord | None = None
        if (plain := _PLAIN.fullmatch(line)) is not None:
            record = _plain_end(plain, span.segment_size)
        elif (match := _LINE.fullmatch(line)) is not None:
            record = _record(match, source, span)
        if record is not None:
            yield record


def _lines(programs: Programs, source: WalRange, span: _Span, options: Sequence[str] = ()) -> Iterator[str]:
    """pg_waldump's lines, each with the line breaks that its text holds."""
    pending: str | None = None
    try:
        for line in programs.lines("pg_waldump", *_arguments(source, span), *options, env={"TZ": "UTC"}):
            if _LINE.match(line) is None:
                pending = pending if pending is None else f"{pending}\n{line}"
                continue
            if pending is not None:
                yield pending
            pending = line
    except Fault as fault:
        _judge_end(fault, source, span)
    if pending is not None:
        yield pending


def _arguments(source: WalRange, span: _Span) -> list[str]:
    return [
        f"--path={source.directory}", f"--timeline={source.timeline}",
        f"--start={source.start}", f"--end={span.end}",
    ]  # fmt: skip


def _judge_end(fault: Fault, source: WalRange, span: _Span) -> None:
    """Return when pg_waldump met the end of WAL; raise Fault when it failed before that, or for another reason."""
    said = str(fault.context.get("stderr", ""))
    place = _place_of_failure(said, span)
    if place is None:
        raise fault
    if source.end is not None:
        raise Fault("wal-gap", f"WAL is unreadable before {source.end}, up to which it is needed: {_last_line(said)}")
    if place // span.segment_size < span.numbers[-1]:
        raise Fault("wal-gap", f"WAL is unreadable although later segments are there: {_last_line(said)}")


def _place_of_failure(said: str, span: _Span) -> int | None:
    """The LSN, or the start of the segment, where the reader stopped; None when the failure is not about WAL."""
    if _LAST_GOOD.search(said) is None and _NO_RECORD not in said:
        return None
    names = [Segment.parse(name, span.segment_size) for name in _SEGMENT_NAME.findall(said)]
    if names:
        return max(segment.number for segment in names) * span.segment_size
    return max(Lsn.parse(text) for text in _LSN.findall(said))


def _last_line(said: str) -> str:
    return said.splitlines()[-1].removeprefix("pg_waldump: ")


def _last_end(programs: Programs, source: WalRange, span: _Span) -> Lsn | None:
    """The end of the last record that is read from `source`, whatever it is; None when there is none."""
    last: re.Match[str] | None = None
    for line in _lines(programs, source, span):
        last = _LINE.fullmatch(line) or last
    if last is None:
        return None
    if last["rmgr"] == XLOG and last["desc"].startswith("SWITCH"):
        return Lsn((Lsn.parse(last["lsn"]) // span.segment_size + 1) * span.segment_size)
    return record_end(Lsn.parse(last["lsn"]), int(last["length"]), span.segment_size)


def _plain_end(match: re.Match[str], segment_size: int) -> TransactionEnd:
    """A COMMIT or ABORT without subtransactions, dropped files or anything else behind its time."""
    length, xid, high, low, verb, time = match.groups()
    lsn = Lsn(int(high, 16) << 32 | int(low, 16))
    end = record_end(lsn, int(length), segment_size)
    return TransactionEnd(lsn, end, int(xid), verb == "COMMIT", datetime.fromisoformat(time + "+00:00"), (), False)


def _record(match: re.Match[str], source: WalRange, span: _Span) -> WalRecord | None:
    """The record of a line, or None for one of no interest here."""
    lsn, length = Lsn.parse(match["lsn"]), int(match["length"])
    end = record_end(lsn, length, span.segment_size)
    rmgr, xid, desc = match["rmgr"], int(match["xid"]), match["desc"]
    if rmgr == TRANSACTION:
        return _transaction_end(lsn, end, xid, desc)
    if rmgr == TABLESPACE:
        if (created := _CREATE.fullmatch(desc)) is not None:
            return TablespaceCreated(lsn, end, xid, int(created["oid"]), created["path"])
        if (dropped := _DROP.fullmatch(desc)) is not None:
            return TablespaceDropped(lsn, end, xid, int(dropped["oid"]))
    if rmgr == XLOG and (point := _POINT.fullmatch(desc)) is not None:
        raw = read_record(source.directory, source.timeline, lsn, length, span.segment_size)
        return RestorePoint(lsn, end, point["name"], _restore_point_time(raw))
    return None


def _transaction_end(lsn: Lsn, end: Lsn, xid: int, desc: str) -> TransactionEnd | None:
    match = _END.fullmatch(desc)
    if match is None or _is_forged(match["rest"]):
        return None
    subxacts = _SUBXACTS.search(match["rest"])
    prepared = match["prepared"]
    return TransactionEnd(
        lsn=lsn,
        end=end,
        xid=int(prepared) if prepared else xid,
        committed=match["verb"] == "COMMIT",
        time=_time(match["time"]),
        subxacts=tuple(int(text) for text in subxacts[1].split()) if subxacts else (),
        prepared=prepared is not None,
    )


def _is_forged(rest: str) -> bool:
    """True when a second time follows: the end of a PREPARE whose name held a line break and this 'record'.

    PREPARE prints its time after the user's text, and the text is at most 199 bytes (GIDSIZE), too short for two
    such lines; a real COMMIT or ABORT has a second time only as its replication origin's.
    """
    return re.search(_TIME, _ORIGIN.sub("", rest)) is not None


def _time(text: str) -> datetime:
    # Half of the time of a scan went into strptime.
    return datetime.fromisoformat(text.removesuffix(" UTC") + "+00:00")


def _restore_point_time(record: bytes) -> datetime:
    """rp_time of an xl_restore_point: after the record's header and its 2 bytes of short data header."""
    (microseconds,) = struct.unpack_from("<q", record, RECORD_HEADER + 2)
    return _POSTGRES_EPOCH + timedelta(microseconds=microseconds)
