"""Declarations, records and views as the tables of the mirror take them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from replicator.backends.kafka.admin import Topic
from replicator.backends.kafka.positions import Partition, read
from replicator.backends.kafka_connect.connector import Connector, ConnectorState, Task
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.mirror.connector_configs import BACKEND
from replicator.backends.kafka_connect.mirror.source_view import SourceView
from replicator.backends.kafka_connect.record import ReplayRecord, StreamRecord
from replicator.model import Checkpoint, Stream
from replicator.replicator import ReplayMethod, ReplayProgress, ReplayState

URN = "urn:pulumi:dev::shop::replicator:index:Stream::orders"
NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
SOURCE = {"kind": "kafka", "uri": "kafka://east:9092"}
DESTINATION = {"kind": "kafka", "uri": "kafka://west:9092"}
IDENTITY = {"replication.policy.class": "org.apache.kafka.connect.mirror.IdentityReplicationPolicy"}


def declare(**changes: Any) -> Stream:
    """A mirror of the topic `orders`, from camelCase properties; `source` and `destination` are merged into theirs."""
    given = {"name": "orders", "backend": "kafka-mirror", "include": ["orders"], "owner": {"urn": URN}, **changes}
    given["source"] = SOURCE | changes.get("source", {})
    given["destination"] = DESTINATION | changes.get("destination", {})
    return Stream.model_validate(given)


def deployed(
    record: StreamRecord, states: str = "RUNNING RUNNING", *, trace: str | None = None, **config: str
) -> DeployedStream:
    """A stream at the engine: the state of its connector, then those of its tasks."""
    return DeployedStream(
        connector(record.stream.name, states, trace=trace, **{**record.keys(BACKEND), **config}), record
    )


def connector(name: str, states: str, *, trace: str | None = None, **config: str) -> Connector:
    """A connector: its state, then those of its tasks, of which a failed one has the trace."""
    own, *tasks = (ConnectorState(word) for word in states.split())
    found = [Task(at, state, "w:1", trace if state == "FAILED" else None) for at, state in enumerate(tasks)]
    return Connector(name, "source", own, "w:1", trace if own == "FAILED" else None, tuple(found), config)


def seen(latest: str, earliest: str = "", *, ids: Mapping[str, str] | None = None, **rest: Any) -> SourceView:
    """A source by its positions; what is not given begins at 0, and a topic's id is its name."""
    ends = read(latest) if latest else {}
    names = {at.topic for at in ends}
    return SourceView(
        topics={name: Topic((ids or {}).get(name, name), sum(at.topic == name for at in ends)) for name in names},
        earliest=dict.fromkeys(ends, 0) | (read(earliest) if earliest else {}),
        latest=ends,
        **rest,
    )


def at(text: str) -> dict[Partition, int]:
    """Positions; none for an empty text."""
    return dict(read(text)) if text else {}


def replay_record(
    key: str = "k", *, start: str = "orders=2", until: str = "orders=5", applied: bool = True
) -> ReplayRecord:
    """A replay that has not ended."""
    progress = ReplayProgress(
        key=key,
        stream="orders",
        state=ReplayState.RUNNING,
        method=ReplayMethod.LOG_REWIND,
        start=Checkpoint(lsn=start),
        started_at=NOON,
    )
    return ReplayRecord(progress=progress, start=start, until=until, applied=applied)
