"""A replay in a program: planned in a preview, run by an update, and never twice for one key."""

from __future__ import annotations

from typing import Any

from tests.e2e.conftest import Make
from tests.e2e.memory import Memory, until
from tests.e2e.programs import invoke, stream, yaml_program
from tests.pulumi import Project


def write(project: Project, memory: Memory, key: str, lsn: str) -> None:
    start: dict[str, Any] = {"stream": "${main.id}", "start": {"lsn": lsn}}
    variables = {"run": invoke("replay", **start, idempotencyKey=key), "plan": invoke("planReplay", **start)}
    outputs = {"run": "${run}", "plan": "${plan}"}
    project.write_yaml(yaml_program(memory.address, stream(project), outputs=outputs, variables=variables))


def test_replay(memory: Memory, make_project: Make) -> None:
    project = make_project("replays")
    project.write_yaml(yaml_program(memory.address, stream(project)))
    project.up("--skip-preview")
    name = project.resources()["main"]["inputs"]["name"]
    until(lambda: (memory.status(name).events_replicated or 0) >= 5, "five events")

    write(project, memory, "first", "0")
    effects = memory.effects()
    planned = project.preview()
    assert 'state   : "planned"' in planned.text
    assert "events are delivered again; the destination keeps one copy of each" in planned.text
    assert memory.effects() == effects

    project.up("--skip-preview")
    outputs = project.outputs()
    run, plan = outputs["run"], outputs["plan"]
    assert run["state"] == "done"
    assert run["method"] == plan["method"] == "log_rewind"
    assert run["resolved"]["lsn"] == plan["resolved"]["lsn"] == "0"
    assert run["events"] >= 5
    assert plan["effects"] == [f"{plan['events']} events are delivered again; the destination keeps one copy of each"]
    record = memory.replay(name, "first")
    emitted = memory.status(name)
    again = (emitted.events_replicated or 0) - int((emitted.last_checkpoint and emitted.last_checkpoint.lsn) or 0)
    assert again == record.events == run["events"]

    project.up("--skip-preview")
    assert project.outputs()["run"] == run
    assert memory.replay(name, "first") == record
    emitted = memory.status(name)
    later = (emitted.events_replicated or 0) - int((emitted.last_checkpoint and emitted.last_checkpoint.lsn) or 0)
    assert later == again

    write(project, memory, "first", "1")
    reused = project.up("--skip-preview", check=False)
    assert reused.code == 1
    assert "key 'first' was used for a replay from lsn 0 [RPL-REPLAY-KEY]" in reused.text

    write(project, memory, "second", "999999999")
    refused = project.preview(check=False)
    assert refused.code == 1
    assert "start: lsn 999999999 is not retained" in refused.text
    assert "[RPL-REPLAY-RETENTION]" in refused.text
