"""One ssh process that runs `replicator agent dial-stdio` on the host, and the connections that it carries."""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from contextlib import suppress

from replicator.errors import AgentUnreachable, SshFailed
from replicator.http_unix import BrokenError, ConnectError, PooledTransport, Response
from replicator.remote.address import SshAddress
from replicator.remote.ssh import frames
from replicator.remote.ssh import process as ssh
from replicator.remote.ssh.command import DIAL, dial
from replicator.remote.ssh.frames import GREETING, FrameError, Frames, Kind, Why, frame
from replicator.remote.ssh.stderr import is_another_key, may_pass, no_connection

_END_WITHIN = 0.3
"""Seconds from the end of ssh's output to the end of its process."""

_CHUNK = 65_536
_GREETING_WITHIN = 65_536  # bytes that are searched; a login shell may print text before it
_WHYS = frozenset(Why)
_GREETING = re.compile(rb"^" + GREETING + rb"([^\n]*)\n", re.MULTILINE)


class NoCommandError(Exception):
    """The host does not run `replicator agent dial-stdio`: an older version, none on PATH, or a forced command.

    :ivar found: whether the program exists.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"it ended with {code}")
        self.found = code not in (126, 127)  # a shell's own codes


class _RefusedError(OSError):
    """The host made no connection to the socket."""

    def __init__(self, why: Why) -> None:
        super().__init__(str(why))
        self.why = why


class Session:
    """A transport of requests through one ssh process. The caller that opens it closes it."""

    def __init__(self, address: SshAddress, process: ssh.SshProcess, start_hint: str) -> None:
        self._host = address.host
        self._ssh = process
        self._start_hint = start_hint
        self._socket = ""
        self._frames = Frames()
        self._channels: dict[int, _Channel] = {}
        self._next = 0
        self._stdin, self._stdout = _pipes(process)
        self._transport = PooledTransport(self._connect)
        self._reading: asyncio.Task[None] | None = None
        self._readable = True

    @classmethod
    async def open(cls, address: SshAddress, start_hint: str) -> Session:
        """Start ssh, and wait until the host answers.

        Raise `AgentUnreachable` with the reason if it does not, and `NoCommandError` if it lacks the command.
        """
        process = await ssh.SshProcess.start(address, dial(address), stdin=PIPE, stdout=PIPE)
        session = cls(address, process, start_hint)
        try:
            await session._until_open()
        except BaseException:
            await session.aclose()
            raise
        return session

    @property
    def alive(self) -> bool:
        """Tell whether the session can still send requests."""
        return self._ssh.alive and self._reading is not None and not self._reading.done()

    async def request(
        self, verb: str, path: str, headers: Mapping[str, str], content: bytes, *, answered: bool
    ) -> Response:
        """Send a request and read its answer.

        :param answered: whether the agent has answered before, so that it may be restarting.
        """
        try:
            return await self._transport.request(verb, path, headers, content)
        except (ConnectError, BrokenError) as error:
            if isinstance(refused := error.__cause__, _RefusedError):
                fault = no_connection(self._host, self._socket, refused.why, self._start_hint)
                if not may_pass(refused.why, answered=answered):
                    raise fault from error
                raise ConnectError(fault.message) from fault
            if not self.alive:
                await self._ssh.ended(_END_WITHIN)
                fault = self._fault()
                raise BrokenError(fault.message) from fault
            raise

    async def aclose(self) -> None:
        """End ssh; the command on the host ends with its stdin."""
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        await self._ssh.aclose()

    async def _until_open(self) -> None:
        received = b""
        try:
            async with asyncio.timeout(ssh.OPEN_WITHIN):
                while not (found := _GREETING.search(received)):
                    if not (more := await self._stdout.read(_CHUNK)):
                        await self._raise_ended()
                    received = (received + more)[-_GREETING_WITHIN:]
        except TimeoutError as error:
            raise self._ssh.late() from error
        # With StrictHostKeyChecking=no, ssh only warns, but this may be another host.
        if is_another_key(self._ssh.said()):
            raise self._ssh.fault()
        self._socket = "".join(char if char.isprintable() else "?" for char in found[1].decode(errors="replace"))
        self._reading = asyncio.create_task(self._read(received[found.end() :]))

    async def _raise_ended(self) -> None:
        code = await self._ssh.process.wait()
        if code == ssh.SSH_FAILED or code < 0:
            raise self._ssh.fault()
        raise NoCommandError(code)

    def _fault(self) -> AgentUnreachable:
        """Return the error for a session that has ended."""
        command = f"`{' '.join(DIAL)}` on {self._host}"
        if not self._readable:
            return SshFailed(
                f"what {command} sends cannot be read",
                fix="install the same version of replicator-provider on both sides, and see that nothing else writes "
                "to its stdout",
            )
        code = self._ssh.process.returncode
        if code is None or code == ssh.SSH_FAILED or code < 0:
            return self._ssh.fault()
        return SshFailed(
            f"{command} ended with exit code {code}",
            fix="try again; if it stays so, see what it says there on stderr",
        )

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection. If the host refuses it, reading raises the error."""
        if not self.alive:
            raise ConnectionResetError("ssh has ended")
        loop = asyncio.get_running_loop()
        self._next += 1
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        channel = _Channel(self, self._next, protocol)
        self._channels[self._next] = channel
        self.send(frame(Kind.OPEN, self._next))
        protocol.connection_made(channel)
        return reader, asyncio.StreamWriter(channel, protocol, reader, loop)

    def send(self, content: bytes) -> None:
        """Send frames. The agent limits the size of a request, so the queue here is limited too."""
        if self.alive:
            self._stdin.write(content)

    def forget(self, number: int) -> None:
        """Ignore further frames of a connection."""
        self._channels.pop(number, None)

    async def _read(self, received: bytes) -> None:
        try:
            while True:
                for kind, number, content in self._frames.feed(received):
                    if (channel := self._channels.get(number)) is not None:
                        channel.take(kind, content)
                if not (received := await self._stdout.read(_CHUNK)):
                    return
        except FrameError:
            self._readable = False
        except OSError:
            return
        finally:
            for channel in list(self._channels.values()):
                channel.lose(ConnectionResetError("ssh has ended"))


class _Channel(asyncio.Transport):
    """One connection to the agent, in the frames of a session."""

    def __init__(self, session: Session, number: int, protocol: asyncio.StreamReaderProtocol) -> None:
        super().__init__()
        self._session = session
        self._number = number
        self._protocol = protocol
        self._closed = False

    def take(self, kind: Kind, content: bytes) -> None:
        """Handle a frame from the host."""
        if kind is Kind.DATA:
            self._protocol.data_received(content)
        elif kind is Kind.REFUSED:
            why = content.decode(errors="replace").partition(" ")[0]
            self.lose(_RefusedError(Why(why) if why in _WHYS else Why.UNKNOWN))
        elif kind is Kind.CLOSE:
            self._protocol.eof_received()
            self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """End the connection, with the error if there is one."""
        self._session.forget(self._number)
        if not self._closed:
            self._closed = True
            self._protocol.connection_lost(error)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send data to the agent."""
        if not self._closed:
            self._session.send(frames.data(self._number, bytes(data)))

    def is_closing(self) -> bool:
        """Tell whether nothing more can be sent."""
        return self._closed

    def close(self) -> None:
        """Close the connection, here and on the host."""
        if not self._closed:
            self._session.send(frame(Kind.CLOSE, self._number))
            self.lose(None)

    abort = close


def _pipes(process: ssh.SshProcess) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    stdin, stdout = process.process.stdin, process.process.stdout
    assert stdin is not None
    assert stdout is not None
    return stdin, stdout
