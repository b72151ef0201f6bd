from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from replicator.backends.memory import MemoryReplicator
from replicator.errors import AgentUnreachable, EngineUnavailable, InvalidConfig
from replicator.model import Checkpoint
from replicator.remote import connection
from replicator.remote.client import RemoteReplicator
from replicator.remote.connection import RETRY_FOR
from replicator.remote.server import build_app

from tests.agent.support import as_nobody
from tests.remote.relay import relaying
from tests.remote.support import HINT, STATUS, Recorder, connected, make_stream, serving


def now() -> float:
    return asyncio.get_running_loop().time()


def leave_a_dead_socket(path: Path) -> None:
    """What a server leaves that was killed."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest.mark.parametrize(
    "address", ["", "/run/a.sock", "unix:run/a.sock", "unix://run/a.sock", "http://localhost:1", "ssh:/h/run/a.sock"]
)
def test_another_form_of_address_is_refused_with_the_one_that_works(address: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        RemoteReplicator("memory", address, start_hint=HINT)
    assert caught.value.property == "address"
    assert "unix:///" in str(caught.value.fix)


async def test_a_missing_socket_is_told_at_once_with_what_to_do(socket_path: Path) -> None:
    async with connected(socket_path) as client:
        before = now()
        with pytest.raises(AgentUnreachable, match="the socket is not there") as caught:
            await client.pause("orders")
        assert now() - before < 1
    assert caught.value.fix == HINT
    assert str(socket_path) in caught.value.message


async def test_a_dead_socket_is_told_when_the_agent_had_time_to_come_back(socket_path: Path) -> None:
    leave_a_dead_socket(socket_path)
    async with connected(socket_path) as client:
        before = now()
        with pytest.raises(AgentUnreachable, match="nothing listens") as caught:
            await client.pause("orders")
        assert 1.5 < now() - before < RETRY_FOR.total_seconds() + 1.5
    assert caught.value.fix == HINT


async def test_an_agent_that_was_killed_and_starts_again_is_waited_for(socket_path: Path) -> None:
    leave_a_dead_socket(socket_path)
    recorder = Recorder()
    async with connected(socket_path) as client:
        call = asyncio.create_task(client.get_status("orders"))
        await asyncio.sleep(0.7)
        assert not call.done()
        async with serving(build_app({"recorder": recorder}), socket_path):
            assert await call == STATUS
    assert len(recorder.calls) == 1


async def test_an_agent_that_answered_before_is_waited_for_while_its_socket_is_away(socket_path: Path) -> None:
    async with connected(socket_path) as client:
        async with serving(build_app({"recorder": Recorder()}), socket_path):
            await client.pause("orders")
        assert not socket_path.exists()
        call = asyncio.create_task(client.get_status("orders"))
        await asyncio.sleep(0.3)
        assert not call.done()
        async with serving(build_app({"recorder": Recorder()}), socket_path):
            assert await call == STATUS


async def test_a_lost_answer_is_asked_for_again_and_the_effect_happens_once(socket_path: Path) -> None:
    clock = [1_000_000.0]
    memory = MemoryReplicator(clock=lambda: clock[0])
    behind = socket_path.with_name("b.sock")
    async with serving(build_app({"memory": memory}), behind), connected(socket_path, "memory") as client:
        await memory.upsert_stream(make_stream(start_from=None))
        clock[0] += 10
        emitted = (await memory.get_status("orders")).events_replicated
        assert emitted is not None
        async with relaying(socket_path, behind, losses=1) as relay:
            progress = await client.replay("orders", Checkpoint(lsn="40"), key="k")
        assert relay.requests == 2
        assert progress.events == 60
        assert (await memory.get_status("orders")).events_replicated == emitted + 60


async def test_answers_that_are_lost_each_time_end_in_an_error(socket_path: Path) -> None:
    recorder = Recorder()
    behind = socket_path.with_name("b.sock")
    async with (
        serving(build_app({"recorder": recorder}), behind),
        relaying(socket_path, behind, losses=1000) as relay,
        connected(socket_path) as client,
    ):
        before = now()
        with pytest.raises(AgentUnreachable, match=r"broke the connection .* the call may have happened"):
            await client.pause("orders")
        assert now() - before < RETRY_FOR.total_seconds() + 2
        assert relay.requests == len(recorder.calls) >= 3


@pytest.fixture
def nobody(socket_path: Path) -> Iterator[None]:
    with as_nobody(socket_path):
        yield


@pytest.fixture
async def running(socket_path: Path) -> AsyncIterator[None]:
    async with serving(build_app({"recorder": Recorder()}), socket_path):
        yield


@pytest.mark.usefixtures("running", "nobody")
async def test_no_permission_says_whose_socket_it_is_and_does_not_wait(socket_path: Path) -> None:
    async with connected(socket_path) as client:
        before = now()
        with pytest.raises(AgentUnreachable, match=r"no permission .* mode 0[46]00 and group \w+") as caught:
            await client.pause("orders")
        assert now() - before < 1
    assert "--socket-group" in str(caught.value.fix)


async def test_another_failure_to_connect_is_quoted(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(path: str) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio, "open_unix_connection", fail)
    async with connected(socket_path) as client:
        with pytest.raises(AgentUnreachable, match=r"cannot connect .* Too many open files"):
            await client.pause("orders")


@pytest.fixture
async def held(socket_path: Path) -> AsyncIterator[tuple[Recorder, asyncio.Event]]:
    """A server whose calls wait for the gate."""
    gate = asyncio.Event()
    recorder = Recorder(gate=gate)
    async with serving(build_app({"recorder": recorder}), socket_path):
        yield recorder, gate
        gate.set()


async def test_an_answer_that_takes_too_long_says_nothing_about_the_stream(
    socket_path: Path, held: tuple[Recorder, asyncio.Event]
) -> None:
    recorder, _ = held
    async with connected(socket_path, timeout=timedelta(seconds=0.3)) as client:
        with pytest.raises(EngineUnavailable, match=r"in 0\.3 s; that says nothing about the stream"):
            await client.get_status("orders")
    assert len(recorder.calls) == 1


async def test_waiting_for_a_turn_does_not_count_as_waiting_for_an_answer(socket_path: Path) -> None:
    app = build_app({"recorder": Recorder()}, latency=timedelta(seconds=0.5))
    async with serving(app, socket_path), connected(socket_path, timeout=timedelta(seconds=2.5)) as client:
        await asyncio.gather(*(client.pause("orders") for _ in range(6 * 64)))


async def test_a_cancelled_call_ends_at_once_and_the_next_one_works(
    socket_path: Path, held: tuple[Recorder, asyncio.Event]
) -> None:
    recorder, gate = held
    async with connected(socket_path) as client:
        calls = [asyncio.create_task(client.get_status("orders")) for _ in range(64)]
        await asyncio.wait_for(recorder.entered.wait(), 5)
        before = now()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert now() - before < 1
        assert all(call.cancelled() for call in calls)
        gate.set()
        assert await asyncio.wait_for(client.get_status("orders"), 5) == STATUS


async def test_a_call_that_waits_for_an_agent_is_cancelled_at_once(socket_path: Path) -> None:
    leave_a_dead_socket(socket_path)
    async with connected(socket_path) as client:
        call = asyncio.create_task(client.pause("orders"))
        await asyncio.sleep(0.6)
        before = now()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        assert call.cancelled()
        assert now() - before < 0.5


async def test_an_idle_connection_that_the_server_closed_is_not_used_again(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RETRY_FOR", timedelta())
    async with connected(socket_path) as client:
        for _ in range(3):
            async with serving(build_app({"recorder": Recorder()}), socket_path):
                assert await client.get_status("orders") == STATUS
