"""The ownership of removed streams' replicas, and the decision whether a stream may continue one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from replicator.backends.shared.identity import FILES, Look
from replicator.backends.sqlite import preflight
from replicator.backends.sqlite.claims import Claim
from replicator.backends.sqlite.litestream import format_txid
from replicator.backends.sqlite.locations import parse_location, place_of
from replicator.backends.sqlite.record import FORMAT, Store, StreamRecord, Tombstone
from replicator.backends.sqlite.replica import PrefixContents, S3Credentials
from replicator.errors import DestinationInUse
from replicator.model import Owner, Stream

Identify = Callable[[Stream], Awaitable[S3Credentials | None]]


class Tombstones:
    """The tombstones of one store.

    :param identify: gives the identity of a stream at its destination.
    """

    def __init__(self, store: Store, identify: Identify) -> None:
        self._store = store
        self._identify = identify

    async def save_tombstone(self, record: StreamRecord, last: int | None = None) -> None:
        """Record the owner of the replica.

        :param last: the last transaction, if all are uploaded.
        """
        await self._store.save_tombstone(
            Tombstone(
                destination=await _key(record.stream),
                name=record.name,
                owner=record.stream.owner,
                generation=record.generation,
                last_txid=format_txid(last) if last else None,
                removed_at=datetime.now(UTC),
            )
        )

    async def save_taken_over(self, stream: Stream, claim: Claim, generation: int) -> None:
        """Let the former owner's stream begin a generation at the destination of `stream`.

        :param claim: names that stream; without an owner in it, the next stream that is declared there may begin.
        """
        owner = Owner(urn=claim.owner) if claim.owner else None
        await self._store.save_tombstone(
            Tombstone(
                destination=await _key(stream),
                name=claim.stream,
                owner=owner,
                for_anyone=owner is None,
                generation=generation,
                removed_at=datetime.now(UTC),
            )
        )

    async def find(self, stream: Stream) -> Tombstone | None:
        """Return the tombstone of the stream's destination; one of version 1 may belong to another store."""
        return self._store.tombstone(await _key(stream)) or self._store.tombstone(_key_of_version_1(stream))

    async def delete_tombstone(self, stream: Stream, found: Tombstone | None = None) -> None:
        """Remove the tombstone of the destination that this stream writes to, or has purged.

        :param found: the result of `returning`.
        """
        for key in dict.fromkeys([await _key(stream), *([found.destination] if found else [])]):
            if self._store.tombstone(key) is not None:
                await self._store.delete_tombstone(key)

    async def returning(self, stream: Stream) -> Tombstone | None:
        """Return the tombstone that the stream continues, or `None` if it begins at an empty destination.

        Raise `DestinationInUse` where the destination holds data that this caller may not continue.
        """
        tombstone = await self.find(stream)
        if tombstone is None:
            preflight.refuse_objects(stream, parse_location(stream), await self._contents(stream))
            return None
        may = tombstone.for_anyone or _may_come_back(stream.owner, tombstone.owner)
        unsure = await _is_unsure(stream, tombstone)
        if may and not unsure and tombstone.last_txid is None:
            return tombstone  # an interrupted upload may or may not have arrived
        if not (await self._contents(stream)).objects:
            if unsure or (not may and tombstone.last_txid is None):
                return None
            if may:
                return tombstone
        newest = (await self._contents(stream, tombstone.generation)).newest_txid
        untouched = newest is not None and format_txid(newest) == tombstone.last_txid
        if may and untouched:
            return tombstone
        raise _refusal(stream, tombstone, newest, unsure=unsure and not untouched, may=may)

    async def _contents(self, stream: Stream, generation: int = 1) -> PrefixContents:
        return await preflight.contents(stream, place_of(stream, generation), await self._identify(stream))


def _may_come_back(caller: Owner | None, left: Owner | None) -> bool:
    """Tell whether a caller may continue the replica of `left`. An operator has no identity, and may."""
    if caller is None or left is None:
        return caller is None
    return caller.urn == left.urn or caller.owns(left)


async def _key(stream: Stream) -> str:
    return await asyncio.to_thread(lambda: str(Look().at(stream.destination.uri)))


def _key_of_version_1(stream: Stream) -> str:
    return stream.destination.uri.partition("?")[0].rstrip("/")


async def _is_unsure(stream: Stream, tombstone: Tombstone) -> bool:
    """Tell whether the tombstone may belong to another destination: version 1 names no store, and keeps links."""
    if tombstone.version == FORMAT:
        return False
    return not tombstone.destination.startswith(FILES) or tombstone.destination != await _key(stream)


def _refusal(stream: Stream, tombstone: Tombstone, newest: int | None, *, unsure: bool, may: bool) -> DestinationInUse:
    place, name = parse_location(stream), tombstone.name
    found = "unknown" if newest is None else format_txid(newest)
    if unsure:
        text = (
            f"{place} holds a replica, and the agent cannot tell whether it is that of the removed stream {name!r}: "
            f"release 0.1 did not record its store, and the newest transaction is {found}, "
            f"not {tombstone.last_txid or 'known for that stream'}"
        )
    elif not may:
        whose = f" of {tombstone.owner.urn}" if tombstone.owner else ", which no resource managed"
        text = f"{place} holds the replica of the removed stream {name!r}{whose}"
    else:
        text = (
            f"{place} was written to since stream {name!r} was removed: its newest transaction is "
            f"{found}, and that stream's last one was {tombstone.last_txid}"
        )
    return DestinationInUse(
        text,
        stream=stream.name,
        property="destination.uri",
        fix="choose another prefix, or delete that replica first",
    )
