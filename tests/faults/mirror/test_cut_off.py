"""The caller is cut off after each effect of each operation, or hears no answer; the next run converges."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.creating import Creating
from replicator.backends.kafka_connect.mirror.driver import KafkaMirror
from replicator.backends.kafka_connect.record import StreamRecord

from tests.faults.mirror.breaking_proxy import after
from tests.faults.mirror.cell import MirrorEnv, cell
from tests.faults.mirror.matrix import MirrorMatrix
from tests.faults.mirror.subjects import SUBJECTS, copies_from_start, create_parts, replayed_once, running
from tests.waiting import until

pytestmark = pytest.mark.timeout(600)  # the first one waits for most cells of all


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mirror_matrix(shared: MirrorEnv, request: pytest.FixtureRequest) -> AsyncIterator[MirrorMatrix]:
    """All cells of the tests that were chosen, in their order; they begin together."""
    made = MirrorMatrix(shared)
    for item in request.session.items:
        if isinstance(item, pytest.Function) and "mirror_matrix" in item.fixturenames:
            made.begin(**item.callspec.params)  # type: ignore[arg-type]
    yield made
    await made.aclose()


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    ("fault", "subject"),
    [
        *(("cut off", name) for name in SUBJECTS),
        *(("unheard", name) for name, subject in SUBJECTS.items() if subject.again is None),
    ],
)
async def test_converges(fault: str, subject: str, mirror_matrix: MirrorMatrix) -> None:
    failures = await mirror_matrix.failures(fault, subject)
    assert not failures, "\n".join(failures)


class RunsAtOnce(Creating):
    """Creates a connector that runs before its start is set."""

    async def _create_first(self, record: StreamRecord, facts: Any) -> bool:
        created = await super()._create_first(record, facts)
        await self._cluster.resume(record.stream.name, 30)
        return created


class StartsAtOnce(KafkaMirror):
    """A naive driver."""

    def __init__(self, cluster: ConnectCluster, address: str, **rest: Any) -> None:
        super().__init__(cluster, address, **rest)
        self._creating = RunsAtOnce(cluster, self._streams, self._recipe)


async def test_the_matrix_finds_a_stream_that_runs_before_its_start_is_set(shared: MirrorEnv) -> None:
    async with cell(shared, StartsAtOnce) as made:

        async def copies() -> bool:
            return bool(await made.copied())

        async def wait() -> None:
            await until(copies, "something is copied")

        made.line.arm(after(2), wait)
        await create_parts(made)
        with pytest.raises(AssertionError, match="too often"):
            await copies_from_start(made)


async def test_the_matrix_finds_a_replay_without_a_key_of_its_own(shared: MirrorEnv) -> None:
    async with cell(shared) as made:
        await running(made)
        for key in (uuid.uuid4().hex, "once"):
            await made.replay("2,1", key)
            await made.caught_up()
        with pytest.raises(AssertionError, match="too often"):
            await replayed_once(made)
