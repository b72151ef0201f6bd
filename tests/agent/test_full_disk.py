"""A disk that fills up under the agent: it says so, goes on when there is space, and loses nothing."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from replicator.backends.sqlite.database import content_hash
from replicator.errors import ReplicatorError, SourceFull
from replicator.model import StreamState

from tests.agent.support import Host, caught_up, host
from tests.engines import add_rows, make_database
from tests.waiting import until

pytestmark = pytest.mark.engine
FULL_DISK = str(Path(__file__).parents[1] / "full_disk.py")


@pytest.fixture
def small() -> Iterator[Host]:
    """A host whose agent can write nothing beside its databases as long as the file `full` is there."""
    with host() as made:
        data = made.folder / "data"
        data.mkdir()
        made.database = lambda name="orders": data / f"{name}.db"  # type: ignore[method-assign]
        made.start(before=(sys.executable, FULL_DISK, str(data), str(made.folder / "full")))
        yield made


async def test_a_stream_on_a_full_disk_fails_and_heals(small: Host) -> None:
    make_database(small.database(), rows=20)
    full = small.folder / "full"
    async with small.client() as client:
        await client.upsert_stream(small.stream())
        await caught_up(client)
        full.touch()
        add_rows(small.database(), 20)

        async def failed() -> bool:
            status = await client.get_status("orders")
            return status.state is StreamState.FAILED and "no space left on device" in str(status.last_error)

        await until(failed, timeout=60, what="the full disk is told")
        full.unlink()
        add_rows(small.database(), 20)
        await caught_up(client, within=60)
    assert await content_hash(await small.restore()) == await content_hash(small.database())


async def test_a_create_on_a_full_disk_is_refused_and_leaves_nothing(small: Host) -> None:
    make_database(small.database(), rows=20)
    (small.folder / "full").touch()
    async with small.client() as client:
        with pytest.raises(ReplicatorError) as caught:
            await client.upsert_stream(small.stream())
        assert isinstance(caught.value, SourceFull), str(caught.value)
        assert await client.list_streams() == []
        assert not list(small.database().parent.glob(".*litestream"))
        (small.folder / "full").unlink()
        await client.upsert_stream(small.stream())
        await caught_up(client)
    with contextlib.closing(sqlite3.connect(await small.restore())) as copy:
        assert copy.execute("SELECT count(*) FROM item").fetchone() == (20,)
