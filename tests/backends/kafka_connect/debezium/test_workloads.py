"""Workloads made by hypothesis: whatever the application writes and a person does, no row outside the filter leaves the
database, and in the end a reader of the topic knows exactly the rows inside it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from replicator.errors import ReplicatorError
from replicator.model import Checkpoint, Stream
from replicator.replicator import ReplayMethod

from tests.backends.kafka_connect.debezium.debezium_env import DebeziumEnv
from tests.waiting import until
from tools.kafka.pair import Pair
from tools.postgres import Postgres

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

EU = "region = 'eu' AND amount < 100"
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
    st.tuples(st.just("stop the task")),
)
WORKLOADS = st.lists(STEPS, min_size=4, max_size=14)


async def run(bed: DebeziumEnv, steps: list[tuple[Any, ...]]) -> None:
    bed.execute("CREATE TABLE orders (id int PRIMARY KEY, region text, amount int)")
    bed.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    bed.execute(
        "INSERT INTO orders SELECT n, CASE n % 2 WHEN 0 THEN 'eu' ELSE 'us' END, 95 FROM generate_series(0, 5) n"
    )
    stream = await bed.made(filter=EU)
    for number, (what, *rest) in enumerate(steps):
        await step(bed, stream, number, what, rest)
    await bed.driver.resume(stream.name)
    await bed.caught_up(stream.name)
    wanted = {row["id"]: row for (row,) in bed.execute(f"SELECT row_to_json(o) FROM orders o WHERE {EU}")}

    async def equal() -> bool:
        return await asyncio.to_thread(bed.state, stream) == wanted

    await until(equal, timeout=30, what="the topic says what the table holds", told=lambda: (bed.state(stream), wanted))
    leaked = [
        row
        for _, before, after in bed.changes(stream)
        for row in (before, after)
        if row and not (row["region"] == "eu" and row["amount"] < 100)
    ]
    assert leaked == []


async def step(bed: DebeziumEnv, stream: Stream, number: int, what: str, rest: list[Any]) -> None:
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
    else:
        with bed.rest() as rest_:
            rest_.post(f"/connectors/{stream.name}/restart", params={"includeTasks": "true"})


def whole(kafka: Pair, postgres: Postgres, steps: list[tuple[Any, ...]]) -> Coroutine[Any, Any, None]:
    async def one() -> None:
        bed = DebeziumEnv(postgres, kafka.west)
        try:
            await run(bed, steps)
        finally:
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
