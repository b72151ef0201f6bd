"""Execution of replays: starting them, finishing them after a crash, and marking them as finished.

A replay is recorded in the connector's configuration before the offsets are set back, and marked as applied before the
connector runs again. After a crash at any point, the next call with the same key finishes the replay, and no key is
applied twice.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from replicator.backends.kafka_connect.cluster import ConnectorState
from replicator.backends.kafka_connect.connector_states import ConnectorStates
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.recipe import Positions, Recipe, ResolvedReplay
from replicator.backends.kafka_connect.record import (
    CONFIG_LIMIT,
    KEPT_REPLAYS,
    ReplayRecord,
    StreamRecord,
    given_up,
    now,
    refuse_unfinished,
)
from replicator.backends.kafka_connect.stream_store import StreamStore
from replicator.backends.shared.replay_keys import newest_first, refuse_reuse, unknown_key
from replicator.errors import ReplayRefused, ReplicatorError
from replicator.model import Checkpoint, DesiredState, StreamState
from replicator.replicator import ReplayMethod, ReplayPlan, ReplayProgress, ReplayState

_SOME_KEY = "x" * 64
_RESUMED = "the connector was resumed by hand before the offsets were set back"


class ReplayExecutor:
    """Replays streams. The caller holds the stream's slot."""

    def __init__(self, streams: StreamStore, states: ConnectorStates, recipe: Recipe[Any, Any, Any]) -> None:
        self._streams = streams
        self._states = states
        self._recipe = recipe
        self._finished: dict[tuple[str, str], datetime] = {}

    async def replay(
        self, deployed: DeployedStream, start: Checkpoint, key: str, method: ReplayMethod, target: str | None
    ) -> ReplayProgress:
        """Start a replay, or continue the one with this key."""
        known = deployed.record.replay_record(key)
        if known is None:
            deployed = await self._begin(deployed, start, key, method, target)
        else:
            refuse_reuse(known.progress, start, method, target, began_there=known.began_at(start))
        return await self.progress(await self._go_on(deployed, key), key)

    async def progress(self, deployed: DeployedStream, key: str) -> ReplayProgress:
        """Return the progress of the replay with a key; raise `ReplayNotFound` if it does not exist."""
        if deployed.record.replay_record(key) is None:
            raise unknown_key(key, deployed.name)
        return next(replay for replay in await self.every(deployed) if replay.key == key)

    async def every(self, deployed: DeployedStream) -> list[ReplayProgress]:
        """Return the progress of each replay on record, the newest first."""
        record = self.settled(deployed, await self._recipe.positions(deployed.record))
        halted = {"error": deployed.standstill} if deployed.standstill else {}
        found = (replay_record.progress for replay_record in record.replays)
        return newest_first(item if item.finished_at else item.model_copy(update=halted) for item in found)

    def settled(self, deployed: DeployedStream, stored: Positions) -> StreamRecord:
        """Return the record with finished replays marked. Reads do not write it: that would restart the connector."""
        record = deployed.record
        for replay_record in record.replays:
            if replay_record.progress.finished_at is None and self._recipe.is_done(record, replay_record, stored):
                at = self._finished.setdefault((deployed.name, replay_record.progress.key), now())
                done = replay_record.progress.model_copy(update={"state": ReplayState.DONE, "finished_at": at})
                record = record.with_replay(replay_record.model_copy(update={"progress": done}))
        return record

    async def resolve(
        self, deployed: DeployedStream, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> tuple[ResolvedReplay, Any]:
        """Return what a replay would do now, and the stored offsets on which that is based."""
        refuse_unfinished(deployed.record)
        return await self._recipe.resolve(deployed, start, method, target)

    async def plan(
        self, deployed: DeployedStream, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> ReplayPlan:
        """Return the effects of a replay; raise what it would raise."""
        _refuse_resumed(deployed)
        resolved, stored = await self.resolve(deployed, start, method, target)
        self._recorded(deployed, resolved, stored, _SOME_KEY, start)
        paused = deployed.state is StreamState.PAUSED
        if paused and deployed.record.stream.desired_state is DesiredState.PAUSED:
            effects = (*resolved.plan.effects, "the stream is paused; the replay starts when it resumes")
            return resolved.plan.model_copy(update={"effects": effects})
        if paused and deployed.record.stream.desired_state is DesiredState.RUNNING:
            effects = (*resolved.plan.effects, "the stream was paused by hand, and runs after the replay")
            return resolved.plan.model_copy(update={"effects": effects})
        return resolved.plan

    async def _begin(
        self, deployed: DeployedStream, start: Checkpoint, key: str, method: ReplayMethod, target: str | None
    ) -> DeployedStream:
        """Stop the connectors, and record a replay that is not applied yet."""
        if deployed.record.cut_off() is not None:
            raise ReplayRefused(
                "another replay of this stream was cut off half-way",
                stream=deployed.name,
                fix="run that one again with its own key, which finishes it",
            )
        _refuse_resumed(deployed)
        self._recorded(deployed, *await self.resolve(deployed, start, method, target), key, start)
        ran = deployed.connector.state is ConnectorState.RUNNING
        try:
            await self._states.stop(deployed)
            resolved, stored = await self.resolve(deployed, start, method, target)  # offsets no longer move now
            return await self._states.put_record(deployed, self._recorded(deployed, resolved, stored, key, start))
        except ReplicatorError:
            there = await self._streams.get(deployed.name)
            if there is not None and there.record.replay_record(key) is not None:
                return there  # it was written; only the answer was lost
            if ran and there is not None:
                await self._states.start_all(await self._states.assigned(there))
            raise

    def _recorded(
        self, deployed: DeployedStream, resolved: ResolvedReplay, stored: Positions, key: str, start: Checkpoint
    ) -> StreamRecord:
        """Return the record with one more replay; raise `ReplayRefused` if Connect could not write it."""
        progress = ReplayProgress(
            key=key,
            stream=deployed.name,
            state=ReplayState.RUNNING,
            method=resolved.plan.method,
            start=start,
            resolved=resolved.plan.resolved,
            target=resolved.plan.target,
            events=resolved.plan.events,
            started_at=now(),
        )
        replay_record = ReplayRecord(progress=progress, start=resolved.start, until=resolved.until)
        record = self.settled(deployed, stored)
        kept = (*record.replays, replay_record)[-KEPT_REPLAYS:]
        topics = {**record.topics, **resolved.topics}
        longer = record.model_copy(update={"replays": kept, "topics": topics})
        fitted = longer.fitted(deployed.connector.config, self._recipe.kind)
        if fitted is None:
            raise ReplayRefused(
                f"the record of this replay, of {resolved.extent}, and of those that have not ended "
                f"is longer than the {CONFIG_LIMIT >> 10} kB that Kafka Connect can keep of a connector",
                stream=deployed.name,
                property="start",
                fix="replay fewer topics at a time, with lsn; or wait until the replays of before have ended",
            )
        return fitted

    async def _go_on(self, deployed: DeployedStream, key: str) -> DeployedStream:
        """Apply a recorded replay, and start the stream. Steps that are done are not repeated."""
        replay_record = self.settled(deployed, await self._recipe.positions(deployed.record)).replay_record(key)
        assert replay_record is not None
        if replay_record.progress.finished_at is not None:
            return deployed
        deployed = await self._states.assigned(await self._streams.found(deployed.name))
        stopped = deployed.connector.state is ConnectorState.STOPPED
        if not replay_record.applied:
            if not stopped:
                return await self._states.put_record(
                    deployed, deployed.record.with_replay(given_up(replay_record, _RESUMED))
                )
            deployed = await self._states.set_back(deployed, replay_record)
        if stopped and deployed.record.stream.desired_state is DesiredState.RUNNING:
            await self._states.resume(await self._streams.found(deployed.name))
            deployed = await self._streams.found(deployed.name)
        return deployed


def _refuse_resumed(deployed: DeployedStream) -> None:
    """Raise where a replay would leave a running stream stopped: after it, a stream is in its declared state."""
    paused = deployed.record.stream.desired_state is DesiredState.PAUSED
    if paused and deployed.connector.state is ConnectorState.RUNNING:
        raise ReplayRefused(
            "it was resumed by hand, but its declaration says paused, so it would not run after the replay",
            stream=deployed.name,
            property="desiredState",
            fix="set desiredState to running and run pulumi up; or pause it first, and resume it after the replay",
        )


def given_up_all(record: StreamRecord, why: str) -> StreamRecord:
    """Return the record without a replay in progress."""
    replays = [item if item.progress.finished_at is not None else given_up(item, why) for item in record.replays]
    return record.model_copy(update={"replays": tuple(replays)})
