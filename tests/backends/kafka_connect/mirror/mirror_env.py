"""A source, a destination and a Connect cluster, with names of a test's own: what tests of mirrors do with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import httpx
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType
from replicator.backends.kafka_connect.mirror.driver import KafkaMirror, open_mirror
from replicator.backends.settings import ConnectConfig
from replicator.model import Stream, StreamStatus

from tests.backends.kafka_connect.mirror.builders import URN
from tests.backends.sqlite.agents import caught_up
from tests.kafka import TIMEOUT, Patient, Record, consume, make_topic, plain, produce, unique
from tests.waiting import until, wait_until
from tools.kafka.pair import Side

HEADERS = (("trace", b"\x00\xff\n"), ("trace", b"again"), ("empty", b""), ("none", None))
FOLLOWED = {
    "sync.group.offsets.enabled": True,
    "sync.group.offsets.interval.seconds": 1,
    "emit.checkpoints.interval.seconds": 1,
    "refresh.groups.interval.seconds": 1,
    "offset.lag.max": 0,
    "offset-syncs.topic.replication.factor": 1,
    "checkpoints.topic.replication.factor": 1,
}
"""Options of a mirror that follows groups at once, for clusters of one broker."""
START = 1_700_000_000_000
"""Milliseconds: the time of the first record, unless a test says otherwise. No topic here deletes by time."""


def records(first: int, end: int, *, partitions: int = 1, start: int = START) -> list[Record]:
    """Numbered records, one second apart, on the partitions in turn. Some have no key, no value, or no headers."""
    return [
        Record(
            None if number % 5 == 4 else f"key-{number}".encode() + b"\x00\xfe",
            None if number % 7 == 6 else f"value-{number}".encode() + b"\xc3\x28",
            () if number % 3 == 2 else HEADERS,
            start + number * 1000,
            number % partitions,
        )
        for number in range(first, end)
    ]


class MirrorEnv:
    """Mirrors from one side to the other, by the Connect cluster at an address.

    :param settings: of the block in the provider's configuration.
    """

    def __init__(self, source: Side, destination: Side, connect: str, **settings: Any) -> None:
        self.source, self.destination, self.connect = source, destination, connect
        self.alias = unique("a")
        self._settings = ConnectConfig(address=connect, **settings)
        self.driver = self.another()
        self._names: list[str] = []
        self._drivers = [self.driver]

    def another(self) -> KafkaMirror:
        """A driver that knows nothing of what the first one did, as a provider's next process."""
        made = open_mirror(self.connect, self._settings)
        if hasattr(self, "_drivers"):
            self._drivers.append(made)
        return made

    def topic(self, *, partitions: int = 1, at: Side | None = None, name: str | None = None, **config: str) -> str:
        """A topic, of the source unless told otherwise, that keeps its records for ever unless told otherwise."""
        kept = {"retention.ms": "-1"} | {key.replace("_", "."): value for key, value in config.items()}
        return make_topic(plain((at or self.source).bootstrap), name or unique("t"), partitions=partitions, **kept)

    def stream(self, topic: str, **changes: Any) -> Stream:
        """A mirror of a topic, from camelCase properties; its copies are named by the test's alias."""
        name = changes.pop("name", None) or unique("m")
        self._names.append(name)
        options = {"replication.factor": 1, "source.cluster.alias": self.alias, **changes.pop("options", {})}
        ends = {
            end: {"kind": "kafka", "uri": f"kafka://{side.bootstrap}", **changes.pop(end, {})}
            for end, side in (("source", self.source), ("destination", self.destination))
        }
        given = {
            "name": name,
            "include": [topic],
            "owner": {"urn": URN, "issue": name},
            "options": options,
            **ends,
            **changes,
        }
        return Stream.model_validate(given)

    async def made(self, topic: str, **changes: Any) -> Stream:
        """A mirror that exists, as the engine's side records it."""
        stream = self.stream(topic, **changes)
        await self.driver.upsert_stream(stream)
        return await self.found(stream.name)

    async def found(self, name: str) -> Stream:
        """What the engine's side says of a stream."""
        (description,) = await self.driver.describe([name])
        return description.stream

    async def caught_up(self, name: str) -> StreamStatus:
        """Wait until all that the source has is copied."""
        return await caught_up(self.driver, name)

    def copy_of(self, topic: str) -> str:
        """The name at the destination."""
        return f"{self.alias}.{topic}"

    def produce(self, topic: str, given: Sequence[Record], *, at: Side | None = None) -> None:
        """Append to a topic, of the source unless told otherwise."""
        produce(plain((at or self.source).bootstrap), topic, given)

    def original(self, topic: str) -> list[Record]:
        """What the source has, partition by partition."""
        return consume(plain(self.source.bootstrap), topic)

    def copied(self, topic: str, *, name: str | None = None) -> list[Record]:
        """What the destination has, partition by partition; nothing where there is no topic."""
        copy = name or self.copy_of(topic)
        if copy not in topics(self.destination):
            return []
        return consume(plain(self.destination.bootstrap), copy)

    async def arrived(self, topic: str, count: int, *, name: str | None = None) -> list[Record]:
        """Wait until the destination has so many records, and give them."""
        found: list[Record] = []

        async def there() -> bool:
            found[:] = await asyncio.to_thread(self.copied, topic, name=name)
            return len(found) >= count

        await until(there, timeout=30, what=f"{count} records of {topic} are at the destination")
        return found

    def rest(self) -> httpx.Client:
        """The Connect cluster, for what somebody does by hand. The caller closes it."""
        return httpx.Client(base_url=self.connect, transport=Patient(), timeout=30)

    def connector(self, name: str) -> dict[str, str]:
        """A connector's configuration as Connect has it."""
        with closing(self.rest()) as rest:
            config: dict[str, str] = rest.get(f"/connectors/{name}/config").raise_for_status().json()
            return config

    async def remove(self) -> None:
        """Delete what the test made, whatever state it left it in."""
        for name in self._names:
            await self.driver.delete_stream(name)
        for driver in self._drivers:
            await driver.aclose()


def topics(side: Side) -> dict[str, int]:
    """A cluster's topics, with how many partitions each has."""
    found = AdminClient(dict(plain(side.bootstrap))).list_topics(timeout=TIMEOUT).topics
    return {name: len(topic.partitions) for name, topic in found.items()}


def settings(side: Side, topic: str) -> dict[str, str]:
    """A topic's settings, with those that it has from its broker."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient(dict(plain(side.bootstrap)))  # what it was asked for ends with it
    entries = admin.describe_configs([resource])[resource].result(TIMEOUT)
    return {name: entry.value for name, entry in entries.items()}


def end_of(side: Side, topic: str) -> int:
    """The offset of the record that comes next in the first partition; cheap where records keep coming."""
    asked = TopicPartition(topic, 0)
    admin = AdminClient(dict(plain(side.bootstrap)))
    return int(admin.list_offsets({asked: OffsetSpec.latest()})[asked].result(TIMEOUT).offset)


def prune(side: Side, topic: str, offset: int, *, partition: int = 0) -> None:
    """Delete the records before an offset, as a topic's retention does."""
    admin = AdminClient(dict(plain(side.bootstrap)))
    for done in admin.delete_records([TopicPartition(topic, partition, offset)]).values():
        done.result(TIMEOUT)


def delete_topic(side: Side, topic: str) -> None:
    """Delete a topic, and wait until it is gone."""
    admin = AdminClient(dict(plain(side.bootstrap)))
    for done in admin.delete_topics([topic]).values():
        done.result(TIMEOUT)
    wait_until(lambda: topic not in topics(side), what=f"{topic} is gone")


def commit(side: Side, group: str, topic: str, offset: int) -> None:
    """What a reader of a group does that has read so far."""
    wanted = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, offset)])]
    admin = AdminClient(dict(plain(side.bootstrap)))
    for done in admin.alter_consumer_group_offsets(wanted).values():
        done.result(TIMEOUT)


def committed(side: Side, group: str, topic: str) -> int | None:
    """How far a group has come; None where it has no position."""
    wanted = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])]
    admin = AdminClient(dict(plain(side.bootstrap)))
    (done,) = admin.list_consumer_group_offsets(wanted).values()
    (found,) = done.result(TIMEOUT).topic_partitions
    return found.offset if found.offset >= 0 else None


async def longest_pause(done: asyncio.Task[Any]) -> float:
    """The longest time in which the event loop did nothing else until a task is done."""
    longest, before = 0.0, time.monotonic()
    while not done.done():
        await asyncio.sleep(0.01)
        longest, before = max(longest, time.monotonic() - before), time.monotonic()
    return longest
