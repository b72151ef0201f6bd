"""Replay of the topics between: the sink reads them again from an earlier offset, and writes their changes once more.

A write is an upsert or a delete by key, so that the tables end as they were; meanwhile rows show older values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from replicator.backends.kafka.admin import Found
from replicator.backends.kafka.positions import Offsets, Partition, read, write
from replicator.backends.kafka_connect.debezium.positions import Progress, SinkProgress
from replicator.backends.kafka_connect.recipe import ResolvedReplay
from replicator.backends.kafka_connect.record import ReplayRecord, StreamRecord
from replicator.errors import ReplayNotRetained, ReplayRefused, ReplicatorError, Unsupported
from replicator.model import Checkpoint, format_time
from replicator.replicator import ReplayMethod, ReplayPlan

_RESNAPSHOT = "use method resnapshot, which reads the rows of the source as they are now"


def is_offsets(start: Checkpoint) -> bool:
    """Tell whether a start names offsets of topics, and not a position in the WAL."""
    return start.lsn is not None and "=" in start.lsn


def resolve(
    record: StreamRecord,
    progress: Progress,
    start: Checkpoint,
    found: Mapping[Partition, Found | int],
    *,
    target: str | None,
) -> ResolvedReplay:
    """Return the effect of a replay from `start`; raise what the replay would raise.

    :param found: where a start that names no offsets begins, by partition.
    """
    name = record.stream.name
    if target is not None:
        raise Unsupported(
            "a stream writes to the tables that it has, and to no other target", stream=name, property="target"
        )
    sink = progress.sink
    if isinstance(sink, ReplicatorError):
        raise sink
    assert sink is not None
    asked = read(start.lsn) if start.lsn is not None and is_offsets(start) else _offsets(found)
    _refuse_unknown(asked, sink, name)
    _refuse_pruned(asked, sink, name, start, found)
    if beyond := [at for at, offset in asked.items() if offset > sink.latest[at]]:
        raise ReplayNotRetained(
            f"{_words(beyond, asked)} is past the end of the topics; the end is {write(sink.latest)}",
            stream=name,
            property="start",
            fix="start at an offset that they have",
        )
    if ahead := [at for at, offset in asked.items() if offset > sink.next(at)]:
        if start.lsn is not None:
            raise ReplayRefused(
                f"{_words(ahead, asked)} is not written yet, so a start there would leave changes out",
                stream=name,
                property="start",
                fix=f'start at or before lsn "{write(_next(sink)) or ""}"',
            )
        asked = {at: min(offset, sink.next(at)) for at, offset in asked.items()}
    moved = {at: offset for at, offset in asked.items() if offset < sink.next(at)}
    until = {at: sink.next(at) for at in moved}
    again = sum(until[at] - offset for at, offset in moved.items())
    return ResolvedReplay(
        plan=ReplayPlan(
            stream=name,
            method=ReplayMethod.SINK_REWIND,
            start=start,
            resolved=Checkpoint(lsn=write({**_next(sink), **moved}) or "-", wall=start.wall),
            events=again,
            duplicates=again > 0,
            earliest=Checkpoint(lsn=write(sink.earliest) or "-"),
            latest=Checkpoint(lsn=write(_next(sink)) or "-"),
            effects=_effects(again),
        ),
        start=write(moved) or "",
        until=write(until) or "",
        extent=f"{len(moved)} partitions",
    )


def is_done(replay: ReplayRecord, progress: Progress) -> bool:
    """Tell whether the sink has passed the offsets at which a replay was requested."""
    sink = progress.sink
    until = read(replay.until) if replay.until else {}
    return isinstance(sink, SinkProgress) and all(sink.stored.get(at, 0) >= offset for at, offset in until.items())


def _effects(again: int) -> tuple[str, ...]:
    if not again:
        return ("nothing was written since then, so nothing is written again",)
    return (
        f"the stream stops for some seconds, and {again} changes are written to the destination once more",
        "until that is done, rows there show older values, and rows that were deleted since can come back; each ends "
        "as its last change has it",
        "changes that were made to these rows at the destination by hand are overwritten",
    )


def _next(sink: SinkProgress) -> dict[Partition, int]:
    return {at: sink.next(at) for at in sink.latest}


def _offsets(found: Mapping[Partition, Found | int]) -> dict[Partition, int]:
    return {at: item if isinstance(item, int) else item.offset for at, item in found.items()}


def _refuse_unknown(asked: Offsets, sink: SinkProgress, name: str) -> None:
    if unknown := [at for at in asked if at not in sink.latest]:
        raise ReplayRefused(
            f"{_words(unknown, asked)}: the stream has no such partition",
            stream=name,
            property="start",
            fix=f"it has {write(sink.latest) or 'none now'}",
        )


def _refuse_pruned(
    asked: Offsets, sink: SinkProgress, name: str, start: Checkpoint, found: Mapping[Partition, Found | int]
) -> None:
    """Raise if changes of the start are no longer retained."""
    if start.wall is None:
        fix = f'start at lsn "{write(sink.earliest)}" or later; or {_RESNAPSHOT}'
        begins = {at for at, item in found.items() if item == sink.earliest.get(at, 0) > 0}
        if begins:
            raise ReplayNotRetained(
                f"{min(begins).topic} may have had changes of that LSN or later that are no longer retained",
                stream=name,
                property="start",
                fix=fix,
            )
        if pruned := [at for at, offset in asked.items() if offset < sink.earliest.get(at, 0)]:
            raise ReplayNotRetained(
                f"{_words(pruned, asked)} is no longer retained; the earliest is {write(sink.earliest)}",
                stream=name,
                property="start",
                fix=fix,
            )
        return
    for at, item in found.items():
        first = sink.earliest.get(at, 0)
        if isinstance(item, int) or item.time is None or item.offset != first or first == 0:
            continue
        time = datetime.fromtimestamp(item.time / 1000, UTC)
        if time > start.wall:
            raise ReplayNotRetained(
                f"{at.topic} keeps changes from {format_time(time)} on, and may have had earlier ones of that time",
                stream=name,
                property="start",
                fix=f"start at that time or later; or {_RESNAPSHOT}",
            )


def _words(partitions: Sequence[Partition], offsets: Offsets) -> str:
    at = partitions[0]
    more = f" (and {len(partitions) - 1} more)" if partitions[1:] else ""
    return f"offset {offsets[at]} of {at}{more}"
