"""The life of a mirror on two real clusters. Content is compared: keys, values, headers and times, byte for byte."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.cluster_clients import ClusterClients
from replicator.errors import (
    EngineUnavailable,
    InvalidStream,
    ReplayNotRetained,
    ReplayRefused,
    ReplicatorError,
    StreamNotFound,
)
from replicator.model import Checkpoint, DesiredState, Owner, StreamState, token_digest
from replicator.replicator import Severity

from tests.backends.kafka_connect.mirror.builders import IDENTITY, URN
from tests.backends.kafka_connect.mirror.mirror_env import START, MirrorEnv, delete_topic, prune, records, topics
from tests.backends.sqlite.agents import state_is
from tests.waiting import until

pytestmark = pytest.mark.engine


async def test_a_stream_lives_and_is_removed(bed: MirrorEnv) -> None:
    topic = bed.topic(partitions=2)
    bed.produce(topic, records(0, 60, partitions=2))
    stream = bed.stream(topic)
    assert await bed.driver.preflight(stream) == []
    await bed.driver.upsert_stream(stream)
    status = await bed.caught_up(stream.name)
    assert status.last_checkpoint is not None
    assert status.last_checkpoint.lsn == f"{topic}=30,30"
    assert status.last_event == datetime.fromtimestamp(START / 1000, UTC) + timedelta(seconds=59)
    assert (status.lag_events, status.lag_seconds, status.last_error) == (0, 0.0, None)
    assert bed.copied(topic) == bed.original(topic)

    (found,) = await bed.driver.describe([stream.name])
    assert found.stream.owner == Owner(urn=URN, token=token_digest(stream.name))
    assert found.stream == stream.model_copy(update={"owner": found.stream.owner, "backend": "kafka-mirror"})
    assert found.engine_objects == {
        "connectors": [stream.name],
        "connectCluster": await bed.driver.identity(),
        "sourceCluster": bed.source.cluster_id,
        "destinationCluster": bed.destination.cluster_id,
        "topics": [bed.copy_of(topic)],
    }
    assert stream.name in {item.name for item in await bed.driver.list_streams()}

    before = bed.connector(stream.name)
    await bed.driver.upsert_stream(stream)
    assert bed.connector(stream.name) == before

    for _ in range(2):
        await bed.driver.delete_stream(stream.name)
    with pytest.raises(StreamNotFound):
        await bed.driver.get_status(stream.name)
    assert bed.copied(topic) == bed.original(topic)
    # The stored offsets went with it, so the same stream begins anew.
    await bed.driver.upsert_stream(stream)
    again = await bed.arrived(topic, 120)
    assert sorted(again, key=repr) == sorted(2 * bed.original(topic), key=repr)


async def test_names_are_kept_where_the_policy_says_so(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 20))
    stream = await bed.made(topic, options=IDENTITY)
    await bed.caught_up(stream.name)
    assert bed.copied(topic, name=topic) == bed.original(topic)
    assert bed.copy_of(topic) not in topics(bed.destination)


async def test_a_worker_on_the_sources_cluster_writes_to_the_destination(at_source: MirrorEnv) -> None:
    topic = at_source.topic()
    at_source.produce(topic, records(0, 20))
    stream = await at_source.made(
        topic,
        options=IDENTITY
        | {
            "sync.group.offsets.enabled": True,
            "emit.heartbeats.enabled": True,
            "offset-syncs.topic.replication.factor": 1,
            "checkpoints.topic.replication.factor": 1,
            "heartbeats.topic.replication.factor": 1,
        },
    )
    await at_source.caught_up(stream.name)
    await at_source.arrived(topic, 20, name=topic)
    assert at_source.copied(topic, name=topic) == at_source.original(topic)
    assert len(at_source.original(topic)) == 20
    internal = f"{at_source.alias}.checkpoints.internal"
    await until(lambda: asyncio.to_thread(lambda: internal in topics(at_source.destination)), what="checkpoints")
    assert internal not in topics(at_source.source)


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, 0),
        ({"mode": "cdc"}, 10),
        ({"startFrom": "earliest", "mode": "cdc"}, 0),
        ({"startFrom": "latest"}, 10),
        ({"startFrom": {"lsn": "{topic}=4"}}, 4),
        ({"startFrom": {"lsn": "{topic}=0"}}, 0),
        ({"startFrom": {"wall": "2023-11-14T22:13:27Z"}}, 7),  # START and seven seconds
        ({"startFrom": {"wall": "2023-11-14T22:13:26.001Z"}, "mode": "cdc"}, 7),
    ],
)
async def test_a_new_stream_begins_where_it_says(bed: MirrorEnv, changes: dict[str, Any], first: int) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    start = changes.get("startFrom")
    if isinstance(start, dict):
        changes = changes | {"startFrom": {key: value.format(topic=topic) for key, value in start.items()}}
    stream = await bed.made(topic, **changes)
    bed.produce(topic, records(10, 12))
    found = await bed.arrived(topic, 12 - first)
    assert found == bed.original(topic)[first:]
    assert "making" not in str(bed.connector(stream.name)).replace('"making":false', "")


@pytest.mark.parametrize(
    ("lsn", "kind", "said"),
    [
        ("nonsense", InvalidStream, "is no position of a mirror"),
        ("{topic}=50", ReplayNotRetained, "is past the end of the source"),
        ("{topic}=1", ReplayNotRetained, "is no longer retained"),
        ("another=0", ReplayRefused, "takes no such partition"),
    ],
)
async def test_a_start_that_is_not_there_is_refused_in_the_preview(
    bed: MirrorEnv, lsn: str, kind: type[ReplicatorError], said: str
) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    prune(bed.source, topic, 3)
    stream = bed.stream(topic, startFrom={"lsn": lsn.format(topic=topic)})
    (finding,) = await bed.driver.preflight(stream)
    assert (finding.severity, finding.code, finding.property) == (Severity.ERROR, kind.code, "startFrom")
    assert said in finding.message
    with pytest.raises(kind, match=said) as refused:
        await bed.driver.upsert_stream(stream)
    assert (refused.value.stream, refused.value.property) == (stream.name, "startFrom")
    assert stream.name not in {item.name for item in await bed.driver.list_streams()}


async def test_a_pause_keeps_its_place_and_a_resume_loses_nothing(bed: MirrorEnv) -> None:
    topic = bed.topic(partitions=2)
    bed.produce(topic, records(0, 20, partitions=2))
    stream = await bed.made(topic)
    before = await bed.caught_up(stream.name)
    for _ in range(2):
        await bed.driver.pause(stream.name)
    paused = await bed.driver.get_status(stream.name)
    assert (paused.state, paused.last_checkpoint) == (StreamState.PAUSED, before.last_checkpoint)

    now = int(time.time() * 1000)
    bed.produce(topic, records(0, 7, partitions=2, start=now - 30_000))
    asked, oldest = time.time(), (now - 30_000) / 1000
    late = await bed.driver.get_status(stream.name)
    assert late.lag_events == 7
    assert late.lag_seconds is not None
    assert asked - oldest - 0.1 <= late.lag_seconds <= time.time() - oldest + 0.1
    assert late.last_checkpoint is not None
    assert before.last_checkpoint is not None
    assert late.last_checkpoint.lsn == before.last_checkpoint.lsn
    assert len(bed.copied(topic)) == 20

    for _ in range(2):
        await bed.driver.resume(stream.name)
    await bed.caught_up(stream.name)
    assert bed.copied(topic) == bed.original(topic)


async def test_a_resume_behind_a_gap_is_refused_and_a_replay_says_what_is_lost(bed: MirrorEnv) -> None:
    topic, whole = bed.topic(), bed.topic()
    bed.produce(topic, records(0, 10))
    bed.produce(whole, records(0, 5))
    stream = await bed.made(topic, include=[topic, whole])
    await bed.caught_up(stream.name)
    await bed.driver.pause(stream.name)
    bed.produce(topic, records(10, 20))
    prune(bed.source, topic, 13)

    broken = await bed.driver.get_status(stream.name)
    lost = f"{topic}/0: offsets 10 to 12 are no longer retained"
    assert (broken.state, broken.last_error) == (StreamState.FAILED, lost)
    assert broken.lag_events == 7
    with pytest.raises(ReplayNotRetained, match=lost) as refused:
        await bed.driver.resume(stream.name)
    assert f'--lsn "{topic}=13"' in str(refused.value.fix)
    # Nor by the declaration, nor by a replay of something else.
    for declared in (stream, stream.model_copy(update={"exclude": ("x",)})):
        with pytest.raises(ReplayNotRetained, match=lost):
            await bed.driver.upsert_stream(declared)
    with pytest.raises(ReplayNotRetained, match=lost):
        await bed.driver.replay(stream.name, Checkpoint(lsn=f"{whole}=2"), key="elsewhere")
    assert len(bed.copied(topic)) == 10

    plan = await bed.driver.plan_replay(stream.name, Checkpoint(lsn=f"{topic}=13"))
    assert plan.events == 0
    assert plan.effects[0] == f"offsets 10 to 12 of {topic}/0 are lost: the source retains them no longer"
    await bed.driver.replay(stream.name, Checkpoint(lsn=f"{topic}=13"), key="k")
    await bed.caught_up(stream.name)
    assert bed.copied(topic) == records(0, 10) + records(13, 20)
    assert bed.copied(whole) == records(0, 5)


async def test_what_failed_is_not_started_again_behind_a_gap(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.topic(at=bed.destination, name=bed.copy_of(topic), max_message_bytes="1000")
    bed.produce(topic, records(0, 3))
    stream = await bed.made(topic, options={"sync.topic.configs.enabled": False})
    await bed.caught_up(stream.name)
    bed.produce(topic, [replace(records(3, 4)[0], value=b"v" * 5000)])
    await state_is(bed.driver, stream.name, StreamState.FAILED)
    bed.produce(topic, records(4, 10))
    prune(bed.source, topic, 6)

    lost = f"{topic}/0: offsets 3 to 5 are no longer retained"
    broken = await bed.driver.get_status(stream.name)
    assert "RecordTooLarge" in str(broken.last_error)
    assert lost in str(broken.last_error)
    for declared in (stream, stream.model_copy(update={"exclude": ("x",)})):
        with pytest.raises(ReplayNotRetained, match=lost):
            await bed.driver.upsert_stream(declared)
    # A pause of what failed lets nothing run, and a replay says what is lost.
    await bed.driver.upsert_stream(stream.model_copy(update={"exclude": ("x",), "desired_state": DesiredState.PAUSED}))
    assert bed.copied(topic) == records(0, 3)
    await bed.driver.replay(stream.name, Checkpoint(lsn=f"{topic}=6"), key="k")
    await bed.driver.upsert_stream(stream)
    await bed.caught_up(stream.name)
    assert bed.copied(topic) == records(0, 3) + records(6, 10)


async def test_a_resume_that_cannot_look_for_a_gap_is_refused(bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = bed.topic()
    stream = await bed.made(topic)
    blind = await bed.made(bed.topic(), options={"worker.cluster": "destination"})
    for name in (stream.name, blind.name):
        await bed.driver.pause(name)

    async def away(*_: object) -> None:
        raise EngineUnavailable("the brokers are away", fix="start them")

    with monkeypatch.context() as patch:
        patch.setattr(ClusterClients, "brokers", away)
        with pytest.raises(EngineUnavailable, match="without a gap is unknown: the brokers are away") as refused:
            await bed.driver.resume(stream.name)
        assert (refused.value.stream, refused.value.fix) == (stream.name, "start them")
        await bed.driver.resume(blind.name)  # nobody can tell from here, as it was said
    assert (await bed.driver.get_status(stream.name)).state is StreamState.PAUSED
    await bed.driver.resume(stream.name)
    for name in (stream.name, blind.name):
        await state_is(bed.driver, name, StreamState.RUNNING)


async def test_a_unfinished_stream_runs_only_when_its_start_is_set(
    bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    stream = bed.stream(topic, mode="cdc")

    async def cut_off(*_: object) -> None:
        raise EngineUnavailable("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(ConnectCluster, "alter_offsets", cut_off)
        with pytest.raises(EngineUnavailable):
            await bed.driver.upsert_stream(stream)
    half = await bed.driver.get_status(stream.name)
    assert (half.state, "creation is incomplete" in str(half.last_error)) == (StreamState.PAUSED, True)
    for call in (
        bed.driver.resume(stream.name),
        bed.driver.replay(stream.name, Checkpoint(lsn=f"{topic}=0"), key="k"),
        bed.driver.plan_replay(stream.name, Checkpoint(lsn=f"{topic}=0")),
    ):
        with pytest.raises(ReplayRefused, match="creation is incomplete"):
            await call
    await bed.driver.upsert_stream(stream)
    bed.produce(topic, records(10, 12))
    assert await bed.arrived(topic, 2) == records(10, 12)


async def test_each_of_two_mirrors_of_a_topic_has_its_own_lag(bed: MirrorEnv) -> None:
    topic, now = bed.topic(), int(time.time() * 1000)
    slow = await bed.made(topic)
    fast = await bed.made(topic, options={"source.cluster.alias": f"{bed.alias}-fast"})
    await bed.driver.pause(slow.name)
    bed.produce(topic, records(0, 1, start=now - 3_600_000))
    await bed.caught_up(fast.name)
    await bed.driver.pause(fast.name)
    bed.produce(topic, records(0, 1, start=now - 10_000))
    found = {item.status.name: item.status.lag_seconds for item in await bed.driver.describe([slow.name, fast.name])}
    ages = {slow.name: 3600, fast.name: 10}
    assert all(seconds is not None and abs(seconds - ages[name]) < 9 for name, seconds in found.items()), found


async def test_a_topic_that_was_made_again_is_failed_and_goes_on_where_one_says(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    stream = await bed.made(topic)
    await bed.caught_up(stream.name)
    await bed.driver.pause(stream.name)
    delete_topic(bed.source, topic)
    bed.topic(name=topic)
    bed.produce(topic, records(20, 32))  # more than the old one had, so that offsets tell nothing

    broken = await state_is(bed.driver, stream.name, StreamState.FAILED)
    assert f"{topic} was deleted and made again" in str(broken.last_error)
    plan = await bed.driver.plan_replay(stream.name, Checkpoint(lsn=f"{topic}=0"))
    assert (plan.events, plan.effects[0][:40]) == (12, f"{topic} was deleted and made again: "[:40])
    await bed.driver.replay(stream.name, Checkpoint(lsn=f"{topic}=0"), key="k")
    await bed.caught_up(stream.name)
    assert bed.copied(topic) == records(0, 10) + records(20, 32)
    assert (await bed.driver.get_replay(stream.name, "k")).finished_at is not None


async def test_a_topic_that_is_deleted_under_a_running_mirror_stays_gone_until_it_is_made_again(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    name = (await bed.made(topic)).name
    await bed.caught_up(name)
    delete_topic(bed.source, topic)
    await asyncio.sleep(2)  # a reader that may make topics has made it again by then
    assert topic not in topics(bed.source)
    bed.topic(name=topic)
    bed.produce(topic, records(20, 32))
    # How much of it a running mirror copies depends on the moment; a replay from its beginning copies all.
    broken = await state_is(bed.driver, name, StreamState.FAILED)
    assert f"{topic} was deleted and made again" in str(broken.last_error)
    await bed.driver.replay(name, Checkpoint(lsn=f"{topic}=0"), key="k")
    await bed.caught_up(name)
    found = bed.copied(topic)
    assert (found[:10], found[-12:]) == (records(0, 10), records(20, 32))
    assert (await bed.driver.get_replay(name, "k")).finished_at is not None
