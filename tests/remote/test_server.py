from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import os
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from replicator import lockfile
from replicator.errors import AgentFault, AgentUnreachable, InvalidConfig
from replicator.remote import listen, server
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


async def test_who_locks_the_folder_holds_nobody_up(socket_path: Path) -> None:
    """Every user who may read a folder may lock it."""
    with locked(socket_path.parent):
        async with serving(build_app({"recorder": Recorder()}), socket_path), connected(socket_path) as client:
            assert await client.get_status("orders") == STATUS
    assert not socket_path.exists()


@contextlib.contextmanager
def locked(path: Path, flags: int = 0) -> Iterator[None]:
    """A lock that somebody else holds on a file or folder."""
    handle = os.open(path, os.O_RDONLY | flags, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


async def test_a_start_that_is_cancelled_leaves_no_socket(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*arguments: Any, **settings: Any) -> listen.Listener:
        time.sleep(0.3)
        return listen.listen(*arguments, **settings)

    monkeypatch.setattr(server, "listen", slow)
    starting = asyncio.create_task(serve(build_app({}), socket_path))
    await asyncio.sleep(0.1)
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert not socket_path.exists()


async def test_a_lock_that_is_held_is_an_error_in_time_that_says_who_holds_it(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listen, "_LOCK_WITHIN", 0.3)
    beside = socket_path.with_name("a.sock.lock")
    with locked(beside, os.O_CREAT):
        for written in ("", "1\n", "4194305\n"):  # by who held it before
            beside.write_text(written)
            with pytest.raises(AgentFault, match=rf"process {os.getpid()} has held the lock {beside} for 0\.3 s"):
                await serve(build_app({}), socket_path)
        monkeypatch.setattr(lockfile, "_LOCKS", beside.with_name("none"))  # as on a system that does not tell
        with pytest.raises(AgentFault, match="a process that is not known has held"):
            await serve(build_app({}), socket_path)
        beside.write_text(f"{os.getpid()}\n")
        with pytest.raises(AgentFault, match=f"process {os.getpid()} has held"):
            await serve(build_app({}), socket_path)
    assert not socket_path.exists()
    async with serving(build_app({}), socket_path) as task:
        assert mode(beside) == 0o600
        assert beside.read_text() == f"{os.getpid()}\n\n"
        with locked(beside):
            task.cancel()
            await asyncio.wait({task}, timeout=5)
            assert task.cancelled()
    assert "was left behind" in caplog.text
    async with serving(build_app({}), socket_path):
        pass
    assert not socket_path.exists()


async def test_a_lock_that_is_no_file_of_this_user_is_refused(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, precious = socket_path.with_name("a.sock.lock"), socket_path.with_name("precious")
    precious.write_text("mine")
    beside.symlink_to(precious)
    with pytest.raises(InvalidConfig, match=r"a\.sock\.lock: it is a symbolic link"):
        await serve(build_app({}), socket_path)
    assert precious.read_text() == "mine"
    beside.unlink()
    os.mkfifo(beside)
    with pytest.raises(InvalidConfig, match="it is not a regular file"):
        await serve(build_app({}), socket_path)
    beside.unlink()
    beside.touch()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InvalidConfig, match="it belongs to another user"):
        await serve(build_app({}), socket_path)


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server looks often whether its socket is there."""
    monkeypatch.setattr(server, "LOOK_EVERY", 0.05)


@pytest.mark.usefixtures("looking")
async def test_a_socket_that_was_removed_is_made_again(socket_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(gate=(gate := asyncio.Event()))
    async with serving(build_app({"recorder": recorder}), socket_path, mode=0o660), connected(socket_path) as client:
        call = asyncio.create_task(client.get_status("orders"))
        await asyncio.wait_for(recorder.entered.wait(), 5)
        for _ in range(2):
            socket_path.unlink()
            async with asyncio.timeout(5):
                while not socket_path.exists():
                    await asyncio.sleep(0.01)
        shutil.rmtree(socket_path.parent)
        async with asyncio.timeout(5):
            while not socket_path.exists():
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert mode(socket_path) == 0o660
        gate.set()
        async with connected(socket_path) as other:
            assert await other.get_status("orders") == STATUS
        assert await call == STATUS
        assert "was removed; it is there again" in caplog.text
    assert not socket_path.exists()


@pytest.mark.usefixtures("looking")
async def test_a_socket_whose_mode_was_changed_is_still_ours(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(build_app({"recorder": Recorder()}), socket_path), connected(socket_path) as client:
        socket_path.chmod(0o666)
        await asyncio.sleep(0.3)
        assert await client.get_status("orders") == STATUS
        assert mode(socket_path) == 0o666
    assert not caplog.records


@pytest.mark.usefixtures("looking")
async def test_what_took_the_place_of_the_socket_is_left_alone(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(build_app({"recorder": Recorder()}), socket_path) as task:
        socket_path.unlink()
        socket_path.write_text("mine")
        await asyncio.sleep(0.3)
        assert not task.done()
        assert caplog.text.count("cannot be made again") == 1
        socket_path.unlink()
        await asyncio.sleep(0.3)
        async with connected(socket_path) as client:
            assert await client.get_status("orders") == STATUS


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


@pytest.mark.parametrize("made", [True, False])
def test_a_group_in_which_the_agent_is_not_is_told_as_that(socket_path: Path, made: bool) -> None:
    mine = {os.getegid(), *os.getgroups(), 65534}
    group = next(item for item in grp.getgrall() if item.gr_gid not in mine)
    path = socket_path if made else socket_path.with_name("folder") / "a.sock"
    before = socket_path.parent.stat().st_mode
    socket_path.parent.chmod(0o777)
    if root := os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        with pytest.raises(InvalidConfig, match="cannot be given to the group") as refused:
            listen.listen(path, mode=0o660, group=group.gr_name)
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)
        socket_path.parent.chmod(before & 0o7777)
    assert f"make this user a member of {group.gr_name}" in str(refused.value.fix)
    assert not path.exists()
