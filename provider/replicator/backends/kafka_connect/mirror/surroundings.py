"""The other mirrors around one stream, and the decision between two streams that are created at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from replicator.backends.kafka_connect.mirror.foreign_mirrors import ForeignMirrors
from replicator.backends.kafka_connect.mirror.peer_clusters import Look, Mirrors, PeerClusters
from replicator.backends.kafka_connect.mirror.routes import Route, refuse_circle, refuse_overlap
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.kafka_connect.reservations import PendingChanges
from replicator.errors import DestinationInUse, EngineUnavailable, InvalidStream
from replicator.model import Stream
from replicator.progress import tell
from replicator.replicator import Finding, Severity

_LISTED_WITHIN = 30.0
"""Seconds in which a worker lists a new connector."""
_GIVEN_UP_WITHIN = 15.0
"""Seconds in which a losing claim is removed."""
_EVERY = 0.2


class Surroundings:
    """Reads all mirrors that a new or changed mirror could conflict with. Changes nothing.

    :param claims: of this process, in all Connect clusters.
    """

    def __init__(self, here: Mirrors, peers: PeerClusters, claims: PendingChanges) -> None:
        self._here = here
        self._peers = peers
        self._claims = claims

    async def lately(self, stream: Stream, claimed: Iterable[StreamRecord]) -> list[Route]:
        """Return the other mirrors in recent listings, and the claimed ones.

        :param claimed: by other streams that this process is changing.
        """
        elsewhere, _ = await self._peers.look()
        found = _others(stream, await self._here.recent(), elsewhere)
        routes = [*found, *map(Route.of, claimed)]
        return [route for route in routes if not self._claims.is_removed(route.owner)]

    async def doubts(self, mine: StreamRecord) -> list[Finding]:
        """Return warnings about unknown mirrors that may copy the same topics, or copy them back."""
        elsewhere, errors = await self._peers.look()
        texts = [
            (error.code, f"whether a mirror elsewhere brings back what this one copies is unknown: {error.message}")
            for error in errors
        ]
        route = Route.of(mine)
        for look in (await self._here.recent(), *elsewhere):
            doubts = await asyncio.to_thread(_doubts, route, look.foreign)
            texts += [(DestinationInUse.code, text) for text in doubts]
        return [Finding(severity=Severity.WARNING, code=code, message=text) for code, text in texts]

    async def win(self, mine: StreamRecord) -> frozenset[str]:
        """Wait until a claim, a stopped connector with its record, may become a running mirror.

        Return the names of all connectors that are listed with it.

        A Connect cluster's log has one order, so of two claims the later one is listed with the earlier one. A settled
        mirror wins; of two unsettled ones, the one of smaller rank, once the other one is removed.

        :raises DestinationInUse: another mirror writes the same topics; remove the claim.
        :raises InvalidStream: its records would return to its source; remove the claim.
        """
        route, until = Route.of(mine), time.monotonic() + _GIVEN_UP_WITHIN
        while True:
            others, listed = await self._now(mine.stream)
            stronger = [other for other in others if other.settled or other.rank < route.rank]
            await asyncio.to_thread(_refuse, route, stronger)
            try:
                await asyncio.to_thread(_refuse, route, others)
            except (DestinationInUse, InvalidStream):
                if time.monotonic() > until:
                    raise
            else:
                return listed
            await asyncio.sleep(_EVERY)

    async def _now(self, stream: Stream) -> tuple[list[Route], frozenset[str]]:
        """Return the other mirrors, and all connectors here, from a listing that has this one."""
        until = time.monotonic() + _LISTED_WITHIN
        tell(f"waiting for connector {stream.name!r} to be listed")
        while stream.name not in (look := await self._here.next()).connectors:
            if time.monotonic() > until:
                raise EngineUnavailable(f"no worker lists the connector after {_LISTED_WITHIN:g} s", stream=stream.name)
        return _others(stream, look, await self._peers.look_again()), look.connectors


def _refuse(mine: Route, others: Sequence[Route]) -> None:
    refuse_overlap(mine, others, None)
    refuse_circle(mine, others, None)


def _doubts(mine: Route, foreign: ForeignMirrors) -> list[str]:
    found = [
        f"connector {name!r}, without a record that can be read, copies topics that cannot be told: {why}"
        for name, why in foreign.unknown.items()
    ]
    for other in foreign.routes:
        if other.source.id is None and not other.source.is_at(mine.destination):
            try:
                refuse_circle(mine, [replace(other, source=mine.destination)], None)
            except InvalidStream as error:
                found.append(
                    f"which cluster answers at {other.source.bootstrap} is unknown; if it is this destination, "
                    f"{error.message}"
                )
    return found


def _others(stream: Stream, here: Look, elsewhere: Iterable[Look]) -> list[Route]:
    """Return all routes but the stream's own, which a peer also has if its address leads to this cluster."""
    found = [route for route in (*here.routes, *here.foreign.routes) if route.name != stream.name]
    known: dict[str, list[Route]] = {}
    for route in found:
        known.setdefault(route.name, []).append(route)
    for look in elsewhere:
        for route in (*look.routes, *look.foreign.routes):
            if not _is_the_same(route, stream) and route not in (same := known.setdefault(route.name, [])):
                same.append(route)
                found.append(route)
    return found


def _is_the_same(other: Route, stream: Stream) -> bool:
    """Tell whether a peer's mirror is this one: both addresses lead to one Connect cluster, or it moves from there."""
    urns = [owner.urn if owner else None for owner in (other.owner, stream.owner)]
    return other.declared and other.name == stream.name and urns[0] == urns[1]
