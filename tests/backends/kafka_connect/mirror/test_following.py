"""What a mirror follows besides records: which topics there are, their settings, and where their readers are."""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from replicator.backends.kafka_connect.mirror.topics import matching_topics
from replicator.model import StreamState
from replicator.replicator import Finding, Severity

from tests.backends.kafka_connect.mirror.mirror_env import (
    FOLLOWED,
    MirrorEnv,
    commit,
    committed,
    records,
    settings,
    topics,
)
from tests.kafka import TIMEOUT, make_topic, plain, unique
from tests.waiting import until
from tools.kafka.pair import Side

pytestmark = pytest.mark.engine

FAST = {"refresh.topics.interval.seconds": 1, "sync.topic.configs.interval.seconds": 1}


def set_setting(side: Side, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient(dict(plain(side.bootstrap)))
    admin.incremental_alter_configs([resource])[resource].result(TIMEOUT)


async def test_globs_are_read_alike_here_and_by_the_engine_and_new_topics_are_found(bed: MirrorEnv) -> None:
    base = unique("g")
    names = [base, f"{base}-1", f"{base}x", f"{base}.eu", f"{base}.eu.2026", f"{base}.us", f"{base}_y", f"{base}.eu-2"]
    for name in names:
        bed.topic(name=name)
    stream = await bed.made(base, include=[f"{base}?*", f"{base}.*"], exclude=[f"{base}.u?", f"{base}-*"], options=FAST)
    expected = [f"{base}.eu", f"{base}.eu-2", f"{base}_y", f"{base}x"]
    assert matching_topics(stream, names) == expected

    def copied() -> list[str]:
        return sorted(name.removeprefix(f"{bed.alias}.") for name in topics(bed.destination) if bed.alias in name)

    assert copied() == expected
    late = [f"{base}.late", f"{base}.us", f"{base}-late"]
    for name in late[::2]:
        bed.topic(name=name)
    bed.produce(late[0], records(0, 5))
    assert await bed.arrived(late[0], 5) == bed.original(late[0])
    assert copied() == sorted([*expected, late[0]])
    assert (await bed.caught_up(stream.name)).last_checkpoint is not None


async def test_settings_of_topics_are_followed(bed: MirrorEnv) -> None:
    topic = bed.topic(cleanup_policy="compact", retention_ms="7200000", segment_ms="60000")
    await bed.made(topic, options=FAST)
    copy = bed.copy_of(topic)

    def followed(**wanted: str) -> bool:
        found = settings(bed.destination, copy)
        return all(found[name.replace("_", ".")] == value for name, value in wanted.items())

    assert followed(cleanup_policy="compact", retention_ms="7200000", segment_ms="60000")
    set_setting(bed.source, topic, "retention.ms", "3600000")
    await until(lambda: asyncio.to_thread(followed, retention_ms="3600000"), what="the change is followed")


async def test_settings_of_topics_are_left_alone_where_one_says_so(bed: MirrorEnv) -> None:
    topic = bed.topic(retention_ms="7200000")
    await bed.made(topic, options=FAST | {"sync.topic.configs.enabled": False})
    set_setting(bed.source, topic, "retention.ms", "3600000")
    bed.produce(topic, records(0, 1))
    await bed.arrived(topic, 1)
    await asyncio.sleep(2.5)  # two intervals of the sync that is off
    assert settings(bed.destination, bed.copy_of(topic))["retention.ms"] != "3600000"


async def followed_groups(bed: MirrorEnv, name: str) -> Finding:
    """What a look by another process says of a stream's groups."""
    (found,) = await bed.another().describe([name])
    (finding,) = found.findings
    return finding


async def test_readers_of_the_source_go_on_at_the_destination(bed: MirrorEnv) -> None:
    topic, group = bed.topic(), unique("readers")
    bed.produce(topic, records(0, 20))
    stream = await bed.made(topic, options=FOLLOWED | {"groups": group})
    (found,) = await bed.driver.describe([stream.name])
    assert found.engine_objects["connectors"] == [stream.name, f"{stream.name}.checkpoint"]
    assert found.status.state in (StreamState.RUNNING, StreamState.CATCHING_UP)  # no group yet: no task, and no wait
    await bed.caught_up(stream.name)
    finding = await followed_groups(bed, stream.name)
    assert finding.severity is Severity.WARNING
    checkpoints = f"{bed.alias}.checkpoints.internal"
    assert finding.message == (
        f"groups of the source that match options.groups: 0; no checkpoint was written yet ({checkpoints})"
    )
    assert "let a group commit its first offset" in str(finding.fix)

    # Positions are translated by the pairs of offsets that the mirror noted from the group's first position on.
    commit(bed.source, group, topic, 0)
    bed.produce(topic, records(20, 40))
    await bed.caught_up(stream.name)
    commit(bed.source, group, topic, 30)

    def position() -> int | None:
        return committed(bed.destination, group, bed.copy_of(topic))

    await until(lambda: asyncio.to_thread(lambda: (position() or 0) > 0), timeout=30, what="the group is there")
    offset = position()
    assert offset is not None
    assert 0 < offset <= 30
    finding = await followed_groups(bed, stream.name)
    assert (finding.severity, finding.fix) == (Severity.INFO, None)
    assert finding.message.startswith("groups of the source that match options.groups: 1; the last checkpoint is of 20")
    # Nothing is skipped for a reader who goes on there.
    assert bed.copied(topic)[offset:] == bed.original(topic)[offset:]


async def test_a_stream_whose_topics_come_later_does_not_wait_for_them(bed: MirrorEnv) -> None:
    topic = unique("later")
    stream = bed.stream(topic, options=FAST)
    (warning,) = await bed.driver.preflight(stream)
    assert (warning.property, warning.severity.value) == ("include", "warning")
    async with asyncio.timeout(15):
        await bed.driver.upsert_stream(stream)
        await bed.driver.upsert_stream(stream)
    status = await bed.driver.get_status(stream.name)
    assert (status.state, status.lag_events, status.last_checkpoint) == (StreamState.CATCHING_UP, 0, None)
    assert "no topic of the source matches" in str(status.last_error)
    bed.topic(name=topic)
    bed.produce(topic, records(0, 5))
    assert await bed.arrived(topic, 5) == records(0, 5)
    assert (await bed.caught_up(stream.name)).last_error is None


async def test_heartbeats_of_others_are_no_topic_of_ours(bed: MirrorEnv) -> None:
    heartbeats = "heartbeats"
    if heartbeats not in topics(bed.source):
        make_topic(plain(bed.source.bootstrap), heartbeats)
    topic = bed.topic()
    bed.produce(heartbeats, records(0, 1))
    bed.produce(topic, records(0, 1))
    stream = await bed.made(topic)
    await bed.caught_up(stream.name)
    assert [name for name in topics(bed.destination) if name.startswith(bed.alias)] == [bed.copy_of(topic)]
