"""Commands in the folder of a project: they read its stack's configuration, and take the names of its resources."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.agent.support import command
from tests.e2e.conftest import Make
from tests.e2e.memory import Memory
from tests.pulumi import Project, cli_folder

BACKEND = "replicator:memory"


def in_folder(
    project: Project, *words: str, folder: Path | None = None, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `replicator` in a folder, as somebody does who has the project's environment."""
    return command(*words, cwd=folder or project.folder, env={**project.env, **(variables or {})})


def notes(ran: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in ran.stderr.splitlines() if line.startswith("note: ")]


def program(**properties: Any) -> dict[str, Any]:
    ends = {
        "source": {"kind": "sqlite", "uri": "sqlite:///a.db"},
        "destination": {"kind": "s3", "uri": f"s3://bucket/{properties.pop('prefix')}"},
    }
    orders = {"type": "replicator:index:Stream", "properties": {"backend": "memory", **ends, **properties}}
    return {"resources": {"orders": orders}, "outputs": {"name": "${orders.name}"}}


@pytest.fixture(scope="module")
def stacks(memory: Memory, make_project: Make) -> dict[str, Project]:
    """Two stacks of one project, each with a stream of the resource `orders` in one backend."""
    made = {}
    for name in ("dev", "prod"):
        project = make_project("shop", stack=name)
        project.write_yaml(program(prefix=name))
        project.configure(BACKEND, {"address": memory.address})
        project.up("--skip-preview")
        made[name] = project
    return made


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_the_resource_of_the_selected_stack(stacks: dict[str, Project], stack: str, memory: Memory) -> None:
    project = stacks[stack]
    stream = project.outputs()["name"]
    ran = in_folder(project, "status", "orders", "--json")
    assert notes(ran) == [f"note: stack {stack} of project shop: memory at {memory.address}"]
    assert [item["id"] for item in json.loads(ran.stdout)] == [f"memory/default/{stream}"]

    folder = project.folder / "deeper"
    folder.mkdir(exist_ok=True)
    assert in_folder(project, "pause", "orders", folder=folder).stdout.startswith(f"{stream} is paused.")
    assert memory.status(stream).state == "paused"
    assert "Go on with: replicator resume orders\n" in in_folder(project, "pause", "orders").stdout
    assert in_folder(project, "resume", "orders").stdout == f"{stream} is running\n"
    assert memory.status(stream).state == "running"


def test_every_name_of_one_stream(stacks: dict[str, Project]) -> None:
    project = stacks["dev"]
    stream = project.outputs()["name"]
    texts = {
        in_folder(project, "describe", name).stdout.split("Lag:")[0]
        for name in ("orders", stream, f"memory/default/{stream}")
    }
    assert len(texts) == 1
    assert f"Id:         memory/default/{stream}" in texts.pop()


def test_another_stack(stacks: dict[str, Project], memory: Memory) -> None:
    stream = stacks["prod"].outputs()["name"]
    stacks["prod"].run("stack", "select", "prod")
    ran = in_folder(stacks["prod"], "wait", "orders", "--for", "running", "--stack", "prod")
    assert ran.stdout == f"{stream} is running\n"
    unknown = in_folder(stacks["prod"], "wait", "orders", "--stack", "none")
    assert unknown.returncode == 2
    assert "no stack named 'none' found" in " ".join(unknown.stderr.split())


def test_outside_of_a_stack_a_name_of_two_is_refused(
    stacks: dict[str, Project], memory: Memory, tmp_path: Path
) -> None:
    ids = [f"memory/default/{stacks[name].outputs()['name']}" for name in ("dev", "prod")]
    ran = in_folder(
        stacks["dev"], "pause", "orders", "--backend", "memory", "--address", memory.address, folder=tmp_path
    )
    assert ran.returncode == 2
    said = " ".join(ran.stderr.replace("│", " ").split())
    assert "'orders' is the name of several streams or resources; give an id:" in said
    assert f"{ids[0]} (of shop/dev/orders), {ids[1]} (of shop/prod/orders)" in said
    assert all(memory.status(id.rpartition("/")[2]).state == "running" for id in ids)


def test_a_name_that_nothing_has(stacks: dict[str, Project]) -> None:
    ran = in_folder(stacks["dev"], "pause", "order")
    assert ran.returncode == 1
    assert "stream 'order': " in ran.stderr
    assert "did you mean orders? see what is there: replicator list" in ran.stderr


def test_a_secret_block_is_not_read(make_project: Make, memory: Memory) -> None:
    project = make_project("hidden")
    project.run("config", "set", "--secret", BACKEND, json.dumps({"address": memory.address}))
    refused = in_folder(project, "list", "--backend", "memory")
    assert refused.returncode == 1
    text = "replicator:memory of stack dev of project hidden is secret, and is not read"
    assert f"{text} [RPL-CONFIG-INVALID]" in refused.stderr
    assert "→ give the address: --backend memory --address unix://" in refused.stderr
    assert memory.address not in refused.stderr

    given = in_folder(project, "list", variables={"REPLICATOR_MEMORY": json.dumps({"address": memory.address})})
    assert given.returncode == 0
    assert notes(given) == []


def test_the_owner_as_a_listing_shows_it(stacks: dict[str, Project]) -> None:
    stream = stacks["prod"].outputs()["name"]
    ran = in_folder(stacks["dev"], "replays", "shop/prod/orders")
    assert ran.stdout == f"{stream} has no replays\n"


def test_a_change_is_not_sent_to_another_engine_than_the_stacks(
    make_project: Make, memory: Memory, stacks: dict[str, Project], tmp_path: Path
) -> None:
    stream = stacks["dev"].outputs()["name"]
    unread = Project(tmp_path / "unread", name="unread")
    unread.write_yaml({})
    variables = {"REPLICATOR_MEMORY": json.dumps({"address": memory.address})}
    for words in (("pause", stream), ("replay", stream, "--lsn", "1", "--yes")):
        refused = in_folder(unread, *words, "--backend", "memory", variables=variables)
        assert refused.returncode == 1
        assert "is not used: pulumi says: no stack selected" in refused.stderr
        assert "→ say which engine is meant: --address, or --stack" in refused.stderr
    hidden = make_project("hidden-too")
    hidden.run("config", "set", "--secret", BACKEND, json.dumps({"address": memory.address}))
    assert "is secret, and is not read" in in_folder(hidden, "pause", stream).stderr
    assert memory.status(stream).state == "running"


def test_a_stack_that_cannot_be_read(make_project: Make, memory: Memory, tmp_path: Path) -> None:
    project = Project(tmp_path / "fresh", name="fresh")
    project.write_yaml({})
    ran = in_folder(project, "list", "--backend", "memory", "--address", memory.address)
    assert (ran.returncode, ran.stderr) == (0, "")
    variables = {"REPLICATOR_MEMORY": json.dumps({"address": memory.address})}
    ran = in_folder(project, "list", "--backend", "memory", variables=variables)
    assert ran.returncode == 0
    file = project.folder / "Pulumi.yaml"
    assert notes(ran)[0].startswith(f"note: the configuration of the project {file} is not used: pulumi says: no stack")
    without = {**variables, "PATH": "/usr/bin:/bin"}
    ran = in_folder(project, "list", "--backend", "memory", variables=without)
    assert cli_folder().is_dir()
    assert notes(ran) == [
        f"note: the configuration of the project {file} is not used: there is no pulumi on PATH",
    ]
