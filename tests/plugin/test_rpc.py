"""Calls over a real gRPC connection: how they end, and what the client reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest
from google.protobuf import empty_pb2
from replicator.plugin._proto import pb, provider_pb2_grpc, status_pb2
from replicator.plugin.codec import Secret, decode, encode
from replicator.plugin.pulumi_engine import PulumiDiagnostics
from replicator.plugin.rpc import Calls, Context, abort_init_failed, abort_missing_keys, details, rpc

from tests.waiting import until


class Gone(Exception):
    """An error that the servicer knows."""


class Recorder(PulumiDiagnostics):
    """Keeps debug messages instead of sending them."""

    def __init__(self) -> None:
        super().__init__(None, str)
        self.debugged: list[str] = []

    async def debug(self, message: str, urn: str = "") -> None:
        self.debugged.append(message)


Body: TypeAlias = Callable[[Context], Awaitable[None]]
Client: TypeAlias = "provider_pb2_grpc.ResourceProviderAsyncStub"


class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """Each test gives Create its body."""

    def __init__(self) -> None:
        self.calls = Calls()
        self.engine = Recorder()
        self.started = asyncio.Event()
        self.body: Body = self.succeed

    async def succeed(self, context: Context) -> None:
        return None

    async def idle(self) -> None:
        """Wait until no call is counted: that may be after its answer."""

        async def none() -> bool:
            return len(self.calls) == 0

        await until(none, what="no call is counted", timeout=10)

    @staticmethod
    def redact(text: str) -> str:
        return text.replace("hunter2", "***")

    @staticmethod
    def status_of(error: BaseException) -> tuple[grpc.StatusCode, str] | None:
        return (grpc.StatusCode.NOT_FOUND, f"{error} [RPL-STREAM-NOTFOUND]") if isinstance(error, Gone) else None

    @rpc
    async def Create(self, request: pb.CreateRequest, context: Context) -> pb.CreateResponse:
        """Documented."""
        self.started.set()
        await self.body(context)
        return pb.CreateResponse(id=request.urn)

    @rpc
    async def Cancel(self, request: empty_pb2.Empty, context: Context) -> empty_pb2.Empty:
        await self.calls.cancel_all(grace=0.3)
        return empty_pb2.Empty()


@pytest.fixture
async def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
async def client(servicer: Servicer) -> AsyncIterator[Client]:
    server = grpc.aio.server()
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    limit = [("grpc.max_metadata_size", 4 << 20), ("grpc.absolute_max_metadata_size", 4 << 20)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=limit) as channel:
        yield provider_pb2_grpc.ResourceProviderStub(channel)  # type: ignore[misc]
    await server.stop(0)


async def fault(client: Client) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.Create(pb.CreateRequest(urn="u"), timeout=10)
    return caught.value


def status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    trailing = dict(error.trailing_metadata())
    return status_pb2.Status.FromString(trailing["grpc-status-details-bin"])


# --- how a call ends -------------------------------------------------------------------------------------------------


async def test_a_call_that_goes_well(servicer: Servicer, client: Client) -> None:
    reply = await client.Create(pb.CreateRequest(urn="u"))
    assert reply.id == "u"
    await servicer.idle()
    assert Servicer.Create.__name__ == "Create"
    assert Servicer.Create.__doc__ == "Documented."


async def test_a_known_error_takes_its_status(servicer: Servicer, client: Client) -> None:
    async def body(context: Context) -> None:
        raise Gone("no stream 'a' at hunter2")

    servicer.body = body
    error = await fault(client)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "no stream 'a' at *** [RPL-STREAM-NOTFOUND]"
    assert servicer.engine.debugged == []
    await servicer.idle()


async def test_an_unexpected_error_is_one_line(servicer: Servicer, client: Client) -> None:
    async def body(context: Context) -> None:
        raise KeyError("hunter2\nsecond line")

    servicer.body = body
    error = await fault(client)
    assert error.code() is grpc.StatusCode.INTERNAL
    text = error.details() or ""
    assert text.startswith("Create failed unexpectedly: KeyError: '***")
    assert "\n" not in text
    assert "hunter2" not in text
    (trace,) = servicer.engine.debugged
    assert "Traceback" in trace
    assert "in body" in trace


async def test_an_error_without_text_shows_its_type(servicer: Servicer, client: Client) -> None:
    async def body(context: Context) -> None:
        raise RuntimeError

    servicer.body = body
    assert "failed unexpectedly: RuntimeError [" in ((await fault(client)).details() or "")


async def test_an_abort_passes_as_it_is(servicer: Servicer, client: Client) -> None:
    async def body(context: Context) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")

    servicer.body = body
    error = await fault(client)
    assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "not here")
    assert servicer.engine.debugged == []


async def test_the_error_of_a_task_group_counts_as_itself(servicer: Servicer, client: Client) -> None:
    async def fail() -> None:
        raise Gone("no stream 'a'")

    async def body(context: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    servicer.body = body
    assert (await fault(client)).code() is grpc.StatusCode.NOT_FOUND


async def test_an_abort_inside_a_task_group_passes(servicer: Servicer, client: Client) -> None:
    async def body(context: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(context.abort(grpc.StatusCode.ABORTED, "from a task"))

    servicer.body = body
    error = await fault(client)
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "from a task")


# --- details ---------------------------------------------------------------------------------------------------------


async def test_details_travel_with_the_status(servicer: Servicer, client: Client) -> None:
    async def body(context: Context) -> None:
        code = grpc.StatusCode.DATA_LOSS
        first, second = pb.ErrorResourceInitFailed(id="1"), pb.ErrorResourceInitFailed(id="2")
        await context.abort(code, "lost", trailing_metadata=details(code, "lost", first, second))

    servicer.body = body
    error = await fault(client)
    found = status(error)
    assert error.code() is grpc.StatusCode.DATA_LOSS
    assert (found.code, found.message) == (15, "lost")
    unpacked = []
    for each in found.details:
        failed = pb.ErrorResourceInitFailed()
        assert each.Unpack(failed)
        unpacked.append(failed.id)
    assert unpacked == ["1", "2"]
    assert found.details[0].type_url == "type.googleapis.com/pulumirpc.ErrorResourceInitFailed"


async def test_init_failure_keeps_the_resource(servicer: Servicer, client: Client) -> None:
    outputs = {"password": Secret("x"), "tables": [{"name": "käufe", "rows": n} for n in range(2000)]}
    reasons = ["slot lost:\n  invalidated", "lag unknown"]

    async def body(context: Context) -> None:
        await abort_init_failed(context, "debezium/default/a", outputs, iter(reasons), {"name": "a"})

    servicer.body = body
    error = await fault(client)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "slot lost:\n  invalidated; lag unknown"
    found = status(error)
    assert (found.code, found.message) == (9, error.details())
    failed = pb.ErrorResourceInitFailed()
    assert found.details[0].Unpack(failed)
    assert failed.id == "debezium/default/a"
    assert decode(failed.properties) == outputs
    assert decode(failed.inputs) == {"name": "a"}
    assert list(failed.reasons) == reasons
    assert failed.refresh_before_update is True


async def test_missing_keys_keep_their_names(servicer: Servicer, client: Client) -> None:
    async def body(context: Context) -> None:
        await abort_missing_keys(context, {"replicator:debezium": "the address of Kafka Connect", "replicator:x": ""})

    servicer.body = body
    error = await fault(client)
    missing = pb.ConfigureErrorMissingKeys()
    assert status(error).details[0].Unpack(missing)
    assert [(key.name, key.description) for key in missing.missingKeys] == [
        ("replicator:debezium", "the address of Kafka Connect"),
        ("replicator:x", ""),
    ]


# --- cancel ----------------------------------------------------------------------------------------------------------


async def start(servicer: Servicer, client: Client) -> Any:
    call = client.Create(pb.CreateRequest(urn="u"), timeout=10)
    async with asyncio.timeout(5):
        await servicer.started.wait()
    return call


async def until_idle(servicer: Servicer) -> None:
    async with asyncio.timeout(5):
        while len(servicer.calls):
            await asyncio.sleep(0.01)


async def test_a_call_that_heeds_cancel_ends_well(servicer: Servicer, client: Client) -> None:
    async def body(context: Context) -> None:
        await servicer.calls.cancel.wait()

    servicer.body = body
    call = await start(servicer, client)
    began = time.monotonic()
    await client.Cancel(empty_pb2.Empty())
    assert (await call).id == "u"
    assert time.monotonic() - began < 0.3


async def test_a_call_that_does_not_is_stopped_after_the_grace(servicer: Servicer, client: Client) -> None:
    cleaned = False

    async def body(context: Context) -> None:
        nonlocal cleaned
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned = True

    servicer.body = body
    call = await start(servicer, client)
    began = time.monotonic()
    await client.Cancel(empty_pb2.Empty())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert caught.value.details() == "Create was cancelled before it was done"
    assert 0.3 <= time.monotonic() - began < 5
    assert cleaned
    await until_idle(servicer)


async def test_a_stopped_call_can_still_report_what_it_made(servicer: Servicer, client: Client) -> None:
    async def body(context: Context) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await abort_init_failed(context, "id-1", {}, ["cancelled"], {})

    servicer.body = body
    call = await start(servicer, client)
    await client.Cancel(empty_pb2.Empty())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    failed = pb.ErrorResourceInitFailed()
    assert status(caught.value).details[0].Unpack(failed)
    assert failed.id == "id-1"


async def test_a_stray_cancellation_is_answered(servicer: Servicer, client: Client) -> None:
    """A task inside that was cancelled by somebody else: without an answer the client would wait for ever."""

    async def body(context: Context) -> None:
        raise asyncio.CancelledError

    servicer.body = body
    assert (await fault(client)).code() is grpc.StatusCode.CANCELLED


async def test_a_client_that_leaves_ends_its_call(servicer: Servicer, client: Client) -> None:
    seen = asyncio.Event()

    async def body(context: Context) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.set()
            raise

    servicer.body = body
    call = await start(servicer, client)
    call.cancel()
    async with asyncio.timeout(5):
        await seen.wait()
    await until_idle(servicer)
    assert not servicer.calls.cancel.is_set()


async def test_cancel_with_nothing_running_is_at_once(client: Client) -> None:
    began = time.monotonic()
    await client.Cancel(empty_pb2.Empty())
    assert time.monotonic() - began < 0.25


async def test_a_reset_gives_new_calls_a_new_event(servicer: Servicer) -> None:
    old = servicer.calls.cancel
    await servicer.calls.cancel_all(0)
    servicer.calls.reset()
    assert old.is_set()
    assert not servicer.calls.cancel.is_set()


async def test_many_calls_overlap(servicer: Servicer, client: Client) -> None:
    together = asyncio.Barrier(64)

    async def body(context: Context) -> None:
        await together.wait()

    servicer.body = body
    replies = await asyncio.gather(*(client.Create(pb.CreateRequest(urn=f"{n}"), timeout=10) for n in range(64)))
    assert [reply.id for reply in replies] == [f"{n}" for n in range(64)]
    await servicer.idle()


async def test_encoded_properties_pass(client: Client) -> None:
    request = pb.CreateRequest(urn="u", properties=encode({"a": Secret(1)}))
    assert (await client.Create(request)).id == "u"
