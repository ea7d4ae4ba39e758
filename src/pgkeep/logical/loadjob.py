"""Carrying out the plan of a load: globals, the database, the programs; and what a failure leaves.

1. A new database has a passing name (`pgkeep-load-...`) and a comment until it is whole; then it gets its name.  A load
   that dies without a word leaves at most such a one, and never one of the name that was wanted.
2. Into one that exists, what a failure leaves is asked of the server, and said.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Phase, Progress
from pgkeep.logical.content import Chunks, unpacked
from pgkeep.logical.feeding import LINES_BEFORE, TRANSACTION, archive, fed_beside, guarded, output, pour
from pgkeep.logical.guard import Guard
from pgkeep.logical.layout import lay_out
from pgkeep.logical.loadplan import LoadPlan, Way, is_there
from pgkeep.logical.newdatabase import about_new_database
from pgkeep.logical.restorewords import RestoreWords
from pgkeep.logical.scratch import MEMORY
from pgkeep.pg.child import Child
from pgkeep.pg.dumptoc import TocEntry
from pgkeep.pg.link import Link, Reach
from pgkeep.pg.session import Session
from pgkeep.pg.sqltext import quoted_name
from pgkeep.pg.target import (
    Present,
    create_database,
    drop_database,
    open_target,
    read_present,
    rename_database,
    shown_object,
)

_LINE: Final = re.compile(r"psql:<stdin>:(\d+)")
UNFINISHED: Final = "pgkeep-load-"


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What was done: seconds, and the errors that were let pass with the reason why."""

    plan: LoadPlan
    seconds: float
    tolerated: tuple[tuple[str, int], ...]
    created_roles: tuple[str, ...]
    created_tablespaces: tuple[str, ...]


def carry_out(
    plan: LoadPlan, conninfo: str, link: Link, clock: Clock, announce: Announce, scratch: str = ""
) -> LoadResult:
    """Load it.  'load-failed', 'load-in-part' (an existing database holds some of it), 'postgres-lost' and the faults
    of the source; what is left is said in the message.  `link` reaches the server, `scratch` a directory to lay out
    what comes from the repository (the memory of the machine without)."""
    began = clock.monotonic()
    _make_globals(plan, conninfo, announce)
    job = _Job(plan, conninfo, link, announce, scratch or MEMORY)
    with _naming_globals(plan):
        job.run()
    made = plan.globals
    return LoadResult(
        plan,
        clock.monotonic() - began,
        tuple((one.why, count) for one, count in job.words.heard.let_pass.items()),
        tuple(sorted(made.creates_roles)) if made is not None else (),
        tuple(sorted(made.creates_tablespaces)) if made is not None else (),
    )


def _make_globals(plan: LoadPlan, conninfo: str, announce: Announce) -> None:
    """Roles in one transaction; a tablespace cannot be made in one."""
    made = plan.globals
    if made is None or not (made.statements or made.tablespaces):
        return
    announce(Phase("globals", "making the roles and tablespaces that are missing"))
    stay: list[str] = []
    try:
        with open_target(conninfo) as session:
            _make_roles(session, [one for one in made.statements if "TABLESPACE" not in one])
            stay += sorted(made.creates_roles)
            for name, statement in zip(made.creates_tablespaces, made.tablespaces, strict=True):
                session.rows(statement)
                stay.append(name)
            for statement in (one for one in made.statements if "TABLESPACE" in one):
                session.rows(statement)
    except Fault as fault:
        hint = "make them yourself, then load without --globals; or load without: --no-owner --no-acl --no-tablespaces"
        left = f"; what was made stays: {', '.join(stay)}" if stay else "; nothing was made"
        raise Fault(
            "load-failed", f"the missing roles and tablespaces cannot be made: {fault.message}{left}",
            hint=fault.hint or hint,
        ) from fault  # fmt: skip


def _make_roles(session: Session, statements: Sequence[str]) -> None:
    session.rows("BEGIN")
    try:
        for statement in statements:
            session.rows(statement)
    except BaseException:
        with suppress(Fault):
            session.rows("ROLLBACK")
        raise
    session.rows("COMMIT")


@contextmanager
def _naming_globals(plan: LoadPlan) -> Iterator[None]:
    """A load that fails leaves the roles that it has made: others may use them by then."""
    try:
        yield
    except Fault as fault:
        made = sorted((*plan.globals.creates_roles, *plan.globals.creates_tablespaces)) if plan.globals else []
        if made:
            fault.message += f"; the roles and tablespaces that were made stay: {', '.join(made)}"
            fault.args = (fault.message,)
        raise


class _Job:
    def __init__(self, plan: LoadPlan, conninfo: str, link: Link, announce: Announce, scratch: str) -> None:
        self._plan, self._conninfo, self._link, self._announce = plan, conninfo, link, announce
        self._scratch = scratch
        total = len(plan.selection.entries) if plan.selection is not None else 0
        self.words = RestoreWords(plan.jobs, total, plan.server.major, announce)

    def run(self) -> None:
        with Guard() as guard, ExitStack() as stack:
            if self._plan.laid_out:
                path: str | None = lay_out(self._plan, self._scratch, guard, stack, self._announce)
            else:
                path = None if self._plan.is_streamed else self._plan.source.direct_path
            if self._plan.new is not None:
                self._into_new(guard, path)
            else:
                self._into_existing(guard, path)

    # --- the database

    def _into_new(self, guard: Guard, path: str | None) -> None:
        plan, new = self._plan, self._plan.new
        assert new is not None
        passing = UNFINISHED + secrets.token_hex(8)
        self._announce(Phase("database", f"creating the database {plan.database}"))
        comment = f"pgkeep loads {plan.database} here; not whole: drop it when no load runs"
        try:
            with open_target(self._conninfo) as session:
                create_database(session, passing, new, comment)
            self._fill(guard, path, passing)
            self._announce(Phase("finish", f"giving the database its name {plan.database}"))
            self._finish(passing)
        except BaseException as error:
            left = self._give_up(passing)
            if isinstance(error, Fault):
                raise _failed(error, left) from error
            if isinstance(error, KeyboardInterrupt):
                raise _interrupted(left or "nothing was left in the server") from error
            raise

    def _finish(self, passing: str) -> None:
        """Owner, settings, comment and privileges of the database itself, and at last its name."""
        plan = self._plan
        with open_target(self._conninfo) as session:
            session.rows(f"COMMENT ON DATABASE {quoted_name(passing)} IS NULL")
            for statement in about_new_database(plan.source, plan.request, self._roles(), passing).statements:
                session.rows(statement)
            rename_database(session, passing, plan.database)

    def _roles(self) -> frozenset[str]:
        made = self._plan.globals
        return self._plan.server.roles | (made.creates_roles if made is not None else frozenset())

    def _give_up(self, passing: str) -> str:
        """What is left of the new database, for people; '' for nothing."""
        if self._plan.request.keep:
            return f"the database {passing} is kept as far as it was filled (--keep)"
        try:
            with open_target(self._conninfo) as session:
                drop_database(session, passing)
        except Fault as fault:
            return f"the database {passing} may be left ({fault.message}): DROP DATABASE {quoted_name(passing)}"
        return ""

    def _into_existing(self, guard: Guard, path: str | None) -> None:
        plan = self._plan
        try:
            self._fill(guard, path, plan.database)
        except KeyboardInterrupt as error:
            if plan.one_transaction:
                raise _interrupted("nothing was changed in the database") from error
            raise _interrupted(self._what_is_there(), self._way_back()) from error
        except Fault as fault:
            if plan.one_transaction and self._has_changed(fault):
                left = f"the script ended its own transaction, and {plan.database} holds what it had done by then"
                hint = "look at what it holds; leave COMMIT and ROLLBACK out of the script"
                raise Fault("load-in-part", f"{fault.message}; {left}", hint=hint, cause=fault.code) from fault
            if plan.one_transaction:
                raise _failed(fault, "") from fault
            left = self._what_is_there()
            raise Fault(
                "load-in-part", f"{fault.message}; {left}", hint=self._way_back(), cause=fault.code, **fault.context
            ) from fault

    def _has_changed(self, fault: Fault) -> bool:
        """Whether a script has got out of its transaction: a foreign one may hold a COMMIT, or a ROLLBACK and more."""
        if self._plan.way is not Way.PSQL:
            return False
        told = TRANSACTION.search(str(fault.context.get("stderr", "")))
        with suppress(Fault), open_target(self._conninfo, self._plan.database) as session:
            fate = session.value("SELECT pg_xact_status(%s::text::xid8)", (told[1],)) if told is not None else None
            return fate == "committed" or read_present(session) != self._plan.present
        return False

    def _what_is_there(self) -> str:
        """Which of the dump's objects the database has now and had not before."""
        plan = self._plan
        try:
            with open_target(self._conninfo, plan.database) as session:
                now = read_present(session)
        except Fault as fault:
            return (
                f"{plan.database} holds what was loaded until then, and cannot be asked what that is ({fault.message})"
            )
        entries = plan.selection.entries if plan.selection is not None else ()
        new = [entry for entry in entries if is_there(now, entry) and not is_there(plan.present, entry)]
        tables = [shown_object((e.namespace, e.tag)) for e in entries if e.desc == "TABLE DATA" and _filled(now, e)]
        return (
            f"{plan.database} now holds {len(new)} of {len(entries)} objects of the dump that it had not before, and"
            f" rows in {', '.join(sorted(set(tables))[:10]) or 'none of its tables'}"
        )

    def _way_back(self) -> str:
        if self._plan.present.is_empty:
            return "the database was empty before: drop it and create it again, or let pgkeep create it"
        return "look at what it holds; without --jobs the next load is one transaction, all or nothing"

    # --- the programs

    def _fill(self, guard: Guard, path: str | None, database: str) -> None:
        self._announce(Phase("load", f"loading into {self._plan.database}"))
        with self._link.to(database) as reach:
            match self._plan.way:
                case Way.PSQL:
                    source = self._plan.source
                    self._psql(guard, reach, unpacked(source.content, source.part, source.compression))
                case Way.RESTORE_TO_PSQL:
                    self._restore_to_psql(guard, reach, path)
                case Way.RESTORE:
                    self._restore(guard, reach, path)

    def _restore(self, guard: Guard, reach: Reach, path: str | None) -> None:
        plan = self._plan
        options = [f"--dbname={reach.conninfo}", "--verbose", "--no-password"]
        if plan.one_transaction:
            options += ["--single-transaction", "--exit-on-error"]
        elif plan.jobs > 1:
            options.append(f"--jobs={plan.jobs}")
        with self._list() as (number, listing), self._stdin(path) as (stdin, feed):
            command = [plan.tools.programs.path("pg_restore"), *options, listing, *self._options()]
            if path is not None:
                command.append(path)
            with Child(command, reach=reach, descriptors=[number], stdin=stdin, on_line=self.words.hear) as child:
                self.words.child = child
                guard.watch(child)
                feed(child)
                child.wait()
                self.words.judge(child)
                guard.forget(child)

    def _restore_to_psql(self, guard: Guard, reach: Reach, path: str | None) -> None:
        """pg_restore writes SQL, we leave out what an older server does not know, psql runs it in one transaction."""
        plan = self._plan
        with self._list() as (number, listing), self._stdin(path) as (stdin, feed):
            command = [plan.tools.programs.path("pg_restore"), "--file=-", listing, *self._options()]
            if path is not None:
                command.append(path)
            with Child(command, descriptors=[number], stdin=stdin, stdout=subprocess.PIPE) as writer:
                guard.watch(writer)
                with fed_beside(feed, writer):
                    self._psql(guard, reach, output(writer))
                guard.forget(writer)

    @contextmanager
    def _list(self) -> Iterator[tuple[int, str]]:
        """--use-list from memory: the items by number."""
        selection = self._plan.selection
        assert selection is not None
        numbers = [e.dump_id for e in selection.entries if e.dump_id not in self._plan.as_they_are]
        descriptor = os.memfd_create("pgkeep-list")
        try:
            with open(os.dup(descriptor), "wb") as file:
                file.writelines(b"%d;\n" % number for number in numbers)
            yield descriptor, f"--use-list=/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)

    def _options(self) -> list[str]:
        request, chosen = self._plan.request, self._plan.request.chosen
        is_clean = request.clean and self._plan.new is None
        flags = {
            "--no-owner": chosen.no_owner, "--no-acl": chosen.no_acl, "--no-tablespaces": chosen.no_tablespaces,
            "--no-publications": chosen.no_publications, "--schema-only": chosen.schema_only,
            "--data-only": chosen.data_only, "--disable-triggers": request.disable_triggers,
            "--clean": is_clean, "--if-exists": is_clean,
        }  # fmt: skip
        found = [name for name, is_set in flags.items() if is_set]
        return [*found, f"--role={request.role}"] if request.role else found

    @contextmanager
    def _stdin(self, path: str | None) -> Iterator[tuple[int, Callable[[Child], None]]]:
        """What pg_restore reads where it cannot open the archive itself, and who writes it."""
        source = self._plan.source
        if path is not None:
            yield subprocess.DEVNULL, lambda _child: None
            return

        def feed(child: Child) -> None:
            with closing(archive(source, self._plan.request)) as chunks:  # type: ignore[type-var]
                pour(chunks, child)

        yield subprocess.PIPE, feed

    def _psql(self, guard: Guard, reach: Reach, chunks: Chunks) -> None:
        plan = self._plan
        command = [
            plan.tools.programs.path("psql"), f"--dbname={reach.conninfo}", "--no-psqlrc", "--quiet", "--no-password",
            "--single-transaction", "--set=ON_ERROR_STOP=1", "--file=-",
        ]  # fmt: skip
        script = plan.source.script
        is_whole = plan.way is Way.PSQL and script is not None and script.by_pg_dump
        with (
            _lines_of_the_script(plan.way),
            Child(command, reach=reach, stdin=subprocess.PIPE) as child,
            closing(chunks),  # type: ignore[type-var]
        ):
            guard.watch(child)
            total = plan.source.size if plan.way is Way.PSQL and not plan.source.compression else 0
            kept_in = guarded(
                chunks, plan.server.major, secrets.token_hex(16), must_end=is_whole, encoding=plan.request.text_encoding
            )
            pour(self._counted(kept_in, total), child)
            child.finish()
            guard.forget(child)

    def _counted(self, chunks: Chunks, total: int) -> Chunks:
        done = 0
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            self._announce(Progress(min(done, total) if total else done, total))


def _filled(now: Present, entry: TocEntry) -> bool:
    return (entry.namespace, entry.tag) in now.filled


@contextmanager
def _lines_of_the_script(way: Way) -> Iterator[None]:
    """Psql counts the lines that we put before the script."""
    try:
        yield
    except Fault as fault:
        if way is Way.PSQL:
            fault.message = _LINE.sub(lambda match: f"line {int(match[1]) - LINES_BEFORE}", fault.message)
        raise


def _interrupted(left: str, hint: str = "") -> Fault:
    return Fault("interrupted", f"interrupted; {left}", hint=hint)


def _failed(fault: Fault, left: str) -> Fault:
    """The same, with what is left; a program's own failure is a failed load."""
    code = fault.code if fault.code != "postgres-program" else "load-failed"
    message = f"{fault.message}; {left}" if left else f"{fault.message}; nothing was left in the server"
    return Fault(code, message, hint=fault.hint, **fault.context)
