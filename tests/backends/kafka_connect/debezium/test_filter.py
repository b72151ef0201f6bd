"""No row outside the filter is at the destination, by whatever path it comes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from replicator.backends.kafka_connect.debezium.source_objects import SourceObjects
from replicator.errors import EngineRefused, InvalidStream, SourceSetup
from replicator.model import Stream, StreamState

from tests.backends.kafka_connect.debezium.debezium_env import ORDERS, DebeziumEnv
from tests.waiting import until

pytestmark = pytest.mark.engine

EU = "region = 'eu'"
TABLES = ["orders", '"Odd Name"', '"Tab.le"', "no_key"]


def fill(bed: DebeziumEnv, table: str, first: int, end: int) -> None:
    bed.execute(
        f"INSERT INTO {table} (id, region) SELECT n, CASE WHEN n % 2 = 0 THEN 'eu' ELSE 'us' END "
        f"FROM generate_series({first}, {end - 1}) n"
    )


def topic(table: str) -> str:
    return "app." + table.strip('"').replace(" ", "_")


async def arrived(bed: DebeziumEnv, stream: Stream, table: str, ids: set[int]) -> list[tuple[str, Any, Any]]:
    """Wait until the rows of these ids were sent, and give every change of the topic."""
    found: list[tuple[str, Any, Any]] = []

    async def there() -> bool:
        found[:] = await asyncio.to_thread(bed.changes, stream, topic(table))
        return {after["id"] for _, _, after in found if after} >= ids

    await until(there, timeout=40, what=f"rows {ids} of {table}", told=lambda: found)
    return found


def outside(changes: list[tuple[str, Any, Any]]) -> list[Any]:
    return [row for _, before, after in changes for row in (before, after) if row and row["region"] != "eu"]


async def test_snapshot_changes_and_tables_that_join_obey_it(bed: DebeziumEnv) -> None:
    for table in TABLES:
        key = "" if table == "no_key" else "PRIMARY KEY"
        bed.execute(f"CREATE TABLE {table} (id int {key}, region text, note text)")
        bed.execute(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
        fill(bed, table, 0, 10)
    stream = await bed.made("app.orders", filter=EU)
    await bed.caught_up(stream.name)
    fill(bed, "orders", 10, 20)
    bed.execute("UPDATE orders SET region = 'us' WHERE id IN (0, 10)")
    bed.execute("UPDATE orders SET region = 'eu' WHERE id IN (1, 11)")
    bed.execute("DELETE FROM orders WHERE id IN (2, 3)")
    await bed.caught_up(stream.name)
    changes = bed.changes(stream)
    assert outside(changes) == []
    assert sorted(bed.state(stream)) == [
        id for (id,) in bed.execute("SELECT id FROM orders WHERE region = 'eu' ORDER BY 1")
    ]

    wider = stream.model_copy(update={"include": ("app.*",)})
    told = [item.message for item in await bed.warned(wider)]
    assert any('app."Odd Name" is read while the stream runs' in text for text in told)
    fill(bed, '"Odd Name"', 10, 20)
    await bed.driver.upsert_stream(wider)
    for table in TABLES[1:]:
        fill(bed, table, 20, 30)
    for table in TABLES[1:]:
        expected = {id for (id,) in bed.execute(f"SELECT id FROM {table} WHERE region = 'eu'")}
        assert outside(await arrived(bed, stream, table, expected)) == [], table
    assert (await bed.described(stream.name)).status.state is not StreamState.FAILED


async def test_another_filter_reads_the_tables_again(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    fill(bed, "orders", 0, 10)
    stream = await bed.made(filter=EU)
    await bed.caught_up(stream.name)
    assert set(bed.state(stream)) == {0, 2, 4, 6, 8}
    await bed.changed(stream, filter="region = 'us' AND id > 3")
    fill(bed, "orders", 10, 14)
    changes = await arrived(bed, stream, "orders", {5, 7, 9, 11, 13})
    sent = [after["id"] for op, _, after in changes[5:]]
    assert sorted(set(sent)) == [5, 7, 9, 11, 13]


REFUSED = {
    "no such column": ("regio = 'eu'", InvalidStream, "reads the column regio, which app.orders does not have"),
    "not its type": ("id = 'eu'", InvalidStream, "PostgreSQL refuses it for app.orders"),
    "outside of the identity": (EU, SourceSetup, "region of app.orders is not in its replica identity"),
}


MUTABLE = ["region = current_user", "region = to_char(now(), 'YYYY')", "id > random()", "note = current_setting('x')"]


async def test_a_function_that_changes_its_result_is_refused_and_nothing_stops(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    stream = await bed.made(filter=EU)
    await bed.caught_up(stream.name)
    for text in MUTABLE:
        error = await bed.refused(stream.model_copy(update={"filter": text}))
        assert (error.code, error.property) == ("RPL-STREAM-INVALID", "filter"), text
    assert bed.sql("SELECT count(*) FROM pg_class WHERE relname = 'replicator_check'") == [(0,)]
    assert (await bed.described(stream.name)).status.state is StreamState.RUNNING


async def test_a_change_that_fails_half_way_starts_the_stream_again(
    bed: DebeziumEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.execute(ORDERS)
    bed.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    stream = await bed.made(filter=EU)
    await bed.caught_up(stream.name)

    async def fails(*_: object) -> None:
        raise EngineRefused("it fails")

    with monkeypatch.context() as patch:
        patch.setattr(SourceObjects, "set_tables", fails)
        with pytest.raises(EngineRefused, match="it fails"):
            await bed.changed(stream, filter="id > 3")
    bed.execute("INSERT INTO orders VALUES (2, 'eu')")
    found = await bed.caught_up(stream.name)
    assert found.status.last_error is None
    assert set(bed.state(stream)) == {2}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_the_table_does_not_take_is_refused(bed: DebeziumEnv, case: str) -> None:
    text, kind, message = REFUSED[case]
    bed.execute(ORDERS)
    error = await bed.refused(bed.stream(filter=text))
    assert isinstance(error, kind)
    assert message in error.message
    assert error.property == "filter"
    assert bed.publications() == set()
    if kind is SourceSetup:
        assert error.fix == 'ALTER TABLE "app"."orders" REPLICA IDENTITY FULL'
        bed.execute(error.fix)
        await bed.driver.upsert_stream(bed.stream(filter=text))
