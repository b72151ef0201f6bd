"""The functions on a stream by its id: its status, the plan of a replay, and a replay."""

from __future__ import annotations

from replicator.errors import StreamNotFound
from replicator.lifecycle.connect import Connections, StreamId
from replicator.lifecycle.replay import plan_replay, run_replay
from replicator.lifecycle.shapes import GetStreamStatusArgs, PlanReplayArgs, ReplayArgs, ReplayResult
from replicator.lifecycle.wait import Limits, Progress, silent
from replicator.model import StreamStatus
from replicator.replicator import ReplayPlan

STATUS_AGE = 1.0
"""Seconds that a listing may be old for `get_stream_status`: a batch of them shares one."""


async def get_stream_status(connections: Connections, args: GetStreamStatusArgs) -> StreamStatus:
    """The status, measured within the last second."""
    at = StreamId.parse(args.stream)
    found = await connections.describe(at, max_age=STATUS_AGE)
    if found is None:
        raise StreamNotFound(f"{at.backend} has no such stream", stream=at.name)
    return found.status


async def plan(connections: Connections, args: PlanReplayArgs) -> ReplayPlan:
    """What a replay would do."""
    return await plan_replay(connections, StreamId.parse(args.stream), args.start, args.method, args.target)


async def replay(
    connections: Connections, args: ReplayArgs, *, preview: bool, limits: Limits, progress: Progress = silent
) -> ReplayResult:
    """Run a replay once for its key; in a preview, plan it."""
    if preview:
        return ReplayResult.from_plan(await plan(connections, args), args.idempotency_key)
    done = await run_replay(
        connections,
        StreamId.parse(args.stream),
        args.start,
        key=args.idempotency_key,
        method=args.method,
        target=args.target,
        limits=limits,
        progress=progress,
    )
    return ReplayResult.from_progress(done)
