"""The matrix of agents that die, and of their engine and store: most of the time its cells wait for the engine."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from tests.faults.cell import Nursery, cell
from tests.faults.matrix import Cells, Matrix
from tests.faults.subjects import SUBJECTS, VICTIMS, Effects, run_whole

AT_ONCE = 16


class AgentMatrix(Matrix):
    """Kills a victim at each effect of an operation.

    :param folder: an empty folder with a short path.
    """

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        super().__init__(AT_ONCE)
        self._folder = folder
        self._nursery = nursery
        self._effects: dict[str, asyncio.Task[Effects]] = {}

    def begin(self, fault: str, subject: str) -> None:
        """Run an operation once whole, and then once for each place at which the victim can be killed."""
        if subject not in self._effects:
            self._effects[subject] = asyncio.create_task(self._effects_of(subject))
        super().begin(fault, subject)

    async def aclose(self) -> None:
        for task in self._effects.values():
            task.cancel()
        await asyncio.gather(*self._effects.values(), return_exceptions=True)
        await super().aclose()

    async def cells(self, fault: str, subject: str) -> Cells:
        effects = await self._effects[subject]
        return {
            f"{when} {effects[at - 1][0]} ({at} of {len(effects)})": partial(self._run, fault, subject, at, when)
            for at, when in VICTIMS[fault].places(effects)
        }

    async def _effects_of(self, subject: str) -> Effects:
        async with self.gate, cell(self._folder / subject, self._nursery) as made:
            effects = await run_whole(made, SUBJECTS[subject])
        assert SUBJECTS[subject].effects <= {name for name, _ in effects}, effects
        return effects

    async def _run(self, victim: str, subject: str, at: int, when: str) -> None:
        async with cell(self._folder / f"{subject}-{victim}-{at}-{when}", self._nursery) as made:
            await VICTIMS[victim].run(made, SUBJECTS[subject], at, when)
