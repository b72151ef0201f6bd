"""A poller whose reads of the engine are shared by all waiting callers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

T = TypeVar("T")

EVERY = 0.1
"""Seconds between reads."""


class Poller(Generic[T]):
    """Polls while a caller waits, and never otherwise.

    :param look: one call of the engine.
    :param every: seconds from the first request to the read.
    """

    def __init__(self, look: Callable[[], Awaitable[T]], every: float = EVERY) -> None:
        self._look = look
        self._every = every
        self._coming: asyncio.Task[T] | None = None
        self._begun: set[asyncio.Task[T]] = set()

    async def next(self) -> T:
        """Return the result of a read that starts after this call. Callers before its start share it or its error."""
        if self._coming is None:
            self._coming = asyncio.create_task(self._look_soon(), context=Context())  # all callers share it
            self._begun.add(self._coming)
            self._coming.add_done_callback(self._ended)
        return await asyncio.shield(self._coming)

    async def aclose(self) -> None:
        """Cancel reads in progress."""
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
            task.exception()  # waiting callers get it; without any, asyncio would log it
