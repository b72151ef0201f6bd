"""The engine's log, against an engine service in this process that keeps what it is sent."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from google.protobuf import empty_pb2
from replicator.plugin._proto import engine_pb2, engine_pb2_grpc
from replicator.plugin.pulumi_engine import PulumiDiagnostics

URN = "urn:pulumi:dev::shop::replicator:index:Stream::orders"


class Engine(engine_pb2_grpc.EngineServicer):
    """Keeps the messages in the order of arrival."""

    def __init__(self) -> None:
        self.logs: list[engine_pb2.LogRequest] = []
        self.address = ""
        self.refuse = False
        self.hang = False

    async def Log(self, request: engine_pb2.LogRequest, context: Any) -> empty_pb2.Empty:
        if self.hang:
            await asyncio.sleep(60)
        if self.refuse:
            await context.abort(grpc.StatusCode.INTERNAL, "no")
        self.logs.append(request)
        return empty_pb2.Empty()

    @property
    def texts(self) -> list[str]:
        return [log.message for log in self.logs]


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    server = grpc.aio.server()
    engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
    engine.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield engine
    await server.stop(0)


@pytest.fixture
async def messages(engine: Engine) -> AsyncIterator[PulumiDiagnostics]:
    messages = PulumiDiagnostics(engine.address, lambda text: text.replace("hunter2", "***"))
    yield messages
    await messages.close()


async def test_messages_carry_severity_and_resource(engine: Engine, messages: PulumiDiagnostics) -> None:
    await messages.debug("d")
    await messages.info("i", URN)
    await messages.warning("w", URN)
    await messages.status("snapshotting orders 20 %", URN)
    assert [(each.severity, each.message, each.urn, each.ephemeral) for each in engine.logs] == [
        (engine_pb2.DEBUG, "d", "", False),
        (engine_pb2.INFO, "i", URN, False),
        (engine_pb2.WARNING, "w", URN, False),
        (engine_pb2.INFO, "snapshotting orders 20 %", URN, True),
    ]


async def test_every_message_is_redacted(engine: Engine, messages: PulumiDiagnostics) -> None:
    text = "the password is hunter2"
    await messages.debug(text)
    await messages.info(text)
    await messages.warning(text)
    await messages.status(text)
    await messages.warn_once(URN, text)
    assert engine.texts == ["the password is ***"] * 5


async def test_a_warning_is_given_once_for_a_resource(engine: Engine, messages: PulumiDiagnostics) -> None:
    await asyncio.gather(*(messages.warn_once(URN, "mode: forces replacement") for _ in range(5)))
    await messages.warn_once(URN + "2", "mode: forces replacement")
    await messages.warn_once(URN, "re-snapshots orders")
    assert sorted((each.urn, each.message) for each in engine.logs) == [
        (URN, "mode: forces replacement"),
        (URN, "re-snapshots orders"),
        (URN + "2", "mode: forces replacement"),
    ]
    assert {each.severity for each in engine.logs} == {engine_pb2.WARNING}


async def test_status_comes_once_a_second_for_a_resource(engine: Engine) -> None:
    now = 0.0
    messages = PulumiDiagnostics(engine.address, str, clock=lambda: now)
    for step in range(25):  # a text each 0.1 s
        now = step / 10
        await messages.status(f"{step}", URN)
        await messages.status(f"other {step}", URN + "2")
    await messages.info("not throttled", URN)
    await messages.close()
    assert [each.message for each in engine.logs if each.urn == URN] == ["0", "10", "20", "not throttled"]
    assert [each.message for each in engine.logs if each.urn != URN] == ["other 0", "other 10", "other 20"]


@pytest.mark.parametrize("address", [None, ""])
async def test_without_an_address_nothing_happens(address: str | None) -> None:
    messages = PulumiDiagnostics(address, str)
    await messages.info("x")
    await messages.warn_once(URN, "x")
    await messages.status("x")
    await messages.close()
    assert messages._channel is None


async def test_no_failure_reaches_the_caller(
    engine: Engine, messages: PulumiDiagnostics, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.refuse = True
    await messages.warning("refused")
    engine.refuse = False
    await messages.warning("\udcff cannot be encoded")
    assert engine.texts == []

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = PulumiDiagnostics(f"127.0.0.1:{closed.getsockname()[1]}", str)
        await nobody.warning("nobody listens")
        await nobody.close()

    monkeypatch.setattr("replicator.plugin.pulumi_engine._PATIENCE", 0.2)
    engine.hang = True
    started = time.monotonic()
    await messages.warning("hangs")
    assert time.monotonic() - started < 5
    engine.hang = False
    await messages.warning("well again")
    assert engine.texts == ["well again"]


async def test_a_text_that_cannot_be_redacted_is_not_sent(engine: Engine) -> None:
    def broken(text: str) -> str:
        raise RuntimeError(text)

    messages = PulumiDiagnostics(engine.address, broken)
    await messages.warning("hunter2")
    await messages.close()
    assert engine.logs == []


async def test_cancelling_a_caller_is_not_swallowed(engine: Engine, messages: PulumiDiagnostics) -> None:
    engine.hang = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await messages.info("x")


async def test_after_close_messages_go_nowhere(engine: Engine, messages: PulumiDiagnostics) -> None:
    await messages.info("before")
    await messages.close()
    await messages.info("after")
    await messages.close()
    assert engine.texts == ["before"]


async def test_a_proxy_of_the_environment_is_not_asked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    messages = PulumiDiagnostics(engine.address, str)
    await messages.info("straight")
    await messages.close()
    assert engine.texts == ["straight"]
