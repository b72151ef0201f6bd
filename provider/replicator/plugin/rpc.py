"""Common parts of all calls of the provider protocol: a registry of running calls, and errors as gRPC statuses.

Pulumi reads some errors from a protobuf in the trailing metadata. So a resource that was created but is unhealthy keeps
its id in the state, and a hint names missing configuration.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from functools import wraps
from typing import Any, NoReturn, Protocol, TypeAlias, TypeVar

import grpc.aio
from google.protobuf.message import Message

from replicator.plugin._proto import pb, status_pb2
from replicator.plugin.codec import encode
from replicator.plugin.pulumi_engine import PulumiDiagnostics

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
StatusOf: TypeAlias = Callable[[BaseException], tuple[grpc.StatusCode, str] | None]


def details(code: grpc.StatusCode, message: str, *protos: Message) -> tuple[tuple[str, bytes], ...]:
    """Return trailing metadata with protobufs beside a status. Code and message must equal those of the abort."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for proto in protos:
        status.details.add().Pack(proto)
    return (("grpc-status-details-bin", status.SerializeToString()),)


async def abort_init_failed(
    context: Context,
    id: str,
    properties: Mapping[str, Any],
    reasons: Iterable[str],
    inputs: Mapping[str, Any],
    *,
    refresh_first: bool = True,
) -> NoReturn:
    """Abort Create, Update or Read: the resource exists under `id`, but is unhealthy, for these reasons.

    Pulumi stores id, properties, inputs and reasons, and runs Update the next time.

    :param refresh_first: Pulumi first reads the resource again, and runs no Update if it has recovered.
    """
    listed = list(reasons)
    code, message = grpc.StatusCode.FAILED_PRECONDITION, "; ".join(listed)
    failure = pb.ErrorResourceInitFailed(
        id=id,
        properties=encode(properties),
        reasons=listed,
        inputs=encode(inputs),
        refresh_before_update=refresh_first,
    )
    await context.abort(code, message, trailing_metadata=details(code, message, failure))


async def abort_missing_keys(context: Context, keys: Mapping[str, str]) -> NoReturn:
    """Abort Configure: these configuration keys are missing; each value says what the key is for.

    Pulumi prints the keys as in `pulumi config set KEY <value>`, so they have the package's name: `replicator:token`.
    """
    code, message = grpc.StatusCode.INVALID_ARGUMENT, f"missing configuration: {', '.join(keys)}"
    missing = pb.ConfigureErrorMissingKeys(
        missingKeys=[
            pb.ConfigureErrorMissingKeys.MissingKey(name=name, description=text) for name, text in keys.items()
        ]
    )
    await context.abort(code, message, trailing_metadata=details(code, message, missing))


class Calls:
    """The running calls, and the event that tells them to end.

    A call takes `cancel` when it starts, and uses only that object: `reset` replaces the event, because one process may
    serve several Pulumi operations, each of which ends with a Cancel.
    """

    def __init__(self) -> None:
        self.cancel = asyncio.Event()
        self._running: set[asyncio.Task[Any]] = set()
        self._stopped: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self) -> asyncio.Task[Any]:
        """Register the current task as a running call."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call runs in a task")
        self._running.add(task)
        return task

    def end(self, task: asyncio.Task[Any]) -> None:
        """Remove the call, which has ended."""
        self._running.discard(task)
        self._stopped.discard(task)

    def owes_reply(self, task: asyncio.Task[Any]) -> bool:
        """Tell whether a cancelled call's client still waits: this process cancelled it, not the client."""
        return task in self._stopped or not task.cancelling()

    def reset(self) -> None:
        """Start a new operation, whose calls are not cancelled."""
        self.cancel = asyncio.Event()

    async def cancel_all(self, grace: float) -> None:
        """Set `cancel`, give the running calls `grace` seconds to end, and stop those that did not."""
        self.cancel.set()
        others = self._running - {asyncio.current_task()}
        if not others:
            return
        _, late = await asyncio.wait(others, timeout=grace)
        for task in late:
            self._stopped.add(task)
            task.cancel()


class Host(Protocol):
    """The part of the servicer that `rpc` needs."""

    @property
    def calls(self) -> Calls:
        """Return the running calls."""

    @property
    def engine(self) -> PulumiDiagnostics:
        """Return the log that receives tracebacks."""

    @property
    def redact(self) -> Callable[[str], str]:
        """Return the function that removes secrets from a text."""

    @property
    def status_of(self) -> StatusOf:
        """Return the status of a known error, None for any other."""


H = TypeVar("H", bound=Host)
Request = TypeVar("Request")
Reply = TypeVar("Reply")


def rpc(
    method: Callable[[H, Request, Context], Awaitable[Reply]],
) -> Callable[[H, Request, Context], Coroutine[Any, Any, Reply]]:
    """Make an async method a call of the protocol: it is registered in `calls`, and its exceptions become statuses.

    A known error gets the code and text of `status_of`. Any other is INTERNAL with one line, and its traceback goes to
    the engine's debug log. An abort passes unchanged.
    """

    @wraps(method)
    async def call(self: H, request: Request, context: Context) -> Reply:
        task = self.calls.start()
        try:
            return await method(self, request, context)
        except asyncio.CancelledError:
            if not self.calls.owes_reply(task):
                raise
            task.uncancel()
            await context.abort(grpc.StatusCode.CANCELLED, f"{method.__name__} was cancelled before it was done")
        except Exception as raised:
            error = _only(raised)
            if isinstance(error, grpc.aio.AbortError):
                raise error from None
            code, text = self.status_of(error) or await _unexpected(self.engine, method.__name__, error)
            await context.abort(code, self.redact(text))
        finally:
            self.calls.end(task)

    return call


def _only(error: Exception) -> Exception:
    """Return the single error in a task group's error, since it says more than the group."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _unexpected(engine: PulumiDiagnostics, name: str, error: Exception) -> tuple[grpc.StatusCode, str]:
    await engine.debug("".join(traceback.format_exception(error)))
    line = " ".join(str(error).split())
    text = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return grpc.StatusCode.INTERNAL, f"{name} failed unexpectedly: {text} [RPL-PLUGIN-FAULT]; --debug shows where"
