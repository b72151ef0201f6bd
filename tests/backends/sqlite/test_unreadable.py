"""A record that cannot be read: its stream is refused by name, and every other one goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from replicator.backends.sqlite.driver import SqliteDriver
from replicator.errors import DestinationInUse, InvalidStream, RecordUnreadable
from replicator.model import Checkpoint, Owner, StreamState

from tests.backends.sqlite.agents import URN, Agent, caught_up, declare
from tests.engines import add_rows, make_database

pytestmark = pytest.mark.engine

START = Checkpoint(lsn="0000000000000001")
CALLS: dict[str, Callable[[SqliteDriver], Awaitable[object]]] = {
    "delete": lambda driver: driver.delete_stream("orders"),
    "delete by its owner": lambda driver: driver.delete_stream("orders", owner=Owner(urn=URN)),
    "pause": lambda driver: driver.pause("orders"),
    "resume": lambda driver: driver.resume("orders"),
    "plan": lambda driver: driver.plan_replay("orders", START),
    "replay": lambda driver: driver.replay("orders", START, key="k"),
    "progress": lambda driver: driver.get_replay("orders", "k"),
}


async def test_one_damaged_record_fails_one_stream(agent: Agent, tmp_path: Path) -> None:
    shop, users = (make_database(tmp_path / f"{name}.db", rows=3) for name in ("shop", "users"))
    orders = declare("orders", shop, f"file://{tmp_path}/replicas/orders")
    await agent.driver.upsert_stream(orders)
    await agent.driver.upsert_stream(declare("users", users, f"file://{tmp_path}/replicas/users"))
    await agent.stop()
    path = agent.folder / "registry" / "streams" / "orders.json"
    damaged = path.read_text().replace('"active"', '"resting"')
    path.write_text(damaged)

    driver = await agent.start()
    add_rows(users, 2)
    await caught_up(driver, "users")
    assert [stream.name for stream in await driver.list_streams()] == ["users"]
    assert agent.store.unreadable == {"orders": f"{path} cannot be read: these fields are wrong: phase"}
    (described,) = await driver.describe(["orders"])
    assert (described.declaration, described.status.state) == (None, StreamState.FAILED)
    assert described.findings[0].code == RecordUnreadable.code
    assert await driver.get_status("orders") == described.status
    assert {item.name for item in await driver.describe()} == {"orders", "users"}

    for name, call in CALLS.items():
        with pytest.raises(RecordUnreadable, match=r"orders\.json cannot be read") as refused:
            await call(driver)
        assert refused.value.stream == "orders", name
    for change in (driver.upsert_stream, driver.adopt_stream):
        with pytest.raises(RecordUnreadable, match="cannot be read"):
            await change(orders)
    (found,) = await driver.preflight(orders)
    assert found.code == RecordUnreadable.code

    other = make_database(tmp_path / "other.db", rows=1)
    with pytest.raises(DestinationInUse, match="'orders' writes to"):
        await driver.upsert_stream(declare("bills", other, f"file://{tmp_path}/replicas/orders/inside"))
    with pytest.raises(InvalidStream, match="'orders' replicates this database already"):
        await driver.upsert_stream(declare("bills", shop, f"file://{tmp_path}/replicas/bills"))
    await driver.upsert_stream(declare("bills", other, f"file://{tmp_path}/replicas/bills"))
    assert path.read_text() == damaged

    await agent.stop()
    path.write_text(damaged.replace('"resting"', '"active"'))
    await caught_up(await agent.start(), "orders")
