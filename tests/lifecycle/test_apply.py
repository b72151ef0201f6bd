"""Declaring, changing, reading and removing a stream, on a memory replicator whose clock the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from replicator.errors import (
    AgentUnreachable,
    DestinationInUse,
    InvalidConfig,
    NotOurs,
    OwnedByAnother,
    RecordUnreadable,
    StreamNotFound,
    StreamProtected,
    WaitCancelled,
    WaitTimeout,
)
from replicator.lifecycle import apply
from replicator.lifecycle.connections import Connections, StreamId
from replicator.lifecycle.wait import Limits
from replicator.model import DesiredState, Owner, StreamState, StreamStatus, token_digest
from replicator.replicator import Description

from tests.lifecycle.builders import OTHER_URN, S3, SQLITE, URN, Clock, Watched, connected, stream

ORDERS = StreamId("memory", "default", "orders")


@pytest.fixture
def watched() -> Watched:
    return Watched(Clock())


@pytest.fixture
def connections(watched: Watched) -> Connections:
    return connected(watched)


async def create(
    connections: Connections, urn: str = URN, limits: Limits | None = None, **changes: Any
) -> apply.Outcome:
    return await apply.make_it_so(connections, stream(**changes), apply.new_owner(urn), limits or Limits(5))


async def update(connections: Connections, urn: str, token: str | None, **changes: Any) -> apply.Outcome:
    return await apply.make_it_so(connections, stream(**changes), apply.known_owner(urn, token, urn), Limits(5))


def token(outcome: apply.Outcome) -> str:
    """The token for the state, of which the record has the digest."""
    assert outcome.token is not None
    assert outcome.stream.owner is not None
    assert outcome.stream.owner.token == token_digest(outcome.token) != outcome.token
    return outcome.token


async def found(connections: Connections) -> apply.Outcome:
    read = await apply.read(connections, ORDERS)
    assert read is not None
    return read


# --- create ----------------------------------------------------------------------------------------------------------


async def test_a_stream_is_made(connections: Connections) -> None:
    made = await create(connections)
    assert str(made.id) == "memory/default/orders"
    assert made.status.state is StreamState.RUNNING
    assert made.engine_objects == {"memoryStream": "orders"}
    assert made.trouble == ()
    assert made.stream.owner == Owner(urn=URN, token=token_digest(token(made)))
    assert len(token(made)) == 32


async def test_after_a_lost_reply_the_same_resource_adopts_its_stream_with_a_new_token(
    connections: Connections,
) -> None:
    first = await create(connections)
    second = await create(connections)
    assert token(second) != token(first)
    assert second.stream == first.stream.model_copy(update={"owner": second.stream.owner})
    with pytest.raises(OwnedByAnother, match="newer owner token"):
        await update(connections, URN, token(first))


@pytest.mark.parametrize(
    "changes", [{"source": {**SQLITE, "uri": "sqlite:///srv/x.db"}}, {"destination": {**S3, "uri": "s3://bucket/x"}}]
)
async def test_a_create_adopts_nothing_with_other_ends(connections: Connections, changes: dict[str, Any]) -> None:
    made = await create(connections)
    with pytest.raises(OwnedByAnother, match="was renamed"):
        await create(connections, **changes)
    assert await found(connections) == replace(made, token=None)


async def test_two_streams_have_two_tokens(connections: Connections) -> None:
    first = await create(connections)
    second = await create(connections, name="bills", destination={**S3, "uri": "s3://bucket/bills"})
    assert token(first) != token(second)


async def test_the_stream_of_another_resource_is_refused(connections: Connections) -> None:
    made = await create(connections)
    with pytest.raises(OwnedByAnother, match=f"it is managed by {URN}"):
        await create(connections, OTHER_URN, mode="cdc")
    assert await found(connections) == replace(made, token=None)


async def test_a_stream_that_nobody_manages_is_refused_with_the_import(
    connections: Connections, watched: Watched
) -> None:
    await watched.upsert_stream(stream())
    with pytest.raises(NotOurs) as caught:
        await create(connections)
    assert "pulumi import replicator:index:Stream <resource> memory/default/orders" in str(caught.value)


async def test_one_writer_for_each_destination(connections: Connections) -> None:
    await create(connections)
    with pytest.raises(DestinationInUse, match="stream 'orders' writes to s3://bucket/orders"):
        await create(connections, name="bills")
    assert [item.name for item in await connections.replicator(ORDERS).list_streams()] == ["orders"]


async def test_a_stream_that_fails_is_told(connections: Connections) -> None:
    made = await create(connections, options={"fail": "no space left"}, waitFor="running")
    assert made.trouble == ("the stream failed: no space left",)


async def test_without_an_address_nothing_is_tried() -> None:
    with pytest.raises(InvalidConfig, match="no address for backend 'memory'"):
        await create(Connections(connected(Watched()).config.model_copy(update={"backends": {}})))


@pytest.mark.parametrize("how", ["cancel", "time-out"])
async def test_a_wait_that_ends_early_undoes_nothing(how: str, watched: Watched) -> None:
    cancelled = asyncio.Event()
    limits = Limits(0.05 if how == "time-out" else 5, cancelled)
    if how == "cancel":
        cancelled.set()
    watched.resume = watched.pause  # type: ignore[method-assign]  # it never runs
    watched._status = _snapshot  # type: ignore[method-assign]
    connections = connected(watched)
    with pytest.raises(WaitCancelled if how == "cancel" else WaitTimeout):
        await create(connections, limits=limits, waitFor="running")
    made = await apply.look(connections, ORDERS)
    assert made is not None
    assert made.stream.owner is not None


def _snapshot(record: Any) -> StreamStatus:
    return StreamStatus(name=record.stream.name, state=StreamState.SNAPSHOT)


async def test_what_somebody_else_removes_meanwhile(connections: Connections, watched: Watched) -> None:
    async def nothing(name: str, **_: Any) -> None:
        watched._records.pop(name)

    watched.resume = nothing  # type: ignore[method-assign]
    with pytest.raises(StreamNotFound, match="removed by another process meanwhile"):
        await create(connections)


# --- update ----------------------------------------------------------------------------------------------------------


async def test_an_update_changes_in_place_and_keeps_the_token(connections: Connections) -> None:
    made = await create(connections)
    changed = await update(connections, URN, token(made), mode="cdc", checkpointInterval="5s")
    assert changed.stream.mode == "cdc"
    assert token(changed) == token(made)


async def test_a_renamed_resource_keeps_its_stream_under_a_token_that_a_lost_answer_repeats(
    connections: Connections,
) -> None:
    made = await create(connections)
    owner = apply.known_owner(OTHER_URN, token(made), URN)
    for _ in range(2):  # the answer of the first is lost, so the state has the token of before
        changed = await apply.make_it_so(connections, stream(), owner, Limits(5))
        assert changed.stream.owner == Owner(urn=OTHER_URN, token=token_digest(token(changed)))
        assert token(changed) != token(made)
    with pytest.raises(OwnedByAnother):
        await update(connections, URN, token(made))


@pytest.mark.parametrize(
    ("urn", "held", "removes"),
    [(OTHER_URN, None, None), (URN, "wrong", False), (OTHER_URN, "t", False)],
)
async def test_an_update_by_another_is_refused_and_its_delete_touches_nothing(
    connections: Connections, urn: str, held: str | None, removes: bool | None
) -> None:
    made = await create(connections)
    with pytest.raises(OwnedByAnother):
        await update(connections, urn, held, mode="cdc")
    owner = Owner(urn=urn, token=held, claim=True)
    for protected in (True, False):
        delete = apply.delete(connections, ORDERS, owner, protected=protected, limits=Limits(5))
        if removes is None:
            with pytest.raises(OwnedByAnother):
                await delete
        else:
            assert await delete is removes
    assert await found(connections) == replace(made, token=None)


async def test_the_first_update_after_an_import_claims_the_stream(connections: Connections, watched: Watched) -> None:
    await watched.upsert_stream(stream())
    assert (await found(connections)).stream.owner is None
    claimed = await update(connections, URN, None)
    assert claimed.stream.owner == Owner(urn=URN, token=token_digest(token(claimed)))
    with pytest.raises(OwnedByAnother):
        await update(connections, OTHER_URN, None)


async def test_an_import_proves_ownership_by_the_digest_and_the_original_is_stale_after_its_first_update(
    connections: Connections,
) -> None:
    made = await create(connections)
    digest = token_digest(token(made))
    for _ in range(2):  # also where the answer of the first is lost
        imported = await apply.make_it_so(connections, stream(), apply.known_owner(OTHER_URN, digest, URN), Limits(5))
    assert token(imported) != token(made)
    with pytest.raises(OwnedByAnother, match=OTHER_URN):
        await update(connections, URN, token(made))
    with pytest.raises(OwnedByAnother, match=OTHER_URN):  # a second import of the time before the first
        await apply.make_it_so(connections, stream(), apply.known_owner(f"{URN}-2", digest, URN), Limits(5))


async def test_an_import_removes_nothing_before_it_owns_the_stream(connections: Connections) -> None:
    made = await create(connections)
    owner = Owner(urn=OTHER_URN, token=token_digest(token(made)), claim=True)
    with pytest.raises(OwnedByAnother, match="it was imported") as refused:
        await apply.delete(connections, ORDERS, owner, protected=False, limits=Limits(5))
    assert "pulumi up first" in str(refused.value)
    assert await found(connections) == replace(made, token=None)


async def test_an_update_makes_again_what_is_gone(connections: Connections, watched: Watched) -> None:
    made = await create(connections)
    await watched.delete_stream("orders")
    again = await update(connections, URN, token(made))
    assert token(again) == token(made)


async def test_a_record_that_cannot_be_read_is_neither_absent_nor_written_over(
    connections: Connections, watched: Watched
) -> None:
    async def unreadable(names: Sequence[str] | None = None) -> list[Description]:
        return [
            Description.unreadable("orders", RecordUnreadable("its record cannot be read: no JSON", fix="restore it"))
        ]

    made = await create(connections)
    watched.describe = unreadable  # type: ignore[method-assign]
    connections = connected(watched)
    for call in (apply.read(connections, ORDERS), apply.look(connections, ORDERS)):
        with pytest.raises(RecordUnreadable, match="its record cannot be read"):
            await call
    owner = Owner(urn=URN, token=token(made), claim=True)
    with pytest.raises(RecordUnreadable):
        await apply.delete(connections, ORDERS, owner, protected=True, limits=Limits(5))


# --- read ------------------------------------------------------------------------------------------------------------


async def test_gone_is_none(connections: Connections) -> None:
    assert await apply.read(connections, ORDERS) is None
    assert await apply.look(connections, ORDERS) is None


@pytest.mark.parametrize(
    ("declared", "done", "expected"),
    [
        ({}, "pause", "paused"),
        ({}, None, "running"),
        ({"desiredState": "paused"}, "resume", "running"),
        ({"desiredState": "paused"}, None, "paused"),
        ({"mode": "snapshot"}, None, "running"),  # its one copy is made, so that it rests
        ({"options": {"fail": "x"}}, "pause", "running"),  # a failure is told as such, not as a pause
    ],
)
async def test_a_pause_by_somebody_else_is_drift(
    connections: Connections, watched: Watched, declared: dict[str, Any], done: str | None, expected: str
) -> None:
    await create(connections, **declared)
    if done is not None:
        await getattr(watched, done)("orders")
    assert (await found(connections)).stream.desired_state is DesiredState(expected)


async def test_many_reads_are_one_listing(connections: Connections, watched: Watched) -> None:
    await create(connections)
    watched.listings.clear()
    read = await asyncio.gather(*(apply.read(connections, ORDERS) for _ in range(100)))
    assert watched.listings == [None]
    assert all(read)


async def test_a_look_is_never_older_than_the_last_change(connections: Connections, watched: Watched) -> None:
    watched.gate = asyncio.Event()
    early = asyncio.create_task(apply.read(connections, StreamId("memory", "default", "bills")))
    await asyncio.sleep(0)
    await watched.upsert_stream(stream())
    looking = asyncio.create_task(apply.look(connections, ORDERS))
    await asyncio.sleep(0)
    watched.gate.set()
    assert await early is None
    assert await looking is not None
    assert watched.listings == [None, ["orders"], ["bills"]]


# --- delete ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("purge", "left"), [(False, True), (True, False)])
async def test_a_delete(connections: Connections, watched: Watched, purge: bool, left: bool) -> None:
    made = await create(connections, purgeDestination=purge)
    owner = Owner(urn=URN, token=token(made), claim=True)
    for _ in range(2):
        assert await apply.delete(connections, ORDERS, owner, protected=False, limits=Limits(5))
    assert await apply.read(connections, ORDERS) is None
    assert (S3["uri"] in watched.delivered) is left


async def test_a_protected_stream_is_not_removed(connections: Connections) -> None:
    made = await create(connections)
    with pytest.raises(StreamProtected) as caught:
        owner = Owner(urn=URN, token=token(made), claim=True)
        await apply.delete(connections, ORDERS, owner, protected=True, limits=Limits(5))
    assert "set deletionProtection to false" in str(caught.value)
    assert await found(connections) == replace(made, token=None)


async def test_protection_holds_where_the_engine_does_not_answer_and_not_for_what_is_gone(
    connections: Connections, watched: Watched
) -> None:
    owner = Owner(urn=URN, token="t", claim=True)
    assert await apply.delete(connections, ORDERS, owner, protected=True, limits=Limits(5))
    watched.broken = AgentUnreachable("nothing listens")
    with pytest.raises(StreamProtected):
        await apply.delete(connections, ORDERS, owner, protected=True, limits=Limits(5))


async def test_a_stream_in_state_that_nobody_marked_can_be_removed(connections: Connections, watched: Watched) -> None:
    await watched.upsert_stream(stream())
    await apply.delete(connections, ORDERS, Owner(urn=URN, claim=True), protected=False, limits=Limits(5))
    assert await watched.list_streams() == []


async def test_a_delete_that_hangs_runs_out_of_time(connections: Connections, watched: Watched) -> None:
    async def hang(name: str, *, owner: Owner | None = None) -> bool:
        return await asyncio.Event().wait()

    watched.delete_stream = hang  # type: ignore[method-assign]
    with pytest.raises(WaitTimeout, match="the delete took longer"):
        await apply.delete(connections, ORDERS, Owner(urn=URN), protected=False, limits=Limits(0.05))
