"""`pulumi:autonaming` on the real CLI: a stream without a name is called as the stack's configuration says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Make
from tests.e2e.memory import Memory
from tests.e2e.programs import stream
from tests.pulumi import Project

PATTERN = "${project}-${stack}-${name}"


def program(project: Project, **changes: Any) -> None:
    unnamed = {key: value for key, value in stream(project).items() if key != "name"}
    project.write_yaml({"resources": {"main": {"type": "replicator:index:Stream", "properties": unnamed | changes}}})


def autoname(project: Project, setting: dict[str, Any]) -> None:
    for key, value in setting.items():
        project.run("config", "set", "--path", f"pulumi:autonaming.{key}", json.dumps(value).strip('"'))


@pytest.mark.parametrize(
    ("word", "setting", "name"),
    [
        ("verbatim", {"mode": "verbatim"}, "main"),
        ("pattern", {"pattern": PATTERN}, "named-pattern-dev-main"),
        ("enforced", {"pattern": "stream-${name}", "enforce": True}, "stream-main"),
        ("default", {"mode": "default"}, None),
    ],
)
def test_a_name_is_what_the_configuration_says(
    word: str, setting: dict[str, Any], name: str | None, memory: Memory, make_project: Make
) -> None:
    project = make_project(f"named-{word}")
    project.configure("replicator:memory", {"address": memory.address})
    autoname(project, setting)
    program(project)
    ran = project.up()
    assert not [text for text in ran.said("warning") if "autonaming" in text]
    made = project.resources()["main"]["outputs"]["name"]
    assert made == name or (name is None and made.startswith(f"named-{word}-dev-main-"))
    project.run("config", "set", "--path", "pulumi:autonaming.pattern", "another-${name}")
    project.run("config", "rm", "--path", "pulumi:autonaming.mode")
    program(project, checkpointInterval="3s")
    assert project.up().done("main") == ["update"]
    assert project.resources()["main"]["outputs"]["name"] == made
    project.destroy()


def test_a_name_is_required_where_autonaming_is_disabled(memory: Memory, make_project: Make) -> None:
    project = make_project("unnamed")
    project.configure("replicator:memory", {"address": memory.address})
    autoname(project, {"mode": "disabled"})
    program(project)
    ran = project.preview(check=False)
    assert ran.code != 0
    assert "name: is required, because pulumi:autonaming is disabled [RPL-STREAM-INVALID]" in ran.text
    program(project, name="chosen")
    assert project.preview().done("main") == ["create"]
