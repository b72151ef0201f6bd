"""A preview says which property does harm, and what it does; a change without harm says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from replicator.capabilities import MEMORY

from tests.e2e.conftest import Make
from tests.e2e.memory import Memory
from tests.e2e.programs import stream, yaml_program
from tests.pulumi import Project

OTHER_SOURCE = {"kind": "postgres", "uri": "postgres://other.example/shop"}
REMADE = "the stream is removed and made again, which begins with a new snapshot"


@pytest.fixture(scope="module")
def project(memory: Memory, make_project: Make) -> Project:
    project = make_project("consequences")
    project.write_yaml(yaml_program(memory.address, stream(project)))
    project.up("--skip-preview")
    return project


CHANGES: Mapping[str, tuple[Mapping[str, Any], list[str], list[str]]] = {
    "no harm": (
        {"waitFor": "running", "deletionProtection": True},
        ["update"],
        [],
    ),
    "two harms, the worse one first": (
        {"source": OTHER_SOURCE, "purgeDestination": True},
        ["update"],
        [
            "purgeDestination: deletes data: from now on a delete of this stream also deletes what it wrote to the"
            " destination",
            f"source.uri: re-snapshots: {MEMORY.routes[0].changes['source.uri'].text}",
        ],
    ),
    "another name": (
        {"name": "consequences-renamed"},
        ["delete-replaced", "replace", "create-replacement"],
        [f"name: forces replacement: re-snapshots: {REMADE}; {MEMORY.routes[0].removal}"],
    ),
    "another region": (
        {"source": {"kind": "postgres", "uri": "postgres://db.example/shop", "region": "eu-fra"}},
        ["delete-replaced", "replace", "create-replacement"],
        [f"source.region: forces replacement: re-snapshots: {REMADE}; {MEMORY.routes[0].removal}"],
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_preview_says_what_a_change_does(case: str, project: Project, memory: Memory) -> None:
    changes, steps, warnings = CHANGES[case]
    project.write_yaml(yaml_program(memory.address, stream(project, **changes)))
    effects = memory.effects()
    ran = project.preview()
    assert ran.done("main") == steps
    assert ran.said("warning") == ran.said("warning", "main") == warnings
    assert all(f"warning: {text}" in ran.text for text in warnings)
    assert memory.effects() == effects


def test_preview_says_what_a_pause_costs(project: Project, memory: Memory) -> None:
    project.write_yaml(yaml_program(memory.address, stream(project, desiredState="paused")))
    ran = project.preview()
    assert ran.said("warning") == []
    assert f"desiredState: while it is paused, {MEMORY.routes[0].pause_cost}" in ran.text


def test_deletion_protection(memory: Memory, make_project: Make) -> None:
    project = make_project("protected")
    inputs = stream(project, deletionProtection=True)
    project.write_yaml(yaml_program(memory.address, inputs))
    project.up("--skip-preview")
    name = project.resources()["main"]["inputs"]["name"]

    refused = project.destroy("--skip-preview", check=False)
    assert refused.code == 1
    assert refused.said("error", "main") == [
        f"stream '{name}': deletionProtection is on [RPL-STREAM-PROTECTED]\n"
        "  → set deletionProtection to false and run pulumi up with no other change; then remove or replace the stream"
    ]
    assert memory.find(name)
    assert "main" in project.resources()

    project.write_yaml(yaml_program(memory.address, {**inputs, "name": "protected-renamed"}))
    renamed = project.preview()
    assert [text for text in renamed.said("warning", "main") if "the replacement will fail" in text]

    project.write_yaml(yaml_program(memory.address, {**inputs, "deletionProtection": False}))
    project.up("--skip-preview")
    project.destroy("--skip-preview")
    assert memory.find(name) is None
