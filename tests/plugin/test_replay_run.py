"""The ReplayRun resource: seen in a review, run once for its inputs, and joined where it was cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
import pytest
from replicator.errors import AgentUnreachable
from replicator.plugin._proto import pb
from replicator.plugin.codec import UNKNOWN, Secret
from replicator.replicator import ReplayProgress, ReplayState

from tests.lifecycle.builders import Clock, Watched, stream
from tests.plugin.builders import Provider, failing, init_failure, serving

URN = "urn:pulumi:dev::shop::replicator:index:ReplayRun::rerun"
ID = "memory/default/orders"
RUN = {"stream": ID, "start": {"lsn": "5"}, "triggers": ["2026-01-31"]}


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    clock = Clock()
    async with serving(Watched(clock)) as provider:
        await provider.memory.upsert_stream(stream())
        clock.advance(2)  # 20 events
        yield provider


async def emitted(provider: Provider) -> int | None:
    return (await provider.memory.get_status("orders")).events_replicated


async def test_it_runs_once(provider: Provider) -> None:
    inputs, failures = await provider.check(RUN, urn=URN)
    assert (inputs, failures) == (RUN, [])
    id, outputs = await provider.create(inputs, urn=URN)
    assert id == f"{ID}/{outputs['key']}"
    assert (outputs["state"], outputs["method"], outputs["events"]) == ("done", "log_rewind", 15)
    assert outputs["resolved"]["lsn"] == "5"
    assert await emitted(provider) == 35
    again, _ = await provider.create(inputs, urn=URN)  # a reply that was lost
    assert again == id
    assert await emitted(provider) == 35
    assert await provider.read(id, inputs, outputs, urn=URN) == (id, inputs, outputs)


async def test_another_trigger_is_another_run(provider: Provider) -> None:
    first, _ = await provider.create(RUN, urn=URN)
    new = {**RUN, "triggers": ["2026-02-28"]}
    found = await provider.diff(RUN, new, urn=URN)
    assert (list(found.replaces), found.deleteBeforeReplace) == (["triggers"], False)
    second, _ = await provider.create(new, urn=URN)
    assert second != first
    assert await emitted(provider) == 50
    await provider.delete(first, RUN, urn=URN)
    assert await emitted(provider) == 50


@pytest.mark.parametrize(
    ("changes", "replaces"),
    [
        ({}, []),
        ({"method": "auto"}, []),
        ({"start": {"lsn": "6"}}, ["start"]),
        ({"start": {"lsn": UNKNOWN}}, ["start"]),
        ({"stream": UNKNOWN}, ["stream"]),
        ({"target": "/tmp/copy.db"}, ["target"]),
        ({"triggers": []}, ["triggers"]),
        ({"triggers": [UNKNOWN]}, ["triggers"]),
        ({"triggers": [{"incident": UNKNOWN}]}, ["triggers"]),
    ],
    ids=str,
)
async def test_what_replaces(provider: Provider, changes: dict[str, Any], replaces: list[str]) -> None:
    found = await provider.diff(RUN, {**RUN, **changes}, urn=URN)
    assert list(found.replaces) == list(found.diffs) == replaces


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"start": None}, "start: is required [RPL-STREAM-INVALID]"),
        ({"stream": "orders"}, "stream: 'orders' is not the id of a stream [RPL-STREAM-INVALID]"),
        ({"method": "again"}, "method: must be one of"),
        ({"trigers": []}, "trigers: is not known here; did you mean triggers?"),
        ({"stream": UNKNOWN, "start": {"lsn": UNKNOWN}}, None),
    ],
    ids=str,
)
async def test_bad_inputs(provider: Provider, changes: dict[str, Any], says: str | None) -> None:
    _, failures = await provider.check({**RUN, **changes}, urn=URN)
    assert len(failures) == (says is not None)
    assert all(failure.startswith(says or "?") for failure in failures)


async def test_a_preview_says_what_it_would_do_and_does_nothing(provider: Provider) -> None:
    _, outputs = await provider.create(RUN, urn=URN, preview=True)
    assert outputs == RUN
    infos = [text for severity, text, urn in provider.engine.logs if severity == "INFO" and urn == URN]
    assert infos == [
        "replay by log_rewind from 5: 15 events are delivered again; the destination keeps one copy of each"
    ]
    assert provider.engine.warnings == ["replay: the destination gets records again that it holds already"]
    assert await emitted(provider) == 20


async def test_a_preview_of_a_run_that_has_been(provider: Provider) -> None:
    await provider.create(RUN, urn=URN)
    await provider.create(RUN, urn=URN, preview=True)
    assert ("INFO", "this replay has begun before and is done; it is joined", URN) in provider.engine.logs


async def test_a_preview_refuses_what_would_fail(provider: Provider) -> None:
    error = await failing(provider.create({**RUN, "start": {"lsn": "999"}}, urn=URN, preview=True))
    assert "start: lsn 999 is not retained; kept is 0 to 20 [RPL-REPLAY-RETENTION]" in (error.details() or "")


@pytest.mark.parametrize("inputs", [{**RUN, "stream": "memory/default/later"}, {**RUN, "stream": UNKNOWN}], ids=str)
async def test_a_preview_of_a_run_on_a_stream_that_is_not_there_yet(provider: Provider, inputs: Any) -> None:
    _, outputs = await provider.create(inputs, urn=URN, preview=True)
    assert outputs == inputs
    known = inputs["stream"] is not UNKNOWN
    assert len([text for text in provider.engine.warnings if "could not plan the replay" in text]) == known


async def test_a_wait_that_was_cut_off_is_taken_up_again(provider: Provider) -> None:
    real, ends = provider.memory.replay, asyncio.Event()

    async def slow(*args: Any, **given: Any) -> ReplayProgress:
        return (await real(*args, **given)).model_copy(update={"state": ReplayState.RUNNING})

    finished = provider.memory.get_replay

    async def look(name: str, key: str) -> ReplayProgress:
        found = await finished(name, key)
        return found if ends.is_set() else found.model_copy(update={"state": ReplayState.RUNNING})

    provider.memory.replay, provider.memory.get_replay = slow, look  # type: ignore[method-assign]
    error = await failing(provider.create(RUN, urn=URN, timeout=0.1))
    id, outputs, inputs, (reason,) = init_failure(error, cut_off=True)
    assert inputs == RUN
    assert outputs["state"] == "running"
    assert "the replay took longer than 0.1 s" in reason
    ends.set()
    assert (await provider.diff(RUN, RUN, urn=URN)).changes == pb.DiffResponse.DIFF_NONE
    updated = await provider.update(id, RUN, outputs, RUN, urn=URN)
    assert updated["state"] == "done"
    assert await emitted(provider) == 35


async def test_a_run_that_failed_says_how_to_run_it_again(provider: Provider) -> None:
    real = provider.memory.replay

    async def failed(*args: Any, **given: Any) -> ReplayProgress:
        return (await real(*args, **given)).model_copy(update={"state": ReplayState.FAILED, "error": "disk full"})

    provider.memory.replay = failed  # type: ignore[method-assign]
    error = await failing(provider.create(RUN, urn=URN))
    assert (error.details() or "").splitlines() == [
        "stream 'orders': disk full [RPL-REPLAY-FAILED]",
        "  → correct the cause, then change triggers, which makes a new run with a new key",
    ]


async def test_an_engine_that_forgot_the_run_does_not_undo_it(provider: Provider) -> None:
    id, outputs = await provider.create(RUN, urn=URN)
    await provider.memory.delete_stream("orders")
    assert await provider.read(id, RUN, outputs, urn=URN) == (id, RUN, outputs)
    await provider.memory.upsert_stream(stream())
    assert await provider.read(id, RUN, outputs, urn=URN) == (id, RUN, outputs)
    assert (await provider.read(id, urn=URN))[0] == ""  # nothing to import


async def test_an_engine_that_does_not_answer_has_forgotten_nothing(provider: Provider) -> None:
    id, outputs = await provider.create(RUN, urn=URN)

    async def away(name: str, key: str) -> NoReturn:
        raise AgentUnreachable("no agent runs")

    provider.memory.get_replay = away  # type: ignore[method-assign]
    error = await failing(provider.read(id, RUN, outputs, urn=URN))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_import(provider: Provider) -> None:
    id, outputs = await provider.create(RUN, urn=URN)
    found, inputs, read = await provider.read(id, urn=URN)
    assert found == id
    assert inputs == {"stream": ID, "start": {"lsn": "5"}, "method": "log_rewind"}
    assert read["key"] == outputs["key"]


async def test_a_secret_trigger_stays_secret(provider: Provider) -> None:
    given = {**RUN, "triggers": [Secret("hunter2")]}
    id, outputs = await provider.create(given, urn=URN)
    assert outputs["triggers"] == [Secret("hunter2")]
    assert "hunter2" not in id


async def test_a_type_of_another_release(provider: Provider) -> None:
    error = await failing(provider.check({"a": 1}, urn="urn:pulumi:dev::shop::replicator:index:Mirror::m"))
    assert "replicator:index:Mirror is not a resource of this release" in (error.details() or "")
