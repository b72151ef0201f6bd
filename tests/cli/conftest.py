"""Hosts for the commands: an empty one for each test, and one with an agent and streams for all that only look."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.agent.support import Host, caught_up
from tests.agent.support import host as make_host
from tests.engines import add_rows, make_database


@pytest.fixture
def host() -> Iterator[Host]:
    """A folder for one agent; nothing runs yet."""
    with make_host() as made:
        yield made


@pytest.fixture(scope="module")
def live() -> Iterator[Host]:
    """An agent with the stream `orders`, which has uploaded all of its rows."""
    with make_host() as made:
        database = make_database(made.database(), rows=10)
        made.start()

        async def declare() -> None:
            async with made.client() as client:
                await client.upsert_stream(made.stream())
                add_rows(database, 10)
                await caught_up(client)

        asyncio.run(declare())
        yield made
