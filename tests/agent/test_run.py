"""The agent as a process: what survives it, what dies with it, and who may share with it."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import resource
import signal
import sqlite3
import stat
import time
from pathlib import Path

import httpx
import pytest
from replicator.agent.log import LineFormatter
from replicator.agent.registry import FileStore
from replicator.agent.run import WaitForStart
from replicator.agent.state import StateFolder, default_state
from replicator.authref import Redactor
from replicator.backends.memory import MemoryReplicator
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.driver import START_WITHIN
from replicator.backends.sqlite.record import Phase, StreamRecord
from replicator.errors import AgentFault, InvalidConfig, RecordUnreadable
from replicator.model import StreamState
from replicator.remote.server import build_app

from tests.agent.support import Host, caught_up, command, restart_wal
from tests.engines import add_rows, free_ports, make_database
from tests.waiting import wait_until

pytestmark = pytest.mark.engine


async def test_a_killed_agent_takes_litestream_along_and_the_next_one_goes_on(host: Host) -> None:
    database = make_database(host.database(), rows=50)
    host.start()
    async with host.client() as client:
        await client.upsert_stream(host.stream())
        add_rows(database, 50)
        await caught_up(client)
    assert len(host.litestreams()) == 1
    add_rows(database, 20)
    host.end(signal.SIGKILL)
    wait_until(lambda: not host.litestreams(), timeout=3, what="litestream died with the agent")
    add_rows(database, 20)
    restart_wal(database)
    add_rows(database, 20)
    host.start()
    async with host.client() as client:
        assert (await caught_up(client)).state is StreamState.RUNNING
        add_rows(database, 20)
        await caught_up(client)
        assert [stream.name for stream in await client.list_streams()] == ["orders"]
    assert await content_hash(await host.restore()) == await content_hash(database)
    assert host.end() == 0


async def test_sigterm_uploads_what_is_left(host: Host) -> None:
    database = make_database(host.database(), rows=10)
    host.start()
    async with host.client() as client:
        # Without the last upload nothing would be there for a minute.
        await client.upsert_stream(host.stream(checkpointInterval="60s"))
    add_rows(database, 30)
    assert host.end() == 0
    assert not host.socket.exists()
    assert host.litestreams() == []
    assert await content_hash(await host.restore()) == await content_hash(database)
    assert StateFolder(host.state).holder() is None


def test_two_agents_never_share_a_state_folder(host: Host) -> None:
    process = host.start()
    other = command("agent", "run", "--socket", str(host.folder / "b.sock"), "--state", str(host.state))
    assert other.returncode == 1
    assert f"another agent, process {process.pid}, uses the state folder {host.state}" in other.stderr
    assert StateFolder(host.state).holder() == process.pid
    host.end(signal.SIGKILL)
    assert StateFolder(host.state).holder() is None
    host.start()


def test_two_agents_never_share_a_socket(host: Host) -> None:
    host.start()
    other = host.folder / "other"
    refused = command("agent", "run", "--socket", str(host.socket), "--state", str(other))
    assert refused.returncode == 1
    assert f"another server is already running at {host.address}" in refused.stderr
    assert StateFolder(other).holder() is None


def test_only_its_user_may_use_the_socket_unless_a_group_is_named(host: Host) -> None:
    host.start()
    assert stat.S_IMODE(host.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(host.state.stat().st_mode) == 0o700
    host.end()
    host.start("--socket-group", grp.getgrgid(os.getgid()).gr_name)
    assert stat.S_IMODE(host.socket.stat().st_mode) == 0o660
    assert host.socket.stat().st_gid == os.getgid()


def test_it_may_open_as_many_files_as_the_system_allows(host: Host) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    process = host.start(before=("sh", "-c", 'ulimit -S -n 200; exec "$@"', "sh"))
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    [line] = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3:5] == [str(hard), str(hard)]


async def keep_on_record(host: Host) -> None:
    """The records of a stream to a folder and of one to a store that is away, as an earlier agent left them."""
    host.environment |= {"DEAD_ACCESS_KEY_ID": "AKID", "DEAD_SECRET_ACCESS_KEY": "not-a-real-secret"}
    [port] = free_ports(1)
    uri = f"s3://bucket/dead?endpoint=http://127.0.0.1:{port}&region=us-east-1"
    dead = host.stream("dead", destination={"kind": "s3", "uri": uri, "authRef": "env://DEAD_*"})
    store = FileStore(StateFolder(host.state).registry)
    for stream in (dead, host.stream()):
        make_database(host.database(stream.name))
        await store.put(StreamRecord(stream=stream, phase=Phase.ACTIVE))


async def test_a_store_that_is_away_holds_up_its_own_stream_only(host: Host) -> None:
    await keep_on_record(host)
    with contextlib.closing(sqlite3.connect(host.database("dead"), isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM item").fetchone()
        add_rows(host.database("dead"))  # so the WAL cannot be emptied, and a snapshot is forced, which has no store
        before = time.monotonic()
        host.start()
        async with host.client() as client:
            await caught_up(client)
            assert time.monotonic() - before < START_WITHIN + 5
            assert (await client.get_status("dead")).state is not StreamState.RUNNING
        before = time.monotonic()
        assert host.end() == 0
        assert time.monotonic() - before < 25


async def test_a_record_that_cannot_be_read_stops_no_agent(host: Host) -> None:
    await keep_on_record(host)
    path = StateFolder(host.state).registry / "streams" / "dead.json"
    damaged = path.read_text()[:100]
    path.write_text(damaged)
    host.start()
    async with host.client() as client:
        await caught_up(client)
        described = {item.name: item for item in await client.describe()}
        assert described["dead"].status.state is StreamState.FAILED
        assert f"{path} cannot be read" in str(described["dead"].status.last_error)
        with pytest.raises(RecordUnreadable):
            await client.pause("dead")
    assert f"{path} cannot be read" in host.log()
    assert host.end() == 0
    assert path.read_text() == damaged


def test_a_state_folder_whose_sockets_would_have_no_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="too long"):
        StateFolder(tmp_path / ("x" * 100)).make()


def test_a_state_folder_that_is_a_file_is_refused(host: Host) -> None:
    host.state.write_text("")
    with pytest.raises(InvalidConfig, match="cannot be used"):
        StateFolder(host.state).make()


async def test_a_folder_has_one_holder_at_a_time(host: Host) -> None:
    folder = StateFolder(host.state)
    assert folder.holder() is None
    async with folder.locked():
        assert folder.holder() == os.getpid()
        with pytest.raises(AgentFault, match=f"process {os.getpid()}"):
            async with folder.locked():
                pass
    assert folder.holder() is None


def test_the_default_state_folder_follows_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/ada/state")
    assert default_state() == Path("/home/ada/state/replicator")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_state() == Path("/home/ada/.local/state/replicator")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state() == Path("/var/lib/replicator")


async def test_calls_wait_for_the_start_and_a_question_who_is_there_does_not() -> None:
    started = asyncio.Event()
    app = WaitForStart(build_app({"memory": MemoryReplicator()}), started)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://agent") as client:
        listing = asyncio.create_task(client.get("/v1/memory/streams"))
        assert (await client.get("/v1/info")).json()["kinds"] == ["memory"]
        assert not listing.done()
        started.set()
        assert (await listing).json() == []


def test_the_log_has_one_line_an_event_and_no_secret() -> None:
    redactor = Redactor()
    redactor.add("first half\nsecond half")
    formatter = LineFormatter(redactor)
    try:
        raise ValueError("key first half\nsecond half refused")
    except ValueError as error:
        record = logging.LogRecord("replicator.x", logging.ERROR, "", 0, "a %s", ("b\nc",), (type(error), error, None))
    line = formatter.format(record)
    assert "\n" not in line
    assert "ERROR replicator.x: a b | c" in line
    assert "ValueError: key [redacted] refused" in line
    assert line[:4].isdigit() and line.split()[0].endswith("Z")
