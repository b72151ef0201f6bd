"""What goes wrong on the way: streams that are made but not well, cancels, time-outs, silent engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from replicator.backends.sqlite.grants import missing
from replicator.errors import AgentUnreachable
from replicator.model import Stream, StreamState
from replicator.plugin._proto import pb
from replicator.plugin.codec import Secret
from replicator.plugin.functions import OWN_PROVIDER
from replicator.replicator import Description, Finding, Severity

from tests.lifecycle.builders import S3, Clock, Watched
from tests.plugin.builders import Provider, failing, init_failure, serving

ID = "memory/default/orders"


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with serving() as provider:
        yield provider


class Slow(Watched):
    """Its streams never come out of the snapshot."""

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        update = {"state": StreamState.SNAPSHOT}
        found = await super().describe(names)
        return [item.model_copy(update={"status": item.status.model_copy(update=update)}) for item in found]


class Hanging(Watched):
    """Every effect is done, and its reply never comes."""

    async def upsert_stream(self, stream: Stream) -> None:
        await super().upsert_stream(stream)
        await asyncio.Event().wait()


class Down(Watched):
    """Nobody answers."""

    async def _no(self, *_: Any, **__: Any) -> Any:
        raise AgentUnreachable("nothing listens at unix:///mem", fix="start it")

    upsert_stream = delete_stream = describe = preflight = get_status = _no


async def made_unwell(provider: Provider) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs of a stream whose create ended as not well."""
    given = await provider.checked(
        options={"fail": "no space left"}, destination={**S3, "authRef": Secret("env://A_*")}
    )
    error = await failing(provider.create(given))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    id, outputs, inputs, reasons = init_failure(error)
    assert id == ID
    assert reasons == ["the stream failed: no space left"]
    assert inputs == given
    return given, outputs


async def test_a_stream_that_is_made_but_not_well_keeps_its_id(provider: Provider) -> None:
    _, outputs = await made_unwell(provider)
    assert outputs["status"]["state"] == "failed"
    assert outputs["ownerToken"]
    assert outputs["destination"]["authRef"] == Secret("env://A_*")


async def test_the_next_update_mends_it_and_its_preview_says_why(provider: Provider) -> None:
    given, outputs = await made_unwell(provider)
    assert (await provider.diff(given, given)).changes == pb.DiffResponse.DIFF_NONE
    await provider.update(ID, given, outputs, given, preview=True)
    (warning,) = provider.engine.warnings
    assert (
        warning
        == "the stream was unhealthy after the last run; this update tries again: the stream failed: no space left"
    )
    _, _, _, reasons = init_failure(await failing(provider.update(ID, given, outputs, given)))
    assert reasons == ["the stream failed: no space left"]
    new = await provider.checked(old=given)
    assert (await provider.update(ID, given, outputs, new))["status"]["state"] == "running"


@pytest.mark.parametrize("operation", ["create", "update"])
async def test_a_cancel_during_a_wait_gives_the_id_at_once(operation: str) -> None:
    async with serving(Slow(Clock())) as provider:
        given = await provider.checked()
        _, outputs = await provider.create(given)
        new = await provider.checked(old=given, waitFor="caught_up")
        call = provider.create(new) if operation == "create" else provider.update(ID, given, outputs, new)
        running = asyncio.create_task(failing(call))
        await reached(provider, 1)
        began = time.monotonic()
        await provider.cancel()
        id, outputs, inputs, reasons = init_failure(await running, cut_off=True)
        assert time.monotonic() - began < 0.5
        assert (id, inputs) == (ID, new)
        assert outputs["ownerToken"]
        assert reasons[0].startswith("stream 'orders': cancelled while waiting for caught_up; the engine continues")
        await ended(provider)


async def ended(provider: Provider) -> None:
    """Until no call is running; the last one's answer may arrive a moment before its end."""
    async with asyncio.timeout(5):
        while len(provider.servicer.calls):
            await asyncio.sleep(0.005)


async def reached(provider: Provider, upserts: int) -> None:
    """Until that many calls are running, and have passed their effect."""
    async with asyncio.timeout(5):
        while len(provider.servicer.calls) < upserts or provider.memory.upserts < upserts:
            await asyncio.sleep(0.005)


async def test_a_cancel_ends_many_waits_and_keeps_every_id() -> None:
    async with serving(Slow(Clock())) as provider:
        names = [f"s{number}" for number in range(20)]
        given = [
            await provider.checked(name=name, destination={**S3, "uri": f"s3://b/{name}"}, waitFor="running")
            for name in names
        ]
        running = [asyncio.create_task(failing(provider.create(one))) for one in given]
        await reached(provider, len(names))
        await provider.cancel()
        assert [init_failure(await call, cut_off=True)[0] for call in running] == [
            f"memory/default/{name}" for name in names
        ]


async def test_a_cancel_does_not_wait_for_a_call_that_hangs() -> None:
    async with serving(Hanging(Clock())) as provider:
        running = asyncio.create_task(failing(provider.create(await provider.checked())))
        await reached(provider, 1)
        began = time.monotonic()
        await provider.cancel()
        error = await running
        assert time.monotonic() - began < 2  # the engine kills after 5 s
        assert init_failure(error, cut_off=True)[0] == ID


async def test_after_a_cancel_the_next_handshake_begins_anew() -> None:
    async with serving() as provider:
        await provider.cancel()
        await provider.handshake()
        id, _ = await provider.create(await provider.checked(waitFor="running"))
        assert id == ID


async def test_the_timeout_of_the_resource_ends_a_wait_with_the_id() -> None:
    async with serving(Slow(Clock())) as provider:
        given = await provider.checked(waitFor="running")
        id, _, _, reasons = init_failure(await failing(provider.create(given, timeout=0.1)), cut_off=True)
        assert id == ID
        assert (
            "the change took longer than 0.1 s; nothing was undone; last progress: snapshot [RPL-WAIT-TIMEOUT]"
            in reasons[0]
        )


async def test_a_time_out_before_anything_was_made_is_an_error() -> None:
    class Never(Hanging):
        async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
            return []

    async with serving(Never(Clock())) as provider:
        error = await failing(provider.create(await provider.checked(), timeout=0.05))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "RPL-WAIT-TIMEOUT" in (error.details() or "")


async def test_an_agent_that_is_down() -> None:
    async with serving(Down(Clock())) as provider:
        given = await provider.checked()
        for call in (
            provider.create(given),
            provider.update(ID, given, given, given),
            provider.read(ID, given, given),
            provider.delete(ID, given),
            provider.invoke("getStreamStatus", {"stream": ID, "required": True}),
        ):
            error = await failing(call)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            text = "nothing listens at unix:///mem [RPL-AGENT-DOWN]\n  → start it"
            assert (error.details() or "").removesuffix(f"; or, {OWN_PROVIDER}").endswith(text)


@pytest.mark.parametrize("preview", [True, False])
async def test_a_status_that_cannot_be_had_ends_no_program(preview: bool) -> None:
    async with serving(Down(Clock())) as provider:
        for _ in range(2):
            found, failures = await provider.invoke("getStreamStatus", {"stream": ID}, preview=preview)
            assert failures == {}
            assert found == {
                "name": "orders",
                "findings": [],
                "failure": {"stream": ID, "code": "RPL-AGENT-DOWN", "message": "nothing listens at unix:///mem"},
            }
        (warning,) = provider.engine.logs
        told = f"the status of {ID} is not known: nothing listens at unix:///mem [RPL-AGENT-DOWN]\n  → {OWN_PROVIDER}"
        assert warning[1:] == (told, "")


async def test_a_preview_works_while_the_agent_is_down() -> None:
    async with serving(Down(Clock())) as provider:
        given = await provider.checked()
        new = await provider.checked(old=given, mode="cdc")
        for _ in range(2):
            await provider.create(given, preview=True)
        await provider.update(ID, given, given, new, preview=True)
        await provider.update(ID, given, given, given, preview=True)
        unseen, restarts, unwell = provider.engine.logs
        assert unseen[2] == ""  # once for the stack
        assert unseen[1].startswith("this preview could not look at the source and the destination: nothing listens")
        assert restarts[1].startswith("mode: restarts")
        assert unwell[1].endswith("this update tries again (nothing listens at unix:///mem)")


async def test_an_agent_without_a_policy_is_told_of_once() -> None:
    class Open(Watched):
        async def preflight(self, stream: Stream) -> list[Finding]:
            return [Finding.of(missing(Path("/etc/replicator/agent.toml")), Severity.WARNING)]

    async with serving(Open(Clock())) as provider:
        for name in ("orders", "bills", "items"):
            await provider.create(await provider.checked(name=name), preview=True)
        (said,) = provider.engine.logs
        assert said[2] == ""  # for the stack
        assert "RPL-POLICY-NONE" in said[1] and "replicator agent init" in said[1]


async def test_all_that_the_look_finds_is_told() -> None:
    class Missing(Watched):
        async def preflight(self, stream: Stream) -> list[Finding]:
            source = {"code": "RPL-SOURCE-MISSING", "message": "no file", "property": "source.uri", "fix": "make it"}
            other = {"code": "RPL-DEST-DENIED", "message": "no access", "property": "destination.uri"}
            return [Finding.model_validate({"severity": Severity.ERROR, **found}) for found in (source, other)]

    async with serving(Missing(Clock())) as provider:
        error = await failing(provider.create(await provider.checked(), preview=True))
        assert (error.details() or "").splitlines() == [
            "stream 'orders': it would fail for 2 reasons [RPL-STREAM-INVALID]",
            "  → fix each of them:",
            "    source.uri: no file [RPL-SOURCE-MISSING]",
            "      → make it",
            "    destination.uri: no access [RPL-DEST-DENIED]",
        ]


@pytest.mark.parametrize(("strictness", "stops"), [("strict", True), ("warn", False), ("off", False)])
async def test_what_the_look_before_a_change_finds(strictness: str, stops: bool) -> None:
    finding = {"code": "RPL-SOURCE-MISSING", "message": "no such file", "property": "source.uri"}

    class Missing(Watched):
        async def preflight(self, stream: Stream) -> list[Finding]:
            info = Finding(severity=Severity.INFO, code="RPL-X", message="it is large")
            return [Finding.model_validate({"severity": Severity.ERROR, **finding}), info]

    async with serving(Missing(Clock())) as provider:
        await provider.configure(memory={"address": "unix:///mem"}, preflight=strictness)
        call = provider.create(await provider.checked(), preview=True)
        if stops:
            details = (await failing(call)).details() or ""
            assert details == "stream 'orders': source.uri: no such file [RPL-SOURCE-MISSING]"
        else:
            await call
        warned = ["source.uri: no such file [RPL-SOURCE-MISSING]"] if strictness == "warn" else []
        assert provider.engine.warnings == warned
        infos = [text for severity, text, _ in provider.engine.logs if severity == "INFO"]
        assert infos == ([] if strictness == "off" else ["it is large [RPL-X]"])


async def test_a_fault_that_nobody_expected_is_told_in_one_line() -> None:
    class Broken(Watched):
        async def upsert_stream(self, stream: Stream) -> None:
            raise KeyError("surprise")

    async with serving(Broken(Clock())) as provider:
        error = await failing(provider.create(await provider.checked()))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert (
            error.details()
            == "Create failed unexpectedly: KeyError: 'surprise' [RPL-PLUGIN-FAULT]; --debug shows where"
        )


async def test_a_state_that_this_release_cannot_read(provider: Provider) -> None:
    given = await provider.checked()
    for call in (provider.diff({**given, "mode": "new-in-2030"}, given), provider.create({**given, "novelty": 1})):
        error = await failing(call)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "its inputs cannot be read: " in (error.details() or "")
