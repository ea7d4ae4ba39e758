"""Stretches of consecutive numbers."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pgkeep.format.runs import first_of_runs, lengths


@given(st.lists(st.integers(0, 40), unique=True).map(sorted))
def test_stretches_are_what_counting_finds(numbers: list[int]) -> None:
    first = first_of_runs(np.array(numbers, np.int64))
    counts = lengths(first, len(numbers))
    found = [numbers[at : at + count] for at, count in zip(first.tolist(), counts.tolist(), strict=True)]
    grouped = itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    assert found == [[number for _, number in group] for _, group in grouped]
