"""The points to which a destination can be restored, over all generations of its replica."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from replicator.backends.sqlite import copies
from replicator.backends.sqlite.litestream import CommandLine, EngineError, LtxFile
from replicator.backends.sqlite.positions import Position
from replicator.backends.sqlite.replica import ReplicaLocation
from replicator.errors import ReplayNotRetained, ReplayRefused, ReplicatorError
from replicator.model import Checkpoint, format_time

_CLOCKS_DIFFER = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Found:
    """A point that can be restored.

    :param size: the bytes that a restore reads.
    """

    position: Position
    size: int


class History:
    """What a destination retains. It is listed once.

    :param base: the location of the first generation.
    :param generations: those that may be there, oldest first.
    :param time_of: returns the exact time at the end of a file, or `None` where it is not known.
    :param meaning: returns the error for a text of the engine.
    :param stream: its name, for errors.
    """

    def __init__(
        self,
        command: CommandLine,
        base: ReplicaLocation,
        generations: Sequence[int],
        *,
        time_of: Callable[[int, LtxFile], Awaitable[datetime | None]],
        meaning: Callable[[str], ReplicatorError],
        stream: str | None,
    ) -> None:
        self._command = command
        self._base = base
        self._generations = generations
        self._time_of = time_of
        self._meaning = meaning
        self._stream = stream
        self._listed: dict[int, list[LtxFile]] = {}

    async def points(self, generation: int) -> list[Position]:
        """Return the restorable points of one generation, oldest first."""
        return [Position(generation, txid) for txid in reachable(await self.files(generation))]

    async def all_points(self) -> list[Position]:
        """Return the restorable points of all generations, oldest first."""
        return [point for generation in self._generations for point in await self.points(generation)]

    async def last(self) -> Position | None:
        """Return the newest transaction, also if it cannot be restored."""
        for generation in reversed(self._generations):
            if files := await self.files(generation):
                return Position(generation, max(file.max_txid for file in files))
        return None

    async def files(self, generation: int) -> list[LtxFile]:
        """Return the transaction files of one generation."""
        if generation not in self._listed:
            try:
                self._listed[generation] = await self._command.ltx(self._url(generation))
            except EngineError as error:
                raise self._meaning(error.text) from error
        return self._listed[generation]

    async def checkpoint(self, point: Position) -> Checkpoint:
        """Return a restorable point with its time: in milliseconds if known, else in seconds."""
        file = reachable(await self.files(point.generation))[point.txid]
        exact = await self._time_of(point.generation, file)
        return Checkpoint(lsn=str(point), wall=exact or file.created)

    async def resolve(self, start: Checkpoint) -> Found:
        """Return the last point at or before a position or a time. Raise `ReplayNotRetained`."""
        if start.lsn is not None:
            return await self.at(Position.parse(start.lsn, self._stream), start)
        assert start.wall is not None
        if start.wall > datetime.now(UTC) + _CLOCKS_DIFFER:
            raise ReplayRefused("the time is in the future", stream=self._stream, property="start.wall")
        for generation in reversed(self._generations):
            if (found := await self._before(generation, start.wall)) is not None:
                return found
        raise await self._not_retained(start)

    async def at(self, point: Position, start: Checkpoint) -> Found:
        """Return a point of the engine's plan. Raise `ReplayNotRetained` for one that is not retained."""
        if point in await self.points(point.generation):
            found = await self._ask(point.generation, txid=point.txid)
            if found is not None:
                return found
        raise await self._not_retained(start)

    async def write(self, point: Position, work: copies.Work, *, integrity: str = "full") -> None:
        """Write the database at a point into the folder of a copy.

        :param integrity: SQLite's check that the engine runs: none, quick or full.
        """
        try:
            await self._command.restore(
                self._url(point.generation),
                Path(copies.NAME),
                txid=point.txid,
                integrity=integrity,
                folder=work.path,
            )
        except EngineError as error:
            raise self._meaning(error.text) from error

    async def _before(self, generation: int, wall: datetime) -> Found | None:
        """Return the last point of a generation at or before a time; `None` without one."""
        points = await self.points(generation)
        if not points:
            return None
        # The engine restores what is older than a time; a checkpoint's own time has to include it.
        found = await self._ask(generation, timestamp=wall + timedelta(milliseconds=1))
        if found is not None:
            place = points.index(found.position)
        else:
            # The engine refuses a time after the last change, though the database has not changed since.
            last = reachable(await self.files(generation))[points[-1].txid]
            place = len(points) - 1 if wall >= last.created else -1
        # The engine goes by what a bucket tells: the second in which a file was uploaded.
        while place + 1 < len(points) and await self._is_after(points[place + 1], wall) is False:
            place += 1
        while place >= 0 and await self._is_after(points[place], wall):
            place -= 1
        if place < 0:
            return None
        if found is not None and points[place] == found.position:
            return found
        return await self._ask(generation, txid=points[place].txid)

    async def _is_after(self, point: Position, wall: datetime) -> bool | None:
        """Tell whether a point is later than a time; `None` if its exact time is not known."""
        exact = await self._time_of(point.generation, reachable(await self.files(point.generation))[point.txid])
        return None if exact is None else exact > wall

    async def _ask(self, generation: int, **point: Any) -> Found | None:
        """Return what the engine would restore; `None` if it refuses the point, or if its end is not listed."""
        try:
            plan = await self._command.plan_restore(self._url(generation), **point)
        except EngineError as error:
            if "no matching backup" in error.text or "timestamp does not exist" in error.text:
                return None
            raise self._meaning(error.text) from error
        position = Position(generation, plan.max_txid)
        if position not in await self.points(generation):
            return None
        return Found(position, sum(file.size for file in plan.files))

    async def _not_retained(self, start: Checkpoint) -> ReplayNotRetained:
        wanted = start.lsn or (start.wall and f"{start.wall:%Y-%m-%dT%H:%M:%SZ}")
        points = await self.all_points()
        if not points:
            text = f"{wanted} is not retained, and neither is anything else there"
            return ReplayNotRetained(text, stream=self._stream)
        near = points[:1]
        if start.lsn is not None:
            position = Position.parse(start.lsn, self._stream)
            place = bisect_left(points, position)
            near = points[:place][-1:] + [point for point in points[place:] if point != position][:1]
        named = [await self.checkpoint(point) for point in near]
        texts = [f"{at.lsn} ({at.wall and format_time(at.wall)})" for at in named]
        return ReplayNotRetained(
            f"{wanted} is not retained; the nearest points are {' and '.join(texts)}",
            stream=self._stream,
            property="start",
            fix="start at one of them; agent run --replay-window says how long each transaction is kept",
        )

    def _url(self, generation: int) -> str:
        place = self._base if generation == 1 else self._base.child(f"r{generation}")
        return place.url_for_engine()


def reachable(files: Sequence[LtxFile]) -> dict[int, LtxFile]:
    """Return the transactions that can be restored, oldest first, each with the smallest file that ends there.

    A restore begins with the first transaction and has no gap.
    """
    ends: dict[int, LtxFile] = {}
    reached = 0
    for file in sorted(files, key=lambda file: (file.max_txid, file.level)):
        if file.min_txid <= reached + 1:
            ends.setdefault(file.max_txid, file)
            reached = file.max_txid
    return ends
