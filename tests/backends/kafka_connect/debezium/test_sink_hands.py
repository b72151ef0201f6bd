"""Hands at both databases, at the connectors and at the topics: content is compared, or the loss is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka.admin import AdminClient
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.errors import DestinationSetup, EngineUnavailable, ReplayNotRetained, ReplicatorError
from replicator.model import Checkpoint, StreamState
from replicator.replicator import ReplayMethod

from tests.backends.kafka_connect.debezium.sink_env import ORDERS, SinkEnv
from tests.backends.kafka_connect.debezium.test_sink_life import fill
from tests.backends.kafka_connect.mirror.mirror_env import prune
from tests.backends.sqlite.agents import state_is
from tests.kafka import plain
from tests.waiting import until
from tools.kafka.pair import Pair
from tools.postgres import Postgres

pytestmark = pytest.mark.engine


async def read_again(bed: SinkEnv, name: str) -> None:
    """Wait until the rows of both ends are the same: rows that are read again belong to no transaction."""

    async def same() -> bool:
        return bed.content() == bed.content(at="source")

    await bed.caught_up(name)
    await until(same, timeout=60, what="the rows are read again")


def ago(minutes: float) -> Checkpoint:
    return Checkpoint(wall=datetime.now(UTC) - timedelta(minutes=minutes))


async def test_a_table_that_was_made_again_is_read(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    fill(bed)
    stream = await bed.made()
    await bed.same(stream.name)
    bed.execute("DROP TABLE orders")
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders VALUES (1000, 'eu', 'new')")
    assert any("app.orders is read while the stream runs" in item.message for item in await bed.warned(stream))
    await bed.driver.upsert_stream(stream)
    bed.target_sql("DELETE FROM app.orders WHERE id < 1000")
    await read_again(bed, stream.name)


async def test_a_column_that_joins_is_filled(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    fill(bed, 1, 10)
    stream = await bed.made(exclude=["app.orders.note"])
    await bed.caught_up(stream.name)
    wider = stream.model_copy(update={"exclude": ()})
    assert any("app.orders is read while the stream runs" in item.message for item in await bed.warned(wider))
    await bed.driver.upsert_stream(wider)
    await read_again(bed, stream.name)


async def test_a_change_that_is_cut_off_before_a_column_is_filled_fills_it_later(
    sinks: SinkEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = sinks
    bed.execute(ORDERS)
    fill(bed, 1, 10)
    stream = await bed.made()
    await bed.same(stream.name)
    bed.execute("ALTER TABLE orders ADD COLUMN price numeric(10,2) NOT NULL DEFAULT 9.90")

    async def cut(*_: object, **__: object) -> None:
        raise EngineUnavailable("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr(ConnectCluster, "put_config", cut)
        with pytest.raises(EngineUnavailable):
            await bed.driver.upsert_stream(stream)
    assert bed.target_sql("SELECT count(*) FROM app.orders WHERE price IS NULL") == [(10,)]
    await bed.another().upsert_stream(stream)
    await read_again(bed, stream.name)
    assert bed.target_sql("SELECT unread FROM replicator.table_writers") == [(False,)]


COARSE = {
    "numeric(10,4)": "numeric(10,2)",
    "timestamp": "timestamp(0)",
    "time": "time(0)",
    "double precision": "real",
    "interval": "interval second(0)",
    "bigint": "real",
}


async def test_a_coarser_column_at_the_destination_is_refused(sinks: SinkEnv) -> None:
    bed = sinks
    with bed.target() as session:
        session.execute("CREATE SCHEMA app")
    for number, (kind, coarse) in enumerate(COARSE.items()):
        bed.execute(f"CREATE TABLE coarse{number} (id int PRIMARY KEY, v {kind})")
        bed.execute(f"ALTER TABLE coarse{number} REPLICA IDENTITY FULL")
        with bed.target() as session:
            session.execute(f"CREATE TABLE app.coarse{number} (id int PRIMARY KEY, v {coarse})".encode())
        error = await bed.refused(bed.stream(f"app.coarse{number}"))
        assert isinstance(error, DestinationSetup) and error.fix is not None
        assert "which may round a value or refuse it" in error.message
        bed.target_sql(error.fix)
        await bed.warned(bed.stream(f"app.coarse{number}"))


async def test_lost_changes_are_refused_where_only_the_sink_is_stopped(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    fill(bed)
    stream = await bed.made(drainBeforeDelete="flush")
    await bed.same(stream.name)
    with closing(bed.rest()) as rest:
        rest.put(f"/connectors/{stream.name}-sink/stop").raise_for_status()
    fill(bed, 51, 100)
    await bed.caught_up_at_the_source(stream.name)
    prune(bed.side, f"{stream.name}.app.orders", 80)
    assert isinstance(await bed.refused(stream), ReplayNotRetained)
    with pytest.raises(ReplayNotRetained):
        await bed.driver.plan_replay(stream.name, ago(1))
    await bed.driver.replay(stream.name, ago(0), key="out", method=ReplayMethod.RESNAPSHOT)
    await read_again(bed, stream.name)


async def test_a_delete_does_not_drop_changes_behind_a_topic_that_was_made_again(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    fill(bed)
    stream = await bed.made(drainBeforeDelete="flush")
    await bed.same(stream.name)
    topic = f"{stream.name}.app.orders"
    client = AdminClient(dict(plain(bed.side.bootstrap)))
    client.delete_topics([topic])[topic].result(30)  # Debezium makes it again at once
    bed.execute("INSERT INTO orders VALUES (901)")
    await bed.caught_up_at_the_source(stream.name)
    with closing(bed.rest()) as rest:  # as a task commits that was about to when the topic went
        rest.put(f"/connectors/{stream.name}-sink/stop").raise_for_status()
        offset = {"partition": {"kafka_topic": topic, "kafka_partition": 0}, "offset": {"kafka_offset": 50}}

        async def moved() -> bool:
            asked = rest.patch(f"/connectors/{stream.name}-sink/offsets", json={"offsets": [offset]})
            return asked.status_code == 200

        await until(moved, what="the offset of the sink is moved")
    with pytest.raises(ReplayNotRetained, match="was deleted and made again"):
        await bed.driver.delete_stream(stream.name)
    await bed.changed(stream, desiredState="paused", drainBeforeDelete="skip")


async def test_offsets_that_kafka_has_removed(sinks: SinkEnv) -> None:
    """As it does of a group without members after a week: from the beginning if all is retained, else it is refused."""
    bed = sinks
    bed.execute(ORDERS)
    fill(bed)
    stream = await bed.made()
    await bed.same(stream.name)
    await bed.driver.pause(stream.name)
    topic, name = f"{stream.name}.app.orders", f"{stream.name}-sink"

    async def removed() -> bool:
        with closing(bed.rest()) as rest:
            remove_by = {"offsets": [{"partition": {"kafka_topic": topic, "kafka_partition": 0}, "offset": None}]}
            rest.put(f"/connectors/{name}/stop").raise_for_status()
            return rest.patch(f"/connectors/{name}/offsets", json=remove_by).status_code == 200

    await until(removed, what="the offsets are removed")
    bed.execute("DELETE FROM orders WHERE id < 10")
    await bed.driver.resume(stream.name)
    await bed.same(stream.name)

    await bed.driver.pause(stream.name)
    await until(removed, what="the offsets are removed again")
    prune(bed.side, topic, 5)
    with pytest.raises(ReplayNotRetained, match="Kafka has removed the sink's offset"):
        await bed.driver.resume(stream.name)
    await bed.driver.replay(stream.name, ago(0), key="out", method=ReplayMethod.RESNAPSHOT)
    await read_again(bed, stream.name)


async def test_a_rewind_does_not_go_back_behind_the_time_when_a_table_was_out_of_the_stream(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    bed.execute("CREATE TABLE other (id int PRIMARY KEY)")
    fill(bed, 1, 10)
    stream = await bed.made("app.orders", "app.other")
    await bed.same(stream.name, "app.orders", "app.other")
    await bed.changed(stream, include=["app.other"])
    bed.execute("DELETE FROM orders WHERE id < 4")
    bed.target_sql("DELETE FROM app.orders WHERE id < 4")
    await bed.changed(stream, include=["app.orders", "app.other"])
    await read_again(bed, stream.name)
    await bed.driver.replay(stream.name, ago(10), key="k", method=ReplayMethod.SINK_REWIND)
    await read_again(bed, stream.name)


async def test_what_is_in_the_place_of_a_table_or_of_its_key_is_refused(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    bed.execute("CREATE TABLE pairs (id int, region int, PRIMARY KEY (id, region))")
    with bed.target() as session:
        session.execute("CREATE SCHEMA app; CREATE TABLE app.base (id int); CREATE VIEW app.orders AS TABLE app.base")
        session.execute("CREATE TABLE app.pairs (id int PRIMARY KEY, region int)")
    assert (await bed.refused(bed.stream())).message == "app.orders at the destination is no table"
    error = await bed.refused(bed.stream("app.pairs"))
    assert error.fix is not None and error.fix.startswith("CREATE UNIQUE INDEX ON ")
    bed.target_sql(error.fix)
    await bed.warned(bed.stream("app.pairs"))


@pytest.fixture
async def apart(kafka: Pair, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SinkEnv]:
    """To a server of its own, which the test stops, and which runs again when the stream is removed."""
    with Postgres(tmp_path_factory.mktemp("target")) as server:
        opened = SinkEnv(postgres, kafka.west, target_server=server)
        yield opened
        if server.pid is None:
            server.start()
        await opened.remove()


async def test_a_stream_whose_destination_is_gone_for_good_can_be_paused_and_removed(apart: SinkEnv) -> None:
    bed = apart
    bed.execute(ORDERS)
    stream = await bed.made(drainBeforeDelete="flush")
    await bed.same(stream.name)
    bed.target_server.stop()
    fill(bed)
    await bed.caught_up_at_the_source(stream.name)
    await asyncio.sleep(3)
    with pytest.raises(ReplicatorError, match="set drainBeforeDelete: skip and desiredState: paused"):
        await bed.driver.delete_stream(stream.name)
    await bed.changed(stream, drainBeforeDelete="skip", desiredState="paused")
    await state_is(bed.driver, stream.name, StreamState.PAUSED)  # a task that has failed is told until it has ended
    await bed.driver.delete_stream(stream.name)
    assert bed.slot(stream.name) is None
