"""Requests to an agent on another host, through a tunnel that is opened on first use and again when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from replicator.errors import AgentUnreachable, ForwardingRefused, InvalidConfig, ReplicatorError
from replicator.http_unix import BrokenError, ConnectError, Response, UnixTransport
from replicator.remote.address import SshAddress, is_socket_path
from replicator.remote.ssh.ask import Why, where, why
from replicator.remote.ssh.stderr import OPEN_FAILED
from replicator.remote.ssh.tunnel import Tunnel

REMEMBER = 5.0
"""Seconds that a failure counts for everybody: hundreds of streams do not make as many logins that fail."""

_END_WITHIN = 0.3
"""Seconds from the end of ssh's connections to the end of its process."""


class SshTransport:
    """Requests to the socket of an address. Belongs to one event loop.

    A failure that waiting cannot resolve is raised as the `AgentUnreachable` that it is; one that may pass is the cause
    of a `ConnectError` or `BrokenError`.

    :param start_hint: what a person does where no agent runs.
    """

    def __init__(self, address: SshAddress, start_hint: str) -> None:
        self._address = address
        self._socket = address.socket
        self._start_hint = start_hint
        self._turn = asyncio.Lock()
        self._open: tuple[Tunnel, UnixTransport] | None = None
        self._failure: tuple[float, ReplicatorError] | None = None
        self._why: tuple[float, Why] | None = None
        self._answered = False

    async def request(self, verb: str, path: str, headers: Mapping[str, str], content: bytes) -> Response:
        """Send a request and read its answer."""
        tunnel, exchange = await self._ready()
        before = tunnel.mark()
        try:
            reply = await exchange.request(verb, path, headers, content)
        except (ConnectError, BrokenError):
            if OPEN_FAILED in tunnel.said(before):
                fault = await self._explain()
                raise ConnectError(fault.message) from fault
            if await tunnel.ended(_END_WITHIN):
                fault = tunnel.fault()
                raise BrokenError(fault.message) from fault
            raise
        self._answered = True
        return reply

    async def aclose(self) -> None:
        """Close what is open, and end ssh."""
        async with self._turn:
            await self._close()

    async def _ready(self) -> tuple[Tunnel, UnixTransport]:
        async with self._turn:
            if self._open is not None and self._open[0].alive:
                return self._open
            if self._failure is not None and self._is_fresh(self._failure[0]):
                raise self._failure[1]
            await self._close()
            try:
                tunnel = await Tunnel.open(self._address, await self._find_socket())
            except ReplicatorError as error:
                self._failure = (asyncio.get_running_loop().time(), error)
                raise
            self._open = (tunnel, UnixTransport(tunnel.socket))
            return self._open

    async def _find_socket(self) -> str:
        if self._socket is None:
            found = await where(self._address)
            if found is None or not is_socket_path(found):
                raise InvalidConfig(
                    f"{self._address.host} does not say where the agent of this login listens"
                    + (f": {found!r} cannot be forwarded" if found else ""),
                    property="address",
                    fix="write the path into the address, as in ssh://user@host/run/replicator/agent.sock",
                )
            self._socket = found
        return self._socket

    async def _explain(self) -> AgentUnreachable:
        """The error behind a connection that the host did not make. Raised where waiting cannot resolve it."""
        host, socket = self._address.host, self._socket
        async with self._turn:
            if self._why is None or not self._is_fresh(self._why[0]):
                assert socket is not None
                reason = await why(self._address, socket)
                self._why = (asyncio.get_running_loop().time(), reason)
            reason = self._why[1]
        match reason:
            case Why.MISSING:
                fault = AgentUnreachable(f"no agent runs on {host}: there is no socket {socket}", fix=self._start_hint)
                if not self._answered:
                    raise fault
                return fault
            case Why.DENIED:
                raise AgentUnreachable(
                    f"the login has no permission on the agent's socket {socket} on {host}",
                    fix="log in as its owner, or start the agent with a --socket-group that the login is in",
                )
            case Why.DEAD:
                return AgentUnreachable(
                    f"no agent runs on {host}: the socket {socket} is there, but nothing listens",
                    fix=self._start_hint,
                )
            case Why.LISTENS if not self._answered:
                return ForwardingRefused(
                    f"{host} lets this login forward nothing to {socket}, where an agent listens",
                    fix="for this login, sshd_config needs AllowTcpForwarding local, AllowStreamLocalForwarding yes, "
                    "no DisableForwarding and no PermitOpen; after restrict its key needs port-forwarding",
                )
            case _:
                return AgentUnreachable(
                    f"{host} makes no connection to {socket}, and does not say why",
                    fix=f"see whether an agent runs there ({self._start_hint}), whether the login may use its socket, "
                    "and whether sshd allows AllowTcpForwarding local",
                )

    async def _close(self) -> None:
        if self._open is not None:
            tunnel, exchange = self._open
            self._open = None
            await exchange.aclose()
            await tunnel.aclose()

    def _is_fresh(self, moment: float) -> bool:
        return asyncio.get_running_loop().time() - moment < REMEMBER
