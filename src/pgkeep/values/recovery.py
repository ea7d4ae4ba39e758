"""RecoveryLineage: what a restored server may read from the archive; written by restore, obeyed by `wal get`.

The standard library alone: `wal get` reads it before it imports anything else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Self

from pgkeep.values.ids import ClusterUuid, ObjectId
from pgkeep.values.lsn import Lsn
from pgkeep.values.wal import History, Switch

FILE_NAME: Final = "pgkeep.restore.json"
"""In the restored data directory; never part of a backup."""
SPOOL_PREFIX: Final = "pgkeep.spool."
"""Names of directories in pg_wal that hold WAL fetched ahead; a restore's random id follows, so that no other restore's
restore_command names it.  In pg_wal, because handing a file over is then a rename, and no backup copies it."""


@dataclass(frozen=True, slots=True)
class RecoveryLineage:
    """One repository, one cluster, one lineage of timelines: every segment has one right timeline."""

    repository: ObjectId
    cluster: ClusterUuid
    system_id: int
    segment_size: int
    history: History
    """Of the target timeline."""
    last_segment: int | None = None
    """Number of the last segment that the plan knew: what was archived later has not been looked at, and is not
    replayed (it may hold CREATE TABLESPACE with a running server's path).  None: no bound."""
    flush: Lsn | None = None
    """Where the WAL in `last_segment` ended, if it was a partial one when the plan was made: what is archived of it
    later has not been looked at either.  None: the plan knew the whole segment."""

    @property
    def last_whole_segment(self) -> int | None:
        """Number of the last segment that is served from its first byte to its last; None: no bound."""
        if self.last_segment is None or self.flush is None:
            return self.last_segment
        return self.last_segment - 1

    def encode(self) -> str:
        """JSON text, schema 1."""
        switches = [[s.timeline, str(s.lsn), s.reason] for s in self.history.switches]
        return json.dumps(
            {
                "schema": 1,
                "repository": str(self.repository),
                "cluster": self.cluster,
                "system_id": str(self.system_id),
                "segment_size": self.segment_size,
                "timeline": self.history.timeline,
                "switches": switches,
                "last_segment": self.last_segment,
                "flush": None if self.flush is None else str(self.flush),
            },
            indent=1,
        )

    @classmethod
    def decode(cls, text: str) -> Self:
        """ValueError (KeyError and TypeError included) for anything else than `encode` makes."""
        try:
            fields = json.loads(text)
            if fields["schema"] != 1:
                raise ValueError(f"unknown schema {fields['schema']!r}")
            switches = tuple(Switch(int(t), Lsn.parse(lsn), str(why)) for t, lsn, why in fields["switches"])
            return cls(
                ObjectId.parse(fields["repository"]),
                ClusterUuid(fields["cluster"]),
                int(fields["system_id"]),
                int(fields["segment_size"]),
                History(int(fields["timeline"]), switches),
                None if fields["last_segment"] is None else int(fields["last_segment"]),
                None if fields.get("flush") is None else Lsn.parse(fields["flush"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a recovery lineage ({error!r})") from None
