"""Functions on a stream. They run inside the program, each time it runs; none has an effect in a preview."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import pulumi
from pulumi.runtime.rpc import translate_output_properties
from pydantic import ValidationError

from replicator.dynamic import event_loop
from replicator.dynamic.outputs import ReplayResult, StreamReport
from replicator.errors import InvalidStream, ReplicatorError
from replicator.lifecycle import functions
from replicator.lifecycle.connections import Connections
from replicator.lifecycle.failure import failures_of
from replicator.lifecycle.function_types import GetStreamStatusArgs, ReplayArgs
from replicator.lifecycle.wait import Limits
from replicator.model import Checkpoint, Model

A = TypeVar("A", bound=Model)


def get_stream_status(stream: pulumi.Input[str]) -> pulumi.Output[StreamReport]:
    """Return the engine's current report of a stream. The resource's outputs are as old as the last update or refresh.

    :param stream: the stream's id, `<backend>/<region or "default">/<name>`.
    """
    found: pulumi.Output[StreamReport] = _call(
        "get_stream_status", GetStreamStatusArgs, {"stream": stream}, functions.get_stream_status, StreamReport
    )
    return found


def replay(
    stream: pulumi.Input[str],
    *,
    start: pulumi.Input[Checkpoint | Mapping[str, Any]],
    idempotency_key: pulumi.Input[str],
    method: pulumi.Input[str] | None = None,
    target: pulumi.Input[str] | None = None,
) -> pulumi.Output[ReplayResult]:
    """Send the changes since a position or a time again, or make a copy as of then, and wait until that is done.

    It runs once per key: with the same key it returns the result of the first run. In a preview it changes nothing and
    returns the plan.

    :param stream: the stream's id, `<backend>/<region or "default">/<name>`.
    :param start: the position (`lsn`) or the time (`wall`) to replay from.
    :param idempotency_key: names this replay.
    :param method: how to replay; the default is the least harmful exact method.
    :param target: where a copy goes; for the methods that write one.
    """
    preview = pulumi.runtime.is_dry_run()

    async def run(connections: Connections, args: ReplayArgs) -> Model:
        return await functions.replay(connections, args, preview=preview, limits=Limits())

    given = {"stream": stream, "start": start, "idempotencyKey": idempotency_key, "method": method, "target": target}
    found: pulumi.Output[ReplayResult] = _call("replay", ReplayArgs, given, run, ReplayResult)
    return found


def _call(
    function: str,
    arguments: type[A],
    given: Mapping[str, Any],
    call: Callable[[Connections, A], Coroutine[Any, Any, Model]],
    result: type,
) -> Any:
    """Return the call as an output, known when its arguments are. Its errors end the program with one sentence."""

    async def run(known: Mapping[str, Any]) -> Any:
        try:
            args = arguments.model_validate({key: value for key, value in known.items() if value is not None})
            calling = call(event_loop.connections(_setting), args)
            found = await asyncio.wrap_future(event_loop.submit(calling))
        except ValidationError as error:
            text = "; ".join(str(failure) for failure in failures_of(error, arguments, InvalidStream.code))
            raise pulumi.RunError(f"{function}: {text}") from None
        except ReplicatorError as error:
            raise pulumi.RunError(f"{function}: {error}") from None
        return translate_output_properties(found.wire(), lambda name: name, result)

    return pulumi.Output.from_input(dict(given)).apply(run)


def _setting(key: str) -> str | None:
    package, _, name = key.partition(":")
    return pulumi.Config(package).get(name)
