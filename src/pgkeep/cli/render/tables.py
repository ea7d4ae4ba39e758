"""Tables and lists of facts as plain, aligned text: read as well in a mail or a log as on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

Cell = str | Text


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], right: Sequence[str] = ()) -> Table:
    """A table without lines; `right` names the columns that are aligned to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=column != "LABEL")
    for row in rows:
        made.add_row(*row)
    return made


def facts(rows: Iterable[tuple[str, Cell]]) -> Table:
    """Names and values, one pair a line."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, value)
    return made


def plural(count: int, noun: str, several: str = "") -> str:
    """'1 backup', '2 backups'."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"
