"""Who may go on with the replica of a removed stream: its owner, and only where the replica is as it was left."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from replicator.backends.sqlite.litestream import CommandLine
from replicator.errors import DestinationInUse
from replicator.model import Stream

from tests.backends.sqlite.agents import URN, Agent, caught_up, declare
from tests.backends.sqlite.conftest import BUCKET, TwoOwners
from tests.engines import add_rows, make_database

pytestmark = pytest.mark.engine

OTHER_URN = URN.replace("dev", "prod")


@pytest.fixture(scope="module")
def second(s3: TwoOwners, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoOwners]:
    """Another store, with a bucket of the same name and the same users."""
    server = TwoOwners(tmp_path_factory.mktemp("second"), owner=s3.owner)
    server.start()
    try:
        server.make_bucket(BUCKET)
        yield server
    finally:
        server.kill()


@dataclass(frozen=True)
class Given:
    """An agent, a database, and one prefix in two stores."""

    agent: Agent
    database: Path
    here: str
    there: str

    def stream(self, uri: str, urn: str = URN, name: str = "orders") -> Stream:
        return declare(name, self.database, uri, owner={"urn": urn})

    async def removed(self, uri: str, urn: str = URN) -> str:
        """Replicate to a place and remove the stream; its last transaction."""
        await self.agent.driver.upsert_stream(self.stream(uri, urn))
        add_rows(self.database, 2)
        await caught_up(self.agent.driver, "orders")
        await self.agent.driver.delete_stream("orders")
        return str(self.tombstones()[0][1]["lastTxid"])

    def tombstones(self) -> list[tuple[Path, dict[str, Any]]]:
        folder = self.agent.folder / "registry" / "tombstones"
        return [(path, json.loads(path.read_text())) for path in sorted(folder.iterdir())]

    async def of_version_1(self, **changes: Any) -> None:
        """Rewrite the one tombstone as release 0.1 wrote it, and begin again."""
        await self.agent.stop()
        destination = self.here.partition("?")[0]
        self.rewrite(destination=destination, version=None, **changes)
        await self.agent.start()

    def rewrite(self, **changes: Any) -> None:
        """Change the one tombstone while no agent runs; `None` takes a field away."""
        ((path, found),) = self.tombstones()
        path.unlink()
        written = {key: value for key, value in (found | changes).items() if value is not None}
        digest = hashlib.sha256(written["destination"].encode()).hexdigest()[:32]
        path.with_name(f"{digest}.json").write_text(json.dumps(written))

    async def another_agent_writes(self, command: CommandLine, database: Path, uri: str) -> None:
        await command.replicate_once(database, uri)


@pytest.fixture
def given(agent: Agent, tmp_path: Path, s3: TwoOwners, second: TwoOwners) -> Given:
    prefix = f"tombstones/{uuid.uuid4().hex}"
    database = make_database(tmp_path / "shop.db", rows=5)
    return Given(agent, database, s3.url(BUCKET, prefix), second.url(BUCKET, prefix))


async def test_a_tombstone_names_its_store(given: Given) -> None:
    last = await given.removed(given.here)
    ((_, found),) = given.tombstones()
    endpoint = given.here.partition("endpoint=http://127.0.0.1")[2].partition("&")[0]
    assert found["destination"] == f"{given.here.partition('?')[0]}?endpoint=localhost{endpoint}"
    assert (found["version"], found["lastTxid"]) == (2, last)


async def test_one_prefix_in_two_stores_is_two_places(given: Given) -> None:
    """At the other store nothing is left, so that anybody may begin there; the owner may still come back here."""
    await given.removed(given.here)
    await given.agent.driver.upsert_stream(given.stream(given.there, OTHER_URN))
    await caught_up(given.agent.driver, "orders")
    await given.agent.driver.delete_stream("orders")
    assert len(given.tombstones()) == 2
    await given.agent.driver.upsert_stream(given.stream(given.here))
    await caught_up(given.agent.driver, "orders")
    ((_, left),) = given.tombstones()
    assert left["owner"]["urn"] == OTHER_URN


async def test_two_streams_may_have_one_prefix_in_two_stores(given: Given, tmp_path: Path) -> None:
    await given.agent.driver.upsert_stream(given.stream(given.here))
    bills = make_database(tmp_path / "bills.db", rows=1)
    await given.agent.driver.upsert_stream(declare("bills", bills, given.there))
    await caught_up(given.agent.driver, "orders")
    await caught_up(given.agent.driver, "bills")


async def test_the_live_replica_of_another_agent_at_another_store_is_not_written_over(
    given: Given, command_line: CommandLine, tmp_path: Path
) -> None:
    """A tombstone of release 0.1 may be that of any store: it gives no right to what is somebody else's."""
    await given.removed(given.here)
    other = make_database(tmp_path / "other.db", rows=1)
    await given.another_agent_writes(command_line, other, given.there)
    await given.of_version_1()
    for found in (await given.agent.driver.preflight(given.stream(given.there)))[:1]:
        assert (found.code, found.property) == (DestinationInUse.code, "destination.uri")
    with pytest.raises(DestinationInUse, match="cannot tell whether it is that of the removed stream 'orders'"):
        await given.agent.driver.upsert_stream(given.stream(given.there))
    assert await given.agent.driver.list_streams() == []


async def test_a_tombstone_of_release_01_lets_its_owner_return_where_the_last_transaction_matches(given: Given) -> None:
    await given.removed(given.here)
    await given.of_version_1()
    with pytest.raises(DestinationInUse, match=f"the replica of the removed stream 'orders' of {URN}"):
        await given.agent.driver.upsert_stream(given.stream(given.here, OTHER_URN))
    await given.agent.driver.upsert_stream(given.stream(given.here))
    await caught_up(given.agent.driver, "orders")
    assert given.tombstones() == []


@pytest.mark.parametrize("last", [None, "0000000000000001", "00000000000000ff"])
async def test_a_tombstone_of_release_01_that_does_not_match_gives_no_right(given: Given, last: str | None) -> None:
    await given.removed(given.here)
    await given.of_version_1(lastTxid=last)
    with pytest.raises(DestinationInUse, match="cannot tell"):
        await given.agent.driver.upsert_stream(given.stream(given.here))
    assert len(given.tombstones()) == 1


@pytest.mark.parametrize("last", [None, "0000000000000003"])
async def test_an_empty_place_is_free_whatever_a_tombstone_of_release_01_says(given: Given, last: str | None) -> None:
    """It is that of another store then, and stays."""
    await given.removed(given.here)
    await given.of_version_1(lastTxid=last)
    await given.agent.driver.upsert_stream(given.stream(given.there, OTHER_URN))
    await caught_up(given.agent.driver, "orders")
    assert len(given.tombstones()) == 1


async def test_what_was_written_to_since_is_not_gone_on_with(
    given: Given, command_line: CommandLine, tmp_path: Path
) -> None:
    """Also where the tombstone names the place: another agent has had it meanwhile."""
    last = await given.removed(given.here)
    other = make_database(tmp_path / "other.db", rows=1)
    for _ in range(int(last, 16) + 1):
        add_rows(other, 1)
        await given.another_agent_writes(command_line, other, given.here)
    with pytest.raises(DestinationInUse, match="was written to since stream 'orders' was removed"):
        await given.agent.driver.upsert_stream(given.stream(given.here))


async def test_a_tombstone_by_a_link_that_points_elsewhere_now(given: Given, tmp_path: Path) -> None:
    """Release 0.1 recorded the path as it was written."""
    link = tmp_path / "current"
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    link.symlink_to("one")
    await given.removed(f"file://{link}/shop")
    await given.agent.stop()
    ((_, found),) = given.tombstones()
    assert found["destination"] == f"file://{tmp_path}/one/shop"
    given.rewrite(destination=f"file://{link}/shop", version=None, lastTxid="00000000000000ff")
    await given.agent.start()
    with pytest.raises(DestinationInUse, match="cannot tell"):
        await given.agent.driver.upsert_stream(given.stream(f"file://{link}/shop"))
    link.unlink()
    link.symlink_to("other")
    await given.agent.driver.upsert_stream(given.stream(f"file://{link}/shop"))
    await caught_up(given.agent.driver, "orders")
