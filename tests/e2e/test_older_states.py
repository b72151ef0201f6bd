"""A state with an input that an earlier release accepted and this one refuses: it means what it meant."""

from __future__ import annotations

import json

from tests.e2e.conftest import Make
from tests.e2e.memory import Memory
from tests.e2e.programs import stream


def test_a_duration_that_was_accepted_before(memory: Memory, make_project: Make) -> None:
    project = make_project("older-duration")
    project.configure("replicator:memory", {"address": memory.address})
    properties = stream(project, checkpointInterval="15s")
    project.write_yaml({"resources": {"main": {"type": "replicator:index:Stream", "properties": properties}}})
    project.up()
    exported = project.run("stack", "export", "--stack", project.stack).stdout
    assert '"15s"' in exported
    state = project.folder / "state.json"
    state.write_text(exported.replace('"15s"', json.dumps("10s - 5s")))
    project.run("stack", "import", "--file", str(state), "--stack", project.stack)

    assert project.preview("--expect-no-changes").code == 0
    project.refresh("--expect-no-changes")
    assert project.resources()["main"]["inputs"]["checkpointInterval"] == "10s - 5s"
    assert project.up().done("main") == ["same"]
    assert project.resources()["main"]["inputs"]["checkpointInterval"] == "15s"
    project.destroy()
