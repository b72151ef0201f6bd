"""Messages to the user during an operation."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum

_STATUS_EVERY = 1.0  # seconds between status texts of a resource; without a terminal, each one is printed as a line


class Level(Enum):
    """The severity of a message."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


class Diagnostics:
    """Messages to the user. A message with a URN is shown at that resource, any other at the stack.

    This class sends nothing; a subclass overrides `send`, which never raises: a message cannot fail an operation.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._warned: set[tuple[str, str]] = set()
        self._status_at: dict[str, float] = {}

    async def send(self, level: Level, message: str, urn: str, *, ephemeral: bool = False) -> None:
        """Send one message. The next message replaces an ephemeral one."""

    async def debug(self, message: str, urn: str = "") -> None:
        """Send a message that is shown only on request."""
        await self.send(Level.DEBUG, message, urn)

    async def info(self, message: str, urn: str = "") -> None:
        """Send information."""
        await self.send(Level.INFO, message, urn)

    async def warning(self, message: str, urn: str = "") -> None:
        """Send a warning."""
        await self.send(Level.WARNING, message, urn)

    async def warn_once(self, urn: str, text: str) -> None:
        """Send a warning once for each URN and text: Check and Diff may run several times for one change."""
        if (urn, text) not in self._warned:
            self._warned.add((urn, text))
            await self.warning(text, urn)

    async def info_once(self, text: str) -> None:
        """Send information about the program once, at the stack."""
        if ("", text) not in self._warned:
            self._warned.add(("", text))
            await self.info(text)

    async def status(self, message: str, urn: str = "") -> None:
        """Send ephemeral progress, at most once a second for each URN; drop the rest."""
        now = self._clock()
        if now - self._status_at.get(urn, -_STATUS_EVERY) >= _STATUS_EVERY:
            self._status_at[urn] = now
            await self.send(Level.INFO, message, urn, ephemeral=True)
