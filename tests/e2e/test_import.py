"""Streams that exist already: import takes them over, and nobody takes what somebody else manages."""

from __future__ import annotations

import pytest
import yaml
from replicator.model import Stream

from tests.e2e.conftest import Make
from tests.e2e.memory import Memory
from tests.e2e.programs import stream, yaml_program
from tests.pulumi import Project, Ran

LEGACY = {
    "name": "legacy",
    "source": {"kind": "postgres", "uri": "postgres://db.example/shop"},
    "destination": {"kind": "kafka", "uri": "kafka://broker.example:9092/legacy"},
    "mode": "cdc",
    "desiredState": "paused",
    "include": ["orders"],
}


@pytest.fixture(scope="module")
def project(memory: Memory, make_project: Make) -> Project:
    project = make_project("imports")
    project.configure("replicator:memory", {"address": memory.address})
    return project


def run_import(project: Project, name: str, *arguments: str, check: bool = True) -> Ran:
    words = ("import", "replicator:index:Stream", "leg", f"memory/default/{name}", "--yes", "--stack", project.stack)
    return project.run(*words, "--protect=false", *arguments, check=check)


def test_import_and_claim(memory: Memory, project: Project) -> None:
    memory.declare(Stream.model_validate(LEGACY))
    effects = memory.effects()
    run_import(project, "legacy", "--out", "generated.yaml")
    program = yaml.safe_load((project.folder / "generated.yaml").read_text())
    properties = program["resources"]["leg"]["properties"]
    assert properties == {**LEGACY, "backend": "memory"}
    project.write_yaml(program)
    assert project.preview("--expect-no-changes").done("leg") == ["same"]
    assert memory.effects() == effects

    properties["desiredState"] = "running"
    project.write_yaml(program)
    project.up("--skip-preview")
    found = memory.find("legacy")
    assert found
    assert found.stream.owner
    assert found.stream.owner.urn == "urn:pulumi:dev::imports::replicator:index:Stream::leg"
    project.destroy("--skip-preview")
    assert memory.find("legacy") is None


def test_import_of_what_is_not_there(project: Project) -> None:
    ran = run_import(project, "nothing", "--skip-preview", check=False)
    assert ran.code == 1
    assert "resource 'memory/default/nothing' does not exist" in ran.text


def test_two_stacks_with_one_name(memory: Memory, make_project: Make) -> None:
    first, second = make_project("shared"), make_project("shared", stack="prod")
    first.write_yaml(yaml_program(memory.address, stream(first, name="shared")))
    first.up("--skip-preview")
    destination = {"kind": "kafka", "uri": "kafka://broker.example:9092/shared-prod"}
    second.write_yaml(yaml_program(memory.address, stream(second, name="shared", destination=destination)))
    owner = "urn:pulumi:dev::shared::replicator:index:Stream::main"
    for command in ("preview", "up"):
        ran = second.operate(command, *(["--skip-preview"] if command == "up" else []), check=False)
        assert ran.code == 1, ran.text
        assert f"it is managed by {owner} [RPL-OWNER-OTHER]" in ran.text
        assert "choose another name, or remove the stream there first" in ran.text
    assert "main" not in second.resources()
    found = memory.find("shared")
    assert found
    assert found.stream.owner
    assert found.stream.owner.urn == owner

    second.configure("replicator:memory", {"address": memory.address})
    taken = run_import(second, "shared", "--skip-preview")
    assert f"it is managed by {owner}; remove it from that state" in taken.text


def test_program_names_what_nobody_manages(memory: Memory, make_project: Make) -> None:
    memory.declare(
        Stream.model_validate({**LEGACY, "name": "stray", "destination": {"kind": "s3", "uri": "s3://b/stray"}})
    )
    project = make_project("stray")
    project.write_yaml(yaml_program(memory.address, stream(project, name="stray")))
    ran = project.preview(check=False)
    assert ran.code == 1
    assert "it exists, and no resource manages it [RPL-OWNER-NONE]" in ran.text
    assert "pulumi import replicator:index:Stream <resource> memory/default/stray" in ran.text
