"""A stream that is not well, and a backend that does not answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from replicator.model import StreamState

from tests.e2e.conftest import Make
from tests.e2e.memory import Memory, serving
from tests.e2e.programs import stream, yaml_program

FAILING = {"options": {"fail": "disk is full"}}


def test_made_but_not_well(memory: Memory, make_project: Make) -> None:
    project = make_project("unwell")
    project.write_yaml(yaml_program(memory.address, stream(project, **FAILING)))
    made = project.up("--skip-preview", check=False)
    assert made.code == 1
    assert "the stream failed: disk is full" in made.text
    state = project.resources()["main"]
    name = state["inputs"]["name"]
    assert state["id"] == f"memory/default/{name}"
    assert state["initErrors"] == ["the stream failed: disk is full"]
    assert state["outputs"]["status"]["state"] == "failed"

    again = project.preview("--expect-no-changes", check=False)
    assert again.code == 7
    why = "the stream was unhealthy after the last run; this update tries again: the stream failed: disk is full"
    assert why in again.said("warning", "main")

    tries = memory.effects()["upsert_stream"]
    assert project.up("--skip-preview", check=False).code == 1
    assert memory.effects()["upsert_stream"] == tries + 1
    assert project.resources()["main"]["id"] == state["id"]

    project.write_yaml(yaml_program(memory.address, stream(project)))
    healed = project.up("--skip-preview")
    assert healed.done("main")[-1] == "update"
    assert "initErrors" not in project.resources()["main"]
    assert project.preview("--expect-no-changes").done("main") == ["same"]
    assert memory.status(name).state is StreamState.RUNNING


def test_no_agent(tmp_path: Path, make_project: Make) -> None:
    address = f"unix://{tmp_path}/none.sock"
    project = make_project("nobody")
    program = yaml_program(address, stream(project))
    other = {**program["resources"]["main"], "properties": stream(project, name="nobody-else")}
    project.write_yaml({**program, "resources": {**program["resources"], "other": other}})

    preview = project.preview()
    assert preview.done("main") == preview.done("other") == ["create"]
    (warning,) = preview.said("warning")
    assert f"no agent runs at {address}" in warning
    assert "[RPL-AGENT-DOWN]\n  → start it: " in warning

    up = project.up("--skip-preview", check=False)
    assert up.code == 1
    assert f"no agent runs at {address}" in up.said("error", "main")[0]
    assert "[RPL-AGENT-DOWN]\n  → start it: " in up.said("error", "main")[0]
    assert "main" not in project.resources()


def test_no_answer_is_not_gone(make_project: Make) -> None:
    project = make_project("silent")
    with serving() as memory:
        project.write_yaml(yaml_program(memory.address, stream(project)))
        project.up("--skip-preview")
        before = project.resources()["main"]
    for command in ("refresh", "destroy"):
        ran = project.operate(command, "--skip-preview", check=False)
        assert ran.code == 1, ran.text
        assert "[RPL-AGENT-DOWN]" in ran.text
        assert _clear(project.resources()["main"]["outputs"]) == _clear(before["outputs"])
    assert project.preview("--expect-no-changes").done("main") == ["same"]


def _clear(outputs: dict[str, Any]) -> dict[str, Any]:
    """Without the secret, which each run encrypts anew."""
    return {key: value for key, value in outputs.items() if key != "ownerToken"}
