"""`pgkeep init`."""

from __future__ import annotations

import os
from dataclasses import dataclass

import click

from pgkeep.cli.ask import ask
from pgkeep.cli.program import own_command
from pgkeep.cli.session import Session
from pgkeep.cli.verb import Verb, epilog
from pgkeep.config.find import FILE_NAME, find_or_none
from pgkeep.config.generate import configuration
from pgkeep.config.load import load
from pgkeep.errors import Fault
from pgkeep.events import Noted

USUAL_CONNECTIONS = ("", "host=/var/run/postgresql", "host=/tmp", "host=localhost")
"""Tried when none is named: libpq's own defaults (PGHOST, PGSERVICE ...), then the usual sockets."""


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
            "sudo -u postgres pgkeep init --repository file:///mnt/nas/pg",
            'pgkeep --cluster billing init --repository /mnt/nas/pg --connection "host=/run/postgresql port=5433"',
            "pgkeep init --adopt       the server was upgraded, or a restored one takes over",
        ],
        [0, 1, 2, 20],
    ),
)
@click.option("--repository", metavar="URL", help="Where backups go: file:///mnt/nas/pg.")
@click.option("--connection", metavar="DSN", help="Any libpq connection string; looked for when left out.")
@click.option("--adopt", is_flag=True, help="This server continues the cluster of that name: take over its archive.")
@click.pass_obj
def command(session: Session, repository: str | None, connection: str | None, adopt: bool) -> None:
    """Make the repository, register the cluster, write pgkeep.toml, and print the SQL that the server still needs.

    Nothing is changed in the server. Repeat it at any time: what is there already stays.
    """
    from pgkeep.app.initialise import InitRequest, initialise
    from pgkeep.cli.render.init import init_json, init_text

    intent = _intent(session, repository, connection)
    options = ["--config", intent.config_path, "--cluster", intent.cluster]
    if session.selection.repo:
        options += ["--repo", session.selection.repo]
    request = InitRequest(
        url=intent.url,
        cluster_name=intent.cluster,
        connections=intent.connections,
        program=own_command(session.around.environment),
        options=options,
        adopt=adopt,
        dry_run=session.options.dry_run,
    )
    report = initialise(request, session.around.clock, session.out.announce)
    wrote = not intent.has_config
    if wrote and not session.options.dry_run:
        _write(session, intent, report.connection)
    path = intent.config_path
    fields = init_json(report, path, wrote_config=wrote, dry_run=session.options.dry_run)
    session.out.answer(
        "init", fields, lambda: init_text(report, path, wrote_config=wrote, dry_run=session.options.dry_run)
    )


def _intent(session: Session, repository: str | None, connection: str | None) -> _Intent:
    around = session.around
    named = session.options.config or around.environment.get("PGKEEP_CONFIG")
    wanted = os.path.join(around.cwd, named or FILE_NAME)
    found = wanted if named and os.path.isfile(wanted) else None
    if not named:
        found = find_or_none(None, None, around.cwd, around.home)
    if found is not None:
        return _configured(session, found, repository, connection)
    url = repository or ask(session, "where shall the backups go (a directory on other storage)?", "--repository URL")
    connections = USUAL_CONNECTIONS if connection is None else (connection,)
    return _Intent(wanted, False, url, session.selection.cluster or "main", connections)


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
