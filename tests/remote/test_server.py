from __future__ import annotations

import asyncio
import grp
import os
import signal
import stat
from pathlib import Path

import pytest
from replicator.errors import AgentFault, AgentUnreachable, InvalidConfig
from replicator.remote import server
from replicator.remote.server import build_app, serve

from tests.remote.support import STATUS, Recorder, connected, serving
from tests.remote.test_transport import leave_a_dead_socket


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_socket_and_folder_are_for_the_owner_alone_whatever_the_umask(socket_path: Path) -> None:
    path = socket_path.parent / "new" / "a.sock"
    before = os.umask(0)
    try:
        async with serving(build_app({}), path):
            assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    finally:
        os.umask(before)


async def test_a_group_may_enter_where_one_is_named(socket_path: Path) -> None:
    group = grp.getgrgid(os.getgroups()[-1] if os.getgroups() else os.getgid())
    path = socket_path.parent / "new" / "a.sock"
    async with serving(build_app({}), path, mode=0o660, group=group.gr_name):
        assert (mode(path), mode(path.parent)) == (0o660, 0o710)
        assert path.stat().st_gid == path.parent.stat().st_gid == group.gr_gid


async def test_a_folder_that_is_there_keeps_its_mode(socket_path: Path) -> None:
    socket_path.parent.chmod(0o755)
    async with serving(build_app({}), socket_path):
        assert mode(socket_path.parent) == 0o755


async def test_a_second_server_is_refused_and_the_first_goes_on(socket_path: Path) -> None:
    async with serving(build_app({"recorder": Recorder()}), socket_path), connected(socket_path) as client:
        with pytest.raises(AgentFault, match=f"already running at unix://{socket_path}"):
            await serve(build_app({}), socket_path)
        assert await client.get_status("orders") == STATUS


async def test_of_many_that_start_at_once_over_a_dead_socket_one_serves(socket_path: Path) -> None:
    leave_a_dead_socket(socket_path)
    tasks = [asyncio.create_task(serve(build_app({"recorder": Recorder()}), socket_path)) for _ in range(8)]
    done, running = await asyncio.wait(tasks, timeout=1.5)
    assert len(running) == 1
    assert all(isinstance(task.exception(), AgentFault) for task in done)
    async with connected(socket_path) as client:
        assert await client.get_status("orders") == STATUS
    (task,) = running
    task.cancel()
    await asyncio.wait(running)


async def test_a_file_that_is_no_socket_is_left_alone(socket_path: Path) -> None:
    socket_path.write_text("mine")
    with pytest.raises(InvalidConfig, match="is not a socket"):
        await serve(build_app({}), socket_path)
    assert socket_path.read_text() == "mine"


async def test_paths_and_groups_that_cannot_be_used(socket_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="too long"):
        await serve(build_app({}), socket_path.with_name("a" * 120))
    with pytest.raises(InvalidConfig, match="no group 'no-such-group'"):
        await serve(build_app({}), socket_path, group="no-such-group")
    socket_path.write_text("")
    with pytest.raises(InvalidConfig, match="cannot listen"):
        await serve(build_app({}), socket_path / "below" / "a.sock")


async def test_the_socket_of_a_successor_is_not_removed(socket_path: Path) -> None:
    async with serving(build_app({"recorder": Recorder()}), socket_path) as first:
        socket_path.unlink()
        async with serving(build_app({"recorder": Recorder()}), socket_path), connected(socket_path) as client:
            first.cancel()
            await asyncio.wait({first})
            assert await client.get_status("orders") == STATUS
        assert not socket_path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_calls_finish_then_removes_the_socket(socket_path: Path, number: signal.Signals) -> None:
    gate = asyncio.Event()
    recorder = Recorder(gate=gate)
    handler = signal.getsignal(number)
    async with serving(build_app({"recorder": recorder}), socket_path) as task, connected(socket_path) as client:
        assert signal.getsignal(number) != handler
        call = asyncio.create_task(client.get_status("orders"))
        await asyncio.wait_for(recorder.entered.wait(), 5)
        os.kill(os.getpid(), number)
        await asyncio.sleep(0.5)
        assert not task.done()
        gate.set()
        assert await asyncio.wait_for(call, 5) == STATUS
        await asyncio.wait_for(task, 5)
        assert not socket_path.exists()
    assert signal.getsignal(number) == handler
    assert len(recorder.calls) == 1


async def test_a_second_interrupt_does_not_wait(socket_path: Path) -> None:
    recorder = Recorder(gate=asyncio.Event())
    async with serving(build_app({"recorder": recorder}), socket_path) as task, connected(socket_path) as client:
        call = asyncio.create_task(client.get_status("orders"))
        await asyncio.wait_for(recorder.entered.wait(), 5)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.3)
        assert not task.done()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(task, 2)
        assert not socket_path.exists()
        with pytest.raises(AgentUnreachable, match="stopped before get_status ended"):
            await call


async def test_a_call_that_does_not_end_is_cancelled_after_the_grace(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "GRACE_SECONDS", 1)
    recorder = Recorder(gate=asyncio.Event())
    async with serving(build_app({"recorder": recorder}), socket_path) as task, connected(socket_path) as client:
        call = asyncio.create_task(client.get_status("orders"))
        await asyncio.wait_for(recorder.entered.wait(), 5)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 3)
        with pytest.raises(AgentUnreachable, match="stopped before get_status ended") as caught:
            await call
        assert caught.value.stream == "orders"


async def test_servers_that_end_in_any_order_give_the_signals_back(socket_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    first = asyncio.create_task(serve(build_app({}), socket_path))
    async with serving(build_app({}), socket_path.with_name("b.sock")):
        first.cancel()
        await asyncio.wait({first})
        assert signal.getsignal(signal.SIGTERM) != handler
    assert signal.getsignal(signal.SIGTERM) == handler
