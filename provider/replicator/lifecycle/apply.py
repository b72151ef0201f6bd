"""Declaring, changing, reading and removing a stream. Knows no engine and no Pulumi."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from replicator.errors import StreamNotFound, StreamProtected
from replicator.lifecycle.connect import Connections, StreamId
from replicator.lifecycle.wait import Limits, Progress, silent, wait_for_stream
from replicator.model import DesiredState, Owner, Stream, StreamState, StreamStatus, WaitFor
from replicator.replicator import Description

READ_AGE = 5.0
"""Seconds that a listing may be old when a refresh reads hundreds of streams from it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A stream as the engine's side holds it after an operation.

    :param trouble: why it is not well, one sentence each; empty where it is.
    """

    id: StreamId
    stream: Stream
    status: StreamStatus
    engine_objects: dict[str, Any]
    trouble: tuple[str, ...] = ()


async def create(
    connections: Connections, stream: Stream, urn: str, limits: Limits, progress: Progress = silent
) -> Outcome:
    """Make the stream, or adopt the one that an earlier try of the same resource left half made."""
    return await _make_it_so(connections, stream.model_copy(update={"owner": Owner(urn=urn)}), limits, progress)


async def update(
    connections: Connections, stream: Stream, owner: Owner, limits: Limits, progress: Progress = silent
) -> Outcome:
    """Change the stream in place. With nothing to change it reconciles: what is broken is started again."""
    owned = stream.model_copy(update={"owner": owner.model_copy(update={"claim": True})})
    return await _make_it_so(connections, owned, limits, progress)


async def _make_it_so(connections: Connections, stream: Stream, limits: Limits, progress: Progress) -> Outcome:
    at = StreamId.of(stream)
    replicator = connections.changing(at)
    async with limits.within("the change", stream.name):
        await replicator.upsert_stream(stream)
        if stream.wait_for is not WaitFor.NONE and stream.desired_state is DesiredState.RUNNING:
            await wait_for_stream(replicator, stream, limits, progress)
        found = await replicator.describe([stream.name])
    connections.changing(at)
    if not found:
        raise StreamNotFound("it was there, and was removed by somebody else meanwhile", stream=stream.name)
    return _outcome(at, found[0])


async def read(connections: Connections, at: StreamId) -> Outcome | None:
    """The stream as it is; `None` where the engine answered that it is gone."""
    found = await connections.describe(at, max_age=READ_AGE)
    return None if found is None else _outcome(at, found)


async def look(connections: Connections, at: StreamId) -> Outcome | None:
    """The same, asked for now: no listing that began before the last change may answer."""
    found = await connections.replicator(at).describe([at.name])
    return _outcome(at, found[0]) if found else None


async def delete(connections: Connections, at: StreamId, owner: Owner, *, protected: bool, limits: Limits) -> None:
    """Remove the stream; raise `StreamProtected` where it has deletionProtection."""
    if protected:
        raise StreamProtected(
            "deletionProtection is on",
            stream=at.name,
            fix="set deletionProtection to false, run pulumi up, then remove it",
        )
    async with limits.within("the delete", at.name):
        claimed = owner.model_copy(update={"claim": True})
        await connections.changing(at).delete_stream(at.name, owner=claimed)


def _outcome(at: StreamId, found: Description) -> Outcome:
    """What was found. A pause by somebody else shows as `desiredState`, so that it is drift."""
    stream, status = found.stream, found.status
    if status.state is StreamState.PAUSED and not _ends_paused(stream):
        stream = stream.model_copy(update={"desired_state": DesiredState.PAUSED})
    elif status.state in (StreamState.RUNNING, StreamState.CATCHING_UP):
        stream = stream.model_copy(update={"desired_state": DesiredState.RUNNING})
    trouble = (f"the stream failed: {status.last_error or 'the engine gives no reason'}",)
    return Outcome(at, stream, status, found.engine_objects, trouble if status.state is StreamState.FAILED else ())


def _ends_paused(stream: Stream) -> bool:
    """A stream of mode snapshot is paused when its one copy is made."""
    return stream.mode == "snapshot"
