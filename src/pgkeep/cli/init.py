"""`pgkeep init`."""

from __future__ import annotations

import os
from dataclasses import dataclass

import click

from pgkeep.cli.ask import ask
from pgkeep.cli.program import archive_script, hook_command
from pgkeep.cli.session import Session
from pgkeep.cli.verb import Verb, epilog
from pgkeep.config.find import find_or_none, place_for_new
from pgkeep.config.generate import configuration
from pgkeep.config.load import load
from pgkeep.errors import Fault
from pgkeep.events import Noted
from pgkeep.store.disks import existing_parent

LIBPQ_NAMES_A_SERVER = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE")
"""With one of these set, libpq's own defaults are the choice."""


@dataclass(frozen=True, slots=True)
class _Intent:
    """What the options and the configuration, if there is one, come to."""

    config_path: str
    has_config: bool
    url: str
    cluster: str
    connections: tuple[str, ...]


@click.command(
    "init",
    cls=Verb,
    short_help="Begin: repository, configuration, and what the server lacks.",
    epilog=epilog(
        [
            "sudo -u postgres pgkeep init --repository /mnt/nas/pg",
            "sudo -u postgres pgkeep init --apply         run the SQL that is missing",
            'pgkeep --cluster billing init --repository /mnt/nas/pg --connection "host=/run/postgresql port=5433"',
            "pgkeep init --adopt       the server was upgraded, or a restored one takes over",
        ],
        [0, 1, 2, 20],
    ),
)
@click.option("--repository", metavar="URL", help="Where backups go: file:///mnt/nas/pg.")
@click.option("--connection", metavar="DSN", help="Any libpq connection string; looked for when left out.")
@click.option("--apply", is_flag=True, help="Run the SQL that is missing; never a restart.")
@click.option("--adopt", is_flag=True, help="This server continues the cluster of that name: take over its archive.")
@click.option("--proof/--no-proof", default=True, help="See a WAL segment arrive (may switch WAL), or believe it.")
@click.pass_obj
def command(
    session: Session, repository: str | None, connection: str | None, apply: bool, adopt: bool, proof: bool
) -> None:
    """Make the repository, register the cluster, write pgkeep.toml, and print the SQL that the server still needs.

    The server that runs on this machine is found by itself. With --apply the SQL is run; a restart, where one is
    needed, is yours to make, with the command that is shown. Repeat it at any time: what is there already stays.
    """
    from pgkeep.app.initialise import InitRequest, initialise
    from pgkeep.app.settle import settle
    from pgkeep.cli.render.init import Shown, init_json, init_text

    intent = _intent(session, repository, connection)
    options = ["--config", intent.config_path, "--cluster", intent.cluster]
    if session.selection.repo:
        options += ["--repo", session.selection.repo]
    request = InitRequest(
        url=intent.url,
        cluster_name=intent.cluster,
        connections=intent.connections,
        program=hook_command(session.around.environment),
        script=archive_script(session.around.environment),
        options=options,
        adopt=adopt,
        dry_run=session.options.dry_run,
    )
    out, clock = session.out, session.around.clock
    report = initialise(request, clock, out.announce)
    wrote = not intent.has_config
    if wrote and not request.dry_run:
        _write(session, intent, report.connection)
    shown = Shown(report, intent.config_path, wrote_config=wrote, dry_run=request.dry_run)
    try:
        settled = settle(request, report, clock, out.announce, apply=apply, prove=proof)
    except Fault:
        out.tell(lambda: init_text(shown, None))
        raise
    out.answer("init", init_json(shown, settled), lambda: init_text(shown, settled))


def _intent(session: Session, repository: str | None, connection: str | None) -> _Intent:
    around = session.around
    named = session.options.config or around.environment.get("PGKEEP_CONFIG")
    if named:
        wanted = os.path.join(around.cwd, named)
        found = wanted if os.path.isfile(wanted) else None
    else:
        wanted = place_for_new(around.home)
        found = find_or_none(None, None, around.cwd, around.home)
    if found is not None:
        return _configured(session, found, repository, connection)
    _check_writable(wanted)
    url = repository or ask(session, "where shall the backups go (a directory on other storage)?", "--repository URL")
    return _Intent(wanted, False, url, session.selection.cluster or "main", _connections(session, connection))


def _connections(session: Session, connection: str | None) -> tuple[str, ...]:
    """The one that is named, by option or libpq's environment; none: it is looked for."""
    if connection is not None:
        return (connection,)
    return ("",) if any(session.around.environment.get(name) for name in LIBPQ_NAMES_A_SERVER) else ()


def _check_writable(path: str) -> None:
    """Before anything is made."""
    folder = existing_parent(os.path.dirname(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Fault(
            "io",
            f"{path} cannot be written: {folder} is not this account's",
            hint="name a file that this account may write, and that the server's account can read: --config FILE",
        )


def _configured(session: Session, path: str, repository: str | None, connection: str | None) -> _Intent:
    settings = load(path, session.around.environment)
    url = settings.repository(session.selection.repo).url
    cluster = settings.cluster(session.selection.cluster)
    for option, given, known in (("--repository", repository, url), ("--connection", connection, cluster.connection)):
        if given is not None and given != known:
            hint = f"change the file, or leave out {option}"
            raise Fault("usage", f"{path} is there already and says otherwise than {option}", hint=hint)
    return _Intent(path, True, url, cluster.name, (cluster.connection,))


def _write(session: Session, intent: _Intent, connection: str) -> None:
    """Create the file, never replacing one; readable by its owner alone when it holds a password."""
    text = configuration(intent.url, intent.cluster, connection)
    mode = 0o600 if "password" in connection or "@" in connection else 0o644
    try:
        os.makedirs(os.path.dirname(intent.config_path), exist_ok=True)
        descriptor = os.open(intent.config_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _check_same(intent.config_path, text)
    except OSError as error:
        raise Fault(
            "io",
            f"{intent.config_path} could not be written: {error.strerror}; the repository is ready",
            hint="run it again with --config FILE in a directory that this account may write to",
        ) from error
    session.out.announce(Noted(f"wrote {intent.config_path}"))


def _check_same(path: str, text: str) -> None:
    """Another init was a moment faster; it must have meant the same."""
    with open(path, encoding="utf-8") as file:
        if file.read() != text:
            raise Fault("config-invalid", f"{path} was written meanwhile, and says otherwise", hint="look at the file")
