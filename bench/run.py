"""Measures: `python bench/run.py [--quick] [NAME…]`. Without names, everything, in about twenty minutes on two cores.

The rows go to `build/bench.json`; rows of a name that was not measured stay. What is measured together (all operations
on 200 streams, say) is measured together also when one of them is named. `--quick` is for trying the bench itself: few
streams, one pair, nothing written.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in bench/ alone
from bench.agents import agent_100
from bench.goals import GOALS
from bench.growth import agent_1000, memory_10000
from bench.measure import Result, write
from bench.mirrors import mirrors
from bench.spawn import installed_to_port, spawn_to_port
from bench.stacks import life_cycle, thousand
from bench.tables import tables


@dataclass(frozen=True, slots=True)
class Group:
    """What is measured together.

    :param names: its rows.
    :param run: takes an empty folder and whether to be quick.
    """

    names: tuple[str, ...]
    run: Callable[[Path, bool], list[Result]]


GROUPS = (
    Group(("spawn_to_port",), lambda folder, quick: [spawn_to_port(3 if quick else 15)]),
    Group(("installed_to_port",), lambda folder, quick: [installed_to_port(folder, 3 if quick else 15)]),
    Group(("agent_100",), lambda folder, quick: agent_100(folder, *((1, 10) if quick else (5, 100)))),
    Group(("agent_1000",), lambda folder, quick: agent_1000(folder, 300 if quick else 1000)),
    Group(("memory_10000",), lambda folder, quick: memory_10000(500 if quick else 10_000)),
    Group(
        ("up_200", "preview_200", "refresh_200", "destroy_200"),
        lambda folder, quick: life_cycle(folder, *((1, 10) if quick else (3, 200))),
    ),
    Group(("preview_1000", "plugin_rss"), lambda folder, quick: thousand(folder, *((1, 20) if quick else (3, 1000)))),
    Group(
        tuple(name for name in GOALS if name.startswith("connect_100")),
        lambda folder, quick: mirrors(folder, *((1, 10) if quick else (3, 100))),
    ),
    Group(
        tuple(name for name in GOALS if name.startswith("debezium_")),
        lambda folder, quick: tables(folder, *((1, 4) if quick else (3, 20))),
    ),
)

_HEAD = f"{'':26} {'value':>9} {'floor':>9} {'ratio':>6} {'goal':>6}"


def row(result: Result, quick: bool) -> str:
    """A result as a line of the table; a quick one has no verdict."""
    numbers = f"{_number(result.value, result.unit):>9} {_number(result.floor, result.unit):>9}"
    verdict = "" if quick else "ok" if result.ok else "MISSED"
    return f"{result.name:26} {numbers} {result.ratio:6.2f} {result.goal:6.2f}  {verdict:6}  {result.title}"


def _number(value: float, unit: str) -> str:
    return f"{value * 1000:.0f} ms" if unit == "s" and value < 1 else f"{value:.2f} {unit}"


def measure(group: Group, quick: bool) -> list[Result]:
    """Measure a group in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return group.run(Path(folder), quick)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Measure each thing over its floor; see bench/README.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(GOALS)}")
    parser.add_argument("--quick", action="store_true", help="try the bench: few streams, one pair, nothing written")
    options = parser.parse_args(arguments)
    wanted = set(options.names or GOALS)
    if unknown := sorted(wanted - set(GOALS)):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(GOALS)}")
    if (load := os.getloadavg()[0]) > 0.5 * (os.cpu_count() or 1):
        print(f"this machine is busy already (load {load:.1f}): the numbers may say little", flush=True)
    print(_HEAD, flush=True)
    failed = False
    for group in GROUPS:
        if wanted.isdisjoint(group.names):
            continue
        results: list[Result] = []
        try:
            results = measure(group, options.quick)
        except Exception:
            traceback.print_exc()
            print(f"not measured: {', '.join(group.names)}", flush=True)
            failed = True
        for result in results:
            print("\n".join([row(result, options.quick), *(f"{'':26} {fault}" for fault in result.faults)]), flush=True)
        if not options.quick:
            write(results, group.names)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
