"""Tables at the widths of terminals."""

from __future__ import annotations

import pytest
from replicator.cli.table import Column, lines

COLUMNS = (
    Column("name", cut=True),
    Column("state"),
    Column("lag", "right"),
    Column("checkpoint", cut=True, leave_out=2),
    Column("errors/h", "right", leave_out=1),
)
LONG = "shop-production-eu-central-1-orders-replica-c22af82"
ROWS = [
    ("orders", "running", "0.0 s", "000000000000000c", "0"),
    (LONG, "catching up", "1234.5 s", "r2/" + "0" * 16, "12"),
]


def table(width: int | None) -> list[str]:
    return lines(COLUMNS, ROWS, width)


def test_a_pipe_gets_everything() -> None:
    heading, short, long = table(None)
    assert heading.split() == ["name", "state", "lag", "checkpoint", "errors/h"]
    assert short.split() == ["orders", "running", "0.0", "s", "000000000000000c", "0"]
    assert long.split() == [LONG, "catching", "up", "1234.5", "s", "r2/0000000000000000", "12"]


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (120, "name state lag checkpoint errors/h"),
        (80, "name state lag checkpoint errors/h"),
        (60, "name state lag checkpoint"),
        (50, "name state lag"),
        (30, "name state lag"),
    ],
)
def test_the_name_is_cut_and_the_lag_is_whole(width: int, headings: str) -> None:
    found = table(width)
    assert " ".join(found[0].split()) == headings
    assert max(map(len, found)) <= width
    assert "1234.5 s" in found[2] and "catching up" in found[2]
    name = found[2].split()[0]
    head, cut, tail = name.partition("…")
    assert cut if width < 120 else name == LONG
    assert LONG.startswith(head) and LONG.endswith(tail)
    assert found[1].startswith("orders ")


def test_a_terminal_that_is_too_narrow_gets_the_least_names_and_whole_numbers() -> None:
    heading, _, long = table(10)
    assert heading.split() == ["name", "state", "lag"]
    assert long.split() == ["sh…f82", "catching", "up", "1234.5", "s"]


def test_characters_of_two_cells_stay_in_their_column() -> None:
    found = lines((Column("name", cut=True), Column("lag", "right")), [("注文" * 20, "1 s"), ("a", "20 s")], 20)
    assert found[2].endswith("20 s") and found[1].endswith(" 1 s")
