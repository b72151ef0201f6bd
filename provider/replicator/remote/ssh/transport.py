"""A transport to an agent on another host, through an ssh process that starts on first use and again after it died."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from replicator.errors import ReplicatorError
from replicator.http_unix import Response
from replicator.remote.address import SshAddress
from replicator.remote.ssh.session import NoCommandError, Session

REMEMBER = 5.0
"""Seconds for which a failure is shared by all callers, so that hundreds of streams do not cause as many logins."""


class _Way(Protocol):
    """A running ssh process, and the requests that it carries."""

    @property
    def alive(self) -> bool: ...

    async def request(
        self, verb: str, path: str, headers: Mapping[str, str], content: bytes, *, answered: bool
    ) -> Response: ...

    async def aclose(self) -> None: ...


class SshTransport:
    """A transport to the socket of an address. It belongs to one event loop.

    A permanent failure is raised as an `AgentUnreachable`; a temporary one is the cause of a `ConnectError` or
    `BrokenError`.

    :param start_hint: the fix for the user if no agent runs.
    """

    def __init__(self, address: SshAddress, start_hint: str) -> None:
        self._address = address
        self._start_hint = start_hint
        self._turn = asyncio.Lock()
        self._way: _Way | None = None
        self._failure: tuple[float, ReplicatorError] | None = None
        self._answered = False

    async def request(self, verb: str, path: str, headers: Mapping[str, str], content: bytes) -> Response:
        """Send a request and read its answer."""
        way = await self._ready()
        reply = await way.request(verb, path, headers, content, answered=self._answered)
        self._answered = True
        return reply

    async def aclose(self) -> None:
        """Close open connections, and end ssh."""
        async with self._turn:
            await self._close()

    async def _ready(self) -> _Way:
        async with self._turn:
            if self._way is not None and self._way.alive:
                return self._way
            now = asyncio.get_running_loop().time
            if self._failure is not None and now() - self._failure[0] < REMEMBER:
                raise self._failure[1]
            await self._close()
            try:
                self._way = await self._open()
            except ReplicatorError as error:
                self._failure = (now(), error)
                raise
            return self._way

    async def _open(self) -> _Way:
        try:
            return await Session.open(self._address, self._start_hint)
        except NoCommandError as lacking:
            # The fallback for a host of the last release; the next release removes it.
            from replicator.remote.ssh.forwarding import Forwarding

            return await Forwarding.open(self._address, self._start_hint, installed=lacking.found)

    async def _close(self) -> None:
        if (way := self._way) is not None:
            self._way = None
            await way.aclose()
