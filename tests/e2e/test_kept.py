"""What an older release wrote: this one previews it clean, and sees each difference that is there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.memory import Memory, serving
from tests.e2e.state_fixtures import Kept, bring_back, exported, releases, write_program
from tests.pulumi import SCRIPTS, Project
from tools.gobuild import Cache, cache_root
from tools.languages import python_sdk

KEPT = releases()
FIRST = "0.1.0"
TYPES = {
    "plugin": {"replicator:index:Stream", "replicator:index:ReplayRun", "pulumi:providers:replicator"},
    "sdk": {"replicator:index:Stream", "replicator:index:ReplayRun", "pulumi:providers:replicator"},
    "dynamic": {"pulumi-python:dynamic/replicator:Stream"},
}

each = pytest.mark.parametrize("kept", KEPT, ids=lambda kept: f"{kept.release}-{kept.way}")


@pytest.fixture
def engine() -> Iterator[Memory]:
    """One engine for each stack: its streams have the names that they had."""
    with serving() as memory:
        yield memory


@pytest.fixture
def environment(request: pytest.FixtureRequest, kept: Kept) -> dict[str, Any]:
    """The settings of a project that finds this checkout in the stack's way."""
    if kept.way == "dynamic":
        return {"plugins": None, "environment": request.getfixturevalue("bare_python")}
    sdk = {"PYTHONPATH": str(python_sdk(Cache(cache_root(os.environ))))}
    return {"plugins": SCRIPTS, "environment": sdk if kept.way == "sdk" else {}}


def restore(kept: Kept, engine: Memory, project: Project, **changes: str) -> None:
    """Bring back program, engine and state, with other inputs of the stream `most` in the state."""
    project.write_yaml({})
    project.init()
    write_program(kept, project, engine)
    bring_back(kept, engine)
    state = exported(kept, engine)
    (most,) = [item for item in state["deployment"]["resources"] if item["urn"].endswith("::most")]
    for part in ("inputs", "outputs"):
        most[part].update(changes)
    file = project.folder / "state.json"
    file.write_text(json.dumps(state))
    project.run("stack", "import", "--file", str(file), "--stack", project.stack)


def test_the_first_release_is_kept() -> None:
    assert {(kept.release, kept.way) for kept in KEPT} >= {(FIRST, way) for way in TYPES}


@each
def test_what_is_kept_has_what_it_is_kept_for_and_no_path_of_a_machine(kept: Kept) -> None:
    resources = json.loads(kept.state.read_text())["deployment"]["resources"]
    streams = [item for item in resources if item["type"].endswith("Stream")]
    assert {item["type"] for item in resources} >= TYPES[kept.way]
    assert {item["outputs"]["status"]["state"] for item in streams} >= {"running", "paused"}
    assert {item["id"].split("/")[1] for item in streams} == {"default", "eu-fra"}
    assert all(item["outputs"]["ownerToken"] and item["outputs"]["engineObjects"] for item in streams)
    assert any("ciphertext" in item["inputs"]["destination"].get("authRef", "") for item in streams)
    texts = [path.read_text() for path in (kept.program, kept.state, kept.engine)]
    assert [
        word for text in texts for word in ("/tmp/", "/home/", "/root/", "/Users/", "project://") if word in text
    ] == []


@each
def test_a_kept_stack_previews_clean(kept: Kept, engine: Memory, environment: dict[str, Any], tmp_path: Path) -> None:
    project = Project(tmp_path, name="kept", **environment)
    restore(kept, engine, project)
    effects = engine.effects()
    for arguments in ([], ["--refresh"]):
        ran = project.preview(*arguments, "--expect-no-changes")
        assert ran.said("warning") == []
        # Pulumi gives each version of an SDK a default provider of its own, and drops that of the version before.
        names = [name for name in project.resources() if not name.startswith("default_")]
        assert {op for name in names for op in ran.done(name)} == {"same", *(["refresh"] if arguments else [])}
    assert engine.effects() == effects


@each
def test_a_difference_is_seen(kept: Kept, engine: Memory, environment: dict[str, Any], tmp_path: Path) -> None:
    """What would make the test above pass for nothing: another state, and another engine."""
    project = Project(tmp_path, name="kept", **environment)
    restore(kept, engine, project, filter="total > 7")
    differs = project.preview("--expect-no-changes", check=False)
    assert (differs.code != 0, differs.done("most"), differs.done("least")) == (True, ["update"], ["same"])

    engine.pause("most")
    paused = project.preview("--refresh", "--expect-no-changes", "--diff", check=False)
    assert paused.code != 0
    assert "desiredState" in paused.text
