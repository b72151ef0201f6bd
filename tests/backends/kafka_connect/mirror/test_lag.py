"""The lag of a mirror is never said to be less than it is: load, pauses, ends and workers that die, a lost right.

When each record has arrived is told by the destination's broker, which notes the time of each append. The variable
REPLICATOR_PROOF_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from replicator.backends.kafka import admin
from replicator.capabilities import TABLE
from replicator.errors import ReplicatorError
from replicator.model import Stream

from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv
from tests.backends.sqlite.agents import caught_up
from tests.kafka import TIMEOUT, allow, plain, unique
from tests.lag import (
    Action,
    Change,
    Sample,
    in_turn,
    of_an_earlier_end,
    samples_during,
    too_low,
    too_many,
    zero_for_unknown,
)
from tools.kafka.cluster import Broker, Worker, add_user
from tools.kafka.pair import Side
from tools.kafka.process import Server
from tools.kafka.tls import make_tls

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

RESOLUTION = TABLE["kafka-mirror"].routes[0].lag_resolution.total_seconds()
PARTITIONS = 2
FLUSH = 1.0
"""Seconds: how often the workers of the tests store how far their connectors are."""


class Load(threading.Thread):
    """A program that writes numbered records, bursts and quiet times, whether the broker answers or not.

    :ivar begun: when each record was given to the client, by number.
    :ivar acknowledged: when the broker had said that it has it, by number.
    """

    def __init__(self, bootstrap: str, topic: str, seed: str) -> None:
        super().__init__(daemon=True)
        self.begun: list[float] = []
        self.acknowledged: dict[int, float] = {}
        self._topic = topic
        self._chance = random.Random(seed)
        self._ended = threading.Event()
        self._producer = Producer(
            {**plain(bootstrap), "enable.idempotence": True, "message.timeout.ms": 120_000, "log_level": 0}
        )

    def run(self) -> None:
        while not self._ended.wait(self._chance.choice((0.01, 0.1, 0.5, 4.0)) * self._chance.random()):
            for _ in range(self._chance.choice((1, 1, 3, 50))):
                self._write(len(self.begun))
            self._producer.poll(0)
        assert self._producer.flush(TIMEOUT) == 0

    def _write(self, number: int) -> None:
        self.begun.append(time.time())

        def done(error: object, _: object) -> None:
            assert error is None
            self.acknowledged[number] = time.time()

        self._producer.produce(self._topic, b"%d" % number, partition=number % PARTITIONS, on_delivery=done)

    def end(self) -> None:
        self._ended.set()
        self.join()


@dataclass(frozen=True)
class Clusters:
    """A source whose second listener asks for a login, a destination, and its worker, all of this test."""

    source: Broker
    destination: Broker
    worker: Worker
    user: str
    ca: Path

    def side(self, broker: Broker, secure: str = "") -> Side:
        return Side(broker.cluster_id, broker.bootstrap, secure, self.ca, self.worker.url, self.worker.secrets)


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    with _clusters(tmp_path_factory.mktemp("lag")) as made:
        yield made


@contextmanager
def _clusters(folder: Path) -> Iterator[Clusters]:
    tls, user, password = make_tls(folder / "tls"), unique("mirror"), "a password"
    source = Broker(folder / "source", tls=tls, authorizer=True)
    destination = Broker(folder / "destination")
    login = {"MIRROR_USERNAME": user, "MIRROR_PASSWORD": password}
    worker = Worker(folder / "worker", destination.bootstrap, environment=login)
    try:
        for tool in [broker.format() for broker in (source, destination)]:
            assert tool is not None
            tool.wait_end(60)
        for process in (source, destination, worker):
            process.launch()
        for process in (source, destination, worker):
            process.wait()
        add_user(source.bootstrap, user, password)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in login.items():
                patch.setenv(name, value)
            patch.setattr(admin, "PATIENCE", 1.5)  # a status of an end that is down is a sample, too
            yield Clusters(source, destination, worker, user, tls.ca)
    finally:
        for process in (worker, source, destination):
            process.kill()


@dataclass(frozen=True)
class Mirror:
    """One stream, and what can go wrong with it.

    :ivar still: from when to when it was paused, so that its status is exact.
    """

    clusters: Clusters
    bed: MirrorEnv
    stream: Stream
    topic: str
    chance: random.Random
    load: Load
    still: list[tuple[float, float]] = field(default_factory=list)

    def actions(self) -> list[Action]:
        return [self.nothing, self.pause, self.kill_worker, self.kill_source, self.kill_destination, self.no_right]

    async def nothing(self) -> None:
        await asyncio.sleep(self.chance.uniform(1, 3))

    async def pause(self) -> None:
        await self.bed.driver.pause(self.stream.name)
        stored = time.time() + 3 * FLUSH
        await asyncio.sleep(self.chance.uniform(3, 5))
        self.still.append((stored, time.time()))
        while True:
            try:
                return await self.bed.driver.resume(self.stream.name)
            except ReplicatorError:
                await asyncio.sleep(0.5)

    async def kill_worker(self) -> None:
        await self._restart(self.clusters.worker)

    async def kill_source(self) -> None:
        await self._restart(self.clusters.source)

    async def kill_destination(self) -> None:
        await self._restart(self.clusters.destination)

    async def _restart(self, server: Server) -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(self.chance.random() * 3)
        await asyncio.to_thread(server.start, 60)

    async def no_right(self) -> None:
        await asyncio.to_thread(self._take_right)
        await asyncio.sleep(self.chance.uniform(3, 6))
        await asyncio.to_thread(self.give_right)
        with suppress(ReplicatorError):  # what has failed meanwhile starts again
            await self.bed.driver.resume(self.stream.name)

    def give_right(self) -> None:
        rights = [
            (ResourceType.TOPIC, self.topic, right) for right in (AclOperation.READ, AclOperation.DESCRIBE_CONFIGS)
        ]
        allow(self.bed.source, self.clusters.user, *rights)

    def _take_right(self) -> None:
        every = AclBindingFilter(
            ResourceType.TOPIC,
            self.topic,
            ResourcePatternType.LITERAL,
            f"User:{self.clusters.user}",
            "*",
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        admin = AdminClient(dict(plain(self.clusters.source.bootstrap)))
        for done in admin.delete_acls([every]).values():
            assert done.result(TIMEOUT)

    def changes(self) -> list[Change]:
        """Each record that the source has acknowledged, with the time of its first append at the destination."""
        appended: dict[int, float] = {}
        for record in self.bed.copied(self.topic):
            assert record.value is not None
            number, at = int(record.value), record.timestamp / 1000
            appended[number] = min(at, appended.get(number, at))
        assert appended.keys() == set(range(len(self.load.begun))), "nothing is missing at the destination"
        changes = [
            Change(self.load.acknowledged[number], at, self.load.begun[number], at + 0.001)
            for number, at in appended.items()
        ]
        return sorted(changes, key=lambda change: change.written)


@asynccontextmanager
async def mirrored(clusters: Clusters, seed: str) -> AsyncIterator[Mirror]:
    """A mirror that runs, whose copies carry the time of their append."""
    source = clusters.side(clusters.source, clusters.source.secure_bootstrap)
    bed = MirrorEnv(source, clusters.side(clusters.destination), clusters.worker.url)
    topic = bed.topic(partitions=PARTITIONS)
    load = Load(source.bootstrap, topic, seed)
    end = {
        "uri": f"kafka://{source.secure_bootstrap}?ssl.truststore.location={source.ca}",
        "authRef": "env://MIRROR_*",
    }
    stream = bed.stream(topic, source=end)
    made = Mirror(clusters, bed, stream, topic, random.Random(seed), load)
    await asyncio.to_thread(made.give_right)
    try:
        await bed.driver.upsert_stream(stream)
        await bed.caught_up(stream.name)
        _note_appends(clusters.destination.bootstrap, bed.copy_of(topic))
        load.start()
        yield made
    finally:
        load.end()
        await bed.remove()


def _note_appends(bootstrap: str, topic: str) -> None:
    """Let the broker give each record the time at which it is appended. MirrorMaker 2 leaves this setting alone."""
    name, value = "message.timestamp.type", "LogAppendTime"
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient(dict(plain(bootstrap)))
    admin.incremental_alter_configs([resource])[resource].result(TIMEOUT)


@pytest.mark.parametrize("samples", [30, pytest.param(300, marks=pytest.mark.proof)])
async def test_the_lag_is_never_said_to_be_less_than_it_is(clusters: Clusters, samples: int) -> None:
    seed = os.environ.get("REPLICATOR_PROOF_SEED") or ("7" if samples < 300 else uuid.uuid4().hex[:8])
    print(f"REPLICATOR_PROOF_SEED={seed}")
    async with mirrored(clusters, seed) as mirror:
        name = mirror.stream.name
        found = await samples_during(
            lambda: mirror.bed.driver.get_status(name),
            in_turn(mirror.chance, mirror.actions()),
            mirror.chance,
            count=samples,
            counts=True,
        )
        await asyncio.to_thread(mirror.load.end)
        level = await caught_up(mirror.bed.driver, name, timeout=60)
        assert (level.lag_events, level.lag_seconds) == (0, 0.0)
        changes = await asyncio.to_thread(mirror.changes)
        exact = [sample for sample in found if _within(sample, mirror.still)]
    wrong = too_low(found, changes, RESOLUTION)
    assert not wrong, "\n".join(wrong)
    if samples >= 300:  # how long a worker takes to store a position depends on the machine
        inexact = too_many(exact, changes)
        assert not inexact, "\n".join(inexact)
    assert sum(sample.seconds is not None for sample in found) > samples / 5, "most of it is unknown"
    assert too_low(zero_for_unknown(found), changes, RESOLUTION), "the control: 0 for unknown passes"
    assert too_low(of_an_earlier_end(found), changes, RESOLUTION), "the control: an earlier end passes"


def _within(sample: Sample, spans: list[tuple[float, float]]) -> bool:
    return any(began < sample.asked and sample.answered < ended for began, ended in spans)
