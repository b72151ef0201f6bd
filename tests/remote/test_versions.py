"""Agents and clients of the release before: each life runs between two real programs, one of them that release."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from replicator.backends.memory import MemoryReplicator
from replicator.errors import AgentVersion, OwnedByAnother, RecordUnreadable
from replicator.lifecycle import apply
from replicator.lifecycle.connections import Connections, StreamId
from replicator.lifecycle.wait import Limits
from replicator.model import Owner, token_digest
from replicator.remote.client import RemoteReplicator
from replicator.remote.server import build_app
from replicator.replicator import Description

from tests import releases
from tests.lifecycle.builders import OTHER_URN, URN, config, stream
from tests.releases import FIRST
from tests.remote.support import connected, serving

ORDERS = StreamId("memory", "default", "orders")

OLD_CLIENT = """
import asyncio, json, sys
from replicator.errors import ReplicatorError
from replicator.lifecycle import apply
from replicator.lifecycle.config import parse_config
from replicator.lifecycle.connect import Connections, StreamId
from replicator.lifecycle.wait import Limits
from replicator.model import Owner, Stream

address, call, declared, owner = sys.argv[1:]
stream, at = Stream.model_validate_json(declared), StreamId("memory", "default", "orders")

async def main():
    connections = Connections(parse_config({"memory": {"address": address}})[0])
    try:
        if call == "create":
            found = await apply.create(connections, stream, owner, Limits(5))
        elif call == "update":
            found = await apply.update(connections, stream, Owner.model_validate_json(owner), Limits(5))
        elif call == "read":
            found = await apply.read(connections, at)
        else:
            found = await apply.delete(
                connections, at, Owner.model_validate_json(owner), protected=False, limits=Limits(5)
            )
    except ReplicatorError as error:
        return {"code": error.code, "message": error.message}
    finally:
        await connections.aclose()
    return found and {"stream": found.stream.wire(), "state": found.status.state}

print(json.dumps(asyncio.run(main())))
"""


# --- an agent of the release before ----------------------------------------------------------------------------------


@pytest.fixture
def old_agent(socket_path: Path) -> Iterator[str]:
    with releases.serving(FIRST, socket_path) as address:
        yield address


@asynccontextmanager
async def connections_to(address: str) -> AsyncIterator[Connections]:
    connections = Connections(config(memory={"address": address}))
    try:
        yield connections
    finally:
        await connections.aclose()


async def test_the_whole_life_of_a_stream_on_an_older_agent(old_agent: str) -> None:
    async with connections_to(old_agent) as connections:
        made = await apply.make_it_so(connections, stream(), apply.new_owner(URN), Limits(5))
        assert made.token is not None
        assert made.token != token_digest(made.token), "that agent makes the token, and tells it in clear"
        changed = await apply.make_it_so(
            connections, stream(mode="cdc"), apply.known_owner(URN, made.token, URN), Limits(5)
        )
        assert (changed.stream.mode, changed.token) == ("cdc", made.token)
        renamed = await apply.make_it_so(
            connections, stream(), apply.known_owner(OTHER_URN, made.token, URN), Limits(5)
        )
        assert renamed.stream.owner == Owner(urn=OTHER_URN, token=made.token)
        assert renamed.token == made.token
        with pytest.raises(OwnedByAnother):
            await apply.make_it_so(connections, stream(), apply.new_owner(URN), Limits(5))
        owner = Owner(urn=OTHER_URN, token=made.token, claim=True)
        assert await apply.delete(connections, ORDERS, owner, protected=False, limits=Limits(5)) is True
        assert await apply.read(connections, ORDERS) is None


async def test_an_older_agent_is_asked_in_its_protocol_from_the_second_call_on(old_agent: str) -> None:
    client = RemoteReplicator("memory", old_agent, start_hint="")
    assert (await client.info()).protocol == 1
    assert await client.list_streams() == []
    await client.aclose()


async def test_an_older_agent_has_no_log_and_the_error_says_what_to_upgrade(old_agent: str) -> None:
    client = RemoteReplicator("memory", old_agent, start_hint="")
    with pytest.raises(AgentVersion, match="has no operation POST /v1/memory/streams/orders/log") as caught:
        await client.log("orders")
    assert caught.value.fix == "install the same version of replicator-provider on both sides"
    await client.aclose()


# --- a client of the release before ----------------------------------------------------------------------------------


@pytest.fixture
async def served(socket_path: Path) -> AsyncIterator[MemoryReplicator]:
    memory = MemoryReplicator()
    async with serving(build_app({"memory": memory}), socket_path):
        yield memory


async def old_client(socket: Path, call: str, owner: Owner | str = "", **changes: Any) -> Any:
    told = owner if isinstance(owner, str) else json.dumps(owner.wire())
    declared = json.dumps(stream(**changes).wire())
    printed = await asyncio.to_thread(releases.run, FIRST, OLD_CLIENT, f"unix://{socket}", call, declared, told)
    return json.loads(printed)


async def test_the_whole_life_of_a_stream_with_an_older_client(served: MemoryReplicator, socket_path: Path) -> None:
    made = await old_client(socket_path, "create", URN, deletionProtection=True)
    token = made["stream"]["owner"]["token"]
    assert token == token_digest(token), "it keeps the digest, which proves ownership as after an import"
    read = await old_client(socket_path, "read")
    assert read["stream"]["deletionProtection"] is True, "else its refresh would take the protection out of the state"
    owner = Owner(urn=URN, token=token)
    changed = await old_client(socket_path, "update", owner, mode="cdc")
    assert changed["stream"]["mode"] == "cdc"
    assert (await old_client(socket_path, "update", Owner(urn=OTHER_URN), mode="cdc"))["code"] == "RPL-OWNER-OTHER"
    async with connected(socket_path, "memory") as upgraded:  # the same state with this release
        await upgraded.upsert_stream(stream().model_copy(update={"owner": apply.known_owner(URN, token, URN)}))
    (record,) = await served.list_streams()
    assert record.owner is not None
    assert record.owner.token != token, "a state that held a digest has a token of its own from its first update on"
    assert await old_client(socket_path, "delete", owner) is None
    assert await served.list_streams() == [record], "and the state of before is stale"


async def test_an_older_client_does_not_take_an_unreadable_record_for_gone(
    served: MemoryReplicator, socket_path: Path
) -> None:
    await served.upsert_stream(stream(name="bills", destination={"kind": "s3", "uri": "s3://bucket/bills"}))
    readable = served.describe

    async def described(names: Sequence[str] | None = None) -> list[Description]:
        lost = Description.unreadable("orders", RecordUnreadable("its record cannot be read", fix="restore it"))
        return [*await readable(names), *([lost] if names is None or "orders" in names else [])]

    served.describe = described  # type: ignore[method-assign]
    refused = await old_client(socket_path, "read")
    assert "its record cannot be read" in refused["message"]
    async with connected(socket_path, "memory") as client:
        found = {item.name: item for item in await client.describe()}
        assert found["orders"].declaration is None
        assert found["orders"].findings[0].code == RecordUnreadable.code
        assert found["bills"].stream.name == "bills"
