"""The topics of mirrors as a source's brokers report them, with few requests for all mirrors of a source."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from replicator.backends.kafka.admin import Found, KafkaAdmin, Topic
from replicator.backends.kafka.positions import Offsets, Partition
from replicator.backends.kafka.reading import Around
from replicator.backends.kafka_connect.mirror.topics import matching_topics, named
from replicator.backends.kafka_connect.record import StreamRecord

T = TypeVar("T")

MOST_TIMES = 64
"""Maximum number of a source's partitions whose oldest waiting record is read, those furthest behind first. Partitions
that are one offset behind are read in addition: that offset may be a transaction marker."""
READ_WITHIN = 2.0
"""Timeout for reading them, in seconds."""


@dataclass(frozen=True, slots=True)
class SourceView:
    """The source as its brokers report it, for the topics of one stream. Empty if no topic matches.

    :param topics: by name.
    :param newest: the record with the latest time.
    :param waiting: the time of the oldest record that is not copied, in milliseconds, if it was read.
    :param unread: partitions whose oldest waiting record could not be read.
    :param copied: the time of the record before that, in milliseconds, if it was read.
    :param ended: partitions with only transaction markers after the copied records. Markers take up offsets too.
    :param hidden: topics of the stream that the credentials may not describe. Kafka does not tell whether they still
        exist.
    :param gone: topics that the stream has copied and that no longer exist.
    :param untold: topics with partitions of unknown offsets: the topic or the permission was removed meanwhile.
    """

    topics: Mapping[str, Topic]
    earliest: Offsets
    latest: Offsets
    newest: Mapping[Partition, Found] = field(default_factory=dict)
    waiting: Mapping[Partition, int] = field(default_factory=dict)
    unread: frozenset[Partition] = frozenset()
    copied: Mapping[Partition, int] = field(default_factory=dict)
    ended: frozenset[Partition] = frozenset()
    hidden: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    untold: frozenset[str] = frozenset()

    @property
    def unreadable(self) -> list[str]:
        """Return the topics that the credentials may not read, sorted."""
        return sorted({*self.hidden, *(name for name, topic in self.topics.items() if not topic.readable)})


def lag_of(stored: Offsets, source: SourceView) -> dict[Partition, int]:
    """Return the number of records that are not copied yet, by partition that has any."""
    found = {}
    for at, end in source.latest.items():
        first = max(stored.get(at, 0), source.earliest.get(at, 0))
        if end > first and at not in source.ended:
            found[at] = end - first
    return found


def reached(stored: Offsets, source: SourceView) -> dict[Partition, int]:
    """Return the offset up to which each partition is copied; records that are no longer retained count as copied."""
    lag = lag_of(stored, source)
    return {at: end - lag.get(at, 0) for at, end in source.latest.items()}


def copied_until(stored: Offsets, source: SourceView) -> int | None:
    """Return the time up to which all records are copied, in milliseconds; `None` if unknown.

    If partitions lag, it is the earliest time of their last copied records.
    """
    if lag := lag_of(stored, source):
        times = [source.copied.get(at) for at in lag]
        known = [time for time in times if time is not None]
        return min(known) if len(known) == len(times) else None
    return max(
        (found.time for at, found in source.newest.items() if found.time is not None and at in stored), default=None
    )


async def view(
    brokers: KafkaAdmin, streams: Sequence[tuple[StreamRecord, Offsets]], also: Collection[str] = ()
) -> list[SourceView]:
    """Return the brokers' view of one source for several of its streams, each with its stored offsets.

    :param also: topics in addition to those of the streams.
    """
    counts = await brokers.topics()
    wanted = [sorted({*matching_topics(record.stream, counts), *(counts.keys() & set(also))}) for record, _ in streams]
    before = [taken_before(record, stored) for record, stored in streams]
    missing = [{*named(record.stream), *had} - counts.keys() for (record, _), had in zip(streams, before, strict=True)]
    found = await brokers.look_up({name for names in (*wanted, *missing) for name in names})
    topics = found.topics
    # A permission that was restored since the listing shows a topic by its name.
    wanted = [
        sorted({*names, *matching_topics(record.stream, absent & topics.keys())})
        for names, absent, (record, _) in zip(wanted, missing, streams, strict=True)
    ]
    partitions = [Partition(name, number) for name, topic in topics.items() for number in range(topic.partitions)]
    earliest, latest, newest = await asyncio.gather(
        brokers.earliest(partitions), brokers.latest(partitions), brokers.newest(partitions)
    )
    untold = {at.topic for at in partitions if at not in latest or at not in earliest}
    views = [
        SourceView(
            topics={name: topics[name] for name in names if name in topics},
            earliest=_of(names, earliest),
            latest=_of(names, latest),
            newest=_of(names, newest),
            hidden=found.hidden.intersection({*names, *absent}),
            gone=frozenset(had - topics.keys() - found.hidden),
            untold=frozenset(untold.intersection(names)),
        )
        for names, had, absent in zip(wanted, before, missing, strict=True)
    ]
    lags = [lag_of(stored, item) for item, (_, stored) in zip(views, streams, strict=True)]
    firsts = [{at: item.latest[at] - lag for at, lag in lag.items()} for item, lag in zip(views, lags, strict=True)]
    # Streams of the same topic may wait for different records of it.
    waiting = {
        (at, first): item.latest[at] - first
        for item, of in zip(views, firsts, strict=True)
        for at, first in of.items()
        if topics[at.topic].readable
    }
    furthest = sorted(waiting, key=lambda item: (waiting[item], item), reverse=True)
    read = [*furthest[:MOST_TIMES], *(item for item in furthest[MOST_TIMES:] if waiting[item] == 1)]
    beyond = waiting.keys() - read
    times = await _times(brokers, read, topics, earliest, latest)
    return [
        replace(
            item,
            waiting={at: time for at, around in known.items() if (time := around.after) is not None},
            unread=frozenset(at for at, first in of.items() if (at, first) not in times and (at, first) not in beyond),
            copied={at: time for at, around in known.items() if at in stored and (time := around.before) is not None},
            ended=frozenset(at for at, around in known.items() if around.after is None),
        )
        for item, of, (_, stored) in zip(views, firsts, streams, strict=True)
        for known in [{at: times[at, first] for at, first in of.items() if (at, first) in times}]
    ]


def taken_before(record: StreamRecord, stored: Offsets) -> set[str]:
    """Return the topics that a stream has copied, or that existed when it was created or changed."""
    return set(matching_topics(record.stream, {*record.topics, *(at.topic for at in stored)}))


async def _times(
    brokers: KafkaAdmin,
    asked: Sequence[tuple[Partition, int]],
    topics: Mapping[str, Topic],
    earliest: Offsets,
    end: Offsets,
) -> dict[tuple[Partition, int], Around]:
    """Return the times around these offsets. A transaction marker has a time too; only reading tells it from a record.

    A partition that was read and has only markers is not read again until its end moves.

    :param end: the offsets of the next records.
    """
    times: dict[tuple[Partition, int], Around] = {}
    turns: list[dict[Partition, int]] = []  # each request has one offset of a partition
    for at, offset in asked:
        if offset == earliest.get(at) and brokers.without_records.get(at) == (topics[at.topic].id, offset, end[at]):
            times[at, offset] = Around(None, None, end[at])
            continue
        turn = next((turn for turn in turns if at not in turn), None)
        if turn is None:
            turns.append(turn := {})
        turn[at] = offset
    for turn, found in zip(
        turns, await asyncio.gather(*(brokers.times(turn, earliest, READ_WITHIN) for turn in turns)), strict=True
    ):
        for at, around in found.items():
            if around.after is None and (around.end is None or around.end < end[at]):
                continue  # the reader has met another end than the one in question
            times[at, turn[at]] = around
            if around.after is None:
                brokers.without_records[at] = (topics[at.topic].id, turn[at], end[at])
    return times


def _of(names: Sequence[str], found: Mapping[Partition, T]) -> dict[Partition, T]:
    wanted = set(names)
    return {at: item for at, item in found.items() if at.topic in wanted}
