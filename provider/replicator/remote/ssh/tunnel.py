"""A part of the fallback: one ssh process that forwards a local socket to an agent's socket."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from replicator.remote.address import SshAddress
from replicator.remote.ssh import process as ssh
from replicator.remote.ssh.command import forward
from replicator.remote.ssh.folder import Folder

_POLL = 0.02


class Tunnel:
    """A forwarded socket. The caller that opens it closes it."""

    def __init__(self, folder: Folder, process: ssh.SshProcess, undo: ExitStack) -> None:
        self.socket = folder.socket
        self.process = process
        self._undo = undo

    @classmethod
    async def open(cls, address: SshAddress, socket: str) -> Tunnel:
        """Start ssh, and wait for its socket. Raise `AgentUnreachable` with the reason if it does not appear.

        Whether the host can connect to `socket` shows only with a request.
        """
        with ExitStack() as undo:
            folder = Folder()
            undo.callback(folder.remove)
            process = await ssh.SshProcess.start(address, forward(address, folder.socket, socket))
            tunnel = cls(folder, process, undo.pop_all())
        try:
            await tunnel._until_open()
        except BaseException:
            await tunnel.aclose()
            raise
        return tunnel

    async def _until_open(self) -> None:
        try:
            async with asyncio.timeout(ssh.OPEN_WITHIN):
                while not self.socket.exists():
                    if await self.process.ended(_POLL):
                        raise self.process.fault()
        except TimeoutError as error:
            raise self.process.late() from error

    async def aclose(self) -> None:
        """End ssh, and remove its socket."""
        await self.process.aclose()
        self._undo.close()
