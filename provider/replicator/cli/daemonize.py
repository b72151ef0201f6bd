"""Start and stop of an agent in the background, without a terminal."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from replicator.agent.run import AgentSettings
from replicator.agent.state import StateFolder
from replicator.cli.clients import find_agent
from replicator.errors import AgentFault, InvalidConfig, ReplicatorError
from replicator.lockfile import open_private
from replicator.model import format_duration
from replicator.remote.address import parse_unix
from replicator.remote.client import RemoteReplicator
from replicator.remote.routes import Info

START_WITHIN = 15.0
"""Seconds in which a new agent has to answer."""

STOP_WITHIN = 30.0
"""Seconds in which an agent has to finish calls and upload the rest."""

_POLL = 0.05
_LINES = 10


async def start(settings: AgentSettings, client: RemoteReplicator) -> int:
    """Start an agent, wait until it answers, and return its process id.

    Raise `AgentFault` with the end of its log if it does not.
    """
    folder = StateFolder(settings.state)
    folder.make()
    before = folder.log.stat().st_size if folder.log.exists() else 0
    child = _spawn(settings, folder)
    deadline = asyncio.get_running_loop().time() + START_WITHIN
    while child.poll() is None:
        with suppress(ReplicatorError):  # whatever the error, it may be gone in a moment
            found = await find_agent(client)
            if found is not None and found.pid == child.pid:
                return child.pid
        if asyncio.get_running_loop().time() > deadline:
            child.terminate()
            raise AgentFault(
                f"the agent did not answer within {START_WITHIN:g} s, and was ended", fix=_end_of(folder.log, before)
            )
        await asyncio.sleep(_POLL)
    raise AgentFault(f"the agent ended with exit code {child.returncode}", fix=_end_of(folder.log, before))


async def stop(info: Info, address: str) -> None:
    """Ask the agent to exit, and wait until it has released its state folder.

    Raise `AgentFault` if it is not an agent of this host, may not be stopped by this user, or takes too long.
    """
    folder = StateFolder(Path((info.model_extra or {}).get("state") or "/nowhere"))
    # Its own report is not enough: behind a forwarded socket or in a container, its process id differs on this host.
    if folder.holder() != info.pid or _peer(address) not in (info.pid, None):
        raise AgentFault(f"what runs at {address} is not an agent of this host", fix="stop it where it runs")
    await stop_holder(info.pid, folder)


async def stop_holder(pid: int, folder: StateFolder) -> None:
    """Ask the process that holds a state folder to exit, and wait until it has released the folder.

    Raise `AgentFault` if this user may not stop it, or if it takes too long.
    """
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError as error:
        raise AgentFault(f"process {pid} belongs to another user", fix="run as the agent's user, or as root") from error
    deadline = asyncio.get_running_loop().time() + STOP_WITHIN
    while folder.holder() == pid:
        if asyncio.get_running_loop().time() > deadline:
            raise AgentFault(
                f"the agent, process {pid}, did not end within {STOP_WITHIN:g} s",
                fix=f"wait, or read its log; {folder.log} is that of an agent in the background",
            )
        await asyncio.sleep(_POLL)


def _spawn(settings: AgentSettings, folder: StateFolder) -> subprocess.Popen[bytes]:
    arguments = [
        "agent",
        "run",
        f"--socket={settings.socket}",
        f"--state={settings.state}",
        f"--replay-window={format_duration(settings.replay_window)}",
        f"--log-level={settings.log_level}",
        f"--log-file={folder.log}",
        *([f"--socket-group={settings.socket_group}"] if settings.socket_group else []),
        *([f"--policy={settings.policy}"] if settings.policy else []),
    ]
    try:
        log = open_private(folder.log, os.O_APPEND)
    except OSError as error:
        raise InvalidConfig(f"{folder.log} cannot be its log: {error.strerror}", fix="remove it") from error
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "replicator.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(log)


def _end_of(log: Path, before: int) -> str:
    """Return the last lines of a log after its first `before` bytes, with the log's path."""
    lines = log.read_bytes()[before:].decode(errors="replace").splitlines()[-_LINES:]
    return "\n    ".join([f"the end of its log, {log}:", *(lines or ["(nothing)"])])


def _peer(address: str) -> int | None:
    """Return the id of the process that listens at an address on this host; `None` if the kernel does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        probe.connect(str(parse_unix(address)))
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return int(pid)
