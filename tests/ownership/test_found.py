"""What the model found, each as one sequence."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.lifecycle.builders import stream as as_stream
from tests.ownership import checks
from tests.ownership.cli import Stack
from tests.ownership.engine import Fault
from tests.ownership.machine import declare
from tests.ownership.world import World, opened

ORDERS = declare("orders", "one", "x", False, False)
ID = "memory/default/orders"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with opened() as found:
        yield found
        assert found.ledger.faults == []
        await checks.one_owner(found)


async def declared(world: World, stack: Stack) -> None:
    """A stack with one resource, `a`, that has made its stream."""
    stack.program["a"] = ORDERS
    assert (await world.cli.up(stack, ["a"])).green


async def make_by_hand(world: World) -> None:
    await world.memory.upsert_stream(as_stream(**ORDERS.inputs))


async def up(world: World, stack: Stack, fault: Fault, *, replacing: str | None = None) -> None:
    """Run a program whose first effect ends badly."""
    world.engine.fault, world.engine.after = fault, 0
    assert not (await world.cli.up(stack, list(stack.program), replacing=replacing)).green


@pytest.mark.parametrize("fault", [Fault.KILLED, Fault.LOST, Fault.CUT])
@pytest.mark.parametrize("then", ["up", "refresh and up", "destroy"])
@pytest.mark.parametrize("change", ["rename", "import"])
async def test_an_update_that_takes_ownership_may_end_badly(world: World, change: str, then: str, fault: Fault) -> None:
    """A state that was renamed, or imported, gets a new token, whose record may be written without the state's."""
    stack, other, _ = world.stacks
    await declared(world, stack)
    if change == "rename":
        stack.rename("eu")
    else:
        stack.entries.clear()
        stack, stack.program = other, {}
        assert (await world.cli.import_(stack, "a", ID)).green
        stack.program["a"] = ORDERS
    await up(world, stack, fault)
    if then == "refresh and up":
        assert (await world.cli.refresh(stack)).green
    if then != "destroy":
        assert (await world.cli.up(stack, ["a"])).refusals == []
        checks.after_up(world, stack, await world.cli.up(stack, ["a"]), checks.holding(world, stack))
    outcome = await world.cli.destroy(stack)
    if (change, then, fault) == ("import", "destroy", Fault.CUT):  # it is another resource's still
        assert "RPL-OWNER-OTHER" in outcome.refusals[0]
    else:
        assert outcome.refusals == []
        assert world.memory.records == {}


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.LOST])
async def test_a_create_that_is_refused_and_not_heard_leaves_a_stream_that_no_resource_manages(
    world: World, fault: Fault
) -> None:
    stack = world.stacks[0]
    await make_by_hand(world)
    stack.program["a"] = ORDERS
    await up(world, stack, fault)
    assert stack.entries == []
    assert (await world.cli.destroy(stack)).green
    assert list(world.memory.records) == ["orders"]


async def test_the_original_of_a_replacement_may_be_an_import_of_a_stream_without_an_owner(world: World) -> None:
    stack = world.stacks[0]
    await make_by_hand(world)
    assert (await world.cli.import_(stack, "a", ID)).green
    stack.program["a"] = declare("orders", "one", "x", False, True)
    await up(world, stack, Fault.KILLED)
    outcome = await world.cli.up(stack, ["a"], replacing=stack.urn("a"))
    assert outcome.refusals == []
    assert list(world.memory.records) == ["orders"]
    assert (await world.cli.destroy(stack)).green
    assert world.memory.records == {}


async def test_of_two_states_with_one_urn_that_import_one_stream_one_takes_it(world: World) -> None:
    """The token that an import issues follows from the state, and not only from a record that both have read."""
    maker, first, second = world.stacks[1], world.stacks[0], world.stacks[2]
    await declared(world, maker)
    for stack in (first, second):
        assert (await world.cli.import_(stack, "a", ID)).green
        stack.program["a"] = ORDERS
    assert (await world.cli.up(first, ["a"])).green
    outcome = await world.cli.up(second, ["a"])
    assert "RPL-OWNER-OTHER" in outcome.refusals[0]
    assert (await world.cli.destroy(second)).green
    assert list(world.memory.records) == ["orders"]
