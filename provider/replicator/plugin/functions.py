"""The provider's functions. In a preview, a function with an effect only plans."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from replicator.errors import AgentUnreachable, InvalidConfig, InvalidStream, StreamNotFound, Unsupported
from replicator.lifecycle import functions
from replicator.lifecycle.connections import Connections
from replicator.lifecycle.failure import Failure, failures_of
from replicator.lifecycle.function_types import (
    GetCapabilitiesArgs,
    GetStreamStatusArgs,
    GetStreamStatusesArgs,
    ListStreamsArgs,
    PlanReplayArgs,
    ReplayArgs,
)
from replicator.lifecycle.wait import Limits
from replicator.model import Model
from replicator.plugin.pulumi_engine import PulumiDiagnostics


@dataclass(frozen=True, slots=True)
class Invocation:
    """The context of a function call.

    :param preview: whether this is a preview; `None` if the engine is too old to say.
    """

    connections: Connections
    preview: bool | None
    cancelled: asyncio.Event
    engine: PulumiDiagnostics


OWN_PROVIDER = "if the stream has a provider of its own, give the function the same: options provider or parent"
"""A function without these options asks the default provider, which may be configured for another engine or none."""

Result = tuple[dict[str, Any], list[Failure]]
A = TypeVar("A", bound=Model)


def _function(
    arguments: type[A], call: Callable[[Invocation, A], Awaitable[Model]]
) -> Callable[[Invocation, dict[str, Any]], Awaitable[Result]]:
    """Validate the arguments; invalid ones are failures of the call, not errors."""

    async def run(invocation: Invocation, raw: dict[str, Any]) -> Result:
        try:
            parsed = arguments.model_validate(raw)
        except ValidationError as error:
            return {}, failures_of(error, arguments, InvalidStream.code)
        try:
            return (await call(invocation, parsed)).wire(), []
        except (InvalidConfig, AgentUnreachable, StreamNotFound) as error:
            if invocation.connections.config.origin.resource is None:
                error.fix = f"{error.fix}; or, {OWN_PROVIDER}" if error.fix else OWN_PROVIDER
            raise

    return run


def _question(
    arguments: type[A], call: Callable[[Connections, A], Awaitable[Model]]
) -> Callable[[Invocation, dict[str, Any]], Awaitable[Result]]:
    """Make a function without an effect, which is the same in a preview."""
    return _function(arguments, lambda invocation, parsed: call(invocation.connections, parsed))


async def _replay(invocation: Invocation, args: ReplayArgs) -> Model:
    if invocation.preview is None:
        raise Unsupported(
            "replay cannot tell a preview from an update with this Pulumi", fix="use pulumi 3.206 or newer"
        )
    return await functions.replay(
        invocation.connections,
        args,
        preview=invocation.preview,
        limits=Limits(cancelled=invocation.cancelled),
        progress=invocation.engine.status,
    )


async def _status(invocation: Invocation, args: GetStreamStatusArgs) -> Model:
    found = await functions.get_stream_status(invocation.connections, args)
    if found.failure is not None:
        text = f"the status of {args.stream} is not known: {found.failure.message} [{found.failure.code}]"
        if found.failure.code == AgentUnreachable.code and invocation.connections.config.origin.resource is None:
            text = f"{text}\n  → {OWN_PROVIDER}"
        await invocation.engine.warn_once("", text)
    return found


FUNCTIONS: dict[str, Callable[[Invocation, dict[str, Any]], Awaitable[Result]]] = {
    "replicator:index:getCapabilities": _function(
        GetCapabilitiesArgs, lambda _, args: functions.get_capabilities(args)
    ),
    "replicator:index:getStreamStatus": _function(GetStreamStatusArgs, _status),
    "replicator:index:getStreamStatuses": _question(GetStreamStatusesArgs, functions.get_stream_statuses),
    "replicator:index:listStreams": _question(ListStreamsArgs, functions.list_streams),
    "replicator:index:planReplay": _question(PlanReplayArgs, functions.plan),
    "replicator:index:replay": _function(ReplayArgs, _replay),
}
