"""What a program writes: the resource's arguments and outputs, and the functions; the engine is Pulumi's own mock."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pulumi
import pytest
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks, set_mocks
from pulumi.runtime.settings import SETTINGS, set_root_resource
from replicator import dynamic, model
from replicator.lifecycle import connections, function_types
from replicator.replicator import ReplayProgress

from tests.dynamic import harness
from tests.lifecycle.builders import Clock, Watched, stream

ID = "memory/default/orders"
SOURCE = {"kind": "sqlite", "uri": "sqlite:///srv/orders.db"}


class Engine(Mocks):
    """Makes every resource, with the outputs that a dynamic provider would give it."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Any]] = {}
        self.types: dict[str, str] = {}
        self.trouble: list[str] = []

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.made[args.name], self.types[args.name] = dict(args.inputs), args.typ
        status = {"name": args.name, "state": "running", "lagEvents": 3.0, "lastCheckpoint": {"lsn": "7"}}
        return ID, {**args.inputs, "name": args.name, "status": status, "trouble": self.trouble}

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], None]:
        raise AssertionError("the functions ask the backend, not Pulumi")


@pytest.fixture(autouse=True)
async def _loops() -> AsyncIterator[None]:
    """Pulumi's mock monitor waits in the default executor, on event loops that it leaves open."""
    loops: list[asyncio.AbstractEventLoop] = []

    def begin() -> None:
        loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(loops[-1])

    with ThreadPoolExecutor(4, initializer=begin) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        yield
    for loop in loops:
        loop.close()


def mocked(*, preview: bool) -> Engine:
    engine = Engine()
    SETTINGS.rpc_manager.clear()
    SETTINGS.outputs.clear()
    set_root_resource(None)  # type: ignore[arg-type]
    set_mocks(engine, project="shop", stack="dev", preview=preview)
    return engine


@pytest.fixture
async def engine() -> Engine:
    return mocked(preview=False)


async def value(output: pulumi.Output[Any]) -> Any:
    return await output.future()


# --- the resource ----------------------------------------------------------------------------------------------------


async def test_names_are_pythons_and_the_state_has_its_own(engine: Engine) -> None:
    orders = dynamic.Stream(
        "orders",
        source={**SOURCE, "auth_ref": "env://A_*"},
        destination=model.Endpoint.model_validate({"kind": "s3", "uri": "s3://bucket/orders", "authRef": "env://B_*"}),
        checkpoint_interval="10s",
        desired_state=model.DesiredState.PAUSED,
        start_from=model.Checkpoint(lsn="5"),
        wait_for="running",
        deletion_protection=True,
        include=["a", pulumi.Output.from_input("b")],
        options={"a_b": 1},
    )
    assert await value(orders.id) == ID
    made = engine.made["orders"]
    assert engine.types["orders"] == "pulumi-python:dynamic/replicator:Stream"
    assert {key: made[key] for key in made if key != "__provider"} == {
        "source": {**SOURCE, "authRef": "env://A_*"},
        "destination": {"kind": "s3", "uri": "s3://bucket/orders", "authRef": "env://B_*"},
        "checkpointInterval": "10s",
        "desiredState": "paused",
        "startFrom": {"lsn": "5"},
        "waitFor": "running",
        "deletionProtection": True,
        "include": ["a", "b"],
        "options": {"a_b": 1},
        "__urn": "urn:pulumi:dev::shop::pulumi-python:dynamic/replicator:Stream::orders",
    }


async def test_an_output_may_stand_anywhere(engine: Engine) -> None:
    bucket = pulumi.Output.from_input("bucket")
    dynamic.Stream(
        "orders",
        source=pulumi.Output.from_input({**SOURCE, "auth_ref": "env://A_*"}),
        destination={"kind": "s3", "uri": pulumi.Output.concat("s3://", bucket, "/x"), "auth_ref": bucket},
        mode=pulumi.Output.from_input("cdc"),
    )
    await pulumi.runtime.stack.wait_for_rpcs()
    made = engine.made["orders"]
    assert made["source"] == {**SOURCE, "authRef": "env://A_*"}
    assert made["destination"] == {"kind": "s3", "uri": "s3://bucket/x", "authRef": "bucket"}
    assert made["mode"] == "cdc"


async def test_the_urn_names_the_parents_and_waits_for_none(engine: Engine) -> None:
    class Group(pulumi.ComponentResource):
        def __init__(self) -> None:
            super().__init__("shop:index:Group", "group")
            options = pulumi.ResourceOptions(parent=self, custom_timeouts=pulumi.CustomTimeouts(create="5m"))
            self.orders = dynamic.Stream("orders", options, source=SOURCE, destination=SOURCE)
            self.register_outputs({})

    group = Group()
    async with asyncio.timeout(30):  # a URN that depended on the group would wait for the group's children, for itself
        assert await value(group.orders.id) == ID
    made = engine.made["orders"]
    assert made["__urn"].endswith("shop:index:Group$pulumi-python:dynamic/replicator:Stream::orders")
    assert made["__timeouts"] == {"create": "5m"}


async def test_outputs_have_pythons_names(engine: Engine) -> None:
    orders = dynamic.Stream("orders", source=SOURCE, destination=SOURCE, desired_state="paused")
    assert await value(orders.desired_state) == "paused"
    status = await value(orders.status)
    assert (status.state, status.lag_events, status.last_checkpoint.lsn) == ("running", 3, "7")
    assert status.lag_seconds is None
    assert await value(orders.status.last_checkpoint.lsn) == "7"


async def test_trouble_ends_the_program(engine: Engine) -> None:
    engine.trouble = ["the stream failed: no space"]
    dynamic.Stream("orders", source=SOURCE, destination=SOURCE)
    with pytest.raises(pulumi.RunError, match=r"^orders is created, and unhealthy: the stream failed: no space$"):
        await pulumi.runtime.stack.wait_for_rpcs()


def properties(cls: type) -> dict[str, str]:
    """The properties of an output type or a resource: from their names in Python to those in the state."""
    found = vars(pulumi._types)["_py_properties"](cls)
    return {python: name for python, name, _ in found}


def names(of: type[model.Model]) -> dict[str, str]:
    return {name: field.alias or name for name, field in of.model_fields.items()}


def test_the_arguments_are_those_of_the_model() -> None:
    wanted = [name for name in model.Stream.model_fields if name != "owner"]
    given = inspect.signature(dynamic.Stream.__init__).parameters
    assert sorted(given.keys() - {"self", "resource_name", "opts"}) == sorted(wanted)
    required = {name for name, field in model.Stream.model_fields.items() if field.is_required()}
    assert {name for name, item in given.items() if item.default is inspect.Parameter.empty} == {
        "self",
        "resource_name",
        *(required - {"name"}),
    }
    assert inspect.get_annotations(dynamic.Stream).keys() == {
        *wanted,
        "status",
        "engine_objects",
        "owner_token",
        "owner_urn",
        "trouble",
    }


@pytest.mark.parametrize(
    ("output", "of"),
    [
        (dynamic.Checkpoint, model.Checkpoint),
        (dynamic.StreamStatus, model.StreamStatus),
        (dynamic.ReplayResult, function_types.ReplayResult),
    ],
)
def test_the_output_types_have_the_fields_of_the_models(output: type, of: type[model.Model]) -> None:
    assert properties(output) == names(of)


# --- the functions ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def memory(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    clock = Clock()
    memory = Watched(clock)
    await memory.upsert_stream(stream())
    clock.advance(2)  # 20 events
    monkeypatch.setattr(connections, "open_replicator", lambda kind, address, settings: memory)
    raw = json.dumps({"address": f"unix:///mem/{next(harness._addresses)}"})
    pulumi.runtime.set_all_config({"replicator:memory": raw})
    yield memory
    pulumi.runtime.set_all_config({})


async def emitted(memory: Watched) -> int | None:
    return (await memory.get_status("orders")).events_replicated


@pytest.mark.parametrize("preview", [True, False])
async def test_the_status_is_fresh(preview: bool, memory: Watched) -> None:
    mocked(preview=preview)
    found = await value(dynamic.get_stream_status(pulumi.Output.from_input(ID)))
    assert (found.name, found.state, found.events_replicated) == ("orders", "running", 20)
    assert (found.last_checkpoint.lsn, found.last_checkpoint.wall) == ("20", "2026-01-31T12:00:02.000Z")
    assert found.last_error is None


async def test_a_batch_is_one_listing(memory: Watched, engine: Engine) -> None:
    found = await asyncio.gather(*(value(dynamic.get_stream_status(ID)) for _ in range(32)))
    assert {status.state for status in found} == {"running"}
    assert memory.listings == [None]


async def test_a_preview_only_plans(memory: Watched) -> None:
    mocked(preview=True)
    plan = await value(dynamic.replay(ID, start={"lsn": "5"}, idempotency_key="k"))
    assert (plan.state, plan.method, plan.events, plan.key) == ("planned", "log_rewind", 15, "k")
    assert plan.effects == ["15 events are delivered again; the destination keeps one copy of each"]
    assert await emitted(memory) == 20


async def test_a_replay_runs_once_for_its_key(memory: Watched, engine: Engine) -> None:
    runs = [
        await value(dynamic.replay(ID, start=start, idempotency_key="k", method="auto"))
        for start in ({"lsn": "5"}, model.Checkpoint(lsn="5"))
    ]
    assert runs[0] == runs[1]
    assert (runs[0].state, runs[0].resolved.lsn, runs[0].effects) == ("done", "5", None)
    assert await emitted(memory) == 35
    assert isinstance(await memory.get_replay("orders", "k"), ReplayProgress)


async def test_what_is_unknown_is_not_asked_for(memory: Watched) -> None:
    mocked(preview=True)
    unknown = pulumi.Output(set(), _resolved(None), _resolved(False))
    for output in (
        dynamic.get_stream_status(unknown),
        dynamic.replay(unknown, start={"lsn": "5"}, idempotency_key="k"),
    ):
        assert not await output.is_known()
    assert memory.listings == []


def _resolved(found: Any) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(found)
    return future


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: dynamic.get_stream_status("orders"), "get_stream_status: 'orders' is not the id of a stream"),
        (
            lambda: dynamic.get_stream_status("memory/default/nope"),
            "get_stream_status: stream 'nope': memory has no such stream [RPL-STREAM-NOTFOUND]",
        ),
        (
            lambda: dynamic.replay(ID, start={}, idempotency_key=""),
            "replay: start: needs lsn or wall [RPL-STREAM-INVALID]; idempotencyKey: must not be empty",
        ),
        (
            lambda: dynamic.replay(ID, start={"lsn": "99"}, idempotency_key="k"),
            "kept is 0 to 20 [RPL-REPLAY-RETENTION]",
        ),
        (lambda: dynamic.replay(ID, start={"lsn": "1"}, idempotency_key="k", method="copy"), "[RPL-CAP-UNSUPPORTED]"),
    ],
)
async def test_a_call_that_cannot_be_ends_the_program(call: Any, says: str, memory: Watched, engine: Engine) -> None:
    with pytest.raises(pulumi.RunError) as raised:
        await value(call())
    assert says in str(raised.value)
    assert await emitted(memory) == 20


async def test_a_wrong_configuration_ends_the_program(memory: Watched, engine: Engine) -> None:
    pulumi.runtime.set_all_config({"replicator:preflight": "sometimes"})
    with pytest.raises(pulumi.RunError, match="replicator:preflight: must be one of"):
        await value(dynamic.get_stream_status(ID))
