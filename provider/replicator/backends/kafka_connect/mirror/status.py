"""The status of a mirror, derived from Connect, the source and the destination."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from replicator.backends import stream_id
from replicator.backends.kafka.admin import Topic
from replicator.backends.kafka.positions import Offsets, Partition, checkpoint, read, write
from replicator.backends.kafka_connect.cluster import Offset
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.mirror.cluster_identity import AGAIN
from replicator.backends.kafka_connect.mirror.copies import Copies, lacking, lost, replay_start
from replicator.backends.kafka_connect.mirror.source_view import READ_WITHIN, SourceView, copied_until, lag_of
from replicator.backends.kafka_connect.mirror.topics import Naming, some
from replicator.backends.kafka_connect.record import UNFINISHED, ReplayRecord, StreamRecord
from replicator.errors import DestinationDenied
from replicator.model import Checkpoint, StreamState, StreamStatus

_LSN_SHOWN = 400
"""Maximum number of characters of a start position in a text."""
_CLOCKS_DIFFER = 5.0
"""Seconds by which the clocks of a producer and this host may differ; a later timestamp says nothing about a lag."""


def next_offsets(offsets: Sequence[Offset], alias: str) -> dict[Partition, int]:
    """Return the next offsets by a mirror's stored ones; MirrorMaker 2 stores the last offset that it copied.

    :param alias: of the source. Connect retains what a connector of the name stored under another alias.
    """
    return {
        Partition(str(item.partition["topic"]), int(item.partition["partition"])): int(item.offset["offset"]) + 1
        for item in offsets
        if item.offset is not None and item.partition.get("cluster") == alias
    }


def as_stored(offsets: Offsets, naming: Naming) -> list[Offset]:
    """Return next offsets in MirrorMaker 2's form. It expresses 0 only by storing nothing."""
    return [
        Offset(
            {"cluster": naming.source, "topic": at.topic, "partition": at.number},
            {"offset": offset - 1} if offset > 0 else None,
        )
        for at, offset in sorted(offsets.items())
    ]


@dataclass(frozen=True, slots=True)
class Seen:
    """The two ends of a stream, as far as they are reachable.

    :param source: `None` if it is not reachable from here.
    :param copies: `None` if the destination is not reachable from here.
    :param unseen: why an end is not reachable, in words.
    :param rebuilt: the problem if another cluster answers at an end, for which the offsets mean nothing.
    """

    source: SourceView | None
    copies: Copies | None = None
    unseen: tuple[str, ...] = ()
    rebuilt: str | None = None


def status_of(deployed: DeployedStream, stored: Offsets, seen: Seen, now: datetime) -> StreamStatus:
    """Return the status of one stream.

    :param stored: next offsets, for every partition with copied records.
    """
    source = None if seen.rebuilt else seen.source
    lag = lag_of(stored, source) if source and not source.hidden and not source.untold else None
    errors = [
        seen.rebuilt and f"{seen.rebuilt}: {AGAIN}",
        _trace(deployed, stored, lag),
        *(_faults(deployed, stored, source, seen.copies) if source else ()),
    ]
    error = "; ".join(filter(None, errors)) or None
    absent = lacking(deployed.record.stream, source, seen.copies) if source and seen.copies else {}
    behind = sum(lag.values()) if lag is not None else None
    return StreamStatus(
        name=deployed.name,
        state=StreamState.FAILED if error else _state(deployed, stored, source, lag, absent),
        last_event=_latest(seen.source),
        last_checkpoint=_checkpoint(stored, source),
        lag_seconds=_age(behind, source, now),
        lag_events=behind,
        events_replicated=replicated(deployed.record, stored),
        last_error=error or "; ".join([*_waits(deployed, source, absent, lag), *seen.unseen]) or None,
    )


def outline_of(deployed: DeployedStream, refused: str | None = None, unanswered: str | None = None) -> StreamStatus:
    """Return the status by a listing alone; a stream of unknown progress is reported as running.

    :param refused: why Connect refuses its offsets.
    :param unanswered: why Connect did not answer, which is not a failure of the stream.
    """
    error = deployed.trace or refused
    state = StreamState.FAILED if error else deployed.state
    return StreamStatus(name=deployed.name, state=state, last_error=error or unanswered)


def by_part(offsets: Offsets) -> dict[str, int]:
    """Return offsets by partition names, as a listing can hold them."""
    return {str(at): offset for at, offset in offsets.items()}


def gaps(record: StreamRecord, stored: Offsets, source: SourceView) -> dict[Partition, str]:
    """Return the partitions whose next records the source no longer retains, with the loss as a clause.

    MirrorMaker 2 silently continues behind such a gap.
    """
    found = {}
    for at, offset in sorted(stored.items()):
        topic, end = source.topics.get(at.topic), source.latest.get(at)
        if topic is None or end is None:
            continue
        first = source.earliest.get(at, 0)
        if is_new(topic, record.topics.get(at.topic)) or offset > end:
            found[at] = f"{at.topic} was deleted and made again; the stored offset {offset} may be of the old topic"
        elif offset < first:
            found[at] = f"{at}: offsets {offset} to {first - 1} are no longer retained"
    return found


def is_new(topic: Topic, known: str | None) -> bool:
    """Tell whether another topic had the name before."""
    return known is not None and known != topic.id


def describe_gaps(lost: Mapping[Partition, str]) -> str:
    """Return the losses as text, each clause once."""
    return "; ".join(dict.fromkeys(lost.values()))


def replicated(record: StreamRecord, stored: Offsets) -> int | None:
    """Return the number of offsets copied since the stream was created; `None` if its start is unknown.

    Records that a replay copies again do not count.
    """
    if record.starts is None or record.creating:
        return None
    starts = record.start_offsets
    highest = dict(stored)
    for replay_record in record.replays:
        for at, offset in (read(replay_record.until) if replay_record.until else {}).items():
            highest[at] = max(highest.get(at, 0), offset)
    return sum(max(0, offset - starts.get(at, 0)) for at, offset in highest.items())


def _trace(deployed: DeployedStream, stored: Offsets, lag: Mapping[Partition, int] | None) -> str | None:
    """Return why a connector failed, and the topics that wait for it."""
    if deployed.trace is None or not lag:
        return deployed.trace
    return f"{deployed.trace}; not copied: {some([f'{at} from offset {stored.get(at, 0)}' for at in sorted(lag)])}"


def _faults(deployed: DeployedStream, stored: Offsets, source: SourceView, copies: Copies | None) -> list[str]:
    """Return problems at the two ends that a person has to fix."""
    found = [describe_gaps(gaps(deployed.record, stored, source))]
    stream = deployed.record.stream
    if source.unreadable and stream.source.admin_auth_ref is None:
        gone = " (or it does not exist any more)" if source.hidden else ""
        found.append(
            f"the credentials may not read {some(source.unreadable)} at the source{gone}, and MirrorMaker 2 then "
            "copies nothing of the stream: grant READ and DESCRIBE_CONFIGS, or exclude it"
        )
    if copies is None:
        return found
    if gone_copies := lost(deployed.record, stored, source, copies):
        found.append(f"{some([*gone_copies.values()])}; {_replay_of(deployed, gone_copies, source)}")
    denied = [name for name, error in copies.refusals.items() if isinstance(error, DestinationDenied)]
    if denied:
        found.append(
            f"{some(denied)} is not at the destination, and the credentials may not create it: grant CREATE, ALTER "
            "and ALTER_CONFIGS"
        )
    refused = [
        f"{name} cannot be created at the destination: {error.message}"
        for name, error in copies.refusals.items()
        if name not in denied
    ]
    return [*found, *refused[:1]]


def _replay_of(deployed: DeployedStream, partitions: Collection[Partition], source: SourceView) -> str:
    """Return how to copy partitions again."""
    lsn = write(replay_start(deployed.record, source, partitions)) or ""
    start = f'--lsn "{lsn}"' if len(lsn) <= _LSN_SHOWN else "--lsn with the offsets to begin at"
    return f"to copy what the source still has once more: replicator replay {stream_id(deployed.record.stream)} {start}"


def _waits(
    deployed: DeployedStream, source: SourceView | None, absent: Mapping[str, str], lag: Mapping[Partition, int] | None
) -> list[str]:
    """Return what a stream that has not failed waits for, and what is unknown about it."""
    if deployed.record.creating:
        return [UNFINISHED]
    if source is None:
        return []
    found = [*absent.values()][:1]
    if source.unreadable:
        found.append(f"its lag is not known: adminAuthRef may not read {some(source.unreadable)} at the source")
    elif source.untold:
        found.append(f"its lag is not known: the source did not tell the offsets of {some(sorted(source.untold))}")
    elif lag and (source.unread or not source.waiting):
        of = f" of {some(sorted(map(str, source.unread)))}" if source.unread and source.waiting else ""
        found.append(f"the age of what waits is not known: no record{of} was read within {READ_WITHIN:g} s")
    elif not source.topics:
        found.append(
            "no topic of the source matches include yet, so nothing is mirrored; topics that the credentials may not "
            "describe are not listed"
        )
    return found


def _latest(source: SourceView | None) -> datetime | None:
    return _time(max((item.time or 0 for item in source.newest.values()), default=0)) if source else None


def _checkpoint(stored: Offsets, source: SourceView | None) -> Checkpoint | None:
    found = checkpoint(stored)
    until = copied_until(stored, source) if source else None
    return found and found.model_copy(update={"wall": _time(until or 0)})


def _state(
    deployed: DeployedStream,
    stored: Offsets,
    source: SourceView | None,
    lag: Mapping[Partition, int] | None,
    absent: Mapping[str, str],
) -> StreamState:
    if (state := deployed.state) is not StreamState.RUNNING:
        return state
    nothing = source is not None and (lag is None or not source.topics)
    if absent or nothing or any(at not in stored for at in lag or ()):
        return StreamState.CATCHING_UP
    if any(not is_done(item, stored) for item in deployed.record.replays):
        return StreamState.CATCHING_UP
    return StreamState.RUNNING


def is_done(replay_record: ReplayRecord, stored: Offsets) -> bool:
    """Tell whether a replay has passed the offsets at which it was requested, or has ended otherwise."""
    if replay_record.progress.finished_at is not None:
        return True
    until = read(replay_record.until) if replay_record.until else {}
    return replay_record.applied and all(stored.get(at, 0) >= offset for at, offset in until.items())


def _age(behind: int | None, source: SourceView | None, now: datetime) -> float | None:
    if behind is None or source is None:
        return None
    if behind == 0:
        return 0.0
    if source.unread or not source.waiting:
        return None
    age = now.timestamp() - min(source.waiting.values()) / 1000
    return None if age < -_CLOCKS_DIFFER else max(0.0, round(age, 3))  # an application may set any timestamp


def _time(milliseconds: int) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
