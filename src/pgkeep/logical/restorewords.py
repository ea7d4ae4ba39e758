"""What pg_restore says while it works: progress, errors, and in the end whether it has succeeded.

pg_restore goes on after an error by itself; here the first that is not tolerated ends it.  It has succeeded when it
says so, or when every error that it counts is one that was tolerated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from pgkeep.errors import Fault
from pgkeep.events import Announce, Progress, Warned
from pgkeep.logical.tolerance import Tolerated, tolerated
from pgkeep.pg.child import Child

_IGNORED: Final = re.compile(r"errors ignored on restore: (\d+)")
_PARALLEL_DONE: Final = "pg_restore: finished item "
_SERIAL_DONE: Final = ("pg_restore: creating ", "pg_restore: processing data for ", "pg_restore: executing ")


@dataclass(slots=True)
class Heard:
    """What pg_restore said so far."""

    done: int = 0
    let_pass: dict[Tolerated, int] = field(default_factory=dict)
    errors: int = 0
    fatal: str = ""
    ignored: int = 0


class RestoreWords:
    """Hears the lines of one pg_restore with `jobs` connections to a server of `major`; `total` items are to come."""

    def __init__(self, jobs: int, total: int, major: int, announce: Announce) -> None:
        self.heard = Heard()
        self._jobs, self._total, self._major, self._announce = jobs, total, major, announce
        self.child: Child | None = None

    def hear(self, line: str) -> None:
        heard = self.heard
        if line.startswith(_PARALLEL_DONE) or (self._jobs == 1 and line.startswith(_SERIAL_DONE)):
            heard.done += 1
            self._announce(Progress(min(heard.done, self._total), self._total, unit="objects"))
        elif "error: " in line or tolerated(line, self._major) is not None:
            self._hear_error(line)
        elif match := _IGNORED.search(line):
            heard.ignored = int(match[1])

    def _hear_error(self, line: str) -> None:
        """Workers write to one pipe, a message in pieces: prefixes may stand before the wrong text, but no text is cut.

        So errors and tolerated texts are counted apart, and must come to the same number in the end.
        """
        heard = self.heard
        heard.errors += line.count("error: ")
        rule = tolerated(line, self._major)
        if rule is not None:
            heard.let_pass[rule] = heard.let_pass.get(rule, 0) + len(re.findall(rule.pattern, line))
        text = line.rpartition("error: ")[2]
        if rule is None and text.strip() and not heard.fatal:
            heard.fatal = f"pg_restore: {text}"
            if self.child is not None:
                self.child.ask_to_end()

    def judge(self, child: Child) -> None:
        """Rule 3."""
        status = child.process.returncode
        fault = child.fault() if status != 0 else None
        heard = self.heard
        if heard.fatal:
            code = fault.code if fault is not None else "load-failed"
            raise Fault(code, heard.fatal, hint=fault.hint if fault is not None else "", said=child.said)
        if fault is None:
            return
        if status != 1 or not heard.ignored or heard.errors != sum(heard.let_pass.values()):
            raise fault
        for rule in heard.let_pass:
            text = f"the server refused a setting of pg_restore's, and nothing is lost by it: {rule.why}"
            self._announce(Warned("tolerated", text))
