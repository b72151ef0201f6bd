"""A replay reads the tables again, once for its key, and says what it cannot bring back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from replicator.errors import ReplayNotRetained, ReplayRefused, Unsupported
from replicator.model import Checkpoint, Stream
from replicator.replicator import ReplayMethod, ReplayProgress, ReplayState

from tests.backends.kafka_connect.debezium.debezium_env import DebeziumEnv
from tests.waiting import until

pytestmark = pytest.mark.engine

NOW = Checkpoint(wall=datetime(2026, 1, 1, tzinfo=UTC))


async def filled(bed: DebeziumEnv, rows: int = 200) -> Stream:
    bed.execute("CREATE TABLE orders (id int PRIMARY KEY, region text)")
    bed.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    bed.execute(
        f"INSERT INTO orders SELECT n, CASE n % 2 WHEN 0 THEN 'eu' ELSE 'us' END FROM generate_series(1, {rows}) n"
    )
    stream = await bed.made(filter="region = 'eu'")
    await bed.caught_up(stream.name)
    return stream


async def ended(bed: DebeziumEnv, stream: Stream, key: str) -> ReplayProgress:
    async def done() -> ReplayProgress | None:
        found = await bed.driver.get_replay(stream.name, key)
        return found if found.finished_at else None

    return await until(done, timeout=60, what="the replay has ended")


async def test_rows_come_again_as_they_are_now(bed: DebeziumEnv) -> None:
    stream = await filled(bed)
    bed.execute("DELETE FROM orders WHERE id = 2")
    bed.execute("UPDATE orders SET region = 'us' WHERE id = 4")
    await bed.caught_up(stream.name)
    before = len(bed.changes(stream))
    with pytest.raises(ReplayNotRetained) as refused:
        await bed.driver.plan_replay(stream.name, NOW)
    assert "the earliest is" in refused.value.message
    assert "use method resnapshot" in str(refused.value.fix)
    plan = await bed.driver.plan_replay(stream.name, NOW, method=ReplayMethod.RESNAPSHOT)
    assert (plan.method, plan.events, plan.duplicates) == (ReplayMethod.RESNAPSHOT, None, True)
    assert plan.effects[0].startswith("rows that were deleted since the start are not sent again")

    async def once() -> ReplayProgress:
        return await bed.driver.replay(stream.name, NOW, key="k", method=ReplayMethod.RESNAPSHOT)

    first = await once()
    assert first.state is ReplayState.RUNNING
    bed.execute("INSERT INTO orders VALUES (1000, 'eu'), (1001, 'us')")
    done = await ended(bed, stream, "k")
    assert (done.state, done.error) == (ReplayState.DONE, None)
    await bed.caught_up(stream.name)
    sent = bed.changes(stream)[before:]
    expected = [id for (id,) in bed.execute("SELECT id FROM orders WHERE region = 'eu' AND id < 1000")]
    again = [after["id"] for op, _, after in sent if op == "r" and after["id"] < 1000]
    assert sorted(again) == sorted(expected)
    assert all(after["region"] == "eu" for _, _, after in sent if after)

    assert await once() == done
    await asyncio.sleep(2)
    assert len([op for op, *_ in bed.changes(stream)[before:] if op == "r"]) - len(again) <= 1
    assert bed.state(stream) == {
        row["id"]: row for (row,) in bed.execute("SELECT row_to_json(o) FROM orders o WHERE region = 'eu'")
    }


async def test_what_cannot_be_replayed_is_refused(bed: DebeziumEnv) -> None:
    stream = await filled(bed, 2)
    late = Checkpoint(wall=datetime.now(UTC) + timedelta(days=1))
    for start in (late, Checkpoint(lsn="FFFFFFFF/0")):
        with pytest.raises(ReplayNotRetained, match="past the end of the source"):
            await bed.driver.plan_replay(stream.name, start, method=ReplayMethod.RESNAPSHOT)
    with pytest.raises(Unsupported, match="to no other target"):
        await bed.driver.plan_replay(stream.name, NOW, method=ReplayMethod.RESNAPSHOT, target="other")
    with pytest.raises(
        ReplayNotRetained, match="no slot of the stream holds the changes since this start; the earliest is"
    ):
        await bed.driver.plan_replay(stream.name, NOW, method=ReplayMethod.LOG_REWIND)
    copy = await bed.made(mode="snapshot")
    with pytest.raises(ReplayRefused, match="made its one copy"):
        await bed.driver.plan_replay(copy.name, NOW, method=ReplayMethod.RESNAPSHOT)


async def test_a_paused_stream_replays_when_it_resumes(bed: DebeziumEnv) -> None:
    stream = await filled(bed, 20)
    await bed.driver.pause(stream.name)
    begun = await bed.driver.replay(stream.name, NOW, key="k", method=ReplayMethod.RESNAPSHOT)
    assert begun.state is ReplayState.RUNNING
    await bed.another().resume(stream.name)
    await ended(bed, stream, "k")
    assert [op for op, *_ in bed.changes(stream)] == ["r"] * 20
