"""The matrix of callers that are cut off; few cells at a time, since each change of a connector is a rebalance."""

from __future__ import annotations

from functools import partial

from tests.faults.matrix import Cells, Matrix
from tests.faults.mirror.cell import MirrorEnv
from tests.faults.mirror.subjects import SUBJECTS, places, run_cut_off, run_unheard, run_whole

AT_ONCE = 8


class MirrorMatrix(Matrix):
    """Cuts a caller off after each effect of an operation, or loses each answer once."""

    def __init__(self, bed: MirrorEnv) -> None:
        super().__init__(AT_ONCE)
        self._bed = bed

    async def cells(self, fault: str, subject: str) -> Cells:
        operation = SUBJECTS[subject]
        if fault == "unheard":
            return {"each answer is lost once": partial(run_unheard, self._bed, operation)}
        async with self.gate:
            effects = await run_whole(self._bed, operation)
        return {
            f"after {effects[at - 1]} ({at} of {len(effects)})": partial(run_cut_off, self._bed, operation, at)
            for at in places(operation, effects)
        }
