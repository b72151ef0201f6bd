"""An operation that lasts longer than any one answer may take."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from replicator.errors import AgentUnreachable, EngineUnavailable, SourceLocked
from replicator.progress import tell, told_to
from replicator.remote import connection, pending
from replicator.remote.routes import Accepted
from replicator.remote.server import build_app
from starlette.datastructures import Headers
from starlette.responses import Response

from tests.remote.support import FINDING, Recorder, connected, make_stream, serving

SHORT = timedelta(seconds=0.6)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An operation that takes 0.1 s is a long one; what the header says in whole seconds counts for a tenth."""
    monkeypatch.setattr(connection, "_WAIT_FOR", 1)
    monkeypatch.setattr(pending, "_LONGEST", 0.1)
    return iter(())


class Telling(Recorder):
    """Says what it does before it waits, in a task of its own."""

    async def upsert_stream(self, stream: object) -> None:
        async def work() -> None:
            for text in ("snapshot, 1 of 3 MB", "snapshot, 2 of 3 MB"):
                tell(text)
                await asyncio.sleep(0.05)
            await self._note("upsert_stream")

        await asyncio.shield(asyncio.create_task(work()))


async def ends_after(gate: asyncio.Event, seconds: float) -> None:
    await asyncio.sleep(seconds)
    gate.set()


async def test_its_end_is_seen_long_after_the_time_for_one_answer_and_what_it_tells_is_heard(socket_path: Path) -> None:
    gate, heard = asyncio.Event(), list[str]()
    recorder = Telling(gate=gate)
    async with serving(build_app({"recorder": recorder}), socket_path), connected(socket_path, timeout=SHORT) as client:
        with told_to(heard.append):
            ending = asyncio.create_task(ends_after(gate, 3 * SHORT.total_seconds()))
            await client.upsert_stream(make_stream())
        await ending
    assert [method for method, _ in recorder.calls] == ["upsert_stream"]
    assert [text for at, text in enumerate(heard) if text not in heard[:at]] == [
        "snapshot, 1 of 3 MB",
        "snapshot, 2 of 3 MB",
    ]


async def test_answers_and_errors_arrive_as_they_do_at_once(socket_path: Path) -> None:
    gate = asyncio.Event()
    recorder = Recorder(gate=gate)
    async with serving(build_app({"recorder": recorder}), socket_path), connected(socket_path, timeout=SHORT) as client:
        ending = asyncio.create_task(ends_after(gate, 0.4))
        assert await client.preflight(make_stream()) == [FINDING]
        gate.clear()
        recorder.error = SourceLocked("a writer holds it", stream="orders", property="source.uri", fix="wait")
        ending = asyncio.create_task(ends_after(gate, 0.4))
        with pytest.raises(SourceLocked, match="a writer holds it"):
            await client.pause("orders")
        await ending


async def test_an_agent_that_was_restarted_is_told_again(socket_path: Path) -> None:
    first, second = Recorder(gate=asyncio.Event()), Recorder()
    async with connected(socket_path, timeout=SHORT) as client:
        async with serving(build_app({"recorder": first}), socket_path):
            asked = asyncio.create_task(client.preflight(make_stream()))
            await first.entered.wait()
            await asyncio.sleep(0.3)
            stopped = build_app({"recorder": second})
        async with serving(stopped, socket_path):
            try:
                assert await asked == [FINDING]
            except AgentUnreachable as error:  # the agent had the time to say that it was stopped
                assert "the agent stopped before preflight ended" in str(error)
                assert error.unfinished


async def test_an_operation_that_is_forgotten_is_sent_again(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object) -> Response:
        return Response(status_code=410)

    recorder = Recorder()
    recorder._gate = asyncio.Event()
    app = build_app({"recorder": recorder})
    async with serving(app, socket_path), connected(socket_path, timeout=SHORT) as client:
        asked = asyncio.create_task(client.preflight(make_stream()))
        await recorder.entered.wait()
        await asyncio.sleep(0.3)
        with monkeypatch.context() as patch:
            patch.setattr(pending.Pending, "ask", unknown)
            while len(recorder.calls) == 1:
                await asyncio.sleep(0.01)
        recorder._gate.set()
        assert await asked == [FINDING]
    assert [method for method, _ in recorder.calls] == ["preflight", "preflight"]


async def test_an_agent_that_is_gone_leaves_the_outcome_open(socket_path: Path) -> None:
    recorder = Recorder(gate=asyncio.Event())
    async with connected(socket_path, timeout=SHORT) as client:
        async with serving(build_app({"recorder": recorder}), socket_path):
            asked = asyncio.create_task(client.pause("orders"))
            await recorder.entered.wait()
            await asyncio.sleep(0.2)
        with pytest.raises((AgentUnreachable, EngineUnavailable)) as gone:
            await asked
    assert gone.value.unfinished


async def test_a_client_that_does_not_say_so_gets_the_answer_itself(socket_path: Path) -> None:
    gate = asyncio.Event()
    transport = httpx.AsyncHTTPTransport(uds=str(socket_path))
    async with (
        serving(build_app({"recorder": Recorder(gate=gate)}), socket_path),
        httpx.AsyncClient(transport=transport, base_url="http://agent") as client,
    ):
        ending = asyncio.create_task(ends_after(gate, 0.4))
        response = await client.post("/v1/recorder/streams/orders/pause", headers={"Replicator-Protocol": "2"})
        await ending
    assert (response.status_code, response.content) == (200, b"null")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("respond-async, wait=2", 0.1), ("wait=2", None), ("respond-async", None), ("respond-async, wait=x", None)],
)
def test_what_a_request_prefers(header: str, seconds: float | None) -> None:
    assert pending.wait_of(Headers({"prefer": header})) == seconds


async def test_an_answer_that_nobody_fetches_is_not_kept_for_ever() -> None:
    now = 0.0
    kept = pending.Pending(clock=lambda: now)

    async def work() -> Response:
        await asyncio.sleep(0.05)
        return Response("done")

    first = await kept.begin(work(), 0.0)
    await asyncio.sleep(0.1)
    id = Accepted.model_validate_json(bytes(first.body)).operation
    now = pending.KEPT_FOR + 1
    assert (await kept.begin(work(), 1.0)).body == b"done"
    assert (await kept.ask(id, 0.0)).status_code == 410
