"""One question for everybody who asks at the same time: an `up` of a hundred streams asks the same of a cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from replicator.errors import ReplicatorError

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The answer to one question, or the error that it raised, as long as it is recent.

    :param ask: the question.
    :param max_age: seconds, counted from when it was asked; from the error where there was one, since a time-out may
        take longer than that.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]], max_age: float) -> None:
        self._ask = ask
        self._max_age = max_age
        self._good_until = 0.0
        self._answer: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The answer. A caller that is cancelled does not take it from the others."""
        if self._answer is None or time.monotonic() > self._good_until:
            self._good_until = time.monotonic() + self._max_age
            self._answer = asyncio.create_task(self._whole(), context=Context())  # all callers share it
        return await asyncio.shield(self._answer)

    def forget_error(self) -> None:
        """Discard the last answer if it was an error, so that the next caller asks again."""
        answer = self._answer
        if answer is not None and answer.done() and (answer.cancelled() or answer.exception() is not None):
            self._answer = None

    async def _whole(self) -> T:
        try:
            return await self._ask()
        except ReplicatorError:
            self._good_until = time.monotonic() + self._max_age
            raise
