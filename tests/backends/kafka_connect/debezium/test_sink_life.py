"""A stream from database to database: made, changed, paused and removed on the real engines; content is compared."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from replicator.model import StreamState

from tests.backends.kafka_connect.debezium.debezium_env import ORDERS
from tests.backends.kafka_connect.debezium.sink_env import SinkEnv
from tests.backends.kafka_connect.mirror.mirror_env import topics
from tools.kafka.pair import Pair
from tools.postgres import Postgres

pytestmark = pytest.mark.engine


@pytest.fixture
async def bed(kafka: Pair, postgres: Postgres) -> AsyncIterator[SinkEnv]:
    opened = SinkEnv(postgres, kafka.west)
    yield opened
    await opened.remove()


async def test_rows_and_changes_arrive_in_a_table_that_is_made(bed: SinkEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders (id, note) SELECT n, 'note ' || n FROM generate_series(1, 50) n")
    stream = await bed.made()
    bed.execute("UPDATE orders SET note = NULL WHERE id < 5; DELETE FROM orders WHERE id > 45")
    bed.execute("DELETE FROM orders WHERE id = 7; INSERT INTO orders (id, note) VALUES (7, 'again'), (100, 'x')")
    found = await bed.same(stream.name)
    assert found.status.state is StreamState.RUNNING
    assert found.status.lag_seconds is not None and found.status.lag_seconds < 30
    assert bed.target_sql("SELECT stream FROM replicator.table_writers") == [(stream.name,)]
    await bed.driver.delete_stream(stream.name, owner=stream.owner)
    assert not [topic for topic in topics(bed.side) if stream.name in topic]
    assert bed.target_sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'replicator'") == [(0,)]
    assert len(bed.content()) == len(bed.content(at="source"))
