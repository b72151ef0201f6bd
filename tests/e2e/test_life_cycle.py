"""The life of a stream as a table: each row is one call of the CLI, and what must be true after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from replicator.model import StreamState

from tests.e2e.conftest import Make
from tests.e2e.memory import Memory
from tests.e2e.programs import LANGUAGES, Language, stream, yaml_program
from tests.pulumi import Project

NO_PREVIEW = ("--skip-preview",)
CLEAN = ("--expect-no-changes",)
CHANGED = 7  # the CLI's exit code where --expect-no-changes does not hold
RUNNING, PAUSED = StreamState.RUNNING, StreamState.PAUSED


@dataclass(frozen=True)
class Step:
    """One call of the CLI.

    :param title: what the row shows, for the one who reads a failure.
    :param command: up, preview, refresh or destroy.
    :param does: to the stream, in the engine's words.
    :param leaves: the state of the stream at the backend afterwards; None where it is not there.
    :param code: the exit code of the CLI.
    :param change: properties of the stream from now on; one that is None is left out.
    :param before: what somebody else does to the stream, by name, before the call.
    :param stored: inputs in Pulumi's state afterwards.
    """

    title: str
    command: str
    does: tuple[str, ...]
    leaves: StreamState | None
    flags: tuple[str, ...] = NO_PREVIEW
    code: int = 0
    change: Mapping[str, Any] = field(default_factory=dict)
    before: Callable[[Memory, str], None] | None = None
    stored: Mapping[str, Any] = field(default_factory=dict)


LIFE = (
    Step("a preview makes nothing", "preview", ("create",), None, flags=()),
    Step("up makes it", "up", ("create",), RUNNING, flags=(), stored={"backend": "memory"}),
    Step("nothing to do", "preview", ("same",), RUNNING, flags=CLEAN),
    Step("a status alone is no change", "refresh", ("same",), RUNNING, flags=(*NO_PREVIEW, *CLEAN)),
    Step("a preview changes nothing", "preview", ("update",), RUNNING, flags=(), change={"mode": "cdc"}),
    Step("up changes it in place", "up", ("update",), RUNNING, stored={"mode": "cdc"}),
    Step("nothing to do, after a look", "up", ("refresh", "same"), RUNNING, flags=(*NO_PREVIEW, "--refresh", *CLEAN)),
    Step("up pauses it", "up", ("update",), PAUSED, change={"desiredState": "paused"}),
    Step("a pause is no drift where it is asked for", "refresh", ("same",), PAUSED, flags=(*NO_PREVIEW, *CLEAN)),
    Step("up resumes it", "up", ("update",), RUNNING, change={"desiredState": None}),
    Step("up alone does not see drift", "up", ("same",), PAUSED, before=Memory.pause),
    Step(
        "a pause is drift",
        "refresh",
        ("update",),
        PAUSED,
        (*NO_PREVIEW, *CLEAN),
        CHANGED,
        stored={"desiredState": "paused"},
    ),
    Step("up resumes what somebody paused", "up", ("update",), RUNNING),
    Step("in one go", "up", ("refresh", "update"), RUNNING, (*NO_PREVIEW, "--refresh"), before=Memory.pause),
    Step("a removal is drift", "refresh", ("delete",), None, before=Memory.delete),
    Step("up makes it again", "up", ("create",), RUNNING),
    Step("also in one go", "up", ("refresh", "create"), RUNNING, (*NO_PREVIEW, "--refresh"), before=Memory.delete),
    Step(
        "another name is another stream",
        "up",
        ("delete-replaced", "replace", "create-replacement"),
        RUNNING,
        change={"name": "renamed-in-{project}"},
    ),
    Step("destroy removes it", "destroy", ("delete",), None, flags=()),
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", LANGUAGES)
def test_life_cycle(language: str, memory: Memory, make_project: Make) -> None:
    live(make_project(f"life-{language}"), LANGUAGES[language], memory)


def live(project: Project, language: Language, memory: Memory) -> None:
    """Run the whole table."""
    language.prepare(project, memory)
    name, inputs = None, stream(project)
    for step in LIFE:
        changed = {key: value.format(project=project.name) if value else None for key, value in step.change.items()}
        inputs = stream(project, **{**inputs, **changed})
        name = run(step, project, language, memory, inputs, name)
    assert not [left for left in memory.names() if project.name in left]


def run(
    step: Step, project: Project, language: Language, memory: Memory, inputs: Mapping[str, Any], name: str | None
) -> str | None:
    """Run a step and check what it promises, and what holds after every step. Return the stream's name."""
    language.write(project, memory, inputs)
    if step.before and name:
        step.before(memory, name)
    effects, earlier = memory.effects(), memory.find(name) if name else None
    ran = project.operate(step.command, *step.flags, check=False)
    where = f"{step.title}:\n{ran.text}"
    assert ran.code == step.code, where
    assert tuple(ran.done("main")) == step.does, where
    assert not ran.said("error"), where
    if step.command in ("preview", "refresh"):
        assert memory.effects() == effects, where
    if step.command == "preview":
        return name
    resources = project.resources()
    state = resources.get("main")
    name = state["inputs"]["name"] if state else name
    found = memory.find(name or "")
    assert (found and found.status.state) == step.leaves, where
    assert bool(state) == bool(found), where
    if state is None or found is None:
        return name
    assert state["id"] == f"memory/default/{name}", where
    assert {key: state["inputs"].get(key) for key in step.stored} == step.stored, where
    seen = (earlier.status.events_replicated or 0) if earlier else 0
    now = found.status.events_replicated or 0
    if step.command == "up":
        outputs = resources[f"{project.name}-{project.stack}"]["outputs"]
        assert outputs["id"] == state["id"], where
        assert outputs["now"] == step.leaves, where
        assert seen <= outputs["events"] <= now, where
    if step.command == "refresh" or "--refresh" in step.flags:
        assert seen <= state["outputs"]["status"]["eventsReplicated"] <= now, where
    return name


def test_the_owners_token_is_in_no_diff(memory: Memory, make_project: Make) -> None:
    """Who has it may change the stream; it says no more than that, and nothing that a review needs."""
    project = make_project("token")
    project.write_yaml(yaml_program(memory.address, stream(project)))
    texts = [project.up("--skip-preview", "--diff").text]
    project.write_yaml(yaml_program(memory.address, stream(project, mode="cdc")))
    for command, *words in (("preview", "--diff"), ("preview", "--json"), ("up", "--diff"), ("refresh", "--diff")):
        texts.append(project.operate(command, *words).text)
    texts.append(json.dumps(project.deployment()))
    token = project.owner_token("main")
    texts.append(project.destroy("--diff").text)
    assert all("ownerToken" in text for text in (texts[0], texts[-1])), "it is shown as a secret"
    assert [text for text in texts if token in text] == []
