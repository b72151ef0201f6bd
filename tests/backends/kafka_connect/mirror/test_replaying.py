"""Replays on the real clusters: what the plan says is what is appended, once for a key, wherever a call is cut off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from replicator.backends.kafka_connect import record
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.replay_executor import ReplayExecutor
from replicator.errors import (
    EngineRefused,
    EngineUnavailable,
    ReplayKeyReused,
    ReplayNotFound,
    ReplayNotRetained,
    ReplayRefused,
)
from replicator.model import Checkpoint, DesiredState, StreamState
from replicator.replicator import ReplayState

from tests.backends.kafka_connect.mirror.mirror_env import START, MirrorEnv, prune, records
from tests.backends.sqlite.agents import finished, state_is
from tests.kafka import Record

pytestmark = pytest.mark.engine

BEGIN = datetime.fromtimestamp(START / 1000, UTC)
"""Of the first record; the others follow at each second."""


def at_second(second: float) -> Checkpoint:
    return Checkpoint(wall=BEGIN + timedelta(seconds=second))


def on(partition: int, given: list[Record]) -> list[Record]:
    return [record for record in given if record.partition == partition]


async def test_offsets_are_copied_again_and_nothing_else(bed: MirrorEnv) -> None:
    topic, other = bed.topic(partitions=2), bed.topic()
    bed.produce(topic, records(0, 20, partitions=2))
    bed.produce(other, records(0, 5))
    name = (await bed.made(topic, include=[topic, other])).name
    await bed.caught_up(name)
    start = Checkpoint(lsn=f"{topic}=4,10")
    plan = await bed.driver.plan_replay(name, start)
    assert (plan.events, plan.duplicates, plan.resolved.lsn) == (
        6,
        True,
        ";".join(sorted([f"{topic}=4,10", f"{other}=5"])),
    )
    begun = await bed.driver.replay(name, start, key="k")
    assert (begun.state, begun.events, begun.resolved) == (ReplayState.RUNNING, 6, plan.resolved)
    done = await finished(bed.driver, name, "k")
    assert (done.state, done.error, done.started_at) == (ReplayState.DONE, None, begun.started_at)

    original = bed.original(topic)
    first, second = on(0, original), on(1, original)
    assert bed.copied(topic) == first + first[4:] + second
    assert bed.copied(other) == bed.original(other)

    # The same key, by this process and by the next, does nothing more; it goes on from where it was.
    assert await bed.driver.replay(name, start, key="k") == done
    assert (await bed.another().replay(name, start, key="k")).state is ReplayState.DONE
    bed.produce(topic, records(20, 22, partitions=2))
    await bed.caught_up(name)
    assert bed.copied(topic) == first + first[4:] + records(20, 21, partitions=2) + second + records(
        21, 22, partitions=2
    )
    with pytest.raises(ReplayKeyReused, match="4,10"):
        await bed.driver.replay(name, Checkpoint(lsn=f"{topic}=3"), key="k")
    with pytest.raises(ReplayNotFound):
        await bed.driver.get_replay(name, "another")


async def test_a_time_is_the_first_record_of_it_in_each_partition(bed: MirrorEnv) -> None:
    topic = bed.topic(partitions=2)
    bed.produce(topic, records(0, 20, partitions=2))
    name = (await bed.made(topic)).name
    await bed.caught_up(name)
    expected = {0: "0,0", 12: "6,6", 13: "7,6", 12.5: "7,6", 18: "9,9", 19: "10,9", -9: "0,0"}
    found = {second: await bed.driver.plan_replay(name, at_second(second)) for second in expected}
    assert {second: plan.resolved.lsn for second, plan in found.items()} == {
        second: f"{topic}={offsets}" for second, offsets in expected.items()
    }
    await bed.driver.replay(name, at_second(13), key="k")
    await finished(bed.driver, name, "k")
    first, second = on(0, bed.original(topic)), on(1, bed.original(topic))
    assert found[13].events == 7
    assert bed.copied(topic) == first + first[7:] + second + second[6:]


async def test_starts_that_would_lose_or_invent_something_are_refused(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    name = (await bed.made(topic)).name
    before = await bed.caught_up(name)
    await bed.driver.pause(name)
    bed.produce(topic, records(10, 15))
    prune(bed.source, topic, 4)
    refused = [
        (Checkpoint(lsn=f"{topic}=3"), ReplayNotRetained, f'"{topic}=4"'),
        (Checkpoint(lsn=f"{topic}=16"), ReplayNotRetained, "source has"),
        (Checkpoint(lsn=f"{topic}=11"), ReplayRefused, f'"{topic}=10"'),
        (at_second(2), ReplayNotRetained, "say with lsn"),
        (at_second(3600), ReplayRefused, "earlier"),
    ]
    for start, kind, fix in refused:
        for call in (bed.driver.plan_replay(name, start), bed.driver.replay(name, start, key="k")):
            with pytest.raises(kind) as error:
                await call
            assert fix in str(error.value.fix)
    with pytest.raises(ReplayNotFound):
        await bed.driver.get_replay(name, "k")
    status = await bed.driver.get_status(name)
    assert (status.state, status.last_checkpoint) == (StreamState.PAUSED, before.last_checkpoint)
    assert bed.copied(topic) == records(0, 10)
    # A time behind the copied records repeats nothing, and leaves nothing out.
    await bed.driver.replay(name, at_second(12), key="late")
    await bed.caught_up(name)
    assert bed.copied(topic) == records(0, 15)


CUTS = [
    ("before the record is known to be there", "put_config", True),
    ("before the offsets are set", "alter_offsets", False),
    ("before they are known to be set", "alter_offsets", True),
    ("before it goes on", "resume", False),
]


def cut(step: str, *, lost_reply: bool) -> Callable[..., Awaitable[None]]:
    """A step at which the call ends, done or not."""
    whole = getattr(ConnectCluster, step)

    async def call(self: ConnectCluster, *given: object, **rest: object) -> None:
        if lost_reply:
            await whole(self, *given, **rest)
        raise EngineUnavailable("cut off")

    return call


async def test_a_replay_that_was_cut_off_is_finished_by_its_key(
    bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    name = (await bed.made(topic)).name
    await bed.caught_up(name)
    start, expected = Checkpoint(lsn=f"{topic}=6"), records(0, 10)
    for key, step, lost_reply in CUTS:
        with monkeypatch.context() as patch:
            patch.setattr(ConnectCluster, step, cut(step, lost_reply=lost_reply))
            with pytest.raises(EngineUnavailable):
                await bed.driver.replay(name, start, key=key)
        another = bed.another()
        if step == "alter_offsets":
            with pytest.raises(ReplayRefused, match="cut off half-way") as refused:
                await another.replay(name, Checkpoint(lsn=f"{topic}=2"), key="another")
            assert "own key" in str(refused.value.fix)
        await another.replay(name, start, key=key)
        assert (await finished(another, name, key)).state is ReplayState.DONE
        await bed.caught_up(name)
        expected += records(6, 10)
        assert bed.copied(topic) == expected


async def cut_off(bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, Checkpoint]:
    """A topic of ten copied records, its stream, and the start of a replay `k` that is recorded and not applied."""
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    name = (await bed.made(topic)).name
    await bed.caught_up(name)
    start = Checkpoint(lsn=f"{topic}=6")
    with monkeypatch.context() as patch:
        patch.setattr(ConnectCluster, "alter_offsets", cut("alter_offsets", lost_reply=False))
        with pytest.raises(EngineUnavailable):
            await bed.driver.replay(name, start, key="k")
    return topic, name, start


async def test_a_replay_that_was_cut_off_does_not_go_on_behind_a_gap(
    bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, name, start = await cut_off(bed, monkeypatch)
    prune(bed.source, topic, 8)
    for _ in range(2):
        with pytest.raises(ReplayNotRetained, match="offsets 6 to 7 are no longer retained"):
            await bed.another().replay(name, start, key="k")
    assert bed.copied(topic) == records(0, 10)
    await bed.driver.replay(name, Checkpoint(lsn=f"{topic}=8"), key="what is left")
    await bed.caught_up(name)
    assert bed.copied(topic) == records(0, 10) + records(8, 10)
    # Done long ago, it starts nothing that somebody stopped since.
    with bed.rest() as rest:
        rest.put(f"/connectors/{name}/stop").raise_for_status()
    await state_is(bed.driver, name, StreamState.PAUSED)
    assert (await bed.another().replay(name, start, key="k")).state is ReplayState.DONE
    assert (await bed.driver.get_status(name)).state is StreamState.PAUSED


async def test_a_replay_that_is_refused_after_its_stop_lets_the_mirror_go_on(
    bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    name = (await bed.made(topic)).name
    await bed.caught_up(name)
    whole, asked = ReplayExecutor.resolve, 0

    async def first_only(self: ReplayExecutor, *given: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise EngineUnavailable("the brokers are away")
        return await whole(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(ReplayExecutor, "resolve", first_only)
        with pytest.raises(EngineUnavailable, match="away"):
            await bed.driver.replay(name, Checkpoint(lsn=f"{topic}=6"), key="k")
    assert (await bed.driver.get_status(name)).state is StreamState.RUNNING
    with pytest.raises(ReplayNotFound):
        await bed.driver.get_replay(name, "k")
    assert bed.copied(topic) == records(0, 10)


async def test_a_replay_that_somebody_resumed_before_it_was_applied_is_given_up(
    bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, name, start = await cut_off(bed, monkeypatch)
    with bed.rest() as rest:
        rest.put(f"/connectors/{name}/resume").raise_for_status()
    bed.produce(topic, records(10, 12))
    await bed.arrived(topic, 12)
    given_up = await bed.driver.replay(name, start, key="k")
    assert given_up.state is ReplayState.FAILED
    assert "resumed by hand" in str(given_up.error)
    assert await bed.driver.replay(name, start, key="k") == given_up
    await bed.caught_up(name)
    assert bed.copied(topic) == records(0, 12)
    await bed.driver.replay(name, start, key="again")
    await finished(bed.driver, name, "again")
    assert bed.copied(topic) == records(0, 12) + records(6, 12)


async def test_a_paused_stream_stays_so_behind_its_replay(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    stream = await bed.made(topic)
    await bed.caught_up(stream.name)
    await bed.driver.upsert_stream(stream.model_copy(update={"desired_state": DesiredState.PAUSED}))
    begun = await bed.driver.replay(stream.name, Checkpoint(lsn=f"{topic}=6"), key="k")
    assert begun.state is ReplayState.RUNNING
    assert begun.error == "the stream is paused; the replay runs when it is resumed"
    status = await bed.driver.get_status(stream.name)
    assert (status.state, status.lag_events) == (StreamState.PAUSED, 4)
    assert bed.copied(topic) == records(0, 10)
    await bed.driver.resume(stream.name)
    await finished(bed.driver, stream.name, "k")
    assert bed.copied(topic) == records(0, 10) + records(6, 10)


async def test_a_stream_that_was_resumed_by_hand_is_not_stopped_by_a_replay(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    stream = await bed.made(topic)
    name = stream.name
    await bed.caught_up(name)
    await bed.driver.upsert_stream(stream.model_copy(update={"desired_state": DesiredState.PAUSED}))
    await bed.driver.resume(name)
    start = Checkpoint(lsn=f"{topic}=6")
    with pytest.raises(ReplayRefused, match="it was resumed by hand, but its declaration says paused"):
        await bed.driver.plan_replay(name, start)
    with pytest.raises(ReplayRefused, match="it was resumed by hand"):
        await bed.driver.replay(name, start, key="k")
    bed.produce(topic, records(10, 15))
    await bed.caught_up(name)
    assert bed.copied(topic) == bed.original(topic)


async def test_a_replay_whose_record_is_too_long_is_refused_before_anything_stops(
    bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    name = (await bed.made(topic)).name
    await bed.caught_up(name)
    start, key = Checkpoint(lsn=f"{topic}=6"), "k" * (1 << 20)
    with monkeypatch.context() as patch:
        patch.setattr(ConnectCluster, "stop", cut("stop", lost_reply=False))
        with pytest.raises(ReplayRefused, match="longer than the 512 kB that Kafka Connect can keep") as refused:
            await bed.driver.replay(name, start, key=key)
    assert refused.value.property == "start"
    assert (await bed.driver.get_status(name)).state is StreamState.RUNNING

    monkeypatch.setattr(record, "CONFIG_LIMIT", 1 << 30)
    with pytest.raises(EngineRefused, match="Kafka Connect"):  # of the worker, which cannot write it
        await bed.driver.replay(name, start, key=key)
    with pytest.raises(ReplayNotFound):
        await bed.driver.get_replay(name, key)
    bed.produce(topic, records(10, 12))
    await bed.arrived(topic, 12)
    assert bed.copied(topic) == records(0, 12)


async def test_a_record_of_the_longest_kind_is_written(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    name = (await bed.made(topic)).name
    await bed.caught_up(name)
    for key in ("k" * 500_000, "short"):
        await bed.driver.replay(name, Checkpoint(lsn=f"{topic}=6"), key=key)
        await finished(bed.driver, name, key)
    assert bed.copied(topic) == records(0, 10) + 2 * records(6, 10)
