"""What all parts of a soak share: until when it lasts, what has happened, and patience with what others have broken."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from replicator.errors import InvalidStream, ReplicatorError

PATIENCE = 180.0
"""Seconds within which an operation has to succeed, whatever dies meanwhile."""

Action = Callable[[], Awaitable[None]]


class Story:
    """A soak's end and its record.

    :param seconds: how long it lasts.
    """

    def __init__(self, seed: str, seconds: float) -> None:
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self.lines: list[str] = []
        self._seconds = seconds
        self._began = time.monotonic()

    def begin(self) -> None:
        """All that is needed is there; the time counts from now on."""
        self._began = time.monotonic()

    @property
    def ended(self) -> bool:
        return time.monotonic() > self._began + self._seconds

    def tell(self, who: str, what: str) -> None:
        self.counts[what.partition(":")[0]] += 1
        self.lines.append(f"{time.monotonic() - self._began:7.1f} {who} {what}")
        print(self.lines[-1], flush=True)  # shown where the soak fails

    def last(self, who: str) -> str:
        """The end of one stream's story, with what has ended processes meanwhile."""
        return "\n".join([line for line in self.lines if f" {who} " in line or " chaos " in line][-40:])

    async def insist(self, who: str, what: str, action: Action) -> None:
        """Do it again until it succeeds: the agent, an engine or an end may be away. Only errors that pass may come."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                await action()
            except ReplicatorError as error:
                self.tell(who, f"refused: {what}: {error.code}")
                if time.monotonic() > deadline or isinstance(error, InvalidStream):
                    raise TimeoutError(f"{who}: {what}: {error}\n{self.last(who)}") from error
                await asyncio.sleep(0.5)
            else:
                self.tell(who, what)
                return

    async def go_on(self, chance: random.Random, actions: Sequence[Action], *, pause: float) -> None:
        """One random action after the other until the end, with up to `pause` seconds in between."""
        while not self.ended:
            await chance.choice(actions)()
            await asyncio.sleep(chance.random() * pause)
