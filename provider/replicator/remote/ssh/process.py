"""One ssh process, and its stderr."""

from __future__ import annotations

import asyncio
import os
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import IO

from replicator.errors import AgentUnreachable, HostUnreachable
from replicator.remote.address import SshAddress
from replicator.remote.ssh.stderr import explain

OPEN_WITHIN = 20.0
"""Seconds for connecting, logging in, and the first response."""

SSH_FAILED = 255
"""The exit code of ssh's own errors; any other comes from the command on the host."""

_END_WITHIN = 3.0
_TAIL = 65_536


class SshProcess:
    """An ssh process that runs until it is closed or dies. The caller that starts it closes it."""

    def __init__(self, address: SshAddress, process: Process, log: IO[bytes]) -> None:
        self.process = process
        self._address = address
        self._log = log
        self._last_words = ""

    @classmethod
    async def start(
        cls, address: SshAddress, command: Sequence[str], *, stdin: int = DEVNULL, stdout: int = DEVNULL
    ) -> SshProcess:
        """Start ssh."""
        with ExitStack() as undo:
            log = undo.enter_context(tempfile.TemporaryFile())
            process = await asyncio.create_subprocess_exec(
                *command, stdin=stdin, stdout=stdout, stderr=log, start_new_session=True
            )
            undo.pop_all()
        return cls(address, process, log)

    @property
    def alive(self) -> bool:
        """Tell whether ssh runs."""
        return self.process.returncode is None

    async def ended(self, within: float) -> bool:
        """Wait for ssh to end; return False if it has not after `within` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self.process.wait()
        return not self.alive

    def mark(self) -> int:
        """Return how many bytes ssh has written to stderr."""
        return os.fstat(self._log.fileno()).st_size

    def said(self, since: int | None = None) -> str:
        """Return the stderr text from a byte on, or its last part."""
        if self._log.closed:
            return self._last_words
        start = max(self.mark() - _TAIL, 0) if since is None else since
        return os.pread(self._log.fileno(), _TAIL, start).decode(errors="replace")

    def fault(self) -> AgentUnreachable:
        """Return the error for an ssh that ended or failed."""
        return explain(self._address, self.said())

    def late(self) -> AgentUnreachable:
        """Return the error for an ssh that did not respond in time."""
        if self.said():
            return self.fault()
        return HostUnreachable(
            f"{self._address.host} accepted no login within {OPEN_WITHIN:g} s",
            fix="see that the host runs, and try again",
        )

    async def aclose(self) -> None:
        """End ssh."""
        if self.alive:
            with suppress(ProcessLookupError):
                self.process.terminate()
            if not await self.ended(_END_WITHIN):
                self.process.kill()
                await self.process.wait()
        self._last_words = self.said()
        self._log.close()
