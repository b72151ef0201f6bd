"""Replay: planned without effect, run once for its key."""

from __future__ import annotations

import asyncio

import pytest
from replicator.errors import ReplayFailed, ReplayKeyReused, ReplayNotRetained, StreamNotFound, Unsupported, WaitTimeout
from replicator.lifecycle.connections import Connections, StreamId
from replicator.lifecycle.replay import plan_replay, run_replay
from replicator.lifecycle.wait import Limits
from replicator.model import Checkpoint
from replicator.replicator import ReplayMethod, ReplayProgress, ReplayState

from tests.lifecycle.builders import Clock, Watched, connected, stream

ORDERS = StreamId("memory", "default", "orders")
AUTO = ReplayMethod.AUTO
FIVE = Checkpoint(lsn="5")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def watched(clock: Clock) -> Watched:
    replicator = Watched(clock)
    await replicator.upsert_stream(stream())
    clock.advance(2)  # 20 events
    return replicator


@pytest.fixture
def connections(watched: Watched) -> Connections:
    return connected(watched)


async def run(connections: Connections, key: str, start: Checkpoint = FIVE) -> ReplayProgress:
    return await run_replay(connections, ORDERS, start, key=key, method=AUTO, target=None, limits=Limits(5))


async def test_a_plan_says_what_would_happen_and_does_nothing(connections: Connections, watched: Watched) -> None:
    before = await watched.get_status("orders")
    plan = await plan_replay(connections, ORDERS, FIVE, AUTO, None)
    assert (plan.method, plan.events, plan.duplicates) == (ReplayMethod.LOG_REWIND, 15, True)
    assert plan.earliest is not None
    assert plan.latest is not None
    assert (plan.earliest.lsn, plan.latest.lsn, plan.resolved.lsn) == ("0", "20", "5")
    assert await watched.get_status("orders") == before


async def test_one_key_runs_once(connections: Connections, watched: Watched) -> None:
    first, *others = await asyncio.gather(*(run(connections, "k") for _ in range(5)))
    assert first.state is ReplayState.DONE
    assert first.events == 15
    assert others == [first] * 4
    assert (await watched.get_status("orders")).events_replicated == 35


async def test_another_key_runs_again(connections: Connections, watched: Watched) -> None:
    await run(connections, "k")
    await run(connections, "l")
    assert (await watched.get_status("orders")).events_replicated == 50


async def test_a_key_belongs_to_one_replay(connections: Connections) -> None:
    await run(connections, "k")
    with pytest.raises(ReplayKeyReused, match="key 'k' was used for a replay from lsn 5"):
        await run(connections, "k", Checkpoint(lsn="6"))


async def test_a_start_that_is_not_retained(connections: Connections, clock: Clock) -> None:
    clock.advance(7200)
    with pytest.raises(ReplayNotRetained) as caught:
        await plan_replay(connections, ORDERS, FIVE, AUTO, None)
    assert 'start at an lsn from "36020" to "72020"' in str(caught.value)


async def test_a_method_that_the_backend_has_not(connections: Connections) -> None:
    with pytest.raises(Unsupported, match="use log_rewind"):
        await plan_replay(connections, ORDERS, FIVE, ReplayMethod.COPY, "/target")


async def test_a_replay_that_fails_is_an_error(connections: Connections, watched: Watched) -> None:
    done = await run(connections, "k")

    async def fail(*_: object, **__: object) -> ReplayProgress:
        return done.model_copy(update={"state": ReplayState.FAILED, "error": "the disk is full"})

    watched.replay = fail  # type: ignore[method-assign]
    with pytest.raises(ReplayFailed, match="the disk is full") as raised:
        await run(connections, "k")
    assert raised.value.stream == "orders"


async def test_no_such_stream(connections: Connections) -> None:
    with pytest.raises(StreamNotFound):
        await plan_replay(connections, StreamId("memory", "default", "bills"), FIVE, AUTO, None)


async def test_a_replay_that_hangs_runs_out_of_time(connections: Connections, watched: Watched) -> None:
    async def hang(*_: object, **__: object) -> ReplayProgress:
        await asyncio.Event().wait()
        raise AssertionError

    watched.replay = hang  # type: ignore[method-assign]
    with pytest.raises(WaitTimeout, match="the replay took longer"):
        await run_replay(connections, ORDERS, FIVE, key="k", method=AUTO, target=None, limits=Limits(0.05))
