"""An application that writes all the time: what the agent does on its own does not keep it waiting."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from replicator.model import StreamState

from tests.backends.sqlite.agents import Agent, caught_up, declare, state_is
from tests.engines import add_rows, make_database

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]

LONGEST = 0.8  # seconds; a machine under load stalls a thread by itself for some tenths


class Application(threading.Thread):
    """Commits a row every few milliseconds, and gives up a commit after a second as an application would.

    :ivar longest: seconds that the longest commit took.
    :ivar errors: commits that failed.
    """

    def __init__(self, database: Path) -> None:
        super().__init__(daemon=True)
        self.database = database
        self.longest = 0.0
        self.commits = 0
        self.errors: list[str] = []
        self.end = threading.Event()

    def run(self) -> None:
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None, timeout=1.0)) as shop:
            while not self.end.wait(0.005):
                began = time.monotonic()
                try:
                    shop.execute("INSERT INTO item (value) VALUES ('x')")
                except sqlite3.OperationalError as error:
                    self.errors.append(str(error))
                self.commits += 1
                self.longest = max(self.longest, time.monotonic() - began)


@contextmanager
def writing(database: Path) -> Iterator[Application]:
    application = Application(database)
    application.start()
    try:
        yield application
    finally:
        application.end.set()
        application.join()


async def test_a_reader_that_keeps_the_wal_keeps_no_writer_waiting(agent: Agent, tmp_path: Path, place: str) -> None:
    """The WAL would have to be emptied, and a report reads the database for minutes."""
    database = make_database(tmp_path / "shop.db")
    await agent.driver.upsert_stream(declare("orders", database, place))
    await caught_up(agent.driver, "orders")
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as report:
        await agent.stop()
        add_rows(database, 5)
        report.execute("PRAGMA wal_checkpoint(RESTART)")
        add_rows(database, 5)  # litestream can no longer go on without a copy
        report.execute("BEGIN")
        report.execute("SELECT count(*) FROM item").fetchone()
        with writing(database) as application:
            await agent.start()
            failed = await state_is(agent.driver, "orders", StreamState.FAILED, timeout=30)
            assert "a transaction has kept the WAL" in str(failed.last_error)
            await asyncio.sleep(10)  # it tries again
            report.execute("COMMIT")
            await state_is(agent.driver, "orders", StreamState.RUNNING, timeout=60)
    await caught_up(agent.driver, "orders")
    assert application.commits > 200
    assert application.errors == []
    assert application.longest < LONGEST


async def test_pauses_and_restarts_keep_no_writer_waiting(agent: Agent, tmp_path: Path, place: str) -> None:
    database = make_database(tmp_path / "shop.db")
    await agent.driver.upsert_stream(declare("orders", database, place))
    with writing(database) as application:
        for _ in range(3):
            await agent.driver.pause("orders")
            await agent.driver.resume("orders")
            await agent.driver.upsert_stream(declare("orders", database, place, checkpointInterval="500ms"))
            await agent.stop()
            await agent.start()
            await agent.driver.upsert_stream(declare("orders", database, place))
    await caught_up(agent.driver, "orders")
    assert application.commits > 200
    assert application.errors == []
    assert application.longest < LONGEST
