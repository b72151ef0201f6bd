"""Read: refresh, import, drift, and that secrets stay wrapped through every call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from replicator.errors import AgentUnreachable, RecordUnreadable
from replicator.model import Owner
from replicator.plugin._proto import pb
from replicator.plugin.codec import Secret
from replicator.replicator import Description

from tests.lifecycle.builders import OTHER_URN, S3, SQLITE, URN, stream
from tests.plugin.builders import CONFIG, Provider, failing, init_failure, memory_inputs, plain, serving

ID = "memory/default/orders"
WALL = "2026-01-31T13:00:00+01:00"


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with serving() as provider:
        yield provider


async def up(provider: Provider, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    given = await provider.checked(**changes)
    _, outputs = await provider.create(given)
    return given, outputs


# --- refresh ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"checkpointInterval": "60s"},
        {"checkpointInterval": "1m"},
        {"startFrom": "latest"},
        {"startFrom": {"lsn": "0"}},
        {"startFrom": {"wall": WALL}},
        {"options": {"fail": ""}},
        {"include": ["b", "a", "b"], "exclude": ["z", "c"]},
        {"include": [], "options": {}, "deletionProtection": False, "desiredState": "running"},
        {"mode": "snapshot"},
        {"mode": "cdc", "conflict": "last_writer_wins", "filter": "a > 1", "waitFor": "caught_up"},
        {"desiredState": "paused", "purgeDestination": True},
        {"source": {**SQLITE, "region": "us-east", "authRef": "env://A_*", "adminAuthRef": "file:///run/b"}},
        {"destination": {**S3, "region": "eu-fra", "authRef": Secret("env://S3_*")}},
        {"destination": Secret({**S3, "uri": "s3://bucket/orders/"})},
    ],
)
async def test_a_refresh_right_after_a_create_finds_no_change(provider: Provider, changes: dict[str, Any]) -> None:
    """The engine compares by asking for the difference the other way round: from what was read to what is declared."""
    given, made = await up(provider, **changes)
    id = f"memory/{plain(given)['source'].get('region', 'default')}/orders"
    found, inputs, outputs = await provider.read(id, given, made)
    assert found == id
    assert inputs == given
    assert outputs == made
    for old, new in ((inputs, given), (given, inputs)):
        answer = await provider.diff(old, new)
        assert answer.changes == pb.DiffResponse.DIFF_NONE, list(answer.diffs)


@pytest.mark.parametrize(
    ("declared", "live", "path"),
    [
        ({}, {"mode": "cdc"}, "mode"),
        ({"mode": "cdc"}, {}, "mode"),
        ({}, {"checkpointInterval": "5s"}, "checkpointInterval"),
        ({"checkpointInterval": "60s"}, {}, "checkpointInterval"),
        ({}, {"destination": {**S3, "authRef": "env://NEW_*"}}, "destination.authRef"),
        ({}, {"source": {**SQLITE, "uri": "sqlite:///srv/new.db"}}, "source.uri"),
        ({"include": ["a"]}, {"include": ["b"]}, "include[0]"),
        ({}, {"desiredState": "paused"}, "desiredState"),
        ({"desiredState": "paused"}, {}, "desiredState"),
    ],
)
async def test_what_somebody_else_changed_is_drift(
    provider: Provider, declared: dict[str, Any], live: dict[str, Any], path: str
) -> None:
    given, made = await up(provider, **declared)
    await provider.memory.upsert_stream(stream(**live))
    id, inputs, _ = await provider.read(ID, given, made)
    assert id == ID
    answer = await provider.diff(inputs, given)
    assert list(answer.detailedDiff) == [path]
    assert list(answer.replaces) == []


@pytest.mark.parametrize(
    ("declared", "done", "expected"),
    [({}, "pause", "paused"), ({"desiredState": "paused"}, "resume", None), ({"mode": "snapshot"}, "pause", None)],
)
async def test_a_pause_by_somebody_else(
    provider: Provider, declared: dict[str, Any], done: str, expected: str | None
) -> None:
    given, made = await up(provider, **declared)
    await getattr(provider.memory, done)("orders")
    _, inputs, outputs = await provider.read(ID, given, made)
    assert inputs.get("desiredState") == expected
    changed = await provider.update(ID, inputs, outputs, given)
    assert changed["status"]["state"] == made["status"]["state"]


async def test_a_status_that_changed_is_no_difference(provider: Provider) -> None:
    given, made = await up(provider)
    provider.memory._clock.advance(60)  # type: ignore[attr-defined]
    _, inputs, outputs = await provider.read(ID, given, made)
    assert outputs["status"] != made["status"]
    assert inputs == given


async def test_a_stream_that_failed_meanwhile_is_read_as_unwell(provider: Provider) -> None:
    given, made = await up(provider)
    await provider.memory.upsert_stream(stream(options={"fail": "no space left"}))
    error = await failing(provider.read(ID, given, made))
    id, outputs, inputs, reasons = init_failure(error)
    assert (id, reasons) == (ID, ["the stream failed: no space left"])
    assert outputs["status"]["lastError"] == "no space left"
    assert inputs["options"] == {"fail": "no space left"}


async def test_no_answer_is_not_gone(provider: Provider) -> None:
    given, made = await up(provider)
    provider.memory.broken = AgentUnreachable("nothing listens at unix:///mem", fix="start it")
    error = await failing(provider.read(ID, given, made))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "nothing listens at unix:///mem [RPL-AGENT-DOWN]\n  → start it"


@pytest.mark.parametrize("id", ["orders", "nope/default/orders", "memory/orders"])
async def test_what_is_no_id(provider: Provider, id: str) -> None:
    error = await failing(provider.read(id))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "is not the id of a stream" in (error.details() or "")


# --- import ----------------------------------------------------------------------------------------------------------


async def test_an_import_shows_what_is_not_default(provider: Provider) -> None:
    await provider.memory.upsert_stream(stream(mode="cdc", checkpointInterval="60s", include=["b", "a"]))
    id, inputs, outputs = await provider.read(ID)
    assert id == ID
    assert inputs == memory_inputs(mode="cdc", checkpointInterval="1m", include=["a", "b"])
    assert "ownerUrn" not in outputs
    assert provider.engine.logs == []
    given, failures = await provider.check(inputs, inputs)
    assert (given, failures) == (inputs, [])
    assert (await provider.diff(inputs, given)).changes == pb.DiffResponse.DIFF_NONE
    claimed = await provider.update(ID, inputs, outputs, given)
    assert claimed["ownerToken"]


async def test_an_import_of_what_another_manages_warns(provider: Provider) -> None:
    given, made = await up(provider)
    id, inputs, outputs = await provider.read(ID, urn=OTHER_URN)
    assert (id, inputs) == (ID, memory_inputs())
    (warning,) = provider.engine.warnings
    assert warning.startswith(f"this stream is owned by {URN}; the next update takes ownership")
    assert outputs["ownerUrn"] == URN
    assert outputs["ownerToken"] != made["ownerToken"]
    error = await failing(provider.delete(ID, outputs, urn=OTHER_URN))
    assert "pulumi up first" in (error.details() or "")
    found = await provider.diff(inputs, inputs, OTHER_URN, state=outputs)
    assert list(found.diffs) == ["ownerUrn"]
    await provider.update(ID, inputs, outputs, inputs, urn=OTHER_URN)
    error = await failing(provider.update(ID, given, made, given))
    assert f"it is managed by {OTHER_URN} [RPL-OWNER-OTHER]" in (error.details() or "")


async def test_an_import_under_the_id_of_another_region(provider: Provider) -> None:
    await up(provider)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await provider.read("memory/eu/orders")
    assert "it has the id memory/default/orders, not memory/eu/orders [RPL-STREAM-INVALID]" in str(
        caught.value.details()
    )
    assert (await provider.read(ID))[0] == ID


async def test_an_import_of_what_is_not_there(provider: Provider) -> None:
    assert await provider.read("memory/default/nope") == ("", {}, {})


async def test_a_stream_that_another_made_again_is_not_taken_over(provider: Provider) -> None:
    given, made = await up(provider)
    await provider.memory.delete_stream("orders")
    await provider.memory.upsert_stream(stream().model_copy(update={"owner": Owner(urn=OTHER_URN, issue="t")}))
    id, inputs, outputs = await provider.read(ID, given, made)
    assert id == ID
    assert outputs["ownerToken"] == made["ownerToken"]
    assert provider.engine.warnings == [f"{OTHER_URN} owns this stream now; this resource will not change it"]
    assert "RPL-OWNER-OTHER" in ((await failing(provider.update(ID, inputs, outputs, given))).details() or "")
    await provider.delete(ID, outputs)
    assert [item.name for item in await provider.memory.list_streams()] == ["orders"]


async def test_a_state_from_a_backup_takes_nothing_over_but_by_an_import(provider: Provider) -> None:
    """The state may as well be that of another stack of the same name, or of the original of a replacement."""
    given, made = await up(provider)
    await provider.delete(ID, made)
    await provider.create(given)
    _, _, outputs = await provider.read(ID, given, made)
    assert outputs["ownerToken"] == made["ownerToken"]
    assert provider.engine.warnings == [
        "a newer state of this resource owns this stream now; this resource will not change it"
    ]
    error = await failing(provider.update(ID, given, outputs, {**given, "mode": "cdc"}))
    assert "pulumi state delete" in (error.details() or "")
    await provider.delete(ID, outputs)
    assert [item.name for item in await provider.memory.list_streams()] == ["orders"]
    _, inputs, imported = await provider.read(ID)
    await provider.update(ID, inputs, imported, {**inputs, "mode": "cdc"})


async def test_a_record_that_cannot_be_read_is_a_failed_stream_and_keeps_its_state(provider: Provider) -> None:
    given, made = await up(provider)

    async def unreadable(names: Sequence[str] | None = None) -> list[Description]:
        return [Description.unreadable("orders", RecordUnreadable("its record cannot be read", fix="restore it"))]

    provider.memory.describe = unreadable  # type: ignore[method-assign]
    await provider.configure(**CONFIG)
    id, outputs, inputs, reasons = init_failure(await failing(provider.read(ID, given, made)))
    assert (id, inputs, outputs["ownerToken"]) == (ID, given, made["ownerToken"])
    assert outputs["status"] == {"name": "orders", "state": "failed", "lastError": "its record cannot be read"}
    assert "RPL-RECORD-UNREADABLE" in reasons[0]
    assert "RPL-RECORD-UNREADABLE" in ((await failing(provider.read(ID))).details() or "")


# --- secrets ---------------------------------------------------------------------------------------------------------

REF = Secret("env://S3_*")


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"destination": {**S3, "authRef": REF}}, ("destination", "authRef")),
        ({"destination": Secret({**S3, "authRef": "env://S3_*"})}, ("destination",)),
        ({"source": {**SQLITE, "uri": Secret(SQLITE["uri"])}}, ("source", "uri")),
        ({"filter": Secret("a = 'b'")}, ("filter",)),
        ({"include": ["a", Secret("b")]}, ("include", 1)),
        ({"options": {"fail": Secret("")}}, ("options", "fail")),
        ({"checkpointInterval": Secret("60s")}, ("checkpointInterval",)),
        ({"name": Secret("orders")}, ("name",)),
    ],
)
async def test_a_secret_stays_one_in_every_answer(
    provider: Provider, changes: dict[str, Any], where: tuple[str | int, ...]
) -> None:
    given, made = await up(provider, **changes)
    new = await provider.checked(old=given, **changes, deletionProtection=True)
    preview = await provider.update(ID, given, made, new, preview=True)
    changed = await provider.update(ID, given, made, new)
    _, inputs, outputs = await provider.read(ID, new, changed)
    _, planned = await provider.create(given, preview=True)
    for values in (given, planned, made, new, preview, changed, inputs, outputs):
        value: Any = values
        for step in where:
            value = value[step]
        assert isinstance(value, Secret)
    assert (await provider.diff(inputs, new)).changes == pb.DiffResponse.DIFF_NONE


async def test_a_secret_stays_one_when_its_property_drifted(provider: Provider) -> None:
    given, made = await up(provider, destination={**S3, "authRef": REF})
    await provider.memory.upsert_stream(stream(destination={**S3, "authRef": "env://NEW_*"}))
    _, inputs, outputs = await provider.read(ID, given, made)
    assert inputs["destination"]["authRef"] == outputs["destination"]["authRef"] == Secret("env://NEW_*")


async def test_a_secret_that_only_the_outputs_know_stays_one(provider: Provider) -> None:
    given, made = await up(provider, destination={**S3, "authRef": REF})
    _, inputs, outputs = await provider.read(ID, plain(given), made)
    assert inputs["destination"]["authRef"] == outputs["destination"]["authRef"] == REF
