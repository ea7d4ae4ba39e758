"""When to kill what runs: drawn at random, and as early or late as the machine is slow or quick at the moment.

A time that was measured once is no guide on a machine that does other work too: kills then come when everything is
over, and a hundred of them prove nothing.
"""

from __future__ import annotations

import random
from typing import Final

_EARLIER: Final = 0.85
"""After a kill that came too late."""
_LATER: Final = 1.04
"""After one that came in time: so about one in five comes too late."""


class Aim:
    """Moments over the whole course of something that takes `usual` seconds, or around its end (`begin` near 1)."""

    def __init__(self, chance: random.Random, usual: float, begin: float = 0.1) -> None:
        self._chance = chance
        self._usual = usual
        self._begin = begin
        self.early = 0
        """Kills that came before the end."""
        self.late = 0

    def moment(self) -> float:
        """Seconds from the start to the next kill."""
        return self._usual * self._chance.uniform(self._begin, 1.1)

    def came(self, *, late: bool) -> None:
        """What became of the kill."""
        self._usual *= _EARLIER if late else _LATER
        if late:
            self.late += 1
        else:
            self.early += 1

    def check(self) -> None:
        """Of many kills at least half must have been any."""
        print(f"{self.early} of {self.early + self.late} kills came in time")
        assert self.early >= self.late or self.early + self.late < 20
