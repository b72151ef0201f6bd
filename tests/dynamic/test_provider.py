"""The provider class as its host uses it: the string in the state, hidden inputs, what an answer cannot say, errors."""

from __future__ import annotations

import asyncio
import base64
import pickle
import subprocess
import sys
import time
import traceback
from typing import Any

import grpc.aio
import pytest
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime import rpc
from replicator.backends import REGISTRY
from replicator.dynamic import event_loop
from replicator.dynamic.provider import StreamProvider
from replicator.dynamic.pulumi_engine import PulumiDiagnostics, engine_address
from replicator.errors import InvalidConfig, InvalidStream, StreamProtected
from replicator.model import StreamStatus, token_digest
from replicator.plugin._proto import engine_pb2_grpc

from tests.dynamic.harness import Heard, configured, wire
from tests.lifecycle.builders import S3, SQLITE, URN, Clock, Watched, inputs, stream
from tests.plugin.builders import Engine

Values = dict[str, Any]
ID = "memory/default/orders"

PICKLED = "gASVNQAAAAAAAACMG3JlcGxpY2F0b3IuZHluYW1pYy5wcm92aWRlcpSMDlN0cmVhbVByb3ZpZGVylJOUKYGULg=="
"""What every state holds as `__provider`: a refresh and a delete load the class that it names."""


class Behind(Watched):
    """Never catches up."""

    def _status(self, record: Any) -> StreamStatus:
        return super()._status(record).model_copy(update={"lag_events": 5, "events_replicated": 0})


@pytest.fixture
def memory() -> Watched:
    return Watched(Clock())


@pytest.fixture
def provider(memory: Watched, monkeypatch: pytest.MonkeyPatch) -> StreamProvider:
    return configured(memory, monkeypatch)


@pytest.fixture
def heard(provider: StreamProvider) -> Heard:
    heard = provider._messages = Heard()  # type: ignore[assignment]
    return heard


def news(**changes: Any) -> Values:
    return wire({**inputs(**{"name": "orders", "backend": "memory"} | changes), "__urn": URN, "__provider": PICKLED})


def made(provider: StreamProvider, **changes: Any) -> Values:
    """The outputs of a stream that is made."""
    return wire(provider.create(news(**changes)).outs or {})


def declared(memory: Watched) -> list[Any]:
    return asyncio.run(memory.list_streams())


# --- the pickled provider --------------------------------------------------------------------------------------------


def test_the_pickled_provider_never_changes() -> None:
    assert serialize_provider(StreamProvider()) == PICKLED
    assert type(pickle.loads(base64.b64decode(PICKLED))) is StreamProvider


def test_it_is_a_reference_that_holds_nothing() -> None:
    assert len(base64.b64decode(PICKLED)) < 80
    assert vars(StreamProvider()) == {}
    assert not StreamProvider.serialize_as_secret_always


def test_the_package_alone_does_not_import_pulumi() -> None:
    code = "import sys, replicator, replicator.model; assert replicator.Stream; print('pulumi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


# --- what comes and goes over the wire -------------------------------------------------------------------------------


def test_hidden_inputs_stay_and_unknown_ones_stay_unknown(provider: StreamProvider) -> None:
    result = provider.check({}, news(name=..., source={**SQLITE, "uri": rpc.UNKNOWN}, mode=None))
    assert result.failures == []
    assert result.inputs["name"].startswith("shop-dev-orders-")
    assert result.inputs["source"]["uri"] == rpc.UNKNOWN
    assert result.inputs["__urn"] == URN
    assert result.inputs.keys() == {"name", "backend", "source", "destination", "__urn"}


def test_the_stream_belongs_to_the_resource(provider: StreamProvider, memory: Watched) -> None:
    outputs = made(provider)
    (found,) = declared(memory)
    assert (found.owner.urn, found.owner.token) == (URN, token_digest(outputs["ownerToken"]))


def test_whole_numbers_are_whole(provider: StreamProvider, memory: Watched) -> None:
    made(provider, options={"fail": 0})
    (found,) = declared(memory)
    assert repr(found.options) == "{'fail': '0'}"


def test_a_read_tells_no_inputs_where_they_hold(provider: StreamProvider) -> None:
    outputs = made(provider)
    assert outputs["mode"] == "snapshot_then_cdc"
    read = provider.read(ID, outputs)
    assert (read.inputs, read.outs) == (None, {key: outputs[key] for key in outputs if key != "__provider"})


def test_a_read_tells_the_inputs_and_not_the_defaults(provider: StreamProvider, memory: Watched) -> None:
    outputs = made(provider)
    asyncio.run(memory.pause("orders"))
    paused = provider.read(ID, outputs)
    assert paused.inputs == {**inputs(name="orders", backend="memory"), "desiredState": "paused", "__urn": URN}


def test_what_is_gone_has_no_id(provider: StreamProvider) -> None:
    gone = provider.read("memory/default/nope", news())
    assert (gone.id, gone.outs) == ("", {})


# --- what an answer cannot say ---------------------------------------------------------------------------------------


def test_a_stream_that_is_not_well_is_made_and_tells_why(provider: StreamProvider, heard: Heard) -> None:
    outputs = made(provider, options={"fail": "no space"})
    assert outputs["trouble"] == ["the stream failed: no space"]
    assert outputs["status"]["state"] == "failed"
    again = provider.diff(ID, outputs, news(options={"fail": "no space"}))
    assert (again.changes, again.replaces) == (True, [])
    assert heard.told == [
        (
            "WARNING",
            "the stream was unhealthy after the last run; this update tries again: the stream failed: no space",
            URN,
        )
    ]
    healed = wire(provider.update(ID, outputs, news()).outs or {})
    assert healed["trouble"] == []
    assert provider.diff(ID, healed, news()).changes is False


def test_a_custom_time_out_that_is_no_duration_is_refused(memory: Watched, provider: StreamProvider) -> None:
    with pytest.raises(InvalidStream) as refused:
        provider.create({**news(), "__timeouts": {"create": "1h, 30m"}})
    assert (refused.value.property, memory.upserts) == ("customTimeouts.create", 0)


@pytest.mark.parametrize("operation", ["create", "update"])
def test_a_wait_that_is_too_short_is_trouble(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = configured(Behind(Clock()), monkeypatch)
    given = {**news(waitFor="caught_up"), "__timeouts": {operation: "300ms"}}
    began = time.monotonic()
    if operation == "create":
        outputs = provider.create(given).outs or {}
    else:
        outputs = provider.update(ID, made(provider), given).outs or {}
    assert time.monotonic() - began < 60  # without the custom time-out it is 600
    (reason,) = outputs["trouble"]
    assert (
        "the change took longer than 0.3 s; nothing was undone; last progress: running, 5 behind [RPL-WAIT-TIMEOUT]"
        in reason
    )
    assert outputs["__timeouts"] == {operation: "300ms"}


def test_where_something_differs_pulumi_finds_what(provider: StreamProvider, heard: Heard) -> None:
    outputs = made(provider)
    changed = provider.diff(ID, outputs, news(mode="cdc"))
    assert (changed.changes, changed.replaces, changed.delete_before_replace) == (None, [], True)
    replaced = provider.diff(ID, outputs, news(source={**SQLITE, "region": "us-east"}))
    assert (replaced.changes, replaced.replaces, replaced.delete_before_replace) == (None, ["source"], True)
    assert [text.partition(": ")[0] for _, text, _ in heard.told] == ["mode", "source.region"]
    assert {urn for _, _, urn in heard.told} == {URN}


def test_a_hidden_input_alone_is_no_difference(provider: StreamProvider) -> None:
    outputs = made(provider)
    for hidden in ({"__timeouts": {"delete": "1m"}}, {"__provider": "gASV"}):
        assert provider.diff(ID, outputs, {**news(), **hidden}).changes is False


def test_a_rename_is_an_update_that_names_the_resource_in_the_record(
    provider: StreamProvider, memory: Watched, heard: Heard
) -> None:
    outputs = made(provider)
    renamed = {**news(), "__urn": URN.replace("orders", "bills")}
    found = provider.diff(ID, outputs, renamed)
    assert (found.changes, found.replaces) == (True, [])
    assert heard.told[-1][1].startswith(f"ownerUrn: the engine's record names {URN}")
    changed = provider.update(ID, outputs, renamed).outs or {}
    (record,) = declared(memory)
    assert record.owner.urn == changed["ownerUrn"] == renamed["__urn"]
    assert provider.diff(ID, changed, renamed).changes is False


def test_a_change_that_would_fail_is_a_warning(provider: StreamProvider, memory: Watched, heard: Heard) -> None:
    """Diff is called in a refresh too, which has to end; so it does not refuse."""
    outputs = made(provider)
    other = stream(name="other", destination={**S3, "uri": "s3://bucket/other"})
    asyncio.run(memory.upsert_stream(other))
    assert provider.diff(ID, outputs, news(destination={**S3, "uri": "s3://bucket/other"})).changes is None
    assert any(text.startswith("this change would fail: ") and "RPL-DEST-INUSE" in text for _, text, _ in heard.told)


# --- configuration and errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"replicator:preflight": "sometimes"}, "replicator:preflight: must be one of 'strict', 'warn' or 'off'"),
        ({"replicator:memory": "{}"}, "no address for backend 'memory'"),
        ({"replicator:litestream": '{"adress": "x"}'}, "replicator:litestream.adress: is not known here"),
    ],
)
def test_a_wrong_configuration_is_told_where_a_stream_is_checked(
    settings: dict[str, str], says: str, memory: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = configured(memory, monkeypatch, settings)
    (failure,) = provider.check({}, news()).failures
    assert says in failure.reason
    assert "[RPL-CONFIG-INVALID]" in failure.reason
    with pytest.raises(InvalidConfig):
        provider.create(news())
    assert declared(memory) == []


def test_a_variable_gives_what_is_left_out(memory: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATOR_MEMORY", '{"address": "unix:///env"}')
    monkeypatch.setenv("REPLICATOR_PREFLIGHT", "sometimes")
    given = {"replicator:preflight": "warn"}
    assert event_loop.connections(given.get).config.address(REGISTRY["memory"], "default") == "unix:///env"
    given["replicator:memory"] = '{"address": "unix:///own"}'
    assert event_loop.connections(given.get).config.address(REGISTRY["memory"], "default") == "unix:///own"

    (failure,) = configured(memory, monkeypatch).check({}, news()).failures
    assert "→ export REPLICATOR_PREFLIGHT=strict" in failure.reason


def test_the_host_shows_no_more_of_an_error_than_it_must(provider: StreamProvider) -> None:
    outputs = made(provider, deletionProtection=True)
    with pytest.raises(StreamProtected) as raised:
        provider.delete(ID, outputs)
    shown = "".join(traceback.format_exception(raised.value))
    assert (
        "replicator.errors.StreamProtected: stream 'orders': deletionProtection is on [RPL-STREAM-PROTECTED]" in shown
    )
    assert shown.count('  File "') == 3  # this test, and two of the provider
    assert "During handling" not in shown


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        (["127.0.0.1:4711"], "127.0.0.1:4711"),
        (["[::1]:4711"], "[::1]:4711"),
        ([], None),
        (["-q", "tests"], None),
        (["tests/dynamic/test_provider.py::test_one"], None),
        (["127.0.0.1:4711", "more"], None),
    ],
)
def test_the_engines_address(arguments: list[str], address: str | None) -> None:
    assert engine_address(arguments) == address


async def test_messages_reach_the_engine() -> None:
    engine = Engine()
    server = grpc.aio.server()
    engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    messages = PulumiDiagnostics(f"127.0.0.1:{port}")
    await messages.warn_once(URN, "mode: restarts")
    await messages.warn_once(URN, "mode: restarts")
    await messages.info("known")
    await messages.debug("seen")
    await messages.status("catching up", URN)
    assert engine.logs == [("WARNING", "mode: restarts", URN), ("INFO", "known", ""), ("DEBUG", "seen", "")]
    await server.stop(0)
    await messages.info("nobody listens")


async def test_without_an_engine_nothing_is_sent() -> None:
    await PulumiDiagnostics(None).warning("nobody", URN)
