"""An agent in a process of its own, with databases and folders to replicate them to."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from replicator.agent.state import StateFolder
from replicator.backends.sqlite.litestream import CommandLine
from replicator.backends.sqlite.replica import engine_environment
from replicator.cli import main
from replicator.model import Stream, StreamState, StreamStatus
from replicator.remote.client import RemoteReplicator

from tests.engines import add_rows, find_engine, make_database
from tests.waiting import wait_until

COMMAND = str(Path(sys.executable).with_name("replicator"))


def command(*arguments: str, timeout: float = 60, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run `replicator`; its output and exit code."""
    return subprocess.run(
        [COMMAND, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        **settings,
    )


def call(*arguments: str) -> tuple[int, str, str]:
    """Run `replicator` in this process, without a terminal; exit code, stdout and stderr. Not for what serves.

    Progress is left out of stderr: how many lines there are depends on the machine's speed.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["replicator", *arguments]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    lines = err.getvalue().splitlines(keepends=True)
    return int(ended.value.code or 0), out.getvalue(), "".join(line for line in lines if not line.endswith(" …\n"))


class Host:
    """A folder with everything of one agent. Paths are short, because those of sockets have to be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "a.sock"
        self.state = folder / "state"
        self.process: subprocess.Popen[str] | None = None
        self.environment = dict(os.environ)

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    def grant_all(self) -> tuple[str, ...]:
        """Write a policy that grants what `stream` declares; the options that name it."""
        policy = self.folder / "policy.toml"
        policy.write_text(
            f'[[source]]\nfolder = "{self.folder}"\n\n'
            f'[[destination]]\nuri = "file://{self.folder}/replicas"\n\n'
            f'[[replay]]\nfolder = "{self.folder}"\n'
        )
        return ("--policy", str(policy))

    @property
    def places(self) -> tuple[str, ...]:
        return ("--socket", str(self.socket), "--state", str(self.state))

    def start(self, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Run the agent in the foreground, and wait until it listens."""
        with (self.folder / "stderr").open("a") as errors:
            process = subprocess.Popen(
                [*before, COMMAND, "agent", "run", *self.places, *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self.environment,
            )
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == f"listening on {self.address}\n", self.log()
        return process

    def end(self, how: signal.Signals = signal.SIGTERM, *, within: float = 30) -> int:
        """Send a signal to the agent and wait for its end; the exit code."""
        process, self.process = self.process, None
        assert process is not None and process.stdout is not None
        process.send_signal(how)
        try:
            return process.wait(within)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def log(self) -> str:
        """What the agent said on stderr."""
        return (self.folder / "stderr").read_text()

    def litestreams(self) -> list[int]:
        """Process ids of the daemons of this agent, whoever their parent is."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if b"replicate" in words and any(str(self.state).encode() in word for word in words):
                    found.append(int(path.parent.name))
        return found

    def stream(self, name: str = "orders", **changes: Any) -> Stream:
        """A stream of the database `<name>.db` to a folder."""
        return Stream.model_validate(
            {
                "name": name,
                "source": {"kind": "sqlite", "uri": f"sqlite://{self.database(name)}"},
                "destination": {"kind": "s3", "uri": f"file://{self.folder}/replicas/{name}"},
                "owner": {"urn": f"urn:{name}"},
                **changes,
            }
        )

    def database(self, name: str = "orders") -> Path:
        return self.folder / f"{name}.db"

    async def restore(self, name: str = "orders") -> Path:
        """The newest state of a stream's replica, restored by the engine itself."""
        output = self.folder / f"restored-{len(list(self.folder.glob('restored-*.db')))}.db"
        engine = CommandLine(find_engine("litestream"), engine_environment(None))
        await engine.restore(f"file://{self.folder}/replicas/{name}", output)
        return output

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[RemoteReplicator]:
        client = RemoteReplicator("litestream", self.address, start_hint="start it")
        try:
            yield client
        finally:
            await client.aclose()


@contextlib.contextmanager
def host() -> Iterator[Host]:
    """A host whose agent, if one is left in the foreground or in the background, is killed at the end."""
    find_engine("litestream")
    folder = Path(tempfile.mkdtemp(prefix="rpl-"))
    made = Host(folder)
    try:
        yield made
    finally:
        if made.process is not None:
            made.end(signal.SIGKILL)
        if (left := StateFolder(made.state).holder()) is not None:
            os.kill(left, signal.SIGKILL)
        wait_until(lambda: not made.litestreams(), what="no litestream left")
        shutil.rmtree(folder)


@contextlib.contextmanager
def as_nobody(socket: Path) -> Iterator[None]:
    """Be another user, who may enter the socket's folder; where we are not root, its owner who may not write to it."""
    socket.parent.chmod(0o755)
    if os.geteuid() != 0:
        socket.chmod(0o400)
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def replicate_orders(host: Host) -> None:
    """Make the stream `orders`, and wait until it has uploaded all of its rows."""
    database = make_database(host.database(), rows=10)

    async def declare() -> None:
        async with host.client() as client:
            await client.upsert_stream(host.stream())
            add_rows(database, 10)
            await caught_up(client)

    asyncio.run(declare())


async def caught_up(client: RemoteReplicator, name: str = "orders", *, within: float = 20) -> StreamStatus:
    """The status as soon as everything is uploaded."""
    async with asyncio.timeout(within):
        while True:
            status = await client.get_status(name)
            if status.state is StreamState.RUNNING and status.lag_events == 0:
                return status
            await asyncio.sleep(0.05)


def restart_wal(path: Path) -> None:
    """What a writer may do while nobody replicates: begin the WAL anew."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0
