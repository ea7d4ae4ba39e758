"""Stretches of consecutive numbers: `numpy.diff` with its options would say it, at five times the cost of the work."""

from __future__ import annotations

import numpy as np

from pgkeep.format.footer import I64


def first_of_runs(numbers: I64) -> I64:
    """The rows of `numbers` (n,) that do not follow the number before them by one; the first row is one of them."""
    starts = np.ones(len(numbers), np.bool_)
    np.not_equal(numbers[1:], numbers[:-1] + 1, out=starts[1:])
    return np.flatnonzero(starts)


def lengths(first: I64, total: int) -> I64:
    """How many rows lie between each of these rows, ascending, and the next, of `total` rows."""
    counts = np.empty(len(first), np.int64)
    if len(first):
        np.subtract(first[1:], first[:-1], out=counts[:-1])
        counts[-1] = total - int(first[-1])
    return counts
