"""Gather: the stored bytes of many runs of units of one pack, each frame read and verified once.

`gather` hands them out in the order of the pack; `scatter` puts pages where they belong in a stretch of memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pgkeep.errors import Damaged
from pgkeep.format.footer import I64
from pgkeep.format.frame import FrameKind, split_frame
from pgkeep.repo.packreader import PackReader, verified_pages_into


@dataclass(frozen=True, slots=True)
class Found:
    """Some units of run `run` (its number in the request): `data` are its units from `skipped` on."""

    run: int
    skipped: int
    data: memoryview


class Target(Protocol):
    """Where whole frames of pages are decompressed to, without a copy."""

    headroom: int
    """Bytes before the pages that `room` lends."""

    def room(self, run: int, skipped: int, length: int) -> memoryview | None:
        """`headroom` bytes that keep their content, and `length` for the units of run `run` from `skipped` on."""
        ...

    def took(self, length: int) -> None:
        """What `room` gave last has been filled."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """The `part`-th (from 0) of `parts` about equal shares of the frames that are needed."""

    part: int = 0
    parts: int = 1


def gather(
    reader: PackReader, kind: FrameKind, first: I64, count: I64, share: Share = Share(), target: Target | None = None
) -> Iterator[Found]:
    """The units `first[i]` .. `first[i] + count[i]` of every run i, in the order of the pack; int64 (n,) each.

    `first` ascends; runs may overlap.  Each frame is fetched and verified once, in large ranges; over all shares, every
    frame belongs to exactly one.  What a `target` has room for goes there and is not handed out.  Raises Damaged, also
    when the pack does not have the units.
    """
    ends = reader.frames.unit_ends(kind, reader.page_size)
    last = first + count
    if len(first) and (not len(ends) or int(last.max()) > int(ends[-1])):
        raise Damaged(reader.key, f"does not hold the {kind.name} up to {int(last.max())} that a manifest places there")
    begins = np.concatenate(([0], ends[:-1])).astype(np.int64)
    covered = _covered(first, last, begins, ends) & (ends > begins)
    holders = covered & (reader.frames.kind == kind)
    if len(gaps := np.flatnonzero(covered & ~holders)):
        # Of a pack that is gone, whose dead frames were not moved.
        raise Damaged(reader.key, f"a manifest places {kind.name} where they were not kept (frame {int(gaps[0])})")
    wanted = _share(np.flatnonzero(holders), share)
    size = reader.page_size if kind is FrameKind.PAGES else 1
    reach = np.maximum.accumulate(last) if len(last) else last
    lows, highs = begins[wanted], ends[wanted]
    from_run = np.searchsorted(reach, lows, side="right").tolist()
    to_run = np.searchsorted(first, highs, side="left").tolist()
    spans = zip(lows.tolist(), highs.tolist(), from_run, to_run, strict=True)
    firsts, lasts = first.tolist(), last.tolist()
    for (index, row, stored, key), (low, high, begin, end) in zip(reader.fetch_frames(wanted), spans, strict=True):
        if target is not None and end - begin == 1 and firsts[begin] <= low and high <= lasts[begin]:
            room = target.room(begin, low - firsts[begin], (high - low) * size)
            if room is not None and verified_pages_into(row, index, stored, room, target.headroom, key):
                target.took(len(room) - target.headroom)
                continue
        data = _data(reader, reader.plain(index, row, stored, key), (high - low) * size)
        for number in range(begin, end):
            start, stop = max(firsts[number], low), min(lasts[number], high)
            if start < stop:
                yield Found(number, start - firsts[number], data[(start - low) * size : (stop - low) * size])


def scatter(reader: PackReader, first: I64, count: I64, place: I64, out: memoryview) -> None:
    """The pages `first[i]` .. `first[i] + count[i]` of every run i become the pages `place[i]` .. of `out`.

    int64 (n,) each, in any order.  Frames as with `gather`; Damaged.
    """
    size, ends = reader.page_size, reader.page_ends
    behind = np.cumsum(count)
    number = np.arange(int(behind[-1])) - np.repeat(behind - count, count)
    source, target = np.repeat(first, count) + number, np.repeat(place, count) + number
    order = np.argsort(source, kind="stable")
    source, target = source[order], target[order]
    if not len(ends) or int(source[-1]) >= int(ends[-1]):
        raise Damaged(reader.key, f"does not hold the page {int(source[-1])} that a manifest places there")
    wanted, begins = np.unique(np.searchsorted(ends, source, side="right"), return_index=True)
    if len(other := wanted[reader.frames.kind[wanted] != FrameKind.PAGES]):
        raise Damaged(reader.key, f"a manifest places pages where they were not kept (frame {int(other[0])})")
    lows = np.where(wanted > 0, ends[wanted - 1], 0)
    within = ((source - np.repeat(lows, np.diff(begins, append=len(source)))) * size).tolist()
    to = (target * size).tolist()
    expected = ((ends[wanted] - lows) * size).tolist()
    stops = [*begins[1:].tolist(), len(source)]
    at = 0
    for (_, raw), length, stop in zip(reader.read_frames(wanted), expected, stops, strict=True):
        data = _data(reader, raw, length)
        for here, there in zip(within[at:stop], to[at:stop], strict=True):
            out[there : there + size] = data[here : here + size]
        at = stop


def _data(reader: PackReader, raw: bytes, expected: int) -> memoryview:
    data = split_frame(raw, reader.key)[1]
    if len(data) != expected:
        raise Damaged(reader.key, f"a frame holds {len(data)} bytes, its table says {expected}")
    return data


def _covered(first: I64, last: I64, begins: I64, ends: I64) -> npt.NDArray[np.bool_]:
    """Which of the spans begins..ends hold a unit of some run first..last."""
    marks = np.zeros(len(ends) + 1, np.int64)
    np.add.at(marks, np.searchsorted(ends, first, side="right"), 1)
    np.add.at(marks, np.searchsorted(begins, last, side="left"), -1)
    return np.cumsum(marks[:-1]) > 0


def _share(wanted: npt.NDArray[np.int64], share: Share) -> npt.NDArray[np.int64]:
    n = len(wanted)
    return wanted[n * share.part // share.parts : n * (share.part + 1) // share.parts]
