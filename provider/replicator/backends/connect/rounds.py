"""Changes of one kind side by side, and those of different kinds after each other.

A worker refuses some calls while it rebalances, and other calls are what makes it rebalance. (Seen on Kafka 4.3.)
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

WAITS = 5.0
"""Seconds after which a change is made beside those of another kind: one that hangs is not waited for."""


class Rounds:
    """The changes that are under way in one cluster."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()
        self._ended = asyncio.Event()

    @asynccontextmanager
    async def only(self, kind: str) -> AsyncIterator[None]:
        """Wait until no change of another kind is under way, and hold back those that come."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WAITS):
                while self._under_way.keys() - {kind}:
                    await self._ended.wait()
        self._under_way[kind] += 1
        try:
            yield
        finally:
            self._under_way[kind] -= 1
            if not self._under_way[kind]:
                del self._under_way[kind]
                self._ended.set()
                self._ended = asyncio.Event()
