"""The protocol between a client and `replicator agent dial-stdio --multiplex`: connections in frames.

The host begins with a greeting, which names the agent's socket. Only frames follow: one byte for the kind, four for the
number of the connection, four for the length of the content, and the content.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, StrEnum
from struct import Struct

GREETING = b"replicator dial-stdio: "
"""The beginning of the greeting, the line before the frames. A login shell may have printed text before it."""

LARGEST = 65_536
"""The limit of a frame's content, in bytes."""

_HEAD = Struct(">BII")


class Kind(IntEnum):
    """The kind of a frame."""

    OPEN = 1  # the client wants a connection
    DATA = 2
    CLOSE = 3  # the connection ends; both sides may send this at the same time
    REFUSED = 4  # the host made no connection; the content is a `Why` and the system's error text


_KINDS = frozenset(Kind)


class Why(StrEnum):
    """The reason why a socket does not answer, as the host knows it."""

    MISSING = "missing"
    DENIED = "denied"
    DEAD = "dead"
    LISTENS = "listens"
    UNKNOWN = "unknown"


class FrameError(Exception):
    """The received data is not a frame."""


def frame(kind: Kind, connection: int, content: bytes = b"") -> bytes:
    """Return one frame; `content` must not exceed `LARGEST`."""
    return _HEAD.pack(kind, connection, len(content)) + content


def data(connection: int, content: bytes) -> bytes:
    """Return the frames for content of any length."""
    parts = (content[start : start + LARGEST] for start in range(0, len(content), LARGEST))
    return b"".join(frame(Kind.DATA, connection, part) for part in parts)


class Frames:
    """A parser of frames in received data."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, received: bytes) -> Iterator[tuple[Kind, int, bytes]]:
        """Add received bytes, and yield complete frames: kind, connection, content. Raise `FrameError`."""
        self._left += received
        start = 0
        while len(self._left) - start >= _HEAD.size:
            kind, connection, length = _HEAD.unpack_from(self._left, start)
            if length > LARGEST or kind not in _KINDS:
                raise FrameError(f"a frame of kind {kind} with {length} bytes")
            end = start + _HEAD.size + length
            if len(self._left) < end:
                break
            yield Kind(kind), connection, bytes(self._left[start + _HEAD.size : end])
            start = end
        del self._left[:start]
