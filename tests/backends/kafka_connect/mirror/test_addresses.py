"""An address in the configuration that leads to another Connect cluster than the one that has the streams."""

from __future__ import annotations

import pytest
from replicator.errors import InvalidConfig
from replicator.lifecycle import apply
from replicator.lifecycle.connections import Connections, StreamId
from replicator.model import Stream

from tests.backends.kafka_connect.mirror.builders import URN
from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv
from tests.lifecycle.builders import config

pytestmark = pytest.mark.engine


async def test_a_stream_of_another_connect_cluster_is_neither_gone_nor_made_twice(bed: MirrorEnv) -> None:
    stream = await bed.made(bed.topic())
    here = await bed.driver.identity()
    assert here is not None
    token = stream.name  # that the test bed issues
    owner = apply.known_owner(URN, token, URN, manager=here)
    elsewhere = MirrorEnv(bed.source, bed.destination, bed.source.connect)
    try:
        assert await elsewhere.driver.identity() not in (None, here)
        changed = stream.model_copy(update={"owner": owner})
        for call in (
            elsewhere.driver.upsert_stream(changed),
            elsewhere.driver.delete_stream(stream.name, owner=owner),
            read(elsewhere, stream, here),
        ):
            with pytest.raises(InvalidConfig, match=f"stream was made at {here}") as refused:
                await call
            assert "pulumi state delete" in str(refused.value.fix)
        (finding,) = await elsewhere.driver.preflight(changed)
        assert finding.code == InvalidConfig.code
        assert stream.name not in {item.name for item in await elsewhere.driver.list_streams()}
        assert await elsewhere.driver.delete_stream(stream.name) is True, "an operator has no state"
    finally:
        await elsewhere.remove()


async def read(bed: MirrorEnv, stream: Stream, manager: str) -> None:
    connections = Connections(config(kafkaMirror={"address": bed.connect}))
    try:
        at = StreamId.of(stream)
        assert await apply.read(connections, at) is None, "a state of before does not know where it was"
        await apply.read(connections, at, apply.known_owner(URN, stream.name, URN, manager=manager))
    finally:
        await connections.aclose()
