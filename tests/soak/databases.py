"""Databases under one agent, each with an application that writes and a stream to which random things are done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine
from replicator.backends.sqlite.replica import S3Credentials, engine_environment
from replicator.model import Checkpoint, Owner, Stream
from replicator.remote.client import RemoteReplicator
from replicator.replicator import ReplayMethod, ReplayState

from tests.agent.support import Host, host
from tests.backends.sqlite.agents import URN, caught_up, declare, finished, replica_url, restored_hash
from tests.backends.sqlite.writer import Writer
from tests.engines import S3Server, find_engine, make_database
from tests.soak.story import PATIENCE, Action, Story

INTERVALS = (None, None, "300ms", "2s")
OPTIONS: tuple[dict[str, Any], ...] = ({}, {}, {"min-checkpoint-page-count": 50})


class Database:
    """One stream, whose operations come one after the other, as those of a program do."""

    def __init__(
        self, story: Story, client: RemoteReplicator, command: CommandLine, writer: Writer, database: Path, uri: str
    ) -> None:
        self.name = database.stem
        self.database = database
        self._story = story
        self._client = client
        self._command = command
        self._writer = writer
        self._uri = uri
        self._chance = random.Random(f"{story.seed}/{self.name}")
        self._changes: dict[str, Any] = {}
        self._points: list[tuple[Checkpoint, str]] = []

    @property
    def actions(self) -> list[Action]:
        return [
            self.write,
            self.write,
            self.live,
            self.change,
            self.pause,
            self.compare,
            self.copy,
            self.reseed,
            self.make_again,
        ]

    def _stream(self) -> Stream:
        return declare(self.name, self.database, self._uri, **self._changes)

    async def _insist(self, what: str, action: Action) -> None:
        await self._story.insist(self.name, what, action)

    async def make(self) -> None:
        await self._insist("make", lambda: self._client.upsert_stream(self._stream()))

    async def write(self) -> None:
        await self._writer("burst", self._chance.choice((1, 5, 40)))

    async def live(self) -> None:
        """Write all the time, until the next time this is drawn."""
        await self._writer("live", self._chance.random() < 0.7)

    async def change(self) -> None:
        interval = self._chance.choice(INTERVALS)
        self._changes = {"options": self._chance.choice(OPTIONS)} | (
            {"checkpointInterval": interval} if interval else {}
        )
        await self._insist(f"change: {self._changes}", lambda: self._client.upsert_stream(self._stream()))

    async def pause(self) -> None:
        """And write meanwhile, restart the WAL or close the database, and resume."""
        await self._insist("pause", lambda: self._client.pause(self.name))
        await self.write()
        if self._chance.random() < 0.5:
            with contextlib.suppress(Exception):  # a connection is in its way
                await self._writer("checkpoint", self._chance.choice(("RESTART", "TRUNCATE")))
        await self.write()
        await self._insist("resume", lambda: self._client.resume(self.name))

    async def make_again(self) -> None:
        """Delete it, and come back to what it left."""
        owner = Owner(urn=URN)

        async def remove() -> None:
            await self._client.delete_stream(self.name, owner=owner)

        await self._insist("delete", remove)
        self._points.clear()
        await self.write()
        await self.make()

    async def compare(self) -> None:
        """Content, while nobody writes; and keep the point."""
        await self._writer("live", False)
        lsn: list[Checkpoint] = []

        async def level() -> None:
            status = await caught_up(self._client, self.name, timeout=PATIENCE)
            assert status.last_checkpoint is not None
            lsn[:] = [status.last_checkpoint]

        try:
            await self._insist("compare", level)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self._story.last(self.name)}") from None
        here = await content_hash(self.database)
        assert await self.restored() == here, f"{self.name} differs\n{self._story.last(self.name)}"
        self._points = [*self._points[-2:], (lsn[0], here)]

    async def write_while_paused(self) -> None:
        """What the destination then lacks."""
        await self._insist("pause", lambda: self._client.pause(self.name))
        await self._writer("statement", "INSERT INTO item (value) VALUES ('late')")

    async def restored(self) -> str:
        """What is at the destination, by the engine's own command."""
        url: list[str] = []

        async def find() -> None:
            url[:] = [await replica_url(self._client, self.name)]

        await self._insist("look", find)
        return await restored_hash(self._command, url[0], self.database.with_suffix(".copy"))

    async def copy(self) -> None:
        """A replay to a file, of a point of before."""
        if not self._points:
            return
        start, then = self._chance.choice(self._points)
        target = self.database.with_name(f"{self.name}-{uuid.uuid4().hex}.db")
        try:
            if await self._replayed(start, target=str(target), method=ReplayMethod.COPY):
                there = await content_hash(target)
                assert there == then, f"{self.name} was not so at {start}\n{self._story.last(self.name)}"
        finally:
            for path in target.parent.glob(f"{target.name}*"):
                path.unlink()

    async def reseed(self) -> None:
        if self._points and await self._replayed(self._points[-1][0], method=ReplayMethod.RESEED):
            self._points.clear()

    async def _replayed(self, start: Checkpoint, **request: Any) -> bool:
        """Whether it has ended well; one that is cut off by a kill may end with an error, and says so."""
        key = uuid.uuid4().hex

        async def begin() -> None:
            await self._client.replay(self.name, start, key=key, **request)

        await self._insist(f"replay: {request['method']}", begin)
        ended: list[ReplayState] = []

        async def end() -> None:
            progress = await finished(self._client, self.name, key, timeout=PATIENCE)
            assert (progress.state is ReplayState.DONE) == (progress.error is None)
            ended[:] = [progress.state]

        await self._insist(f"replayed: {request['method']}", end)
        self._story.tell(self.name, f"replay {ended[0]}")
        return ended[0] is ReplayState.DONE


class Agents:
    """What happens to the agent, its engines and the store."""

    name = "agent"

    def __init__(self, story: Story, made: Host, store: S3Server) -> None:
        self._story = story
        self._host = made
        self._store = store
        self._chance = random.Random(f"{story.seed}/agent")

    @property
    def actions(self) -> list[Action]:
        return [self.kill_engines, self.kill_engines, self.kill_agent, self.restart_agent, self.freeze, self.lose_store]

    async def kill_engines(self) -> None:
        self._story.tell("chaos", "kill of litestream")
        for pid in self._host.litestreams():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def kill_agent(self) -> None:
        await self._end("kill of the agent", signal.SIGKILL)

    async def restart_agent(self) -> None:
        await self._end("restart of the agent", signal.SIGTERM)

    async def _end(self, what: str, how: signal.Signals) -> None:
        self._story.tell("chaos", what)
        await asyncio.to_thread(self._host.end, how, within=60)
        await asyncio.sleep(self._chance.random() * 2)
        await asyncio.to_thread(self._host.start)

    async def freeze(self) -> None:
        self._story.tell("chaos", "store hangs")
        with self._store.frozen():
            await asyncio.sleep(self._chance.uniform(1, 8))

    async def lose_store(self) -> None:
        self._story.tell("chaos", "store restarts")
        await asyncio.to_thread(self._store.kill)
        await asyncio.sleep(self._chance.uniform(0, 3))
        await asyncio.to_thread(self._store.start)


@asynccontextmanager
async def databases(story: Story, folder: Path, count: int) -> AsyncIterator[tuple[list[Database], Agents]]:
    """So many streams of one agent, half of them to a store and the others to folders."""
    store = S3Server(folder / "s3")
    async with AsyncExitStack() as stack:
        stack.callback(store.kill)
        store.start()
        store.make_bucket("soak")
        made = stack.enter_context(host())
        owner = store.owner
        made.environment |= {
            "OWNER_ACCESS_KEY_ID": owner.access_key_id,
            "OWNER_SECRET_ACCESS_KEY": owner.secret_access_key,
        }
        await asyncio.to_thread(made.start)
        client = await stack.enter_async_context(made.client())
        credentials = S3Credentials(owner.access_key_id, owner.secret_access_key)
        command = CommandLine(find_engine("litestream"), engine_environment(credentials))
        found = []
        for number in range(count):
            name = f"db{number}"
            database = make_database(made.folder / f"{name}.db", rows=20)
            writer = await stack.enter_async_context(Writer(database, seed=f"{story.seed}/{number}"))
            uri = store.url("soak", name) if number % 2 == 0 else f"file://{made.folder}/replicas/{name}"
            found.append(Database(story, client, command, writer, database, uri))
        yield found, Agents(story, made, store)
