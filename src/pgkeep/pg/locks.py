"""Who waits for a lock, and who holds it: for a person who wonders why nothing happens."""

from __future__ import annotations

from dataclasses import dataclass

from pgkeep.pg.session import Session, as_text

_WAITS = """
SELECT w.pid, w.datname, l.relation,
       ARRAY(SELECT DISTINCT b FROM unnest(pg_blocking_pids(w.pid)) AS b ORDER BY b)
  FROM pg_stat_activity AS w
  LEFT JOIN pg_locks AS l ON l.pid = w.pid AND NOT l.granted
 WHERE w.application_name = %s AND w.wait_event_type = 'Lock'
 ORDER BY w.pid
"""
_HOLDERS = """
SELECT pid, coalesce(usename, ''), coalesce(application_name, ''), coalesce(state, ''),
       coalesce(extract(epoch FROM clock_timestamp() - xact_start)::float8, 0), coalesce(query, '')
  FROM pg_stat_activity WHERE pid = ANY(%s) ORDER BY pid
"""
_NAME = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = %s
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """A server process; `state` and `query` are '' where the role may not see them, `seconds` of its transaction."""

    pid: int
    role: str
    application: str
    state: str
    seconds: float
    query: str


@dataclass(frozen=True, slots=True)
class Wait:
    """A process of ours that waits; `relation` is 0 where it is no table's lock."""

    pid: int
    database: str
    relation: int
    holders: tuple[Holder, ...]


def read_waits(session: Session, application_name: str) -> tuple[Wait, ...]:
    """The waiting connections of this name: none as a rule, and then little is asked."""
    found = session.rows(_WAITS, (application_name,))
    return tuple(
        Wait(int(pid), as_text(database), int(relation or 0), _holders(session, blocking))
        for pid, database, relation, blocking in found
    )


def _holders(session: Session, pids: list[int]) -> tuple[Holder, ...]:
    if not pids:
        return ()
    return tuple(
        Holder(int(pid), as_text(role), as_text(application), as_text(state), seconds, as_text(query))
        for pid, role, application, state, seconds, query in session.rows(_HOLDERS, (pids,))
    )


def relation_name(session: Session, oid: int) -> tuple[str, str] | None:
    """(schema, name) in the session's database; None for one that others do not see yet."""
    found = session.rows(_NAME, (oid,))
    return (as_text(found[0][0]), as_text(found[0][1])) if found else None
