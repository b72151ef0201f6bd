"""What every call of the provider protocol needs: a place among the running calls, and faults as gRPC statuses.

Pulumi reads some faults from a protobuf in the trailing metadata, so that a resource which was made but is not well
keeps its id in state, and so that missing configuration is named in a hint.
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
    """Trailing metadata that carries protobufs beside a status. Code and message must equal those of the abort."""
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
    """End Create, Update or Read: the resource exists under `id`, but is not well, for these reasons.

    Pulumi stores id, properties, inputs and reasons, and runs Update the next time.

    :param refresh_first: it reads the resource again before that, and leaves one alone that has recovered by then.
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
    """End Configure: these configuration keys are missing; each value says what the key is for.

    Pulumi prints the keys as they stand in `pulumi config set KEY <value>`, so they bear the package's name:
    `replicator:token`.
    """
    code, message = grpc.StatusCode.INVALID_ARGUMENT, f"missing configuration: {', '.join(keys)}"
    missing = pb.ConfigureErrorMissingKeys(
        missingKeys=[
            pb.ConfigureErrorMissingKeys.MissingKey(name=name, description=text) for name, text in keys.items()
        ]
    )
    await context.abort(code, message, trailing_metadata=details(code, message, missing))


class Calls:
    """The calls that run now, and the event that tells them to come to an end.

    A call takes `cancel` when it starts and looks at that object only: `reset` puts a new event in its place, because
    one process may serve several Pulumi operations, each of which ends with a Cancel.
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
        """The call is over."""
        self._running.discard(task)
        self._stopped.discard(task)

    def owes_reply(self, task: asyncio.Task[Any]) -> bool:
        """Tell whether the client of a call that met CancelledError still waits: nobody but us cancelled the call."""
        return task in self._stopped or not task.cancelling()

    def reset(self) -> None:
        """Begin a new operation: calls from now on are not cancelled."""
        self.cancel = asyncio.Event()

    async def cancel_all(self, grace: float) -> None:
        """Set `cancel`, leave the running calls `grace` seconds to end well, and stop those that did not."""
        self.cancel.set()
        others = self._running - {asyncio.current_task()}
        if not others:
            return
        _, late = await asyncio.wait(others, timeout=grace)
        for task in late:
            self._stopped.add(task)
            task.cancel()


class Host(Protocol):
    """What `rpc` needs of the servicer."""

    @property
    def calls(self) -> Calls:
        """Return the running calls."""

    @property
    def engine(self) -> PulumiDiagnostics:
        """Return where tracebacks go."""

    @property
    def redact(self) -> Callable[[str], str]:
        """Takes secrets out of a text."""

    @property
    def status_of(self) -> StatusOf:
        """Return the status of an error that is known, None for one that is not."""


H = TypeVar("H", bound=Host)
Request = TypeVar("Request")
Reply = TypeVar("Reply")


def rpc(
    method: Callable[[H, Request, Context], Awaitable[Reply]],
) -> Callable[[H, Request, Context], Coroutine[Any, Any, Reply]]:
    """Make an async method a call of the protocol: it is registered in `calls`, and what it raises becomes a status.

    A known error takes the code and text that `status_of` gives. Any other is INTERNAL with one line; its traceback
    goes to the engine's debug log. An abort passes as it is.
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
    """Return the single error of a task group, which says more than the group."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _unexpected(engine: PulumiDiagnostics, name: str, error: Exception) -> tuple[grpc.StatusCode, str]:
    await engine.debug("".join(traceback.format_exception(error)))
    line = " ".join(str(error).split())
    text = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return grpc.StatusCode.INTERNAL, f"{name} failed unexpectedly: {text} [RPL-PLUGIN-FAULT]; --debug shows where"
