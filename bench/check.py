"""Says whether every goal was met: `python bench/check.py [FILE]`. Exit code 1 where one was missed or not measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script, Python looks in bench/ alone
from bench.goals import GOALS
from bench.measure import RESULTS, read


def problems(path: Path) -> list[str]:
    """One sentence for each goal that was missed or not measured."""
    rows = {row["name"]: row for row in read(path)}
    found = []
    for goal in GOALS.values():
        row = rows.get(goal.name)
        if row is None:
            found.append(f"{goal.name}: not measured; run python bench/run.py {goal.name}")
        elif row["goal"] != goal.most:
            found.append(f"{goal.name}: measured against another goal ({row['goal']}); measure again")
        elif row["ok"] is not True:
            faults = "".join(f"; {fault}" for fault in cast("list[str]", row["faults"]))
            found.append(
                f"{goal.name}: {row['ratio']} times the floor, the goal is {goal.most} "
                f"({row['value']} {goal.unit} over {row['floor']} {goal.unit}){faults}"
            )
    return found


def main(arguments: list[str]) -> int:
    found = problems(Path(arguments[0]) if arguments else RESULTS)
    for line in found:
        print(line)
    if not found:
        print(f"all {len(GOALS)} goals are met")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
