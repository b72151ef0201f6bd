"""Replay of a Debezium stream: sends its changes again, or reads its tables again while the changes go on.

A slot does not send again what its consumer has confirmed, so earlier changes come again from a bookmark alone. A new
snapshot sends each row as it is now, and says nothing of rows that were deleted since.
"""

from __future__ import annotations

from datetime import UTC, datetime

from replicator.backends.kafka_connect.debezium import log_rewind
from replicator.backends.kafka_connect.debezium.details import details_of
from replicator.backends.kafka_connect.debezium.positions import Position
from replicator.backends.kafka_connect.debezium.source_facts import SourceFacts
from replicator.backends.kafka_connect.debezium.source_objects import helpers_setup
from replicator.backends.kafka_connect.debezium.source_status import SourceStatus
from replicator.backends.kafka_connect.debezium.status import AGAIN, COPY_AGAIN, lost_position
from replicator.backends.kafka_connect.recipe import ResolvedReplay
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.postgres.lsn import read_lsn, write_lsn
from replicator.backends.postgres.slots import Slot
from replicator.capabilities import DEBEZIUM, No
from replicator.errors import ReplayNotRetained, ReplayRefused, Unsupported
from replicator.model import Checkpoint, Mode, Stream, format_time
from replicator.replicator import ReplayMethod, ReplayPlan


def resolve(
    record: StreamRecord,
    facts: SourceFacts,
    position: Position,
    source: SourceStatus,
    start: Checkpoint,
    at: int | None,
    *,
    method: ReplayMethod,
    target: str | None,
    leftovers: str,
) -> ResolvedReplay:
    """Return the effect of a replay from `start`; raise what the replay would raise.

    :param at: the LSN of the start; `None` if nothing tells.
    :param leftovers: what becomes of rows that the source no longer has, as a clause.
    """
    stream, name = record.stream, record.stream.name
    log = log_rewind.log_of(source.slot, source.bookmarks, source.publication)
    chosen = _chosen(stream, method, start, position)
    if isinstance(cell := DEBEZIUM.route(stream).replay[chosen], No):
        raise Unsupported(cell.reason, stream=name, property="method")
    if target is not None:
        raise Unsupported(
            "a stream writes to the topics that it has, and to no other target", stream=name, property="target"
        )
    if stream.mode is Mode.SNAPSHOT:
        raise ReplayRefused("it made its one copy", stream=name, fix=COPY_AGAIN)
    slot, lost = source.slot, lost_position(record, position, source.slot, source.bookmarks)
    if (lost is not None or slot is None) and not (chosen is ReplayMethod.LOG_REWIND and log.places):
        raise ReplayRefused(lost.message if lost else "it has no slot", stream=name, fix=lost.fix if lost else AGAIN)
    if not details_of(record).has_helpers:
        raise ReplayRefused(
            "it has no helper tables: without heartbeats the end of a replay is not visible, and without signals "
            "Debezium cannot be told to read tables",
            stream=name,
            fix="let an administrator run: "
            + "; ".join(helpers_setup(stream, source.publication, facts.role.name))
            + "; and then pulumi up, which uses the tables",
        )
    if chosen is ReplayMethod.LOG_REWIND:
        confirmed = slot.confirmed if slot is not None and lost is None else None  # never before what was sent
        sent = max(position.lsn or 0, confirmed or 0)
        return log_rewind.resolve(record, log, position, sent, start, at)
    assert slot is not None
    now = Checkpoint(lsn=write_lsn(slot.end), wall=datetime.now(UTC))
    counts = [found.rows for found in facts.tables.values()]
    rows = None if None in counts else sum(count for count in counts if count is not None)
    return ResolvedReplay(
        plan=ReplayPlan(
            stream=name,
            method=chosen,
            start=start,
            resolved=now,
            events=None if stream.filter else rows,
            duplicates=True,
            earliest=position.checkpoint,
            latest=now,
            effects=_effects(record, rows, leftovers),
        ),
        start="",
        until="",
        extent=f"{len(facts.tables)} tables",
    )


def _chosen(stream: Stream, method: ReplayMethod, start: Checkpoint, position: Position) -> ReplayMethod:
    """Return the method: the changes themselves for a start before the position, where the route has that."""
    if method is not ReplayMethod.AUTO:
        return method
    rewinds = not isinstance(DEBEZIUM.route(stream).replay[ReplayMethod.LOG_REWIND], No)
    return ReplayMethod.LOG_REWIND if rewinds and _is_before(start, position) else ReplayMethod.RESNAPSHOT


def _effects(record: StreamRecord, rows: int | None, leftovers: str) -> tuple[str, ...]:
    count = "an unknown number of rows" if rows is None else f"about {rows} rows, as of the last ANALYZE"
    passing = "; only those that pass the filter are sent" if record.stream.filter else ""
    tables = len(details_of(record).tables)
    return (
        f"rows that were deleted since the start are not sent again, and {leftovers}",
        f"each row of {tables} table{'s' if tables > 1 else ''} is sent as it is now, as a record of a snapshot: "
        f"{count}{passing}",
        "the connector stops for some seconds; changes continue while the tables are read",
    )


def refuse_the_future(start: Checkpoint, slot: Slot, name: str) -> None:
    """Raise `ReplayNotRetained` if a start is past the end of the source."""
    late_lsn = start.lsn is not None and read_lsn(start.lsn) > slot.end
    late_wall = start.wall is not None and start.wall > slot.now
    if late_lsn or late_wall:
        raise ReplayNotRetained(
            f"the start is past the end of the source, which is {write_lsn(slot.end)} at {format_time(slot.now)}",
            stream=name,
            property="start",
            fix="start at a position that the source has",
        )


def _is_before(start: Checkpoint, position: Position) -> bool:
    if start.lsn is not None and position.lsn is not None:
        return read_lsn(start.lsn) < position.lsn
    return start.wall is not None and position.wall is not None and start.wall < position.wall
