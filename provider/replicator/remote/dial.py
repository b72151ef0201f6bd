"""The far end of ssh: stdin and stdout are connected to the agent's socket.

Each login waits for this, so it imports little. Stdin and stdout stay blocking, since others may share them, and they
may be anything: sshd gives one socket for both.
"""

from __future__ import annotations

import os
import selectors
import socket
import stat
from contextlib import suppress
from pathlib import Path

from replicator.remote.ssh.frames import GREETING, Frames, Kind, Why, data, frame

_STDIN = 0
_STDOUT = 1
_CHUNK = 65_536


def find_socket() -> Path:
    """Return where an agent of this login listens unless told otherwise.

    A login through ssh may have `$XDG_RUNTIME_DIR` where the agent had none: then it is the one in the home folder.
    """
    from replicator.remote.address import default_socket

    usual, home = default_socket(), Path.home() / ".replicator" / "agent.sock"
    return home if os.geteuid() != 0 and not _is_socket(usual) and _is_socket(home) else usual


def why(error: OSError) -> Why:
    """Return what an error of `connect` says about the socket."""
    if isinstance(error, PermissionError):
        return Why.DENIED
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Why.MISSING
    return Why.DEAD if isinstance(error, ConnectionRefusedError) else Why.UNKNOWN


def carry(path: Path) -> None:
    """Carry one connection until stdin ends or the agent closes it. Raise `OSError` where there is none."""
    wires = _Wires()
    wire = wires.open(path)
    with suppress(_ClientGoneError):
        while True:
            for source in wires.ready():
                if source is None:
                    wire.send(_read())
                elif received := source.receive():
                    _write(received)
                else:
                    return


def carry_many(path: Path) -> None:
    """Carry the connections that a client asks for in frames, until stdin ends."""
    with suppress(_ClientGoneError):
        _write(GREETING + os.fsencode(path) + b"\n")
        many = _Many(path)
        while True:
            many.step()


class _Many:
    """The connections of one client, by its numbers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wires = _Wires()
        self._frames = Frames()
        self._open: dict[int, _Wire] = {}

    def step(self) -> None:
        """Wait, and carry what has come."""
        numbers = {wire: number for number, wire in self._open.items()}
        for wire in self._wires.ready():
            if wire is None:
                for kind, number, content in self._frames.feed(_read()):
                    self._take(kind, number, content)
            elif self._open.get(number := numbers[wire]) is not wire:
                continue  # the client has just closed it
            elif received := wire.receive():
                _write(data(number, received))
            else:
                self._close(number)
                _write(frame(Kind.CLOSE, number))

    def _take(self, kind: Kind, number: int, content: bytes) -> None:
        if kind is Kind.OPEN:
            self._close(number)
            try:
                self._open[number] = self._wires.open(self._path)
            except OSError as error:
                _write(frame(Kind.REFUSED, number, f"{why(error)} {error.strerror}".encode()))
        elif kind is Kind.CLOSE:
            self._close(number)
        elif number in self._open:
            self._open[number].send(content)

    def _close(self, number: int) -> None:
        if (wire := self._open.pop(number, None)) is not None:
            wire.close()


class _Wires:
    """Waits for stdin and for connections to the agent."""

    def __init__(self) -> None:
        self._poller = selectors.PollSelector()  # epoll takes no files
        self._poller.register(_STDIN, selectors.EVENT_READ)

    def open(self, path: Path) -> _Wire:
        """Connect to the agent."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.setblocking(False)
        try:
            made.connect(str(path))
        except BaseException:
            made.close()
            raise
        return _Wire(self._poller, made)

    def ready(self) -> list[_Wire | None]:
        """Wait, send what can be sent, and return what can be read; `None` is stdin."""
        found: list[_Wire | None] = []
        for key, events in self._poller.select():
            if events & selectors.EVENT_WRITE:
                key.data.send(b"")
            if events & selectors.EVENT_READ:
                found.append(key.data)
        return found


class _Wire:
    """One connection to the agent."""

    def __init__(self, poller: selectors.BaseSelector, made: socket.socket) -> None:
        self._poller = poller
        self._socket = made
        self._unsent = bytearray()
        poller.register(made, selectors.EVENT_READ, self)

    def receive(self) -> bytes:
        """Return what has come; nothing where the agent has closed it."""
        try:
            return self._socket.recv(_CHUNK)
        except OSError:
            return b""

    def send(self, content: bytes) -> None:
        """Send what the agent takes now, and the rest when it takes more. Nobody else waits for that."""
        self._unsent += content
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()  # it is closed, which `receive` finds out
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._poller.modify(self._socket, wanted, self)

    def close(self) -> None:
        """Close it at once."""
        self._poller.unregister(self._socket)
        self._socket.close()


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


class _ClientGoneError(Exception):
    """Stdin has ended, or nobody reads stdout."""


def _read() -> bytes:
    try:
        given = os.read(_STDIN, _CHUNK)
    except ConnectionError as error:
        raise _ClientGoneError from error
    if not given:
        raise _ClientGoneError
    return given


def _write(content: bytes) -> None:
    left = memoryview(content)
    try:
        while left:
            left = left[os.write(_STDOUT, left) :]
    except ConnectionError as error:
        raise _ClientGoneError from error
