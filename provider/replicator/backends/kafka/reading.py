"""Reading the first records of partitions. It joins no group and commits nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from replicator.backends.kafka.positions import Partition

SILENT = logging.getLogger(__name__)
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False  # librdkafka would write every lost connection to standard error

_KEYS = 20
"""Maximum number of keys to read from a partition."""


@dataclass(frozen=True, slots=True)
class Around:
    """The times of the two records beside an offset, in milliseconds.

    :param before: of the last record below it; `None` if that is not retained.
    :param after: of the first record at it or later; `None` if none exists.
    :param end: the offset up to which none exists.
    """

    before: int | None
    after: int | None
    end: int | None = None


def times_around(
    config: Mapping[str, Any], offsets: Mapping[Partition, int], earliest: Mapping[Partition, int], within: float
) -> dict[Partition, Around]:
    """Return the times of the records around each offset, as far as they can be read in `within` seconds.

    :param earliest: the first retained offsets.
    """
    found: dict[Partition, Around] = {}
    before: dict[Partition, int] = {}
    with _reading(config, {at: max(earliest.get(at, 0), offset - 1) for at, offset in offsets.items()}) as consumer:
        for at, message in _messages(consumer, left := set(offsets), within):
            kind, stamp = message.timestamp()
            is_record = message.error() is None and bool(kind)
            if is_record and int(message.offset() or 0) < offsets[at]:
                before[at] = stamp
            elif is_record or _is_end(message):
                found[at] = (
                    Around(before.get(at), stamp) if is_record else Around(before.get(at), None, message.offset())
                )
                _leave(consumer, at, left)
    return found


def first_keys(
    config: Mapping[str, Any], partitions: Collection[Partition], within: float
) -> dict[Partition, list[bytes | None]]:
    """Return the keys of each partition's first records, as far as they can be read in `within` seconds."""
    found: dict[Partition, list[bytes | None]] = {at: [] for at in partitions}
    with _reading(config, dict.fromkeys(partitions, OFFSET_BEGINNING)) as consumer:
        for at, message in _messages(consumer, left := set(partitions), within):
            if message.error() is None:
                key = message.key()
                found[at].append(key.encode() if isinstance(key, str) else key)
            if _is_end(message) or len(found[at]) == _KEYS:
                _leave(consumer, at, left)
    return found


@dataclass(frozen=True, slots=True)
class Read:
    """A record of a partition.

    :param time: in milliseconds; `None` if it has none.
    """

    value: bytes | None
    time: int | None


def first_records(
    config: Mapping[str, Any], offsets: Mapping[Partition, int], within: float
) -> dict[Partition, Read | None]:
    """Return the first record of each partition at an offset or later, as far as they can be read in `within` seconds.

    `None` stands for a partition that has none.
    """
    found: dict[Partition, Read | None] = {}
    with _reading(config, offsets) as consumer:
        for at, message in _messages(consumer, left := set(offsets), within):
            if message.error() is None:
                kind, stamp = message.timestamp()
                value = message.value()
                text = value.encode() if isinstance(value, str) else value
                found[at] = Read(text, stamp if kind else None)
                _leave(consumer, at, left)
            elif _is_end(message):
                found[at] = None
                _leave(consumer, at, left)
    return found


@contextmanager
def _reading(config: Mapping[str, Any], offsets: Mapping[Partition, int]) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            **config,
            "group.id": "replicator-status",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "isolation.level": "read_uncommitted",  # as MirrorMaker 2 reads
            "fetch.wait.max.ms": 50,
            "queued.min.messages": 1,  # do not prefetch what follows the first records
        },
        logger=SILENT,
    )
    try:
        consumer.assign([TopicPartition(at.topic, at.number, offset) for at, offset in offsets.items()])
        yield consumer
    finally:
        consumer.close()


def _messages(consumer: Consumer, left: set[Partition], within: float) -> Iterator[tuple[Partition, Message]]:
    """Yield messages of the remaining partitions, until none remains or the time is over."""
    end = time.monotonic() + within
    while left and (wait := end - time.monotonic()) > 0:
        message = consumer.poll(wait)
        if message is not None and (at := Partition(str(message.topic()), int(message.partition() or 0))) in left:
            yield at, message


def _is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def _leave(consumer: Consumer, at: Partition, left: set[Partition]) -> None:
    left.discard(at)
    consumer.incremental_unassign([TopicPartition(at.topic, at.number)])
