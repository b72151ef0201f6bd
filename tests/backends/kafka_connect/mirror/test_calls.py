"""What a look at many mirrors asks of Kafka Connect, counted on the way to a real worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from replicator.backends.kafka_connect.cluster import READS
from replicator.lifecycle import apply
from replicator.lifecycle.config import parse_config
from replicator.lifecycle.connections import Connections, StreamId
from replicator.lifecycle.function_types import GetStreamStatusesArgs, ListStreamsArgs
from replicator.lifecycle.functions import get_stream_statuses, list_streams
from replicator.lifecycle.wait import Limits
from replicator.model import Stream, StreamState

from tests.backends.kafka_connect.mirror.builders import URN
from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv, records
from tests.backends.kafka_connect.proxy import Fault, Proxy, said
from tests.backends.sqlite.agents import state_is

pytestmark = pytest.mark.engine

COUNT = READS + 4
AT_ONCE = 8


@dataclass
class Many:
    """Mirrors, and a provider that reaches their worker through a proxy.

    :ivar streams: without their owners.
    """

    bed: MirrorEnv
    proxy: Proxy
    connections: Connections
    streams: list[Stream]

    @property
    def ids(self) -> list[StreamId]:
        return [StreamId.of(stream) for stream in self.streams]


@pytest.fixture
async def connections(proxy: Proxy) -> AsyncIterator[Connections]:
    config, failures = parse_config({"kafkaMirror": {"address": proxy.url}}, environ={})
    assert failures == []
    opened = Connections(config)
    yield opened
    await opened.aclose()


@pytest.fixture
async def many(bed: MirrorEnv, proxy: Proxy, connections: Connections) -> Many:
    topics = [bed.topic() for _ in range(COUNT)]
    bed.produce(topics[0], records(0, 5))
    streams = [bed.stream(topic, backend="kafka-mirror") for topic in topics]
    gate = asyncio.Semaphore(AT_ONCE)

    async def make(stream: Stream) -> None:
        async with gate:
            await bed.driver.upsert_stream(stream)

    await asyncio.gather(*map(make, streams))
    await bed.caught_up(streams[0].name)
    return Many(bed, proxy, connections, streams)


def offsets_of(proxy: Proxy) -> list[str]:
    return [call for call in proxy.calls if call.endswith("/offsets")]


async def listed(many: Many) -> None:
    """The function that programs and `replicator list` call."""
    found = await list_streams(many.connections, ListStreamsArgs(backend="kafka-mirror"))
    states = {item.name: item.state for item in found.streams}
    assert {states[stream.name] for stream in many.streams} == {StreamState.RUNNING}


async def imported(many: Many) -> None:
    """What `replicator import` writes programs from."""
    found = {stream.name for stream in await many.connections.replicator(many.ids[0]).list_streams()}
    assert found >= {stream.name for stream in many.streams}


async def drifted(many: Many) -> None:
    """What somebody else changed, in one paused connector and in the configuration of another."""
    paused, changed = many.streams[1].name, many.streams[2].name
    with closing(many.bed.rest()) as rest:
        rest.put(f"/connectors/{paused}/pause").raise_for_status()
        config = {**many.bed.connector(changed), "tasks.max": "2"}
        rest.put(f"/connectors/{changed}/config", json=config).raise_for_status()
    await state_is(many.bed.driver, paused, StreamState.PAUSED)
    many.proxy.calls.clear()
    found = {item.stream.name: item for item in await many.connections.replicator(many.ids[0]).overview()}
    assert found[paused].status.state is StreamState.PAUSED
    assert found[changed].stream.options["tasks.max"] == "2"
    assert found[many.streams[3].name].stream.options == many.streams[3].options


async def refreshed(many: Many) -> list[Any]:
    """Read of every resource, as a refresh does it."""
    found = await asyncio.gather(*(apply.read(many.connections, id) for id in many.ids))
    return [outcome.status for outcome in found if outcome is not None]


async def asked(many: Many) -> list[Any]:
    """The function for stack outputs."""
    args = GetStreamStatusesArgs(streams=tuple(map(str, many.ids)))
    return list((await get_stream_statuses(many.connections, args)).statuses.values())


async def test_many_at_a_look(many: Many) -> None:
    """A listing is three calls at most and no offsets; a status is one question more for each, sixteen at once."""
    many.proxy.delay = 0.2  # else the first are answered before the last are asked
    for listing in (listed, imported, drifted):
        many.proxy.calls.clear()
        await listing(many)
        assert offsets_of(many.proxy) == []
        assert 1 <= len(many.proxy.calls) <= 3
    for measuring in (refreshed, asked):
        many.proxy.calls.clear()
        statuses = await measuring(many)
        assert len(statuses) == COUNT
        offsets = offsets_of(many.proxy)
        assert len(offsets) == len(set(offsets))
        # Those of other tests are among them.
        assert set(offsets) >= {f"GET /connectors/{stream.name}/offsets" for stream in many.streams}
        rest = [call for call in many.proxy.calls if call not in offsets]
        assert len([call for call in rest if call.count("/") == 1]) <= 3
        assert [call for call in rest for stream in many.streams if f"/{stream.name}/" in call] == []
        many.connections.changing(many.ids[0])  # the next one is to look anew
    many.proxy.calls.clear()
    await many.connections.replicator(many.ids[0]).get_status(many.streams[0].name)
    assert offsets_of(many.proxy) == [f"GET /connectors/{many.streams[0].name}/offsets"]
    assert len(many.proxy.calls) <= 4
    assert AT_ONCE < many.proxy.most["GET offsets"] <= READS


async def test_a_new_mirror_is_posted_without_a_look_and_without_a_validation(
    bed: MirrorEnv, proxy: Proxy, connections: Connections
) -> None:
    stream = bed.stream(bed.topic(), backend="kafka-mirror")
    await apply.make_it_so(connections, stream, apply.new_owner(URN), Limits())
    own = [call for call in proxy.calls if stream.name in call or call.startswith("POST")]
    assert own[0] == "POST /connectors"
    assert own[-1] == f"GET /connectors/{stream.name}/offsets"
    assert (proxy.count("POST"), proxy.count("PUT"), len(offsets_of(proxy))) == (1, 2, 2)
    assert [call for call in own if f"/connectors/{stream.name}." in call] == [], "it has no connectors beside it"


async def two(bed: MirrorEnv) -> list[Stream]:
    """Mirrors, as they were declared."""
    streams = [bed.stream(bed.topic(), backend="kafka-mirror") for _ in range(2)]
    for stream in streams:
        await bed.driver.upsert_stream(stream)
    return streams


async def test_a_stream_that_is_removed_during_a_look_hides_no_other(
    bed: MirrorEnv, proxy: Proxy, connections: Connections
) -> None:
    streams = await two(bed)
    removed, other = (stream.name for stream in streams)
    # As Connect answers for one that the listing before still had.
    for path in (f"/connectors/{removed}/offsets", f"/connectors/{removed}"):
        proxy.fail(f"GET {path}", said(404, text="not found"))
    found = {item.stream.name for item in await connections.replicator(StreamId.of(streams[0])).describe()}
    assert other in found
    assert removed not in found


@pytest.mark.parametrize("body", [b"garbage", b'{"offsets": [{"partition": 7, "offset": 7}]}', b'{"offsets": null}'])
async def test_garbage_about_one_stream_hides_no_other(
    bed: MirrorEnv, proxy: Proxy, connections: Connections, body: bytes
) -> None:
    broken, other = (stream.name for stream in await two(bed))
    garbage = Fault(reaches=False, status=200, body=body)
    proxy.chooser = lambda verb, path: garbage if (verb, path) == ("GET", f"/connectors/{broken}/offsets") else None
    at = StreamId("kafka-mirror", "default", broken)
    found = {item.name: item.status for item in await connections.replicator(at).describe()}
    assert (found[broken].state, found[broken].lag_events) == (StreamState.FAILED, None)
    assert "does not answer as Kafka Connect does" in str(found[broken].last_error)
    assert found[other].state is not StreamState.FAILED


async def test_a_connector_whose_positions_cannot_be_read_is_failed_and_hides_no_other(
    bed: MirrorEnv, proxy: Proxy, connections: Connections
) -> None:
    streams = await two(bed)
    broken, other = (stream.name for stream in streams)
    refused = said(500, text="Could not read key 'password'")
    proxy.chooser = lambda verb, path: refused if (verb, path) == ("GET", f"/connectors/{broken}/offsets") else None
    described = await connections.replicator(StreamId.of(streams[0])).describe()
    found = {item.stream.name: item.status for item in described}
    assert found[other].state is not StreamState.FAILED
    assert (found[broken].state, found[broken].lag_events) == (StreamState.FAILED, None)
    assert "its positions cannot be read" in str(found[broken].last_error)
    assert "Could not read key 'password'" in str(found[broken].last_error)
