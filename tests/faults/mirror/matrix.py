"""All cells of the matrix, some at a time: each change of a connector is a rebalance of all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from tests.faults.mirror.cell import MirrorEnv
from tests.faults.mirror.subjects import SUBJECTS, Subject, places, run_cut_off, run_unheard, run_whole

AT_ONCE = 8

Cells = dict[str, Callable[[], Awaitable[None]]]


class Matrix:
    """Runs cells in the order in which they are asked for."""

    def __init__(self, bed: MirrorEnv) -> None:
        self._bed = bed
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._failures: dict[tuple[str, str], asyncio.Task[list[str]]] = {}

    def begin(self, fault: str, subject: str) -> None:
        """Run an operation once for each place of a fault."""
        self._failures[fault, subject] = asyncio.create_task(self._failures_of(fault, SUBJECTS[subject]))

    async def failures(self, fault: str, subject: str) -> list[str]:
        """The places at which it did not converge, and why."""
        return await self._failures[fault, subject]

    async def aclose(self) -> None:
        """Cancel what still runs."""
        for task in self._failures.values():
            task.cancel()
        await asyncio.gather(*self._failures.values(), return_exceptions=True)

    async def _failures_of(self, fault: str, subject: Subject) -> list[str]:
        cells = self._unheard(subject) if fault == "unheard" else await self._cut_off(subject)
        assert cells
        found = await asyncio.gather(*(self._failure(run) for run in cells.values()))
        return [f"{place}: {failure}" for place, failure in zip(cells, found, strict=True) if failure]

    async def _cut_off(self, subject: Subject) -> Cells:
        async with self._gate:
            effects = await run_whole(self._bed, subject)
        return {
            f"after {effects[at - 1]} ({at} of {len(effects)})": partial(run_cut_off, self._bed, subject, at)
            for at in places(subject, effects)
        }

    def _unheard(self, subject: Subject) -> Cells:
        return {"each answer is lost once": partial(run_unheard, self._bed, subject)}

    async def _failure(self, run: Callable[[], Awaitable[None]]) -> str | None:
        async with self._gate:
            try:
                await run()
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            return None
