"""Replays of one Connect cluster's mirrors: begun, gone on with after a crash, and settled."""

from __future__ import annotations

from datetime import UTC, datetime

from replicator.backends.connect.cluster import ConnectorState
from replicator.backends.connect.marker import CONFIG_LIMIT, KEPT_REPLAYS, Marker, Rewind
from replicator.backends.connect.mirror.connectors import BACKEND
from replicator.backends.connect.mirror.ends import AGAIN, Ends
from replicator.backends.connect.mirror.replays import Start, refuse_half_made, resolve
from replicator.backends.connect.mirror.running import Running
from replicator.backends.connect.mirror.status import Held, is_done, standstill
from replicator.backends.connect.mirror.streams import Streams
from replicator.backends.connect.positions import Offsets, Partition, read, write
from replicator.errors import ReplayKeyReused, ReplayNotFound, ReplayRefused, ReplicatorError
from replicator.model import Checkpoint, DesiredState
from replicator.replicator import ReplayMethod, ReplayPlan, ReplayProgress, ReplayState

_SOME_KEY = "x" * 64
_RESUMED = "the connector was resumed by somebody else before the offsets were set back"


class Rewinding:
    """Sets mirrors back. The caller has the turn to change the stream."""

    def __init__(self, ends: Ends, streams: Streams, running: Running) -> None:
        self._ends = ends
        self._streams = streams
        self._running = running
        self._finished: dict[tuple[str, str], datetime] = {}

    async def replay(
        self, held: Held, start: Checkpoint, key: str, method: ReplayMethod, target: str | None
    ) -> ReplayProgress:
        """Begin a replay, or go on with the one that has this key."""
        known = held.marker.rewind(key)
        if known is None:
            held = await self._begin(held, start, key, method, target)
        elif not known.began_at(start) or known.progress.target != target:
            raise ReplayKeyReused(
                f"key {key!r} was used for a replay from {known.progress.start.wire()}",
                stream=held.name,
                fix="use another idempotencyKey for another replay",
            )
        return await self.progress(await self._go_on(held, key), key)

    async def progress(self, held: Held, key: str) -> ReplayProgress:
        """How far the replay with a key is; raise `ReplayNotFound` where there is none."""
        if held.marker.rewind(key) is None:
            raise ReplayNotFound(f"no replay has the key {key!r}", stream=held.name)
        marker = self.settled(held, await self._streams.positions(held.marker.stream))
        rewind = marker.rewind(key)
        assert rewind is not None
        if rewind.progress.finished_at is not None or not (why := standstill(held)):
            return rewind.progress
        return rewind.progress.model_copy(update={"error": why})

    def settled(self, held: Held, stored: Offsets) -> Marker:
        """The record with the replays that are done by now. No read writes it: that would restart the connector."""
        marker = held.marker
        for rewind in marker.rewinds:
            if rewind.progress.finished_at is None and is_done(rewind, stored):
                at = self._finished.setdefault((held.name, rewind.progress.key), _now())
                done = rewind.progress.model_copy(update={"state": ReplayState.DONE, "finished_at": at})
                marker = marker.with_rewind(rewind.model_copy(update={"progress": done}))
        return marker

    async def resolve(
        self, held: Held, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> tuple[Start, dict[Partition, int]]:
        """What a replay would do now, and the stored positions that this was said of."""
        refuse_half_made(held.marker)
        if told := await self._streams.rebuilt(held.marker):
            raise ReplayRefused(told, stream=held.name, fix=AGAIN)
        stored = await self._streams.positions(held.marker.stream)
        brokers = await self._ends.brokers(held.marker.stream, "source")
        named = {at.topic for at in read(start.lsn)} if start.lsn else set()
        kept = named.intersection(at.topic for at in stored)  # of a topic that was taken before and may be again
        source = await self._streams.source(held.marker, stored, also=kept)
        return await resolve(brokers, held.marker, source, stored, start, method=method, target=target), stored

    async def plan(self, held: Held, start: Checkpoint, method: ReplayMethod, target: str | None) -> ReplayPlan:
        """What a replay would do; raise what it would raise."""
        resolved, stored = await self.resolve(held, start, method, target)
        self._recorded(held, resolved, stored, _SOME_KEY, start)
        return resolved.plan

    async def _begin(self, held: Held, start: Checkpoint, key: str, method: ReplayMethod, target: str | None) -> Held:
        """Record a replay that is not applied yet, with the connectors stopped."""
        if held.marker.cut_off() is not None:
            raise ReplayRefused(
                "another replay of this stream was cut off half-way",
                stream=held.name,
                fix="run that one again with its own key, which finishes it",
            )
        self._recorded(held, *await self.resolve(held, start, method, target), key, start)
        ran = held.connector.state is ConnectorState.RUNNING
        try:
            await self._running.stop(held)
            resolved, stored = await self.resolve(held, start, method, target)  # again, since now nothing moves
            return await self._running.put_marker(held, self._recorded(held, resolved, stored, key, start))
        except ReplicatorError:
            now = await self._streams.get(held.name)
            if now is not None and now.marker.rewind(key) is not None:
                return now  # it was written, and only the answer was lost
            if ran and now is not None:
                await self._running.start_all(await self._running.assigned(now))
            raise

    def _recorded(self, held: Held, resolved: Start, stored: Offsets, key: str, start: Checkpoint) -> Marker:
        """The record with one replay more; raise `ReplayRefused` where Connect could not write it."""
        progress = ReplayProgress(
            key=key,
            stream=held.name,
            state=ReplayState.RUNNING,
            method=resolved.plan.method,
            start=start,
            resolved=resolved.plan.resolved,
            target=resolved.plan.target,
            events=resolved.plan.events,
            started_at=_now(),
        )
        rewind = Rewind(progress=progress, start=write(resolved.offsets) or "", until=write(resolved.until) or "")
        marker = self.settled(held, stored)
        kept = (*marker.rewinds, rewind)[-KEPT_REPLAYS:]
        topics = {**marker.topics, **resolved.topics}
        longer = marker.model_copy(update={"rewinds": kept, "topics": topics})
        fitted = longer.fitted(held.connector.config, BACKEND)
        if fitted is None:
            raise ReplayRefused(
                f"the record of this replay, of {len(resolved.offsets)} partitions, and of those that have not ended "
                f"is longer than the {CONFIG_LIMIT >> 10} kB that Kafka Connect can keep of a connector",
                stream=held.name,
                property="start",
                fix="replay fewer topics at a time, with lsn; or wait until the replays of before have ended",
            )
        return fitted

    async def _go_on(self, held: Held, key: str) -> Held:
        """Apply a replay that is recorded, and let the mirror run. What is done already is left."""
        rewind = self.settled(held, await self._streams.positions(held.marker.stream)).rewind(key)
        assert rewind is not None
        if rewind.progress.finished_at is not None:
            return held
        held = await self._running.assigned(await self._streams.found(held.name))
        stopped = held.connector.state is ConnectorState.STOPPED
        if not rewind.applied:
            if not stopped:
                return await self._running.put_marker(held, held.marker.with_rewind(_given_up(rewind, _RESUMED)))
            held = await self._running.set_back(held, rewind)
        if stopped and held.marker.stream.desired_state is DesiredState.RUNNING:
            await self._running.resume(await self._streams.found(held.name))
            held = await self._streams.found(held.name)
        return held


def _given_up(rewind: Rewind, why: str) -> Rewind:
    failed = {"state": ReplayState.FAILED, "finished_at": _now(), "error": why}
    return rewind.model_copy(update={"progress": rewind.progress.model_copy(update=failed)})


def given_up_all(marker: Marker, why: str) -> Marker:
    """The record, in which no replay is under way."""
    rewinds = [item if item.progress.finished_at is not None else _given_up(item, why) for item in marker.rewinds]
    return marker.model_copy(update={"rewinds": tuple(rewinds)})


def _now() -> datetime:
    """With milliseconds, as the record has it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
