"""Workloads made by hypothesis: whatever the application writes and a person does, no row outside the filter leaves the
database, and in the end a reader of the topic knows exactly the rows inside it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from replicator.errors import ReplayRefused, ReplicatorError
from replicator.model import Checkpoint, Stream
from replicator.replicator import ReplayMethod

from tests.backends.kafka_connect.debezium.debezium_env import DebeziumEnv
from tests.postgres import limit_slots
from tests.waiting import until
from tools.kafka.pair import Pair
from tools.postgres import Postgres

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

EU = "region = 'eu' AND amount < 100"
NARROW = f"{EU} AND id < 8"
ids, amounts = st.integers(0, 12), st.integers(90, 110)
regions = st.sampled_from(["eu", "us"])
STEPS = st.one_of(
    st.tuples(st.just("insert"), ids, regions, amounts),
    st.tuples(st.just("update"), ids, regions, amounts),
    st.tuples(st.just("rekey"), ids, ids),
    st.tuples(st.just("delete"), ids),
    st.tuples(st.just("many"), regions, amounts),
    st.tuples(st.just("pause")),
    st.tuples(st.just("resume")),
    st.tuples(st.just("replay")),
    st.tuples(st.just("rewind")),
    st.tuples(st.just("narrow")),
    st.tuples(st.just("stop the task")),
)
WORKLOADS = st.lists(STEPS, min_size=4, max_size=14)


async def run(bed: DebeziumEnv, steps: list[tuple[Any, ...]]) -> None:
    bed.execute("CREATE TABLE orders (id int PRIMARY KEY, region text, amount int)")
    bed.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    bed.execute(
        "INSERT INTO orders SELECT n, CASE n % 2 WHEN 0 THEN 'eu' ELSE 'us' END, 95 FROM generate_series(0, 5) n"
    )
    stream = await bed.made(filter=EU, bookmarks=["first"])
    narrowed = None
    for number, (what, *rest) in enumerate(steps):
        if what != "narrow":
            await step(bed, stream, number, what, rest, narrowed=narrowed is not None)
        elif narrowed is None:
            stream = await bed.changed(stream, filter=NARROW)
            narrowed = len(bed.changes(stream))
    await bed.driver.resume(stream.name)
    await bed.caught_up(stream.name)
    inside = EU if narrowed is None else NARROW
    wanted = {row["id"]: row for (row,) in bed.execute(f"SELECT row_to_json(o) FROM orders o WHERE {inside}")}

    async def equal() -> bool:
        return {
            id: row for id, row in (await asyncio.to_thread(bed.state, stream)).items() if narrowed is None or id < 8
        } == wanted

    await until(equal, timeout=30, what="the topic says what the table holds", told=lambda: (bed.state(stream), wanted))
    changes = bed.changes(stream)
    assert leaked(changes) == []
    if narrowed is not None:
        assert [row for row in rows_of(changes[narrowed:]) if row["id"] >= 8] == []


def rows_of(changes: list[tuple[str, Any, Any]]) -> list[dict[str, Any]]:
    return [row for _, before, after in changes for row in (before, after) if row]


def leaked(changes: list[tuple[str, Any, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows_of(changes) if not (row["region"] == "eu" and row["amount"] < 100)]


async def step(bed: DebeziumEnv, stream: Stream, number: int, what: str, rest: list[Any], *, narrowed: bool) -> None:
    if what == "insert":
        bed.execute("INSERT INTO orders VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", *rest)
    elif what == "update":
        bed.execute("UPDATE orders SET region = %s, amount = %s WHERE id = %s", rest[1], rest[2], rest[0])
    elif what == "rekey":
        bed.execute(
            "UPDATE orders SET id = %s WHERE id = %s AND NOT EXISTS (SELECT FROM orders WHERE id = %s)",
            rest[1],
            *rest[:1],
            rest[1],
        )
    elif what == "delete":
        bed.execute("DELETE FROM orders WHERE id = %s", *rest)
    elif what == "many":
        bed.execute("UPDATE orders SET region = %s, amount = %s", *rest)
    elif what == "pause":
        await bed.driver.pause(stream.name)
    elif what == "resume":
        await bed.driver.resume(stream.name)
    elif what == "replay":
        start = Checkpoint(lsn="0/1")
        try:
            await bed.driver.replay(stream.name, start, key=f"k{number}", method=ReplayMethod.RESNAPSHOT)
        except ReplicatorError as error:
            raise AssertionError(f"a replay was refused: {error}") from error
    elif what == "rewind":
        start = Checkpoint(lsn="first")
        try:
            await bed.driver.replay(stream.name, start, key=f"k{number}", method=ReplayMethod.LOG_REWIND)
            assert not narrowed, "it would go back behind the narrower filter"
        except ReplayRefused as error:
            assert narrowed and "by the filter of that time" in error.message, error
    else:
        with bed.rest() as rest_:
            rest_.post(f"/connectors/{stream.name}/restart", params={"includeTasks": "true"})


def whole(kafka: Pair, postgres: Postgres, steps: list[tuple[Any, ...]]) -> Coroutine[Any, Any, None]:
    async def one() -> None:
        bed = DebeziumEnv(postgres, kafka.west)
        limit_slots(postgres, "20GB")
        try:
            await run(bed, steps)
        finally:
            limit_slots(postgres, "-1")
            await bed.remove()

    return one()


def workload(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@seed(20261129)
@workload(4)
@given(steps=WORKLOADS)
def test_no_row_outside_the_filter_leaves(kafka: Pair, postgres: Postgres, steps: list[tuple[Any, ...]]) -> None:
    asyncio.run(whole(kafka, postgres, steps))


@pytest.mark.proof
@workload(60)
@given(steps=WORKLOADS)
def test_no_row_outside_the_filter_leaves_in_many_workloads(
    kafka: Pair, postgres: Postgres, steps: list[tuple[Any, ...]]
) -> None:
    asyncio.run(whole(kafka, postgres, steps))
