"""One call of archive_command, and what it leaves for the next ones: push, marker, work ahead.

1. The order is the object, durable; then its marker; then the work ahead (docs/format/markers.md).
2. Markers and work ahead only save time.  Whatever keeps them from being made (a foreign account, a full disk) is no
   failure of the push, and they are made only for files of this data directory's own pg_wal.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.format import names
from pgkeep.repo.repository import Repository
from pgkeep.wal import marker
from pgkeep.wal.ahead import Limits, work_ahead
from pgkeep.wal.push import PushOutcome, push
from pgkeep.wal.token import FILE_NAME

WAL_FOLDER = "pg_wal"


@dataclass(frozen=True, slots=True)
class Archiver:
    """Archives files of the cluster in `data_directory` for a call that rests on `terms`."""

    repository: Repository
    clock: Clock
    terms: marker.Terms
    data_directory: str = "."

    def serve(self, path: str, limits: Callable[[str], Limits]) -> PushOutcome:
        """Archive the file at `path`, and leave somebody to work ahead.  `limits` are those of a cluster's name.

        Faults of `push`.
        """
        outcome = self.archive(path)
        folder = os.path.dirname(path)
        if self._is_ours(folder):
            with suppress(Fault, OSError):
                marker.remove_stale(folder)
                work_ahead(folder, outcome.name, self._archive_ahead, limits(outcome.cluster))
        return outcome

    def archive(self, path: str) -> PushOutcome:
        """Archive the file at `path` and leave its marker.  Faults of `push`."""
        store = self.repository.store
        token = os.path.abspath(os.path.join(self.data_directory, FILE_NAME))
        header = store.file_of(names.REPOSITORY)
        # Looked at before they are relied on: a later change then shows.  A token that is only now made shows as well.
        terms = self.terms.with_files(token, *filter(None, [header]))
        outcome = push(self.repository, path, self.clock, data_directory=self.data_directory)
        if self._is_ours(os.path.dirname(path)):
            with suppress(OSError):
                self._mark(path, outcome, terms.with_files(*filter(None, [store.file_of(outcome.key)])))
        return outcome

    def _archive_ahead(self, path: str) -> None:
        self.archive(path)

    def _mark(self, path: str, outcome: PushOutcome, terms: marker.Terms) -> None:
        with suppress(FileExistsError):
            os.mkdir(os.path.dirname(marker.path_of(path)), 0o700)
        marker.write(
            path,
            marker.Marker(
                marker.boot_id(),
                outcome.stamp,
                outcome.content_hash.hex(),
                self.repository.id.hex(),
                outcome.token.hex(),
                terms,
            ),
        )

    def _is_ours(self, folder: str) -> bool:
        """True for the data directory's pg_wal, if this account owns it: what root makes there, nobody could mend."""
        own = os.path.join(self.data_directory, WAL_FOLDER)
        try:
            return os.path.samefile(folder or ".", own) and os.stat(own).st_uid == os.geteuid()
        except OSError:
            return False
