"""What a person is told while an operation runs, beside its result."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum

_STATUS_EVERY = 1.0  # seconds between two status texts of a resource; without a terminal each one is printed as a line


class Level(Enum):
    """How a message is shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


class Diagnostics:
    """Messages to the person. One with a URN is shown at that resource, any other at the stack.

    This class sends nothing; a subclass overrides `send`, which never raises: a message cannot fail an operation.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._warned: set[tuple[str, str]] = set()
        self._status_at: dict[str, float] = {}

    async def send(self, level: Level, message: str, urn: str, *, ephemeral: bool = False) -> None:
        """Carry one message. An ephemeral one leaves no trace when the next one comes."""

    async def debug(self, message: str, urn: str = "") -> None:
        """Shown only where details are asked for."""
        await self.send(Level.DEBUG, message, urn)

    async def info(self, message: str, urn: str = "") -> None:
        """Worth knowing."""
        await self.send(Level.INFO, message, urn)

    async def warning(self, message: str, urn: str = "") -> None:
        """To be looked at."""
        await self.send(Level.WARNING, message, urn)

    async def warn_once(self, urn: str, text: str) -> None:
        """A warning that is sent once for a URN and text: Check and Diff may run several times for one change."""
        if (urn, text) not in self._warned:
            self._warned.add((urn, text))
            await self.warning(text, urn)

    async def status(self, message: str, urn: str = "") -> None:
        """Progress, which leaves no trace. At most one a second for a URN; the rest is dropped."""
        now = self._clock()
        if now - self._status_at.get(urn, -_STATUS_EVERY) >= _STATUS_EVERY:
            self._status_at[urn] = now
            await self.send(Level.INFO, message, urn, ephemeral=True)
