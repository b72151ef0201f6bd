"""The topics that a Connect cluster keeps itself in are never copied unless they are named."""

from __future__ import annotations

from typing import Any

import pytest
from replicator.backends.kafka_connect.mirror.connect_topics import what_keeps
from replicator.backends.kafka_connect.mirror.topics import (
    CONNECT_TOPICS,
    exclude_patterns,
    exclude_patterns_of_0_1,
    matching_topics,
)
from replicator.errors import InvalidStream
from replicator.model import StreamState

from tests.backends.kafka_connect.mirror.builders import IDENTITY, declare
from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv, records
from tests.kafka import Record, unique


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ([], ()),
        (["connect-*"], ()),
        (["*"], ()),
        (["connect-configs"], ("connect-configs",)),
        (["connect-*", "connect-status"], ("connect-status",)),
        (["orders"], ()),
    ],
)
def test_only_a_name_takes_them(include: list[str], expected: tuple[str, ...]) -> None:
    assert matching_topics(declare(include=include), CONNECT_TOPICS) == list(expected)


@pytest.mark.parametrize("include", [["orders"], ["shop.*"], ["connect-configs"]])
def test_a_mirror_that_cannot_take_them_is_written_as_before(include: list[str]) -> None:
    assert not any("connect" in pattern for pattern in exclude_patterns((), include))


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (["session-key", "connector-a", "task-a-0", "commit-a", "target-state-a"], "connectors"),
        (["status-connector-a", "status-task-a.b-12", "status-topic-t:connector-a"], "status"),
        (['["a",{"cluster":"east","partition":0,"topic":"t"}]', '["b",{}]'], "offsets"),
        (["connector-a", "order-1"], None),
        (['["a",1]'], None),
        (["[]", "{"], None),
        ([None], None),
        ([], None),
    ],
)
def test_the_keys_of_connect_are_known(keys: list[str | None], what: str | None) -> None:
    assert what_keeps(None if key is None else key.encode() for key in keys) == what


@pytest.mark.engine
async def test_a_connect_cluster_is_not_copied_with_the_topics_of_its_brokers(bed: MirrorEnv) -> None:
    """The source has a worker of its own. Copied with their names, its topics would be those of the other worker."""
    topic = bed.topic()
    bed.produce(topic, records(0, 3))
    options: dict[str, Any] = {"refresh.topics.interval.seconds": 1}
    stream = await bed.made(topic, include=["connect-*", topic], options=options)
    await bed.caught_up(stream.name)
    for name in CONNECT_TOPICS:
        assert bed.copied(name) == []
    # A record of release 0.1 has no such exclusion, which is no drift; the next change leaves them out.
    config = bed.connector(stream.name)
    config["topics.exclude"] = ",".join(exclude_patterns_of_0_1(stream.exclude))
    with bed.rest() as rest:
        rest.put(f"/connectors/{stream.name}/config", json=config).raise_for_status()
    assert await bed.found(stream.name) == stream
    assert len(await bed.arrived("connect-configs", 1)) > 0  # as it was before
    await bed.driver.upsert_stream(stream)
    assert "connect" in bed.connector(stream.name)["topics.exclude"]


@pytest.mark.engine
async def test_a_connect_cluster_under_other_names_is_known_by_its_keys(bed: MirrorEnv) -> None:
    start = unique("c")
    own = bed.topic(name=f"{start}-state", cleanup_policy="compact")
    other = bed.topic(name=f"{start}-orders", cleanup_policy="compact")
    bed.produce(other, [Record(b"order-1", b"v")])
    bed.produce(
        own, [Record(b"session-key", b"{}"), Record(b"connector-orders", b"{}"), Record(b"commit-orders", b"{}")]
    )
    stream = bed.stream(f"{start}-*", options=IDENTITY)
    with pytest.raises(InvalidStream, match=f"{own} is where a Connect cluster keeps its connectors") as refused:
        await bed.driver.upsert_stream(stream)
    assert refused.value.property == "include"
    await bed.driver.upsert_stream(stream.model_copy(update={"exclude": (own,)}))
    assert await bed.arrived(other, 1, name=other)
    named = await bed.made(own, include=[own])
    assert len(await bed.arrived(own, 3)) == 3
    assert (await bed.driver.get_status(named.name)).state is not StreamState.FAILED
