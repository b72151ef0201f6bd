"""`replicator agent dial-stdio` on another host: who may run it, what may go wrong with it, and that none is left."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from replicator.errors import AgentUnreachable, SshFailed

from tests import releases
from tests.remote.ssh_client import agent, client_of, folders, processes, use
from tests.remote.support import STATUS, Recorder
from tests.sshd import Sshd, sshd
from tests.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("configured")]


@pytest.fixture(scope="module")
def host() -> Iterator[Sshd]:
    with sshd() as made:
        yield made


async def test_a_command_that_was_killed_on_the_host_is_started_again(host: Sshd, path: Path) -> None:
    gate = asyncio.Event()
    async with agent(path, Recorder(gate=gate)) as recorder, client_of(host.address(path)) as client:
        call = asyncio.create_task(client.get_status("orders"))
        await recorder.entered.wait()
        [there] = host.commands()
        os.kill(there, signal.SIGKILL)
        while len(recorder.calls) < 2:
            await asyncio.sleep(0.02)
        gate.set()
        assert await call == STATUS
        assert there not in host.commands()


@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_no_command_is_left_on_the_host(host: Sshd, path: Path, how: str) -> None:
    async with agent(path), client_of(host.address(path)) as client:
        assert await client.get_status("orders") == STATUS
        [there] = host.commands()
        [process] = processes()
        if how == "killed":
            os.kill(process, signal.SIGKILL)
        else:
            await client.aclose()
        await asyncio.to_thread(wait_until, lambda: not Path(f"/proc/{there}").exists(), what="the command ends")


async def test_a_login_may_be_for_this_command_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/agent.md writes before a key."""
    with sshd(key_options='restrict,command="replicator agent dial-stdio --multiplex"') as host:
        use(host, monkeypatch)
        path = host.runtime / "replicator" / "agent.sock"
        path.parent.mkdir()
        path.parent.chmod(0o755)
        async with agent(path), client_of(host.address()) as client:
            assert await client.get_status("orders") == STATUS


async def test_a_login_shell_may_say_something_first(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = 'command="echo Welcome; printf no-newline; echo; echo dear >&2; eval $SSH_ORIGINAL_COMMAND"'
    with sshd(key_options=noisy) as host:
        use(host, monkeypatch)
        path = host.folder / "s"
        async with agent(path), client_of(host.address(path)) as client:
            assert await client.get_status("orders") == STATUS
            assert folders() == []


async def test_a_host_that_sends_what_is_no_frame_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with sshd(key_options='command="echo replicator dial-stdio: /s; echo and something else; cat"') as host:
        use(host, monkeypatch)
        async with client_of(host.address(host.folder / "s")) as client:
            with pytest.raises(SshFailed, match=r"what `replicator .*` on db.example sends"):
                await client.get_status("orders")


async def test_the_agent_of_the_home_folder_is_found_where_the_login_has_another_runtime_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sshd() as host:
        use(host, monkeypatch)
        path = host.folder / "home" / ".replicator" / "agent.sock"
        path.parent.mkdir()
        path.parent.chmod(0o755)
        async with agent(path), client_of(host.address()) as client:
            assert await client.get_status("orders") == STATUS


async def test_a_host_of_the_last_release_is_reached_by_forwarding(monkeypatch: pytest.MonkeyPatch) -> None:
    with sshd(package=releases.FIRST) as host:
        use(host, monkeypatch)
        path = host.folder / "s"
        async with agent(path), client_of(host.address(path)) as client:
            assert await client.get_status("orders") == STATUS
            assert len(folders()) == 1
        async with client_of(host.address(path)) as client:
            with pytest.raises(AgentUnreachable) as caught:
                await client.get_status("orders")
        assert caught.value.message == f"no agent runs on db.example: there is no socket {path}"
