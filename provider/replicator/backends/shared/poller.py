"""One look at the engine for everybody who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")

EVERY = 0.1
"""Seconds from one look to the next."""


class Poller(Generic[T]):
    """Looks while somebody waits, and never otherwise.

    :param look: one call of the engine.
    :param every: seconds from the first who asks to the look.
    """

    def __init__(self, look: Callable[[], Awaitable[T]], every: float = EVERY) -> None:
        self._look = look
        self._every = every
        self._coming: asyncio.Task[T] | None = None
        self._begun: set[asyncio.Task[T]] = set()

    async def next(self) -> T:
        """Return what a look sees that begins after this call. All who ask before it begins share it, and its error."""
        if self._coming is None:
            self._coming = asyncio.create_task(self._look_soon(), context=Context())  # all callers share it
            self._begun.add(self._coming)
            self._coming.add_done_callback(self._ended)
        return await asyncio.shield(self._coming)

    async def aclose(self) -> None:
        """End the looks that are under way."""
        begun = list(self._begun)
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)

    async def _look_soon(self) -> T:
        await asyncio.sleep(self._every)
        self._coming = None
        return await self._look()

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._begun.discard(task)
        if not task.cancelled():
            task.exception()  # it is told to those who still wait; asyncio would log it where none does
