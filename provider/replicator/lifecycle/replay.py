"""Replay: plan it, run it once per key, and wait for its end."""

from __future__ import annotations

from replicator.errors import ReplayFailed
from replicator.lifecycle.connections import Connections, StreamId
from replicator.lifecycle.wait import Limits, Progress, silent, wait_for_replay
from replicator.model import Checkpoint
from replicator.replicator import ReplayMethod, ReplayPlan, ReplayProgress, ReplayState


async def plan_replay(
    connections: Connections, at: StreamId, start: Checkpoint, method: ReplayMethod, target: str | None
) -> ReplayPlan:
    """Return the plan of the replay. Changes nothing."""
    return await connections.replicator(at).plan_replay(at.name, start, method=method, target=target)


async def run_replay(
    connections: Connections,
    at: StreamId,
    start: Checkpoint,
    *,
    key: str,
    method: ReplayMethod,
    target: str | None,
    limits: Limits,
    progress: Progress = silent,
) -> ReplayProgress:
    """Run the replay, or join the one with this key, and wait until it ends. Raise `ReplayFailed` if it fails."""
    replicator = connections.changing(at)
    async with limits.within("the replay", at.name, progress):
        started = await replicator.replay(at.name, start, key=key, method=method, target=target)
        ended = await wait_for_replay(replicator, started, limits)
    if ended.state is ReplayState.FAILED:
        raise ReplayFailed(
            ended.error or "the engine gives no reason",
            stream=at.name,
            fix="correct the cause, then replay with a new key; a key that has failed cannot be used again",
        )
    return ended
