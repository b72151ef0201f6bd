"""The agent answers, stops and is found, whatever somebody does to its connections, its socket and its folders."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import resource
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from replicator.agent.state import StateFolder
from replicator.errors import AgentFault, InvalidConfig
from replicator.remote.server import LOOK_EVERY

from tests.agent.support import Host, call, caught_up, command
from tests.engines import make_database
from tests.waiting import wait_until

HALF_HEAD = b"GET /v1/litestream/streams HTTP/1.1\r\nHost: "
HALF_BODY = b"PUT /v1/litestream/streams HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n{"


@pytest.fixture
def many_files() -> Iterator[None]:
    """This process may open as many files as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def clients(host: Host, count: int, sent: bytes) -> Iterator[None]:
    """So many connections on which that was sent, and nothing more."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(host.socket))
            with contextlib.suppress(ConnectionError):  # it made room already
                connection.sendall(sent)
        yield


async def answers(host: Host, *, within: float) -> None:
    async with asyncio.timeout(within), host.client() as client:
        assert await client.list_streams() == []


@pytest.mark.engine
@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    ("count", "descriptors", "sent"),
    [(300, 60, b""), (1000, 1200, HALF_HEAD), (1000, 1200, HALF_BODY)],
    ids=["idle", "half a head", "half a body"],
)
async def test_it_answers_while_others_keep_their_connections(
    host: Host, count: int, descriptors: int, sent: bytes
) -> None:
    process = host.start(before=("sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"))
    with clients(host, count, sent):
        await answers(host, within=20)
        # A quarter is for connections.
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < descriptors / 4 + 40
        await answers(host, within=20)
    await answers(host, within=5)
    assert len(host.log()) < 10_000
    assert host.end() == 0


@pytest.mark.engine
def test_who_locks_the_folder_of_the_socket_neither_keeps_it_from_starting_nor_from_stopping(host: Host) -> None:
    host.folder.chmod(0o755)
    with _flock(host.folder):
        host.start()
        assert host.end(within=10) == 0
    assert not host.socket.exists()


@contextlib.contextmanager
def _flock(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


# --- its state folder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "registry", "daemons"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
async def test_a_folder_that_others_may_write_to_is_refused_with_the_command(
    short_path: Path, below: str, mode: int
) -> None:
    folder = StateFolder(short_path / "state")
    folder.make()
    shared = folder.path / below
    shared.chmod(mode)
    with pytest.raises(InvalidConfig, match=rf"{shared} has mode {mode:04o}: other users may replace") as refused:
        async with folder.locked():
            pass
    assert f"chmod 700 {shared}" in str(refused.value.fix)
    assert not folder.lock.exists()
    shared.chmod(0o755)
    async with folder.locked():
        assert stat.S_IMODE(folder.lock.stat().st_mode) == 0o600


async def test_a_folder_of_another_user_is_refused(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StateFolder(short_path)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(InvalidConfig, match="belongs to another user"):
        folder.make()


async def test_a_lock_that_is_a_link_is_refused_and_nothing_is_written_over(short_path: Path) -> None:
    folder, precious = StateFolder(short_path / "state"), short_path / "precious"
    folder.make()
    precious.write_text("mine")
    folder.lock.symlink_to(precious)
    with pytest.raises(InvalidConfig, match=r"agent\.lock: it is a symbolic link"):
        async with folder.locked():
            pass
    assert precious.read_text() == "mine"
    with pytest.raises(AgentFault, match="it is a symbolic link"):
        folder.holder()
    folder.lock.unlink()
    os.mkfifo(folder.lock)
    with pytest.raises(InvalidConfig, match="it is not a regular file"):
        async with folder.locked():
            pass
    assert folder.holder() is None


@pytest.mark.parametrize("name", ["agent.lock", "agent.log"])
def test_a_start_follows_no_link(short_path: Path, name: str) -> None:
    state, precious = short_path / "state", short_path / "precious"
    StateFolder(state).make()
    precious.write_text("mine")
    (state / name).symlink_to(precious)
    code, _, err = call("agent", "start", "--socket", str(short_path / "a.sock"), "--state", str(state))
    assert (code, precious.read_text()) == (1, "mine")
    assert "it is a symbolic link" in err


async def test_who_holds_a_folder_says_where_it_listens(short_path: Path) -> None:
    folder, here = StateFolder(short_path / "state"), short_path / "a.sock"
    assert folder.holder_at(here) is None
    async with folder.locked(here):
        assert folder.holder_at(here) == os.getpid() == folder.holder()
        assert folder.holder_at(short_path / "b.sock") is None
        # As the host of a container sees it: that number is another process here.
        folder.lock.write_text(f"1\n{here}\n")
        assert (folder.holder(), folder.holder_at(here)) == (1, None)
    assert folder.holder_at(here) is None


# --- its socket ------------------------------------------------------------------------------------------------------


@pytest.mark.engine
async def test_an_agent_whose_socket_was_removed_listens_again(host: Host) -> None:
    make_database(host.database())
    host.start()
    async with host.client() as client:
        await client.upsert_stream(host.stream())
        host.socket.unlink()
        code, out, err = await asyncio.to_thread(call, "agent", "status", *host.places)
        assert (code, out) == (1, "")
        assert f"nothing listens at {host.address}: its socket was removed" in err
        await asyncio.to_thread(wait_until, host.socket.exists, timeout=LOOK_EVERY + 5, what="the socket is back")
        await caught_up(client)
    assert (await asyncio.to_thread(call, "agent", "status", *host.places))[0] == 0
    assert "was removed; it is there again" in host.log()
    assert host.end() == 0


@pytest.mark.engine
def test_an_agent_that_cannot_listen_again_is_found_and_stopped(host: Host) -> None:
    process = host.start()
    host.socket.unlink()
    host.socket.mkdir()
    for arguments in (("agent", "status"), ("agent", "status", "--json")):
        code, _, err = call(*arguments, *host.places)
        assert code == 1
        assert f"the agent, process {process.pid}, runs, and nothing listens at {host.address}" in err
    looked = call("doctor", "--address", host.address, "--state", str(host.state))[1]
    assert f"the socket of the agent of {host.state}, process {process.pid}, was removed" in " ".join(looked.split())
    assert call("agent", "stop", *host.places) == (
        0,
        f"stopped the agent at {host.address} (process {process.pid})\n",
        "",
    )
    assert process.wait(10) == 0
    assert host.socket.is_dir()
    code, out, _ = call("agent", "status", *host.places)
    assert (code, out.splitlines()[0]) == (3, f"no agent runs at {host.address}")


async def test_a_process_that_does_not_hold_the_folder_is_never_stopped(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the above: the number in the file alone is not believed."""
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a process was sent a signal"))
    folder, here = StateFolder(short_path / "state"), short_path / "a.sock"
    async with folder.locked(here):
        folder.lock.write_text(f"1\n{here}\n")
        assert await asyncio.to_thread(call, "agent", "stop", "--socket", str(here), "--state", str(folder.path)) == (
            0,
            f"no agent runs at unix://{here}\n",
            "",
        )


# --- its disk --------------------------------------------------------------------------------------------------------


@pytest.mark.engine
async def test_a_registry_that_cannot_be_written_is_an_error_of_one_stream_and_leaves_nothing(host: Host) -> None:
    make_database(host.database())
    process = host.start()
    streams = StateFolder(host.state).registry / "streams"
    async with host.client() as client:
        # The claim at the destination is shorter than that, and the record is longer.
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))
        with pytest.raises(AgentFault, match=r"orders\.json cannot be written: File too large") as refused:
            await client.upsert_stream(host.stream())
        assert (refused.value.stream, hard) == ("orders", resource.RLIM_INFINITY)
        assert "free space" in str(refused.value.fix)
        assert list(streams.iterdir()) == []
        assert await client.list_streams() == []
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        await client.upsert_stream(host.stream())
        await caught_up(client)
        before = (streams / "orders.json").read_text()
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (400, hard))
        with pytest.raises(AgentFault, match="File too large"):
            await client.pause("orders")
        assert [path.name for path in streams.iterdir()] == ["orders.json"]
        assert (streams / "orders.json").read_text() == before
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        await client.pause("orders")
        assert json.loads((streams / "orders.json").read_text())["paused"]
    assert host.end() == 0


@pytest.mark.engine
async def test_what_is_no_record_in_the_registry_stops_no_agent(host: Host) -> None:
    make_database(host.database())
    streams = StateFolder(host.state).registry / "streams"
    StateFolder(host.state).make()
    streams.mkdir()
    (streams / "folder.json").mkdir()
    (streams / "dangling.json").symlink_to("nowhere")
    (streams / "loop.json").symlink_to("loop.json")
    (streams / "deep.json").write_text("[" * 200_000)
    (streams / "device.json").symlink_to("/dev/zero")
    os.mkfifo(streams / "pipe.json")
    (streams / "orders.tmp").symlink_to(host.folder / "precious")
    began = time.monotonic()
    host.start()
    async with host.client() as client:
        described = {item.name: item.status for item in await client.describe()}
        assert set(described) == {"folder", "dangling", "loop", "deep", "device", "pipe"}
        assert {status.state.value for status in described.values()} == {"failed"}
        assert all(f"{name}.json cannot be read: " in str(status.last_error) for name, status in described.items())
        await client.upsert_stream(host.stream())
        await caught_up(client)
    assert time.monotonic() - began < 30
    assert not (host.folder / "precious").exists()
    assert "Traceback" not in host.log()
    assert host.end() == 0


@pytest.mark.engine
@pytest.mark.parametrize("below", ["registry", "registry/streams", "registry/agent-id", "registry/streams/x"])
def test_a_registry_that_is_none_is_an_error_without_a_traceback(host: Host, below: str) -> None:
    at = host.state / below
    at.parent.mkdir(parents=True, mode=0o700)
    for parent in (host.state, *at.relative_to(host.state).parents):
        (host.state / parent).chmod(0o700)
    if below.endswith("/x"):
        at.parent.rmdir()
        at.parent.symlink_to("nowhere")
    elif below.endswith("-id"):
        at.symlink_to("nowhere")
    else:
        at.write_text("")
    ended = command("agent", "run", *host.places)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "is not a folder" in ended.stderr or "agent-id cannot be read" in ended.stderr
    assert str(host.state) in ended.stderr
