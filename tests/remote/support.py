"""A replicator that records what it is asked, and servers on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from replicator.model import Checkpoint, Endpoint, EndpointKind, Owner, Stream, StreamState, StreamStatus
from replicator.remote.client import RemoteReplicator
from replicator.remote.server import serve
from replicator.replicator import (
    Adoption,
    Description,
    EndHints,
    Finding,
    LogLines,
    Proposal,
    ReplayMethod,
    ReplayPlan,
    ReplayProgress,
    ReplayState,
    Severity,
    Takeover,
    Unmanaged,
)
from starlette.types import ASGIApp

HINT = "start it: replicator agent start"
NOON = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
START = Checkpoint(lsn="0/16B3748", wall=NOON)


def make_stream(name: str = "orders", **changes: Any) -> Stream:
    given: dict[str, Any] = {
        "name": name,
        "source": Endpoint(kind=EndpointKind.SQLITE, uri="sqlite:///srv/orders.db", region="us-east"),
        "destination": Endpoint(kind=EndpointKind.S3, uri=f"s3://bucket/{name}", auth_ref="env://S3_*"),
        "include": ("b", "a"),
        "checkpoint_interval": timedelta(seconds=90),
        "start_from": START,
        "options": {"monitor-interval": "1s", "nested": {"none": None, "list": [1, 2.5, "ü"]}},
        "owner": Owner(urn="urn:pulumi:dev::p::replicator:index:Stream::orders", token="t"),
    }
    return Stream(**given | changes)


STATUS = StreamStatus(
    name="orders",
    state=StreamState.CATCHING_UP,
    last_event=NOON,
    last_checkpoint=START,
    lag_seconds=0.125,
    lag_events=3,
    last_error='quote " and ü',
)
PLAN = ReplayPlan(
    stream="orders",
    method=ReplayMethod.COPY,
    start=START,
    resolved=START,
    target="/t",
    events=7,
    effects=("writes /t",),
)
PROGRESS = ReplayProgress(
    key="k", stream="orders", state=ReplayState.RUNNING, method=ReplayMethod.COPY, start=START, started_at=NOON
)
ADOPTION = Adoption(known=False, objects=3, newest=START)
FINDING = Finding(
    severity=Severity.WARNING, code="RPL-SOURCE-LOCKED", message="a writer holds it", property="source.uri"
)
TAKEOVER = Takeover(former="a" * 32, host="db1", stream="orders", next_prefix="s3://bucket/orders/r2", same=True)
LOG = LogLines(lines=("first", 'quote " and ü'), cursor="c.2", gap="begun anew", note="it is paused")
UNMANAGED = Unmanaged(name="orders", what="PostgresConnector", state="RUNNING")
PROPOSAL = Proposal(stream=make_stream(), kept=("tasks.max",), findings=(FINDING,), effects=("restarts once",))
DESCRIPTION = Description(
    stream=make_stream(), status=STATUS, engine_objects={"socket": "/s", "pid": None}, findings=(FINDING,)
)


class Recorder:
    """Answers with fixed values, and keeps every call as (method, arguments).

    :param error: is raised by every call, if given.
    :param gate: every call waits for it, if given.
    """

    kind = "recorder"

    def __init__(self, *, error: Exception | None = None, gate: asyncio.Event | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.entered = asyncio.Event()
        self.error = error
        self._gate = gate

    async def _note(self, method: str, /, **arguments: Any) -> None:
        self.calls.append((method, arguments))
        self.entered.set()
        if self._gate is not None:
            await self._gate.wait()
        if self.error is not None:
            raise self.error

    async def upsert_stream(self, stream: Stream) -> None:
        await self._note("upsert_stream", stream=stream)

    async def adopt_stream(self, stream: Stream, *, dry_run: bool = False) -> Adoption:
        await self._note("adopt_stream", stream=stream, dry_run=dry_run)
        return ADOPTION

    async def look_at_destination(self, destination: Endpoint, database: Endpoint | None = None) -> Takeover:
        await self._note("look_at_destination", destination=destination, database=database)
        return TAKEOVER

    async def take_over(self, destination: Endpoint, former: str | None) -> None:
        await self._note("take_over", destination=destination, former=former)

    async def unmanaged(self) -> list[Unmanaged]:
        await self._note("unmanaged")
        return [UNMANAGED]

    async def propose(self, name: str, source: EndHints, destination: EndHints) -> Proposal:
        await self._note("propose", name=name, source=source, destination=destination)
        return PROPOSAL

    async def delete_stream(self, name: str, *, owner: Owner | None = None) -> bool:
        await self._note("delete_stream", name=name, owner=owner)
        return False

    async def list_streams(self) -> list[Stream]:
        await self._note("list_streams")
        return [make_stream(), make_stream("users", options={})]

    async def get_status(self, name: str) -> StreamStatus:
        await self._note("get_status", name=name)
        return STATUS

    async def log(self, name: str, *, after: str | None = None, lines: int = 100) -> LogLines:
        await self._note("log", name=name, after=after, lines=lines)
        return LOG

    async def pause(self, name: str) -> None:
        await self._note("pause", name=name)

    async def resume(self, name: str) -> None:
        await self._note("resume", name=name)

    async def replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        key: str,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayProgress:
        await self._note("replay", name=name, start=start, key=key, method=method, target=target)
        return PROGRESS

    async def list_replays(self, name: str) -> list[ReplayProgress]:
        await self._note("list_replays", name=name)
        return [PROGRESS]

    async def get_replay(self, name: str, key: str) -> ReplayProgress:
        await self._note("get_replay", name=name, key=key)
        return PROGRESS

    async def plan_replay(
        self,
        name: str,
        start: Checkpoint,
        *,
        method: ReplayMethod = ReplayMethod.AUTO,
        target: str | None = None,
    ) -> ReplayPlan:
        await self._note("plan_replay", name=name, start=start, method=method, target=target)
        return PLAN

    async def preflight(self, stream: Stream) -> list[Finding]:
        await self._note("preflight", stream=stream)
        return [FINDING]

    async def describe(self, names: Sequence[str] | None = None) -> list[Description]:
        await self._note("describe", names=names)
        return [DESCRIPTION]

    async def overview(self) -> list[Description]:
        await self._note("overview")
        return [DESCRIPTION]

    async def identity(self) -> str | None:
        await self._note("identity")
        return "id"

    async def aclose(self) -> None:
        await self._note("aclose")


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, path: Path, **settings: Any) -> AsyncIterator[asyncio.Task[None]]:
    """A server in this loop, stopped at the end unless it has ended by itself."""
    ready = asyncio.Event()
    task = asyncio.create_task(serve(app, path, ready=ready.set, **settings))
    waiter = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield task
    finally:
        waiter.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def connected(path: Path, kind: str = "recorder", **settings: Any) -> AsyncIterator[RemoteReplicator]:
    """A client of the socket at `path`."""
    client = RemoteReplicator(kind, f"unix://{path}", start_hint=HINT, **settings)
    try:
        yield client
    finally:
        await client.aclose()
