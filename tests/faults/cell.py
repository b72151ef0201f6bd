"""One cell of the matrix: an agent of its own, one database, and what may be asked of both."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine
from replicator.backends.sqlite.replica import engine_environment
from replicator.errors import AgentUnreachable
from replicator.model import Owner, Stream, StreamState
from replicator.remote.client import RemoteReplicator
from replicator.replicator import ReplayProgress

from tests.engines import add_rows, find_engine, make_database
from tests.faults.processes import is_alive, litestreams
from tests.waiting import until

ROOT = Path(__file__).parents[2]
APPLICATION = Path(__file__).with_name("application.py")
NAME = "orders"
URN = "urn:pulumi:dev::shop::replicator:index:Stream::orders"

T = TypeVar("T")


class Nursery:
    """The process that forks agents."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.agent_main"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._turn = threading.Lock()

    def fork(self, folder: Path, naive: str | None) -> int:
        """An agent in `folder`; its process id."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with self._turn:
            process.stdin.write(json.dumps({"folder": str(folder), "naive": naive}) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

    def close(self) -> list[int]:
        """End it; the process ids of agents that still lived until now."""
        left, _ = self._process.communicate(timeout=30)
        return [int(pid) for pid in json.loads(left)]


class Cell:
    """An agent, a database and a destination, all in one folder.

    :param folder: an empty folder with a short path.
    :param naive: which rule the agent breaks, of `agent_main.NAIVE`.
    """

    def __init__(self, folder: Path, nursery: Nursery, naive: str | None = None) -> None:
        self.folder = folder
        self.database = folder / "orders.db"
        self.state = folder / "state"
        self.owner = Owner(urn=URN)
        self.notes: dict[str, Any] = {}
        self._nursery = nursery
        self._naive = naive
        self._agent: int | None = None
        self._command = CommandLine(find_engine("litestream"), engine_environment(None))
        self._client = RemoteReplicator("litestream", f"unix://{folder}/socket", start_hint="start it")

    # --- the agent ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Run an agent, and wait until it has taken up its streams."""
        self._agent = agent = await asyncio.to_thread(self._nursery.fork, self.folder, self._naive)

        async def answers() -> bool:
            with contextlib.suppress(AgentUnreachable):
                await self._client.describe()
                return True
            assert is_alive(agent), f"the agent has ended:\n{self.log()}"
            return False

        await until(answers, "the agent answers")

    async def stop(self) -> None:
        """End the agent in order, with all that it started."""
        assert self._agent is not None
        os.kill(self._agent, signal.SIGTERM)
        await self.gone()

    async def killed(self) -> None:
        """Wait until the agent has killed itself, and all that it started is gone too."""

        async def came() -> bool:
            return self.was_killed()

        await until(came, "the effect came at which the agent is killed")
        await self.gone()

    async def gone(self) -> None:
        """Wait until the agent and its engines have ended."""

        async def ended() -> bool:
            return (self._agent is None or not is_alive(self._agent)) and not self.litestreams()

        await until(ended, "no process is left")
        self._agent = None

    async def close(self) -> None:
        """End at once what is left."""
        await self._client.aclose()
        if self._agent is not None and is_alive(self._agent):
            os.kill(self._agent, signal.SIGKILL)
        await self.gone()

    def litestreams(self) -> list[int]:
        """Process ids of engines and of their commands that work for this cell."""
        return litestreams(self.folder)

    def log(self) -> str:
        return (self.folder / "agent.log").read_text()[-3000:]

    # --- faults ------------------------------------------------------------------------------------------------------

    def arm(self, **plan: Any) -> None:
        """Count effects from now on, and kill at one of them, as `agent_main.Faults` reads it."""
        beside = self.folder / "plan.new"
        beside.write_text(json.dumps(plan))
        beside.rename(self.folder / "plan")

    def disarm(self) -> None:
        (self.folder / "plan").unlink()

    def was_killed(self) -> bool:
        """Whether the plan has come true."""
        return "killed" in self._trace()

    def effects(self) -> list[tuple[str, int]]:
        """The effects since the cell was armed without a kill, with the number of engines that ran when each began."""
        return [(name, int(engines)) for name, engines in (line.split() for line in self._trace())]

    def _trace(self) -> list[str]:
        path = self.folder / "trace"
        return path.read_text().splitlines() if path.exists() else []

    # --- the application ---------------------------------------------------------------------------------------------

    async def write(self, rows: int = 3) -> None:
        """Commit rows, and close: where nobody else has the database open, SQLite then removes the WAL."""
        await asyncio.to_thread(add_rows, self.database, rows)

    async def write_and_restart_wal(self) -> bool:
        """Let `application.py` write; whether the WAL was restarted: an engine that runs prevents it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", APPLICATION, self.database, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        return bool(int(said))

    async def content(self) -> str:
        return await content_hash(self.database)

    # --- the stream, as Pulumi asks for it ---------------------------------------------------------------------------

    @property
    def client(self) -> RemoteReplicator:
        return self._client

    def place(self, name: str = "replica") -> str:
        return f"file://{self.folder}/{name}"

    def declare(self, **changes: Any) -> Stream:
        given = {
            "name": NAME,
            "backend": "litestream",
            "source": {"kind": "sqlite", "uri": f"sqlite://{self.database}"},
            "destination": {"kind": "s3", "uri": self.place()},
        }
        return Stream.model_validate({**given, **changes})

    async def create(self, **changes: Any) -> None:
        """What a create sends: no token, because the state has none."""
        await self._client.upsert_stream(self.declare(owner={"urn": URN, "issue": secrets.token_hex(16)}, **changes))
        await self.learn()

    async def update(self, **changes: Any) -> None:
        """What an update sends: the token of the state."""
        await self._client.upsert_stream(self.declare(**changes).model_copy(update={"owner": self._claiming()}))
        await self._client.describe([NAME])

    async def delete(self) -> None:
        await self._client.delete_stream(NAME, owner=self._claiming())

    async def learn(self) -> None:
        """Keep the token that the answer has, as the state does."""
        (found,) = await self._client.describe([NAME])
        assert found.stream.owner is not None
        assert found.stream.owner.token
        self.owner = found.stream.owner

    def _claiming(self) -> Owner:
        return self.owner.model_copy(update={"claim": True})

    async def caught_up(self) -> str:
        """Wait until all is at the destination; the position that the status tells."""

        async def reached() -> str | None:
            status = await self._client.get_status(NAME)
            if status.state is StreamState.RUNNING and status.lag_events == 0 and status.last_checkpoint:
                return status.last_checkpoint.lsn
            return None

        return await until(reached, "it is caught up")

    async def finished(self, key: str) -> ReplayProgress:
        """Wait until a replay has ended."""

        async def ended() -> ReplayProgress | None:
            progress = await self._client.get_replay(NAME, key)
            return progress if progress.finished_at else None

        return await until(ended, "the replay has ended")

    # --- what is there -----------------------------------------------------------------------------------------------

    async def restored(self, place: str | None = None, *, rows: bool = False) -> Any:
        """The hash of what the engine itself restores from a destination, or its count of rows."""
        output = self.folder / "restored.db"
        await self._command.restore(place or self.place(), output)
        try:
            return await (asyncio.to_thread(count_rows, output) if rows else content_hash(output))
        finally:
            for path in self.folder.glob("restored.db*"):
                path.unlink()

    def records(self) -> list[dict[str, Any]]:
        """The registry as it is on disk."""
        return self._registered("streams")

    def tombstones(self) -> list[dict[str, Any]]:
        return self._registered("tombstones")

    def _registered(self, what: str) -> list[dict[str, Any]]:
        # a .tmp file beside them is a write under way
        return [json.loads(path.read_text()) for path in sorted((self.state / "registry" / what).glob("*.json"))]

    @property
    def side_folder(self) -> Path:
        return self.folder / ".orders.db-litestream"


@contextlib.asynccontextmanager
async def cell(folder: Path, nursery: Nursery, naive: str | None = None) -> AsyncIterator[Cell]:
    """A cell whose agent runs, over a database with some rows; at the end the agent stops in order."""
    folder.mkdir()
    made = Cell(folder, nursery, naive)
    try:
        await asyncio.to_thread(make_database, made.database, rows=20)
        await made.start()
        yield made
        await made.stop()
    finally:
        await asyncio.shield(made.close())


def count_rows(database: Path) -> int:
    """Rows of the only table."""
    with contextlib.closing(sqlite3.connect(database)) as opened:
        return int(opened.execute("SELECT count(*) FROM item").fetchone()[0])
