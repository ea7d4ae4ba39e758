"""Questions to a person, and what happens where there is none."""

from __future__ import annotations

import sys

import click

from pgkeep.cli.session import Session
from pgkeep.errors import Fault


def confirm(session: Session, question: str) -> bool:
    """Ask yes or no; --yes answers.  Fault `usage` where nobody can be asked."""
    if session.options.yes:
        return True
    _need_a_person(session, question, "--yes")
    return click.confirm(question, err=True)


def ask(session: Session, question: str, option: str) -> str:
    """Ask for a text; `option` is named where nobody can be asked (Fault `usage`)."""
    _need_a_person(session, question, option)
    return str(click.prompt(question, err=True))


def _need_a_person(session: Session, question: str, option: str) -> None:
    if session.options.json or sys.stdin is None or not sys.stdin.isatty():
        raise Fault("usage", f"nobody can be asked here: {question}", hint=f"add {option}")
