"""The dynamic provider under the real CLI, in a Python that has our package and neither plugin nor SDK."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest
from replicator.model import token_digest

from tests.e2e.conftest import Make
from tests.e2e.memory import Memory
from tests.e2e.programs import DYNAMIC, Dynamic, stream
from tests.e2e.test_life_cycle import live
from tests.pulumi import SCRIPTS, Project
from tests.waiting import wait_until

TYPE = "pulumi-python:dynamic/replicator:Stream"
SECRET = "env://KANARIE_*"


@pytest.fixture
def make(make_project: Make, memory: Memory, bare_python: dict[str, str]) -> Make:
    """Makes projects that find no plugin, with the address of the backend in their configuration."""

    def make(name: str) -> Project:
        project = make_project(name, plugins=None, environment=bare_python)
        Dynamic().prepare(project, memory)
        return project

    return make


def write(project: Project, body: str = "", **inputs: Any) -> None:
    """A program with the stream `main`, and more lines after it."""
    project.write_python(DYNAMIC.format(inputs=stream(project, **inputs)) + body)


def test_there_is_neither_plugin_nor_sdk(make: Make) -> None:
    project = make("bare")
    assert shutil.which("pulumi-resource-replicator", path=project.env["PATH"]) is None
    code = "import importlib.util as u, replicator; print(u.find_spec('pulumi_replicator'), replicator.__file__)"
    python = project.env["PULUMI_PYTHON_CMD"]
    sdk, own = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert sdk == "None"
    assert "site-packages" in own


@pytest.mark.timeout(300)
def test_life_cycle(make: Make, memory: Memory) -> None:
    """The table that YAML and Python programs run on the plugin."""
    live(make("life-dynamic"), Dynamic(), memory)


def test_a_preview_says_what_the_plugin_says(make: Make, memory: Memory) -> None:
    project = make("dynamic-previews")
    write(project)
    project.up("--skip-preview")
    effects = memory.effects()
    write(project, mode="cdc", desired_state="paused")
    ran = project.preview("--diff")
    assert ran.said("warning", "main") == ["mode: restarts: the stream stops and starts again from its checkpoint"]
    assert ran.said("info", "main") == [
        "desiredState: while it is paused, the events of the pause are delivered on resume"
    ]
    assert '+ mode        : "cdc"' in ran.text
    assert "__" not in ran.text.replace("__main__", "")
    assert memory.effects() == effects
    project.destroy("--skip-preview")


def test_what_is_wrong_is_refused_in_preview(make: Make, memory: Memory) -> None:
    project = make("dynamic-refusals")
    effects = memory.effects()
    write(
        project,
        source={"kind": "postgres", "uri": "postgres://app:hunter2@db.example/shop"},
        mode="sideways",
        checkpoint_interval="soon",
    )
    ran = project.preview(check=False)
    assert ran.code == 1
    start = f"error: {TYPE} resource 'main' has a problem: "
    told = sorted(line.strip().removeprefix(start) for line in ran.text.partition("Diagnostics:")[2].splitlines())
    assert [line for line in told if "RPL-" in line] == [
        'checkpointInterval: is not a duration; write one such as "10s" or "1m30s" [RPL-STREAM-INVALID]',
        "mode: must be one of 'cdc', 'snapshot' or 'snapshot_then_cdc' [RPL-STREAM-INVALID]",
        "source.uri: holds a secret, which would stand in the state; name it with authRef instead [RPL-STREAM-INVALID]",
    ]
    assert "Traceback" not in ran.text
    assert "hunter2" not in ran.text
    assert memory.effects() == effects


def test_a_stream_that_is_not_well_is_in_the_state(make: Make, memory: Memory) -> None:
    project = make("dynamic-unwell")
    write(project, options={"fail": "no space left"})
    failed = project.up(check=False)
    assert failed.code != 0
    state = project.resources()["main"]
    name = state["inputs"]["name"]
    assert "error: main is created, and unhealthy: the stream failed: no space left" in failed.text
    assert "Traceback" not in failed.text
    assert state["outputs"]["trouble"] == ["the stream failed: no space left"]
    planned = project.preview()
    assert planned.done("main") == ["update"]
    assert planned.said("warning", "main") == [
        "the stream was unhealthy after the last run; this update tries again: the stream failed: no space left"
    ]
    write(project)
    project.up("--skip-preview")
    assert project.resources()["main"]["outputs"]["trouble"] == []
    project.preview("--expect-no-changes")
    project.destroy("--skip-preview")
    assert name not in memory.names()


def test_an_error_says_what_to_do_at_its_end(make: Make, memory: Memory) -> None:
    project = make("dynamic-protected")
    write(project, deletion_protection=True)
    project.up("--skip-preview")
    refused = project.destroy("--skip-preview", check=False)
    assert refused.code != 0
    (error,) = refused.said("error", "main")
    assert error.endswith(
        "deletionProtection is on [RPL-STREAM-PROTECTED]\n"
        "  → set deletionProtection to false and run pulumi up with no other change; then remove or replace the stream"
    )
    write(project)
    project.up("--skip-preview")
    project.destroy("--skip-preview")


def test_a_secret_stays_encrypted(make: Make, memory: Memory) -> None:
    project = make("dynamic-secret")
    destination = stream(project)["destination"]
    program = DYNAMIC.format(inputs=stream(project)).replace(
        repr(destination), f"{{**{destination!r}, 'auth_ref': pulumi.Output.secret({SECRET!r})}}"
    )
    assert SECRET in program
    project.write_python(program)
    shown = [project.up("--diff").text, project.preview("--expect-no-changes", "--diff").text]
    found = memory.find(project.resources()["main"]["inputs"]["name"])
    assert found is not None
    assert found.stream.destination.auth_ref == SECRET
    shown.append(project.refresh("--skip-preview").text)
    assert project.state is not None
    stored = [path.read_text() for path in project.state.rglob("*") if path.is_file()]
    assert any(TYPE in text for text in stored)
    assert not [text for text in (*shown, *stored) if SECRET in text]
    project.destroy("--skip-preview")


def test_below_a_component_the_name_of_the_owner_is_the_urn(make: Make, memory: Memory) -> None:
    project = make("dynamic-component")
    write(
        project,
        """
class Group(pulumi.ComponentResource):
    def __init__(self, name):
        super().__init__("shop:index:Group", name)
        self.stream = dynamic.Stream(
            "inner",
            pulumi.ResourceOptions(parent=self),
            backend="memory",
            source={"kind": "kafka", "uri": "kafka://broker.example:9092/inner"},
            destination={"kind": "s3", "uri": pulumi.Output.concat("s3://", main.name, "/inner")},
        )
        self.register_outputs({"stream": self.stream.id})

pulumi.export("inner", Group("group").stream.name)
""",
    )
    assert project.up().done("inner") == ["create"]
    inner = project.resources()["inner"]
    assert inner["urn"] == f"urn:pulumi:dev::{project.name}::shop:index:Group${TYPE}::inner"
    found = memory.find(project.outputs()["inner"])
    assert found is not None
    assert found.stream.owner is not None
    assert found.stream.owner.urn == inner["urn"]
    project.destroy("--skip-preview")


def test_a_stream_moves_to_the_plugin_and_is_not_touched(make: Make, memory: Memory) -> None:
    project = make("dynamic-moves")
    write(project, mode="cdc")
    project.up("--skip-preview")
    state = project.resources()["main"]
    name, effects, held = state["inputs"]["name"], memory.effects(), project.owner_token("main")
    assert held not in json.dumps(state)
    project.run("state", "delete", state["urn"], "--yes", "--stack", "dev")
    project.plugins, project.environment = SCRIPTS, {}
    project.write_yaml({})
    token = "replicator:index:Stream"
    imported = ("import", token, "main", state["id"], "--yes", "--protect=false", "--stack", "dev")
    assert f"this stream is owned by {state['urn']}; the next update takes ownership" in project.run(*imported).text
    declared = project.resources()["main"]["inputs"]
    project.write_yaml({"resources": {"main": {"type": token, "properties": declared}}})
    assert project.preview().done("main") == ["update"]
    assert memory.effects() == effects
    project.up("--skip-preview")
    project.preview("--expect-no-changes")
    found = memory.find(name)
    assert found is not None
    assert found.stream.owner is not None
    assert found.stream.owner.urn == project.resources()["main"]["urn"]
    assert found.stream.owner.token == token_digest(project.owner_token("main")) != token_digest(held)
    project.destroy("--skip-preview")


REPLAY = """
run = dynamic.replay(main.id, start={{"lsn": {lsn!r}}}, idempotency_key={key!r})
pulumi.export("run", run)
pulumi.export("run_events", run.events)
"""


def test_replay(make: Make, memory: Memory) -> None:
    project = make("dynamic-replay")
    write(project)
    project.up("--skip-preview")
    name = project.resources()["main"]["inputs"]["name"]
    wait_until(lambda: (memory.status(name).events_replicated or 0) >= 5, "five events")

    write(project, REPLAY.format(lsn="0", key="first"))
    effects = memory.effects()
    planned = project.preview()
    assert 'state   : "planned"' in planned.text
    assert "events are delivered again; the destination keeps one copy of each" in planned.text
    assert memory.effects() == effects

    project.up("--skip-preview")
    outputs = project.outputs()
    record = memory.replay(name, "first")
    assert (outputs["run"]["state"], outputs["run"]["events"]) == ("done", record.events)
    assert outputs["run_events"] == record.events
    project.up("--skip-preview")
    assert project.outputs()["run"] == outputs["run"]
    assert memory.replay(name, "first") == record
    emitted = memory.status(name)
    position = int((emitted.last_checkpoint and emitted.last_checkpoint.lsn) or 0)
    assert (emitted.events_replicated or 0) - position == record.events

    for key, lsn, says in (
        ("first", "1", "idempotencyKey: key 'first' was used for a replay from lsn 0 by log_rewind"),
        ("second", "999999999", "[RPL-REPLAY-RETENTION]"),
        ("", "0", "replay: idempotencyKey: must not be empty"),
    ):
        write(project, REPLAY.format(lsn=lsn, key=key))
        refused = project.up("--skip-preview", check=False)
        assert refused.code != 0
        assert says in refused.text
        assert "Traceback" not in refused.text
    project.destroy("--skip-preview")


def test_a_wrong_setting_is_told(make: Make, memory: Memory) -> None:
    project = make("dynamic-config")
    project.configure("replicator:preflight", "sometimes")
    write(project)
    refused = project.preview(check=False)
    assert refused.code != 0
    assert "replicator:preflight: must be one of 'strict', 'warn' or 'off' [RPL-CONFIG-INVALID]" in refused.text
    assert json.loads(project.run("stack", "export", "--stack", "dev").stdout)["deployment"].get("resources", []) == []
