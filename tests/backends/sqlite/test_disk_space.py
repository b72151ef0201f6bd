"""Room for a whole copy: a preview tells of it, and a copy that does not fit is not begun."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest
from replicator.errors import SourceFull
from replicator.model import StreamState
from replicator.replicator import Severity

from tests.backends.sqlite.agents import Agent, caught_up, declare, state_is
from tests.engines import add_rows, make_database

pytestmark = pytest.mark.engine

MB = 1_000_000
Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = make_database(tmp_path / "shop.db")
    with contextlib.closing(sqlite3.connect(path)) as shop, shop:
        shop.execute("CREATE TABLE photo (content)")
        shop.executemany("INSERT INTO photo VALUES (randomblob(?))", [(MB,)] * 4)
    return path


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What is free on the disk, in bytes; a test may change it."""
    held = [10**12]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, held[0]))
    return held


@pytest.mark.parametrize(
    ("left", "severity"), [(0.9, Severity.ERROR), (1.5, Severity.WARNING), (3.9, Severity.WARNING), (4.5, None)]
)
async def test_a_preview_tells_of_it(
    agent: Agent, database: Path, place: str, free: list[int], left: float, severity: Severity | None
) -> None:
    free[0] = int(left * MB)
    found = await agent.driver.preflight(declare("orders", database, place))
    assert [item.severity for item in found] == ([severity] if severity else [])
    for item in found:
        assert item.code == "RPL-SOURCE-FULL"
        assert "a whole copy takes up to 4.0 MB on the database's disk, and " in item.message


async def test_a_replica_on_the_same_disk_needs_its_room_too(agent: Agent, database: Path, free: list[int]) -> None:
    free[0] = 6 * MB
    (found,) = await agent.driver.preflight(declare("orders", database, f"file://{database.parent}/replica/of/it"))
    assert found.severity is Severity.WARNING
    assert "takes up to 8.0 MB" in found.message


async def test_a_create_that_cannot_fit_writes_nothing(
    agent: Agent, database: Path, place: str, free: list[int]
) -> None:
    free[0] = MB // 2
    with pytest.raises(SourceFull, match="a whole copy takes up to"):
        await agent.driver.upsert_stream(declare("orders", database, place))
    assert list(database.parent.glob(".*litestream")) == []
    assert await agent.driver.list_streams() == []


async def test_a_restart_without_a_copy_needs_none(agent: Agent, database: Path, place: str, free: list[int]) -> None:
    await agent.driver.upsert_stream(declare("orders", database, place))
    await caught_up(agent.driver, "orders")
    free[0] = 0
    with contextlib.closing(sqlite3.connect(database)) as shop:
        shop.execute("SELECT count(*) FROM item").fetchone()
        await agent.driver.pause("orders")
        add_rows(database, 3)
        await agent.driver.resume("orders")
        await caught_up(agent.driver, "orders")


async def test_after_a_copy_has_filled_the_disk_the_next_one_has_to_fit_whole(
    agent: Agent, database: Path, place: str, free: list[int]
) -> None:
    await agent.driver.upsert_stream(declare("orders", database, place))
    await caught_up(agent.driver, "orders")
    await agent.driver.pause("orders")
    part = database.parent / ".shop.db-litestream" / "ltx" / "0" / "0000000000000002-0000000000000002.ltx.tmp"
    part.write_bytes(b"half")
    await agent.driver._reconciler.daemons.filled(database)
    assert not part.exists()
    with contextlib.closing(sqlite3.connect(database)) as shop:
        add_rows(database, 3)
        shop.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what is new is not in the WAL
    free[0] = 2 * MB
    with pytest.raises(SourceFull, match=r"and 2\.0 MB are free"):
        await agent.driver.resume("orders")
    free[0] = 9 * MB
    await agent.driver.resume("orders")
    await caught_up(agent.driver, "orders")
    assert (await state_is(agent.driver, "orders", StreamState.RUNNING)).lag_events == 0
