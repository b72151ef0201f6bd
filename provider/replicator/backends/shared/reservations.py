"""Reservations of what each stream of a backend reads and writes, atomic with the check for conflicts.

A record reserves what its stream reads and writes. A change in progress also reserves what it will record. Of two
concurrent changes that exclude each other, the second one is refused before it has any effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from replicator.backends.shared.identity import Identity, Look, Sight
from replicator.backends.shared.occupied import Occupied
from replicator.errors import DestinationInUse, EngineUnavailable
from replicator.model import Stream

_LOOK_WITHIN = 30.0  # seconds, mostly for the lookups of other changes; a mount may never answer


class Ends(NamedTuple):
    """The URIs that a stream reads and writes; `None` if a damaged record does not tell."""

    name: str
    source: str | None
    destination: str | None

    @classmethod
    def of(cls, stream: Stream) -> Ends:
        """Return the ends of a declaration."""
        return cls(stream.name, stream.source.uri, stream.destination.uri)


@dataclass(frozen=True, slots=True)
class Footprint:
    """The places that belong to a stream now.

    :param source: only if two streams may not share it.
    :param private: the engine's own folders, which no stream may write to.
    """

    ends: Ends
    destination: Identity | None
    source: Identity | None = None
    private: tuple[Identity, ...] = ()

    @property
    def name(self) -> str:
        """Return the stream's name."""
        return self.ends.name

    @property
    def places(self) -> Iterator[Identity]:
        """Yield all of them."""
        yield from self.private
        for place in (self.destination, self.source):
            if place is not None:
                yield place


class Reservations:
    """The reserved places of one engine. A backend with rules of its own overrides the three hooks.

    :param others: returns the ends of every stream that holds its places, such as those with a record. A backend
        without records uses `keep` and `drop` instead.
    """

    def __init__(self, others: Callable[[], Iterable[Ends]] = tuple) -> None:
        self._others = others
        self._recorded: set[Ends] = set()
        self._occupied = Occupied(self.footprint)

    @asynccontextmanager
    async def hold(self, stream: Stream) -> AsyncIterator[None]:
        """Reserve the stream's ends inside the block, which creates or changes it and writes its record.

        Raise what `refuse` raises. The caller holds the stream's own lock.
        """
        ends = Ends.of(stream)
        computed = await self._see(stream, ends)  # nothing comes between the check and the claim
        self._compare(computed[0])
        self._occupied.add(ends, computed)
        try:
            yield
        finally:
            self._sync()  # what the block recorded stays reserved
            self._occupied.drop(ends)

    async def check(self, stream: Stream, *, replaces: Container[str] = ()) -> None:
        """Raise what `refuse` raises, and reserve nothing.

        :param replaces: streams that are removed before this one is created.
        """
        self._compare((await self._see(stream, Ends.of(stream)))[0], replaces)

    def refuse(self, stream: Stream) -> None:
        """Raise if a place of the stream may not be used, or belongs to another stream.

        For callers that do not wait between this and their effect. Reads the disk.
        """
        self._sync()
        self._compare(self._occupied.visit_now(Ends.of(stream))[0])

    def keep(self, stream: Stream) -> None:
        """Reserve a stream's places from now on."""
        self._occupied.add(Ends.of(stream))

    def drop(self, stream: Stream) -> None:
        """Release what `keep` reserved."""
        self._occupied.drop(Ends.of(stream))

    async def _see(self, stream: Stream, ends: Ends) -> tuple[Footprint, dict[str, Sight | None]]:
        """Survey the places of all streams."""
        async with _answer_of_the_disk(stream):
            self._sync()
            computed = await self._occupied.visit(ends)
        self._sync()
        self._occupied.see_due()  # of streams that were added during the survey
        return computed

    def _sync(self) -> None:
        now = set(self._others())
        for ends in now - self._recorded:
            self._occupied.add(ends)
        for ends in self._recorded - now:
            self._occupied.drop(ends)
        self._recorded = now

    def _compare(self, mine: Footprint, replaces: Container[str] = ()) -> None:
        self.refuse_alone(mine)
        for theirs in sorted(self._occupied.near(mine), key=lambda other: other.name):
            if theirs.name != mine.name and theirs.name not in replaces:
                self.refuse_both(mine, theirs)

    # --- the rules of a backend --------------------------------------------------------------------------------------

    def footprint(self, ends: Ends, look: Look) -> Footprint:
        """Return the places of a stream."""
        return Footprint(ends, look.at(ends.destination) if ends.destination else None)

    def refuse_alone(self, mine: Footprint) -> None:
        """Raise if the stream may not have its places, regardless of other streams."""

    def refuse_both(self, mine: Footprint, theirs: Footprint) -> None:
        """Raise if two streams exclude each other; by default, if both write to the same place."""
        if mine.destination and theirs.destination and mine.destination.overlaps(theirs.destination):
            raise DestinationInUse(
                f"stream {theirs.name!r} writes to {(theirs.ends.destination or '').partition('?')[0]}",
                stream=mine.name,
                property="destination.uri",
                fix="give each stream a destination of its own; two writers on one leave neither restorable",
            )


@asynccontextmanager
async def _answer_of_the_disk(stream: Stream) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_LOOK_WITHIN):
            yield
    except TimeoutError:
        raise EngineUnavailable(
            f"the folders of the streams did not answer within {_LOOK_WITHIN:g} s",
            stream=stream.name,
            fix="find the mount of this host whose server is away, and run the command again when it is back",
        ) from None
