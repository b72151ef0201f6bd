"""A replay in a program: planned in a preview, run by an update, and never twice for one key."""

from __future__ import annotations

from typing import Any

from tests.e2e.conftest import Make
from tests.e2e.memory import Memory, serving
from tests.e2e.programs import invoke, stream, yaml_program
from tests.e2e.test_interrupts import finish
from tests.pulumi import Project, kill_plugins
from tests.waiting import wait_until


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
    wait_until(lambda: (memory.status(name).events_replicated or 0) >= 5, "five events")

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
    assert "key 'first' was used for a replay from lsn 0 by log_rewind, started " in reused.text

    write(project, memory, "second", "999999999")
    refused = project.preview(check=False)
    assert refused.code == 1
    assert "start: lsn 999999999 is not retained" in refused.text
    assert "[RPL-REPLAY-RETENTION]" in refused.text


def write_run(project: Project, memory: Memory, lsn: str, *triggers: str) -> None:
    """A stream and a replay of it as a resource."""
    program = yaml_program(memory.address, stream(project), outputs={"run": "${rerun}"})
    program["resources"]["rerun"] = {
        "type": "replicator:index:ReplayRun",
        "properties": {"stream": "${main.id}", "start": {"lsn": lsn}, "triggers": list(triggers)},
        "options": {"provider": "${provider}"},
    }
    project.write_yaml(program)


def delivered_again(memory: Memory, name: str) -> int:
    status = memory.status(name)
    return (status.events_replicated or 0) - int((status.last_checkpoint and status.last_checkpoint.lsn) or 0)


def test_replay_as_a_resource(memory: Memory, make_project: Make) -> None:
    project = make_project("reruns")
    project.write_yaml(yaml_program(memory.address, stream(project)))
    project.up("--skip-preview")
    name = project.resources()["main"]["inputs"]["name"]
    wait_until(lambda: (memory.status(name).events_replicated or 0) >= 5, "five events")

    write_run(project, memory, "0", "first")
    effects = memory.effects()
    planned = project.preview()
    assert planned.done("rerun") == ["create"]
    assert "replay by log_rewind from 0: " in planned.text
    assert planned.said("warning", "rerun") == ["replay: the destination gets records again that it holds already"]
    assert memory.effects() == effects

    project.up("--skip-preview")
    run = project.resources()["rerun"]["outputs"]
    assert (run["state"], run["resolved"]["lsn"]) == ("done", "0")
    assert delivered_again(memory, name) == run["events"] >= 5
    assert project.preview("--expect-no-changes").done("rerun") == ["same"]
    assert project.refresh("--skip-preview", "--expect-no-changes").done("rerun") == ["same"]

    write_run(project, memory, "0", "second")
    project.up("--skip-preview")
    second = project.resources()["rerun"]["outputs"]
    assert second["key"] != run["key"]
    assert delivered_again(memory, name) == run["events"] + second["events"]

    write_run(project, memory, "999999999", "third")
    refused = project.preview(check=False)
    assert refused.code == 1
    assert "[RPL-REPLAY-RETENTION]" in refused.said("error", "rerun")[0]
    project.destroy("--skip-preview")


def test_a_replay_that_a_crash_cut_off_is_joined(make_project: Make) -> None:
    project = make_project("rejoined")
    with serving(arguments=["--latency", "1s"]) as memory:
        project.write_yaml(yaml_program(memory.address, stream(project)))
        project.up("--skip-preview")
        name = project.resources()["main"]["inputs"]["name"]
        write_run(project, memory, "0", "first")
        process = project.start("up", "--skip-preview")
        wait_until(lambda: memory.calls().get("replay", 0) > 0, "the replay was asked for")
        kill_plugins(process.pid)
        text = finish(process)
        assert process.returncode == 1, text
        assert "rerun" not in project.resources()
        wait_until(lambda: delivered_again(memory, name) > 0, "the engine went on by itself")
        before = delivered_again(memory, name)

        assert "this replay has begun before and is done; it is joined" in project.preview().text
        project.up("--skip-preview")
        run = project.resources()["rerun"]["outputs"]
        assert run["events"] == before == delivered_again(memory, name)
        project.destroy("--skip-preview")
