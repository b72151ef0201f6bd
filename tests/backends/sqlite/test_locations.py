"""Where a stream may neither read nor write, in a preview and in an update."""

from __future__ import annotations

from pathlib import Path

import pytest
from replicator.authref import Redactor
from replicator.backends.sqlite.locations import Identities
from replicator.errors import DestinationInUse, InvalidStream
from replicator.model import Stream

from tests.backends.sqlite.agents import Agent, caught_up, declare
from tests.engines import add_rows, make_database

pytestmark = pytest.mark.engine


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with two databases, which has a link beside it."""
    folder = tmp_path / "data"
    for name in ("shop", "bills"):
        make_database(folder / f"{name}.db", rows=3)
    (tmp_path / "link").symlink_to(folder)
    return folder


async def assert_refused(agent: Agent, stream: Stream, property: str, words: str) -> None:
    """In a preview, and in an update, which leaves nothing."""
    before = await agent.driver.list_streams()
    findings = await agent.driver.preflight(stream)
    assert any(item.property == property and words in item.message for item in findings)
    with pytest.raises(InvalidStream) as refused:
        await agent.driver.upsert_stream(stream)
    assert refused.value.property == property
    assert words in refused.value.message
    assert await agent.driver.list_streams() == before


@pytest.mark.parametrize("below", ["", "/ltx", "/not/yet"])
@pytest.mark.parametrize("way", ["data", "link"])
@pytest.mark.parametrize("whose", ["shop", "bills"])
async def test_the_folder_that_litestream_keeps_is_no_destination(
    agent: Agent, data: Path, whose: str, way: str, below: str
) -> None:
    """Neither that of the own database nor that of another stream's; a delete would take the replica along."""
    await agent.driver.upsert_stream(declare("bills", data / "bills.db", f"file://{data}/replicas/bills"))
    place = f"file://{data.parent}/{way}/.{whose}.db-litestream{below}"
    stream = declare("orders", data / "shop.db", place)
    words = "litestream keeps beside the database of " + repr("orders" if whose == "shop" else "bills")
    await assert_refused(agent, stream, "destination.uri", words)


async def test_a_stream_may_not_move_into_its_own_folder(agent: Agent, data: Path) -> None:
    stream = declare("orders", data / "shop.db", f"file://{data}/replicas/orders", owner=None)
    await agent.driver.upsert_stream(stream)
    moved = declare("orders", data / "shop.db", f"file://{data}/.shop.db-litestream", owner=None)
    await assert_refused(agent, moved, "destination.uri", "litestream keeps beside the database of 'orders'")
    add_rows(data / "shop.db", 2)
    await caught_up(agent.driver, "orders")


async def test_a_database_whose_folder_would_be_a_destination(agent: Agent, data: Path) -> None:
    await agent.driver.upsert_stream(declare("bills", data / "bills.db", f"file://{data}/.shop.db-litestream"))
    stream = declare("orders", data / "shop.db", f"file://{data}/replicas/orders")
    await assert_refused(agent, stream, "source.uri", "is where stream 'bills' writes")


@pytest.mark.parametrize("below", ["", "/registry", "/registry/streams", "/d/replica", "/not/yet"])
async def test_the_agents_own_folder_is_no_destination(agent: Agent, data: Path, below: str) -> None:
    link = data / "state"
    link.symlink_to(agent.folder)
    for place in (agent.folder, link):
        stream = declare("orders", data / "shop.db", f"file://{place}{below}")
        await assert_refused(agent, stream, "destination.uri", "the agent's state folder")


@pytest.mark.parametrize("place", ["replicas", "replicas/deeper/still"])
async def test_a_database_by_a_link_is_refused_with_its_real_path(agent: Agent, data: Path, place: str) -> None:
    """litestream looks for the WAL beside the link, where SQLite has none."""
    link = data / "current.db"
    link.symlink_to("../link/shop.db")
    stream = declare("orders", link, f"file://{data}/{place}")
    await assert_refused(agent, stream, "source.uri", f"{link}: it is a symbolic link")
    (found,) = await agent.driver.preflight(stream)
    assert found.fix == f"write sqlite://{data}/shop.db"
    await agent.driver.upsert_stream(declare("orders", data / "shop.db", f"file://{data}/{place}"))
    with pytest.raises(InvalidStream, match="'orders' replicates this database already"):
        await agent.driver.upsert_stream(declare("bills", link, f"file://{data}/elsewhere"))


@pytest.mark.parametrize("target", ["gone.db", "current.db"])
async def test_a_link_that_leads_nowhere(agent: Agent, data: Path, target: str) -> None:
    (data / "current.db").symlink_to(target)
    (found,) = await agent.driver.preflight(declare("orders", data / "current.db", f"file://{data}/replicas"))
    assert found.code == "RPL-SOURCE-MISSING"


async def test_a_folder_by_a_link_is_replicated(agent: Agent, data: Path) -> None:
    """The WAL is beside the database there, by whatever path."""
    link = data.parent / "link"
    await agent.driver.upsert_stream(declare("orders", link / "shop.db", f"file://{link}/replicas/orders"))
    add_rows(data / "shop.db", 2)
    await caught_up(agent.driver, "orders")


async def test_another_spelling_of_the_destination_is_no_move(agent: Agent, data: Path) -> None:
    """The stream goes on where it was: no other generation, no refusal of its own replica."""
    stream = declare("orders", data / "shop.db", f"file://{data}/replicas/orders", owner=None)
    await agent.driver.upsert_stream(stream)
    before = await caught_up(agent.driver, "orders")
    linked = declare("orders", data / "shop.db", f"file://{data.parent}/link/replicas/orders", owner=None)
    await agent.driver.upsert_stream(linked)
    after = await caught_up(agent.driver, "orders")
    assert before.last_checkpoint and after.last_checkpoint
    assert "/" not in str(after.last_checkpoint.lsn), "it is the first generation"
    with pytest.raises(DestinationInUse):
        await agent.driver.upsert_stream(
            declare("bills", data / "bills.db", f"file://{data}/replicas/orders", owner=None)
        )


async def anywhere(stream: Stream) -> None:
    """Nothing is refused."""


async def test_both_parts_of_a_key_are_kept_out_of_texts() -> None:
    redactor = Redactor()
    environ = {"OWNER_ACCESS_KEY_ID": "AKIA-C4N4RY", "OWNER_SECRET_ACCESS_KEY": "c4n4ry-secret"}
    identities = Identities(redactor, environ, anywhere)
    for _ in range(2):  # an id that is kept out of texts is still an id
        found = await identities.of(declare("orders", Path("/shop.db"), "s3://bucket/p"))
        assert found is not None and found.access_key_id == "AKIA-C4N4RY"
    assert redactor("AKIA-C4N4RY has no right with c4n4ry-secret") == "[redacted] has no right with [redacted]"
