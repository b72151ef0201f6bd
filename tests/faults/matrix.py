"""All cells of the matrix, side by side: most of the time they wait for the engine's second."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.faults.cell import Nursery, cell
from tests.faults.subjects import SUBJECTS, VICTIMS, Effects, run_whole

AT_ONCE = 16


class Matrix:
    """Runs cells in the order in which they are asked for.

    :param folder: an empty folder with a short path.
    """

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        self._folder = folder
        self._nursery = nursery
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._effects: dict[str, asyncio.Task[Effects]] = {}
        self._failures: dict[tuple[str, str], asyncio.Task[list[str]]] = {}

    def begin(self, victim: str, subject: str) -> None:
        """Run an operation once for each place at which the victim can be killed."""
        if subject not in self._effects:
            self._effects[subject] = asyncio.create_task(self._effects_of(subject))
        self._failures[victim, subject] = asyncio.create_task(self._failures_of(victim, subject))

    async def failures(self, victim: str, subject: str) -> list[str]:
        """The places at which it did not converge, and why."""
        return await self._failures[victim, subject]

    async def aclose(self) -> None:
        """Cancel what still runs."""
        tasks = [*self._failures.values(), *self._effects.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _effects_of(self, subject: str) -> Effects:
        async with self._gate, cell(self._folder / subject, self._nursery) as made:
            effects = await run_whole(made, SUBJECTS[subject])
        assert SUBJECTS[subject].effects <= {name for name, _ in effects}, effects
        return effects

    async def _failures_of(self, victim: str, subject: str) -> list[str]:
        effects = await self._effects[subject]
        places = VICTIMS[victim].places(effects)
        assert places, effects
        found = await asyncio.gather(*(self._failure(victim, subject, *place) for place in places))
        return [
            f"{when} {effects[at - 1][0]} ({at} of {len(effects)}): {failure}"
            for (at, when), failure in zip(places, found, strict=True)
            if failure
        ]

    async def _failure(self, victim: str, subject: str, at: int, when: str) -> str | None:
        async with self._gate:
            try:
                async with cell(self._folder / f"{subject}-{victim}-{at}-{when}", self._nursery) as made:
                    await VICTIMS[victim].run(made, SUBJECTS[subject], at, when)
            except Exception as error:
                return f"{type(error).__name__}: {error}"
            return None
