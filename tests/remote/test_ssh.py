"""Agents on another host: the real ssh and the real sshd, which an ordinary user runs and logs in to."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from replicator.errors import (
    AgentUnreachable,
    AgentVersion,
    ForwardingRefused,
    HostKeyChanged,
    HostKeyUnknown,
    HostUnreachable,
    InvalidConfig,
    LoginRefused,
    SshFailed,
    SshMissing,
)
from replicator.model import Stream
from replicator.remote import app as app_module
from replicator.remote.connection import RETRY_FOR
from replicator.remote.ssh import command, transport
from replicator.remote.ssh import process as ssh_process
from replicator.remote.ssh.command import CONFIG_VARIABLE

from tests.remote.ssh_client import agent, client_of, folders, now, processes, use
from tests.remote.support import HINT, STATUS, Recorder, make_stream
from tests.sshd import OURS, Sshd, sshd
from tests.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("configured")]


@pytest.fixture(scope="module", params=[OURS, None], ids=["dial", "fallback"])
def host(request: pytest.FixtureRequest) -> Iterator[Sshd]:
    """A host of this version, and one without a program `replicator`, which is reached by forwarding."""
    with sshd(package=request.param) as made:
        yield made


# --- what works ------------------------------------------------------------------------------------------------------


async def test_a_call_arrives_and_what_was_opened_is_closed(host: Sshd, path: Path) -> None:
    async with agent(path) as recorder:
        async with client_of(host.address(path)) as client:
            assert (processes(), folders()) == ([], [])  # before the first call
            assert await client.get_status("orders") == STATUS
            [process] = processes()
            assert os.getpgid(process) == process  # ^C is for us, and we end it
            assert len(folders()) == (0 if host.dials else 1)
            for folder in folders():
                assert folder.stat().st_mode & 0o777 == 0o700
                assert (folder / "socket").stat().st_mode & 0o777 == 0o600
            assert (await client.info()).kinds == ["recorder"]
            assert processes() == [process]
        assert (processes(), folders()) == ([], [])
    assert recorder.calls == [("get_status", {"name": "orders"})]


async def test_everybody_shares_one_ssh(host: Sshd, path: Path) -> None:
    before = host.logins()
    address = host.address(path)
    async with agent(path) as recorder, client_of(address) as one, client_of(address) as two:
        calls = [(one, two)[place % 2].get_status("orders") for place in range(40)]
        assert await asyncio.gather(*calls) == [STATUS] * 40
        assert len(processes()) == 1
        await one.aclose()
        assert await two.get_status("orders") == STATUS
    assert host.logins() == before + (1 if host.dials else 2)  # the fallback tries the command first
    assert len(recorder.calls) == 41


async def test_port_and_user_of_the_address_win(host: Sshd, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host.config.write_text(host.config.read_text().replace(f"Port {host.port}", "Port 1").replace("User ", "User no"))
    monkeypatch.setenv(CONFIG_VARIABLE, str(host.config))
    async with agent(path), client_of(f"ssh://{host.login.user}@{host.alias}:{host.port}{path}") as client:
        assert await client.get_status("orders") == STATUS


async def test_a_jump_host(host: Sshd, path: Path) -> None:
    with sshd("bastion.example") as bastion:
        host.configure("ProxyJump bastion.example")
        host.config.write_text(host.config.read_text() + bastion.config.read_text())
        async with agent(path), client_of(host.address(path)) as client:
            assert await client.get_status("orders") == STATUS
        assert bastion.logins() == (1 if host.dials else 2)
    error = await refused(host.address(path), HostUnreachable)
    assert f"connect to host 127.0.0.1 port {bastion.port}: Connection refused" in error.message


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


async def test_what_people_have_in_their_configuration_does_no_harm(host: Sshd, path: Path, taken_port: int) -> None:
    host.configure(
        f"LocalForward {taken_port} 127.0.0.1:1",
        "ExitOnForwardFailure yes",
        "ControlMaster auto",
        f"ControlPath {host.folder}/master",
        "ControlPersist 60",
        "RemoteCommand sleep 60",
        "RequestTTY force",
        "LogLevel QUIET",
        "BatchMode no",
        "StrictHostKeyChecking accept-new",
    )
    async with agent(path):
        for _ in range(2):
            async with client_of(host.address(path)) as client:
                assert await client.get_status("orders") == STATUS
    assert not (host.folder / "master").exists()


async def test_a_long_name_of_the_temporary_folder_is_no_hindrance(
    host: Sshd, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    async with agent(path), client_of(host.address(path)) as client:
        assert await client.get_status("orders") == STATUS


# --- where the agent listens, if the address does not say ------------------------------------------------------------


async def test_without_a_path_the_host_is_asked_for_the_agent_of_the_login(host: Sshd) -> None:
    path = host.runtime / "replicator" / "agent.sock"
    path.parent.mkdir()
    path.parent.chmod(0o755)
    async with client_of(host.address()) as client:
        with pytest.raises(AgentUnreachable, match=f"no agent runs on db.example: there is no socket {path}"):
            await client.get_status("orders")
        async with agent(path):
            assert await client.get_status("orders") == STATUS


FORWARDING_ALONE = 'restrict,port-forwarding,command="/bin/false"'
"""What docs/agent.md of 0.1.0 wrote before a key that is for us alone."""


async def test_a_host_that_says_no_path_needs_one_in_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with sshd(key_options=FORWARDING_ALONE) as host:
        use(host, monkeypatch)
        async with client_of(host.address()) as client:
            with pytest.raises(InvalidConfig, match=r"db.example does not say where the agent .* listens") as caught:
                await client.get_status("orders")
            assert caught.value.property == "address"
            assert "write the path into the address" in str(caught.value.fix)
        path = host.folder / "s"
        async with agent(path), client_of(host.address(path)) as client:
            assert await client.get_status("orders") == STATUS


# --- each failure ----------------------------------------------------------------------------------------------------


async def refused(address: str, kind: type[AgentUnreachable]) -> AgentUnreachable:
    """The error of a call; nothing of ssh is left after it."""
    async with client_of(address) as client:
        with pytest.raises(AgentUnreachable) as caught:
            await client.get_status("orders")
        assert type(caught.value) is kind, caught.value
        assert caught.value.fix
        assert (kind is not AgentUnreachable) == (processes() == [])
    return caught.value


async def test_an_unknown_host_key(host: Sshd, path: Path) -> None:
    nothing = host.folder / "empty"
    nothing.touch()
    host.configure(f"UserKnownHostsFile {nothing}")
    error = await refused(host.address(path), HostKeyUnknown)
    assert error.message == "the host key of db.example, or of a jump host before it, is not known here"
    assert (
        f"log in once by hand, and compare the fingerprint before you accept it: ssh -F {host.config} db.example"
        in (str(error))
    )
    assert nothing.read_text() == ""


@pytest.mark.parametrize("checking", ["ask", "no"])
async def test_another_host_key_than_before(path: Path, checking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `StrictHostKeyChecking no` ssh goes on, but forwards nothing: it never gets a socket."""
    monkeypatch.setattr(ssh_process, "OPEN_WITHIN", 5.0)
    with sshd() as host:
        host.new_host_key()
        host.stop()
        host.start()
        use(host, monkeypatch)
        host.configure(f"StrictHostKeyChecking {checking}")
        async with agent(host.folder / "s") as recorder:
            error = await refused(host.address(host.folder / "s"), HostKeyChanged)
        assert recorder.calls == []
    assert f"Offending ED25519 key in {host.known_hosts}:1" in error.message
    assert "ssh-keygen -R" in str(error.fix)


@pytest.mark.parametrize("how", ["file", "marker"])
async def test_a_revoked_host_key(host: Sshd, path: Path, how: str) -> None:
    revoked = host.folder / "revoked"
    if how == "file":
        revoked.write_text((host.folder / "host_key.pub").read_text())
        host.configure(f"RevokedHostKeys {revoked}")
    else:
        revoked.write_text(f"@revoked {host.known_hosts.read_text()}")
        host.configure(f"UserKnownHostsFile {revoked}")
    error = await refused(host.address(path), HostKeyChanged)
    assert "revoked" in error.message


async def test_a_refused_login(host: Sshd, path: Path) -> None:
    other = host.folder / "host_key.pub"  # no private key
    host.configure(f"IdentityFile {other}", "PubkeyAuthentication no")
    error = await refused(host.address(path), LoginRefused)
    assert error.message.startswith("db.example refuses the login: ")
    assert "Permission denied (publickey)" in error.message
    assert "ssh-agent" in str(error.fix)


async def test_a_host_where_nobody_listens(host: Sshd, path: Path) -> None:
    host.configure("Port 1")
    error = await refused(host.address(path), HostUnreachable)
    assert error.message.endswith("connect to host 127.0.0.1 port 1: Connection refused")


async def test_a_host_that_nobody_knows(host: Sshd, path: Path) -> None:
    host.configure("HostName nothing.invalid")
    error = await refused(host.address(path), HostUnreachable)
    assert "Could not resolve hostname nothing.invalid" in error.message


async def test_a_host_that_accepts_and_says_nothing(
    host: Sshd, path: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.configure(f"Port {taken_port}")
    monkeypatch.setattr(ssh_process, "OPEN_WITHIN", 1.0)
    error = await refused(host.address(path), HostUnreachable)
    assert error.message == "db.example accepted no login within 1 s"


@pytest.mark.parametrize(
    ("option", "key_options"),
    [
        ("AllowTcpForwarding no", ""),
        ("AllowStreamLocalForwarding no", ""),
        ("DisableForwarding yes", ""),
        ("PermitOpen localhost:1", ""),
        ("", "restrict"),
        ("", 'permitopen="localhost:1"'),
    ],
)
async def test_forwarding_is_not_allowed(option: str, key_options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with sshd(options=[option], key_options=key_options, package=None) as host:
        use(host, monkeypatch)
        path = host.folder / "s"
        async with agent(path) as recorder, client_of(host.address(path)) as client:
            with pytest.raises(ForwardingRefused, match=f"db.example lets this login forward nothing to {path}"):
                await client.get_status("orders")
    assert recorder.calls == []


async def test_no_socket_at_the_other_end_is_told_at_once(host: Sshd, path: Path) -> None:
    before = host.logins()
    error = await refused(host.address(path), AgentUnreachable)
    assert error.message.startswith(f"no agent runs on db.example: there is no socket {path}")
    assert str(error.fix).endswith(HINT)
    assert ("the login finds no program replicator" in error.message) == (not host.dials)
    assert host.logins() == before + (1 if host.dials else 3)  # the command; the tunnel, and the question


async def test_a_dead_socket_at_the_other_end(host: Sshd, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        path.chmod(0o666)
    before = host.logins()
    error = await refused(host.address(path), AgentUnreachable)
    assert error.message == f"no agent runs on db.example: the socket {path} is there, but nothing listens"
    assert error.fix == HINT
    assert host.logins() == before + (1 if host.dials else 3)
    path.unlink()


async def test_no_permission_on_the_socket(host: Sshd, path: Path) -> None:
    async with agent(path, mode=0) as recorder:
        error = await refused(host.address(path), AgentUnreachable)
    assert error.message == f"the login has no permission on the agent's socket {path} on db.example"
    assert "--socket-group" in str(error.fix)
    assert recorder.calls == []


async def test_no_permission_on_the_folder_of_the_socket(host: Sshd, path: Path) -> None:
    async with agent(path):
        path.parent.chmod(0o700 if host.login.made_up else 0)
        error = await refused(host.address(path), AgentUnreachable)
        path.parent.chmod(0o755)
    assert "has no permission on the agent's socket" in error.message


async def test_a_login_that_runs_no_command_gets_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with sshd(key_options=FORWARDING_ALONE) as host:
        use(host, monkeypatch)
        error = await refused(host.address(host.folder / "s"), AgentUnreachable)
    assert error.message == f"db.example makes no connection to {host.folder}/s, and does not say why"
    assert all(word in str(error.fix) for word in (HINT, "may use its socket", "AllowTcpForwarding local"))


async def test_no_ssh_program(host: Sshd, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with client_of(host.address(path)) as client:
        with (
            monkeypatch.context() as patch,
            pytest.raises(SshMissing, match="there is no ssh program on PATH") as caught,
        ):
            patch.setenv("PATH", str(tmp_path))
            await client.get_status("orders")
    assert "openssh-client" in str(caught.value.fix)


async def test_ssh_that_fails_in_another_way_is_quoted(host: Sshd, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host.configure("Bogus 1")
    error = await refused(host.address(path), SshFailed)
    assert "Bad configuration option: bogus" in error.message
    monkeypatch.setenv(CONFIG_VARIABLE, "/nothing/here")
    error = await refused(host.address(path), SshFailed)
    assert "Can't open user config file /nothing/here" in error.message


async def test_a_failure_counts_for_everybody_for_a_while(
    host: Sshd, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of streams must not make as many logins that fail."""
    host.configure("PubkeyAuthentication no")
    before = host.log.count("Connection closed by authenticating user")
    async with client_of(host.address(path)) as client:
        calls = [client.get_status("orders") for _ in range(30)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in found} == {LoginRefused}
        with pytest.raises(LoginRefused):
            await client.get_status("orders")
        seen = "Connection closed by authenticating user"
        await asyncio.to_thread(wait_until, lambda: host.log.count(seen) > before, what="sshd has logged it")
        assert host.log.count(seen) == before + 1
        host.configure()
        monkeypatch.setattr(transport, "REMEMBER", 0.0)
        async with agent(path):
            assert await client.get_status("orders") == STATUS


# --- what happens meanwhile ------------------------------------------------------------------------------------------


async def test_ssh_that_was_killed_is_started_again(host: Sshd, path: Path) -> None:
    async with agent(path), client_of(host.address(path)) as client:
        for how in ("ours", "theirs"):
            assert await client.get_status("orders") == STATUS
            [process] = processes()
            if how == "ours":
                os.kill(process, signal.SIGKILL)
            else:
                host.end_logins()
            assert await client.get_status("orders") == STATUS
            assert processes() != [process]
            assert len(processes()) == 1
            assert len(folders()) == (0 if host.dials else 1)


async def test_a_network_that_swallows_everything_is_noticed(
    host: Sshd, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [option.replace("ServerAliveInterval=5", "ServerAliveInterval=1") for option in command._ALWAYS]
    monkeypatch.setattr(command, "_ALWAYS", options)
    async with agent(path), client_of(host.address(path)) as client:
        assert await client.get_status("orders") == STATUS
        [process] = processes()
        host.freeze_logins()
        assert await client.get_status("orders") == STATUS
        assert processes() != [process]


async def test_a_call_that_was_under_way_is_made_again(host: Sshd, path: Path) -> None:
    gate = asyncio.Event()
    async with agent(path, Recorder(gate=gate)) as recorder, client_of(host.address(path)) as client:
        calls = [asyncio.create_task(client.get_status("orders")) for _ in range(10)]
        while len(recorder.calls) < 10:
            await asyncio.sleep(0.02)
        host.end_logins()
        while len(recorder.calls) < 20:
            await asyncio.sleep(0.02)
        gate.set()
        assert await asyncio.gather(*calls) == [STATUS] * 10


async def test_an_agent_that_starts_again_is_waited_for(host: Sshd, path: Path) -> None:
    async with client_of(host.address(path)) as client:
        async with agent(path):
            assert await client.get_status("orders") == STATUS
        [process] = processes()
        call = asyncio.create_task(client.get_status("orders"))
        await asyncio.sleep(0.5)
        assert not call.done()
        async with agent(path):
            assert await call == STATUS
            assert processes() == [process]


async def test_an_agent_that_stays_away_is_told(host: Sshd, path: Path) -> None:
    async with client_of(host.address(path)) as client:
        async with agent(path):
            assert await client.get_status("orders") == STATUS
        before = now()
        with pytest.raises(AgentUnreachable, match="there is no socket") as caught:
            await client.get_status("orders")
        assert str(caught.value.fix).endswith(HINT)
        assert now() - before > RETRY_FOR.total_seconds() / 2


async def test_a_host_that_goes_away_during_a_call_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(gate=asyncio.Event())
    with sshd() as host:
        use(host, monkeypatch)
        async with agent(host.folder / "s", recorder), client_of(host.address(host.folder / "s")) as client:
            call = asyncio.create_task(client.get_status("orders"))
            await recorder.entered.wait()
            host.stop()
            with pytest.raises(HostUnreachable, match="Connection refused") as caught:
                await call
            assert caught.value.unfinished  # it may have happened
            assert recorder._gate is not None
            recorder._gate.set()


async def test_a_host_that_goes_away_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sshd() as host:
        use(host, monkeypatch)
        async with agent(host.folder / "s"), client_of(host.address(host.folder / "s")) as client:
            assert await client.get_status("orders") == STATUS
            host.stop()
            with pytest.raises(HostUnreachable, match="Connection refused"):
                await client.get_status("orders")


async def test_a_call_that_is_cancelled_while_ssh_starts_leaves_nothing(
    host: Sshd, path: Path, taken_port: int
) -> None:
    host.configure(f"Port {taken_port}")
    async with client_of(host.address(path)) as client:
        call = asyncio.create_task(client.get_status("orders"))
        while not processes():
            await asyncio.sleep(0.02)
        call.cancel()
        await asyncio.wait([call])
        assert (processes(), folders()) == ([], [])


async def test_a_cancelled_call_closes_its_connection_alone(host: Sshd, path: Path) -> None:
    gate = asyncio.Event()
    async with agent(path, Recorder(gate=gate)) as recorder, client_of(host.address(path)) as client:
        calls = [asyncio.create_task(client.get_status("orders")) for _ in range(3)]
        while len(recorder.calls) < 3:
            await asyncio.sleep(0.02)
        calls[0].cancel()
        await asyncio.wait(calls[:1])
        gate.set()
        assert await asyncio.gather(*calls[1:]) == [STATUS] * 2
        assert len(processes()) == 1


async def test_large_answers_and_requests_come_through_beside_small_ones(host: Sshd, path: Path) -> None:
    large = make_stream(options={"large": "x" * 900_000})

    class Large(Recorder):
        async def list_streams(self) -> list[Stream]:
            return [large] * 8

    async with agent(path, Large()) as recorder, client_of(host.address(path)) as client:
        lists = [asyncio.create_task(client.list_streams()) for _ in range(4)]
        writes = [asyncio.create_task(client.upsert_stream(large)) for _ in range(4)]
        assert await asyncio.gather(*[client.get_status("orders") for _ in range(20)]) == [STATUS] * 20
        assert await asyncio.gather(*lists) == [[large] * 8] * 4
        await asyncio.gather(*writes)
        assert [call[1]["stream"] for call in recorder.calls if call[0] == "upsert_stream"] == [large] * 4


CHILD = """
import asyncio, sys
from replicator.remote.client import RemoteReplicator

async def main():
    client = RemoteReplicator("recorder", sys.argv[1], start_hint="")
    await client.get_status("orders")
    print("through", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing ends ssh with its parent")
async def test_ssh_does_not_outlive_a_process_that_is_killed(host: Sshd, path: Path) -> None:
    async with agent(path):
        program = [sys.executable, "-c", CHILD, host.address(path)]
        child = await asyncio.create_subprocess_exec(*program, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert await child.stdout.readline() == b"through\n"
        [process] = processes(child.pid)
        left = folders()
        assert len(left) == (0 if host.dials else 1)
        child.kill()
        await child.wait()

        def is_gone() -> bool:
            return not Path(f"/proc/{process}").exists() or b"Z" in Path(f"/proc/{process}/stat").read_bytes()

        await asyncio.to_thread(wait_until, is_gone, what="ssh ends")
        async with client_of(host.address(path)) as client:
            assert await client.get_status("orders") == STATUS
            assert not set(left) & set(folders())  # the next one puts things in order
            assert len(folders()) == len(left)
    await asyncio.to_thread(wait_until, lambda: not host.commands(), what="no command is left on the host")


# --- another version -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoken", "says", "fix"),
    [
        (0, "the agent is older", "upgrade replicator-provider on the agent's host, and restart the agent"),
        (3, "this client is older", "upgrade replicator-provider here, to the agent's version"),
    ],
)
async def test_an_agent_of_another_version(
    host: Sshd, path: Path, spoken: int, says: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "PROTOCOL", spoken)
    monkeypatch.setattr(app_module, "is_spoken", lambda theirs: theirs == str(spoken))
    async with agent(path) as recorder, client_of(host.address(path)) as client:
        for call in (client.get_status("orders"), client.info()):
            with pytest.raises(AgentVersion) as caught:
                await call
            assert caught.value.message == (
                f"the agent at ssh://db.example{path} speaks protocol {spoken}, this client speaks protocols 1 to 2: "
                f"{says}"
            )
            assert caught.value.fix == fix
    assert recorder.calls == []
