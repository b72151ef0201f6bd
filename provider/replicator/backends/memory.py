"""A complete Replicator in memory, with a clock, for tests of programs that declare streams.

A source emits events at a steady rate from the start of the process; event `n` is due at `n / rate` seconds. A running
stream delivers them at once, a paused one falls behind. An LSN is the number of the last event, in decimal. Nothing
waits: every number follows from the clock, so a test that sets the clock knows what it will read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from replicator.backends.shared.ownership import may_remove, settle_owner
from replicator.backends.shared.projections import Projections
from replicator.backends.shared.replay_keys import newest_first, refuse_reuse, unknown_key
from replicator.backends.shared.reservations import Reservations
from replicator.capabilities import MEMORY, No
from replicator.errors import (
    InvalidStream,
    ReplayNotRetained,
    ReplicatorError,
    StreamNotFound,
    Unsupported,
)
from replicator.model import Checkpoint, DesiredState, Mode, Owner, Stream, StreamState, StreamStatus
from replicator.replicator import (
    Adoption,
    Description,
    Finding,
    LogLines,
    ReplayMethod,
    ReplayPlan,
    ReplayProgress,
    ReplayState,
    Severity,
)


@dataclass(slots=True)
class _Record:
    """One stream. A paused one has delivered the events up to `position`, a running one has delivered everything."""

    stream: Stream
    position: int
    paused: bool = False
    emitted: int = 0
    replays: dict[str, ReplayProgress] = field(default_factory=dict)


class MemoryReplicator(Projections):
    """A Replicator with streams in memory.

    :param clock: seconds since the epoch.
    :param rate: events that a source emits per second.
    :param retention: how far back a replay may start.
    """

    kind = "memory"

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        rate: float = 10.0,
        retention: timedelta = timedelta(hours=1),
    ) -> None:
        self._clock = clock
        self._rate = rate
        self._retention = retention
        self._origin = clock()
        self._records: dict[str, _Record] = {}
        self._reservations = Reservations()
        self.delivered: dict[str, set[int]] = {}
        """The numbers of the events at each destination, by URI."""

    async def upsert_stream(self, stream: Stream) -> None:
        record = self._records.get(stream.name)
        owner = settle_owner(record.stream if record else None, stream)
        self._reservations.refuse(stream)
        stored = stream.model_copy(update={"owner": owner, "backend": self.kind})
        paused = stream.desired_state is DesiredState.PAUSED
        if record is None:
            position = self._start(stream)
            record = self._records[stream.name] = _Record(stored, position, paused=True)
            self.delivered.setdefault(stream.destination.uri, set()).update(self._snapshot(stream, position))
        else:
            self._reservations.drop(record.stream)
            if _moves(record.stream, stored):
                self._settle(record)
                record.position = 0
                record.paused = True
        self._reservations.keep(stored)
        record.stream = stored
        if stream.mode is Mode.SNAPSHOT:
            self._deliver(record, self._now())
            record.paused = True
        elif paused:
            await self.pause(stream.name)
        else:
            await self.resume(stream.name)

    async def adopt_stream(self, stream: Stream, *, dry_run: bool = False) -> Adoption:
        """Create the stream if it is new: no other process can have replicated it."""
        known = stream.name in self._records
        if not known and not dry_run:
            await self.upsert_stream(stream.model_copy(update={"owner": None}))
        return Adoption(known=known)

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> bool:
        record = self._records.get(name)
        if record is None:
            return True
        if not may_remove(record.stream, owner):
            return False
        self._settle(record)
        if record.stream.purge_destination:
            self.delivered.pop(record.stream.destination.uri, None)
        del self._records[name]
        self._reservations.drop(record.stream)
        return True

    async def list_streams(self) -> list[Stream]:
        return [record.stream for record in self._records.values()]

    async def get_status(self, name: str) -> StreamStatus:
        return self._status(self._record(name))

    async def log(self, name: str, *, after: str | None = None, lines: int = 100) -> LogLines:
        """Return an empty log: there is no engine that writes one."""
        self._record(name)
        return LogLines(lines=(), cursor="empty")

    async def pause(self, name: str) -> None:
        record = self._record(name)
        self._settle(record)
        record.paused = True

    async def resume(self, name: str) -> None:
        record = self._record(name)
        self._deliver(record, self._now())
        record.paused = False

    async def replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        key: str,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayProgress:
        record = self._record(name)
        if (known := record.replays.get(key)) is not None:
            refuse_reuse(known, start, method, target)
            return known
        plan = await self.plan_replay(name, start, method=method, target=target)
        self._settle(record)
        now = datetime.fromtimestamp(self._clock(), UTC)
        record.emitted += plan.events or 0
        record.replays[key] = ReplayProgress(
            key=key,
            stream=name,
            state=ReplayState.DONE,
            method=plan.method,
            start=start,
            resolved=plan.resolved,
            target=target,
            events=plan.events,
            started_at=now,
            finished_at=now,
        )
        return record.replays[key]

    async def get_replay(self, name: str, key: str) -> ReplayProgress:
        try:
            return self._record(name).replays[key]
        except KeyError:
            raise unknown_key(key, name) from None

    async def list_replays(self, name: str) -> list[ReplayProgress]:
        return newest_first(self._record(name).replays.values())

    async def plan_replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayPlan:
        record = self._record(name)
        chosen = ReplayMethod.LOG_REWIND if method is ReplayMethod.AUTO else method
        cell = MEMORY.route(record.stream).replay[chosen]
        if isinstance(cell, No):
            raise Unsupported(cell.reason, stream=name, property="method")
        self._settle(record)
        first, last = self._earliest(), record.position
        at = self._event(start, name)
        if not first <= at <= last:
            raise ReplayNotRetained(
                f"{_words(start)} is not retained; kept is {first} to {last}",
                stream=name,
                property="start",
                fix=f'start at an lsn from "{first}" to "{last}"',
            )
        return ReplayPlan(
            stream=name,
            method=chosen,
            start=start,
            resolved=self._checkpoint(at),
            target=target,
            events=last - at,
            duplicates=last > at,
            earliest=self._checkpoint(first),
            latest=self._checkpoint(last),
            effects=(f"{last - at} events are delivered again; the destination keeps one copy of each",),
        )

    async def preflight(self, stream: Stream) -> list[Finding]:
        record = self._records.get(stream.name)
        try:
            settle_owner(record.stream if record else None, stream)
            self._reservations.refuse(stream)
        except ReplicatorError as error:
            return [Finding.of(error, Severity.ERROR)]
        return []

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        wanted: Iterable[str] = self._records if names is None else (name for name in names if name in self._records)
        return [
            Description(
                stream=self._records[name].stream,
                status=self._status(self._records[name]),
                engine_objects={"memoryStream": name},
            )
            for name in wanted
        ]

    async def identity(self) -> str | None:
        return None

    async def aclose(self) -> None:
        return

    def not_found(self, name: str) -> StreamNotFound:
        return StreamNotFound("the memory backend has no such stream", stream=name)

    def _record(self, name: str) -> _Record:
        if name not in self._records:
            raise self.not_found(name)
        return self._records[name]

    def _now(self) -> int:
        """Return the number of the newest event at the source."""
        return int((self._clock() - self._origin) * self._rate)

    def _earliest(self) -> int:
        return max(0, self._now() - int(self._retention.total_seconds() * self._rate))

    def _wall(self, event: int) -> datetime:
        return datetime.fromtimestamp(self._origin + event / self._rate, UTC)

    def _checkpoint(self, event: int) -> Checkpoint:
        return Checkpoint(lsn=str(event), wall=self._wall(event))

    def _event(self, at: Checkpoint, name: str) -> int:
        if at.lsn is None:
            assert at.wall is not None
            return int((at.wall.timestamp() - self._origin) * self._rate)
        if not at.lsn.isdecimal():
            raise InvalidStream(f"{at.lsn!r} is not the number of an event", stream=name, property="lsn")
        return int(at.lsn)

    def _start(self, stream: Stream) -> int:
        match stream.start_from:
            case None | "earliest":
                return self._earliest() if stream.mode is Mode.CDC else 0
            case "latest":
                return self._now()
            case Checkpoint() as at:
                return max(0, min(self._event(at, stream.name), self._now()))

    def _snapshot(self, stream: Stream, position: int) -> Iterable[int]:
        return () if stream.mode is Mode.CDC else range(1, position + 1)

    def _settle(self, record: _Record) -> None:
        """Record what a running stream has delivered until now."""
        if not record.paused:
            self._deliver(record, self._now())

    def _deliver(self, record: _Record, upto: int) -> None:
        events = range(record.position + 1, upto + 1)
        self.delivered.setdefault(record.stream.destination.uri, set()).update(events)
        record.emitted += len(events)
        record.position = upto

    def _status(self, record: _Record) -> StreamStatus:
        self._settle(record)
        now, failure = self._now(), record.stream.options.get("fail")
        behind = now - record.position
        state = StreamState.PAUSED if record.paused else StreamState.RUNNING
        return StreamStatus(
            name=record.stream.name,
            state=StreamState.FAILED if failure else state,
            last_event=self._wall(now) if now else None,
            last_checkpoint=self._checkpoint(record.position),
            lag_seconds=round(behind / self._rate, 3),
            lag_events=behind,
            events_replicated=record.emitted,
            errors_last_hour=1 if failure else 0,
            last_error=str(failure) if failure else None,
        )


def _moves(old: Stream, new: Stream) -> bool:
    """Tell whether source or destination is another place now, so that a new copy is needed."""
    return (old.source.uri, old.destination.uri) != (new.source.uri, new.destination.uri)


def _words(at: Checkpoint) -> str:
    return f"lsn {at.lsn}" if at.lsn is not None else f"time {at.wall:%Y-%m-%dT%H:%M:%SZ}"
