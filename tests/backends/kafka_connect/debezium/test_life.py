"""The life of a stream from a table to its topic, on the real engines."""

from __future__ import annotations

import pytest
from replicator.model import StreamState

from tests.backends.kafka_connect.debezium.debezium_env import ORDERS, DebeziumEnv

pytestmark = pytest.mark.engine


async def test_rows_and_changes_arrive(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders SELECT n, 'eu', 'first' FROM generate_series(1, 20) n")
    stream = await bed.made()
    bed.execute("UPDATE orders SET note = 'second' WHERE id = 3")
    bed.execute("DELETE FROM orders WHERE id = 4")
    bed.execute("INSERT INTO orders VALUES (21)")
    found = await bed.caught_up(stream.name)
    rows = {id: {"id": id, "region": region, "note": note} for id, region, note in bed.execute("SELECT * FROM orders")}
    assert bed.state(stream) == rows
    assert [op for op, *_ in bed.changes(stream)] == ["r"] * 20 + ["u", "d", "c"]
    assert found.status.state is StreamState.RUNNING
    assert found.status.last_error is None
    assert found.status.lag_seconds is not None
    assert 0 <= found.status.lag_seconds < 10
    assert found.status.last_checkpoint is not None
    print(found)
    await bed.driver.delete_stream(stream.name)
    assert bed.slot(stream.name) is None
    assert bed.publications() == set()
    assert bed.helpers() == set()
    assert stream.name not in bed.connectors()
