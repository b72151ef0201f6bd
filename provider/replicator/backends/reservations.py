"""What each stream of a backend reads and writes, reserved in one step with the check that nothing else does.

A record reserves what its stream reads and writes. A change that is under way reserves more: what it will record. Of
two starts at once that exclude each other, the second one is refused before it does anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Container, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from replicator.backends.identity import Identity, Look
from replicator.errors import DestinationInUse, EngineUnavailable
from replicator.model import Stream

_LOOK_WITHIN = 30.0  # seconds, of which most are for the looks of other starts; a mount may never answer


class Ends(NamedTuple):
    """Where a stream reads and writes, as URIs; `None` where a damaged record does not tell."""

    name: str
    source: str | None
    destination: str | None

    @classmethod
    def of(cls, stream: Stream) -> Ends:
        """Return the ends of a declaration."""
        return cls(stream.name, stream.source.uri, stream.destination.uri)


@dataclass(frozen=True, slots=True)
class Footprint:
    """The places that belong to a stream at this moment.

    :param source: only where two streams may not share it.
    :param private: folders of the engine's own that no stream may write to.
    """

    ends: Ends
    destination: Identity | None
    source: Identity | None = None
    private: tuple[Identity, ...] = ()

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.ends.name


class Reservations:
    """The reserved places of one engine. A backend with rules of its own overrides the three hooks.

    :param others: gives the ends of every stream that has what it wants, such as those with a record.
    """

    def __init__(self, others: Callable[[], Iterable[Ends]]) -> None:
        self._others = others
        self._held: list[Ends] = []
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def hold(self, stream: Stream) -> AsyncIterator[None]:
        """Reserve the stream's ends inside the block, which makes or changes it and writes its record.

        Raise what `refuse` raises. The caller holds the stream's own lock.
        """
        ends = Ends.of(stream)
        async with _answer_of_the_disk(stream), self._turn:  # no start comes between the check and the claim
            await asyncio.to_thread(self._compare, ends, self._but(ends))
            self._held.append(ends)
        try:
            yield
        finally:
            self._held.remove(ends)

    async def check(self, stream: Stream, *, replaces: Container[str] = ()) -> None:
        """Raise what `refuse` raises, and reserve nothing.

        :param replaces: streams that are removed before this one is made.
        """
        ends = Ends.of(stream)
        async with _answer_of_the_disk(stream):
            await asyncio.to_thread(self._compare, ends, self._but(ends, replaces))

    def refuse(self, stream: Stream) -> None:
        """Raise where a place of the stream may not be used, or belongs to another stream.

        For a caller that does not wait between this and its effect. It looks at the disk.
        """
        ends = Ends.of(stream)
        self._compare(ends, self._but(ends))

    def _but(self, ends: Ends, replaces: Container[str] = ()) -> list[Ends]:
        """What the other streams have, taken in the event loop, which is where it changes."""
        return [
            other
            for other in dict.fromkeys([*self._others(), *self._held])
            if other.name != ends.name and other.name not in replaces
        ]

    def _compare(self, ends: Ends, others: list[Ends]) -> None:
        look = Look()
        mine = self.footprint(ends, look)
        self.refuse_alone(mine)
        for other in others:
            self.refuse_both(mine, self.footprint(other, look))

    # --- the rules of a backend --------------------------------------------------------------------------------------

    def footprint(self, ends: Ends, look: Look) -> Footprint:
        """Return the places of a stream."""
        return Footprint(ends, look.at(ends.destination) if ends.destination else None)

    def refuse_alone(self, mine: Footprint) -> None:
        """Raise where the stream may not have its places, whatever other streams there are."""

    def refuse_both(self, mine: Footprint, theirs: Footprint) -> None:
        """Raise where two streams exclude each other; the base: where one writes where the other one does."""
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
