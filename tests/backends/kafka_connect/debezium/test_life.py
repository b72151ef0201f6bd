"""The life of a stream from tables to topics, on the real engines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from replicator.errors import StreamNotFound
from replicator.model import DesiredState, Owner, Stream, StreamState

from tests.backends.kafka_connect.debezium.conftest import OpenBed
from tests.backends.kafka_connect.debezium.debezium_env import ORDERS, PASSWORD, DebeziumEnv
from tests.waiting import until
from tools.kafka.pair import Pair
from tools.postgres import Postgres

pytestmark = pytest.mark.engine


def table_of(bed: DebeziumEnv, table: str = "orders") -> dict[int, dict[str, Any]]:
    """What the table holds, by id."""
    return {row["id"]: row for (row,) in bed.execute(f"SELECT row_to_json(t) FROM {table} t")}


async def same(bed: DebeziumEnv, stream: Stream, table: str = "orders") -> None:
    """Wait until a reader of the topic knows what the table holds."""
    await bed.caught_up(stream.name)
    await until(
        lambda: asyncio.to_thread(lambda: bed.state(stream, f"app.{table}") == table_of(bed, table)),
        timeout=30,
        what="the topic says what the table holds",
    )


async def test_rows_and_changes_arrive(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders SELECT n, 'eu', 'first' FROM generate_series(1, 20) n")
    stream = await bed.made()
    bed.execute("UPDATE orders SET note = 'second' WHERE id = 3")
    bed.execute("DELETE FROM orders WHERE id = 4")
    bed.execute("INSERT INTO orders VALUES (21)")
    found = await bed.caught_up(stream.name)
    assert bed.state(stream) == table_of(bed)
    assert [op for op, *_ in bed.changes(stream)] == ["r"] * 20 + ["u", "d", "c"]
    status = found.status
    assert (status.state, status.last_error, status.lag_events) == (StreamState.RUNNING, None, None)
    assert status.lag_seconds is not None and 0 <= status.lag_seconds < 10
    assert status.last_checkpoint is not None and status.last_checkpoint.wall is not None
    assert found.engine_objects["topics"] == [f"{stream.name}.app.orders"]
    (held,) = found.findings
    assert (held.severity.value, held.code) == ("info", "RPL-SOURCE-LIMIT")
    assert "of WAL" in held.message

    await bed.driver.delete_stream(stream.name)
    assert (bed.slot(stream.name), bed.publications(), bed.helpers()) == (None, set(), set())
    assert stream.name not in bed.connectors()
    await bed.driver.delete_stream(stream.name)


async def test_the_same_stream_again_changes_nothing(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    stream = await bed.made()
    await bed.caught_up(stream.name)
    before, slot = bed.connector(stream.name), bed.slot(stream.name)
    for driver in (bed.driver, bed.another()):
        await driver.upsert_stream(stream)
    after = bed.slot(stream.name)
    assert slot is not None and after is not None
    assert (bed.connector(stream.name), after["active_pid"]) == (before, slot["active_pid"])
    assert await bed.warned(stream) == []


async def test_changes_of_a_pause_arrive_after_it(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    stream = await bed.made()
    await bed.caught_up(stream.name)
    await bed.driver.pause(stream.name)
    await bed.driver.pause(stream.name)
    assert (await bed.described(stream.name)).status.state is StreamState.PAUSED
    bed.execute("INSERT INTO orders SELECT n FROM generate_series(1, 50) n")
    bed.execute("DELETE FROM orders WHERE id % 5 = 0")
    await asyncio.sleep(1)
    assert bed.changes(stream) == []
    await bed.driver.resume(stream.name)
    await bed.driver.resume(stream.name)
    await same(bed, stream)
    assert [op for op, *_ in bed.changes(stream)] == ["c"] * 50 + ["d"] * 10

    paused = await bed.changed(stream, desiredState="paused")
    assert paused.desired_state is DesiredState.PAUSED
    bed.execute("UPDATE orders SET note = 'later'")
    await bed.changed(paused, desiredState="running")
    await same(bed, stream)


async def test_a_stream_of_changes_alone_has_no_snapshot(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders VALUES (1)")
    stream = await bed.made(mode="cdc")
    bed.execute("INSERT INTO orders VALUES (2)")
    await bed.caught_up(stream.name)
    assert [(op, after["id"]) for op, _, after in bed.changes(stream)] == [("c", 2)]


async def test_a_snapshot_ends_as_paused_and_needs_no_slot(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders SELECT n FROM generate_series(1, 30) n")
    stream = await bed.made(mode="snapshot")
    await until(lambda: _is(bed, stream, StreamState.PAUSED), timeout=30, what="the copy is made")
    assert [op for op, *_ in bed.changes(stream)] == ["r"] * 30
    assert (bed.slot(stream.name), bed.publications(), bed.helpers()) == (None, set(), set())
    bed.execute("INSERT INTO orders VALUES (31)")
    await bed.driver.upsert_stream(stream)
    assert (await bed.described(stream.name)).stream == stream
    assert len(bed.changes(stream)) == 30


async def test_a_snapshot_of_empty_tables_ends(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    stream = await bed.made(mode="snapshot")
    await until(lambda: _is(bed, stream, StreamState.PAUSED), timeout=30, what="the copy is made")


async def _is(bed: DebeziumEnv, stream: Stream, state: StreamState) -> bool:
    return (await bed.described(stream.name)).status.state is state


async def test_a_deleted_stream_that_comes_back_begins_with_a_snapshot(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders VALUES (1)")
    stream = await bed.made()
    await bed.caught_up(stream.name)
    await bed.driver.delete_stream(stream.name)
    bed.execute("INSERT INTO orders VALUES (2)")
    again = bed.stream(name=stream.name)
    (there,) = await bed.warned(again)
    assert f"the topic {stream.name}.app.orders is there already; the stream appends to it" in there.message
    await bed.driver.upsert_stream(again)
    await bed.caught_up(stream.name)
    assert [op for op, *_ in bed.changes(stream)] == ["r", "r", "r"]


async def test_another_owner_may_neither_change_nor_remove_it(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    stream = await bed.made()
    stale = Owner(urn="urn:pulumi:dev::shop::replicator:index:Stream::other", token="stale")
    assert not await bed.driver.delete_stream(stream.name, owner=stale)
    assert bed.slot(stream.name) is not None
    with pytest.raises(StreamNotFound):
        await bed.driver.get_status("s-none")


async def test_listing_and_status_survive_a_database_that_is_away(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    stream = await bed.made()
    (listed,) = [item for item in await bed.driver.overview() if item.name == stream.name]
    assert listed.stream == stream
    assert stream in await bed.driver.list_streams()


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Postgres]:
    """A server that speaks TLS."""
    with Postgres(tmp_path / "encrypted", tls=True) as server:
        yield server


async def test_a_server_is_verified_by_its_certificate(
    kafka: Pair, encrypted: Postgres, open_bed: OpenBed, postgres: Postgres
) -> None:
    bed = open_bed(encrypted, kafka.west)
    bed.execute(ORDERS)
    stream = await bed.made(source={"uri": f"{bed.uri}?sslmode=verify-full&sslrootcert={encrypted.ca}"})
    bed.execute("INSERT INTO orders VALUES (1)")
    await same(bed, stream)
    used = bed.sql(
        "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename IN (%s, %s) "
        "AND application_name <> ''",
        bed.role,
        bed.owner,
    )
    assert used == [(True,)]

    plain = open_bed(postgres, kafka.west)
    plain.execute(ORDERS)
    error = await plain.refused(plain.stream(source={"uri": f"{plain.uri}?sslmode=require"}))
    assert (error.code, error.property) == ("RPL-ENGINE-DENIED", "source.uri")
    assert "server does not support SSL" in error.message


async def test_one_value_is_the_password_of_the_role_in_the_uri(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    login = {"authRef": f"file://{bed.login}#password", "uri": bed.uri.replace("://", f"://{bed.role}@")}
    stream = await bed.made(source=login)
    bed.execute("INSERT INTO orders VALUES (1)")
    await same(bed, stream)
    config = bed.connector(stream.name)
    assert config["database.user"] == bed.role
    assert config["database.password"] == f"${{file:{bed.login}:password}}"
    assert PASSWORD not in json.dumps(config)


async def test_a_password_that_is_wrong_or_unreadable_is_refused(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    stream = bed.stream()
    right = bed.login.read_text()
    bed.login.write_text(f"username={bed.role}\npassword=nonsense\n")
    error = await bed.refused(stream)
    assert (error.code, error.property) == ("RPL-SOURCE-DENIED", "source.authRef")
    assert "nonsense" not in str(error)
    bed.login.write_text(f"username={bed.role}\n")
    error = await bed.refused(stream)
    assert (error.code, error.property) == ("RPL-AUTH-NOTFOUND", "source.authRef")
    bed.login.write_text(right)
    await bed.driver.upsert_stream(stream)
