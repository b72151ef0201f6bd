"""Mirrors by one worker, each of a topic with a program that writes, to which random things are done."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from confluent_kafka import KafkaException
from replicator.replicator import ReplayProgress

from tests.faults.mirror.cell import Cell, cell
from tests.faults.mirror.own_clusters import Own, own_bed
from tests.kafka import begin, consume, plain
from tests.soak.story import Action, Story
from tools.kafka.process import Server

REFRESH = (5, 60, 600)  # seconds


class Topic:
    """One stream, whose operations come one after the other, as those of a program do."""

    def __init__(self, story: Story, made: Cell, number: int) -> None:
        made.repeats = True  # a worker that is killed has not stored yet how far it was
        self.cell = made
        self.name = f"topic{number}"
        self._story = story
        self._chance = random.Random(f"{story.seed}/{self.name}")
        self._changes: dict[str, int | bool] = {}

    @property
    def actions(self) -> list[Action]:
        return [self.write, self.write, self.change, self.pause, self.replay, self.make_again, self.level]

    async def _insist(self, what: str, action: Action) -> None:
        await self._story.insist(self.name, what, action)

    async def make(self) -> None:
        await self._insist("make", self._upsert)
        if self.cell.token is None:
            await self._insist("learn", self.cell.learn)

    async def _upsert(self) -> None:
        await self.cell.upsert(options=self._changes)

    async def write(self) -> None:
        """Again where the source was away for too long, so that it may have a record twice."""
        count = self._chance.choice((2, 10, 100))
        while True:
            try:
                await self.cell.write(count)
                return
            except KafkaException:
                await asyncio.sleep(0.5)

    async def change(self) -> None:
        self._changes = {
            "refresh.topics.interval.seconds": self._chance.choice(REFRESH),
            "heartbeats.topic.replication.factor": 1,
            "emit.heartbeats.enabled": self.name == "topic0" and self._chance.random() < 0.5,  # one of them may
        }
        await self._insist(f"change: {self._changes}", self._upsert)

    async def pause(self) -> None:
        await self._insist("pause", lambda: self.cell.driver.pause(self.cell.name))
        await self.write()
        await self._insist("resume", lambda: self.cell.driver.resume(self.cell.name))

    async def replay(self) -> None:
        """From an offset of before. Where the caller dies, another one joins it by its key."""
        key = uuid.uuid4().hex
        found: list[ReplayProgress] = []

        async def run() -> None:
            found[:] = [await self.cell.replay("1,1", key)]

        await self._insist("replay", run)
        if self._chance.random() < 0.3:
            await self.cell.crash()
            await self._insist("join", run)

    async def make_again(self) -> None:
        await self._insist("delete", self.cell.delete)
        self.cell.token = None
        await self.write()
        await self.make()

    async def level(self) -> None:
        await self._insist("level", self.cell.caught_up)

    async def compare(self) -> None:
        """Each record of the source is at the destination, in the order of its partition, and no other one is."""
        await self.cell.misses_nothing()
        source, destination = await asyncio.gather(
            asyncio.to_thread(consume, plain(self.cell.bed.source), self.cell.name),
            asyncio.to_thread(consume, plain(self.cell.bed.destination), f"source.{self.cell.name}"),
        )
        for partition in {record.partition for record in source}:
            here, there = (
                list(dict.fromkeys((it.key, it.value) for it in found if it.partition == partition))
                for found in (source, destination)
            )
            assert there == here, f"{self.name}/{partition} differs\n{self._story.last(self.name)}"


class Clusters:
    """What happens to the worker and the brokers."""

    name = "kafka"

    def __init__(self, story: Story, own: Own) -> None:
        self._story = story
        self._own = own
        self._chance = random.Random(f"{story.seed}/kafka")

    @property
    def actions(self) -> list[Action]:
        return [self.kill_worker, self.kill_worker, self.kill_source, self.kill_destination, self.freeze_worker]

    async def kill_worker(self) -> None:
        await self._restart("kill of the worker", self._own.worker)

    async def kill_source(self) -> None:
        await self._restart("kill of the source", self._own.source)

    async def kill_destination(self) -> None:
        await self._restart("kill of the destination", self._own.destination)

    async def freeze_worker(self) -> None:
        self._story.tell("chaos", "worker hangs")
        self._own.worker.freeze()
        try:
            await asyncio.sleep(self._chance.uniform(1, 8))
        finally:
            self._own.worker.thaw()

    async def _restart(self, what: str, server: Server) -> None:
        self._story.tell("chaos", what)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(self._chance.random() * 2)
        await begin(server)


@asynccontextmanager
async def topics(story: Story, folder: Path, count: int) -> AsyncIterator[tuple[list[Topic], Clusters]]:
    """So many mirrors by one worker."""
    with own_bed(folder / "kafka") as own:
        async with AsyncExitStack() as stack:
            found = [Topic(story, await stack.enter_async_context(cell(own.bed)), number) for number in range(count)]
            yield found, Clusters(story, own)
