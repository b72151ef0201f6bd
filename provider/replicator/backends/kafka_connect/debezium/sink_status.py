"""The status of a stream with a sink: Debezium's half, and what the sink has written of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from replicator.backends import stream_id
from replicator.backends.kafka.positions import checkpoint
from replicator.backends.kafka_connect.cluster import Connector
from replicator.backends.kafka_connect.debezium.details import topics_of
from replicator.backends.kafka_connect.debezium.positions import Progress, SinkProgress
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.record import UNFINISHED, StreamRecord
from replicator.backends.postgres.lsn import write_lsn
from replicator.errors import ReplayNotRetained, ReplicatorError, StreamNotFound
from replicator.model import Checkpoint, StreamState, StreamStatus, format_time
from replicator.replicator import Description, Finding, Severity

_RESNAPSHOT = (
    "read the rows once more, which brings all but deletes: replicator replay {id} --method resnapshot --time {now}; "
    "rows that were deleted meanwhile stay at the destination"
)


_AGAIN = (
    "remove the stream and create it again, which writes what the topics have: pulumi destroy --target with its URN, "
    "then pulumi up. Rows whose delete is lost stay at the destination"
)


def lost_changes(record: StreamRecord, sink: SinkProgress) -> ReplayNotRetained | None:
    """Return the error if the topics between no longer have changes that are not written; `None` if they have all."""
    lost = _lost(record, sink, topics_of(record))
    if lost is None:
        return None
    return ReplayNotRetained(
        f"changes are lost between source and destination: {lost}",
        stream=record.stream.name,
        fix=_RESNAPSHOT.format(id=stream_id(record.stream), now=format_time(datetime.now(UTC))),
    )


def lost_records(record: StreamRecord, sink: SinkProgress, topics: Iterable[str]) -> ReplayNotRetained | None:
    """Return the error if topics no longer have records that are not written; `None` if they have all."""
    lost = _lost(record, sink, topics)
    return ReplayNotRetained(f"records are lost: {lost}", stream=record.stream.name, fix=_AGAIN) if lost else None


def _lost(record: StreamRecord, sink: SinkProgress, topics: Iterable[str]) -> str | None:
    """Return what is lost. A sink goes on behind such a gap by itself with Kafka's defaults, and says nothing."""
    if record.creating:
        return None
    lost = []
    for name in topics:
        if name not in sink.topics:
            lost.append(f"the topic {name} was deleted")
        elif sink.topics[name] != record.topics.get(name, sink.topics[name]):
            lost.append(f"the topic {name} was deleted and made again")
    for at, offset in sorted(sink.stored.items()):
        first, end = sink.earliest.get(at, 0), sink.latest.get(at, 0)
        if offset < first:
            lost.append(f"{at}: offsets {offset} to {first - 1} are no longer retained")
        elif offset > end:
            lost.append(f"{at} ends at offset {end}, before the offset {offset} that was written")
    for at in sink.without_offset:
        if (first := sink.earliest.get(at, 0)) > 0:
            lost.append(f"Kafka has removed the sink's offset in {at}, and offsets 0 to {first - 1} are not retained")
    more = f" (and {len(lost) - 1} more)" if lost[1:] else ""
    return f"{lost[0]}{more}" if lost else None


def delivery_described(
    deployed: DeployedStream,
    progress: Progress,
    found: Description,
    lost: ReplayNotRetained | None,
    now: datetime,
) -> Description:
    """Return the description of a stream from topics, given that of its connector.

    :param lost: the error if records are lost.
    """
    sink, status = progress.sink, found.status
    state = StreamState.FAILED if lost else status.state
    told = [status.last_error, _cause((deployed.connector,)), lost.message if lost else None]
    changes: dict[str, object] = {}
    if deployed.record.creating:
        told.append(UNFINISHED)
    if isinstance(sink, ReplicatorError):
        told.append(f"what it has written is not known: {sink.message}")
    elif sink is not None:
        behind = sum(sink.behind.values())
        times = [item.wall for item in sink.waiting.values()]
        known = not sink.unread and None not in times and state is not StreamState.FAILED
        oldest = min((time for time in times if time is not None), default=None)
        age = max(0.0, round((now - oldest).total_seconds(), 3)) if oldest else 0.0
        changes = {
            "last_checkpoint": checkpoint(sink.stored),
            "lag_events": behind,
            "lag_seconds": age if known else None,
        }
        if sink.unread:
            told.append(f"the age of what waits is not known: {min(sink.unread)} could not be read")
    if progress.away is not None:
        told.append(progress.away.message)
        state = StreamState.CATCHING_UP if state is StreamState.RUNNING else state
    changes |= {"state": state, "last_error": "; ".join(filter(None, told)) or None}
    return found.model_copy(
        update={
            "status": status.model_copy(update=changes),
            "source_end": {str(at): end for at, end in sink.latest.items()} if isinstance(sink, SinkProgress) else {},
            "reached": {str(at): sink.next(at) for at in sink.latest} if isinstance(sink, SinkProgress) else {},
            "findings": (Finding.of(lost, Severity.ERROR),) if lost else (),
        }
    )


def described(deployed: DeployedStream, progress: Progress, found: Description) -> Description:
    """Return the description of the whole stream, given that of Debezium's half."""
    sink, status = progress.sink, found.status
    state, findings = status.state, list(found.findings)
    told = [status.last_error, _cause(deployed.others)]
    if deployed.record.creating:
        pass  # what is missing is made with the rest
    elif isinstance(sink, StreamNotFound):
        state = StreamState.FAILED
        told.append(sink.message)
    elif isinstance(sink, ReplicatorError):
        told.append(f"what the sink has written is not known: {sink.message}")
    elif sink is not None:
        if lost := lost_changes(deployed.record, sink):
            state = StreamState.FAILED
            told.append(lost.message)
            findings.append(Finding.of(lost, Severity.ERROR))
        elif sink.behind and deployed.state is StreamState.RUNNING and state is not StreamState.FAILED:
            state = _state(sink, status)
        if sink.unread:
            told.append(f"its lag is not known: {min(sink.unread)} could not be read")
        if waiting := sum(sink.behind.values()):
            findings.append(_behind(waiting))
    if progress.away is not None:
        told.append(progress.away.message)
        state = StreamState.CATCHING_UP if state is StreamState.RUNNING else state
    changes = {
        "state": state,
        "last_checkpoint": _checkpoint(progress),
        "lag_seconds": None if state is StreamState.FAILED else _lag(progress, status),
        "last_error": "; ".join(filter(None, told)) or None,
    }
    return found.model_copy(
        update={
            "status": status.model_copy(update=changes),
            "reached": {"wal": progress.reached or 0} if found.source_end else {},
            "findings": tuple(findings),
        }
    )


_WAYS_OUT = {
    "Could not find table": "run pulumi up --refresh, which makes the table again and reads it",
    "Cannot alter table": "a column is new at the source: run pulumi up --refresh, which adds it and reads the table",
    "JDBCConnectionException": "the destination was away for longer than the sink waits: run replicator resume",
    "NoOffsetForPartitionException": "a partition is new, or Kafka has removed the sink's offset: run replicator "
    "resume, which begins at its beginning if all of it is retained",
    "permission denied": "grant the role of destination.authRef SELECT, INSERT, UPDATE, DELETE and TRUNCATE, and run "
    "replicator resume",
}
"""By what a failed sink says, what to do."""


def _cause(sinks: Sequence[Connector]) -> str | None:
    """Return what to do about a sink that failed, if its trace says why."""
    trace = next((sink.trace or "" for sink in sinks if sink.failed), "")
    return next((way for text, way in _WAYS_OUT.items() if text in trace), None)


def _state(sink: SinkProgress, status: StreamStatus) -> StreamState:
    """Return the state of a stream whose sink has records to write."""
    copies = status.state is StreamState.PAUSED  # the one copy of mode snapshot, which Debezium has made
    in_snapshot = any(item.after == 0 for item in sink.waiting.values())
    return StreamState.SNAPSHOT if copies or (in_snapshot and not any(sink.stored.values())) else status.state


def _behind(waiting: int) -> Finding:
    return Finding(
        severity=Severity.INFO,
        code=ReplayNotRetained.code,
        message=f"{waiting} changes are in the topics between and not written to the destination yet, as of the last "
        "flush of offsets",
        property="destination.uri",
    )


def _checkpoint(progress: Progress) -> Checkpoint | None:
    reached = progress.reached
    return Checkpoint(lsn=write_lsn(reached), wall=progress.wall) if reached else None


def _lag(progress: Progress, status: StreamStatus) -> float | None:
    """Return the age of the oldest transaction that may not have arrived."""
    source, wall = progress.source.wall, progress.wall
    if status.lag_seconds is None or source is None or wall is None:
        return None
    return round(status.lag_seconds + (source - wall).total_seconds(), 3)
