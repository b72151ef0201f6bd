"""The remote end of ssh: it connects stdin and stdout to the agent's socket.

Each login waits for this, so it imports little. Stdin and stdout stay blocking, since other processes may share them,
and they may be of any type: sshd uses one socket for both.
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
    """Return the default socket of an agent of this login.

    A login through ssh may have `$XDG_RUNTIME_DIR` when the agent had none; its socket is then in the home folder.
    """
    from replicator.home import known_home
    from replicator.remote.address import default_socket

    usual, home = default_socket(), known_home()
    in_home = home / ".replicator" / "agent.sock" if home else usual
    return in_home if os.geteuid() != 0 and not _is_socket(usual) and _is_socket(in_home) else usual


def why(error: OSError) -> Why:
    """Return the meaning of an error of `connect`."""
    if isinstance(error, PermissionError):
        return Why.DENIED
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Why.MISSING
    return Why.DEAD if isinstance(error, ConnectionRefusedError) else Why.UNKNOWN


def carry(path: Path) -> None:
    """Carry one connection until stdin ends or the agent closes it. Raise `OSError` if it cannot be made."""
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
    """The connections of one client, by their numbers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wires = _Wires()
        self._frames = Frames()
        self._open: dict[int, _Wire] = {}

    def step(self) -> None:
        """Wait for data, and forward it."""
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
    """A poller of stdin and of connections to the agent."""

    def __init__(self) -> None:
        self._poller = selectors.PollSelector()  # epoll does not support files
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
        """Wait, send pending data, and return the readable connections; `None` is stdin."""
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
        """Return received data; empty if the agent has closed the connection."""
        try:
            return self._socket.recv(_CHUNK)
        except OSError:
            return b""

    def send(self, content: bytes) -> None:
        """Send what the agent accepts now, and the rest later, without delaying other connections."""
        self._unsent += content
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()  # it is closed; `receive` reports that
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._poller.modify(self._socket, wanted, self)

    def close(self) -> None:
        """Close the connection at once."""
        self._poller.unregister(self._socket)
        self._socket.close()


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


class _ClientGoneError(Exception):
    """Stdin has ended, or stdout has no reader."""


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
