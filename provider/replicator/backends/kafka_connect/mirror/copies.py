"""The copies that mirrors have made, as the destination's brokers report them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from replicator.backends.kafka.admin import Cluster, Found, KafkaAdmin, Topic
from replicator.backends.kafka.positions import Offsets, Partition
from replicator.backends.kafka.reading import Around
from replicator.backends.kafka_connect.mirror.connector_configs import replication_factor
from replicator.backends.kafka_connect.mirror.declarations import begins_at_the_beginning
from replicator.backends.kafka_connect.mirror.source_view import READ_WITHIN, SourceView
from replicator.backends.kafka_connect.mirror.topics import Naming
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.errors import DestinationDenied, ReplicatorError
from replicator.model import Stream


@dataclass(frozen=True, slots=True)
class Copies:
    """The copies of one stream's topics.

    :param topics: by the names of the copies.
    :param hidden: names that the credentials may not describe.
    :param refusals: why a missing copy could not be created, by its name.
    :param thin: partitions of copies that hold clearly less than was copied to them, and begin later.
    """

    topics: Mapping[str, Topic]
    latest: Offsets
    hidden: frozenset[str] = frozenset()
    refusals: Mapping[str, ReplicatorError] = field(default_factory=dict)
    thin: frozenset[Partition] = frozenset()


def copied(record: StreamRecord, stored: Offsets, source: SourceView) -> dict[Partition, int]:
    """Return how many offsets of each partition were copied and are still retained at the source, if known.

    Records that a transformation may drop count as unknown.
    """
    stream = record.stream
    if any(option.startswith("transforms") for option in stream.options):
        return {}
    if record.starts is None and not begins_at_the_beginning(stream):
        return {}
    starts = replay_start(record, source, stored.keys() & source.latest.keys())
    return {at: count for at, first in starts.items() if (count := stored[at] - first) > 0}


def lost(record: StreamRecord, stored: Offsets, source: SourceView, copies: Copies) -> dict[Partition, str]:
    """Return the copied data that the destination no longer holds: a clause for each partition of the source."""
    naming = Naming.of(record.stream)
    found: dict[Partition, str] = {}
    for at, count in sorted(copied(record, stored, source).items()):
        copy = Partition(naming.at_destination(at.topic), at.number)
        if copy.topic in copies.hidden:
            continue
        topic, end = copies.topics.get(copy.topic), copies.latest.get(copy)
        were = f"{_count(count, 'offset')} of {at} were copied"
        if topic is None:
            found[at] = f"{copy.topic} is not at the destination, and {were}"
        elif at.number >= topic.partitions:
            found[at] = f"{copy} is not at the destination, and {were}"
        elif end == 0 or copy in copies.thin:
            found[at] = f"{copy} at the destination ends at offset {end}, and {were}; it was deleted or re-created"
    return found


def replay_start(record: StreamRecord, source: SourceView, partitions: Collection[Partition]) -> Offsets:
    """Return the start of a replay that copies the partitions again in full, as far as the stream has to copy them."""
    starts = record.start_offsets
    return {at: max(starts.get(at, 0), source.earliest.get(at, 0)) for at in partitions}


def lacking(stream: Stream, source: SourceView, copies: Copies) -> dict[str, str]:
    """Return the topics or partitions that have no copy to write to: a clause for each topic of the source."""
    naming, found = Naming.of(stream), {}
    for name, topic in sorted(source.topics.items()):
        copy = naming.at_destination(name)
        there = copies.topics.get(copy)
        if copy in copies.hidden:
            continue
        if there is None:
            found[name] = f"{copy} is not at the destination yet"
        elif there.partitions < topic.partitions:
            has = _count(there.partitions, "partition")
            found[name] = f"{copy} has {has} at the destination, and {name} has {topic.partitions}"
    return found


async def look_at_copies(
    brokers: KafkaAdmin,
    streams: Sequence[tuple[StreamRecord, Offsets, SourceView]],
    sources: Sequence[KafkaAdmin],
) -> list[Copies]:
    """Read the copies of several streams from the brokers of their one destination.

    :param sources: for each stream, the brokers of its source.
    """
    names = [
        wanted_copies(record.stream, {name: topic.partitions for name, topic in source.topics.items()})
        for record, _, source in streams
    ]
    found = await brokers.look_up({name for wanted in names for name in wanted})
    partitions = [Partition(name, number) for name, topic in found.topics.items() for number in range(topic.partitions)]
    latest = await brokers.latest(partitions)

    async def one(
        item: tuple[StreamRecord, Offsets, SourceView], wanted: Mapping[str, int], source: KafkaAdmin
    ) -> Copies:
        record, stored, view = item
        seen = Copies(
            topics={name: found.topics[name] for name in wanted if name in found.topics},
            latest={at: offset for at, offset in latest.items() if at.topic in wanted},
            hidden=found.hidden.intersection(wanted),
        )
        thin = await _thin(record, view, copied(record, stored, view), seen, brokers, source)
        absent = {name: count for name, count in wanted.items() if name not in seen.topics and name not in seen.hidden}
        return replace(seen, thin=thin, refusals=await refusals(brokers, record.stream, absent))

    return await asyncio.gather(*map(one, streams, names, sources))


def wanted_copies(stream: Stream, partitions: Mapping[str, int]) -> dict[str, int]:
    """Return the number of partitions that copies get, by the names of the copies."""
    naming = Naming.of(stream)
    return {naming.at_destination(name): count for name, count in partitions.items()}


async def refusals(brokers: KafkaAdmin, stream: Stream, absent: Mapping[str, int]) -> dict[str, ReplicatorError]:
    """Return why copies could not be created with the connector's credentials.

    Return nothing if the provider uses other credentials: what another role may do is unknown.

    :param absent: the number of partitions of each missing copy, by its name.
    """
    if stream.destination.admin_auth_ref is not None:
        return {}
    return await brokers.refusals(absent, replication_factor(stream))


async def refuse_uncreatable(brokers: KafkaAdmin, cluster: Cluster, stream: Stream, copies: Mapping[str, int]) -> None:
    """Raise `DestinationDenied`, or the brokers' answer, if a missing copy could not be created.

    MirrorMaker 2 reports this only in the worker's log. If the brokers create topics automatically, the copies then
    have the brokers' configuration, and records older than its retention are deleted at once.

    :param copies: the number of partitions of each copy, by its name.
    """
    if cluster.creates:
        return
    there = await brokers.topics()
    found = await refusals(brokers, stream, {name: count for name, count in copies.items() if name not in there})
    for name, error in sorted(found.items()):
        raise _uncreatable(stream, name, error)


def _uncreatable(stream: Stream, name: str, error: ReplicatorError) -> ReplicatorError:
    if not isinstance(error, DestinationDenied):
        error.stream = stream.name
        error.message = f"{name} could not be created: {error.message}"
        return error
    return DestinationDenied(
        f"the credentials may not create the topic {name}",
        stream=stream.name,
        property="destination.authRef" if stream.destination.auth_ref else "destination.uri",
        fix="grant CREATE, ALTER and ALTER_CONFIGS on the copies, as docs/kafka-mirror.md lists",
    )


async def _thin(
    record: StreamRecord,
    view: SourceView,
    counts: Mapping[Partition, int],
    copies: Copies,
    brokers: KafkaAdmin,
    source: KafkaAdmin,
) -> frozenset[Partition]:
    """Return the partitions of copies that have less than half of the copied records, and not the first one.

    The limit is half because each transaction marker comes with at least one record. Markers without records, and
    compaction before the copy, leave fewer records too, but then the first one exists. A copy that has lost records by
    its own retention is left out. So is a topic that is compacted now: its offsets do not count records.
    """
    naming = Naming.of(record.stream)
    few = {
        at: copy
        for at, count in counts.items()
        for copy in [Partition(naming.at_destination(at.topic), at.number)]
        if 0 < 2 * copies.latest.get(copy, count) < count
    }
    if not few:
        return frozenset()
    starts = replay_start(record, view, few)
    earliest, copy_first, first, kept = await asyncio.gather(
        brokers.earliest(few.values()),
        brokers.at_time(few.values(), 0),
        source.times(starts, view.earliest, READ_WITHIN),
        _compacted(source, {at.topic for at in few}),
    )
    return frozenset(
        copy
        for at, copy in few.items()
        if at.topic not in kept and earliest.get(copy) == 0 and _is_later(copy_first.get(copy), first.get(at))
    )


def _is_later(copy: Found | None, source: Around | None) -> bool:
    """Tell whether a copy begins with a later record than the first copied one; False if unknown."""
    if copy is None or copy.time is None or source is None or source.after is None:
        return False
    return copy.time > source.after


async def _compacted(source: KafkaAdmin, topics: Collection[str]) -> Collection[str]:
    try:
        return await source.compacted(topics)
    except ReplicatorError:
        return topics  # its configuration may not be read, so nothing is known about it


def _count(count: int, of: str) -> str:
    return f"{count} {of}{'s' if count > 1 else ''}"
