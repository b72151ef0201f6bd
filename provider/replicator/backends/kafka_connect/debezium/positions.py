"""How far a stream is: what Kafka Connect stores of Debezium's progress, and of the sink's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from replicator.backends.kafka.positions import Offsets, Partition
from replicator.backends.kafka.reading import Read
from replicator.backends.kafka_connect.cluster import Offset
from replicator.backends.postgres.lsn import write_lsn
from replicator.errors import EngineRefused, ReplicatorError
from replicator.model import Checkpoint


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stream is, as of the worker's last flush of offsets.

    :param lsn: of the last change that reached Kafka, in bytes; `None` before the first one.
    :param wall: when that was committed at the source.
    :param in_snapshot: the first snapshot, or that of tables which were added, is under way.
    :param is_change: the position is that of a row, and not of a heartbeat.
    """

    lsn: int | None = None
    wall: datetime | None = None
    in_snapshot: bool = False
    is_change: bool = False

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Return it as a checkpoint; `None` before the first change."""
        return Checkpoint(lsn=write_lsn(self.lsn), wall=self.wall) if self.lsn is not None else None


@dataclass(frozen=True, slots=True)
class Waiting:
    """The first record of a partition that the sink has not written.

    :param after: LSN of the commit before the record's transaction: all up to it is written. 0 for rows of a snapshot,
        which belong to no transaction.
    :param wall: when the record's transaction was committed, or its row read; `None` if it does not say.
    """

    after: int
    wall: datetime | None


@dataclass(frozen=True, slots=True)
class SinkProgress:
    """How far the sink is in the topics between, as of the worker's last flush of offsets.

    :param stored: the next offset to write, for each partition that has one.
    :param topics: ids of the topics that exist, by name.
    :param earliest: the first offsets that are retained.
    :param latest: the next offsets of the topics.
    :param waiting: the first record that is not written, for each partition that was read and has one.
    :param unread: partitions that could not be read.
    """

    stored: Offsets
    topics: Mapping[str, str]
    earliest: Offsets
    latest: Offsets
    waiting: Mapping[Partition, Waiting] = field(default_factory=dict)
    unread: frozenset[Partition] = frozenset()

    def next(self, at: Partition) -> int:
        """Return the next offset to write: without a stored one, a sink begins at the first that is retained."""
        return self.stored.get(at, self.earliest.get(at, 0))

    @property
    def without_offset(self) -> list[Partition]:
        """Return the partitions that have no stored offset."""
        return [at for at in self.latest if at not in self.stored]

    @property
    def behind(self) -> dict[Partition, int]:
        """Return the number of records to write, for each partition that has any."""
        found = {at: end - self.next(at) for at, end in self.latest.items()}
        return {at: count for at, count in found.items() if count > 0}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream is.

    :param source: how far Debezium is.
    :param sink: how far the sink is; an error if that is unknown, and `None` if the topics are the destination.
    :param away: the error if the sink's database does not answer.
    """

    source: Position
    sink: SinkProgress | ReplicatorError | None = None
    away: ReplicatorError | None = None

    @property
    def reached(self) -> int | None:
        """Return the LSN up to which every transaction has arrived; `None` if unknown."""
        lsn = self.source.lsn
        if self.sink is None or lsn is None:
            return lsn
        if isinstance(self.sink, ReplicatorError) or self.sink.unread:
            return None
        return min([lsn, *(item.after for item in self.sink.waiting.values())])

    @property
    def wall(self) -> datetime | None:
        """Return the time up to which every transaction has arrived; `None` if unknown."""
        wall = self.source.wall
        if self.sink is None or wall is None:
            return wall
        if isinstance(self.sink, ReplicatorError) or self.sink.unread:
            return None
        times = [item.wall for item in self.sink.waiting.values()]
        return None if None in times else min([wall, *(time for time in times if time is not None)])


def read_waiting(record: Read) -> Waiting:
    """Return what a record between says of its transaction, which Debezium writes into the envelope's `source`."""
    source = _source(record)
    try:
        milliseconds = source.get("ts_ms")
        wall = datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
    except (TypeError, ValueError, OverflowError):
        wall = None
    return Waiting((_commit_before(source) or 0) if _is_change(source) else 0, wall)


def lsn_before(record: Read) -> int | None:
    """Return the LSN of the commit before a record's transaction; that of the snapshot for a row of the first one.

    The LSN of a change itself does not order records: they are in the order of the commits. Return `None` for a row
    that was read while changes went on, and if the record does not say.
    """
    source = _source(record)
    if _is_change(source):
        return _commit_before(source)
    lsn = source.get("lsn")
    return lsn if isinstance(lsn, int) and source.get("snapshot") != "incremental" else None


def _source(record: Read) -> Mapping[str, Any]:
    """Return what Debezium says of a record's origin; empty for a record that it did not write."""
    try:
        found = json.loads(record.value or b"")["payload"]["source"]
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_change(source: Mapping[str, Any]) -> bool:
    return source.get("snapshot") in (None, "false")


def _commit_before(source: Mapping[str, Any]) -> int | None:
    try:
        return int(json.loads(source["sequence"])[0])
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def read_position(offsets: Sequence[Offset], prefix: str, stream: str) -> Position:
    """Return the position in stored offsets; raise `EngineRefused` if Debezium does not write such ones.

    :param prefix: the topic prefix; Connect keeps what a connector of the name stored under another one.
    """
    found = [item.offset for item in offsets if item.partition.get("server") == prefix and item.offset is not None]
    if not found:
        return Position()
    offset = found[0]
    try:
        lsn, microseconds = offset.get("lsn"), offset.get("ts_usec")
        return Position(
            lsn=None if lsn is None else int(lsn),
            wall=None if not microseconds else datetime.fromtimestamp(int(microseconds) / 1_000_000, UTC),
            in_snapshot=_in_snapshot(offset),
            is_change=offset.get("messageType") not in (None, "COMMIT"),
        )
    except (TypeError, ValueError, OverflowError):
        raise EngineRefused(
            "Kafka Connect has a position of it that Debezium does not write",
            stream=stream,
            fix=f"look at GET /connectors/{stream}/offsets of the worker",
        ) from None


def _in_snapshot(offset: object) -> bool:
    assert isinstance(offset, dict)
    first = offset.get("snapshot") is not None and not offset.get("snapshot_completed")
    return first or "incremental_snapshot_collections" in offset
