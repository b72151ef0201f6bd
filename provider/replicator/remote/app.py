"""An ASGI application that serves the replicators of this process."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from replicator import __version__
from replicator.errors import (
    AgentFault,
    AgentUnreachable,
    AgentVersion,
    InvalidStream,
    ReplicatorError,
    Unsupported,
)
from replicator.model import TEXT_LIMIT
from replicator.remote import versions
from replicator.remote.pending import Pending, wait_of
from replicator.remote.routes import (
    BODY_LIMIT,
    HEAD_LIMIT,
    INFO_PATH,
    OLDEST,
    OPERATION_PATH,
    OPERATIONS,
    PROTOCOL,
    PROTOCOL_HEADER,
    Info,
    Operation,
    is_older,
    is_spoken,
)
from replicator.remote.texts import refuse_controls
from replicator.remote.wire_errors import STATUS, invalid, to_wire
from replicator.replicator import Replicator

_log = logging.getLogger(__name__)


def build_app(
    replicators: Mapping[str, Replicator],
    *,
    info: Mapping[str, Any] | None = None,
    latency: timedelta = timedelta(),
    on_call: Callable[[str], None] | None = None,
) -> Starlette:
    """Return the ASGI application that serves replicators, each under its kind.

    It never calls `aclose` on them. A call continues when its client disconnects.

    :param info: more fields for `GET /v1/info`.
    :param latency: a delay before each operation, to simulate a remote engine.
    :param on_call: called with the method of each operation before it begins.
    """
    pending = Pending()
    calls = {operation.method: 0 for operation in OPERATIONS}
    started_at = datetime.now(UTC)

    def count(method: str) -> None:
        calls[method] += 1
        if on_call is not None:
            on_call(method)

    async def get_info(request: Request) -> Response:
        del request
        own = Info(
            protocol=PROTOCOL,
            version=__version__,
            kinds=sorted(replicators),
            pid=os.getpid(),
            started_at=started_at,
            calls=calls,
        )
        return _json(Info.model_validate({**(info or {}), **own.wire()}).model_dump_json().encode())

    def endpoint(operation: Operation[Any]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            try:
                content = await _read_content(request)
            except ClientDisconnect:
                return Response(status_code=499)
            except _TooLarge:
                return _refuse_body()
            wait = wait_of(request.headers)
            work = perform(request, content)
            try:
                return await (work if wait is None else pending.begin(work, wait))
            except AgentFault as full:
                return _refuse(full, HTTPStatus.SERVICE_UNAVAILABLE)

        async def perform(request: Request, content: bytes) -> Response:
            arguments = {name: request.path_params[name] for name in operation.in_path}
            stream = arguments.get("name")
            try:
                _check_lengths(request.path_params)
                refuse_controls(request.path_params)
                replicator = _choose(replicators, request.path_params["kind"])
                arguments |= _read_body(operation, content, stream)
                older = _spoken(request.headers) != str(PROTOCOL)
                if older:
                    arguments = versions.from_older_client(arguments)
                stream = stream or getattr(arguments.get("stream"), "name", None)
                count(operation.method)
                if latency:
                    await asyncio.sleep(latency.total_seconds())
                result = await getattr(replicator, operation.method)(**arguments)
                if older:
                    return _json(versions.to_older_client(operation, result, arguments.get("names")))
                return _json(operation.adapter.dump_json(result, by_alias=True))
            except ReplicatorError as error:
                return _refuse(error)
            except asyncio.CancelledError:
                return _refuse(
                    AgentUnreachable(
                        f"the agent stopped before {operation.method} ended; a part of it may have happened",
                        stream=stream,
                        fix="start the agent and run the command again, which is safe",
                    )
                )
            except Exception as error:
                _log.exception("%s of stream %s failed", operation.method, stream)
                text = f"{operation.method} failed with {type(error).__name__}, which the agent did not expect"
                return _refuse(AgentFault(text, stream=stream, fix="read the agent's log"))

        return handle

    async def ask(request: Request) -> Response:
        return await pending.ask(request.path_params["operation"], wait_of(request.headers) or 0.0)

    routes = [Route(INFO_PATH, get_info, methods=["GET"]), Route(OPERATION_PATH, ask, methods=["GET"])]
    routes += [Route(row.path, endpoint(row), methods=[row.verb]) for row in OPERATIONS]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(_Handshake)],
        exception_handlers={404: _refuse_route, 405: _refuse_route},
    )
    app.router.redirect_slashes = False
    return app


def _spoken(headers: Headers) -> str:
    return headers.get(PROTOCOL_HEADER, str(PROTOCOL))


class _Handshake:
    """Middleware that sets the protocol of every answer: the client's, if both speak it; else it refuses the client."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        spoken = _spoken(Headers(scope=scope))
        answered = spoken if is_spoken(spoken) else str(PROTOCOL)

        async def send_with_protocol(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[PROTOCOL_HEADER] = answered
            await send(message)

        if is_spoken(spoken):
            await self._app(scope, receive, send_with_protocol)
            return
        older, fix = "this agent", "upgrade replicator-provider on the agent's host, and restart the agent"
        if is_older(spoken):
            older, fix = "the client", "upgrade replicator-provider where the client runs"
        error = AgentVersion(
            f"the client speaks protocol {spoken}, this agent (version {__version__}) speaks protocols {OLDEST} to "
            f"{PROTOCOL}: {older} is older",
            fix=fix,
        )
        await _refuse(error)(scope, receive, send_with_protocol)


class _TooLarge(Exception):
    """The body has more than `BODY_LIMIT` bytes."""


async def _read_content(request: Request) -> bytes:
    """Return the body. Do not read one whose declared length is too large."""
    if int(request.headers.get("Content-Length", "0")) > BODY_LIMIT:
        raise _TooLarge
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > BODY_LIMIT:
            raise _TooLarge
    return bytes(content)


def _check_lengths(in_path: Mapping[str, str]) -> None:
    for name, value in in_path.items():
        if len(value) > TEXT_LIMIT:
            raise InvalidStream(f"it has {len(value)} characters; {TEXT_LIMIT} is the most", property=name)


def _choose(replicators: Mapping[str, Replicator], kind: str) -> Replicator:
    try:
        return replicators[kind]
    except KeyError:
        served = ", ".join(sorted(replicators)) or "nothing"
        raise Unsupported(
            f"the agent does not serve {kind!r}; it serves {served}", property="backend", fix="use another address"
        ) from None


def _read_body(operation: Operation[Any], content: bytes, stream: str | None) -> dict[str, Any]:
    if operation.body is None:
        return {}
    try:
        body = operation.body.model_validate_json(content or b"{}")
    except ValidationError as error:
        raise invalid(error, stream) from None
    refuse_controls(body.wire(), stream)
    return {name: getattr(body, name) for name in type(body).model_fields}


async def _refuse_route(request: Request, error: Exception) -> Response:
    del error
    assert isinstance(request, Request)
    return _refuse(
        AgentVersion(
            f"the agent (version {__version__}) has no operation {request.method} {request.url.path}",
            fix="install the same version of replicator-provider on both sides",
        )
    )


def _refuse_body() -> Response:
    error = InvalidStream(f"the body of the request has more than {BODY_LIMIT} bytes", fix="send less")
    return _refuse(error, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, Connection="close")


def refuse_garbage() -> Response:
    """Return the answer to a malformed request."""
    error = InvalidStream(f"this is no HTTP request, or its head has more than {HEAD_LIMIT} bytes")
    return _refuse(error, HTTPStatus.BAD_REQUEST, Connection="close", **{PROTOCOL_HEADER: str(PROTOCOL)})


def _refuse(error: ReplicatorError, status: int | None = None, **headers: str) -> Response:
    return _json(to_wire(error).model_dump_json().encode(), status or STATUS[error.category], headers)


def _json(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content, status, headers, media_type="application/json")
