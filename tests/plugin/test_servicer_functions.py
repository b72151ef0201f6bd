"""The provider's functions: status, plans, and a replay that runs once for its key and never in a preview."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from replicator.capabilities import TABLE
from replicator.errors import AgentUnreachable
from replicator.model import Owner
from replicator.plugin.codec import UNKNOWN, Secret
from replicator.plugin.functions import FUNCTIONS, OWN_PROVIDER
from replicator.replicator import ReplayProgress, ReplayState

from tests.lifecycle.builders import S3, SQLITE, URN, Clock, Watched, stream
from tests.plugin.builders import Provider, failing, serving

ID = "memory/default/orders"
REPLAY = {"stream": ID, "start": {"lsn": "5"}, "idempotencyKey": "k"}


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    clock = Clock()
    async with serving(Watched(clock)) as provider:
        await provider.memory.upsert_stream(stream())
        clock.advance(2)  # 20 events
        yield provider


async def emitted(provider: Provider) -> int | None:
    return (await provider.memory.get_status("orders")).events_replicated


async def test_the_status_is_fresh(provider: Provider) -> None:
    found, failures = await provider.invoke("getStreamStatus", {"stream": Secret(ID)})
    assert failures == {}
    assert (found["name"], found["state"], found["eventsReplicated"]) == ("orders", "running", 20)
    assert found["lastCheckpoint"] == {"lsn": "20", "wall": "2026-01-31T12:00:02.000Z"}
    assert "lastError" not in found


async def test_a_batch_of_statuses_is_one_listing(provider: Provider) -> None:
    provider.memory.listings.clear()
    found = await asyncio.gather(*(provider.invoke("getStreamStatus", {"stream": ID}) for _ in range(64)))
    assert all(result["state"] == "running" for result, _ in found)
    assert len(provider.memory.listings) == 1


async def test_the_status_of_a_stream_that_is_not_there(provider: Provider) -> None:
    error = await failing(provider.invoke("getStreamStatus", {"stream": "memory/default/nope"}))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    told = f"stream 'nope': memory has no such stream [RPL-STREAM-NOTFOUND]\n  → {OWN_PROVIDER}"
    assert error.details() == told


async def test_a_plan(provider: Provider) -> None:
    found, failures = await provider.invoke("planReplay", {"stream": ID, "start": {"lsn": "5"}})
    assert failures == {}
    assert (found["method"], found["events"], found["duplicates"]) == ("log_rewind", 15, True)
    assert found["effects"] == ["15 events are delivered again; the destination keeps one copy of each"]
    assert await emitted(provider) == 20


async def test_a_replay_in_a_preview_only_plans(provider: Provider) -> None:
    found, _ = await provider.invoke("replay", REPLAY, preview=True)
    assert (found["state"], found["key"], found["events"]) == ("planned", "k", 15)
    assert await emitted(provider) == 20


async def test_a_replay_runs_once_for_its_key(provider: Provider) -> None:
    found = await asyncio.gather(*(provider.invoke("replay", REPLAY) for _ in range(8)))
    assert [result["state"] for result, _ in found] == ["done"] * 8
    assert await emitted(provider) == 35
    await provider.invoke("replay", {**REPLAY, "idempotencyKey": "l"})
    assert await emitted(provider) == 50


async def test_a_plan_and_a_run_have_the_same_shape(provider: Provider) -> None:
    planned, _ = await provider.invoke("replay", REPLAY, preview=True)
    done, _ = await provider.invoke("replay", REPLAY)
    assert {key: done[key] for key in ("stream", "key", "method", "start", "resolved", "events")} == {
        key: planned[key] for key in ("stream", "key", "method", "start", "resolved", "events")
    }


async def test_a_key_belongs_to_one_replay(provider: Provider) -> None:
    await provider.invoke("replay", REPLAY)
    error = await failing(provider.invoke("replay", {**REPLAY, "start": {"lsn": "6"}}))
    assert "RPL-REPLAY-KEY" in (error.details() or "")
    assert await emitted(provider) == 35


@pytest.mark.parametrize("preview", [True, False])
async def test_an_engine_that_does_not_tell_previews_apart_gets_no_replay(provider: Provider, preview: bool) -> None:
    await provider.handshake(invoke_with_preview=False)
    error = await failing(provider.invoke("replay", REPLAY, preview=preview))
    assert "replay cannot tell a preview from an update with this Pulumi" in (error.details() or "")
    assert await emitted(provider) == 20
    plan, _ = await provider.invoke("planReplay", {"stream": ID, "start": {"lsn": "5"}})
    assert plan["events"] == 15


async def test_a_replay_that_runs_on_is_waited_for_and_a_cancel_ends_the_wait(provider: Provider) -> None:
    real = provider.memory.replay

    async def running(*args: Any, **given: Any) -> ReplayProgress:
        return (await real(*args, **given)).model_copy(update={"state": ReplayState.RUNNING})

    provider.memory.replay = running  # type: ignore[method-assign]
    found, _ = await provider.invoke("replay", REPLAY)
    assert found["state"] == "done"

    async def never(name: str, key: str) -> ReplayProgress:
        return await running(name, started.start, key=key)

    started = await running("orders", (await provider.memory.get_replay("orders", "k")).start, key="k")
    provider.memory.get_replay = never  # type: ignore[method-assign]
    call = asyncio.create_task(failing(provider.invoke("replay", REPLAY)))
    async with asyncio.timeout(5):
        while not len(provider.servicer.calls):
            await asyncio.sleep(0.005)
    await provider.cancel()
    error = await call
    assert error.code() is grpc.StatusCode.CANCELLED
    assert "cancelled while waiting for the replay; the engine continues [RPL-WAIT-CANCELLED]" in (
        error.details() or ""
    )


@pytest.mark.parametrize(
    ("name", "args", "failing_at"),
    [
        ("getStreamStatus", {}, {"stream": "is required"}),
        ("getStreamStatus", {"stream": 5}, {"stream": "must be a string"}),
        ("getStreamStatus", {"stream": ID, "streem": 1}, {"streem": "is not known here; did you mean stream?"}),
        ("planReplay", {"stream": ID}, {"start": "is required"}),
        ("planReplay", {"stream": ID, "start": {}}, {"start": "needs lsn or wall"}),
        ("planReplay", {"stream": ID, "start": {"wall": "today"}}, {"start.wall": "needs a date, a time"}),
        ("planReplay", {"stream": ID, "start": {"lsn": "1"}, "method": "x"}, {"method": "must be one of"}),
        ("replay", {"stream": ID, "start": {"lsn": "1"}}, {"idempotencyKey": "is required"}),
        ("replay", {**REPLAY, "idempotency_key": "x"}, {"idempotency_key": "did you mean idempotencyKey?"}),
        ("replay", {**REPLAY, "idempotencyKey": ""}, {"idempotencyKey": "must not be empty"}),
    ],
)
async def test_arguments_that_are_wrong(
    provider: Provider, name: str, args: dict[str, Any], failing_at: dict[str, str]
) -> None:
    found, failures = await provider.invoke(name, args)
    assert found == {}
    assert failures.keys() == failing_at.keys()
    for path, says in failing_at.items():
        assert says in failures[path]
    assert await emitted(provider) == 20


@pytest.mark.parametrize(
    ("name", "args", "code", "says"),
    [
        ("nope", {}, grpc.StatusCode.NOT_FOUND, "replicator:index:nope is not a function of this provider"),
        ("replay", {**REPLAY, "start": {"lsn": UNKNOWN}}, grpc.StatusCode.INVALID_ARGUMENT, "not known yet: start.lsn"),
        ("getStreamStatus", {"stream": "orders"}, grpc.StatusCode.INVALID_ARGUMENT, "is not the id of a stream"),
        ("planReplay", {**REPLAY, "start": {"lsn": "99"}} | {"idempotencyKey": ...}, None, "kept is 0 to 20"),
        ("planReplay", {"stream": ID, "start": {"lsn": "1"}, "method": "copy"}, None, "use log_rewind"),
    ],
)
async def test_calls_that_cannot_be(
    provider: Provider, name: str, args: dict[str, Any], code: grpc.StatusCode | None, says: str
) -> None:
    error = await failing(provider.invoke(name, {key: value for key, value in args.items() if value is not ...}))
    assert code in (None, error.code())
    assert says in (error.details() or "")


def test_functions_have_tokens_of_this_package() -> None:
    assert {token.rpartition(":")[0] for token in FUNCTIONS} == {"replicator:index"}


async def test_statuses_of_several_streams_are_one_listing(provider: Provider) -> None:
    provider.memory.listings.clear()
    ids = [ID, "memory/default/nope", ID, "orders"]
    found, failures = await provider.invoke("getStreamStatuses", {"streams": ids})
    assert failures == {}
    assert {id: status["state"] for id, status in found["statuses"].items()} == {ID: "running"}
    assert [(item["stream"], item["code"]) for item in found["failures"]] == [
        ("memory/default/nope", "RPL-STREAM-NOTFOUND"),
        ("orders", "RPL-STREAM-INVALID"),
    ]
    assert provider.memory.listings == [None, ["nope"]]


async def test_an_engine_that_is_away_hides_no_other() -> None:
    here, away = Watched(Clock()), Watched(Clock())
    away.broken = AgentUnreachable("no agent runs at unix:///eu")
    await here.upsert_stream(stream())
    async with serving(connect=lambda kind, address: away if address == "unix:///eu" else here) as provider:
        await provider.configure(memory={"address": "unix:///us", "regions": {"eu": "unix:///eu"}})
        found, _ = await provider.invoke("getStreamStatuses", {"streams": [ID, "memory/eu/orders"]})
        assert list(found["statuses"]) == [ID]
        assert found["failures"] == [
            {"stream": "memory/eu/orders", "code": "RPL-AGENT-DOWN", "message": "no agent runs at unix:///eu"}
        ]
        error = await failing(provider.invoke("listStreams", {}))
        assert "no agent runs at unix:///eu" in (error.details() or "")
        listed, _ = await provider.invoke("listStreams", {"region": "default"})
        assert [item["id"] for item in listed["streams"]] == [ID]


async def test_all_streams_are_listed_with_what_imports_them(provider: Provider) -> None:
    owner = Owner(urn=URN, token="t")
    await provider.memory.upsert_stream(
        stream(name="bills", destination={**S3, "uri": "s3://bucket/bills"}).model_copy(update={"owner": owner})
    )
    found, failures = await provider.invoke("listStreams", {"backend": "memory"})
    assert failures == {}
    bills, orders = found["streams"]
    assert (bills["id"], bills["owner"], bills["state"]) == ("memory/default/bills", URN, "running")
    assert "owner" not in orders
    assert orders["importEntry"] == {"type": "replicator:index:Stream", "name": "orders", "id": ID}
    assert orders["source"] == SQLITE
    assert (await provider.invoke("listStreams", {"region": "eu-fra"}))[0] == {"streams": [], "failures": []}


async def test_a_listing_of_what_is_not_a_backend(provider: Provider) -> None:
    for name in ("listStreams", "getCapabilities"):
        error = await failing(provider.invoke(name, {"backend": "mysql"}))
        assert "backend: 'mysql' is not in this release [RPL-STREAM-INVALID]" in (error.details() or "")


async def test_capabilities_are_the_table(provider: Provider) -> None:
    found, _ = await provider.invoke("getCapabilities", {})
    assert [row["backend"] for row in found["backends"]] == [row.backend for row in TABLE.values() for _ in row.routes]
    row = next(row for row in found["backends"] if row["backend"] == "litestream")
    assert row["pairs"] == [{"source": "sqlite", "destination": "s3"}]
    cells = {(cell["property"], cell.get("value")): cell for cell in row["capabilities"]}
    assert cells["mode", "cdc"] == {
        "property": "mode",
        "value": "cdc",
        "supported": False,
        "note": "litestream always begins with a snapshot; use snapshot_then_cdc",
    }
    assert cells["waitFor", "caught_up"]["supported"]
    assert not cells["include", None]["supported"]
    verdicts = {change["property"]: change["verdict"] for change in row["changes"]}
    assert verdicts["destination.uri"] == "re-snapshots"
    only, _ = await provider.invoke("getCapabilities", {"backend": "memory"})
    assert [row["backend"] for row in only["backends"]] == ["memory"]
