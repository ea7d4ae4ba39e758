"""What a recovering server says in its log (xlogrecovery.c, xlogarchive.c, xlog.c of 14 to 18), line by line (pure).

The server is started with lc_messages=C, so that its sentences are these.  Lines that `wal get` writes begin with
"error: ".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pgkeep.errors import Fault
from pgkeep.restore.moment import parse_moment
from pgkeep.values.lsn import Lsn

_LSN: Final = r"([0-9A-F]+/[0-9A-F]+)"
_RESTORED: Final = re.compile(r'restored log file "([0-9A-F]{24})" from archive')
_CONSISTENT: Final = re.compile(rf"consistent recovery state reached at {_LSN}")
_STOPPING: Final = re.compile(r"(recovery stopping (?:before|after|at) .*)")
_REDO_DONE: Final = re.compile(rf"redo done at {_LSN}")
_LAST_TIME: Final = re.compile(r"last completed transaction was at log time (.*)")
_NEW_TIMELINE: Final = re.compile(r"selected new timeline ID: (\d+)")
_FATAL: Final = re.compile(r"(?:FATAL|PANIC):  (.*)")
_NOT_REACHED: Final = "recovery ended before configured recovery target was reached"
_NOT_RESTORED: Final = "could not restore file"
_PAUSED: Final = "pausing at the end of recovery"
_SETTINGS: Final = "recovery has paused"
_READY: Final = "database system is ready to accept connections"
_READ_ONLY: Final = re.compile(r"database system is ready to accept read[- ]only connections")
_STREAMING: Final = "started streaming WAL from primary"
_TARGET_SHUTDOWN: Final = "shutdown at recovery target"


@dataclass
class RecoveryLog:
    """What is known after the lines seen so far."""

    segments: int = 0
    """WAL segments restored; one may come twice."""
    consistent: Lsn | None = None
    stopping: str = ""
    """The server's own sentence on where it stops."""
    redo_done: Lsn | None = None
    """Start of the last record that was replayed."""
    last_time: datetime | None = None
    """When the last transaction that was replayed had ended."""
    new_timeline: int | None = None
    is_ready: bool = False
    is_paused: bool = False
    is_shut_down: bool = False
    is_hot_standby: bool = False
    """It answers read-only queries."""
    is_streaming: bool = False
    fatal: str = ""
    lacks_settings: bool = False
    get_error: str = ""
    """What `wal get` said last."""

    def see(self, line: str) -> None:
        """Take one line of the log."""
        if line.startswith("error: "):
            self.get_error = line.removeprefix("error: ")
        elif _RESTORED.search(line):
            self.segments += 1
        elif match := _CONSISTENT.search(line):
            self.consistent = Lsn.parse(match[1])
        elif match := _STOPPING.search(line):
            self.stopping = match[1]
        elif match := _REDO_DONE.search(line):
            self.redo_done = Lsn.parse(match[1])
        elif match := _LAST_TIME.search(line):
            self.last_time = _moment(match[1])
        elif match := _NEW_TIMELINE.search(line):
            self.new_timeline = int(match[1])
        elif (match := _FATAL.search(line)) and not self.fatal:
            self.fatal = match[1]
        self._states(line)

    def _states(self, line: str) -> None:
        self.is_ready |= _READY in line
        self.is_paused |= _PAUSED in line
        self.is_hot_standby |= _READ_ONLY.search(line) is not None
        self.is_streaming |= _STREAMING in line
        self.is_shut_down |= _TARGET_SHUTDOWN in line
        self.lacks_settings |= _SETTINGS in line and _PAUSED not in line

    def fault(self, log: str) -> Fault:
        """Why recovery ended: `target-unreachable`, `wal-gap` or `recovery-failed`; `log` is the log file's path."""
        if _NOT_REACHED in self.fatal:
            return Fault(
                "target-unreachable",
                f"recovery came to the end of the archived WAL before the target{self._how_far()}",
                hint="restore to a target at or before that, or with --latest to the end",
                log=log,
                nearest=self.last_time,
            )
        if _NOT_RESTORED in self.fatal:
            why = self.get_error or self.fatal
            code = "wal-gap" if "gap" in why or "lacks" in why or "missing" in why else "recovery-failed"
            return Fault(code, f"recovery stopped{self._how_far()}: {why}", hint=f"the server's log is {log}", log=log)
        why = self.fatal or self.get_error or "the server ended without saying why"
        return Fault(
            "recovery-failed", f"recovery failed{self._how_far()}: {why}", hint=f"the server's log is {log}", log=log
        )

    def _how_far(self) -> str:
        when = f", the last transaction ended at {self.last_time}" if self.last_time is not None else ""
        return f" (at {self.redo_done}{when})" if self.redo_done is not None else ""


def _moment(text: str) -> datetime | None:
    try:
        return parse_moment(text.strip())
    except Fault:
        return None
