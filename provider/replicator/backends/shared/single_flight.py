"""One request for all concurrent callers: an `up` of a hundred streams sends a cluster the same request."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from replicator.errors import ReplicatorError

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The answer to one request, cached while it is recent.

    :param ask: the request.
    :param max_age: seconds for which an answer is recent, from the time of the request.
    :param keep_errors: cache an error for as long, from the time when it was raised, since a timeout may take longer
        than that. Otherwise only callers that wait for the answer get the error.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]], max_age: float, *, keep_errors: bool = True) -> None:
        self._ask = ask
        self._max_age = max_age
        self._keep_errors = keep_errors
        self._asked = 0.0
        self._answer: asyncio.Task[T] | None = None

    async def get(self, max_age: float | None = None) -> T:
        """Return the answer. The cancellation of one caller does not affect the others.

        :param max_age: seconds, for this caller.
        """
        age = time.monotonic() - self._asked
        if self._answer is None or age > (self._max_age if max_age is None else max_age):
            self._asked = time.monotonic()
            self._answer = asyncio.create_task(self._whole(), context=Context())  # all callers share it
        return await asyncio.shield(self._answer)

    async def settled(self) -> None:
        """Wait until no question is open."""
        if self._answer is not None:
            await asyncio.wait([self._answer])

    def forget(self) -> None:
        """Discard the last answer, so that the next caller sends a request."""
        self._answer = None

    def forget_error(self) -> None:
        """Discard the last answer if it was an error."""
        answer = self._answer
        if answer is not None and answer.done() and (answer.cancelled() or answer.exception() is not None):
            self._answer = None

    async def _whole(self) -> T:
        try:
            return await self._ask()
        except Exception as error:
            if not self._keep_errors:
                self._asked = -math.inf
            elif isinstance(error, ReplicatorError):
                self._asked = time.monotonic()
            raise
