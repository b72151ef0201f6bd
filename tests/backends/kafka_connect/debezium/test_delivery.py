"""A stream from topics to a database: made, changed, paused, replayed and removed on the real engines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from replicator.errors import (
    DestinationInUse,
    DestinationSetup,
    InvalidStream,
    ReplayNotRetained,
    SourceMissing,
    Unsupported,
)
from replicator.model import Checkpoint, Stream, StreamState
from replicator.replicator import Description, ReplayMethod, ReplayState

from tests.backends.kafka_connect.debezium.debezium_env import URN
from tests.backends.kafka_connect.debezium.records import JSON, flat
from tests.backends.kafka_connect.debezium.sink_env import ORDERS, SinkEnv
from tests.backends.kafka_connect.mirror.mirror_env import prune
from tests.kafka import Record, make_topic, plain, produce, unique
from tests.postgres import connect, make_database
from tests.waiting import until

pytestmark = pytest.mark.engine


class Delivery:
    """Streams from topics of one side to the destination of an environment."""

    def __init__(self, bed: SinkEnv) -> None:
        self.bed = bed
        self.driver = bed.driver

    def topic(self, name: str, **config: Any) -> str:
        return make_topic(plain(self.bed.side.bootstrap), unique(name), **config)

    def write(self, topic: str, records: Sequence[Record]) -> None:
        produce(plain(self.bed.side.bootstrap), topic, records)

    def stream(self, *include: str, **changes: Any) -> Stream:
        name = changes.pop("name", None) or unique("d")
        self.bed._names.append(name)
        given = {
            "name": name,
            "include": list(include),
            "owner": {"urn": URN, "issue": name},
            "options": {**JSON, **changes.pop("options", {})},
            "source": {"kind": "kafka", "uri": f"kafka://{self.bed.side.bootstrap}"},
            "destination": {
                "kind": "postgres",
                "uri": self.bed.target_uri,
                "authRef": f"file://{self.bed.target_login}",
                **changes.pop("destination", {}),
            },
            **changes,
        }
        return Stream.model_validate(given)

    async def made(self, *include: str, **changes: Any) -> Stream:
        stream = self.stream(*include, **changes)
        await self.driver.upsert_stream(stream)
        return (await self.bed.described(stream.name)).stream

    async def caught_up(self, name: str) -> Description:
        goal = (await self.bed.described(name)).source_end

        async def there() -> Description | None:
            found = await self.bed.described(name)
            assert found.status.state is not StreamState.FAILED, found.status.last_error
            done = found.status.state is StreamState.RUNNING
            return found if done and all(found.reached[at] >= end for at, end in goal.items()) else None

        return await until(there, timeout=60, what=f"{name} is caught up")

    def rows(self, table: str) -> dict[int, str | None]:
        schema, name = table.split(".")
        return dict(self.bed.target_sql(f'SELECT id, note FROM "{schema}"."{name}"'))


@pytest.fixture
def delivery(sinks: SinkEnv) -> Delivery:
    sinks.target_sql(f'GRANT CREATE ON SCHEMA public TO "{sinks.writer}"')
    return Delivery(sinks)


async def test_records_become_rows_and_tombstones_delete_them(delivery: Delivery) -> None:
    topic = delivery.topic("shop.orders", partitions=2)
    delivery.write(topic, [flat(n, f"note {n}", partition=n % 2) for n in range(20)])
    stream = delivery.stream(topic)
    (told,) = await delivery.bed.warned(stream)
    table = f"public.{topic.replace('.', '_')}"
    assert told.message.startswith(f"{topic} is written to ") and told.message.endswith(": 20 records at first")
    await delivery.driver.upsert_stream(stream)
    delivery.write(topic, [flat(1, "changed", partition=1), flat(2, deleted=True), flat(4)])
    found = await delivery.caught_up(stream.name)
    expected: dict[int, str | None] = {n: f"note {n}" for n in range(20) if n != 2}
    expected |= {1: "changed", 4: None}
    assert delivery.rows(table) == expected
    status = found.status
    assert (status.state, status.lag_events, status.lag_seconds, status.last_error) == (StreamState.RUNNING, 0, 0, None)
    assert status.last_checkpoint is not None and status.last_checkpoint.lsn == f"{topic}=12,11"
    assert found.engine_objects["topics"] == [topic]

    await delivery.driver.pause(stream.name)
    delivery.write(topic, [flat(50, "paused")])
    paused = (await delivery.bed.described(stream.name)).status
    assert (paused.state, paused.lag_events) == (StreamState.PAUSED, 1)
    assert paused.lag_seconds is not None and 50 not in delivery.rows(table)
    await delivery.driver.resume(stream.name)
    await delivery.caught_up(stream.name)
    assert delivery.rows(table)[50] == "paused"

    owner = (await delivery.bed.described(stream.name)).stream.owner
    await delivery.driver.delete_stream(stream.name, owner=owner)
    assert delivery.rows(table)[50] == "paused"
    assert delivery.bed.target_sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'replicator'") == [(0,)]
    again = await delivery.made(topic, name=stream.name, mode="cdc")  # it begins at the end, whatever Connect kept
    delivery.write(topic, [flat(60, "later")])
    delivery.bed.target_sql(f'DELETE FROM "{table.replace(".", chr(34) + "." + chr(34))}" WHERE id < 50')
    await delivery.caught_up(again.name)
    assert delivery.rows(table) == {50: "paused", 60: "later"}


async def test_a_topic_joins_another_leaves_and_starts_are_kept(delivery: Delivery) -> None:
    one, two = delivery.topic("one"), delivery.topic("two")
    delivery.write(one, [flat(n, "x") for n in range(5)])
    delivery.write(two, [flat(n, "y") for n in range(5)])
    stream = await delivery.made(one, startFrom={"lsn": f"{one}=3"})
    await delivery.caught_up(stream.name)
    assert set(delivery.rows(f"public.{one}")) == {3, 4}
    wider = await delivery.bed.changed(stream, include=[one, two], startFrom="earliest")
    delivery.write(one, [flat(9, "x")])
    await delivery.caught_up(stream.name)
    assert (set(delivery.rows(f"public.{one}")), set(delivery.rows(f"public.{two}"))) == ({3, 4, 9}, {0, 1, 2, 3, 4})
    await delivery.bed.changed(wider, include=[two])
    delivery.write(one, [flat(10, "x")])
    delivery.write(two, [flat(10, "y")])
    await delivery.caught_up(stream.name)
    assert 10 in delivery.rows(f"public.{two}") and 10 not in delivery.rows(f"public.{one}")
    assert delivery.bed.target_sql("SELECT table_name FROM replicator.table_writers") == [(two,)]


async def test_a_rewind_and_records_that_the_topic_has_lost(delivery: Delivery) -> None:
    topic = delivery.topic("log")
    delivery.write(topic, [flat(n, "first") for n in range(10)])
    stream = await delivery.made(topic)
    await delivery.caught_up(stream.name)
    delivery.bed.target_sql(f"UPDATE \"{topic}\" SET note = 'by hand'")
    plan = await delivery.driver.plan_replay(stream.name, Checkpoint(lsn=f"{topic}=4"))
    assert (plan.method, plan.events) == (ReplayMethod.SINK_REWIND, 6)
    await delivery.driver.replay(stream.name, Checkpoint(lsn=f"{topic}=4"), key="k")

    async def done() -> bool:
        return (await delivery.driver.get_replay(stream.name, "k")).state is ReplayState.DONE

    await until(done, timeout=60, what="the replay is done")
    assert [delivery.rows(f"public.{topic}")[n] for n in (3, 4)] == ["by hand", "first"]
    with pytest.raises(ReplayNotRetained, match="is past the end of the topics"):
        await delivery.driver.plan_replay(stream.name, Checkpoint(lsn=f"{topic}=11"))
    now = Checkpoint(wall=datetime.now(UTC))
    with pytest.raises(Unsupported):
        await delivery.driver.plan_replay(stream.name, now, method=ReplayMethod.RESNAPSHOT)

    await delivery.driver.pause(stream.name)
    delivery.write(topic, [flat(n, "lost") for n in range(10, 20)])
    prune(delivery.bed.side, topic, 15)
    found = await delivery.bed.described(stream.name)
    assert found.status.state is StreamState.FAILED
    assert f"records are lost: {topic}/0: offsets 10 to 14 are no longer retained" in (found.status.last_error or "")
    with pytest.raises(ReplayNotRetained):
        await delivery.driver.resume(stream.name)


async def test_a_partition_that_is_new_and_another_destination(delivery: Delivery) -> None:
    bed, topic = delivery.bed, delivery.topic("grows")
    delivery.write(topic, [flat(1, "one")])
    stream = await delivery.made(topic)
    await delivery.caught_up(stream.name)
    await delivery.driver.pause(stream.name)
    client = AdminClient(dict(plain(bed.side.bootstrap)))
    client.create_partitions([NewPartitions(topic, 2)])[topic].result(30)

    async def grown() -> bool:
        return len((await bed.described(stream.name)).source_end) == 2

    await until(grown, what="the partition is there")
    delivery.write(topic, [flat(2, "two", partition=1)])
    await delivery.driver.resume(stream.name)
    await delivery.caught_up(stream.name)
    assert delivery.rows(f"public.{topic}") == {1: "one", 2: "two"}

    other = make_database(bed.target_server, unique("other"))
    with connect(bed.target_server, database=other) as session:
        session.execute(f'GRANT CREATE ON DATABASE "{other}" TO "{bed.writer}"')
        session.execute(f'GRANT CREATE ON SCHEMA public TO "{bed.writer}"')
    there = f"postgres://{bed.target_server.host}:{bed.target_server.port}/{other}"
    await bed.changed(stream, destination={**stream.wire()["destination"], "uri": there})
    await delivery.caught_up(stream.name)
    assert bed.target_sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'replicator'") == [(0,)]
    with connect(bed.target_server, database=other) as session:
        assert dict(session.execute(f'SELECT id, note FROM "{topic}"').fetchall()) == {1: "one", 2: "two"}


async def test_what_is_refused(delivery: Delivery) -> None:
    bed, topic = delivery.bed, delivery.topic("orders.x")
    assert isinstance(await bed.refused(delivery.stream("not-there")), SourceMissing)
    elsewhere = {"collection.name.format": "nowhere.${topic}"}
    error = await bed.refused(delivery.stream(topic, options=elsewhere))
    assert isinstance(error, DestinationSetup) and error.fix is not None
    for statement in error.fix.partition("; or make")[0].split("; "):
        bed.target_sql(statement)
    first = await delivery.made(topic, options=elsewhere)
    assert isinstance(await bed.refused(delivery.stream(topic, options=elsewhere)), DestinationInUse)
    both = delivery.stream(topic, delivery.topic("orders"), options={"collection.name.format": "public.all"})
    assert isinstance(await bed.refused(both), InvalidStream)
    bed.execute(ORDERS)
    with pytest.raises(InvalidStream, match="the stream exists with the kind kafka"):
        await delivery.driver.upsert_stream(bed.stream(name=first.name))
