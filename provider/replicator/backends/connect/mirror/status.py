"""The status of mirrors, measured for many at once: a listing, an `/offsets` a connector, few questions a source."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from replicator.backends.connect.brokers import Brokers, Found, Topic
from replicator.backends.connect.cluster import Connector, Offset
from replicator.backends.connect.marker import Marker, Rewind
from replicator.backends.connect.mirror.connectors import Side
from replicator.backends.connect.mirror.ends import AGAIN
from replicator.backends.connect.mirror.topics import Naming, taken
from replicator.backends.connect.positions import Offsets, Partition, checkpoint, read
from replicator.model import StreamState, StreamStatus

T = TypeVar("T")

MOST_TIMES = 64
"""Partitions of a source of which the oldest record that waits is read, those furthest behind first. Those that are one
offset behind are read besides: what takes it up may be the mark of a transaction."""
READ_WITHIN = 2.0
"""Seconds for reading them."""

HALF_MADE = "it is half made: where it begins is not set yet, which pulumi up does"


@dataclass(frozen=True, slots=True)
class Held:
    """A stream as the Connect cluster holds it.

    :param others: its connectors beside the one that has the record.
    """

    connector: Connector
    marker: Marker
    others: tuple[Connector, ...] = ()

    @property
    def name(self) -> str:
        return self.marker.stream.name

    @property
    def side(self) -> Side:
        """Where the worker stands. Somebody may have taken out the override, without which a mirror loops."""
        return Side(self.marker.side)

    @property
    def all(self) -> tuple[Connector, ...]:
        """Every connector of the stream."""
        return (self.connector, *self.others)


@dataclass(frozen=True, slots=True)
class SourceView:
    """What the source's brokers say, for the topics that one stream takes. Empty where no topic matches.

    :param topics: by name.
    :param newest: the record with the latest time.
    :param waiting: the time of the oldest record that is not copied, in milliseconds; where it was read.
    :param ended: partitions with nothing but marks of transactions after what is copied. They take up offsets too.
    """

    topics: Mapping[str, Topic]
    earliest: Offsets
    latest: Offsets
    newest: Mapping[Partition, Found] = field(default_factory=dict)
    waiting: Mapping[Partition, int] = field(default_factory=dict)
    ended: frozenset[Partition] = frozenset()


def next_offsets(offsets: Sequence[Offset], alias: str) -> dict[Partition, int]:
    """What a mirror's stored offsets say; MirrorMaker 2 stores the last offset that it copied.

    :param alias: of the source. Connect keeps what a connector of the name stored under another one.
    """
    return {
        Partition(str(item.partition["topic"]), int(item.partition["partition"])): int(item.offset["offset"]) + 1
        for item in offsets
        if item.offset is not None and item.partition.get("cluster") == alias
    }


def as_stored(offsets: Offsets, naming: Naming) -> list[Offset]:
    """Next offsets as MirrorMaker 2 stores them. It has no way to say 0 but to store nothing."""
    return [
        Offset(
            {"cluster": naming.source, "topic": at.topic, "partition": at.number},
            {"offset": offset - 1} if offset > 0 else None,
        )
        for at, offset in sorted(offsets.items())
    ]


def status_of(
    held: Held, stored: Offsets, source: SourceView | None, now: datetime, rebuilt: str | None = None
) -> StreamStatus:
    """The status of one stream.

    :param stored: next offsets, for every partition of which something was copied.
    :param source: `None` where the source cannot be seen from here.
    :param rebuilt: what is wrong where another cluster answers at an end, of which the positions say nothing.
    """
    lost = gaps(held.marker, stored, source) if source and not rebuilt else {}
    error = "; ".join(filter(None, [rebuilt and f"{rebuilt}: {AGAIN}", _error(held, lost)])) or None
    lag = lag_of(stored, source) if source and not rebuilt else None
    behind = sum(lag.values()) if lag is not None else None
    return StreamStatus(
        name=held.name,
        state=StreamState.FAILED if error else _state(held, stored, lag),
        last_event=_time(max((item.time or 0 for item in source.newest.values()), default=0)) if source else None,
        last_checkpoint=checkpoint(stored),
        lag_seconds=_age(behind, source, now),
        lag_events=behind,
        last_error=error or _wait(held, source),
    )


def outline_of(held: Held, refused: str | None = None, unanswered: str | None = None) -> StreamStatus:
    """What a listing alone says of one stream; where it is unknown how far it has come, running is the word.

    :param refused: why Connect does not tell its positions.
    :param unanswered: why it is not known whether Connect tells them, which is no failure of the stream.
    """
    error = _error(held, {}) or refused
    state = StreamState.FAILED if error else _running_state(held)
    return StreamStatus(name=held.name, state=state, last_error=error or unanswered)


def lag_of(stored: Offsets, source: SourceView) -> dict[Partition, int]:
    """Records that are not copied yet, by partition that has some."""
    found = {}
    for at, end in source.latest.items():
        first = max(stored.get(at, 0), source.earliest.get(at, 0))
        if end > first and at not in source.ended:
            found[at] = end - first
    return found


def reached(stored: Offsets, source: SourceView) -> dict[Partition, int]:
    """Up to which offset each partition of the source is copied, counting what is no longer retained as copied."""
    lag = lag_of(stored, source)
    return {at: end - lag.get(at, 0) for at, end in source.latest.items()}


def by_part(offsets: Offsets) -> dict[str, int]:
    """Offsets under names that a listing can carry."""
    return {f"{at.topic}/{at.number}": offset for at, offset in offsets.items()}


def gaps(marker: Marker, stored: Offsets, source: SourceView) -> dict[Partition, str]:
    """Where the source retains no longer what comes after a stored position, with what is lost as a clause.

    MirrorMaker 2 goes on behind such a gap, and says nothing.
    """
    found = {}
    for at, offset in sorted(stored.items()):
        topic, end = source.topics.get(at.topic), source.latest.get(at)
        if topic is None or end is None:
            continue
        first = source.earliest.get(at, 0)
        if is_new(topic, marker.topics.get(at.topic)) or offset > end:
            found[at] = f"{at.topic} was deleted and made again; the stored offset {offset} may be of the old topic"
        elif offset < first:
            found[at] = f"{at.topic}/{at.number}: offsets {offset} to {first - 1} are no longer retained"
    return found


def is_new(topic: Topic, known: str | None) -> bool:
    """Whether another topic of the name was there before."""
    return known is not None and known != topic.id


def told(lost: Mapping[Partition, str]) -> str:
    """What is lost, each clause once."""
    return "; ".join(dict.fromkeys(lost.values()))


def _error(held: Held, lost: Mapping[Partition, str]) -> str | None:
    failed = (connector for connector in held.all if connector.failed)
    traces = [connector.trace or "the connector failed, and Connect gives no reason" for connector in failed]
    return "; ".join([*traces[:1], *filter(None, [told(lost)])]) or None


def _wait(held: Held, source: SourceView | None) -> str | None:
    """What a stream that has not failed waits for."""
    if held.marker.making:
        return HALF_MADE
    if source is not None and not source.topics and held.connector.idle:
        return "no topic of the source matches include yet, so nothing is mirrored"
    return None


def standstill(held: Held) -> str | None:
    """Why a replay that is under way does not go on."""
    state = _running_state(held)
    if state is StreamState.PAUSED:
        return "the stream is paused; the replay runs when it is resumed"
    return (error := _error(held, {})) and f"the stream failed: {error}"


def _running_state(held: Held) -> StreamState:
    """The state as far as the connectors tell it."""
    if any(connector.state in ("PAUSED", "STOPPED") or connector.pausing for connector in held.all):
        return StreamState.PAUSED
    if not held.connector.running or not all(other.running or other.idle for other in held.others):
        return StreamState.CATCHING_UP
    return StreamState.RUNNING


def _state(held: Held, stored: Offsets, lag: Mapping[Partition, int] | None) -> StreamState:
    if (state := _running_state(held)) is not StreamState.RUNNING:
        return state
    if any(at not in stored for at in lag or ()) or any(not is_done(item, stored) for item in held.marker.rewinds):
        return StreamState.CATCHING_UP
    return StreamState.RUNNING


def is_done(rewind: Rewind, stored: Offsets) -> bool:
    """Whether a replay has passed the positions at which it was asked for, or has ended otherwise."""
    if rewind.progress.finished_at is not None:
        return True
    until = read(rewind.until) if rewind.until else {}
    return rewind.applied and all(stored.get(at, 0) >= offset for at, offset in until.items())


def _age(behind: int | None, source: SourceView | None, now: datetime) -> float | None:
    if behind is None or source is None:
        return None
    if behind == 0:
        return 0.0
    if not source.waiting:
        return None
    return max(0.0, round(now.timestamp() - min(source.waiting.values()) / 1000, 3))


def _time(milliseconds: int) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


async def view(
    brokers: Brokers, streams: Sequence[tuple[Marker, Offsets]], also: Collection[str] = ()
) -> list[SourceView]:
    """What the brokers of one source say, for several of its streams, each with its stored offsets.

    :param also: topics besides those that the streams take.
    """
    counts = await brokers.topics()
    wanted = [sorted({*taken(marker.stream, counts), *(counts.keys() & set(also))}) for marker, _ in streams]
    topics = await brokers.describe({name for names in wanted for name in names})
    partitions = [Partition(name, number) for name, topic in topics.items() for number in range(topic.partitions)]
    earliest, latest, newest = await asyncio.gather(
        brokers.earliest(partitions), brokers.latest(partitions), brokers.newest(partitions)
    )
    views = [
        SourceView(
            topics={name: topics[name] for name in names if name in topics},
            earliest=_of(names, earliest),
            latest=_of(names, latest),
            newest=_of(names, newest),
        )
        for names in wanted
    ]
    lags = [lag_of(stored, found) for found, (_, stored) in zip(views, streams, strict=True)]
    firsts = [{at: found.latest[at] - lag for at, lag in lag.items()} for found, lag in zip(views, lags, strict=True)]
    # Streams that take the same topic may wait for different records of it.
    waiting = {
        (at, first): found.latest[at] - first
        for found, of in zip(views, firsts, strict=True)
        for at, first in of.items()
    }
    furthest = sorted(waiting, key=lambda item: (waiting[item], item), reverse=True)
    read = [*furthest[:MOST_TIMES], *(item for item in furthest[MOST_TIMES:] if waiting[item] == 1)]
    times = await _times(brokers, read, earliest)
    return [
        replace(
            found,
            waiting={at: time for at, first in of.items() if (time := times.get((at, first))) is not None},
            ended=frozenset(at for at, first in of.items() if times.get((at, first), 0) is None),
        )
        for found, of in zip(views, firsts, strict=True)
    ]


async def _times(
    brokers: Brokers, asked: Sequence[tuple[Partition, int]], earliest: Offsets
) -> dict[tuple[Partition, int], int | None]:
    """The times of the records at these offsets. That of the first one that is retained needs no consumer."""
    first = await brokers.at_time((at for at, offset in asked if offset == earliest.get(at)), 0)
    times: dict[tuple[Partition, int], int | None] = {
        (at, found.offset): found.time for at, found in first.items() if found.time is not None
    }
    turns: list[dict[Partition, int]] = []  # each asks for one offset of a partition
    for at, offset in asked:
        if (at, offset) not in times:
            turn = next((turn for turn in turns if at not in turn), None)
            if turn is None:
                turns.append(turn := {})
            turn[at] = offset
    for turn, found in zip(
        turns, await asyncio.gather(*(brokers.times(turn, READ_WITHIN) for turn in turns)), strict=True
    ):
        times |= {(at, turn[at]): time for at, time in found.items()}
    return times


def _of(names: Sequence[str], found: Mapping[Partition, T]) -> dict[Partition, T]:
    wanted = set(names)
    return {at: item for at, item in found.items() if at.topic in wanted}
