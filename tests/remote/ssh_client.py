"""A client and an agent with ssh between them, and what of ssh runs meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from replicator.remote.client import RemoteReplicator
from replicator.remote.server import build_app
from replicator.remote.ssh.command import CONFIG_VARIABLE

from tests.remote.support import HINT, Recorder, serving
from tests.sshd import Sshd


def use(host: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's configuration is the one for this host."""
    host.configure()
    monkeypatch.setenv(CONFIG_VARIABLE, str(host.config))


def processes(parent: int | None = None) -> list[int]:
    """The ssh processes that a process has started; this one unless told otherwise."""
    listed = subprocess.run(["ps", "-axwwo", "pid=,ppid=,args="], check=True, stdout=subprocess.PIPE, text=True)
    rows = (line.split(None, 2) for line in listed.stdout.splitlines())
    of = parent or os.getpid()
    return [int(pid) for pid, above, args in rows if int(above) == of and "BatchMode=yes" in args]


def folders() -> list[Path]:
    """What there is of sockets on our side."""
    return list(Path(tempfile.gettempdir()).glob("replicator-ssh-*"))


@contextlib.asynccontextmanager
async def agent(path: Path, recorder: Recorder | None = None, mode: int = 0o666) -> AsyncIterator[Recorder]:
    """An agent on the host."""
    recorder = recorder or Recorder()
    async with serving(build_app({"recorder": recorder}), path, mode=mode):
        yield recorder


@contextlib.asynccontextmanager
async def client_of(address: str) -> AsyncIterator[RemoteReplicator]:
    client = RemoteReplicator("recorder", address, start_hint=HINT, timeout=timedelta(seconds=60))
    try:
        yield client
    finally:
        await client.aclose()


def now() -> float:
    return asyncio.get_running_loop().time()
