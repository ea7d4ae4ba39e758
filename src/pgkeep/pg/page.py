"""Pages: headers, LSNs and checksums of relation files, many at a time.

Rules of this file:

1. Pages are 8192 bytes, little-endian (storage/bufpage.h).  Every function takes whole pages in one contiguous buffer,
   reads it in place and never changes it.
2. The checksum is that of storage/checksum_impl.h: FNV-1a in 32 lanes of 32-bit words, pd_checksum taken as zero,
   mixed with the block number *within the relation*, not within the file.
3. A page with pd_upper = 0 is *new*, without a checksum, only if it is all zeros.  Otherwise it is wrong, like a page
   that PageIsVerified (storage/page/bufpage.c) would refuse.
4. Wrong is not yet bad.  While a backup runs, a page may be read half written.  If its LSN is at or past the backup's
   start, WAL repairs it, unless the LSN is itself garbage: such pages are *pending*, and bad if that LSN lies past the
   backup's stop.  If its LSN is before the start, the half that was read first is the old one: the caller reads the
   page once more before it believes `bad`.
5. Speed comes with size: hand over 1 MiB or more at once (128 KiB costs more than twice as much a page).
6. `PageChecker` keeps scratch memory and is not for two threads at once; the module's functions keep one a thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

BLCKSZ: Final = 8192
HEADER_SIZE: Final = 24
VALID_FLAGS: Final = 0x0007  # PD_VALID_FLAG_BITS, the same from 14 to 18
MAXIMUM_ALIGNMENT: Final = 8

# Pages of one round.  Each call of numpy then works on 8192 words (32 KiB): fewer do not pay for the call when both
# threads of a core are busy, as in a backup; many more leave the near caches.
BATCH_PAGES: Final = 256
# Rows of 32 words of each page that are transposed at once.
_ROWS_AT_ONCE: Final = 8
_ROWS: Final = BLCKSZ // 128

Buffer = bytes | bytearray | memoryview
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Blocks = int | npt.NDArray[np.integer[Any]]

# checksumBaseOffsets of checksum_impl.h
_OFFSETS: Final[U32] = np.array(
    [
        0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
        0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
        0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
        0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
    ],
    dtype=np.uint32,
)  # fmt: skip
# Arrays without dimensions: numpy converts a scalar anew in every call, which costs as much as the call.
_PRIME: Final[U32] = np.array(16777619, dtype=np.uint32)
_SHIFT: Final[U32] = np.array(17, dtype=np.uint32)
_WITHOUT_CHECKSUM: Final[U32] = np.array(0xFFFF0000, dtype=np.uint32)
_CHECKSUM_WORD: Final = 2  # pd_checksum is the low half of the third 32-bit word


@dataclass(frozen=True, slots=True, eq=False)
class PageReport:
    """What was found in n pages; every array has the shape (n,).

    `lsns`: pd_lsn (uint64).  `new`: all zeros.  `bad`: refused, and the LSN is before the backup's start.
    `pending`: refused, but the LSN is at or past the start: bad only if it is past the backup's stop.
    """

    lsns: U64
    new: Mask
    bad: Mask
    pending: Mask


def _words(buf: Buffer) -> U32:
    """The pages of `buf` as 32-bit words, (n, 2048), without a copy; ValueError for a piece of a page."""
    if memoryview(buf).nbytes % BLCKSZ:
        raise ValueError(f"{memoryview(buf).nbytes} bytes are not whole pages of {BLCKSZ}")
    return np.frombuffer(buf, dtype="<u4").reshape(-1, BLCKSZ // 4)


def _header(words: U32, count: int) -> U64:
    """The first `count` eight-byte words of each page's header, (count, n), contiguous by word."""
    return np.ascontiguousarray(words.view("<u8")[:, :count].T)


def _lsns(first_words: U64) -> U64:
    """PageXLogRecPtr is two 32-bit words, high first: not the order of a little-endian 64-bit number."""
    high, low = first_words << np.uint64(32), first_words >> np.uint64(32)
    return high | low


def page_lsns(buf: Buffer) -> U64:
    """pd_lsn of every page, shape (n,).  ValueError if `buf` is not whole pages."""
    return _lsns(_header(_words(buf), 1)[0])


def _numbers(first_block: Blocks, n: int) -> U32:
    """The pages' numbers within their relation as the checksum takes them: modulo 2**32."""
    if isinstance(first_block, int):
        blocks = np.arange(first_block, first_block + n, dtype=np.uint64)
    else:
        blocks = first_block.astype(np.uint64)
    return (blocks & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def dated_pages(buf: Buffer) -> tuple[U64, Mask]:
    """(pd_lsn of every page, whether it can be believed), shapes (n,), from the headers alone.

    Not believed is the LSN of a page that PageIsVerified would refuse by its header, or that is new (pd_upper = 0).
    LSN 0 is believed: pages have it that were made at wal_level=minimal and never changed since.  ValueError if `buf`
    is not whole pages.
    """
    first, second, third = _header(_words(buf), 3)
    dated: Mask = _sane(second, third)
    dated &= second >> np.uint64(48) != 0
    return _lsns(first), dated


def _sane(second: U64, third: U64) -> Mask:
    """PageIsVerified's test of a header that is not new: flags, and lower <= upper <= special <= BLCKSZ."""
    flags = second >> np.uint64(16) & np.uint64(0xFFFF)
    lower = second >> np.uint64(32) & np.uint64(0xFFFF)
    upper = second >> np.uint64(48)
    special = third & np.uint64(0xFFFF)
    sane: Mask = (flags & np.uint64(0xFFFF & ~VALID_FLAGS)) == 0
    sane &= lower <= upper
    sane &= upper <= special
    sane &= special <= BLCKSZ
    sane &= special % np.uint64(MAXIMUM_ALIGNMENT) == 0
    return sane


class PageChecker:
    """Checks pages with scratch memory that is allocated once.  Not safe for two threads at once."""

    def __init__(self) -> None:
        self._lanes: U32 = np.empty((BATCH_PAGES, 32), dtype=np.uint32)
        self._spare: U32 = np.empty((BATCH_PAGES, 32), dtype=np.uint32)
        self._rows: U32 = np.empty(_ROWS_AT_ONCE * BATCH_PAGES * 32, dtype=np.uint32)

    def checksums(self, buf: Buffer, first_block: Blocks) -> U16:
        """What pd_checksum of every page should be, shape (n,).

        `first_block` is the block number within the relation of the first page, or that of every page.  The value
        means nothing for new pages.  ValueError if `buf` is not whole pages.
        """
        return self._checksums(_words(buf), first_block)

    def _checksums(self, words: U32, first_block: Blocks) -> U16:
        pages = words.reshape(-1, _ROWS, 32)
        sums = np.empty(len(pages), dtype=np.uint32)
        for start in range(0, len(pages), BATCH_PAGES):
            batch = pages[start : start + BATCH_PAGES]
            np.bitwise_xor.reduce(self._hash(batch), axis=1, out=sums[start : start + len(batch)])
        sums ^= _numbers(first_block, len(pages))
        sums %= np.uint32(65535)
        sums += np.uint32(1)
        return sums.astype(np.uint16)

    def _hash(self, batch: U32) -> U32:
        """The 32 lanes of every page of a batch (pg_checksum_block before its last fold), (pages, 32)."""
        count = len(batch)
        lanes, spare = self._lanes[:count].reshape(-1), self._spare[:count].reshape(-1)
        rows = self._rows[: _ROWS_AT_ONCE * count * 32].reshape(_ROWS_AT_ONCE, count * 32)
        by_page = rows.reshape(_ROWS_AT_ONCE, count, 32)
        lanes.reshape(count, 32)[:] = _OFFSETS
        for start in range(0, _ROWS, _ROWS_AT_ONCE):
            np.copyto(by_page, batch[:, start : start + _ROWS_AT_ONCE].transpose(1, 0, 2))
            if start == 0:
                by_page[0, :, _CHECKSUM_WORD] &= _WITHOUT_CHECKSUM
            for row in rows:
                np.bitwise_xor(lanes, row, out=lanes)
                _mix(lanes, spare)
        _mix(lanes, spare)
        _mix(lanes, spare)
        return lanes.reshape(count, 32)

    def inspect(self, buf: Buffer, first_block: Blocks, *, checksums: bool, start_lsn: int) -> PageReport:
        """Judge every page of `buf` by the rules of this module.

        `first_block` is the block number within the relation of the first page, or those of all pages (integers of
        shape (n,)), `checksums` whether the cluster has data checksums, `start_lsn` where the backup began (2**64 - 1
        judges pages at rest: nothing stays pending).
        ValueError if `buf` is not whole pages.
        """
        words = _words(buf)
        first, second, third = _header(words, 3)
        lsns = _lsns(first)
        wrong = ~_sane(second, third)
        if checksums:
            wrong |= self._checksums(words, first_block) != second.astype(np.uint16)
        new = self._new(words, second, wrong)
        before = lsns < np.uint64(start_lsn)
        return PageReport(lsns, new, wrong & before, wrong & ~before)

    @staticmethod
    def _new(words: U32, second: U64, wrong: Mask) -> Mask:
        """Which pages are all zeros; corrects `wrong` for every page that has pd_upper = 0."""
        new: Mask = second >> np.uint64(48) == 0
        candidates = np.flatnonzero(new)
        if len(candidates):
            zero = np.array([not words[page].any() for page in candidates], dtype=np.bool_)
            new[candidates] = zero
            wrong[candidates] = ~zero
        return new


def _mix(lanes: U32, spare: U32) -> None:
    """The second half of CHECKSUM_COMP, in place: lane * FNV_PRIME ^ lane >> 17."""
    np.right_shift(lanes, _SHIFT, out=spare)
    np.multiply(lanes, _PRIME, out=lanes)
    np.bitwise_xor(lanes, spare, out=lanes)


class _CheckerOfThread(threading.local):
    def __init__(self) -> None:
        self.checker = PageChecker()


_own = _CheckerOfThread()


def checksums(buf: Buffer, first_block: int) -> U16:
    """`PageChecker.checksums` with this thread's own scratch memory."""
    return _own.checker.checksums(buf, first_block)


def inspect(buf: Buffer, first_block: int, *, checksums: bool, start_lsn: int) -> PageReport:
    """`PageChecker.inspect` with this thread's own scratch memory."""
    return _own.checker.inspect(buf, first_block, checksums=checksums, start_lsn=start_lsn)
