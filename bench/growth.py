"""Whether one stream more costs more where many are there already: the last hundreds over the first ones."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from replicator.backends.memory import MemoryReplicator
from replicator.model import Stream

from bench.agents import KafkaEndpoint, agent_seconds
from bench.goals import GOALS
from bench.measure import Result, judge
from bench.stacks import of_memory

HUNDRED = 100
_COMPARED = 10  # hundreds of each end, at most; the first hundred of all warms up


def memory_10000(count: int) -> list[Result]:
    """Look at a stream, make it and describe it, in the memory backend in this process."""
    return _compared("memory_10000", asyncio.run(_hundreds_of_memory(count)))


def agent_1000(folder: Path, count: int) -> list[Result]:
    """Make streams through an agent's socket, 8 at once; each is uploaded when its call returns."""
    return _compared("agent_1000", agent_seconds(KafkaEndpoint(folder, count), HUNDRED))


def _compared(name: str, hundreds: list[float]) -> list[Result]:
    _, *rest = hundreds
    compared = min(_COMPARED, len(rest) // 2)
    return [judge(GOALS[name], rest[-compared:], rest[:compared])]


async def _hundreds_of_memory(count: int) -> list[float]:
    replicator = MemoryReplicator()
    took = []
    for first in range(0, count, HUNDRED):
        began = time.perf_counter()
        for number in range(first, first + HUNDRED):
            name = f"stream-{number}"
            stream = Stream.model_validate({**of_memory(number), "name": name})
            await replicator.preflight(stream)
            await replicator.upsert_stream(stream)
            await replicator.describe([name])
        took.append(time.perf_counter() - began)
    return took
