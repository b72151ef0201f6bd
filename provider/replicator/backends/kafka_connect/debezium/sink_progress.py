"""How far a sink is in its topics, as Kafka Connect and the brokers tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from replicator.backends.kafka.admin import KafkaAdmin
from replicator.backends.kafka.positions import Offsets, Partition
from replicator.backends.kafka.reading import Read
from replicator.backends.kafka_connect.cluster import ConnectCluster, Offset
from replicator.backends.kafka_connect.connector_states import SEEN_WITHIN
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


async def begin_at_the_beginning(cluster: ConnectCluster, name: str, sink: SinkProgress) -> bool:
    """Set the offsets of partitions that have none, and of which every record is retained. The sink must not run.

    A sink refuses to begin without an offset. It has none before its first start, and none if Kafka has removed those
    of its group, which it does once the group had no member for `offsets.retention.minutes`. Return whether any were
    set.
    """
    begins = {at: 0 for at in sink.without_offset if sink.earliest.get(at, 0) == 0}
    if begins:
        await cluster.stop(name, SEEN_WITHIN)
        await cluster.alter_offsets(name, as_stored(begins))
    return bool(begins)


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
