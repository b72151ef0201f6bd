"""`replicator agent`: start, stop and status, with their exit codes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from replicator.agent.state import StateFolder

from tests.agent.support import COMMAND, Host, call, command
from tests.waiting import wait_until

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("agent", "status"), "the agent's socket"),
        (("agent", "status", "--socket", "/nowhere/a.sock"), "the state folder"),
        (("agent", "run", "--socket", "/nowhere/a.sock", "--state", "/nowhere/state"), "the policy file"),
        (("agent", "init"), "the policy file"),
        (("list",), "the agent's socket"),
        (("agent", "start"), "the agent's socket"),
        (("doctor",), "the state folder"),
    ],
)
def test_a_user_without_a_home_folder_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], what: str
) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "PULUMI_HOME"):
        monkeypatch.delenv(name, raising=False)
    _, out, err = call(*arguments)
    said = out + err
    assert f"this user has no home folder, below which {what} would be" in said
    assert "RPL-CONFIG-INVALID" in said
    assert "or HOME" in said
    assert "Traceback" not in said


def test_start_status_stop(host: Host) -> None:
    socket = ("--socket", str(host.socket))
    started = command("agent", "start", *host.places, "--replay-window", "90m", "--log-level", "debug")
    assert started.returncode == 0, started.stderr
    pid = StateFolder(host.state).holder()
    log = host.state / "agent.log"
    assert started.stdout == f"an agent runs at {host.address} (process {pid}); its log is {log}\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert pid is not None and os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/cwd").resolve() == Path("/")

    again = f"an agent runs already at {host.address} (process {pid}, version 0.2.0)\n"
    assert call("agent", "start", *host.places) == (0, again, "")

    seen = command("agent", "status", *socket)
    assert seen.returncode == 0
    assert f"an agent runs at {host.address}\n" in seen.stdout
    assert f"  process        {pid}\n" in seen.stdout
    assert "  version        0.2.0\n" in seen.stdout
    assert f"  state folder   {host.state}\n" in seen.stdout
    assert "  replay window  1h30m\n" in seen.stdout
    assert " DEBUG replicator." in log.read_text()

    stopped = command("agent", "stop", *socket)
    assert (stopped.returncode, stopped.stdout) == (0, f"stopped the agent at {host.address} (process {pid})\n")
    assert StateFolder(host.state).holder() is None
    assert not host.socket.exists()

    assert call("agent", "stop", *socket) == (0, f"no agent runs at {host.address}\n", "")


def test_status_without_an_agent_ends_with_3_and_says_how_to_start_one(host: Host) -> None:
    seen = command("agent", "status", "--socket", str(host.socket))
    assert (seen.returncode, seen.stderr) == (3, "")
    assert seen.stdout.splitlines() == [
        f"no agent runs at {host.address}",
        f"  → start it: replicator agent start --socket {host.socket}",
    ]
    code, out, _ = call("agent", "status", "--socket", str(host.socket), "--json")
    assert code == 3
    assert json.loads(out) == {"running": False, "address": host.address}


def test_status_counts_the_streams_by_state(live: Host) -> None:
    assert "  litestream     1 stream: 1 running\n" in call("agent", "status", "--socket", str(live.socket))[1]
    found = json.loads(call("agent", "status", "--socket", str(live.socket), "--json")[1])
    assert live.process is not None
    assert found["pid"] == live.process.pid
    assert found["kinds"] == ["litestream"]
    assert found["streams"] == {"litestream": {"running": 1}}
    assert found["replayWindow"] == "1h"
    assert 0 <= found["uptimeSeconds"] < 600


def test_a_start_that_fails_shows_why(host: Host) -> None:
    host.socket.write_text("precious")
    started = command("agent", "start", *host.places)
    assert (started.returncode, started.stdout) == (1, "")
    assert "error: the agent ended with exit code 1" in started.stderr
    assert f"{host.socket} is there and is not a socket" in started.stderr
    assert host.socket.read_text() == "precious"
    assert StateFolder(host.state).holder() is None


def test_stop_leaves_alone_what_is_no_agent(host: Host) -> None:
    server = subprocess.Popen(
        [COMMAND, "serve", "--backend", "memory", "--socket", str(host.socket)], stdout=subprocess.PIPE, text=True
    )
    try:
        wait_until(host.socket.exists, what="the server listens", timeout=20)
        code, out, err = call("agent", "stop", "--socket", str(host.socket))
        assert (code, out) == (1, "")
        assert f"what runs at {host.address} is not an agent of this host" in err
        assert server.poll() is None
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("window", ["0s", "-1h", "an hour"])
def test_a_replay_window_is_a_duration(host: Host, window: str) -> None:
    code, _, err = call("agent", "run", *host.places, f"--replay-window={window}")
    assert code == 2
    assert "--replay-window" in err
    assert not host.state.exists()
