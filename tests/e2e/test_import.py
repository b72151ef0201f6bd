"""Streams that exist already: import takes them over, and nobody takes what somebody else manages."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from replicator.model import Owner, Stream, token_digest

from tests.e2e.conftest import Make
from tests.e2e.memory import Memory, serving
from tests.e2e.programs import stream, yaml_program
from tests.languages import prepare
from tests.pulumi import SCRIPTS, Project, Ran

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
    project.up("--skip-preview")
    assert memory.effects() == effects, "an update without a change claims nothing"

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
        assert f"choose another name; or, if {owner} is in no stack any more" in ran.text
        assert "aliases" not in ran.text
    assert "main" not in second.resources()
    found = memory.find("shared")
    assert found
    assert found.stream.owner
    assert found.stream.owner.urn == owner

    second.configure("replicator:memory", {"address": memory.address})
    taken = run_import(second, "shared", "--skip-preview")
    assert f"this stream is owned by {owner}; the next update takes ownership" in taken.text
    assert "If that resource is still in a stack, run pulumi state delete there first" in taken.text


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


def written(memory: Memory, project: Project, *arguments: str) -> str:
    """What `replicator import` writes into the project's folder, and says."""
    command = [str(SCRIPTS / "replicator"), "import", "--backend", "memory", "--address", memory.address, *arguments]
    done = subprocess.run(command, cwd=project.folder, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


@pytest.fixture
def alone() -> Iterator[Memory]:
    """An engine that no other test has streams at."""
    with serving() as made:
        yield made


@pytest.mark.parametrize("language", ["yaml", "python"])
def test_all_streams_at_once(language: str, alone: Memory, make_project: Make) -> None:
    project = make_project(f"bulk-{language}")
    project.configure("replicator:memory", {"address": alone.address})
    for number in range(3):
        changes: dict[str, Any] = {
            "name": f"{language}-{number}",
            "destination": {"kind": "s3", "uri": f"s3://{language}/{number}"},
        }
        if number:
            changes |= {"mode": "cdc", "checkpointInterval": "5s", "startFrom": {"lsn": "0"}, "options": {"fail": ""}}
        alone.declare(Stream.model_validate({**LEGACY, "desiredState": "running", **changes}))
    effects = alone.effects()
    said = written(alone, project, "--out", "made", "--language", language)
    assert f"pulumi config set --path replicator:memory.address {alone.address}" in said
    made = project.folder / "made"
    entries = json.loads((made / "import.json").read_text())["resources"]
    assert [entry["id"] for entry in entries] == [f"memory/default/{language}-{number}" for number in range(3)]
    if language == "yaml":
        project.write_yaml({"resources": yaml.safe_load((made / "Pulumi.yaml").read_text())["resources"]})
    else:
        project.write_python((made / "__main__.py").read_text())
        prepare(project)
    words = ("--generate-code=false", "--protect=false", "--yes", "--stack", project.stack)
    project.run("import", "--file", str(made / "import.json"), *words)
    ran = project.preview("--expect-no-changes")
    assert [ran.done(entry["name"]) for entry in entries] == [["same"]] * len(entries)
    assert alone.effects() == effects

    again = [str(SCRIPTS / "replicator"), "import", "--backend", "memory", "--address", alone.address, "--out", "made"]
    refused = subprocess.run(again, cwd=project.folder, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert "import.json exists, and is not written over [RPL-CONFIG-INVALID]" in refused.stderr
    project.destroy("--skip-preview")


def test_a_bulk_import_leaves_out_what_is_managed(memory: Memory, make_project: Make) -> None:
    project = make_project("bulk-managed")
    project.write_yaml(yaml_program(memory.address, stream(project, name="managed-already")))
    project.up("--skip-preview")
    urn = f"urn:pulumi:dev::{project.name}::replicator:index:Stream::main"
    said = written(memory, project, "--out", "a")
    assert f"left out: managed-already, which {urn} manages; --managed takes it too" in said
    written(memory, project, "--out", "b", "--managed")
    assert "memory/default/managed-already" in (project.folder / "b" / "import.json").read_text()
    project.destroy("--skip-preview")


def lose_the_state(project: Project) -> None:
    """The stack is gone, and its streams are not."""
    project.run("stack", "rm", "--force", "--yes", "--stack", project.stack)
    project.init()
    assert project.resources() == {}


def owner_of(memory: Memory, name: str) -> Owner:
    found = memory.find(name)
    assert found
    assert found.stream.owner
    return found.stream.owner


def test_a_lost_state_is_found_again_by_the_same_program(memory: Memory, make_project: Make) -> None:
    project = make_project("lost")
    program = yaml_program(memory.address, stream(project, name="lost"))
    project.write_yaml(program)
    project.up("--skip-preview")
    before, emitted = owner_of(memory, "lost"), memory.status("lost").events_replicated or 0
    lose_the_state(project)
    assert project.preview().done("main") == ["create"]
    project.up("--skip-preview")
    after = owner_of(memory, "lost")
    assert (after.urn, after.token) == (before.urn, token_digest(project.owner_token("main")))
    assert after.token != before.token, "a create issues a token, so that a state from before is stale"
    assert (memory.status("lost").events_replicated or 0) >= emitted
    assert project.preview("--expect-no-changes").done("main") == ["same"]
    project.destroy("--skip-preview")


def test_a_stream_moves_to_another_stack(memory: Memory, make_project: Make) -> None:
    old, new = make_project("moves-from"), make_project("moves-to")
    old.write_yaml(yaml_program(memory.address, stream(old, name="moving")))
    old.up("--skip-preview")
    before = owner_of(memory, "moving")
    effects = memory.effects()
    old.run("state", "delete", before.urn, "--yes", "--stack", old.stack)

    new.configure("replicator:memory", {"address": memory.address})
    written(memory, new, "--out", "made", "--managed")
    made = new.folder / "made"
    resources = yaml.safe_load((made / "Pulumi.yaml").read_text())["resources"]
    new.write_yaml({"resources": {"moving": resources["moving"]}})
    ran = new.run(
        *("import", "replicator:index:Stream", "moving", "memory/default/moving"),
        *("--yes", "--protect=false", "--stack", new.stack),
    )
    assert f"this stream is owned by {before.urn}; the next update takes ownership" in ran.text
    assert new.preview().done("moving") == ["update"]
    assert memory.effects() == effects
    assert owner_of(memory, "moving") == before

    new.up("--skip-preview")
    after = owner_of(memory, "moving")
    assert after.urn == f"urn:pulumi:dev::{new.name}::replicator:index:Stream::moving"
    assert after.token == token_digest(new.owner_token("moving")) != before.token

    assert old.preview(check=False).code == 1, "its program declares what another manages"
