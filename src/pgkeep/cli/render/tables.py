"""Tables and lists of facts as plain, aligned text: read as well in a mail or a log as on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

Cell = str | Text


WRAPPED = frozenset({"LABEL", "WHY", "NOTE"})
"""Columns whose text may go on in the next line."""


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], right: Sequence[str] = ()) -> Table:
    """A table without lines; `right` names the columns that are aligned to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=column not in WRAPPED)
    for row in rows:
        made.add_row(*row)
    return made


def lines(columns: Sequence[str], rows: Sequence[Sequence[Cell]], right: Sequence[str] = ()) -> list[Text]:
    """The head of a table and its rows, each a line of its own: for tables with something to say between the rows."""
    cells = [[Text(name, "bold") for name in columns], *([_text(cell) for cell in row] for row in rows)]
    widths = [max(row[at].cell_len for row in cells) for at in range(len(columns))]
    return [_line(row, widths, [name in right for name in columns]) for row in cells]


def _text(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def _line(row: Sequence[Text], widths: Sequence[int], right: Sequence[bool]) -> Text:
    padded = []
    for cell, width, to_right in zip(row, widths, right, strict=True):
        blanks = " " * (width - cell.cell_len)
        padded.append(Text.assemble(blanks, cell) if to_right else Text.assemble(cell, blanks))
    line = Text("  ").join(padded)
    line.rstrip()
    return line


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
