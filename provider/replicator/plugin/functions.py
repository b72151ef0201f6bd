"""The provider's functions. A function that has an effect only plans in a preview."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from replicator.errors import InvalidStream, StreamNotFound, Unsupported
from replicator.lifecycle.connect import Connections, StreamId
from replicator.lifecycle.failure import Failure, failures_of
from replicator.lifecycle.replay import plan_replay, run_replay
from replicator.lifecycle.wait import Limits
from replicator.model import Model
from replicator.plugin.engine import EngineLog
from replicator.plugin.shapes import GetStreamStatusArgs, PlanReplayArgs, ReplayArgs, ReplayResult

STATUS_AGE = 1.0
"""Seconds that a listing may be old for `getStreamStatus`: a batch of them shares one."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a function call has besides its arguments.

    :param preview: whether this is a preview; `None` where the engine is too old to say.
    """

    connections: Connections
    preview: bool | None
    cancelled: asyncio.Event
    engine: EngineLog


Result = tuple[dict[str, Any], list[Failure]]
A = TypeVar("A", bound=Model)


def _function(
    arguments: type[A], call: Callable[[Invocation, A], Awaitable[Model]]
) -> Callable[[Invocation, dict[str, Any]], Awaitable[Result]]:
    """Validate the arguments; bad ones are failures of the call, not errors."""

    async def run(invocation: Invocation, raw: dict[str, Any]) -> Result:
        try:
            parsed = arguments.model_validate(raw)
        except ValidationError as error:
            return {}, failures_of(error, arguments, InvalidStream.code)
        return (await call(invocation, parsed)).wire(), []

    return run


async def get_stream_status(invocation: Invocation, args: GetStreamStatusArgs) -> Model:
    """The status, measured within the last second."""
    at = StreamId.parse(args.stream)
    found = await invocation.connections.describe(at, max_age=STATUS_AGE)
    if found is None:
        raise StreamNotFound(f"{at.backend} has no such stream", stream=at.name)
    return found.status


async def plan(invocation: Invocation, args: PlanReplayArgs) -> Model:
    """What a replay would do."""
    return await plan_replay(invocation.connections, StreamId.parse(args.stream), args.start, args.method, args.target)


async def replay(invocation: Invocation, args: ReplayArgs) -> Model:
    """Run a replay once for its key; in a preview, plan it."""
    if invocation.preview is None:
        raise Unsupported(
            "replay cannot tell a preview from an update with this Pulumi", fix="use pulumi 3.206 or newer"
        )
    at = StreamId.parse(args.stream)
    if invocation.preview:
        found = await plan_replay(invocation.connections, at, args.start, args.method, args.target)
        return ReplayResult.from_plan(found, args.idempotency_key)
    done = await run_replay(
        invocation.connections,
        at,
        args.start,
        key=args.idempotency_key,
        method=args.method,
        target=args.target,
        limits=Limits(cancelled=invocation.cancelled),
        progress=invocation.engine.status,
    )
    return ReplayResult.from_progress(done)


FUNCTIONS: dict[str, Callable[[Invocation, dict[str, Any]], Awaitable[Result]]] = {
    "replicator:index:getStreamStatus": _function(GetStreamStatusArgs, get_stream_status),
    "replicator:index:planReplay": _function(PlanReplayArgs, plan),
    "replicator:index:replay": _function(ReplayArgs, replay),
}
