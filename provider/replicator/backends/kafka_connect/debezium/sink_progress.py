"""How far a sink is in its topics, as Kafka Connect and the brokers tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from replicator.backends.kafka.admin import KafkaAdmin
from replicator.backends.kafka.positions import Offsets, Partition
from replicator.backends.kafka.reading import Read
from replicator.backends.kafka_connect.cluster import Offset
from replicator.backends.kafka_connect.debezium.positions import SinkProgress, Waiting

READ_WITHIN = 3.0
"""Seconds in which the first records that wait are read."""


async def sink_progress(
    brokers: KafkaAdmin, names: Collection[str], stored: Offsets, waiting: Callable[[Read], Waiting]
) -> SinkProgress:
    """Return how far a sink is.

    :param names: the topics that it reads.
    :param stored: the next offsets to write, as Connect has them.
    :param waiting: what a record that is not written says.
    """
    topics = await brokers.describe(names)
    partitions = [Partition(name, number) for name, topic in topics.items() for number in range(topic.partitions)]
    earliest, latest = await asyncio.gather(brokers.earliest(partitions), brokers.latest(partitions))
    seen = SinkProgress(
        stored={at: offset for at, offset in stored.items() if at in latest},
        topics={name: topic.id for name, topic in topics.items()},
        earliest=earliest,
        latest=latest,
    )
    first = {at: max(seen.next(at), earliest.get(at, 0)) for at in seen.behind}
    read = await brokers.records(first, READ_WITHIN)
    return replace(
        seen,
        waiting={at: waiting(record) for at, record in read.items() if record is not None},
        unread=frozenset(first.keys() - read.keys()),
    )


def next_offsets(offsets: Sequence[Offset]) -> dict[Partition, int]:
    """Return the next offsets as Connect has them of a sink, whose consumer group commits them."""
    return {
        Partition(str(item.partition["kafka_topic"]), int(item.partition["kafka_partition"])): int(
            item.offset["kafka_offset"]
        )
        for item in offsets
        if item.offset is not None
    }


def as_stored(offsets: Offsets) -> list[Offset]:
    """Return next offsets in the form in which Connect takes them of a sink."""
    return [
        Offset({"kafka_topic": at.topic, "kafka_partition": at.number}, {"kafka_offset": offset})
        for at, offset in sorted(offsets.items())
    ]
