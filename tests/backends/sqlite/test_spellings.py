"""Other spellings of a prefix in a real store: nothing is copied again, and another region is used from then on."""

from __future__ import annotations

from pathlib import Path

import pytest
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine
from replicator.backends.sqlite.replica import S3Credentials, S3Location, parse_replica
from replicator.model import Owner
from replicator.replicator import Severity

from tests.backends.sqlite.agents import URN, Agent, caught_up, declare, replica_url, restored_hash
from tests.engines import add_rows, make_database
from tests.waiting import until

pytestmark = pytest.mark.engine


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make_database(tmp_path / "shop.db", rows=20)


async def snapshots(place: str, credentials: S3Credentials) -> int:
    """How many whole copies are below a prefix."""
    location = parse_replica(place)
    assert isinstance(location, S3Location)
    return (await location.child("0009").list_prefix(credentials)).objects


async def first_objects(place: str, credentials: S3Credentials) -> int:
    """How many objects of other generations are there; a new copy would begin one."""
    location = parse_replica(place)
    return (await location.child("r2").list_prefix(credentials)).objects


async def test_another_spelling_and_another_region_copy_nothing(
    agent: Agent, place: str, database: Path, credentials: S3Credentials, command_line: CommandLine
) -> None:
    assert "region=us-east-1" in place
    bare, _, query = place.partition("?")
    spellings = {
        f"{bare}/?{'&'.join(reversed(query.split('&')))}": True,
        place.replace("&region=us-east-1", ""): True,
        place.replace("us-east-1", "garage"): False,
    }
    owner = Owner(urn=URN, claim=True)
    await agent.driver.upsert_stream(declare("orders", database, place, checkpointInterval="500ms"))
    await caught_up(agent.driver, "orders")

    async def has_its_first_snapshot() -> bool:
        return await snapshots(place, credentials) == 1

    await until(has_its_first_snapshot, what="litestream has made its first snapshot")
    for uri, is_the_same in spellings.items():
        pids = agent.pids
        stream = declare("orders", database, uri, checkpointInterval="500ms", owner=owner.model_dump())
        told = [(finding.severity, finding.code) for finding in await agent.driver.preflight(stream)]
        assert told == ([] if is_the_same else [(Severity.INFO, "RPL-SOURCE-COPIED")])
        await agent.driver.upsert_stream(stream)
        assert (agent.pids == pids) is is_the_same
        add_rows(database, 5)
        await caught_up(agent.driver, "orders")
        assert (await snapshots(place, credentials), await first_objects(place, credentials)) == (1, 0)
        (found,) = await agent.driver.describe(["orders"])
        assert found.stream.destination.uri == uri
    url = await replica_url(agent.driver, "orders")
    assert await restored_hash(command_line, url, agent.folder / "copy.db") == await content_hash(database)
