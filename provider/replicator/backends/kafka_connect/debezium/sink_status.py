"""The status of a stream with a sink: Debezium's half, and what the sink has written of it."""

from __future__ import annotations

from replicator.backends.kafka_connect.debezium.positions import Progress, SinkProgress
from replicator.backends.kafka_connect.debezium.sink_config import topics_between
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.postgres.lsn import write_lsn
from replicator.errors import ReplayNotRetained, ReplicatorError, StreamNotFound
from replicator.model import Checkpoint, StreamState, StreamStatus
from replicator.replicator import Description, Finding, Severity

_RESNAPSHOT = (
    "read the rows once more, which brings all but deletes: replicator replay {name} --method resnapshot --time NOW "
    "--backend debezium --address WORKER_URL; rows that were deleted meanwhile stay at the destination"
)


def lost_changes(record: StreamRecord, sink: SinkProgress) -> ReplayNotRetained | None:
    """Return the error if changes that the sink has not written are no longer in the topics; `None` if all are.

    A sink goes on behind such a gap by itself, and says nothing.
    """
    lost = []
    for name in topics_between(record):
        if name not in sink.topics:
            lost.append(f"the topic {name} was deleted")
        elif sink.topics[name] != record.topics.get(name):
            lost.append(f"the topic {name} was deleted and made again")
    for at, offset in sorted(sink.stored.items()):
        first, end = sink.earliest.get(at, 0), sink.latest.get(at, 0)
        if offset < first:
            lost.append(f"{at}: offsets {offset} to {first - 1} are no longer retained")
        elif offset > end:
            lost.append(f"{at} ends at offset {end}, before the offset {offset} that was written")
    if not lost:
        return None
    more = f" (and {len(lost) - 1} more)" if lost[1:] else ""
    return ReplayNotRetained(
        f"changes are lost between source and destination: {lost[0]}{more}",
        stream=record.stream.name,
        fix=_RESNAPSHOT.format(name=record.stream.name),
    )


def described(deployed: DeployedStream, progress: Progress, found: Description) -> Description:
    """Return the description of the whole stream, given that of Debezium's half."""
    sink, status = progress.sink, found.status
    state, findings = status.state, list(found.findings)
    told = [status.last_error, _cause(deployed)]
    if isinstance(sink, StreamNotFound):
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
    "permission denied": "grant the role of destination.authRef SELECT, INSERT, UPDATE and DELETE, and run pulumi up "
    "--refresh",
}
"""By what a failed sink says, what to do."""


def _cause(deployed: DeployedStream) -> str | None:
    """Return what to do about a sink that failed, if its trace says why."""
    trace = next((part.trace or "" for part in deployed.others if part.failed), "")
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
