"""The memory backend: every number follows from its clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from replicator.backends.memory import MemoryReplicator
from replicator.errors import DestinationInUse, InvalidStream, ReplayNotFound, ReplayNotRetained, StreamNotFound
from replicator.model import Checkpoint, StreamState, format_time
from replicator.replicator import ReplayMethod, ReplayState

from tests.lifecycle.builders import S3, SQLITE, Clock, stream

TO = str(S3["uri"])
BILLS = {**S3, "uri": "s3://bucket/bills"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> MemoryReplicator:
    """Ten events a second, of which the last hour is kept."""
    return MemoryReplicator(clock)


async def numbers(memory: MemoryReplicator) -> tuple[str, int | None, int | None, float | None]:
    status = await memory.get_status("orders")
    return status.state.value, status.events_replicated, status.lag_events, status.lag_seconds


async def test_a_running_stream_delivers_at_once(memory: MemoryReplicator, clock: Clock) -> None:
    await memory.upsert_stream(stream())
    assert await numbers(memory) == ("running", 0, 0, 0)
    clock.advance(1.55)
    assert await numbers(memory) == ("running", 15, 0, 0)
    status = await memory.get_status("orders")
    assert status.last_checkpoint is not None
    assert status.last_checkpoint.lsn == "15"
    assert status.last_event is not None
    assert format_time(status.last_event) == "2026-01-31T12:00:01.500Z"
    assert memory.delivered[TO] == set(range(1, 16))


async def test_a_pause_keeps_the_checkpoint_and_a_resume_loses_nothing(memory: MemoryReplicator, clock: Clock) -> None:
    await memory.upsert_stream(stream())
    clock.advance(1)
    for _ in range(2):
        await memory.pause("orders")
    clock.advance(2)
    assert await numbers(memory) == ("paused", 10, 20, 2)
    for _ in range(2):
        await memory.resume("orders")
    assert await numbers(memory) == ("running", 30, 0, 0)
    assert memory.delivered[TO] == set(range(1, 31))


@pytest.mark.parametrize(
    ("changes", "delivered", "emitted"),
    [
        ({}, range(1, 101), 100),  # the snapshot is from the first event
        ({"mode": "cdc"}, range(1, 101), 100),
        ({"mode": "cdc", "startFrom": "latest"}, range(0), 0),
        ({"mode": "cdc", "startFrom": {"lsn": "90"}}, range(91, 101), 10),
        ({"mode": "cdc", "startFrom": {"lsn": "9000"}}, range(0), 0),
        ({"mode": "cdc", "startFrom": {"wall": "2026-01-31T12:00:09Z"}}, range(91, 101), 10),
        ({"mode": "cdc", "startFrom": {"wall": "2026-01-31T11:00:00Z"}}, range(1, 101), 100),
        ({"mode": "cdc", "startFrom": "earliest"}, range(1, 101), 100),
        ({"startFrom": "latest"}, range(1, 101), 0),
        ({"desiredState": "paused"}, range(0), 0),
        ({"mode": "snapshot"}, range(1, 101), 100),
    ],
)
async def test_where_a_stream_begins(
    memory: MemoryReplicator, clock: Clock, changes: dict[str, Any], delivered: range, emitted: int
) -> None:
    clock.advance(10)
    await memory.upsert_stream(stream(**changes))
    assert sorted(memory.delivered[TO]) == list(delivered)
    assert (await memory.get_status("orders")).events_replicated == emitted


async def test_a_snapshot_stream_rests_when_it_is_made(memory: MemoryReplicator, clock: Clock) -> None:
    await memory.upsert_stream(stream(mode="snapshot"))
    clock.advance(1)
    assert await numbers(memory) == ("paused", 0, 10, 1)


async def test_the_same_stream_again_changes_nothing(memory: MemoryReplicator, clock: Clock) -> None:
    await memory.upsert_stream(stream())
    clock.advance(1)
    before = await memory.describe()
    await memory.upsert_stream(stream())
    assert await memory.describe() == before


@pytest.mark.parametrize(
    "changes", [{"destination": BILLS}, {"source": {**SQLITE, "uri": "sqlite:///srv/new.db"}, "destination": BILLS}]
)
async def test_another_place_is_filled_from_the_first_event(
    memory: MemoryReplicator, clock: Clock, changes: dict[str, Any]
) -> None:
    await memory.upsert_stream(stream())
    clock.advance(1)
    await memory.upsert_stream(stream(**changes))
    assert memory.delivered[str(BILLS["uri"])] == set(range(1, 11))
    assert memory.delivered[TO] == set(range(1, 11))


async def test_a_changed_mode_goes_on_from_the_checkpoint(memory: MemoryReplicator, clock: Clock) -> None:
    await memory.upsert_stream(stream())
    clock.advance(1)
    await memory.upsert_stream(stream(mode="cdc"))
    assert await numbers(memory) == ("running", 10, 0, 0)


async def test_two_writers_on_one_destination(memory: MemoryReplicator) -> None:
    await memory.upsert_stream(stream())
    with pytest.raises(DestinationInUse):
        await memory.upsert_stream(stream(name="bills", destination={**S3, "uri": f"{TO}/below"}))
    assert [item.name for item in await memory.list_streams()] == ["orders"]


async def test_a_failure_that_was_asked_for(memory: MemoryReplicator) -> None:
    await memory.upsert_stream(stream(options={"fail": "no space left"}))
    status = await memory.get_status("orders")
    assert (status.state, status.last_error, status.errors_last_hour) == (StreamState.FAILED, "no space left", 1)
    await memory.upsert_stream(stream())
    assert (await memory.get_status("orders")).state is StreamState.RUNNING


async def test_delete(memory: MemoryReplicator) -> None:
    await memory.upsert_stream(stream())
    await memory.delete_stream("orders")
    await memory.delete_stream("orders")
    assert await memory.list_streams() == []


async def test_describe_leaves_out_what_is_missing(memory: MemoryReplicator) -> None:
    await memory.upsert_stream(stream())
    await memory.upsert_stream(stream(name="bills", destination=BILLS))
    assert [item.stream.name for item in await memory.describe()] == ["orders", "bills"]
    assert [item.stream.name for item in await memory.describe(["bills", "nope"])] == ["bills"]
    assert await memory.describe([]) == []


@pytest.mark.parametrize("method", ["get_status", "pause", "resume"])
async def test_a_stream_that_is_not_there(memory: MemoryReplicator, method: str) -> None:
    with pytest.raises(StreamNotFound):
        await getattr(memory, method)("orders")


# --- replay ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "events"),
    [
        ({"lsn": "0"}, 100),
        ({"lsn": "100"}, 0),
        ({"lsn": "42"}, 58),
        ({"wall": "2026-01-31T12:00:04Z"}, 60),
        ({"lsn": "42", "wall": "2026-01-31T12:00:09Z"}, 58),
    ],
)
async def test_a_replay(memory: MemoryReplicator, clock: Clock, start: dict[str, str], events: int) -> None:
    await memory.upsert_stream(stream())
    clock.advance(10)
    at = Checkpoint.model_validate(start)
    plan = await memory.plan_replay("orders", at)
    done = await memory.replay("orders", at, key="k")
    assert plan.events == done.events == events
    assert plan.duplicates is (events > 0)
    assert (done.state, done.method, done.start) == (ReplayState.DONE, ReplayMethod.LOG_REWIND, at)
    assert await memory.get_replay("orders", "k") == done
    assert memory.delivered[TO] == set(range(1, 101))
    assert (await memory.get_status("orders")).events_replicated == 100 + events


@pytest.mark.parametrize("start", [{"lsn": "101"}, {"wall": "2026-01-31T11:59:50Z"}, {"wall": "2026-01-31T13:00:00Z"}])
async def test_a_start_that_is_not_kept(memory: MemoryReplicator, clock: Clock, start: dict[str, str]) -> None:
    await memory.upsert_stream(stream())
    clock.advance(10)
    with pytest.raises(ReplayNotRetained, match="kept is 0 to 100"):
        await memory.plan_replay("orders", Checkpoint.model_validate(start))


async def test_retention(clock: Clock) -> None:
    memory = MemoryReplicator(clock, rate=1, retention=timedelta(seconds=10))
    await memory.upsert_stream(stream())
    clock.advance(30)
    with pytest.raises(ReplayNotRetained, match="lsn 19 is not retained; kept is 20 to 30"):
        await memory.replay("orders", Checkpoint(lsn="19"), key="k")
    with pytest.raises(ReplayNotFound):
        await memory.get_replay("orders", "k")
    assert (await memory.replay("orders", Checkpoint(lsn="20"), key="k")).events == 10


@pytest.mark.parametrize("lsn", ["0/16B3748", "-1", "1.5", "x"])
async def test_what_is_no_lsn(memory: MemoryReplicator, lsn: str) -> None:
    await memory.upsert_stream(stream())
    with pytest.raises(InvalidStream, match="is not the number of an event"):
        await memory.plan_replay("orders", Checkpoint(lsn=lsn))
    with pytest.raises(InvalidStream):
        await memory.upsert_stream(stream(name="bills", destination=BILLS, startFrom={"lsn": lsn}))
    assert [item.name for item in await memory.list_streams()] == ["orders"]


async def test_the_log_is_empty(memory: MemoryReplicator) -> None:
    with pytest.raises(StreamNotFound):
        await memory.log("orders")
    await memory.upsert_stream(stream())
    found = await memory.log("orders")
    assert found.lines == (await memory.log("orders", after=found.cursor)).lines == ()
