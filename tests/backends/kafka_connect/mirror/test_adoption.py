"""A mirror that was created manually becomes a stream, with its offsets and settings as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest
from replicator.errors import InvalidStream, NotOurs, ReplicatorError
from replicator.model import Owner, StreamState
from replicator.replicator import EndHints

from tests.backends.kafka_connect.mirror.builders import IDENTITY, URN
from tests.backends.kafka_connect.mirror.conftest import OpenBed
from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv, records
from tests.kafka import Patient, mirror_config, unique
from tools.kafka.pair import Pair

pytestmark = pytest.mark.engine

RECORD = {"replicator.stream", "replicator.record"}
NOTHING = EndHints()


@contextmanager
def by_hand(bed: MirrorEnv, topics: str, **changes: str | None) -> Iterator[str]:
    """A mirror that no stream made, until the end of the block."""
    name = unique("m").replace("_", "-")
    given = {
        **mirror_config(bed.source.bootstrap, bed.destination.bootstrap, topics),
        "source.cluster.alias": bed.alias,
        "replication.policy.class": None,
        **changes,
    }
    config = {key: value for key, value in given.items() if value is not None}
    with closing(httpx.Client(base_url=bed.connect, transport=Patient(), timeout=30)) as rest:
        rest.put(f"/connectors/{name}/config", json=config).raise_for_status()
        try:
            yield name
        finally:
            rest.delete(f"/connectors/{name}")


async def test_a_mirror_becomes_a_stream_and_goes_on(bed: MirrorEnv) -> None:
    topic = bed.topic(partitions=2)
    bed.produce(topic, records(0, 20, partitions=2))
    with by_hand(bed, topic, **{"tasks.max": "2", "refresh.topics.interval.seconds": "1"}) as name:
        copies = await bed.arrived(topic, 20)
        assert name in [item.name for item in await bed.driver.unmanaged()]
        with pytest.raises(NotOurs):
            await bed.driver.upsert_stream(bed.stream(topic, name=name))
        before = bed.connector(name)
        found = await bed.driver.propose(name, NOTHING, NOTHING)
        stream = found.stream
        assert stream.include == (topic,)
        assert (stream.source.uri, stream.destination.uri) == (
            f"kafka://{bed.source.bootstrap}",
            f"kafka://{bed.destination.bootstrap}",
        )
        assert stream.options["source.cluster.alias"] == bed.alias
        assert stream.options["tasks.max"] == 2
        await bed.driver.adopt_stream(stream, dry_run=True)
        assert bed.connector(name) == before

        assert not (await bed.driver.adopt_stream(stream)).known
        assert (await bed.driver.adopt_stream(stream)).known
        assert {key: value for key, value in bed.connector(name).items() if key not in RECORD} == before
        bed.produce(topic, records(20, 30, partitions=2))
        assert len(await bed.arrived(topic, 30)) == 30  # none is copied a second time
        assert copies == [record for record in bed.copied(topic) if record in copies]
        status = await bed.caught_up(name)
        assert (status.state, status.lag_events) == (StreamState.RUNNING, 0)
        assert await bed.found(name) == stream.recorded()

        owned = stream.model_copy(update={"owner": Owner(urn=URN, token="t", claim=True)})
        await bed.driver.upsert_stream(owned)  # what an import and the next update do
        assert {key: value for key, value in bed.connector(name).items() if key not in RECORD} == before
        await bed.driver.pause(name)
        await bed.another().resume(name)
        wider = owned.model_copy(update={"include": (topic, second := bed.topic())})
        bed.produce(second, records(0, 3))
        await bed.driver.upsert_stream(wider)
        assert len(await bed.arrived(second, 3)) == 3
        assert len(bed.copied(topic)) == 30
        await bed.driver.delete_stream(name)
    assert len(bed.copied(topic)) == 30


async def test_what_expressions_may_copy_later_counts_for_other_streams(bed: MirrorEnv) -> None:
    topic = bed.topic()
    prefix = unique("p")
    first = bed.topic(name=f"{prefix}.one.a")
    bed.produce(first, records(0, 3))
    with by_hand(bed, f"{prefix}.*", **{"replication.policy.class": IDENTITY["replication.policy.class"]}) as name:
        await bed.arrived(first, 3, name=first)
        found = await bed.driver.propose(name, NOTHING, NOTHING)
        assert found.stream.include == (first,)
        assert "may copy topics that are created later" in " ".join(item.message for item in found.findings)
        await bed.driver.adopt_stream(found.stream)
        later = bed.topic(name=f"{prefix}.two.b")
        with pytest.raises(ReplicatorError, match="writes to") as refused:
            await bed.another().upsert_stream(bed.stream(later, options=IDENTITY))
        assert refused.value.property == "include"
        await bed.made(topic, options=IDENTITY)
        await bed.driver.delete_stream(name)


async def test_a_topic_that_the_connector_excludes_joins(bed: MirrorEnv) -> None:
    prefix = unique("p")
    topic, other = bed.topic(name=f"{prefix}.a"), bed.topic(name=f"{prefix}.b")
    for each in (topic, other):
        bed.produce(each, records(0, 3))
    with by_hand(bed, f"{prefix}.*", **{"topics.exclude": f"{prefix}.b"}) as name:
        await bed.arrived(topic, 3)
        found = await bed.driver.propose(name, NOTHING, NOTHING)
        assert (found.stream.include, found.stream.exclude) == ((topic,), ())
        await bed.driver.adopt_stream(found.stream)
        owned = found.stream.model_copy(update={"owner": Owner(urn=URN, token="t", claim=True)})
        await bed.driver.upsert_stream(owned.model_copy(update={"include": (topic, other)}))
        assert len(await bed.arrived(other, 3)) == 3
        assert len(bed.copied(topic)) == 3
        await bed.driver.delete_stream(name)


async def test_workers_of_the_source_are_taken_over_too(at_source: MirrorEnv) -> None:
    bed = at_source
    topic = bed.topic()
    bed.produce(topic, records(0, 5))
    override = {"producer.override.bootstrap.servers": bed.destination.bootstrap}
    with by_hand(bed, topic, **override) as name:
        await bed.arrived(topic, 5)
        found = await bed.driver.propose(name, NOTHING, NOTHING)
        await bed.driver.adopt_stream(found.stream)
        bed.produce(topic, records(5, 8))
        assert len(await bed.arrived(topic, 8)) == 8
        await bed.driver.delete_stream(name)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "expression": ({"topics": "(a|b)+c"}, "holds more than names"),
    "class": ({"connector.class": "org.apache.kafka.connect.mirror.MirrorHeartbeatConnector"}, "adopts MirrorSource"),
    "placeholder": ({"target.cluster.bootstrap.servers": None}, "does not tell where it is"),
}


@pytest.mark.parametrize("case", BAD)
async def test_what_no_stream_can_stand_for_is_refused(bed: MirrorEnv, case: str) -> None:
    changes, text = BAD[case]
    with closing(bed.rest()) as rest:
        name = unique("m").replace("_", "-")
        config = {**mirror_config(bed.source.bootstrap, bed.destination.bootstrap, "x"), **changes}
        body = {"config": {key: value for key, value in config.items() if value is not None}, "name": name}
        made = rest.post("/connectors", json={**body, "initial_state": "STOPPED"})
        made.raise_for_status()
        try:
            with pytest.raises(ReplicatorError) as refused:
                await bed.driver.propose(name, NOTHING, NOTHING)
            assert text in str(refused.value)
            assert RECORD.isdisjoint(bed.connector(name))
        finally:
            rest.delete(f"/connectors/{name}")


async def test_a_declaration_of_another_connector_is_refused(bed: MirrorEnv, kafka: Pair, open_bed: OpenBed) -> None:
    topic = bed.topic()
    with by_hand(bed, topic) as name:
        stream = (await bed.driver.propose(name, NOTHING, NOTHING)).stream
        other = stream.source.model_copy(update={"uri": f"kafka://{kafka.west.bootstrap}"})
        with pytest.raises(NotOurs, match="the connector copies from"):
            await bed.driver.adopt_stream(stream.model_copy(update={"source": other}))
        with pytest.raises(InvalidStream, match="calls the cluster"):
            await bed.driver.propose(name, NOTHING, EndHints(region="elsewhere"))
        assert RECORD.isdisjoint(bed.connector(name))
