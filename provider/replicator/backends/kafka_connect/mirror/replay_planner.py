"""Replay of a mirror: reads the source's log again from an earlier offset, and appends its records once more.

MirrorMaker 2 resumes from its stored offsets, so a replay sets them back while the connector is stopped. The replay is
recorded in the connector's configuration before that, and marked as applied before the connector resumes. After a
crash at any point, the next call with the same key finishes the replay, and no key is applied twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from replicator.backends import stream_id
from replicator.backends.kafka.admin import KafkaAdmin
from replicator.backends.kafka.positions import Offsets, Partition, checkpoint, read, write
from replicator.backends.kafka_connect.mirror.source_view import SourceView
from replicator.backends.kafka_connect.mirror.status import describe_gaps, gaps, is_new
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.capabilities import KAFKA_MIRROR, No
from replicator.errors import ReplayNotRetained, ReplayRefused, Unsupported
from replicator.model import Checkpoint, format_time
from replicator.replicator import ReplayMethod, ReplayPlan


@dataclass(frozen=True, slots=True)
class Start:
    """A start position that was resolved against the records that the source retains.

    :param offsets: the next offset to copy, for each partition that moves.
    :param until: the next offsets at which everything has been copied again.
    :param topics: ids of the topics whose partitions it all names.
    """

    plan: ReplayPlan
    offsets: Offsets
    until: Offsets
    topics: Mapping[str, str]


async def resolve(
    brokers: KafkaAdmin,
    record: StreamRecord,
    source: SourceView,
    stored: Offsets,
    start: Checkpoint,
    *,
    method: ReplayMethod,
    target: str | None,
) -> Start:
    """Return the effect of a replay from `start`; raise what the replay would raise."""
    name = record.stream.name
    chosen = ReplayMethod.LOG_REWIND if method is ReplayMethod.AUTO else method
    if isinstance(cell := KAFKA_MIRROR.route(record.stream).replay[chosen], No):
        raise Unsupported(cell.reason, stream=name, property="method")
    if target is not None:
        raise Unsupported(
            "a mirror writes a replay to the topics that it has, and to no other target", stream=name, property="target"
        )
    asked = read(start.lsn) if start.lsn else await _at_time(brokers, source, stored, start, name)
    _refuse_unknown(asked, source, name)
    first = {at: source.earliest.get(at, 0) for at in asked}
    if pruned := [at for at, offset in asked.items() if start.lsn and offset < first[at]]:
        raise ReplayNotRetained(
            f"{_words(pruned, asked)} is no longer retained; the earliest is {write(source.earliest)}",
            stream=name,
            property="start",
            fix=f'start at lsn "{write({at: max(offset, first[at]) for at, offset in asked.items()})}" or later',
        )
    if beyond := [at for at, offset in asked.items() if offset > source.latest.get(at, 0)]:
        raise ReplayNotRetained(
            f"{_words(beyond, asked)} is past the end of the source; the end is {write(source.latest)}",
            stream=name,
            property="start",
            fix="start at an offset that the source has",
        )
    if ahead := [at for at, offset in asked.items() if offset > max(stored.get(at, 0), first[at])]:
        raise ReplayRefused(
            f"{_words(ahead, asked)} is not copied yet, so a start there would leave records out",
            stream=name,
            property="start",
            fix=f'start at or before the checkpoint, lsn "{write(stored) or ""}"',
        )
    moved = {at: offset for at, offset in asked.items() if at in stored and offset != stored[at]}
    whole = {at.topic for at in asked} - {at.topic for at in stored if at in source.latest and at not in asked}
    ids = {topic: source.topics[topic].id for topic in whole}
    after = record.model_copy(update={"topics": {**record.topics, **ids}})
    refuse_gaps(after, {**stored, **moved}, source, asked, property="start")
    until = {at: min(stored[at], source.latest[at]) for at in moved}
    made_again = {topic for topic in ids if is_new(source.topics[topic], record.topics.get(topic))}
    plan = _plan(source, stored, moved, until, made_again, start, chosen, name)
    return Start(plan, moved, until, ids)


def refuse_gaps(
    record: StreamRecord,
    stored: Offsets,
    source: SourceView,
    asked: Offsets | None = None,
    *,
    property: str | None = None,
) -> None:
    """Raise `ReplayNotRetained` if the mirror would continue behind a gap, and name the replay that accepts the gap.

    :param asked: the other positions from which that replay starts.
    """
    if lost := gaps(record, stored, source):
        first = write({**(asked or {}), **{at: source.earliest.get(at, 0) for at in lost}})
        raise ReplayNotRetained(
            f"it cannot continue without a gap: {describe_gaps(lost)}",
            stream=record.stream.name,
            property=property,
            fix="replay it from what is retained, which says what is lost: "
            f'replicator replay {stream_id(record.stream)} --lsn "{first}"',
        )


def _plan(
    source: SourceView,
    stored: Offsets,
    moved: Offsets,
    until: Offsets,
    made_again: Collection[str],
    start: Checkpoint,
    method: ReplayMethod,
    name: str,
) -> ReplayPlan:
    again = sum(max(0, until[at] - offset) for at, offset in moved.items() if at.topic not in made_again)
    anew = sum(source.latest[at] - offset for at, offset in moved.items() if at.topic in made_again)
    effects = [
        f"offsets {stored[at]} to {offset - 1} of {at.topic}/{at.number} are lost: the source retains them no longer"
        for at, offset in moved.items()
        if offset > stored[at] and at.topic not in made_again
    ]
    effects += [
        f"{topic} was deleted and made again: its records are copied from there on, even those that were copied "
        "already; what the old topic had and was not copied is lost"
        for topic in sorted(made_again)
    ]
    if again:
        effects.append(f"{again} records are appended to the destination a second time; its consumers see them twice")
    if moved:
        effects.append("the mirror stops for some seconds")
    return ReplayPlan(
        stream=name,
        method=method,
        start=start,
        resolved=_resolved(stored, moved, start, name),
        events=again + anew,
        duplicates=again + anew > 0,
        earliest=checkpoint(source.earliest),
        latest=checkpoint(stored),
        effects=tuple(effects) or ("nothing was copied since then, so nothing is copied again",),
    )


def _resolved(stored: Offsets, moved: Offsets, start: Checkpoint, name: str) -> Checkpoint:
    """Return the start as a checkpoint: all offsets, or only those that move if all are too long for one."""
    if not stored:
        return Checkpoint(lsn="-", wall=start.wall)
    found = checkpoint({**stored, **moved}) or checkpoint(moved)
    if found is None:
        raise ReplayRefused(
            f"it moves {len(moved)} partitions, more than one checkpoint can name",
            stream=name,
            property="start",
            fix="replay fewer topics at a time, with lsn",
        )
    return found.model_copy(update={"wall": start.wall})


async def _at_time(
    brokers: KafkaAdmin, source: SourceView, stored: Offsets, start: Checkpoint, name: str
) -> dict[Partition, int]:
    """Return the start for a time: the first record at it or later, if that is copied already."""
    assert start.wall is not None
    wall = int(start.wall.timestamp() * 1000)
    found = await brokers.at_time(source.latest, wall)
    if not found:
        raise ReplayRefused(
            f"the source has no record of {format_time(start.wall)} or later",
            stream=name,
            property="start",
            fix="start at an earlier time",
        )
    for at, item in found.items():
        first = source.earliest.get(at, 0)
        if first > 0 and item.offset == first and item.time is not None and item.time > wall:
            raise ReplayNotRetained(
                f"{at.topic}/{at.number} keeps records from {format_time(_instant(item.time))} on, and may have had "
                "earlier ones of that time",
                stream=name,
                property="start",
                fix="start at that time or later, or say with lsn at which offsets",
            )
    return {
        at: min(item.offset, max(stored[at], source.earliest.get(at, 0))) for at, item in found.items() if at in stored
    }


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _refuse_unknown(asked: Offsets, source: SourceView, name: str) -> None:
    if unknown := [at for at in asked if at not in source.latest]:
        raise ReplayRefused(
            f"{_words(unknown, asked)}: the mirror takes no such partition of the source",
            stream=name,
            property="start",
            fix=f"it takes {write(source.latest) or 'none now'}",
        )


def _words(partitions: Sequence[Partition], offsets: Mapping[Partition, int]) -> str:
    at = partitions[0]
    more = f" (and {len(partitions) - 1} more)" if len(partitions) > 1 else ""
    return f"offset {offsets[at]} of {at.topic}/{at.number}{more}"
