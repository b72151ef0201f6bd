"""One table of lives over the plugin and the dynamic provider: the same commands come to the same, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from pulumi.dynamic import ReadResult
from replicator.dynamic.provider import TROUBLE, StreamProvider
from replicator.errors import AgentUnreachable
from replicator.model import Owner, StreamState
from replicator.property_values import UNKNOWN

from tests.dynamic.harness import DESTROY, FACES, PREVIEW, REFRESH, UP, Answer, Stack
from tests.lifecycle.builders import OTHER_URN, S3, SQLITE, URN, Clock, Watched, inputs, stream

RUNNING, PAUSED, FAILED = StreamState.RUNNING, StreamState.PAUSED, StreamState.FAILED
Outside = Callable[[Watched], Any]


@dataclass(frozen=True)
class Step:
    """One command, and what it comes to.

    :param leaves: the state of the stream at the backend afterwards; None where it is not there.
    :param change: inputs from now on; `...` leaves one out.
    :param before: what somebody else does first.
    :param refuses: the code of the error.
    :param warns: how each warning of a preview begins.
    :param stored: inputs in the state afterwards.
    """

    command: str
    did: str
    leaves: StreamState | None = RUNNING
    change: Mapping[str, Any] = field(default_factory=dict)
    before: Outside | None = None
    refuses: str | None = None
    warns: tuple[str, ...] = ()
    stored: Mapping[str, Any] = field(default_factory=dict)


async def pause(memory: Watched) -> None:
    await memory.pause("orders")


async def remove(memory: Watched) -> None:
    await memory.delete_stream("orders")


def declares(**changes: Any) -> Outside:
    """Somebody without an identity declares the stream otherwise."""
    return lambda memory: memory.upsert_stream(stream(**changes))


def declares_as(urn: str, **changes: Any) -> Outside:
    owned = stream(**changes).model_copy(update={"owner": Owner(urn=urn)})
    return lambda memory: memory.upsert_stream(owned)


async def made_again(memory: Watched) -> None:
    await remove(memory)
    await declares_as(OTHER_URN)(memory)


async def disconnect(memory: Watched) -> None:
    memory.broken = AgentUnreachable("nothing listens at unix:///mem")


async def reconnect(memory: Watched) -> None:
    memory.broken = None


async def later(memory: Watched) -> None:
    memory._clock.advance(60)  # type: ignore[attr-defined]


def refused(command: str, code: str, leaves: StreamState | None = None, **more: Any) -> Step:
    return Step(command, "refused", leaves, refuses=code, **more)


PASSWORD = {"kind": "sqlite", "uri": "sqlite:///a?password=hunter2"}
ELSEWHERE = {**S3, "uri": "s3://bucket/new"}
UPDATED = Step(UP, "update")

LIVES: Mapping[str, tuple[Step, ...]] = {
    "from create to destroy": (
        Step(PREVIEW, "create", None),
        Step(UP, "create", stored={"backend": "memory"}),
        Step(PREVIEW, "same"),
        Step(UP, "same"),
        Step(REFRESH, "same", before=later),
        Step(DESTROY, "delete", None),
    ),
    "a name that is made": (
        Step(UP, "create", None, change={"name": ...}),
        Step(UP, "same", None),
        Step(REFRESH, "same", None),
        Step(DESTROY, "delete", None),
    ),
    "an update in place": (
        Step(UP, "create"),
        Step(PREVIEW, "update", change={"mode": "cdc"}, warns=("mode: restarts",)),
        Step(UP, "update", stored={"mode": "cdc"}),
        Step(PREVIEW, "same"),
        Step(UP, "update", change={"include": ["b", "a"], "options": {"fail": ""}, "checkpointInterval": "60s"}),
        Step(UP, "same", change={"include": ["a", "b", "a"], "checkpointInterval": "1m"}),
        Step(UP, "update", change={"include": ..., "options": ..., "checkpointInterval": ..., "mode": ...}),
        Step(DESTROY, "delete", None),
    ),
    "harmless changes are silent": (
        Step(UP, "create"),
        Step(PREVIEW, "update", change={"deletionProtection": True, "waitFor": "running"}),
    ),
    "a default that is written down": (
        Step(UP, "create"),
        Step(PREVIEW, "same", change={"mode": "snapshot_then_cdc", "deletionProtection": False, "include": []}),
        Step(UP, "same"),
        Step(REFRESH, "same"),
    ),
    "another destination": (
        Step(UP, "create"),
        Step(PREVIEW, "update", change={"destination": ELSEWHERE}, warns=("destination.uri: re-snapshots",)),
        UPDATED,
    ),
    "another name": (
        Step(UP, "create"),
        Step(PREVIEW, "replace", change={"name": "bills"}, warns=("name: forces replacement: re-snapshots",)),
        Step(UP, "replace", None, stored={"name": "bills"}),
        Step(PREVIEW, "same", None),
    ),
    "another region": (
        Step(UP, "create"),
        Step(
            PREVIEW,
            "replace",
            change={"source": {**SQLITE, "region": "us-east"}},
            warns=("source.region: forces replacement: re-snapshots",),
        ),
        Step(UP, "replace"),
        Step(PREVIEW, "same"),
    ),
    "a delete that deletes data": (
        Step(UP, "create"),
        Step(PREVIEW, "update", change={"purgeDestination": True}, warns=("purgeDestination: deletes data",)),
        UPDATED,
        Step(PREVIEW, "replace", change={"name": "bills"}, warns=("name: forces replacement: deletes data",)),
    ),
    "what is refused offline": (
        refused(PREVIEW, "RPL-STREAM-INVALID", change={"source": PASSWORD, "mode": "all", "whatever": 1}),
        refused(UP, "RPL-STREAM-INVALID"),
        refused(
            PREVIEW, "RPL-CAP-UNSUPPORTED", change={"source": SQLITE, "mode": ..., "whatever": ..., "backend": ...}
        ),
        Step(UP, "create", change={"backend": "memory"}),
        refused(PREVIEW, "RPL-STREAM-INVALID", RUNNING, change={"checkpointInterval": "soon"}),
        refused(UP, "RPL-STREAM-INVALID", RUNNING),
    ),
    "a stream that another resource manages": (
        refused(PREVIEW, "RPL-OWNER-OTHER", RUNNING, before=declares_as(OTHER_URN)),
        refused(UP, "RPL-OWNER-OTHER", RUNNING),
    ),
    "a stream that no resource manages": (
        refused(PREVIEW, "RPL-OWNER-NONE", RUNNING, before=declares()),
        refused(UP, "RPL-OWNER-NONE", RUNNING),
    ),
    "a destination in use": (
        refused(PREVIEW, "RPL-DEST-INUSE", before=declares(name="other")),
        refused(UP, "RPL-DEST-INUSE"),
    ),
    "a reply that was lost": (
        Step(UP, "create", before=declares_as(URN, mode="cdc")),
        Step(REFRESH, "same"),
        Step(DESTROY, "delete", None),
    ),
    "deletion protection": (
        Step(UP, "create", change={"deletionProtection": True}),
        refused(DESTROY, "RPL-STREAM-PROTECTED", RUNNING),
        Step(
            PREVIEW,
            "replace",
            change={"name": "bills"},
            warns=("deletionProtection is on, so the replacement will fail", "name: forces replacement: re-snapshots"),
        ),
        refused(UP, "RPL-STREAM-PROTECTED", RUNNING),
        Step(UP, "update", change={"name": "orders", "deletionProtection": False}),
        Step(DESTROY, "delete", None),
    ),
    "a pause that is asked for": (
        Step(UP, "create"),
        Step(PREVIEW, "update", change={"desiredState": "paused"}),
        Step(UP, "update", PAUSED),
        Step(REFRESH, "same", PAUSED),
        Step(UP, "update", change={"desiredState": ...}),
    ),
    "a pause by somebody else": (
        Step(UP, "create"),
        Step(UP, "same", PAUSED, before=pause),
        Step(REFRESH, "update", PAUSED, stored={"desiredState": "paused"}),
        Step(PREVIEW, "update", PAUSED),
        Step(UP, "update", stored={"desiredState": None}),
        Step(REFRESH, "same"),
    ),
    "a change by somebody else": (
        Step(UP, "create", change={"mode": "cdc", "conflict": "source_wins"}),
        Step(
            REFRESH,
            "update",
            before=declares(checkpointInterval="5s"),
            stored={"mode": None, "checkpointInterval": "5s", "conflict": "source_wins"},
        ),
        Step(PREVIEW, "update", warns=("checkpointInterval: restarts", "mode: restarts")),
        Step(UP, "update", stored={"mode": "cdc", "checkpointInterval": None}),
    ),
    "a removal by somebody else": (
        Step(UP, "create"),
        Step(REFRESH, "delete", None, before=remove),
        Step(UP, "create"),
        Step(DESTROY, "delete", None, before=remove),
    ),
    "a stream that another made again": (
        Step(UP, "create"),
        Step(REFRESH, "update", before=made_again),
        refused(UP, "RPL-OWNER-OTHER", RUNNING),
        Step(DESTROY, "delete", RUNNING),
    ),
    "an unwell create": (
        Step(UP, "create", FAILED, change={"options": {"fail": "no space"}}),
        Step(
            PREVIEW, "update", FAILED, warns=("the stream was unhealthy after the last run; this update tries again",)
        ),
        Step(UP, "update", FAILED),
        Step(UP, "update", change={"options": ...}),
        Step(PREVIEW, "same"),
    ),
    "an unwell update": (
        Step(UP, "create"),
        Step(UP, "update", FAILED, change={"options": {"fail": "no space"}}),
        Step(UP, "update", FAILED),
        Step(UP, "update", change={"options": ...}),
        Step(PREVIEW, "same"),
    ),
    "ill health that came later": (
        Step(UP, "create", change={"options": {"fail": ""}}),
        Step(UP, "same", FAILED, before=declares(options={"fail": "no space"})),
        Step(REFRESH, "update", FAILED),
        Step(UP, "update"),
    ),
    "an agent that does not answer": (
        Step(UP, "create"),
        refused(REFRESH, "RPL-AGENT-DOWN", RUNNING, before=disconnect),
        Step(REFRESH, "same", before=reconnect),
    ),
    "values that are not known yet": (
        Step(PREVIEW, "create", None, change={"source": {**SQLITE, "uri": UNKNOWN}, "include": ["a", UNKNOWN]}),
        Step(UP, "create", change={"source": SQLITE, "include": ["a", "b"]}),
        Step(PREVIEW, "update", change={"mode": UNKNOWN}, warns=("mode: restarts",)),
        Step(PREVIEW, "replace", change={"mode": ..., "name": UNKNOWN}, warns=("name: forces replacement",)),
        Step(UP, "same", change={"name": "orders"}),
    ),
}


@dataclass(frozen=True)
class Seen:
    """What is compared after each step; of inputs and outputs what a person sees."""

    answer: Answer
    id: str | None
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    trouble: tuple[str, ...]


def seen(answer: Answer, stack: Stack) -> Seen:
    state = stack.state
    if state is None:
        return Seen(answer, None, {}, {}, ())
    inputs = {key: value for key, value in state.inputs.items() if not key.startswith("__")}
    outputs = {key: value for key, value in state.outputs.items() if not key.startswith("__") and key != TROUBLE}
    outputs["ownerToken"] = bool(outputs["ownerToken"])
    # An update that ends unwell: Pulumi keeps the old inputs of the plugin's resource, and takes the dynamic one's.
    return Seen(answer, state.id, {} if state.trouble else inputs, outputs, state.trouble)


async def live(face: str, life: tuple[Step, ...], patch: pytest.MonkeyPatch) -> list[Seen]:
    """Run a life, check each step against the table, and return all that can be seen."""
    memory, program, found = Watched(Clock()), inputs(name="orders", backend="memory"), []
    async with FACES[face](memory, patch) as provider:
        stack = Stack(provider, URN)
        for number, step in enumerate(life):
            where = f"{face}, step {number}: {step}"
            program = {key: value for key, value in {**program, **step.change}.items() if value is not ...}
            if step.before:
                await step.before(memory)
            upserts, listed = memory.upserts, await memory.list_streams()
            answer = await stack.run(step.command, program)
            assert answer.did == step.did, f"{where}: {answer}"
            assert (step.refuses in answer.refused) if step.refuses else not answer.refused, f"{where}: {answer}"
            if step.command in (PREVIEW, REFRESH):
                assert (memory.upserts, await memory.list_streams()) == (upserts, listed), where
            warned = sorted(text for level, text in answer.told if level == "WARNING")
            assert len(warned) == len(step.warns), f"{where}: {answer}"
            assert all(text.startswith(start) for text, start in zip(warned, step.warns, strict=True)), (
                f"{where}: {answer}"
            )
            there = {stream.name for stream in await memory.list_streams()}
            state = (await memory.get_status("orders")).state if "orders" in there else None
            assert state == step.leaves, where
            if stack.state is not None:
                stored = {key: stack.state.inputs.get(key) for key in step.stored}
                assert stored == step.stored, where
            found.append(seen(answer, stack))
    return found


async def test_the_table_finds_a_way_that_comes_to_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a refresh that forgets what somebody else changed."""
    real = StreamProvider.read

    def forgetful(self: StreamProvider, id_: str, props: dict[str, Any]) -> ReadResult:
        found = real(self, id_, props)
        return ReadResult(found.id, {**props, "status": (found.outs or {}).get("status")})

    life = LIVES["a pause by somebody else"]
    await live("dynamic", life, monkeypatch)
    monkeypatch.setattr(StreamProvider, "read", forgetful)
    with pytest.raises(AssertionError, match=r"step 2: .*command='refresh', did='update'"):
        await live("dynamic", life, monkeypatch)


@pytest.mark.parametrize("name", LIVES)
async def test_both_ways_come_to_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {face: await live(face, LIVES[name], monkeypatch) for face in FACES}
    for number, step in enumerate(LIVES[name]):
        assert answers["dynamic"][number] == answers["plugin"][number], f"step {number}: {step}"
