"""The status of a Debezium stream, derived from Kafka Connect and from the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from replicator.backends import stream_id
from replicator.backends.kafka_connect.debezium import bookmarks
from replicator.backends.kafka_connect.debezium.details import details_of, publication_of, slot_of
from replicator.backends.kafka_connect.debezium.positions import Position
from replicator.backends.kafka_connect.debezium.publication_note import note_of
from replicator.backends.kafka_connect.debezium.source_objects import expected, needs_root
from replicator.backends.kafka_connect.debezium.source_status import SourceStatus
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.record import UNFINISHED, StreamRecord
from replicator.backends.postgres.lsn import read_lsn, write_lsn
from replicator.backends.postgres.publications import Publication
from replicator.backends.postgres.slots import Slot
from replicator.errors import ReplicatorError, SourceLimit, SourcePosition, SourceSetup
from replicator.model import DesiredState, Mode, Stream, StreamState, StreamStatus, format_size
from replicator.replicator import Finding, Severity

AGAIN = (
    "remove the stream and create it again, with a new slot and a new snapshot: pulumi destroy --target with its URN, "
    "then pulumi up. Rows that were deleted meanwhile stay at the destination"
)
"""The fix if changes are lost."""
COPY_AGAIN = "remove the stream and create it again: pulumi destroy --target with its URN, then pulumi up"
"""The way to another copy of a stream of mode snapshot."""


_END = 8192
"""Bytes that may lie between a transaction's last change and the end of its commit."""
_END_OF_HEARTBEAT = 256
"""The same after a heartbeat, whose position is its commit."""
_MEANWHILE = 2**30
"""Bytes that a server may write between two questions, while the slot is read."""


def status_of(deployed: DeployedStream, position: Position, source: SourceStatus | ReplicatorError) -> StreamStatus:
    """Return the status of one stream.

    :param source: an error if the database is not reachable.
    """
    slot = None if isinstance(source, ReplicatorError) else source.slot
    error = deployed.trace or "; ".join(item.message for item in faults_of(deployed, position, source)) or None
    unseen = f"its lag is not known: {source.message}" if isinstance(source, ReplicatorError) else None
    if deployed.trace and isinstance(source, ReplicatorError):
        error = f"{deployed.trace}; {source.message}"  # which says more than the classes of a trace
    return StreamStatus(
        name=deployed.name,
        state=StreamState.FAILED if error else _state(deployed, position, slot),
        last_event=position.wall if position.is_change else None,
        last_checkpoint=position.checkpoint,
        lag_seconds=None if error else _lag(deployed, position, slot),
        last_error=error or "; ".join(filter(None, [*_waits(deployed, position, slot), unseen])) or None,
    )


def faults_of(
    deployed: DeployedStream, position: Position, source: SourceStatus | ReplicatorError
) -> list[ReplicatorError]:
    """Return what is wrong with the stream's objects in the database."""
    stream = deployed.record.stream
    if isinstance(source, ReplicatorError) or stream.mode is Mode.SNAPSHOT or deployed.record.creating:
        return []
    if lost := lost_position(deployed.record, position, source.slot, source.bookmarks):
        return [lost]
    if lost := lost_publication(deployed.record, source.publication):
        return [lost]
    assert source.publication is not None
    details = details_of(deployed.record)
    lacks = source.publication.lacks(expected(stream, details), via_root=needs_root(details))
    if not lacks:
        return []
    return [
        SourceSetup(
            f"the publication {source.publication.name} was changed by hand: {'; '.join(lacks)}",
            stream=stream.name,
            property="filter" if stream.filter else "include",
            fix=(
                "run pulumi up, which gives it back its tables and filters"
                if details.owns_publication
                else "run pulumi preview, which prints the SQL for its owner"
            )
            + ". Changes that it left out are lost to the "
            "stream: replicator replay with --method resnapshot reads the rows again. Rows that it let through stay at "
            "the destination",
        )
    ]


def lost_publication(record: StreamRecord, publication: Publication | None) -> SourcePosition | None:
    """Return the error for a stream whose publication was dropped, or is another stream's now; `None` for neither."""
    name = publication_of(record)
    if publication is None:
        why = f"the publication {name} was dropped"
    elif (note := note_of(publication)) and note.claim != details_of(record).claim:
        why = f"the publication {name} was dropped, and another stream has made one of this name"
    else:
        return None
    return SourcePosition(
        f"{why}; the changes since the stream's position cannot be decoded with one that was made later",
        stream=record.stream.name,
        fix=AGAIN,
    )


def _lag(deployed: DeployedStream, position: Position, slot: Slot | None) -> float | None:
    """Return the age of the last transaction that arrived: what was committed before it has arrived too.

    Without heartbeats it would be the age of the last change, however long nothing changes.
    """
    if slot is None or position.wall is None or not details_of(deployed.record).has_helpers:
        return None
    return max(0.0, round((slot.now - position.wall).total_seconds(), 3))


def outline_of(deployed: DeployedStream, error: ReplicatorError | None = None) -> StreamStatus:
    """Return the status by a listing alone; a stream of unknown progress is reported as running.

    :param error: why its offsets cannot be read.
    """
    state = StreamState.FAILED if deployed.trace else deployed.state
    why = f"its position cannot be read: {error.message}" if error else None
    return StreamStatus(name=deployed.name, state=state, last_error=deployed.trace or why)


def lost_position(
    record: StreamRecord, position: Position, slot: Slot | None, marked: Mapping[str, Slot]
) -> SourcePosition | None:
    """Return the error if changes after the position can no longer be read; `None` if all of them can.

    A slot is confirmed up to the end of the last transaction, and the position is the last change in it, or the end of
    a heartbeat's transaction. So a slot that was made again is told by its restart point, which is after the position;
    and one that was moved, by that too if it moved far, or by a distance that no end of a transaction has.

    :param slot: as of a moment before the position was read, since a slot follows the positions that are stored.
    :param marked: the slots of its bookmarks, by their names.
    """
    stream = record.stream
    name, at = slot_of(record), position.lsn
    where = f"the stream is at {write_lsn(at)}" if at is not None else "the stream has no position yet"
    why = None
    if slot is None:
        why = f"the replication slot {name} does not exist any more, and {where}"
    elif slot.is_lost:
        why = f"the server has removed WAL that the replication slot {name} needed, and {where}"
    elif at is None:
        begin = details_of(record).begin
        if begin is not None and slot.confirmed is not None and slot.confirmed > read_lsn(begin):
            read = write_lsn(slot.confirmed)
            why = f"the replication slot {name} was read up to {read}, and Kafka Connect has no position of the stream"
    elif at - slot.end > (0 if slot.active_pid is None else _MEANWHILE):
        why = f"the server's WAL ends at {write_lsn(slot.end)}, and {where}"
    elif slot.restart is not None and slot.restart > at:
        now = write_lsn(slot.confirmed if slot.confirmed is not None else slot.restart)
        why = f"the replication slot {name} was made again, read by another process, or was moved to {now}, and {where}"
    elif _is_moved(slot, position):
        why = f"the replication slot {name} was moved to {write_lsn(slot.confirmed or 0)}, and {where}"
    if why is None:
        return None
    needed = marked.get(bookmarks.rewinds_to(record) or "")
    if needed is not None and not needed.is_lost:
        return SourcePosition(
            f"{why}: a replay was interrupted while it re-created the slot",
            stream=stream.name,
            fix=f"run replicator resume {stream_id(stream)}, which finishes the replay; nothing is lost",
        )
    holds = at is not None and any(not item.is_lost and (item.confirmed or 0) <= at for item in marked.values())
    held = (
        f"replay from this position, which a bookmark holds, so that nothing is lost: replicator replay "
        f"{stream_id(stream)} --lsn {write_lsn(at)} --method log_rewind. Otherwise, "
        if holds and at is not None
        else ""
    )
    return SourcePosition(f"{why}; changes between are lost to the stream", stream=stream.name, fix=f"{held}{AGAIN}")


def _is_moved(slot: Slot, position: Position) -> bool:
    if slot.confirmed is None or position.lsn is None or slot.active_pid is not None:
        return False
    return slot.confirmed - position.lsn > (_END if position.is_change else _END_OF_HEARTBEAT)


def findings_of(deployed: DeployedStream, position: Position, source: SourceStatus | ReplicatorError) -> list[Finding]:
    """Return what else is worth knowing of a stream: what its slot holds, and what cannot be measured."""
    stream = deployed.record.stream
    if stream.mode is Mode.SNAPSHOT or deployed.record.creating:
        return []
    if isinstance(source, ReplicatorError):
        return [Finding.of(source, Severity.WARNING)]
    found = [Finding.of(error, Severity.ERROR) for error in faults_of(deployed, position, source)]
    if source.slot is not None and not source.slot.is_lost:
        found += _held(source.slot, source.rate)
    found += bookmarks.findings_of(deployed.record, source.bookmarks)
    if not details_of(deployed.record).has_helpers:
        found.append(no_heartbeat(stream))
    return found


def no_heartbeat(stream: Stream) -> Finding:
    """Return the warning for a stream without heartbeats."""
    return Finding(
        severity=Severity.WARNING,
        code=SourceSetup.code,
        message="it has no table for heartbeats, so lagSeconds is not known; and while its tables are quiet, what the "
        "rest of the server writes stays in the WAL that its slot holds",
        property="source.adminAuthRef",
        fix="let an administrator create the tables, as docs/debezium.md#roles has it; the next update uses them",
    )


def pause_cost(source: SourceStatus | ReplicatorError) -> Iterator[Finding]:
    """Yield how much WAL a slot would hold while its stream is paused, if that is known."""
    if isinstance(source, ReplicatorError) or source.slot is None or source.rate is None:
        return
    yield Finding(
        severity=Severity.INFO,
        code=SourceLimit.code,
        message=f"while it is paused, the replication slot {source.slot.name} holds {_pace(source.slot, source.rate)}",
        property="desiredState",
    )


def _pace(slot: Slot, rate: float) -> str:
    """Return how fast what a slot holds grows, and when a limit is reached."""
    pace = f"about {format_size(round(rate * 3600))} of WAL more each hour"
    if slot.left is None or rate < 1:
        return pace
    hours = max(0, slot.left) / rate / 3600
    return f"{pace}, and the server removes what it needs in about {hours:.1f} hours"


def _held(slot: Slot, rate: float | None) -> Iterator[Finding]:
    """Yield what a slot holds; a warning if the server is about to remove it."""
    if slot.held is None:
        return
    behind = f", at most {format_size(max(0, slot.end - slot.confirmed))} of it not sent yet" if slot.confirmed else ""
    growing = f"; nothing reads it, and it holds {_pace(slot, rate)}" if rate and slot.active_pid is None else ""
    yield Finding(
        severity=Severity.WARNING if slot.is_endangered else Severity.INFO,
        code=SourceLimit.code,
        message=f"the replication slot {slot.name} holds {format_size(max(0, slot.held))} of WAL{behind} "
        f"(wal_status {slot.wal_status}){slot.room}{growing}",
        property="source.uri",
        fix="resume the stream, or see why it does not continue; raise max_slot_wal_keep_size"
        if slot.is_endangered
        else None,
    )


def _state(deployed: DeployedStream, position: Position, slot: Slot | None) -> StreamState:
    if (state := deployed.state) is not StreamState.RUNNING:
        return state
    mode = deployed.record.stream.mode
    if mode is Mode.SNAPSHOT and position.lsn is not None and not position.in_snapshot:
        return StreamState.PAUSED
    if position.in_snapshot or (position.lsn is None and mode is not Mode.CDC):
        return StreamState.SNAPSHOT
    return StreamState.CATCHING_UP if _is_unread(slot) else StreamState.RUNNING


def _is_unread(slot: Slot | None) -> bool:
    return slot is not None and slot.active_pid is None


def _waits(deployed: DeployedStream, position: Position, slot: Slot | None) -> Iterator[str]:
    """Yield what a stream that has not failed waits for. Nothing reads from a slot during the first snapshot."""
    stream = deployed.record.stream
    if deployed.record.creating:
        yield UNFINISHED
        return
    if deployed.connector.stopped and stream.desired_state is DesiredState.RUNNING:
        yield "its connector is stopped: a change was interrupted, or it was stopped by hand; run pulumi up --refresh"
        return
    at_changes = stream.mode is not Mode.SNAPSHOT and position.lsn is not None and not position.in_snapshot
    if at_changes and deployed.state is StreamState.RUNNING and _is_unread(slot):
        yield (
            f"nothing reads from the replication slot {slot_of(deployed.record)}: Debezium is connecting, or cannot "
            "and tries again every 10 s; the worker's log says why"
        )
