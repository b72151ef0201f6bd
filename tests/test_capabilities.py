"""The capability table: frozen as a reviewed page, complete, and each refusal says what would work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from replicator.capabilities import TABLE, Capabilities, Cell, Feature, No, Route, StartKind
from replicator.model import Conflict, Drain, Mode
from replicator.replicator import ReplayMethod

GOLDEN = Path(__file__).parent / "golden" / "capabilities.txt"


ROUTES = [(row, route) for row in TABLE.values() for route in row.routes]


def columns(row: Route) -> dict[str, dict[Any, Cell]]:
    return {
        "mode": dict(row.modes),
        "conflict": dict(row.conflicts),
        "startFrom": dict(row.start_from),
        "replay": dict(row.replay),
        "feature": dict(row.features),
    }


def rendered() -> str:
    return "\n".join("\n".join(_lines(*item)) for item in ROUTES)


def _lines(row: Capabilities, route: Route) -> Iterator[str]:
    yield row.backend
    yield f"  chosen by itself: {'yes' if row.automatic else 'no'}"
    yield f"  moves: {', '.join(sorted(f'{a} → {b}' for a, b in route.pairs))}"
    for title, cells in columns(route).items():
        for key, cell in cells.items():
            text = cell.reason if isinstance(cell, No) else cell.note
            yield f"  {title} {key.value}: {'no' if isinstance(cell, No) else 'yes'}{f'; {text}' if text else ''}"
    for option, type in sorted((row.options or {}).items()):
        yield f"  option {option}: {type}"
    yield f"  checkpointInterval of the engine: {route.default_interval}"
    yield f"  one of lagEvents: {route.lag_unit}"
    yield f"  lagSeconds: at most {route.lag_resolution.total_seconds():g} s too low"
    yield f"  a delete: {route.removal}"
    yield f"  a pause: {route.pause_cost}"
    for path, effect in sorted(route.changes.items()):
        yield f"  change of {path}: {effect.verdict.value}{f'; {effect.text}' if effect.text else ''}"
    if route.access is not None:
        yield f"  change of a uri of the same place: {route.access.verdict.value}; {route.access.text}"
    yield ""


def test_the_table_is_as_it_was_reviewed() -> None:
    """To change it on purpose, write the page anew: `python -m tests.test_capabilities`."""
    assert rendered() == GOLDEN.read_text("utf-8")


@pytest.mark.parametrize("row", [route for _, route in ROUTES])
def test_every_cell_is_filled(row: Route) -> None:
    assert row.modes.keys() == set(Mode)
    assert row.conflicts.keys() == set(Conflict)
    assert row.start_from.keys() == set(StartKind)
    assert row.replay.keys() == set(ReplayMethod) - {ReplayMethod.AUTO}
    assert row.features.keys() == set(Feature)
    assert row.pairs


@pytest.mark.parametrize("row", [route for _, route in ROUTES])
def test_a_row_can_do_something(row: Route) -> None:
    for cells in (row.modes, row.conflicts, row.replay):
        assert any(not isinstance(cell, No) for cell in cells.values())


REFUSALS = [
    pytest.param(cell.reason, id=f"{backend}-{title}-{key.value}")
    for backend, row in ((row.backend, route) for row, route in ROUTES)
    for title, cells in columns(row).items()
    for key, cell in cells.items()
    if isinstance(cell, No)
]


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_says_why_and_what_would_work(reason: str) -> None:
    hint = re.search(r"(?:^|[;,.] )(use|leave|declare|set|give) ", reason, re.IGNORECASE)
    assert hint, "no way out is named"
    named = re.search(r"\buse (\w+)", reason)
    words = {word.value for enum in (Mode, Conflict, ReplayMethod, Drain) for word in enum}
    assert not named or named[1] in words or " " in reason[hint.end() :]


if __name__ == "__main__":
    GOLDEN.write_text(rendered(), "utf-8")
