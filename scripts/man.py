"""Writes the man pages from the command line's own definitions: `make man`, after any change of a help text.

One page for pgkeep and one for each verb, in docs/man, from where the wheel installs them.  click-man was looked at: it
leaves out what stands behind the options, that is the examples and the exit statuses.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from pgkeep.cli.main import pgkeep
from pgkeep.cli.options import parameters
from pgkeep.cli.verb import Verbs

MANUAL = "pgkeep manual"
_EXAMPLES = re.compile(r"\x08\nExamples?:\n(?P<examples>.*?)\n\n(?P<statuses>.*)", re.DOTALL)


def pages(command: click.Command = pgkeep, path: tuple[str, ...] = ("pgkeep",)) -> Iterator[tuple[str, str]]:
    """(file name, roff text) of the command's page, and of each verb below it."""
    yield f"{'-'.join(path)}.1", page(command, path)
    if isinstance(command, Verbs):
        context = click.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            verb = command.get_command(context, name)
            assert verb is not None, name
            yield from pages(verb, (*path, name))


def page(command: click.Command, path: tuple[str, ...]) -> str:
    """The page in roff, with the macros of man(7)."""
    name = "-".join(path)
    summary = command.get_short_help_str(200).rstrip(".")
    lines = [f'.TH "{name.upper()}" 1 "" "pgkeep" "{MANUAL}"', ".SH NAME", f"{_text(name)} \\- {_text(summary)}"]
    lines += [".SH SYNOPSIS", f".B {_text(' '.join(path))}", _text(_usage(command, path))]
    lines += [".SH DESCRIPTION", *_paragraphs(command.help or "")]
    shown = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if shown:
        lines += [".SH OPTIONS", *_options(shown, command)]
    if isinstance(command, Verbs):
        lines += [".SH VERBS", *_verbs(command, path)]
    if path != ("pgkeep",):
        lines += [".SH GLOBAL OPTIONS", *_options(parameters(hidden=False), command)]
    lines += _end(command.epilog or "")
    return "\n".join(lines) + "\n"


def _usage(command: click.Command, path: tuple[str, ...]) -> str:
    return " ".join(command.collect_usage_pieces(click.Context(command, info_name=path[-1])))


def _verbs(command: Verbs, path: tuple[str, ...]) -> Iterator[str]:
    context = click.Context(command, info_name=path[-1])
    for name in command.list_commands(context):
        verb = command.get_command(context, name)
        assert verb is not None, name
        yield ".TP"
        yield f"\\fB{_text('-'.join((*path, name)))}\\fR(1)"
        yield _text(verb.get_short_help_str(200))


def _options(options: list[click.Option] | list[click.Parameter], command: click.Command) -> Iterator[str]:
    context = click.Context(command)
    for option in options:
        record = option.get_help_record(context)
        if record is not None:
            yield ".TP"
            yield f"\\fB{_text(record[0])}\\fR"
            yield _text(record[1])


def _end(epilog: str) -> Iterator[str]:
    """What `cli.verb.epilog` made: examples as they are, then the exit statuses."""
    match = _EXAMPLES.search(epilog)
    if match is None:
        return
    yield from (".SH EXAMPLES", ".nf", *(_text(line.strip()) for line in match["examples"].splitlines()), ".fi")
    yield from (".SH EXIT STATUS", *_paragraphs(match["statuses"].removeprefix("Exit status: ")))


def _paragraphs(text: str) -> Iterator[str]:
    for part in re.split(r"\n\s*\n", text.strip()):
        yield ".PP"
        is_verbatim = part.startswith("\b")
        lines = [_text(line.strip()) for line in part.removeprefix("\b").strip().splitlines()]
        yield from (".nf", *lines, ".fi") if is_verbatim else lines


def _text(text: str) -> str:
    """Escaped for roff (groff_char(7)): backslashes, hyphens that are typed, a line's first dot or quote."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("\u00b7", "\\(pc")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def write(folder: Path) -> None:
    """Write all pages, and remove those of verbs that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    made = dict(pages())
    for stale in set(folder.glob("*.1")) - {folder / name for name in made}:
        stale.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
