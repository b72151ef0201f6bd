"""The bench's own rules: its goals are the documented ones, and a goal that is missed fails the check."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from google.protobuf import json_format
from replicator.plugin.codec import encode

from bench.check import main
from bench.floor_plugin import OUTPUTS
from bench.goals import GOALS
from bench.measure import ROOT, Result, judge, write
from bench.stacks import find_faults
from tests.lifecycle.builders import Clock, Watched
from tests.plugin.builders import serving

Check = Callable[[list[Result]], tuple[int, str]]

CALLS = {"upsert_stream": 0, "describe": 0, "list_streams": 0, "delete_stream": 0, "preflight": 0}


def results() -> list[Result]:
    """A made-up run in which every goal is just met."""
    return [judge(goal, [goal.most] * 3, [1.0] * 3) for goal in GOALS.values()]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Checks rows as a file of results; gives the exit code and what was said."""

    def run(rows: list[Result]) -> tuple[int, str]:
        path = tmp_path / "bench.json"
        path.write_text(json.dumps([asdict(row) for row in rows]))
        code = main([str(path)])
        return code, capsys.readouterr().out

    return run


def test_goals_are_the_documented_ones() -> None:
    lines = (ROOT / "bench" / "README.md").read_text().splitlines()
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("|")]
    expected = [(goal.name, goal.title, goal.floor, str(goal.most)) for goal in GOALS.values()]
    assert rows[2:] == expected


def test_check_passes_where_every_goal_is_met(check: Check) -> None:
    assert check(results()) == (0, f"all {len(GOALS)} goals are met\n")


@pytest.mark.parametrize("name", GOALS)
def test_check_fails_and_names_what_was_missed(check: Check, name: str) -> None:
    goal = GOALS[name]
    missed = judge(goal, [goal.most + 0.01] * 3, [1.0] * 3)
    code, said = check([missed if row.name == name else row for row in results()])
    assert code == 1
    assert said.startswith(f"{name}: {missed.ratio} times the floor, the goal is {goal.most}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", GOALS)
def test_check_fails_and_names_what_was_not_measured(check: Check, name: str) -> None:
    code, said = check([row for row in results() if row.name != name])
    assert (code, said.partition(";")[0]) == (1, f"{name}: not measured")


def test_check_fails_without_any_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing.json")]) == 1
    assert capsys.readouterr().out.count("not measured") == len(GOALS)


def test_check_fails_on_a_softer_goal_than_ours(check: Check) -> None:
    code, said = check([replace(row, goal=9.0) if row.name == "up_200" else row for row in results()])
    assert (code, said) == (1, "up_200: measured against another goal (9.0); measure again\n")


def test_a_needless_backend_call_misses_the_goal() -> None:
    goal = GOALS["refresh_200"]
    assert judge(goal, [1.0], [1.0]).ok
    assert not judge(goal, [1.0], [1.0], ["refresh made 2 describe; one listing is enough"]).ok


def test_the_ratio_is_the_median_of_the_pairs() -> None:
    # A slow minute meets the second floor and the third value.
    result = judge(GOALS["up_200"], [1.2, 1.2, 12.0], [1.0, 10.0, 10.0])
    assert (result.value, result.floor, result.ratio) == (1.2, 10.0, 1.2)


@pytest.mark.parametrize(
    ("operation", "calls", "good"),
    [
        ("up", {"upsert_stream": 5, "describe": 5}, True),
        ("up", {"upsert_stream": 5, "describe": 6}, False),
        ("up", {"upsert_stream": 4, "describe": 4}, False),
        ("preview", {}, True),
        ("preview", {"describe": 1}, True),
        ("preview", {"describe": 2}, False),
        ("preview", {"preflight": 1}, False),
        ("refresh", {"describe": 1}, True),
        ("refresh", {"describe": 5}, False),
        ("refresh", {}, False),
        ("destroy", {"delete_stream": 5}, True),
        ("destroy", {"delete_stream": 5, "describe": 1}, False),
    ],
)
def test_backend_calls_are_counted(operation: str, calls: dict[str, int], good: bool) -> None:
    assert (not find_faults(operation, 5, [{**CALLS, **calls}])) == good


def test_a_later_run_replaces_its_own_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "build" / "bench.json"
    first = results()
    write(first, GOALS, path)
    better = replace(first[0], ratio=0.5)
    write([better], [better.name], path)
    found = {row["name"]: row["ratio"] for row in json.loads(path.read_text())}
    assert found == {**{row.name: row.ratio for row in first}, better.name: 0.5}


def test_a_run_that_failed_leaves_no_row(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    write(results(), GOALS, path)
    write([], ["up_200"], path)
    assert {row["name"] for row in json.loads(path.read_text())} == set(GOALS) - {"up_200"}


async def test_the_floor_answers_as_much_as_we_do() -> None:
    clock = Clock()
    async with serving(Watched(clock)) as provider:
        given = await provider.checked()
        id, made = await provider.create(given)
        clock.advance(2)
        _, _, outputs = await provider.read(id, given, made)
        wire = json_format.MessageToDict(encode(outputs))
        told = {key: value for key, value in wire.items() if key not in given}
        assert told.keys() == OUTPUTS.keys()
        assert told["status"].keys() == OUTPUTS["status"].keys()
        assert abs(len(json.dumps(told)) - len(json.dumps(OUTPUTS))) < 60
