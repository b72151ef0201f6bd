"""A provider on a real gRPC server, its engine's log beside it, and a client that speaks in Python values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc.aio
from google.protobuf import empty_pb2
from replicator.plugin._proto import engine_pb2, engine_pb2_grpc, pb, provider_pb2_grpc, status_pb2
from replicator.plugin.codec import decode, encode
from replicator.plugin.servicer import Servicer
from replicator.property_values import strip

from tests.lifecycle.builders import S3, URN, Clock, Watched, inputs

CONFIG = {"memory": {"address": "unix:///mem"}}
Values = dict[str, Any]


class Engine(engine_pb2_grpc.EngineServicer):
    """Keeps what it is told, as (severity, text, resource)."""

    def __init__(self) -> None:
        self.logs: list[tuple[str, str, str]] = []
        self.address = ""

    async def Log(self, request: Any, context: Any) -> empty_pb2.Empty:
        if not request.ephemeral:
            self.logs.append((engine_pb2.LogSeverity.Name(request.severity), request.message, request.urn))
        return empty_pb2.Empty()

    @property
    def warnings(self) -> list[str]:
        return [text for severity, text, _ in self.logs if severity == "WARNING"]


class Untouchable(Watched):
    """A replicator on which an effect is a fault."""

    async def upsert_stream(self, *_: Any, **__: Any) -> NoReturn:
        raise AssertionError("an effect")

    delete_stream = pause = resume = replay = upsert_stream


class Provider:
    """The calls of the engine, with Python values for properties."""

    def __init__(self, stub: Any, servicer: Servicer, engine: Engine, memory: Watched) -> None:
        self.stub = stub
        self.servicer = servicer
        self.engine = engine
        self.memory = memory

    async def handshake(self, *, invoke_with_preview: bool = True) -> Any:
        request = pb.ProviderHandshakeRequest(
            engine_address=self.engine.address, invoke_with_preview=invoke_with_preview
        )
        return await self.stub.Handshake(request)

    async def configure(self, **config: Any) -> Any:
        return await self.stub.Configure(pb.ConfigureRequest(args=encode(config)))

    async def check(
        self, new: Values, old: Values | None = None, urn: str = URN, *, autonaming: tuple[str, str] | None = None
    ) -> tuple[Values, list[str]]:
        """Ask for a check.

        :param autonaming: mode and proposed name of `pulumi:autonaming`.
        """
        request = pb.CheckRequest(urn=urn, olds=encode(old or {}), news=encode(new))
        if autonaming is not None:
            mode, proposed = autonaming
            options = pb.CheckRequest.AutonamingOptions
            request.autonaming.CopyFrom(options(mode=options.Mode.Value(mode), proposed_name=proposed))
        reply = await self.stub.Check(request)
        assert all(failure.property == "" for failure in reply.failures)
        return decode(reply.inputs), [failure.reason for failure in reply.failures]

    async def checked(self, urn: str = URN, old: Values | None = None, **changes: Any) -> Values:
        """Inputs of a memory stream that are right."""
        given, failures = await self.check(memory_inputs(**changes), old, urn)
        assert failures == []
        return given

    async def diff(self, old: Values, new: Values, urn: str = URN, *, state: Values | None = None) -> Any:
        request = pb.DiffRequest(
            id="memory/default/orders", urn=urn, olds=encode(state or old), old_inputs=encode(old), news=encode(new)
        )
        return await self.stub.Diff(request)

    async def create(
        self, new: Values, *, urn: str = URN, preview: bool = False, timeout: float = 0
    ) -> tuple[str, Values]:
        request = pb.CreateRequest(urn=urn, properties=encode(new), preview=preview, timeout=timeout)
        reply = await self.stub.Create(request)
        return reply.id, decode(reply.properties)

    async def update(
        self, id: str, old_inputs: Values, old: Values, new: Values, *, urn: str = URN, preview: bool = False
    ) -> Values:
        request = pb.UpdateRequest(
            id=id, urn=urn, olds=encode(old), news=encode(new), old_inputs=encode(old_inputs), preview=preview
        )
        return decode((await self.stub.Update(request)).properties)

    async def read(
        self, id: str, old_inputs: Values | None = None, old: Values | None = None, urn: str = URN
    ) -> tuple[str, Values, Values]:
        request = pb.ReadRequest(id=id, urn=urn, properties=encode(old or {}), inputs=encode(old_inputs or {}))
        reply = await self.stub.Read(request)
        return reply.id, decode(reply.inputs), decode(reply.properties)

    async def delete(self, id: str, state: Values, urn: str = URN) -> None:
        await self.stub.Delete(pb.DeleteRequest(id=id, urn=urn, properties=encode(state), timeout=0))

    async def invoke(self, name: str, args: Values, *, preview: bool = False) -> tuple[Values, dict[str, str]]:
        request = pb.InvokeRequest(tok=f"replicator:index:{name}", args=encode(args), preview=preview)
        reply = await self.stub.Invoke(request)
        return decode(getattr(reply, "return")), {failure.property: failure.reason for failure in reply.failures}

    async def cancel(self) -> None:
        await self.stub.Cancel(empty_pb2.Empty())


def memory_inputs(**changes: Any) -> Values:
    return inputs(**{"name": "orders", "backend": "memory"} | changes)


def another(name: str) -> Values:
    """Name and destination of one more stream."""
    return {"name": name, "destination": {**S3, "uri": f"s3://bucket/{name}"}}


@asynccontextmanager
async def serving(
    memory: Watched | None = None, connect: Callable[[str, str], Any] | None = None
) -> AsyncIterator[Provider]:
    """A configured provider whose streams live in `memory`."""
    replicator = memory or Watched(Clock())
    engine = Engine()
    servicer = Servicer(connect=connect or (lambda kind, address: replicator))
    server = grpc.aio.server()
    engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    engine.address = f"127.0.0.1:{port}"
    await server.start()
    options = [("grpc.max_metadata_size", 4 << 20), ("grpc.absolute_max_metadata_size", 4 << 20)]
    async with grpc.aio.insecure_channel(engine.address, options=options) as channel:
        provider = Provider(provider_pb2_grpc.ResourceProviderStub(channel), servicer, engine, replicator)
        await provider.handshake()
        await provider.configure(**CONFIG)
        try:
            yield provider
        finally:
            await servicer.aclose()
            await server.stop(0)


def init_failure(error: grpc.aio.AioRpcError, *, cut_off: bool | None = False) -> tuple[str, Values, Values, list[str]]:
    """Id, outputs, inputs and reasons of a resource that was made but is not well, or whose wait was cut off.

    :param cut_off: which of them it must be; None where it may be either.
    """
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    (packed,) = status.details
    failure = pb.ErrorResourceInitFailed()
    assert packed.Unpack(failure)
    assert cut_off is None or failure.refresh_before_update is not cut_off
    return failure.id, decode(failure.properties), decode(failure.inputs), list(failure.reasons)


async def failing(call: Any) -> grpc.aio.AioRpcError:
    """The fault that a call ends with."""
    try:
        found = await asyncio.wait_for(call, 10)
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"it went well: {found}")


def plain(values: Values) -> Values:
    found = strip(values)
    assert isinstance(found, dict)
    return found
