"""Brokers and workers end, come and go while mirrors are made and copy; nothing is missing at the destination."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack, suppress

import httpx
import pytest
from replicator.errors import ReplicatorError

from tests.faults.mirror.breaking_proxy import after
from tests.faults.mirror.cell import Cell, MirrorEnv, cell
from tests.faults.mirror.own_clusters import Own, own_bed
from tests.faults.mirror.subjects import SUBJECTS, Subject, run_whole, running
from tests.kafka import begin, mirror_config, unique
from tools.kafka.cluster import Worker

STREAMS = 10
CHANGED = {"refresh.topics.interval.seconds": 5}
KILLED = ("create-parts", "replay", "delete")
"""Operations during which the worker is killed, at each of their effects."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    with own_bed(tmp_path_factory.mktemp("own")) as made:
        yield made


@pytest.fixture
async def cells(own: Own) -> AsyncIterator[list[Cell]]:
    """Streams that are not made yet, with a topic each."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(cell(own.bed)) for _ in range(STREAMS)]


@pytest.mark.parametrize("end", ["source", "destination"])
async def test_a_broker_restarts(own: Own, end: str) -> None:
    broker = own.source if end == "source" else own.destination
    async with cell(own.bed) as made:
        await running(made)
        made.repeats = True
        await made.write(20)
        broker.kill()
        without_broker = asyncio.create_task(attempt(made.upsert(options=CHANGED)))
        await begin(broker)
        await without_broker
        await made.write(20)
        await made.upsert(options=CHANGED)
        await made.holds(made.written)


async def test_a_second_worker_joins_and_leaves(own: Own, cells: list[Cell]) -> None:
    second = Worker(own.folder / "second", own.destination.bootstrap)
    writing = asyncio.create_task(write_to(cells))
    try:
        joining = asyncio.create_task(begin(second))
        await asyncio.gather(*(attempt(made.upsert()) for made in cells))
        await joining
        for made in cells:
            made.line.worker = second.url
        leaving = asyncio.create_task(asyncio.to_thread(second.stop))
        await asyncio.gather(*(attempt(made.upsert(options=CHANGED)) for made in cells))
        await leaving
    finally:
        writing.cancel()
        second.kill()
    for made in cells:
        made.line.worker = own.worker.url
        made.repeats = True
    await asyncio.gather(*(made.upsert(options=CHANGED) for made in cells))
    for made in cells:
        found = await made.connectors()
        assert found[""]["info"]["config"]["refresh.topics.interval.seconds"] == "5"
    await asyncio.gather(*(made.holds(made.written) for made in cells))


async def test_another_writer_changes_connectors_all_the_time(own: Own) -> None:
    chosen = [SUBJECTS[name] for name in ("create-parts", "change", "replay", "delete")]
    async with AsyncExitStack() as stack:
        cells = [await stack.enter_async_context(cell(own.bed)) for _ in chosen]
        for made, subject in zip(cells, chosen, strict=True):
            await subject.before(made)
        storm = asyncio.create_task(changes(own.bed))
        try:
            await asyncio.gather(*(subject.operate(made) for made, subject in zip(cells, chosen, strict=True)))
            assert not storm.done()
        finally:
            storm.cancel()
            await asyncio.wait([storm])
        await asyncio.gather(*(subject.after(made) for made, subject in zip(cells, chosen, strict=True)))


async def test_the_worker_is_killed_at_each_effect(own: Own) -> None:
    """All operations are held where they are, the worker is killed once, and each is asked for again."""
    chosen = [SUBJECTS[name] for name in KILLED]
    effects = await asyncio.gather(*(run_whole(own.bed, subject) for subject in chosen))
    held, killed = asyncio.Semaphore(0), asyncio.Event()

    async def hold() -> None:
        held.release()
        await killed.wait()

    async with AsyncExitStack() as stack:
        places = [(subject, at) for subject, names in zip(chosen, effects, strict=True) for at in range(len(names))]
        cells = [await stack.enter_async_context(cell(own.bed)) for _ in places]
        await asyncio.gather(*(subject.before(made) for made, (subject, _) in zip(cells, places, strict=True)))
        for made, (_, at) in zip(cells, places, strict=True):
            made.line.arm(after(at + 1), hold)
        operations = [
            asyncio.create_task(attempt(subject.operate(made)))
            for made, (subject, _) in zip(cells, places, strict=True)
        ]
        async with asyncio.timeout(25):  # the callers wait for an answer no longer than 30 s
            for _ in places:
                await held.acquire()
        own.worker.kill()
        killed.set()
        await begin(own.worker)
        await asyncio.gather(*operations)
        failures = await asyncio.gather(
            *(goes_on(made, subject) for made, (subject, _) in zip(cells, places, strict=True))
        )
    told = [f"{place}: {failure}" for place, failure in zip(places, failures, strict=True) if failure]
    assert not told, "\n".join(told)


async def attempt(operation: Awaitable[None]) -> None:
    """An operation that may be refused, with a reason."""
    with suppress(ReplicatorError):
        await operation


async def goes_on(made: Cell, subject: Subject) -> str | None:
    """Ask again, as another process; what is wrong then."""
    made.repeats = True
    made.line.disarm()
    await made.crash()
    try:
        await subject.operate(made)
        await subject.after(made)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


async def write_to(cells: list[Cell]) -> None:
    """Write to all topics, on and on."""
    while True:
        for made in cells:
            await made.write(2)


async def changes(bed: MirrorEnv) -> None:
    """Make, change, restart and remove connectors of somebody else, on and on."""
    config = mirror_config(bed.source, bed.destination, unique("nothing"))
    async with httpx.AsyncClient(base_url=bed.connect, trust_env=False, timeout=30) as rest:
        for number in itertools.count():
            for name in ("storm-1", "storm-2"):
                await rest.put(f"/connectors/{name}/config", json={**config, "tasks.max": str(1 + number % 2)})
                await rest.post(f"/connectors/{name}/restart", params={"includeTasks": "true"})
            await rest.delete("/connectors/storm-2")
