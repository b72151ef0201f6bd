"""`replicator list` on a live stream."""

from __future__ import annotations

import asyncio
import json

import pytest
from replicator.lifecycle.function_types import ListedStream

from tests.agent.support import Host, call
from tests.engines import make_database

pytestmark = pytest.mark.engine


def test_it_shows_ends_and_owner(host: Host) -> None:
    host.start()
    assert call("list", "--address", host.address) == (0, "there are no streams\n", "")
    assert call("list", "--address", host.address, "--json") == (0, "[]\n", "")
    urns = {"orders": "urn:pulumi:dev::shop::replicator:index:Stream::main", "stray": None}
    for name in urns:
        make_database(host.database(name))

    async def declare() -> None:
        async with host.client() as client:
            for name, urn in urns.items():
                await client.upsert_stream(host.stream(name, owner=urn and {"urn": urn}))

    asyncio.run(declare())
    code, out, err = call("list", "--address", host.address)
    assert (code, err) == (0, "")
    heading, orders, stray = (line.split() for line in out.splitlines())
    assert heading == ["name", "state", "mode", "source", "destination", "owner"]
    ends = [f"sqlite://{host.database()}", f"file://{host.folder}/replicas/orders"]
    assert orders == ["orders", "running", "snapshot_then_cdc", *ends, "shop/dev/main"]
    assert (stray[0], stray[-1]) == ("stray", "-")

    code, out, _ = call("list", "--address", host.address, "--json")
    found = [ListedStream.model_validate(item) for item in json.loads(out)]
    assert code == 0
    assert {item.name: item.owner for item in found} == urns
    assert found[0].id == found[0].import_entry.id == "litestream/default/orders"


def test_without_an_agent_it_says_how_to_start_one(host: Host) -> None:
    code, out, err = call("list", "--address", host.address)
    assert (code, out) == (1, "")
    assert f"→ start it: replicator agent start --socket {host.socket}" in err
