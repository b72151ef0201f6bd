"""From a stream to its replicator, and one listing for everybody who asks at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from replicator.backends import REGISTRY
from replicator.capabilities import TABLE
from replicator.errors import AgentUnreachable, InvalidStream
from replicator.lifecycle.connections import Connections, StreamId
from replicator.model import Stream
from replicator.replicator import Description

from tests.lifecycle.builders import S3, SQLITE, Watched, config, connected, inputs, stream

ORDERS = StreamId("memory", "default", "orders")


@pytest.fixture
async def watched() -> Watched:
    replicator = Watched()
    await replicator.upsert_stream(stream())
    return replicator


# --- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "memory/default/orders"),
        ({"source": {**SQLITE, "region": "us-east"}}, "memory/us-east/orders"),
        ({"destination": {**S3, "region": "eu-fra"}}, "memory/default/orders"),
        ({"backend": "litestream", "source": {**SQLITE, "region": "eu-fra"}}, "litestream/eu-fra/orders"),
    ],
)
def test_an_id(changes: dict[str, object], expected: str) -> None:
    found = StreamId.of(Stream.model_validate({"name": "orders", "backend": "memory", **inputs(**changes)}))
    assert str(found) == expected
    assert StreamId.parse(expected) == found


@pytest.mark.parametrize(
    "text", ["", "orders", "memory/orders", "memory//orders", "memory/a/b/c", "nope/default/a", "/"]
)
def test_no_id(text: str) -> None:
    with pytest.raises(InvalidStream, match="is not the id of a stream") as caught:
        StreamId.parse(text)
    assert "use the output id of the resource" in str(caught.value)


def test_registry_and_table_name_the_same_backends() -> None:
    assert REGISTRY.keys() == TABLE.keys()
    assert all(kind == backend.kind for kind, backend in REGISTRY.items())


# --- connections -----------------------------------------------------------------------------------------------------


async def test_one_connection_for_each_address() -> None:
    made: list[tuple[str, str]] = []

    def connect(kind: str, address: str) -> Watched:
        made.append((kind, address))
        return Watched()

    regions = {"us-east": "unix:///a", "us-west": "unix:///a", "eu-fra": "unix:///b"}
    connections = Connections(config(memory={"regions": regions}), connect)
    assert made == []
    found = [connections.replicator(StreamId("memory", region, "x")) for region in (*regions, *regions)]
    assert made == [("memory", "unix:///a"), ("memory", "unix:///b")]
    assert len(set(map(id, found))) == 2
    await connections.aclose()


async def test_closing_closes_each_one() -> None:
    closed: list[str] = []

    class Closing(Watched):
        async def aclose(self) -> None:
            closed.append("closed")

    connections = Connections(config(memory={"address": "unix:///a"}), lambda kind, address: Closing())
    connections.replicator(ORDERS)
    await connections.aclose()
    await connections.aclose()
    assert closed == ["closed"]


# --- the shared listing ----------------------------------------------------------------------------------------------


async def test_a_hundred_readers_share_one_listing(watched: Watched) -> None:
    connections = connected(watched)
    watched.gate = asyncio.Event()
    readers = [asyncio.create_task(connections.describe(ORDERS, max_age=5)) for _ in range(100)]
    await asyncio.sleep(0)
    watched.gate.set()
    found = await asyncio.gather(*readers)
    assert watched.listings == [None]
    assert {item.stream.name for item in found if item} == {"orders"}


async def test_a_reader_that_is_cancelled_takes_the_listing_from_nobody(watched: Watched) -> None:
    connections = connected(watched)
    watched.gate = asyncio.Event()
    first = asyncio.create_task(connections.describe(ORDERS, max_age=5))
    second = asyncio.create_task(connections.describe(ORDERS, max_age=5))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    watched.gate.set()
    assert (await second) is not None
    assert watched.listings == [None]


async def test_an_old_listing_is_made_anew(watched: Watched) -> None:
    connections = connected(watched)
    await connections.describe(ORDERS, max_age=60)
    await connections.describe(ORDERS, max_age=60)
    await connections.describe(ORDERS, max_age=-1)
    assert len(watched.listings) == 2


async def test_a_failed_listing_is_not_kept(watched: Watched) -> None:
    connections = connected(watched)
    watched.broken = AgentUnreachable("nothing listens")
    readers = [connections.describe(ORDERS, max_age=60) for _ in range(3)]
    assert [type(error) for error in await asyncio.gather(*readers, return_exceptions=True)] == [AgentUnreachable] * 3
    assert len(watched.listings) == 1
    watched.broken = None
    assert await connections.describe(ORDERS, max_age=60) is not None


async def test_a_change_drops_the_listing(watched: Watched) -> None:
    connections = connected(watched)
    await connections.describe(ORDERS, max_age=60)
    await connections.changing(ORDERS).delete_stream("orders")
    assert await connections.describe(ORDERS, max_age=60) is None
    assert watched.listings == [None, None, ["orders"]]


async def test_gone_is_what_the_engine_says(watched: Watched) -> None:
    assert await connected(watched).describe(StreamId("memory", "default", "bills"), max_age=5) is None


async def test_what_a_listing_leaves_out_is_gone_only_where_the_engine_says_so_of_the_name() -> None:
    class Forgetful(Watched):
        async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
            return [] if names is None else await super().describe(names)

    replicator = Forgetful()
    await replicator.upsert_stream(stream())
    connections = connected(replicator)
    found = await connections.describe(ORDERS, max_age=60)
    assert found is not None
    assert found.stream.name == "orders"
    assert await connections.describe(StreamId("memory", "default", "another"), max_age=60) is None
