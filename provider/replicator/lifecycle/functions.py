"""The functions: streams and their status, capabilities of backends, the plan of a replay, and a replay."""

from __future__ import annotations

import asyncio

from replicator.capabilities import TABLE, Capabilities, Cell, No, Route, Yes
from replicator.errors import Category, InvalidStream, ReplicatorError, StreamNotFound
from replicator.lifecycle.connections import Connections, StreamId
from replicator.lifecycle.function_types import (
    AllCapabilities,
    BackendCapabilities,
    Capability,
    ChangeConsequence,
    EndpointPair,
    GetCapabilitiesArgs,
    GetStreamStatusArgs,
    GetStreamStatusesArgs,
    ImportEntry,
    ListedStream,
    ListedStreams,
    ListStreamsArgs,
    PlanReplayArgs,
    ReplayArgs,
    ReplayResult,
    StatusFailure,
    StreamReport,
    StreamStatuses,
)
from replicator.lifecycle.replay import plan_replay, run_replay
from replicator.lifecycle.wait import Limits, Progress, silent
from replicator.model import Stream, StreamStatus
from replicator.replicator import Description, ReplayPlan

_NO_ANSWER = frozenset({Category.UNAVAILABLE, Category.TIMEOUT, Category.DENIED})
"""The categories of errors after which a later call, or one of another user, may succeed."""
STATUS_AGE = 1.0
"""Maximum age in seconds of a listing for `get_stream_status`: a batch of calls shares one."""


async def get_stream_status(connections: Connections, args: GetStreamStatusArgs) -> StreamReport:
    """Return the status, measured within the last second; only `failure` if the engine does not answer."""
    try:
        found = await _described(connections, args.stream)
    except ReplicatorError as error:
        if args.required or error.category not in _NO_ANSWER:
            raise
        failure = StatusFailure(stream=args.stream, code=error.code, message=error.message)
        return StreamReport(name=StreamId.parse(args.stream).name, findings=(), failure=failure)
    return StreamReport(**found.status.model_dump(), findings=found.findings)


async def get_stream_statuses(connections: Connections, args: GetStreamStatusesArgs) -> StreamStatuses:
    """Return the statuses, with one listing per engine, and the failures of streams without a status."""

    async def one(id: str) -> Description | StatusFailure:
        try:
            return await _described(connections, id)
        except ReplicatorError as error:
            return StatusFailure(stream=id, code=error.code, message=error.message)

    ids = list(dict.fromkeys(args.streams))
    found = dict(zip(ids, await asyncio.gather(*map(one, ids)), strict=True))
    described = {id: item for id, item in found.items() if isinstance(item, Description)}
    return StreamStatuses(
        statuses={id: item.status for id, item in described.items()},
        failures=tuple(item for item in found.values() if isinstance(item, StatusFailure)),
        findings={id: item.findings for id, item in described.items() if item.findings},
    )


async def _described(connections: Connections, id: str) -> Description:
    at = StreamId.parse(id)
    found = await connections.describe(at, max_age=STATUS_AGE)
    if found is None:
        raise StreamNotFound(f"{at.backend} has no such stream", stream=at.name)
    return found


async def list_streams(connections: Connections, args: ListStreamsArgs) -> ListedStreams:
    """Return every stream that the engines hold, whoever created it. Raise if an engine does not answer.

    The state is that of the engine's objects; `get_stream_status` tells whether a running stream is catching up.
    """
    kinds = connections.config.kinds() if args.backend is None else [_backend(args.backend)]
    items = await connections.everything(kinds, args.region, max_age=STATUS_AGE)
    streams = {id: item for id, item in items.items() if item.declaration is not None}
    failures = (StatusFailure.of(id, item.findings[0]) for id, item in items.items() if id not in streams)
    return ListedStreams(
        streams=tuple(listed_stream(item.stream, item.status) for item in streams.values()), failures=tuple(failures)
    )


def import_entry(stream: Stream) -> ImportEntry:
    """Return the entry that imports a stream under its own name."""
    return ImportEntry(name=stream.name, id=str(StreamId.of(stream)))


def listed_stream(stream: Stream, status: StreamStatus) -> ListedStream:
    """Return a stream as `list_streams` has it."""
    entry = import_entry(stream)
    return ListedStream(
        id=entry.id,
        name=stream.name,
        backend=stream.backend or "",
        source=stream.source,
        destination=stream.destination,
        mode=stream.mode,
        state=status.state,
        owner=stream.owner.urn if stream.owner else None,
        import_entry=entry,
    )


async def get_capabilities(args: GetCapabilitiesArgs) -> AllCapabilities:
    """Return the capability table, without a request to an engine."""
    kinds = list(TABLE) if args.backend is None else [_backend(args.backend)]
    return AllCapabilities(
        backends=tuple(_capabilities(TABLE[kind], route) for kind in kinds for route in TABLE[kind].routes)
    )


def _capabilities(row: Capabilities, route: Route) -> BackendCapabilities:
    return BackendCapabilities(
        backend=row.backend,
        pairs=tuple(
            EndpointPair(source=source, destination=destination) for source, destination in sorted(route.pairs)
        ),
        automatic=row.automatic,
        capabilities=tuple(_capability(property, value, cell) for property, value, cell in route.cells()),
        changes=tuple(
            ChangeConsequence(property=path, verdict=effect.verdict.value, text=effect.text or None)
            for path, effect in sorted(route.changes.items())
        ),
        default_interval=route.default_interval,
        lag_unit=route.lag_unit,
        pause_cost=route.pause_cost,
        removal=route.removal,
        options=None if row.options is None else tuple(sorted(row.options)),
    )


def _capability(property: str, value: str | None, cell: Cell) -> Capability:
    note = cell.reason if isinstance(cell, No) else cell.note or None
    return Capability(property=property, value=value, supported=isinstance(cell, Yes), note=note)


def _backend(kind: str) -> str:
    if kind not in TABLE:
        raise InvalidStream(f"{kind!r} is not in this release", property="backend", fix=f"it has {', '.join(TABLE)}")
    return kind


async def plan(connections: Connections, args: PlanReplayArgs) -> ReplayPlan:
    """Return the plan of a replay."""
    return await plan_replay(connections, StreamId.parse(args.stream), args.start, args.method, args.target)


async def replay(
    connections: Connections, args: ReplayArgs, *, preview: bool, limits: Limits, progress: Progress = silent
) -> ReplayResult:
    """Run a replay once per key; in a preview, plan it."""
    if preview:
        return ReplayResult.from_plan(await plan(connections, args), args.idempotency_key)
    done = await run_replay(
        connections,
        StreamId.parse(args.stream),
        args.start,
        key=args.idempotency_key,
        method=args.method,
        target=args.target,
        limits=limits,
        progress=progress,
    )
    return ReplayResult.from_progress(done)
