"""Tables that fit a terminal: long cells are cut, the least needed columns are left out, and a pipe gets everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Literal

from replicator.cli.output import say

_GAP = "  "
_COMFORTABLE = 16
"""The width, in cells, below which a column is left out rather than that a cell is cut further."""
_LEAST = 6


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    :param cut: its cells may be cut in the middle.
    :param leave_out: the order in which columns are left out where the width does not do; 0 for never.
    """

    heading: str
    side: Literal["left", "right"] = "left"
    cut: bool = False
    leave_out: int = 0


def show(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], styles: Mapping[str, str], *, whole: bool = False
) -> None:
    """Print a table on stdout, in the width of the terminal.

    :param styles: colours, by the words at the beginning of a cell; a terminal shows them unless `NO_COLOR` is set.
    :param whole: cut nothing and leave nothing out, also on a terminal.
    """
    from rich.console import Console
    from rich.text import Text

    terminal = Console()
    for line in lines(columns, rows, terminal.width if terminal.is_terminal and not whole else None):
        text = Text(line)
        for word, style in styles.items():
            text.highlight_regex(rf"(?<=  ){word}\b", style)
        rendered = StringIO()  # rich itself fails on a pipe or a disk that takes no more
        sheet = Console(file=rendered, force_terminal=terminal.is_terminal, highlight=False)
        sheet.print(text, no_wrap=True, overflow="ignore", crop=False, soft_wrap=True)
        say(rendered.getvalue().rstrip("\n"))


def lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return the lines of a table.

    :param width: in cells; `None` cuts nothing and leaves nothing out.
    """
    from rich.cells import cell_len

    shown, widths = _layout(columns, [max(map(cell_len, cells)) for cells in _by_column(columns, rows)], width)
    return [
        _GAP.join(_cell(line[at], widths[at], columns[at]) for at in shown).rstrip()
        for line in [[column.heading for column in columns], *rows]
    ]


def _by_column(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[column.heading, *(row[at] for row in rows)] for at, column in enumerate(columns)]


def _layout(columns: Sequence[Column], needed: list[int], width: int | None) -> tuple[list[int], list[int]]:
    """Return the positions of the columns to show, and the width of every column."""
    shown = list(range(len(columns)))
    if width is None:
        return shown, needed
    spare = sorted((at for at in shown if columns[at].leave_out), key=lambda at: columns[at].leave_out)
    while True:
        least = _COMFORTABLE if spare else _LEAST
        found = _fitted(shown, columns, needed, width, least)
        if found is not None:
            return shown, found
        if not spare:
            return shown, [min(least, size) if columns[at].cut else size for at, size in enumerate(needed)]
        shown.remove(spare.pop(0))


def _fitted(
    shown: Sequence[int], columns: Sequence[Column], needed: list[int], width: int, least: int
) -> list[int] | None:
    """Return the widths with which the shown columns fit; `None` if a column had to be narrower than `least`."""
    found = list(needed)
    room = width - len(_GAP) * (len(shown) - 1) - sum(needed[at] for at in shown if not columns[at].cut)
    flexible = sorted((at for at in shown if columns[at].cut), key=lambda at: needed[at])
    for place, at in enumerate(flexible):  # short ones get what they need, and the others share the rest
        share = room // (len(flexible) - place)
        found[at] = min(needed[at], share)
        if found[at] < min(needed[at], least):
            return None
        room -= found[at]
    return found if room >= 0 else None


def _cell(text: str, width: int, column: Column) -> str:
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > width:
        head = (width - 1) // 2
        text = f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
    pad = " " * (width - cell_len(text))
    if cell_len(text) > width:  # characters of two cells
        text, pad = set_cell_size(text, width), ""
    return pad + text if column.side == "right" else text + pad
