"""Replays of a stream with a sink, changes that the topics no longer have, and ends that are away."""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import UTC, datetime

import pytest
from replicator.errors import ReplayNotRetained, ReplayRefused, ReplicatorError
from replicator.model import Checkpoint, StreamState
from replicator.replicator import ReplayMethod, ReplayState

from tests.backends.kafka_connect.debezium.sink_env import ORDERS, SinkEnv
from tests.backends.kafka_connect.mirror.mirror_env import delete_topic, prune
from tests.waiting import until
from tools.kafka.pair import Pair
from tools.postgres import Postgres

pytestmark = pytest.mark.engine


async def done(bed: SinkEnv, name: str, key: str) -> None:
    async def is_done() -> bool:
        return (await bed.driver.get_replay(name, key)).state is ReplayState.DONE

    await until(is_done, timeout=90, what=f"the replay {key} is done")


async def test_a_rewind_writes_the_topics_again_from_a_time_and_from_offsets(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    bed.execute("INSERT INTO orders (id, note) SELECT n, 'first' FROM generate_series(1, 20) n")
    stream = await bed.made()
    await bed.same(stream.name)
    time = datetime.now(UTC)
    await asyncio.sleep(0.2)
    bed.execute("UPDATE orders SET note = 'second' WHERE id <= 5; DELETE FROM orders WHERE id = 20")
    found = await bed.same(stream.name)
    bed.target_sql("UPDATE app.orders SET note = 'by hand'; INSERT INTO app.orders VALUES (20, 'eu')")

    start = Checkpoint(wall=time)
    bed._settings["kafka"] = None  # a command has an address alone, and finds the brokers in the record
    plan = await bed.another().plan_replay(stream.name, start)
    assert (plan.method, plan.events, plan.duplicates) == (ReplayMethod.SINK_REWIND, 6, True)
    assert plan.resolved.lsn == f"{stream.name}.app.orders=20"
    assert "6 changes are written to the destination once more" in plan.effects[0]
    await bed.driver.replay(stream.name, start, key="k1")
    await done(bed, stream.name, "k1")
    there = {int(row[0]): row[2] for row in bed.content()}
    assert {there[id] for id in range(1, 6)} == {"second"} and 20 not in there
    assert {there[id] for id in range(6, 20)} == {"by hand"}

    whole = Checkpoint(lsn=f"{stream.name}.app.orders=0")
    await bed.driver.replay(stream.name, whole, key="k2", method=ReplayMethod.SINK_REWIND)
    await done(bed, stream.name, "k2")
    await bed.same(stream.name)

    assert found.status.last_checkpoint is not None
    for start, kind in (
        (Checkpoint(lsn=f"{stream.name}.app.orders=999"), ReplayNotRetained),
        (Checkpoint(lsn=f"{stream.name}.app.orders=1,1"), ReplayRefused),
        (Checkpoint(lsn="nothing.like.it=0"), ReplayRefused),
    ):
        with pytest.raises(kind):
            await bed.driver.plan_replay(stream.name, start)
    prune(bed.side, f"{stream.name}.app.orders", 10)
    for start in (whole, Checkpoint(wall=datetime(2026, 1, 1, tzinfo=UTC))):
        with pytest.raises(ReplayNotRetained, match=r"no longer retained|keeps changes from"):
            await bed.driver.plan_replay(stream.name, start)


async def test_a_start_by_lsn_writes_every_transaction_from_there(sinks: SinkEnv) -> None:
    """Also where transactions overlap, so that their changes stand in the WAL in another order than their commits."""
    bed = sinks
    bed.execute(ORDERS)
    bed.execute("CREATE TABLE more (id int PRIMARY KEY, note text); ALTER TABLE more REPLICA IDENTITY FULL")
    stream = await bed.made("app.orders", "app.more")
    early = bed.open_application()
    early.autocommit = False
    early.execute("INSERT INTO more VALUES (1, 'early in the WAL, late by its commit')")
    bed.execute("INSERT INTO orders (id, note) VALUES (1, 'before')")
    await bed.caught_up(stream.name)
    (start,) = bed.sql("SELECT pg_current_wal_insert_lsn()::text")[0]
    early.commit()
    early.close()
    bed.execute("INSERT INTO orders (id, note) VALUES (2, 'after')")
    await bed.same(stream.name, "app.orders", "app.more")
    bed.target_sql("DELETE FROM app.more; DELETE FROM app.orders WHERE id = 2")
    plan = await bed.driver.plan_replay(stream.name, Checkpoint(lsn=start))
    assert plan.events is not None and 2 <= plan.events <= 3
    await bed.driver.replay(stream.name, Checkpoint(lsn=start), key="k1")
    await done(bed, stream.name, "k1")
    await bed.same(stream.name, "app.orders", "app.more")


async def test_changes_that_the_topics_lose_are_told_and_a_resnapshot_goes_on(sinks: SinkEnv) -> None:
    bed = sinks
    bed.execute(ORDERS)
    stream = await bed.made()
    bed.execute("INSERT INTO orders (id, note) VALUES (1, 'one')")
    await bed.same(stream.name)
    with closing(bed.rest()) as rest:
        rest.put(f"/connectors/{stream.name}-sink/stop").raise_for_status()
    bed.execute("INSERT INTO orders (id, note) SELECT n, 'lost' FROM generate_series(2, 30) n")
    await bed.caught_up_at_the_source(stream.name)
    topic = f"{stream.name}.app.orders"
    prune(bed.side, topic, 20)
    found = await bed.described(stream.name)
    assert found.status.state is StreamState.FAILED and found.status.lag_seconds is None
    assert "changes are lost between source and destination" in (found.status.last_error or "")
    assert f"{topic}/0: offsets 1 to 19 are no longer retained" in (found.status.last_error or "")
    with pytest.raises(ReplayNotRetained) as refused:
        await bed.driver.resume(stream.name)
    assert refused.value.fix is not None and "--method resnapshot" in refused.value.fix
    await bed.driver.replay(stream.name, Checkpoint(wall=datetime.now(UTC)), key="k1", method=ReplayMethod.RESNAPSHOT)
    await done(bed, stream.name, "k1")
    found = await bed.same(stream.name)
    assert (found.status.state, found.status.last_error) == (StreamState.RUNNING, None)


async def test_a_running_sink_does_not_pass_over_what_is_lost(sinks: SinkEnv) -> None:
    """As it would with Kafka's default for offsets that are out of range."""
    bed = sinks
    bed.execute(ORDERS)
    stream = await bed.made()
    bed.execute("INSERT INTO orders (id, note) VALUES (1, 'one')")
    await bed.same(stream.name)
    name = f"{stream.name}-sink"
    with closing(bed.rest()) as rest:
        rest.put(f"/connectors/{name}/stop").raise_for_status()
        bed.execute("INSERT INTO orders (id, note) SELECT n, 'lost' FROM generate_series(2, 30) n")
        await bed.caught_up_at_the_source(stream.name)
        prune(bed.side, f"{stream.name}.app.orders", 20)
        rest.put(f"/connectors/{name}/resume").raise_for_status()

    async def failed() -> bool:
        with closing(bed.rest()) as rest:
            tasks = rest.get(f"/connectors/{name}/status").json()["tasks"]
        return [task["state"] for task in tasks] == ["FAILED"]

    await until(failed, timeout=60, what="the sink fails")
    assert len(bed.content()) == 1
    with pytest.raises(ReplayNotRetained):
        await bed.driver.upsert_stream(stream)


async def test_a_database_that_is_away_is_told_and_gets_all_of_it_later(
    kafka: Pair, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> None:
    away = Postgres(tmp_path_factory.mktemp("away"))
    away.start()
    bed = SinkEnv(postgres, kafka.west, target_server=away)
    try:
        bed.execute(ORDERS)
        stream = await bed.made(drainBeforeDelete="flush")
        bed.execute("INSERT INTO orders (id, note) VALUES (1, 'one')")
        await bed.same(stream.name)
        away.kill()
        bed.execute("INSERT INTO orders (id, note) SELECT n, 'later' FROM generate_series(2, 50) n")
        written = datetime.now(UTC)
        await asyncio.sleep(4)
        status = (await bed.described(stream.name)).status
        assert status.state is StreamState.CATCHING_UP, status
        assert f"the database {bed.target_database} at {away.host}:{away.port} does not answer" in (
            status.last_error or ""
        )
        assert status.lag_seconds is not None
        assert status.lag_seconds >= (datetime.now(UTC) - written).total_seconds() - 1
        with pytest.raises(ReplicatorError, match="what it has at the destination cannot be removed"):
            await bed.driver.delete_stream(stream.name, owner=stream.owner)
        away.start()
        found = await bed.same(stream.name)
        assert (found.status.state, found.status.last_error) == (StreamState.RUNNING, None)
    finally:
        await bed.remove()
        away.kill()


async def test_hands_at_the_engine(sinks: SinkEnv) -> None:
    """A sink that was deleted, and a topic: each is told, and each has a way out."""
    bed = sinks
    bed.execute(ORDERS)
    stream = await bed.made()
    bed.execute("INSERT INTO orders (id, note) VALUES (1, 'one')")
    await bed.same(stream.name)
    with closing(bed.rest()) as rest:
        rest.delete(f"/connectors/{stream.name}-sink").raise_for_status()
    bed.execute("INSERT INTO orders (id, note) VALUES (2, 'two'); DELETE FROM orders WHERE id = 1")
    found = await bed.described(stream.name)
    assert found.status.state is StreamState.FAILED
    assert f"its connector {stream.name}-sink was deleted" in (found.status.last_error or "")
    await bed.driver.upsert_stream(stream)
    await bed.same(stream.name)

    topic = f"{stream.name}.app.orders"
    await bed.driver.pause(stream.name)
    delete_topic(bed.side, topic)
    bed.execute("INSERT INTO orders (id, note) VALUES (3, 'three')")

    async def told() -> bool:
        return f"the topic {topic} was deleted" in ((await bed.described(stream.name)).status.last_error or "")

    await until(told, timeout=30, what="the loss is told")
    with pytest.raises(ReplayNotRetained):
        await bed.driver.resume(stream.name)
    await bed.driver.replay(stream.name, Checkpoint(wall=datetime.now(UTC)), key="k1", method=ReplayMethod.RESNAPSHOT)
    await bed.driver.resume(stream.name)
    await done(bed, stream.name, "k1")
    await bed.same(stream.name)
