"""The mark of a restore that has not ended: which cluster a directory belongs to while it has no pg_control.

It is written before anything else and goes last.  A directory with the mark and without pg_control holds nothing but a
copy; what a dead server had left in it was saved before the mark was made (`delta`).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Final, Self

from pgkeep.pg.controlfile import CONTROL_FILE
from pgkeep.values.ids import ClusterUuid, ObjectId

UNFINISHED: Final = b"pgkeep.restore.unfinished"
"""In a target whose restore has not ended; such a directory cannot start."""
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Mark:
    """Which backup's cluster is written: the proof that a half-restored directory is of the same one."""

    repository: ObjectId
    cluster: ClusterUuid
    system_id: int

    def encode(self) -> bytes:
        """JSON text, schema 1."""
        return json.dumps(
            {
                "schema": 1,
                "note": "a restore by pgkeep writes here; until it ends nothing can start",
                "repository": str(self.repository),
                "cluster": self.cluster,
                "system_id": str(self.system_id),
            },
            indent=1,
        ).encode()

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """ValueError for anything else than `encode` makes."""
        try:
            fields = json.loads(text)
            if fields["schema"] != 1:
                raise ValueError(f"unknown schema {fields['schema']!r}")
            identity = ObjectId.parse(fields["repository"]), ClusterUuid(fields["cluster"])
            return cls(*identity, int(fields["system_id"]))
        except (KeyError, TypeError, AttributeError, UnicodeError) as error:
            raise ValueError(f"not the mark of a restore ({error!r})") from None


def read_mark(directory: str) -> Mark | None:
    """The mark in a directory; None when there is none, or none that can be understood."""
    try:
        with open(os.path.join(directory, os.fsdecode(UNFINISHED)), "rb") as file:
            return Mark.decode(file.read(_LONGEST))
    except (OSError, ValueError):
        return None


def is_unfinished(directory: str) -> bool:
    """True for the leavings of a restore that did not end: its mark is there and pg_control is not."""
    mark = os.path.join(directory, os.fsdecode(UNFINISHED))
    return os.path.lexists(mark) and not os.path.lexists(os.path.join(directory, CONTROL_FILE))
