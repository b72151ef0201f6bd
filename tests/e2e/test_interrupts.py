"""What is cut off: ^C, a plugin that is killed, a CLI that is killed. The next `up` converges."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from replicator.model import StreamState, token_digest

from tests.e2e.conftest import Make
from tests.e2e.memory import SERVE_BEHIND, SERVE_HELD, Memory, serving
from tests.e2e.programs import stream, yaml_program
from tests.pulumi import Project, is_running, kill_plugins, plugins_of
from tests.waiting import wait_until

UP = ("up", "--skip-preview")


class HeldMemory(Memory):
    """A memory backend that does nothing in calls of one kind while they are held."""

    def __init__(self, socket: Path, gate: Path) -> None:
        super().__init__(socket)
        self._gate = gate

    @contextmanager
    def holding(self, call: str) -> Iterator[None]:
        self._gate.write_text(call)
        try:
            yield
        finally:
            self._gate.write_text("")


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldMemory]:
    gate = tmp_path_factory.mktemp("held") / "gate"
    gate.write_text("")
    with serving(SERVE_HELD, ("--gate", str(gate))) as served:
        yield HeldMemory(served.socket, gate)


def finish(process: subprocess.Popen[str], seconds: float = 60) -> str:
    """Wait for the end of a call, and return what it printed."""
    try:
        return process.communicate(timeout=seconds)[0]
    finally:
        process.kill()


def start_change(project: Project, memory: Memory) -> subprocess.Popen[str]:
    """Begin an `up`, and return when the backend was asked for the change."""
    before = memory.calls()["upsert_stream"]
    process = project.start(*UP)
    wait_until(lambda: memory.calls()["upsert_stream"] > before, "the backend was asked")
    return process


def test_interrupt_while_the_backend_works(make_project: Make) -> None:
    """Each call takes its time: after the interrupt the plugin asks for what has come of the change."""
    with serving(arguments=("--latency", "1.2s")) as slow:
        interrupt_while_it_works(slow, make_project("interrupted"))


def interrupt_while_it_works(slow: Memory, project: Project) -> None:
    project.write_yaml(yaml_program(slow.address, stream(project)))
    process = start_change(project, slow)
    process.send_signal(signal.SIGINT)
    text = finish(process)
    assert process.returncode == 1, text
    assert "cancelled during the change; the engine continues [RPL-WAIT-CANCELLED]" in text
    deployment = project.deployment()
    assert not deployment.get("pending_operations")
    (state,) = [item for item in deployment["resources"] if item["type"] == "replicator:index:Stream"]
    assert state["id"] == f"memory/default/{state['inputs']['name']}"
    assert state["initErrors"]

    project.up("--skip-preview")
    assert project.preview("--expect-no-changes").done("main") == ["same"]
    assert slow.names() == [state["inputs"]["name"]]


def test_plugin_killed_in_create_then_cli_killed_in_update(held: HeldMemory, make_project: Make) -> None:
    project = make_project("killed")
    project.write_yaml(yaml_program(held.address, stream(project)))
    with held.holding("upsert_stream"):
        process = start_change(project, held)
        kill_plugins(process.pid)
        text = finish(process)
    assert process.returncode == 1, text
    assert "main" not in project.resources()
    wait_until(lambda: [name for name in held.names() if "killed" in name], "the backend went on")

    project.up("--skip-preview")
    name = project.resources()["main"]["inputs"]["name"]
    assert [other for other in held.names() if "killed" in other] == [name]

    project.write_yaml(yaml_program(held.address, stream(project, mode="cdc")))
    with held.holding("upsert_stream"):
        process = start_change(project, held)
        plugins = plugins_of(process.pid)
        assert plugins
        process.kill()
        finish(process)
    wait_until(lambda: not [plugin for plugin in plugins if is_running(plugin)], "the plugins have ended", timeout=5)
    project.run("cancel", "--yes", "--stack", project.stack)
    project.up("--skip-preview")
    found = held.find(name)
    assert found
    assert found.stream.mode == "cdc"
    assert project.preview("--expect-no-changes").done("main") == ["same"]


def test_a_lost_create_is_adopted_with_the_same_data_only(held: HeldMemory, make_project: Make) -> None:
    project = make_project("lost-answer")
    inputs = stream(project, name="lost-answer")
    project.write_yaml(yaml_program(held.address, inputs))
    with held.holding("upsert_stream"):
        process = start_change(project, held)
        kill_plugins(process.pid)
        finish(process)
    assert "main" not in project.resources()
    wait_until(lambda: "lost-answer" in held.names(), "the backend went on")
    made = held.find("lost-answer")

    other = {"kind": "postgres", "uri": "postgres://db.example/other"}
    project.write_yaml(yaml_program(held.address, {**inputs, "source": other}))
    refused = project.up("--skip-preview", check=False)
    assert refused.code == 1
    (error,) = refused.said("error", "main")
    assert f"memory/default/lost-answer exists, with the source {inputs['source']['uri']}" in error
    assert "or one whose create was interrupted [RPL-OWNER-OTHER]" in error
    found = held.find("lost-answer")
    assert found and made
    assert found.stream == made.stream

    project.write_yaml(yaml_program(held.address, inputs))
    project.up("--skip-preview")
    adopted = held.find("lost-answer")
    assert adopted and adopted.stream.owner
    assert adopted.stream.owner != made.stream.owner, "the token that was lost is stale"
    assert adopted.stream.owner.token == token_digest(project.owner_token("main"))
    assert (adopted.status.events_replicated or 0) >= (found.status.events_replicated or 0), "nothing began again"
    project.destroy("--skip-preview")
    assert held.find("lost-answer") is None


KILLS: tuple[tuple[str, Mapping[str, Any], str], ...] = (
    ("create", {}, "describe"),
    ("update", {"mode": "cdc"}, "upsert_stream"),
    ("update back", {}, "describe"),
    ("pause", {"desiredState": "paused"}, "upsert_stream"),
    ("resume", {}, "describe"),
    ("pause again", {"desiredState": "paused"}, "describe"),
    ("resume again", {}, "upsert_stream"),
)
"""What is declared, and the call of the plugin at which it is killed: the effect itself, or the look after it."""


@pytest.mark.timeout(400)
def test_plugin_killed_at_each_call(held: HeldMemory, make_project: Make) -> None:
    project = make_project("each-call")
    name = "killed-at-each-call"
    for what, changes, call in KILLS:
        project.write_yaml(yaml_program(held.address, stream(project, name=name, **changes)))
        kill_plugins_at(call, project, held, *UP)
        assert (what, project.up("--skip-preview").text.count("error")) == (what, 0)
        assert project.preview("--expect-no-changes").done("main") == ["same"]
        found = held.find(name)
        assert found
        wanted = {"mode": "snapshot_then_cdc", "desiredState": "running", **changes}
        wire = found.stream.wire()
        assert (what, {key: wire[key] for key in wanted}) == (what, wanted)
        paused = wanted["desiredState"] == "paused"
        assert found.status.state is (StreamState.PAUSED if paused else StreamState.RUNNING)
        assert found.stream.owner
        assert token_digest(project.owner_token("main")) == found.stream.owner.token
    kill_plugins_at("delete_stream", project, held, "destroy", "--skip-preview")
    project.destroy("--skip-preview")
    assert held.find(name) is None
    assert "main" not in project.resources()


def kill_plugins_at(call: str, project: Project, memory: HeldMemory, *words: str) -> None:
    """Run an operation, and kill its plugins when the backend gets a call."""
    before = memory.calls()[call]
    with memory.holding(call):
        process = project.start(*words)
        wait_until(lambda: memory.calls()[call] > before, f"{call} came")
        kill_plugins(process.pid)
        text = finish(process)
    assert process.returncode == 1, text


def test_waits_end_on_time_out_and_interrupt(tmp_path: Path, make_project: Make) -> None:
    gate = tmp_path / "caught-up"
    project = make_project("waits")
    with serving(SERVE_BEHIND, ("--gate", str(gate))) as behind:
        inputs = stream(project, waitFor="caught_up")
        limited = {"customTimeouts": {"create": "2s"}}
        project.write_yaml(yaml_program(behind.address, inputs, options=limited))
        late = project.up("--skip-preview", check=False)
        assert late.code == 1
        assert "the change took longer than 2 s; nothing was undone; last progress: " in late.text
        assert "raise the resource's customTimeouts" in late.text
        state = project.resources()["main"]
        name = state["inputs"]["name"]
        assert state["id"] == f"memory/default/{name}"
        assert state["initErrors"]
        assert behind.status(name).state is StreamState.CATCHING_UP

        project.write_yaml(yaml_program(behind.address, {**inputs, "mode": "cdc"}))
        polls = behind.calls()["describe"]
        process = project.start(*UP)
        wait_until(lambda: behind.calls()["describe"] >= polls + 2, "it waits")
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        text = finish(process)
        assert time.monotonic() - asked < 3
        assert process.returncode == 1, text
        assert "cancelled while waiting for caught_up; the engine continues [RPL-WAIT-CANCELLED]" in text
        deployment = project.deployment()
        assert not deployment.get("pending_operations")
        assert project.resources()["main"]["id"] == state["id"]

        gate.touch()
        project.up("--skip-preview")
        assert project.preview("--expect-no-changes").done("main") == ["same"]
        assert behind.names() == [name]
        project.destroy("--skip-preview")
