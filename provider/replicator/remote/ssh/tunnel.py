"""One ssh process that forwards an agent's socket to one of ours."""

from __future__ import annotations

import asyncio
import os
import tempfile
from asyncio.subprocess import DEVNULL, Process
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from replicator.errors import AgentUnreachable, HostUnreachable
from replicator.remote.address import SshAddress
from replicator.remote.ssh.command import forward
from replicator.remote.ssh.folder import Folder
from replicator.remote.ssh.stderr import explain

OPEN_WITHIN = 20.0
"""Seconds for connecting, logging in, and making the socket."""

_POLL = 0.02
_END_WITHIN = 3.0
_TAIL = 65_536


class Tunnel:
    """A forwarded socket. Whoever opens it closes it."""

    def __init__(self, address: SshAddress, socket: Path, process: Process, log: IO[bytes], undo: ExitStack) -> None:
        self.socket = socket
        self._address = address
        self._process = process
        self._log = log
        self._undo = undo
        self._last_words = ""

    @classmethod
    async def open(cls, address: SshAddress, socket: str) -> Tunnel:
        """Start ssh, and wait for its socket. Raise the `AgentUnreachable` that says why there is none.

        That the host then connects to `socket` is another matter, which only a request finds out.
        """
        with ExitStack() as undo:
            folder = Folder()
            undo.callback(folder.remove)
            log = undo.enter_context(tempfile.TemporaryFile())
            process = await asyncio.create_subprocess_exec(
                *forward(address, folder.socket, socket),
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=log,
                start_new_session=True,
            )
            tunnel = cls(address, folder.socket, process, log, undo.pop_all())
        try:
            await tunnel._until_open()
        except BaseException:
            await tunnel.aclose()
            raise
        return tunnel

    async def _until_open(self) -> None:
        try:
            async with asyncio.timeout(OPEN_WITHIN):
                while not self.socket.exists():
                    if await self.ended(_POLL):
                        raise self.fault()
        except TimeoutError as error:
            if self.said():
                raise self.fault() from error
            raise HostUnreachable(
                f"{self._address.host} let nobody in within {OPEN_WITHIN:g} s",
                fix="see that the host runs, and try again",
            ) from error

    @property
    def alive(self) -> bool:
        """Whether ssh runs."""
        return self._process.returncode is None

    async def ended(self, within: float) -> bool:
        """Whether ssh ends within some seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._process.wait()
        return not self.alive

    def mark(self) -> int:
        """How many bytes ssh has said on stderr."""
        return os.fstat(self._log.fileno()).st_size

    def said(self, since: int | None = None) -> str:
        """What it said from a byte on, or at last."""
        if self._log.closed:
            return self._last_words
        start = max(self.mark() - _TAIL, 0) if since is None else since
        return os.pread(self._log.fileno(), _TAIL, start).decode(errors="replace")

    def fault(self) -> AgentUnreachable:
        """Why ssh ended."""
        return explain(self._address, self.said())

    async def aclose(self) -> None:
        """End ssh, and remove its socket."""
        if self.alive:
            with suppress(ProcessLookupError):
                self._process.terminate()
            if not await self.ended(_END_WITHIN):
                self._process.kill()
                await self._process.wait()
        self._last_words = self.said()
        self._undo.close()
