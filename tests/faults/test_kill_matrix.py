"""Processes are killed before and after each effect of each operation; the next run converges, with nothing lost."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from replicator.errors import DestinationInUse

from tests.faults.agent_matrix import AgentMatrix
from tests.faults.cell import Nursery, cell
from tests.faults.processes import litestreams
from tests.faults.subjects import SUBJECTS, run_cut_off, run_whole, running
from tests.waiting import until

pytestmark = pytest.mark.timeout(600)  # the first one waits for most cells of all

WITHOUT_ENGINE = {"create-copy"}  # a command makes the copy


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def matrix(nursery: Nursery, request: pytest.FixtureRequest) -> AsyncIterator[AgentMatrix]:
    """All cells of the tests that were chosen, in their order; they begin together."""
    with tempfile.TemporaryDirectory(prefix="rpl-") as name:
        made = AgentMatrix(Path(name), nursery)
        for item in request.session.items:
            if isinstance(item, pytest.Function) and "matrix" in item.fixturenames:
                made.begin(**item.callspec.params)  # type: ignore[arg-type]
        yield made
        await made.aclose()
        await until(lambda: _none_in(Path(name)), "no engine is left")


async def _none_in(folder: Path) -> bool:
    return litestreams(folder) == []


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    ("fault", "subject"),
    [
        *(("agent", subject) for subject in SUBJECTS),
        *(("litestream", subject) for subject in SUBJECTS if subject not in WITHOUT_ENGINE),
    ],
)
async def test_killed_at_each_effect(fault: str, subject: str, matrix: AgentMatrix) -> None:
    failures = await matrix.failures(fault, subject)
    assert not failures, "\n".join(failures)


async def test_the_matrix_finds_a_registry_that_writes_late(short_folder: Path, nursery: Nursery) -> None:
    with pytest.raises(DestinationInUse):
        await create_cut_off_at_its_end("writes late", "before", short_folder, nursery)


async def test_the_matrix_finds_a_start_that_trusts_the_wal(short_folder: Path, nursery: Nursery) -> None:
    with pytest.raises(AssertionError, match="the replica differs"):
        await create_cut_off_at_its_end("trusts the WAL", "after", short_folder, nursery)


async def create_cut_off_at_its_end(naive: str, when: str, folder: Path, nursery: Nursery) -> None:
    """A naive agent, which is well until it is killed around the last effect of a create."""
    subject = SUBJECTS["create"]
    async with cell(folder / "whole", nursery, naive) as made:
        effects = await run_whole(made, subject)
    async with cell(folder / "cut-off", nursery, naive) as made:
        await run_cut_off(made, subject, len(effects), when)


async def test_litestream_killed_under_writes(short_folder: Path, nursery: Nursery) -> None:
    async with cell(short_folder / "writes", nursery) as made:
        await running(made)
        for _ in range(3):
            (engine,) = made.litestreams()
            writing = asyncio.create_task(made.write(200))
            os.kill(engine, signal.SIGKILL)
            await writing
            await made.write_and_restart_wal()
            await made.caught_up()
            assert made.litestreams() != [engine]
        assert await made.restored() == await made.content()
