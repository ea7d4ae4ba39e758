"""LockWatch: says for whom a dump or a load waits, while it waits.

1. pg_dump waits silently for a table that somebody else has locked, and everybody who comes after waits behind it.
   Within seconds the plan's reader knows which process it is, and what it does.
2. It is comfort: without a connection of its own, or without the right to look, the work goes on as ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from pgkeep.errors import Fault
from pgkeep.events import Announce, Warned
from pgkeep.pg.locks import Holder, Wait, read_waits, relation_name
from pgkeep.pg.session import Session
from pgkeep.pg.sqltext import shown_name
from pgkeep.values.quantity import show_duration

FIRST_LOOK: Final = 2.0
_EVERY: Final = 2.0
_AGAIN: Final = 60.0
"""Seconds after which the same wait is said once more."""
_QUERY: Final = 200
"""Characters of a statement that are shown."""
_HIDDEN: Final = "<insufficient privilege>"

Ask = Callable[[str | None], Session]
"""A session to that database of the server; None: to any."""


class LockWatch:
    """Looks at the connections that are called `application` from a thread; use as a context manager."""

    def __init__(self, ask: Ask, application: str, announce: Announce, hint: str, *, first: float = FIRST_LOOK) -> None:
        self._ask, self._application, self._announce, self._hint = ask, application, announce, hint
        self._first = min(first, FIRST_LOOK)
        self._said: dict[tuple[int, ...], float] = {}
        self._looked = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="locks", daemon=True)
        self.last = ""
        """The last wait that was said."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        if self._stop.wait(self._first):
            return
        with suppress(Fault), self._ask(None) as session:
            while True:
                for wait in read_waits(session, self._application):
                    self._say(wait)
                if self._stop.wait(_EVERY):
                    return
                self._looked += _EVERY

    def _say(self, wait: Wait) -> None:
        key = (wait.relation, *(holder.pid for holder in wait.holders))
        if self._looked - self._said.get(key, -_AGAIN) < _AGAIN:
            return
        self._said[key] = self._looked
        self.last = f"it waits for {self._what(wait)}, which {_who(wait.holders)}"
        self._announce(Warned("lock-wait", self.last, self._hint))

    def _what(self, wait: Wait) -> str:
        name = None
        if wait.relation:
            with suppress(Fault), self._ask(wait.database) as session:
                name = relation_name(session, wait.relation)
        if name is None:
            return f"a lock in the database {shown_name(wait.database)}"
        return f"the lock on {'.'.join(map(shown_name, name))}"


def _who(holders: tuple[Holder, ...]) -> str:
    if not holders:
        return "a prepared transaction holds"
    return " and ".join(map(_shown, holders))


def _shown(holder: Holder) -> str:
    is_hidden = holder.query in {"", _HIDDEN}
    of = f" {holder.application}" if holder.application else ""
    state = f", {holder.state}" if holder.state and not is_hidden else ""
    since = f" for {show_duration(holder.seconds)}" if holder.seconds >= 1 else ""
    query = " ".join(holder.query.split())
    shown = query if len(query) <= _QUERY else f"{query[:_QUERY]} ..."
    what = "what it runs is hidden from this role, pg_read_all_stats would show it" if is_hidden else shown
    return f"process {holder.pid} of {shown_name(holder.role)} ({of.strip() or 'no name'}{state}{since}) holds: {what}"
