"""Declaring, changing, reading and removing a stream. Knows no engine and no Pulumi."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, replace
from typing import Any

from replicator.backends.shared.ownership import may_remove, refuse_elsewhere
from replicator.errors import Category, ReplicatorError, StreamNotFound, StreamProtected
from replicator.lifecycle.connections import Connections, StreamId
from replicator.lifecycle.wait import Limits, Progress, silent, wait_for_stream
from replicator.model import DesiredState, Owner, Stream, StreamState, StreamStatus, WaitFor, token_digest
from replicator.replicator import Description

READ_AGE = 5.0
"""Maximum age in seconds of the listing from which a refresh reads hundreds of streams."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A stream as the engine's side holds it after an operation.

    :param trouble: why it is unhealthy, one sentence each; empty if it is healthy.
    :param token: the owner's token, if this operation has proved that it is the caller's.
    """

    id: StreamId
    stream: Stream
    status: StreamStatus
    engine_objects: dict[str, Any]
    trouble: tuple[str, ...] = ()
    token: str | None = None


def new_owner(urn: str) -> Owner:
    """Return the owner that a create declares: each create issues a token, which makes earlier ones stale."""
    return Owner(urn=urn, issue=secrets.token_hex(16))


def known_owner(urn: str, token: str | None, recorded_urn: str | None, manager: str | None = None) -> Owner:
    """Return the owner that a change declares.

    An imported or renamed state gets its own token. It is derived from the state's secret, so that a repeated call
    after a lost answer issues the same token, and no other state does.

    :param token: the state's token.
    :param recorded_urn: the URN in the engine's record when the state was written.
    :param manager: the identity of the agent or cluster that managed the stream then.
    """
    if token is None:
        return Owner(urn=urn, issue=secrets.token_hex(16), claim=True, manager=manager)
    proof = token.partition(" ")[0]
    issue = None
    if proof != token or proof == token_digest(proof) or recorded_urn not in (None, urn):
        issue = hashlib.sha256(f"{token} {urn}".encode()).hexdigest()[:32]
    return Owner(urn=urn, token=proof, issue=issue, claim=True, manager=manager)


def imported_token(recorded: Owner | None) -> str:
    """Return the token for the state of an import: the record's token, if it has one, followed by a secret.

    The record's token proves to the first update that the owner has not changed meanwhile.
    """
    own = secrets.token_hex(16)
    return own if recorded is None or recorded.token is None else f"{recorded.token} {own}"


async def make_it_so(
    connections: Connections, stream: Stream, owner: Owner, limits: Limits, progress: Progress = silent
) -> Outcome:
    """Create the stream, adopt the one that an earlier attempt of the same resource left, or change it in place.

    Without a change it reconciles: broken parts are restarted.
    """
    stream = stream.model_copy(update={"owner": owner})
    at = StreamId.of(stream)
    replicator = connections.changing(at)
    async with limits.within("the change", stream.name, progress):
        await replicator.upsert_stream(stream)
        if stream.wait_for is not WaitFor.NONE and stream.desired_state is DesiredState.RUNNING:
            await wait_for_stream(replicator, stream, limits)
        found = await replicator.describe([stream.name])
    connections.changing(at)
    if not found:
        raise StreamNotFound("it was there, and was removed by another process meanwhile", stream=stream.name)
    return replace(_outcome(at, found[0]), token=_held_token(owner, found[0].stream.owner))


def _held_token(caller: Owner, recorded: Owner | None) -> str | None:
    """Return the token for the state: the caller's own, or the one that an agent of release 0.1 issued."""
    told = recorded.token if recorded else None
    if told is None or told == token_digest(told):
        return caller.issue or caller.token
    return next((mine for mine in (caller.issue, caller.token) if mine == told), told)


def proven_token(caller: Owner, recorded: Owner | None) -> str | None:
    """Return the caller's token that the record has; None if it has neither."""
    tokens = (caller.issue, caller.token)
    return next((mine for mine in tokens if mine and recorded and Owner(urn="", token=mine).owns(recorded)), None)


async def read(connections: Connections, at: StreamId, owner: Owner | None = None) -> Outcome | None:
    """Return the current stream; `None` if the engine answered that it does not exist.

    :param owner: the owner in the state; raise `InvalidConfig` if the address leads elsewhere by now.
    """
    found = await connections.describe(at, max_age=READ_AGE)
    if found is not None:
        return _outcome(at, found)
    if owner is not None and owner.manager is not None:
        refuse_elsewhere(at.name, owner, await connections.replicator(at).identity())
    return None


async def look(connections: Connections, at: StreamId) -> Outcome | None:
    """Return the same from a new read: a listing that started before the last change may not answer."""
    found = await connections.replicator(at).describe([at.name])
    return _outcome(at, found[0]) if found else None


async def delete(
    connections: Connections,
    at: StreamId,
    owner: Owner,
    *,
    protected: bool,
    limits: Limits,
    progress: Progress = silent,
) -> bool:
    """Remove the stream; raise `StreamProtected` if it has deletionProtection.

    Return False, without an effect, if another resource owns the stream by now; protection does not matter then.
    """
    async with limits.within("the delete", at.name, progress):
        if protected and await _would_remove(connections, at, owner):
            raise StreamProtected(
                "deletionProtection is on",
                stream=at.name,
                fix="set deletionProtection to false and run pulumi up with no other change; then remove or replace "
                "the stream",
            )
        return await connections.changing(at).delete_stream(at.name, owner=owner)


async def _would_remove(connections: Connections, at: StreamId, owner: Owner) -> bool:
    """Tell whether a delete would remove a stream; True if unknown."""
    try:
        found = await connections.replicator(at).describe([at.name])
    except ReplicatorError as error:
        if error.category is Category.UNAVAILABLE:
            return True
        raise
    return bool(found) and may_remove(found[0].stream, owner)


def _outcome(at: StreamId, found: Description) -> Outcome:
    """Return the stream as an outcome. A pause outside of Pulumi shows as `desiredState`, so that it is drift."""
    stream, status = found.stream, found.status
    if status.state is StreamState.PAUSED and not _ends_paused(stream):
        stream = stream.model_copy(update={"desired_state": DesiredState.PAUSED})
    elif status.state in (StreamState.RUNNING, StreamState.CATCHING_UP):
        stream = stream.model_copy(update={"desired_state": DesiredState.RUNNING})
    trouble = (f"the stream failed: {status.last_error or 'the engine gives no reason'}",)
    return Outcome(at, stream, status, found.engine_objects, trouble if status.state is StreamState.FAILED else ())


def _ends_paused(stream: Stream) -> bool:
    """Tell whether the stream is of mode snapshot, which is paused once its one copy is made."""
    return stream.mode == "snapshot"
