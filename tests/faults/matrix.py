"""Fault matrices: each operation is run once for each place at which a fault can strike, and must converge."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

Cells = dict[str, Callable[[], Awaitable[None]]]
"""What is run, by the place of the fault in words."""


class Matrix(ABC):
    """Runs cells in the order in which they are asked for, some at a time.

    :param at_once: how many.
    """

    def __init__(self, at_once: int) -> None:
        self.gate = asyncio.Semaphore(at_once)
        self._failures: dict[tuple[str, str], asyncio.Task[list[str]]] = {}

    @abstractmethod
    async def cells(self, fault: str, subject: str) -> Cells:
        """Return the cells of one operation and one kind of fault."""

    def begin(self, fault: str, subject: str) -> None:
        """Run an operation once for each place of a fault."""
        self._failures[fault, subject] = asyncio.create_task(self._failures_of(fault, subject))

    async def failures(self, fault: str, subject: str) -> list[str]:
        """Return the places at which it did not converge, and why."""
        return await self._failures[fault, subject]

    async def aclose(self) -> None:
        """Cancel what still runs."""
        for task in self._failures.values():
            task.cancel()
        await asyncio.gather(*self._failures.values(), return_exceptions=True)

    async def _failures_of(self, fault: str, subject: str) -> list[str]:
        cells = await self.cells(fault, subject)
        assert cells
        found = await asyncio.gather(*map(self._failure, cells.values()))
        return [f"{place}: {failure}" for place, failure in zip(cells, found, strict=True) if failure]

    async def _failure(self, run: Callable[[], Awaitable[None]]) -> str | None:
        async with self.gate:
            try:
                await run()
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            return None
