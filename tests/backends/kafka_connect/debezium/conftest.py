"""Streams from a database of the test's own to the west, removed when the test ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.backends.kafka_connect.debezium.debezium_env import DebeziumEnv
from tests.backends.kafka_connect.debezium.sink_env import SinkEnv
from tests.postgres import limit_slots
from tools.kafka.pair import Pair
from tools.postgres import Postgres

OpenBed = Callable[..., DebeziumEnv]
"""Opens what `DebeziumEnv` describes, until the test ends."""


@pytest.fixture
async def open_bed(postgres: Postgres) -> AsyncIterator[OpenBed]:
    opened: list[DebeziumEnv] = []

    def open_(*given: Any, **rest: Any) -> DebeziumEnv:
        opened.append(DebeziumEnv(*(given or (postgres,)), **rest))
        return opened[-1]

    yield open_
    for bed in reversed(opened):
        await bed.remove()


@pytest.fixture
async def sinks(kafka: Pair, postgres: Postgres) -> AsyncIterator[SinkEnv]:
    """From database to database, by the workers of the west."""
    opened = SinkEnv(postgres, kafka.west)
    yield opened
    await opened.remove()


@pytest.fixture
def bed(kafka: Pair, postgres: Postgres, open_bed: OpenBed) -> DebeziumEnv:
    """To the west, by the workers of the west."""
    return open_bed(postgres, kafka.west)


@pytest.fixture
def bounded(postgres: Postgres) -> Iterator[None]:
    """Bookmarks need a limit of the WAL that a slot may hold."""
    limit_slots(postgres, "20GB")
    yield
    limit_slots(postgres, "-1")
