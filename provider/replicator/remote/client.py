"""The client of a remote Replicator."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from replicator.errors import AgentFault, AgentVersion, InvalidStream, ReplicatorError
from replicator.http_unix import Response
from replicator.model import TEXT_LIMIT, Checkpoint, Endpoint, Owner, Stream, StreamStatus
from replicator.progress import tell
from replicator.remote import routes, versions
from replicator.remote.connection import Connection
from replicator.remote.routes import OLDEST, PROTOCOL, PROTOCOL_HEADER, Info, Operation, is_older, is_spoken
from replicator.remote.wire_errors import from_wire, invalid
from replicator.replicator import (
    Adoption,
    Description,
    EndHints,
    Finding,
    LogLines,
    Proposal,
    ReplayMethod,
    ReplayPlan,
    ReplayProgress,
    Takeover,
    Unmanaged,
)

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

_NO_TEXT = re.compile(r"[\x00-\x1f\ud800-\udfff]")  # control characters and lone surrogates
_FIRST_ERROR = 300


class RemoteReplicator:
    """The backend `kind` of the agent at `address`, as a Replicator.

    It connects on the first call. Clients of one address share a pool of connections. In addition to the errors of the
    backend itself, every call raises `AgentUnreachable`, `AgentVersion`, `AgentFault` or `EngineUnavailable`.

    :param address: `unix:///absolute/path` or `ssh://user@host:port/path`; raise `InvalidConfig` for anything else.
    :param start_hint: the fix for the user if no agent runs.
    :param timeout: how long to wait for one answer, which may be that the operation is still running.
    :param transport: replaces the socket, as in `httpx.ASGITransport(app)`.
    """

    def __init__(
        self,
        kind: str,
        address: str,
        *,
        start_hint: str,
        timeout: timedelta = timedelta(seconds=60),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.kind = kind
        self.address = address
        self._connection = Connection(address, timeout=timeout, start_hint=start_hint, transport=transport)

    async def upsert_stream(self, stream: Stream) -> None:
        return await self._call(routes.UPSERT_STREAM, stream=stream)

    async def adopt_stream(self, stream: Stream, *, dry_run: bool = False) -> Adoption:
        return await self._call(routes.ADOPT_STREAM, stream=stream, dry_run=dry_run)

    async def look_at_destination(self, destination: Endpoint, database: Endpoint | None = None) -> Takeover:
        return await self._call(routes.LOOK_AT_DESTINATION, destination=destination, database=database)

    async def take_over(self, destination: Endpoint, former: str | None) -> None:
        return await self._call(routes.TAKE_OVER, destination=destination, former=former)

    async def unmanaged(self) -> list[Unmanaged]:
        return await self._call(routes.UNMANAGED)

    async def propose(self, name: str, source: EndHints, destination: EndHints) -> Proposal:
        return await self._call(routes.PROPOSE, name=name, source=source, destination=destination)

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> bool:
        return await self._call(routes.DELETE_STREAM, name=name, owner=owner)

    async def list_streams(self) -> list[Stream]:
        return await self._call(routes.LIST_STREAMS)

    async def get_status(self, name: str) -> StreamStatus:
        return await self._call(routes.GET_STATUS, name=name)

    async def log(self, name: str, *, after: str | None = None, lines: int = 100) -> LogLines:
        return await self._call(routes.LOG, name=name, after=after, lines=lines)

    async def pause(self, name: str) -> None:
        return await self._call(routes.PAUSE, name=name)

    async def resume(self, name: str) -> None:
        return await self._call(routes.RESUME, name=name)

    async def replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        key: str,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayProgress:
        return await self._call(routes.REPLAY, name=name, start=start, key=key, method=method, target=target)

    async def get_replay(self, name: str, key: str) -> ReplayProgress:
        return await self._call(routes.GET_REPLAY, name=name, key=key)

    async def list_replays(self, name: str) -> list[ReplayProgress]:
        return await self._call(routes.LIST_REPLAYS, name=name)

    async def plan_replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayPlan:
        return await self._call(routes.PLAN_REPLAY, name=name, start=start, method=method, target=target)

    async def preflight(self, stream: Stream) -> list[Finding]:
        return await self._call(routes.PREFLIGHT, stream=stream)

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        return await self._call(routes.DESCRIBE, names=None if names is None else list(names))

    async def overview(self) -> list[Description]:
        return await self._call(routes.OVERVIEW)

    async def identity(self) -> str | None:
        await self.info()  # learns the agent's protocol
        return None if self._speaks_older else await self._call(routes.IDENTITY)

    async def info(self) -> Info:
        """Return the identity of the agent at the address."""
        reply = await self._send("GET", routes.INFO_PATH, lambda: b"")
        try:
            return Info.model_validate_json(reply.content)
        except ValidationError as error:
            raise self._unreadable("info") from error

    async def aclose(self) -> None:
        """Release the connections of the running event loop. A later call opens new ones."""
        await self._connection.aclose()

    async def _call(self, operation: Operation[T], **arguments: Any) -> T:
        path = _fill_path(operation, self.kind, {name: arguments.pop(name) for name in operation.in_path})
        reply = await self._send(operation.verb, path, lambda: self._body(operation, arguments))
        content = reply.content
        if self._speaks_older:
            content = versions.from_older_agent(operation, content)
        try:
            return operation.adapter.validate_json(content)
        except ValidationError as error:
            raise self._unreadable(operation.method) from error

    @property
    def _speaks_older(self) -> bool:
        return self._connection.protocol < PROTOCOL

    def _body(self, operation: Operation[Any], arguments: dict[str, Any]) -> bytes:
        if operation.body is None:
            return b""
        if self._speaks_older:
            arguments = versions.to_older_agent(arguments, self.address)
        else:
            arguments = versions.to_agent(arguments)
        try:
            content = operation.body(**arguments).model_dump_json().encode()
        except ValidationError as error:
            raise invalid(error, None) from None
        if len(content) > routes.BODY_LIMIT:
            raise InvalidStream(f"it has {len(content)} bytes as JSON; an agent takes {routes.BODY_LIMIT}")
        return content

    async def _send(self, verb: str, path: str, body: Callable[[], bytes]) -> Response:
        """Return the answer. A peer that refuses the protocol has done nothing: repeat the request in its own."""
        reply = await self._connection.send(verb, path, body())
        while reply.status == routes.ACCEPTED:
            reply = await self._ask_again(reply, verb, path, body())
        spoken = reply.headers.get(PROTOCOL_HEADER.lower(), "")
        if is_spoken(spoken) and int(spoken) < self._connection.protocol:
            self._connection.protocol = int(spoken)
            reply = await self._connection.send(verb, path, body())
        self._check(reply)
        return reply

    async def _ask_again(self, reply: Response, verb: str, path: str, body: bytes) -> Response:
        """Return the next answer to a running operation. Repeat the request if the agent has forgotten it."""
        try:
            goes_on = routes.Accepted.model_validate_json(reply.content)
        except ValidationError as error:
            raise self._unreadable("an operation that continues") from error
        if goes_on.progress:
            tell(goes_on.progress)
        try:
            reply = await self._connection.send("GET", _fill(routes.OPERATION_PATH, "operation", goes_on.operation))
            if reply.status == routes.GONE:
                reply = await self._connection.send(verb, path, body)
        except ReplicatorError as error:
            error.unfinished = True
            raise
        return reply

    def _check(self, reply: Response) -> None:
        """Raise the error in the answer, after a check of its sender."""
        spoken = reply.headers.get(PROTOCOL_HEADER.lower())
        if spoken is None:
            raise AgentVersion(
                f"what answers at {self.address} does not say a replicator protocol (HTTP {reply.status})",
                property="address",
                fix="give the address of an agent",
            )
        if not is_spoken(spoken):
            older, fix = "this client", "upgrade replicator-provider here, to the agent's version"
            if is_older(spoken):
                older, fix = "the agent", "upgrade replicator-provider on the agent's host, and restart the agent"
            raise AgentVersion(
                f"the agent at {self.address} speaks protocol {spoken}, this client speaks protocols {OLDEST} to "
                f"{PROTOCOL}: {older} is older",
                fix=fix,
            )
        if reply.status >= _FIRST_ERROR:
            raise from_wire(reply.content, reply.status)

    def _unreadable(self, method: str) -> AgentFault:
        return AgentFault(
            f"the answer of the agent at {self.address} to {method} cannot be read",
            fix="install the same version of replicator-provider on both sides",
        )


def _fill_path(operation: Operation[Any], kind: str, arguments: dict[str, str]) -> str:
    path = operation.path.replace("{kind}", quote(kind, safe=""))
    for name, value in arguments.items():
        path = _fill(path, name, value)
    return path


def _fill(path: str, name: str, value: str) -> str:
    slashes = f"{{{name}:path}}" in path
    if len(value) > TEXT_LIMIT:
        raise InvalidStream(f"it has {len(value)} characters; {TEXT_LIMIT} is the most", property=name)
    if not value or (not slashes and "/" in value) or _NO_TEXT.search(value):
        raise InvalidStream(f"{value!r} cannot be a {name}", property=name)
    # Dots are encoded too, since `.` and `..` would be path segments.
    encoded = quote(value, safe="").replace(".", "%2E")
    return path.replace(f"{{{name}:path}}" if slashes else f"{{{name}}}", encoded)
