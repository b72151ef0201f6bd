"""The life of a stream through the provider protocol, from the handshake to the delete."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from replicator import __version__
from replicator.plugin._proto import pb
from replicator.plugin.codec import UNKNOWN

from tests.lifecycle.builders import OTHER_URN, S3, SQLITE, URN, Clock
from tests.plugin.builders import Provider, Untouchable, another, failing, memory_inputs, serving

ID = "memory/default/orders"


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with serving() as provider:
        yield provider


async def up(provider: Provider, urn: str = URN, **changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Check and create: id, inputs and outputs."""
    given = await provider.checked(urn, **changes)
    id, outputs = await provider.create(given, urn=urn)
    return id, given, outputs


# --- the provider ----------------------------------------------------------------------------------------------------


async def test_the_handshake_says_what_we_take(provider: Provider) -> None:
    reply = await provider.handshake()
    assert (reply.accept_secrets, reply.accept_resources, reply.accept_outputs) == (True, True, True)
    info = await provider.stub.GetPluginInfo(empty_pb2.Empty())
    assert info.version == __version__
    configured = await provider.configure()
    assert (configured.acceptSecrets, configured.supportsPreview, configured.acceptOutputs) == (True, True, True)


async def test_the_schema_has_a_version(provider: Provider) -> None:
    schema = json.loads((await provider.stub.GetSchema(pb.GetSchemaRequest())).schema)
    assert schema["version"] == __version__


# --- the life of a stream --------------------------------------------------------------------------------------------


async def test_a_whole_life(provider: Provider) -> None:
    id, given, made = await up(provider, checkpointInterval="60s")
    assert id == ID
    assert made["status"]["state"] == "running"
    assert made["engineObjects"] == {"memoryStream": "orders"}
    assert made["checkpointInterval"] == "60s"
    assert made["mode"] == "snapshot_then_cdc"

    assert await provider.read(id, given, made) == (id, given, made)
    assert (await provider.diff(given, given)).changes == pb.DiffResponse.DIFF_NONE

    new = await provider.checked(old=given, mode="cdc", checkpointInterval="60s")
    found = await provider.diff(given, new)
    assert (list(found.diffs), list(found.replaces), found.deleteBeforeReplace) == (["mode"], [], True)
    assert found.detailedDiff["mode"].kind == pb.PropertyDiff.UPDATE

    changed = await provider.update(id, given, made, new)
    assert changed["mode"] == "cdc"
    assert changed["ownerToken"] == made["ownerToken"]

    await provider.delete(id, changed)
    assert await provider.read(id, new, changed) == ("", {}, {})
    await provider.delete(id, changed)


async def test_name_and_backend_are_filled_in_and_stay(provider: Provider) -> None:
    await provider.configure(litestream={"address": "unix:///a"})
    first, failures = await provider.check(memory_inputs(name=..., backend=...))
    assert failures == []
    assert first["backend"] == "litestream"
    assert first["name"].startswith("shop-dev-orders-")
    await provider.check(memory_inputs(name=..., backend=...), urn=OTHER_URN)  # once a program
    ((severity, text, at),) = provider.engine.logs
    assert (severity, at) == ("INFO", "")
    assert text.startswith("backend: litestream, the only one here that moves ")
    renamed, failures = await provider.check(memory_inputs(name=..., backend=...), old=first, urn=OTHER_URN)
    assert failures == []
    assert renamed == first
    assert len(provider.engine.logs) == 1


@pytest.mark.parametrize(
    ("mode", "proposed", "name"),
    [
        ("PROPOSE", "shop-orders", "shop-orders"),
        ("PROPOSE", "Shop_Orders", "shop-orders"),
        ("PROPOSE", "7eleven", "s-7eleven"),
        ("PROPOSE", "x" * 48, "x" * 48),
        ("PROPOSE", "x" * 49, f"{'x' * 40}-c22af82"),
        ("PROPOSE", "", "shop-dev-orders-c22af82"),
        ("ENFORCE", "shop-orders", "shop-orders"),
    ],
)
async def test_a_name_follows_the_autonaming_of_the_stack(
    provider: Provider, mode: str, proposed: str, name: str
) -> None:
    given = memory_inputs(name=...)
    found, failures = await provider.check(given, autonaming=(mode, proposed))
    assert (found["name"], failures) == (name, [])
    kept, failures = await provider.check({**given, "mode": "cdc"}, found, autonaming=("ENFORCE", "another"))
    assert (kept["name"], failures) == (name, [])
    chosen, failures = await provider.check(memory_inputs(), autonaming=(mode, proposed))
    assert (chosen["name"], failures) == ("orders", [])


@pytest.mark.parametrize(
    ("mode", "proposed", "failure"),
    [
        (
            "ENFORCE",
            "Shop_Orders",
            "name: pulumi:autonaming enforces 'Shop_Orders', and a stream's name must match ^[a-z][a-z0-9-]{0,47}$ "
            "[RPL-STREAM-INVALID]\n  → write name in the program, or change pulumi:autonaming",
        ),
        (
            "DISABLE",
            "",
            "name: is required, because pulumi:autonaming is disabled [RPL-STREAM-INVALID]\n"
            "  → write name in the program",
        ),
    ],
)
async def test_a_name_that_autonaming_does_not_give(provider: Provider, mode: str, proposed: str, failure: str) -> None:
    found, failures = await provider.check(memory_inputs(name=...), autonaming=(mode, proposed))
    assert failures == [failure]
    assert "name" not in found
    state = {**memory_inputs(), "mode": "cdc"}
    kept, failures = await provider.check(memory_inputs(name=...), state, autonaming=(mode, proposed))
    assert (kept["name"], failures) == ("orders", [])


async def test_the_engine_is_told_that_autonaming_is_followed(provider: Provider) -> None:
    assert (await provider.handshake()).supports_autonaming_configuration
    assert (await provider.configure()).supports_autonaming_configuration


async def test_what_is_null_is_left_out(provider: Provider) -> None:
    given = {**memory_inputs(name=None), "mode": None, "filter": None, "purgeDestination": None, "options": None}
    found, failures = await provider.check(given)
    assert failures == []
    assert found.keys() == {"name", "backend", "source", "destination"}
    await provider.create(found)


async def test_failures_name_the_path_inside_the_reason(provider: Provider) -> None:
    given = memory_inputs(source={**SQLITE, "uri": "sqlite:///a?password=hunter2"}, mode="all", whatever=1)
    _, failures = await provider.check(given)
    assert sorted(failure.split(":")[0] for failure in failures) == ["mode", "source.uri", "whatever"]
    assert all("hunter2" not in failure for failure in failures)


async def test_a_replacement_is_told_with_its_property(provider: Provider) -> None:
    old = await provider.checked(purgeDestination=True, deletionProtection=True)
    new = await provider.checked(name="bills")
    for _ in range(2):  # the CLI asks more than once
        found = await provider.diff(old, new)
    assert list(found.replaces) == ["name"]
    assert found.deleteBeforeReplace
    assert found.detailedDiff["name"].kind == pb.PropertyDiff.UPDATE_REPLACE
    assert found.detailedDiff["purgeDestination"].kind == pb.PropertyDiff.UPDATE
    forced, protected = provider.engine.warnings
    assert forced.startswith("name: forces replacement: deletes data: ")
    assert protected.startswith("deletionProtection is on, so the replacement will fail")


async def test_another_region_is_another_agent(provider: Provider) -> None:
    old, new = await provider.checked(), await provider.checked(source={**SQLITE, "region": "us-east"})
    found = await provider.diff(old, new)
    assert list(found.replaces) == ["source"]
    assert found.detailedDiff["source.region"].kind == pb.PropertyDiff.ADD_REPLACE


async def test_a_protected_stream_is_not_removed(provider: Provider) -> None:
    id, _, made = await up(provider, deletionProtection=True)
    error = await failing(provider.delete(id, made))
    assert "deletionProtection is on [RPL-STREAM-PROTECTED]" in (error.details() or "")
    assert [item.name for item in await provider.memory.list_streams()] == ["orders"]


async def test_two_stacks_one_name(provider: Provider) -> None:
    await up(provider)
    given = await provider.checked(OTHER_URN)
    error = await failing(provider.create(given, urn=OTHER_URN))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert f"it is managed by {URN} [RPL-OWNER-OTHER]" in (error.details() or "")


async def test_after_a_lost_reply_the_next_create_adopts_the_stream(provider: Provider) -> None:
    _, given, first = await up(provider)
    id, second = await provider.create(given)
    assert id == ID
    assert second["ownerToken"] != first["ownerToken"]
    await provider.update(ID, given, second, {**given, "mode": "cdc"})
    assert [item.name for item in await provider.memory.list_streams()] == ["orders"]


async def test_the_original_of_an_unasked_replacement_is_removed_without_touching_the_stream(
    provider: Provider,
) -> None:
    """The CLI creates first with --target-replace, and then deletes the original, which has protection."""
    _, given, original = await up(provider, deletionProtection=True, purgeDestination=True)
    _, replacement = await provider.create(given)
    await provider.delete(ID, original)
    assert [item.name for item in await provider.memory.list_streams()] == ["orders"]
    assert provider.memory.delivered
    assert "this delete left the stream as it is" in provider.engine.logs[-1][1]
    error = await failing(provider.delete(ID, replacement))
    assert "RPL-STREAM-PROTECTED" in (error.details() or "")


async def test_a_rename_is_an_update_that_names_the_resource_in_the_record(provider: Provider) -> None:
    _, given, made = await up(provider)
    assert made["ownerUrn"] == URN
    found = await provider.diff(given, given, OTHER_URN, state=made)
    assert (list(found.diffs), list(found.replaces)) == (["ownerUrn"], [])
    assert not found.detailedDiff["ownerUrn"].inputDiff
    planned = await provider.update(ID, given, made, given, urn=OTHER_URN, preview=True)
    assert planned["ownerUrn"] == OTHER_URN
    assert "ownerToken" not in planned
    assert provider.engine.logs[-1][1].startswith(f"ownerUrn: the engine's record names {URN}")
    renamed = await provider.update(ID, given, made, given, urn=OTHER_URN)
    assert renamed["ownerUrn"] == OTHER_URN
    (record,) = await provider.memory.list_streams()
    assert record.owner is not None
    assert record.owner.urn == OTHER_URN
    assert (await provider.diff(given, given, OTHER_URN, state=renamed)).changes == pb.DiffResponse.DIFF_NONE
    error = await failing(provider.create(given))
    assert "RPL-OWNER-OTHER" in (error.details() or "")


async def test_name_and_destination_may_change_together(provider: Provider) -> None:
    _, given, made = await up(provider)
    new = await provider.checked(old=given, name="bills")
    found = await provider.diff(given, new, state=made)
    assert (list(found.replaces), found.deleteBeforeReplace) == (["name"], True)
    await provider.create(new, preview=True)
    await provider.delete(ID, made)
    await provider.create(new)
    assert [item.name for item in await provider.memory.list_streams()] == ["bills"]


async def test_many_calls_at_once(provider: Provider) -> None:
    names = [f"s{number}" for number in range(64)]
    made = await asyncio.gather(*(up(provider, f"{URN}-{name}", **another(name)) for name in names))
    assert [id for id, _, _ in made] == [f"memory/default/{name}" for name in names]
    assert len({outputs["ownerToken"] for _, _, outputs in made}) == 64
    provider.memory.listings.clear()
    found = await asyncio.gather(*(provider.read(id, given, outputs) for id, given, outputs in made))
    assert [id for id, _, _ in found] == [id for id, _, _ in made]
    assert provider.memory.listings == [None]
    assert len(provider.servicer.calls) == 0


# --- previews --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "known", "unknown"),
    [
        ({}, {"mode": "snapshot_then_cdc", "name": "orders"}, {"status", "engineObjects", "ownerToken"}),
        ({"source": {**SQLITE, "uri": UNKNOWN}}, {"source": {**SQLITE, "uri": UNKNOWN}}, {"status", "mode"}),
        ({"name": UNKNOWN, "mode": "cdc"}, {"name": UNKNOWN, "mode": "cdc"}, {"status"}),
        ({"include": ["a", UNKNOWN]}, {"include": ["a", UNKNOWN]}, {"status"}),
    ],
)
async def test_a_preview_of_a_create_touches_nothing(changes: dict[str, Any], known: Any, unknown: set[str]) -> None:
    async with serving(Untouchable(Clock())) as provider:
        given = await provider.checked(**changes)
        id, outputs = await provider.create(given, preview=True)
        assert id == ""
        assert {key: outputs[key] for key in known} == known
        assert not unknown & outputs.keys()


async def test_a_preview_of_an_update_touches_nothing_and_tells_the_consequences() -> None:
    async with serving() as provider:
        id, given, made = await up(provider)
        records = await provider.memory.list_streams()
        new = await provider.checked(
            old=given, mode="cdc", destination={**S3, "uri": "s3://bucket/new"}, desiredState="paused"
        )
        outputs = await provider.update(id, given, made, new, preview=True)
        assert await provider.memory.list_streams() == records
        assert (outputs["mode"], outputs["ownerToken"]) == ("cdc", made["ownerToken"])
        assert "status" not in outputs
        moved, restarted = provider.engine.warnings
        assert moved.startswith("destination.uri: re-snapshots: ")
        assert restarted.startswith("mode: restarts: ")
        infos = [text for severity, text, _ in provider.engine.logs if severity == "INFO"]
        assert infos == ["desiredState: while it is paused, the events of the pause are delivered on resume"]
        assert {urn for _, _, urn in provider.engine.logs} == {URN}


async def test_an_update_without_a_preview_tells_the_consequences(provider: Provider) -> None:
    id, given, made = await up(provider)
    new = await provider.checked(old=given, mode="cdc", destination={**S3, "uri": "s3://bucket/new"})
    await provider.update(id, given, made, new)
    moved, restarted = provider.engine.warnings
    assert moved.startswith("destination.uri: re-snapshots: ")
    assert restarted.startswith("mode: restarts: ")


async def test_harmless_changes_say_nothing(provider: Provider) -> None:
    id, given, made = await up(provider)
    new = await provider.checked(old=given, deletionProtection=True, waitFor="running")
    await provider.update(id, given, made, new, preview=True)
    assert provider.engine.logs == []


async def test_an_update_with_unknown_values_is_planned(provider: Provider) -> None:
    id, given, made = await up(provider, checkpointInterval="60s", include=["b", "a"])
    new = await provider.checked(
        old=given, source={**SQLITE, "uri": UNKNOWN}, checkpointInterval="60s", include=["b", "a"]
    )
    found = await provider.diff(given, new)
    assert list(found.detailedDiff) == ["source.uri"]
    outputs = await provider.update(id, given, made, new, preview=True)
    assert outputs["source"]["uri"] is UNKNOWN
    assert len(provider.engine.warnings) == 1


async def test_a_create_that_would_take_the_stream_of_another_is_refused_in_preview(provider: Provider) -> None:
    await up(provider)
    error = await failing(provider.create(await provider.checked(OTHER_URN), urn=OTHER_URN, preview=True))
    assert f"it is managed by {URN} [RPL-OWNER-OTHER]" in (error.details() or "")


async def test_a_replacement_is_not_refused_in_preview_for_what_it_replaces(provider: Provider) -> None:
    _, given, _ = await up(provider)
    new = await provider.checked(name="bills")
    assert list((await provider.diff(given, new)).replaces) == ["name"]
    await provider.create(new, preview=True)  # by then the old stream, on the same destination, will be gone
