"""The second half of `init`: change the server where that was asked for, and see its WAL arrive.

It runs after pgkeep.toml is written: archive_command reads that file.  A restart is never made here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pgkeep.app.initialise import InitReport, InitRequest, is_here, needed_setup
from pgkeep.app.place import APPLICATION
from pgkeep.backup.walwait import is_archived
from pgkeep.clock import Clock
from pgkeep.errors import Fault
from pgkeep.events import Announce, Phase, silent
from pgkeep.pg.facts import ServerFacts
from pgkeep.pg.restarting import restart_command, supervision
from pgkeep.pg.server import Server, connect
from pgkeep.repo.repository import open_repository
from pgkeep.repo.walarchive import archive_of
from pgkeep.store.open import open_store
from pgkeep.store.wrap.patient import patient
from pgkeep.values.wal import Segment
from pgkeep.wal.proof import Proof, prove_archiving
from pgkeep.wal.setup import ArchiveSetup, Statement

_RELOAD_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Settled:
    """How the server stands now; the report's `setup` was before.

    `restart` is the command that its owner still has to run, '' for none.  `proof` is None where nothing could be
    seen: something is missing, a standby, or nobody wanted it.
    """

    setup: ArchiveSetup
    applied: tuple[Statement, ...] = ()
    restart: str = ""
    proof: Proof | None = None


def settle(
    request: InitRequest, report: InitReport, clock: Clock, announce: Announce = silent, *, apply: bool, prove: bool
) -> Settled:
    """Run what is missing with `apply`, then wait for a segment in the archive with `prove`.

    postgres-rights (a statement needs a superuser), wal-not-archived, and the store's faults.
    """
    setup, facts = report.setup, report.facts
    applied: tuple[Statement, ...] = ()
    if apply and setup.statements and not request.dry_run:
        announce(Phase("apply", f"changing the server: {len(setup.statements)} statements"))
        applied = setup.statements
        setup, facts = _apply(request, report, clock)
    settled = Settled(setup, applied, _restart(facts) if setup.needs_restart else "")
    if not prove or request.dry_run or not setup.is_complete or facts.in_recovery:
        return settled
    announce(Phase("prove", "waiting for a WAL segment to arrive in the repository"))
    with connect(report.connection, APPLICATION) as server:
        return replace(settled, proof=_proof(request, server, facts, clock))


def _apply(request: InitRequest, report: InitReport, clock: Clock) -> tuple[ArchiveSetup, ServerFacts]:
    """(what is still missing, facts) once the server has read its configuration again, in its own time."""
    with connect(report.connection, APPLICATION) as server:
        try:
            server.apply([one.sql for one in report.setup.statements])
        except Fault as fault:
            if fault.code != "postgres-rights":
                raise
            hint = "run what pgkeep init prints as a superuser, or let init connect as one"
            raise Fault(fault.code, fault.message, hint=hint) from fault
        deadline = clock.monotonic() + _RELOAD_SECONDS
        while True:
            facts = server.facts()
            setup = needed_setup(request, report.connection, facts)
            if not setup.statements or clock.monotonic() >= deadline:
                return setup, facts
            clock.sleep(0.1)


def _restart(facts: ServerFacts) -> str:
    if not is_here(facts):
        return "restart the server"
    return restart_command(facts.config_file, facts.data_directory, supervision(facts.data_directory))


def _proof(request: InitRequest, server: Server, facts: ServerFacts, clock: Clock) -> Proof:
    repository = open_repository(patient(open_store(request.url), clock))
    archive = archive_of(repository, facts.system_identifier)
    size = archive.segment_size
    return prove_archiving(server, lambda name: is_archived(archive, Segment.parse(name, size)), clock)
