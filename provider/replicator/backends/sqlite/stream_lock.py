"""Locks by stream: a method that changes a stream takes the `StreamLock` that its caller holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StreamLock:
    """Proof that its holder alone changes a stream. Only `StreamLocks.hold` creates one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._held = True

    def require(self, name: str) -> None:
        """Raise `RuntimeError` unless this is the held lock of the stream."""
        if not self._held or name != self._name:
            raise RuntimeError(f"the lock of {self._name!r} does not allow a change of {name!r}")

    def release(self) -> None:
        self._held = False


class StreamLocks:
    """The locks of one agent's streams. They belong to one event loop."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[StreamLock]:
        """Wait for a stream's lock, and hold it inside the block."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            lock = StreamLock(name)
            try:
                yield lock
            finally:
                lock.release()

    def is_held(self, name: str) -> bool:
        """Tell whether a stream is being changed."""
        return name in self._locks and self._locks[name].locked()
