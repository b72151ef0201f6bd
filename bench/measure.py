"""Pairs of measurements in turn, and what comes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.goals import Goal

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "bench.json"


@dataclass(frozen=True, slots=True)
class Result:
    """One row of `build/bench.json`.

    :param value: the median of `values`, in `unit`.
    :param floor: the median of `floors`.
    :param ratio: the median of the pairs' own ratios, which a slow minute between two pairs does not move.
    :param goal: the highest ratio that is good.
    :param n: the number of pairs.
    :param faults: what went wrong beside the time, such as a backend call too many; none may.
    """

    name: str
    title: str
    unit: str
    value: float
    floor: float
    ratio: float
    goal: float
    ok: bool
    n: int
    values: list[float]
    floors: list[float]
    faults: list[str]


def judge(goal: Goal, values: Iterable[float], floors: Iterable[float], faults: Iterable[str] = ()) -> Result:
    """The medians, and whether they are good."""
    values, floors, faults = list(values), list(floors), list(faults)
    value, floor = median(values), median(floors)
    ratio = median(mine / theirs for mine, theirs in zip(values, floors, strict=True))
    return Result(
        name=goal.name,
        title=goal.title,
        unit=goal.unit,
        value=round(value, 4),
        floor=round(floor, 4),
        ratio=round(ratio, 3),
        goal=goal.most,
        ok=ratio <= goal.most and not faults,
        n=len(values),
        values=[round(number, 4) for number in values],
        floors=[round(number, 4) for number in floors],
        faults=faults,
    )


def in_turn(pairs: int, floor: Callable[[], float], value: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Values and floors, measured floor, value, floor, value …: a slow minute of the machine then meets both."""
    values, floors = [], []
    for _ in range(pairs):
        floors.append(floor())
        values.append(value())
    return values, floors


def read(path: Path = RESULTS) -> list[dict[str, object]]:
    """The rows of an earlier run; none where there was none."""
    found: list[dict[str, object]] = json.loads(path.read_text()) if path.exists() else []
    return found


def write(results: Iterable[Result], measured: Iterable[str], path: Path = RESULTS) -> None:
    """Put these rows in the place of the earlier ones of all names in `measured`; other rows stay.

    A name that was measured and has no result, because it failed, has no row afterwards.
    """
    measured = set(measured)
    rows = [row for row in read(path) if row["name"] not in measured] + [asdict(result) for result in results]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n")
