from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from replicator.errors import BY_CODE, AgentFault, AgentVersion, InvalidStream, ReplicatorError, Unsupported
from replicator.remote.client import RemoteReplicator
from replicator.remote.server import build_app
from replicator.remote.wire_errors import STATUS
from starlette.responses import Response
from starlette.types import ASGIApp

from tests.remote.support import HINT, Recorder, connected, make_stream, serving


def through(app: ASGIApp, kind: str = "recorder") -> RemoteReplicator:
    return RemoteReplicator(kind, "unix:///a", start_hint=HINT, transport=httpx.ASGITransport(app))


def answering(content: str, status: int, headers: dict[str, str]) -> RemoteReplicator:
    return through(Response(content, status, headers))


async def test_every_error_keeps_its_class_and_parts(socket_path: Path) -> None:
    recorder = Recorder()
    async with serving(build_app({"recorder": recorder}), socket_path), connected(socket_path) as client:
        for error in BY_CODE.values():
            sent = recorder.error = error('it "broke"\nhere', stream="orders", property="source.uri", fix="mend it: ü")
            with pytest.raises(ReplicatorError) as caught:
                await client.get_status("orders")
            assert type(caught.value) is error
            assert vars(caught.value) == vars(sent)
            assert str(caught.value) == str(sent)


async def test_an_error_without_parts_stays_without() -> None:
    client = through(build_app({"recorder": Recorder(error=AgentFault("m"))}))
    with pytest.raises(AgentFault) as caught:
        await client.pause("orders")
    assert vars(caught.value) == vars(AgentFault("m"))
    await client.aclose()


@pytest.mark.parametrize("error", BY_CODE.values(), ids=lambda error: error.code)
async def test_the_status_follows_the_category(error: type[ReplicatorError]) -> None:
    transport = httpx.ASGITransport(build_app({"recorder": Recorder(error=error("m"))}))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        response = await client.get("/v1/recorder/streams")
    assert response.status_code == STATUS[error.category] >= 400
    assert response.headers["Replicator-Protocol"] == "2"
    assert response.json() == {"code": error.code, "message": "m", "stream": None, "property": None, "fix": None}


async def test_a_surprise_is_one_line_for_the_client_and_a_traceback_for_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = through(build_app({"recorder": Recorder(error=RuntimeError("password=hunter2\nmore"))}))
    with caplog.at_level(logging.ERROR), pytest.raises(AgentFault) as caught:
        await client.pause("orders")
    assert caught.value.stream == "orders"
    assert "RuntimeError" in caught.value.message
    assert "\n" not in caught.value.message
    assert "hunter2" not in str(caught.value)
    assert "hunter2" in caplog.text
    await client.aclose()


async def test_a_kind_that_is_not_served_names_those_that_are() -> None:
    client = through(build_app({"recorder": Recorder(), "memory": Recorder()}), "debezium")
    with pytest.raises(Unsupported, match=r"debezium.*memory, recorder"):
        await client.list_streams()
    await client.aclose()


@pytest.mark.parametrize(
    ("change", "property", "words"),
    [
        ({"name": "Orders"}, "name", "match pattern"),
        ({"surprise": 1}, "surprise", "not permitted"),
        ({"source": {"kind": "sqlite", "uri": "s3://b/k"}}, "source", "sqlite://"),
        ({"checkpointInterval": "soon"}, "checkpointInterval", "is not a duration"),
    ],
)
async def test_a_body_that_is_no_stream_names_the_property(change: dict[str, Any], property: str, words: str) -> None:
    recorder = Recorder()
    transport = httpx.ASGITransport(build_app({"recorder": recorder}))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        response = await client.put("/v1/recorder/streams", json={"stream": make_stream().wire() | change})
    assert response.status_code == 422
    fault = response.json()
    assert (fault["code"], fault["property"]) == (InvalidStream.code, property)
    assert words in fault["message"]
    assert recorder.calls == []


async def test_a_refused_value_is_not_repeated() -> None:
    transport = httpx.ASGITransport(build_app({"recorder": Recorder()}))
    source = {"kind": "postgres", "uri": "postgres://u:hunter2@h/db"}
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        response = await client.put("/v1/recorder/streams", json={"stream": make_stream().wire() | {"source": source}})
    assert response.json()["code"] == InvalidStream.code
    assert "hunter2" not in response.text


async def test_a_body_that_is_no_json() -> None:
    transport = httpx.ASGITransport(build_app({"recorder": Recorder()}))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        response = await client.put("/v1/recorder/streams", content=b"{")
    assert response.json()["code"] == InvalidStream.code


@pytest.mark.parametrize(("verb", "path"), [("GET", "/v2/info"), ("POST", "/v1/info"), ("GET", "/v1/recorder/x")])
async def test_an_operation_that_we_do_not_have(verb: str, path: str) -> None:
    transport = httpx.ASGITransport(build_app({"recorder": Recorder()}))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        response = await client.request(verb, path)
    assert response.json()["code"] == AgentVersion.code
    assert f"{verb} {path}" in response.json()["message"]


@pytest.mark.parametrize(("spoken", "older"), [("0", "the client"), ("3", "this agent"), ("next", "this agent")])
async def test_the_server_refuses_a_client_of_another_protocol(spoken: str, older: str) -> None:
    recorder = Recorder()
    transport = httpx.ASGITransport(build_app({"recorder": recorder}))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        headers = {"Replicator-Protocol": spoken}
        response = await client.post("/v1/recorder/streams/orders/pause", headers=headers)
    assert response.headers["Replicator-Protocol"] == "2"
    assert response.json()["code"] == AgentVersion.code
    assert response.json()["message"].endswith(f"speaks protocols 1 to 2: {older} is older")
    assert recorder.calls == []


@pytest.mark.parametrize(("spoken", "older"), [("0", "the agent"), ("3", "this client"), ("next", "this client")])
async def test_the_client_refuses_a_server_of_another_protocol(spoken: str, older: str) -> None:
    client = answering("{}", 409, {"Replicator-Protocol": spoken})
    for call in (client.pause("orders"), client.info()):
        with pytest.raises(AgentVersion, match=f"agent at unix:///a speaks protocol {spoken}, .*1 to 2: {older} is"):
            await call
    await client.aclose()


async def test_what_answers_is_no_agent() -> None:
    client = answering("<html>", 200, {})
    with pytest.raises(AgentVersion, match="does not say a replicator protocol"):
        await client.pause("orders")
    await client.aclose()


@pytest.mark.parametrize("content", ["Internal Server Error", '{"detail": "no"}', ""])
async def test_a_failure_without_a_reason(content: str) -> None:
    client = answering(content, 502, {"Replicator-Protocol": "1"})
    with pytest.raises(AgentFault, match="HTTP 502"):
        await client.pause("orders")
    await client.aclose()


async def test_a_code_that_is_not_known_here_stays_readable() -> None:
    fault = json.dumps({"code": "RPL-NEW-WORD", "message": "it is new", "stream": "orders", "fix": "upgrade"})
    client = answering(fault, 500, {"Replicator-Protocol": "1"})
    with pytest.raises(AgentFault, match=r"it is new \[RPL-NEW-WORD\]") as caught:
        await client.pause("orders")
    assert (caught.value.stream, caught.value.fix) == ("orders", "upgrade")
    await client.aclose()


async def test_an_answer_that_cannot_be_read() -> None:
    client = answering('{"name": 1}', 200, {"Replicator-Protocol": "1"})
    for call in (client.get_status("orders"), client.info()):
        with pytest.raises(AgentFault, match="cannot be read"):
            await call
    await client.aclose()
