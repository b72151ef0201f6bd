"""A new backend is one module, one line of the registry and one row of the table; all the rest follows from them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from replicator.backends import REGISTRY
from replicator.capabilities import TABLE
from replicator.lifecycle.connections import open_replicator
from replicator.plugin.schema import build_schema

from tests.backends.toy.driver import BACK, LINE, OUT, ROW
from tests.lifecycle.builders import URN
from tests.plugin.builders import Provider, serving
from tools import docs

ROWS = {"kind": "postgres", "uri": "postgres://db.example/orders", "region": "eu"}
MESSAGES = {"kind": "nats", "uri": "nats://bus.example/orders", "region": "us"}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy, in the registry and in the table."""
    monkeypatch.setitem(REGISTRY, LINE.kind, LINE)
    monkeypatch.setattr("tests.backends.toy.driver._OPEN", {})
    monkeypatch.setitem(TABLE, ROW.backend, ROW)


@pytest_asyncio.fixture
async def provider(toy: None) -> AsyncIterator[Provider]:
    async with serving(connect=lambda kind, address: open_replicator(kind, address, LINE.settings())) as served:
        await served.handshake()
        await served.configure(toy={"address": "toy://here"})
        yield served


def inputs(**changes: Any) -> dict[str, Any]:
    return {"name": "orders", "source": ROWS, "destination": MESSAGES, "mode": "snapshot", **changes}


async def test_it_is_checked_previewed_created_paused_and_removed(provider: Provider) -> None:
    given, failures = await provider.check(inputs())
    assert (failures, given["backend"]) == ([], "toy")
    id, planned = await provider.create(given, preview=True)
    id, state = await provider.create(given)
    assert (id, state["status"]["state"]) == ("toy/eu/orders", "paused")  # a snapshot has an end
    assert planned["backend"] == "toy"

    paused = {**given, "desiredState": "paused"}
    await provider.update(id, given, state, paused, preview=True)
    assert any(OUT.pause_cost in text for _, text, _ in provider.engine.logs)
    moved = await provider.diff(given, {**given, "source": {**ROWS, "region": "asia"}}, state=state)
    assert list(moved.replaces) == ["source"]
    id, _, read = await provider.read(id, given, state)
    assert read["status"]["state"] == "paused"
    await provider.delete(id, state, URN)


async def test_each_route_has_its_own_cells_and_its_own_end(provider: Provider) -> None:
    _, failures = await provider.check(inputs(mode="cdc"))
    assert failures == ["mode: a toy copies no changes; use snapshot [RPL-CAP-UNSUPPORTED]"]
    back = inputs(source=MESSAGES, destination=ROWS, mode="cdc")
    given, failures = await provider.check(back)
    assert failures == []
    id, state = await provider.create(given)
    assert id == "toy/eu/orders", "the end that manages it is the other one"
    moved = await provider.diff(given, {**given, "destination": {**ROWS, "region": "asia"}}, state=state)
    assert list(moved.replaces) == ["destination"]
    _, failures = await provider.check(inputs(destination=ROWS, backend="toy"))
    (failure,) = failures
    assert failure.startswith(
        "backend: toy does not move postgres to postgres; it moves nats → postgres, postgres → nats"
    )


async def test_the_capabilities_have_an_entry_for_each_route(provider: Provider) -> None:
    found, _ = await provider.invoke("getCapabilities", {"backend": "toy"})
    assert [(entry["lagUnit"], entry["removal"]) for entry in found["backends"]] == [
        (route.lag_unit, route.removal) for route in (OUT, BACK)
    ]


@pytest.mark.usefixtures("toy")
def test_pages_and_schema_have_it() -> None:
    page = docs.capabilities_page()
    assert "## toy: postgres → nats" in page and "## toy: nats → postgres" in page
    assert "| toy | nats → postgres |" in docs.short_table()
    schema = build_schema()
    known = {entry["value"]: entry["description"] for entry in schema["types"]["replicator:index:Backend"]["enum"]}
    assert known["toy"] == "Moves nats to postgres, postgres to nats."
    assert "toy" in schema["provider"]["inputProperties"]
