"""A stream from database to database: made, changed, paused and removed on the real engines; content is compared."""

from __future__ import annotations

import pytest
from replicator.model import DesiredState, StreamState

from tests.backends.kafka_connect.debezium.sink_env import ORDERS, SinkEnv
from tests.backends.kafka_connect.mirror.mirror_env import topics
from tests.waiting import until

pytestmark = pytest.mark.engine


def fill(bed: SinkEnv, first: int = 1, last: int = 50) -> None:
    bed.execute(
        "INSERT INTO orders (id, note) SELECT n, 'note ' || n FROM generate_series(%s::int, %s::int) n", first, last
    )


async def test_rows_and_changes_arrive_in_a_table_that_is_made_and_a_delete_leaves_the_rows(
    sinks: SinkEnv,
) -> None:
    bed = sinks
    bed.execute(ORDERS)
    fill(bed)
    stream = await bed.made()
    bed.execute("UPDATE orders SET note = NULL WHERE id < 5; DELETE FROM orders WHERE id > 45")
    bed.execute("DELETE FROM orders WHERE id = 7; INSERT INTO orders (id, note) VALUES (7, 'again'), (100, 'x')")
    found = await bed.same(stream.name)
    assert found.status.state is StreamState.RUNNING
    assert found.status.lag_seconds is not None and found.status.lag_seconds < 30
    assert found.status.last_checkpoint is not None and found.status.last_error is None
    assert found.engine_objects["connectors"] == [stream.name, f"{stream.name}-sink"]
    assert found.engine_objects["tables"] == ["app.orders"]
    bed.execute("TRUNCATE orders; INSERT INTO orders (id) VALUES (1)")
    await bed.same(stream.name)
    assert bed.target_sql("SELECT stream FROM replicator.table_writers") == [(stream.name,)]

    await bed.driver.delete_stream(stream.name, owner=stream.owner)
    assert not [topic for topic in topics(bed.side) if stream.name in topic]
    assert bed.target_sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'replicator'") == [(0,)]
    assert bed.slot(stream.name) is None and not bed.publications()
    assert bed.content() == bed.content(at="source") != []


async def test_what_was_written_before_a_delete_arrives(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    stream = await bed.made(drainBeforeDelete="flush")
    fill(bed, 1, 3000)
    await bed.caught_up_at_the_source(stream.name)
    await bed.driver.delete_stream(stream.name, owner=stream.owner)
    assert bed.content() == bed.content(at="source")


async def test_a_table_joins_another_leaves_and_the_filter_changes(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    bed.execute("CREATE TABLE items (id int PRIMARY KEY, amount numeric(20,10) NOT NULL DEFAULT 0)")
    bed.execute("INSERT INTO items SELECT n, n / 7.0 FROM generate_series(1, 20) n")
    fill(bed, 1, 10)
    stream = await bed.made()
    await bed.same(stream.name)
    wider = ("app.items", "app.orders")
    warnings = [item.message for item in await bed.warned(stream.model_copy(update={"include": wider}))]
    assert any("app.items is read while the stream runs: " in text for text in warnings)
    assert any("app.items is made at the destination" in text for text in warnings)
    stream = await bed.changed(stream, include=wider)
    bed.execute("UPDATE items SET amount = amount + 1 WHERE id < 5")
    await bed.same(stream.name, "app.items", "app.orders")

    stream = await bed.changed(stream, include=["app.items"])
    assert bed.target_sql("SELECT table_name FROM replicator.table_writers") == [("items",)]
    bed.execute("DELETE FROM orders")
    await bed.same(stream.name, "app.items")
    assert len(bed.content("app.orders")) == 10

    bed.execute("ALTER TABLE items REPLICA IDENTITY FULL")
    stream = await bed.changed(stream, filter="id < 10")
    bed.execute("INSERT INTO items VALUES (0, 5.50), (500, 1); UPDATE items SET id = 600 WHERE id = 3")
    await bed.caught_up(stream.name)
    assert [row for row in bed.content("app.items") if int(row[0]) < 10] == bed.sql_texts("items WHERE id < 10")
    assert not [row for row in bed.content("app.items") if int(row[0]) >= 500]


async def test_a_pause_holds_both_halves_and_a_resume_delivers(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    stream = await bed.made()
    await bed.driver.pause(stream.name)
    fill(bed)
    assert (await bed.described(stream.name)).status.state is StreamState.PAUSED
    assert bed.content() == []
    await bed.driver.resume(stream.name)
    await bed.same(stream.name)
    paused = await bed.changed(stream, desiredState=DesiredState.PAUSED)
    bed.execute("DELETE FROM orders WHERE id < 10")
    await bed.changed(paused, desiredState=DesiredState.RUNNING)
    await bed.same(stream.name)


async def test_one_copy_is_paused_when_all_of_it_is_written(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    fill(bed)
    stream = await bed.made(mode="snapshot")

    async def copied() -> bool:
        status = (await bed.described(stream.name)).status
        assert status.state in (StreamState.SNAPSHOT, StreamState.CATCHING_UP, StreamState.PAUSED), status
        return status.state is StreamState.PAUSED

    await until(copied, timeout=60, what="the copy is complete")
    assert bed.content() == bed.content(at="source")
    assert bed.slot(stream.name) is None


async def test_a_column_that_is_added_stops_the_sink_until_the_next_change_adds_it(
    sinks: SinkEnv,
) -> None:
    bed = sinks
    bed.execute(ORDERS)
    fill(bed, 1, 10)
    stream = await bed.made()
    await bed.same(stream.name)
    bed.execute("ALTER TABLE orders ADD COLUMN price numeric(10,2) NOT NULL DEFAULT 9.90")
    bed.execute("INSERT INTO orders (id, price) VALUES (11, 1.50)")

    async def failed() -> bool:
        return (await bed.described(stream.name)).status.state is StreamState.FAILED

    await until(failed, timeout=60, what="the sink fails")
    told = (await bed.described(stream.name)).status.last_error or ""
    assert "a column is new at the source: run pulumi up --refresh, which adds it" in told
    assert "1.50" not in told
    await bed.driver.upsert_stream(stream)
    found = await bed.same(stream.name)
    assert found.status.last_error is None
    assert bed.target_sql("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'price'") == [
        ("numeric(10,2)",)
    ]
