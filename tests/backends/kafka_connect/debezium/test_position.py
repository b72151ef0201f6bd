"""A position that the source no longer holds is reported, and nothing starts behind it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from replicator.backends.kafka_connect.debezium import source_status
from replicator.errors import ReplicatorError, SourcePosition
from replicator.model import DesiredState, Endpoint, Stream, StreamState

from tests.backends.kafka_connect.debezium.conftest import OpenBed
from tests.backends.kafka_connect.debezium.debezium_env import ORDERS, DebeziumEnv
from tests.backends.kafka_connect.debezium.test_life import same, table_of
from tests.waiting import until
from tools.kafka.pair import Pair
from tools.postgres import Postgres

pytestmark = pytest.mark.engine


def slot_of(stream: Stream) -> str:
    return stream.name.replace("-", "_")


async def stopped(bed: DebeziumEnv) -> Stream:
    """A paused stream with a position, whose connector is stopped, so that hands reach its slot."""
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders VALUES (1)")
    stream = await bed.made()
    await bed.caught_up(stream.name)
    bed.execute("INSERT INTO orders VALUES (2)")
    await bed.caught_up(stream.name)
    with bed.rest() as rest:
        rest.put(f"/connectors/{stream.name}/stop").raise_for_status()
    await until(lambda: _is_free(bed, stream), timeout=20, what="the slot is free")
    return stream


async def _is_free(bed: DebeziumEnv, stream: Stream) -> bool:
    slot = bed.slot(stream.name)
    return slot is not None and not slot["active"]


async def dropped(bed: DebeziumEnv, stream: Stream) -> str:
    bed.sql("SELECT pg_drop_replication_slot(%s)", slot_of(stream))
    return "does not exist any more"


async def made_again(bed: DebeziumEnv, stream: Stream) -> str:
    bed.sql("SELECT pg_drop_replication_slot(%s)", slot_of(stream))
    bed.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", slot_of(stream))
    return "was made again"


async def moved_on(bed: DebeziumEnv, stream: Stream) -> str:
    bed.execute("INSERT INTO orders SELECT n, 'eu', repeat('x', 100) FROM generate_series(100, 200) n")
    bed.sql("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", slot_of(stream))
    return "was moved to"


async def moved_a_little(bed: DebeziumEnv, stream: Stream) -> str:
    bed.execute("INSERT INTO orders VALUES (99)")
    bed.execute("DELETE FROM orders WHERE id = 99")
    bed.sql("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", slot_of(stream))
    return "was moved to"


async def offsets_reset(bed: DebeziumEnv, stream: Stream) -> str:
    with bed.rest() as rest:
        rest.delete(f"/connectors/{stream.name}/offsets").raise_for_status()
    return "Kafka Connect has no position of the stream"


async def offsets_ahead(bed: DebeziumEnv, stream: Stream) -> str:
    body = {"offsets": [{"partition": {"server": stream.name}, "offset": {"lsn": 2**50, "ts_usec": 1}}]}
    with bed.rest() as rest:
        rest.patch(f"/connectors/{stream.name}/offsets", json=body).raise_for_status()
    return "the server's WAL ends at"


async def publication_dropped(bed: DebeziumEnv, stream: Stream) -> str:
    bed.execute(f"DROP PUBLICATION {slot_of(stream)}")
    return "the publication"


Hand = Callable[[DebeziumEnv, Stream], Awaitable[str]]


@pytest.mark.parametrize(
    "hand", [dropped, made_again, moved_on, moved_a_little, offsets_reset, offsets_ahead, publication_dropped]
)
async def test_no_way_of_starting_hides_a_lost_position(bed: DebeziumEnv, hand: Hand) -> None:
    stream = await stopped(bed)
    bed.execute("INSERT INTO orders VALUES (3)")
    message = await hand(bed, stream)
    starts: list[Callable[[], Awaitable[None]]] = [
        partial(bed.driver.resume, stream.name),
        partial(bed.driver.upsert_stream, stream),
        partial(bed.driver.upsert_stream, stream.model_copy(update={"checkpoint_interval": None})),
    ]
    for start in starts:
        with pytest.raises(SourcePosition) as refused:
            await start()
        assert message in refused.value.message
        assert refused.value.fix is not None and "pulumi destroy --target" in refused.value.fix
    (error,) = [item for item in await bed.driver.preflight(stream) if item.severity.value == "error"]
    assert (error.code, message in error.message) == ("RPL-SOURCE-POSITION", True)
    found = await bed.described(stream.name)
    assert found.status.state is StreamState.FAILED
    assert found.findings[0].code == "RPL-SOURCE-POSITION"
    (outlined,) = [item for item in await bed.driver.overview() if item.name == stream.name]
    assert outlined.status.state is StreamState.PAUSED

    await bed.driver.delete_stream(stream.name)
    assert (bed.slot(stream.name), bed.publications()) == (None, set())
    await bed.driver.upsert_stream(bed.stream(name=stream.name))
    await same(bed, stream)


async def test_a_healthy_slot_is_not_called_lost(bed: DebeziumEnv) -> None:
    """It is confirmed beyond the last change, to the end of that one's transaction."""
    bed.execute(ORDERS)
    stream = await bed.made()
    for step in range(4):
        bed.execute(f"INSERT INTO orders SELECT n FROM generate_series({step * 500}, {step * 500 + 499}) n")
        await bed.driver.pause(stream.name)
        await bed.driver.resume(stream.name)
    with bed.rest() as rest:
        rest.put(f"/connectors/{stream.name}/stop").raise_for_status()
    await until(lambda: _is_free(bed, stream), timeout=20, what="the slot is free")
    assert (await bed.described(stream.name)).status.state is StreamState.PAUSED
    bed.sql("CHECKPOINT")
    await bed.driver.resume(stream.name)
    await same(bed, stream)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Postgres]:
    """A server that a test may stop."""
    with Postgres(tmp_path / "own") as server:
        yield server


async def test_a_server_that_restarts_costs_nothing(kafka: Pair, own: Postgres, open_bed: OpenBed) -> None:
    bed = open_bed(own, kafka.west)
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders VALUES (1)")
    stream = await bed.made(options={"retriable.restart.connector.wait.ms": 500})
    await bed.caught_up(stream.name)
    await asyncio.to_thread(own.kill)
    away = await bed.described(stream.name)
    assert "does not answer" in str(away.status.last_error)
    assert (away.status.lag_seconds, away.status.state is StreamState.FAILED) == (None, False)
    with pytest.raises(ReplicatorError, match="its slot cannot be dropped, and would hold WAL forever"):
        await bed.driver.delete_stream(stream.name)
    with pytest.raises(ReplicatorError, match="takes no change of the stream while the source does not answer"):
        await bed.changed(stream, checkpointInterval="2s")
    paused = await _paused(bed, stream)
    assert stream.name in [item.name for item in await bed.driver.list_streams()]
    with pytest.raises(ReplicatorError, match="whether it can continue without a gap is unknown"):
        await bed.driver.resume(stream.name)
    await asyncio.to_thread(own.start)
    bed.reconnect()
    bed.execute("INSERT INTO orders VALUES (2)")
    await bed.changed(paused, desiredState="running")
    await same(bed, stream)


async def _paused(bed: DebeziumEnv, stream: Stream) -> Stream:
    paused = stream.model_copy(update={"desired_state": DesiredState.PAUSED})
    (warning,) = await bed.warned(paused)
    assert warning.code == "RPL-ENGINE-DOWN"
    await bed.driver.upsert_stream(paused)
    assert (await bed.described(stream.name)).status.state is StreamState.PAUSED
    return paused


async def test_another_database_gets_a_slot_and_the_old_one_loses_it(bed: DebeziumEnv, open_bed: OpenBed) -> None:
    other = open_bed(bed.server, bed.side)
    for env in (bed, other):
        env.execute(ORDERS)
    bed.execute("INSERT INTO orders VALUES (1)")
    other.execute("INSERT INTO orders VALUES (7)")
    stream = await bed.made()
    await bed.caught_up(stream.name)
    there = other.stream(name=stream.name).source
    moved = stream.model_copy(update={"source": there})
    await bed.driver.upsert_stream(moved)
    other.execute("INSERT INTO orders VALUES (8)")
    await bed.caught_up(stream.name)
    assert {7, 8} <= set(bed.state(stream))
    slot = bed.slot(stream.name)
    assert slot is not None and slot["database"] == other.database
    assert (bed.publications(), bed.helpers()) == (set(), set())
    assert other.publications() == {slot_of(stream)}
    other._names.clear()


async def test_a_move_that_was_cut_off_is_finished_by_the_next_up(
    bed: DebeziumEnv, open_bed: OpenBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_bed(bed.server, bed.side)
    for env in (bed, other):
        env.execute(ORDERS)
    other.execute("INSERT INTO orders VALUES (7)")
    stream = await bed.made()
    await bed.caught_up(stream.name)
    there: Endpoint = other.stream(name=stream.name).source
    moved = stream.model_copy(update={"source": there})

    async def cut(*_: object) -> None:
        raise ConnectionError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr("replicator.backends.postgres.slots.create", cut)
        with pytest.raises(ConnectionError):
            await bed.driver.upsert_stream(moved)
    assert "creation is incomplete" in str((await bed.described(stream.name)).status.last_error)
    await bed.another().upsert_stream(moved)
    await bed.caught_up(stream.name)
    assert bed.state(stream) == table_of(other)
    assert bed.publications() == set()
    other._names.clear()


FILTERED = ("SET TABLE app.orders", "app.orders has no row filter, and the stream (region = 'eu'::text)")
HANDS = {
    "no filter": FILTERED,
    "no table": ("DROP TABLE app.orders", "it lacks app.orders"),
    "inserts alone": ("SET (publish = 'insert')", "it does not publish inserts, updates and deletes"),
}


@pytest.mark.parametrize("case", HANDS)
async def test_a_publication_changed_by_hand_is_told_and_put_right(bed: DebeziumEnv, case: str) -> None:
    statement, message = HANDS[case]
    bed.execute(ORDERS)
    bed.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    stream = await bed.made(filter="region = 'eu'")
    await bed.caught_up(stream.name)
    bed.execute(f"ALTER PUBLICATION {slot_of(stream)} {statement}")
    found = await bed.described(stream.name)
    assert found.status.state is StreamState.FAILED
    assert message in str(found.status.last_error)
    assert found.findings[0].code == "RPL-SOURCE-SETUP"
    await bed.driver.upsert_stream(stream)
    bed.execute("INSERT INTO orders VALUES (1, 'eu'), (2, 'us')")
    bed.execute("UPDATE orders SET note = 'x'")
    await bed.caught_up(stream.name)
    assert set(bed.state(stream)) == {1}


async def test_helper_tables_dropped_by_hand_are_told_and_made_again(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    stream = await bed.made()
    await bed.caught_up(stream.name)
    bed.sql("DROP SCHEMA replicator CASCADE")
    found = await bed.described(stream.name)
    assert found.status.state is StreamState.FAILED
    assert f"it lacks replicator.heartbeat_{slot_of(stream)}" in str(found.status.last_error)
    await bed.driver.upsert_stream(stream)
    bed.execute("INSERT INTO orders VALUES (1)")
    await same(bed, stream)


async def test_the_sql_for_the_publication_of_an_administrator_keeps_the_helper_tables(bed: DebeziumEnv) -> None:
    bed.execute(ORDERS)
    bed.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    bed.execute("INSERT INTO orders VALUES (1, 'eu'), (2, 'us')")
    stream = bed.stream(source={"adminAuthRef": None}, filter="region = 'eu'")
    error = await bed.refused(stream)
    bed.sql(str(error.fix).partition("run: ")[2])
    await bed.driver.upsert_stream(stream)
    await bed.caught_up(stream.name)
    other = stream.model_copy(update={"filter": "region = 'us'"})
    error = await bed.refused(other)
    bed.sql(str(error.fix).partition("run: ")[2])
    await bed.driver.upsert_stream(other)
    await until(lambda: asyncio.to_thread(lambda: 2 in bed.state(other)), timeout=40, what="row 2 is read")
    assert len(bed.published(stream.name)) == 3


async def test_a_pause_says_how_fast_the_slot_grows(bed: DebeziumEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the heartbeats, and so by what the whole server writes."""
    monkeypatch.setattr(source_status, "SHORTEST", 1.0)
    bed.execute(ORDERS)
    bed.execute("CREATE TABLE noise (body text)")
    stream = await bed.made()

    async def beats() -> bool:
        return len(bed.sql(f"SELECT id FROM replicator.heartbeat_{slot_of(stream)}")) >= 3

    await until(beats, timeout=30, what="there are heartbeats")
    bed.execute("INSERT INTO noise SELECT repeat(md5(n::text), 20) FROM generate_series(1, 5000) n")
    paused = stream.model_copy(update={"desired_state": DesiredState.PAUSED})
    (told,) = [item for item in await bed.warned(paused) if item.property == "desiredState"]
    wanted = (
        rf"while it is paused, the replication slot {slot_of(stream)} holds about [0-9.]+ [MG]B of WAL more each hour"
    )
    assert re.fullmatch(wanted, told.message)
    await bed.driver.pause(stream.name)
    with bed.rest() as rest:
        rest.put(f"/connectors/{stream.name}/stop").raise_for_status()
    await until(lambda: _is_free(bed, stream), timeout=20, what="the slot is free")
    (held,) = [item for item in (await bed.described(stream.name)).findings if "holds" in item.message]
    assert "; nothing reads it, and it holds about " in held.message
    await bed.driver.resume(stream.name)
