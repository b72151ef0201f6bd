"""The fallback for a host without `replicator agent dial-stdio`, for one release: ssh forwards the agent's socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from replicator.errors import AgentUnreachable, ForwardingRefused, InvalidConfig
from replicator.http_unix import BrokenError, ConnectError, Response, UnixTransport
from replicator.remote.address import SshAddress, is_socket_path
from replicator.remote.ssh.ask import where, why
from replicator.remote.ssh.frames import Why
from replicator.remote.ssh.stderr import may_pass, no_connection
from replicator.remote.ssh.tunnel import Tunnel

REMEMBER = 5.0
"""Seconds for which the host's answer about the socket is shared by all callers."""

_END_WITHIN = 0.3
"""Seconds from the end of ssh's connections to the end of its process."""

_OPEN_FAILED = "open failed:"
"""A part of the line that ssh logs when the host did not connect a forwarded connection. It never tells why."""

_INSTALL = "install replicator-provider there, so that `ssh host replicator` runs"


class Forwarding:
    """A transport of requests through a tunnel. The caller that opens it closes it.

    :param installed: whether the host has the program `replicator`, of the last release.
    """

    def __init__(self, address: SshAddress, socket: str, tunnel: Tunnel, start_hint: str, *, installed: bool) -> None:
        self._host = address.host
        self._address = address
        self._socket = socket
        self._tunnel = tunnel
        self._transport = UnixTransport(tunnel.socket)
        self._start_hint = start_hint
        self._installed = installed
        self._turn = asyncio.Lock()
        self._why: tuple[float, Why] | None = None

    @classmethod
    async def open(cls, address: SshAddress, start_hint: str, *, installed: bool) -> Forwarding:
        """Start ssh, and wait for its socket. Raise `AgentUnreachable` or `InvalidConfig` with the reason."""
        socket = address.socket or await _find_socket(address)
        tunnel = await Tunnel.open(address, socket)
        return cls(address, socket, tunnel, start_hint, installed=installed)

    @property
    def alive(self) -> bool:
        """Tell whether ssh runs."""
        return self._tunnel.process.alive

    async def request(
        self, verb: str, path: str, headers: Mapping[str, str], content: bytes, *, answered: bool
    ) -> Response:
        """Send a request and read its answer.

        :param answered: whether the agent has answered before, so that it may be restarting.
        """
        process = self._tunnel.process
        before = process.mark()
        try:
            return await self._transport.request(verb, path, headers, content)
        except (ConnectError, BrokenError):
            if _OPEN_FAILED in process.said(before):
                fault: AgentUnreachable = await self._explain(answered=answered)
                raise ConnectError(fault.message) from fault
            if await process.ended(_END_WITHIN):
                fault = process.fault()
                raise BrokenError(fault.message) from fault
            raise

    async def aclose(self) -> None:
        """Close open connections, and end ssh."""
        await self._transport.aclose()
        await self._tunnel.aclose()

    async def _explain(self, *, answered: bool) -> AgentUnreachable:
        """Return the error for a connection that the host did not make. Raise it if a retry cannot help."""
        reason = await self._ask()
        if reason is Why.LISTENS and not answered:
            return ForwardingRefused(
                f"{self._host} lets this login forward nothing to {self._socket}, where an agent listens",
                fix=f"{_INSTALL}. Or let sshd_config have, for this login, AllowTcpForwarding local, "
                "AllowStreamLocalForwarding yes, no DisableForwarding and no PermitOpen. After restrict its key needs "
                "port-forwarding",
            )
        fault = no_connection(self._host, self._socket, reason, self._start_hint)
        if reason in (Why.LISTENS, Why.UNKNOWN):
            fault.fix = f"{fault.fix}, and whether sshd allows AllowTcpForwarding local"
        elif reason is Why.MISSING and not self._installed:
            fault = AgentUnreachable(
                f"{fault.message}, and the login finds no program replicator", fix=f"{_INSTALL}; {self._start_hint}"
            )
        if not may_pass(reason, answered=answered):
            raise fault
        return fault

    async def _ask(self) -> Why:
        now = asyncio.get_running_loop().time
        async with self._turn:
            if self._why is None or now() - self._why[0] >= REMEMBER:
                reason = await why(self._address, self._socket)
                self._why = (now(), reason)
            return self._why[1]


async def _find_socket(address: SshAddress) -> str:
    found = await where(address)
    if found is None or not is_socket_path(found):
        raise InvalidConfig(
            f"{address.host} does not say where the agent of this login listens"
            + (f": {found!r} cannot be forwarded" if found else ""),
            property="address",
            fix="write the path into the address, as in ssh://user@host/run/replicator/agent.sock",
        )
    return found
