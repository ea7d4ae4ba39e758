"""Transaction ids as a server shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class XidSnapshot:
    """pg_current_snapshot(): 64-bit transaction ids; every xid < xmin is over, none >= xmax had begun."""

    xmin: int
    xmax: int
    in_progress: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> XidSnapshot:
        """Read 'xmin:xmax:xip,xip' (func.sgml, pg_snapshot); ValueError otherwise."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), tuple(int(xid) for xid in running.split(",") if xid))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.in_progress))}"
