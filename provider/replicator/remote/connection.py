"""The connection to an agent: its address, a shared pool, and retries."""

from __future__ import annotations

import asyncio
import grp
import stat
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from replicator.backoff import Backoff
from replicator.errors import AgentUnreachable, EngineUnavailable
from replicator.http_unix import BrokenError, ConnectError, Response, Transport, UnixTransport
from replicator.remote.address import Address, SshAddress, parse_address
from replicator.remote.routes import PREFER_HEADER, PROTOCOL, PROTOCOL_HEADER

if TYPE_CHECKING:
    import httpx

RETRY_FOR = timedelta(seconds=2.5)
"""How long after a first failure a retry may begin: a restarting agent is back by then."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.4
_CONNECTIONS = 64
_WAIT_FOR = 10  # seconds after which the agent answers that an operation is still running


@dataclass(eq=False)
class _Shared:
    """The connection pool of one address in one event loop."""

    exchange: Transport
    protocol: int = PROTOCOL
    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CONNECTIONS))
    users: set[Connection] = field(default_factory=set)
    answered: bool = False


_shared: dict[asyncio.AbstractEventLoop, dict[str, _Shared]] = {}


class Connection:
    """A connection that sends requests to one address, and retries after failures that a restart can cause.

    Every operation of the `Replicator` interface is idempotent, so a request without an answer is sent again.

    :param timeout: how long to wait for an answer.
    :param start_hint: the fix for the user if no agent runs.
    :param transport: replaces the socket; it is not shared.
    """

    def __init__(
        self, address: str, *, timeout: timedelta, start_hint: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.address = address
        self._at = parse_address(address)
        self._timeout = timeout.total_seconds()
        self._start_hint = start_hint
        self._transport = transport
        self._key = address if transport is None else f"{address} through {id(transport)}"

    @property
    def protocol(self) -> int:
        """Return the protocol of the peer; this side's own until the peer answers."""
        return self._lease().protocol

    @protocol.setter
    def protocol(self, spoken: int) -> None:
        self._lease().protocol = spoken

    async def send(self, verb: str, path: str, content: bytes = b"") -> Response:
        """Send a request, and return the answer with any status.

        Raise `AgentUnreachable` without an answer, `EngineUnavailable` if it takes too long.
        """
        shared = self._lease()
        headers = {
            PROTOCOL_HEADER: str(shared.protocol),
            PREFER_HEADER: f"respond-async, wait={_WAIT_FOR}",
            "Content-Type": "application/json",
        }
        now = asyncio.get_running_loop().time
        backoff, last_start, broken = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE), None, False
        while True:
            try:
                # Wait for a free connection first: time in the queue does not count.
                async with shared.free, asyncio.timeout(self._timeout):
                    reply = await shared.exchange.request(verb, path, headers, content)
            except TimeoutError as error:
                late = EngineUnavailable(
                    f"the agent at {self.address} did not answer in {self._timeout:g} s; "
                    "that says nothing about the stream",
                    fix="try again; if it stays so, read the agent's log",
                )
                late.unfinished = True
                raise late from error
            except (ConnectError, BrokenError) as error:
                last_start = last_start or now() + RETRY_FOR.total_seconds()
                broken = broken or isinstance(error, BrokenError)
                shared.protocol = PROTOCOL  # the agent may be upgraded when it is back
                if now() + backoff.delay > last_start or not _may_pass(error, shared.answered):
                    failure = self._explain(error)
                    failure.unfinished = broken
                    raise failure from error
            except AgentUnreachable as error:
                if not broken:
                    raise
                failure = copy(error)  # other calls get the same error object
                failure.unfinished = True
                raise failure from error
            else:
                shared.answered = True
                return reply
            await asyncio.sleep(backoff.grow())

    async def aclose(self) -> None:
        """Release the connections of the running event loop; the last user closes them."""
        here = _shared.get(asyncio.get_running_loop(), {})
        shared = here.get(self._key)
        if shared is None:
            return
        shared.users.discard(self)
        if not shared.users:
            del here[self._key]
            await shared.exchange.aclose()

    def _lease(self) -> _Shared:
        loop = asyncio.get_running_loop()
        if loop not in _shared:
            for closed in [other for other in _shared if other.is_closed()]:
                del _shared[closed]
        here = _shared.setdefault(loop, {})
        if (shared := here.get(self._key)) is None:
            shared = here[self._key] = _Shared(self._open())
        shared.users.add(self)
        return shared

    def _open(self) -> Transport:
        if self._transport is not None:
            return _HttpxTransport(self._transport)
        if isinstance(self._at, SshAddress):
            from replicator.remote.ssh.transport import SshTransport

            return SshTransport(self._at, self._start_hint)
        return UnixTransport(self._at.path)

    def _explain(self, error: ConnectError | BrokenError) -> AgentUnreachable:
        cause = error.__cause__
        if isinstance(cause, AgentUnreachable):
            return cause
        if isinstance(error, ConnectError):
            return no_connection(cause if isinstance(cause, OSError) else error, self.address, self._start_hint)
        return AgentUnreachable(
            f"the agent at {self.address} broke the connection before it answered ({error}); "
            "the call may have happened",
            fix="run the command again, which is safe; if it stays so, read the agent's log",
        )


def no_connection(error: Exception, address: str, start_hint: str) -> AgentUnreachable:
    """Return the error for a failed connection to a socket of this host.

    :param error: the system's error.
    """
    if isinstance(error, PermissionError):
        return AgentUnreachable(
            f"no permission on the agent's socket at {address}{_describe(parse_address(address))}",
            fix="run as the owner of the socket, or start the agent with a --socket-group that you are in",
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return AgentUnreachable(f"no agent runs at {address}: the socket is not there", fix=start_hint)
    if isinstance(error, ConnectionRefusedError):
        return AgentUnreachable(f"no agent runs at {address}: the socket is there, but nothing listens", fix=start_hint)
    return AgentUnreachable(f"cannot connect to the agent at {address}: {error}", fix=start_hint)


def _may_pass(error: ConnectError | BrokenError, answered: bool) -> bool:
    """Tell whether a retry may help. An agent that answered before may be restarting while its socket is missing."""
    cause = error.__cause__
    if isinstance(cause, PermissionError):
        return False
    return answered or not isinstance(cause, FileNotFoundError | NotADirectoryError)


def _describe(at: Address) -> str:
    """Return mode and group of a socket, in words, as far as this user may see them."""
    if isinstance(at, SshAddress):
        return ""
    try:
        found = at.path.stat()
        group = grp.getgrgid(found.st_gid).gr_name
    except (OSError, KeyError):
        return ""
    return f", which has mode {stat.S_IMODE(found.st_mode):04o} and group {group}"


class _HttpxTransport:
    """A transport of httpx, such as `httpx.ASGITransport(app)`."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def request(self, verb: str, path: str, headers: Mapping[str, str], content: bytes) -> Response:
        """Send a request and read its answer."""
        import httpx

        request = httpx.Request(verb, f"http://agent{path}", headers=dict(headers), content=content)
        try:
            response = await self._transport.handle_async_request(request)
            await response.aread()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ConnectError(str(error)) from error
        except httpx.TransportError as error:
            raise BrokenError(str(error)) from error
        return Response(response.status_code, dict(response.headers), response.content)

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()
